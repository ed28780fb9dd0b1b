"""The PyTorchJob launcher as a TorchX scheduler: `torchx run -s pytorchjob`, `torchx status | log | cancel | list`.

An `AppDef` with one role becomes a `Job` of our node agent where the role's entrypoint is that agent, and any other command as it is.
App ids are `namespace:name`. The job's digest is taken over what the caller wrote, not over what TorchX adds to it (a session id
that is new in every process).
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import yaml
from torchx.schedulers.api import DescribeAppResponse, ListAppResponse, Scheduler, StructuredOpts
from torchx.specs import AppDef, AppDryRunInfo, AppState, ReplicaStatus, Role, RoleStatus, macros, runopts

from curricle.errors import ConfigError
from curricle.launch.job import Job
from curricle.launch.pytorchjob import reasons
from curricle.launch.pytorchjob.api import ClusterApi, KubernetesApi
from curricle.launch.pytorchjob.logs import Lines
from curricle.launch.pytorchjob.render import CONTAINER, JOB, ClusterOptions, render

STATES = {
    "pending": AppState.PENDING, "suspended": AppState.PENDING, "running": AppState.RUNNING,
    "succeeded": AppState.SUCCEEDED, "failed": AppState.FAILED,
}  # fmt: skip


@dataclass
class Opts(StructuredOpts):
    """Options of `torchx run -s pytorchjob -cfg key=value`."""

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


class PyTorchJobScheduler(Scheduler[Opts]):
    """TorchX's view on PyTorchJobs. `connect` opens the cluster of a namespace, on first use."""

    def __init__(self, session_name: str, connect: Any = KubernetesApi):
        super().__init__("pytorchjob", session_name)
        self._connect, self._apis = connect, dict[str, ClusterApi]()

    def api(self, namespace: str) -> ClusterApi:
        """The cluster, seen from a namespace."""
        if namespace not in self._apis:
            self._apis[namespace] = self._connect(namespace)
        return self._apis[namespace]

    def _run_opts(self) -> runopts:
        return Opts.as_runopts()

    def _submit_dryrun(self, app: AppDef, cfg: Opts) -> AppDryRunInfo[dict[str, Any], Opts]:
        return AppDryRunInfo(
            manifest(app, cfg if isinstance(cfg, Opts) else Opts.from_cfg(cfg)),
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
        phase = reasons.phase(job)
        message = ""
        if phase == "failed":
            outcome = reasons.classify(pods, job)
            message = f"{outcome.reason} ({outcome.where or name}, exit code {outcome.exit_code}): {outcome.message}"
        elif found := reasons.stuck(pods, datetime.now(UTC)):
            message = f"{found.pod} waits ({found.reason}): {found.message}"
        return DescribeAppResponse(
            app_id=app_id,
            state=STATES[phase],
            msg=message,
            metadata=dict(job["metadata"].get("labels") or {}),
            roles=[_role(job)],
            roles_statuses=[RoleStatus("worker", [_replica(i, p) for i, p in enumerate(_ordered(pods, name))])],
        )

    def list(self, cfg: Mapping[str, Any] | None = None) -> list[ListAppResponse]:
        """Our jobs of the configured namespace."""
        namespace = (cfg or {}).get("namespace") or "kubeflow"
        jobs = self.api(namespace).list_jobs(JOB)
        return [
            ListAppResponse(
                app_id=f"{namespace}:{j['metadata']['name']}",
                state=STATES[reasons.phase(j)],
                name=j["metadata"]["name"],
            )
            for j in jobs
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
        """Lines of the k-th pod (0 is the master); `until` and a choice of streams are not to be had of Kubernetes."""
        if until is not None or str(getattr(streams, "value", streams or "combined")) != "combined":
            raise ValueError("Kubernetes keeps one combined log a container and cannot stop at a time")
        namespace, name = app_id.split(":", 1)
        pods = _ordered(self.api(namespace).list_pods(name), name)
        if k >= len(pods):
            raise ValueError(f"job {app_id} has {len(pods)} pods, so none with number {k}")
        seconds = None if since is None else max(1, int(datetime.now(UTC).timestamp() - since.timestamp()))
        lines, wanted = Lines(), re.compile(regex or "")
        for chunk in self.api(namespace).read_log(
            pods[k]["metadata"]["name"], since_seconds=seconds, follow=should_tail
        ):
            yield from (f"{text}\n" for text in lines.feed(chunk) if wanted.search(text))
        yield from (f"{text}\n" for text in lines.finish() if wanted.search(text))


def manifest(app: AppDef, opts: Opts) -> dict[str, Any]:
    """The PyTorchJob of an AppDef.

    Raises:
        ConfigError: it cannot be one PyTorchJob.
    """
    if len(app.roles) != 1:
        raise ConfigError(f"app {app.name!r} has {len(app.roles)} roles; a PyTorchJob of ours has one")
    role = app.roles[0]
    if any(macros.replica_id in text for text in [*role.args, *role.env.values()]):
        raise ConfigError(f"app {app.name!r} uses {macros.replica_id}; a PyTorchJob has one template for all pods")
    if role.mounts:
        raise ConfigError(f"app {app.name!r} has mounts; give volumes as role.metadata['pytorchjob'] instead")
    ours = {k: v for k, v in role.env.items() if not k.startswith("TORCHX_")}
    written = json.dumps(
        [app.name, role.image, role.entrypoint, role.args, ours, role.num_replicas, vars(role.resource)],
        default=str,
        sort_keys=True,
    )
    digest = hashlib.sha256(written.encode()).hexdigest()
    name = f"{re.sub('[^a-z0-9-]+', '-', app.name.lower()).strip('-')[:43].rstrip('-')}-{digest[:8]}"
    role = macros.Values(img_root="", app_id=name, replica_id="", rank0_env="MASTER_ADDR").apply(role)
    resource = role.resource
    options = ClusterOptions(
        image=role.image,
        namespace=opts.namespace,
        cpu=str(resource.cpu) if resource.cpu > 0 else ClusterOptions.cpu,
        memory=f"{resource.memMB}Mi" if resource.memMB > 0 else ClusterOptions.memory,
        shm_size=f"{max(16, resource.memMB // 8)}Mi" if resource.memMB > 0 else ClusterOptions.shm_size,
        gpus=max(resource.gpu, 0),
        extra_resources={k: str(v) for k, v in resource.devices.items()},
        queue=opts.queue or "",
        service_account=opts.service_account or "",
        priority_class=opts.priority_class or "",
        image_pull_secrets=(opts.image_pull_secret,) if opts.image_pull_secret else (),
        active_deadline_seconds=opts.active_deadline_seconds,
    )
    options = replace(options, **(role.metadata.get("pytorchjob") or {}))
    job = Job(
        name=name,
        argv=tuple(role.args) or ("",),
        nodes=role.num_replicas,
        processes_per_node=1,
        env=dict(role.env),
        digest=digest,
    )
    body = render(job, options)
    for replica in body["spec"]["pytorchReplicaSpecs"].values():
        replica["template"]["spec"]["containers"][0]["command"] = [role.entrypoint, *role.args]
    return body


def _ordered(pods: Iterable[dict[str, Any]], job: str) -> list[dict[str, Any]]:
    """Master first, then the workers by number."""

    def key(pod: dict[str, Any]) -> tuple[bool, int]:
        kind, _, number = pod["metadata"]["name"].removeprefix(f"{job}-").rpartition("-")
        return kind != "master", int(number) if number.isdigit() else 0

    return sorted(pods, key=key)


def _replica(number: int, pod: dict[str, Any]) -> ReplicaStatus:
    phase = (pod.get("status") or {}).get("phase", "Pending")
    state = {
        "Pending": AppState.PENDING,
        "Running": AppState.RUNNING,
        "Succeeded": AppState.SUCCEEDED,
        "Failed": AppState.FAILED,
    }
    return ReplicaStatus(
        id=number, state=state.get(phase, AppState.UNKNOWN), role="worker", hostname=pod["metadata"]["name"]
    )


def _role(job: dict[str, Any]) -> Role:
    specs = job["spec"]["pytorchReplicaSpecs"]
    container = next(c for c in next(iter(specs.values()))["template"]["spec"]["containers"] if c["name"] == CONTAINER)
    command = container.get("command") or [""]
    replicas = sum(s.get("replicas", 1) for s in specs.values())
    return Role(name="worker", image=container["image"], entrypoint=command[0], args=command[1:], num_replicas=replicas)
