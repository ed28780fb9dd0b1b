"""A further store for the laws: everything in one SQLite file, ``sqlite:///folder/file.db``. No file of the product knows it."""

from __future__ import annotations

import os
import re
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from curricle.errors import StoreError
from curricle.store import Entry
from curricle.store.keys import check_delete, check_key, check_prefix
from curricle.store.local import open_plain, write_whole

CHUNK = 1 << 20
TABLE = "CREATE TABLE IF NOT EXISTS objects (key TEXT PRIMARY KEY, modified REAL NOT NULL, data BLOB NOT NULL)"
INSERT = "INSERT OR REPLACE INTO objects VALUES (?, ?, zeroblob(?))"  # a blob of zeros takes no memory in the last column alone


class SqliteStore:
    """Objects are rows. What stands behind ``.db`` in the URI is a prefix, as ``minio://bucket/prefix`` has one: runs are opened so."""

    def __init__(self, uri: str):
        found = re.fullmatch(r"sqlite://(/.+?\.db)(?:/(.*))?", uri.rstrip("/"))
        if found is None:
            raise StoreError(f"cannot open {uri!r}: expected sqlite:///folder/file.db, or a prefix behind it")
        self.uri, self._file = uri.rstrip("/"), found[1]
        self._prefix = f"{found[2]}/" if found[2] else ""

    def write(self, key: str, data: bytes) -> None:
        with self._open() as database:
            database.execute("INSERT OR REPLACE INTO objects VALUES (?, ?, ?)", (self._key(key), time.time(), data))

    def read(self, key: str) -> bytes | None:
        with self._open() as database:
            row = database.execute("SELECT data FROM objects WHERE key = ?", (self._key(key),)).fetchone()
        return row[0] if row else None

    def put(self, key: str, path: Path) -> None:
        name = self._key(key)
        try:
            source = open_plain(path)
        except OSError as error:
            raise StoreError(f"{self.uri}: cannot put {key!r}: {path} cannot be read ({error.strerror})") from error
        size = os.fstat(source.fileno()).st_size
        with source, self._open() as database:  # one transaction: a reader sees all of it or nothing
            row = database.execute(INSERT, (name, time.time(), size)).lastrowid
            with database.blobopen("objects", "data", row) as blob:
                while data := source.read(CHUNK):
                    blob.write(data)

    def get(self, key: str, path: Path) -> None:
        with self._open() as database:
            row = database.execute("SELECT rowid FROM objects WHERE key = ?", (self._key(key),)).fetchone()
            if row is None:
                raise StoreError(f"{self.uri}: no object {key!r} to get")

            def fill(out: BinaryIO) -> None:
                with database.blobopen("objects", "data", row[0], readonly=True) as blob:
                    while data := blob.read(CHUNK):
                        out.write(data)

            path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(path, fill)

    def list(self, prefix: str) -> Iterator[Entry]:
        wanted, cut = self._prefix + check_prefix(prefix, self.uri), len(self._prefix)
        with self._open() as database:
            rows = database.execute(
                "SELECT key, length(data), modified FROM objects WHERE substr(key, 1, ?) = ? ORDER BY key",
                (len(wanted), wanted),
            ).fetchall()
        yield from (Entry(key[cut:], size, modified) for key, size, modified in rows)

    def delete(self, prefix: str) -> int:
        name = self._prefix + check_delete(prefix, self.uri)
        with self._open() as database:  # one transaction: manifests go with the rest, and not before
            return database.execute(
                "DELETE FROM objects WHERE key = ? OR substr(key, 1, ?) = ?", (name, len(name) + 1, f"{name}/")
            ).rowcount

    def local(self, key: str) -> Path | None:
        check_prefix(key, self.uri)
        return None

    def _key(self, key: str) -> str:
        return self._prefix + check_key(key, self.uri)

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        Path(self._file).parent.mkdir(parents=True, exist_ok=True)
        database = sqlite3.connect(self._file, timeout=60)
        try:
            with database:  # commits, or rolls back
                database.execute(TABLE)
                yield database
        except sqlite3.Error as error:
            raise StoreError(f"{self.uri}: {error} ({self._file})") from error
        finally:
            database.close()
