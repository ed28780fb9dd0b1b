"""The curriculum's filters and draws, against a reference that lists every row of a small tree."""

import re
from collections import defaultdict

import numpy as np
import pytest

from curricle.errors import ConfigError
from curricle.families.codes.config import Curriculum
from curricle.families.codes.prepare import CHANNELS, CodeTable
from curricle.families.codes.tree import Tree
from curricle.families.codes.triplets import sample, scheme
from curricle.families.codes.workbooks import hierarchy, parent_of

CODES = [
    "11",
    "111",
    "1111",
    "11111",
    "111110",
    "11112",
    "111120",
    "1112",
    "11121",
    "111211",
    "111219",
    "112",
    "1121",
    "11211",
    "112111",
    "112112",
    "11212",
    "112120",
    "31-33",
    "311",
    "3111",
    "31111",
    "311111",
    "311119",
    "321",
    "3211",
    "32111",
    "321113",
    "321114",
    "3212",
    "32121",
    "321211",
    "42",
    "423",
    "4231",
    "42311",
    "423110",
]
EXCLUDED = {"111110": ("111120", "311111", "321"), "111120": ("111110",), "3111": ("3211",), "311": ("111",)}
FILTERS = ("anchor_level", "positive_level", "negative_level", "positive_relation", "negative_relation", "positive_distance",
           "negative_distance", "relation_margin", "distance_margin")  # fmt: skip


@pytest.fixture(scope="module")
def table() -> CodeTable:
    tree = Tree.of(CODES, *hierarchy(CODES))
    excluded = tuple(tuple(tree.index[c] for c in EXCLUDED.get(code, ())) for code in CODES)
    return CodeTable(
        tree, {name: [None] * len(CODES) for name in CHANNELS}, excluded, np.zeros(len(CODES), dtype=bool), []
    )


def path(code: str) -> list[str]:
    """From a code up to its sector."""
    above = parent_of(code)
    return [code] if above is None else [code, *path(above)]


NAMED = {"0,1": 1, "1,1": 2, "0,2": 3, "0,3": 4, "1,2": 5, "0,4": 6, "2,2": 7, "1,3": 8, "1,4": 9, "2,3": 10, "3,3": 11, "2,4": 12,
         "3,4": 13, "4,4": 14}  # fmt: skip


def reference_pair(a: str, b: str) -> tuple[int, float]:
    """(relation, distance) of b as a sees it, by walking up."""
    if b in EXCLUDED.get(a, ()):
        return 0, 0
    up, down = path(a), path(b)
    shared = [c for c in up if c in down]
    if not shared:
        return 99, 99
    steps = sorted((up.index(shared[0]), down.index(shared[0])))
    return NAMED[f"{steps[0]},{steps[1]}"], sum(steps) - (0.5 if steps[0] == 0 else 0)


def reference_rows() -> list[dict]:
    """Every row of the tree, by three loops."""
    rows = []
    for a in CODES:
        for p in CODES:
            if p == a or reference_pair(a, p)[0] in (0, 99):
                continue
            for n in CODES:
                if n in (a, p):
                    continue
                (pr, pd), (nr, nd) = reference_pair(a, p), reference_pair(a, n)
                if nr == 0:
                    rm, dm = 0.1, 0.1
                elif nr == 99:
                    rm, dm = 15, 10
                else:
                    rm, dm = nr - pr, nd - pd
                    if rm > 0 and dm == 0:
                        dm = 1 / 3
                    elif rm > 0 and dm == -0.5:
                        dm = 2 / 3
                if rm > 0 and dm > 0:
                    level = {c: 2 if "-" in c else len(c) for c in (a, p, n)}
                    rows.append({
                        "key": (CODES.index(a), CODES.index(p), CODES.index(n)), "anchor_level": level[a], "positive_level": level[p],
                        "negative_level": level[n], "positive_relation": pr, "negative_relation": nr, "positive_distance": pd,
                        "negative_distance": nd, "relation_margin": rm, "distance_margin": dm,
                    })  # fmt: skip
    return rows


REFERENCE = reference_rows()


def matching(curriculum: Curriculum) -> dict[tuple[int, int], set[int]]:
    """(anchor, positive) → negatives of the reference rows that pass every filter."""
    found = defaultdict(set)
    for row in REFERENCE:
        if all(
            getattr(curriculum, f) is None or any(abs(row[f] - v) < 1e-9 for v in getattr(curriculum, f))
            for f in FILTERS
        ):
            a, p, n = row["key"]
            found[a, p].add(n)
    return dict(found)


CURRICULA = [
    {},
    {"positive_relation": (1,)},
    {"positive_relation": (1, 2), "anchor_level": (2, 3)},
    {"positive_level": (4, 5, 6), "positive_relation": (1, 2, 3, 4, 5, 6, 7)},
    {"relation_margin": (0, 1, 2), "distance_margin": (0.5, 1, 1 / 3, 2 / 3)},
    {"relation_margin": (0.1,)},
    {"distance_margin": (10,), "anchor_level": (6,), "positive_level": (2,)},
    {"negative_relation": (0, 2, 99), "negative_level": (6,)},
    {"negative_distance": (0, 2.5, 99), "positive_distance": (0.5, 2)},
    {"anchor_level": (2, 6), "negative_level": (2, 6)},
]


@pytest.mark.parametrize("filters", CURRICULA, ids=lambda f: " ".join(f) or "none")
def test_the_filters_leave_exactly_the_rows_of_the_reference(table, filters):
    curriculum = Curriculum(name="x", **filters)
    expected = matching(curriculum)
    drawn = sample(table, curriculum, seed=0)
    assert drawn.negatives is None
    assert [(int(a), int(p)) for a, p in zip(drawn.anchors, drawn.positives, strict=True)] == sorted(expected)
    for pair, row in zip(sorted(expected), drawn.candidates(slice(None)), strict=True):
        assert set(np.flatnonzero(row)) == expected[pair]


@pytest.mark.parametrize("filters", CURRICULA, ids=lambda f: " ".join(f) or "none")
def test_a_draw_takes_no_more_than_asked_and_only_admissible_ones(table, filters):
    expected = matching(Curriculum(name="x", **filters))
    drawn = sample(table, Curriculum(name="x", n_positives=2, n_negatives=3, **filters), seed=3)
    anchors, counts = np.unique(drawn.anchors, return_counts=True)
    for anchor, count in zip(anchors, counts, strict=True):
        assert count == min(2, sum(a == anchor for a, _ in expected))
    assert len(anchors) == len({a for a, _ in expected})
    for a, p, row in zip(drawn.anchors, drawn.positives, drawn.negatives, strict=True):
        taken = [int(n) for n in row if n >= 0]
        assert len(taken) == len(set(taken)) == min(3, len(expected[int(a), int(p)]))
        assert set(taken) <= expected[int(a), int(p)]
        assert (row[len(taken) :] == -1).all()


def test_asking_for_more_negatives_than_there_are_gives_them_all(table):
    curriculum = Curriculum(name="x", positive_relation=(1, 2), n_negatives=2125)
    expected = matching(curriculum)
    drawn = sample(table, curriculum, seed=0)
    for a, p, row in zip(drawn.anchors, drawn.positives, drawn.negatives, strict=True):
        assert {int(n) for n in row if n >= 0} == expected[int(a), int(p)]


def test_the_same_seed_gives_the_same_sample_and_another_one_another(table):
    curriculum = Curriculum(name="x", n_positives=3, n_negatives=4)
    one, two, other = sample(table, curriculum, 1), sample(table, curriculum, 1), sample(table, curriculum, 2)
    assert (one.positives == two.positives).all() and (one.negatives == two.negatives).all()
    assert not np.array_equal(one.positives, other.positives)


def test_negatives_are_drawn_with_one_over_their_mean_margin(table):
    curriculum = Curriculum(name="x", anchor_level=(6,), n_negatives=1)
    anchor, positive = CODES.index("111110"), CODES.index("11111")
    rows = [r for r in REFERENCE if r["key"][:2] == (anchor, positive)]
    boost = {r["key"][2]: 1.0 if r["negative_relation"] == 0 else 0.0 for r in rows}
    weight = {r["key"][2]: 1 / ((r["relation_margin"] + r["distance_margin"]) / 2 + boost[r["key"][2]]) for r in rows}
    drawn = [sample(table, curriculum, seed) for seed in range(1500)]
    at = int(np.flatnonzero((drawn[0].anchors == anchor) & (drawn[0].positives == positive))[0])
    counts = np.bincount([d.negatives[at, 0] for d in drawn], minlength=len(CODES)) / len(drawn)
    expected = np.array([weight.get(i, 0.0) for i in range(len(CODES))]) / sum(weight.values())
    assert (np.abs(counts - expected) <= 5 * np.sqrt(expected * (1 - expected) / len(drawn))).all()


def test_the_weight_of_every_row_in_the_draw_is_one_over_its_mean_margin():
    at = {relation: i for i, relation in enumerate(scheme(4).classes.tolist())}
    for row in REFERENCE:
        mean = (row["relation_margin"] + row["distance_margin"]) / 2 + (1 if row["negative_relation"] == 0 else 0)
        assert scheme(4).draw_weight[at[row["positive_relation"]], at[row["negative_relation"]]] == pytest.approx(
            1 / mean
        )


def test_a_rows_own_weight_blends_its_margins_a_third_to_two_thirds(table):
    drawn = sample(table, Curriculum(name="x"), 0)
    weights = drawn.weight(slice(None))
    at = {(int(a), int(p)): i for i, (a, p) in enumerate(zip(drawn.anchors, drawn.positives, strict=True))}
    for row in REFERENCE[::97]:
        a, p, n = row["key"]
        assert weights[at[a, p], n] == pytest.approx(1 / (row["relation_margin"] / 3 + row["distance_margin"] * 2 / 3))


def test_hidden_codes_take_part_in_no_triplet(table):
    cold = np.array([c == "111110" for c in CODES])
    hidden = CodeTable(table.tree, table.channels, table.excluded, cold, [])
    drawn = sample(hidden, Curriculum(name="x"), 0)
    i = CODES.index("111110")
    assert i not in drawn.anchors and i not in drawn.positives and not drawn.candidates(slice(None))[:, i].any()


def test_a_combination_that_leaves_nothing_names_the_filter_that_did_it(table):
    levels = {"anchor_level": (2,), "positive_level": (6,)}
    left = matching(Curriculum(name="x", **levels))
    rows, anchors = sum(map(len, left.values())), len({anchor for anchor, _ in left})
    message = (
        f"curriculum '02_stage': positive_relation [2] leaves no triplet of {rows} ({len(left)} pairs of {anchors} anchors) "
        "that were left after anchor_level [2], positive_level [6]"
    )
    with pytest.raises(ConfigError, match=re.escape(message)):
        sample(table, Curriculum(name="02_stage", **levels, positive_relation=(2,)), 0)
