"""The system's count of processes that it killed for memory, as both versions of control groups write it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from curricle.launch import oom

EVENTS = "low 0\nhigh 0\nmax 12\noom 3\noom_kill 2\noom_group_kill 1\n"
CONTROL = "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n"


@pytest.mark.parametrize(
    ("groups", "file", "text"),
    [
        ("0::/pods/a\n", "pods/a/memory.events", EVENTS),
        ("0::/pods/a\n", "memory.events", EVENTS),
        ("0::/../../host/path:1\n", "memory.events", EVENTS),
        ("9:pids:/x\n4:memory:/pods/a\n0::/\n", "memory/pods/a/memory.oom_control", CONTROL),
        ("4:cpu,memory:/pods/a\n", "memory/memory.oom_control", CONTROL),
    ],
)
def test_the_count_is_found_where_the_system_keeps_it(tmp_path, groups, file, text):
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text(groups)
    path = tmp_path / "sys/fs/cgroup" / file
    path.parent.mkdir(parents=True)
    path.write_text(text)
    assert oom.oom_kills(tmp_path) == 2


def test_a_system_that_does_not_say_is_none(tmp_path):
    assert oom.oom_kills(tmp_path) is None
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text("0::/\nnonsense\n")
    assert oom.oom_kills(tmp_path) is None


@pytest.mark.parametrize(("before", "now", "words"), [(1, 3, "killed 2 of"), (2, 2, ""), (None, 3, ""), (1, None, "")])
def test_what_happened_meanwhile_is_told(monkeypatch, before, now, words):
    monkeypatch.setattr(oom, "oom_kills", lambda: now)
    told = oom.told(before)
    assert words in told and bool(told) == bool(words)


GROUPS = Path("/sys/fs/cgroup/memory")


@pytest.fixture
def small_group():
    """A control group (version 1) of 200 MB, made here: it takes root, as in a container."""
    group = GROUPS / f"curricle-test-{os.getpid()}"
    try:
        group.mkdir()
        (group / "memory.limit_in_bytes").write_text(str(200 << 20))
    except OSError as error:
        pytest.skip(f"no control group can be made in {GROUPS}: {error.strerror}")
    yield group
    group.rmdir()


def test_a_rank_that_the_system_kills_for_memory_is_told_as_that(small_group):
    """A genuine kill: the rank takes 2 GB in a group that has 200 MB."""
    rank = "held = []\nwhile True: held.append(bytearray(50_000_000))"
    agent = subprocess.run(
        [sys.executable, "-m", "curricle.launch.agent", "--termination-log", "/nowhere", "--", "-c", rank],
        stderr=subprocess.PIPE,
        text=True,
        timeout=60,
        preexec_fn=lambda: (small_group / "cgroup.procs").write_text(str(os.getpid())) and None,
    )
    assert agent.returncode == 137
    assert (
        "rank 0: killed by SIGKILL: probably out of memory; meanwhile the system killed 1 of this job" in agent.stderr
    )
