"""Failure records: one form is written, and those of earlier versions are read."""

import json

import pytest

from curricle.store import layout
from curricle.store.failure import Failure
from curricle.store.folder import FolderStore


@pytest.fixture
def store(tmp_path):
    return FolderStore(str(tmp_path))


def test_a_record_is_read_back_as_it_was_written(store):
    failure = Failure("too big", 137, "oom_killed", run_id="r1", stage="01_stage", where="rank 1", attempt="7")
    failure.write(store, "01_stage")
    assert Failure.read(store, "01_stage") == failure and failure.time.endswith("Z")
    assert Failure.read(store) is None


def test_the_first_record_of_an_attempt_can_be_kept(store):
    Failure("first").write(store, keep_first=True)
    Failure("second").write(store, keep_first=True)
    assert Failure.read(store).message == "first"
    Failure("third").write(store)
    assert Failure.read(store).message == "third"


@pytest.mark.parametrize(
    ("record", "said"),
    [
        (
            {"stage": "01_stage", "cause": "error", "message": "m", "exit_code": 1, "attempt": "9", "where": "rank 0"},
            "stage 01_stage failed (error): m",
        ),
        (
            {
                "stage": "01_stage",
                "run_id": "r",
                "cause": "lost",
                "message": "m",
                "exit_code": 137,
                "where": "launcher",
            },
            "stage 01_stage failed (lost): m",
        ),
        ({"task": "preflight", "message": "m", "exit_code": 2}, "preflight failed: m"),
        ({}, "the run failed: no message"),
        ({"stage": None, "cause": None, "message": "m"}, "the run failed: m"),
    ],
    ids=["worker", "step", "component", "empty", "null"],
)
def test_a_record_of_an_earlier_version_is_said_in_the_same_words(store, record, said):
    store.write(layout.FAILURE, json.dumps(record | {"time": "2026-01-31T12:00:00Z"}).encode())
    assert Failure.read(store).sentence() == said


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b'"x"', b'{"exit_code": "x"}', b"\xff", b"[" * 100_000])
def test_a_damaged_record_is_a_failure_that_says_so(store, data):
    store.write(layout.FAILURE, data)
    assert "damaged" in Failure.read(store).sentence()
