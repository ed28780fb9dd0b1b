"""The scorer's parts that need no trained model: the memory's nearest texts, and what codes without examples get on top."""

from types import SimpleNamespace

import numpy as np
import pytest

from curricle.families.naics.use import Scorer, _Memory


def test_the_nearest_remembered_text_of_each_leaf_equals_the_one_found_one_by_one():
    draw = np.random.default_rng(0)
    owners = np.sort(draw.choice([0, 1, 3, 6], size=40))
    rows = np.flatnonzero(draw.random(40) < 0.6)
    similarity = draw.normal(size=(5, 40))
    found = _Memory.of(owners[rows], rows).nearest(similarity, np.full((5, 8), -1.0))
    for leaf in range(8):
        mine = [r for r in rows if owners[r] == leaf]
        expected = similarity[:, mine].max(1) if mine else np.full(5, -1.0)
        assert np.array_equal(found[:, leaf], expected)


def _lift(handicap: float) -> float:
    """The lift for 40 codes whose own score is about 3 above the others', and lower by the handicap without examples."""
    draw = np.random.default_rng(1)
    target = np.tile(np.arange(40), 10)
    seen = draw.normal(size=(1, len(target), 40))
    seen[0, np.arange(len(target)), target] += 3
    scorer = object.__new__(Scorer)
    scorer.config, scorer.leaves, scorer.bare = SimpleNamespace(seed=0), np.arange(40), np.arange(40) == 39
    scorer._all_opinions = lambda texts, unseen: seen - handicap
    return scorer._lift([""] * len(target), target, seen, np.ones(1))


def test_codes_without_examples_are_lifted_by_what_they_lack():
    assert _lift(0.0) == 0.0
    assert 4.0 <= _lift(6.0) <= 8.0


@pytest.mark.parametrize(
    "content", ["", "{", "null", "{}", '{"weights": [1], "lift": 0, "temperature": 1}', '{"weights": {}}']
)
def test_a_damaged_file_of_the_scorers_weights_is_made_again(tmp_path, content):
    head, encoder = SimpleNamespace(state_dict=dict), SimpleNamespace(digest=lambda: "d")
    scorer = object.__new__(Scorer)
    scorer.model, scorer.memory, scorer.bare = SimpleNamespace(head=head, encoder=encoder), ["text"], np.zeros(1, bool)
    scorer.cache, tuned = tmp_path, (np.array([1, 2, 3, 4], dtype=np.float32), 2.0, 0.5)
    scorer._tune = lambda: tuned
    for _ in range(2):
        weights, *others = scorer._tuned()
        assert weights.tolist() == tuned[0].tolist() and tuple(others) == tuned[1:]
        (path,) = tmp_path.iterdir()
        path.write_text(content)
    path.write_text('{"weights": [4, 3, 2, 1], "lift": 1, "temperature": 2}')
    assert scorer._tuned()[0].tolist() == [4, 3, 2, 1]
