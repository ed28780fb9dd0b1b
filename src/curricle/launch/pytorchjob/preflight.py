"""Whether a cluster can train: rights, operator, queue and GPUs as they can be read, and a probe pod that is what a worker will be.

The probe asks for no GPU: it must not wait for one, nor take one. What an account may not read is said, with the right that is missing.
"""

from __future__ import annotations

import json
import uuid
from dataclasses import replace

from curricle.errors import Finding, JobError
from curricle.launch.job import Job
from curricle.launch.pytorchjob.api import KubernetesApi, Unreachable
from curricle.launch.pytorchjob.client import PyTorchJobLauncher, Waits
from curricle.launch.pytorchjob.render import GROUP, PLURAL, RUN, VERSION, ClusterOptions

MARK = "CURRICLE-PREFLIGHT "
RIGHTS = [(verb, PLURAL, GROUP) for verb in ("create", "get", "list", "delete", "patch")] + [
    ("list", "pods", ""),
    ("watch", "pods", ""),
    ("get", "pods/log", ""),
]
WAITS = Waits(poll=1.0, no_operator=60.0, no_pod=30.0, image_pull=60.0, broken=30.0, schedule=60.0, notice=30.0)
ADVICE = {
    "image_pull": "Correct the image, or give the registry's credentials (image_pull_secrets).",
    "unschedulable": "Ask for less CPU or memory, or correct node_selector, tolerations and affinity; see `kubectl describe nodes`.",
    "no_pod": "Make the service account that is named (manifests/), or see the quota and the policies of the namespace.",
    "no_operator": "Start the Kubeflow training operator v1 (`kubectl get pods -A | grep training-operator`).",
    "refused": "Correct what the cluster refuses, or have its rights granted (manifests/base/launcher.yaml).",
}


def check_cluster(api: KubernetesApi, options: ClusterOptions) -> list[Finding]:
    """What can be asked without starting anything; a finding with advice although it is ok could not be seen."""
    try:
        return [_served(api), _rights(api), _operator(api), *_queue(api, options), *_gpus(api, options)]
    except Unreachable as error:
        return [
            Finding(
                "rights",
                False,
                f"the cluster does not answer: {error}",
                "Correct the kubeconfig, or start the cluster.",
            )
        ]


def _served(api: KubernetesApi) -> Finding:
    there = api.serves(GROUP, VERSION, PLURAL)
    return Finding(
        "PyTorchJob API",
        there,
        f"{PLURAL}.{GROUP}/{VERSION} {'is served' if there else 'is not known'}",
        "" if there else "Install the Kubeflow training operator (v1).",
    )


def _rights(api: KubernetesApi) -> Finding:
    missing = [f"{verb} {resource}" for verb, resource, group in RIGHTS if not api.allowed(verb, resource, group)]
    if missing:
        return Finding(
            "rights",
            False,
            f"this account may not {', '.join(missing)} in {api.namespace}",
            "Run with the service account curricle-launcher, or grant its role (manifests/base/launcher.yaml).",
        )
    return Finding("rights", True, f"all {len(RIGHTS)} that the launcher needs in {api.namespace}")


def _operator(api: KubernetesApi) -> Finding:
    try:
        images = api.operator_images()
    except JobError:
        return Finding(
            "operator version",
            True,
            "not visible to this account",
            "For the version: grant list deployments, or ask an administrator.",
        )
    found = ", ".join(images)
    return Finding(
        "operator version",
        True,
        found or "no deployment is called training-operator",
        "" if found else "The probe below tells whether one runs.",
    )


def _queue(api: KubernetesApi, options: ClusterOptions) -> list[Finding]:
    if not options.queue:
        return []
    name = f"queue {options.queue}"
    for version in ("v1beta2", "v1beta1"):
        if not api.serves("kueue.x-k8s.io", version, "localqueues"):
            continue
        try:
            found = api.get_object("kueue.x-k8s.io", version, "localqueues", options.queue)
        except JobError as error:
            return [
                Finding(
                    name,
                    True,
                    f"not visible to this account ({error})",
                    "Grant get localqueues (manifests/components/kueue).",
                )
            ]
        if found is None:
            return [
                Finding(
                    name,
                    False,
                    f"{api.namespace} has no LocalQueue of that name",
                    "Make it, or correct `queue` in the settings.",
                )
            ]
        return [Finding(name, True, f"LocalQueue of {found['spec'].get('clusterQueue')}")]
    return [
        Finding(
            name,
            False,
            "Kueue is not installed",
            "Install Kueue with its kubeflow.org/pytorchjob integration, or leave `queue` out.",
        )
    ]


def _gpus(api: KubernetesApi, options: ClusterOptions) -> list[Finding]:
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


def run_probe(launcher: PyTorchJobLauncher, argv: tuple[str, ...]) -> list[Finding]:
    """Start one pod as a worker's, without GPUs, and take its findings; the job is deleted whatever happens."""
    options = replace(
        launcher.options, gpus=0, elastic=None, active_deadline_seconds=300, ttl_seconds=300, clean_pod_policy="All"
    )
    probe = PyTorchJobLauncher(options, launcher.api, waits=WAITS, emergency=launcher._emergency)
    name = f"preflight-{uuid.uuid4().hex[:8]}"
    said: list[str] = []
    try:
        handle = probe.submit(
            Job(name=name, argv=argv, nodes=1, processes_per_node=1, labels={RUN: "preflight"}, digest=name)
        )
    except JobError as error:
        return [Finding("probe pod", False, str(error), ADVICE["refused"])]
    try:
        outcome = probe.wait(handle, said.append)
    finally:
        probe.cancel(handle)
    marked = [line.partition(MARK)[2] for line in said if MARK in line]
    if marked:
        started = Finding(
            "probe pod", True, f"image {options.image} ran as {options.service_account or 'the default account'}"
        )
        return [started, *(Finding(**row) for row in json.loads(marked[-1]))]
    advice = ADVICE.get(outcome.reason, "The pod's last lines say more; correct what they name.")
    return [Finding("probe pod", False, f"{outcome.reason}: {outcome.message or 'it left no findings'}", advice)]
