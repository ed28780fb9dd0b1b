"""The codes on a disc: what one can see of points in many dimensions. Pure numpy.

A code's distance from the centre is its true one (radius r is drawn at tanh(r / 2), as the Poincaré model does). Its angle is chosen: first by the
tree, subtree by subtree, then moved until distances on the disc come as near to the true ones as two dimensions let them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from curricle.families.codes.tree import Tree

TABLE = "head.table"
"""Name of the codes' tangent vectors at the origin in a checkpoint's weights."""
STEPS, PARTNERS = 120, 32
"""Of the fit: steps, and other codes that each code is held against in a step."""
RATE = 0.02
"""Radians of a step at first."""
SOFT_CAP = 5.0
"""As `geometry.SOFT_CAP`, without torch."""
MOST = 6000
"""Codes that are drawn at most: of larger trees the deepest levels are left out."""


@dataclass(frozen=True)
class Disc:
    """Codes as points of the unit disc."""

    points: np.ndarray
    """[n, 2]"""
    fit: float
    """Correlation of distances on the disc with the true ones, over random pairs."""


def polar(table: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Tangent vectors at the origin [n, d], as a checkpoint holds them → radii [n], unit directions [n, d]."""
    radius = np.linalg.norm(table, axis=1)
    direction = table / np.maximum(radius, 1e-12)[:, None]
    return SOFT_CAP * np.tanh(radius / SOFT_CAP), direction


def shown(tree: Tree) -> np.ndarray:
    """The codes that are drawn: all of them, or those of the upper levels."""
    for deepest in range(len(tree.levels), 0, -1):
        rows = np.flatnonzero(tree.depth <= deepest)
        if len(rows) <= MOST:
            return rows
    return np.arange(MOST)


def disc(table: np.ndarray, tree: Tree, rows: np.ndarray, start: np.ndarray | None = None) -> Disc:
    """Lay codes out.

    Args:
        table: [N, d], tangent vectors at the origin.
        rows: the codes that are drawn.
        start: angles [n] to begin with; None takes them from the tree.
    """
    radius, direction = polar(table.astype(np.float64))
    angle = (by_tree(tree, direction)[rows] if start is None else start).copy()
    radius, direction = radius[rows], direction[rows]
    draw, n = np.random.default_rng(0), len(rows)
    here, sinh = np.arange(n)[:, None], np.sinh(radius)
    first, second = np.zeros(n), np.zeros(n)
    for step in range(STEPS if n > 2 else 0):
        there = draw.integers(n, size=(n, PARTNERS))
        true = _true(radius, direction, here, there)
        gap = angle[:, None] - angle[there]
        reach = sinh[:, None] * sinh[there]
        inner = np.sinh((radius[:, None] - radius[there]) / 2) ** 2 + reach * np.sin(gap / 2) ** 2
        far = 2 * np.arcsinh(np.sqrt(inner))
        slope = 2 * (far - true) * reach * np.sin(gap) / 2 / np.sqrt(np.maximum(inner * (1 + inner), 1e-9))
        slope = slope.mean(1)
        first, second = 0.9 * first + 0.1 * slope, 0.99 * second + 0.01 * slope**2
        size = RATE * (1 - step / STEPS)
        angle -= size * (first / (1 - 0.9 ** (step + 1))) / (np.sqrt(second / (1 - 0.99 ** (step + 1))) + 1e-8)
    a, b = draw.integers(n, size=(2, 20_000))
    seen = 2 * np.arcsinh(
        np.sqrt(np.sinh((radius[a] - radius[b]) / 2) ** 2 + sinh[a] * sinh[b] * np.sin((angle[a] - angle[b]) / 2) ** 2)
    )
    true = _true(radius, direction, a[:, None], b[:, None])[:, 0]
    fit = float(np.corrcoef(seen, true)[0, 1]) if n > 2 and seen.std() > 0 and true.std() > 0 else 1.0
    points = np.tanh(radius / 2)[:, None] * np.stack([np.cos(angle), np.sin(angle)], 1)
    return Disc(points, fit)


def place(shares: np.ndarray, at: np.ndarray, points: np.ndarray, deepest: np.ndarray) -> np.ndarray:
    """Where texts stand among codes that are laid out: as far from the centre as the codes of the finest level, in the direction of the leaves that the model's distance makes likely.

    (An angle fitted to the distances themselves would put a text beside its codes, not among them: a text is hardly ever near to any.)

    Args:
        shares: of each leaf by its distance to the texts, [m, leaves].
        at: which drawn code each leaf is, or is below.
        points: [n, 2], where those are drawn.
        deepest: which of them are of the finest level.

    Returns:
        [m, 2]
    """
    far = np.linalg.norm(points, axis=1)
    towards = shares @ (points / np.maximum(far, 1e-9)[:, None])[at]
    return np.median(far[deepest]) * towards / np.maximum(np.linalg.norm(towards, axis=1), 1e-9)[:, None]


def by_tree(tree: Tree, direction: np.ndarray) -> np.ndarray:
    """Angles [N] by the tree: a subtree has a sector as wide as it has leaves; siblings stand in the order of their likeness."""
    leaves = np.zeros(len(tree.codes))
    leaves[tree.leaves] = 1
    for i in np.argsort(-tree.depth, kind="stable"):
        if tree.parent[i] >= 0:
            leaves[tree.parent[i]] += leaves[i]
    angle = np.zeros(len(tree.codes))
    roots = np.flatnonzero(tree.parent < 0)
    todo = [(_in_order(roots, direction, None), 0.0, 2 * np.pi)]
    while todo:
        codes, low, high = todo.pop()
        total = max(1.0, float(leaves[codes].sum()))
        for code in codes:
            width = (high - low) * leaves[code] / total if len(codes) > 1 else high - low
            end = low + width if len(codes) > 1 else high
            angle[code] = (low + end) / 2
            if tree.children[code]:
                todo.append((_in_order(np.array(tree.children[code]), direction, code), low, end))
            low = end
            total -= leaves[code]
            if total <= 0:
                break
    return angle


def _in_order(codes: np.ndarray, direction: np.ndarray, parent: int | None) -> np.ndarray:
    """Siblings so that like ones stand together: around the first two principal axes for roots, along the first one below."""
    if len(codes) < 3:
        return codes
    centred = direction[codes] - direction[codes].mean(0)
    axes = np.linalg.svd(centred, full_matrices=False)[2]
    along = centred @ axes[:2].T
    if parent is None and along.shape[1] > 1:
        return codes[np.argsort(np.arctan2(along[:, 1], along[:, 0]), kind="stable")]
    return codes[np.argsort(along[:, 0], kind="stable")]


def _true(radius: np.ndarray, direction: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Distances of the points themselves, of pairs [n, m], by the half-angle form of `geometry.distance_polar`."""
    chord = 2 - 2 * np.einsum("nd,nmd->nm", direction[a[:, 0]], direction[b])
    inner = (
        np.sinh((radius[a] - radius[b]) / 2) ** 2 + np.sinh(radius[a]) * np.sinh(radius[b]) * np.maximum(chord, 0) / 4
    )
    return 2 * np.arcsinh(np.sqrt(inner))
