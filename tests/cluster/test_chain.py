"""A whole chain on a genuine cluster: pods with the launcher's account run the compiled components' own commands, PyTorchJobs with two pods
train, artifacts lie in MinIO."""

import contextlib
import json
import time
import uuid

import pytest
from kubernetes.client import ApiException

from curricle.launch.job import RETRYABLE, RUN
from curricle.launch.kubernetes.pytorchjob import PYTORCHJOB
from curricle.launch.kubernetes.reasons import classify
from curricle.steps.relay import RunReader
from curricle.steps.source import best_checkpoint
from curricle.store import layout, open_store
from curricle.store.manifest import read_manifest

pytestmark = [pytest.mark.cluster, pytest.mark.filterwarnings("ignore::urllib3.exceptions.InsecureRequestWarning")]

NAMESPACE = "kubeflow"
TINY = (
    "model.dim=8 model.max_tokens=16 data_loader.batch_size=128 training.trainer.max_epochs=2 training.trainer.num_nodes=2 "
    "training.trainer.save_every_n_steps=2 tracking.mlflow=false tracking.tensorboard=false"
)

TASK = {
    "env": [{"name": "SET_ON_THE_TASK", "value": "yes"}], "resources": {"limits": {"memory": "1900Mi"}},
    "tolerations": [{"key": "pool", "operator": "Exists"}], "nodeSelector": {"kubernetes.io/os": "linux"},
    "volumes": [{"name": "extra", "emptyDir": {}}], "volumeMounts": [{"name": "extra", "mountPath": "/extra"}],
}  # fmt: skip
"""What a person sets on the KFP task, as Kubeflow's driver hands it on (`dsl.TaskConfig`)."""


@pytest.fixture(scope="module")
def component(components):
    return components("chain_smoke")


def prepare(component, run_id, store, overrides=TINY):
    """The URI of the prepared data."""
    out, log, good = component.run(
        "exec-prepare-data",
        config="config.yaml",
        chain="chain_smoke",
        data_key="data.source",
        data_source="demo",
        overrides=overrides,
        store_uri=store,
        run_id=run_id,
        job_id="none",
    )
    assert good, log
    return out["Output"]


def plan(component, run_id, store, data, overrides=TINY):
    out, log, good = component.run("exec-plan-chain", config="config.yaml", chain="chain_smoke", stages="all", data_key="data.source", data_source="demo", overrides=overrides, store_uri=store, data_uri=data, start_uri="",
                               start_mode="auto", resume=True, run_id=run_id, job_id="none", launcher="pytorchjob", gate_rule="", registry="", model_name="m")  # fmt: skip
    assert good, log
    return out


def train(component, executor, planned, index, parent, **options):
    return component.run(
        executor,
        plan_uri=planned["plan_uri"],
        index=index,
        mode=planned[f"mode_{index + 1}"],
        parent_uri=parent,
        **{"task_config": {}, "launcher": "pytorchjob"} | options,
    )


@pytest.fixture(scope="module")
def chain(component):
    """A two-stage chain that was run, component by component."""
    run_id, store = f"chain-{uuid.uuid4().hex[:6]}", f"minio://mlpipeline/test-{uuid.uuid4().hex[:6]}"
    data = prepare(component, run_id, store)
    planned = plan(component, run_id, store, data)
    assert (planned["mode_1"], planned["mode_2"]) == ("scratch", "continued")
    reader = RunReader(store, run_id)
    first, log, good = train(component, "exec-train-stage", planned, 0, "")
    assert good, log
    second, log, good = train(component, "exec-train-stage-4", planned, 1, first["Output"], task_config=TASK)
    assert good, log
    return {
        "run_id": run_id,
        "store": store,
        "data": data,
        "uri": second["Output"],
        "log": log,
        "lines": list(reader.lines()),
    }


def test_preflight_runs_with_the_launchers_account_and_tries_the_store_from_a_workers_pod(component):
    out, log, good = component.run(
        "exec-preflight",
        enabled=True,
        store_uri="minio://mlpipeline/preflight",
        launcher="pytorchjob",
        run_id="preflight",
        job_id="none",
    )
    assert good and out["Output"] == "ready", log
    assert "ok      store, worker: delete" in log and "ran as curricle-worker" in log


def test_what_a_component_fails_of_is_read_from_the_store(component):
    run_id, store = f"wrong-{uuid.uuid4().hex[:6]}", f"minio://mlpipeline/test-{uuid.uuid4().hex[:6]}"
    reader = RunReader(store, run_id)
    out, log, good = component.run(
        "exec-resolve-start",
        from_checkpoint="99_stage",
        stage="01_stage",
        store_uri=store,
        run_id=run_id,
        job_id="none",
    )
    assert not good and "99_stage" in log
    (failure,) = reader.failures()
    assert failure.task == "resolve start" and failure.exit_code == 2 and "99_stage" in failure.message


def test_two_pods_train_a_stage_with_its_artifacts_in_the_store(chain, make_launcher):
    assert chain["uri"] == f"{chain['store']}/{chain['run_id']}/02_stage"
    jobs = make_launcher().api.list_jobs(f"{RUN}={chain['run_id']}")
    replicas = jobs[0]["spec"]["pytorchReplicaSpecs"]
    assert len(jobs) == 2 and replicas["Master"]["replicas"] == replicas["Worker"]["replicas"] == 1
    assert "epoch 1/2 done: " in chain["log"]


def test_what_is_set_on_the_task_arrives_at_every_pod_of_the_job(chain, make_launcher):
    (job,) = make_launcher().api.list_jobs(f"{RUN}={chain['run_id']},curricle.dev/stage=02_stage")
    pods = make_launcher().api.list_pods(
        job["metadata"]["name"]
    )  # one that still shut down when the master had ended is gone
    assert pods
    for pod in [*pods, *(replica["template"] for replica in job["spec"]["pytorchReplicaSpecs"].values())]:
        container = pod["spec"]["containers"][0]
        assert TASK["env"][0] in container["env"] and container["resources"]["limits"]["memory"] == "1900Mi"
        assert (
            TASK["tolerations"][0] in pod["spec"]["tolerations"] and pod["spec"]["nodeSelector"] == TASK["nodeSelector"]
        )
        assert (
            TASK["volumeMounts"][0] in container["volumeMounts"]
            and pod["spec"]["serviceAccountName"] == "curricle-worker"
        )


def test_whoever_submitted_the_chain_reads_its_log_lines_from_the_store(chain):
    assert any(line.startswith("02_stage: epoch 1") for line in chain["lines"]), chain["lines"]
    assert any(line.startswith("02_stage: done, best is ") for line in chain["lines"]), chain["lines"]


def test_a_second_run_reuses_both_stages(chain, component):
    again = plan(component, chain["run_id"] + "-again", chain["store"], chain["data"])
    assert (again["mode_1"], again["mode_2"]) == ("reuse", "reuse")
    out, log, good = component.run("exec-reuse-stage", plan_uri=again["plan_uri"], index=1, mode="reuse", parent_uri="")
    assert good and out["Output"] == chain["uri"], log


def test_the_result_is_evaluated_in_its_component(chain, component):
    out, log, good = component.run(
        "exec-evaluate-model", uri=chain["uri"], store_uri=chain["store"], run_id="", job_id="none"
    )
    assert good and json.loads(out["Output"])["test/top1"] >= 0, log


def test_a_worker_pod_killed_by_hand_ends_in_the_very_same_weights(core, component, chain):
    run_id, store = f"kill-{uuid.uuid4().hex[:6]}", f"minio://mlpipeline/test-{uuid.uuid4().hex[:6]}"
    data = prepare(component, run_id, store)
    out = plan(component, run_id, store, data)
    first, log, good = train(component, "exec-train-stage", out, 0, "")
    assert good, log
    pod = train(component, "exec-train-stage-4", out, 1, first["Output"], wait=False)
    wait_for(core, pod, "epoch 1/")
    workers = core.list_namespaced_pod(
        NAMESPACE,
        label_selector=f"{RUN}={run_id},curricle.dev/stage=02_stage,training.kubeflow.org/replica-type=worker",
    ).items
    core.delete_namespaced_pod(workers[0].metadata.name, NAMESPACE, grace_period_seconds=0)
    second, log, good = component.finish(pod)
    assert good and "starting again from the last checkpoint" in log, log
    killed, whole = (
        read_manifest(open_store(best_checkpoint(uri)), "").files["model.safetensors"].sha256
        for uri in (second["Output"], chain["uri"])
    )
    assert killed == whole


def wait_for(core, pod, text):
    """Until a component's log holds a text."""
    until = time.monotonic() + 200
    while True:
        assert time.monotonic() < until
        with contextlib.suppress(ApiException):
            if text in core.read_namespaced_pod_log(pod, NAMESPACE):
                return
        time.sleep(0.5)


def test_a_job_goes_on_under_a_launcher_that_starts_again_and_stops_by_itself_when_none_does(
    core, component, chain, make_launcher
):
    run_id, store = f"silent-{uuid.uuid4().hex[:6]}", chain["store"]
    planned = plan(component, run_id, store, chain["data"], TINY.replace("max_epochs=2", "max_epochs=500"))
    first, log, good = train(component, "exec-train-stage", planned, 0, "")
    assert good, log
    api = make_launcher().api

    def launcher_pod():
        pod = train(
            component,
            "exec-train-stage-4",
            planned,
            1,
            first["Output"],
            wait=False,
            settings={"heartbeat_seconds": 100},
        )
        wait_for(core, pod, " step ")
        return pod

    def kill(pod):  # by SIGKILL: it has no moment to delete the job
        core.delete_namespaced_pod(pod, NAMESPACE, grace_period_seconds=0)

    kill(launcher_pod())
    time.sleep(12)
    again = launcher_pod()  # it waits until the claim of the dead one has stood still for half a minute
    time.sleep(70)
    (job,) = api.list_jobs(f"{RUN}={run_id},curricle.dev/stage=02_stage")
    assert PYTORCHJOB.phase(job) == "running"
    kill(again)
    until = time.monotonic() + 200
    while PYTORCHJOB.phase(job := api.get_job(job["metadata"]["name"])) == "running":
        assert time.monotonic() < until
        time.sleep(1)
    outcome = classify(PYTORCHJOB, api.list_pods(job["metadata"]["name"]), job)
    assert outcome.reason == "interrupted" and outcome.exit_code == 143 and outcome.reason in RETRYABLE, outcome
    assert not [
        pod
        for pod in api.list_pods(job["metadata"]["name"])
        if pod["status"]["phase"] == "Running" and "deletionTimestamp" not in pod["metadata"]
    ]
    saved = [read_manifest(open_store(f"{store}/{run_id}/02_stage"), slot) for slot in (layout.LAST, layout.SPARE)]
    assert max(m.info["step"] for m in saved if m) > 0
    make_launcher().delete_by_run(run_id)


def test_the_exit_handler_deletes_the_jobs_that_are_left(chain, component, make_launcher):
    out, log, good = component.run("exec-cleanup", run_id=chain["run_id"], job_id="none", store_uri=chain["store"], launcher="pytorchjob",
                               status={"state": "COMPLETE", "pipelineJobResourceName": "x", "pipelineTaskName": "chain"})  # fmt: skip
    assert good, log
    until = time.monotonic() + 30
    while make_launcher().api.list_jobs(f"{RUN}={chain['run_id']}"):
        assert time.monotonic() < until
        time.sleep(1)
