"""A table is coded row by row: what is kept, what is marked, what is refused, and that nothing half-written is left."""

import csv
import json
import os
import zipfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import openpyxl
import pyarrow
import pyarrow.parquet
import pytest

from curricle.errors import ConfigError, CurricleError, DataError, OutputError
from curricle.steps import assign
from curricle.steps.assign import Listener, Opened, assign_table
from curricle.steps.assigned import COLUMNS, Order, rule_of
from curricle.tables import open_table


@dataclass
class Hit:
    code: str
    title: str
    confidence: float
    path: tuple = (("A", "all"), ("11", "eleven"))


@dataclass
class Toy:
    """Codes a text by its length; one that holds a ``?`` has no code. Counts what it is asked."""

    asked: Counter = field(default_factory=Counter)
    stop: str = ""

    def assign(self, texts, top):
        self.asked.update(texts)
        if self.stop in texts:
            raise KeyboardInterrupt
        assert [len(text) for text in texts] == sorted(len(text) for text in texts)
        return [
            [Hit("" if "?" in text else str(len(text) + i), f"title {i}", 1 / (len(text) + i)) for i in range(top)]
            for text in texts
        ]

    def explain(self, texts, hits):
        near = [(Near("craft beer", 0.4, ("beer",)),), (("beer", 1.0),), (Elsewhere("11", "wine", "12", "twelve"),)]
        return [[Reasons(*near)] for _ in texts]

    def sureness(self, max_error):
        return (0.2, 0.75, 200) if max_error else (2.0, 0.0, 200)


@dataclass
class Near:
    text: str
    share: float
    words: tuple


@dataclass
class Elsewhere:
    source: str
    text: str
    code: str
    title: str


@dataclass
class Reasons:
    neighbours: tuple
    words: tuple
    elsewhere: tuple


def run(source: Path, name: str = "out.csv", coder: Toy | None = None, column: str = "text", said: list | None = None, files=None, **asked):  # fmt: skip
    opened = Opened(coder or Toy(), "v1", "d")
    listener = Listener(said.append) if said is not None else Listener()
    return assign_table(source, source.parent / name, Order(column=column, **asked), lambda: opened, listener=listener, **files or {})  # fmt: skip


def table(path: Path, encoding: str = "utf-8", separator: str = ",") -> list[list[str]]:
    with path.open(encoding=encoding, newline="") as lines:
        return list(csv.reader(lines, delimiter=separator))


def put(path: Path, text: str | bytes, encoding: str = "utf-8") -> Path:
    path.write_bytes(text if isinstance(text, bytes) else text.encode(encoding))
    return path


def test_every_column_is_kept_and_six_are_added(tmp_path: Path):
    source = put(tmp_path / "in.csv", 'id,text\n1,"a, b"\n2,bcd\n', "utf-8-sig")
    done = run(source, top=3, review_below=0.3)
    rows = table(tmp_path / "out.csv", "utf-8-sig")
    assert rows[0] == ["id", "text", *COLUMNS]
    assert rows[1] == ["1", "a, b", "4", "title 0", "0.2500", "yes", "5 title 1 (0.2000) | 6 title 2 (0.1667)", "v1"]
    assert rows[2][2:6] == ["3", "title 0", "0.3333", "no"] and (tmp_path / "out.csv").read_bytes()[:3] == b"\xef\xbb\xbf"  # fmt: skip
    assert (done.rows, done.coded, done.review, done.bad) == (2, 1, 1, 0)


def test_a_row_is_for_review_by_the_rule_that_is_asked_for_and_the_rule_is_said(tmp_path: Path):
    source = put(tmp_path / "in.csv", "text\nabc\nlonger text\nwhat?\n")

    def reviews(**rule):
        said = []
        run(source, said=said, **rule)
        return [row[4] for row in table(tmp_path / "out.csv")[1:]], " ".join(said)

    assert reviews()[0] == ["", "", "yes"]  # nobody asked for a rule, and what has no code is a person's
    marks, said = reviews(max_error=0.05)
    assert marks == ["no", "yes", "yes"] and "at most 5% wrong" in said and "0.2000" in said and "75.0%" in said
    marks, said = reviews(max_error=0.0)
    assert marks == ["yes"] * 3 and "every row is for review" in said
    assert reviews(review_below=0.5)[0] == ["yes", "yes", "yes"]
    with pytest.raises(ConfigError, match="give one of them"):
        Order(column="text", max_error=0.1, review_below=0.1)


def test_a_text_without_anything_in_it_gets_no_code_and_is_never_asked(tmp_path: Path):
    coder = Toy()
    done = run(put(tmp_path / "in.csv", "id,text\n1,beer\n2,\n3,   \n"), coder=coder, top=5, explain=True)
    rows = table(tmp_path / "out.csv")
    assert [row[2] for row in rows] == ["code", "4", "", ""] and rows[3][1] == "   " and "empty" in rows[3][3]
    assert coder.asked == {"beer": 1} and done.without == 2 and {len(row) for row in rows} == {12}


def test_reasons_are_columns_too(tmp_path: Path):
    run(put(tmp_path / "in.csv", "text\nbeer\nwhat?\n"), explain=True)
    rows = table(tmp_path / "out.csv")
    assert rows[0][-4:] == ["path", "nearest", "words", "excluded"] and rows[2][-4:] == [""] * 4
    assert rows[1][-4:] == ["A all > 11 eleven", "4 40% craft beer [beer]", "beer", "excluded from 11: wine (see 12 twelve)"]  # fmt: skip


def test_equal_and_missing_names_are_kept_and_a_number_names_a_column(tmp_path: Path):
    source = put(tmp_path / "in.csv", "name,text,name,\nHill LLC,brewery,legal form A,x\n")
    run(source)
    assert [row[:4] for row in table(tmp_path / "out.csv")] == [["name", "text", "name", ""], ["Hill LLC", "brewery", "legal form A", "x"]]  # fmt: skip
    run(source, column="3")
    assert table(tmp_path / "out.csv")[1][4] == str(len("legal form A"))
    with pytest.raises(ConfigError, match="'name' 2 times; give its number: --column 1 or 3"):
        run(source, column="name")
    for ending in ("jsonl", "parquet"):  # need a name a column
        run(source, f"out.{ending}")
    assert list(json.loads((tmp_path / "out.jsonl").read_text()))[:4] == ["name", "text", "name (2)", "column 4"]


def test_columns_of_the_added_names_stay_and_the_added_ones_are_called_otherwise(tmp_path: Path):
    source, said = put(tmp_path / "in.csv", "text,code,title\nbeer,11,Old\n"), []
    run(source, said=said)
    rows = table(tmp_path / "out.csv")
    assert rows[0] == ["text", "code", "title", *(f"assigned_{name}" for name in COLUMNS)] and "assigned_code" in " ".join(said)  # fmt: skip
    assert rows[1][:4] == ["beer", "11", "Old", "4"]
    run(source, prefix="naics_")
    assert table(tmp_path / "out.csv")[0][3] == "naics_code"
    again = put(tmp_path / "again.csv", "text,code,assigned_code\nbeer,11,12\n")
    with pytest.raises(ConfigError, match="the column assigned_code already; .*--prefix"):
        run(again)


@pytest.mark.parametrize("encoding", ["cp1252", "utf-16", "utf-16-be", "utf-32", "utf-8", "utf-8-sig"])
@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_the_output_has_the_encoding_and_separator_of_the_input(tmp_path: Path, encoding: str, separator: str):
    content = [["id", "text"], ["1", "café, “bakery”"], ["2", "women’s; shoes"]]
    text = "\r\n".join(separator.join('"' + cell + '"' for cell in row) for row in content)
    source = put(tmp_path / "in.csv", ("\ufeff" if encoding == "utf-16-be" else "") + text, encoding)
    run(source)
    rows = table(tmp_path / "out.csv", {"utf-16-be": "utf-16"}.get(encoding, encoding), separator)
    assert [row[:2] for row in rows] == content and rows[1][2] == "14"
    run(source, files={"output_encoding": "utf-8"})
    assert [row[:2] for row in table(tmp_path / "out.csv", "utf-8", separator)] == content


def test_a_byte_of_cp1252_far_down_and_a_cell_of_any_length(tmp_path: Path):
    long = "brewery and pub " * 20_000
    source = put(tmp_path / "in.csv", ("id,text\n" + "1,brewery\n" * 3000 + f"2,{long}\n3,café\n").encode("cp1252"))
    coder = Toy()
    assert run(source, coder=coder).rows == 3002 and coder.asked["brewery"] == 1
    *_, last = (tmp_path / "out.csv").read_bytes().decode("cp1252").splitlines()
    assert last.startswith("3,café,4,")


def test_a_character_that_the_encoding_lacks_is_named(tmp_path: Path):
    class Greek(Toy):
        def assign(self, texts, top):
            return [[Hit("1", "Ω", 0.5)] for _ in texts]

    source = put(tmp_path / "in.csv", "text\ncafé\n", "cp1252")
    with pytest.raises(DataError, match=r"line 2: 'Ω' cannot be written as cp1252; take --output-encoding"):
        run(source, coder=Greek())
    assert run(source, coder=Greek(), files={"output_encoding": "utf-8"}).rows == 1


BAD = b'id,text\n1,beer\xc3\xa9\n2,too,many\n3,caf\xe9\n4,"open\n5,wine\xc3\xa9\n'


def test_a_bad_line_of_json_is_kept_as_it_was(tmp_path: Path):
    source = put(tmp_path / "in.jsonl", '{"text": "beer"}\n{"text": "wi\n[1, 2]\n')
    assert run(source, "out.jsonl").bad == 2
    lines = table(tmp_path / "out.rejects.csv")
    assert [(row[0], row[2]) for row in lines[1:]] == [("2", '{"text": "wi'), ("3", "[1, 2]")]


def test_a_bad_row_is_named_and_kept_apart_and_the_rest_is_done(tmp_path: Path):
    source = put(tmp_path / "in.csv", BAD)
    done = run(source)
    assert [row[1] for row in table(tmp_path / "out.csv")] == ["text", "beeré", "wineé"] and done.bad == 3
    assert [part.split(" ", 1)[0].rpartition("/")[2] for part in done.named] == ["in.csv,"] * 3
    assert "line 3 has 3 cells" in done.named[0] and "0xe9" in done.named[1] and "never closed" in done.named[2]
    lines = (tmp_path / "out.rejects.csv").read_bytes().splitlines()
    assert lines[0] == b"line,problem,id,text" and lines[2].endswith(b"3,caf\xe9") and len(lines) == 4
    run(source)  # the very same rejects are no obstacle
    put(tmp_path / "out.rejects.csv", lines[0] + b"\n3,,2,mended\n")
    with pytest.raises(OutputError, match="out.rejects.csv is there already and holds other rows"):
        run(source)
    assert run(source, files={"rejects": tmp_path / "other.csv"}).rejects.name == "other.csv"
    said = []
    put(source, "text\nbeer\n")
    assert run(source, said=said).bad == 0 and "was there before" in " ".join(said)
    assert b"mended" in (tmp_path / "out.rejects.csv").read_bytes()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b\n1,2\n", "no column 'text'; its columns: a, b"),
        ("a,b\n1,2\n", "no column 'text'"),
        ("", "is empty"),
        ("text,b\n\0,x\n1,2,3\n", "holds no good row: .*line 2 holds a zero byte"),
    ],
)
def test_what_is_refused_opens_no_model_and_leaves_nothing(tmp_path: Path, text: str, message: str):
    source = put(tmp_path / "in.csv", text)
    with pytest.raises(CurricleError, match=message):
        assign_table(source, tmp_path / "out.csv", Order(column="text"), lambda: pytest.fail("opened"))
    assert [path.name for path in tmp_path.iterdir()] == ["in.csv"]


@pytest.mark.parametrize("which", ["output", "rejects"])
def test_a_folder_that_is_not_there_is_named(tmp_path: Path, which: str):
    source, away = put(tmp_path / "in.csv", "text\nx\n"), tmp_path / "away" / "out.csv"
    output, more = (away, {}) if which == "output" else (tmp_path / "out.csv", {"rejects": away})
    with pytest.raises(OutputError, match="out.csv: there is no folder .*away; make it, or write elsewhere"):
        assign_table(source, output, Order(column="text"), lambda: pytest.fail("opened"), **more)
    assert [path.name for path in tmp_path.iterdir()] == ["in.csv"]


@pytest.mark.parametrize(("texts", "few"), [(13, True), (59, True), (61, False)])
def test_a_promise_on_few_validation_texts_is_said_to_be_none(texts: int, few: bool):
    coder = SimpleNamespace(sureness=lambda error: (0.9, 1.0, texts))
    said = rule_of(Order(column="text", max_error=0.05), coder).said
    assert ("too few to show that: it takes 60 without a wrong one" in said) == few
    assert "too few" not in rule_of(Order(column="text", max_error=0.0), coder).said


def test_the_input_is_never_overwritten_and_a_new_file_has_the_mode_of_one(tmp_path: Path):
    source = put(tmp_path / "in.csv", "text\nx\n")
    (tmp_path / "link.csv").symlink_to(source)
    for name in ("in.csv", "link.csv"):
        with pytest.raises(OutputError, match="never overwritten"):
            run(source, name)
    with pytest.raises(OutputError, match="never overwritten"):
        run(source, files={"rejects": source})
    before = os.umask(0o027)
    try:
        for _ in range(2):
            run(source)
    finally:
        os.umask(before)
    assert (tmp_path / "out.csv").stat().st_mode & 0o777 == 0o640
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.csv", "link.csv", "out.csv"]


@pytest.mark.parametrize(
    "content",
    [b"SQLite format 3\0" + bytes(84), b"\x18\0\0\0brain.Event:2", b"mine\n", b"id,text\n1,a\n", b"code,text\n"],
)
def test_a_file_that_assign_did_not_write_stays(content: bytes, tmp_path: Path):
    source, output = put(tmp_path / "in.csv", "text\nx\n"), put(tmp_path / "mlflow.db", content)
    with pytest.raises(OutputError, match="mlflow.db is there already, and by what it holds `curricle assign` did not write it"):  # fmt: skip
        run(source, "mlflow.db")
    assert output.read_bytes() == content
    put(output, b"")
    for ending in ("db", "xlsx", "jsonl", "parquet"):
        for asked in ({}, {"explain": True}, {"prefix": "naics_"}, {}):
            assert run(source, f"mlflow.{ending}", **asked).rows == 1


def test_a_table_without_rows_and_one_without_a_header(tmp_path: Path):
    assert run(put(tmp_path / "in.csv", "id,text\n")).rows == 0
    assert table(tmp_path / "out.csv") == [["id", "text", *COLUMNS]]
    assert run(put(tmp_path / "in.csv", "1,beer\n2,wine bar\n"), column="2").rows == 2
    assert [row[:3] for row in table(tmp_path / "out.csv")] == [["1", "2", "code"], ["1", "beer", "4"], ["2", "wine bar", "8"]]  # fmt: skip


def test_line_breaks_and_odd_characters_of_a_cell_go_from_workbook_to_workbook(tmp_path: Path):
    said = ["cake\nand bread", "a\tb", "one\r\ntwo", "bell \x07", "Größe"]
    source = put(tmp_path / "in.jsonl", "".join(json.dumps({"text": text}) + "\n" for text in said))
    run(source, "out.xlsx")
    raw = zipfile.ZipFile(tmp_path / "out.xlsx").read("xl/worksheets/sheet1.xml").decode()
    assert "cake\nand bread" in raw and "_x0007_" in raw and "_x000D_\ntwo" in raw and "_x000a_" not in raw.lower()
    assert [row.cells[0] for row in open_table(tmp_path / "out.xlsx").rows()] == said
    run(tmp_path / "out.xlsx", "again.csv")
    assert [row[0] for row in table(tmp_path / "again.csv")[1:]] == said


def test_fast_asks_the_coder_another_way(tmp_path: Path):
    class Both(Toy):
        def assign_fast(self, texts, top):
            return [[Hit("fast", "", 0.5)] for _ in texts]

    source = put(tmp_path / "in.csv", "text\nbeer\n")
    run(source, "a.csv", Both(), fast=True), run(source, "b.csv", Both())
    assert [table(tmp_path / name)[1][1] for name in ("a.csv", "b.csv")] == ["fast", "4"]


def test_workbooks_and_parquet_keep_what_their_cells_are(tmp_path: Path):
    from datetime import datetime

    book = openpyxl.Workbook()
    for row in (["id", "when", "text"], [7, datetime(2026, 1, 2), "=SUM(1)"], [8.5, None, "beer"]):
        book.active.append(row)
    book.active["C2"].data_type = "s"
    book.save(tmp_path / "in.xlsx")
    run(tmp_path / "in.xlsx", "out.xlsx")
    sheet = openpyxl.load_workbook(tmp_path / "out.xlsx").active
    rows = [[cell.value for cell in row] for row in sheet.iter_rows()]
    assert rows[1][:4] == [7, datetime(2026, 1, 2), "=SUM(1)", "7"] and rows[2][:2] == [8.5, None] and rows[2][5] == 0.25  # fmt: skip
    assert sheet["C2"].data_type == "s"
    run(tmp_path / "in.xlsx", "out.parquet")
    assert pyarrow.parquet.read_table(tmp_path / "out.parquet").column("id").to_pylist() == ["7", "8.5"]

    pyarrow.parquet.write_table(pyarrow.table({"n": [1, None], "text": ["beer", None], "l": [[1], []]}), tmp_path / "in.parquet")  # fmt: skip
    run(tmp_path / "in.parquet", "out.parquet")
    made = pyarrow.parquet.read_table(tmp_path / "out.parquet")
    assert made.select(["n", "text", "l"]).equals(pyarrow.parquet.read_table(tmp_path / "in.parquet"))
    assert made.column("confidence").to_pylist() == [0.25, None] and made.column("code").to_pylist() == ["4", ""]
    run(tmp_path / "in.parquet", "out.csv")
    assert table(tmp_path / "out.csv")[1][:3] == ["1", "beer", "1"]


def test_json_lines_keep_their_values_and_keys_that_come_late(tmp_path: Path):
    lines = [{"text": "beer", "n": i} for i in range(300)] + [{"text": "wine", "late": [1, {"a": None}], "n": 2**70}]
    run(put(tmp_path / "in.jsonl", "".join(json.dumps(line) + "\n" for line in lines)), "out.jsonl")
    made = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [{k: v for k, v in row.items() if k not in COLUMNS} for row in made] == lines
    assert made[0]["confidence"] == 0.25 and made[0]["code"] == "4"


def test_what_excel_does_not_take_is_said(tmp_path: Path, monkeypatch):
    source = put(tmp_path / "in.csv", f"text\n{'x' * 40_000}\n")
    with pytest.raises(DataError, match="line 2: a cell has 40,000 characters, and Excel takes 32,767"):
        run(source, "out.xlsx")
    monkeypatch.setattr(assign, "ROWS_OF_A_SHEET", 1)
    with pytest.raises(OutputError, match="a workbook takes 1 rows"):
        run(source, "out.xlsx")
    with pytest.raises(ConfigError, match=r"ends in .xls is not written; written are .csv"):
        run(source, "out.xls")
    assert [path.name for path in tmp_path.iterdir()] == ["in.csv"]


def test_a_text_is_coded_once_and_a_stopped_command_goes_on_to_the_same_bytes(tmp_path: Path, monkeypatch):
    """Also where the memory of texts is smaller than the table: what is asked a second time is the same after a stop."""
    monkeypatch.setattr(assign, "PIECE", 50)
    monkeypatch.setattr(assign, "REMEMBERED", 60)
    texts = [f"text {i * i % 97}" for i in range(400)]
    source = put(tmp_path / "in.csv", "id,text\n" + "".join(f"{i},{text}\n" for i, text in enumerate(texts)) + "x,the end\n")  # fmt: skip
    straight = Toy()
    run(source, "straight.csv", straight)
    stopped, counts = Toy(stop="the end"), []
    with pytest.raises(KeyboardInterrupt):
        run(source, coder=stopped)
    (left,) = tmp_path.glob(".out.csv.assigning-*")
    left.rename(left.with_name(left.name.replace(f"-{os.getpid()}-", "-999999999-")))
    again = Toy()
    assert assign_table(source, tmp_path / "out.csv", Order(column="text"), lambda: Opened(again, "v1", "d"), listener=Listener(count=lambda *n: counts.append(n))).rows == 401  # fmt: skip
    assert set(again.asked) < set(straight.asked) and "the end" in again.asked and counts[-1] == (401, 401)
    assert (tmp_path / "out.csv").read_bytes() == (tmp_path / "straight.csv").read_bytes()
    assert not list(tmp_path.glob(".*"))
    monkeypatch.setattr(assign, "REMEMBERED", 50_000)
    once = Toy()
    run(source, coder=once)
    assert set(once.asked.values()) == {1} and len(once.asked) == len(set(texts)) + 1


def test_what_a_dead_command_left_of_other_work_is_not_taken(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(assign, "PIECE", 2)
    source = put(tmp_path / "in.csv", "text\na\nb\nc\nd\nstop\n")
    with pytest.raises(KeyboardInterrupt):
        run(source, coder=Toy(stop="stop"))
    (left,) = tmp_path.glob(".out.csv.assigning-*")
    left.rename(left.with_name(left.name.replace(f"-{os.getpid()}-", "-999999999-")))
    coder = Toy()
    run(source, coder=coder, top=2)
    assert len(coder.asked) == 5 and sorted(p.name for p in tmp_path.iterdir()) == ["in.csv", "out.csv"]


@pytest.mark.parametrize("ending", ["csv", "jsonl", "xlsx", "parquet"])
def test_a_name_that_is_no_text_costs_nothing(tmp_path: Path, ending: str):
    source = put(tmp_path / "in.csv", b"caf\xe9,text\n1,th\xc3\xa9\n2,\xc3\xa9t\xc3\xa9\n")
    assert run(source, f"out.{ending}").rows == 2
    if ending == "csv":
        assert (tmp_path / "out.csv").read_bytes().startswith(b"caf\xe9,text,code")
