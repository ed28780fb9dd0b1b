"""The manifests before a genuine API server: server-side dry-run, and what each account may and may not do."""

import os
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

pytestmark = pytest.mark.cluster

ROOT = Path(__file__).parents[2] / "manifests"
LAUNCHER = "system:serviceaccount:kubeflow:curricle-launcher"
WORKER = "system:serviceaccount:kubeflow:curricle-worker"


@pytest.fixture(scope="module")
def kubectl(kubeconfig):
    program = shlex.split(os.environ.get("CURRICLE_KUBECTL", "kubectl"))
    if not shutil.which(program[0]):
        pytest.skip(f"no kubectl: {program[0]} is not on the PATH (set CURRICLE_KUBECTL)")

    def run(*arguments, check=True, given=None):
        done = subprocess.run([*program, *arguments], capture_output=True, text=True, timeout=60, input=given)
        assert not check or done.returncode == 0, done.stderr
        return done.stdout + done.stderr

    return run


@pytest.fixture(scope="module")
def definitions(kubectl, shared):
    """Kueue's, Argo CD's and Flux' real definitions, without their controllers; those of a Kueue that runs here are its own."""
    folder = shared / "data" / "kubernetes-schemas"
    there = kubectl("get", "crds", "-o", "name")
    missing = [
        p for p in sorted(folder.glob("*.yaml")) if yaml.safe_load(p.read_text())["metadata"]["name"] not in there
    ]
    for path in missing:
        kubectl("apply", "--server-side", "-f", str(path))
    for path in missing:
        kubectl("wait", "--for=condition=Established", "--timeout=30s", "-f", str(path))


@pytest.fixture(scope="module")
def dev(kubectl):
    kubectl("apply", "--server-side", "-k", str(ROOT / "overlays" / "dev"))


@pytest.mark.parametrize("overlay", ["dev", "production", "gitops"])
def test_the_server_accepts_an_overlay(overlay, kubectl, definitions):
    kubectl("apply", "--server-side", "--dry-run=server", "--validate=strict", "-k", str(ROOT / "overlays" / overlay))


@pytest.mark.parametrize("name", ["argocd-application.yaml", "flux-kustomization.yaml"])
def test_the_server_accepts_the_gitops_examples(name, kubectl, definitions, tmp_path):
    """Their own namespaces are not there, and a dry run makes none."""
    text = (
        (ROOT / "gitops" / name)
        .read_text()
        .replace("namespace: argocd", "namespace: default")
        .replace("namespace: flux-system", "namespace: default")
    )
    (tmp_path / name).write_text(text)
    kubectl("apply", "--server-side", "--dry-run=server", "--validate=strict", "-f", str(tmp_path / name))


@pytest.mark.parametrize(
    ("who", "verb", "what", "answer"),
    [
        (LAUNCHER, "create", "pytorchjobs.kubeflow.org", "yes"),
        (LAUNCHER, "patch", "pytorchjobs.kubeflow.org", "yes"),
        (LAUNCHER, "delete", "pytorchjobs.kubeflow.org", "yes"),
        (LAUNCHER, "create", "trainjobs.trainer.kubeflow.org", "yes"),
        (LAUNCHER, "patch", "trainjobs.trainer.kubeflow.org", "yes"),
        (LAUNCHER, "delete", "trainjobs.trainer.kubeflow.org", "yes"),
        (LAUNCHER, "get", "trainingruntimes.trainer.kubeflow.org", "yes"),
        (LAUNCHER, "create", "trainingruntimes.trainer.kubeflow.org", "no"),
        (LAUNCHER, "get", "pods/log", "yes"),
        (LAUNCHER, "get", "secret/mlpipeline-minio-artifact", "yes"),
        (LAUNCHER, "get", "secret/another", "no"),
        (LAUNCHER, "list", "secrets", "no"),
        (LAUNCHER, "create", "pods", "no"),
        (LAUNCHER, "create", "pods/exec", "no"),
        (LAUNCHER, "delete", "pods", "no"),
        (WORKER, "get", "pods", "no"),
        (WORKER, "list", "pytorchjobs.kubeflow.org", "no"),
        (WORKER, "get", "secret/mlpipeline-minio-artifact", "no"),
    ],
)
def test_each_account_may_do_its_work_and_no_more(who, verb, what, answer, kubectl, dev):
    resource = what if "/log" not in what and "/exec" not in what else what.split("/")[0]
    sub = ["--subresource", what.split("/")[1]] if resource != what else []
    assert (
        kubectl("auth", "can-i", verb, resource, *sub, "--as", who, "-n", "kubeflow", check=False).split()[-1] == answer
    )


RECONCILER = "system:serviceaccount:kubeflow:curricle-reconciler"


def test_with_kueue_the_launcher_may_look_at_its_queue_and_no_more(kubectl, dev, definitions):
    kubectl("apply", "--server-side", "-n", "kubeflow", "-f", str(ROOT / "components" / "kueue" / "launcher.yaml"))

    def may(verb, resource):
        return kubectl("auth", "can-i", verb, resource, "--as", LAUNCHER, "-n", "kubeflow", check=False).split()[-1]

    assert may("get", "localqueues.kueue.x-k8s.io") == "yes"
    assert (
        may("create", "localqueues.kueue.x-k8s.io"),
        may("delete", "localqueues.kueue.x-k8s.io"),
        may("list", "localqueues.kueue.x-k8s.io"),
    ) == ("no", "no", "no")


def test_the_reconciler_may_do_nothing_in_kubernetes(kubectl, kubeconfig):
    kubectl(
        "apply",
        "--server-side",
        "-n",
        "kubeflow",
        "-f",
        "-",
        given="apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: curricle-reconciler}\n",
    )
    for verb, resource in (
        ("get", "pods"),
        ("get", "secret/mlpipeline-minio-artifact"),
        ("create", "pytorchjobs.kubeflow.org"),
        ("list", "configmaps"),
    ):
        assert (
            kubectl("auth", "can-i", verb, resource, "--as", RECONCILER, "-n", "kubeflow", check=False).split()[-1]
            == "no"
        )


def test_the_launcher_has_no_rights_in_other_namespaces(kubectl, dev):
    assert (
        kubectl(
            "auth", "can-i", "create", "pytorchjobs.kubeflow.org", "--as", LAUNCHER, "-n", "default", check=False
        ).split()[-1]
        == "no"
    )


def test_a_second_release_is_applied_over_the_first(kubectl, definitions, tmp_path):
    """As `kubectl apply -k` of production with one tag, then another; removed afterwards."""
    first = kubectl("kustomize", str(ROOT / "overlays/production"))
    place = tmp_path / "all.yaml"
    try:
        for tag in ("0.2.0", "0.3.0"):
            place.write_text(first.replace("0.2.0", tag))
            kubectl("apply", "--server-side", "-f", str(place))
        image = kubectl("-n", "kubeflow", "get", "cronjob", "curricle-recurring-runs", "-o", "yaml")
        assert "curricle/control:0.3.0" in image
    finally:
        kubectl("delete", "--ignore-not-found", "-f", str(place), check=False)
        kubectl("apply", "--server-side", "-k", str(ROOT / "overlays/dev"))
