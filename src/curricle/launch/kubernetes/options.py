"""Where and with what a job's pods run, and how long each thing is waited for: plain data, the same for every kind of job."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from curricle.config.schema import Range, Text

Nodes = Annotated[int, Range("[1, 1024]")]
Seconds = Annotated[int, Range("[0, 1000000000]")]


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

    min_nodes: Nodes
    """The job starts with so many nodes, and goes on while so many are left."""
    max_nodes: Nodes
    """It never grows beyond so many."""
    max_restarts: Annotated[int, Range("[0, 1000]")] = 3
    """Restarts before the job fails: of the ranks by torchrun, and of containers by Kubernetes."""


@dataclass(frozen=True, kw_only=True)
class ClusterSettings:
    """What the settings file of a cluster may say. Quantities are Kubernetes' own strings (`500m`, `16Gi`)."""

    image: Text
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
    gpus: Annotated[int, Range("[0, 1024]")] = 0
    """GPUs of each pod; 0 for a job on CPUs."""
    gpu_resource: str = "nvidia.com/gpu"
    """The resource name under which the nodes offer their GPUs, or what stands for one (`nvidia.com/mig-1g.5gb`, `habana.ai/gaudi`)."""
    extra_resources: dict[str, str] = field(default_factory=dict)
    """Further resources by name, requests equal to limits (an RDMA device, the memory of a shared GPU); never a second kind of GPU."""
    node_selector: dict[str, str] = field(default_factory=dict)
    """Labels that a node must have."""
    tolerations: tuple[dict[str, Any], ...] = ()
    """Tolerations, as in a pod."""
    affinity: dict[str, Any] = field(default_factory=dict)
    """Affinity, as in a pod."""
    volumes: tuple[dict[str, Any], ...] = ()
    """Volumes, as in a pod."""
    volume_mounts: tuple[dict[str, Any], ...] = ()
    """Their mounts, as in a container."""
    shm_size: str = ""
    """Size limit of /dev/shm; it counts against the memory limit. Empty: 1Gi for each process of the pod, at most half the memory."""
    scratch_size: str = ""
    """Size limit of /tmp and /cache each; empty for none."""
    env: dict[str, str] = field(default_factory=dict)
    """Environment variables; the job's own go before them."""
    env_from_secrets: dict[str, tuple[str, str]] = field(default_factory=dict)
    """Environment variables from secrets: variable → (secret, key). Values never pass through here."""
    env_entries: tuple[dict[str, Any], ...] = ()
    """Further environment entries as in a container (`valueFrom` a config map or a field)."""
    store_by_role: bool = False
    """The pods' own role opens the store (IRSA, EKS Pod Identity): the keys that pipelines take from a secret are left out, here and in component pods."""
    service_account: str = ""
    """Service account of the pods; its token is not mounted, a worker needs no Kubernetes API."""
    scheduler_name: str = ""
    """`schedulerName` of the pods; empty for Kubernetes' own."""
    host_network: bool = False
    """Give pods their node's network, as some RDMA fabrics want it. Pod security `restricted` and `baseline` refuse it."""
    ipc_lock: bool = False
    """Let processes lock memory (IPC_LOCK), as RDMA wants it. Pod security `restricted` and `baseline` refuse it."""
    priority_class: str = ""
    """`priorityClassName` of the pods."""
    queue: str = ""
    """Kueue's local queue; empty without Kueue."""
    queue_priority: str = ""
    """Kueue's WorkloadPriorityClass."""
    runtime: Text = "curricle-torch"
    """The training runtime that TrainJobs are made from: ours (manifests/trainer), or one of the administrator's."""
    runtime_kind: Literal["ClusterTrainingRuntime", "TrainingRuntime"] = "ClusterTrainingRuntime"
    """Where it stands: in the cluster, or in the job's own namespace."""
    gang: bool = False
    """Ask for all pods at once (needs an operator with a gang scheduler). Of a TrainJob its runtime says so."""
    elastic: Elastic | None = None
    """Opt in to a changing number of nodes."""
    active_deadline_seconds: Annotated[int, Range("[1, 1000000000]")] = 259_200
    """The job is ended after so many seconds from its start, whoever watches it: three days."""
    ttl_seconds: Seconds = 86_400
    """A finished job is removed after so many seconds. Of a TrainJob the runtime says so, and only its pods go."""
    clean_pod_policy: Literal["Running", "All", "None"] = "Running"
    """Which pods go when the job ends. `Running` frees the GPUs of survivors and keeps the logs of the dead; a TrainJob knows nothing else."""
    heartbeat_seconds: Seconds = 900
    """A job that no launcher waits for any more saves its state and ends after so many seconds, time enough for a launcher that is started
    again to take it over; 0 lets it run to its deadline."""
    grace_seconds: Seconds = 120
    """Time between SIGTERM and SIGKILL; saving a checkpoint must fit. The runtime of a TrainJob must give as much."""
    image_pull_policy: Literal["IfNotPresent", "Always", "Never"] = "IfNotPresent"
    """When the node pulls the image."""
    image_pull_secrets: tuple[str, ...] = ()
    """Names of secrets with registry credentials."""
    run_as_user: Annotated[int, Range("[0, 2147483647]")] | None = 10001
    """User of all containers, and group of the volumes. None leaves it to the cluster (OpenShift)."""
    labels: dict[str, str] = field(default_factory=dict)
    """Further labels of job and pods."""
    annotations: dict[str, str] = field(default_factory=dict)
    """Further annotations of the pods."""


@dataclass(frozen=True, kw_only=True)
class ClusterOptions(ClusterSettings):
    """The settings, and what a launcher knows only while it runs."""

    owner: Owner | None = None
    """Whose removal removes the job."""


@dataclass(frozen=True, kw_only=True)
class Waits:
    """How long each thing is waited for, in seconds."""

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
    queued: float = 0.0
    """Until a job that its queue does not admit is given up; 0 waits for ever."""
    notice: float = 60.0
    """Between two lines that say what is being waited for."""
    unreachable: float = 300.0
    """Until an API server that does not answer is given up."""
    submit: float = 60.0
    """Until an API server, or an admission webhook of it, that does not answer is given up when a job is to be started."""
    gone: float = 180.0
    """Until a job that is being deleted must be gone before it can be made again."""
    drain: float = 10.0
    """For the last log lines of an ended job."""
