"""What a classic curriculum stage learns from: (anchor, positive, negatives), filtered and drawn without ever listing all rows.

A row is an anchor, a positive of its sector (relations 1 to 14) and a negative with both margins above 0. The margins of a row
depend on nothing but the relation of its positive and of its negative, so that every rule is a 15 x 16 table of relation pairs and
the 45 million rows stay uncounted. Every ordered pair of codes may be anchor and positive: a leaf's ancestors are among its
positives. Hidden codes take part in nothing. Pure numpy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from curricle.errors import ConfigError
from curricle.families.naics.config import Curriculum
from curricle.families.naics.prepare import NaicsTable
from curricle.families.naics.tree import EXCLUDED, RELATIONS, UNRELATED

CLASSES = np.array([EXCLUDED, *sorted(RELATIONS.values()), UNRELATED])
"""Relation ids by class 0 to 15."""

DISTANCES = np.zeros(16)
for _steps, _relation in RELATIONS.items():
    DISTANCES[_relation] = sum(_steps) - (0.5 if _steps[0] == 0 else 0)
DISTANCES[15] = UNRELATED

TOLERANCE = 1e-3
"""Margins in a filter may be written as 0.333 and 0.667."""

_CHUNK = 2048


def margins() -> tuple[np.ndarray, np.ndarray]:
    """(relation margin, distance margin), each float64 [16 positive classes, 16 negative classes]; no row exists where one is 0 or less.

    Differences of relation ids and of distances; a distance difference of 0 counts as 1/3 and of -0.5 as 2/3 where the relation
    margin is above 0; a negative in another sector has 15 and 10, an excluded one 0.1 and 0.1.
    """
    relation = (CLASSES[None, :] - CLASSES[:, None]).astype(np.float64)
    distance = DISTANCES[None, :] - DISTANCES[:, None]
    closer = relation > 0
    distance = np.where(closer & (distance == 0), 1 / 3, np.where(closer & (distance == -0.5), 2 / 3, distance))
    relation[:, 15], distance[:, 15] = 15, 10
    relation[:, 0], distance[:, 0] = 0.1, 0.1
    for positive in (0, 15):  # excluded and unrelated codes are never positives
        relation[positive], distance[positive] = 0, 0
    return relation, distance


RELATION_MARGIN, DISTANCE_MARGIN = margins()

_BOOST = np.where(np.arange(16) == 0, 1.0, 0.0)
DRAW_WEIGHT = np.where(
    (RELATION_MARGIN > 0) & (DISTANCE_MARGIN > 0),
    1 / np.maximum((RELATION_MARGIN + DISTANCE_MARGIN) / 2 + _BOOST, 1e-9),
    0.0,
)
"""float64 [16, 16]: weight of a negative in the draw, 1 / mean of the margins, those of an exclusion raised by 1 first."""


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
        blend = RELATION_MARGIN[own, kind] / 3 + DISTANCE_MARGIN[own, kind] * 2 / 3
        return np.where(self.candidates(rows), 1 / np.maximum(blend, 1e-9), 0.0)


def sample(table: NaicsTable, curriculum: Curriculum, seed: int) -> Triplets:
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

    kind: np.ndarray
    """int8 [N, N]: relation class of the column's code as seen from the row's; the diagonal is an excluded one that no mask lets in."""
    pairs: np.ndarray
    """bool [N, N]: (anchor, positive) that may have rows."""
    negative: np.ndarray
    """bool [N]: codes that may be negatives."""
    allowed: np.ndarray
    """bool [16, 16]: relation class of the positive, of the negative."""

    def weights(self, anchors: np.ndarray, positives: np.ndarray) -> np.ndarray:
        """float64 [B, N]: draw weight of every code as negative of these pairs; 0 where it is none."""
        kind = self.kind[anchors]
        own = self.kind[anchors, positives][:, None]
        weights = np.where(self.allowed, DRAW_WEIGHT, 0.0)[own, kind] * self.negative
        weights[np.arange(len(anchors)), anchors] = 0
        return weights

    def settle(self) -> np.ndarray:
        """Drop the pairs that have no negative left; int64 [pairs]: rows of each pair that stays."""
        counts = np.zeros((len(self.kind), 16), dtype=np.int64)
        open_to = np.broadcast_to(self.negative, self.kind.shape) & ~np.eye(len(self.kind), dtype=bool)
        for k in range(16):
            counts[:, k] = ((self.kind == k) & open_to).sum(1)
        anchors, positives = np.nonzero(self.pairs)
        per_class = counts @ self.allowed.T.astype(np.int64)
        rows = per_class[anchors, self.kind[anchors, positives]]
        self.pairs[anchors[rows == 0], positives[rows == 0]] = False
        return rows[rows > 0]


def _apply(table: NaicsTable, curriculum: Curriculum) -> _Rules:
    """Apply the filters one by one; ConfigError for the first that leaves nothing."""
    rules = _everything(table)
    left = [_survivors("none", rules)]
    level = table.level
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
            rules.allowed &= _member(CLASSES if name == "positive_relation" else DISTANCES, wanted)[:, None]
        elif name in ("negative_relation", "negative_distance"):
            rules.allowed &= _member(CLASSES if name == "negative_relation" else DISTANCES, wanted)[None, :]
        else:
            rules.allowed &= _member(RELATION_MARGIN if name == "relation_margin" else DISTANCE_MARGIN, wanted)
        left.append(_survivors(name, rules))
        if not left[-1].pairs:
            earlier = (
                ", ".join(f"{s.filter} {list(getattr(curriculum, s.filter))}" for s in left[1:-1]) or "no other filter"
            )
            raise ConfigError(
                f"curriculum {curriculum.name!r}: {name} {list(wanted)} leaves no triplet of {left[-2].rows} "
                f"({left[-2].pairs} pairs of {left[-2].anchors} anchors) that were left after {earlier}; "
                "values are matched one by one, not as ranges; widen it or drop it (null)"
            )
    return rules


def _everything(table: NaicsTable) -> _Rules:
    every = np.arange(len(table.codes))
    relation = table.tree.relation(every[:, None], every[None, :])
    kind = np.where(relation == UNRELATED, 15, np.maximum(relation, 0)).astype(np.int8)
    kind[table.excluded_mask] = 0
    shown = ~table.cold
    pairs = (kind > 0) & (kind < 15) & shown[:, None] & shown[None, :]
    return _Rules(kind, pairs, shown.copy(), DRAW_WEIGHT > 0)


def _survivors(name: str, rules: _Rules) -> _Survivors:
    rows = rules.settle()
    return _Survivors(name, int(rules.pairs.any(1).sum()), len(rows), int(rows.sum()))


def _member(values: np.ndarray, wanted: Sequence[float]) -> np.ndarray:
    apart = np.abs(np.asarray(values, dtype=np.float64)[..., None] - np.asarray(wanted, dtype=np.float64))
    return np.any(apart < TOLERANCE, axis=-1)
