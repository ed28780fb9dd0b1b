"""A table over HTTP: brought, coded with progress, handed back, and nobody else's."""

import csv
import io
import time
import zipfile

import openpyxl
import pytest

from curricle.serve.limits import Limits
from tests.serve import world

TABLE = 'id;text\n1;"beer; hops"\n2;wool yarn\n3;\n4;coal mine\n'


def coded(server, content, kind="csv", **order):
    """A table's name and key, and its last progress."""
    told = server.ask(f"v1/tables?kind={kind}", content).json
    auth = {"Authorization": f"Bearer {told['key']}"}
    begun = server.ask(f"v1/tables/{told['id']}/assign", {"column": "text", **order}, **auth)
    assert begun.status == 202, begun
    end = time.monotonic() + 60
    while True:
        now = server.ask(f"v1/tables/{told['id']}", **auth).json
        if now["state"] not in ("waiting", "coding"):
            return told, auth, now
        assert time.monotonic() < end, now
        time.sleep(0.05)


def test_a_table_comes_back_as_the_command_codes_it(codes, codes_store, tmp_path):
    told, auth, now = coded(codes, TABLE.encode("cp1252"), top=2, review_below=0.5, explain=True)
    assert told["columns"] == ["id", "text"] and told["said"] == "UTF-8, semicolon, header in line 1"
    assert told["sample"][0] == ["1", "beer; hops"]
    assert now["state"] == "done" and now["done"] == now["total"] == 4 and now["result"]["rows"] == 4
    answer = codes.ask(f"v1/tables/{told['id']}/output", **auth)
    assert answer.headers["content-disposition"] == 'attachment; filename="coded.csv"'
    (tmp_path / "in.csv").write_text(TABLE)
    files = (str(tmp_path / "in.csv"), "--column", "text", "-o", str(tmp_path / "out.csv"))
    world.curricle(codes_store.parent, "assign", *files, "--top", "2", "--review-below", "0.5", "--explain")
    mine, theirs = (list(csv.reader(io.StringIO(text), delimiter=";")) for text in (answer.body.decode(), (tmp_path / "out.csv").read_text()))  # fmt: skip
    assert [row[:4] for row in mine] == [row[:4] for row in theirs] and len(mine) == 5
    assert mine[1][2] == "12" and mine[0][-4:] == ["path", "nearest", "words", "excluded"]
    assert codes.ask(f"v1/tables/{told['id']}", method="DELETE", **auth).status == 200
    assert codes.ask(f"v1/tables/{told['id']}", **auth).status == 404


def test_a_workbook_and_json_lines_are_coded_too(codes):
    book, content = openpyxl.Workbook(), io.BytesIO()
    for row in (["id", "text"], [1, "beer hops"], [2, "=wool"]):
        book.active.append(row)
    book.save(content)
    told, auth, now = coded(codes, content.getvalue(), "xlsx")
    rows = list(openpyxl.load_workbook(io.BytesIO(codes.ask(f"v1/tables/{told['id']}/output", **auth).body)).active.values)  # fmt: skip
    assert rows[0][:3] == ("id", "text", "code") and rows[1][0] == 1 and len(rows) == 3
    told, auth, now = coded(codes, b'{"text": "beer hops"}\n{"text": "wool"}\n', "jsonl")
    assert codes.ask(f"v1/tables/{told['id']}/output", **auth).body.count(b'"code":') == 2


def test_rows_that_are_none_are_told_and_handed_out(codes):
    told, auth, now = coded(codes, b"id,text\n1,beer\n2,wool,too much\n")
    assert now["result"]["bad"] == 1 and now["result"]["named"] == [
        "the table, line 3 has 3 cells, and the table 2 columns"
    ]
    assert b"too much" in codes.ask(f"v1/tables/{told['id']}/rejects", **auth).body
    told, auth, now = coded(codes, b"id,text\n1,beer\n")
    assert codes.ask(f"v1/tables/{told['id']}/rejects", **auth).status == 404


def test_a_table_is_asked_for_with_its_key_alone_and_the_key_stands_in_no_address(codes):
    told, auth, _ = coded(codes, b"text\nbeer\n")
    place = f"v1/tables/{told['id']}"
    for wrong in ({}, {"Authorization": "Bearer x"}, {"Authorization": "\xe4"}):
        for path, method in ((place, "GET"), (f"{place}/output", "GET"), (place, "DELETE")):
            assert codes.ask(path, method=method, **wrong).status == 404
    assert codes.ask(f"{place}/assign", {"column": "text"}, Authorization="Bearer x").status == 404
    assert codes.ask(f"{place}?key={told['key']}").status == 404
    assert codes.ask(place, **auth).status == 200 and told["key"] not in "".join(codes.said)


@pytest.mark.parametrize(
    ("content", "kind", "said"),
    [
        (b"", "csv", "the table: is empty"),
        (b"PK\x03\x04 not a zip", "xlsx", "the table is no workbook, or a damaged one: it cannot be unpacked."),
        (bytes(4000), "csv", "the table: holds zero bytes: a binary file"),
        (b"text\nbe\0er\nal\0e\n", "csv", "the table: holds zero bytes: a binary file"),
        (b"a,b\n", "parquet", "kind has to be 'csv', 'tsv', 'jsonl' or 'xlsx'"),
        (b"{", "jsonl", "the table"),
    ],
    ids=["empty", "no workbook", "zeros", "zero bytes", "kind", "no JSON"],
)
def test_what_is_no_table_is_refused_and_not_kept(codes, content, kind, said):
    before = _kept(codes)
    answer = codes.ask(f"v1/tables?kind={kind}", content)
    assert answer.status == 422 and said in answer.json["error"] and "/" not in answer.json["error"], answer
    assert _kept(codes) == before


def _kept(server) -> str:
    return next(
        line for line in server.ask("metrics").body.decode().splitlines() if line.startswith("curricle_tables ")
    )


def test_a_workbook_that_unpacks_to_more_than_may_be_is_refused(codes):
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("xl/sharedStrings.xml", b" " * (Limits().unpacked + 1))
    assert len(content.getvalue()) < 1 << 20
    answer = codes.ask("v1/tables?kind=xlsx", content.getvalue())
    assert answer.status == 422 and "are allowed here" in answer.json["error"]


def test_an_order_that_cannot_be_is_refused_and_another_is_taken(codes):
    told = codes.ask("v1/tables", b"id,text\n1,beer\n").json
    auth = {"Authorization": f"Bearer {told['key']}"}
    place = f"v1/tables/{told['id']}"
    for order, said in (
        ({"column": "words"}, "the table has no column 'words'"),
        ({"column": "text", "max_error": 0.1, "review_below": 0.5}, "max_error and review_below are two rules"),
        ({"column": "text", "top": 1000}, "top"),
    ):
        answer = codes.ask(f"{place}/assign", order, **auth)
        assert answer.status == 422 and said in answer.json["error"]
    assert codes.ask(f"{place}/output", **auth).status == 409
    assert codes.ask(f"{place}/assign", {"column": "2"}, **auth).status == 202


def test_more_tables_than_may_are_refused_until_old_ones_are_forgotten(codes_store):
    server = world.start(codes_store.parent, "--table-mb", "1")
    try:
        told = [server.ask("v1/tables", b"text\nbeer\n").json for _ in range(Limits().tables)]
        refused = server.ask("v1/tables", b"text\nbeer\n")
        assert refused.status == 503 and refused.headers["retry-after"] == "60"
        server.ask(f"v1/tables/{told[0]['id']}", method="DELETE", Authorization=f"Bearer {told[0]['key']}")
        assert server.ask("v1/tables", b"text\nbeer\n").status == 201
        assert server.ask("v1/tables", b"text\n" + b"a\n" * (1 << 20)).status == 413
        assert server.ask("v1/search", {"texts": ["beer"]}).status == 200
    finally:
        assert server.stop() == 0


def test_bytes_that_are_no_text_are_refused_and_take_no_place(codes):
    for _ in range(10):  # more often than tables are kept
        answer = codes.ask("v1/tables?kind=csv", bytes(range(256)) * 40)
        assert answer.status == 422 and "no text" in answer.json["error"], answer
