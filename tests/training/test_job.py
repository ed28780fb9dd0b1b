"""The whole road: launcher → node agent → worker → loop → store, with genuine processes."""

import io
import json
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from curricle.launch.job import Job
from curricle.launch.local import LocalLauncher
from curricle.training.events import Done, Epoch, Resumed, Working, read_line
from curricle.training.worker import ProgressPrinter
from tests.training.toy import make_config, make_stage


def run(uri, processes, behaviour=""):
    job = Job(
        "toy-job",
        ("-m", "tests.training.toy_worker", "--stage-uri", uri, "--progress", "json"),
        1,
        processes,
        env={"TOY": behaviour},
    )
    launcher, lines = LocalLauncher(), []
    outcome = launcher.wait(launcher.submit(job), lines.append)
    events = [read_line(line) for line in lines if line.startswith("[0] {")]
    return outcome, [event for event in events if not isinstance(event, Working)], lines


def test_two_ranks_of_which_one_is_killed_go_on_from_the_last_save_to_the_same_weights(tmp_path):
    straight, uri = (make_stage(tmp_path / name, make_config(tmp_path / name, devices=2)) for name in "ab")
    outcome, events, lines = run(straight, 2)
    assert outcome.state == "succeeded", lines
    assert isinstance(events[-1], Done) and sum(isinstance(e, Epoch) for e in events) == 3
    outcome, _, lines = run(uri, 2, "kill@9")
    assert (outcome.reason, outcome.exit_code, outcome.where) == ("oom_killed", 137, "rank 1"), lines
    outcome, events, lines = run(uri, 2)
    assert outcome.state == "succeeded", lines
    assert events[0] == Resumed(epoch=1, step=6)
    a, b = (load_file(Path(place, "last.ckpt", "model.safetensors")) for place in (straight, uri))
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_a_loss_that_is_not_finite_is_said_by_the_outcome_and_recorded_in_the_store(tmp_path):
    uri = make_stage(tmp_path)
    outcome, _, lines = run(uri, 1, "nan@4")
    assert outcome.exit_code == 2 and "not finite at step 4" in outcome.message, lines
    record = json.loads(Path(uri, "failure.json").read_text())
    assert record["message"] == outcome.message and record["exit_code"] == 2
    outcome, _, lines = run(uri, 1)
    assert outcome.state == "succeeded" and not Path(uri, "failure.json").exists(), lines


def test_the_worker_needs_nothing_but_its_argv(tmp_path):
    """An unknown family ends with 2 and one sentence, through the genuine worker module."""
    uri = make_stage(tmp_path)
    job = Job("toy-job", ("-m", "curricle.training.worker", "--stage-uri", uri), 1, 1)
    launcher = LocalLauncher()
    outcome = launcher.wait(launcher.submit(job), lambda line: None)
    assert outcome.reason == "configuration" and "family 'toy' is not one of" in outcome.message
    assert sys.executable == launcher.render(job).roles[0].entrypoint


@pytest.mark.parametrize("style", ["json", "plain"])
def test_a_line_of_progress_is_one_write_so_that_nobody_reads_half_of_it(monkeypatch, style):
    class Written(io.StringIO):
        def write(self, text):
            held.extend([text] if text else [])
            return len(text)

    held: list[str] = []
    monkeypatch.setattr("sys.stdout", Written())
    ProgressPrinter(style)(Resumed(epoch=1, step=6))
    assert len(held) == 1 and held[0].endswith("\n")
