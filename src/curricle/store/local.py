"""Files of this machine that appear whole or not at all: how one is written, and what one that is being written is called."""

from __future__ import annotations

import errno
import os
import re
import uuid
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from curricle.errors import CurricleError
from curricle.store.scratch import is_dead, owner

PART = ".part"
"""A hidden ``.name.<owner>.<random>.part`` is a file being written; `scratch.owner` is the process that does so."""
_RANDOM = len(".") + 32 + len(PART)
_PART = re.compile(r"\..*\.[0-9a-f]{32}\.part")


def is_part(name: str) -> bool:
    """Whether a file's name is that of a file still being written."""
    return _PART.fullmatch(name) is not None


def part_beside(path: Path) -> Path:
    """A fresh hidden name in the same folder, to be written and then renamed to `path`."""
    return path.with_name(f"{_begin_of_part(path)}{owner()}.{uuid.uuid4().hex}{PART}")


def _begin_of_part(path: Path) -> str:
    return f".{path.name[:40]}."


def _remove_parts_of_the_dead(path: Path) -> None:
    """Delete what killed processes left of their tries to write `path`: files of this user alone."""
    begin = _begin_of_part(path)
    with os.scandir(path.parent) as entries:
        parts = [entry for entry in entries if entry.name.startswith(begin) and is_part(entry.name)]
    for part in parts:
        if is_dead(part.name.removeprefix(begin)[:-_RANDOM]):
            with suppress(FileNotFoundError):  # another process was faster
                if part.is_file(follow_symlinks=False) and part.stat(follow_symlinks=False).st_uid == os.getuid():
                    os.unlink(part)


def sync_folder(folder: Path) -> None:
    """Make renames within `folder` survive a power loss."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_named(folder: Path, names: Iterable[str]) -> list[str]:
    """Delete the named files of a folder, the folders that this empties, and it itself when nothing is left; names of what stays, sorted.

    Raises:
        OSError: a file cannot be deleted.
    """
    for name in names:
        (folder / name).unlink(missing_ok=True)
    for place, _, _ in os.walk(folder, topdown=False):
        if not os.listdir(place):
            os.rmdir(place)
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*")) if folder.exists() else []


def write_whole(path: Path, fill: Callable[[BinaryIO], object]) -> None:
    """Write a file so that a reader finds the old one or the whole new one, also after a power loss; its mode is that of a new file.

    What killed processes left of their tries to write it goes.

    Args:
        path: in a folder that is there.
        fill: writes the content into the open file that it is given. Whatever it raises leaves `path` as it was and no part behind.

    Raises:
        OSError: the folder is missing or full, or may not be written to; it names `path`.
    """
    _remove_parts_of_the_dead(path)
    part = part_beside(path)
    try:
        with open(part, "xb") as out:
            fill(out)
            out.flush()
            os.fsync(out.fileno())
        os.replace(part, path)
    except CurricleError:  # of what was to be written; some of ours are OSErrors too
        raise
    except OSError as error:
        if error.errno is None:  # numpy's own words of a write that was cut short
            error = OSError(errno.ENOSPC, f"only a part could be written ({error}): is the disk full?")
        if error.filename in (None, str(part)):
            error.filename, error.filename2 = str(path), None
        raise error
    finally:
        part.unlink(missing_ok=True)
    sync_folder(path.parent)
