"""What the command line shows of launchers: a plan's manifests, and findings before a job."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]


def curricle(*arguments: str, **environment: str) -> subprocess.CompletedProcess:
    code = "from curricle.cli import main; main()"
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=os.environ | environment, timeout=120)


def plan(store: Path, launcher: str, **environment: str) -> subprocess.CompletedProcess:
    return curricle("plan", "--chain", "chain_smoke", "--launcher", launcher, f"paths.store_uri={store}", **environment)


def test_a_plan_for_a_cluster_writes_the_manifests_alone_to_standard_output(tmp_path):
    done = plan(tmp_path / "store", "pytorchjob", CURRICLE_TRAINER_IMAGE="trainer:7")
    assert done.returncode == 0, done.stderr
    jobs = list(yaml.safe_load_all(done.stdout))
    assert [job["metadata"]["labels"]["curricle.dev/stage"] for job in jobs] == ["01_stage", "02_stage"]
    assert "01_stage" in done.stderr, "the table is to be seen all the same"
    assert not (tmp_path / "store").exists()


def test_a_plan_for_this_machine_has_no_manifests(tmp_path):
    done = plan(tmp_path / "store", "local")
    assert done.returncode == 0 and "01_stage" in done.stdout and "apiVersion" not in done.stdout, done.stderr


def test_cluster_settings_that_are_wrong_are_one_message(tmp_path):
    settings = tmp_path / "cluster.yaml"
    settings.write_text("image: a:1\nelastic:\n  min_node: 1\n  max_nodes: 2\n")
    done = plan(tmp_path / "store", "pytorchjob", CURRICLE_CLUSTER=str(settings))
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert f"{settings}:3: elastic.min_node: unknown key; did you mean 'min_nodes'?" in done.stderr


def test_preflight_of_this_machine_is_that_of_its_store(tmp_path):
    done = curricle("preflight", "--store", str(tmp_path / "store"), "--json")
    assert [row["name"] for row in json.loads(done.stdout)] == ["open", "write", "read", "list", "delete"]


@pytest.mark.parametrize("verb", ["plan", "preflight", "train-curriculum"])
def test_every_launcher_is_offered(verb):
    from curricle.launch import LAUNCHERS

    assert f"[{'|'.join(LAUNCHERS)}]" in curricle(verb, "--help").stdout
