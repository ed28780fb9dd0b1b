"""Relations and distances of the tree."""

from collections import Counter

import numpy as np
import pytest

from curricle.errors import DataError
from curricle.families.codes.tree import Tree
from curricle.families.codes.workbooks import hierarchy, read_demo


@pytest.fixture(scope="module")
def tree() -> Tree:
    titles = list(read_demo().titles)
    return Tree.of(titles, *hierarchy(titles))


@pytest.fixture(scope="module")
def pairs(tree) -> tuple[np.ndarray, np.ndarray]:
    return np.triu_indices(len(tree.codes), 1)


def relation(tree: Tree, a: str, b: str) -> int:
    return int(tree.relation(tree.index[a], tree.index[b]))


def test_there_are_as_many_pairs_of_each_relation_as_the_tree_has(tree, pairs):
    assert len(pairs[0]) == 2_256_750
    counted = Counter(tree.relation(*pairs).tolist())
    assert counted == {
        1: 2105, 2: 2394, 3: 2009, 4: 1701, 5: 7413, 6: 1012, 7: 9583, 8: 9561, 9: 9338, 10: 29_503, 11: 27_807, 12: 34_434,
        13: 70_835, 14: 64_408, 99: 1_984_647,
    }  # fmt: skip


def test_the_tree_distance_has_its_known_histogram(tree, pairs):
    counted = Counter(tree.tree_distance(*pairs).tolist())
    assert [counted[n] for n in range(1, 11)] == [
        2105,
        4593,
        10_938,
        30_175,
        78_544,
        183_454,
        347_006,
        549_103,
        613_307,
        437_525,
    ]


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ("31-33", "311", 1), ("311", "312", 2), ("11", "1111", 3), ("111110", "111120", 7), ("311", "321", 2), ("441", "455", 2),
        ("481", "491", 2), ("11", "21", 99), ("11", "111110", 6), ("1111", "11121", 5),
    ],
)  # fmt: skip
def test_relations_are_those_of_the_table_both_ways(tree, a, b, expected):
    assert relation(tree, a, b) == relation(tree, b, a) == expected


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [("31-33", "311", 0.5), ("11", "1111", 1.5), ("311", "312", 2), ("11", "111110", 3.5), ("111110", "111120", 4), ("111110", "115310", 8),
     ("311", "321", 2), ("11", "21", 99), ("311", "311", 0)],
)  # fmt: skip
def test_classic_distances_are_those_of_the_table_both_ways(tree, a, b, expected):
    i, j = tree.index[a], tree.index[b]
    assert tree.distance(i, j) == tree.distance(j, i) == expected


@pytest.mark.parametrize(
    ("a", "b", "expected"), [("31-33", "311", 1), ("11", "21", 2), ("111110", "928120", 10), ("311", "311", 0)]
)
def test_tree_distances_go_through_a_virtual_root(tree, a, b, expected):
    assert tree.tree_distance(tree.index[a], tree.index[b]) == expected


def test_the_tree_distance_keeps_the_triangle_inequality(tree):
    some = np.random.default_rng(0).choice(len(tree.codes), 80, replace=False)
    d = tree.tree_distance(some[:, None], some[None, :])
    assert (d[:, None, :] <= d[:, :, None] + d[None, :, :]).all()


def test_a_code_has_no_relation_to_itself(tree):
    assert tree.relation(5, 5) == -1


def test_522_five_digit_codes_have_one_child_and_share_its_chain(tree):
    unary = [i for i, below in enumerate(tree.children) if tree.level[i] == 5 and len(below) == 1]
    assert len(unary) == 522
    assert all(tree.chain[i] == tree.chain[tree.children[i][0]] for i in unary)
    assert tree.codes[tree.chain[tree.index["113210"]]] == "1132"
    assert tree.codes[tree.sole_leaf[tree.index["1132"]]] == "113210"
    assert tree.sole_leaf[tree.index["11"]] == -1


def test_a_subtree_holds_the_codes_that_start_with_it(tree):
    held = {tree.codes[i] for i in np.flatnonzero(tree.subtree[tree.index["1111"]])}
    assert held == {c for c in tree.codes if c.startswith("1111")}
    manufacturing = {tree.codes[i] for i in np.flatnonzero(tree.subtree[tree.index["31-33"]])}
    assert manufacturing == {c for c in tree.codes if c[:2] in ("31", "32", "33")}


def test_a_code_without_its_parent_is_refused():
    with pytest.raises(DataError, match="code 1111 has no parent 111"):
        Tree.of(["11", "1111"], *hierarchy(["11", "1111"]))
