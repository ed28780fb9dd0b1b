"""Why a job ended, or does not start: pure functions over the dicts that the API server returns.

The job's own status only counts failed replicas; the reason lies in the pods. Pods vanish (clean-up, TTL, deadline), so callers
keep the last they saw of each and pass that.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from curricle.launch.job import REASONS, Outcome, Reason
from curricle.launch.kubernetes.kind import JobKind

_PULL = {"ErrImagePull", "ImagePullBackOff", "ErrImageNeverPull", "RegistryUnavailable"}
_BROKEN = {"InvalidImageName", "CreateContainerConfigError", "CreateContainerError", "RunContainerError"}
LACKS = "is no worker's: it holds no"
_LACKED = {
    "Python": re.compile(r"""exec: ["'`]?python3?["'`]?: |executable file ["'`]?python3?["'`]? not found"""),
    "Curricle": re.compile(r"No module named ['\"]?curricle\b"),
}
"""What every pod starts with, and how its lack is said: by containerd and CRI-O, by Python."""
_PREEMPTED = {"PreemptionByScheduler", "PreemptionByKueueScheduler"}
_EVICTED = {
    "Evicted",
    "NodeLost",
    "NodeShutdown",
    "Terminated",
    "Shutdown",
    "Preempting",
    "UnexpectedAdmissionError",
    "NodeAffinity",
}


@dataclass(frozen=True)
class Stuck:
    """A pod that cannot start as things stand, and for how long."""

    reason: Reason
    pod: str
    message: str
    seconds: float
    final: bool = False
    """Waiting longer cures it hardly ever (a wrong image name, a missing secret)."""


@dataclass(frozen=True)
class PodFailure:
    """How one pod failed."""

    pod: str
    reason: Reason
    exit_code: int
    message: str
    finished: datetime
    """When; the least time there is where the pod does not say."""


@dataclass(frozen=True)
class Removal:
    """A pod that was taken away before any pod of its gang had failed: what these report afterwards (a broken connection) follows from it."""

    failure: PodFailure
    gang: frozenset[str]
    """uids of the other pods that there were."""


SAME_EVENT_SECONDS = 30
"""Pods that fail within so many seconds may have failed for one cause."""
_OUTSIDE: frozenset[Reason] = frozenset({"evicted", "preempted", "lost", "oom_killed", "deadline", "store_away"})
"""Reasons that lie outside of a pod's own program."""
_LATEST = datetime.max.replace(tzinfo=UTC)


def moment(text: str | None) -> datetime | None:
    """An API timestamp as an aware datetime."""
    return datetime.fromisoformat(text.replace("Z", "+00:00")) if text else None


def conditions(thing: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """The conditions of a job or pod that are True, by type."""
    listed = (thing.get("status") or {}).get("conditions") or []
    return {condition["type"]: condition for condition in listed if condition.get("status") == "True"}


def picked_up(kind: JobKind, job: Mapping[str, Any]) -> bool:
    """Whether any operator has looked at the job: it then has a status, or waits for Kueue."""
    return any((job.get("status") or {}).values()) or kind.phase(job) == "suspended"


def containers(pod: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Statuses of the init containers, then of the others."""
    status = pod.get("status") or {}
    return [*(status.get("initContainerStatuses") or []), *(status.get("containerStatuses") or [])]


def stuck(pods: Sequence[Mapping[str, Any]], now: datetime) -> Stuck | None:
    """The pod that has been unable to start for longest, if there is one."""
    waiting = [held for pod in pods if (held := _stuck(pod, now))]
    return max(waiting, key=lambda held: (held.final, held.seconds), default=None)


def _stuck(pod: Mapping[str, Any], now: datetime) -> Stuck | None:
    status, meta = pod.get("status") or {}, pod["metadata"]
    if status.get("phase") not in (None, "Pending", "Running") or meta.get("deletionTimestamp"):
        return None
    for c in status.get("conditions") or []:
        if (
            c["type"] == "PodScheduled"
            and c["status"] == "False"
            and c.get("reason") in ("Unschedulable", "SchedulerError")
        ):
            return Stuck("unschedulable", meta["name"], c.get("message", ""), _age(c.get("lastTransitionTime"), now))
    scheduled = conditions(pod).get("PodScheduled", {}).get("lastTransitionTime") or meta.get("creationTimestamp")
    for c in containers(pod):
        waiting = (c.get("state") or {}).get("waiting") or {}
        why = waiting.get("reason")
        if why in _PULL:
            message = f"image {c.get('image', '')}: {waiting.get('message') or why}"
            return Stuck("image_pull", meta["name"], message, _age(scheduled, now))
        if why in _BROKEN:
            message = f"container {c['name']}: {why}: {waiting.get('message', '')}".rstrip(": ")
            message = _lacks(c, message) or message
            return Stuck(
                "configuration" if why != "InvalidImageName" else "image_pull",
                meta["name"],
                message,
                _age(scheduled, now),
                final=True,
            )
    return None


def _age(since: str | None, now: datetime) -> float:
    at = moment(since)
    return (now - at).total_seconds() if at else 0.0


def failure(pod: Mapping[str, Any], others_failed: Sequence[datetime] = ()) -> PodFailure | None:
    """How this pod failed, or None when it did not.

    `others_failed`: when the other pods failed; a deletion requested after one of these is clean-up, not a cause.
    """
    status, name = pod.get("status") or {}, pod["metadata"]["name"]
    ended = [c for c in containers(pod) if ((c.get("state") or {}).get("terminated") or {}).get("exitCode")]
    last = ended[0]["state"]["terminated"] if ended else {}
    code, message = int(last.get("exitCode", 0)), (last.get("message") or "").strip()
    lacks = _lacks(ended[0], message) if ended else ""
    at = moment(last.get("finishedAt")) or _LATEST
    disrupted = conditions(pod).get("DisruptionTarget")
    if disrupted and (code or status.get("phase") == "Failed"):
        why: Reason = "preempted" if disrupted.get("reason") in _PREEMPTED else "evicted"
        return PodFailure(name, why, code or 143, f"{disrupted.get('reason')}: {disrupted.get('message', '')}", at)
    if status.get("phase") == "Failed" and status.get("reason") in _EVICTED:
        why = "preempted" if status["reason"] == "Preempting" else "evicted"
        return PodFailure(name, why, code or 137, f"{status['reason']}: {status.get('message', '')}", at)
    if status.get("phase") == "Failed" and status.get("reason") == "DeadlineExceeded":
        return PodFailure(
            name, "deadline", code or 143, "it ran longer than its deadline (active_deadline_seconds)", at
        )
    if not code:
        if status.get("phase") == "Failed":
            return PodFailure(name, "error", 1, f"{status.get('reason', 'Failed')}: {status.get('message', '')}", at)
        return None
    if lacks:  # whatever happened to the pod afterwards
        return PodFailure(name, "configuration", code, lacks, at)
    requested = _deletion_requested(pod)
    if requested and code >= 128 and last.get("reason") != "OOMKilled":
        if not all(other > requested for other in others_failed):
            return PodFailure(name, "interrupted", code, "removed after another pod had failed", at)
        return PodFailure(
            name, "interrupted" if code == 143 else "lost", code, message or "the pod was deleted while it ran", at
        )
    if last.get("reason") == "OOMKilled" or code == 137:
        limit = _memory_limit(pod)
        words = message if last.get("reason") != "OOMKilled" else ""
        return PodFailure(
            name,
            "oom_killed",
            code,
            words or f"killed for memory (limit {limit}); ask for more memory or use smaller batches",
            at,
        )
    if last.get("reason") in ("ContainerCannotRun", "StartError"):
        return PodFailure(name, "configuration", code, message or last["reason"], at)
    if code == 143:
        return PodFailure(name, "interrupted", code, message or "stopped on request", at)
    reason = REASONS.get(code, "error")
    if ended[0] in ((status.get("initContainerStatuses")) or []):
        message = f"init container {ended[0]['name']} failed: {message or 'the first pod was not found in time, or an image did not start'}"
    return PodFailure(name, reason, code, message or f"exit code {code}, and no message", at)


def _lacks(container: Mapping[str, Any], message: str) -> str:
    """That the image is none of a worker, as the runtime or Python says it; empty where neither does."""
    if not (what := next((name for name, said in _LACKED.items() if said.search(message)), "")):
        return ""
    return f"the image {container.get('image', '')} {LACKS} {what} ({' '.join(message.split())[:300]})"


def removal(pod: Mapping[str, Any], pods: Sequence[Mapping[str, Any]], at: datetime) -> Removal | None:
    """What it means that `pod` is gone at `at` while `pods` are as they are; None when it had ended well, or another had failed before."""
    gang = [p for p in pods if p["metadata"]["name"] != pod["metadata"]["name"]]
    if (pod.get("status") or {}).get("phase") == "Succeeded" or any(failure(p) for p in gang):
        return None
    cause = failure(pod) or PodFailure(pod["metadata"]["name"], "lost", 137, "the pod was deleted while it ran", at)
    return Removal(cause, frozenset(p["metadata"]["uid"] for p in gang))


def _deletion_requested(pod: Mapping[str, Any]) -> datetime | None:
    """When somebody asked for the pod's deletion: `deletionTimestamp` lies one grace period later."""
    meta = pod["metadata"]
    at = moment(meta.get("deletionTimestamp"))
    if at is None:
        return None
    return datetime.fromtimestamp(at.timestamp() - (meta.get("deletionGracePeriodSeconds") or 0), UTC)


def _memory_limit(pod: Mapping[str, Any]) -> str:
    for c in (pod.get("spec") or {}).get("containers") or []:
        return ((c.get("resources") or {}).get("limits") or {}).get("memory", "unknown")
    return "unknown"


def failures(pods: Sequence[Mapping[str, Any]]) -> list[PodFailure]:
    """How the pods failed, the cause first.

    A lost rank makes the others fail within seconds, sometimes in the same one, so a pod that something outside of it ended
    (eviction, preemption, deletion, the memory limit) goes before pods that failed no more than 30 s earlier by themselves,
    and a pod that merely obeyed SIGTERM comes last.
    """
    ends = {pod["metadata"]["name"]: failed.finished for pod in pods if (failed := failure(pod))}
    failed_pods = []
    for pod in pods:
        others = [finished for name, finished in ends.items() if name != pod["metadata"]["name"]]
        if failed := failure(pod, others):
            failed_pods.append(failed)
    first = min((failed.finished for failed in failed_pods), default=_LATEST)
    return sorted(failed_pods, key=lambda failed: (_rank(failed, first), failed.finished, failed.pod))


def _rank(failed: PodFailure, first: datetime) -> int:
    """0 for a likely cause, 2 for a likely consequence; `first` is when the first pod failed."""
    if failed.reason == "interrupted":
        return 2
    unknown = _LATEST in (first, failed.finished)
    soon = unknown or (failed.finished - first).total_seconds() <= SAME_EVENT_SECONDS
    return 0 if failed.reason in _OUTSIDE and soon else 1


def classify(
    kind: JobKind,
    pods: Sequence[Mapping[str, Any]],
    job: Mapping[str, Any] | None,
    removals: Sequence[Removal] = (),
) -> Outcome:
    """How a job ended, from its last state, the last seen of its pods and those that were taken away. `job` is None when it was deleted."""
    if job is None:
        return Outcome("cancelled", "cancelled", 143, f"the {kind.kind} was deleted while it was waited for")
    if kind.phase(job) == "succeeded":
        return Outcome("succeeded", "succeeded", 0)
    deadline = kind.over_deadline(job)
    if deadline is not None:
        message = f"it ran longer than its deadline of {deadline} s (active_deadline_seconds)"
        return Outcome("failed", "deadline", 143, message)
    failed_pods = failures(pods)
    if not failed_pods:
        words = conditions(job).get("Failed", {}).get("message") or "failed"
        return Outcome("failed", "lost", 1, f"the operator says: {words}; none of its pods is left to say why")
    cause = failed_pods[0]
    if cause.reason == "error":
        uid = next(pod["metadata"].get("uid") for pod in pods if pod["metadata"]["name"] == cause.pod)
        cause = next((removal.failure for removal in removals if uid in removal.gang), cause)
    return Outcome("failed", cause.reason, cause.exit_code, cause.message, cause.pod)
