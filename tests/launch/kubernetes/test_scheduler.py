from importlib.metadata import version

import pytest
import yaml
from torchx.runner import Runner
from torchx.specs import AppDef, AppState, Resource, Role, macros

from curricle.errors import ConfigError
from curricle.launch.kubernetes.scheduler import KubernetesScheduler, Opts, manifest
from tests.launch.kubernetes.kinds import SHAPES

PYTORCHJOB = SHAPES["pytorchjob"].kind
PODS = {
    "PyTorchJob": ("worker-1", "worker-0", "master-0"),
    "TrainJob": ("node-0-2-cccc", "node-0-1-bbbb", "node-0-0-aaaa"),
}


class Cluster:
    """Jobs in memory."""

    def __init__(self, namespace):
        self.namespace, self.jobs = namespace, {}

    def create_job(self, body):
        self.jobs[body["metadata"]["name"]] = body
        return body

    def get_job(self, name):
        return self.jobs.get(name)

    def list_jobs(self, selector):
        return list(self.jobs.values())

    def delete_job(self, name, *, timeout=None):
        self.jobs.pop(name, None)

    def list_pods(self, name):
        return [
            {"metadata": {"name": f"{name}-{which}"}, "status": {"phase": "Running"}}
            for which in PODS[next(iter(self.jobs.values()))["kind"]]
        ]

    def read_log(self, pod, *, since_seconds, follow):
        yield f"2026-01-01T00:00:00Z hello from {pod[-8:]}\n2026-01-01T00:00:01Z loss 1".encode()


@pytest.fixture
def app():
    role = Role("w", image="curricle/trainer:1", entrypoint="python", args=["-m", "curricle.launch.agent", "--", "-c", "print()", macros.app_id],
                num_replicas=3, resource=Resource(cpu=2, gpu=1, memMB=2048), env={"A": "b"})  # fmt: skip
    return AppDef("Toy chain", roles=[role])


@pytest.fixture
def runner(shape):
    clusters, kind = {}, shape.kind
    scheduler = KubernetesScheduler(
        kind, "s", connect=lambda namespace: clusters.setdefault(namespace, Cluster(namespace))
    )
    with Runner("s", scheduler_factories={kind.name: lambda session_name, **kwargs: scheduler}) as runner:
        runner.clusters = clusters
        yield runner


def test_the_torchx_that_is_installed_is_the_one_that_fits():
    assert version("torchx-nightly") == "2026.10.26"


def test_an_app_becomes_one_job(app, shape):
    body = manifest(shape.kind, app, Opts(namespace="team", queue="q"))
    template = shape.pod(body)["spec"]["containers"][0]
    pods, command = shape.kind.gang(body)
    name = body["metadata"]["name"]
    assert pods == 3 and name.startswith("toy-chain-")
    assert (
        template["command"]
        == command["command"]
        == ["python", "-m", "curricle.launch.agent", "--", "-c", "print()", name]
    )
    assert template["resources"]["limits"] == {"cpu": "2", "memory": "2048Mi", "nvidia.com/gpu": "1"}
    assert body["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "q"


def test_the_name_does_not_depend_on_what_torchx_adds(app):
    first = manifest(PYTORCHJOB, app, Opts())["metadata"]["name"]
    app.roles[0].env["TORCHX_INTERNAL_SESSION_ID"] = "random"
    assert manifest(PYTORCHJOB, app, Opts())["metadata"]["name"] == first
    app.roles[0].args.append("--more")
    assert manifest(PYTORCHJOB, app, Opts())["metadata"]["name"] != first


@pytest.mark.parametrize("spoil", [lambda r: r.args.append(macros.replica_id), lambda r: r.mounts.append("x")])
def test_what_a_pytorchjob_cannot_do_is_refused(spoil, app):
    spoil(app.roles[0])
    with pytest.raises(ConfigError):
        manifest(PYTORCHJOB, app, Opts())


def test_settings_of_a_role_are_checked_like_those_of_a_cluster(app):
    app.roles[0].metadata["pytorchjob"] = {"volumes": [{"name": "data"}], "gpus": 3}
    pod = manifest(PYTORCHJOB, app, Opts())["spec"]["pytorchReplicaSpecs"]["Master"]["template"]["spec"]
    assert (
        pod["volumes"][-1] == {"name": "data"} and pod["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "3"
    )
    app.roles[0].metadata["pytorchjob"] = {"volume": []}
    with pytest.raises(ConfigError, match="volume: unknown key; did you mean 'volumes'"):
        manifest(PYTORCHJOB, app, Opts())


def test_the_name_leaves_room_for_what_the_operator_appends(app, shape):
    app.name = "a-very-long-name-of-an-app-that-somebody-has-thought-of-one-day"
    assert len(manifest(shape.kind, app, Opts())["metadata"]["name"]) <= shape.kind.name_limit


def test_run_status_log_list_and_cancel(app, runner, shape):
    kind = shape.kind
    shown = str(runner.dryrun(app, kind.name, {"namespace": "team"}))
    assert yaml.safe_load(shown)["kind"] == kind.kind
    handle = runner.run(app, kind.name, {"namespace": "team"})
    assert handle.startswith(f"{kind.name}://s/team:toy-chain-")
    job = next(iter(runner.clusters["team"].jobs.values()))
    job["status"] = shape.states["running"]
    status, ordered = runner.status(handle), tuple(reversed(PODS[kind.kind]))
    assert status.state == AppState.RUNNING
    assert [r.hostname.removeprefix(job["metadata"]["name"] + "-") for r in status.roles[0].replicas] == list(ordered)
    assert list(runner.log_lines(handle, "worker", k=1, regex="hello")) == [f"hello from {ordered[1][-8:]}\n"]
    assert [a.state for a in runner.list(kind.name, {"namespace": "team"})] == [AppState.RUNNING]
    runner.cancel(handle)
    assert runner.status(handle) is None


def test_torchx_finds_the_schedulers_by_itself():
    from torchx.schedulers import get_scheduler_factories

    assert SHAPES.keys() <= get_scheduler_factories().keys()
