"""A whole chain on a genuine cluster: pods with the launcher's account run the compiled components' own commands, PyTorchJobs with two pods
train, artifacts lie in MinIO. Only Kubeflow's driver is played by this test: it fills in the executor's input."""

import contextlib
import json
import os
import time
import uuid

import pytest
import yaml
from kubernetes.client import ApiException

from curricle.launch.pytorchjob.render import RUN
from curricle.steps.resolve import best_checkpoint
from curricle.store import open_store
from curricle.store.manifest import read_manifest

pytestmark = [pytest.mark.cluster, pytest.mark.filterwarnings("ignore::urllib3.exceptions.InsecureRequestWarning")]

NAMESPACE = "kubeflow"
TINY = "model.dim=8 model.max_tokens=16 training.trainer.num_nodes=2 tracking.mlflow=false tracking.tensorboard=false"


@pytest.fixture(scope="module", autouse=True)
def store_environment():
    """The store as this machine sees it; another cluster's is given by the variables."""
    for name, value in (("S3_ENDPOINT", "http://127.0.0.1:9000"), ("AWS_ACCESS_KEY_ID", "minio"), ("AWS_SECRET_ACCESS_KEY", "minio123")):
        os.environ.setdefault(name, value)


@pytest.fixture(scope="module")
def core(kubeconfig):
    from kubernetes import client, config

    config.load_kube_config(kubeconfig)
    return client.CoreV1Api()


@pytest.fixture(scope="module")
def deployed(kubeconfig):
    import shlex
    import subprocess
    from pathlib import Path

    program = shlex.split(os.environ.get("CURRICLE_KUBECTL", "kubectl"))
    overlay = Path(__file__).parents[2] / "manifests" / "overlays" / "dev"
    subprocess.run([*program, "apply", "--server-side", "-k", str(overlay)], check=True, capture_output=True, timeout=60)


@pytest.fixture(scope="module")
def component(core, deployed, tmp_path_factory):
    """Run a component of the compiled pipeline as a pod: (parameters) → (output parameters, log, succeeded)."""
    from kfp_pipelines.compile import compile_all

    package, = (p for p in compile_all(tmp_path_factory.mktemp("compiled")) if p.stem == "chain_smoke")
    spec, platform = yaml.safe_load_all(package.read_text())
    made = []

    def env_of(executor):
        entries = []
        config = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"].get(executor, {})
        for secret in config.get("secretAsEnv", []):
            entries += [{"name": k["envVar"], "valueFrom": {"secretKeyRef": {"name": secret["secretName"], "key": k["secretKey"]}}} for k in secret["keyToEnv"]]
        for values in config.get("configMapAsEnv", []):
            entries += [{"name": k["envVar"], "valueFrom": {"configMapKeyRef": {"name": values["configMapName"], "key": k["configMapKey"]}}} for k in values["keyToEnv"]]
        return entries

    def run(executor, wait=True, **parameters):
        container = spec["deploymentSpec"]["executors"][executor]["container"]
        outputs = spec["components"][executor.replace("exec-", "comp-", 1)].get("outputDefinitions", {})
        entry = {
            "inputs": {"parameterValues": parameters},
            "outputs": {
                "parameters": {name: {"outputFile": f"/tmp/out/{name}"} for name in outputs.get("parameters", {})},
                "artifacts": {name: {"artifacts": [{"name": name, "type": kind["artifactType"], "uri": f"/tmp/out/{name}", "metadata": {}}]}
                              for name, kind in outputs.get("artifacts", {}).items()},
                "outputFile": "/tmp/out/executor_output.json",
            },
        }
        arguments = [a.replace("{{$}}", json.dumps(entry)) for a in container["args"]]
        name = f"component-{uuid.uuid4().hex[:8]}"
        body = {
            "metadata": {"name": name, "labels": {"test": "chain"}},
            "spec": {
                "serviceAccountName": "curricle-launcher", "restartPolicy": "Never", "terminationGracePeriodSeconds": 5,
                "containers": [{
                    "name": "main", "image": container["image"], "imagePullPolicy": "IfNotPresent",
                    "command": ["sh", "-c", '"$@"; code=$?; echo; echo OUTPUT $(cat /tmp/out/executor_output.json 2>/dev/null); exit $code', "sh"],
                    "args": [*container["command"], *arguments],
                    "env": env_of(executor), "securityContext": {"runAsNonRoot": True, "allowPrivilegeEscalation": False},
                }],
            },
        }  # fmt: skip
        core.create_namespaced_pod(NAMESPACE, body)
        made.append(name)
        return finish(name) if wait else name

    def finish(name, limit=300):
        until = time.monotonic() + limit
        while (phase := core.read_namespaced_pod(name, NAMESPACE).status.phase) not in ("Succeeded", "Failed"):
            assert time.monotonic() < until, core.read_namespaced_pod(name, NAMESPACE).status
            time.sleep(1)
        log = core.read_namespaced_pod_log(name, NAMESPACE)
        found = [line.removeprefix("OUTPUT ") for line in log.splitlines() if line.startswith("OUTPUT {")]
        return (json.loads(found[-1])["parameterValues"] if found else {}), log, phase == "Succeeded"

    run.finish = finish
    yield run
    for name in made:
        core.delete_namespaced_pod(name, NAMESPACE, grace_period_seconds=0)


def plan(component, run_id, store, data):
    out, log, good = component("exec-plan-chain", chain="chain_smoke", stages="all", data_source="demo", overrides=TINY, store_uri=store, data_uri=data, start_uri="",
                               start_mode="auto", resume=True, run_id=run_id, job_id="none", launcher="pytorchjob")  # fmt: skip
    assert good, log
    return out


def train(component, executor, planned, index, parent, **options):
    return component(executor, plan_uri=planned["plan_uri"], index=index, parent_uri=parent, launcher="pytorchjob", task_config={}, **options)


@pytest.fixture(scope="module")
def chain(component):
    """A two-stage chain that was run, component by component."""
    run_id, store = f"chain-{uuid.uuid4().hex[:6]}", f"minio://mlpipeline/test-{uuid.uuid4().hex[:6]}"
    data, log, good = component("exec-prepare-data", family="naics", data_source="demo", overrides=TINY, store_uri=store)
    assert good, log
    planned = plan(component, run_id, store, data["Output"])
    assert (planned["mode_1"], planned["mode_2"]) == ("scratch", "continued")
    first, log, good = train(component, "exec-train-stage", planned, 0, "")
    assert good, log
    second, log, good = train(component, "exec-train-stage-4", planned, 1, first["Output"])
    assert good, log
    return {"run_id": run_id, "store": store, "data": data["Output"], "uri": second["Output"], "log": log}


def test_preflight_runs_with_the_launchers_account_and_tries_the_store_from_a_workers_pod(component):
    out, log, good = component("exec-preflight", enabled=True, store_uri="minio://mlpipeline/preflight", launcher="pytorchjob")
    assert good and out["Output"] == "ready", log
    assert "| ok | store, worker: delete |" in log and "ran as curricle-worker" in log


def test_two_pods_train_a_stage_with_its_artifacts_in_the_store(chain, make_launcher):
    assert chain["uri"] == f"{chain['store']}/{chain['run_id']}/02_stage"
    jobs = make_launcher().api.list_jobs(f"{RUN}={chain['run_id']}")
    replicas = jobs[0]["spec"]["pytorchReplicaSpecs"]
    assert len(jobs) == 2 and replicas["Master"]["replicas"] == replicas["Worker"]["replicas"] == 1
    assert '"event": "epoch"' in chain["log"]


def test_a_second_run_reuses_both_stages(chain, component):
    again = plan(component, chain["run_id"] + "-again", chain["store"], chain["data"])
    assert (again["mode_1"], again["mode_2"]) == ("reuse", "reuse")
    out, log, good = component("exec-reuse-stage", plan_uri=again["plan_uri"], index=1, parent_uri="")
    assert good and out["Output"] == chain["uri"], log


def test_the_result_is_evaluated_in_its_component(chain, component):
    out, log, good = component("exec-evaluate-model", uri=chain["uri"], data_uri=chain["data"])
    assert good and json.loads(out["Output"])["test/top1"] >= 0, log


def test_a_worker_pod_killed_by_hand_ends_in_the_very_same_weights(core, component):
    digests = []
    data = ""
    for kill in (False, True):
        run_id, store = f"kill-{uuid.uuid4().hex[:6]}", f"minio://mlpipeline/test-{uuid.uuid4().hex[:6]}"
        more = f"{TINY} training.trainer.max_epochs=6 training.trainer.save_every_n_steps=2 data_loader.batch_size=64"
        data, log, good = component("exec-prepare-data", family="naics", data_source="demo", overrides=more, store_uri=store)
        out, log, good = component("exec-plan-chain", chain="chain_smoke", stages="all", data_source="demo", overrides=more, store_uri=store, data_uri=data["Output"],
                                   start_uri="", start_mode="auto", resume=True, run_id=run_id, job_id="none", launcher="pytorchjob")  # fmt: skip
        assert good, log
        first, log, good = train(component, "exec-train-stage", out, 0, "")
        assert good, log
        pod = train(component, "exec-train-stage-4", out, 1, first["Output"], wait=False)
        if kill:
            until = time.monotonic() + 200
            while True:
                assert time.monotonic() < until
                with contextlib.suppress(ApiException):
                    if '"event": "step"' in core.read_namespaced_pod_log(pod, NAMESPACE) or '"event": "epoch"' in core.read_namespaced_pod_log(pod, NAMESPACE):
                        break
                time.sleep(0.5)
            workers = core.list_namespaced_pod(NAMESPACE, label_selector=f"{RUN}={run_id},curricle.dev/stage=02_stage,training.kubeflow.org/replica-type=worker").items
            core.delete_namespaced_pod(workers[0].metadata.name, NAMESPACE, grace_period_seconds=0)
        second, log, good = component.finish(pod)
        assert good, log
        if kill:
            assert "starting again from the last checkpoint" in log, log
        best = best_checkpoint(second["Output"])
        manifest = read_manifest(open_store(best), "")
        digests.append(manifest.files["model.safetensors"].sha256)
    assert digests[0] == digests[1]


def test_the_exit_handler_deletes_the_jobs_that_are_left(chain, component, make_launcher):
    out, log, good = component("exec-cleanup", run_id=chain["run_id"], job_id="none", store_uri=chain["store"], launcher="pytorchjob",
                               status={"state": "COMPLETE", "pipelineJobResourceName": "x", "pipelineTaskName": "chain"})  # fmt: skip
    assert good, log
    until = time.monotonic() + 30
    while make_launcher().api.list_jobs(f"{RUN}={chain['run_id']}"):
        assert time.monotonic() < until
        time.sleep(1)
