"""TrainJobs on a genuine Kubeflow Trainer, beside PyTorchJobs, and both under a genuine Kueue. Skips where either is not installed."""

import copy
import os
import shlex
import subprocess
import threading
import time
import uuid
from pathlib import Path

import pytest
import yaml

from curricle.errors import JobError
from curricle.launch.job import RETRYABLE
from curricle.launch.kubernetes.auto import AutoLauncher
from curricle.launch.kubernetes.options import Waits
from curricle.launch.kubernetes.preflight import check_cluster
from curricle.launch.kubernetes.pytorchjob import PYTORCHJOB
from curricle.launch.kubernetes.trainjob import TRAINJOB, TrainJob

pytestmark = [pytest.mark.cluster, pytest.mark.filterwarnings("ignore::urllib3.exceptions.InsecureRequestWarning")]

ROOT = Path(__file__).parents[2]
REDUCE = """
import torch, torch.distributed as dist
dist.init_process_group("gloo")
x = torch.tensor([float(dist.get_rank() + 1)])
dist.all_reduce(x)
print(f"sum {x.item():.0f} of {dist.get_world_size()}", flush=True)
dist.barrier()
dist.destroy_process_group()
"""
TOGETHER = "import time, torch.distributed as d; d.init_process_group('gloo'); print('up', flush=True)\nwhile True: d.barrier(); time.sleep(.2)"


def kubectl(*arguments, given=None):
    program = shlex.split(os.environ.get("CURRICLE_KUBECTL", "kubectl"))
    done = subprocess.run([*program, *arguments], capture_output=True, text=True, timeout=90, input=given)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def trainer(kubeconfig):
    """Trainer with our runtime."""
    if "clustertrainingruntimes" not in kubectl("api-resources", "--api-group=trainer.kubeflow.org", "-o", "name"):
        pytest.skip("no Kubeflow Trainer: the cluster serves no clustertrainingruntimes.trainer.kubeflow.org")
    kubectl("apply", "--server-side", "--force-conflicts", "-k", str(ROOT / "manifests" / "trainer"))


QUEUES = """
apiVersion: kueue.x-k8s.io/v1beta2
kind: ResourceFlavor
metadata: {name: curricle-test}
---
apiVersion: kueue.x-k8s.io/v1beta2
kind: ClusterQueue
metadata: {name: curricle-test}
spec:
  namespaceSelector: {}
  resourceGroups:
  - coveredResources: [cpu, memory]
    flavors:
    - name: curricle-test
      resources: [{name: cpu, nominalQuota: 300m}, {name: memory, nominalQuota: 4Gi}]
---
apiVersion: kueue.x-k8s.io/v1beta2
kind: LocalQueue
metadata: {name: curricle-test, namespace: kubeflow}
spec: {clusterQueue: curricle-test}
"""
"""Room for one pod of 250m at a time."""


@pytest.fixture(scope="module")
def kueue(trainer):
    webhooks = kubectl("get", "mutatingwebhookconfigurations", "-o", "name")
    if "kueue" not in webhooks:
        pytest.skip("no Kueue: the cluster has no webhook of its name")
    kubectl("apply", "--server-side", "-f", "-", given=QUEUES)
    yield "curricle-test"
    kubectl("delete", "--ignore-not-found", "--wait=false", "-f", "-", given=QUEUES)


class Waiting:
    """A job that a thread waits for."""

    def __init__(self, launcher, job):
        self.launcher, self.job, self.lines, self.outcomes = launcher, job, [], []
        self.handle = launcher.submit(job)
        self.thread = threading.Thread(target=self._wait, daemon=True)
        self.thread.start()

    def _wait(self):
        try:
            self.outcomes.append(self.launcher.wait(self.handle, self.lines.append))
        except JobError as error:  # shown by whoever asks for the outcome
            self.lines.append(str(error))

    def until(self, words, seconds=120):
        until = time.monotonic() + seconds
        while not any(words in line for line in self.lines):
            assert time.monotonic() < until and self.thread.is_alive(), (words, self.lines, self.outcomes)
            time.sleep(0.2)

    def outcome(self, seconds=120):
        self.thread.join(seconds)
        assert self.outcomes, self.lines
        return self.outcomes[0]


def no_pods(launcher, name, seconds):
    until = time.monotonic() + seconds
    while pods := launcher.api.list_pods(name):
        assert time.monotonic() < until, [p["metadata"]["name"] for p in pods]
        time.sleep(0.5)


def test_trainer_takes_what_is_rendered_and_makes_the_pod_of_it(trainer, make_launcher, make_job):
    """Strictly: every field, also what only some jobs have."""
    launcher = make_launcher(
        TRAINJOB,
        node_selector={"kubernetes.io/os": "linux"}, tolerations=({"key": "pool", "operator": "Exists"},),
        affinity={"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
            {"matchExpressions": [{"key": "kubernetes.io/os", "operator": "Exists"}]}]}}},
        volumes=({"name": "extra", "emptyDir": {}},), volume_mounts=({"name": "extra", "mountPath": "/extra"},),
        image_pull_secrets=("none",), env_entries=({"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},),
    )  # fmt: skip
    job = make_job("import os; print(os.environ['NODE'], os.path.isdir('/extra'), flush=True)")
    asked = launcher.render(job)
    waiting = Waiting(launcher, job)
    assert waiting.outcome().state == "succeeded", waiting.lines
    assert any("node True" in line for line in waiting.lines), waiting.lines
    (pod,) = launcher.api.list_pods(job.name)
    (patch,) = asked["spec"]["runtimePatches"][0]["trainingRuntimeSpec"]["template"]["spec"]["replicatedJobs"]
    wanted = patch["template"]["spec"]["template"]
    assert wanted["metadata"]["labels"].items() <= pod["metadata"]["labels"].items()
    (container,) = pod["spec"]["containers"]
    for field in ("nodeSelector", "affinity", "securityContext"):
        assert pod["spec"][field] == wanted["spec"][field], field
    assert wanted["spec"]["tolerations"][0] in pod["spec"]["tolerations"]
    assert pod["spec"]["terminationGracePeriodSeconds"] == 120 and pod["spec"]["restartPolicy"] == "Never"
    assert (
        container["command"] == asked["spec"]["trainer"]["command"]
        and container["args"] == asked["spec"]["trainer"]["args"]
    )
    assert container["securityContext"] == wanted["spec"]["containers"][0]["securityContext"]
    given = {entry["name"]: entry for entry in container["env"]}
    assert all(given[entry["name"]].get("value") == entry.get("value") for entry in asked["spec"]["trainer"]["env"])


def test_preflight_passes_with_the_runtime_that_the_manifests_bring(trainer, make_launcher):
    launcher = make_launcher(TRAINJOB)
    found = {f.name: f for f in check_cluster(TRAINJOB, launcher.api, launcher.options)}
    assert all(f.ok for f in found.values()), found
    assert found["runtime curricle-torch"].detail == "clustertrainingruntimes curricle-torch"
    none = make_launcher(TRAINJOB, runtime="nowhere")
    found = {f.name: f for f in check_cluster(TRAINJOB, none.api, none.options)}
    assert not found["runtime nowhere"].ok


def test_auto_takes_the_kind_that_there_is_and_names_both(trainer, make_launcher):
    auto = AutoLauncher([make_launcher(PYTORCHJOB), make_launcher(TRAINJOB)])
    assert auto.chosen.name == "pytorchjob" and "trainjobs.trainer.kubeflow.org too" in auto.why()


def test_both_kinds_reduce_over_two_pods_side_by_side(trainer, make_launcher, make_job):
    both = [Waiting(make_launcher(kind), make_job(REDUCE, nodes=2)) for kind in (PYTORCHJOB, TRAINJOB)]
    for waiting, pod in zip(both, ("[master-0]", "[node-0-0-"), strict=True):
        assert waiting.outcome().state == "succeeded", waiting.lines
        assert any("sum 3 of 2" in line and line.startswith(pod) for line in waiting.lines), waiting.lines


def test_a_failing_rank_is_quoted_and_the_next_attempt_has_its_own_name(trainer, make_launcher, make_job):
    launcher = make_launcher(TRAINJOB)
    code = "import os, time\nif os.environ['RANK'] == '1': raise ValueError('boom on rank 1')\ntime.sleep(60)"
    waiting = Waiting(launcher, make_job(code, nodes=2))
    outcome = waiting.outcome()
    assert (outcome.state, outcome.reason) == ("failed", "error"), (outcome, waiting.lines)
    assert "-node-0-1-" in outcome.where and "boom on rank 1" in outcome.message + "".join(waiting.lines[-20:])
    assert launcher.submit(waiting.job) == f"{waiting.handle}-a2"


def test_a_pod_killed_by_hand_may_be_retried(trainer, make_launcher, make_job):
    launcher = make_launcher(TRAINJOB)
    waiting = Waiting(launcher, make_job(TOGETHER, nodes=2))
    waiting.until("up")
    (second,) = [pod for pod in launcher.api.list_pods(waiting.job.name) if TRAINJOB.order(pod, waiting.job.name) == 1]
    launcher.api._core.delete_namespaced_pod(second["metadata"]["name"], launcher.api.namespace, grace_period_seconds=0)
    outcome = waiting.outcome()
    assert outcome.state == "failed" and outcome.reason in RETRYABLE, (outcome, waiting.lines)


def test_out_of_memory_a_deadline_a_missing_account_and_a_wrong_image_are_told_apart(trainer, make_launcher, make_job):
    patient = Waits(poll=0.5, notice=5, no_pod=5, image_pull=5)
    cases = [
        ("oom_killed", "x = bytearray(2**30); print(len(x))", {}),
        ("deadline", "import time; time.sleep(100)", {"active_deadline_seconds": 8}),
        ("no_pod", "pass", {"service_account": "nobody"}),
        ("image_pull", "pass", {"image": "registry.invalid/none:1"}),
    ]
    jobs = [
        (reason, Waiting(make_launcher(TRAINJOB, waits=patient, **changes), make_job(code)))
        for reason, code, changes in cases
    ]
    found = {reason: waiting.outcome() for reason, waiting in jobs}
    assert {reason: outcome.reason for reason, outcome in found.items()} == {reason: reason for reason in found}, found
    assert "nobody" in found["no_pod"].message and "registry.invalid" in found["image_pull"].message


def test_a_second_launcher_adopts_and_cancel_leaves_no_pod(trainer, make_launcher, make_job):
    waiting = Waiting(
        make_launcher(TRAINJOB), make_job("import time; print('up', flush=True); time.sleep(200)", nodes=2)
    )
    waiting.until("up")
    second = make_launcher(TRAINJOB)
    assert second.submit(waiting.job) == waiting.handle == second.attach(waiting.job.name)
    assert len(second.api.list_jobs(f"curricle.dev/job={waiting.job.name}")) == 1
    second.cancel(waiting.handle)
    no_pods(second, waiting.job.name, 30)
    assert waiting.outcome(30).state == "cancelled"


def test_both_kinds_wait_in_one_queue_that_holds_one_of_them(kueue, make_launcher, make_job):
    code = "import time; print('up', flush=True); time.sleep(4)"
    both = [Waiting(make_launcher(kind, queue=kueue), make_job(code)) for kind in (TRAINJOB, PYTORCHJOB, TRAINJOB)]
    outcomes = [waiting.outcome() for waiting in both]
    assert [outcome.state for outcome in outcomes] == ["succeeded"] * 3, [w.lines for w in both]
    held = [waiting for waiting in both if any("it waits for its queue" in line for line in waiting.lines)]
    assert len(held) >= 2, [w.lines for w in both]
    assert not [line for waiting in both for line in waiting.lines if "warning" in line]


def test_a_queue_too_small_holds_a_job_back_until_it_is_cancelled(kueue, make_launcher, make_job):
    waiting = Waiting(
        make_launcher(TRAINJOB, queue=kueue, cpu="1", cpu_limit="1", waits=Waits(poll=0.5, notice=2, no_pod=2)),
        make_job("pass"),
    )
    time.sleep(6)
    assert waiting.thread.is_alive() and "waits for its queue" in waiting.lines[-1], (waiting.lines, waiting.outcomes)
    waiting.launcher.cancel(waiting.handle)
    assert waiting.outcome(30).state == "cancelled"


class WithGraceInThePatch(TrainJob):
    """What Kueue 0.19 loses when it admits the job."""

    def spec(self, job, options, template):
        spec = copy.deepcopy(super().spec(job, options, template))
        (replicated,) = spec["runtimePatches"][0]["trainingRuntimeSpec"]["template"]["spec"]["replicatedJobs"]
        replicated["template"]["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] = 45
        return spec


def test_a_job_that_kueue_lets_go_but_that_never_starts_is_given_up_with_trainers_words(kueue, make_launcher, make_job):
    launcher = make_launcher(WithGraceInThePatch(), queue=kueue, waits=Waits(poll=0.5, notice=5, no_pod=8))
    waiting = Waiting(launcher, make_job("pass"))
    outcome = waiting.outcome()
    if outcome.state == "succeeded":
        pytest.skip("this Kueue keeps what it does not know of a TrainJob")
    assert (outcome.state, outcome.reason) == ("failed", "no_pod"), (outcome, waiting.lines)
    assert "TrainJobResourcesCreationFailed" in outcome.message and len(outcome.message) < 1000
    assert (
        launcher.api.get_job(waiting.job.name) is None
        or "deletionTimestamp" in launcher.api.get_job(waiting.job.name)["metadata"]
    )


def test_a_stage_trains_as_a_trainjob_in_its_component(trainer, components, make_launcher):
    from tests.cluster.test_chain import TINY, plan, prepare, train

    component = components("chain_smoke")
    run_id, store = f"trainjob-{uuid.uuid4().hex[:6]}", f"minio://mlpipeline/test-{uuid.uuid4().hex[:6]}"
    planned = plan(component, run_id, store, prepare(component, run_id, store))
    done, log, good = train(component, "exec-train-stage", planned, 0, "", launcher="trainjob")
    assert good and done["Output"].endswith("/01_stage"), log
    (job,) = make_launcher(TRAINJOB).api.list_jobs(f"curricle.dev/run={run_id}")
    assert job["spec"]["trainer"]["numNodes"] == 2 and TRAINJOB.phase(job) == "succeeded" and TINY
    out, log, good = component.run("exec-cleanup", run_id=run_id, job_id="none", store_uri=store, launcher="auto",
                                   status={"state": "COMPLETE", "pipelineJobResourceName": "x", "pipelineTaskName": "chain"})  # fmt: skip
    assert good, log
    until = time.monotonic() + 30
    while make_launcher(TRAINJOB).api.list_jobs(f"curricle.dev/run={run_id}"):
        assert time.monotonic() < until
        time.sleep(1)


def test_the_runtime_is_what_the_server_holds(trainer):
    wanted = yaml.safe_load((ROOT / "manifests" / "trainer" / "runtime.yaml").read_text())["spec"]
    held = yaml.safe_load(kubectl("get", "clustertrainingruntime", "curricle-torch", "-o", "yaml"))["spec"]
    pod = held["template"]["spec"]["replicatedJobs"][0]["template"]["spec"]
    assert pod["backoffLimit"] == 0 and pod["podReplacementPolicy"] == "Failed"
    assert (
        pod["template"]["spec"]["restartPolicy"] == "Never" and held["mlPolicy"]["torch"] == wanted["mlPolicy"]["torch"]
    )
