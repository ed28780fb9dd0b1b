"""The tree of codes as numpy arrays: parents, depths, relations, the classic distances and the tree distance D*.

Owns the numbers of relations and distances; reads no file. Indices are positions in the canonical order of codes. A root is at depth 1; a
level is a depth with the number that people know it by (the digits of NAICS: 2 to 6). Leaves are codes without children, at whatever depth.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property

import numpy as np

from curricle.errors import DataError

EXCLUDED, UNRELATED = 0, 99
"""Relation ids beside the numbers of `relations`; the second is also the classic distance of unrelated codes."""

RELATIONS = {
    (0, 1): 1, (1, 1): 2, (0, 2): 3, (0, 3): 4, (1, 2): 5, (0, 4): 6, (2, 2): 7,
    (1, 3): 8, (1, 4): 9, (2, 3): 10, (3, 3): 11, (2, 4): 12, (3, 4): 13, (4, 4): 14,
}  # fmt: skip
"""Steps up to the lowest common ancestor, the shallower code's first → relation id, for trees of up to five levels."""
STEPS = 4
"""Largest number of steps in `RELATIONS`."""
MOST = 20_000
"""Codes at most: several tables hold a number for each pair of codes."""


@cache
def relations(steps: int) -> dict[tuple[int, int], int]:
    """`RELATIONS` of a tree of ``steps + 1`` levels: what it lacks is numbered behind, by the sum of steps, then by the smaller one; never 99."""
    made = dict(RELATIONS)
    pairs = [(a, b) for b in range(STEPS + 1, steps + 1) for a in range(b + 1)]
    for pair in sorted(pairs, key=lambda pair: (sum(pair), pair)):
        following = max(made.values()) + 1
        made[pair] = following + (following == UNRELATED)
    return made


@dataclass(frozen=True)
class Tree:
    """Codes in canonical order with level and parent index (-1 for a root), both int64 [N]."""

    codes: tuple[str, ...]
    level: np.ndarray
    """The number of each code's level, for people: `levels` at its depth."""
    parent: np.ndarray
    depth: np.ndarray
    """int64 [N]: 1 for a root."""
    levels: tuple[int, ...]
    """Number of each level, the coarsest first."""

    @classmethod
    def of(
        cls, codes: Sequence[str], parents: Sequence[str | None], levels: Sequence[int | None] | None = None
    ) -> Tree:
        """Build the tree of codes; every parent must be among them.

        Args:
            parents: of each code, None for a root.
            levels: the number of each code's level; taken where every depth has one number and deeper ones larger numbers, else a depth is its own number.

        Raises:
            DataError: a code's parent is missing, a code is there twice or among its own ancestors, or there are too many.
        """
        index = {code: i for i, code in enumerate(codes)}
        if len(index) != len(codes):
            twice = next(c for i, c in enumerate(codes) if index[c] != i)
            raise DataError(f"code {twice} is there twice")
        if len(codes) > MOST:
            raise DataError(f"there are {len(codes):,} codes; {MOST:,} are the most")
        parent = np.full(len(codes), -1, dtype=np.int64)
        for i, above in enumerate(parents):
            if above is not None:
                if above not in index:
                    raise DataError(f"code {codes[i]} has no parent {above}")
                parent[i] = index[above]
        depth, at = np.zeros(len(codes), dtype=np.int64), np.arange(len(codes))
        for _ in range(len(codes) + 1):
            held = at >= 0
            if not held.any():
                break
            depth += held
            at = np.where(held, parent[at], -1)
        else:
            raise DataError(f"code {codes[int(np.flatnonzero(at >= 0)[0])]} is among its own ancestors")
        names = _names(depth, levels)
        return cls(tuple(codes), np.array(names, dtype=np.int64)[depth - 1], parent, depth, names)

    @cached_property
    def index(self) -> dict[str, int]:
        """Code → position."""
        return {code: i for i, code in enumerate(self.codes)}

    @cached_property
    def ancestors(self) -> np.ndarray:
        """int64 [N, L]: column k is the ancestor-or-self at depth k + 1, -1 below the code's own depth."""
        table = np.full((len(self.codes), len(self.levels)), -1, dtype=np.int64)
        at = np.arange(len(self.codes))
        while (at >= 0).any():
            rows = np.flatnonzero(at >= 0)
            table[rows, self.depth[at[rows]] - 1] = at[rows]
            at = np.where(at >= 0, self.parent[at], -1)
        return table

    @cached_property
    def cuts(self) -> np.ndarray:
        """int64 [N, L]: as `ancestors`, but a leaf stands for itself on all levels below its own: each column divides all leaves."""
        table = self.ancestors.copy()
        for k in range(1, len(self.levels)):
            rows = self.leaves[self.depth[self.leaves] <= k]
            table[rows, k] = rows
        return table

    @cached_property
    def rank(self) -> np.ndarray:
        """int64 [N]: the depth on which a code is ranked among others: its own, the last one for a leaf."""
        rank = self.depth.copy()
        rank[self.leaves] = len(self.levels)
        return rank

    @cached_property
    def children(self) -> tuple[tuple[int, ...], ...]:
        """Children of each code, in canonical order."""
        below: list[list[int]] = [[] for _ in self.codes]
        for i, p in enumerate(self.parent):
            if p >= 0:
                below[p].append(i)
        return tuple(map(tuple, below))

    @cached_property
    def leaves(self) -> np.ndarray:
        """Positions of the codes without children."""
        above = np.zeros(len(self.codes), dtype=bool)
        above[self.parent[self.parent >= 0]] = True
        return np.flatnonzero(~above)

    @cached_property
    def relations(self) -> dict[tuple[int, int], int]:
        """Relation ids of this tree."""
        return relations(max(STEPS, len(self.levels) - 1))

    def common_depth(self, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """Depth of the lowest common ancestor of each pair (broadcast), 0 for codes under different roots."""
        depth = np.zeros(np.broadcast_shapes(np.shape(rows), np.shape(columns)), dtype=np.int64)
        for k in range(len(self.levels)):
            a, b = self.ancestors[rows, k], self.ancestors[columns, k]
            depth += (a >= 0) & (a == b)
        return depth

    def tree_distance(self, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """D*: edges of the path through a virtual root above the roots, 0 to itself, else 1 to 2 L (int64, broadcast)."""
        return self.depth[rows] + self.depth[columns] - 2 * self.common_depth(rows, columns)

    def relation(self, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """Relation ids, 99 under other roots, -1 to itself (int64, broadcast). Exclusions are the caller's to lay over."""
        common = self.common_depth(rows, columns)
        up, across = self.depth[rows] - common, self.depth[columns] - common
        return np.where(common == 0, UNRELATED, self._relation_table[np.minimum(up, across), np.maximum(up, across)])

    def distance(self, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """The classic distance: steps up plus steps down, half less between ancestor and descendant, 99 under other roots, 0 to itself."""
        common = self.common_depth(rows, columns)
        up, across = self.depth[rows] - common, self.depth[columns] - common
        lineal = (np.minimum(up, across) == 0) & (np.maximum(up, across) > 0)
        return np.where(common == 0, float(UNRELATED), up + across - 0.5 * lineal)

    @cached_property
    def subtree(self) -> np.ndarray:
        """bool [N, N]: whether the column's code lies in the row's subtree (itself included)."""
        mask = np.zeros((len(self.codes), len(self.codes)), dtype=bool)
        for k in range(len(self.levels)):
            rows = self.ancestors[:, k]
            held = np.flatnonzero(rows >= 0)
            mask[rows[held], held] = True
        return mask

    @cached_property
    def sole_leaf(self) -> np.ndarray:
        """int64 [N]: the one leaf below a code (itself, if it is a leaf), -1 where there are several."""
        sole = np.full(len(self.codes), -1, dtype=np.int64)
        sole[self.leaves] = self.leaves
        for i in np.argsort(-self.depth, kind="stable"):
            if len(self.children[i]) == 1:
                sole[i] = sole[self.children[i][0]]
        return sole

    @cached_property
    def chain(self) -> np.ndarray:
        """int64 [N]: the top code of the unary chain each code belongs to (parents with one child stand for the same thing)."""
        top = np.arange(len(self.codes))
        for i in np.argsort(self.depth, kind="stable"):
            p = self.parent[i]
            if p >= 0 and len(self.children[p]) == 1:
                top[i] = top[p]
        return top

    @cached_property
    def _relation_table(self) -> np.ndarray:
        most = max(len(self.levels), STEPS + 1) + 1
        table = np.full((most, most), -1, dtype=np.int64)
        for steps, relation in self.relations.items():
            table[steps] = relation
        return table


def _names(depth: np.ndarray, levels: Sequence[int | None] | None) -> tuple[int, ...]:
    """The number of each level: that of its codes where it is one, and larger than the one above."""
    deepest = int(depth.max()) if len(depth) else 0
    plain = tuple(range(1, deepest + 1))
    if levels is None or any(level is None for level in levels):
        return plain
    named = np.array(levels, dtype=np.int64)
    found = [np.unique(named[depth == d]) for d in plain]
    if any(len(numbers) != 1 for numbers in found):
        return plain
    names = tuple(int(numbers[0]) for numbers in found)
    return names if all(a < b for a, b in zip(names, names[1:], strict=False)) else plain
