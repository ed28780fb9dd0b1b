"""A genuine cluster: KUBECONFIG, the training operator, and the trainer image on its nodes (CURRICLE_TEST_IMAGE)."""

import os
import uuid

import pytest

from curricle.launch.job import Job
from curricle.launch.pytorchjob.client import Waits, launcher
from curricle.launch.pytorchjob.render import ClusterOptions

NAMESPACE = "kubeflow"


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

    def make(*, waits=None, **changes):
        found = launcher(ClusterOptions(**(vars(options) | changes)), kubeconfig=kubeconfig, waits=waits or Waits(poll=0.5, notice=5))
        made.append(found)
        return found

    yield make
    if made:
        made[0].delete_by_run(RUN)


RUN = f"test-{uuid.uuid4().hex[:8]}"


@pytest.fixture
def make_job():
    """Jobs of this test run, whose ranks execute a line of Python."""

    def make(code: str, *, nodes: int = 1, processes: int = 1, digest: str = "d1") -> Job:
        name = f"t-{uuid.uuid4().hex[:10]}"
        return Job(name=name, argv=("-c", code), nodes=nodes, processes_per_node=processes, labels={"curricle.dev/run": RUN}, digest=digest)

    return make
