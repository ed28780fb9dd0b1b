import dataclasses
import os
import tarfile
from pathlib import Path

import jsonschema
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from curricle.errors import ConfigError
from curricle.launch.kubernetes.options import Elastic
from curricle.launch.kubernetes.pods import bytes_of
from curricle.launch.kubernetes.render import attempt_name, render
from curricle.launch.kubernetes.trainjob import OF_THE_RUNTIME, PATCHED, TRAINJOB
from tests.launch.kubernetes.kinds import RUNTIME, SHAPES

PYTORCHJOB = SHAPES["pytorchjob"].kind
GOLDEN = Path(__file__).parent / "golden"


def wide(job):
    return dataclasses.replace(
        job, nodes=2, processes_per_node=8, heartbeat="minio://mlpipeline/runs/r1/01_text/heartbeat"
    )


def of_trainjob(full):
    """What the runtime says of a TrainJob's pods is left out."""
    return dataclasses.replace(full, gang=False, priority_class="")


EXAMPLES = {
    "one-node": lambda kind, job, plain, full, elastic: render(kind, dataclasses.replace(job, nodes=1), plain),
    "two-nodes": lambda kind, job, plain, full, elastic: render(kind, job, plain),
    "gpus-with-everything": lambda kind, job, plain, full, elastic: render(
        kind, wide(job), of_trainjob(full) if kind is TRAINJOB else full
    ),
    "elastic": lambda kind, job, plain, full, elastic: render(kind, job, elastic),
    "second-attempt": lambda kind, job, plain, full, elastic: render(kind, job, plain, attempt=2),
}
SHAPES_OF_JOBS = [(kind, name) for kind in SHAPES for name in EXAMPLES if (kind, name) != ("trainjob", "elastic")]


@pytest.fixture
def example(request, job, plain, full, elastic):
    kind, name = request.param
    return kind, name, EXAMPLES[name](SHAPES[kind].kind, job, plain, full, elastic)


@pytest.mark.parametrize("example", SHAPES_OF_JOBS, indirect=True, ids="-".join)
def test_rendered_job_is_the_committed_one(example):
    """Set CURRICLE_REGENERATE=1 to write the goldens anew, then read the diff."""
    kind, name, rendered = example
    text = yaml.safe_dump(rendered, sort_keys=False, width=140)
    path = GOLDEN / kind / f"{name}.yaml"
    if os.environ.get("CURRICLE_REGENERATE"):
        path.write_text(text)
    assert text == path.read_text()


def definition(shared, archive, file, name):
    """A CRD's own schema, from an operator's package."""
    archive = shared / "cluster" / archive
    if not archive.is_file():
        pytest.skip(f"no operator CRD: {archive} is not there")
    with tarfile.open(archive, "r|xz") as tar:
        for member in tar:
            if member.name.endswith(file):
                for document in tar.extractfile(member).read().decode().split("\n---\n"):
                    if f"\n  name: {name}\n" in document:
                        crd = yaml.load(document, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
                        return crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    raise AssertionError(f"{archive} holds no {name}")


@pytest.fixture(scope="session")
def schema(shared):
    """It lies first in the archive, so little of that is unpacked."""
    return definition(shared, "programs.tar.xz", "kubeflow.org_pytorchjobs.yaml", "pytorchjobs.kubeflow.org")


def as_json_schema(node):
    """Kubernetes' two dialect words in JSON Schema's: int-or-string loses its type, the rest stays."""
    if isinstance(node, list):
        return [as_json_schema(n) for n in node]
    if not isinstance(node, dict):
        return node
    out = {k: as_json_schema(v) for k, v in node.items()}
    if out.get("x-kubernetes-int-or-string"):
        out.pop("type", None)
        out["anyOf"] = [{"type": "integer"}, {"type": "string"}]
    return out


def unknown_fields(value, node, path=""):
    """The paths in `value` that the schema does not know: what the API server would prune in silence."""
    if isinstance(value, list):
        return [p for i, v in enumerate(value) for p in unknown_fields(v, node.get("items", {}), f"{path}[{i}]")]
    if not isinstance(value, dict) or node.get("x-kubernetes-preserve-unknown-fields"):
        return []
    properties, rest = node.get("properties"), node.get("additionalProperties")
    out = []
    for key, v in value.items():
        if properties and key in properties:
            out += unknown_fields(v, properties[key], f"{path}.{key}")
        elif isinstance(rest, dict):
            out += unknown_fields(v, rest, f"{path}.{key}")
        elif not (properties is None and node.get("type") == "object"):
            out.append(f"{path}.{key}")
    return out


def assert_fits(schema, rendered):
    jsonschema.Draft7Validator(as_json_schema(schema)).validate(rendered)
    assert unknown_fields(rendered["spec"], schema["properties"]["spec"]) == []


@pytest.mark.parametrize("example", [e for e in SHAPES_OF_JOBS if e[0] == "pytorchjob"], indirect=True, ids="-".join)
def test_rendered_job_fits_the_operators_schema(example, schema):
    assert_fits(schema, example[2])


@pytest.mark.slow  # all of a large archive is unpacked
def test_trainjobs_and_their_runtime_fit_trainers_schemas(shared, job, plain, full):
    import functools

    read = functools.partial(definition, shared, "operators.tar.xz", "trainer-crds.yaml")
    schema = read("trainjobs.trainer.kubeflow.org")
    for kind, name in SHAPES_OF_JOBS:
        if kind == "trainjob":
            assert_fits(schema, EXAMPLES[name](TRAINJOB, job, plain, full, None))
    assert_fits(read("clustertrainingruntimes.trainer.kubeflow.org"), yaml.safe_load(RUNTIME.read_text()))


def test_a_ttl_beside_the_run_policy_is_found_by_the_walk(schema, job, plain):
    rendered = render(PYTORCHJOB, job, plain)
    rendered["spec"]["ttlSecondsAfterFinished"] = 5
    rendered["spec"]["pytorchReplicaSpecs"]["Master"]["template"]["spec"]["containers"][0]["imagePolicy"] = "x"
    assert unknown_fields(rendered["spec"], schema["properties"]["spec"]) == [
        ".pytorchReplicaSpecs.Master.template.spec.containers[0].imagePolicy", ".ttlSecondsAfterFinished",
    ]  # fmt: skip


def container(shape, rendered):
    return shape.pod(rendered)["spec"]["containers"][0]


def test_the_agent_is_told_the_rendezvous_in_arguments(job, plain, shape):
    host = shape.host.replace("j", job.name, 1) if shape.kind is not TRAINJOB else f"{job.name}-node-0-0.{job.name}"
    assert container(shape, render(shape.kind, job, plain))["command"] == [
        "python", "-m", "curricle.launch.agent", "--nnodes", "2", "--nproc-per-node", "1",
        "--rdzv-endpoint", f"{host}:29500", "--", *job.argv,
    ]  # fmt: skip


def test_the_second_attempt_meets_at_its_own_first_pod(job, plain, shape):
    second = render(shape.kind, job, plain, attempt=2)
    assert second["metadata"]["name"] == "text-01-0a1b2c3d-a2"
    assert f"{shape.kind.host('text-01-0a1b2c3d-a2', plain)}:29500" in container(shape, second)["command"]
    assert second["metadata"]["labels"]["curricle.dev/job"] == job.name


def test_an_elastic_job_has_workers_only_and_a_range_of_nodes(job, elastic):
    rendered = render(PYTORCHJOB, job, elastic)
    assert list(rendered["spec"]["pytorchReplicaSpecs"]) == ["Worker"]
    command = container(SHAPES["pytorchjob"], rendered)["command"]
    assert command[4] == "1:4" and "text-01-0a1b2c3d-worker-0:29500" in command


def test_no_environment_variable_appears_twice(job, plain, shape):
    options = dataclasses.replace(plain, env={"OMP_NUM_THREADS": "3", "CURRICLE_RUN": "of the options"})
    entries = container(shape, render(shape.kind, job, options))["env"]
    names = [e["name"] for e in entries]
    assert len(names) == len(set(names))
    assert {"name": "OMP_NUM_THREADS", "value": "3"} in entries and {"name": "CURRICLE_RUN", "value": "r1"} in entries


def test_threads_are_shared_out_among_the_ranks_of_a_pod(job, plain, shape):
    four = dataclasses.replace(job, processes_per_node=4)
    sixteen = render(shape.kind, four, dataclasses.replace(plain, cpu="16"))
    assert {"name": "OMP_NUM_THREADS", "value": "4"} in container(shape, sixteen)["env"]


def test_pods_may_do_nothing_that_training_does_not_need(job, plain, shape):
    pod = shape.pod(render(shape.kind, job, plain))["spec"]
    assert pod["automountServiceAccountToken"] is False and pod["enableServiceLinks"] is False
    assert pod["securityContext"]["runAsNonRoot"] and pod["securityContext"]["runAsUser"] == 10001
    assert pod["containers"][0]["securityContext"] == {
        "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "runAsNonRoot": True, "capabilities": {"drop": ["ALL"]},
    }  # fmt: skip


def test_pods_of_both_kinds_are_the_same(job, full):
    """Their ways differ: one says all of a pod, the other patches our runtime. What the runtime keeps to itself has the settings' defaults."""
    options = dataclasses.replace(of_trainjob(full), env={"A": "b"})
    pods = {name: shape.pod(render(shape.kind, wide(job), options)) for name, shape in SHAPES.items()}
    for name, pod in pods.items():
        (worker,) = pod["spec"]["containers"]
        pod["metadata"]["labels"].pop("training.kubeflow.org/x", None)
        worker["command"] = [
            part.replace(SHAPES[name].kind.host(job.name, options), "HOST") for part in worker["command"]
        ]
        worker["name"] = "worker"
    pods["pytorchjob"]["spec"].pop("activeDeadlineSeconds")  # Trainer looks at its own in time
    assert pods["trainjob"]["spec"].pop("restartPolicy") == "Never"  # a PyTorchJob says it of a replica
    assert pods["pytorchjob"] == pods["trainjob"]


def test_without_a_numeric_user_the_init_container_may_still_be_root(job, plain, shape):
    pod = shape.pod(render(shape.kind, job, dataclasses.replace(plain, run_as_user=None)))["spec"]
    assert pod["securityContext"] == {"seccompProfile": {"type": "RuntimeDefault"}}


def test_without_a_heartbeat_nothing_stops_a_job_but_its_deadline(job, plain, shape):
    body = render(shape.kind, wide(job), dataclasses.replace(plain, gpus=8, heartbeat_seconds=0))
    assert "heartbeat" not in yaml.safe_dump(body)


def test_rendering_twice_gives_equal_jobs_that_share_nothing(job, full):
    first, second = render(PYTORCHJOB, wide(job), full), render(PYTORCHJOB, wide(job), full)
    assert first == second
    replicas = first["spec"]["pytorchReplicaSpecs"]
    replicas["Master"]["template"]["spec"]["containers"][0]["env"].clear()
    assert replicas["Worker"]["template"]["spec"]["containers"][0]["env"]
    assert container(SHAPES["pytorchjob"], second)["env"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"elastic": Elastic(min_nodes=1, max_nodes=2)}, "a TrainJob is never elastic"),
        ({"gang": True}, "stands in their runtime .podGroupPolicy."),
        ({"image_pull_policy": "Always"}, "image_pull_policy; it stands in the runtime"),
        ({"priority_class": "training"}, "priorityClassName; it stands in the runtime 'curricle-torch'"),
        ({"env": {"PET_NNODES": "2"}}, "Trainer sets PET_NNODES itself"),
    ],
)
def test_what_a_trainjob_has_no_place_for_is_refused_and_not_dropped(options, words, job, plain):
    with pytest.raises(ConfigError, match=words):
        render(TRAINJOB, job, dataclasses.replace(plain, **options))


def test_what_is_new_in_trainer_2_3_is_not_patched(job, full):
    """Kueue 0.19 loses it."""
    (patch,) = render(TRAINJOB, job, of_trainjob(full))["spec"]["runtimePatches"]
    assert "terminationGracePeriodSeconds" not in yaml.safe_dump(patch) and not PATCHED & OF_THE_RUNTIME


def test_a_runtime_of_the_administrator_is_named(job, plain):
    options = dataclasses.replace(plain, runtime="torch-of-ours", runtime_kind="TrainingRuntime")
    reference = {"apiGroup": "trainer.kubeflow.org", "kind": "TrainingRuntime", "name": "torch-of-ours"}
    assert render(TRAINJOB, job, options)["spec"]["runtimeRef"] == reference


@pytest.mark.parametrize(
    ("changes", "options", "words"),
    [
        ({"name": "1-starts-with-a-digit"}, {}, "DNS-1035"),
        ({"name": "Upper"}, {}, "DNS-1035"),
        ({"name": "ends-"}, {}, "DNS-1035"),
        ({"name": "n" * 53}, {}, "53 characters, at most 52"),
        ({"digest": ""}, {}, "no digest"),
        ({"argv": ()}, {}, "no argv"),
        ({"nodes": 0}, {}, "1 or more"),
        ({"argv": ("-m", "x", "${replica_id}")}, {}, "macro"),
        ({}, {"labels": {"team": "a b"}}, "no label value"),
        ({"processes_per_node": 4}, {"gpus": 2}, "4 processes per node need as many GPUs"),
        ({}, {"image": ""}, "is no image"),
        ({}, {"memory": "8 GB"}, "no Kubernetes quantity"),
        ({}, {"memory": "1Gi", "shm_size": "1Gi"}, "counts against the memory limit"),
        ({}, {"cpu": "4", "cpu_limit": "2"}, "more than its limit"),
        ({}, {"elastic": Elastic(min_nodes=3, max_nodes=4)}, "min_nodes <= nodes"),
        ({}, {"queue_priority": "high"}, "without a queue"),
        ({}, {"volume_mounts": ({"name": "data", "mountPath": "/d"},)}, "names no volume"),
        ({}, {"gpus": 1, "extra_resources": {"nvidia.com/mig-1g.5gb": "1"}}, "several kinds of GPU"),
        ({}, {"extra_resources": {"habana.ai/gaudi": "1", "amd.com/gpu": "1"}}, "several kinds of GPU"),
        ({}, {"grace_seconds": 10}, "20 or more"),
        ({}, {"heartbeat_seconds": 20}, "heartbeat_seconds must be 0"),
    ],
)
def test_what_the_webhook_would_refuse_is_refused_before(changes, options, words, job, plain):
    with pytest.raises(ConfigError, match=words):
        render(PYTORCHJOB, dataclasses.replace(job, **changes), dataclasses.replace(plain, **options))


def test_all_problems_are_named_at_once(job, plain):
    with pytest.raises(ConfigError) as caught:
        render(PYTORCHJOB, dataclasses.replace(job, name="A", digest=""), dataclasses.replace(plain, cpu="x"))
    assert len(caught.value.problems) == 3


@given(st.from_regex(r"[a-z][-a-z0-9]{0,50}[a-z0-9]", fullmatch=True), st.integers(1, 120))
def test_every_attempt_has_its_own_name_that_fits(name, attempt):
    limit = PYTORCHJOB.name_limit
    names = {attempt_name(name, n, limit) for n in (1, 2, attempt, attempt + 1)}
    assert len(names) == len({1, 2, attempt, attempt + 1})
    assert all(len(n) <= limit and not n.endswith("-") and "--a" not in n.removeprefix(name) for n in names)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("1Gi", 2**30),
        ("500m", 0.5),
        ("2", 2),
        ("1.5G", 1.5e9),
        ("1e9", 1e9),
        ("2Ei", 2**61),
        (".5Gi", 2**29),
        ("+1", 1),
        ("1u", 1e-6),
    ],
)
def test_quantities_mean_what_kubernetes_means(text, number):
    assert bytes_of(text) == number


def breaks_restricted(pod: dict) -> list[str]:
    """What of a pod Kubernetes' pod security `restricted` refuses (https://kubernetes.io/docs/concepts/security/pod-security-standards/)."""
    wrong = [name for name in ("hostNetwork", "hostPID", "hostIPC") if pod.get(name)]
    allowed = {
        "emptyDir",
        "configMap",
        "secret",
        "persistentVolumeClaim",
        "projected",
        "downwardAPI",
        "ephemeral",
        "csi",
    }
    wrong += [volume["name"] for volume in pod.get("volumes", []) if not set(volume) - {"name"} <= allowed]
    whole = pod.get("securityContext", {})
    for container in pod.get("initContainers", []) + pod["containers"]:
        own = container.get("securityContext", {})
        rules = {
            "privilege escalation": own.get("allowPrivilegeEscalation") is False and not own.get("privileged"),
            "capabilities": own.get("capabilities", {}).get("drop") == ["ALL"]
            and set(own["capabilities"].get("add", [])) <= {"NET_BIND_SERVICE"},
            "root": own.get("runAsNonRoot", whole.get("runAsNonRoot")) is True
            and 0 not in (own.get("runAsUser"), whole.get("runAsUser")),
            "seccomp": (own.get("seccompProfile") or whole.get("seccompProfile") or {}).get("type")
            in ("RuntimeDefault", "Localhost"),
        }
        wrong += [f"{container['name']}: {rule}" for rule, kept in rules.items() if not kept]
    return wrong


def pods_of(rendered):
    return [replica["template"]["spec"] for replica in rendered["spec"]["pytorchReplicaSpecs"].values()]


@pytest.mark.parametrize(
    "example", [one for one in SHAPES_OF_JOBS if one[0] == "pytorchjob"], indirect=True, ids="-".join
)
def test_every_pod_of_pytorchjobs_keeps_to_restricted(example):
    for pod in pods_of(example[2]):
        assert breaks_restricted(pod) == []


def test_no_pod_shares_a_volume(job, plain):
    for pod in pods_of(render(PYTORCHJOB, job, plain)):
        assert all("emptyDir" in volume for volume in pod["volumes"]), (
            "no volume that several pods write (ReadWriteMany)"
        )


def test_with_the_operators_template_a_second_nodes_init_container_keeps_to_restricted_too(job, plain):
    text = (Path(__file__).parents[3] / "manifests/operator/initContainer.yaml").read_text()
    init = yaml.safe_load(text.replace("{{.InitContainerImage}}", "alpine:3.10").replace("{{.MaxTries}}", "100"))
    (pod,) = pods_of(render(PYTORCHJOB, dataclasses.replace(job, nodes=1), plain))
    assert breaks_restricted({**pod, "initContainers": init}) == []
    assert breaks_restricted({**pod, "initContainers": [{"name": "init-pytorch"}]}) == [
        "init-pytorch: privilege escalation",
        "init-pytorch: capabilities",
    ]


def test_host_network_scheduler_and_locked_memory_are_as_asked_and_have_their_price(job, plain, schema):
    options = dataclasses.replace(plain, host_network=True, scheduler_name="volcano", ipc_lock=True)
    rendered = render(PYTORCHJOB, job, options)
    for pod in pods_of(rendered):
        assert (pod["hostNetwork"], pod["dnsPolicy"], pod["schedulerName"]) == (
            True,
            "ClusterFirstWithHostNet",
            "volcano",
        )
        assert breaks_restricted(pod) == ["hostNetwork", "pytorch: capabilities"]
    jsonschema.Draft7Validator(as_json_schema(schema)).validate(rendered)
    assert unknown_fields(rendered["spec"], schema["properties"]["spec"]) == []


def test_jobs_that_share_a_nodes_network_meet_at_ports_of_their_own(job, plain):
    options = dataclasses.replace(plain, host_network=True)
    ports = {
        container(SHAPES["pytorchjob"], render(PYTORCHJOB, dataclasses.replace(job, name=f"job-{n}"), options))[
            "command"
        ][8].rpartition(":")[2]
        for n in range(5)
    }
    assert len(ports) == 5 and all(29500 <= int(port) < 30500 for port in ports)


@pytest.mark.parametrize(
    ("processes", "memory", "shm", "size"),
    [(1, "8Gi", "", "1Gi"), (8, "64Gi", "", "8Gi"), (8, "8Gi", "", "4096Mi"), (1, "1Gi", "", "512Mi"), (8, "64Gi", "2Gi", "2Gi")],
)  # fmt: skip
def test_shared_memory_grows_with_the_processes_of_a_pod(processes, memory, shm, size, job, plain):
    options = dataclasses.replace(plain, memory=memory, shm_size=shm, gpus=processes)
    (pod, *_) = pods_of(render(PYTORCHJOB, dataclasses.replace(job, processes_per_node=processes), options))
    assert pod["volumes"][0]["emptyDir"] == {"medium": "Memory", "sizeLimit": size}


def test_istio_is_kept_out_by_label_and_annotation(job, plain):
    meta = render(PYTORCHJOB, job, plain)["spec"]["pytorchReplicaSpecs"]["Worker"]["template"]["metadata"]
    assert meta["labels"]["sidecar.istio.io/inject"] == meta["annotations"]["sidecar.istio.io/inject"] == "false"
