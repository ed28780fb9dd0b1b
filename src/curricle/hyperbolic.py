"""Hyperbolic space in numpy: where a trained model puts its codes and texts, how far apart they are, what lies nearest.

    from curricle import hyperbolic, open_model

    codes = hyperbolic.points(open_model())
    hyperbolic.nearest(codes, codes["111110"], top=3)        # [("111110", 0.0), ("111120", ...), ...]

A point is held by its space coordinates x in the Lorentz model of curvature -c; its time coordinate is ``sqrt(1/c + |x|²)``.
All in float64. Without a model it works as well:

>>> import numpy as np
>>> from curricle import hyperbolic
>>> x, y = hyperbolic.at([1.0, 0.5], [[1, 0], [0, 1]])
>>> round(float(hyperbolic.distance(x, y)), 4), round(float(hyperbolic.distance(x, np.zeros(2))), 4)
(1.1518, 1.0)
>>> hyperbolic.nearest(hyperbolic.Points(("a", "b"), np.stack([x, y])), x, top=1)
[('a', 0.0)]

Sources: Nickel & Kiela (2018), "Learning Continuous Hierarchies in the Lorentz Model". Distances are computed in the half-angle form of
arcosh, in which near points keep their digits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import ArrayLike

if TYPE_CHECKING:
    import geoopt


class Placed(Protocol):
    """What has points: a trained model (`curricle.open_model`) of a family whose space is hyperbolic."""

    def points(self, texts: Sequence[str] | None = None) -> Points:
        """Where it puts its codes, or texts."""


__all__ = ["Points", "at", "distance", "manifold", "nearest", "points", "radius", "time"]


@dataclass(frozen=True)
class Points:
    """Points with names: of codes, or of texts."""

    names: tuple[str, ...]
    """Codes, or texts."""
    coordinates: np.ndarray
    """Space coordinates, float64 [n, dim]."""
    titles: tuple[str, ...] = ()
    """Of codes: their titles."""
    c: float = 1.0
    """The curvature is -c."""
    edge: float = 1.0
    """Length of one edge of the tree that the codes stand in: a distance over it is compared with the tree's."""

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, name: str) -> np.ndarray:
        """Space coordinates [dim] of one; KeyError where there is none of that name."""
        try:
            return self.coordinates[self.names.index(name)]
        except ValueError:
            raise KeyError(name) from None

    @property
    def full(self) -> np.ndarray:
        """Time and space coordinates [n, 1 + dim]: the form that geoopt's `Lorentz` takes."""
        return np.concatenate([time(self.coordinates, self.c)[:, None], self.coordinates], 1)


def points(model: Placed, texts: Sequence[str] | None = None) -> Points:
    """Where a model puts its codes, or texts: of codes in the order of its classification.

    Raises:
        CheckpointError: models of its family have no such space.
    """
    return model.points(texts)


def at(radius: ArrayLike, direction: ArrayLike, c: float = 1.0) -> np.ndarray:
    """Points [..., dim] by their distance [...] from the origin and unit direction [..., dim] (what an exported encoder gives)."""
    root = c**0.5
    return (np.sinh(root * np.asarray(radius, np.float64)) / root)[..., None] * np.asarray(direction, np.float64)


def time(x: ArrayLike, c: float = 1.0) -> np.ndarray:
    """Time coordinates [...] of points [..., dim]."""
    return np.sqrt(1 / c + np.square(np.asarray(x, np.float64)).sum(-1))


def radius(x: ArrayLike, c: float = 1.0) -> np.ndarray:
    """Distances [...] of points [..., dim] from the origin."""
    root = c**0.5
    return np.arcsinh(root * np.linalg.norm(np.asarray(x, np.float64), axis=-1)) / root


def distance(x: ArrayLike, y: ArrayLike, c: float = 1.0) -> np.ndarray:
    """Geodesic distances of points [..., dim], broadcast: ``distance(x[:, None], y[None])`` is [n, m].

    ``cosh(√c d) - 1 = c (|x-y|² - (t(x)-t(y))²) / 2``, and so ``d = 2/√c · arsinh √(c (|x-y|² - (t(x)-t(y))²) / 4)``.
    """
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    square = np.square(x - y).sum(-1) - np.square(time(x, c) - time(y, c))
    return 2 / c**0.5 * np.arcsinh(np.sqrt(c * np.maximum(square, 0) / 4))


def nearest(among: Points, point: ArrayLike, top: int = 5) -> list[tuple[str, float]]:
    """The `top` nearest of named points to one point [dim], nearest first, with their distances; equally near ones in their order."""
    found = distance(among.coordinates, point, among.c)
    return [(among.names[i], float(found[i])) for i in np.argsort(found, kind="stable")[:top]]


def manifold(model: Placed | Points) -> geoopt.Lorentz:
    """geoopt's manifold of a model's space, in float64: ``manifold(m).dist(a, b)`` of rows of `Points.full` as tensors is `distance`.

    geoopt's Lorentz(k) has curvature -1/k.

    Raises:
        CheckpointError: models of its family have no such space.
        ModuleNotFoundError: geoopt is not installed (extra `train`).
    """
    import geoopt

    found = model if isinstance(model, Points) else points(model)
    return geoopt.Lorentz(k=1 / found.c).double()
