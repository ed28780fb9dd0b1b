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
from curricle.launch.kubernetes.pytorchjob import PYTORCHJOB
from curricle.launch.kubernetes.render import attempt_name, render

LIMIT = PYTORCHJOB.name_limit

GOLDEN = Path(__file__).parent / "golden"


def wide(job):
    return dataclasses.replace(
        job, nodes=2, processes_per_node=8, heartbeat="minio://mlpipeline/runs/r1/01_text/heartbeat"
    )


def shapes(job, plain, full, elastic):
    return {
        "one-node": render(PYTORCHJOB, dataclasses.replace(job, nodes=1), plain),
        "two-nodes": render(PYTORCHJOB, job, plain),
        "gpus-with-everything": render(PYTORCHJOB, wide(job), full),
        "elastic": render(PYTORCHJOB, job, elastic),
        "second-attempt": render(PYTORCHJOB, job, plain, attempt=2),
    }


@pytest.mark.parametrize("name", ["one-node", "two-nodes", "gpus-with-everything", "elastic", "second-attempt"])
def test_rendered_job_is_the_committed_one(name, job, plain, full, elastic):
    """Set CURRICLE_REGENERATE=1 to write the goldens anew, then read the diff."""
    text = yaml.safe_dump(shapes(job, plain, full, elastic)[name], sort_keys=False, width=140)
    path = GOLDEN / f"{name}.yaml"
    if os.environ.get("CURRICLE_REGENERATE"):
        path.write_text(text)
    assert text == path.read_text()


@pytest.fixture(scope="session")
def schema(shared):
    """The CRD's own schema, from the operator's package; it lies first in the archive, so little of it is unpacked."""
    archive = shared / "cluster" / "programs.tar.xz"
    if not archive.is_file():
        pytest.skip(f"no operator CRD: {archive} is not there")
    with tarfile.open(archive, "r|xz") as tar:
        for member in tar:
            if member.name.endswith("kubeflow.org_pytorchjobs.yaml"):
                crd = yaml.load(tar.extractfile(member).read(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
                return crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    raise AssertionError(f"{archive} holds no PyTorchJob CRD")


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


@pytest.mark.parametrize("name", ["one-node", "two-nodes", "gpus-with-everything", "elastic", "second-attempt"])
def test_rendered_job_fits_the_operators_schema(name, schema, job, plain, full, elastic):
    rendered = shapes(job, plain, full, elastic)[name]
    jsonschema.Draft7Validator(as_json_schema(schema)).validate(rendered)
    assert unknown_fields(rendered["spec"], schema["properties"]["spec"]) == []


def test_a_ttl_beside_the_run_policy_is_found_by_the_walk(schema, job, plain):
    rendered = render(PYTORCHJOB, job, plain)
    rendered["spec"]["ttlSecondsAfterFinished"] = 5
    rendered["spec"]["pytorchReplicaSpecs"]["Master"]["template"]["spec"]["containers"][0]["imagePolicy"] = "x"
    assert unknown_fields(rendered["spec"], schema["properties"]["spec"]) == [
        ".pytorchReplicaSpecs.Master.template.spec.containers[0].imagePolicy", ".ttlSecondsAfterFinished",
    ]  # fmt: skip


def container(rendered, role="Master"):
    return rendered["spec"]["pytorchReplicaSpecs"][role]["template"]["spec"]["containers"][0]


def test_the_agent_is_told_the_rendezvous_in_arguments(job, plain):
    assert container(render(PYTORCHJOB, job, plain))["command"] == [
        "python", "-m", "curricle.launch.agent", "--nnodes", "2", "--nproc-per-node", "1",
        "--rdzv-endpoint", "text-01-0a1b2c3d-master-0:29500", "--", *job.argv,
    ]  # fmt: skip


def test_the_second_attempt_meets_at_its_own_master(job, plain):
    second = render(PYTORCHJOB, job, plain, attempt=2)
    assert second["metadata"]["name"] == "text-01-0a1b2c3d-a2"
    assert "text-01-0a1b2c3d-a2-master-0:29500" in container(second)["command"]
    assert second["metadata"]["labels"]["curricle.dev/job"] == job.name


def test_an_elastic_job_has_workers_only_and_a_range_of_nodes(job, elastic):
    rendered = render(PYTORCHJOB, job, elastic)
    assert list(rendered["spec"]["pytorchReplicaSpecs"]) == ["Worker"]
    assert container(rendered, "Worker")["command"][4] == "1:4"
    assert "text-01-0a1b2c3d-worker-0:29500" in container(rendered, "Worker")["command"]


def test_no_environment_variable_appears_twice(job, plain):
    options = dataclasses.replace(plain, env={"OMP_NUM_THREADS": "3", "CURRICLE_RUN": "of the options"})
    entries = container(render(PYTORCHJOB, job, options))["env"]
    names = [e["name"] for e in entries]
    assert len(names) == len(set(names))
    assert {"name": "OMP_NUM_THREADS", "value": "3"} in entries and {"name": "CURRICLE_RUN", "value": "r1"} in entries


def test_threads_are_shared_out_among_the_ranks_of_a_pod(job, plain):
    eight = render(PYTORCHJOB, dataclasses.replace(job, processes_per_node=4), dataclasses.replace(plain, cpu="16"))
    assert {"name": "OMP_NUM_THREADS", "value": "4"} in container(eight)["env"]


def test_pods_may_do_nothing_that_training_does_not_need(job, plain):
    pod = render(PYTORCHJOB, job, plain)["spec"]["pytorchReplicaSpecs"]["Worker"]["template"]["spec"]
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] and pod["securityContext"]["runAsUser"] == 10001
    assert pod["containers"][0]["securityContext"] == {
        "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "runAsNonRoot": True, "capabilities": {"drop": ["ALL"]},
    }  # fmt: skip


def test_without_a_numeric_user_the_init_container_may_still_be_root(job, elastic):
    pod = render(PYTORCHJOB, job, elastic)["spec"]["pytorchReplicaSpecs"]["Worker"]["template"]["spec"]
    assert pod["securityContext"] == {"seccompProfile": {"type": "RuntimeDefault"}}


def test_without_a_heartbeat_nothing_stops_a_job_but_its_deadline(job, full):
    body = render(PYTORCHJOB, wide(job), dataclasses.replace(full, heartbeat_seconds=0))
    assert "heartbeat" not in yaml.safe_dump(body)


def test_rendering_twice_gives_equal_jobs_that_share_nothing(job, full):
    first, second = render(PYTORCHJOB, wide(job), full), render(PYTORCHJOB, wide(job), full)
    assert first == second
    container(first)["env"].clear()
    assert container(first, "Worker")["env"] and container(second)["env"]


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
        ({"labels": {"curricle.dev/run": "a b"}}, {}, "no label value"),
        ({"processes_per_node": 4}, {"gpus": 2}, "4 processes per node need as many GPUs"),
        ({}, {"image": ""}, "is no image"),
        ({}, {"memory": "8 GB"}, "no Kubernetes quantity"),
        ({}, {"memory": "1Gi", "shm_size": "1Gi"}, "counts against the memory limit"),
        ({}, {"cpu": "4", "cpu_limit": "2"}, "more than its limit"),
        ({}, {"elastic": Elastic(min_nodes=3, max_nodes=4)}, "min_nodes <= nodes"),
        ({}, {"queue_priority": "high"}, "without a queue"),
        ({}, {"volume_mounts": ({"name": "data", "mountPath": "/d"},)}, "names no volume"),
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
    names = {attempt_name(name, n, LIMIT) for n in (1, 2, attempt, attempt + 1)}
    assert len(names) == len({1, 2, attempt, attempt + 1})
    assert all(len(n) <= LIMIT and not n.endswith("-") and "--a" not in n.removeprefix(name) for n in names)


@pytest.mark.parametrize(("text", "number"), [("1Gi", 2**30), ("500m", 0.5), ("2", 2), ("1.5G", 1.5e9)])
def test_quantities_mean_what_kubernetes_means(text, number):
    assert bytes_of(text) == number
