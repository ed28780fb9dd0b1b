"""A store in a folder of this machine (or of a volume that is mounted on it).

Every object is written to a hidden file beside its place, synced, then renamed over it, so a reader never sees a part
and concurrent writers leave one whole object. Knows nothing of manifests beyond deleting them first.
"""

from __future__ import annotations

import errno
import logging
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO
from urllib.parse import unquote

from curricle.errors import StoreError
from curricle.store import Entry
from curricle.store.keys import check_delete, check_key, check_prefix, manifests_first
from curricle.store.local import (
    PART,
    is_part,
    open_plain,
    remove_parts_of_the_dead,
    sync_folder,
    what_else,
    write_whole,
)

_CHUNK = 1 << 20
_log = logging.getLogger(__name__)
_told: set[Path] = set()
"""Links that lead nowhere, of which this process has said so."""


def open_local(path: Path, key: str, uri: str) -> BinaryIO:
    """Open the local file that is to become object `key` of the store `uri`; StoreError when it cannot be read."""
    try:
        return open_plain(path)
    except OSError as error:
        raise StoreError(
            f"{uri}: cannot put {key!r}: the local file {path} cannot be read ({error.strerror})"
        ) from error


def root_of(uri: str) -> str:
    """The absolute path of a plain folder or ``file:///folder``; ``~`` is the user's home.

    Raises:
        StoreError: it is neither.
    """
    if uri.startswith("file:"):
        path = unquote(uri.removeprefix("file:").removeprefix("//").removeprefix("localhost"))
        if not path.startswith("/"):
            raise StoreError(
                f"cannot open {uri!r}: a file URI is absolute, file:///folder; for a folder of the working directory write its path alone"
            )
        return path
    if not uri:
        raise StoreError(
            "cannot open a store: the URI is empty; pass a folder, file:///folder, minio://bucket/prefix or s3://bucket/prefix"
        )
    return os.path.abspath(os.path.expanduser(uri))


class FolderStore:
    """A store under one root folder; the folder appears with the first object.

    Args:
        uri: a plain folder (a relative one counts from the working directory at this moment) or ``file:///absolute/folder``.
    """

    def __init__(self, uri: str):
        path = root_of(uri)
        self.uri = (uri.rstrip("/") or uri) if uri.startswith("file://") else path
        self._root = Path(path)
        if self._root.exists() and not self._root.is_dir():
            raise StoreError(
                f"cannot open {uri!r} as a store: it is {what_else(self._root) or 'a file'}; pass the folder that holds it"
            )

    def write(self, key: str, data: bytes) -> None:
        """Make `key` hold `data`, atomically."""
        self._replace(key, lambda target: target.write(data))

    def read(self, key: str) -> bytes | None:
        """The object's bytes, or None when there is no such object."""
        path = self._path(key)
        try:
            with open_plain(path) as file:
                return file.read()
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            return None
        except OSError as error:
            raise self._refused("read", key, error) from error

    def put(self, key: str, path: Path) -> None:
        """Copy a local file in, streaming, atomically; a file that already is this object is left alone."""
        target = self._path(key)
        with open_local(path, key, self.uri) as source:
            if target.is_file() and os.path.samestat(os.fstat(source.fileno()), target.stat()):
                return
            self._replace(key, lambda out: shutil.copyfileobj(source, out, _CHUNK))

    def get(self, key: str, path: Path) -> None:
        """Copy an object out to a local file, which appears only when it is whole."""
        with self._open(key) as source:
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                if path.is_file() and os.path.samestat(os.fstat(source.fileno()), path.stat()):
                    return
                write_whole(path, lambda out: shutil.copyfileobj(source, out, _CHUNK))
            except OSError as error:
                raise StoreError(
                    f"{self.uri}: got {key!r}, but cannot write it to {path}: {error.strerror or error}"
                ) from error

    def list(self, prefix: str) -> Iterator[Entry]:
        """Every object whose key starts with `prefix`, sorted by key; files still being written are not objects, nor are links that lead nowhere (said once)."""
        head = check_prefix(prefix, self.uri).rpartition("/")[0]
        top = self._path(head) if head else self._root
        entries: list[Entry] = []
        for folder, _, names in os.walk(top, onerror=self._unlisted):
            for name in names:
                path = Path(folder, name)
                key = path.relative_to(self._root).as_posix()
                if key.startswith(prefix) and not is_part(name):
                    try:
                        facts = path.stat()
                        entries.append(Entry(key, facts.st_size, facts.st_mtime))
                    except OSError as error:
                        if path.is_symlink() and isinstance(error, FileNotFoundError) or error.errno == errno.ELOOP:
                            self._tell_of_link(path)
                        elif not isinstance(
                            error, FileNotFoundError
                        ):  # else deleted by another process since the walk saw it
                            self._unlisted(error)
        yield from sorted(entries)

    def delete(self, prefix: str) -> int:
        """Delete every object at or under `prefix`, manifests first, with the folders that this empties; the number deleted."""
        prefix = check_delete(prefix, self.uri)
        top = self._path(prefix)
        keys = [prefix] if top.is_file() else [entry.key for entry in self.list(prefix + "/")]
        deleted = 0
        for keys_now in manifests_first(keys):
            folders = set()
            for key in keys_now:
                path = self._path(key)
                try:
                    path.unlink()
                except FileNotFoundError:  # another process was faster: gone is what was asked for
                    continue
                except OSError as error:
                    raise self._refused("delete", key, error) from error
                deleted += 1
                folders.add(path.parent)
            for folder in folders:
                if folder.is_dir():
                    sync_folder(folder)
        with suppress(OSError):  # what a killed process left of a try to write the object goes with it
            remove_parts_of_the_dead(top)
        self._prune(top)
        return deleted

    def local(self, key: str) -> Path | None:
        """The path of an object or folder (`""`: the root) that is there, else None."""
        path = self._path(key.removesuffix("/")) if key else self._root
        return path if path.exists() else None

    def _path(self, key: str) -> Path:
        path = self._root / check_key(key, self.uri)
        if is_part(path.name):
            raise StoreError(
                f"{self.uri}: key {key!r} refused: hidden names that end in {PART} are those of files being written"
            )
        real = Path(os.path.realpath(path))  # of a link to itself too
        if not real.is_relative_to(os.path.realpath(self._root)):
            raise StoreError(
                f"{self.uri}: key {key!r} refused: a link leads out of the store, to {real}; open the store there instead"
            )
        return path

    def _open(self, key: str) -> BinaryIO:
        try:
            return open_plain(self._path(key))
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
            raise StoreError(f"{self.uri}: no object {key!r} to get") from error
        except OSError as error:
            raise self._refused("get", key, error) from error

    def _replace(self, key: str, fill: Callable[[BinaryIO], object]) -> None:
        path = self._path(key)
        for last_try in (False, False, True):
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                write_whole(path, fill)
                return
            except FileNotFoundError as error:  # a delete pruned the empty folder between mkdir and open
                if last_try or path.parent.is_dir():
                    raise self._refused("write", key, error) from error
            except OSError as error:
                raise self._refused("write", key, error) from error

    def _prune(self, top: Path) -> None:
        """Remove what `delete` emptied: abandoned part files below `top`, and empty folders from there up to the root."""
        for folder, _, names in os.walk(top, topdown=False):
            for name in names:
                if is_part(name):
                    Path(folder, name).unlink(missing_ok=True)
            _remove_if_empty(Path(folder))
        above = top.parent
        while above != self._root and above.is_relative_to(self._root) and _remove_if_empty(above):
            above = above.parent

    def _tell_of_link(self, path: Path) -> None:
        """Say once that a link leads nowhere: nothing can be read there."""
        if path not in _told:
            _told.add(path)
            _log.warning(
                "%s: %s is a link that leads nowhere and is passed over; delete it, or restore what it led to",
                self.uri,
                path,
            )

    def _unlisted(self, error: OSError) -> None:
        if not isinstance(error, FileNotFoundError | NotADirectoryError):
            raise StoreError(f"{self.uri}: cannot list {error.filename}: {error.strerror}") from error

    def _refused(self, verb: str, key: str, error: OSError) -> StoreError:
        return StoreError(f"{self.uri}: cannot {verb} {key!r}: {error.strerror or error} ({self._root / key})")


def _remove_if_empty(folder: Path) -> bool:
    try:
        folder.rmdir()
    except FileNotFoundError:
        return True
    except OSError:  # not empty, or not ours to remove: both mean that it stays
        return False
    return True
