"""Laws of the Lorentz model at several curvatures, against an independent oracle in float64."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from curricle.families.codes.geometry import (
    SOFT_CAP,
    distance,
    distance_polar,
    exp0,
    log0,
    pairwise,
    polar,
    soft_cap,
    time,
)

CURVATURES = [0.1, 0.5, 1.0, 2.0, 10.0]
vectors = st.lists(st.floats(-1.5, 1.5, allow_nan=False), min_size=3, max_size=3).map(
    lambda v: torch.tensor(v, dtype=torch.float64)
)
curvature = st.sampled_from(CURVATURES)


@given(vectors, curvature)
@settings(deadline=None, max_examples=50)
def test_exp_inverts_log_and_lands_on_the_manifold(v, c):
    x = exp0(v, c)
    assert torch.allclose(log0(x, c), v, atol=1e-9)
    assert math.isclose(float(-(time(x, c) ** 2) + x @ x), -1 / c, rel_tol=1e-9, abs_tol=1e-9 * float(time(x, c) ** 2))


@given(vectors, curvature)
@settings(deadline=None, max_examples=50)
def test_the_distance_to_the_origin_is_the_tangent_length_at_every_curvature(v, c):
    origin = torch.zeros(3, dtype=torch.float64)
    assert math.isclose(float(distance(exp0(v, c), origin, c)), float(v.norm()), rel_tol=1e-9, abs_tol=1e-12)


@given(vectors, vectors, vectors, curvature)
@settings(deadline=None, max_examples=50)
def test_distance_is_a_metric(a, b, d, c):
    x, y, z = exp0(a, c), exp0(b, c), exp0(d, c)
    assert float(distance(x, x, c)) == 0
    assert math.isclose(float(distance(x, y, c)), float(distance(y, x, c)), rel_tol=1e-9, abs_tol=1e-12)
    assert float(distance(x, z, c)) <= float(distance(x, y, c)) + float(distance(y, z, c)) + 1e-9


@pytest.mark.parametrize("c", CURVATURES)
def test_distances_equal_geoopts_in_float64(c):
    import geoopt

    torch.manual_seed(0)
    v, w = torch.randn(20, 5, dtype=torch.float64), torch.randn(20, 5, dtype=torch.float64)
    x, y = exp0(v, c), exp0(w, c)
    oracle = geoopt.Lorentz(k=1 / c)  # its curvature is -1/k
    full = [torch.cat([time(p, c).unsqueeze(-1), p], -1) for p in (x, y)]
    assert torch.allclose(distance(x, y, c), oracle.dist(*full), atol=1e-8)


def test_known_values():
    v = torch.tensor([0.6, 0.8], dtype=torch.float64)
    assert torch.allclose(
        torch.cat([time(exp0(v, 1.0), 1.0).view(1), exp0(v, 1.0)]),
        torch.tensor([1.5430806, 0.7051207, 0.9401609]).double(),
        atol=1e-6,
    )
    r = torch.tensor([1.0, 0.5], dtype=torch.float64)
    u1, u2 = torch.tensor([1.0, 0.0]).double(), torch.tensor([0.28, 0.96]).double()
    assert math.isclose(float(distance_polar(r[0], u1, r[1], u2)), 1.0213692, abs_tol=1e-6)
    u3 = torch.tensor([0.0, 1.0]).double()
    assert math.isclose(
        float(distance_polar(r[0], u1, r[1], u3)), math.acosh(math.cosh(1) * math.cosh(0.5)), abs_tol=1e-9
    )


def test_pairwise_equals_one_by_one():
    torch.manual_seed(0)
    r1, u1 = polar(torch.randn(4, 6, dtype=torch.float64))
    r2, u2 = polar(torch.randn(3, 6, dtype=torch.float64))
    one = torch.stack([torch.stack([distance_polar(r1[i], u1[i], r2[j], u2[j]) for j in range(3)]) for i in range(4)])
    assert torch.allclose(pairwise(r1, u1, r2, u2), one, atol=1e-9)


def test_the_gradient_at_zero_distance_and_at_the_origin_is_finite():
    v = torch.tensor([[0.3, 0.4], [0.0, 0.0]], requires_grad=True)
    radius, direction = polar(v)
    pairwise(radius, direction, radius, direction).sum().backward()
    assert torch.isfinite(v.grad).all()


def test_float32_distances_hold_where_the_inner_product_has_lost_its_digits():
    r = torch.tensor([6.0])
    angle = 2 * math.asin(math.sinh(0.5) / math.sinh(6.0))
    u1, u2 = torch.tensor([[1.0, 0.0]]), torch.tensor([[math.cos(angle), math.sin(angle)]])
    assert math.isclose(float(distance_polar(r, u1, r, u2)), 1.0, abs_tol=1e-3)


def test_the_soft_cap_bounds_and_keeps_a_gradient():
    r = torch.tensor([0.5, 4.0, 12.0], requires_grad=True)
    capped = soft_cap(r, SOFT_CAP)
    capped.sum().backward()
    assert float(capped.detach().max()) < SOFT_CAP and (r.grad > 0).all()
