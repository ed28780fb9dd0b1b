"""The two images as pods see them: an arbitrary numeric user, a read-only root, no compiler, and in each what it needs."""

import json
import time
import uuid

import pytest

pytestmark = [pytest.mark.cluster, pytest.mark.filterwarnings("ignore::urllib3.exceptions.InsecureRequestWarning")]

LOOK = """
import importlib.util, json, os, pathlib, shutil
from kfp_pipelines.recurring import COMPILED
try: pathlib.Path("/opt/curricle/x").touch(); writable = True
except OSError: writable = False
print("LOOK", json.dumps({"user": os.getuid(), "writable": writable, "torch": importlib.util.find_spec("torch") is not None,
  "compilers": [p for p in ("gcc", "cc", "g++", "c++", "make", "ld") if shutil.which(p)], "pipelines": len(list(COMPILED.glob("*.yaml")))}))
"""


@pytest.mark.parametrize(("image", "torch"), [("control", False), ("trainer", True)])
@pytest.mark.parametrize("user", [10001, 54321])
def test_an_image_runs_as_any_numeric_user_on_a_read_only_root(core, image, torch, user):
    name = f"image-{uuid.uuid4().hex[:8]}"
    body = {
        "metadata": {"name": name},
        "spec": {"restartPolicy": "Never", "automountServiceAccountToken": False, "securityContext": {"runAsNonRoot": True, "runAsUser": user}, "containers": [{
            "name": "main", "image": f"curricle/{image}:dev", "imagePullPolicy": "IfNotPresent", "command": ["python", "-c", LOOK],
            "securityContext": {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}}]},
    }  # fmt: skip
    core.create_namespaced_pod("kubeflow", body)
    try:
        until = time.monotonic() + 120
        while (phase := core.read_namespaced_pod(name, "kubeflow").status.phase) not in ("Succeeded", "Failed"):
            assert time.monotonic() < until
            time.sleep(0.5)
        log = core.read_namespaced_pod_log(name, "kubeflow")
        assert phase == "Succeeded", log
        found = json.loads(log.splitlines()[-1].removeprefix("LOOK "))
    finally:
        core.delete_namespaced_pod(name, "kubeflow", grace_period_seconds=0)
    assert (found["user"], found["writable"], found["torch"], found["compilers"]) == (user, False, torch, [])
    assert found["pipelines"] >= 6
