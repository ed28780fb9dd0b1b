"""Events of a chain: each survives the way through a log; lines of other versions are read, and what is none stays a line."""

import pytest

from curricle.training.events import (
    Done,
    Epoch,
    Log,
    Resumed,
    Saved,
    StageDone,
    StageStarted,
    Step,
    Warned,
    read_line,
    sentence,
    to_line,
)

EVENTS = [
    StageStarted(0, 2, "01_stage", "scratch", "first stage", "store/r/01_stage", 3),
    StageDone(0, "01_stage", "scratch", "store/r/01_stage", {"val_loss": 0.5}),
    Resumed(1, 6),
    Step(1, 2, 6, 0.5),
    Epoch(1, 6, True, {"train/loss_epoch": 0.5, "val/f1/R&D": 1.0}),
    Saved("last.ckpt", 1, 6),
    Warned("MLflow is left out"),
    Done("best.ckpt", 3, 18, {"val_loss": 0.25}),
    Done("best.ckpt", metrics={"val_loss": 0.25}),
    Log("[0] hello"),
]


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: type(event).__name__)
def test_an_event_is_read_back_as_it_was_written_behind_any_prefix(event):
    assert read_line(to_line(event)) == event
    if not isinstance(event, Log):
        assert read_line(f"[worker-0][1] {to_line(event)}\n") == event


def test_a_line_is_flat_as_it_was_before_events_had_types():
    assert to_line(Epoch(1, 6, True, {"val_loss": 0.25})) == (
        '{"event": "epoch", "epoch": 1, "step": 6, "best": true, "val_loss": 0.25}'
    )
    assert read_line('{"event": "epoch", "epoch": 1, "val_loss": 0.25}') == Epoch(1, metrics={"val_loss": 0.25})
    assert read_line('{"event": "done", "best": "b.ckpt", "val_loss": 0.25}') == Done(
        "b.ckpt", metrics={"val_loss": 0.25}
    )


def test_a_line_of_a_newer_worker_is_read_as_far_as_it_is_known():
    line = '{"event": "step", "epoch": 1, "step": 2, "steps": 6, "loss": 1, "rate": 0.1}'
    assert read_line(line) == Step(1, 2, 6, 1)
    assert read_line('{"event": "epoch", "epoch": 1, "note": "x", "val_loss": 0.5}') == Epoch(
        1, metrics={"val_loss": 0.5}
    )


@pytest.mark.parametrize(
    "line",
    [
        '{"event": "step"',
        '{"event": "step", "epoch": 1}',
        '{"event": "step", "epoch": "1", "step": 2, "steps": 6, "loss": 0.5}',
        '{"event": "epoch", "epoch": true}',
        '{"event": "of another version", "epoch": 1}',
        '{"event": null}',
        '{"event": ' + "[" * 100_000,
        "",
    ],
    ids=lambda line: line[:40],
)
def test_what_is_no_event_stays_a_line(line):
    assert read_line(line + "\n") == Log(line)


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: type(event).__name__)
def test_a_sentence_is_one_line_without_json(event):
    assert sentence(event) and "\n" not in sentence(event) and "{" not in sentence(event)
