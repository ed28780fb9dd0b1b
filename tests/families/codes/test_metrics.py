"""Metrics on what is known exactly: the tree itself, small rankings by hand."""

import numpy as np
import pytest

from curricle.families.codes.metrics import retrieval, structure
from curricle.families.codes.prepare import load, prepare
from curricle.families.codes.tree import Tree
from curricle.families.codes.workbooks import hierarchy, parent_of


def of(*leaves: str) -> Tree:
    """The NAICS tree of these leaves."""
    codes = list(leaves)
    for code in codes:
        if (above := parent_of(code)) is not None and above not in codes:
            codes.append(above)
    return Tree.of(codes, *hierarchy(codes))


@pytest.fixture(scope="module")
def tree(tmp_path_factory) -> Tree:
    from curricle.config.load import from_tree
    from curricle.families.codes.config import CodesConfig

    folder = tmp_path_factory.mktemp("demo")
    prepare(from_tree(CodesConfig, {"family": "naics", "curriculum": {"name": "x"}}), folder)
    return load(folder).tree


def test_the_exact_tree_scores_as_it_must(tree):
    everyone = np.arange(len(tree.codes))
    exact = tree.tree_distance(everyone[:, None], everyone[None, :]).astype(float)
    found = structure(exact, tree)
    assert found["pearson"] == pytest.approx(1)
    assert found["spearman"] == pytest.approx(1)
    assert found["ndcg@10"] == pytest.approx(1)
    assert found["parent@1"] == found["parent@1_nu"] == 1
    assert found["edge_map"] == pytest.approx(1)
    assert found["distortion"] == 0


def test_structure_is_scale_free_and_noise_costs(tree):
    everyone = np.arange(len(tree.codes))
    exact = tree.tree_distance(everyone[:, None], everyone[None, :]).astype(float)
    noise = np.random.default_rng(0).normal(size=exact.shape)
    noisy = structure(3 * exact + (noise + noise.T), tree)
    assert structure(2 * exact, tree)["pearson"] == pytest.approx(1)
    assert 0.9 < noisy["pearson"] < 1 and noisy["edge_map"] < 1 and noisy["distortion"] > 0


def test_ranks_count_ties_against_the_right_code():
    scores = np.array([[3.0, 2.0, 1.0], [1.0, 1.0, 0.0], [0.0, 1.0, 2.0]])
    found = retrieval(scores, np.array([0, 0, 0]), of("111110", "111120", "212111"))
    assert found["top1"] == pytest.approx(1 / 3)
    assert found["mrr"] == pytest.approx((1 + 1 / 2 + 1 / 3) / 3)
    assert found["top1@4"] == pytest.approx(2 / 3) and found["top1@2"] == pytest.approx(2 / 3)


def test_combined_sectors_are_one_sector():
    assert retrieval(np.array([[1.0, 0.0]]), np.array([1]), of("311111", "332111"))["top1@2"] == 1


def test_precision_is_taken_on_the_most_certain_texts():
    scores = np.array([[9.0, 0.0], [1.1, 1.0]])
    found = retrieval(scores, np.array([0, 1]), of("111110", "212111"))
    assert found["precision@50"] == 1 and found["precision@90"] == 1 and found["top1"] == 0.5
