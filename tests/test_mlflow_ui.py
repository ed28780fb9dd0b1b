"""The command of `make mlflow` opens what training wrote: full MLflow of the pinned version, fetched by uv, over a database that mlflow-skinny made."""

import os
import re
import signal
import subprocess
import time
import urllib.request
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def command(*variables: str) -> str:
    """What `make mlflow` runs, for the environment that runs this test."""
    python = Path(os.sys.executable)
    done = subprocess.run(
        ["make", "-n", "-o", f"{python.parents[1]}/.ready", "mlflow", f"VENV={python.parents[1]}", *variables],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return next(line for line in reversed(done.stdout.splitlines()) if "mlflow ui" in line)


def test_the_documented_command_is_the_one_of_make_with_the_version_that_wrote_the_database():
    made = command()
    shell = subprocess.run(["sh", "-c", f"echo {made}"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    said = re.search(r"^uvx (.*mlflow ui.*)$", (ROOT / "docs/tracking.md").read_text(), re.MULTILINE)[1]
    assert f"mlflow=={version('mlflow-skinny')} " in said
    assert said in re.sub(r"tool run --python \S+ ", "", shell).replace(" --port 5000", "")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_the_command_opens_what_training_wrote(tmp_path, monkeypatch):
    from mlflow.tracking import MlflowClient

    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    client = MlflowClient(uri)
    run = client.create_run(client.create_experiment("codes"), run_name="r/01_stage").info.run_id
    client.log_text(run, "<!doctype html>a report", "report.html")
    client.create_registered_model("naics")
    served = subprocess.Popen(
        ["sh", "-c", command(f"MLFLOW_URI={uri}", "MLFLOW_PORT=5171")],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
    )  # fmt: skip
    try:
        page = _wait("http://127.0.0.1:5171/", served)
        assert b"<title>MLflow</title>" in page
        assert b"a report" in _get(f"http://127.0.0.1:5171/get-artifact?run_uuid={run}&path=report.html")
        assert b"naics" in _get("http://127.0.0.1:5171/api/2.0/mlflow/registered-models/search?max_results=5")
    finally:
        with suppress(ProcessLookupError):
            os.killpg(served.pid, signal.SIGTERM)
        served.wait(30)
        served.stdout.close()


def _get(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=30) as answer:
        return answer.read()


def _wait(url: str, served: subprocess.Popen) -> bytes:
    end = time.monotonic() + 300
    while time.monotonic() < end:
        if served.poll() is not None:
            said = served.stdout.read()
            if "Failed to fetch" in said or "No solution found" in said:
                pytest.skip("full MLflow cannot be fetched here")
            raise AssertionError(said)
        try:
            return _get(url)
        except OSError:
            time.sleep(1)
    raise AssertionError(f"{url} did not answer")
