"""The Lorentz model of hyperbolic space: pure functions, curvature -c as an argument.

A point is held by its space coordinates x ∈ R^d; its time coordinate is x0 = sqrt(1/c + |x|²), recomputed, never stored, so every
point is on the manifold exactly. Formulas: Nickel & Kiela (2018), "Learning Continuous Hierarchies in the Lorentz Model".
The distance uses the half-angle form, which keeps float32 right where arcosh of an inner product has lost every digit.
"""

from __future__ import annotations

import torch
from torch import Tensor

SOFT_CAP = 5.0
"""Largest radius times sqrt(c): beyond it float32 distances are no longer to be trusted."""


def polar(v: Tensor) -> tuple[Tensor, Tensor]:
    """Tangent vectors at the origin [..., d] → (radius [...], unit direction [..., d]); the zero vector has direction 0.

    The gradient is finite everywhere.
    """
    square = (v * v).sum(-1, keepdim=True)
    radius = torch.where(square > 0, square, torch.ones_like(square)).sqrt()
    direction = v / radius
    return torch.where(square > 0, radius, torch.zeros_like(radius)).squeeze(-1), direction


def soft_cap(radius: Tensor, cap: float) -> Tensor:
    """``cap·tanh(radius / cap)``: never above `cap`, with a gradient everywhere (a hard clamp has none)."""
    return cap * torch.tanh(radius / cap)


def exp0(v: Tensor, c: float) -> Tensor:
    """Exponential map at the origin: tangent [..., d] → space coordinates [..., d], ``sinh(√c r)/√c · u``."""
    radius, direction = polar(v)
    root = c**0.5
    return (torch.sinh(root * radius) / root).unsqueeze(-1) * direction


def log0(x: Tensor, c: float) -> Tensor:
    """Inverse of `exp0`: space coordinates → tangent vector at the origin, ``arsinh(√c |x|)/√c · u``."""
    length, direction = polar(x)
    root = c**0.5
    return (torch.asinh(root * length) / root).unsqueeze(-1) * direction


def time(x: Tensor, c: float) -> Tensor:
    """Time coordinate [...] of space coordinates [..., d]: ``sqrt(1/c + |x|²)``."""
    return (1 / c + (x * x).sum(-1)).sqrt()


def distance_polar(r1: Tensor, u1: Tensor, r2: Tensor, u2: Tensor, c: float = 1.0) -> Tensor:
    """Geodesic distances of points in polar form, broadcast.

    ``d = 2/√c · arsinh √( sinh²(√c(r1-r2)/2) + sinh(√c r1) sinh(√c r2) |u1-u2|²/4 )``, the half-angle form of
    ``arcosh(-c⟨x,y⟩)/√c``. At zero distance the gradient is zero, not infinite.

    Args:
        r1, r2: radii [...]. u1, u2: unit directions [..., d]. c: curvature is -c.
    """
    chord = ((u1 - u2) ** 2).sum(-1)
    return _half_angle(r1, r2, chord, c)


def pairwise(r1: Tensor, u1: Tensor, r2: Tensor, u2: Tensor, c: float = 1.0) -> Tensor:
    """All distances [n, m] between n and m points in polar form; directions meet in one matrix product, ``|u1-u2|² = 2 - 2 u1·u2``."""
    chord = (2 - 2 * (u1 @ u2.T)).clamp_min(0)
    return _half_angle(r1[:, None], r2[None, :], chord, c)


def _half_angle(r1: Tensor, r2: Tensor, chord: Tensor, c: float) -> Tensor:
    root = c**0.5
    square = torch.sinh(root * (r1 - r2) / 2) ** 2 + torch.sinh(root * r1) * torch.sinh(root * r2) * chord / 4
    apart = square > 0
    safe = torch.where(apart, square, torch.ones_like(square))
    return torch.where(apart, 2 / root * torch.asinh(safe.sqrt()), torch.zeros_like(square))


def distance(x: Tensor, y: Tensor, c: float) -> Tensor:
    """Distances of points given by space coordinates [..., d], broadcast."""
    rx, ux = polar(log0(x, c))
    ry, uy = polar(log0(y, c))
    return distance_polar(rx, ux, ry, uy, c)
