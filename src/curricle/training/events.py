"""The events of a running chain: what happened, as a line of a log, and as a sentence for people.

A worker prints one line an event, and whoever follows the job's log reads them back. A line is flat JSON, ``{"event": "epoch", "epoch": 1,
"val_loss": 0.25}``: metrics stand beside the other fields, so their names must differ. The reader takes what it knows of a line, for a
job may run in an image of another version. No torch here: the command line and the pipelines read events too.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

Metrics = Mapping[str, float]


@dataclass(frozen=True)
class StageStarted:
    """A stage's turn has come, be it to train or to be taken as it is."""

    index: int
    """Its place in the chain, from 0."""
    stages: int
    """How many the chain has."""
    name: str
    start: str
    """``scratch``, ``continued``, ``reuse`` or ``skip``."""
    reason: str
    uri: str
    epochs: int
    """How many it trains at most."""
    family: str = ""


@dataclass(frozen=True)
class StageDone:
    """A stage is complete."""

    index: int
    name: str
    start: str
    uri: str
    metrics: Metrics
    seconds: float | None = None
    """What it took another process, which was waited for; None where it was trained here."""


@dataclass(frozen=True)
class Resumed:
    """Training goes on from a saved state."""

    epoch: int
    """Complete epochs."""
    step: int
    """Optimiser steps of the stage, all epochs together."""


@dataclass(frozen=True)
class Working:
    """Something that takes a while goes on beside training itself, as encoding texts does."""

    what: str
    """What is under way: ``encoding texts``."""
    done: int
    total: int
    """0 where nothing is counted."""


@dataclass(frozen=True)
class Step:
    """One optimiser step."""

    epoch: int
    """The epoch under way, from 1."""
    step: int
    """Steps of this epoch so far."""
    steps: int
    """Steps that this epoch has."""
    loss: float
    examples: int = 0
    """Records of the step, over all ranks; 0 where nobody said."""


@dataclass(frozen=True)
class Epoch:
    """An epoch has ended and was validated."""

    epoch: int
    """Complete epochs."""
    step: int = 0
    """Optimiser steps of the stage."""
    best: bool = False
    """Whether this is the best checkpoint so far."""
    metrics: Metrics = field(default_factory=dict)
    """Mean training losses and validation metrics."""


@dataclass(frozen=True)
class Saved:
    """A state was handed to the store."""

    name: str
    """The checkpoint's name."""
    epoch: int = 0
    step: int = 0


@dataclass(frozen=True)
class Warned:
    """Something does not work, and training goes on without it, or waits for it."""

    message: str


@dataclass(frozen=True)
class Done:
    """The worker is through, also where the stage was complete before it began."""

    best: str
    """Name of the best checkpoint."""
    epochs: int | None = None
    steps: int | None = None
    """Epochs and optimiser steps of the stage; None where it was complete already."""
    metrics: Metrics = field(default_factory=dict)
    """Those of the best checkpoint."""


@dataclass(frozen=True)
class Log:
    """Any other line of a job's log."""

    line: str


Event = StageStarted | StageDone | Resumed | Working | Step | Epoch | Saved | Warned | Done | Log
Listener = Callable[[Event], None]

_KINDS: dict[str, type[Event]] = {
    "stage": StageStarted,
    "stage_done": StageDone,
    "resumed": Resumed,
    "working": Working,
    "step": Step,
    "epoch": Epoch,
    "saved": Saved,
    "warning": Warned,
    "done": Done,
}
_NAMES = {kind: name for name, kind in _KINDS.items()}
_ACCEPTED: dict[str, tuple[type, ...]] = {
    "int": (int,),
    "int | None": (int, type(None)),
    "float": (int, float),
    "bool": (bool,),
    "str": (str,),
}
"""A field's declared type → the types of its value in JSON."""


def nobody(event: Event) -> None:
    """Hears events, and does nothing."""


def to_line(event: Event) -> str:
    """The event as one line of a log, without its end; a `Log` is its own line."""
    if isinstance(event, Log):
        return event.line
    facts = dict(vars(event))
    metrics = facts.pop("metrics", {})
    known = {name: value for name, value in facts.items() if value is not None}
    return json.dumps({"event": _NAMES[type(event)], **known, **metrics})


def read_line(line: str) -> Event:
    """The event that a line of a job's log holds, whatever stands before it (a rank, a pod); a `Log` where it holds none."""
    at = line.find('{"event"')
    if at >= 0:
        try:
            return _read(json.loads(line[at:]))
        except (ValueError, RecursionError):
            pass
    return Log(line.rstrip("\n"))


def _read(record: dict[str, Any]) -> Event:
    """Raises `ValueError` where the record is no event of this version."""
    kind = _KINDS.get(str(record.pop("event")))
    if kind is None:
        raise ValueError("unknown event")
    values: dict[str, Any] = {}
    with_metrics = False
    for known in fields(kind):
        if known.name == "metrics":
            with_metrics = True
        elif known.name in record:
            values[known.name] = record.pop(known.name)
            if type(values[known.name]) not in _ACCEPTED[str(known.type)]:
                raise ValueError(f"{known.name} has another type")
    if with_metrics:
        values["metrics"] = {name: value for name, value in record.items() if type(value) in _ACCEPTED["float"]}
    try:
        return kind(**values)
    except TypeError as error:  # a field without a default is missing
        raise ValueError(str(error)) from error


def duration(seconds: float) -> str:
    """``8 s``, ``3 min``, ``2.5 h``, ``4 days``."""
    for unit, length in (("days", 86400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds >= 1.5 * length:
            whole = seconds / length
            return f"{whole:.0f} {unit}" if unit == "min" or whole >= 10 else f"{whole:.1f} {unit}"
    return f"{seconds:.0f} s"


def sentence(event: Event) -> str:
    """The event for a person, in one line."""
    match event:
        case Log(line):
            return line
        case Warned(message):
            return f"warning: {message}"
        case Working(what, done, total):
            return f"{what}: {done:,} of {total:,}" if total else what
        case Step(epoch, step, steps, loss):
            return f"epoch {epoch}  step {step}/{steps}  loss {loss:.4f}"
        case Epoch(epoch, _, best, metrics):
            return f"epoch {epoch}{' (best so far)' if best else ''}: {figures(metrics)}"
        case Resumed(epoch, step):
            return f"resumed at epoch {epoch}, step {step}"
        case Saved(name):
            return f"saved {name}"
        case Done(best, _, _, metrics):
            return f"done, best is {best}: {figures(metrics)}"
        case StageStarted(name=name, start=start, reason=reason):
            return f"{name}: {start} ({reason})"
        case StageDone(name=name, uri=uri, metrics=metrics):
            return f"{name} is complete at {uri}: {figures(metrics)}"


def figures(metrics: Metrics) -> str:
    """Metrics in a row, four decimals each."""
    return "  ".join(f"{name} {value:.4f}" for name, value in metrics.items())


def metric_title(name: str) -> str:
    """A metric as people call it, without the split that it was measured on: ``val/top1`` is ``top-1``, ``train/loss_epoch`` is ``loss``."""
    last = name.rpartition("/")[2].removesuffix("_epoch")
    known = {"top1": "top-1", "f1": "F1", "mrr": "MRR", "val_loss": "val loss"}
    return known.get(last, last)
