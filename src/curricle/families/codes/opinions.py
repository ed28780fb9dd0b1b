"""What a trained model and its training texts say of a text: one number a code and opinion, and a few signs of how sure one can be.

Owns the remembered training texts. How the opinions are weighed stands in `weighing`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np
from scipy import sparse

from curricle.families.codes.ngrams import Linear, NGrams, product, train_linear
from curricle.families.codes.prepare import CodeTable
from curricle.families.codes.texts import LabelledText

if TYPE_CHECKING:
    from curricle.families.codes.model_torch import TorchModel

OPINIONS = (
    "distance",
    "encoder",
    "direction",
    "ngrams",
    "linear",
    "encoder_described",
    "ngrams_described",
    "linear_above",
    "encoder_rank",
    "ngrams_rank",
    "ngrams_spread",
    "linear_spread",
)
"""Log-probability by the distance to the code; similarity of the nearest training text in the encoder's space, in the head's directions and
by n-grams; decision of the linear model over n-grams; similarity of the code's title or description, by encoder and by n-grams; decision of the linear
model for the code's ancestor on the second level. Then what some of these say of a code beside the other codes of the same text: its rank among them (`by_rank`), or its
distance from their mean in standard deviations (`by_spread`). A near text means less where all codes have one."""
JUDGES = 5
"""The first so many are opinions of their own: whether they agree is a sign."""
SIGNS = ("encoder", "direction", "ngrams", "known", "linear", "distance", "agreement")
"""Highest similarity of any training text in the three spaces, share of the text's n-grams that any training text holds, highest
decision of the linear model, highest log-probability, share of pairs of opinions with the same first code."""
DESCRIBING = ("title", "description")
REMEMBERED = 200_000
"""Training texts that are remembered at most; of more, each code keeps the same number, drawn with a fixed seed."""
CHUNK = 256
FEW_RUNS = 16
"""Of fewer runs it is quicker to go through one after the other."""


def leaf_texts(table: CodeTable) -> tuple[list[LabelledText], np.ndarray]:
    """Every text that may be known and belongs to one leaf alone, and that code's position among the leaves; sorted by it, what describes the code first.

    These are the training texts, and the titles and descriptions of hidden codes: a new code is known by them. There are at most
    `REMEMBERED`.
    """
    column = {int(code): i for i, code in enumerate(table.leaves)}
    sole = table.tree.sole_leaf
    known = [*table.split("train"), *(t for t in table.split("cold") if t.kind in DESCRIBING)]
    pairs = [(t, column[int(sole[table.tree.index[t.code]])]) for t in known if sole[table.tree.index[t.code]] >= 0]
    pairs.sort(key=lambda pair: (pair[1], pair[0].kind not in DESCRIBING))
    owners = np.array([leaf for _, leaf in pairs], dtype=np.int64)
    kept = evenly(owners, REMEMBERED)
    return [pairs[i][0] for i in kept], owners[kept]


def evenly(owners: np.ndarray, most: int) -> np.ndarray:
    """Positions of at most `most` of the owners' [n, ascending] texts, in order: all of them, or as many of each as there is room for."""
    if len(owners) <= most:
        return np.arange(len(owners))
    order = np.random.default_rng(0).permutation(len(owners))
    order = order[np.argsort(owners[order], kind="stable")]
    _, starts, counts = np.unique(owners, return_index=True, return_counts=True)
    place = np.arange(len(owners)) - np.repeat(starts, counts)
    """The number of each drawn text among its own code's."""
    allowed = int(np.searchsorted(np.cumsum(np.bincount(place)), most, side="right"))
    return np.sort(order[place < max(1, allowed)][:most])


FIRST = 3.0
"""What ranks begin at: so much that first and second place, which rounding may exchange, are not far apart."""


def by_rank(values: np.ndarray) -> np.ndarray:
    """``-log(FIRST + r)``, float32 [n, m], where r values of the row are higher; equal values have the same."""
    order = np.argsort(-values, axis=1)
    ordered = np.take_along_axis(values, order, 1)
    place = np.zeros(values.shape, dtype=np.int32)
    place[:, 1:] = np.where(ordered[:, 1:] != ordered[:, :-1], np.arange(1, values.shape[1], dtype=np.int32), 0)
    np.maximum.accumulate(place, axis=1, out=place)
    levels = -np.log(FIRST + np.arange(values.shape[1], dtype=np.float32))
    found = np.empty(values.shape, dtype=np.float32)
    np.put_along_axis(found, order, levels[place], 1)
    return found


def by_spread(values: np.ndarray) -> np.ndarray:
    """Each value's distance from its row's mean in standard deviations of the row, [n, m]."""
    away = values - values.mean(1, keepdims=True)
    return away / np.maximum(np.sqrt((away * away).mean(1, keepdims=True)), 1e-3)


class Groups:
    """The remembered texts by their leaves: each leaf has up to two runs of texts, of those that describe it and of the others.

    The texts are laid out for speed: first one text of each run, then a second one of each run that has two, and so on; what long runs still have after that stands at the end, run by run.

    Args:
        owners: [n] each text's leaf, ascending.
        described: bool [n], first those of a leaf that describe it.
    """

    def __init__(self, owners: np.ndarray, described: np.ndarray):
        turns = np.append(True, (np.diff(owners) != 0) | (np.diff(described) != 0))[: len(owners)]
        starts = np.flatnonzero(turns)
        lengths = np.diff(np.append(starts, len(owners)))
        longest = np.argsort(-lengths, kind="stable")
        starts, lengths = starts[longest], lengths[longest]
        self.leaves, self.described = owners[starts], described[starts]
        """Of each run, the longest first."""
        shared = int(lengths[FEW_RUNS - 1]) if len(lengths) >= FEW_RUNS else 0
        self.counts = (len(lengths) - np.searchsorted(lengths[::-1], np.arange(shared), side="right")).tolist()
        """How many runs have a first, a second ... text, as long as these are no few."""
        left = np.flatnonzero(lengths > len(self.counts))
        rest = [np.arange(starts[run] + len(self.counts), starts[run] + lengths[run]) for run in left]
        parts = [*(starts[:count] + turn for turn, count in enumerate(self.counts)), *rest]
        self.order = np.concatenate(parts) if parts else np.arange(0)
        """The places of the texts as they are laid out, [n]."""
        self.rest = np.cumsum([0, *map(len, rest)])[:-1] if rest else np.arange(0)
        """Where each of the longest runs goes on, counted from the first of those places."""

    def nearest(self, similarity: np.ndarray, leaves: int) -> tuple[np.ndarray, np.ndarray]:
        """The highest of similarities [n, memory] for each leaf, -1 where it has no text: (of all its texts, of those that describe it), [n, leaves]."""
        describing = np.full((len(similarity), leaves), -1.0, dtype=similarity.dtype)
        best, start = np.full((len(similarity), len(self.leaves)), -1.0, dtype=similarity.dtype), 0
        for count in self.counts:
            np.maximum(best[:, :count], similarity[:, start : start + count], out=best[:, :count])
            start += count
        if len(self.rest):
            longest = best[:, : len(self.rest)]
            np.maximum(longest, np.maximum.reduceat(similarity[:, start:], self.rest, axis=1), out=longest)
        describing[:, self.leaves[self.described]] = best[:, self.described]
        every, rest = describing.copy(), self.leaves[~self.described]
        every[:, rest] = np.maximum(every[:, rest], best[:, ~self.described])
        return every, describing


@dataclass(frozen=True)
class Opinions:
    """Of n texts."""

    values: np.ndarray
    """float32 [K, n, leaves], as `OPINIONS`."""
    signs: np.ndarray
    """float32 [n, 7], as `SIGNS`."""

    @classmethod
    def joined(cls, parts: list[Opinions]) -> Opinions:
        """One after the other."""
        return cls(np.concatenate([p.values for p in parts], 1), np.concatenate([p.signs for p in parts]))


class Nearness(NamedTuple):
    """Of n texts to the remembered ones."""

    spaces: tuple[np.ndarray, np.ndarray, np.ndarray]
    """Cosines [n, memory] by encoder, direction and n-grams."""
    distances: np.ndarray
    """Log-probabilities [n, leaves] by the distance to the codes."""
    direction: np.ndarray
    """Of the texts themselves, [n, dim]."""
    decisions: tuple[np.ndarray, np.ndarray]
    """Of the linear models for codes [n, leaves], and for their ancestors on the second level."""
    known: np.ndarray
    """Share of their n-grams' weight that any remembered text holds, [n]."""


class Asked(Protocol):
    """A trained model, as the memory asks it; arrays are float32."""

    def features(self, texts: list[str]) -> np.ndarray:
        """Of texts [n, width]."""

    def directions(self, features: np.ndarray) -> np.ndarray:
        """Of features: unit directions [n, dim]."""

    def distances(self, directions: np.ndarray) -> np.ndarray:
        """Log-probabilities [n, leaves] of the codes by their distance."""

    def cosines(self, vectors: np.ndarray, others: np.ndarray) -> np.ndarray:
        """Of unit vectors [n, width] with other ones [m, width], which do not change: [n, m]."""

    def product(self, rows: sparse.csr_matrix, table: sparse.csr_matrix) -> np.ndarray:
        """Of two sparse matrices of float32, [n, F] and [F, m], as a dense one; the second does not change."""


class Memory:
    """The training texts that a model remembers, and what they and the model say of other texts.

    Args:
        ask: the model to ask so many texts.
        kept: `tensors` of another one for the same model and data.
    """

    def __init__(self, table: CodeTable, ask: Callable[[int], Asked], kept: Mapping[str, np.ndarray]):
        self._remember(table)
        self.ask = ask
        self.features, self.directions, self.by_text = kept["features"], kept["directions"], kept["by_text"]
        names = tuple(bytes(kept["names"]).decode().split("\n")) if len(kept["names"]) else ()
        self.ngrams = NGrams(names, kept["rarity"], float(kept["unknown"][0]))

        def table_of(name: str, shape: tuple[int, int]) -> sparse.csr_matrix:
            return sparse.csr_matrix(tuple(kept[f"{name}.{part}"] for part in ("data", "indices", "indptr")), shape)

        self.grams = table_of("grams", (len(names), len(self.texts)))
        self.linear = Linear(table_of("linear", (len(names), len(self.leaves))), kept["bias"])
        self.above = Linear(table_of("above", (len(names), len(kept["above_bias"]))), kept["above_bias"])

    def _remember(self, table: CodeTable) -> None:
        self.table, self.leaves = table, table.leaves
        texts, owners = leaf_texts(table)
        described = np.array([t.kind in DESCRIBING for t in texts], dtype=bool)
        self.groups = Groups(owners, described)
        order = self.groups.order
        self.texts, self.owners, described = [texts[i].text for i in order], owners[order], described[order]
        self.bare = np.ones(len(self.leaves), dtype=bool)
        """Leaves that no labelled example was seen of."""
        self.bare[self.owners[~described]] = False
        cuts = table.tree.cuts
        self.kin = np.unique(cuts[self.leaves, min(1, cuts.shape[1] - 1)], return_inverse=True)[1]
        """Of each leaf: the number of its ancestor on the second level."""

    @classmethod
    def made(cls, model: TorchModel, cache: Path) -> Memory:
        """From the training texts."""
        self = cls.__new__(cls)
        self._remember(model.table)
        self.ask = lambda count: model
        self.features, self.by_text = model.known(self.texts, cache)
        self.directions = model.directions(self.features)
        self.ngrams = NGrams.of(self.texts)
        rows, _ = self.ngrams.rows(self.texts)
        self.grams = self.ngrams.telling(rows).T.tocsr()
        self.linear = train_linear(rows, self.owners, ~self.bare)
        flat = np.array_equal(self.kin, np.arange(len(self.leaves)))
        wanted = np.bincount(self.kin, ~self.bare) > 0
        self.above = self.linear if flat else train_linear(rows, self.kin[self.owners], wanted)
        return self

    def tensors(self) -> dict[str, np.ndarray]:
        """Everything that takes long to make, by name; see `kept`."""
        arrays = {"features": self.features, "directions": self.directions, "by_text": self.by_text}
        arrays["names"] = np.frombuffer("\n".join(self.ngrams.names).encode(), dtype=np.uint8)
        arrays |= {"rarity": self.ngrams.rarity, "unknown": np.array([self.ngrams.unknown], dtype=np.float32)}
        arrays |= {"bias": self.linear.bias, "above_bias": self.above.bias}
        for name, table in (("grams", self.grams), ("linear", self.linear.weights), ("above", self.above.weights)):
            arrays |= {f"{name}.data": table.data, f"{name}.indices": table.indices.astype(np.int32)}
            arrays[f"{name}.indptr"] = table.indptr.astype(np.int64)
        return arrays

    @cached_property
    def _telling(self) -> np.ndarray:
        """float32 [F]: 1 for an n-gram that the index has, else 0 (`NGrams.telling`)."""
        return (np.diff(self.grams.indptr) > 0).astype(np.float32)

    @cached_property
    def cross_references(self) -> dict[str, list[LabelledText]]:
        """The cross-references that stand under each code."""
        found: dict[str, list[LabelledText]] = {}
        for text in self.table.texts:
            if text.kind == "cross_reference" and text.source_code is not None:
                found.setdefault(text.source_code, []).append(text)
        return found

    def near(self, texts: list[str]) -> Nearness:
        """How near texts are to every remembered one."""
        model = self.ask(len(texts))
        features = model.features(texts)
        direction = model.directions(features)
        rows, known = self.ngrams.rows(texts)
        length = np.maximum(np.sqrt(rows.multiply(rows) @ self._telling), 1e-9)
        by_grams = product(rows, self.grams) / length[:, None]
        spaces = (model.cosines(features, self.features), model.cosines(direction, self.directions), by_grams)
        decisions = self.linear(rows, model.product), self.above(rows, model.product)
        return Nearness(spaces, model.distances(direction), direction, decisions, known)

    def of(self, texts: list[str]) -> Opinions:
        """The opinions of texts."""
        parts = [self._of(self.near(texts[i : i + CHUNK])) for i in range(0, len(texts), CHUNK)]
        return Opinions.joined(parts)

    def of_both(self, texts: list[str], model: TorchModel) -> tuple[Opinions, np.ndarray]:
        """Also the first four values as if nobody had labelled a text with any code: from titles and descriptions alone."""
        parts = []
        for start in range(0, len(texts), CHUNK):
            near = self.near(texts[start : start + CHUNK])
            described = [self.groups.nearest(similarity, len(self.leaves))[1] for similarity in near.spaces]
            parts.append(
                (self._of(near), np.stack([model.distances_by_text(near.direction, self.by_text), *described]))
            )
        return Opinions.joined([p for p, _ in parts]), np.concatenate([u for _, u in parts], 1)

    def _of(self, near: Nearness) -> Opinions:
        shape = (len(OPINIONS), len(near.known), len(self.leaves))
        values = np.empty(shape, dtype=np.float32)
        values[0] = near.distances
        found = [self.groups.nearest(similarity, len(self.leaves)) for similarity in near.spaces]
        values[1:4] = [every for every, _ in found]
        values[4] = near.decisions[0]
        values[5], values[6] = found[0][1], found[2][1]
        values[7] = near.decisions[1][:, self.kin]
        values[8], values[9] = by_rank(values[1]), by_rank(values[3])
        values[10], values[11] = by_spread(values[3]), by_spread(values[4])
        first = values[:JUDGES].argmax(2)
        pairs = [(a, b) for a in range(len(first)) for b in range(a)]
        signs = [*values[1:4].max(2), near.known, values[4].max(1), values[0].max(1)]
        signs += [np.mean([first[a] == first[b] for a, b in pairs], axis=0)]
        return Opinions(values, np.stack(signs, 1).astype(np.float32))
