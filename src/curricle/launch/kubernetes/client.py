"""The launcher on a cluster: submit or adopt, wait, cancel, and give up on what cannot start.

`KubernetesLauncher` holds the policy for every kind of job and speaks to a `ClusterApi`; what a kind is stands in its `JobKind`.
Attempts are counted in the cluster (labels), never in memory, so that a launcher that starts again finds the job it had.
"""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import yaml

from curricle.environment import everything
from curricle.errors import Finding, Interrupted, JobError
from curricle.launch.heartbeat import Heartbeat
from curricle.launch.job import RETRYABLE, RUN, Job, Outcome
from curricle.launch.kubernetes import preflight, reasons
from curricle.launch.kubernetes.api import ClusterApi, Conflict, Expired, KubernetesApi, Unreachable
from curricle.launch.kubernetes.kind import JobKind
from curricle.launch.kubernetes.logs import PodLog, tail_of
from curricle.launch.kubernetes.options import ClusterOptions, Waits
from curricle.launch.kubernetes.render import ATTEMPT, DIGEST, HEARTBEAT, JOB, KUEUE_QUEUE, label_value, render
from curricle.launch.kubernetes.settings import from_environment


class KubernetesLauncher:
    """Runs jobs of one kind on a cluster. SIGTERM takes the job that is waited for along, unless it was only attached to; one that is left ends by
    itself unless somebody waits for it again (`ClusterOptions.heartbeat_seconds`)."""

    max_attempts = 4
    retryable = RETRYABLE

    def __init__(
        self,
        kind: JobKind,
        options: ClusterOptions,
        api: ClusterApi,
        *,
        waits: Waits | None = None,
        emergency: ClusterApi | None = None,
        all_logs: bool = False,
    ):
        """`emergency`: a second connection, for the one DELETE that a SIGTERM leaves time for; `all_logs` streams every pod."""
        self.kind, self.options, self.api = kind, options, api
        self.waits = waits or Waits()
        self._emergency, self._all_logs = emergency or api, all_logs
        self._cancelled: set[str] = set()
        self._attached: set[str] = set()
        """Jobs that this launcher watches for somebody, and did not submit."""

    @property
    def name(self) -> str:
        """The name of its kind."""
        return self.kind.name

    def with_options(self, options: ClusterOptions, waits: Waits) -> KubernetesLauncher:
        """A launcher over the same connections, with other options and patience."""
        return KubernetesLauncher(self.kind, options, self.api, waits=waits, emergency=self._emergency)

    def render(self, job: Job) -> dict[str, Any]:
        """What `submit` would send for the first attempt."""
        return render(self.kind, job, self.options)

    def manifests(self, jobs: Sequence[Job]) -> str:
        """Their objects; a comment where there is no job, so that the text is a YAML stream for kubectl in any case."""
        if not jobs:
            return f"# no {self.kind.kind} to send\n"
        return yaml.safe_dump_all([self.render(job) for job in jobs], sort_keys=False, explicit_start=True)

    def submit(self, job: Job) -> str:
        """Start the job's next attempt, or adopt the one that is there; its handle `namespace:name`.

        An attempt that runs, waits or has succeeded is adopted; after a failed one the next is made.

        Raises:
            JobError: reason `refused`: a job of that name does other work, or the cluster refuses this one.
        """
        away = time.monotonic() + self.waits.submit
        while True:
            try:
                return self._submit(job)
            except (
                Unreachable
            ) as error:  # also an admission webhook whose pod restarts; what was made all the same is adopted
                if time.monotonic() > away:
                    raise JobError(
                        f"job {job.name!r} could not be started in {self.waits.submit:.0f} s: {error}", reason="lost"
                    ) from None
            time.sleep(self.waits.poll)

    def _submit(self, job: Job) -> str:
        deadline = time.monotonic() + self.waits.gone
        while True:
            attempts = self._attempts(job.name)
            for existing in attempts:
                self._same_work(job, existing)
            last = attempts[-1] if attempts else None
            going = last is not None and "deletionTimestamp" in last["metadata"]
            if last is not None and not going and self.kind.phase(last) != "failed":
                self._attached.discard(last["metadata"]["name"])
                return self._adopt(last)
            if not going:
                attempt = _attempt(last) + 1 if last else 1
                body = render(self.kind, job, self.options, attempt=attempt)
                try:
                    return self._handle(self.api.create_job(body))
                except Conflict:
                    other = self.api.get_job(body["metadata"]["name"])
                    if other is not None:
                        self._same_work(job, other)
            if time.monotonic() > deadline:
                raise JobError(
                    f"job {job.name!r} is still being deleted after {self.waits.gone:.0f} s; see its finalizers "
                    f"(kubectl -n {self.options.namespace} get {self.kind.plural}.{self.kind.group} -l {JOB}={job.name} -o yaml)",
                    reason="refused",
                )
            time.sleep(min(self.waits.poll, 1.0))

    def wait(self, handle: str, on_log: Callable[[str], None]) -> Outcome:
        """Stream log lines until the job ends, or cannot start; see `Waits`.

        The pod where the ranks meet is streamed as it runs, the others are kept and shown if they fail first.

        Raises:
            Interrupted: SIGTERM came; the job is deleted (or left, where it was attached to).
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
        attempts = self._attempts(job_name)
        if not attempts:
            raise JobError(
                f"no {self.kind.kind} of job {job_name!r} in namespace {self.options.namespace!r} ({JOB}={job_name})",
                reason="lost",
            )
        handle = self._handle(attempts[-1])
        self._attached.add(_name(handle))
        return handle

    def delete_by_run(self, run_id: str) -> list[str]:
        """Delete every job of a run, whoever made it: what the pipeline's exit handler calls. The names deleted."""
        jobs = [job["metadata"] for job in self.api.list_jobs(f"{RUN}={label_value(run_id)}")]
        names = [
            meta["name"] for meta in jobs if ({**meta["labels"], **(meta.get("annotations") or {})})[RUN] == run_id
        ]
        for name in names:
            self.api.delete_job(name)
        return names

    def preflight(self, probe: tuple[str, ...]) -> Iterator[Finding]:
        """Rights, operator, queue and GPUs as this account can see them; then, where jobs can be made, a pod that runs `probe`."""
        return preflight.check_all(self, probe)

    def _attempts(self, job_name: str) -> list[dict[str, Any]]:
        return sorted(self.api.list_jobs(f"{JOB}={job_name}"), key=_attempt)

    def _handle(self, job: dict[str, Any]) -> str:
        return f"{self.options.namespace}:{job['metadata']['name']}"

    def _adopt(self, job: dict[str, Any]) -> str:
        """Take over a job of another launcher; our owner is appended, as an object goes when *all* its owners are gone."""
        if self.options.owner is not None:
            ours, owners = self.options.owner.reference(), job["metadata"].get("ownerReferences") or []
            if ours["uid"] not in {owner["uid"] for owner in owners}:
                self.api.patch_job(job["metadata"]["name"], {"metadata": {"ownerReferences": [*owners, ours]}})
        return self._handle(job)

    def _same_work(self, job: Job, existing: dict[str, Any]) -> None:
        theirs = (existing["metadata"].get("annotations") or {}).get(DIGEST)
        if theirs != job.digest:
            raise JobError(
                f"{self.kind.kind} {existing['metadata']['name']!r} in namespace {self.options.namespace!r} does other work: its {DIGEST} is "
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
            if name in self._attached:
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


POD_SECURITY = (
    "Pods of ours keep to `restricted`, unless host_network or ipc_lock is set, or run_as_user is null; an init container that the operator adds does not: see "
    "docs/kubeflow.md, pod security"
)


class _Wait:
    """One wait: what has been seen of the job's pods, and their logs."""

    def __init__(self, launcher: KubernetesLauncher, name: str, on_log: Callable[[str], None]):
        self.launcher, self.name, self.on_log, self.waits = launcher, name, on_log, launcher.waits
        self.kind, self.options = launcher.kind, launcher.options
        self.pods: dict[str, dict[str, Any]] = {}
        self.version: str | None = None
        self.removals: list[reasons.Removal] = []
        self.logs: dict[str, PodLog] = {}
        self.started = time.monotonic()
        self.free_since: float | None = None
        """When it was first seen that no queue holds the job back."""
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
        phase = self.kind.phase(job)
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
        if queue and self.kind.suspended(job) is None:  # Kueue's webhook sets the flag before the job is stored
            self.on_log(
                f"[launcher] warning: the job carries queue {queue!r}, but Kueue has not suspended it: its integration "
                f"{self.kind.queue_integration} is off or Kueue is not installed, so no quota holds"
            )

    def watch(self, seconds: float) -> None:
        """Follow what happens to the pods. Only the order of events tells a pod that was deleted, whereupon the others broke down, from one
        that the operator removed because another had failed; both may lie between two looks."""
        try:
            for kind, pod in self.launcher.api.pod_events(self.name, self.version, seconds):
                self.version = pod["metadata"].get("resourceVersion")
                missed = self.leaves(kind, pod) and not self.options.elastic  # an elastic gang goes on without it
                if missed and (removal := reasons.removal(pod, list(self.pods.values()), datetime.now(UTC))):
                    self.removals.append(removal)
                self.see([pod])
        except Expired:
            self.version = None

    def leaves(self, kind: str, pod: dict[str, Any]) -> bool:
        """Whether the end of a pod was asked for just now. A Job's finalizer keeps it until others have broken down and the Job has counted it."""
        before = self.pods.get(pod["metadata"]["name"], {"metadata": {}})["metadata"]
        if before.get("uid") == pod["metadata"].get("uid") and "deletionTimestamp" in before:
            return False
        return kind == "DELETED" or (kind == "MODIFIED" and "deletionTimestamp" in pod["metadata"])

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
                self.logs[name] = PodLog(self.launcher.api, name, self.printer(pod), pause=self.waits.poll / 2)
            if name in self.logs and states and all("terminated" in s for s in states):
                self.logs[name].end()

    def printer(self, pod: dict[str, Any]) -> Callable[[str], None]:
        """Where a pod's lines go: the first one's out at once, others only into their tail."""
        if self.launcher._all_logs or self.kind.leads(pod, self.name, self.options):
            return lambda text: self.on_log(tail_of(text, pod["metadata"]["name"], self.name))
        return lambda text: None

    def patience(self, job: dict[str, Any]) -> Outcome | None:
        """Give up on a job that cannot start; say now and then what is waited for. Time in a queue does not count."""
        if self.kind.suspended(job):
            queued = time.monotonic() - self.started
            if self.waits.queued and queued > self.waits.queued:
                message = f"its queue {self.options.queue!r} has not admitted it for {queued:.0f} s: full, or too small a quota"
                return self.give_up(Outcome("failed", "queued", 1, message))
            self.free_since = None
            self.notice("the job is suspended: it waits for its queue")
            return None
        if self.free_since is None:
            self.free_since = time.monotonic()
        elapsed = time.monotonic() - self.free_since
        if not reasons.picked_up(self.kind, job):
            return self.patience_with_operator(job, elapsed)
        if not self.pods or self.kind.phase(job) == "suspended":
            if elapsed > self.waits.no_pod and (outcome := self.refused_pods(elapsed)):
                return self.give_up(outcome)
            self.notice("the operator has made no pod yet", after=self.waits.notice, why=self.warnings)
            return None
        stuck = reasons.stuck(list(self.pods.values()), datetime.now(UTC))
        if stuck is None:
            return None
        limits = {"unschedulable": self.waits.schedule, "image_pull": self.waits.image_pull}
        limit = self.waits.broken if stuck.final else limits.get(stuck.reason, self.waits.broken)
        if limit and stuck.seconds > limit:
            message = f"{stuck.message} (for {stuck.seconds:.0f} s)"
            return self.give_up(Outcome("failed", stuck.reason, 1, message, stuck.pod))
        self.notice(f"{stuck.pod} waits ({stuck.reason}): {stuck.message}")
        return None

    def patience_with_operator(self, job: dict[str, Any], elapsed: float) -> Outcome | None:
        """The same for a job that no operator has marked yet. An operator marks a job only after it has made its first pod."""
        created = reasons.moment(job["metadata"].get("creationTimestamp"))
        age = min((datetime.now(UTC) - created).total_seconds(), elapsed) if created else elapsed
        if age > self.waits.no_pod and (outcome := self.refused_pods(age)):
            return self.give_up(outcome)
        if age > self.waits.no_operator:
            message = f"no operator has picked the job up for {self.waits.no_operator:.0f} s; is the {self.kind.operator} running?"
            return self.give_up(self.refused_pods(age) or Outcome("failed", "no_operator", 1, message))
        self.notice("no operator has picked the job up yet", after=self.waits.notice)
        return None

    def refused_pods(self, seconds: float) -> Outcome | None:
        """What the operator says it could not make, if it says anything: a missing service account, a policy, a quota."""
        said = self.warnings()
        if "violates PodSecurity" in said:
            said += f". {POD_SECURITY}"
        return Outcome("failed", "no_pod", 1, f"no pod could be made for {seconds:.0f} s: {said}") if said else None

    def warnings(self) -> str:
        """What could not be made for the job, once each and without the objects that some quote; empty where nobody says anything."""
        said = dict.fromkeys(self.launcher.api.job_warnings(self.name))
        return "; ".join(text if len(text) <= 400 else f"{text[:400]} ..." for text in said)

    def give_up(self, outcome: Outcome) -> Outcome:
        """The job cannot start: take it away, so that it holds nothing and starts at no odd time."""
        self.launcher.cancel(f"{self.options.namespace}:{self.name}")
        for log in self.logs.values():
            log.end()
        return outcome

    def notice(self, text: str, *, after: float = 0.0, why: Callable[[], str] = str) -> None:
        """Print a line about waiting, at most once in `Waits.notice` seconds; `why` is asked only then."""
        now = time.monotonic()
        if now - self.started >= after and now - self.noticed.get(text.split(":")[0], -1e9) >= self.waits.notice:
            self.noticed[text.split(":")[0]] = now
            self.on_log(f"[launcher] {text}: {said}" if (said := why()) else f"[launcher] {text}")

    def finish(self, job: dict[str, Any] | None) -> Outcome:
        """The outcome, after the last log lines; the tail of the pod that failed first stands at the end."""
        outcome = reasons.classify(self.kind, list(self.pods.values()), job, self.removals)
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


def _attempt(job: dict[str, Any] | None) -> int:
    return int((job or {"metadata": {}})["metadata"].get("labels", {}).get(ATTEMPT, 0))


def _name(handle: str) -> str:
    return handle.rpartition(":")[2]


def on_cluster(
    kind: JobKind,
    options: ClusterOptions,
    *,
    kubeconfig: str | None = None,
    context: str | None = None,
    **settings: Any,
) -> KubernetesLauncher:
    """A launcher on the cluster of the pod's service account or of the kubeconfig; `settings` as of `KubernetesLauncher`."""
    api = KubernetesApi(kind, options.namespace, kubeconfig=kubeconfig, context=context)
    emergency = KubernetesApi(kind, options.namespace, kubeconfig=kubeconfig, context=context)
    return KubernetesLauncher(kind, options, api, emergency=emergency, **settings)


def open_from_environment(
    kind: JobKind, task_config: Any = "", *, environment: Mapping[str, str] | None = None
) -> KubernetesLauncher:
    """The launcher of a pod (or of a person with a kubeconfig), with the settings that the environment names.

    Args:
        kind: what its jobs are.
        task_config: what a person set on the KFP task (`dsl.TaskConfig`, mapping or JSON); goes before the settings. None: no job
            will be started, which needs no image.
        environment: None means this process's own.

    Raises:
        ConfigError: the settings are missing or wrong.
    """
    given = everything() if environment is None else environment
    return on_cluster(kind, from_environment(given, task_config, starts=task_config is not None))
