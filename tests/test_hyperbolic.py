"""Hyperbolic space for users: its example runs, and its numbers are geoopt's."""

import doctest

import numpy as np
import pytest
import torch

from curricle import hyperbolic


def test_the_example_in_the_docstring_runs():
    assert doctest.testmod(hyperbolic).failed == 0 < doctest.testmod(hyperbolic).attempted


@pytest.mark.parametrize("c", [0.25, 1.0, 4.0])
def test_distances_are_those_of_the_manifold_that_is_handed_out(c):
    rng = np.random.default_rng(0)
    away, direction = rng.uniform(0.1, 3, 30), rng.normal(size=(30, 5))
    x = hyperbolic.at(away, direction / np.linalg.norm(direction, axis=1, keepdims=True), c)
    found = hyperbolic.Points(tuple(map(str, range(30))), x, c=c)
    space, full = hyperbolic.manifold(found), torch.from_numpy(found.full)
    space.assert_check_point(full)
    ours, apart = hyperbolic.distance(x[:, None], x[None], c), ~np.eye(30, dtype=bool)
    np.testing.assert_allclose(ours[apart], space.dist(full[:, None], full[None]).numpy()[apart], rtol=1e-9)
    assert not ours[~apart].any()  # where geoopt's arcosh of 1 gives up to 1e-6
    np.testing.assert_allclose(hyperbolic.radius(x, c), away, rtol=1e-12)
    np.testing.assert_allclose(space.dist0(full).numpy(), away, rtol=1e-6)


def test_the_nearest_come_with_names_and_distances_in_order():
    x = hyperbolic.at([1.0, 2.0, 0.5], [[1, 0], [1, 0], [1, 0]])
    found = hyperbolic.Points(("a", "b", "c"), x)
    near = hyperbolic.nearest(found, found["a"], top=3)
    assert [name for name, _ in near] == ["a", "c", "b"]
    assert [away for _, away in near] == pytest.approx([0, 0.5, 1.0], abs=1e-9)
    with pytest.raises(KeyError):
        found["nothing"]
