"""What a person sees while a chain runs, and of the runs there are."""

import io
import re
import sys
from contextlib import ExitStack
from dataclasses import replace

import pytest
from click.testing import CliRunner
from rich.console import Console

from curricle import cli
from curricle.cli import look
from curricle.cli.look import Progress, run_table, runs_table
from curricle.steps.estimate import estimates
from curricle.steps.source import read_plan
from curricle.store.folder import FolderStore
from curricle.store.manifest import publish
from curricle.training import pulse
from curricle.training.events import Epoch, Log, StageDone, StageStarted, Step, Warned, Working, duration
from curricle.training.pulse import working
from tests.report import made_up

BEGUN = StageStarted(0, 1, "01_stage", "scratch", "first stage", "store/r/01_stage", epochs=2, family="ner")


def test_a_warning_is_shown_as_it_stands(capsys):
    with Progress() as shown:
        shown(Warned("MLflow is left out from here on: [Errno 111] refused"))
    assert "warning: MLflow is left out from here on: [Errno 111] refused" in " ".join(capsys.readouterr().out.split())


@pytest.fixture
def clock(monkeypatch):
    """A clock that only the test moves."""
    now = [1000.0]
    monkeypatch.setattr(look.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(pulse.Pulse, "_run", lambda self: None)
    return now


@pytest.fixture
def stack():
    """What is entered here is left at the test's end."""
    with ExitStack() as entered:
        yield entered


def test_without_a_terminal_a_line_tells_now_and_then_how_far_it_is(capsys, clock):
    with Progress() as shown:
        shown(BEGUN)
        for step in range(1, 41):
            clock[0] += 1
            shown(Step(epoch=1, step=step, steps=50, loss=0.5, examples=32))
    lines = [line for line in capsys.readouterr().out.splitlines() if "step" in line]
    assert len(lines) == 1, "40 seconds have room for one line"
    assert "epoch 1/2  step 30/50  loss 0.5000  32 records/s  70 s left" in lines[0]


def test_every_phase_is_told_of_where_there_is_no_terminal(capsys, clock, tmp_path, stack):
    def after(seconds):
        clock[0] += seconds
        shown.pulse.beat()
        return capsys.readouterr().out.strip()

    shown = stack.enter_context(Progress(tmp_path / "curricle.log"))
    with working("preparing the data of 01_stage"):
        assert after(31) == "preparing the data of 01_stage, 31 s so far"
    shown(BEGUN)
    capsys.readouterr()
    assert after(20) == "" and after(11) == "starting the job, 31 s so far"
    shown(Working("encoding texts", 0, 6000))
    shown(Working("encoding texts", 1200, 6000))
    assert after(30) == "encoding texts: 1,200 of 6,000, 30 s so far, 2 min left"
    clock[0] += 10
    shown(Working("encoding texts", 2400, 6000))
    assert after(20) == "encoding texts: 2,400 of 6,000, 60 s so far, 2 min left"
    shown(Step(epoch=1, step=1, steps=50, loss=0.5))
    assert after(45) == "epoch 1/2  step 1/50  loss 0.5000, no further step for 45 s"
    shown(Working("validating", 0, 0))
    assert after(90) == "validating, 2 min so far"
    assert (tmp_path / "curricle.log").read_text().count("so far") == 4, "of the stage, not of what came before it"


def test_a_terminal_has_bars_and_no_such_lines(monkeypatch, clock):
    shown = io.StringIO()
    terminal = Console(file=shown, force_terminal=True, width=100)
    monkeypatch.setattr(look, "console", terminal)
    with Progress() as progress:
        progress(BEGUN)
        clock[0] += 90
        progress.pulse.beat()
    assert "so far" not in shown.getvalue()


def test_a_command_is_told_of_on_standard_error_alone(monkeypatch, capsys, clock):
    monkeypatch.setattr(sys, "argv", ["curricle", "evaluate"])
    with cli._told():
        clock[0] += 31
        pulse._voices[-1].beat()
    assert capsys.readouterr() == ("", "  curricle evaluate, 31 s so far\n")
    monkeypatch.setattr(sys, "argv", ["curricle", "submit"])
    with cli._told():
        clock[0] += 90
        pulse._voices[-1].beat()
    assert capsys.readouterr() == ("", ""), "who waits for others says so itself"


def test_the_log_file_keeps_what_happened_with_its_time_and_is_appended_to(tmp_path, clock):
    log = tmp_path / "outputs" / "r" / "curricle.log"
    for _ in range(2):
        with Progress(log) as shown:
            shown(BEGUN)
            shown(Epoch(1, metrics={"val_loss": 0.5, "val/f1": 0.25}, best=True))
            shown(Log("a [bold]line[/] of a rank"))
            clock[0] += 90
            shown(StageDone(0, "01_stage", "scratch", "store/r/01_stage", {}))
    lines = log.read_text().splitlines()
    assert len(lines) == 8 and [line[20:] for line in lines[:4]] == [line[20:] for line in lines[4:]]
    assert all(re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d ", line) for line in lines)
    assert lines[2].endswith("a [bold]line[/] of a rank") and "complete in 2 min" in lines[3]
    assert shown.took == {"01_stage": 90.0}
    with Progress(log) as shown:
        shown(BEGUN)
        clock[0] += 90
        shown(StageDone(0, "01_stage", "scratch", "store/r/01_stage", {}, seconds=20.0))
    assert shown.took == {"01_stage": 20.0}, "of the process that was waited for"


def test_a_log_file_that_cannot_be_written_is_said_once_and_done_without(tmp_path, capsys):
    (tmp_path / "outputs").write_text("a file")
    with Progress(tmp_path / "outputs" / "r" / "curricle.log") as shown:
        shown(BEGUN)
        shown(Warned("one"))
    said = " ".join(capsys.readouterr().out.split())
    assert said.count("no log file is kept") == 1 and "warning: one" in said


ROW = {
    "run": "r", "stage": "01_stage", "state": "complete", "earlier": False, "start": "scratch", "family": "ner", "epochs": 3,
    "created": "2026-01-01T00:00:00Z", "detail": "val/f1 0.5000, val_loss 0.1000", "promoted": True, "damaged": [],
}  # fmt: skip


@pytest.mark.parametrize("width", [60, 80, 100, 160])
def test_tables_fit_the_terminal_and_take_names_as_they_are(width):
    console = Console(width=width, record=True, file=io.StringIO())
    failed = ROW | {"stage": "[red]x[/]", "state": "failed", "detail": "oom_killed: [bold]memory[/] " + "word " * 40}
    console.print(run_table([ROW, failed | {"promoted": False}]))
    run = {"run": "sequential_" + "x" * 60, "state": "running", "complete": 1, "planned": 3, "best": "val/f1 0.5000"}
    console.print(
        runs_table(
            [
                run
                | {
                    "changed": ROW["created"],
                    "bytes": 123_456_789,
                    "promoted": False,
                    "damaged": ["r/plan.json is damaged"],
                }
            ]
        )
    )
    text = console.export_text()
    assert max(map(len, text.splitlines())) <= width
    flat = "".join(text.split())
    assert "[red]x[/]failed:oom_killed:[bold]memory[/]" in flat and "promoted" in flat and "123.5MB" in flat


def test_a_foreign_folder_in_a_store_steers_no_terminal(tmp_path):
    (tmp_path / "ev<b>il\x1b[31m\u202e").mkdir()
    (tmp_path / "ev<b>il\x1b[31m\u202e" / "plan.json").write_bytes(b"{")
    for words in ([], ["none"]):
        done = CliRunner().invoke(cli.cli, ["show", *words, "--store", str(tmp_path)])
        said = done.output + str(done.exception or "")
        assert "ev<b>il\\x1b[31m\\u202e" in said.replace("\n", "") and "\x1b" not in said and "\u202e" not in said


def test_a_store_without_runs_and_one_that_is_not_there_are_told_apart(tmp_path):
    for place, said in ((tmp_path, f"no runs in {tmp_path}"), (tmp_path / "x", f"no runs in {tmp_path}/x: there is no such folder")):  # fmt: skip
        assert runs_table([], str(place)).plain == said


def test_durations_are_short():
    said = [duration(seconds) for seconds in (0.4, 89, 90, 3599, 9000, 86400 * 3)]
    assert said == ["0 s", "89 s", "2 min", "60 min", "2.5 h", "3.0 days"]


@pytest.mark.parametrize(("width", "prepared"), [(80, True), (80, False), (160, True)])
def test_a_plan_of_a_store_without_runs_tells_records_and_steps_on_one_line_a_stage(
    monkeypatch, tmp_path, width, prepared
):
    plan = replace(read_plan(made_up.codes(tmp_path), made_up.RUN), store_uri=str(tmp_path / "none"))
    stages = []
    for stage in plan.stages:
        config = stage.config | {
            "curriculum": {"objective": "retrieval", "texts": ["entry"], "name": "one"},
            "data_loader": {"batch_size": 64},
            "training": stage.config["training"] | {"trainer": stage.config["training"]["trainer"] | {"accumulate_grad_batches": 2}},
        }  # fmt: skip
        stages.append(
            replace(stage, config=config, start="continued", data_uri=stage.data_uri if prepared else str(tmp_path))
        )
    plan = replace(plan, stages=tuple(stages))
    publish(FolderStore(str(tmp_path)), "data/made", None, kind="dataset", digest="d0", info={"entry_train": 1000})
    console = Console(width=width, record=True, file=io.StringIO())
    monkeypatch.setattr(look, "console", console)
    look.plan_table(plan, values=True, expected=estimates(plan))
    text = console.export_text()
    rows = [line for line in text.splitlines() if line.startswith(("one ", "two "))][:2]
    assert len(rows) == 2 and all(("1,000" in row and "24" in row.split()) == prepared for row in rows), text
    assert "time and memory: told once a stage trains" in text
    assert ("no records and steps: the data is not prepared yet" in text) != prepared
    settings = [line for line in text.splitlines() if line.startswith("  training.")]
    assert len(settings) >= 10 and max(map(len, settings)) <= width
