"""What stands on a report, and what may not: facts from the store, no text of anybody as markup, nothing fetched."""

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from click.testing import CliRunner

from curricle.cli import cli
from curricle.cli.report import leave_report
from curricle.errors import CurricleError, OutputError, StoreError
from curricle.report.build import evaluation_page, run_page, stage_page, write_reports
from curricle.report.charts import Line, chart, share, ticks
from curricle.report.facts import read_run
from curricle.report.page import LARGEST, span
from curricle.steps.evaluate import Evaluation
from curricle.steps.findings import find, find_matrix
from curricle.steps.show import describe_run
from curricle.steps.source import read_plan
from curricle.store import layout
from curricle.store.failure import Failure
from curricle.store.folder import FolderStore
from tests.report import made_up
from tests.report.made_up import EVIL, RUN


class Parsed(HTMLParser):
    """Tags with their attributes, and the text outside of scripts and styles."""

    def __init__(self, text: str):
        super().__init__()
        self.tags, self.said, self.within, self.scripts = [], "", "", []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.within = tag

    def handle_data(self, data):
        if self.within == "script":
            self.scripts.append(data)
        elif self.within != "style":
            self.said += data

    def handle_endtag(self, tag):
        self.within = ""


@pytest.fixture(scope="module", params=["codes", "ner"])
def made(request, tmp_path_factory):
    """(family, the store's folder) with all pages written."""
    folder = tmp_path_factory.mktemp(request.param)
    getattr(made_up, request.param)(folder)
    write_reports(str(folder), RUN)
    return request.param, folder


def pages(folder: Path) -> dict[str, Parsed]:
    places = (RUN, f"{RUN}/one", f"{RUN}/two")
    return {place: Parsed((folder / place / "report.html").read_text(encoding="utf-8")) for place in places}


def test_a_report_says_the_verdict_first_and_then_what_ran(made):
    family, folder = made
    page = pages(folder)[RUN]
    said = re.sub(r"\s+", " ", page.said)
    assert "Held back test/top1 0.6000 is not >= 0.7" in said
    order = [a["id"] for tag, a in page.tags if tag == "section"]
    assert order[:3] == ["verdict", "worries", "stages"] and order[-1] == "ran"
    for fact in (
        "digest1",
        "d0",
        "config/two.yaml:4",
        "command line",
        "python 3.11, torch 2",
        "15 s",
        "0.9 GB",
        "test/top1 >= 0.7",
    ):
        assert fact in said, fact
    links = [
        attributes["href"] for tag, attributes in page.tags if tag == "a" and not attributes["href"].startswith("#")
    ]
    assert links == ["one/report.html", "two/report.html", "one/report.html"], (
        "the stages, and what the result started from"
    )
    first = [a["href"] for t, a in pages(folder)[f"{RUN}/one"].tags if t == "a" and "report" in a["href"]]
    assert first == ["../report.html", "../two/report.html"], "up to the run, and on to what continues it"
    wanted = {
        "codes": (
            "How much it codes alone",
            "What --max-error does",
            "4 of 9",
            "14 of 300 codes have no labelled training text",
            "in upper case",
            "left out of the data: 4 index entries for measuring (nearly the same as a training text)",
        ),
        "ner": (
            "By domain and label",
            "Precision against coverage",
            "3 annotated spans can be equalled by no prediction",
            "dropped",
            "7 × too long",
        ),
    }
    for fact in wanted[family]:
        assert fact.lower() in said.lower(), fact


def test_text_of_users_is_never_markup(made):
    _, folder = made
    for place, page in pages(folder).items():
        assert not [tag for tag, _ in page.tags if tag == "img"], place
        assert not [a for _, a in page.tags if any(name.startswith("on") for name in a)], place
        assert not [body for body in page.scripts if body.startswith("document.title")], place
        assert EVIL in page.said, "shown as it is"


def test_a_report_is_one_small_file_that_asks_for_nothing(made):
    _, folder = made
    for place, page in pages(folder).items():
        size = (folder / place / "report.html").stat().st_size
        assert size <= LARGEST, size
        outside = [
            (tag, a) for tag, a in page.tags for name in ("src", "href") if re.match(r"(https?:)?//", a.get(name) or "")
        ]
        assert outside == [] and ("link", {"rel": "icon", "href": "data:,"}) in page.tags
        policy = next(a["content"] for tag, a in page.tags if a.get("http-equiv") == "Content-Security-Policy")
        assert policy.startswith("default-src 'none';")


def test_everything_drawn_is_said_in_words_and_every_control_has_a_name(made):
    _, folder = made
    for page in pages(folder).values():
        html = next(a for tag, a in page.tags if tag == "html")
        assert html["lang"] == "en" and [tag for tag, _ in page.tags if re.fullmatch("h1", tag)] == ["h1"]
        ids = [a["id"] for _, a in page.tags if "id" in a]
        assert len(ids) == len(set(ids)), "an id stands once"
        for tag, a in page.tags:
            if tag in ("svg", "canvas"):
                assert a.get("role") == "img" and (a.get("aria-label") or a.get("aria-labelledby")), a
            for name in ("aria-labelledby", "aria-describedby", "aria-controls"):
                assert a.get(name, ids[0]) in ids, a
            if tag == "a" and a["href"].startswith("#"):
                assert a["href"][1:] in ids, a


def test_colours_can_be_told_from_what_they_stand_on():
    """WCAG 2: 4.5 to 1 for text, 3 to 1 for lines of charts, by light and by dark."""
    css = (Path(run_page.__code__.co_filename).parent / "templates/report.css").read_text()
    schemes = re.findall(r":root\{(.*?)\}", css, re.S)[:2]

    def light(colour: str) -> float:
        colour = colour if len(colour) == 7 else "#" + "".join(2 * c for c in colour[1:])
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        r, g, b = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
        return 0.2126 * r + 0.7152 * g + 0.0722 * b

    def contrast(a: str, b: str) -> float:
        high, low = sorted((light(a), light(b)), reverse=True)
        return (high + 0.05) / (low + 0.05)

    for scheme in schemes:
        colour = dict(re.findall(r"--([\w-]+):(#\w+)", scheme))
        pairs = [
            ("ink", "paper"),
            ("ink", "wash"),
            ("dim", "paper"),
            ("dim", "wash"),
            ("link", "paper"),
            ("mark-ink", "mark"),
            ("ink", "warn-bg"),
        ]
        pairs += [(tone, f"{tone}-bg") for tone in ("good", "warn", "bad")] + [("good", "paper"), ("bad", "paper")]
        for a, b in pairs:
            assert contrast(colour[a], colour[b]) >= 4.5, (a, b, contrast(colour[a], colour[b]))
        for k in range(6):
            assert contrast(colour[f"s{k}"], colour["paper"]) >= 3, k


def test_a_run_that_failed_has_a_report_that_says_why(tmp_path):
    store = FolderStore(made_up.ner(tmp_path))
    store.delete(f"{RUN}/two")
    store.write(
        f"{RUN}/two/stage.json",
        json.dumps(
            {"digest": "digest1", "family": "ner", "start": "continued", "parent_uri": "../one", "config": {}}
        ).encode(),
    )
    Failure(f"the loss is not finite {EVIL}", 2, "diverged").write(store, f"{RUN}/two")
    said = Parsed(run_page(read_run(str(tmp_path), RUN))).said
    assert "Failed diverged: the loss is not finite" in re.sub(r"\s+", " ", said) and EVIL in said


@pytest.mark.parametrize("damage", [b"", b"{", b'{"format": 1, "content": 7}', b'{"epochs": 3, "losses": [[1]]}'])
def test_damaged_records_cost_their_section_alone(tmp_path, damage):
    store = FolderStore(made_up.codes(tmp_path))
    for name in (layout.FINDINGS, layout.HISTORY):
        store.write(f"{RUN}/two/{name}", damage)
    store.write(f"{RUN}/{layout.VERDICT}", damage)
    said = Parsed(run_page(read_run(str(tmp_path), RUN))).said
    assert "What ran" in said and "How much it codes alone" not in said


def test_findings_of_another_shape_are_said_to_be_damaged(tmp_path):
    uri = made_up.write(tmp_path, "codes", {"metrics": {}, "automation": 5}, {}, {})
    said = Parsed(run_page(read_run(uri, RUN))).said
    assert "ts findings are damaged and are not shown" in said


def test_findings_of_other_work_are_not_shown(tmp_path):
    store = FolderStore(made_up.codes(tmp_path))
    record = json.loads(store.read(f"{RUN}/two/findings.json"))
    store.write(f"{RUN}/two/findings.json", layout.write_record(record | {"digest": "another"}))
    assert "How much it codes alone" not in run_page(read_run(str(tmp_path), RUN))


def test_what_was_measured_once_is_not_measured_again(tmp_path):
    uri = made_up.codes(tmp_path)
    store = FolderStore(uri)
    place = f"{RUN}/two"
    from curricle.store.manifest import publish, read_manifest

    best = read_manifest(store, place).info["best"]
    publish(store, f"{place}/{best}", None, kind="checkpoint", digest="digest1", info={"family": "codes"})
    assert find(f"{uri}/{place}")["metrics"]["test/top1"] == 0.6


def test_a_page_of_somebody_else_is_not_replaced(tmp_path):
    uri = made_up.codes(tmp_path)
    Path(uri, RUN, "report.html").write_text("<p>my own")
    with pytest.raises(OutputError, match="was not written by curricle report"):
        write_reports(uri, RUN)
    assert not Path(uri, RUN, "two", "report.html").exists()
    with pytest.raises(StoreError, match="holds no run 'other'; runs there: made-up"):
        write_reports(uri, "other")


def test_a_page_that_lies_elsewhere_links_to_nothing(tmp_path):
    known = read_run(made_up.codes(tmp_path), RUN)
    for text in (run_page(known, links=False), stage_page(known, known.stages[0], links=False)):
        assert not [a for tag, a in Parsed(text).tags if tag == "a" and not a["href"].startswith("#")]


def test_no_secret_of_the_environment_stands_on_a_page(tmp_path, monkeypatch):
    monkeypatch.setenv("MY_SECRET_TOKEN", "hunter2hunter2")
    store = FolderStore(made_up.codes(tmp_path))
    content = store.read(f"{RUN}/two/findings.json").replace(b"Title 8", b"hunter2hunter2 https://u:pw12345678@host/x")
    store.write(f"{RUN}/two/findings.json", content)
    text = run_page(read_run(str(tmp_path), RUN))
    assert "hunter2hunter2" not in text and "pw12345678" not in text and "***" in text


def test_ticks_are_round_and_cover_the_range():
    for low, high in ((0, 1), (0.37, 0.91), (1, 3000), (-2e-5, 3e-5), (5, 5)):
        found = ticks(low, high)
        assert found[0] <= low + 1e-12 and found[-1] >= high - 1e-12 and len(found) <= 8
    assert ticks(0, 1) == [0, 0.2, 0.4, 0.6, 0.8, 1]
    assert chart("x", [Line("a", [(0, float("nan"))])], x_label="") is None


def test_an_evaluation_on_other_data_says_what_it_is_of(tmp_path):
    known = read_run(made_up.codes(tmp_path), RUN)
    found = made_up.codes_findings() | {"measured": True}
    said = Parsed(evaluation_page(known, known.stages[1], found, "elsewhere/texts")).said
    assert f"Evaluation · codes of a classification for texts · of {RUN}" in re.sub(r"\s+", " ", said)
    assert f"{RUN}/two on elsewhere/texts" in said and "test/top1 is 0.6000 on test records" in said
    assert "val/top1" not in said, "the figures of its training are of other data"


def command(*words: str):
    return CliRunner().invoke(cli, ["report", *words])


def test_the_command_prints_where_the_page_is(tmp_path):
    uri = made_up.codes(tmp_path / "store")
    for name, place in ((RUN, RUN), (f"{RUN}/one", f"{RUN}/one"), (f"{RUN}/two", f"{RUN}/two")):
        done = command(name, "--store", uri, "--no-measure")
        path = Path(done.stdout.strip())
        assert done.exit_code == 0 and path == tmp_path / "store" / place / "report.html" and path.is_file(), (
            done.output
        )
    done = command(RUN, "--store", uri, "-o", str(tmp_path / "mine.html"))
    assert done.exit_code == 0 and "Held back" in (tmp_path / "mine.html").read_text()


def test_what_cannot_be_reported_is_one_message(tmp_path):
    uri = made_up.codes(tmp_path)
    for words, said in (
        ((RUN, "--store", uri, "-o", "gone/x.html"), "there is no folder gone; make it first"),
        ((f"{RUN}/three", "--store", uri), "has no stage 'three'; its stages: one, two"),
        (("other", "--store", uri), "holds no run 'other'; runs there: made-up"),
    ):
        error = command(*words).exception
        assert isinstance(error, CurricleError) and said in str(error)
    done = command(RUN, "--store", uri, "--data", "x")
    assert done.exit_code == 2 and "--data needs --output" in done.output
    assert not list(tmp_path.glob("*/report.html"))


def test_a_report_that_cannot_be_made_ends_no_run(tmp_path, capsys):
    leave_report(str(tmp_path), "other", f"{tmp_path}/other/one")
    assert capsys.readouterr().out.startswith("no report: ")


def test_the_matrix_of_a_chain_is_measured_once_and_shown_for_these_stages_alone(tmp_path):
    uri, asked = made_up.ner(tmp_path), []

    def evaluate(model, data, cache):
        asked.append((model.split("/")[-1], data.split("/")[-1]))
        return Evaluation(model, {"test/f1": 0.5, "test/new/f1": 0.1 * len(asked), "test/old/f1": 0.9})

    plan = read_plan(uri, RUN)
    assert find_matrix(plan, evaluate=evaluate) == {} and asked == [], "one data set: nothing to forget"
    other = replace(plan.stages[1], data_digest="d1", data_uri=f"{uri}/data/other")
    plan = replace(plan, stages=(plan.stages[0], other))
    FolderStore(uri).write(f"{RUN}/{layout.PLAN}", plan.to_stored().encode())
    made = find_matrix(plan, evaluate=evaluate)
    assert asked == [("one", "made"), ("one", "other"), ("two", "made"), ("two", "other")]
    assert made["rows"] == [[0.1, 0.2], pytest.approx([0.3, 0.4])] and made["measure"] == "f1"
    assert find_matrix(plan, evaluate=evaluate) == made and len(asked) == 4
    said = re.sub(r"\s+", " ", Parsed(run_page(read_run(uri, RUN))).said)
    assert "Won and forgotten over the chain" in said and "one10 %20 %" in said.replace(" one", "one").replace("\n", "")
    store = FolderStore(uri)
    store.write(f"{RUN}/matrix.json", store.read(f"{RUN}/matrix.json").replace(b"digest1", b"another"))
    assert "Won and forgotten" not in run_page(read_run(uri, RUN))


def test_a_page_is_never_written_over_what_somebody_else_wrote(tmp_path):
    uri = made_up.ner(tmp_path / "store")
    mine = tmp_path / "own.html"
    mine.write_text("my only copy")
    done = CliRunner().invoke(cli, ["report", RUN, "--store", uri, "--no-measure", "-o", str(mine)])
    assert done.exit_code and isinstance(done.exception, OutputError) and mine.read_text() == "my only copy"
    mine.unlink()
    for _ in range(2):  # its own it replaces
        assert CliRunner().invoke(cli, ["report", RUN, "--store", uri, "--no-measure", "-o", str(mine)]).exit_code == 0


def test_the_time_of_a_run_is_that_of_all_its_stages(tmp_path):
    known = read_run(made_up.ner(tmp_path), RUN)
    whole = sum(stage.seconds for stage in known.planned)
    page = Parsed(run_page(known)).said
    assert whole > known.result.seconds > 0 and f"of {len(known.planned)} stages" in page and span(whole) in page


DAMAGE = [
    ("two/stage.json", b'{"digest": "di', "is damaged: it is cut off in line 1"),
    ("two/stage.json", b"null", "is damaged: it holds null, not an object"),
    ("two/stage.json", b'{"config": [], "start": 3, "family": null}', "start is a number, and should be a text"),
    ("two/stage.json", b"", "is damaged: it is empty"),
    ("one/stage.json", b"{]", "is damaged: it is no JSON, from line 1, column 2 on"),
    ("two/history.json", b'{"epochs": [', "is damaged: it is cut off in line 1"),
    ("two/history.json", b"null", "is damaged: it holds null, not an object"),
    ("two/history.json", b'{"epochs": 3, "losses": "x"}', "epochs is a number, and should be a list"),
    ("two/history.json", b'{"epochs": [null, {"step": "x"}], "losses": [7, [1]]}', "2 of 2 losses cannot be read"),
    ("one/manifest.json", b"\x88\xfe\x01\x02", "is damaged: it is no UTF-8 text"),
    ("one/manifest.json", b'{"version": 1, "di', "is damaged: it is cut off in line 1"),
    ("one/manifest.json", b"[]", "is damaged: it holds a list, not an object"),
    ("one/manifest.json", b'{"stages": []}', "it has no 'version', and is no manifest.json of Curricle's"),
    ("one/manifest.json", b'{"version": 1}', "it has no 'created', 'digest'"),
    ("plan.json", b'{"stages": [{"ur', "is damaged (it is cut off in line 1)"),
    ("plan.json", b"null", "is damaged (it holds null, not an object)"),
    ("plan.json", b'{"format": 2, "stages": 7}', "is damaged (its stages are no list of objects)"),
    ("plan.json", b'{"format": 2, "stages": [{"uri": 7}]}', "uri of a stage is a number, and should be a text"),
]


@pytest.mark.parametrize(("name", "content", "said"), DAMAGE)
def test_show_and_report_name_a_damaged_file_and_show_the_rest(tmp_path, name, content, said):
    uri = made_up.codes(tmp_path)
    FolderStore(uri).write(f"{RUN}/{name}", content)
    runner = CliRunner()
    told = {verb: runner.invoke(cli, ["show", *words, "--store", uri]) for verb, words in (("all", []), ("one", [RUN]))}
    command(RUN, "--store", uri, "--no-measure")
    told_page = " ".join(Parsed((tmp_path / RUN / "report.html").read_text()).said.split())
    texts = {verb: " ".join(done.output.split()) for verb, done in told.items()} | {"report": told_page}
    for verb, text in texts.items():
        if verb == "all" and "history" in name:
            continue  # the list of runs does not open them
        assert f"{RUN}/{name} is damaged" in text and said in text, verb
        rest = "What ran" if verb == "report" else "val/top1 0.5500"
        assert rest in text and "NoneType" not in text, verb
    if name == "one/manifest.json":
        assert [row["state"] for row in describe_run(uri, RUN)] == ["damaged", "complete"]
        command(f"{RUN}/two", "--store", uri, "--no-measure")
        assert (tmp_path / RUN / "two" / "report.html").exists()


def test_texts_of_upright_lines_never_lie_over_one_another_nor_over_the_curves():
    """A stage that trains nothing ends where it begins, so the next one's mark is at the same step."""
    marks = [(0, "01_stage"), (0, "02_stage"), (3, "03_stage"), (60, "04_stage"), (100, "a_stage_with_a_long_name")]
    made = chart("x", [Line("a", [(0, 0.5), (100, 1.0)])], x_label="step", marks=marks)
    boxes = [(mark.at, mark.at + 8.5 * len(mark.text), mark.y) for mark in made.marks]
    assert [mark.text for mark in made.marks] == [text for _, text in marks]
    for k, (left, right, y) in enumerate(boxes):
        assert left >= 0 and right <= made.width and y < made.top <= min(place for place, _ in made.y_ticks)
        assert not [other for other in boxes[:k] if other[2] == y and other[0] < right and left < other[1]]
    assert chart("x", [Line("a", [(0, 0.5)])], x_label="step").top == 12


def test_the_command_under_the_slider_names_the_model_that_was_measured(made):
    family, folder = made
    model = {"codes": f"--model {RUN}/two --store {folder}", "ner": f"--model {folder}/{RUN}/two"}[family]
    for place in (RUN, f"{RUN}/two"):
        assert model in pages(folder)[place].said


def test_a_share_that_is_not_all_is_not_shown_as_all():
    shown = [share(value) for value in (0, 0.0004, 0.0005, 0.831, 0.9994, 0.99951, 1)]
    assert shown == ["0 %", "< 0.1 %", "0.1 %", "83.1 %", "99.9 %", "> 99.9 %", "100 %"]
