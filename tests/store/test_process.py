"""A process ends with the one that started it, whenever that ends."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from curricle.store.process import process_start

BOUND = (
    "import sys, time; sys.platform = {system!r}\n"
    "from curricle.store.process import die_with\n"
    "open({file!r}, 'w').write(str(__import__('os').getpid()))\n"
    "die_with({parent}); time.sleep({seconds})"
)
SYSTEMS = ["linux", "darwin"]
"""Where the kernel tells of a parent's death, and where it is polled for."""


def bound(system: str, file: Path, parent: int | str, seconds: float) -> str:
    """A program that dies with the process `parent` (a number or an expression), else after so many seconds."""
    return BOUND.format(system=system, file=str(file), parent=parent, seconds=seconds)


@pytest.mark.parametrize("system", SYSTEMS)
def test_a_process_whose_parent_was_gone_before_it_could_look_dies_at_once(tmp_path, system):
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    child = subprocess.run([sys.executable, "-c", bound(system, tmp_path / "pid", ended.pid, 20)], timeout=15)
    assert child.returncode == -signal.SIGKILL


@pytest.mark.parametrize("system", SYSTEMS)
def test_a_process_dies_with_its_parent_and_not_before(tmp_path, system):
    program = bound(system, tmp_path / "pid", "__import__('os').getppid()", 20)
    parent = subprocess.Popen(
        [sys.executable, "-c", f"import subprocess, sys; subprocess.run([sys.executable, '-c', {program!r}])"]
    )
    while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
        assert parent.poll() is None
        time.sleep(0.02)
    child = int((tmp_path / "pid").read_text())
    time.sleep(1)
    assert process_start(child) is not None
    parent.kill()
    parent.wait()
    end = time.monotonic() + 5
    while process_start(child) is not None and time.monotonic() < end:
        time.sleep(0.05)
    assert process_start(child) is None


@pytest.mark.parametrize("system", SYSTEMS)
def test_a_process_whose_parent_lives_runs_to_its_end(tmp_path, system):
    child = subprocess.run([sys.executable, "-c", bound(system, tmp_path / "pid", os.getpid(), 1)], timeout=15)
    assert child.returncode == 0
