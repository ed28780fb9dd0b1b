"""What a classic curriculum stage learns from: (anchor, positive, negatives), filtered and drawn without ever listing all rows.

A row is an anchor, a positive under its root and a negative with both margins above 0. The margins of a row
depend on nothing but the relation of its positive and of its negative, so that every rule is a table of pairs of relations (16 x 16 for trees of up to
five levels) and the 45 million rows of NAICS stay uncounted. Every ordered pair of codes may be anchor and positive: a leaf's ancestors are among its
positives. Hidden codes take part in nothing. Pure numpy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache

import numpy as np

from curricle.errors import ConfigError
from curricle.families.codes.config import Curriculum
from curricle.families.codes.prepare import CodeTable
from curricle.families.codes.tree import EXCLUDED, STEPS, UNRELATED, relations

TOLERANCE = 1e-3
"""Margins in a filter may be written as 0.333 and 0.667."""

_CHUNK = 2048


@dataclass(frozen=True)
class Scheme:
    """The numbers of a tree's relations, by class: 0 an exclusion, then the relations in order of id, the last one unrelated codes."""

    classes: np.ndarray
    """Relation id of each class."""
    distances: np.ndarray
    """Classic distance of each class."""
    relation_margin: np.ndarray
    distance_margin: np.ndarray
    """float64 [positive classes, negative classes]; no row exists where one of the two is 0 or less."""
    draw_weight: np.ndarray
    """As the margins: weight of a negative in the draw, 1 / mean of the margins, those of an exclusion raised by 1 first."""


@cache
def scheme(steps: int) -> Scheme:
    """The scheme of a tree of ``steps + 1`` levels, for five at least.

    Margins are differences of relation ids and of distances; a distance difference of 0 counts as 1/3 and of -0.5 as 2/3 where the relation
    margin is above 0; a negative under another root has one more than the last relation's id, and 2 more than the largest distance (15 and 10 with five levels), an
    excluded one 0.1 and 0.1.
    """
    known = sorted(relations(max(STEPS, steps)).items(), key=lambda item: item[1])
    classes = np.array([EXCLUDED, *(relation for _, relation in known), UNRELATED])
    distances = np.array([0.0, *(sum(s) - (0.5 if s[0] == 0 else 0) for s, _ in known), UNRELATED])
    relation = (classes[None, :] - classes[:, None]).astype(np.float64)
    distance = distances[None, :] - distances[:, None]
    closer = relation > 0
    distance = np.where(closer & (distance == 0), 1 / 3, np.where(closer & (distance == -0.5), 2 / 3, distance))
    relation[:, -1], distance[:, -1] = classes[-2] + 1, distances[1:-1].max() + 2
    relation[:, 0], distance[:, 0] = 0.1, 0.1
    for positive in (0, -1):  # excluded and unrelated codes are never positives
        relation[positive], distance[positive] = 0, 0
    boost = np.where(np.arange(len(classes)) == 0, 1.0, 0.0)
    weight = np.where((relation > 0) & (distance > 0), 1 / np.maximum((relation + distance) / 2 + boost, 1e-9), 0.0)
    return Scheme(classes, distances, relation, distance, weight)


@dataclass(frozen=True)
class _Survivors:
    """How much is left after a filter: distinct anchors, (anchor, positive) pairs, rows."""

    filter: str
    anchors: int
    pairs: int
    rows: int


@dataclass(frozen=True)
class Triplets:
    """The sample of one stage, sorted by anchor, then positive.

    `negatives` is int64 [P, K] with -1 where a pair has fewer than K; None where the curriculum takes all of them: ask `candidates`.
    """

    anchors: np.ndarray
    positives: np.ndarray
    negatives: np.ndarray | None
    _rules: _Rules = field(repr=False)

    def __len__(self) -> int:
        return len(self.anchors)

    def candidates(self, rows: np.ndarray | slice) -> np.ndarray:
        """bool [B, N]: every admissible negative of these pairs, before any draw."""
        return self._rules.weights(self.anchors[rows], self.positives[rows]) > 0

    def weight(self, rows: np.ndarray | slice) -> np.ndarray:
        """float64 [B, N]: a row's own weight, 1 / (relation margin / 3 + 2 distance margin / 3); 0 where there is no such row."""
        anchors, positives = self.anchors[rows], self.positives[rows]
        kind = self._rules.kind[anchors]
        own = np.take_along_axis(kind, positives[:, None], 1)
        numbers = self._rules.scheme
        blend = numbers.relation_margin[own, kind] / 3 + numbers.distance_margin[own, kind] * 2 / 3
        return np.where(self.candidates(rows), 1 / np.maximum(blend, 1e-9), 0.0)


def sample(table: CodeTable, curriculum: Curriculum, seed: int) -> Triplets:
    """Draw the stage's triplets: at most `n_positives` positives an anchor, uniformly; at most `n_negatives` negatives a pair, without
    replacement by weight. The same seed gives the same sample.

    Raises:
        ConfigError: the filters leave nothing; names the one that left nothing first.
    """
    rules = _apply(table, curriculum)
    anchors, positives = np.nonzero(rules.pairs)
    rng = np.random.default_rng([seed, 2])
    if curriculum.n_positives != "all":
        order = np.lexsort((rng.random(len(anchors)), anchors))
        first = np.searchsorted(anchors, anchors)  # anchors are sorted: position of each one's first pair
        keep = np.sort(order[np.arange(len(order)) - first < curriculum.n_positives])
        anchors, positives = anchors[keep], positives[keep]
    negatives = (
        None if curriculum.n_negatives == "all" else _draw(rules, anchors, positives, curriculum.n_negatives, rng)
    )
    return Triplets(anchors, positives, negatives, rules)


def _draw(
    rules: _Rules, anchors: np.ndarray, positives: np.ndarray, count: int, rng: np.random.Generator
) -> np.ndarray:
    """int64 [P, count]: weighted draws without replacement (the smallest of exponential variables with the weights as rates)."""
    width = min(count, rules.kind.shape[1])
    drawn = np.full((len(anchors), width), -1, dtype=np.int64)
    for start in range(0, len(anchors), _CHUNK):
        rows = slice(start, start + _CHUNK)
        weights = rules.weights(anchors[rows], positives[rows])
        keys = np.full(weights.shape, np.inf)
        np.divide(rng.standard_exponential(weights.shape), weights, out=keys, where=weights > 0)
        if width < weights.shape[1]:
            best = np.argpartition(keys, width - 1, axis=1)[:, :width]
        else:
            best = np.broadcast_to(np.arange(width), (len(keys), width))
        values = np.take_along_axis(keys, best, 1)
        order = np.argsort(values, axis=1, kind="stable")
        best, values = np.take_along_axis(best, order, 1), np.take_along_axis(values, order, 1)
        drawn[rows] = np.where(np.isfinite(values), best, -1)
    used = (drawn >= 0).any(0)
    return drawn[:, used]


@dataclass
class _Rules:
    """The state of filtering: which pairs, which negatives, which relation pairs are still in."""

    scheme: Scheme
    kind: np.ndarray
    """int16 [N, N]: relation class of the column's code as seen from the row's; the diagonal is an excluded one that no mask lets in."""
    pairs: np.ndarray
    """bool [N, N]: (anchor, positive) that may have rows."""
    negative: np.ndarray
    """bool [N]: codes that may be negatives."""
    allowed: np.ndarray
    """bool [classes, classes]: relation class of the positive, of the negative."""

    def weights(self, anchors: np.ndarray, positives: np.ndarray) -> np.ndarray:
        """float64 [B, N]: draw weight of every code as negative of these pairs; 0 where it is none."""
        kind = self.kind[anchors]
        own = self.kind[anchors, positives][:, None]
        weights = np.where(self.allowed, self.scheme.draw_weight, 0.0)[own, kind] * self.negative
        weights[np.arange(len(anchors)), anchors] = 0
        return weights

    def settle(self) -> np.ndarray:
        """Drop the pairs that have no negative left; int64 [pairs]: rows of each pair that stays."""
        counts = np.zeros((len(self.kind), len(self.allowed)), dtype=np.int64)
        open_to = np.broadcast_to(self.negative, self.kind.shape) & ~np.eye(len(self.kind), dtype=bool)
        for k in range(len(self.allowed)):
            counts[:, k] = ((self.kind == k) & open_to).sum(1)
        anchors, positives = np.nonzero(self.pairs)
        per_class = counts @ self.allowed.T.astype(np.int64)
        rows = per_class[anchors, self.kind[anchors, positives]]
        self.pairs[anchors[rows == 0], positives[rows == 0]] = False
        return rows[rows > 0]


def _apply(table: CodeTable, curriculum: Curriculum) -> _Rules:
    """Apply the filters one by one; ConfigError for the first that leaves nothing."""
    rules = _everything(table)
    left = [_survivors("none", rules)]
    level, numbers = table.level, rules.scheme
    for name in (
        "anchor_level", "positive_level", "positive_relation", "positive_distance", "negative_level", "negative_relation",
        "negative_distance", "relation_margin", "distance_margin",
    ):  # fmt: skip
        wanted = getattr(curriculum, name)
        if wanted is None:
            continue
        if name == "anchor_level":
            rules.pairs &= _member(level, wanted)[:, None]
        elif name == "positive_level":
            rules.pairs &= _member(level, wanted)[None, :]
        elif name == "negative_level":
            rules.negative &= _member(level, wanted)
        elif name in ("positive_relation", "positive_distance"):
            rules.allowed &= _member(numbers.classes if name == "positive_relation" else numbers.distances, wanted)[
                :, None
            ]
        elif name in ("negative_relation", "negative_distance"):
            rules.allowed &= _member(numbers.classes if name == "negative_relation" else numbers.distances, wanted)[
                None, :
            ]
        else:
            margin = numbers.relation_margin if name == "relation_margin" else numbers.distance_margin
            rules.allowed &= _member(margin, wanted)
        left.append(_survivors(name, rules))
        if not left[-1].pairs:
            earlier = (
                ", ".join(f"{s.filter} {list(getattr(curriculum, s.filter))}" for s in left[1:-1]) or "no other filter"
            )
            levels = f"; the levels here are {', '.join(map(str, table.tree.levels))}" if name.endswith("level") else ""
            raise ConfigError(
                f"curriculum {curriculum.name!r}: {name} {list(wanted)} leaves no triplet of {left[-2].rows} "
                f"({left[-2].pairs} pairs of {left[-2].anchors} anchors) that were left after {earlier}; "
                f"values are matched one by one, not as ranges; widen it or drop it (null){levels}"
            )
    return rules


def _everything(table: CodeTable) -> _Rules:
    every = np.arange(len(table.codes))
    relation = table.tree.relation(every[:, None], every[None, :])
    numbers = scheme(len(table.tree.levels) - 1)
    last = len(numbers.classes) - 1
    place = np.zeros(max(numbers.classes.max(), UNRELATED) + 1, dtype=np.int16)
    place[numbers.classes] = np.arange(last + 1)
    kind = place[np.maximum(relation, 0)]
    kind[table.excluded_mask] = 0
    shown = ~table.cold
    pairs = (kind > 0) & (kind < last) & shown[:, None] & shown[None, :]
    return _Rules(numbers, kind, pairs, shown.copy(), numbers.draw_weight > 0)


def _survivors(name: str, rules: _Rules) -> _Survivors:
    rows = rules.settle()
    return _Survivors(name, int(rules.pairs.any(1).sum()), len(rows), int(rows.sum()))


def _member(values: np.ndarray, wanted: Sequence[float]) -> np.ndarray:
    apart = np.abs(np.asarray(values, dtype=np.float64)[..., None] - np.asarray(wanted, dtype=np.float64))
    return np.any(apart < TOLERANCE, axis=-1)
