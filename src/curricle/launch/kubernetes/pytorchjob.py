"""What is PyTorchJob: the object of Kubeflow's training operator v1 (kubeflow.org/v1, operator 1.8 and 1.9).

A job is one Master and n-1 Workers. The operator appends its own `PET_*` variables after ours and only arguments win over them, so every
pod runs the node agent with explicit c10d arguments. Elastic jobs (opt-in) have Workers only.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from curricle.launch.job import Job, Launcher
from curricle.launch.kubernetes.client import open_from_environment
from curricle.launch.kubernetes.kind import JobKind, Phase, Template
from curricle.launch.kubernetes.options import ClusterOptions
from curricle.launch.kubernetes.reasons import conditions

_DEADLINE = "active longer than specified deadline"


class PyTorchJob:
    """See `kind.JobKind`."""

    name = "pytorchjob"
    group, version, plural, kind = "kubeflow.org", "v1", "pytorchjobs", "PyTorchJob"
    container = "pytorch"
    operator = "Kubeflow training operator v1"
    deployment = "training-operator"
    queue_integration = "kubeflow.org/pytorchjob"
    name_limit = 52
    """Pods and Services are called `<job>-worker-<i>`."""

    def check(self, job: Job, options: ClusterOptions) -> list[str]:
        """The range of an elastic job."""
        if not options.elastic:
            return []
        low, high = options.elastic.min_nodes, options.elastic.max_nodes
        if 1 <= low <= job.nodes <= high:
            return []
        return [f"elastic needs 1 <= min_nodes <= nodes <= max_nodes, not {low}, {job.nodes}, {high}"]

    def host(self, name: str, options: ClusterOptions) -> str:
        """The first pod's Service, which has the pod's name."""
        return f"{name}-worker-0" if options.elastic else f"{name}-master-0"

    def spec(self, job: Job, options: ClusterOptions, template: dict[str, Any]) -> dict[str, Any]:
        """Replicas, and the policy of the run."""
        spec: dict[str, Any] = {"nprocPerNode": str(job.processes_per_node)}
        run_policy: dict[str, Any] = {
            "cleanPodPolicy": options.clean_pod_policy,
            "activeDeadlineSeconds": options.active_deadline_seconds,
            "ttlSecondsAfterFinished": options.ttl_seconds,
        }
        if options.elastic:
            spec["elasticPolicy"] = {
                "minReplicas": options.elastic.min_nodes, "maxReplicas": options.elastic.max_nodes,
                "maxRestarts": options.elastic.max_restarts, "rdzvBackend": "c10d",
            }  # fmt: skip
            # The operator fails a job at the first pod that fails under `Never`; an elastic one is to go on without it.
            replicas = {"Worker": {"replicas": job.nodes, "restartPolicy": "OnFailure", "template": template}}
            run_policy["backoffLimit"] = options.elastic.max_restarts
        else:
            replicas = {"Master": {"replicas": 1, "restartPolicy": "Never", "template": template}}
            if job.nodes > 1:
                replicas["Worker"] = {"replicas": job.nodes - 1, "restartPolicy": "Never", "template": template}
        if options.gang:
            run_policy["schedulingPolicy"] = {"minAvailable": job.nodes}
        return spec | {"pytorchReplicaSpecs": replicas, "runPolicy": run_policy}

    def gang(self, job: Mapping[str, Any]) -> tuple[int, Mapping[str, Any]]:
        """Master and Workers have the same template."""
        replicas = list(job["spec"]["pytorchReplicaSpecs"].values())
        containers = replicas[0]["template"]["spec"]["containers"]
        ours = next(container for container in containers if container["name"] == self.container)
        return sum(replica.get("replicas", 1) for replica in replicas), ours

    def phase(self, job: Mapping[str, Any]) -> Phase:
        """Several conditions may be True at once; the order here decides."""
        true = conditions(job)
        if "Failed" in true:
            return "failed"
        if "Succeeded" in true:
            return "succeeded"
        if "Suspended" in true or self.suspended(job):
            return "suspended"
        if "Running" in true:
            return "running"
        return "pending"

    def suspended(self, job: Mapping[str, Any]) -> bool | None:
        """Kueue's webhook writes it before the job is stored."""
        return ((job.get("spec") or {}).get("runPolicy") or {}).get("suspend")

    def over_deadline(self, job: Mapping[str, Any]) -> int | None:
        """The operator says it in the message of the condition only."""
        if _DEADLINE not in conditions(job).get("Failed", {}).get("message", ""):
            return None
        return int(((job.get("spec") or {}).get("runPolicy") or {}).get("activeDeadlineSeconds", 0))

    def pod_selector(self, name: str) -> str:
        """The operator's own label."""
        return f"training.kubeflow.org/job-name={name}"

    def leads(self, pod: Mapping[str, Any], name: str, options: ClusterOptions) -> bool:
        """A pod's name is its host name."""
        return pod["metadata"]["name"] == self.host(name, options)

    def order(self, pod: Mapping[str, Any], name: str) -> int:
        """Master first, then the Workers by number."""
        role, _, number = pod["metadata"]["name"].removeprefix(f"{name}-").rpartition("-")
        if role == "master" or not number.isdigit():
            return 0
        return 1 + int(number)

    def tellers(self, name: str) -> list[tuple[str, str]]:
        """The operator makes the pods itself."""
        return [(self.kind, name)]

    def template(self, options: ClusterOptions) -> Template | None:
        """A PyTorchJob is whole."""
        return None

    def template_problems(self, template: Mapping[str, Any], options: ClusterOptions) -> list[str]:
        """There is none."""
        return []


PYTORCHJOB: JobKind = PyTorchJob()


def open_launcher(task_config: str | None) -> Launcher:
    """The launcher of a pod, or of a person with a kubeconfig; see `client.open_from_environment`."""
    return open_from_environment(PYTORCHJOB, task_config)
