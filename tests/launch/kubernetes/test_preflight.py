"""What preflight says of a cluster, from what its API answers."""

import dataclasses
from pathlib import Path

import pytest
import yaml

from curricle.errors import Finding, JobError
from curricle.launch.kubernetes import preflight
from curricle.launch.kubernetes.client import KubernetesLauncher
from curricle.launch.kubernetes.options import ClusterOptions
from curricle.launch.kubernetes.preflight import check_cluster, rights
from curricle.launch.probe import findings_line
from tests.launch.kubernetes.kinds import RUNTIME, SHAPES, shape_of
from tests.launch.kubernetes.memory import FAST, Cluster

SERVED = ("pytorchjobs", "trainjobs", "clustertrainingruntimes", "trainingruntimes", "localqueues")


class Api:
    namespace = "kubeflow"

    def __init__(self, served=SERVED, denied=(), queue=True, gpus=1, blind=False, runtime=None):
        self.pipelines = []
        self.served, self.denied, self.queue, self.gpus, self.blind = served, denied, queue, gpus, blind
        self.runtime = yaml.safe_load(RUNTIME.read_text()) if runtime is None else runtime

    def serves(self, group, version, resource):
        return resource in self.served

    def allowed(self, verb, resource, group=""):
        return (verb, resource) not in self.denied

    def _seen(self, value):
        if self.blind:
            raise JobError("forbidden", reason="refused")
        return value

    def operator_images(self):
        return self._seen(["kubeflow/training-operator:v1-8a066f9"])

    def get_object(self, group, version, resource, name, *, cluster_wide=False):
        assert cluster_wide == (resource == "clustertrainingruntimes")
        if resource == "localqueues":
            state = self.queue if isinstance(self.queue, dict) else {"spec": {"clusterQueue": "all"}}
            return self._seen(state if self.queue else None)
        return self._seen(self.runtime or None)

    def nodes_with(self, resource):
        return self._seen(self.gpus)

    def containers_of(self, deployment):
        return self._seen(self.pipelines)


def look(api: Api, kind=SHAPES["pytorchjob"].kind, **changes) -> dict:
    options = ClusterOptions(image="x:1", queue="team", gpus=2, **changes)
    return {f.name: f for f in check_cluster(kind, api, options)}


def test_a_good_cluster_has_nothing_to_do(shape):
    findings = look(Api(), shape.kind)
    assert len(findings) == 5 + (shape.kind.name == "trainjob") and all(
        f.ok and not f.advice for f in findings.values()
    )


def test_every_fault_is_its_own_finding_with_what_to_do():
    assert not look(Api(served=("localqueues",)))["PyTorchJob API"].ok
    rights = look(Api(denied=[("delete", "pytorchjobs"), ("get", "pods/log")]))["rights"]
    assert (
        not rights.ok and "delete pytorchjobs, get pods/log" in rights.detail and "curricle-launcher" in rights.advice
    )
    assert "no LocalQueue" in look(Api(queue=False))["queue team"].detail
    assert "not installed" in look(Api(served=("pytorchjobs",)))["queue team"].detail
    assert not look(Api(gpus=0))["nvidia.com/gpu"].ok


def test_what_may_not_be_read_is_said_and_fails_nothing(shape):
    findings = look(Api(blind=True), shape.kind)
    unseen = {name for name, f in findings.items() if f.ok and f.advice} - {"runtime curricle-torch"}
    assert unseen == {"operator version", "queue team", "nvidia.com/gpu"} and all(f.ok for f in findings.values())


def runtime_finding(spoil=lambda runtime, job, pod: None, **changes):
    runtime = yaml.safe_load(RUNTIME.read_text())
    job = runtime["spec"]["template"]["spec"]["replicatedJobs"][0]["template"]
    spoil(runtime["spec"], job, job["spec"]["template"]["spec"])
    return look(Api(runtime=runtime), SHAPES["trainjob"].kind, **changes)["runtime curricle-torch"]


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda runtime, job, pod: runtime["mlPolicy"].pop("torch"), "mlPolicy is not torch"),
        (
            lambda runtime, job, pod: job["metadata"].clear(),
            "lacks the label trainer.kubeflow.org/trainjob-ancestor-step",
        ),
        (lambda runtime, job, pod: job["spec"].pop("backoffLimit"), "backoffLimit must be 0"),
        (lambda runtime, job, pod: pod.pop("restartPolicy"), "restartPolicy must be Never"),
        (lambda runtime, job, pod: pod["containers"].append({"name": "x"}), "the one container 'node'"),
        (lambda runtime, job, pod: pod.pop("terminationGracePeriodSeconds"), "is 30, less than grace_seconds 120"),
        (lambda runtime, job, pod: runtime["template"]["spec"].update(failurePolicy={"maxRestarts": 3}), "maxRestarts"),
        (lambda runtime, job, pod: runtime["template"]["spec"]["replicatedJobs"].clear(), "no replicated job 'node'"),
    ],
)
def test_a_runtime_that_would_hide_a_cause_or_give_too_little_time_is_a_finding(spoil, words):
    assert runtime_finding().ok
    finding = runtime_finding(spoil)
    assert not finding.ok and words in finding.detail and "manifests/trainer" in finding.advice


def test_a_runtime_that_is_not_there_is_a_finding_and_no_pod_is_tried():
    trainjob = SHAPES["trainjob"].kind
    finding = look(Api(runtime={}), trainjob)["runtime curricle-torch"]
    assert not finding.ok and finding.detail == "the cluster has no clustertrainingruntimes of that name"
    own = look(Api(runtime={}), trainjob, runtime="ours", runtime_kind="TrainingRuntime")["runtime ours"]
    assert "kubeflow has no trainingruntimes" in own.detail and "`runtime`" in own.advice
    cluster = Worker("", trainjob)
    cluster.get_object = lambda *args, **kwargs: None
    assert [f.name for f in probed(cluster, trainjob) if not f.ok] == ["runtime curricle-torch"] and not cluster.made


class Worker(Cluster):
    """A cluster whose operator makes a pod at once, which prints a probe's findings and ends."""

    def __init__(self, log, kind):
        super().__init__()
        self.made, self.log = [], log
        self.served = (kind.plural, "clustertrainingruntimes")

    def get_object(self, group, version, resource, name, *, cluster_wide=False):
        return yaml.safe_load(RUNTIME.read_text())

    def create_job(self, body):
        name = body["metadata"]["name"]
        super().create_job(body)
        self.made.append(body)
        self.logs[f"{name}-{shape_of(body).pods[0]}"] = f"2026-01-01T00:00:00Z {self.log}\n".encode()
        self.end(name, 0)
        return body


def probed(cluster, kind, **changes):
    options = ClusterOptions(image="x:1", gpus=2, **changes)
    return list(KubernetesLauncher(kind, options, cluster, waits=FAST).preflight(("-m", "probe")))


def test_the_workers_own_findings_come_after_those_of_the_account(shape):
    told = [Finding("store, worker: write", False, "denied", "grant it")]
    cluster = Worker(findings_line(told), shape.kind)
    findings = probed(cluster, shape.kind, service_account="worker")
    assert [f.name for f in findings if not f.name.startswith("runtime ")] == [
        f"{shape.kind.kind} API", "rights", "operator version", "nvidia.com/gpu", "probe pod", "store, worker: write",
    ]  # fmt: skip
    assert findings[-1:] == told and "ran as worker" in findings[-2].detail
    (body,) = cluster.made
    assert "gpu" not in str(body["spec"]) and cluster.jobs == {}


def test_a_probe_without_findings_is_one_itself(shape):
    finding = probed(Worker("Traceback", shape.kind), shape.kind)[-1]
    assert (finding.name, finding.ok) == ("probe pod", False) and finding.advice


def test_an_image_without_python_is_named_and_each_finding_comes_as_soon_as_it_is_known(shape):
    class Bare(Worker):
        def create_job(self, body):
            made = super().create_job(body)
            name = body["metadata"]["name"]
            self.end(name, 128)
            for pod in self.pods[name]:
                (status,) = pod["status"]["containerStatuses"]
                status["image"] = "alpine:3"
                said = {"reason": "StartError", "message": 'exec: "python": executable file not found in $PATH'}
                status["state"]["terminated"] |= said
            return made

    cluster = Bare("", shape.kind)
    coming = KubernetesLauncher(shape.kind, ClusterOptions(image="alpine:3"), cluster, waits=FAST).preflight(
        ("-m", "probe")
    )
    assert next(iter(coming)).name == f"{shape.kind.kind} API" and cluster.made == []
    *_, last = coming
    assert last.detail.startswith("the image alpine:3 is no worker's: it holds no Python") and not last.ok
    assert "CURRICLE_TRAINER_IMAGE" in last.advice


def test_no_pod_is_started_where_no_job_can_be_made(shape):
    cluster = Worker("", shape.kind)
    cluster.served = ()
    findings = probed(cluster, shape.kind)
    assert [f.name for f in findings if not f.ok] == [f"{shape.kind.kind} API"] and cluster.made == []
    assert findings[0].advice == f"Install the {shape.kind.operator}."


def test_the_rights_are_those_of_the_launchers_role(shape):
    documents = yaml.safe_load_all((Path(__file__).parents[3] / "manifests/base/launcher.yaml").read_text())
    rules = next(d for d in documents if d["kind"] == "Role")["rules"]
    granted = {
        (verb, resource, group)
        for rule in rules
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }
    assert set(rights(shape.kind)) <= granted


def test_a_webhook_that_does_not_answer_is_a_finding_with_its_name(monkeypatch):
    monkeypatch.setattr(preflight, "WAITS", dataclasses.replace(preflight.WAITS, submit=0.05, poll=0.01))
    cluster = Worker("", SHAPES["trainjob"].kind)
    cluster.webhook = 1000
    finding = probed(cluster, SHAPES["trainjob"].kind)[-1]
    assert (finding.name, finding.ok) == ("probe pod", False) and "webhook v.kubeflow.org" in finding.detail
    assert "webhook" in finding.advice


def state(spec=None, **status):
    return {"spec": {"clusterQueue": "all", **(spec or {})}, "status": status}


@pytest.mark.parametrize(
    ("queue", "ok", "words"),
    [
        (state({"stopPolicy": "Hold"}), False, "stopped (stopPolicy Hold)"),
        (state({"stopPolicy": "HoldAndDrain"}), False, "stopped (stopPolicy HoldAndDrain)"),
        (
            state(conditions=[{"type": "Active", "status": "False", "reason": "ClusterQueueIsInactive", "message": "Can't submit"}]),
            False,
            "ClusterQueueIsInactive: Can't submit",
        ),
        (state(pendingWorkloads=3, admittedWorkloads=2), True, "2 admitted, 3 waiting"),
        (state({"stopPolicy": "None"}, conditions=[{"type": "Active", "status": "True"}]), True, "0 waiting"),
    ],
)  # fmt: skip
def test_a_queue_that_is_stopped_or_full_is_said_at_once(queue, ok, words):
    finding = look(Api(queue=queue))["queue team"]
    assert finding.ok is ok and words in finding.detail
    assert bool(finding.advice) == ("0 waiting" not in words)


def test_nothing_is_started_in_a_queue_that_admits_nothing():
    cluster = Worker("", SHAPES["pytorchjob"].kind)
    cluster.served = ("pytorchjobs", "localqueues")
    cluster.get_object = lambda *place: state({"stopPolicy": "Hold"})
    findings = probed(cluster, SHAPES["pytorchjob"].kind, queue="team")
    assert [f.name for f in findings if not f.ok] == ["queue team"] and cluster.made == []


def test_a_probe_that_its_queue_does_not_admit_is_said_after_ten_seconds_and_fails_nothing(monkeypatch):
    class Queue(Worker):
        def create_job(self, body):
            Cluster.create_job(self, body)
            body["spec"]["runPolicy"]["suspend"] = True
            self.now(body["metadata"]["name"], "suspended")
            return body

    assert preflight.WAITS.queued == 10
    monkeypatch.setattr(preflight, "WAITS", dataclasses.replace(preflight.WAITS, queued=0.05, poll=0.01))
    cluster = Queue("", SHAPES["pytorchjob"].kind)
    cluster.served = ("pytorchjobs", "localqueues")
    cluster.get_object = lambda *place: state(pendingWorkloads=1)
    finding = probed(cluster, SHAPES["pytorchjob"].kind, queue="team")[-1]
    assert (finding.name, finding.ok) == ("probe pod", True)
    assert "queue 'team' has not admitted it" in finding.detail and "not tried" in finding.advice
    assert cluster.jobs == {}


@pytest.mark.parametrize(
    ("image", "listed", "ok"),
    [
        ("ghcr.io/kubeflow/kfp-api-server:2.17.0", "", None),
        ("ghcr.io/kubeflow/kfp-api-server:2.18.0", "", False),
        ("ghcr.io/kubeflow/kfp-api-server:v2.18.1", "a, curricle-launcher", True),
        ("registry.example.com/kfp:latest", "", None),
    ],
)
def test_pipelines_of_2_18_must_list_our_account(image, listed, ok):
    api = Api()
    api.pipelines = [(image, {"ALLOWEDSERVICEACCOUNTS": listed})]
    finding = look(api).get("account in Kubeflow Pipelines")
    assert (finding.ok if finding else None) is ok
    assert ok is not False or "ALLOWEDSERVICEACCOUNTS=curricle-launcher" in finding.advice
