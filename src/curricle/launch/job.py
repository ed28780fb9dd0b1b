"""A training job as data, and what became of it. The same `Job` runs on this machine and as a PyTorchJob."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, Protocol

Reason = Literal[
    "succeeded",
    "error",
    "configuration",
    "oom_killed",
    "image_pull",
    "unschedulable",
    "evicted",
    "preempted",
    "deadline",
    "cancelled",
    "interrupted",
    "no_operator",
    "no_pod",
    "refused",
    "lost",
]
"""Why a job ended. A retry may cure: evicted, preempted, interrupted, lost."""


@dataclass(frozen=True)
class Job:
    """One distributed training: what to run, how wide, and under which name.

    `argv` is what each rank runs, after ``python``: ``("-m", "curricle.train.worker", "--stage-uri", ...)``.
    """

    name: str
    """A DNS label of at most 52 characters, from run, stage and digest: the same work has the same name."""
    argv: tuple[str, ...]
    nodes: int
    processes_per_node: int
    env: dict[str, str] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    """`curricle.dev/run`, `curricle.dev/stage`; what the exit handler finds the job by."""
    digest: str = ""
    """Digest of the work; a job of the same name with another digest is refused, never adopted."""
    heartbeat: str = ""
    """URI of an object that whoever waits for the job keeps rewriting; the job stops where that ends (see `heartbeat`). On one machine the node
    agent watches its parent instead."""


@dataclass(frozen=True)
class Outcome:
    """How a job ended."""

    state: Literal["succeeded", "failed", "cancelled"]
    reason: Reason
    exit_code: int
    message: str = ""
    """The failing worker's own words (its last lines where it left none)."""
    where: str = ""
    """The rank or pod that failed first."""


class Launcher(Protocol):
    """Four verbs. `render` is pure and returns what `submit` would send."""

    max_attempts: int
    """How often a job is tried where a retry may cure what ended it."""

    def render(self, job: Job) -> object: ...

    def submit(self, job: Job) -> str:
        """Start the job, or adopt the one that already does the same work; its handle."""

    def wait(self, handle: str, on_log: Callable[[str], None]) -> Outcome:
        """Stream log lines (prefixed by rank) until the job ends."""

    def cancel(self, handle: str) -> None:
        """Stop the job and all its processes. Not an error when it has ended."""
