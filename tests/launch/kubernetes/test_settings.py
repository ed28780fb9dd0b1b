import dataclasses
import json

import pytest

from curricle.errors import ConfigError
from curricle.launch import open_launcher
from curricle.launch.kubernetes.options import Elastic
from curricle.launch.kubernetes.pytorchjob import PYTORCHJOB
from curricle.launch.kubernetes.render import render
from curricle.launch.kubernetes.settings import (
    apply_task_config,
    from_environment,
    from_task_config,
    plain_environment,
)


def container(rendered):
    return rendered["spec"]["pytorchReplicaSpecs"]["Master"]["template"]["spec"]["containers"][0]


TASK = {
    "affinity": {"nodeAffinity": {}},
    "tolerations": [{"key": "gpu", "operator": "Exists"}],
    "node_selector": {"pool": "a100"},
    "env": [
        {"name": "LEVEL", "value": "1"},
        {"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "hub", "key": "token"}}},
        {"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
    ],
    "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "corpora"}}],
    "volume_mounts": [{"name": "data", "mountPath": "/data"}],
    "resources": {"limits": {"cpu": "4", "memory": "32Gi", "nvidia.com/gpu": "2"}, "requests": {"cpu": "2"}},
}


def test_what_is_set_on_the_kfp_task_becomes_options():
    assert from_task_config(json.dumps(TASK)) == {
        "affinity": {"nodeAffinity": {}},
        "node_selector": {"pool": "a100"},
        "tolerations": ({"key": "gpu", "operator": "Exists"},),
        "volumes": tuple(TASK["volumes"]),
        "volume_mounts": tuple(TASK["volume_mounts"]),
        "env": {"LEVEL": "1"},
        "env_from_secrets": {"TOKEN": ("hub", "token")},
        "env_entries": (TASK["env"][2],),
        "cpu": "2", "cpu_limit": "4", "memory": "32Gi", "memory_limit": "",
        "gpu_resource": "nvidia.com/gpu", "gpus": 2,
    }  # fmt: skip


def test_kfps_own_task_config_object_is_understood():
    dsl = pytest.importorskip("kfp.dsl")
    assert from_task_config(dsl.TaskConfig(**TASK)) == from_task_config(TASK)
    assert from_task_config(dsl.TaskConfig()) == {} == from_task_config("")


def test_the_task_goes_before_the_options_and_adds_to_them(job, plain):
    base = dataclasses.replace(plain, env={"LEVEL": "0", "KEPT": "yes"}, tolerations=({"key": "spot"},))
    merged = apply_task_config(base, TASK)
    assert merged.env == {"LEVEL": "1", "KEPT": "yes"} and len(merged.tolerations) == 2 and merged.gpus == 2
    assert container(render(PYTORCHJOB, job, merged))["resources"]["limits"] == {
        "cpu": "4",
        "memory": "32Gi",
        "nvidia.com/gpu": "2",
    }


@pytest.mark.parametrize(
    ("task", "words"),
    [
        ({"resource": {}}, "known are"),
        ("{", "no JSON"),
        ({"resources": {"limits": {"nvidia.com/gpu": "1", "amd.com/gpu": "1"}}}, "several kinds"),
        ({"resources": {"limits": {"nvidia.com/gpu": "0.5"}}}, "whole GPUs"),
        ({"node_selector": 3}, "node_selector must be an object"),
        ({"tolerations": ["x"]}, "tolerations must be a list of objects"),
        ("3", "must be an object"),
        ({"env": [{"name": "AWS_SECRET_ACCESS_KEY", "value": "k3y"}]}, "gives AWS_SECRET_ACCESS_KEY in plain text"),
    ],
)
def test_a_task_configuration_that_has_no_place_is_refused(task, words):
    with pytest.raises(ConfigError, match=words):
        from_task_config(task)


def test_settings_of_a_pod_are_file_then_image_then_owner(tmp_path):
    path, namespace = tmp_path / "cluster.yaml", tmp_path / "namespace"
    path.write_text(
        "image: a:1\ncpu: 4\nenv_from_secrets: {AWS_ACCESS_KEY_ID: [store, key]}\nelastic: {min_nodes: 1, max_nodes: 2}\n"
    )
    namespace.write_text("team-a\n")
    options = from_environment(
        {"CURRICLE_CLUSTER": str(path), "CURRICLE_TRAINER_IMAGE": "b:2", "KFP_POD_NAME": "p", "KFP_POD_UID": "u"},
        TASK,
        namespace_file=namespace,
    )
    assert (options.image, options.cpu, options.cpu_limit, options.namespace, options.owner.uid) == (
        "b:2",
        "2",
        "4",
        "team-a",
        "u",
    )
    assert options.elastic == Elastic(min_nodes=1, max_nodes=2)
    assert options.env_from_secrets == {"AWS_ACCESS_KEY_ID": ("store", "key"), "TOKEN": ("hub", "token")}


def test_without_an_image_nothing_is_guessed(tmp_path):
    with pytest.raises(ConfigError, match="CURRICLE_TRAINER_IMAGE"):
        from_environment({}, namespace_file=tmp_path / "none")
    with pytest.raises(ConfigError, match="CURRICLE_CLUSTER.* is not there"):
        from_environment({"CURRICLE_CLUSTER": str(tmp_path / "none")})


@pytest.mark.parametrize("kind", ["pytorchjob", "trainjob", "auto"])
def test_who_starts_nothing_needs_no_image(kind, monkeypatch):
    for name in ("CURRICLE_TRAINER_IMAGE", "CURRICLE_CLUSTER", "CURRICLE_CLUSTER_YAML"):
        monkeypatch.delenv(name, raising=False)
    assert open_launcher(kind, None).name == kind
    with pytest.raises(ConfigError, match="no worker image"):
        open_launcher(kind)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("imge: a", "CURRICLE_CLUSTER_YAML:1: imge: unknown key; did you mean 'image'"),
        ("gpus: two", "gpus: must be a whole number, not 'two'"),
        ("tolerations: {key: x}", "tolerations: must be a list"),
        ("owner: {name: p, uid: u}", "owner: unknown key"),
        ("elastic: {min_node: 1, max_nodes: 2}", "elastic.min_node: unknown key; did you mean 'min_nodes'"),
        ("elastic: 2", "elastic: must be a section of keys, not 2"),
        ("elastic: {min_nodes: 1}", "elastic.max_nodes: is required"),
        ("env: [A]", r"env: must be a mapping \(key: value\), each value text"),
        ("env: {DEBUG: true}", r"env: must be a mapping \(key: value\), each value text, not {'DEBUG': True}"),
        ("env_from_secrets: {TOKEN: [store]}", r"env_from_secrets: .* each value a list of 2 \(\[text, text\]\)"),
        ("clean_pod_policy: Never", "clean_pod_policy: must be one of Running, All, None"),
        ("cpu: 1\ncpu: 2", "'cpu' stands twice"),
        ("- image", "must hold a mapping"),
        ("image: [", "is not YAML"),
        ("cpu: 1\ngpu_resource: ''", "CURRICLE_CLUSTER_YAML:2: gpu_resource: must be the name of a resource of nodes"),
        ("extra_resources: {ib: 1}", "extra_resources: 'ib' is no further resource; expected domain/name"),
        ("extra_resources: {cpu: 1}", "the setting `cpu` says that"),
        (
            "extra_resources: {rdma/ib: some}",
            "CURRICLE_CLUSTER_YAML:1: extra_resources.rdma/ib: 'some' is no Kubernetes",
        ),
        ("extra_resources: {rdma/ib: 500m}", "extra_resources.rdma/ib: must be a whole number"),
        ("namespace: Bad_NS", "CURRICLE_CLUSTER_YAML:1: namespace: must be 1 to 63 of a-z"),
        ("queue: My_Queue", "CURRICLE_CLUSTER_YAML:1: queue: must be the name of an object, at most 63"),
        ("service_account: a b", "service_account: must be the name"),
        (
            "tolerations: [{kye: gpu, operator: Exists}]",
            r"tolerations\[0\]: unknown key 'kye'; known here: key, operator",
        ),
        ("tolerations: [{key: gpu, effect: Never}]", r"tolerations\[0\]: effect must be one of NoSchedule"),
        ("node_selector: {pool: a b}", "node_selector.pool: 'a b' is no label value"),
        ("env: {RANK: '0'}", "env.RANK: is set for every rank"),
        ("env: {PET_NNODES: '2'}", "env.PET_NNODES: is set for every rank"),
        ("env: {'A=B': x}", "env: 'A=B' is no name of a variable"),
        ("memory: 16GB", "CURRICLE_CLUSTER_YAML:1: memory: '16GB' is no Kubernetes quantity"),
        ("run_as_user: 3000000000", "run_as_user: must lie in"),
        ("tolerations: [{key: a b}]", r"tolerations\[0\]: key 'a b' is no key"),
        ("env: {HF_TOKEN: hf_x}", "CURRICLE_CLUSTER_YAML:1: env.HF_TOKEN: is a secret in plain text"),
        ("env_entries: [{name: HF_TOKEN, value: hf_x}]", "env_entries.HF_TOKEN: is a secret in plain text"),
        ("env_from_secrets: {TOKEN: [Store, key]}", "env_from_secrets.TOKEN: 'Store' cannot be the name of a secret"),
    ],
)
def test_settings_that_are_wrong_are_named_with_their_line(text, words):
    environment = {"CURRICLE_CLUSTER_YAML": text, "CURRICLE_TRAINER_IMAGE": "a:1"}
    with pytest.raises(ConfigError, match=words):
        from_environment(environment)
    with pytest.raises(ConfigError, match=words):
        plain_environment(environment)


def test_all_that_is_wrong_is_named_at_once():
    with pytest.raises(ConfigError) as caught:
        from_environment({"CURRICLE_CLUSTER_YAML": "image: a\ngpus: x\nelastic: {max: 1}\nqueu: q"})
    assert [problem.partition(":")[0] for problem in caught.value.problems] == ["CURRICLE_CLUSTER_YAML"] * 5
    assert "CURRICLE_CLUSTER_YAML:4: queu" in caught.value.problems[-1]


def test_numbers_are_taken_where_kubernetes_wants_text():
    options = from_environment(
        {"CURRICLE_CLUSTER_YAML": "{image: a, cpu: 1.5, env: {LEVEL: 2}, extra_resources: {x/y: 1}}"}
    )
    assert (options.cpu, options.env, options.extra_resources) == ("1.5", {"LEVEL": "2"}, {"x/y": "1"})


@pytest.mark.parametrize(
    "text",
    [
        "tolerations: [{key: a, operator: '', effect: null}]",
        "annotations: {Example.com/Foo: x}",
        "env: {1X: x, A B: y}",
        "scheduler_name: My_Scheduler",
        "{memory: .5Gi, cpu: 100u, scratch_size: +1Gi}",
    ],
)
def test_what_kubernetes_takes_is_taken(text):
    from_environment({"CURRICLE_CLUSTER_YAML": text, "CURRICLE_TRAINER_IMAGE": "a:1"})


def test_the_plain_variables_are_had_without_an_image():
    assert plain_environment({"CURRICLE_CLUSTER_YAML": "env: {S3_ENDPOINT: 'http://x:9000'}"}) == {
        "S3_ENDPOINT": "http://x:9000"
    }
    assert plain_environment({}) == {}


def test_with_a_role_for_the_store_nobody_takes_the_keys_of_the_pipelines_secret(plain):
    names = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
    key = {"name": "mlpipeline-minio-artifact", "key": "accesskey", "optional": True}
    task = {"env": [{"name": name, "valueFrom": {"secretKeyRef": key}} for name in names]}
    assert len(apply_task_config(plain, task).env_entries) == 2
    assert apply_task_config(dataclasses.replace(plain, store_by_role=True), task).env_entries == ()
    text = "env: {S3_ENDPOINT: https://s3}\nstore_by_role: true"
    assert plain_environment({"CURRICLE_CLUSTER_YAML": text}) == {"S3_ENDPOINT": "https://s3", **dict.fromkeys(names)}


@pytest.mark.parametrize(
    ("asked", "kind", "count", "others"),
    [
        ({"nvidia.com/mig-1g.10gb": "1"}, "nvidia.com/mig-1g.10gb", 1, {}),
        ({"amd.com/gpu": "2"}, "amd.com/gpu", 2, {}),
        ({"nvidia.com/gpu": "1", "nvidia.com/gpumem": "3000", "nvidia.com/gpucores": "30"}, "nvidia.com/gpu", 1, {"nvidia.com/gpumem": "3000", "nvidia.com/gpucores": "30"}),
        ({"nvidia.com/gpu": "1", "rdma/ib": "1"}, "nvidia.com/gpu", 1, {"rdma/ib": "1"}),
        ({"gpu.intel.com/i915": "1"}, "gpu.intel.com/i915", 1, {}),
        ({"habana.ai/gaudi": "8"}, "habana.ai/gaudi", 8, {}),
        ({"nvidia.com/gpu.shared": "1"}, "nvidia.com/gpu.shared", 1, {}),
        ({"volcano.sh/vgpu-number": "1", "volcano.sh/vgpu-memory": "3000"}, "volcano.sh/vgpu-number", 1, {"volcano.sh/vgpu-memory": "3000"}),
        ({"nvidia.com/gpu": "0"}, "nvidia.com/gpu", 0, {}),
        ({"nvidia.com/gpu": "0", "nvidia.com/mig-1g.5gb": "1"}, "nvidia.com/mig-1g.5gb", 1, {}),
        ({"aws.amazon.com/neuroncore": "2"}, "aws.amazon.com/neuroncore", 2, {}),
        ({"qualcomm.com/qaic": "1"}, "qualcomm.com/qaic", 1, {}),
        ({"nvidia.com/GA102GL_A10": "1"}, "nvidia.com/GA102GL_A10", 1, {}),
        ({"hygon.com/dcunum": "1", "hygon.com/dcumem": "2000"}, "hygon.com/dcunum", 1, {"hygon.com/dcumem": "2000"}),
        ({"huawei.com/Ascend310P": "1", "huawei.com/Ascend310P-memory": "8"}, "huawei.com/Ascend310P", 1, {"huawei.com/Ascend310P-memory": "8"}),
        ({"nvidia.com/gpu": "1", "nvidia.com/hostdev": "1"}, "nvidia.com/gpu", 1, {"nvidia.com/hostdev": "1"}),
    ],
)  # fmt: skip
def test_a_task_has_one_kind_of_gpu_whatever_the_cluster_has(asked, kind, count, others, job, plain):
    """In place of the settings' own kind and of what belongs to it, beside what does not."""
    base = dataclasses.replace(
        plain, gpus=1, gpu_resource="nvidia.com/gpu", extra_resources={"nvidia.com/gpumem": "1", "rdma/hca": "1"}
    )
    merged = apply_task_config(base, {"resources": {"limits": asked}})
    kept = {"nvidia.com/gpumem": "1"} if kind == "nvidia.com/gpu" else {}
    assert (merged.gpu_resource, merged.gpus) == (kind, count)
    assert merged.extra_resources == {"rdma/hca": "1", **kept, **others}
    limits = container(render(PYTORCHJOB, dataclasses.replace(job, processes_per_node=1), merged))["resources"][
        "limits"
    ]
    assert {name for name in limits if name not in ("cpu", "memory")} == {
        "rdma/hca",
        *kept,
        *others,
        *([kind] if count else []),
    }


@pytest.mark.parametrize(
    "asked",
    [{"nvidia.com/gpu": "1", "amd.com/gpu": "1"}, {"nvidia.com/mig-1g.5gb": "1", "nvidia.com/mig-2g.10gb": "1"}],
)
def test_two_kinds_of_gpu_are_refused(asked):
    with pytest.raises(ConfigError, match="several kinds of GPU"):
        from_task_config({"resources": {"limits": asked}})


@pytest.mark.parametrize(
    "share", [{"tencent.com/vcuda-core": "30", "tencent.com/vcuda-memory": "8"}, {"aliyun.com/gpu-mem": "4"}]
)
def test_a_share_of_another_makers_gpu_needs_no_number_and_gets_no_whole_one(share, plain):
    base = dataclasses.replace(plain, gpus=1, gpu_resource="nvidia.com/gpu")
    merged = apply_task_config(base, {"resources": {"limits": share}})
    assert merged.gpus == 0 and merged.extra_resources == share
    own = apply_task_config(base, {"resources": {"limits": {"nvidia.com/gpumem": "3000"}}})
    assert own.gpus == 1, "it is of the GPU that the settings name"
