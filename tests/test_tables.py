"""Tables of every kind are read alike: encoding, separator, header and cells are recognised, and a bad row has its place."""

import json
from pathlib import Path

import openpyxl
import pytest

from curricle.errors import ConfigError, DataError, MissingDataError
from curricle.tables import find_files, open_table

ROWS = [["café au lait", "0011"], ["crème, brûlée; maison", "0112"], ["two\nlines | and \"quotes\"", "0120"]]  # fmt: skip


def written(path: Path, text: str, encoding: str = "utf-8") -> Path:
    path.write_bytes(text.encode(encoding))
    return path


def cells(path: Path, **options) -> list[list[str]]:
    rows = list(open_table(path, **options).rows())
    assert [row.problem for row in rows] == [""] * len(rows)
    return [row.cells for row in rows]


def delimited(separator: str, end: str = "\r\n") -> str:
    def quoted(cell):
        return '"' + cell.replace('"', '""') + '"'

    return end.join(separator.join(map(quoted, row)) for row in [["text", "code"], *ROWS]) + end


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "cp1252", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
def test_encoding_and_separator_are_recognised_and_said(tmp_path, encoding, separator):
    table = open_table(written(tmp_path / "a.csv", delimited(separator), encoding))
    assert table.columns == ("text", "code") and table.has_header and table.separator == separator
    assert [row.cells for row in table.rows()] == ROWS
    assert {"utf-8-sig": "UTF-8", "cp1252": "cp1252"}.get(encoding, encoding[:6].upper()) in table.said.replace("utf-32", "UTF-32")  # fmt: skip


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_every_line_end_is_one(tmp_path, end):
    assert [row.cells for row in open_table(written(tmp_path / "a.csv", f"text,code{end}a,1{end}b,2{end}")).rows()] == [["a", "1"], ["b", "2"]]  # fmt: skip


def test_the_same_rows_come_out_of_every_kind_of_file(tmp_path):
    import pyarrow
    import pyarrow.parquet

    records = [{"text": text, "code": code} for text, code in ROWS]
    written(tmp_path / "a.jsonl", "".join(json.dumps(r) + "\n" for r in records))
    written(tmp_path / "b.json", json.dumps(records, indent=1))
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(records), tmp_path / "c.parquet")
    book = openpyxl.Workbook()
    book.active.title = "empty"
    sheet = book.create_sheet("data")
    for row in (["Table 1: what is coded"], [], ["text", "code"], *ROWS):
        sheet.append(row)
    book.save(tmp_path / "d.xlsx")
    for path in find_files(str(tmp_path)):
        table = open_table(path)
        assert table.columns == ("text", "code"), path
        assert [row.cells for row in table.rows()] == ROWS, path
    assert "sheet 'data'" in table.said and "row 3" in table.said and [row.line for row in table.rows()] == [4, 5, 6]


def test_numbers_of_a_workbook_are_text_with_the_zeros_that_are_shown(tmp_path):
    book = openpyxl.Workbook()
    book.active.append(["code", "title"])
    book.active.append([11, "plain"])
    book.active.append([12.0, "float"])
    book.active.append([13, "padded"])
    book.active["A4"].number_format = "0000"
    book.save(tmp_path / "a.xlsx")
    assert [c[0] for c in cells(tmp_path / "a.xlsx")] == ["11", "12", "0013"]


def test_a_file_without_a_header_loses_no_row(tmp_path):
    table = open_table(written(tmp_path / "a.tsv", "baker\t7231\nwelder\t7237\n"))
    assert not table.has_header and table.columns == ("1", "2") and len(list(table.rows())) == 2
    table = open_table(written(tmp_path / "b.csv", "1997 code,title\n11,Farming\n21,Mining\n"))
    assert table.has_header and table.columns == ("1997 code", "title")
    assert len(list(open_table(tmp_path / "b.csv", header=False).rows())) == 3


def test_equal_and_missing_names_stay_columns_of_their_own(tmp_path):
    table = open_table(written(tmp_path / "a.csv", "name,text,name,\nHill,brewery,A,x\n"))
    assert table.columns == ("name", "text", "name", "") and next(table.rows()).cells == ["Hill", "brewery", "A", "x"]


@pytest.mark.parametrize(
    ("content", "row_names"),
    [
        ('"text","code"\n"1","baker","7231"\n"2","cook",6322\n', True),  # as R writes it
        ('"text";"code"\n"Mazda";"baker";"7231"\n"Fiat";"cook";6322\n', True),
        ("text\tcode\n1\tbaker\t7231\n2\tcook\t6322\n", True),  # with quote = FALSE
        ("id,text\n1,craft beer, wine and spirits\n2,dental office, downtown\n", False),
        ("id,text\n1,craft beer, wine and spirits\n2,dental office, downtown\n3,bakery\n", False),
        ('id,text\n"1",craft beer, wine\n"2",dental office, downtown\n', False),
        ('"id","text"\n"7","beer","x"\n"7","dental","y"\n', False),  # no name stands twice
        ('"id","text"\n"1","beer","x"\n"2","dental"\n', False),
        ("id\ttext\n7\tbeer\tx\n9\tdental\ty\n", False),
        ("name,text\nHill,beer,x\nDale,dental,y\n", False),
    ],
)
def test_rows_with_a_cell_too_many_are_bad_unless_they_are_surely_named_by_r(tmp_path, content, row_names):
    table = open_table(written(tmp_path / "a.csv", content))
    rows = list(table.rows())
    assert (table.columns[0] == "") == row_names == table.said.endswith(", first column without a name: row names")
    assert len(table.columns) == 2 + row_names
    bad = [row for row in rows if row.problem]
    assert bool(bad) != row_names and all(row.problem == "has 3 cells, and the table 2 columns" for row in bad)


def test_a_table_of_one_column_holds_whole_lines(tmp_path):
    content = 'text\nbeer; and hops\nbread, cake\n"oil, gas"\ntrain\nbus\n'
    table = open_table(written(tmp_path / "a.csv", content))
    assert [row.cells for row in table.rows()] == [["beer; and hops"], ["bread, cake"], ["oil, gas"], ["train"], ["bus"]]  # fmt: skip
    assert not any(row.problem for row in table.rows()) and table.separator == ","


def test_empty_cells_too_many_shift_nothing(tmp_path):
    for content in ("id,text\n1,beer,\n2,dental,\n", '"id","text"\n"1","beer",\n"2","dental",\n'):
        assert cells(written(tmp_path / "a.csv", content)) == [["1", "beer"], ["2", "dental"]]


def test_a_cell_of_any_length_is_read_and_nobody_elses_limit_is_moved(tmp_path):
    import csv

    before = csv.field_size_limit()
    long = "brewery and pub " * 100_000
    assert cells(written(tmp_path / "a.csv", f'id,text\n1,"{long}"\n')) == [["1", long]]
    assert csv.field_size_limit() == before


def test_bad_rows_are_named_and_good_ones_read_on(tmp_path):
    rows = list(open_table(written(tmp_path / "a.csv", "id,text,code\n1,ok,11\n\n2,too,many,cells\n3,a\0b,12\n4,last\n")).rows())  # fmt: skip
    assert [(row.line, bool(row.problem)) for row in rows] == [(2, False), (4, True), (5, True), (6, False)]
    assert rows[1].problem == "has 4 cells, and the table 3 columns" and "zero byte" in rows[2].problem
    assert rows[3].cells == ["4", "last", ""]  # Excel leaves out empty cells at the end


def test_a_single_damaged_byte_in_utf8_costs_its_row_only(tmp_path):
    (tmp_path / "a.csv").write_bytes("text,code\ncafé,1\nthé,2\n".encode() + b"br\xe9,3\n")
    rows = list(open_table(tmp_path / "a.csv").rows())
    assert [row.cells[0] for row in rows[:2]] == ["café", "thé"] and "0xe9" in rows[2].problem


def test_a_quote_that_is_never_closed_has_its_line(tmp_path):
    rows = list(open_table(written(tmp_path / "a.csv", 'text,code\nok,1\n"open,2\nlost,3\n')).rows())
    assert [(row.line, row.cells, "never closed" in row.problem) for row in rows] == [
        (2, ["ok", "1"], False), (3, ['"open', "2"], True), (4, ["lost", "3"], False)
    ]  # fmt: skip


def test_json_lines_that_are_none_are_bad_rows(tmp_path):
    rows = list(open_table(written(tmp_path / "a.jsonl", '{"text":"a","code":"01"}\n{"text":\n[1]\n{"code":2.0,"text":null}\n')).rows())  # fmt: skip
    assert [bool(row.problem) for row in rows] == [False, True, True, False] and rows[3].cells == ["", "2"]


def test_json_keeps_long_numbers_and_loses_no_value_of_a_key_that_is_there_twice(tmp_path):
    long = "123456789012345678901234567890"
    lines = [
        f'{{"id": {long}, "text": "a \\": b"}}',
        '{"id": 1, "text": "a", "text": "b"}',
        '{"id": [9, {"x": 1, "x": 2}]}',
    ]
    lines += [f'{{"id":"{long}","text":"c"}}', f'{{"id":-{long}}}']
    rows = list(open_table(written(tmp_path / "a.jsonl", "\n".join(lines))).rows())
    assert [row.cells[0] for row in rows if not row.problem] == [long, long, f"-{long}"]
    assert [row.problem for row in rows if row.problem] == ["has the key 'text' twice", "has the key 'x' twice"]
    with pytest.raises(DataError, match="key 'text' twice"):
        open_table(written(tmp_path / "a.json", "[" + ",\n".join(lines) + "]"))


def test_formulas_that_nobody_worked_out_are_said(tmp_path):
    book = openpyxl.Workbook()
    for row in (["id", "text"], [1, "bakery"], [2, '="pub"&" and brewery"'], [3, "=A1"]):
        book.active.append(row)
    book.save(tmp_path / "a.xlsx")
    table = open_table(tmp_path / "a.xlsx")
    assert "2 formulas without a value are empty" in table.said
    assert [row.cells for row in table.rows()] == [["1", "bakery"], ["2", ""], ["3", ""]]


def test_sheets_that_are_not_read_are_named(tmp_path):
    book = openpyxl.Workbook()
    book.active.append(["text", "code"])
    book.create_sheet("2023").append(["more", "1"])
    book.save(tmp_path / "a.xlsx")
    assert "sheet 'Sheet' (not read: '2023')" in open_table(tmp_path / "a.xlsx").said


def test_a_title_above_a_short_table_is_no_header(tmp_path):
    book = openpyxl.Workbook()
    for row in (["Codes of 2022"], ["code", "title"], ["1", "Farming"]):
        book.active.append(row)
    book.save(tmp_path / "a.xlsx")
    assert open_table(tmp_path / "a.xlsx").columns == ("code", "title")


def test_an_encoding_can_be_named(tmp_path):
    path = written(tmp_path / "a.csv", "text;code\nпекарня;10\n", "cp1251")
    assert cells(path, encoding="cp1251") == [["пекарня", "10"]]
    for name in ("cp99999", "base64", "rot13", "idna"):
        with pytest.raises(ConfigError, match=f"no encoding '{name}' for texts"):
            open_table(path, encoding=name)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.csv", b"", "is empty"),
        ("a.xls", b"x", "save it as XLSX"),
        ("a.pdf", b"x", "is not read"),
        ("a.xlsx", b"PK\x03\x04broken", "cannot be read as an Excel workbook"),
        ("a.parquet", b"PAR1", "cannot be read as parquet"),
        ("a.jsonl", b"\n", "holds no JSON objects"),
        ("a.json", b"[1,", "is no JSON"),
    ],
)
def test_what_is_no_table_is_one_error_with_its_file(tmp_path, name, content, said):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=said) as caught:
        open_table(tmp_path / name)
    assert name in str(caught.value)


def test_a_missing_file_is_named_with_what_is_there(tmp_path):
    written(tmp_path / "here.csv", "a,b\n")
    for where in ("gone.csv", "*.tsv"):
        with pytest.raises(MissingDataError, match="here.csv"):
            find_files(str(tmp_path / where))
    with pytest.raises(MissingDataError, match="gone.csv"):
        open_table(tmp_path / "gone.csv")
    assert find_files(str(tmp_path / "*.csv")) == [tmp_path / "here.csv"]


def test_the_real_files_are_read(shared):
    found = {p.relative_to(shared / "data").as_posix(): open_table(p) for p in sorted((shared / "data" / "classifications").rglob("*.csv"))}  # fmt: skip
    assert found["classifications/noc2016/structure.csv"].columns[0] == "Level"
    assert sum(1 for row in found["classifications/noc2016/titles.csv"].rows() if not row.problem) == 42_671
    assert [name for name, table in found.items() if any(row.problem for row in table.rows())] == []
