"""From a `Job` and `ClusterOptions` to the PyTorchJob that is sent: a pure function, and the checks of the operator's webhook.

It knows the shape of a PyTorchJob (kubeflow.org/v1, training operator 1.8 and 1.9) and nothing of a running cluster.

The layout is one Master and n-1 Workers; every pod runs the node agent with explicit c10d arguments, since the operator appends its
own `PET_*` variables after ours and only arguments win over them. Elastic jobs (opt-in) have Workers only.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from curricle.errors import ConfigError
from curricle.launch.job import Job

GROUP, VERSION, PLURAL, KIND = "kubeflow.org", "v1", "pytorchjobs", "PyTorchJob"
CONTAINER = "pytorch"
PORT = 29500
NAME_LIMIT = 52
"""Pods and Services are called `<job>-worker-<i>` and may have 63 characters."""

DIGEST = "curricle.dev/digest"
JOB = "curricle.dev/job"
ATTEMPT = "curricle.dev/attempt"
RUN = "curricle.dev/run"
HEARTBEAT = "curricle.dev/heartbeat"
KUEUE_QUEUE = "kueue.x-k8s.io/queue-name"
KUEUE_PRIORITY = "kueue.x-k8s.io/priority-class"

_DNS_1035 = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
_LABEL_VALUE = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?")
_QUANTITY = re.compile(r"(?P<number>[0-9]+(\.[0-9]+)?)(?P<unit>m|k|M|G|T|P|Ki|Mi|Gi|Ti|Pi)?")
_UNITS = {
    None: 1.0, "m": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15,
    "Ki": 2.0**10, "Mi": 2.0**20, "Gi": 2.0**30, "Ti": 2.0**40, "Pi": 2.0**50,
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Owner:
    """The object whose removal removes the job: the launcher's own pod."""

    name: str
    uid: str
    kind: str = "Pod"
    api_version: str = "v1"

    def reference(self) -> dict[str, Any]:
        """The `ownerReferences` entry; it never blocks the owner's deletion."""
        return {
            "apiVersion": self.api_version, "kind": self.kind, "name": self.name, "uid": self.uid,
            "controller": False, "blockOwnerDeletion": False,
        }  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Elastic:
    """A job that may shrink and grow while it runs: torchrun restarts its ranks inside the pods."""

    min_nodes: int
    """The job starts with so many nodes, and goes on while so many are left."""
    max_nodes: int
    """It never grows beyond so many."""
    max_restarts: int = 3
    """Restarts before the job fails: of the ranks by torchrun, and of containers by Kubernetes."""


@dataclass(frozen=True, kw_only=True)
class ClusterOptions:
    """Where and with what a job's pods run. Quantities are Kubernetes' own strings (`500m`, `16Gi`)."""

    image: str
    """The worker image, by tag or digest."""
    namespace: str = "kubeflow"
    """Namespace of job and pods."""
    cpu: str = "2"
    """CPU of each pod (request, and limit where `cpu_limit` is not set)."""
    memory: str = "8Gi"
    """Memory of each pod (request, and limit where `memory_limit` is not set)."""
    cpu_limit: str = ""
    """CPU limit, when it differs from the request."""
    memory_limit: str = ""
    """Memory limit, when it differs from the request."""
    gpus: int = 0
    """GPUs of each pod; 0 for a job on CPUs."""
    gpu_resource: str = "nvidia.com/gpu"
    """The resource name under which the nodes offer their GPUs."""
    extra_resources: Mapping[str, str] = field(default_factory=dict)
    """Further resources by name, requests equal to limits (for example an RDMA device)."""
    node_selector: Mapping[str, str] = field(default_factory=dict)
    """Labels that a node must have."""
    tolerations: Sequence[Mapping[str, Any]] = ()
    """Tolerations, as in a pod."""
    affinity: Mapping[str, Any] = field(default_factory=dict)
    """Affinity, as in a pod."""
    volumes: Sequence[Mapping[str, Any]] = ()
    """Volumes, as in a pod."""
    volume_mounts: Sequence[Mapping[str, Any]] = ()
    """Their mounts, as in a container."""
    shm_size: str = "1Gi"
    """Size limit of /dev/shm; it counts against the memory limit."""
    scratch_size: str = ""
    """Size limit of /tmp and /cache each; empty for none."""
    env: Mapping[str, str] = field(default_factory=dict)
    """Environment variables; the job's own go before them."""
    env_from_secrets: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    """Environment variables from secrets: variable → (secret, key). Values never pass through here."""
    env_entries: Sequence[Mapping[str, Any]] = ()
    """Further environment entries as in a container (`valueFrom` a config map or a field)."""
    service_account: str = ""
    """Service account of the pods; its token is not mounted, a worker needs no Kubernetes API."""
    priority_class: str = ""
    """`priorityClassName` of the pods."""
    queue: str = ""
    """Kueue's local queue; empty without Kueue."""
    queue_priority: str = ""
    """Kueue's WorkloadPriorityClass."""
    gang: bool = False
    """Ask for all pods at once (needs an operator with a gang scheduler)."""
    elastic: Elastic | None = None
    """Opt in to a changing number of nodes."""
    active_deadline_seconds: int = 259_200
    """The job is ended after so many seconds from its start, whoever watches it: three days."""
    ttl_seconds: int = 86_400
    """A finished job is removed after so many seconds."""
    clean_pod_policy: Literal["Running", "All", "None"] = "Running"
    """Which pods go when the job ends. `Running` frees the GPUs of survivors and keeps the logs of the dead."""
    heartbeat_seconds: int = 900
    """A job that no launcher waits for any more saves its state and ends after so many seconds, time enough for a launcher that is started
    again to take it over; 0 lets it run to its deadline."""
    grace_seconds: int = 120
    """Time between SIGTERM and SIGKILL; saving a checkpoint must fit."""
    image_pull_policy: Literal["IfNotPresent", "Always", "Never"] = "IfNotPresent"
    """When the node pulls the image."""
    image_pull_secrets: Sequence[str] = ()
    """Names of secrets with registry credentials."""
    run_as_user: int | None = 10001
    """User of all containers, and group of the volumes. None leaves it to the cluster (OpenShift)."""
    owner: Owner | None = None
    """Whose removal removes the job."""
    labels: Mapping[str, str] = field(default_factory=dict)
    """Further labels of job and pods."""
    annotations: Mapping[str, str] = field(default_factory=dict)
    """Further annotations of the pods."""


def attempt_name(name: str, attempt: int) -> str:
    """The object's name in its n-th attempt: the job's own first, then `<name>-a2`, cut (with a digest) where it gets too long."""
    if attempt == 1:
        return name
    suffix = f"-a{attempt}"
    if len(name) + len(suffix) > NAME_LIMIT:
        digest = hashlib.sha256(name.encode()).hexdigest()[:6]
        name = name[: NAME_LIMIT - len(suffix) - 7].rstrip("-") + "-" + digest
    return name + suffix


def bytes_of(quantity: str) -> float:
    """The number that a Kubernetes quantity means (`1Gi` → 1073741824, `500m` → 0.5).

    Raises:
        ValueError: it is no quantity.
    """
    found = _QUANTITY.fullmatch(quantity)
    if not found:
        raise ValueError(f"{quantity!r} is no Kubernetes quantity (such as 500m, 2, 16Gi)")
    return float(found["number"]) * _UNITS[found["unit"]]


def render(job: Job, options: ClusterOptions, *, attempt: int = 1) -> dict[str, Any]:
    """The PyTorchJob for one attempt at `job`: what `submit` sends, with no cluster asked.

    Raises:
        ConfigError: the operator's webhook or the scheduler would refuse it; names every problem.
    """
    problems = check(job, options)
    if problems:
        raise ConfigError([f"job {job.name!r}: {p}" for p in problems])
    name = attempt_name(job.name, attempt)
    labels = {
        "app.kubernetes.io/name": "curricle", "app.kubernetes.io/component": "worker", "app.kubernetes.io/managed-by": "curricle",
        **options.labels, **job.labels, JOB: job.name, ATTEMPT: str(attempt),
    }  # fmt: skip
    template = _pod_template(job, options, name, labels)
    # The operator fails a job at the first pod that fails under `Never`; an elastic one is to go on without it.
    first = {"replicas": 1, "restartPolicy": "OnFailure" if options.elastic else "Never", "template": template}
    spec: dict[str, Any] = {"nprocPerNode": str(job.processes_per_node)}
    if options.elastic:
        spec["elasticPolicy"] = {
            "minReplicas": options.elastic.min_nodes, "maxReplicas": options.elastic.max_nodes,
            "maxRestarts": options.elastic.max_restarts, "rdzvBackend": "c10d",
        }  # fmt: skip
        spec["pytorchReplicaSpecs"] = {"Worker": {**first, "replicas": job.nodes}}
    else:
        spec["pytorchReplicaSpecs"] = {"Master": first}
        if job.nodes > 1:
            spec["pytorchReplicaSpecs"]["Worker"] = {**first, "replicas": job.nodes - 1}
    spec["runPolicy"] = {
        "cleanPodPolicy": options.clean_pod_policy,
        "activeDeadlineSeconds": options.active_deadline_seconds,
        "ttlSecondsAfterFinished": options.ttl_seconds,
        **({"backoffLimit": options.elastic.max_restarts} if options.elastic else {}),
        **({"schedulingPolicy": {"minAvailable": job.nodes}} if options.gang else {}),
    }
    queue = {
        **({KUEUE_QUEUE: options.queue} if options.queue else {}),
        **({KUEUE_PRIORITY: options.queue_priority} if options.queue_priority else {}),
    }
    beats = {HEARTBEAT: job.heartbeat} if job.heartbeat and options.heartbeat_seconds else {}
    metadata: dict[str, Any] = {
        "name": name, "namespace": options.namespace, "labels": {**labels, **queue}, "annotations": {DIGEST: job.digest, **beats},
    }  # fmt: skip
    if options.owner:
        metadata["ownerReferences"] = [options.owner.reference()]
    return json.loads(
        json.dumps({"apiVersion": f"{GROUP}/{VERSION}", "kind": KIND, "metadata": metadata, "spec": spec})
    )


def command(job: Job, options: ClusterOptions, name: str) -> list[str]:
    """What every pod of the job runs: the node agent, which starts the ranks and outlives them."""
    nodes, host, elastic = str(job.nodes), f"{name}-master-0", []
    if options.elastic:
        elastic = ["--max-restarts", str(options.elastic.max_restarts)]
        nodes, host = f"{options.elastic.min_nodes}:{options.elastic.max_nodes}", f"{name}-worker-0"
    beats = (
        ["--heartbeat", job.heartbeat, "--heartbeat-seconds", str(options.heartbeat_seconds)]
        if job.heartbeat and options.heartbeat_seconds
        else []
    )
    return [
        "python", "-m", "curricle.launch.agent", "--nnodes", nodes, "--nproc-per-node", str(job.processes_per_node),
        "--rdzv-endpoint", f"{host}:{PORT}", *elastic, *beats, "--", *job.argv,
    ]  # fmt: skip


def _pod_template(job: Job, options: ClusterOptions, name: str, labels: Mapping[str, str]) -> dict[str, Any]:
    mounts = [
        {"name": "dshm", "mountPath": "/dev/shm"},
        {"name": "tmp", "mountPath": "/tmp"},
        {"name": "cache", "mountPath": "/cache"},
    ]
    scratch = {"sizeLimit": options.scratch_size} if options.scratch_size else {}
    volumes = [
        {"name": "dshm", "emptyDir": {"medium": "Memory", "sizeLimit": options.shm_size}},
        {"name": "tmp", "emptyDir": scratch}, {"name": "cache", "emptyDir": scratch},
    ]  # fmt: skip
    container = {
        "name": CONTAINER,
        "image": options.image,
        "imagePullPolicy": options.image_pull_policy,
        "command": command(job, options, name),
        "env": _env(job, options),
        "resources": _resources(options),
        "volumeMounts": [*mounts, *options.volume_mounts],
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "securityContext": {
            "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "runAsNonRoot": True, "capabilities": {"drop": ["ALL"]},
        },
    }  # fmt: skip
    # The operator's init container runs an image whose user is root: it needs the pod's numeric user, and `runAsNonRoot` on the
    # pod without one would stop it from starting.
    user = options.run_as_user
    security = {"seccompProfile": {"type": "RuntimeDefault"}}
    if user is not None:
        security |= {
            "runAsNonRoot": True,
            "runAsUser": user,
            "runAsGroup": user,
            "fsGroup": user,
            "fsGroupChangePolicy": "OnRootMismatch",
        }
    spec: dict[str, Any] = {
        "containers": [container],
        "volumes": [*volumes, *options.volumes],
        "securityContext": security,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": options.grace_seconds,
        # The operator looks at its own deadline only when something else happens to the job; the kubelet keeps this one.
        "activeDeadlineSeconds": options.active_deadline_seconds,
    }
    for key, value in (
        ("serviceAccountName", options.service_account),
        ("priorityClassName", options.priority_class),
        ("nodeSelector", dict(options.node_selector)),
        ("tolerations", list(options.tolerations)),
        ("affinity", dict(options.affinity)),
        ("imagePullSecrets", [{"name": n} for n in options.image_pull_secrets]),
    ):
        if value:
            spec[key] = value
    annotations = {"sidecar.istio.io/inject": "false", **options.annotations, DIGEST: job.digest}
    return {"metadata": {"labels": dict(labels), "annotations": annotations}, "spec": spec}


def _env(job: Job, options: ClusterOptions) -> list[dict[str, Any]]:
    """All environment entries, each name once: our defaults, then the options', then the job's own."""
    threads = max(1, int(bytes_of(options.cpu_limit or options.cpu)) // job.processes_per_node)
    plain = {
        "HOME": "/tmp",
        "XDG_CACHE_HOME": "/cache",
        "HF_HOME": "/cache/huggingface",
        "TORCHINDUCTOR_CACHE_DIR": "/cache/inductor",
        "OMP_NUM_THREADS": str(threads),
        "NCCL_DEBUG": "WARN",
        "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1",
        "TORCH_ELASTIC_SHUTDOWN_TIMEOUT": str(max(options.grace_seconds - 15, 1)),
        **options.env,
        **job.env,
    }
    entries = {name: {"name": name, "value": value} for name, value in plain.items()}
    for name, (secret, key) in options.env_from_secrets.items():
        entries[name] = {"name": name, "valueFrom": {"secretKeyRef": {"name": secret, "key": key}}}
    for entry in options.env_entries:
        entries[entry["name"]] = dict(entry)
    return list(entries.values())


def _resources(options: ClusterOptions) -> dict[str, dict[str, str]]:
    devices = dict(options.extra_resources) | ({options.gpu_resource: str(options.gpus)} if options.gpus else {})
    return {
        "requests": {"cpu": options.cpu, "memory": options.memory, **devices},
        "limits": {
            "cpu": options.cpu_limit or options.cpu,
            "memory": options.memory_limit or options.memory,
            **devices,
        },
    }


def check(job: Job, options: ClusterOptions) -> list[str]:
    """Every reason why the operator's webhook, the API server or the scheduler would refuse the job; empty when there is none."""
    problems: list[str] = []

    def need(condition: bool, problem: str) -> None:
        if not condition:
            problems.append(problem)

    need(
        bool(_DNS_1035.fullmatch(job.name)),
        "its name must start with a letter and hold only a-z, 0-9 and '-' (DNS-1035)",
    )
    need(
        len(job.name) <= NAME_LIMIT,
        f"its name has {len(job.name)} characters, at most {NAME_LIMIT} leave room for '-worker-<i>'",
    )
    need(bool(job.digest), "it has no digest, so a second launcher could not tell whether it may adopt it")
    need(bool(job.argv), "it has no argv")
    need(bool(options.image) and not any(c.isspace() for c in options.image), f"image {options.image!r} is no image")
    need(job.nodes >= 1 and job.processes_per_node >= 1, "nodes and processes per node must be 1 or more")
    need(
        not any("${" in a for a in job.argv),
        "its argv holds a '${...}' macro; a PyTorchJob has one template for all pods",
    )
    need(options.gpus in (0,) or options.gpus >= job.processes_per_node,
         f"{job.processes_per_node} processes per node need as many GPUs, the options ask for {options.gpus}")  # fmt: skip
    need(options.grace_seconds >= 20, "grace_seconds must be 20 or more: 15 of them are the agent's own")
    need(
        options.heartbeat_seconds == 0 or options.heartbeat_seconds >= 30,
        "heartbeat_seconds must be 0 (off), or 30 or more: a beat comes every 10",
    )
    need(
        options.active_deadline_seconds >= 1 and options.ttl_seconds >= 0,
        "active_deadline_seconds must be positive, ttl_seconds not negative",
    )
    for key, value in {**options.labels, **job.labels}.items():
        need(
            len(value) <= 63 and bool(_LABEL_VALUE.fullmatch(value)),
            f"label {key}={value!r} is no label value (63 of A-Z a-z 0-9 - _ .)",
        )
    quantities = {"cpu": options.cpu, "memory": options.memory, "shm_size": options.shm_size} | {
        k: v
        for k, v in {
            "cpu_limit": options.cpu_limit,
            "memory_limit": options.memory_limit,
            "scratch_size": options.scratch_size,
        }.items()
        if v
    }
    sizes: dict[str, float] = {}
    for key, value in quantities.items():
        try:
            sizes[key] = bytes_of(value)
        except ValueError as error:
            problems.append(f"{key}: {error}")
    if sizes.keys() >= {"shm_size", "memory"}:
        limit = sizes.get("memory_limit", sizes["memory"])
        need(
            sizes["shm_size"] < limit,
            f"shm_size {options.shm_size} counts against the memory limit and must be less than it",
        )
    for what in ("cpu", "memory"):
        if f"{what}_limit" in sizes and what in sizes:
            need(
                sizes[what] <= sizes[f"{what}_limit"],
                f"{what} request {quantities[what]} is more than its limit {quantities[what + '_limit']}",
            )
    if options.elastic:
        low, high = options.elastic.min_nodes, options.elastic.max_nodes
        need(
            1 <= low <= job.nodes <= high,
            f"elastic needs 1 <= min_nodes <= nodes <= max_nodes, not {low}, {job.nodes}, {high}",
        )
    need(not options.queue_priority or bool(options.queue), "queue_priority is set without a queue")
    names = [v.get("name") for v in options.volumes]
    need(
        len(set(names)) == len(names) and not {"dshm", "tmp", "cache"} & set(names),
        "volume names must differ from each other and from dshm, tmp, cache",
    )
    for mount in options.volume_mounts:
        need(
            mount.get("name") in names,
            f"volume mount {mount.get('name')!r} names no volume of {sorted(map(str, names))}",
        )
        need(
            mount.get("mountPath") not in ("/tmp", "/cache", "/dev/shm"),
            f"volume mount {mount.get('name')!r} hides {mount.get('mountPath')}",
        )
    return problems
