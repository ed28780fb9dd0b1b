"""The kustomizations build, hold no secret values, and give least privilege. `kubectl` comes from CURRICLE_KUBECTL, else from the PATH."""

import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import click
import pytest
import yaml

from curricle.launch.kubernetes.settings import from_environment

ROOT = Path(__file__).parents[2] / "manifests"
OVERLAYS = ("dev", "production", "gitops")


@pytest.fixture(scope="session")
def build():
    """Builds an overlay: its objects."""
    program = shlex.split(os.environ.get("CURRICLE_KUBECTL", "kubectl"))
    if not shutil.which(program[0]):
        pytest.skip(f"no kubectl: {program[0]} is not on the PATH (set CURRICLE_KUBECTL)")

    def run(overlay):
        place = overlay if isinstance(overlay, Path) else ROOT / "overlays" / overlay
        done = subprocess.run(
            [*program, "kustomize", str(place), "--load-restrictor=LoadRestrictionsNone"],
            capture_output=True,
            text=True,
        )
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
    assert bound == {"curricle-launcher"} | ({"curricle-reconciler"} if of_kind(objects, "CronJob") else set())


def test_the_reconciler_names_its_namespace_and_may_do_what_it_does_there_and_no_more(build):
    """Kubeflow Pipelines asks Kubernetes for these where it serves several users; its own groups of rights are read from its source."""
    objects = build("production")
    job = of_kind(objects, "CronJob")["curricle-recurring-runs"]["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    (namespace,) = (e for e in job["containers"][0]["env"] if e["name"] == "CURRICLE_KFP_NAMESPACE")
    assert namespace["valueFrom"] == {"fieldRef": {"fieldPath": "metadata.namespace"}}
    role = of_kind(objects, "Role")["curricle-reconciler"]
    assert {group for rule in role["rules"] for group in rule["apiGroups"]} == {"pipelines.kubeflow.org"}
    may = {(resource, verb) for rule in role["rules"] for resource in rule["resources"] for verb in rule["verbs"]}
    made = {("pipelines", "create"), ("pipelines/versions", "create"), ("experiments", "create"), ("jobs", "create")}
    assert made | {("jobs", verb) for verb in ("list", "delete", "enable", "disable")} <= may
    assert not {pair for pair in may if pair[1] == "delete"} - {("jobs", "delete")}


@pytest.mark.parametrize("overlay", ["dev", "production"])
def test_a_second_release_can_be_applied_over_the_first(overlay, build):
    """A Job's template cannot change, nor the selector of a Deployment: kubectl and skaffold apply neither. Argo CD and Flux make hooks anew."""
    assert not {"Job", "Pod", "ReplicaSet", "Deployment", "StatefulSet"} & {o["kind"] for o in build(overlay)}
    jobs = of_kind(build("gitops"), "Job")
    assert list(jobs) == ["curricle-recurring-runs-now"]
    notes = jobs["curricle-recurring-runs-now"]["metadata"]["annotations"]
    assert notes["argocd.argoproj.io/hook-delete-policy"] == "BeforeHookCreation"
    assert notes["kustomize.toolkit.fluxcd.io/force"] == "enabled"
    for name in ("argocd-application", "flux-kustomization"):
        assert "manifests/overlays/gitops" in (ROOT / "gitops" / f"{name}.yaml").read_text()


def test_the_job_runs_what_the_cron_job_runs(build):
    objects = build("gitops")
    cron, job = (
        of_kind(objects, "CronJob")["curricle-recurring-runs"],
        of_kind(objects, "Job")["curricle-recurring-runs-now"],
    )
    assert job["spec"] == cron["spec"]["jobTemplate"]["spec"]
    container = job["spec"]["template"]["spec"]["containers"][0]
    assert (
        container["image"] == "registry.example.com/curricle/control:0.2.0"
        and container["securityContext"]["readOnlyRootFilesystem"]
    )


def test_the_network_policy_means_the_pods_that_are_rendered(build, job, plain):
    from curricle.launch.kubernetes.pytorchjob import PYTORCHJOB
    from curricle.launch.kubernetes.render import render

    labels = render(PYTORCHJOB, job, plain)["spec"]["pytorchReplicaSpecs"]["Master"]["template"]["metadata"]["labels"]
    selector = of_kind(build("production"), "NetworkPolicy")["curricle-worker"]["spec"]["podSelector"]["matchLabels"]
    assert selector.items() <= labels.items()


def test_the_network_policy_lets_workers_reach_both_stores_of_kubeflow_at_their_pods_ports():
    text = (ROOT / "components/network-policy/network-policy.yaml").read_text()
    rules = yaml.safe_load(text)["spec"]["egress"]
    stores = {
        peer["podSelector"]["matchLabels"]["app"]: [port["port"] for port in rule["ports"]]
        for rule in rules
        for peer in rule.get("to", [])
        if "namespaceSelector" in peer
    }
    assert stores == {"seaweedfs": [8333], "minio": [9000]}


@pytest.mark.parametrize("place", ["base", "overlays/dev", "overlays/production"])
def test_workers_trust_the_authorities_that_components_trust(place):
    options = from_environment({"CURRICLE_CLUSTER_YAML": (ROOT / place / "cluster.yaml").read_text()})
    (entry,) = options.env_entries
    assert entry["name"] == "CURRICLE_CA_CERTIFICATES"
    assert entry["valueFrom"]["configMapKeyRef"] == {"name": "curricle-ca", "key": "ca.crt", "optional": True}


def test_every_account_pulls_with_the_secret_of_a_private_registry(build, tmp_path):
    at = {name: os.path.relpath(ROOT / name, tmp_path) for name in ("overlays/production", "components/pull-secret")}
    (tmp_path / "kustomization.yaml").write_text(
        f"resources: [{at['overlays/production']}]\ncomponents: [{at['components/pull-secret']}]\n"
    )
    accounts = of_kind(build(tmp_path), "ServiceAccount")
    assert set(accounts) == {"curricle-launcher", "curricle-worker", "curricle-reconciler"}
    assert all(account["imagePullSecrets"] == [{"name": "curricle-registry"}] for account in accounts.values())


@pytest.fixture(scope="module")
def serving():
    """What the manifests are held against: the command, and the routes that its probes ask."""
    from curricle.cli import cli
    from curricle.serve import app

    command = cli.get_command(click.Context(cli), "serve")
    return command, set(re.findall(r'@app\.get\("(/\w+)"', Path(app.__file__).read_text()))


@pytest.mark.parametrize("place", ["serve", "overlays/kserve"])
def test_a_served_model_has_least_rights_and_is_asked_as_it_answers(place, build, serving):
    objects = build(ROOT / place)
    command, routes = serving
    if place == "serve":
        pod = of_kind(objects, "Deployment")["curricle-serve"]["spec"]["template"]["spec"]
    else:
        pod = of_kind(objects, "InferenceService")["curricle-serve"]["spec"]["predictor"]
        assert not of_kind(objects, "Deployment") and not of_kind(objects, "Service")
        assert pod["containers"][0]["name"] == "kserve-container"
    assert pod["securityContext"]["runAsNonRoot"] and not pod["automountServiceAccountToken"]
    (container,) = pod["containers"]
    assert container["securityContext"] == {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}  # fmt: skip
    mounted = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
    volumes = {volume["name"]: volume["emptyDir"]["sizeLimit"] for volume in pod["volumes"]}
    assert set(mounted) == {container["workingDir"], "/tmp"} and set(volumes) == set(mounted.values())
    probes = {name: container[name]["httpGet"] for name in ("startupProbe", "readinessProbe", "livenessProbe")}
    assert {probe["path"] for probe in probes.values()} == {"/healthz", "/readyz"} <= routes
    command.make_context("serve", ["--host", "0.0.0.0", *container["args"]])
    grace = next(option.default for option in command.params if option.name == "grace")
    assert pod["terminationGracePeriodSeconds"] > grace + int(container["lifecycle"]["preStop"]["exec"]["command"][1])
    named = {e["valueFrom"]["configMapKeyRef"]["name"] for e in container["env"] if e["name"] in ("MODEL", "STORE")}
    assert named == set(of_kind(objects, "ConfigMap"))


def test_the_service_and_the_policy_mean_the_pods_that_serve(build):
    objects = build(ROOT / "serve")
    labels = of_kind(objects, "Deployment")["curricle-serve"]["spec"]["template"]["metadata"]["labels"]
    assert of_kind(objects, "Service")["curricle-serve"]["spec"]["selector"].items() <= labels.items()
    policy = of_kind(objects, "NetworkPolicy")["curricle-serve"]["spec"]
    assert policy["podSelector"]["matchLabels"].items() <= labels.items() and policy["policyTypes"] == ["Ingress"]
