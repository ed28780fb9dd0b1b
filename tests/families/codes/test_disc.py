"""Where texts stand on the disc of the codes."""

import numpy as np

from curricle.families.codes.disc import place, polar


def test_in_a_plane_a_text_stands_where_it_is():
    """Of codes that have two dimensions nothing is lost on the disc."""
    draw = np.random.default_rng(3)
    deepest = np.arange(60) >= 20
    table = draw.normal(size=(60, 2))
    table *= np.where(deepest, 2.0, 1.0)[:, None] / np.linalg.norm(table, axis=1)[:, None]
    radius, direction = polar(table)
    drawn = np.tanh(radius / 2)[:, None] * direction
    angle = draw.uniform(-np.pi, np.pi, 7)
    texts = np.stack([np.cos(angle), np.sin(angle)], 1)
    found = place(texts, table, drawn, deepest)
    assert np.allclose(found, np.linalg.norm(drawn[-1]) * texts, atol=0.01)
    assert place(texts[:0], table, drawn, deepest).shape == (0, 2)
