"""The pods of a job: one template for all of them, which is the same for every kind of job.

Every pod runs the node agent, in a container that may write to /tmp, /cache and /dev/shm only.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

from curricle import environment
from curricle.launch.job import Job
from curricle.launch.kubernetes.options import ClusterOptions

PORT = 29500
"""Where the ranks meet; on a node's own network, one of the thousand ports from here."""
NO_SIDECAR = {"sidecar.istio.io/inject": "false"}
"""Keeps Istio's proxy out, as label (newer) and annotation (older): a pod with one does not end."""
OWN_MOUNTS = {"dshm": "/dev/shm", "tmp": "/tmp", "cache": "/cache"}
"""Volumes that every pod has, with their places."""

_QUANTITY = re.compile(
    r"(?P<number>\+?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,2})?)(?P<unit>n|u|m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei)?"
)
_UNITS = {
    None: 1.0, "n": 1e-9, "u": 1e-6, "m": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15, "E": 1e18,
    "Ki": 2.0**10, "Mi": 2.0**20, "Gi": 2.0**30, "Ti": 2.0**40, "Pi": 2.0**50, "Ei": 2.0**60,
}  # fmt: skip


def bytes_of(quantity: str) -> float:
    """The number that a Kubernetes quantity means (`1Gi` → 1073741824, `500m` → 0.5).

    Raises:
        ValueError: it is no quantity.
    """
    match = _QUANTITY.fullmatch(quantity)
    if not match:
        raise ValueError(f"{quantity!r} is no Kubernetes quantity (such as 500m, 2, 16Gi)")
    return float(match["number"]) * _UNITS[match["unit"]]


def beats(job: Job, options: ClusterOptions) -> bool:
    """Whether the job ends when no launcher waits for it any more."""
    return bool(job.heartbeat) and options.heartbeat_seconds > 0


def port_of(job: Job, options: ClusterOptions) -> int:
    """The port at which the ranks meet: always the same in a pod's own network, the job's own where jobs share a node's."""
    return PORT + (zlib.crc32(job.name.encode()) % 1000 if options.host_network else 0)


def shm_of(job: Job, options: ClusterOptions) -> str:
    """Size limit of /dev/shm, through which the processes of a pod talk."""
    if options.shm_size:
        return options.shm_size
    half = int(bytes_of(options.memory_limit or options.memory) / 2)
    return f"{job.processes_per_node}Gi" if job.processes_per_node << 30 <= half else f"{max(half >> 20, 1)}Mi"


def agent_command(job: Job, options: ClusterOptions, host: str) -> list[str]:
    """What every pod of the job runs: the node agent, which starts the ranks and outlives them. They meet at `host`."""
    nodes, extra = str(job.nodes), []
    if options.elastic:
        nodes = f"{options.elastic.min_nodes}:{options.elastic.max_nodes}"
        extra += ["--max-restarts", str(options.elastic.max_restarts)]
    if beats(job, options):
        extra += ["--heartbeat", job.heartbeat, "--heartbeat-seconds", str(options.heartbeat_seconds)]
    return [
        "python", "-m", "curricle.launch.agent", "--nnodes", nodes, "--nproc-per-node", str(job.processes_per_node),
        "--rdzv-endpoint", f"{host}:{port_of(job, options)}", *extra, "--", *job.argv,
    ]  # fmt: skip


def pod_template(
    job: Job,
    options: ClusterOptions,
    *,
    container: str,
    command: Sequence[str],
    labels: Mapping[str, str],
    annotations: Mapping[str, str],
) -> dict[str, Any]:
    """Metadata and spec of each pod of the job, with one container of that name that runs `command`."""
    mounts = [{"name": name, "mountPath": path} for name, path in OWN_MOUNTS.items()]
    scratch = {"sizeLimit": options.scratch_size} if options.scratch_size else {}
    volumes = [
        {"name": "dshm", "emptyDir": {"medium": "Memory", "sizeLimit": shm_of(job, options)}},
        {"name": "tmp", "emptyDir": scratch}, {"name": "cache", "emptyDir": scratch},
    ]  # fmt: skip
    worker: dict[str, Any] = {
        "name": container,
        "image": options.image,
        "imagePullPolicy": options.image_pull_policy,
        "command": list(command),
        "env": _env(job, options),
        "resources": _resources(options),
        "volumeMounts": [*mounts, *options.volume_mounts],
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "securityContext": {
            "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "runAsNonRoot": True, "capabilities": {"drop": ["ALL"]},
        },
    }  # fmt: skip
    if options.ipc_lock:
        worker["securityContext"]["capabilities"]["add"] = ["IPC_LOCK"]
    # An operator's own init container may run an image whose user is root (PyTorchJob's does): it needs the pod's numeric user, and
    # `runAsNonRoot` on the pod without one would stop it from starting.
    user = options.run_as_user
    security: dict[str, Any] = {"seccompProfile": {"type": "RuntimeDefault"}}
    if user is not None:
        security |= {
            "runAsNonRoot": True,
            "runAsUser": user,
            "runAsGroup": user,
            "fsGroup": user,
            "fsGroupChangePolicy": "OnRootMismatch",
        }
    spec: dict[str, Any] = {
        "containers": [worker],
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
        ("schedulerName", options.scheduler_name),
        ("hostNetwork", options.host_network),
        ("dnsPolicy", "ClusterFirstWithHostNet" if options.host_network else ""),
        ("priorityClassName", options.priority_class),
        ("nodeSelector", dict(options.node_selector)),
        ("tolerations", list(options.tolerations)),
        ("affinity", dict(options.affinity)),
        ("imagePullSecrets", [{"name": n} for n in options.image_pull_secrets]),
    ):
        if value:
            spec[key] = value
    metadata = {"labels": {**NO_SIDECAR, **labels}, "annotations": {**NO_SIDECAR, **annotations}}
    return {"metadata": metadata, "spec": spec}


def _env(job: Job, options: ClusterOptions) -> list[dict[str, Any]]:
    """All environment entries, each name once: our defaults, then the options', then the job's own."""
    threads = max(1, int(bytes_of(options.cpu_limit or options.cpu)) // job.processes_per_node)
    plain = {
        "HOME": "/tmp",
        "XDG_CACHE_HOME": "/cache",
        "HF_HOME": "/cache/huggingface",
        "TORCHINDUCTOR_CACHE_DIR": "/cache/inductor",
        environment.OMP_NUM_THREADS: str(threads),
        "NCCL_DEBUG": "WARN",
        environment.TORCH_DISABLE_SHARE_RDZV_TCP_STORE: "1",
        environment.TORCH_ELASTIC_SHUTDOWN_TIMEOUT: str(max(options.grace_seconds - 15, 1)),
        **options.env,
        **job.env,
    }
    entries: dict[str, dict[str, Any]] = {name: {"name": name, "value": value} for name, value in plain.items()}
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
