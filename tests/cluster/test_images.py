"""The two images as pods see them: an arbitrary numeric user, a read-only root, no compiler, and in each what it needs."""

import json
import time
import uuid
from pathlib import Path

import pytest

pytestmark = [pytest.mark.cluster, pytest.mark.filterwarnings("ignore::urllib3.exceptions.InsecureRequestWarning")]

CHECK = (Path(__file__).parents[2] / "images/look.py").read_text(encoding="utf-8")
LOOK = """
import importlib.util, json, os, pathlib, shutil
from kfp_pipelines.recurring import COMPILED
try: pathlib.Path("/opt/curricle/x").touch(); writable = True
except OSError: writable = False
print("LOOK", json.dumps({"user": os.getuid(), "writable": writable, "torch": importlib.util.find_spec("torch") is not None,
  "compilers": [p for p in ("gcc", "cc", "g++", "c++", "make", "ld") if shutil.which(p)], "pipelines": len(list(COMPILED.glob("*.yaml")))}))
"""


def run(core, image, user, *command, mounts=(), **spec):
    """What a pod of that image prints, and how it ended."""
    name = f"image-{uuid.uuid4().hex[:8]}"
    body = {
        "metadata": {"name": name},
        "spec": {**spec, "restartPolicy": "Never", "automountServiceAccountToken": False, "securityContext": {"runAsNonRoot": user != 0, "runAsUser": user}, "containers": [{
            "name": "main", "image": f"curricle/{image}:dev", "imagePullPolicy": "IfNotPresent", "command": ["python", "-c", *command], "volumeMounts": list(mounts),
            "securityContext": {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}}]},
    }  # fmt: skip
    core.create_namespaced_pod("kubeflow", body)
    try:
        until = time.monotonic() + 120
        while (phase := core.read_namespaced_pod(name, "kubeflow").status.phase) not in ("Succeeded", "Failed"):
            assert time.monotonic() < until
            time.sleep(0.5)
        answer = core.read_namespaced_pod_log(
            name, "kubeflow", _preload_content=False
        )  # else a log of JSON is taken apart
        return phase, answer.data.decode()
    finally:
        core.delete_namespaced_pod(name, "kubeflow", grace_period_seconds=0)


@pytest.mark.parametrize(("image", "torch"), [("control", False), ("trainer", True)])
@pytest.mark.parametrize("user", [10001, 54321])
def test_an_image_runs_as_any_numeric_user_on_a_read_only_root(core, image, torch, user):
    phase, log = run(core, image, user, LOOK)
    assert phase == "Succeeded", log
    found = json.loads(log.splitlines()[-1].removeprefix("LOOK "))
    assert (found["user"], found["writable"], found["torch"], found["compilers"]) == (user, False, torch, [])
    assert found["pipelines"] >= 6


@pytest.mark.parametrize("image", ["control", "trainer"])
def test_nothing_in_an_image_runs_as_another_user_or_may_be_written_by_everybody(core, image):
    phase, log = run(core, image, 0, CHECK, "check")
    assert phase == "Succeeded", log


@pytest.mark.parametrize(("image", "torch"), [("control", False), ("trainer", True)])
def test_the_bill_of_materials_holds_what_is_installed(core, image, torch):
    phase, log = run(core, image, 10001, CHECK, "sbom", image)
    assert phase == "Succeeded", log
    parts = {part["purl"].partition("@")[0] for part in json.loads(log)["components"]}
    assert {"pkg:pypi/curricle", "pkg:pypi/minio", "pkg:deb/debian/libc6"} <= parts
    assert ("pkg:pypi/torch" in parts) == torch


def test_the_trainer_image_needs_no_hub_and_no_index(core):
    """No name server, and every way out refused: it prepares its demo data, loads the encoder that it holds and encodes a text."""
    offline = (Path(__file__).parents[2] / "images/offline.py").read_text(encoding="utf-8")
    nobody = {"dnsPolicy": "None", "dnsConfig": {"nameservers": ["127.0.0.1"]}}
    tmp = {"volumes": [{"name": "tmp", "emptyDir": {}}]}
    phase, log = run(core, "trainer", 10001, offline, mounts=[{"name": "tmp", "mountPath": "/tmp"}], **nobody, **tmp)
    assert phase == "Succeeded" and "OFFLINE " in log, log
