"""A stage's newest log lines in the store: who started a pipeline from elsewhere sees none of its pods, but the same store.

One bounded object a stage, rewritten every few seconds. A reader that asks often enough gets every line once; one that comes late is
told how many it missed.
"""

from __future__ import annotations

import json
import threading
import uuid
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from types import TracebackType

from curricle.errors import ConfigError, StoreError
from curricle.planning import ChainPlan
from curricle.store import join_uri, layout, open_store
from curricle.store.failure import Failure
from curricle.training.events import Event, Step, sentence

KEPT = 400
"""Lines that the object holds at most."""


class LogRelay:
    """Hands a stage's progress events and log lines on into its place in the store, from a thread of its own; never fails."""

    def __init__(self, stage_uri: str, *, every: float = 5.0):
        self._store, self._every, self._writer = open_store(stage_uri), every, uuid.uuid4().hex
        self._lines: deque[str] = deque(maxlen=KEPT)
        self._count = self._written = 0
        self._step = False
        self._lock, self._ended = threading.Lock(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="log relay", daemon=True)

    def __enter__(self) -> LogRelay:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join(self._every)

    def __call__(self, event: Event) -> None:
        """Take an event; of the steps between two writes only the last is kept."""
        step = isinstance(event, Step)
        with self._lock:
            if step and self._step and self._count > self._written:
                self._lines[-1] = sentence(event)
            else:
                self._lines.append(sentence(event))
                self._count += 1
            self._step = step

    def _run(self) -> None:
        while not self._ended.wait(self._every):
            self._write()
        self._write()

    def _write(self) -> None:
        with self._lock:
            if self._count == self._written:
                return
            count, lines = self._count, list(self._lines)
            self._written = count
        with suppress(
            StoreError
        ):  # the next write has these lines too; training says itself what is wrong with the store
            self._store.write(
                layout.LOG, json.dumps({"writer": self._writer, "first": count - len(lines), "lines": lines}).encode()
            )


class RunReader:
    """What a run that goes on elsewhere leaves in its place: log lines as they come, and why its stages failed.

    What stands there when the reader is made belongs to an earlier run of the same id, and is left out.
    """

    def __init__(self, store_uri: str, run_id: str):
        """Raises `StoreError` where the store cannot be read."""
        self._run = open_store(join_uri(store_uri, run_id))
        self._read: dict[str, tuple[str, int]] = {}
        for _ in self.lines():
            pass
        self._old = dict(self._failures())

    def lines(self) -> Iterator[str]:
        """The lines since the last call, each led by its stage's name."""
        for name, uri in self._stages():
            log = layout.read_record(open_store(uri).read(layout.LOG))
            if not log:
                continue
            writer, number = self._read.get(uri, ("", 0))
            number = number if writer == log["writer"] else 0
            if number < log["first"]:
                yield f"{name}: ({log['first'] - number} lines left out)"
                number = log["first"]
            yield from (f"{name}: {line}" for line in log["lines"][number - log["first"] :])
            self._read[uri] = log["writer"], log["first"] + len(log["lines"])

    def failures(self) -> list[Failure]:
        """Why this run failed: the records of its stages, and of the pipeline's other tasks."""
        return [failure for uri, failure in self._failures() if self._old.get(uri) != failure]

    def _failures(self) -> Iterator[tuple[str, Failure]]:
        for store in (self._run, *(open_store(uri) for _, uri in self._stages())):
            if failure := Failure.read(store):
                yield store.uri, failure

    def _stages(self) -> list[tuple[str, str]]:
        """Name and place of each stage that the run trains; none before it is planned."""
        data = self._run.read(layout.PLAN)
        with suppress(ConfigError):  # a plan of another version of curricle
            return (
                [(s.name, s.uri) for s in ChainPlan.from_stored(data, self._run.uri).stages if s.trains] if data else []
            )
        return []
