"""The kustomizations build, hold no secret values, and give least privilege. `kubectl` comes from CURRICLE_KUBECTL, else from the PATH."""

import os
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from curricle.launch.kubernetes.settings import from_environment

ROOT = Path(__file__).parents[2] / "manifests"
OVERLAYS = ("dev", "production")


@pytest.fixture(scope="session")
def build():
    """Builds an overlay: its objects."""
    program = shlex.split(os.environ.get("CURRICLE_KUBECTL", "kubectl"))
    if not shutil.which(program[0]):
        pytest.skip(f"no kubectl: {program[0]} is not on the PATH (set CURRICLE_KUBECTL)")

    def run(overlay):
        done = subprocess.run([*program, "kustomize", str(ROOT / "overlays" / overlay)], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return [o for o in yaml.safe_load_all(done.stdout) if o]

    return run


def of_kind(objects, kind):
    return {o["metadata"]["name"]: o for o in objects if o["kind"] == kind}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_an_overlay_builds_in_one_namespace(overlay, build):
    objects = build(overlay)
    outside = {"ResourceFlavor", "ClusterQueue", "WorkloadPriorityClass"}
    assert {o["metadata"].get("namespace") for o in objects if o["kind"] not in outside} == {"kubeflow"}
    assert not of_kind(objects, "Secret")


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_launcher_understands_the_settings_of_an_overlay(overlay, build):
    data = of_kind(build(overlay), "ConfigMap")["curricle-cluster"]["data"]["cluster.yaml"]
    options = from_environment({"CURRICLE_CLUSTER_YAML": data})
    assert options.service_account == "curricle-worker" and options.env_from_secrets["AWS_SECRET_ACCESS_KEY"]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_no_role_reaches_further_than_its_work(overlay, build):
    objects = build(overlay)
    assert not of_kind(objects, "ClusterRole") and not of_kind(objects, "ClusterRoleBinding")
    for role in of_kind(objects, "Role").values():
        for rule in role["rules"]:
            assert "*" not in rule["verbs"] + rule["resources"] + rule["apiGroups"]
            assert "secrets" not in rule["resources"] or (rule["resourceNames"] and rule["verbs"] == ["get"])
    bound = {s["name"] for b in of_kind(objects, "RoleBinding").values() for s in b["subjects"]}
    assert bound == {"curricle-launcher"}


def test_the_job_runs_what_the_cron_job_runs(build):
    objects = build("production")
    cron, job = (
        of_kind(objects, "CronJob")["curricle-recurring-runs"],
        of_kind(objects, "Job")["curricle-recurring-runs-now"],
    )
    assert job["spec"] == cron["spec"]["jobTemplate"]["spec"]
    container = job["spec"]["template"]["spec"]["containers"][0]
    assert (
        container["image"] == "registry.example.com/curricle/control:0.1.0"
        and container["securityContext"]["readOnlyRootFilesystem"]
    )


def test_the_network_policy_means_the_pods_that_are_rendered(build, job, plain):
    from curricle.launch.kubernetes.pytorchjob import PYTORCHJOB
    from curricle.launch.kubernetes.render import render

    labels = render(PYTORCHJOB, job, plain)["spec"]["pytorchReplicaSpecs"]["Master"]["template"]["metadata"]["labels"]
    selector = of_kind(build("production"), "NetworkPolicy")["curricle-worker"]["spec"]["podSelector"]["matchLabels"]
    assert selector.items() <= labels.items()
