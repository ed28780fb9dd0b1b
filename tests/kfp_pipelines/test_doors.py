"""The doors as components call them: what the exit handler leaves, whatever has happened."""

import contextlib
import io
import json
import os
import shutil
import sys
from pathlib import Path

import pytest

from curricle.errors import ConfigError, JobError
from curricle.launch import LAUNCHERS
from curricle.steps.relay import RunReader
from curricle.store.folder import FolderStore
from curricle.training import pulse
from kfp_pipelines import doors
from kfp_pipelines.doors import cleanup
from kfp_pipelines.doors_continued import Setting, check_request
from kfp_pipelines.failures import readable
from kfp_pipelines.parameters import split_overrides

ROOT = Path(__file__).parents[2]


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
    note = json.loads(cleanup(run_id, str(tmp_path), launcher, "FAILED").note)
    assert note == {"run_id": run_id, "status": "FAILED", **deleted}
    assert json.loads(FolderStore(str(tmp_path)).read(f"{run_id}/final.json")) == note


@pytest.mark.parametrize("run_id", ["../elsewhere", "data", "a/b"])
def test_the_exit_handler_writes_to_no_other_place_than_a_runs(run_id, tmp_path):
    with pytest.raises(ConfigError, match="run id"):
        cleanup(run_id, str(tmp_path / "store"), "local", "FAILED")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("rule", "pinned"), [("", []), (" ", []), ("x >= 1", ["the model"]), ("x > 1", [])])
def test_only_a_rule_that_promotes_pins_a_model(rule, pinned, monkeypatch, tmp_path):
    made = []
    monkeypatch.setattr(doors, "promote", lambda uri, store_uri, reason: made.append(uri))
    verdict = doors.gate_model('{"x": 1.0}', rule, "the model", str(tmp_path), "r1")
    assert made == pinned
    kept = json.loads((tmp_path / "r1/verdict.json").read_text())
    assert (kept["decision"], kept["rule"]) == (verdict.decision, rule)


def failing(error, *arguments, **named):
    """Exit code and the lines on standard error of a component whose body raises that."""
    said = io.StringIO()
    with pytest.raises(SystemExit) as ended, contextlib.redirect_stderr(said), readable(*arguments, **named):
        raise error
    return ended.value.code, said.getvalue().splitlines()


def test_every_failure_of_a_component_is_one_line_and_a_record_that_submit_reads(tmp_path):
    store = str(tmp_path)
    reader = RunReader(store, "学" * 300)
    code, lines = failing(ConfigError(["command line: a: unknown key", "b"]), "plan", store, "学" * 300)
    assert (code, lines) == (2, ["curricle: error: 2 problems: parameter overrides: a: unknown key; b"])
    assert [one.sentence() for one in reader.failures()] == [
        f"plan failed: {lines[0].removeprefix('curricle: error: ')}"
    ]
    code, (line,) = failing(RuntimeError("two\nlines"), "preflight", store, "学" * 300)
    assert code == 1 and "two; lines (RuntimeError at test_doors.py:" in line and "mistake in Curricle" in line
    assert reader.failures()[0].task == "preflight"


def test_a_training_component_leaves_its_record_at_the_plans_run_and_the_stages_own_goes_first(tmp_path):
    reader = RunReader(str(tmp_path), "r")
    failing(JobError("stage 01_stage failed (error, exit code 1): NaN"), "train", plan_uri=f"{tmp_path}/r/plan.json")
    assert [one.sentence() for one in reader.failures()] == [
        "train failed: stage 01_stage failed (error, exit code 1): NaN"
    ]


def test_a_quote_that_is_not_closed_names_the_parameter(tmp_path):
    with pytest.raises(ConfigError, match="parameter overrides .* no closing quotation"):
        split_overrides("model.encoder='a b")


def test_a_rule_that_cannot_be_read_or_judged_ends_in_the_plan(tmp_path):
    given = {
        "config": "config.yaml",
        "chain": "chain_smoke",
        "stages": "all",
        "data_key": "",
        "data_source": "",
        "overrides": "",
    }
    more = {"data_uri": "", "start_uri": "", "start_mode": "auto", "resume": True, "run_id": "r", "launcher": "local"}
    with pytest.raises(ConfigError, match="gate rule 'better'"):
        doors.plan_run(**given, **more, store_uri=str(tmp_path), gate_rule="better")
    assert not (tmp_path / "r").exists()


def test_the_exit_handler_says_why_the_run_failed(tmp_path):
    """One click on the run tells all: Kubeflow itself keeps no reason."""
    failing(ConfigError("overrides: no such key"), "plan", str(tmp_path), "r1")
    told = cleanup("r1", str(tmp_path), "local", "FAILED").summary
    assert told.startswith("**Failed**: run r1") and "- plan failed: overrides: no such key" in told
    assert "no such key" not in cleanup("r1", str(tmp_path), "local", "COMPLETE").summary, "an earlier run's failure"


def test_training_in_the_component_needs_torch_and_preflight_and_plan_say_so(tmp_path, monkeypatch):
    """On a cluster the components' image has none: preflight passed, and the stage ended in `No module named 'torch'`."""
    monkeypatch.setitem(sys.modules, "torch", None)
    shown = []
    with pytest.raises(ConfigError, match="no torch. Take a launcher that starts jobs"):
        doors.preflight(str(tmp_path), "local", shown.append)
    assert shown[0].startswith("**Not ready**: 1 of ") and "| FAILED | launcher local |" in shown[0].split("\n")[4]
    with pytest.raises(ConfigError, match="no torch"):
        doors.require_launcher("local")
    with pytest.raises(ConfigError, match="no launcher 'lokal'; did you mean 'local'"):
        doors.require_launcher("lokal")


@pytest.fixture
def request_of(tmp_path, monkeypatch):
    """What preflight finds of a continued training's parameters, by the name of what it looked at."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(ROOT / "config", tmp_path / "config")
    (tmp_path / "new").mkdir()

    def find(new="new", old="", strategy="experiment", experiment="resume_ner_continued", scratch=True, overrides=""):
        setting = Setting(experiment, "", new, old, strategy, overrides, str(tmp_path / "store"))
        found = check_request(setting, "", scratch)
        return {one.name: one for one in found}

    return find


def test_the_examples_old_data_is_no_default_of_a_cluster(request_of):
    """A pipeline that got its one required parameter ended after the combination, for `dataset_tiny/seed0` is on nobody's cluster."""
    found = request_of()
    assert (
        not found["old_dataset_path"].ok
        and "the parameter old_dataset_path is empty" in found["old_dataset_path"].detail
    )
    found = request_of(strategy="new_only")
    assert found["old_dataset_path"].ok and "not measured" in found["old_dataset_path"].detail
    Path("dataset_tiny/seed0").mkdir(parents=True)  # on a person's machine the example is there
    assert request_of()["old_dataset_path"].detail.endswith("dataset_tiny/seed0")


def test_preflight_names_the_parameter_whose_place_is_empty(request_of):
    found = request_of(new="nowhere", old="new", scratch=False)
    assert {name for name, one in found.items() if not one.ok} == {"new_dataset_path", "checkpoint"}
    assert "allow_scratch=true" in found["checkpoint"].detail + found["checkpoint"].advice
    Path("store").mkdir()
    assert not request_of(new=f"file://{Path('store').resolve()}", old="new")["new_dataset_path"].ok
    assert not request_of(experiment="no_such")["experiment"].ok
    assert "lerning_rate" in request_of(overrides="training.lerning_rate=1")["experiment"].detail


def test_a_component_takes_the_settings_variables_and_leaves_the_keys_where_a_role_opens_the_store(monkeypatch):
    monkeypatch.setenv("CURRICLE_CLUSTER_YAML", "env: {S3_ENDPOINT: http://x:1}\nstore_by_role: true")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "of the secret")
    monkeypatch.setenv("S3_ENDPOINT", "")  # what is set before the component sets it is put back after this test
    monkeypatch.delenv("S3_ENDPOINT")
    with readable():
        assert os.environ["S3_ENDPOINT"] == "http://x:1" and "AWS_ACCESS_KEY_ID" not in os.environ


def test_the_log_of_a_component_says_what_it_is_at(monkeypatch, capsys):
    now = [1000.0]
    monkeypatch.setattr(pulse.time, "monotonic", lambda: now[0])
    with readable("evaluate"):
        now[0] += 31
        pulse._voices[-1].beat()
    assert capsys.readouterr().out == "the task evaluate, 31 s so far\n" and not pulse._voices
