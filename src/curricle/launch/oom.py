"""What the system says of processes that it killed for memory: a rank that SIGKILL ended has left no word of its own."""

from __future__ import annotations

import re
from pathlib import Path


def oom_kills(root: Path = Path("/")) -> int | None:
    """How many processes of this one's control group the system has killed for memory so far; None where it does not say.

    Version 2 of control groups counts in ``memory.events``, version 1 in ``memory.oom_control``; a container sees its own group at the top.
    """
    for file in _files(root):
        try:
            text = file.read_text(encoding="ascii")
        except (OSError, UnicodeError):
            continue
        if count := re.search(r"^oom_kill (\d+)$", text, re.MULTILINE):
            return int(count[1])
    return None


def _files(root: Path) -> list[Path]:
    """Where the count may stand, the process's own group first."""
    groups = root / "sys/fs/cgroup"
    try:
        lines = (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:  # not Linux
        return []
    files = []
    for _, controllers, path in (line.split(":", 2) for line in lines if line.count(":") >= 2):
        if controllers == "":
            files += [groups / path.lstrip("/") / "memory.events", groups / "memory.events"]
        elif "memory" in controllers.split(","):
            files += [groups / "memory" / place / "memory.oom_control" for place in (path.lstrip("/"), "")]
    return files


def told(before: int | None) -> str:
    """What has become of the count since it was `before`, as a phrase; empty where nothing has."""
    now = oom_kills()
    if before is None or now is None or now <= before:
        return ""
    return f"meanwhile the system killed {now - before} of this job's processes for want of memory"
