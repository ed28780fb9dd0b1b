"""A genuine cluster: KUBECONFIG, the training operator, and the trainer image on its nodes (CURRICLE_TEST_IMAGE)."""

import contextlib
import json
import os
import shlex
import subprocess
import time
import uuid
from pathlib import Path

import pytest
import yaml

from curricle.launch.job import Job
from curricle.launch.kubernetes.client import on_cluster
from curricle.launch.kubernetes.options import ClusterOptions, Waits
from curricle.launch.kubernetes.pytorchjob import PYTORCHJOB

NAMESPACE = "kubeflow"
OVERLAY = Path(__file__).parents[2] / "manifests" / "overlays" / "dev"


@pytest.fixture(scope="session")
def kubeconfig() -> str:
    path = os.environ.get("KUBECONFIG", "")
    if not path:
        pytest.skip("no cluster: KUBECONFIG is not set")
    return path


@pytest.fixture
def options() -> ClusterOptions:
    return ClusterOptions(
        image=os.environ.get("CURRICLE_TEST_IMAGE", "curricle/trainer:dev"), namespace=NAMESPACE, cpu="250m", cpu_limit="2", memory="768Mi",
        shm_size="64Mi", grace_seconds=20, active_deadline_seconds=300, ttl_seconds=300)  # fmt: skip


@pytest.fixture
def make_launcher(kubeconfig, options):
    """Launchers on the cluster, with some options changed; what their jobs leave is deleted at the end."""
    made = []

    def make(kind=PYTORCHJOB, *, waits=None, **changes):
        launcher = on_cluster(
            kind,
            ClusterOptions(**(vars(options) | changes)),
            kubeconfig=kubeconfig,
            waits=waits or Waits(poll=0.5, notice=5),
        )
        made.append(launcher)
        return launcher

    yield make
    for launcher in {launcher.name: launcher for launcher in made}.values():
        launcher.delete_by_run(RUN)


RUN = f"test-{uuid.uuid4().hex[:8]}"


@pytest.fixture
def make_job():
    """Jobs of this test run, whose ranks execute a line of Python."""

    def make(code: str, *, nodes: int = 1, processes: int = 1, digest: str = "d1") -> Job:
        name = f"t-{uuid.uuid4().hex[:10]}"
        return Job(
            name=name,
            argv=("-c", code),
            nodes=nodes,
            processes_per_node=processes,
            labels={"curricle.dev/run": RUN},
            digest=digest,
        )

    return make


@pytest.fixture(scope="module")
def core(kubeconfig):
    from kubernetes import client, config

    config.load_kube_config(kubeconfig)
    return client.CoreV1Api()


@pytest.fixture(scope="module")
def components(core, tmp_path_factory):
    """Run the components of a compiled pipeline as pods: `components(pipeline)` gives (executor, parameters) → (output parameters, log, succeeded).

    Only Kubeflow's driver is played here: it fills in the executor's input. The store as this machine sees it is MinIO's own address, or
    that of the variables.
    """
    from kubernetes.client import ApiException

    from kfp_pipelines.compile import compile_all

    for name, value in (
        ("S3_ENDPOINT", "http://127.0.0.1:9000"),
        ("AWS_ACCESS_KEY_ID", "minio"),
        ("AWS_SECRET_ACCESS_KEY", "minio123"),
    ):
        os.environ.setdefault(name, value)
    kubectl = shlex.split(os.environ.get("CURRICLE_KUBECTL", "kubectl"))
    subprocess.run(
        [*kubectl, "apply", "--server-side", "-k", str(OVERLAY)], check=True, capture_output=True, timeout=60
    )
    packages = {path.stem: path for path in compile_all(tmp_path_factory.mktemp("compiled"))}
    made: list[str] = []
    yield lambda pipeline: Components(core, packages[pipeline], made)
    for name in made:
        with contextlib.suppress(ApiException):  # a test may have deleted it
            core.delete_namespaced_pod(name, NAMESPACE, grace_period_seconds=0)


class Components:
    """One compiled pipeline's components, as Kubeflow would start them."""

    def __init__(self, core, package: Path, made: list[str]):
        self.core, self.made = core, made
        self.spec, self.platform = yaml.safe_load_all(package.read_text())

    def run(self, executor, *, wait=True, settings=None, **parameters):
        """Start a component's pod; `settings` change the cluster's own. Without `wait` its name is returned, for `finish`."""
        container = self.spec["deploymentSpec"]["executors"][executor]["container"]
        arguments = [a.replace("{{$}}", json.dumps(self.entry(executor, parameters))) for a in container["args"]]
        name = f"component-{uuid.uuid4().hex[:8]}"
        body = {
            "metadata": {"name": name, "labels": {"test": "components"}},
            "spec": {
                "serviceAccountName": "curricle-launcher", "restartPolicy": "Never", "terminationGracePeriodSeconds": 5,
                "volumes": [{"name": "tmp", "emptyDir": {}}],
                "containers": [{
                    "name": "main", "image": container["image"], "imagePullPolicy": "IfNotPresent",
                    "command": ["sh", "-c", '"$@"; code=$?; echo; echo OUTPUT $(cat /tmp/out/executor_output.json 2>/dev/null); exit $code', "sh"],
                    "args": [*container["command"], *arguments],
                    "env": self.environment(executor, settings or {}), "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],
                    "securityContext": {"runAsNonRoot": True, "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True},
                }],
            },
        }  # fmt: skip
        self.core.create_namespaced_pod(NAMESPACE, body)
        self.made.append(name)
        return self.finish(name) if wait else name

    def finish(self, name, limit=600):
        """Wait for a component's end."""
        until = time.monotonic() + limit
        while (status := self.core.read_namespaced_pod(name, NAMESPACE).status).phase not in ("Succeeded", "Failed"):
            waiting = [one.state.waiting.reason for one in status.container_statuses or () if one.state.waiting]
            assert time.monotonic() < until and "CreateContainerConfigError" not in waiting, status
            time.sleep(1)
        phase, log = status.phase, self.core.read_namespaced_pod_log(name, NAMESPACE)
        found = [line.removeprefix("OUTPUT ") for line in log.splitlines() if line.startswith("OUTPUT {")]
        return (json.loads(found[-1]).get("parameterValues", {}) if found else {}), log, phase == "Succeeded"

    def entry(self, executor, parameters):
        """The executor's input, which Kubeflow's driver writes."""
        declared = self.spec["components"][executor.replace("exec-", "comp-", 1)]
        inputs, outputs = declared.get("inputDefinitions", {}), declared.get("outputDefinitions", {})
        assert set(inputs.get("parameters", {})) <= set(parameters), (
            f"{executor} has parameters that the test does not give"
        )
        return {
            "inputs": {
                "parameterValues": parameters,
                "artifacts": {name: {"artifacts": [{"name": name, "type": kind["artifactType"], "uri": f"/tmp/in/{name}", "metadata": {}}]}
                              for name, kind in inputs.get("artifacts", {}).items()},
            },
            "outputs": {
                "parameters": {name: {"outputFile": f"/tmp/out/{name}"} for name in outputs.get("parameters", {})},
                "artifacts": {name: {"artifacts": [{"name": name, "type": kind["artifactType"], "uri": f"/tmp/out/{name}", "metadata": {}}]}
                              for name, kind in outputs.get("artifacts", {}).items()},
                "outputFile": "/tmp/out/executor_output.json",
            },
        }  # fmt: skip

    def environment(self, executor, settings):
        """What the compiled pipeline sets, and takes from secrets and config maps."""
        config = self.platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"].get(executor, {})
        entries = {}
        for secret in config.get("secretAsEnv", []):
            entries |= {
                k["envVar"]: {
                    "secretKeyRef": {
                        "name": secret["secretName"],
                        "key": k["secretKey"],
                        "optional": secret.get("optional", False),
                    }
                }
                for k in secret["keyToEnv"]
            }
        for values in config.get("configMapAsEnv", []):
            entries |= {
                k["envVar"]: {
                    "configMapKeyRef": {
                        "name": values["configMapName"],
                        "key": k["configMapKey"],
                        "optional": values.get("optional", False),
                    }
                }
                for k in values["keyToEnv"]
            }
        plain = self.spec["deploymentSpec"]["executors"][executor]["container"].get("env", [])
        listed = [*plain, *({"name": name, "valueFrom": source} for name, source in entries.items())]
        if settings:
            changed = yaml.safe_load((OVERLAY / "cluster.yaml").read_text()) | settings
            listed = [e for e in listed if e["name"] != "CURRICLE_CLUSTER_YAML"] + [
                {"name": "CURRICLE_CLUSTER_YAML", "value": yaml.safe_dump(changed)}
            ]
        return listed
