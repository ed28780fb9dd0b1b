"""The launcher on a cluster: submit or adopt, wait, cancel, and try again by cause.

`PyTorchJobLauncher` holds the policy and speaks to a `ClusterApi`.
Attempts are counted in the cluster (labels), never in memory, so that a launcher that starts again finds the job it had.
"""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Literal

from curricle.errors import Interrupted, JobError
from curricle.launch.heartbeat import Heartbeat
from curricle.launch.job import Job, Launcher, Outcome
from curricle.launch.pytorchjob import reasons
from curricle.launch.pytorchjob.api import ClusterApi, Conflict, Expired, KubernetesApi, Unreachable
from curricle.launch.pytorchjob.logs import PodLog, tail_of
from curricle.launch.pytorchjob.render import ATTEMPT, DIGEST, HEARTBEAT, JOB, KUEUE_QUEUE, RUN, ClusterOptions, render


@dataclass(frozen=True, kw_only=True)
class Waits:
    """How long each thing is borne, in seconds."""

    poll: float = 2.0
    """Between two looks at the job."""
    no_operator: float = 120.0
    """Until a job that no operator has picked up is given up."""
    no_pod: float = 300.0
    """Until a job that the operator makes no pod for is given up: no such service account, a policy, a quota."""
    image_pull: float = 300.0
    """Until an image that cannot be pulled is given up; registries have their moments."""
    broken: float = 60.0
    """Until a container that cannot be created is given up."""
    schedule: float = 0.0
    """Until a pod that fits no node is given up; 0 waits for ever (an autoscaler, other people's jobs)."""
    notice: float = 60.0
    """Between two lines that say what is being waited for."""
    unreachable: float = 300.0
    """Until an API server that does not answer is given up."""
    gone: float = 180.0
    """Until a job that is being deleted must be gone before it can be made again."""
    drain: float = 10.0
    """For the last log lines of an ended job."""


class PyTorchJobLauncher:
    """Runs jobs as PyTorchJobs. `on_sigterm` says what SIGTERM does to the job that is waited for; one that is left ends by itself unless
    somebody waits for it again (`ClusterOptions.heartbeat_seconds`)."""

    max_attempts = 4

    def __init__(
        self,
        options: ClusterOptions,
        api: ClusterApi,
        *,
        waits: Waits | None = None,
        on_sigterm: Literal["cancel", "detach"] = "cancel",
        emergency: ClusterApi | None = None,
        all_logs: bool = False,
    ):
        """`emergency`: a second connection, for the one DELETE that a SIGTERM leaves time for; `all_logs` streams every pod."""
        self.options, self.api, self.waits, self.on_sigterm = options, api, waits or Waits(), on_sigterm
        self._emergency, self._all_logs = emergency or api, all_logs
        self._cancelled: set[str] = set()

    def render(self, job: Job) -> dict[str, Any]:
        """What `submit` would send for the first attempt."""
        return render(job, self.options)

    def submit(self, job: Job) -> str:
        """Start the job's next attempt, or adopt the one that is there; its handle `namespace:name`.

        An attempt that runs, waits or has succeeded is adopted; after a failed one the next is made.

        Raises:
            JobError: reason `refused`: a job of that name does other work, or the cluster refuses this one.
        """
        deadline = time.monotonic() + self.waits.gone
        while True:
            attempts = sorted(self.api.list_jobs(f"{JOB}={job.name}"), key=_attempt)
            for found in attempts:
                self._same_work(job, found)
            last = attempts[-1] if attempts else None
            going = last is not None and "deletionTimestamp" in last["metadata"]
            if last is not None and not going and reasons.phase(last) != "failed":
                return self._adopt(last)
            if not going:
                attempt = _attempt(last) + 1 if last else 1
                body = render(job, self.options, attempt=attempt)
                try:
                    return self._handle(self.api.create_job(body))
                except Conflict:
                    other = self.api.get_job(body["metadata"]["name"])
                    if other is not None:
                        self._same_work(job, other)
            if time.monotonic() > deadline:
                raise JobError(
                    f"job {job.name!r} is still being deleted after {self.waits.gone:.0f} s; see its finalizers "
                    f"(kubectl -n {self.options.namespace} get pytorchjob -l {JOB}={job.name} -o yaml)",
                    reason="refused",
                )
            time.sleep(min(self.waits.poll, 1.0))

    def wait(self, handle: str, on_log: Callable[[str], None]) -> Outcome:
        """Stream log lines until the job ends, or cannot start; see `Waits`.

        The first pod (master) is streamed as it runs, the others are kept and shown if they fail first.

        Raises:
            Interrupted: SIGTERM came; the job is deleted (or left, by `on_sigterm`).
            JobError: reason `lost`: the cluster could not be reached for longer than `Waits.unreachable`.
        """
        with self._sigterm(handle):
            return _Wait(self, _name(handle), on_log).run()

    def cancel(self, handle: str) -> None:
        """Delete the job with its pods. Not an error when it has ended or is gone."""
        self._cancelled.add(_name(handle))
        self.api.delete_job(_name(handle))

    def attach(self, job_name: str) -> str:
        """The handle of the last attempt at a job that another launcher has started.

        Raises:
            JobError: reason `lost`: there is none.
        """
        attempts = sorted(self.api.list_jobs(f"{JOB}={job_name}"), key=_attempt)
        if not attempts:
            raise JobError(
                f"no PyTorchJob of job {job_name!r} in namespace {self.options.namespace!r} ({JOB}={job_name})",
                reason="lost",
            )
        return self._adopt(attempts[-1])

    def delete_by_run(self, run_id: str) -> list[str]:
        """Delete every job of a run, whoever made it: what the pipeline's exit handler calls. The names deleted."""
        names = [found["metadata"]["name"] for found in self.api.list_jobs(f"{RUN}={run_id}")]
        for name in names:
            self.api.delete_job(name)
        return names

    def _handle(self, job: dict[str, Any]) -> str:
        return f"{self.options.namespace}:{job['metadata']['name']}"

    def _adopt(self, job: dict[str, Any]) -> str:
        """Take over a job of another launcher; our owner is appended, as an object goes when *all* its owners are gone."""
        if self.options.owner is not None:
            ours, there = self.options.owner.reference(), job["metadata"].get("ownerReferences") or []
            if ours["uid"] not in {o["uid"] for o in there}:
                self.api.patch_job(job["metadata"]["name"], {"metadata": {"ownerReferences": [*there, ours]}})
        return self._handle(job)

    def _same_work(self, job: Job, found: dict[str, Any]) -> None:
        theirs = (found["metadata"].get("annotations") or {}).get(DIGEST)
        if theirs != job.digest:
            raise JobError(
                f"PyTorchJob {found['metadata']['name']!r} in namespace {self.options.namespace!r} does other work: its {DIGEST} is "
                f"{theirs!r}, this job's is {job.digest!r}. Delete it, or run under another name",
                reason="refused",
                exit_code=2,
            )

    @contextlib.contextmanager
    def _sigterm(self, handle: str) -> Iterator[None]:
        """While a job is waited for, SIGTERM sends one DELETE over a connection that is already open, then raises `Interrupted`."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        name, stop = _name(handle), threading.Event()

        def on_signal(number: int, frame: object) -> None:
            if self.on_sigterm == "detach":
                raise Interrupted(f"stopped on request; job {handle} goes on and can be attached to", signal=number)
            self._cancelled.add(name)
            try:
                self._emergency.delete_job(name, timeout=0.7)
            except (OSError, JobError) as error:
                raise Interrupted(
                    f"stopped on request, but job {handle} could not be deleted: {error}", signal=number
                ) from error
            raise Interrupted(f"stopped on request; job {handle} is deleted", signal=number)

        before = signal.signal(signal.SIGTERM, on_signal)
        warmer = threading.Thread(target=self._keep_warm, args=(name, stop), name="keep warm", daemon=True)
        warmer.start()
        try:
            yield
        finally:
            stop.set()
            signal.signal(signal.SIGTERM, before)

    def _keep_warm(self, name: str, stop: threading.Event) -> None:
        """Use the emergency connection now and then: a fresh TLS handshake would cost the time that is left."""
        while not stop.is_set():
            with contextlib.suppress(OSError, JobError):
                self._emergency.get_job(name)
            stop.wait(20)


class _Wait:
    """One wait: what has been seen of the job's pods, and their logs."""

    def __init__(self, launcher: PyTorchJobLauncher, name: str, on_log: Callable[[str], None]):
        self.launcher, self.name, self.on_log, self.waits = launcher, name, on_log, launcher.waits
        self.pods: dict[str, dict[str, Any]] = {}
        self.version: str | None = None
        self.removals: list[reasons.Removal] = []
        self.logs: dict[str, PodLog] = {}
        self.started = time.monotonic()
        self.noticed: dict[str, float] = {}
        self.silent_since: float | None = None
        self.met = False
        self.heart: Heartbeat | None = None

    def run(self) -> Outcome:
        try:
            return self.follow()
        finally:
            if self.heart:
                self.heart.stop()

    def follow(self) -> Outcome:
        while True:
            try:
                outcome = self.look()
                if outcome is None:
                    self.watch(self.waits.poll)
                self.silent_since = None
            except Unreachable as error:
                outcome = None
                self.silent_since = self.silent_since or time.monotonic()
                if time.monotonic() - self.silent_since > self.waits.unreachable:
                    raise JobError(
                        f"the cluster has not answered for {self.waits.unreachable:.0f} s ({error}); the job may go on: attach to it later",
                        reason="lost",
                    ) from error
                time.sleep(self.waits.poll)
            if outcome is not None:
                return outcome

    def look(self) -> Outcome | None:
        """One look at job and pods; the outcome when there is one."""
        api = self.launcher.api
        job = api.get_job(self.name)
        if job is None:
            return self.finish(None)
        if not self.met:
            self.meet(job)
        phase = reasons.phase(job)
        if phase in ("succeeded", "failed"):
            if phase == "failed":
                self.watch(0.0)  # what happened until then, in its order
            self.see(api.list_pods(self.name))
            return self.finish(job)
        if "deletionTimestamp" in job["metadata"]:
            return None
        return self.patience(job)

    def meet(self, job: dict[str, Any]) -> None:
        """The job as it was accepted: show it that a launcher is there, and say when nobody has read its queue label."""
        self.met = True
        if uri := (job["metadata"].get("annotations") or {}).get(HEARTBEAT):
            self.heart = Heartbeat(
                uri, lambda why: self.notice(f"the job may take its launcher for gone and stop: {why}")
            )
        queue = (job["metadata"].get("labels") or {}).get(KUEUE_QUEUE)
        if queue and "suspend" not in job["spec"].get(
            "runPolicy", {}
        ):  # Kueue's webhook sets it before the job is stored
            self.on_log(
                f"[launcher] warning: the job carries queue {queue!r}, but Kueue has not suspended it: its PyTorchJob integration "
                "(kubeflow.org/pytorchjob) is off or Kueue is not installed, so no quota holds"
            )

    def watch(self, seconds: float) -> None:
        """Follow what happens to the pods. Only the order of events tells a pod that was deleted, whereupon the others broke down, from one
        that the operator removed because another had failed; both may lie between two looks."""
        try:
            for kind, pod in self.launcher.api.pod_events(self.name, self.version, seconds):
                self.version = pod["metadata"].get("resourceVersion")
                missed = kind == "DELETED" and not self.launcher.options.elastic  # an elastic gang goes on without it
                if missed and (removal := reasons.removal(pod, list(self.pods.values()), datetime.now(UTC))):
                    self.removals.append(removal)
                self.see([pod])
        except Expired:
            self.version = None

    def see(self, pods: list[dict[str, Any]]) -> None:
        """Remember the pods as they are now; a pod that is gone stays as it was last seen."""
        for pod in pods:
            name = pod["metadata"]["name"]
            if (
                (before := self.pods.get(name))
                and before["metadata"].get("uid") != pod["metadata"].get("uid")
                and name in self.logs
            ):
                self.logs.pop(name).end()
            self.pods[name] = pod
            states = [c.get("state") or {} for c in (pod.get("status") or {}).get("containerStatuses") or []]
            if name not in self.logs and any("running" in s or "terminated" in s for s in states):
                self.logs[name] = PodLog(self.launcher.api, name, self.printer(name), pause=self.waits.poll / 2)
            if name in self.logs and states and all("terminated" in s for s in states):
                self.logs[name].end()

    def printer(self, pod: str) -> Callable[[str], None]:
        """Where a pod's lines go: the master's out at once, others only into their tail."""
        first = pod in (f"{self.name}-master-0", f"{self.name}-worker-0" if self.launcher.options.elastic else "")
        if first or self.launcher._all_logs:
            return lambda text: self.on_log(tail_of(text, pod, self.name))
        return lambda text: None

    def patience(self, job: dict[str, Any]) -> Outcome | None:
        """Give up on a job that cannot start; say now and then what is waited for."""
        waits, elapsed = self.waits, time.monotonic() - self.started
        if not reasons.picked_up(job):
            created = reasons.moment(job["metadata"].get("creationTimestamp"))
            age = min((datetime.now(UTC) - created).total_seconds() if created else elapsed, elapsed)
            if age > waits.no_pod and (
                outcome := self.refused_pods(age)
            ):  # the operator marks a job only after its first pod
                return self.give_up(outcome)
            if age > waits.no_operator:
                return self.give_up(self.refused_pods(age) or Outcome(
                    "failed", "no_operator", 1,
                    f"no operator has picked the job up for {waits.no_operator:.0f} s; is the training operator running?"))  # fmt: skip
            self.notice("no operator has picked the job up yet", after=waits.notice)
            return None
        if reasons.phase(job) == "suspended":
            self.notice("the job is suspended: it waits for its queue")
            return None
        if not self.pods:
            if elapsed > waits.no_pod and (outcome := self.refused_pods(elapsed)):
                return self.give_up(outcome)
            self.notice("the operator has made no pod yet", after=waits.notice)
            return None
        found = reasons.stuck(list(self.pods.values()), datetime.now(UTC))
        if found is None:
            return None
        limit = {"unschedulable": waits.schedule, "image_pull": waits.image_pull}.get(found.reason, waits.broken)
        if found.final:
            limit = waits.broken
        if limit and found.seconds > limit:
            return self.give_up(
                Outcome("failed", found.reason, 1, f"{found.message} (for {found.seconds:.0f} s)", found.pod)
            )
        self.notice(f"{found.pod} waits ({found.reason}): {found.message}")
        return None

    def refused_pods(self, seconds: float) -> Outcome | None:
        """What the operator says it could not make, if it says anything: a missing service account, a policy, a quota."""
        said = "; ".join(dict.fromkeys(self.launcher.api.job_warnings(self.name)))
        return Outcome("failed", "no_pod", 1, f"no pod could be made for {seconds:.0f} s: {said}") if said else None

    def give_up(self, outcome: Outcome) -> Outcome:
        """The job cannot start: take it away, so that it holds nothing and starts at no odd time."""
        self.launcher.cancel(f"{self.launcher.options.namespace}:{self.name}")
        for log in self.logs.values():
            log.end()
        return outcome

    def notice(self, text: str, *, after: float = 0.0) -> None:
        """Print a line about waiting, at most once in `Waits.notice` seconds."""
        now = time.monotonic()
        if now - self.started >= after and now - self.noticed.get(text.split(":")[0], -1e9) >= self.waits.notice:
            self.noticed[text.split(":")[0]] = now
            self.on_log(f"[launcher] {text}")

    def finish(self, job: dict[str, Any] | None) -> Outcome:
        """The outcome, after the last log lines; the tail of the pod that failed first stands at the end."""
        outcome = reasons.classify(list(self.pods.values()), job, self.removals)
        for log in self.logs.values():
            log.end()
        until = time.monotonic() + self.waits.drain
        for log in self.logs.values():
            log.join(max(0.0, until - time.monotonic()))
        if outcome.state == "failed" and outcome.where in self.logs:
            self.on_log(
                f"[launcher] {outcome.where} failed first ({outcome.reason}, exit code {outcome.exit_code}); its last lines:"
            )
            for text in list(self.logs[outcome.where].tail)[-20:]:
                self.on_log(tail_of(text, outcome.where, self.name))
        if outcome.state == "failed" and outcome.where in self.logs and outcome.message.endswith("no message"):
            outcome = replace(outcome, message="\n".join(list(self.logs[outcome.where].tail)[-5:]) or outcome.message)
        if outcome.state == "cancelled" and self.name in self.launcher._cancelled:
            return replace(outcome, message="cancelled on request")
        return outcome


def run_with_retries(
    launcher: Launcher, job: Job, *, max_attempts: int, advanced: Callable[[], bool], on_log: Callable[[str], None]
) -> Outcome:
    """Run a job to its end; the whole gang starts again from its last checkpoint when the cause allows it.

    `advanced` says whether the training has saved a later step since it was last asked. Attempts end after `max_attempts`, after two
    in a row that did not advance (a crash loop), and at once for a cause that a retry cannot cure.
    """
    idle = 0
    for attempt in range(1, max_attempts + 1):
        handle = launcher.submit(job)
        try:
            outcome = launcher.wait(handle, on_log)
        except (
            JobError
        ):  # said already, SIGTERM (`Interrupted`) too: the job is deleted, or goes on and can be attached to
            raise
        except BaseException:
            launcher.cancel(handle)
            raise
        if outcome.state != "failed" or outcome.reason not in reasons.RETRYABLE:
            return outcome
        idle = 0 if advanced() else idle + 1
        if idle == 2:
            return replace(
                outcome, message=f"{outcome.message} (given up: two attempts in a row saved no further step)"
            )
        if attempt < max_attempts:
            on_log(
                f"[launcher] attempt {attempt} of {max_attempts} ended: {outcome.reason} ({outcome.where}); starting again from the last checkpoint"
            )
    return replace(outcome, message=f"{outcome.message} (given up after {max_attempts} attempts)")


def _attempt(job: dict[str, Any] | None) -> int:
    return int((job or {"metadata": {}})["metadata"].get("labels", {}).get(ATTEMPT, 0))


def _name(handle: str) -> str:
    return handle.rpartition(":")[2]


def launcher(
    options: ClusterOptions, *, kubeconfig: str | None = None, context: str | None = None, **settings: Any
) -> PyTorchJobLauncher:
    """A launcher on the cluster of the pod's service account or of the kubeconfig; `settings` as of `PyTorchJobLauncher`."""
    api = KubernetesApi(options.namespace, kubeconfig=kubeconfig, context=context)
    emergency = KubernetesApi(options.namespace, kubeconfig=kubeconfig, context=context)
    return PyTorchJobLauncher(options, api, emergency=emergency, **settings)
