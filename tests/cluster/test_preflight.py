"""Preflight on a genuine cluster: all well, and each thing that can be wrong with its own finding; no job is left."""

import os

import pytest

from curricle.launch.kubernetes import preflight
from curricle.launch.kubernetes.preflight import check_cluster, run_probe

pytestmark = [pytest.mark.cluster, pytest.mark.filterwarnings("ignore::urllib3.exceptions.InsecureRequestWarning")]

STORE = "minio://mlpipeline/preflight"
PROBE = ("-m", "curricle.steps.probe", STORE)
SETTINGS = {
    "env": {"S3_ENDPOINT": os.environ.get("S3_ENDPOINT_IN_CLUSTER", "http://minio-service.kubeflow:9000")},
    "env_from_secrets": {
        "AWS_ACCESS_KEY_ID": ("mlpipeline-minio-artifact", "accesskey"),
        "AWS_SECRET_ACCESS_KEY": ("mlpipeline-minio-artifact", "secretkey"),
    },
}


def probe(launcher):
    found = run_probe(launcher, PROBE)
    assert launcher.api.list_jobs("curricle.dev/run=preflight") == [] or all(
        "deletionTimestamp" in j["metadata"] for j in launcher.api.list_jobs("curricle.dev/run=preflight")
    )
    return found


def test_a_cluster_that_can_train_passes(make_launcher):
    launcher = make_launcher(**SETTINGS)
    found = [*check_cluster(launcher.kind, launcher.api, launcher.options), *probe(launcher)]
    assert [f for f in found if not f.ok] == [], found
    names = [f.name for f in found]
    assert names[:3] == ["PyTorchJob API", "rights", "operator version"] and "store, worker: delete" in names


def test_wrong_store_credentials_are_found_in_the_pod(make_launcher):
    launcher = make_launcher(env=SETTINGS["env"] | {"AWS_ACCESS_KEY_ID": "minio", "AWS_SECRET_ACCESS_KEY": "wrong"})
    failed = [f for f in probe(launcher) if not f.ok]
    assert len(failed) == 1 and failed[0].name.startswith("store, worker:"), failed


def test_an_unknown_image_a_missing_account_and_a_request_too_large_are_told_apart(make_launcher, monkeypatch):
    monkeypatch.setattr(
        preflight, "WAITS", preflight.Waits(poll=0.5, no_pod=8.0, image_pull=5.0, broken=5.0, schedule=5.0)
    )
    for changes, expected in (
        ({"image": "curricle/nowhere:1"}, "image_pull"),
        ({"service_account": "nobody"}, "no_pod"),
        ({"cpu": "900", "cpu_limit": ""}, "unschedulable"),
    ):
        (found,) = probe(make_launcher(**SETTINGS | changes))
        assert not found.ok and found.detail.startswith(expected) and found.advice == preflight.ADVICE[expected], found
    (found,) = probe(make_launcher(**SETTINGS | {"service_account": "nobody"}))
    assert "nobody" in found.detail, "the operator's own words are missing"


def test_a_queue_without_kueue_and_a_gpu_that_no_node_has_are_found(make_launcher):
    launcher = make_launcher(queue="nowhere", gpus=1, gpu_resource="example.com/gpu")
    found = {f.name: f for f in check_cluster(launcher.kind, launcher.api, launcher.options)}
    assert not found["queue nowhere"].ok and (
        "Kueue is not installed" in found["queue nowhere"].detail or "no LocalQueue" in found["queue nowhere"].detail
    )
    assert not found["example.com/gpu"].ok and "no node" in found["example.com/gpu"].detail
