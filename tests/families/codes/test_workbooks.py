"""Reading the Census workbooks and the demo's titles."""

import shutil
from pathlib import Path

import pytest

from curricle.errors import DataError
from curricle.families.codes import workbooks
from curricle.families.codes.workbooks import read_demo, read_workbooks


@pytest.fixture(scope="module")
def census(shared: Path) -> workbooks.Sources:
    return read_workbooks(shared / "data" / "naics2022")


def test_the_census_has_2125_codes_in_the_known_numbers_a_level(census):
    levels = [workbooks.level_of(code) for code in census.titles]
    assert [levels.count(n) for n in range(2, 7)] == [20, 96, 308, 689, 1012]
    assert sum(workbooks.parent_of(code) is not None for code in census.titles) == 2105


def test_the_census_has_the_known_entries_cross_references_and_illustrative_lists(census):
    assert len(census.entries) == 20_373 and len({code for code, _ in census.entries}) == 1010
    assert len(census.cross_references) == 4601 and len({r.source for r in census.cross_references}) == 1095
    assert sum(not r.targets for r in census.cross_references) == 68
    assert sum(len(r.targets) == 1 for r in census.cross_references) == 4508
    assert len(census.illustrative) == 381


def test_no_description_of_the_census_keeps_a_trap(census):
    assert len(census.descriptions) == 2125 - 14
    assert {c for c in census.titles if c not in census.descriptions} == set(
        ["2111", "3231", "3241", "4561", "4931", "5192", "7121", "9211", "9221", "9231", "9241", "9251", "9261", "9281"]
    )
    for text in census.descriptions.values():
        assert text and not any(
            trap in text
            for trap in ("See industry description", "NULL", "Cross-References", "Illustrative", "\n", "\r")
        )
    assert census.descriptions["11111"] == census.descriptions["111110"]


def test_the_demo_has_the_titles_of_the_census_in_its_order(census):
    demo = read_demo()
    assert list(demo.titles.items()) == list(census.titles.items())


def test_the_demo_makes_phrases_that_belong_to_one_leaf_each():
    demo = read_demo()
    assert demo.synthetic and len(demo.titles) == 2125 and not demo.descriptions
    phrases = [text.lower() for _, text in demo.entries]
    assert len(phrases) == len(set(phrases)) > 3000
    assert not set(phrases) & {t.lower() for t in demo.titles.values()}
    assert all(workbooks.level_of(code) == 6 for code, _ in demo.entries)


def test_combined_sectors_are_the_parents_of_all_their_prefixes():
    assert [workbooks.parent_of(c) for c in ("311", "339", "459", "493", "111", "11", "31-33")] == [
        "31-33",
        "31-33",
        "44-45",
        "48-49",
        "11",
        None,
        None,
    ]


def test_the_traps_of_descriptions_are_undone(small_census):
    sources = read_workbooks(small_census)
    assert sources.descriptions["111110"] == sources.descriptions["11111"] == "This industry comprises code 111110."
    assert "1111" not in sources.descriptions  # NULL, several children
    assert sources.descriptions["1132"] == "This industry comprises code 113210."  # NULL, one child, that says See
    assert sources.illustrative == {"11119": ("Rye farming", "Oat farming")}
    assert sources.titles["928120"] == "International Affairs"


def test_see_rows_of_the_index_are_no_entries(small_census):
    assert len(read_workbooks(small_census).entries) == 21


def test_cross_references_give_the_activity_and_the_codes_they_name(small_census):
    rows = read_workbooks(small_census).cross_references
    assert [(r.phrase, r.targets) for r in rows[1:]] == [
        ("Growing soybeans", ("111110",)),
        ("making cheese for 33 years", ("31-33",)),
        ("Growing things", ("111150", "111160")),
        ("Popping corn", ()),
    ]
    assert rows[0].text == rows[1].text == "Growing soybeans--are classified in Industry 111110, Soybean Farming."


def test_a_missing_file_is_named_with_all_four_and_what_the_folder_holds(tmp_path, small_census):
    shutil.copy(small_census / workbooks.CODES.file, tmp_path)
    (tmp_path / "notes.txt").touch()
    with pytest.raises(DataError) as error:
        read_workbooks(tmp_path)
    message = str(error.value)
    assert message.startswith(f"{tmp_path} lacks '2022_NAICS_Descriptions.xlsx'")
    assert all(book.file in message for book in workbooks.WORKBOOKS)
    assert "the folder holds: 2-6 digit_2022_Codes.xlsx, notes.txt" in message


def test_a_folder_that_is_not_there_is_said(tmp_path):
    with pytest.raises(DataError, match="no NAICS data: .*nowhere is not a folder"):
        read_workbooks(tmp_path / "nowhere")


@pytest.fixture
def broken(tmp_path, small_census) -> Path:
    """A copy of the little workbooks to break."""
    return Path(shutil.copytree(small_census, tmp_path / "census"))


def test_an_empty_file_is_named(broken):
    (broken / workbooks.INDEX.file).write_bytes(b"")
    with pytest.raises(DataError, match=r"2022_NAICS_Index_File.xlsx: cannot be read as an Excel workbook"):
        read_workbooks(broken)


@pytest.mark.parametrize("part", [0.3, 0.5, 0.9, 0.99])
def test_a_truncated_file_is_named(broken, part):
    path = broken / workbooks.DESCRIPTIONS.file
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * part)])
    with pytest.raises(
        DataError, match=r"2022_NAICS_Descriptions.xlsx: cannot be read as an Excel workbook .*; download it again"
    ):
        read_workbooks(broken)


@pytest.mark.parametrize("place", [0.2, 0.4, 0.6])
def test_a_file_with_damaged_bytes_is_named(broken, place):
    path = broken / workbooks.DESCRIPTIONS.file
    data = bytearray(path.read_bytes())
    start = int(len(data) * place)
    data[start : start + 200] = b"\x00" * 200
    path.write_bytes(bytes(data))
    with pytest.raises(DataError, match=r"2022_NAICS_Descriptions.xlsx.* (is damaged|cannot be read)"):
        read_workbooks(broken)


def test_a_workbook_without_rows_is_named(broken, one_workbook):
    one_workbook(broken / workbooks.INDEX.file, workbooks.INDEX.sheet, [("NAICS22", "INDEX ITEM DESCRIPTION")])
    with pytest.raises(DataError, match="sheet '2022NAICS': has a header but no rows"):
        read_workbooks(broken)


def test_an_empty_sheet_is_named(broken, one_workbook):
    one_workbook(broken / workbooks.INDEX.file, workbooks.INDEX.sheet, [])
    with pytest.raises(
        DataError,
        match="sheet '2022NAICS', row 1: expected the columns 'NAICS22', 'INDEX ITEM DESCRIPTION'; found an empty row",
    ):
        read_workbooks(broken)


def test_a_wrong_sheet_is_named(broken, one_workbook):
    one_workbook(broken / workbooks.INDEX.file, "Sheet1", [("NAICS22", "INDEX ITEM DESCRIPTION"), (111110, "Soybeans")])
    with pytest.raises(DataError, match="expected a sheet '2022NAICS'; it has 'Sheet1'"):
        read_workbooks(broken)


def test_a_wrong_column_is_named(broken, one_workbook):
    one_workbook(
        broken / workbooks.INDEX.file,
        workbooks.INDEX.sheet,
        [("NAICS17", "INDEX ITEM DESCRIPTION"), (111110, "Soybeans")],
    )
    with pytest.raises(
        DataError, match="row 1: expected the columns 'NAICS22', .*; found 'NAICS17', 'INDEX ITEM DESCRIPTION'"
    ):
        read_workbooks(broken)


def test_an_unknown_code_is_named_with_its_row(tmp_path, census_folder):
    folder = census_folder(
        tmp_path, index=[("NAICS22", "INDEX ITEM DESCRIPTION"), (111110, "Soybeans"), (999999, "Magic")]
    )
    with pytest.raises(
        DataError,
        match="2022_NAICS_Index_File.xlsx, sheet '2022NAICS', row 3: code '999999' is not in '2-6 digit_2022_Codes.xlsx'",
    ):
        read_workbooks(folder)


def test_another_number_of_codes_is_named(tmp_path, census_folder):
    folder = census_folder(
        tmp_path,
        codes=[
            ("Seq. No.", "2022 NAICS US   Code", "2022 NAICS US Title"),
            (1, 11, "Agriculture"),
            (2, "111", "Crops"),
        ],
    )
    with pytest.raises(DataError, match="expected the 2125 codes of NAICS 2022; found 2"):
        read_workbooks(folder)


def test_a_word_in_place_of_a_code_is_named_with_its_row(tmp_path, census_folder):
    folder = census_folder(
        tmp_path, codes=[("Seq. No.", "2022 NAICS US   Code", "2022 NAICS US Title"), (1, "eleven", "Agriculture")]
    )
    with pytest.raises(
        DataError, match="row 2: expected a NAICS code of 2 to 6 digits or a range such as 31-33; found 'eleven'"
    ):
        read_workbooks(folder)
