"""`torchx run | status | log | cancel -s pytorchjob` on a genuine cluster, through the installed plugin."""

import subprocess
import sys
import time

import pytest

pytestmark = pytest.mark.cluster


@pytest.fixture
def torchx(kubeconfig):
    def run(*arguments):
        done = subprocess.run([sys.executable, "-W", "ignore", "-m", "torchx.cli.main", *arguments],
                              capture_output=True, text=True, timeout=120)  # fmt: skip
        return done.returncode, done.stdout, done.stderr

    return run


def test_a_command_runs_is_seen_and_is_cancelled(torchx, options):
    code, out, err = torchx(
        "run", "-s", "pytorchjob", "-cfg", "namespace=kubeflow", "utils.sh", "--image", options.image, "--memMB", "256", "--", "python", "-u", "-c", "import time; print('hello'); time.sleep(100)")  # fmt: skip
    assert code == 0, err
    handle = out.strip().splitlines()[-1]
    until = time.monotonic() + 60
    while "State: RUNNING" not in (status := torchx("status", handle)[1]):
        assert time.monotonic() < until and "FAILED" not in status, status
        time.sleep(1)
    while "hello" not in (log := torchx("log", handle)[1]):
        assert time.monotonic() < until, log
    assert torchx("cancel", handle)[0] == 0
    assert "RUNNING" not in torchx("status", handle)[1]
