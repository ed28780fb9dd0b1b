"""Whether a cluster can train: rights, operator, queue and GPUs as they can be read, and a probe pod that is what a worker will be.

The probe asks for no GPU: it must not wait for one, nor take one. What an account may not read is said, with the right that is missing.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from curricle.errors import Finding, Interrupted, JobError
from curricle.launch.job import RUN, Job
from curricle.launch.kubernetes.api import ClusterApi, Unreachable
from curricle.launch.kubernetes.kind import JobKind
from curricle.launch.kubernetes.options import ClusterOptions, Waits
from curricle.launch.kubernetes.reasons import LACKS
from curricle.launch.probe import read_findings

if TYPE_CHECKING:
    from curricle.launch.kubernetes.client import KubernetesLauncher

WAITS = Waits(
    poll=1.0,
    no_operator=60.0,
    no_pod=30.0,
    image_pull=60.0,
    broken=30.0,
    schedule=60.0,
    notice=30.0,
    submit=20.0,
    queued=10.0,
)
ACCOUNT = "curricle-launcher"
"""The account of component pods, as manifests/ call it."""
ADVICE = {
    "image_pull": "Correct the image, or give the registry's credentials (image_pull_secrets).",
    "unschedulable": "Ask for less CPU or memory, or correct node_selector, tolerations and affinity; see `kubectl describe nodes`.",
    "no_pod": "Make the service account that is named (manifests/), or see the quota and the policies of the namespace.",
    "no_operator": "Start the operator that is named (`kubectl get pods -A`).",
    "lost": "See what the cluster's API server and the operator's webhook are doing (`kubectl get pods -A`); try again once they answer.",
    "configuration": "Name an image that holds Curricle and torch (CURRICLE_TRAINER_IMAGE, or `image` in the cluster's settings); images/ makes one.",
    "refused": "Correct what the cluster refuses, or have its rights granted (manifests/base/launcher.yaml).",
}


def check_all(launcher: KubernetesLauncher, probe: tuple[str, ...]) -> Iterator[Finding]:
    """What can be asked; then a pod that runs `probe`, where the API is there and this account may make jobs."""
    kind, api, options = launcher.kind, launcher.api, launcher.options
    needed = (_api_check(kind), "rights", _queue_check(options), _template_check(kind, options))
    ready = True
    for finding in check_cluster(kind, api, options):
        ready &= finding.ok or finding.name not in needed
        yield finding
    if ready:
        yield from run_probe(launcher, probe)


def rights(kind: JobKind) -> list[tuple[str, str, str]]:
    """What the launcher must be allowed to do in its namespace: (verb, resource, group)."""
    jobs = [(verb, kind.plural, kind.group) for verb in ("create", "get", "list", "delete", "patch")]
    return [*jobs, ("list", "pods", ""), ("watch", "pods", ""), ("get", "pods/log", "")]


def _api_check(kind: JobKind) -> str:
    return f"{kind.kind} API"


def _queue_check(options: ClusterOptions) -> str:
    return f"queue {options.queue}"


def check_cluster(kind: JobKind, api: ClusterApi, options: ClusterOptions) -> Iterator[Finding]:
    """What can be asked without starting anything; a finding with advice although it is ok could not be seen."""
    try:
        yield _served(kind, api)
        yield _rights(kind, api)
        yield _operator(kind, api)
        yield from _template(kind, api, options)
        yield from _queue(kind, api, options)
        yield from _accounts(api)
        yield from _gpus(api, options)
    except Unreachable as error:
        yield Finding(
            "rights",
            False,
            f"the cluster does not answer: {error}",
            "Correct the kubeconfig, or start the cluster.",
        )


def _served(kind: JobKind, api: ClusterApi) -> Finding:
    resource = f"{kind.plural}.{kind.group}/{kind.version}"
    if api.serves(kind.group, kind.version, kind.plural):
        return Finding(_api_check(kind), True, f"{resource} is served")
    return Finding(_api_check(kind), False, f"{resource} is not known", f"Install the {kind.operator}.")


def _rights(kind: JobKind, api: ClusterApi) -> Finding:
    needed = rights(kind)
    missing = [f"{verb} {resource}" for verb, resource, group in needed if not api.allowed(verb, resource, group)]
    if missing:
        return Finding(
            "rights",
            False,
            f"this account may not {', '.join(missing)} in {api.namespace}",
            "Run with the service account curricle-launcher, or grant its role (manifests/base/launcher.yaml).",
        )
    return Finding("rights", True, f"all {len(needed)} that the launcher needs in {api.namespace}")


def _operator(kind: JobKind, api: ClusterApi) -> Finding:
    name = "operator version"
    try:
        images = api.operator_images()
    except JobError:
        advice = "For the version: grant list deployments, or ask an administrator."
        return Finding(name, True, "not visible to this account", advice)
    if not images:
        advice = "The probe below tells whether one runs."
        return Finding(name, True, f"no deployment is called {kind.deployment}", advice)
    return Finding(name, True, ", ".join(images))


def _template_check(kind: JobKind, options: ClusterOptions) -> str:
    template = kind.template(options)
    return f"{template.noun} {template.name}" if template else ""


def _template(kind: JobKind, api: ClusterApi, options: ClusterOptions) -> list[Finding]:
    template, name = kind.template(options), _template_check(kind, options)
    if template is None or not api.serves(kind.group, kind.version, template.plural):
        return []
    try:
        body = api.get_object(
            kind.group, kind.version, template.plural, template.name, cluster_wide=template.cluster_wide
        )
    except JobError as error:
        advice = f"To have it checked: grant get {template.plural} (manifests/trainer)."
        return [Finding(name, True, f"not visible to this account ({error})", advice)]
    if body is None:
        where = "the cluster" if template.cluster_wide else api.namespace
        return [Finding(name, False, f"{where} has no {template.plural} of that name", template.bring)]
    if problems := kind.template_problems(body, options):
        return [Finding(name, False, "; ".join(problems), f"Correct it. {template.bring}")]
    return [Finding(name, True, f"{template.plural} {template.name}")]


def _queue(kind: JobKind, api: ClusterApi, options: ClusterOptions) -> list[Finding]:
    if not options.queue:
        return []
    name = _queue_check(options)
    for version in ("v1beta2", "v1beta1"):
        if not api.serves("kueue.x-k8s.io", version, "localqueues"):
            continue
        try:
            queue = api.get_object("kueue.x-k8s.io", version, "localqueues", options.queue)
        except JobError as error:
            return [
                Finding(
                    name,
                    True,
                    f"not visible to this account ({error})",
                    "Grant get localqueues (manifests/components/kueue).",
                )
            ]
        if queue is None:
            return [
                Finding(
                    name,
                    False,
                    f"{api.namespace} has no LocalQueue of that name",
                    "Make it, or correct `queue` in the settings.",
                )
            ]
        return [_state_of(queue, name, options.queue)]
    return [
        Finding(
            name,
            False,
            "Kueue is not installed",
            f"Install Kueue with its integration {kind.queue_integration}, or leave `queue` out.",
        )
    ]


def _state_of(queue: dict[str, Any], name: str, local: str) -> Finding:
    """Whether a LocalQueue admits anything, and who waits in it. A full queue is none that is wrong: a job waits for its turn."""
    cluster_queue, status = queue["spec"].get("clusterQueue"), queue.get("status") or {}
    if (policy := queue["spec"].get("stopPolicy", "None")) != "None":
        start = f"""kubectl patch localqueue {local} --type merge -p '{{"spec": {{"stopPolicy": "None"}}}}'"""
        return Finding(
            name, False, f"it is stopped (stopPolicy {policy}): nothing is admitted", f"Let it go on: {start}"
        )
    for condition in status.get("conditions") or []:
        if condition.get("type") == "Active" and condition.get("status") == "False":
            said = f"it admits nothing: {condition.get('reason', '')}: {condition.get('message', '')}"
            return Finding(
                name,
                False,
                said,
                f"See `kubectl describe clusterqueue {cluster_queue}`: is it there, stopped, without flavours?",
            )
    waiting, admitted = status.get("pendingWorkloads") or 0, status.get("admittedWorkloads") or 0
    detail = f"LocalQueue of {cluster_queue}, {admitted} admitted, {waiting} waiting"
    if waiting:
        return Finding(
            name, True, detail, "The queue is full, or its quota too small for who waits: training waits for its turn."
        )
    return Finding(name, True, detail)


def _accounts(api: ClusterApi) -> list[Finding]:
    """Whether Kubeflow Pipelines takes our account, where its deployment may be seen: from 2.18 on it takes those that its environment lists."""
    name = "account in Kubeflow Pipelines"
    try:
        servers = api.containers_of("ml-pipeline")
    except JobError:
        return []
    for image, env in servers:
        version = re.search(r":v?(\d+)\.(\d+)", image)
        if not version or (int(version[1]), int(version[2])) < (2, 18):
            continue
        if ACCOUNT not in re.split(r"[,\s]+", env.get("ALLOWEDSERVICEACCOUNTS", "")):
            listed = env.get("ALLOWEDSERVICEACCOUNTS") or "none"
            return [
                Finding(
                    name,
                    False,
                    f"{image} takes runs of the accounts that ALLOWEDSERVICEACCOUNTS lists ({listed}), and {ACCOUNT} is not among them",
                    f"kubectl -n kubeflow set env deployment/ml-pipeline ALLOWEDSERVICEACCOUNTS={ACCOUNT} (docs/kubeflow.md); with several users they also need the verb `use` on it.",
                )
            ]
        return [Finding(name, True, f"{ACCOUNT} is listed")]
    return []


def _gpus(api: ClusterApi, options: ClusterOptions) -> list[Finding]:
    if not options.gpus:
        return []
    try:
        nodes = api.nodes_with(options.gpu_resource)
    except JobError:
        return [
            Finding(
                options.gpu_resource,
                True,
                "not visible to this account",
                "To have it checked: grant list nodes (a ClusterRole).",
            )
        ]
    if not nodes:
        return [
            Finding(
                options.gpu_resource,
                False,
                "no node offers it now",
                "Correct gpu_resource, start the device plugin, or expect the autoscaler to add such a node.",
            )
        ]
    return [Finding(options.gpu_resource, True, f"{nodes} nodes offer it")]


def run_probe(launcher: KubernetesLauncher, argv: tuple[str, ...]) -> list[Finding]:
    """Start one pod as a worker's, without GPUs, and take its findings; the job is deleted whatever happens."""
    options = replace(
        launcher.options, gpus=0, elastic=None, active_deadline_seconds=300, ttl_seconds=300, clean_pod_policy="All"
    )
    probing = launcher.with_options(options, WAITS)
    name = f"preflight-{uuid.uuid4().hex[:8]}"
    job = Job(name=name, argv=argv, nodes=1, processes_per_node=1, labels={RUN: "preflight"}, digest=name)
    lines: list[str] = []
    try:
        handle = probing.submit(job)
    except JobError as error:
        return [Finding("probe pod", False, str(error), ADVICE.get(error.reason, ADVICE["refused"]))]
    try:
        outcome = probing.wait(handle, lines.append)
    except Interrupted:
        raise
    except JobError as error:
        return [Finding("probe pod", False, str(error), ADVICE.get(error.reason, ADVICE["lost"]))]
    finally:
        with suppress(Unreachable):  # its deadline ends it
            probing.cancel(handle)
    told = read_findings(lines)
    if told is None and outcome.reason == "queued":
        advice = "Training waits for its turn likewise. What a worker can do is not tried: run preflight again, or with settings without `queue`."
        return [Finding("probe pod", True, outcome.message, advice)]
    if told is None:
        if LACKS in outcome.message:
            return [Finding("probe pod", False, outcome.message, ADVICE["configuration"])]
        advice = ADVICE.get(
            "" if outcome.reason == "configuration" else outcome.reason,
            "The pod's last lines say more; correct what they name.",
        )
        return [Finding("probe pod", False, f"{outcome.reason}: {outcome.message or 'it left no findings'}", advice)]
    account = options.service_account or "the default account"
    return [Finding("probe pod", True, f"image {options.image} ran as {account}"), *told]
