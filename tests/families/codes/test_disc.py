"""Where texts stand on the disc of the codes."""

import numpy as np

from curricle.families.codes.disc import place


def test_a_text_stands_as_far_out_as_the_finest_codes_towards_those_that_are_likely():
    points = np.array([[0.2, 0.0], [0.9, 0.0], [0.0, 0.8], [-0.8, 0.0]])
    deepest, at = np.array([False, True, True, True]), np.array([1, 2, 3, 3])
    shares = np.array([[1.0, 0.0, 0.0, 0.0], [0.5, 0.5, 0.0, 0.0], [0.0, 0.0, 0.4, 0.6]])
    half = 0.8 * np.sqrt(0.5)
    assert np.allclose(place(shares, at, points, deepest), [[0.8, 0.0], [half, half], [-0.8, 0.0]])
    assert place(shares[:0], at, points, deepest).shape == (0, 2)
