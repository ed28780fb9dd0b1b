"""A concordance: which column holds what, what became of each code, and from which old points new ones start."""

import pytest

from curricle.errors import ConfigError, DataError
from curricle.families.codes.classification import read_classification
from curricle.families.codes.concordance import derived, read_concordance, reconcile
from curricle.families.codes.tree import Tree

OLD = Tree.of(["1", "2", "11", "12", "13", "14", "21", "22", "23"], [None, None, "1", "1", "1", "1", "2", "2", "2"])
NEW = Tree.of(
    ["1", "2", "3", "11", "12", "15", "16", "21", "24", "31", "32"],
    [None, None, None, "1", "1", "1", "1", "2", "2", "3", "3"],
)
ROWS = [
    ("11", "Bread", "11", "Bread"),
    ("12", "Beer", "15", "Brewing"),  # another code
    ("13", "Meat", "16", "Animal food"),  # merged
    ("14", "Fish", "16", "Animal food"),
    ("21", "Cloth", "21", "Cloth"),  # split
    ("21", "Cloth", "24", "Carpets"),
    ("22", "Coal", "", ""),  # dead
    ("23", "Boats", "31", "Ships"),
]
TITLES = {old: title for old, title, *_ in ROWS}
NEW_TITLES = {new: title for *_, new, title in ROWS if new} | {"12": "Wine", "32": "Trains"}


def written(path, rows, header="old,title,new,new title"):
    path.write_text("\n".join([header, *(",".join(row) for row in rows)]) + "\n", encoding="utf-8")
    return path


def made(tmp_path, rows=ROWS, new=NEW, **given):
    found = read_concordance(written(tmp_path / "c.csv", rows, **given), OLD, new)
    return reconcile(OLD, new or derived(OLD, found), found, TITLES, NEW_TITLES)


def test_each_code_is_said_what_became_of_it(tmp_path):
    found = made(tmp_path)
    assert found.old_status == {
        "11": "unchanged", "12": "renamed", "13": "merged", "14": "merged", "21": "split", "22": "dead", "23": "renamed"}  # fmt: skip
    assert found.new_status == {
        "11": "unchanged", "12": "new", "15": "renamed", "16": "merged", "21": "split", "24": "split", "31": "renamed", "32": "new"}  # fmt: skip
    assert found.targets["21"] == ("21", "24") and found.targets["22"] == ()
    assert found.counts()["old"]["merged"] == 2 and found.counts()["new"]["new"] == 2


def test_points_are_those_of_the_old_codes_and_of_new_ones_their_parents(tmp_path):
    points = dict(zip(NEW.codes, made(tmp_path).points(), strict=True))
    assert points == {
        "1": ("1",), "2": ("2",), "3": ("2",), "11": ("11",), "12": (), "15": ("12",), "16": ("13", "14"), "21": ("21",), "24": ("21",), "31": ("23",), "32": ()}  # fmt: skip
    both = [*ROWS, ("21", "Cloth", "16", "Animal food")]
    assert dict(zip(NEW.codes, made(tmp_path, both).points(), strict=True))["16"] == ("13", "14"), "whole codes first"


def test_columns_are_known_by_the_codes_in_them_in_any_order_and_language(tmp_path):
    plain = made(tmp_path)
    turned = [(row[2], row[3], str(i), row[0]) for i, row in enumerate(ROWS)]
    assert made(tmp_path, turned, header="neu,Titel,Nr,alt").targets == plain.targets


def test_codes_that_a_concordance_of_changes_leaves_out_stay(tmp_path):
    found = made(tmp_path, [row for row in ROWS if row[0] != "11"])
    assert found.targets["11"] == ("11",) and found.old_status["11"] == "unchanged" and found.unlisted == 1


def test_without_the_new_classification_its_codes_lie_under_the_old_ones_above(tmp_path):
    tree = made(tmp_path, new=None).new
    above = {code: tree.codes[p] if p >= 0 else None for code, p in zip(tree.codes, tree.parent, strict=True)}
    assert above == {"1": None, "2": None, "11": "1", "15": "1", "16": "1", "21": "2", "24": "2", "31": "2"}


def test_what_is_no_concordance_of_these_codes_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="no column holds old codes; its columns: 'a', 'b'"):
        made(tmp_path, [("x1", "y1"), ("x2", "y2")], header="a,b")
    with pytest.raises(ConfigError, match="no column holds new codes"):
        made(tmp_path, [("11", "some words"), ("12", "other words")], new=None, header="a,b")
    with pytest.raises(ConfigError, match="--old-column and --new-column are both old"):
        read_concordance(written(tmp_path / "b.csv", ROWS), OLD, NEW, columns={"old": "old", "new": "old"})
    with pytest.raises(ConfigError, match="--old-column gone: .* has no such column"):
        read_concordance(written(tmp_path / "d.csv", ROWS), OLD, NEW, columns={"old": "gone"})
    odd = [*ROWS, ("99", "x", "11", "y"), ("1", "Food", "11", "y")]
    found = read_concordance(written(tmp_path / "e.csv", odd), OLD, NEW)
    assert (
        found.left_out == {"the old code is no leaf of its classification": 2} and "line 10: '99' → '11'" in found.said
    )
    with pytest.raises(DataError, match="f.csv, line 2: has 5 cells"):
        read_concordance(written(tmp_path / "f.csv", [("11", "Bread", "11", "a", "b"), *ROWS]), OLD, NEW)
    wrong = [ROWS[0], *((f"9{i}", "x", "11", "y") for i in range(5))]
    with pytest.raises(DataError, match="is no concordance from the model's classification: of 6 rows 1 pairs"):
        read_concordance(written(tmp_path / "g.csv", wrong), OLD, NEW, columns={"old": "old"})


def test_naics_2017_becomes_2022(shared):
    place = shared / "data" / "classifications" / "naics2017"
    old = read_classification(place / "codes.csv", {})
    tree = Tree.of(old.codes, old.parents, old.levels)
    found = read_concordance(place / "naics2017_naics2022.csv", tree, None)
    counts = reconcile(tree, derived(tree, found), found, old.titles, old.titles | found.titles).counts()
    assert (len(found.pairs), sum(counts["new"].values())) == (1150, 1012)
    assert counts["old"] | {"renamed": 0, "unchanged": 0} == {"unchanged": 0, "renamed": 0, "merged": 120, "split": 9, "dead": 0, "new": 0}  # fmt: skip
