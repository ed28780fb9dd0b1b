"""A further launcher for the laws: one process of this machine, started as any program would start it. No file of the product knows it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Any

import yaml

from curricle.errors import ConfigError, Finding, JobError
from curricle.launch import agent
from curricle.launch.job import REASONS, RUN, Job, Outcome, Reason


class PlainLauncher:
    """Jobs of one node, each as one node agent. What `submit` starts here, another launcher hands to `ssh`, `srun` or a container."""

    name = "plain"
    max_attempts = 1
    retryable: frozenset[Reason] = frozenset()

    def __init__(self) -> None:
        self._jobs: dict[str, Job] = {}
        self._agents: dict[str, subprocess.Popen[str]] = {}
        self._outcomes: dict[str, Outcome] = {}
        self._cancelled: set[str] = set()

    def render(self, job: Job) -> dict[str, Any]:
        if job.nodes != 1:
            raise ConfigError(
                f"training.trainer.num_nodes is {job.nodes}; the launcher plain has one node: set it to 1"
            )
        command = agent.arguments(job.argv, nnodes=1, nproc_per_node=job.processes_per_node)
        return {"name": job.name, "argv": [sys.executable, *command], "env": dict(job.env)}

    def manifests(self, jobs: Sequence[Job]) -> str:
        return yaml.safe_dump_all([self.render(job) for job in jobs]) if jobs else ""

    def submit(self, job: Job) -> str:
        if job.name in self._jobs and self._goes_on(job.name):
            if self._jobs[job.name].digest != job.digest:
                raise JobError(f"job {job.name} is running and does other work", reason="refused", exit_code=2)
            return job.name
        asked = self.render(job)
        self._jobs[job.name] = job
        self._outcomes.pop(job.name, None)
        self._cancelled.discard(job.name)
        self._agents[job.name] = subprocess.Popen(
            asked["argv"],
            env={**os.environ, **asked["env"]},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        return job.name

    def wait(self, handle: str, on_log: Callable[[str], None]) -> Outcome:
        if handle not in self._outcomes:
            try:
                self._outcomes[handle] = self._follow(handle, on_log)
            except BaseException:  # whoever waits takes the job with it
                self.cancel(handle)
                raise
        return self._outcomes[handle]

    def _follow(self, handle: str, on_log: Callable[[str], None]) -> Outcome:
        process, last = self._agents[handle], ""
        assert process.stdout is not None
        with process.stdout:
            for line in process.stdout:
                last = line.rstrip("\n")
                on_log(f"[0] {last}")
        code = process.wait()
        if handle in self._cancelled:
            return Outcome("cancelled", "cancelled", 143, "stopped on request")
        if code == 0:
            return Outcome("succeeded", "succeeded", 0)
        return Outcome("failed", REASONS.get(code, "error"), code, last, "agent")

    def cancel(self, handle: str) -> None:
        if self._goes_on(handle):
            self._cancelled.add(handle)
            self._agents[handle].terminate()

    def attach(self, job_name: str) -> str:
        if job_name not in self._jobs:
            raise JobError(f"no job {job_name!r} is running in this process", reason="lost")
        return job_name

    def delete_by_run(self, run_id: str) -> list[str]:
        names = [name for name, job in self._jobs.items() if job.labels.get(RUN) == run_id and self._goes_on(name)]
        for name in names:
            self.cancel(name)
        return names

    def preflight(self, probe: tuple[str, ...]) -> list[Finding]:
        return []

    def _goes_on(self, name: str) -> bool:
        return name not in self._cancelled and self._agents[name].poll() is None


def open_launcher(task_config: str) -> PlainLauncher:
    """What the entry point names."""
    return PlainLauncher()
