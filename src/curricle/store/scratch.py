"""Folders for work under way. Each is named by the process that made it, so that what a killed one left is removed by the next.

Removed are folders of this user alone, and only where the process is surely dead: its number is free or another's now, or the host was
started again since. What another host or another container left stays: from here nobody can see whether its process lives.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from curricle.store.process import machine, process_start

_OWNER = re.compile(r"(\d+)-(\w*)-([0-9a-f]{8})-([0-9a-f]{8})-([0-9a-f]{8})")
_RANDOM = re.compile(r"-[a-z0-9_]{8}")


def make_scratch(prefix: str, parent: Path | None = None) -> Path:
    """A fresh folder ``<prefix><owner>-<random>`` in `parent` (default the system's folder for such), which only this user may open.

    Folders of that prefix that dead processes left there are removed first.

    Raises:
        OSError: `parent` is missing, full or may not be written to.
    """
    parent = parent or Path(tempfile.gettempdir())
    remove_leftovers(prefix, parent)
    return Path(tempfile.mkdtemp(prefix=f"{prefix}{owner()}-", dir=parent))


@contextmanager
def scratch(prefix: str, parent: Path | None = None) -> Iterator[Path]:
    """The same for the length of a block; the folder goes with all that is in it."""
    folder = make_scratch(prefix, parent)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def remove_leftovers(prefix: str, parent: Path) -> None:
    """Remove what dead processes left in `parent` under `prefix`."""
    for folder in leftovers(prefix, parent):
        shutil.rmtree(folder, ignore_errors=True)


def leftovers(prefix: str, parent: Path) -> list[Path]:
    """Folders in `parent` that `make_scratch` made for processes of this user that are dead now."""
    if not parent.is_dir():
        return []
    with os.scandir(parent) as entries:
        named = [entry for entry in entries if entry.name.startswith(prefix)]
    return [
        Path(entry.path)
        for entry in named
        if _is_of_the_dead(entry.name.removeprefix(prefix)) and _is_own_folder(entry)
    ]


def _is_own_folder(entry: os.DirEntry[str]) -> bool:
    """Whether it is a folder of this user; not one that another process or thread has removed since it was listed."""
    try:
        return entry.is_dir(follow_symlinks=False) and entry.stat(follow_symlinks=False).st_uid == os.getuid()
    except FileNotFoundError:
        return False


def owner() -> str:
    """This process, as part of a name of what it works on; `is_dead` reads it."""
    marks = "-".join(map(_mark, machine()))
    return f"{os.getpid()}-{process_start(os.getpid()) or ''}-{marks}"


def is_dead(name: str) -> bool:
    """Whether `name` is a process's `owner`, and that process is surely dead."""
    parts = _OWNER.fullmatch(name)
    if parts is None:
        return False
    pid, start, *marks = parts.groups()
    host, boot, namespace = map(_mark, machine())
    if marks[0] != host or (marks[1] == boot and marks[2] != namespace):
        return False
    if marks[1] != boot:
        return True
    now = process_start(int(pid))
    return now is None or ("" not in (now, start) and now != start)


def _mark(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def _is_of_the_dead(name: str) -> bool:
    return _RANDOM.fullmatch(name[-9:]) is not None and is_dead(name[:-9])
