"""Who a process is, so that another one can tell whether it still lives: a number alone is given again to later processes."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import NamedTuple


class Machine(NamedTuple):
    """Where process numbers count. Boot and namespace are empty where the system does not say (not Linux)."""

    host: str
    boot: str
    """Random, another one after each start of the machine."""
    namespace: str
    """A container counts its own processes."""


def machine() -> Machine:
    """This machine: two processes for which it is the same see each other's numbers."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return Machine(socket.gethostname(), boot, os.readlink("/proc/self/ns/pid"))
    except OSError:  # not Linux
        return Machine(socket.gethostname(), "", "")


def process_start(pid: int) -> str | None:
    """When a process of this machine began, in the kernel's count; empty where that cannot be seen, None where there is no such process."""
    try:
        os.kill(pid, 0)
        state, *rest = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except (ProcessLookupError, OverflowError):
        return None
    except OSError:  # another user's, or not Linux
        return ""
    return None if state in "ZX" else rest[18]
