"""The launcher `auto`: that kind of job which the cluster serves, PyTorchJob where it serves both, and a line that says so.

The cluster is asked when a verb first needs to know; so a plan for `auto` needs one, where a plan for a kind that is named does not.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from curricle.errors import Finding, JobError
from curricle.launch.job import Job, Launcher, Outcome
from curricle.launch.kubernetes.api import Unreachable
from curricle.launch.kubernetes.client import KubernetesLauncher, open_from_environment
from curricle.launch.kubernetes.pytorchjob import PYTORCHJOB
from curricle.launch.kubernetes.trainjob import TRAINJOB

KINDS = (PYTORCHJOB, TRAINJOB)
"""In the order in which they are preferred: a PyTorchJob says more of itself, and goes by itself when it is old."""


class AutoLauncher:
    """The first of the given launchers whose kind the cluster serves. See `job.Launcher`."""

    name = "auto"
    max_attempts = KubernetesLauncher.max_attempts
    retryable = KubernetesLauncher.retryable

    def __init__(self, launchers: Sequence[KubernetesLauncher]):
        self._launchers = launchers
        self._said = False

    @functools.cached_property
    def served(self) -> list[KubernetesLauncher]:
        """Those whose kind the cluster serves, the one to take first.

        Raises:
            JobError: reason `no_operator`: there is none; `lost`: the cluster does not answer.
        """
        patience = self._launchers[0].waits
        until = time.monotonic() + patience.submit
        while True:
            try:
                served = [one for one in self._launchers if one.api.serves(*_resource(one))]
                break
            except Unreachable as error:
                if time.monotonic() > until:
                    raise JobError(f"launcher auto: the cluster does not answer: {error}", reason="lost") from error
                time.sleep(patience.poll)
        if not served:
            none = " nor ".join(one.kind.plural + "." + one.kind.group for one in self._launchers)
            operators = " or the ".join(one.kind.operator for one in self._launchers)
            raise JobError(
                f"launcher auto: the cluster serves neither {none}. Install the {operators}",
                reason="no_operator",
                exit_code=2,
            )
        return served

    @property
    def chosen(self) -> KubernetesLauncher:
        """The launcher that does the work. Raises as `served`."""
        return self.served[0]

    def why(self) -> str:
        """Which was taken, in words. Raises as `served`."""
        kinds = [f"{one.kind.plural}.{one.kind.group}" for one in self.served]
        others = f", and {kinds[1]} too" if len(kinds) > 1 else f" and no {self._other().kind.kind}s"
        return f"launcher auto takes {self.chosen.name}: the cluster serves {kinds[0]}{others}"

    def _other(self) -> KubernetesLauncher:
        return next(one for one in self._launchers if one not in self.served)

    def render(self, job: Job) -> dict[str, Any]:
        """What the chosen launcher renders: this asks the cluster."""
        return self.chosen.render(job)

    def manifests(self, jobs: Sequence[Job]) -> str:
        """The same as YAML, after a comment that says which was chosen."""
        return f"# {self.why()}\n{self.chosen.manifests(jobs)}"

    def submit(self, job: Job) -> str:
        """See `KubernetesLauncher.submit`."""
        return self.chosen.submit(job)

    def wait(self, handle: str, on_log: Callable[[str], None]) -> Outcome:
        """The first line that comes says which was chosen."""
        if not self._said:
            self._said = True
            on_log(f"[launcher] {self.why()}")
        return self.chosen.wait(handle, on_log)

    def cancel(self, handle: str) -> None:
        """See `KubernetesLauncher.cancel`."""
        self.chosen.cancel(handle)

    def attach(self, job_name: str) -> str:
        """See `KubernetesLauncher.attach`."""
        return self.chosen.attach(job_name)

    def delete_by_run(self, run_id: str) -> list[str]:
        """Of every kind that the cluster serves: a run may have begun when it served another."""
        return [name for launcher in self.served for name in launcher.delete_by_run(run_id)]

    def preflight(self, probe: tuple[str, ...]) -> Iterator[Finding]:
        """Which is chosen, then what that one finds."""
        try:
            yield Finding("launcher", True, self.why())
        except JobError as error:
            if error.reason == "configuration":
                raise
            advice = "Install an operator that is named, or correct the kubeconfig."
            yield Finding("launcher", False, str(error), advice)
            return
        yield from self.chosen.preflight(probe)


def _resource(launcher: KubernetesLauncher) -> tuple[str, str, str]:
    return launcher.kind.group, launcher.kind.version, launcher.kind.plural


def open_launcher(task_config: str | None) -> Launcher:
    """The launcher of a pod, or of a person with a kubeconfig; see `client.open_from_environment`."""
    return AutoLauncher([open_from_environment(kind, task_config) for kind in KINDS])
