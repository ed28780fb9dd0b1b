"""A stage's newest log lines in the store: who started a pipeline from elsewhere sees none of its pods, but the same store.

One bounded object a stage, rewritten every few seconds. A reader that asks often enough gets every line once; one that comes late is
told how many it missed.
"""

from __future__ import annotations

import json
import threading
import uuid
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import suppress
from types import TracebackType
from typing import Any

from curricle.errors import ConfigError, StoreError
from curricle.planning import ChainPlan
from curricle.registry import FamilyEntry
from curricle.store import join_uri, layout, open_store
from curricle.store.failure import Failure
from curricle.training.events import Done, Epoch, Event, Step, Working, duration, metric_title, sentence
from curricle.training.pace import Pace

TRAIN = "train"
"""The task of a pipeline that trains a stage: what it says of a failure, the stage's own record says better."""
KEPT = 400
"""Lines that the object holds at most."""


class LogRelay:
    """Hands a stage's progress events and log lines on into its place in the store, from a thread of its own; never fails."""

    def __init__(self, stage_uri: str, *, every: float = 5.0, epochs: int = 0, entry: FamilyEntry | None = None):
        """`epochs` and `entry` as `Narrator` takes them."""
        self._narrator = Narrator(epochs, entry)
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

    def __call__(self, event: Event) -> str:
        """Take an event, and return the line that it was told in; of the steps between two writes only the last is kept, and of what else is counted."""
        step = isinstance(event, Step | Working)
        with self._lock:
            line = self._narrator.line(event)
            if step and self._step and self._count > self._written:
                self._lines[-1] = line
            else:
                self._lines.append(line)
                self._count += 1
            self._step = step
        return line

    def _run(self) -> None:
        while not self._ended.wait(self._every):
            self._write()
        self._write()

    def _write(self) -> None:
        with self._lock:
            if self._count == self._written:
                return
            count, lines, pace = self._count, list(self._lines), self._narrator.pace
            self._written = count
        with suppress(
            StoreError
        ):  # the next write has these lines too; training says itself what is wrong with the store
            self._store.write(
                layout.LOG,
                json.dumps(
                    {"writer": self._writer, "first": count - len(lines), "lines": lines} | pace.facts()
                ).encode(),
            )


class Narrator:
    """A stage's events as lines that a screen holds: ``epoch 1/5 step 14/24 loss 2.68 top-1 0.94, 40 s left``.

    Args:
        epochs: how many the stage trains at most; 0 where nobody knows, and then no share of it and no time is told.
        entry: the family, whose headline is told.
    """

    def __init__(self, epochs: int = 0, entry: FamilyEntry | None = None):
        self.pace = Pace()
        self._epochs, self._entry = epochs, entry
        self._score = ""
        """The newest headline, told with every step."""

    def line(self, event: Event) -> str:
        """The event in one line. A `Log`'s own line stays as it is."""
        match event:
            case Step(epoch, step, steps, loss):
                self._at(epoch - 1 + (step / steps if steps else 0.0))
                score = f" {self._score}" if self._score else ""
                return f"{self._epoch(epoch)} step {step}/{steps} loss {_short(loss)}{score}{self._left()}"
            case Epoch(epoch, _, best, metrics):
                self._score = self._headline(metrics)
                named = {name: metrics[name] for name in ("train/loss_epoch", "val_loss") if name in metrics}
                said = [f"{metric_title(name)} {_short(value)}" for name, value in named.items()]
                said += [self._score] if self._score else []
                if epoch == 0:
                    return f"{self._epoch(0)}, before training: {', '.join(said)}"
                self._at(epoch)
                mark = " (best so far)" if best else ""
                return f"{self._epoch(epoch)} done: {', '.join(said)}{mark}{self._left()}"
            case Done(best, _, _, metrics):
                score = self._headline(metrics)
                return f"done, best is {best}{f': {score}' if score else ''}"
        return sentence(event)

    def _epoch(self, epoch: int) -> str:
        return f"epoch {epoch}/{self._epochs}" if self._epochs else f"epoch {epoch}"

    def _at(self, epochs: float) -> None:
        if self._epochs:
            self.pace.at(epochs / self._epochs)

    def _left(self) -> str:
        seconds = self.pace.facts().get("seconds_left")
        return f", {duration(seconds)} left" if seconds else ""

    def _headline(self, metrics: Mapping[str, float]) -> str:
        name = self._entry.headline(metrics) if self._entry else ""
        return f"{metric_title(name)} {metrics[name]:.2f}" if name else ""


def _short(value: float) -> str:
    """Three digits that count, or two decimals."""
    return f"{value:.2f}" if abs(value) >= 1 else f"{value:#.3g}"


class RunReader:
    """What a run that goes on elsewhere leaves in its place: log lines as they come, and why its stages failed.

    What stands there when the reader is made belongs to an earlier run of the same id, and is left out.
    """

    def __init__(self, store_uri: str, run_id: str):
        """Raises `StoreError` where the store cannot be read."""
        self._run = open_store(join_uri(store_uri, layout.run_folder(run_id)))
        self._read: dict[str, tuple[str, int]] = {}
        self._told: dict[str, int] = {}
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
            yield from self._share(name, uri, log)

    def _share(self, name: str, uri: str, log: dict[str, Any]) -> Iterator[str]:
        """How far the stage is, each time that it is 5 percent further."""
        percent, left = log.get("percent"), log.get("seconds_left")
        if type(percent) is not int or 0 <= percent - self._told.get(uri, -5) < 5:
            return
        self._told[uri] = percent
        yield f"{name}: {percent} %" + (f", {duration(left)} left at most" if type(left) is int else "")

    def failures(self) -> list[Failure]:
        """Why this run failed: the records of its stages, and of the pipeline's other tasks."""
        new = [failure for uri, failure in self._failures() if self._old.get(uri) != failure]
        told = [failure.message for failure in new if failure.stage]
        return [one for one in new if one.task != TRAIN or not any(message in one.message for message in told)]

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
