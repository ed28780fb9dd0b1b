"""The launcher as a TorchX scheduler: `torchx run -s pytorchjob | trainjob`, `torchx status | log | cancel | list`.

An `AppDef` with one role becomes a `Job` of our node agent where the role's entrypoint is that agent, and any other command as it is.
App ids are `namespace:name`. The job's digest is taken over what the caller wrote, not over what TorchX adds to it (a session id
that is new in every process).
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import yaml
from torchx.schedulers.api import DescribeAppResponse, ListAppResponse, Scheduler, StructuredOpts
from torchx.specs import AppDef, AppDryRunInfo, AppState, ReplicaStatus, Role, RoleStatus, macros, runopts

from curricle.errors import ConfigError
from curricle.launch.job import Job
from curricle.launch.kubernetes import reasons
from curricle.launch.kubernetes.api import ClusterApi, KubernetesApi
from curricle.launch.kubernetes.kind import JobKind
from curricle.launch.kubernetes.logs import Lines
from curricle.launch.kubernetes.render import JOB, render
from curricle.launch.kubernetes.settings import from_tree

STATES = {
    "pending": AppState.PENDING, "suspended": AppState.PENDING, "running": AppState.RUNNING,
    "succeeded": AppState.SUCCEEDED, "failed": AppState.FAILED,
}  # fmt: skip


@dataclass
class Opts(StructuredOpts):
    """Options of `torchx run -s <kind> -cfg key=value`."""

    namespace: str = "kubeflow"
    """Namespace of the job."""

    queue: str | None = None
    """Kueue's local queue."""

    service_account: str | None = None
    """Service account of the pods."""

    priority_class: str | None = None
    """priorityClassName of the pods."""

    image_pull_secret: str | None = None
    """Secret with registry credentials."""

    active_deadline_seconds: int = 259_200
    """The job is ended after so many seconds."""


class KubernetesScheduler(Scheduler[Opts]):
    """TorchX's view on jobs of one kind. `connect` gives the cluster as seen from a namespace."""

    def __init__(self, kind: JobKind, session_name: str, connect: Callable[[str], ClusterApi] | None = None):
        super().__init__(kind.name, session_name)
        self._kind = kind
        self._connect = connect or (lambda namespace: KubernetesApi(kind, namespace))
        self._apis: dict[str, ClusterApi] = {}

    def api(self, namespace: str) -> ClusterApi:
        """The cluster, seen from a namespace."""
        if namespace not in self._apis:
            self._apis[namespace] = self._connect(namespace)
        return self._apis[namespace]

    def _run_opts(self) -> runopts:
        return Opts.as_runopts()

    def _submit_dryrun(self, app: AppDef, cfg: Opts) -> AppDryRunInfo[dict[str, Any], Opts]:
        return AppDryRunInfo(
            manifest(self._kind, app, cfg if isinstance(cfg, Opts) else Opts.from_cfg(cfg)),
            lambda body: yaml.safe_dump(body, sort_keys=False),
        )

    def schedule(self, dryrun_info: AppDryRunInfo[dict[str, Any], Opts]) -> str:
        """Create the job; its app id."""
        body = dryrun_info.request
        made = self.api(body["metadata"]["namespace"]).create_job(body)
        return f"{made['metadata']['namespace']}:{made['metadata']['name']}"

    def describe(self, app_id: str) -> DescribeAppResponse | None:
        """State, reason and pods of a job, or None when it is gone."""
        namespace, name = app_id.split(":", 1)
        job = self.api(namespace).get_job(name)
        if job is None:
            return None
        pods = self.api(namespace).list_pods(name)
        phase = self._kind.phase(job)
        message = ""
        if phase == "failed":
            outcome = reasons.classify(self._kind, pods, job)
            message = f"{outcome.reason} ({outcome.where or name}, exit code {outcome.exit_code}): {outcome.message}"
        elif stuck := reasons.stuck(pods, datetime.now(UTC)):
            message = f"{stuck.pod} waits ({stuck.reason}): {stuck.message}"
        replicas = [_replica(number, pod) for number, pod in enumerate(_ordered(self._kind, pods, name))]
        return DescribeAppResponse(
            app_id=app_id,
            state=STATES[phase],
            msg=message,
            metadata=dict(job["metadata"].get("labels") or {}),
            roles=[_role(self._kind, job)],
            roles_statuses=[RoleStatus("worker", replicas)],
        )

    def list(self, cfg: Mapping[str, Any] | None = None) -> list[ListAppResponse]:
        """Our jobs of the configured namespace."""
        namespace = (cfg or {}).get("namespace") or "kubeflow"
        jobs = self.api(namespace).list_jobs(JOB)
        return [
            ListAppResponse(
                app_id=f"{namespace}:{job['metadata']['name']}",
                state=STATES[self._kind.phase(job)],
                name=job["metadata"]["name"],
            )
            for job in jobs
        ]

    def _cancel_existing(self, app_id: str) -> None:
        namespace, name = app_id.split(":", 1)
        self.api(namespace).delete_job(name)

    def _delete_existing(self, app_id: str) -> None:
        self._cancel_existing(app_id)

    def log_iter(
        self,
        app_id: str,
        role_name: str,
        k: int = 0,
        regex: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        should_tail: bool = False,
        streams: Any = None,
    ) -> Iterable[str]:
        """Lines of the k-th pod (0 is the one where the ranks meet); `until` and a choice of streams are not to be had of Kubernetes."""
        if until is not None or str(getattr(streams, "value", streams or "combined")) != "combined":
            raise ValueError("Kubernetes keeps one combined log a container and cannot stop at a time")
        namespace, name = app_id.split(":", 1)
        pods = _ordered(self._kind, self.api(namespace).list_pods(name), name)
        if k >= len(pods):
            raise ValueError(f"job {app_id} has {len(pods)} pods, so none with number {k}")
        seconds = None if since is None else max(1, int(datetime.now(UTC).timestamp() - since.timestamp()))
        lines, wanted = Lines(), re.compile(regex or "")
        for chunk in self.api(namespace).read_log(
            pods[k]["metadata"]["name"], since_seconds=seconds, follow=should_tail
        ):
            yield from (f"{text}\n" for text in lines.feed(chunk) if wanted.search(text))
        yield from (f"{text}\n" for text in lines.finish() if wanted.search(text))


def manifest(kind: JobKind, app: AppDef, opts: Opts) -> dict[str, Any]:
    """The job of an AppDef.

    Raises:
        ConfigError: it cannot be one job of this kind, or `role.metadata[kind.name]` holds what is no cluster setting.
    """
    if len(app.roles) != 1:
        raise ConfigError(f"app {app.name!r} has {len(app.roles)} roles; a {kind.kind} of ours has one")
    role = app.roles[0]
    if any(macros.replica_id in text for text in [*role.args, *role.env.values()]):
        raise ConfigError(f"app {app.name!r} uses {macros.replica_id}; a {kind.kind} has one template for all pods")
    if role.mounts:
        raise ConfigError(f"app {app.name!r} has mounts; give volumes as role.metadata[{kind.name!r}] instead")
    ours = {k: v for k, v in role.env.items() if not k.startswith("TORCHX_")}
    written = json.dumps(
        [app.name, role.image, role.entrypoint, role.args, ours, role.num_replicas, vars(role.resource)],
        default=str,
        sort_keys=True,
    )
    digest = hashlib.sha256(written.encode()).hexdigest()
    room = kind.name_limit - 9
    name = f"{re.sub('[^a-z0-9-]+', '-', app.name.lower()).strip('-')[:room].rstrip('-')}-{digest[:8]}"
    role = macros.Values(img_root="", app_id=name, replica_id="", rank0_env="MASTER_ADDR").apply(role)
    options = from_tree(_settings(role, opts) | (role.metadata.get(kind.name) or {}))
    job = Job(
        name=name,
        argv=tuple(role.args) or ("",),
        nodes=role.num_replicas,
        processes_per_node=1,
        env=dict(role.env),
        digest=digest,
    )
    return render(kind, job, options, command=[role.entrypoint, *role.args])


def _settings(role: Role, opts: Opts) -> dict[str, Any]:
    """The fields of `ClusterSettings` that a role and the scheduler's options say something of."""
    resource = role.resource
    settings: dict[str, Any] = {
        "image": role.image,
        "namespace": opts.namespace,
        "gpus": max(resource.gpu, 0),
        "extra_resources": {name: str(count) for name, count in resource.devices.items()},
        "queue": opts.queue or "",
        "service_account": opts.service_account or "",
        "priority_class": opts.priority_class or "",
        "image_pull_secrets": (opts.image_pull_secret,) if opts.image_pull_secret else (),
        "active_deadline_seconds": opts.active_deadline_seconds,
    }
    if resource.cpu > 0:
        settings["cpu"] = str(resource.cpu)
    if resource.memMB > 0:
        settings |= {"memory": f"{resource.memMB}Mi", "shm_size": f"{max(16, resource.memMB // 8)}Mi"}
    return settings


def _replica(number: int, pod: dict[str, Any]) -> ReplicaStatus:
    phase = (pod.get("status") or {}).get("phase", "Pending")
    states = {
        "Pending": AppState.PENDING,
        "Running": AppState.RUNNING,
        "Succeeded": AppState.SUCCEEDED,
        "Failed": AppState.FAILED,
    }
    return ReplicaStatus(
        id=number, state=states.get(phase, AppState.UNKNOWN), role="worker", hostname=pod["metadata"]["name"]
    )


def _ordered(kind: JobKind, pods: Iterable[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    return sorted(pods, key=lambda pod: kind.order(pod, name))


def _role(kind: JobKind, job: dict[str, Any]) -> Role:
    replicas, container = kind.gang(job)
    entrypoint, *args = container.get("command") or [""]
    return Role(name="worker", image=container["image"], entrypoint=entrypoint, args=args, num_replicas=replicas)
