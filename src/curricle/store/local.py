"""Files of this machine that appear whole or not at all: how one is written, and what one that is being written is called."""

from __future__ import annotations

import errno
import os
import re
import shutil
import stat
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from curricle.errors import CurricleError, OutputError
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


def remove_parts_of_the_dead(path: Path) -> None:
    """Delete what killed processes left of their tries to write `path`: files of this user alone."""
    begin = _begin_of_part(path)
    with os.scandir(path.parent) as entries:
        parts = [entry for entry in entries if entry.name.startswith(begin) and is_part(entry.name)]
    for part in parts:
        if is_dead(part.name.removeprefix(begin)[:-_RANDOM]):
            with suppress(FileNotFoundError):  # another process was faster
                if part.is_file(follow_symlinks=False) and part.stat(follow_symlinks=False).st_uid == os.getuid():
                    os.unlink(part)


def what_else(path: Path) -> str:
    """What stands at a path where it is neither a file nor a folder, for people: ``a pipe``; empty for those two and for nothing.

    Whoever opens a pipe waits until somebody writes into it, and a device may never end: so it is asked before.
    """
    try:
        mode = path.stat().st_mode
    except OSError:
        return ""
    if stat.S_ISREG(mode) or stat.S_ISDIR(mode):
        return ""
    return {stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket"}.get(stat.S_IFMT(mode), "a device")


def open_plain(path: Path) -> BinaryIO:
    """Open a file to read it, and nothing that could make the reader wait.

    Raises:
        OSError: it cannot be opened, or is a pipe, a socket or a device; names it.
    """
    if what := what_else(path):
        raise OSError(errno.EINVAL, f"it is {what}, where a file was expected", str(path))
    return open(path, "rb")


def is_open_pipe(path: Path) -> bool:
    """Whether a path is a pipe that a process has open already, as ``/dev/stdin`` and the shell's ``<(command)`` are: reading it ends."""
    return what_else(path) == "a pipe" and not os.path.exists(os.path.realpath(path))


@contextmanager
def folders_above(path: Path) -> Iterator[None]:
    """Make the folders that a path lies in; where the block ends badly, those made here go again if nothing is in them.

    Raises:
        OutputError: one cannot be made, for a file stands in its place.
        OSError: one cannot be made.
    """
    missing = [folder for folder in path.parents if not os.path.lexists(folder)]
    for folder in path.parents:
        if os.path.lexists(folder) and not folder.is_dir():
            raise OutputError(f"{path} cannot be written: {folder} is no folder")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield
    except BaseException:
        for folder in missing:  # the innermost first
            with suppress(OSError):
                folder.rmdir()
        raise


_FULL = (errno.ENOSPC, errno.EDQUOT)


def of_output(error: OSError, path: Path, hidden: Path) -> OSError:
    """An error of writing as one that names what was asked for, and of a full disk also where that is.

    Args:
        path: the file or folder that was asked for.
        hidden: what the paths begin with under which it is made before it is renamed; an error of another file stays as it is.
    """
    if isinstance(error, shutil.Error):  # of copying a folder: (source, target, why) of each file
        why = str(error.args[0][0][2])
        number = int(found[1]) if (found := re.match(r"\[Errno (\d+)\]", why)) else errno.EIO
        error = OSError(number, os.strerror(number) if number in _FULL else why)
    elif error.errno is None:  # numpy's own words of a write that was cut short
        error = OSError(errno.ENOSPC, f"only a part could be written ({error}): is the disk full?")
    if error.errno in _FULL:
        disk = next(folder for folder in Path(os.path.abspath(path)).parents if os.path.ismount(folder))
        free = shutil.disk_usage(disk).free >> 20
        said = f"{error.strerror} on the disk at {disk} ({free} MiB are free); make room there, or name another place"
        return OSError(error.errno, said, str(path))
    if os.path.abspath(error.filename or hidden).startswith(os.path.abspath(hidden)):
        return OSError(error.errno, error.strerror, str(path))
    return error


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
    remove_parts_of_the_dead(path)
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
        raise of_output(error, path, part) from None
    finally:
        part.unlink(missing_ok=True)
    sync_folder(path.parent)
