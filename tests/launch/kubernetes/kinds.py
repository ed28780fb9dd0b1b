"""What a test must know of each kind of job to be one test for all kinds."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from curricle.launch.kubernetes.kind import JobKind
from curricle.launch.kubernetes.pytorchjob import PYTORCHJOB
from curricle.launch.kubernetes.trainjob import TRAINJOB

RUNTIME = Path(__file__).parents[3] / "manifests" / "trainer" / "runtime.yaml"


@dataclass(frozen=True)
class Shape:
    kind: JobKind
    pods: tuple[str, str]
    """What follows the job's name in those of its first two pods."""
    host: str
    """Where the ranks of the job `j` meet."""
    states: dict[str, dict[str, Any]]
    """The status of a job by what it is called here."""
    pod: Callable[[dict[str, Any]], dict[str, Any]]
    """Metadata and spec that every pod of a rendered job will have."""
    hold: Callable[[dict[str, Any], bool], None]
    """Let a queue hold a job back, or let it go."""

    def __str__(self) -> str:
        return self.kind.name


def condition(kind: str, message: str = "", reason: str = "", status: str = "True") -> dict[str, Any]:
    return {"conditions": [{"type": kind, "status": status, "message": message, "reason": reason}]}


def _pod_of_pytorchjob(body: dict[str, Any]) -> dict[str, Any]:
    replicas = list(body["spec"]["pytorchReplicaSpecs"].values())
    assert all(replica["template"] == replicas[0]["template"] for replica in replicas)
    return replicas[0]["template"]


def _pod_of_trainjob(body: dict[str, Any]) -> dict[str, Any]:
    """Our runtime's pod, patched, with what the trainer says of its container: as Trainer puts it together."""
    runtime = yaml.safe_load(RUNTIME.read_text())["spec"]["template"]["spec"]["replicatedJobs"][0]["template"]
    pod = copy.deepcopy(runtime["spec"]["template"])
    (jobs,) = [
        patch["trainingRuntimeSpec"]["template"]["spec"]["replicatedJobs"] for patch in body["spec"]["runtimePatches"]
    ]
    (patch,) = [job["template"]["spec"]["template"] for job in jobs if job["name"] == "node"]
    trainer = body["spec"]["trainer"]
    (container,) = pod["spec"]["containers"]
    (patched,) = patch["spec"]["containers"]
    container |= patched | {key: trainer[key] for key in ("image", "env")} | {"resources": trainer["resourcesPerNode"]}
    container["command"] = [*trainer["command"], *trainer["args"]]
    return {"metadata": patch["metadata"], "spec": pod["spec"] | patch["spec"] | {"containers": [container]}}


def _hold_pytorchjob(body: dict[str, Any], held: bool) -> None:
    body["spec"]["runPolicy"]["suspend"] = held


def _hold_trainjob(body: dict[str, Any], held: bool) -> None:
    """Trainer itself writes the condition."""
    body["spec"]["suspend"] = held
    status = body.get("status", {})
    others = [c for c in status.get("conditions", []) if c["type"] != "Suspended"]
    body["status"] = status | {"conditions": [*others, *condition("Suspended", status=str(held))["conditions"]]}


def _counts(**counts: int) -> dict[str, Any]:
    return {"jobsStatus": [{"name": "node", **counts}]}


SHAPES = {
    "pytorchjob": Shape(
        PYTORCHJOB, ("master-0", "worker-0"), "j-master-0",
        {"created": condition("Created"), "running": condition("Running"), "suspended": condition("Suspended"),
         "succeeded": condition("Succeeded"),
         "failed": condition("Failed", "PyTorchJob j is failed because 1 Worker replica(s) failed."),
         "late": condition("Failed", "Job j has failed because it was active longer than specified deadline")},
        _pod_of_pytorchjob, _hold_pytorchjob,
    ),
    "trainjob": Shape(
        TRAINJOB, ("node-0-0-x7k2p", "node-0-1-9qw4z"), "j-node-0-0.j",
        {"created": _counts(active=1), "running": _counts(active=1, ready=1), "suspended": condition("Suspended"),
         "succeeded": condition("Complete", reason="AllJobsCompleted"),
         "failed": condition("Failed", "jobset failed due to one or more job failures (j-node-0)", "ReachedMaxRestarts"),
         "late": condition("Failed", "TrainJob exceeded its active deadline", "DeadlineExceeded")},
        _pod_of_trainjob, _hold_trainjob,
    ),
}  # fmt: skip


def shape_of(body: dict[str, Any]) -> Shape:
    """The shape of a job that was rendered."""
    return next(shape for shape in SHAPES.values() if shape.kind.kind == body["kind"])
