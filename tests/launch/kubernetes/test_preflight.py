"""What preflight says of a cluster, from what its API answers."""

from curricle.errors import Finding, JobError
from curricle.launch.kubernetes.client import KubernetesLauncher
from curricle.launch.kubernetes.options import ClusterOptions
from curricle.launch.kubernetes.preflight import check_cluster, rights
from curricle.launch.kubernetes.pytorchjob import PYTORCHJOB
from curricle.launch.probe import findings_line
from tests.launch.kubernetes.memory import FAST, Cluster


class Api:
    namespace = "kubeflow"

    def __init__(self, served=("pytorchjobs", "localqueues"), denied=(), queue=True, gpus=1, blind=False):
        self.served, self.denied, self.queue, self.gpus, self.blind = served, denied, queue, gpus, blind

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

    def get_object(self, group, version, resource, name):
        return self._seen({"spec": {"clusterQueue": "all"}} if self.queue else None)

    def nodes_with(self, resource):
        return self._seen(self.gpus)


def look(api: Api) -> dict:
    return {f.name: f for f in check_cluster(PYTORCHJOB, api, ClusterOptions(image="x:1", queue="team", gpus=2))}


def test_a_good_cluster_has_nothing_to_do():
    findings = look(Api())
    assert len(findings) == 5 and all(f.ok and not f.advice for f in findings.values())


def test_every_fault_is_its_own_finding_with_what_to_do():
    assert not look(Api(served=("localqueues",)))["PyTorchJob API"].ok
    rights = look(Api(denied=[("delete", "pytorchjobs"), ("get", "pods/log")]))["rights"]
    assert (
        not rights.ok and "delete pytorchjobs, get pods/log" in rights.detail and "curricle-launcher" in rights.advice
    )
    assert "no LocalQueue" in look(Api(queue=False))["queue team"].detail
    assert "not installed" in look(Api(served=("pytorchjobs",)))["queue team"].detail
    assert not look(Api(gpus=0))["nvidia.com/gpu"].ok


def test_what_may_not_be_read_is_said_and_fails_nothing():
    findings = look(Api(blind=True))
    unseen = {name for name, f in findings.items() if f.ok and f.advice}
    assert unseen == {"operator version", "queue team", "nvidia.com/gpu"}


class Worker(Cluster):
    """A cluster whose operator makes a pod at once, which prints a probe's findings and ends."""

    def __init__(self, log):
        super().__init__()
        self.served, self.made, self.log = ("pytorchjobs",), [], log

    def create_job(self, body):
        name = body["metadata"]["name"]
        super().create_job(body)
        self.made.append(body)
        self.logs[f"{name}-master-0"] = f"2026-01-01T00:00:00Z {self.log}\n".encode()
        self.end(name, 0)
        return body


def probed(cluster, **changes):
    options = ClusterOptions(image="x:1", gpus=2, **changes)
    return KubernetesLauncher(PYTORCHJOB, options, cluster, waits=FAST).preflight(("-m", "probe"))


def test_the_workers_own_findings_come_after_those_of_the_account():
    told = [Finding("store, worker: write", False, "denied", "grant it")]
    cluster = Worker(findings_line(told))
    findings = probed(cluster, service_account="worker")
    assert [f.name for f in findings] == [
        "PyTorchJob API", "rights", "operator version", "nvidia.com/gpu", "probe pod", "store, worker: write",
    ]  # fmt: skip
    assert findings[-1:] == told and "ran as worker" in findings[-2].detail
    (body,) = cluster.made
    assert "gpu" not in str(body["spec"]) and cluster.jobs == {}


def test_a_probe_without_findings_is_one_itself():
    finding = probed(Worker("Traceback"))[-1]
    assert (finding.name, finding.ok) == ("probe pod", False) and finding.advice


def test_no_pod_is_started_where_no_job_can_be_made():
    cluster = Worker("")
    cluster.served = ()
    findings = probed(cluster)
    assert [f.name for f in findings if not f.ok] == ["PyTorchJob API"] and cluster.made == []
    assert findings[0].advice == "Install the Kubeflow training operator v1."


def test_the_rights_are_those_of_the_launchers_role():
    from pathlib import Path

    import yaml

    documents = yaml.safe_load_all((Path(__file__).parents[3] / "manifests/base/launcher.yaml").read_text())
    rules = next(d for d in documents if d["kind"] == "Role")["rules"]
    granted = {
        (verb, resource, group)
        for rule in rules
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }
    assert set(rights(PYTORCHJOB)) <= granted
