"""The report of a coded table: what it tells is what the table holds, made at once or later, and no text of it."""

import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from curricle.cli import cli
from curricle.errors import DataError, OutputError
from curricle.report.assigned import About, assigned_page, check_place, page_of_table, place_for
from curricle.steps.assign import Assigned, rejects_of
from curricle.steps.tally import BINS, tally_of
from tests.report.made_up import EVIL
from tests.steps.test_assign import Toy, put, run

SECRET = "a text of a person"


class Evil(Toy):
    def assign(self, texts, top):
        rows = super().assign(texts, top)
        for hit in (hit for row in rows for hit in row):
            hit.title = EVIL
        return rows


@pytest.fixture(params=["out.csv", "out.xlsx", "out.jsonl", "out.parquet"])
def coded(request, tmp_path) -> tuple[Path, Assigned]:
    source = put(tmp_path / "in.csv", f"text,id\nab,1\nab,2\n{SECRET},3\nwhat?,4\n,5\nabcd,6\nbad,7,8\n")
    return tmp_path / request.param, run(source, request.param, Evil(), review_below=0.4)


def test_a_table_tells_later_what_was_told_at_once(coded):
    output, done = coded
    assert (done.rows, done.coded, done.review, done.without, done.bad) == (6, 2, 4, 2, 1)
    later = tally_of(output)
    assert (later.rows, later.coded, later.review, later.without) == (6, 2, 4, 2)
    assert later.tally() == done.tally
    codes = {code: tuple(rest) for code, _, *rest in done.tally["most"]}
    assert codes == {"2": (2, 0, 0.5), "18": (1, 1, 0.0556), "4": (1, 1, 0.25)} and done.tally["distinct"] == 3
    assert done.tally["bins"][BINS // 2] == [2, 0] and done.tally["bins"][BINS // 4] == [0, 1]
    page = page_of_table(output)
    assert "33.3 % of 6 rows are coded without a person; 66.7 % are for review." in page


def test_the_page_holds_no_text_of_the_table_and_no_markup_of_anybody(coded):
    output, done = coded
    page = assigned_page(About(str(output), EVIL, EVIL, done))
    assert SECRET not in page and "what?" not in page
    assert "<script" not in page and "<img" not in page and "&lt;script&gt;" in page
    assert "Rejected rows" in page and "for review is what has a confidence below 0.4" in page and "v1" in page
    assert len(re.findall(r'<rect class="fill', page)) == BINS + 2, "a bar a bin, and on two of them rows for review"


def test_the_command_makes_it_beside_the_table_and_replaces_only_its_own(coded):
    output, _ = coded
    call = ["report", "--assigned", str(output)]
    for _ in range(2):
        done = CliRunner().invoke(cli, call, catch_exceptions=False)
        assert done.output.strip() == str(output.parent / "out.report.html") == str(place_for(output))
    place_for(output).write_text("mine")
    with pytest.raises(OutputError, match="did not write it"):
        CliRunner().invoke(cli, call, catch_exceptions=False)
    with pytest.raises(OutputError, match="did not write it"):
        check_place(place_for(output), [output])
    assert place_for(output).read_text() == "mine"


def test_tables_of_one_name_but_for_the_ending_have_a_report_each(tmp_path):
    source = put(tmp_path / "in.csv", "text\nab\n")
    for name, page in (
        ("a&b.csv", "a&b.report.html"),
        ("a&b.xlsx", "a&b.xlsx.report.html"),
        ("a&b.csv", "a&b.report.html"),
    ):
        run(source, name, Toy())
        done = CliRunner().invoke(cli, ["report", "--assigned", str(tmp_path / name)], catch_exceptions=False)
        assert done.output.strip() == str(tmp_path / page)
    for name in ("a&b.report.html", "a&b.xlsx.report.html"):
        assert f"<title>{name.split('.')[0].replace('&', '&amp;')}" in (tmp_path / name).read_text()


def test_rows_without_a_text_are_no_texts_of_another_kind(tmp_path):
    source = put(tmp_path / "in.csv", "id,text\n1,ab\n2,\n3, \n4,what?\n")
    page = assigned_page(About("out.csv", done=run(source, "out.csv", Toy(), review_below=0.4)))
    assert "50 % of the rows have no text in that column" in page and "3 rows, 2 of them without a text" in page
    assert "50 % of the texts have no code" in page


def test_a_table_that_assign_did_not_write_is_refused(tmp_path):
    with pytest.raises(DataError, match="was not written by curricle assign: its last columns are a, b"):
        page_of_table(put(tmp_path / "x.csv", "a,b\n1,2\n"))


def test_without_a_rule_nobody_claims_that_rows_need_no_look(tmp_path):
    done = run(put(tmp_path / "in.csv", "text\nab\nabc\n"))
    page = assigned_page(About("out.csv", done=done))
    assert "nobody said which of them a person should look at" in page and "No rule was asked for" in page


@pytest.mark.parametrize("arguments", [[], ["run", "--assigned", __file__]])
def test_a_run_or_a_table_is_named(arguments):
    assert "give either RUN" in CliRunner().invoke(cli, ["report", *arguments]).output


def test_a_table_with_reasons_is_told_by_its_own_columns(tmp_path):
    done = run(put(tmp_path / "in.csv", "text\nab\nabc\n"), explain=True, review_below=0.4)
    assert tally_of(tmp_path / "out.csv").tally() == done.tally and done.tally["distinct"] == 2


def test_a_report_takes_the_place_of_no_other_file(tmp_path):
    output = tmp_path / "out.csv"
    for other in (output, rejects_of(output)):
        with pytest.raises(OutputError, match=f"the report .* would be the file {other} itself"):
            check_place(tmp_path / "." / other.name, [tmp_path / "in.csv", output, rejects_of(output)])
    check_place(tmp_path / "out.html", [output])
