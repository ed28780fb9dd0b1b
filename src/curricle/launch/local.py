"""Training jobs on this machine, by TorchX `local_cwd`: the node agent as the only process that TorchX starts per node.

TorchX gives processes, log files and their clean-up; what it does not give (real exit codes, the failing rank's own words, no
orphans) comes from the node agent. It takes over SIGTERM and SIGINT when it is made; here both are handed back at once, since
the agent notices by itself when this process is gone. TorchX is imported when a job is rendered or submitted, so that a plan needs none.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from curricle import environment
from curricle.errors import Finding, JobError
from curricle.launch import agent
from curricle.launch.job import REASONS, RUN, Job, Launcher, Outcome, Reason
from curricle.store.scratch import make_scratch

if TYPE_CHECKING:
    from torchx.runner import Runner
    from torchx.specs import AppDef

_POLL = 0.1
_ROLE = "worker"


@dataclass
class _Running:
    job: Job
    runner: Runner | None
    """None from the job's end on: a scheduler of TorchX that lives until Python ends prints a traceback when it is destroyed."""
    log_dir: Path
    cancelled: threading.Event = field(default_factory=threading.Event)
    ending: threading.RLock = field(default_factory=threading.RLock)
    """Held while TorchX stops the job and while its log folder goes: TorchX writes into that folder last of all."""
    outcome: Outcome | None = None


class LocalLauncher:
    """Runs jobs as processes of this machine. It sees the jobs of this process only: nothing is adopted from another one, which takes its
    jobs with it when it ends."""

    name = "local"
    max_attempts = 3
    retryable: frozenset[Reason] = frozenset({"store_away"})
    """Nothing evicts a job here; one that is stopped or killed was so by a person, who starts the command again."""

    def __init__(self) -> None:
        self._running: dict[str, _Running] = {}

    def render(self, job: Job, *, port: int = 0, parent: int = 0) -> AppDef:
        """What `submit` would start; `port` is where several nodes meet (submit takes a free one), `parent` the process that the job ends with."""
        from torchx import specs

        many = job.nodes > 1
        args = agent.arguments(
            job.argv,
            nnodes=job.nodes,
            nproc_per_node=job.processes_per_node,
            rdzv_endpoint=f"localhost:{port}" if many else "",
            rdzv_id=job.name if many else "",
            local_addr="localhost" if many else "",
            parent=parent,
        )
        env = {
            environment.TORCH_ELASTIC_SHUTDOWN_TIMEOUT: str(agent.SHUTDOWN_SECONDS),
            environment.PYTHONSAFEPATH: "1",
            "PYTHONUNBUFFERED": "1",
            **job.env,
        }
        role = specs.Role(
            name=_ROLE, image="", entrypoint=sys.executable, args=args, env=env, num_replicas=job.nodes, max_retries=0
        )
        return specs.AppDef(name=job.name, roles=[role], metadata=dict(job.labels))

    def manifests(self, jobs: Sequence[Job]) -> str:
        """Nothing: processes are started, no object is sent."""
        return ""

    def submit(self, job: Job) -> str:
        """Start the job; its handle. The same work that is already running here is adopted.

        Raises:
            JobError: other work of the same name is running here, or there is no room for its logs.
        """
        from torchx.runner import Runner
        from torchx.schedulers.local_scheduler import create_scheduler

        handle = self._find(job.name)
        if handle is not None:
            running = self._running[handle]
            if running.job.digest != job.digest:
                raise JobError(
                    f"job {job.name} is running with digest {running.job.digest}; this one has {job.digest}",
                    reason="refused",
                    exit_code=2,
                )
            return handle
        try:
            log_dir = make_scratch("curricle-job-")
        except OSError as error:
            raise _no_room(Path(tempfile.gettempdir()), error) from error
        main = threading.current_thread() is threading.main_thread()
        handlers = {s: signal.getsignal(s) for s in (signal.SIGTERM, signal.SIGINT)}
        try:
            runner = Runner("curricle", {"local_cwd": create_scheduler})
            handle = runner.run(
                self.render(job, port=_free_port(), parent=os.getpid()), "local_cwd", cfg={"log_dir": str(log_dir)}
            )
        except OSError as error:
            shutil.rmtree(log_dir, ignore_errors=True)
            raise _no_room(log_dir, error) from error
        finally:
            if main:
                for number, handler in handlers.items():
                    signal.signal(number, handler)
        self._running[handle] = _Running(job, runner, log_dir)
        return handle

    def wait(self, handle: str, on_log: Callable[[str], None]) -> Outcome:
        """Stream the log until the job ends. Interrupted by an exception (Ctrl-C), it cancels the job first."""
        running = self._of(handle)
        if running.outcome is not None:
            return running.outcome
        if running.runner is None:
            raise JobError(f"{handle} was stopped when its wait was interrupted", reason="cancelled")
        try:
            running.outcome = self._follow(handle, running, on_log)
        except BaseException:
            self.cancel(handle)
            raise
        finally:
            with running.ending:
                running.runner.close()
                running.runner = None
                shutil.rmtree(running.log_dir, ignore_errors=True)
        return running.outcome

    def cancel(self, handle: str) -> None:
        """Stop the job: its ranks get SIGTERM and time to save."""
        running = self._of(handle)
        if running.outcome is None and not running.cancelled.is_set():
            with running.ending:
                running.cancelled.set()
                if running.runner is not None:
                    running.runner.cancel(handle)

    def attach(self, job_name: str) -> str:
        """The handle of a job that is running here.

        Raises:
            JobError: reason `lost`: there is none.
        """
        handle = self._find(job_name)
        if handle is None:
            raise JobError(f"no job {job_name!r} is running in this process", reason="lost")
        return handle

    def delete_by_run(self, run_id: str) -> list[str]:
        """Stop the jobs of a run that are running here; their names."""
        names = []
        for handle, running in list(self._running.items()):
            going = running.outcome is None and not running.cancelled.is_set()
            if going and running.job.labels.get(RUN) == run_id:
                self.cancel(handle)
                names.append(running.job.name)
        return names

    def preflight(self, probe: tuple[str, ...]) -> list[Finding]:
        """Only that torch is here, where it is not: for the rest, this very process has what its jobs will have."""
        if find_spec("torch") is not None:
            return []
        advice = "Take a launcher that starts jobs (launcher=pytorchjob), or an image with torch for the component (the trainer's)."
        return [
            Finding(
                "launcher local",
                False,
                "it trains in this very process, whose image or environment has no torch",
                advice,
            )
        ]

    def _find(self, job_name: str) -> str | None:
        for handle, running in self._running.items():
            if running.job.name == job_name and running.runner is not None:
                return handle
        return None

    def _of(self, handle: str) -> _Running:
        if handle not in self._running:
            raise JobError(f"{handle} is no job of this process", reason="lost")
        return self._running[handle]

    def _follow(self, handle: str, running: _Running, on_log: Callable[[str], None]) -> Outcome:
        from torchx.specs import AppState

        tails = [
            _Tail(path, running.job, on_log)
            for node in range(running.job.nodes)
            for path in (
                self._node_dir(handle, running, node) / "stdout.log",
                self._node_dir(handle, running, node) / "stderr.log",
            )
        ]
        while True:
            assert running.runner is not None  # `wait` closes it, after this
            status = running.runner.status(handle)
            for tail in tails:
                tail.read()
            if status is None or status.is_terminal():
                break
            time.sleep(_POLL)
        for tail in tails:
            tail.read(end=True)
        reports = [report for node in range(running.job.nodes) if (report := self._report(handle, running, node))]
        if running.cancelled.is_set():
            return Outcome("cancelled", "cancelled", 143, "stopped on request")
        if status is not None and status.state == AppState.SUCCEEDED:
            return Outcome("succeeded", "succeeded", 0)
        if not reports:
            lines = "\n".join(line for tail in tails for line in tail.last)
            return Outcome(
                "failed",
                "lost",
                137,
                f"the node agent died without a word; the last lines of the job:\n{lines}",
                "agent",
            )
        first = min(reports, key=lambda report: float(report["extraInfo"]["time"]))
        code = int(first["errorCode"])
        return Outcome("failed", _reason(code), code, first["message"], first["extraInfo"]["where"])

    def _node_dir(self, handle: str, running: _Running, node: int) -> Path:
        return running.log_dir / "curricle" / handle.rsplit("/", 1)[1] / _ROLE / str(node)

    def _report(self, handle: str, running: _Running, node: int) -> dict[str, Any] | None:
        file = self._node_dir(handle, running, node) / "error.json"
        return json.loads(file.read_text())["message"] if file.exists() else None


def _no_room(folder: Path, error: OSError) -> JobError:
    return JobError(
        f"cannot start a job with its logs in {folder}: {error.strerror or error}. Make room there, or set TMPDIR to another place",
        reason="refused",
        exit_code=2,
    )


_SIGNALS: dict[int, Reason] = {137: "oom_killed", 143: "interrupted", 130: "interrupted"}


def _reason(code: int) -> Reason:
    return (_SIGNALS | REASONS).get(code, "error")


def open_launcher(task_config: str | None) -> Launcher:
    """The launcher of this machine; what was set on a KFP task has no meaning here."""
    return LocalLauncher()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class _Tail:
    """A log file that grows: hands on whole lines, prefixed by rank, and remembers the last few."""

    def __init__(self, path: Path, job: Job, on_log: Callable[[str], None]):
        self._path, self._on_log, self._rest, self._offset = path, on_log, b"", 0
        self._alone = job.nodes * job.processes_per_node == 1
        self.last: list[str] = []

    def read(self, end: bool = False) -> None:
        if self._path.exists():
            with open(self._path, "rb") as file:
                file.seek(self._offset)
                data = file.read()
            self._offset += len(data)
            *lines, self._rest = (self._rest + data).split(b"\n")
            if end and self._rest:
                lines, self._rest = [*lines, self._rest], b""
            for line in lines:
                text = line.decode("utf-8", errors="replace").rstrip("\r")
                text = f"[0] {text}" if self._alone and not text.startswith("[agent] ") else text
                self.last = [*self.last, text][-5:]
                self._on_log(text)
