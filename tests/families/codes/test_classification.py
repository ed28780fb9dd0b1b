"""Classifications as offices have them: columns are recognised, and the tree is found whatever the codes look like."""

import datetime
import json

import openpyxl
import pytest

from curricle.errors import ConfigError, DataError
from curricle.families.codes.classification import by_code, matcher, read_classification
from curricle.families.codes.tree import Tree, relations


def tree_of(known) -> Tree:
    return Tree.of(known.codes, known.parents, known.levels)


def read(path, text, **columns):
    path.write_text(text, encoding="utf-8")
    return read_classification(path, columns)


@pytest.mark.parametrize(
    ("codes", "parents"),
    [
        (["0", "00", "001", "0011"], [None, "0", "00", "001"]),
        (["11", "31-33", "311", "3111", "321"], [None, None, "31-33", "311", "31-33"]),
        (["A", "01", "01.1", "01.11", "01.11/1", "B", "05"], [None, "A", "01", "01.1", "01.11", None, "B"]),
        (["A00-B99", "A00-A09", "A00", "A00.0", "A01"], [None, "A00-B99", "A00-A09", "A00", "A00-A09"]),
        (["11-0000", "11-1000", "11-1010", "11-1011"], [None, "11-0000", "11-1000", "11-1010"]),
        (["A", "A1", "A11", "A1101"], [None, "A", "A1", "A11"]),
        (
            ["10000000", "10100000", "10101500", "10101501", "11000000"],
            [None, "10000000", "10100000", "10101500", None],
        ),
        (["K0", "K1", "K9"], [None, None, None]),
        (["10", "11", "20", "21"], [None, None, None, None]),
        (["x", "y", "z"], [None, None, None]),
        (["NA", "NA1", "NB"], [None, "NA", None]),
    ],
    ids=["NOC", "NAICS", "NACE", "ICD", "SOC", "letters", "UNSPSC", "numbered", "divisions", "flat", "NA"],
)
def test_the_tree_is_found_by_the_codes(codes, parents):
    assert by_code(codes) == parents


@pytest.mark.parametrize(
    "header",
    ["code,title,parent", "noc_code,noc_title,Parent", "Code,Class title,Parent code", "2022 NAICS US Code,2022 NAICS US Title,Broader", "conceptCode,preferredLabel,broader"],
)  # fmt: skip
def test_columns_are_known_by_their_usual_names(tmp_path, header):
    known = read(tmp_path / "a.csv", f"{header}\n1,Food,none\nNA,Not applicable,\n11,Meat,1\n")
    assert (
        known.codes == ("1", "NA", "11")
        and known.parents == (None, None, "1")
        and known.titles["NA"] == "Not applicable"
    )


def test_a_description_stands_for_a_missing_title_and_notes_become_channels(tmp_path):
    known = read(
        tmp_path / "a.csv",
        "Level;Code;Parent;Description;This item includes;This item excludes\n1;A;;Farming;;\n2;01;A;Crops;- rice\u2028;see 02\n2;02;A;Animals;cows|pigs;NA\n",
    )
    assert known.titles == {"A": "Farming", "01": "Crops", "02": "Animals"} and known.examples["02"] == ("cows", "pigs")
    assert known.exclusions == {"01": "see 02"} and known.levels == (1, 2, 2)


def test_level_numbers_are_those_of_the_file_where_each_depth_has_one(tmp_path):
    text = "code,title,Level,parent\n11-0000,a,2,NA\n11-1000,b,3,11-0000\n11-1010,c,5,11-1000\n11-1011,d,6,11-1010\n"
    tree = tree_of(read(tmp_path / "a.csv", text))
    assert tree.levels == (2, 3, 5, 6) and tree.depth.tolist() == [1, 2, 3, 4]
    assert tree_of(read(tmp_path / "a.csv", text.replace("b,3", "b,2"))).levels == (1, 2, 3, 4)


def test_ancestors_in_columns_and_the_order_of_rows_make_the_tree(tmp_path):
    known = read(tmp_path / "a.csv", "code,title,div,g2,g3\nA,a,A,NA,NA\n01,b,A,01,010\n011,c,A,01,011\n")
    assert known.parents == (None, "A", "01") and "ancestors" in known.said
    known = read(tmp_path / "b.csv", "level,code,title\n1,X1,a\n2,Q7,b\n3,R2,c\n2,Q9,d\n1,X2,e\n")
    assert known.parents == (None, "X1", "Q7", "X1", None) and "order of rows" in known.said


@pytest.mark.parametrize(
    ("header", "more", "said"),
    [
        ("code,title", "", "of one level (the codes are running numbers"),
        ("code,title,parent", ",", "of one level (column 'parent' names no parent)"),
        ("code,title,Level", ",1", "of one level (all codes are of level 1)"),
    ],
)
def test_a_list_of_one_level_stays_one_whatever_its_codes_begin_with(tmp_path, header, more, said):
    codes = [str(n) for n in (range(1, 26) if not more else (1, 2, 10, 11, 12, 20, 21, 100))]
    known = read(tmp_path / "a.csv", "\n".join([header, *(f"{code},title {code}{more}" for code in codes)]))
    assert set(known.parents) == {None} and said in known.said


def test_a_column_of_parents_by_another_name_is_pointed_at(tmp_path):
    text = "id,Titel,Elternteil\n1,Obst,\n2,Brot,\n30,Apfel,1\n40,Birne,1\n50,Kipf,2\n"
    known = read(tmp_path / "a.csv", text, code="id")
    assert "column 'Elternteil' is not read: if it names parents, say data.columns.parent=Elternteil" in known.said
    named = read(tmp_path / "a.csv", text, code="id", parent="Elternteil")
    assert named.parents == (None, None, "1", "1", "2") and "not read" not in named.said


@pytest.mark.parametrize(
    ("below", "named"),
    [
        ("\n\nSource: Statistics Office 2016,\n* revised since,\nNotes,\n", "3; line 6: 'Source: Statistics Office 2016', 7:"),
        ("\n,\nSource: Statistics Office 2016\n* revised\n", "2; line 6: 'Source: Statistics Office 2016', 7: '* revised'"),
        ("\n*revised,\n,\nNotes,\n", "2; line 5: '*revised', 7: 'Notes'"),
        ("\n\u6ce8\uff1a\u521d\u6b65\u6570\u636e,\n", "1; line 5: "),
        ("\nthese codes are of 2016,\n", "1; line 5: 'these codes are of 2016'"),
    ],
)  # fmt: skip
def test_notes_below_the_codes_are_none(tmp_path, below, named):
    known = read(tmp_path / "codes.csv", "code,title\n1,Farming\n11,Crops\n12,Animals" + below)
    assert known.codes == ("1", "11", "12")
    assert f"notes below the codes are left out ({named}" in known.said


@pytest.mark.parametrize("last", ["Not stated,Not stated,1", "Not stated,,", "Section D,,", "Unknown or not stated at all,,1", "*,all,"])  # fmt: skip
def test_a_last_code_is_no_note(tmp_path, last):
    known = read(tmp_path / "codes.csv", f"code,title,level\n1,Farming,1\n11,Crops,2\n12,Animals,2\n{last}\n")
    assert known.codes[-1] == last.partition(",")[0] and "notes" not in known.said


def test_a_code_below_a_note_makes_it_none(tmp_path):
    text = "code,title\n1,Farming\nA: of old,\n11,Crops\n12,Animals\n"
    assert read(tmp_path / "codes.csv", text).codes == ("1", "A: of old", "11", "12")
    with pytest.raises(DataError, match="line 3: has 1 cells"):
        read(tmp_path / "codes.csv", text.replace("old,", "old"))


def test_codes_without_a_title_are_said(tmp_path):
    known = read(tmp_path / "a.csv", "code,title\nA,Food\nA1,\nA2, \n")
    assert known.titles["A1"] == "A1" and "2 codes without a title have their code for one, as 'A1'" in known.said


def test_a_workbook_without_a_header_and_a_file_of_records_are_read(tmp_path):
    book = openpyxl.Workbook()
    for row in ([1, "Food products"], [11, "Meat products"], [12, "Fish products"]):
        book.active.append(row)
    book.save(tmp_path / "a.xlsx")
    known = read_classification(tmp_path / "a.xlsx", {})
    assert known.parents == (None, "1", "1") and "no header" in known.said
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({"id": c, "label": f"title {c}"}) + "\n" for c in ("1", "11")))
    assert read_classification(tmp_path / "a.jsonl", {}).parents == (None, "1")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("code,title\n1,a\n1,b\n", r"code '1' is there twice, in line 2 \('a'\) and line 3 \('b'\)"),
        ("code,title,parent\n1,a,\n2,b,9\n", "line 3: code '2' has the parent '9', which is no code"),
        ("code,title\n,a\n", "holds no code"),
        ("code,title\n1,a,b,c\n1,b\n2,c\n3,d\n", "line 2: has 4 cells"),
    ],
)
def test_what_is_no_classification_is_refused_with_its_line(tmp_path, text, said):
    with pytest.raises(DataError, match=said):
        read(tmp_path / "a.csv", text)


def test_a_circle_of_parents_is_refused_where_it_stands(tmp_path):
    with pytest.raises(DataError, match="line 4: code '2' is among its own ancestors: 2 → 3 → 2"):
        read(tmp_path / "a.csv", "code,title,parent\n9,top,\n1,a,2\n2,b,3\n3,c,2\n")


def test_columns_that_are_not_recognised_are_listed_and_can_be_named(tmp_path):
    text = "wort,zahl zwei,x y\nkuchen und brot,ja sehr,9\nfisch und fleisch,nein,9\n"
    with pytest.raises(ConfigError, match="its columns: 'wort', 'zahl zwei', 'x y'.*data.columns.code=NAME"):
        read(tmp_path / "a.csv", text)
    assert read(tmp_path / "b.csv", "a,b\nfood,K1\nmeat,K2\n", code="b", title="A").titles == {
        "K1": "food",
        "K2": "meat",
    }
    with pytest.raises(ConfigError, match="data.columns.code is 'nope'"):
        read(tmp_path / "b.csv", "a,b\nfood,K1\n", code="nope")


def test_another_way_of_writing_a_code_is_understood():
    find = matcher(["11-1011", "0011", "01.1", "a", "A"])
    assert [find(t) for t in ("11-1011", "11 1011", "111011", "11", "11.0", "011", "a", "99")] == ["11-1011", "11-1011", "11-1011", "0011", "0011", "01.1", "a", None]  # fmt: skip


def test_relations_of_deeper_trees_go_on_where_those_of_five_levels_end():
    assert relations(4)[4, 4] == 14 and len(relations(4)) == 14
    deep = relations(13)
    assert {k: v for k, v in deep.items() if max(k) <= 4} == relations(4)
    assert len(set(deep.values())) == len(deep) == 15 * 14 // 2 - 1 and 99 not in deep.values()
    assert deep[0, 5] == 15


def test_leaves_lie_at_any_depth_and_stand_for_themselves_on_finer_levels():
    tree = Tree.of(["1", "11", "111", "2", "3", "31"], [None, "1", "11", None, None, "3"])
    assert [tree.codes[i] for i in tree.leaves] == ["111", "2", "31"] and tree.levels == (1, 2, 3)
    assert [[tree.codes[i] for i in column] for column in tree.cuts[tree.leaves].T] == [["1", "2", "3"], ["11", "2", "31"], ["111", "2", "31"]]  # fmt: skip
    assert tree.rank.tolist() == [1, 2, 3, 3, 1, 3] and tree.sole_leaf.tolist() == [2, 2, 2, 3, 5, 5]
    assert tree.tree_distance(2, 3) == 4 and tree.relation(0, 3) == 99


def test_the_shared_classifications_have_the_trees_that_they_are_known_for(shared):
    folder = shared / "data" / "classifications"
    found = {}
    for name in ("noc2016/structure.csv", "naics2017/codes.csv", "sic1987/codes.csv", "soc2018/codes.csv"):
        known = read_classification(folder / name, {})
        tree = tree_of(known)
        found[name[:3]] = (
            tree.levels,
            [int((tree.depth == d).sum()) for d in range(1, len(tree.levels) + 1)],
            len(tree.leaves),
        )
        if name[:3] == "nai":
            assert by_code(known.codes) == list(known.parents)
    assert found["noc"] == ((1, 2, 3, 4), [10, 40, 140, 500], 500)
    assert found["nai"][:2] == ((2, 3, 4, 5, 6), [20, 99, 311, 709, 1057])
    assert found["soc"] == ((2, 3, 5, 6), [23, 98, 459, 867], 867)
    assert found["sic"][1][0] == 9 + 8 and found["sic"][2] == 1005  # its division J has no row of its own
    known = read_classification(folder / "sic1987" / "codes.csv", {})
    above = dict(zip(known.codes, known.parents, strict=True))
    assert above["91"] is None and above["9111"] == "911" and above["962"] == "96" and above["89"] == "I"
    assert "8 codes under 'J', which is no code of this table, have no parent" in known.said
    assert "5 codes that stand in none of them by prefix, as '962'" in known.said


@pytest.mark.parametrize(
    ("rows", "parents", "said"),
    [
        ("1 1.1 1.2 2 2.1 12 12.1", "- 1 1 - 2 - 12", "by prefix"),
        ("1 1.1.1 10 11 11.1.1 1.1 11.1 1.1.2", "- 1.1 - - 11.1 1 11 1.1", "by prefix"),
        ("1 1-1 1-2 2 2-1 12 12-1 12-2", "- 1 1 - 2 - 12 12", "by prefix"),
        ("1. 1.1. 1.2. 10. 10.1.", "- 1. 1. - 10.", "by prefix"),
        ("1 1.1 1.11 1.12 1.2 10 10.1 10.11 10.13 10.2", "- 1 1.1 1.1 1 - 10 10.1 10.1 10", "by prefix"),
        ("A B 01 05 011 051", "- - - - 01 05", "which numbers belong to A, B the table does not say"),
        ("A 01 011 B 05 051", "- A 01 - B 05", "by prefix"),
        ("I 01 0101 02 II 06 0601 III 15 IV 20", "- I 01 I - II 06 - III - IV", "by prefix"),
        ("03000000-1 03100000-2 03110000-5 09000000-3 09100000-0", "- 03000000-1 03100000-2 - 09000000-3", "by prefix"),
        ("a A a1 A1 b1", "- - a A -", "by prefix"),
        ("A 01 01.4 01.41 B 08 08.1 08.11 C 14 14.2 14.20", "- A 01 01.4 - B 08 08.1 - C 14 14.2", "by prefix"),
    ],
)  # fmt: skip
def test_codes_are_read_as_people_number_them(tmp_path, rows, parents, said):
    codes = rows.split()
    known = read(tmp_path / "a.csv", "\n".join(["code,title", *(f"{code},title of {code}" for code in codes)]))
    assert known.codes == tuple(codes)
    assert known.parents == tuple(None if parent == "-" else parent for parent in parents.split())
    assert said in known.said


def test_a_column_of_sections_says_which_letter_a_number_belongs_to(tmp_path):
    text = "code,title,Section\nA,Farms,A\nB,Mines,B\n01,Crops,A\n05,Coal,B\n011,Rice,A\n"
    known = read(tmp_path / "a.csv", text)
    assert known.parents == (None, None, "A", "B", "01") and "sections by column 'Section'" in known.said


@pytest.mark.parametrize("header", ["Nr,Bezeichnung", "coicop,label", "isic,description", "KldB,Berufsbenennung", "код,наименование", "naics2d,title"])  # fmt: skip
def test_words_above_numbers_are_a_header_in_any_language(tmp_path, header):
    known = read(tmp_path / "a.csv", f"{header}\n1,Nahrung\n11,Brot und Kuchen\n12,Reis\n2,Kleidung\n")
    assert known.codes == ("1", "11", "12", "2") and known.parents == (None, "1", "1", None)


def test_of_text_columns_without_a_known_name_the_title_is_the_one_that_differs(tmp_path):
    known = read(tmp_path / "a.csv", "code,group,item\n111,Cereals of all kinds,Bread\n112,Cereals of all kinds,Rice\n")
    assert known.titles == {"111": "Bread", "112": "Rice"}


def test_dates_of_a_workbook_are_no_codes(tmp_path):
    book = openpyxl.Workbook()
    for row in (["code", "title"], ["01", "Food"], [datetime.datetime(2024, 1, 1), "Bread"]):
        book.active.append(row)
    book.save(tmp_path / "a.xlsx")
    with pytest.raises(DataError, match="row 3: the code is a date, 2024-01-01; save that column as text"):
        read_classification(tmp_path / "a.xlsx", {})


def test_another_way_of_writing_never_moves_a_mark():
    known = matcher(["A", "01", "01.42", "14.2", "14.20", "16.10", "01.61", "08.11", "81.10"])
    assert [known(text) for text in ("1.42", "1.61", "8.11", "0142", "142", "14.2")] == ["01.42", "01.61", "08.11", "01.42", "14.2", "14.2"]  # fmt: skip
    assert known("8.110") is None and known("1.410") is None
    checked = matcher(["09111100-1", "09111200-2"])
    assert {checked(text) for text in ("9111100-1", "9111100", "09111100", "091111001")} == {"09111100-1"}
