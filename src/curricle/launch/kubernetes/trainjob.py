"""What is TrainJob: the object of Kubeflow Trainer v2 (trainer.kubeflow.org/v1alpha1, 2.3 and newer; JobSet underneath).

A job names a training runtime, which holds what a TrainJob cannot say (grace period, restarts, what becomes of its JobSet), and patches the rest of
each pod into it. All pods are the runtime's one replicated job `node`; the operator gives them `PET_*` variables of its own and refuses ours, and
only arguments win over them, so every pod runs the node agent with explicit c10d arguments.

What Trainer 2.3 added to the patches stays out of them: a Kueue that is built against an older Trainer loses it when it admits the job, whose JobSet
then refuses to start.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from curricle.errors import ConfigError
from curricle.launch.job import Job, Launcher
from curricle.launch.kubernetes.client import open_from_environment
from curricle.launch.kubernetes.kind import JobKind, Phase, Template
from curricle.launch.kubernetes.options import ClusterOptions
from curricle.launch.kubernetes.reasons import conditions

REPLICATED = "node"
"""The runtime's replicated job, and its container, that train."""
MANAGER = "curricle.dev/launcher"
"""Whose patch ours is, among those of others (Kueue's)."""
INDEX = "batch.kubernetes.io/job-completion-index"

PATCHED = {
    "serviceAccountName", "nodeSelector", "tolerations", "affinity", "volumes", "imagePullSecrets", "securityContext",
}  # fmt: skip
"""What of a pod a patch may say, since Trainer 2.2."""
OF_THE_RUNTIME = {
    "automountServiceAccountToken", "enableServiceLinks", "terminationGracePeriodSeconds", "activeDeadlineSeconds", "containers",
}  # fmt: skip
"""What of a pod the runtime says; `template_problems` and the job's own deadline see to what matters of it."""
_RESERVED = {"PET_NNODES", "PET_NPROC_PER_NODE", "PET_NODE_RANK", "PET_MASTER_ADDR", "PET_MASTER_PORT"}


class TrainJob:
    """See `kind.JobKind`."""

    name = "trainjob"
    group, version, plural, kind = "trainer.kubeflow.org", "v1alpha1", "trainjobs", "TrainJob"
    container = REPLICATED
    operator = "Kubeflow Trainer (2.3 or newer)"
    deployment = "kubeflow-trainer-controller-manager"
    queue_integration = "trainer.kubeflow.org/trainjob"
    name_limit = 45
    """Pods are called `<job>-node-0-<i>-<5 letters>`, and there may be 1024."""

    def check(self, job: Job, options: ClusterOptions) -> list[str]:
        """What a TrainJob has no place for, and what Trainer's webhook refuses."""
        names = {*job.env, *options.env, *options.env_from_secrets, *(entry["name"] for entry in options.env_entries)}
        reserved = sorted(names & _RESERVED)
        rules = [
            (options.elastic is None, "a TrainJob is never elastic; leave `elastic` out, or take launcher pytorchjob"),
            (
                not options.gang,
                "gang scheduling of TrainJobs stands in their runtime (podGroupPolicy); leave `gang` out",
            ),
            (
                options.image_pull_policy == "IfNotPresent",
                "a TrainJob cannot say image_pull_policy; it stands in the runtime (imagePullPolicy)",
            ),
            (not reserved, f"Trainer sets {', '.join(reserved)} itself and refuses a job that does"),
        ]
        return [problem for kept, problem in rules if not kept]

    def host(self, name: str, options: ClusterOptions) -> str:
        """The first pod in the JobSet's headless Service."""
        return f"{name}-{REPLICATED}-0-0.{name}"

    def spec(self, job: Job, options: ClusterOptions, template: dict[str, Any]) -> dict[str, Any]:
        """The trainer, and a patch of the runtime's pods."""
        pod = template["spec"]
        (worker,) = pod["containers"]
        if lost := sorted(pod.keys() - PATCHED - OF_THE_RUNTIME):
            raise ConfigError(
                [
                    f"job {job.name!r}: a TrainJob cannot say {field}; it stands in the runtime {options.runtime!r}"
                    for field in lost
                ]
            )
        patch = {field: value for field, value in pod.items() if field in PATCHED}
        patch["containers"] = [{field: worker[field] for field in ("name", "volumeMounts", "securityContext")}]
        pods = {"metadata": template["metadata"], "spec": patch}
        replicated = {"name": REPLICATED, "template": {"spec": {"template": pods}}}
        return {
            "runtimeRef": {"apiGroup": self.group, "kind": options.runtime_kind, "name": options.runtime},
            "trainer": {
                "image": worker["image"],
                # Both, so that nothing is left of the runtime's.
                "command": worker["command"][:1],
                "args": worker["command"][1:],
                "env": worker["env"],
                "resourcesPerNode": worker["resources"],
                "numNodes": job.nodes,
                "numProcPerNode": job.processes_per_node,
            },
            "runtimePatches": [
                {"manager": MANAGER, "trainingRuntimeSpec": {"template": {"spec": {"replicatedJobs": [replicated]}}}}
            ],
            "activeDeadlineSeconds": options.active_deadline_seconds,
        }

    def gang(self, job: Mapping[str, Any]) -> tuple[int, Mapping[str, Any]]:
        """The trainer is what every pod runs."""
        trainer = job["spec"]["trainer"]
        command = [*trainer.get("command", []), *trainer.get("args", [])]
        return trainer.get("numNodes", 1), {**trainer, "name": self.container, "command": command}

    def phase(self, job: Mapping[str, Any]) -> Phase:
        """Conditions tell of the end and of suspension; whether it runs, its JobSet's counts."""
        true = conditions(job)
        if "Failed" in true:
            return "failed"
        if "Complete" in true:
            return "succeeded"
        if "Suspended" in true or self.suspended(job):
            return "suspended"
        if any(status.get("ready") for status in (job.get("status") or {}).get("jobsStatus") or []):
            return "running"
        return "pending"

    def suspended(self, job: Mapping[str, Any]) -> bool | None:
        """The server writes False where nobody wrote anything; a job that somebody held back and let go has the condition, which is False."""
        flag = (job.get("spec") or {}).get("suspend")
        if flag:
            return True
        known = {condition["type"] for condition in (job.get("status") or {}).get("conditions") or []}
        return False if flag is not None and "Suspended" in known else None

    def over_deadline(self, job: Mapping[str, Any]) -> int | None:
        """The reason of the condition."""
        if conditions(job).get("Failed", {}).get("reason") != "DeadlineExceeded":
            return None
        return int((job.get("spec") or {}).get("activeDeadlineSeconds", 0))

    def pod_selector(self, name: str) -> str:
        """JobSet's label; a runtime may have jobs that train nothing."""
        return f"jobset.sigs.k8s.io/jobset-name={name},jobset.sigs.k8s.io/replicatedjob-name={REPLICATED}"

    def leads(self, pod: Mapping[str, Any], name: str, options: ClusterOptions) -> bool:
        """The first by number; its name ends in letters that nobody knows before."""
        return self.order(pod, name) == 0

    def order(self, pod: Mapping[str, Any], name: str) -> int:
        """The number that the Job gave it."""
        number = (pod["metadata"].get("labels") or {}).get(INDEX)
        number = number or pod["metadata"]["name"].removeprefix(f"{name}-{REPLICATED}-0-").partition("-")[0]
        return int(number) if number.isdigit() else 0

    def tellers(self, name: str) -> list[tuple[str, str]]:
        """Trainer makes a JobSet, that a Job, and that the pods."""
        return [(self.kind, name), ("JobSet", name), ("Job", f"{name}-{REPLICATED}-0")]

    def template(self, options: ClusterOptions) -> Template | None:
        """The runtime."""
        plural = {"ClusterTrainingRuntime": "clustertrainingruntimes", "TrainingRuntime": "trainingruntimes"}
        return Template(
            plural[options.runtime_kind],
            options.runtime,
            cluster_wide=options.runtime_kind == "ClusterTrainingRuntime",
            noun="runtime",
            bring="Apply manifests/trainer, which brings curricle-torch, or correct `runtime` in the settings.",
        )

    def template_problems(self, template: Mapping[str, Any], options: ClusterOptions) -> list[str]:
        """A job is tried again as a whole, by its launcher and for a cause; a pod that restarts by itself hides the cause, and meets nobody."""
        spec = template.get("spec") or {}
        jobset = (spec.get("template") or {}).get("spec") or {}
        found = [job for job in jobset.get("replicatedJobs") or [] if job.get("name") == REPLICATED]
        if not found:
            return [f"it has no replicated job {REPLICATED!r}"]
        job = found[0].get("template") or {}
        ancestor = ((job.get("metadata") or {}).get("labels") or {}).get("trainer.kubeflow.org/trainjob-ancestor-step")
        job_spec = job.get("spec") or {}
        pod = (job_spec.get("template") or {}).get("spec") or {}
        grace = pod.get("terminationGracePeriodSeconds", 30)
        rules = [
            ("torch" in (spec.get("mlPolicy") or {}), "its mlPolicy is not torch"),
            (
                ancestor == "trainer",
                f"its replicated job {REPLICATED!r} lacks the label trainer.kubeflow.org/trainjob-ancestor-step: trainer",
            ),
            (
                [container.get("name") for container in pod.get("containers") or []] == [self.container],
                f"its pods must have the one container {self.container!r}",
            ),
            (not (jobset.get("failurePolicy") or {}).get("maxRestarts"), "failurePolicy.maxRestarts must be 0"),
            (job_spec.get("backoffLimit") == 0, "backoffLimit must be 0 (Kubernetes takes 6 where it is left out)"),
            (
                pod.get("restartPolicy") == "Never",
                "restartPolicy must be Never (JobSet takes OnFailure where it is left out)",
            ),
            (
                grace >= options.grace_seconds,
                f"terminationGracePeriodSeconds is {grace}, less than grace_seconds {options.grace_seconds}",
            ),
        ]
        return [problem for kept, problem in rules if not kept]


TRAINJOB: JobKind = TrainJob()


def open_launcher(task_config: str | None) -> Launcher:
    """The launcher of a pod, or of a person with a kubeconfig; see `client.open_from_environment`."""
    return open_from_environment(TRAINJOB, task_config)
