"""A small job, whose pods the manifests select."""

import pytest

from curricle.launch.job import Job
from curricle.launch.kubernetes.options import ClusterOptions


@pytest.fixture
def job() -> Job:
    return Job(name="j", argv=("-c", "pass"), nodes=1, processes_per_node=1, digest="d")


@pytest.fixture
def plain() -> ClusterOptions:
    return ClusterOptions(image="curricle/trainer:1")
