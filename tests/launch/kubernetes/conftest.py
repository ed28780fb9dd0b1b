"""One job and two sets of options, which all tests of this folder share."""

import pytest

from curricle.launch.job import Job
from curricle.launch.kubernetes.options import ClusterOptions, Elastic, Owner
from tests.launch.kubernetes.kinds import SHAPES, Shape


@pytest.fixture(params=SHAPES)
def shape(request: pytest.FixtureRequest) -> Shape:
    return SHAPES[request.param]


@pytest.fixture
def job() -> Job:
    return Job(
        name="text-01-0a1b2c3d",
        argv=("-m", "curricle.training.worker", "--stage-uri", "minio://mlpipeline/runs/r1/01_text"),
        nodes=2,
        processes_per_node=1,
        env={"CURRICLE_RUN": "r1"},
        labels={"curricle.dev/run": "r1", "curricle.dev/stage": "01_text"},
        digest="sha256-0a1b2c3d",
    )


@pytest.fixture
def plain() -> ClusterOptions:
    return ClusterOptions(image="curricle/trainer:1")


@pytest.fixture
def full() -> ClusterOptions:
    return ClusterOptions(
        image="registry.example.com/curricle/trainer@sha256:" + "0" * 64,
        namespace="team-a",
        cpu="8",
        memory="64Gi",
        memory_limit="80Gi",
        gpus=8,
        extra_resources={"rdma/hca": "1"},
        node_selector={"pool": "a100"},
        tolerations=({"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"},),
        affinity={"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [
            {"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {"curricle.dev/run": "r1"}}}]}},
        volumes=({"name": "data", "persistentVolumeClaim": {"claimName": "corpora"}},),
        volume_mounts=({"name": "data", "mountPath": "/data", "readOnly": True},),
        shm_size="16Gi",
        scratch_size="50Gi",
        env={"NCCL_SOCKET_IFNAME": "eth0"},
        env_from_secrets={"AWS_ACCESS_KEY_ID": ("store", "accesskey"), "AWS_SECRET_ACCESS_KEY": ("store", "secretkey")},
        service_account="curricle-worker",
        priority_class="training",
        queue="team-a",
        queue_priority="high",
        gang=True,
        image_pull_secrets=("registry",),
        owner=Owner(name="launcher-pod", uid="1f0c"),
        labels={"team": "a"},
    )  # fmt: skip


@pytest.fixture
def elastic() -> ClusterOptions:
    return ClusterOptions(image="curricle/trainer:1", elastic=Elastic(min_nodes=1, max_nodes=4), run_as_user=None)
