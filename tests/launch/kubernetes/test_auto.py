"""The launcher `auto` takes what the cluster has, and says so."""

import re

import pytest

from curricle.errors import JobError
from curricle.launch.job import RUN, Job
from curricle.launch.kubernetes.api import Unreachable
from curricle.launch.kubernetes.auto import AutoLauncher
from curricle.launch.kubernetes.client import KubernetesLauncher
from curricle.launch.kubernetes.options import ClusterOptions
from tests.launch.kubernetes.kinds import SHAPES
from tests.launch.kubernetes.memory import FAST, Cluster


def launcher(*served: str) -> AutoLauncher:
    clusters = {name: Cluster() for name in SHAPES}
    for cluster in clusters.values():
        cluster.served = served
        cluster.allowed = lambda *right: False  # so that preflight starts no pod
    options = ClusterOptions(image="x:1")
    return AutoLauncher([KubernetesLauncher(SHAPES[n].kind, options, clusters[n], waits=FAST) for n in SHAPES])


def job(run: str = "r1") -> Job:
    return Job("a-job", ("-c", "pass"), 1, 1, labels={RUN: run}, digest="d")


@pytest.mark.parametrize(
    ("served", "kind", "words"),
    [
        (
            ("pytorchjobs",),
            "PyTorchJob",
            "takes pytorchjob: the cluster serves pytorchjobs.kubeflow.org and no TrainJobs",
        ),
        (
            ("trainjobs",),
            "TrainJob",
            "takes trainjob: the cluster serves trainjobs.trainer.kubeflow.org and no PyTorchJobs",
        ),
        (("pytorchjobs", "trainjobs"), "PyTorchJob", "takes pytorchjob: .*, and trainjobs.trainer.kubeflow.org too"),
    ],
)
def test_the_kind_that_is_served_is_taken_and_said_everywhere(served, kind, words):
    auto, lines = launcher(*served), []
    assert auto.render(job())["kind"] == kind
    handle = auto.submit(job())
    auto.chosen.api.end("a-job", 0)
    assert auto.wait(handle, lines.append).state == "succeeded"
    said = [auto.manifests([job()]).splitlines()[0], lines[0], next(iter(auto.preflight(("-c", "pass")))).detail]
    for text in said:
        assert re.search(words, text), text
    assert said[0].startswith("# ")


def test_where_neither_is_served_both_operators_are_named_and_preflight_finds_it():
    for act in (lambda: launcher().submit(job()), lambda: launcher().render(job())):
        with pytest.raises(
            JobError, match="neither pytorchjobs.kubeflow.org nor trainjobs.trainer.kubeflow.org"
        ) as caught:
            act()
        assert (caught.value.reason, caught.value.exit_code) == ("no_operator", 2)
    (finding,) = launcher().preflight(("-c", "pass"))
    assert not finding.ok and "Kubeflow Trainer" in finding.detail


def test_a_cluster_that_does_not_answer_is_waited_for_and_then_said():
    auto = launcher("trainjobs")

    def away(*args):
        raise Unreachable("503")

    auto._launchers[0].api.serves = away
    with pytest.raises(JobError, match="the cluster does not answer: 503") as caught:
        auto.submit(job())
    assert caught.value.reason == "lost"


def test_a_run_takes_its_jobs_of_every_kind_with_it():
    auto = launcher("pytorchjobs", "trainjobs")
    for one in auto._launchers:
        one.submit(job())
    assert auto.delete_by_run("r1") == ["a-job", "a-job"] and auto.delete_by_run("r1") == []
