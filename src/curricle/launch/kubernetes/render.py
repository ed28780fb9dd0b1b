"""From a `Job` and `ClusterOptions` to the object that is sent: a pure function, and the checks of what a cluster would refuse.

It knows no kind of job by name: a `JobKind` is handed in. The labels and annotations by which our jobs are found again are named here.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from collections.abc import Sequence
from typing import Any

from curricle.errors import ConfigError
from curricle.launch.job import Job
from curricle.launch.kubernetes.devices import accelerators
from curricle.launch.kubernetes.kind import JobKind
from curricle.launch.kubernetes.names import LABEL_VALUE, problems_of
from curricle.launch.kubernetes.options import ClusterOptions
from curricle.launch.kubernetes.pods import OWN_MOUNTS, agent_command, beats, bytes_of, pod_template

DIGEST = "curricle.dev/digest"
JOB = "curricle.dev/job"
ATTEMPT = "curricle.dev/attempt"
HEARTBEAT = "curricle.dev/heartbeat"
KUEUE_QUEUE = "kueue.x-k8s.io/queue-name"
KUEUE_PRIORITY = "kueue.x-k8s.io/priority-class"

_DNS_1035 = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")


def label_value(text: str) -> str:
    """A text as the value of a label: itself where it may be one, else what letters of it may stand there, with a digest."""
    if LABEL_VALUE.fullmatch(text):
        return text
    slug = re.sub(r"[^A-Za-z0-9_.]+", "-", text)[:54].strip("-_.")
    return f"{slug}-{hashlib.sha256(text.encode()).hexdigest()[:8]}".lstrip("-")


def attempt_name(name: str, attempt: int, limit: int) -> str:
    """The object's name in its n-th attempt: the job's own first, then `<name>-a2`, cut (with a digest) where it exceeds `limit` characters."""
    if attempt == 1:
        return name
    suffix = f"-a{attempt}"
    if len(name) + len(suffix) > limit:
        digest = hashlib.sha256(name.encode()).hexdigest()[:6]
        name = name[: limit - len(suffix) - 7].rstrip("-") + "-" + digest
    return name + suffix


def render(
    kind: JobKind, job: Job, options: ClusterOptions, *, attempt: int = 1, command: Sequence[str] | None = None
) -> dict[str, Any]:
    """The object for one attempt at `job`: what `submit` sends, with no cluster asked. Equal each time, and shares nothing with another one.

    `command` is what every pod runs in place of the node agent.

    Raises:
        ConfigError: the operator's webhook or the scheduler would refuse it; names every problem.
    """
    problems = check(kind, job, options)
    if problems:
        raise ConfigError([f"job {job.name!r}: {problem}" for problem in problems])
    name = attempt_name(job.name, attempt, kind.name_limit)
    labels = {
        "app.kubernetes.io/name": "curricle", "app.kubernetes.io/component": "worker", "app.kubernetes.io/managed-by": "curricle",
        **options.labels, **{key: label_value(value) for key, value in job.labels.items()}, JOB: job.name, ATTEMPT: str(attempt),
    }  # fmt: skip
    template = pod_template(
        job,
        options,
        container=kind.container,
        command=command or agent_command(job, options, kind.host(name, options)),
        labels=labels,
        annotations={**options.annotations, DIGEST: job.digest},
    )
    whole = {key: value for key, value in job.labels.items() if value != label_value(value)}
    annotations = {DIGEST: job.digest, **whole}
    if beats(job, options):
        annotations[HEARTBEAT] = job.heartbeat
    if options.queue:
        labels = {**labels, KUEUE_QUEUE: options.queue}
    if options.queue_priority:
        labels = {**labels, KUEUE_PRIORITY: options.queue_priority}
    metadata: dict[str, Any] = {
        "name": name,
        "namespace": options.namespace,
        "labels": labels,
        "annotations": annotations,
    }
    if options.owner:
        metadata["ownerReferences"] = [options.owner.reference()]
    body = {
        "apiVersion": f"{kind.group}/{kind.version}",
        "kind": kind.kind,
        "metadata": metadata,
        "spec": kind.spec(job, options, template),
    }
    return json.loads(json.dumps(body))


def check(kind: JobKind, job: Job, options: ClusterOptions) -> list[str]:
    """Every reason why the operator's webhook, the API server or the scheduler would refuse the job; empty when there is none."""
    deadline, ttl = options.active_deadline_seconds, options.ttl_seconds
    rules = [
        (
            bool(_DNS_1035.fullmatch(job.name)),
            "its name must start with a letter and hold only a-z, 0-9 and '-' (DNS-1035)",
        ),
        (
            len(job.name) <= kind.name_limit,
            f"its name has {len(job.name)} characters, at most {kind.name_limit} leave room for what the operator appends",
        ),
        (bool(job.digest), "it has no digest, so a second launcher could not tell whether it may adopt it"),
        (bool(job.argv), "it has no argv"),
        (job.nodes >= 1 and job.processes_per_node >= 1, "nodes and processes per node must be 1 or more"),
        (
            not any("${" in argument for argument in job.argv),
            "its argv holds a '${...}' macro; all its pods have one template",
        ),
        (
            options.gpus == 0 or options.gpus >= job.processes_per_node,
            f"{job.processes_per_node} processes per node need as many GPUs, the options ask for {options.gpus}",
        ),
        (options.grace_seconds >= 20, "grace_seconds must be 20 or more: 15 of them are the agent's own"),
        (
            options.heartbeat_seconds == 0 or options.heartbeat_seconds >= 30,
            "heartbeat_seconds must be 0 (off), or 30 or more: a beat comes every 10",
        ),
        (deadline >= 1 and ttl >= 0, "active_deadline_seconds must be positive, ttl_seconds not negative"),
        (not options.queue_priority or bool(options.queue), "queue_priority is set without a queue"),
    ]
    problems = [problem for kept, problem in rules if not kept]
    problems += [f"{name}: {text}" for name, text in problems_of(options)]
    return [
        *problems,
        *_check_devices(options),
        *_check_quantities(options),
        *_check_volumes(options),
        *kind.check(job, options),
    ]


def _check_devices(options: ClusterOptions) -> list[str]:
    kinds = {*accelerators(options.extra_resources), *([options.gpu_resource] if options.gpus else [])}
    if len(kinds) < 2:
        return []
    return [f"it asks for several kinds of GPU ({', '.join(sorted(kinds))}); a job has one: gpu_resource and gpus"]


def _check_quantities(options: ClusterOptions) -> list[str]:
    problems: list[str] = []
    sizes: dict[str, float] = {}
    for key in ("cpu", "memory", "shm_size", "cpu_limit", "memory_limit", "scratch_size"):
        quantity = getattr(options, key)
        if not quantity and key in ("cpu_limit", "memory_limit", "scratch_size", "shm_size"):
            continue
        with contextlib.suppress(ValueError):  # `problems_of` names it
            sizes[key] = bytes_of(quantity)
    if "shm_size" in sizes and "memory" in sizes:
        limit = sizes.get("memory_limit", sizes["memory"])
        if sizes["shm_size"] >= limit:
            problems.append(f"shm_size {options.shm_size} counts against the memory limit and must be less than it")
    for request, limit_key in (("cpu", "cpu_limit"), ("memory", "memory_limit")):
        if request in sizes and limit_key in sizes and sizes[request] > sizes[limit_key]:
            asked, most = getattr(options, request), getattr(options, limit_key)
            problems.append(f"{request} request {asked} is more than its limit {most}")
    return problems


def _check_volumes(options: ClusterOptions) -> list[str]:
    problems = []
    names = [volume.get("name") for volume in options.volumes]
    if len(set(names)) < len(names) or OWN_MOUNTS.keys() & set(names):
        problems.append(f"volume names must differ from each other and from {', '.join(OWN_MOUNTS)}")
    for mount in options.volume_mounts:
        if mount.get("name") not in names:
            problems.append(
                f"volume mount {mount.get('name')!r} names no volume; there {'are ' + ', '.join(sorted(map(str, names))) if names else 'is none'}"
            )
        if mount.get("mountPath") in OWN_MOUNTS.values():
            problems.append(f"volume mount {mount.get('name')!r} hides {mount.get('mountPath')}")
    return problems
