"""Tables that people bring to be coded: received, coded one after another by `steps.assign`, handed back, forgotten.

A table belongs to who brought it: its key is told once and asked for in a header. Tables lie in a folder of this process and go with it.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import secrets
import shutil
import threading
import time
import zipfile
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from curricle.errors import CurricleError, DataError
from curricle.serve.batching import Batcher, Busy, Closed
from curricle.serve.limits import Limits
from curricle.steps.assign import Assigned, Listener, Opened, assign_table
from curricle.steps.assigned import Order, text_column
from curricle.store.scratch import make_scratch
from curricle.tables import Row, Table, open_table

Kind = Literal["csv", "tsv", "jsonl", "xlsx"]
State = Literal["received", "waiting", "coding", "done", "failed"]
SHOWN = 3
"""Rows of a table that are shown before it is coded."""
LONGEST = 200
"""Characters of a cell that is shown."""
_log = logging.getLogger(__name__)


class Gone(Exception):
    """There is no such table, or its key is another one."""


@dataclass
class Job:
    """One table."""

    id: str
    key: str
    folder: Path
    kind: Kind
    columns: tuple[str, ...] = ()
    said: str = ""
    sample: tuple[Row, ...] = ()
    state: State = "received"
    done: int = 0
    total: int = 0
    notes: list[str] = field(default_factory=list)
    error: str = ""
    result: Assigned | None = None
    touched: float = field(default_factory=time.monotonic)
    cancelled: bool = False

    @property
    def source(self) -> Path:
        """What was brought."""
        return self.folder / f"table.{self.kind}"

    @property
    def output(self) -> Path:
        """What is handed back."""
        return self.folder / f"coded.{self.kind}"

    @property
    def rejects(self) -> Path:
        """Rows that are none."""
        return self.folder / "rejects.csv"

    def plainly(self, sentence: str) -> str:
        """A sentence without the places of this machine."""
        for path in (self.source, self.output, self.rejects):
            sentence = sentence.replace(str(path), "the table" if path == self.source else path.name)
        return sentence

    def as_json(self) -> dict[str, Any]:
        """How it goes."""
        row: dict[str, Any] = {"id": self.id, "state": self.state, "done": self.done, "total": self.total, "notes": self.notes, "error": self.error or None}  # fmt: skip
        if self.result:
            names = ("rows", "coded", "review", "without", "bad", "named")
            row["result"] = {name: getattr(self.result, name) for name in names}
            row["result"]["named"] = [self.plainly(text) for text in self.result.named]
        return row


class Tables:
    """All tables of a server.

    Args:
        opened: the model that codes them; called when the first one is.
        counted: called with rows that were coded.
    """

    def __init__(
        self,
        opened: Callable[[], Opened],
        batcher: Batcher,
        limits: Limits,
        counted: Callable[[int], None] = lambda rows: None,
    ):
        self._opened, self._batcher, self._limits, self._counted = opened, batcher, limits, counted
        self._jobs: dict[str, Job] = {}
        self._folder = make_scratch("curricle-serve-")
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="tables")
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._jobs)

    async def receive(self, parts: AsyncIterator[bytes], kind: Kind) -> Job:
        """Take a table in, and look into it.

        Raises:
            Busy: as many tables are kept as may, and none of them is old.
            CurricleError: it is none.
        """
        self.forget()
        with self._lock:
            if len(self._jobs) >= self._limits.tables:
                raise Busy
            job = Job(secrets.token_hex(8), secrets.token_urlsafe(24), self._folder, kind)
            job.folder = self._folder / job.id
            job.folder.mkdir()
            self._jobs[job.id] = job
        try:
            with job.source.open("wb") as file:
                async for part in parts:
                    file.write(part)
            await asyncio.to_thread(self._look, job)
        except BaseException:
            self.drop(job)
            raise
        return job

    def _look(self, job: Job) -> None:
        """Read a table's head.

        Raises:
            DataError: it is none.
        """
        try:
            if job.kind == "xlsx":
                _check_unpacked(job.source, self._limits.unpacked)
            table: Table = open_table(job.source)
        except CurricleError as error:
            raise DataError(job.plainly(str(error))) from None
        shown = [*table.columns, *(cell for row in table.sample[:SHOWN] for cell in row.cells)]
        if any("\ud800" <= letter <= "\udfff" for text in shown for letter in text):
            raise DataError(
                "the table holds bytes that are no text in any encoding that is read; is it a table at all?"
            )
        job.columns, job.said, job.sample = table.columns, table.said, table.sample[:SHOWN]

    def find(self, name: str, key: str) -> Job:
        """A table by its name and key.

        Raises:
            Gone: there is none such.
        """
        job = self._jobs.get(name)
        if job is None or not hmac.compare_digest(job.key.encode(), key.encode()):
            raise Gone
        job.touched = time.monotonic()
        return job

    def code(self, job: Job, order: Order) -> None:
        """Have a table coded, once it is its turn.

        Raises:
            ConfigError: it has no such column.
        """
        text_column(job.columns, order.column, "the table")
        job.state, job.done, job.total, job.notes, job.error, job.result = "waiting", 0, 0, [], "", None
        self._thread.submit(self._code, job, order)

    def _code(self, job: Job, order: Order) -> None:
        if job.cancelled:
            return
        job.state = "coding"

        def count(done: int, total: int) -> None:
            self._counted(max(0, done - job.done))
            job.done, job.total = done, total

        def opened() -> Opened:
            whole = self._batcher.run(self._opened)
            return Opened(_Patient(whole.coder, self._batcher, self._limits.chunk, job), whole.version, whole.identity)

        try:
            listener = Listener(lambda said: job.notes.append(job.plainly(said)), count)
            job.result = assign_table(job.source, job.output, order, opened, rejects=job.rejects, listener=listener)
            job.state = "done"
        except CurricleError as error:
            job.error, job.state = job.plainly(str(error)), "failed"
        except Closed:
            job.error, job.state = "stopped", "failed"
        except Exception:
            if not job.cancelled:  # else its folder has gone under it
                _log.exception("a table could not be coded")
            job.error, job.state = "an error of the server; its log says more", "failed"
        finally:
            job.touched = time.monotonic()
            if job.cancelled:
                shutil.rmtree(job.folder, ignore_errors=True)

    def drop(self, job: Job) -> None:
        """Forget a table, and stop coding it."""
        job.cancelled = True
        self._jobs.pop(job.id, None)
        shutil.rmtree(job.folder, ignore_errors=True)

    def forget(self) -> None:
        """Drop the tables that nobody has asked for any more."""
        oldest = time.monotonic() - self._limits.kept
        for job in [*self._jobs.values()]:
            if job.touched < oldest and job.state not in ("waiting", "coding"):
                self.drop(job)

    def close(self) -> None:
        """Stop, and remove everything."""
        for job in [*self._jobs.values()]:
            job.cancelled = True
        self._thread.shutdown(wait=True, cancel_futures=True)
        self.remove()

    def remove(self) -> None:
        """Remove all tables and their results."""
        shutil.rmtree(self._folder, ignore_errors=True)


class _Patient:
    """A coder (`steps.assigned.Coder`) that asks the model in small parts, between other people's questions."""

    def __init__(self, coder: Any, batcher: Batcher, chunk: int, job: Job):
        self._coder, self._batcher, self._chunk, self._job = coder, batcher, chunk, job

    def _in_parts(self, ask: Callable[..., Sequence[Any]], texts: Sequence[str], *more: Sequence[Any]) -> list[Any]:
        made: list[Any] = []
        for at in range(0, len(texts), self._chunk):
            if self._job.cancelled:
                raise Closed
            part = [rows[at : at + self._chunk] for rows in (texts, *more)]
            made += self._batcher.run(lambda part=part: ask(*part))  # type: ignore[misc]
        return made

    def assign(self, texts: Sequence[str], top: int) -> Sequence[Sequence[Any]]:
        return self._in_parts(lambda some: self._coder.assign(some, top), texts)

    def assign_fast(self, texts: Sequence[str], top: int) -> Sequence[Sequence[Any]]:
        return self._in_parts(lambda some: self._coder.assign_fast(some, top), texts)

    def explain(self, texts: Sequence[str], hits: Sequence[Sequence[Any]]) -> Sequence[Sequence[Any]]:
        return self._in_parts(self._coder.explain, texts, hits)

    def sureness(self, max_error: float) -> tuple[float, float, int]:
        return self._batcher.run(lambda: self._coder.sureness(max_error))


def _check_unpacked(path: Path, most: int) -> None:
    """Refuse a workbook that is much larger than it looks.

    Raises:
        DataError: it is, or it is none.
    """
    try:
        with zipfile.ZipFile(path) as packed:
            size = sum(entry.file_size for entry in packed.infolist())
    except (zipfile.BadZipFile, OSError, ValueError):
        raise DataError(
            f"{path} is no workbook, or a damaged one: it cannot be unpacked. Save it again, or as CSV"
        ) from None
    if size > most:
        raise DataError(f"{path} has {size:,} bytes once it is unpacked; {most:,} are allowed here. Save it as CSV")
