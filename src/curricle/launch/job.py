"""A training job as data, what became of it, and what every launcher can do with it. It does not know where a job runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from curricle.errors import CurricleError, Finding, StoreUnavailable

RUN = "curricle.dev/run"
"""Label of a job: the id of its run, of any length and script; a launcher whose labels are narrower cuts it, and keeps the whole id beside it. The exit
handler finds the jobs of a run by it."""

Reason = Literal[
    "succeeded",
    "error",
    "configuration",
    "oom_killed",
    "diverged",
    "image_pull",
    "unschedulable",
    "queued",
    "evicted",
    "preempted",
    "deadline",
    "cancelled",
    "interrupted",
    "no_operator",
    "no_pod",
    "refused",
    "lost",
    "store_away",
]
"""Why a job ended."""

RETRYABLE: frozenset[Reason] = frozenset({"evicted", "preempted", "interrupted", "lost", "store_away"})
"""Reasons that the same work may survive when it starts again from its last checkpoint."""

REASONS: dict[int, Reason] = {CurricleError.exit_code: "configuration", StoreUnavailable.exit_code: "store_away"}
"""What a worker says by its exit code, where it is neither 0 nor a signal's; any other is an `error`."""


@dataclass(frozen=True)
class Job:
    """One distributed training: what to run, on how many nodes, and under which name.

    `argv` is what each rank runs, after ``python``: ``("-m", "curricle.training.worker", "--stage-uri", ...)``.
    """

    name: str
    """A DNS label of at most 52 characters, from run, stage and digest: the same work has the same name."""
    argv: tuple[str, ...]
    nodes: int
    processes_per_node: int
    env: dict[str, str] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    """`RUN` and `curricle.dev/stage`."""
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
    """All that is asked of a place where jobs run. Making one connects to nothing; `tests/laws/test_launchers.py` holds what every one keeps to."""

    @property
    def name(self) -> str:
        """The name that opens it: a key of `curricle.launch.launchers()`."""

    @property
    def max_attempts(self) -> int:
        """How often a job is tried where a retry may cure what ended it."""

    @property
    def retryable(self) -> frozenset[Reason]:
        """Those of `RETRYABLE` that this launcher's jobs are tried again after."""

    def render(self, job: Job) -> object:
        """What `submit` would start, as plain data or TorchX's. Pure: needs no cluster, starts nothing.

        Raises:
            ConfigError: the job cannot run here; names every problem.
        """

    def manifests(self, jobs: Sequence[Job]) -> str:
        """What `submit` would send for each job, as YAML documents; empty where a launcher sends none to anybody.

        Raises:
            ConfigError: as `render`.
        """

    def submit(self, job: Job) -> str:
        """Start the job, or adopt the one that already does the same work; its handle.

        Raises:
            JobError: reason `refused`: a job of that name does other work, or the job is not accepted.
        """

    def wait(self, handle: str, on_log: Callable[[str], None]) -> Outcome:
        """Stream log lines (prefixed by rank or pod) until the job ends.

        Raises:
            Interrupted: this process was asked to stop.
            JobError: reason `lost`: the job cannot be watched any more.
        """

    def cancel(self, handle: str) -> None:
        """Stop the job and all its processes. Not an error when it has ended."""

    def attach(self, job_name: str) -> str:
        """The handle of a job that was submitted before, to be watched: whoever stops watching leaves it running.

        Raises:
            JobError: reason `lost`: there is none of that name.
        """

    def delete_by_run(self, run_id: str) -> list[str]:
        """Stop and remove every job of a run that this launcher can see; their names."""

    def preflight(self, probe: tuple[str, ...]) -> Iterable[Finding]:
        """What this launcher needs before a job can run, tried; empty where it needs nothing. Each finding may come as soon as it is known.

        `probe` is the argv that a worker's process runs (after ``python``, as `Job.argv`) to try the store with the workers' own credentials; it
        prints `probe.findings_line`.

        Raises:
            JobError: reason `configuration`: there is no cluster to ask.
        """
