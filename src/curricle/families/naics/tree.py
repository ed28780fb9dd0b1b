"""The tree of codes as numpy arrays: parents, levels, relations, the classic distances and the tree distance D*.

Owns the numbers of relations and distances; reads no file. Indices are positions in the canonical order of codes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from curricle.errors import DataError
from curricle.families.naics.workbooks import level_of, parent_of

EXCLUDED, UNRELATED = 0, 99
"""Relation ids beside 1 to 14; the second is also the classic distance of unrelated codes."""

RELATIONS = {
    (0, 1): 1, (1, 1): 2, (0, 2): 3, (0, 3): 4, (1, 2): 5, (0, 4): 6, (2, 2): 7,
    (1, 3): 8, (1, 4): 9, (2, 3): 10, (3, 3): 11, (2, 4): 12, (3, 4): 13, (4, 4): 14,
}  # fmt: skip
"""Steps up to the lowest common ancestor, the shallower code's first → relation id."""


@dataclass(frozen=True)
class Tree:
    """Codes in canonical order with level (2 to 6) and parent index (-1 for a sector), both int64 [N]."""

    codes: tuple[str, ...]
    level: np.ndarray
    parent: np.ndarray

    @classmethod
    def of(cls, codes: Sequence[str]) -> Tree:
        """Build the tree of codes; every parent must be among them.

        Raises:
            DataError: a code's parent is missing, or a code is there twice.
        """
        index = {code: i for i, code in enumerate(codes)}
        if len(index) != len(codes):
            twice = next(c for i, c in enumerate(codes) if index[c] != i)
            raise DataError(f"code {twice} is there twice")
        parent = np.full(len(codes), -1, dtype=np.int64)
        for i, code in enumerate(codes):
            above = parent_of(code)
            if above is not None:
                if above not in index:
                    raise DataError(f"code {code} has no parent {above}")
                parent[i] = index[above]
        return cls(tuple(codes), np.array([level_of(c) for c in codes], dtype=np.int64), parent)

    @cached_property
    def index(self) -> dict[str, int]:
        """Code → position."""
        return {code: i for i, code in enumerate(self.codes)}

    @cached_property
    def ancestors(self) -> np.ndarray:
        """int64 [N, 5]: column k is the ancestor-or-self at level k + 2, -1 below the code's own level."""
        table = np.full((len(self.codes), 5), -1, dtype=np.int64)
        at = np.arange(len(self.codes))
        while (at >= 0).any():
            rows = np.flatnonzero(at >= 0)
            table[rows, self.level[at[rows]] - 2] = at[rows]
            at = np.where(at >= 0, self.parent[at], -1)
        return table

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
        """Positions of the six-digit codes."""
        return np.flatnonzero(self.level == 6)

    def common_level(self, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """Level of the lowest common ancestor of each pair (broadcast), 1 for codes of different sectors (the virtual root)."""
        level = np.ones(np.broadcast_shapes(np.shape(rows), np.shape(columns)), dtype=np.int64)
        for k in range(5):
            a, b = self.ancestors[rows, k], self.ancestors[columns, k]
            level += (a >= 0) & (a == b)
        return level

    def tree_distance(self, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """D*: edges of the path through a virtual root above the sectors, 0 to itself, else 1 to 10 (int64, broadcast)."""
        return self.level[rows] + self.level[columns] - 2 * self.common_level(rows, columns)

    def relation(self, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """Relation ids 1 to 14, 99 for other sectors, -1 to itself (int64, broadcast). Exclusions are the caller's to lay over."""
        common = self.common_level(rows, columns)
        up, across = self.level[rows] - common, self.level[columns] - common
        return np.where(common == 1, UNRELATED, _RELATION_TABLE[np.minimum(up, across), np.maximum(up, across)])

    def distance(self, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """The classic distance: steps up plus steps down, half less between ancestor and descendant, 99 across sectors, 0 to itself."""
        common = self.common_level(rows, columns)
        up, across = self.level[rows] - common, self.level[columns] - common
        lineal = (np.minimum(up, across) == 0) & (np.maximum(up, across) > 0)
        return np.where(common == 1, float(UNRELATED), up + across - 0.5 * lineal)

    @cached_property
    def subtree(self) -> np.ndarray:
        """bool [N, N]: whether the column's code lies in the row's subtree (itself included)."""
        mask = np.zeros((len(self.codes), len(self.codes)), dtype=bool)
        for k in range(5):
            rows = self.ancestors[:, k]
            held = np.flatnonzero(rows >= 0)
            mask[rows[held], held] = True
        return mask

    @cached_property
    def sole_leaf(self) -> np.ndarray:
        """int64 [N]: the one leaf below a code (itself, if it is a leaf), -1 where there are several."""
        below = self.subtree[:, self.leaves]
        return np.where(below.sum(1) == 1, self.leaves[below.argmax(1)], -1)

    @cached_property
    def chain(self) -> np.ndarray:
        """int64 [N]: the top code of the unary chain each code belongs to (parents with one child stand for the same thing)."""
        top = np.arange(len(self.codes))
        for i in np.argsort(self.level, kind="stable"):
            p = self.parent[i]
            if p >= 0 and len(self.children[p]) == 1:
                top[i] = top[p]
        return top


def _relation_table() -> np.ndarray:
    table = np.full((6, 6), -1, dtype=np.int64)
    for steps, relation in RELATIONS.items():
        table[steps] = relation
    return table


_RELATION_TABLE = _relation_table()
