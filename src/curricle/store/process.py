"""Who a process is, so that another one can tell whether it still lives: a number alone is given again to later processes; and how a process
ends with the one that started it."""

from __future__ import annotations

import ctypes
import io
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

_PR_SET_PDEATHSIG = 1
_POLL = 0.5


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


def running_with(option: str, place: str) -> list[int]:
    """Processes of this machine, but for this one, that were given a place (a URI or a path) as the value of an option; none where the system does
    not tell (not Linux)."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            words = (entry / "cmdline").read_bytes().decode("utf-8", "surrogateescape").split("\0")
            values = [value for word, value in zip(words, words[1:], strict=False) if word == option]
            if values and _absolute(values[-1], entry / "cwd") == _absolute(place, Path.cwd()):
                found.append(int(entry.name))
        except OSError:  # it has ended, or is another user's
            continue
    return [pid for pid in sorted(found) if pid != os.getpid() and process_start(pid) is not None]


def _absolute(place: str, folder: Path) -> str:
    bare = place.removeprefix("file://")
    return place if "://" in bare else os.path.realpath(folder / bare)


def when_gone(parent: int, then: Callable[[], object]) -> None:
    """Call `then` from a thread of its own once the process that started this one, whose number is `parent`, has ended; at once where it has already.

    It polls, twice a second. The kernel's own signal would come too early: when the *thread* that started this process ends.
    """

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_POLL)
        then()

    threading.Thread(target=watch, name="parent", daemon=True).start()


def die_with(parent: int) -> None:
    """Let SIGKILL end this process as soon as the one that started it, whose number is `parent`, has ended; or the thread that started it.

    The number comes from the parent itself: one that ended before this call would go unnoticed otherwise, and the kernel tells of no death
    that was before. Where there is no such signal (not Linux), the parent is polled for.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            _die()
    else:
        when_gone(parent, _die)


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def take_all_characters() -> None:
    """Let standard output and error write what their encoding has not as ``\\u2192``: an arrow must not end a training in a latin-1 terminal.

    What is data, and not words for people, is written as UTF-8 bytes by who writes it.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
