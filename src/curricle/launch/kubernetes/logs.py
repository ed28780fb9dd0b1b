"""Log lines of a job's pods, once each and in order, over connections that break.

The kubernetes client's own watch neither reconnects nor yields a last line without newline. Here a pod is read with timestamps,
again from a little before the last seen line, until its container has ended; then once more in full from there.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Protocol

from curricle.errors import JobError

TAIL = 60
"""Lines of each pod that are kept for the report of a failure."""

CLOCKS = 60
"""Seconds by which this machine's clock and a node's may differ."""


class LogSource(Protocol):
    """Where raw lines come from."""

    def read_log(self, pod: str, *, since_seconds: int | None, follow: bool) -> Iterable[bytes]:
        """Chunks of the log, each line led by an RFC 3339 timestamp. Ends, or raises OSError, when the connection does; raises JobError when it is refused."""


class Lines:
    """Cuts chunks into lines and drops those that were already seen; kept over reconnections."""

    def __init__(self) -> None:
        self._last = ""
        self._at_last: list[str] = []
        self._horizon = ""
        self._again: list[str] = []
        self._rest = b""

    @property
    def since(self) -> datetime | None:
        """The time of the last line."""
        return datetime.fromisoformat(self._last[:19]).replace(tzinfo=UTC) if self._last else None

    def restart(self) -> None:
        """A new connection begins: lines up to the last time stamp will come again.

        Only these are dropped; within one connection stdout and stderr may be a little out of order.
        """
        self._rest = b""
        self._horizon, self._again = self._last, list(self._at_last)

    def feed(self, chunk: bytes) -> list[str]:
        """The new lines that `chunk` completes, without timestamps."""
        *whole, self._rest = (self._rest + chunk).split(b"\n")
        return [line for raw in whole if (line := self._accept(raw)) is not None]

    def finish(self) -> list[str]:
        """The last line, when it has no newline."""
        raw, self._rest = self._rest, b""
        line = self._accept(raw) if raw else None
        return [] if line is None else [line]

    def _accept(self, raw: bytes) -> str | None:
        stamp, _, text = raw.decode("utf-8", "replace").partition(" ")
        key = _sortable(stamp)
        if key < self._horizon:
            return None
        if key == self._horizon and text in self._again:
            self._again.remove(text)
            return None
        if key > self._last:
            self._last, self._at_last = key, [text]
        elif key == self._last:
            self._at_last.append(text)
        return text


def _sortable(stamp: str) -> str:
    """RFC 3339 with a fraction of any length, in a form whose order is time's."""
    whole, _, fraction = stamp.rstrip("Z").partition(".")
    return f"{whole}.{fraction:0<9}"


def tail_of(text: str, pod: str, job: str) -> str:
    """`[master-0] text`: the pod's role and index stand for its long name."""
    return f"[{pod.removeprefix(job + '-')}] {text}"


class PodLog:
    """One pod's log, read by its own thread until `end()` and the log's end."""

    def __init__(self, source: LogSource, pod: str, on_line: Callable[[str], None], *, pause: float = 1.0):
        self.pod = pod
        self.tail: deque[str] = deque(maxlen=TAIL)
        self._source, self._on_line, self._pause = source, on_line, pause
        self._ended = threading.Event()
        self._lines = Lines()
        self._refused = False
        self._thread = threading.Thread(target=self._run, name=f"log {pod}", daemon=True)
        self._thread.start()

    def end(self) -> None:
        """The container has ended: read what is left, then stop."""
        self._ended.set()

    def join(self, seconds: float) -> None:
        """Wait until the log is read, at most so long."""
        self._thread.join(seconds)

    def _run(self) -> None:
        while not self._ended.is_set() and not self._refused:
            self._read(follow=True)
            self._ended.wait(self._pause)
        if not self._refused:
            self._read(follow=False)

    def _read(self, *, follow: bool) -> None:
        since = self._lines.since
        seconds = None if since is None else max(1, int(time.time() - since.timestamp()) + CLOCKS)
        self._lines.restart()
        try:
            for chunk in self._source.read_log(self.pod, since_seconds=seconds, follow=follow):
                self._emit(self._lines.feed(chunk))
        except OSError:
            return
        except JobError as error:
            self._emit([f"(this pod's log cannot be read: {error})"])
            self._refused = True
            return
        if not follow:
            self._emit(self._lines.finish())

    def _emit(self, lines: list[str]) -> None:
        for line in lines:
            self.tail.append(line)
            self._on_line(line)
