"""The doors as components call them: what the exit handler leaves, whatever has happened."""

import json

import pytest

from curricle.errors import ConfigError
from curricle.launch import LAUNCHERS
from curricle.store.folder import FolderStore
from kfp_pipelines import doors
from kfp_pipelines.doors import cleanup


class Launcher:
    """Has two jobs of one run."""

    def __init__(self, task_config: str = ""):
        pass

    def delete_by_run(self, run_id: str) -> list[str]:
        return ["a-job", "a-job-a2"] if run_id == "r1" else []


@pytest.mark.parametrize(
    ("launcher", "run_id", "deleted"),
    [
        ("local", "r1", {}),
        ("elsewhere", "r1", {"deleted_jobs": "['a-job', 'a-job-a2']"}),
        ("elsewhere", "r2", {"deleted_jobs": "[]"}),
        ("no such launcher", "r1", {}),
    ],
)
def test_the_exit_handler_deletes_what_is_left_and_writes_the_final_state(
    launcher, run_id, deleted, tmp_path, monkeypatch
):
    monkeypatch.setitem(LAUNCHERS, "elsewhere", f"{__name__}:Launcher")
    note = json.loads(cleanup(run_id, str(tmp_path), launcher, "FAILED"))
    assert note == {"run_id": run_id, "status": "FAILED", **deleted}
    assert json.loads(FolderStore(str(tmp_path)).read(f"{run_id}/final.json")) == note


@pytest.mark.parametrize("run_id", ["../elsewhere", "data", "a/b"])
def test_the_exit_handler_writes_to_no_other_place_than_a_runs(run_id, tmp_path):
    with pytest.raises(ConfigError, match="run id"):
        cleanup(run_id, str(tmp_path / "store"), "local", "FAILED")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("rule", "pinned"), [("", []), (" ", []), ("x >= 1", ["the model"]), ("x > 1", [])])
def test_only_a_rule_that_promotes_pins_a_model(rule, pinned, monkeypatch):
    made = []
    monkeypatch.setattr(doors, "promote", lambda uri, store_uri, reason: made.append(uri))
    doors.gate_model('{"x": 1.0}', rule, "the model", "store")
    assert made == pinned
