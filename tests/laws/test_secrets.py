"""Planted secrets: none is in anything that is written, printed or shown in the list of processes."""

import os
import sqlite3
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

import pytest

from curricle import cli
from tests.laws.conftest import MAKE

ROOT = Path(__file__).parents[2]
PASSWORD = "pLanted-URL-passw0rd"
SECRETS = {
    "AWS_ACCESS_KEY_ID": "AKIAPLANTEDPLANTED77",
    "AWS_SECRET_ACCESS_KEY": "pLanted/aws+secret",
    "AWS_SESSION_TOKEN": "pLanted-session-token",
    "HF_TOKEN": "hf_pLantedHubToken",
    "KF_PIPELINES_TOKEN": "pLanted-pipelines-token",
    "CURRICLE_KFP_TOKEN": "pLanted-kfp-token",
    "MLFLOW_TRACKING_USERNAME": "anna",
    "MLFLOW_TRACKING_PASSWORD": "pLanted-mlflow-password",
    "MLFLOW_TRACKING_TOKEN": "pLanted-mlflow-token",
}
PLANTED = [PASSWORD, *(value for name, value in SECRETS.items() if name != "MLFLOW_TRACKING_USERNAME")]
URL = f"https://anna:{PASSWORD}@127.0.0.1:9"


def shown(text: str | bytes) -> list[str]:
    """The planted secrets that a text shows."""
    data = text.encode() if isinstance(text, str) else text
    return [secret for secret in PLANTED if secret.encode() in data]


def written(folder: Path) -> dict[str, list[str]]:
    """The files below a folder that show a secret, by content or by name."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert files
    return {str(p): found for p in files if (found := shown(p.read_bytes()) + shown(str(p)))}


def descendants(pid: int) -> set[int]:
    """The processes that a process has started, and those have."""
    try:
        threads = [*Path(f"/proc/{pid}/task").iterdir()]
        children = {int(c) for t in threads for c in (t / "children").read_text().split()}
    except OSError:
        return set()
    return children.union(*(descendants(child) for child in children))


def run(command: list[str], folder: Path, **env: str) -> tuple[int, str, set[bytes]]:
    """Exit code and output of a command, and the command lines of all that it started."""
    process = subprocess.Popen(
        command, cwd=folder, env={**os.environ, **SECRETS, **env}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    lines: set[bytes] = set()
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(0.2):
            for pid in descendants(process.pid):
                with suppress(OSError):
                    lines.add(Path(f"/proc/{pid}/cmdline").read_bytes())

    watcher = threading.Thread(target=watch)
    watcher.start()
    output = process.communicate(timeout=300)[0].decode()
    ended.set()
    watcher.join()
    return process.returncode, output, lines


def curricle(*arguments: str) -> list[str]:
    return [sys.executable, "-c", "from curricle.cli import main; main()", *arguments]


@pytest.fixture
def line(tmp_path, line_family):
    """A chain of the line family, whose model is a straight line."""
    MAKE["line"](tmp_path)
    return tmp_path


def chain(*overrides: str) -> list[str]:
    return ["--config", "config/config.yaml", "--curricula", "one", "training.trainer.accelerator=cpu", *overrides]


@pytest.mark.slow
def test_a_chain_leaves_no_secret_in_its_output_its_files_its_curves_or_its_processes(line):
    command = curricle("train-curriculum", *chain())
    code, output, processes = run(command, line, MLFLOW_TRACKING_URI=f"sqlite:///{line}/mlflow.db", TMPDIR=str(line))
    assert code == 0 and shown(output) == [], output
    assert len(processes) >= 2 and not [p for p in processes if shown(p)], "agent and rank were seen"
    assert written(line) == {}
    assert list(line.rglob("events.out.tfevents*"))
    with sqlite3.connect(line / "mlflow.db") as database:
        assert database.execute("select count(*) from params").fetchone()[0] > 20


@pytest.mark.slow
def test_a_rank_that_fails_with_secrets_in_its_words_leaves_none(tmp_path):
    code, output, _ = run(
        [sys.executable, "-m", "tests.steps.toy_stage", str(tmp_path), "d1"],
        ROOT,
        TOY=f"says@2 {URL}",
        TMPDIR=str(tmp_path),
    )
    assert code == 1 and "cannot reach https://***@127.0.0.1:9 with ***" in output and shown(output) == [], output
    assert "Traceback" in output and "cannot reach" in (tmp_path / "store/r/01_stage/failure.json").read_text()
    assert written(tmp_path) == {}


WRONG = {
    "a setting": ["plan", *chain(f"tracking.mlflow_uri={URL}")],
    "a store": ["plan", *chain(f"paths.store_uri=s3://anna:{PASSWORD}@bucket/x")],
    "an override": ["plan", *chain(f"{URL}")],
    "an unknown key": ["plan", *chain(f"tracking.uri={URL}")],
    "a chain": ["plan", "--chain", URL],
    "a store to show": ["show", "--store", URL],
    "a bucket to show": ["show", "--store", f"minio://anna:{PASSWORD}@bucket/x"],
    "a checkpoint": ["plan", *chain("--from-checkpoint", f"s3://anna:{PASSWORD}@bucket/x")],
    "a model": ["evaluate", "--model", URL],
    "a dataset": ["combine", "--old", URL, "--new", URL, "-o", "out"],
    "an option": ["plan", f"--store={URL}"],
    "an endpoint": ["submit", str(ROOT / "kfp_pipelines/compiled/chain_smoke.yaml"), "--endpoint", URL],
    "a parameter": [
        "submit",
        str(ROOT / "kfp_pipelines/compiled/chain_smoke.yaml"),
        f"store_uri=s3://anna:{PASSWORD}@b/x",
    ],
    "a wrong parameter": ["submit", str(ROOT / "kfp_pipelines/compiled/chain_smoke.yaml"), f"resume={URL}"],
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_value_that_holds_a_password_is_named_without_it(line, monkeypatch, capsys, case):
    monkeypatch.chdir(line)
    for name, value in (SECRETS | {"S3_ENDPOINT": f"{URL}/path"}).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "argv", ["curricle", *WRONG[case]])
    with pytest.raises(SystemExit) as end:
        cli.main()
    said = capsys.readouterr()
    assert end.value.code == 2 and said.err.strip() and "Traceback" not in said.err
    assert shown(said.out + said.err) == [], said
    assert written(line) == {}


def test_rendered_jobs_hold_no_secret_and_cluster_settings_with_one_are_refused(line, monkeypatch, capsys):
    monkeypatch.chdir(line)
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    settings = line / "cluster.yaml"
    monkeypatch.setenv("CURRICLE_CLUSTER", str(settings))

    def plan(text: str) -> tuple[int, str]:
        settings.write_text(f"image: trainer:1\n{text}")
        monkeypatch.setattr(sys, "argv", ["curricle", "plan", *chain(), "--launcher", "pytorchjob"])
        try:
            cli.main()
            code = 0
        except SystemExit as end:
            code = int(end.code or 0)
        settings.unlink()
        said = capsys.readouterr()
        return code, said.out + said.err

    code, said = plan("env_from_secrets: {AWS_SECRET_ACCESS_KEY: [store, secretkey]}\n")
    assert code == 0 and "kind: PyTorchJob" in said and shown(said) == [], said
    for wrong in (f"env: {{MLFLOW_TRACKING_URI: '{URL}'}}\n", f"env: {{HF_TOKEN: {SECRETS['HF_TOKEN']}}}\n"):
        code, said = plan(wrong)
        assert code == 2 and "env_from_secrets" in said and shown(said) == [], said
    assert written(line) == {}
