"""The local launcher, with genuine processes."""

import signal
import subprocess
import sys
import tempfile
import threading
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest
from torchx.runner import Runner

from curricle.errors import JobError
from curricle.launch import local
from curricle.launch.job import Job
from curricle.launch.local import LocalLauncher
from curricle.store.scratch import make_scratch
from tests.launch.test_agent import SCRIPTS, gone


def make_job(tmp_path, name, processes=1, nodes=1, **changes) -> Job:
    script = tmp_path / f"{name}.py"
    script.write_text(SCRIPTS[name].replace("%LAST%", repr(str(processes * nodes - 1))))
    return Job(
        **{
            "name": f"r-{name}",
            "argv": (str(script),),
            "nodes": nodes,
            "processes_per_node": processes,
            "env": {"SAVED": str(tmp_path / "saved")},
            "digest": "d",
            **changes,
        }
    )


def run(job):
    launcher, lines = LocalLauncher(), []
    return launcher.wait(launcher.submit(job), lines.append), lines


def test_the_torchx_that_is_installed_is_the_one_that_was_measured():
    assert version("torchx-nightly") == "2026.10.26"
    with pytest.raises(PackageNotFoundError):
        version("torchx")


def test_render_is_pure_and_starts_the_node_agent():
    job = Job("r-1", ("-m", "curricle.training.worker", "--stage-uri", "u"), 1, 2, env={"A": "b"})
    app = LocalLauncher().render(job)
    assert app == LocalLauncher().render(job)
    (role,) = app.roles
    assert role.entrypoint == sys.executable and role.env["A"] == "b" and role.num_replicas == 1
    assert role.args == ["-m", "curricle.launch.agent", "--nnodes", "1", "--nproc-per-node", "2", "--", *job.argv]


@pytest.mark.parametrize(
    ("name", "processes", "nodes", "code", "reason", "words"),
    [
        ("fine", 1, 1, 0, "succeeded", ""),
        ("fine", 2, 1, 0, "succeeded", ""),
        ("fine", 1, 2, 0, "succeeded", ""),
        ("code42", 2, 1, 42, "error", "left no message"),
        ("kill", 1, 1, 137, "oom_killed", "SIGKILL"),
        ("kill", 2, 1, 137, "oom_killed", "SIGKILL"),
        ("words", 1, 1, 2, "configuration", "no such bird"),
    ],
)
def test_the_outcome_is_the_failing_ranks_own(tmp_path, name, processes, nodes, code, reason, words):
    outcome, lines = run(make_job(tmp_path, name, processes, nodes))
    assert (outcome.exit_code, outcome.reason) == (code, reason), outcome
    assert words in outcome.message
    if name == "fine":
        assert sorted(line for line in lines if "fine" in line) == [
            f"[{rank}] fine" for rank in range(processes * nodes)
        ]
    else:
        assert outcome.where == f"rank {processes - 1}"
    assert gone(tmp_path)


def test_cancel_lets_the_ranks_save_and_leaves_no_process(tmp_path):
    launcher, ready = LocalLauncher(), threading.Event()
    handle = launcher.submit(make_job(tmp_path, "graceful", 2))
    threading.Thread(target=lambda: (ready.wait(60), launcher.cancel(handle))).start()
    seen = []
    outcome = launcher.wait(
        handle, lambda line: (seen.append(line), len([s for s in seen if "ready" in s]) == 2 and ready.set())
    )
    assert (outcome.state, outcome.reason) == ("cancelled", "cancelled")
    assert len(list(tmp_path.glob("saved*"))) == 2 and gone(tmp_path)
    launcher.cancel(handle)


def test_an_exception_while_waiting_cancels_the_job(tmp_path):
    launcher = LocalLauncher()
    handle = launcher.submit(make_job(tmp_path, "graceful"))

    def interrupt(line):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        launcher.wait(handle, interrupt)
    assert gone(tmp_path)


def test_a_launcher_that_is_killed_leaves_no_orphan(tmp_path):
    job = make_job(tmp_path, "graceful", 2)
    program = (
        "import sys; from curricle.launch.job import Job; from curricle.launch.local import LocalLauncher; launcher = LocalLauncher();"
        f"launcher.wait(launcher.submit(Job('r-1', {job.argv!r}, 1, 2, env={job.env!r})), lambda line: print(line, flush=True))"
    )
    launcher = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    for _ in range(2):
        while "ready" not in launcher.stdout.readline():
            assert launcher.poll() is None
    launcher.kill()
    launcher.communicate()
    assert gone(tmp_path), "ranks outlived their launcher"
    assert len(list(tmp_path.glob("saved*"))) == 2


def test_signal_handlers_are_left_as_they_were(tmp_path):
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    run(make_job(tmp_path, "fine"))
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before


def test_the_same_work_is_adopted_and_other_work_of_that_name_refused(tmp_path):
    launcher = LocalLauncher()
    job = make_job(tmp_path, "graceful")
    handle = launcher.submit(job)
    assert launcher.submit(job) == handle
    with pytest.raises(JobError, match="digest"):
        launcher.submit(make_job(tmp_path, "graceful", digest="e"))
    launcher.cancel(handle)
    assert launcher.wait(handle, lambda line: None).state == "cancelled"


def test_the_folder_of_a_job_whose_command_was_killed_goes_with_the_next_job(tmp_path, dead, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    left = dead(make_scratch("curricle-job-"))
    outcome, _ = run(make_job(tmp_path, "fine"))
    assert outcome.state == "succeeded" and not left.exists()
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith("curricle-")] == []


def test_a_job_whose_wait_was_interrupted_is_over_and_can_be_started_again(tmp_path):
    class Interruption(Exception):
        pass

    def interrupt(line):
        raise Interruption

    job, launcher = make_job(tmp_path, "fine"), LocalLauncher()
    handle = launcher.submit(job)
    with pytest.raises(Interruption):
        launcher.wait(handle, interrupt)
    with pytest.raises(JobError, match="interrupted"):
        launcher.wait(handle, print)
    with pytest.raises(JobError, match="no job"):
        launcher.attach(job.name)
    again = launcher.submit(job)
    assert again != handle and launcher.wait(again, lambda line: None).state == "succeeded"


@pytest.mark.parametrize("full", ["make_scratch", "run"])
def test_no_room_for_a_jobs_logs_is_one_error_that_names_the_place(tmp_path, full, monkeypatch):
    def refused(*args, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(*((local, full) if full == "make_scratch" else (Runner, full)), refused)
    with pytest.raises(JobError, match=rf"logs in {tmp_path}/tmp.*: No space left on device.*TMPDIR") as error:
        LocalLauncher().submit(make_job(tmp_path, "fine"))
    assert error.value.exit_code == 2 and not list((tmp_path / "tmp").iterdir())


HIDING = (
    "curricle/__init__",
    "logging",
    "torch",
    "yaml",
    "random",
    "json",
    "typing",
    "click",
    "numpy",
    "transformers",
    "signal",
)
"""Modules of ours, of Python and of libraries, as files that a user may have."""


@pytest.mark.parametrize("ranks", [1, 2])
def test_no_process_imports_what_lies_in_the_working_folder(tmp_path, monkeypatch, ranks):
    """Through the launcher, the node agent (with torchrun's for two ranks) and the ranks, as where a clone or a user's own script lies."""
    for name in HIDING[ranks - 1 :]:  # with a clone, and without
        (tmp_path / f"{name}.py").parent.mkdir(exist_ok=True)
        (tmp_path / f"{name}.py").write_text("raise SystemExit(f'{__file__} was imported')")
    monkeypatch.chdir(tmp_path)
    job = Job("t", ("-c", "import random, yaml, curricle, torch; print(curricle.plan)"), 1, ranks)
    outcome, lines = run(job)
    assert outcome.state == "succeeded" and "function plan" in "".join(lines), lines


def test_nor_does_the_command_or_what_it_starts(tmp_path):
    (tmp_path / "logging.py").write_text("raise SystemExit('the wrong one')")
    (tmp_path / "curricle").mkdir()
    script = Path(sys.executable).with_name("curricle")
    code = f"import runpy, sys; sys.path[0] = '{script.parent}'; sys.argv = ['curricle', 'plan', '--help']; "
    code += "import atexit, subprocess; atexit.register(lambda: subprocess.run([sys.executable, '-c', 'import logging'], check=True)); "
    made = subprocess.run(
        [sys.executable, "-c", code + f"runpy.run_path('{script}', run_name='__main__')"],
        cwd=tmp_path, capture_output=True, text=True,
    )  # fmt: skip
    assert made.returncode == 0 and "Usage" in made.stdout and not made.stderr
