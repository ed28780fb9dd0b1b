"""What a store holds, as it is told: the states of stages and runs."""

import json
import os
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta

import pytest

from curricle.report.facts import REUSED, read_run
from curricle.steps import claim
from curricle.steps.chain import holdings
from curricle.steps.claim import Claimant
from curricle.steps.show import describe_run, list_runs
from curricle.steps.source import read_plan
from curricle.store import layout
from curricle.store.failure import Failure
from curricle.store.folder import FolderStore
from curricle.store.process import process_start
from tests.report import made_up


@pytest.fixture
def store(tmp_path):
    store = FolderStore(str(tmp_path))
    store.write("r/01_stage/stage.json", json.dumps({"digest": "d", "family": "ner", "start": "scratch"}).encode())
    return store


def state(store) -> tuple[str, str]:
    (row,) = describe_run(store.uri, "r")
    return row["state"], row["detail"]


def held(store, **facts) -> None:
    here = {
        "machine": claim._machine(),
        "pid": os.getpid(),
        "process_start": process_start(os.getpid()),
        "at": layout.now(),
    }
    owner = Claimant("t", "d", host="h", **(here | facts))
    store.write(f"r/01_stage/{layout.CLAIM}", json.dumps(asdict(owner)).encode())


def test_a_stage_that_nobody_trains_is_stopped_and_says_what_is_saved(store):
    assert state(store) == ("stopped", "nothing saved yet; the same command goes on")
    for name in ("01_stage-epoch=02-val_loss=0.5000.ckpt", "01_stage-epoch=01-val_loss=0.7000.ckpt"):
        store.write(f"r/01_stage/{name}/manifest.json", b"{}")
    assert state(store) == ("stopped", "best so far epoch 2, val_loss 0.5000; the same command goes on")
    Failure("stopped on request (signal 2)", 130, "interrupted").write(store, "r/01_stage")
    assert state(store)[0] == "stopped"


def test_a_stage_that_failed_says_why(store):
    Failure("the loss is not finite", 2, "configuration").write(store, "r/01_stage")
    assert state(store) == ("failed", "configuration: the loss is not finite")


def test_a_stage_runs_while_its_owner_lives(store):
    held(store)
    running, detail = state(store)
    assert running == "running" and f"process {os.getpid()} on h" in detail
    held(store, process_start="another time")
    assert state(store)[0] == "stopped"


def test_of_another_machine_the_last_beat_tells(store):
    held(store, machine="elsewhere")
    assert state(store)[0] == "running"
    late = datetime.now(UTC) - timedelta(seconds=2 * claim.RECENT)
    for at in (late.strftime("%Y-%m-%dT%H:%M:%SZ"), "", "noon"):
        held(store, machine="elsewhere", at=at)
        assert state(store)[0] == "stopped", at


def test_runs_are_listed_newest_last_with_their_size_and_the_state_that_matters_most(store):
    store.write("a/01_stage/stage.json", b"{}")
    Failure("no", 1, "error").write(store, "a/02_stage")
    os.utime(store.local("r/01_stage/stage.json"), (1e9, 1e9))
    rows = list_runs(store.uri)
    assert [(row["run"], row["state"], row["complete"], row["planned"]) for row in rows] == [
        ("r", "stopped", 0, 1),
        ("a", "failed", 0, 2),
    ]
    assert rows[0]["changed"] == "2001-09-09T01:46:40Z"
    assert rows[0]["bytes"] == len(store.read("r/01_stage/stage.json"))


def test_how_a_stage_began_outlives_a_plan_that_reuses_it(tmp_path):
    uri = made_up.codes(tmp_path)
    plan = read_plan(uri, made_up.RUN)
    again = tuple(replace(s, start="reuse", reason="already complete with this digest") for s in plan.stages)
    FolderStore(uri).write(f"{made_up.RUN}/{layout.PLAN}", replace(plan, stages=again).to_stored().encode())
    assert [row["start"] for row in describe_run(uri, made_up.RUN)] == ["scratch", "continued"]
    assert list_runs(uri)[0]["stages"] == "one complete (reused), two complete (reused)"
    two = read_run(uri, made_up.RUN).stages[1]
    assert (two.start, two.reason) == ("continued", REUSED)


def test_a_plan_tells_what_a_living_process_trains_from_what_was_interrupted(store):
    assert not holdings(store, store.uri, {"01_stage"}).training
    held(store)
    found = holdings(store, store.uri, {"01_stage"})
    assert {place.rpartition("/r/")[2] for place in found.training} == {"01_stage"}
