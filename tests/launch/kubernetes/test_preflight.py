"""What preflight says of a cluster, from what its API answers."""

from curricle.errors import JobError
from curricle.launch.kubernetes.options import ClusterOptions
from curricle.launch.kubernetes.preflight import check_cluster, rights
from curricle.launch.kubernetes.pytorchjob import PYTORCHJOB


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
    found = look(Api())
    assert len(found) == 5 and all(f.ok and not f.advice for f in found.values())


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
    found = look(Api(blind=True))
    unseen = {name for name, f in found.items() if f.ok and f.advice}
    assert unseen == {"operator version", "queue team", "nvidia.com/gpu"}


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
