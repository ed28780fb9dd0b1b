"""What every launcher keeps to. A further one joins with a `Place` of its own.

Jobs are short programs; how they are brought to their end is the place's: genuine processes end by themselves, jobs of a cluster in memory are moved
by hand.
"""

import dataclasses
import inspect
import subprocess
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from curricle.errors import ConfigError, Finding, JobError
from curricle.launch import GROUP, LAUNCHERS, check_launcher, launchers, open_launcher
from curricle.launch.job import RETRYABLE, RUN, Job, Launcher
from curricle.launch.kubernetes.auto import AutoLauncher
from curricle.launch.kubernetes.client import KubernetesLauncher
from curricle.launch.kubernetes.kind import JobKind
from curricle.launch.kubernetes.options import ClusterOptions
from curricle.launch.kubernetes.pytorchjob import PYTORCHJOB
from curricle.launch.kubernetes.trainjob import TRAINJOB
from curricle.launch.local import LocalLauncher
from tests.installed import installed
from tests.launch.kubernetes.memory import FAST, Cluster
from tests.laws.plain import PlainLauncher

VERBS = sorted(name for name, _ in inspect.getmembers(Launcher, inspect.isfunction) if not name.startswith("_"))


class Place(ABC):
    """A launcher, and the outside world that it speaks to."""

    launcher: Launcher

    @abstractmethod
    def job(self, name: str, code: str = "pass", *, run: str = "r1", digest: str = "d1") -> Job:
        """A job of this place whose only rank runs a line of Python."""

    @abstractmethod
    def let_it_end(self, job: Job, exit_code: int) -> None:
        """See to it that a submitted job ends as its program would; it may take a moment."""

    @abstractmethod
    def is_there(self, job: Job) -> bool:
        """Whether a submitted job has neither been stopped nor removed."""

    @abstractmethod
    def close(self) -> None:
        """Leave nothing behind."""


class OnThisMachine(Place):
    def __init__(self) -> None:
        self.launcher = LocalLauncher()
        self.names: list[str] = []

    def job(self, name: str, code: str = "pass", *, run: str = "r1", digest: str = "d1") -> Job:
        self.names.append(name)
        return Job(name, ("-c", code), 1, 1, labels={RUN: run}, digest=digest)

    def let_it_end(self, job: Job, exit_code: int) -> None:
        pass

    def is_there(self, job: Job) -> bool:
        (running,) = [r for r in self.launcher._running.values() if r.job.name == job.name]
        return not running.cancelled.is_set()

    def close(self) -> None:
        for handle in list(self.launcher._running):
            self.launcher.cancel(handle)
            self.launcher.wait(handle, lambda line: None)


class OnACluster(Place):
    """The Kubernetes launcher of one kind of job, over a cluster in memory."""

    def __init__(self, kind: JobKind) -> None:
        self.cluster = Cluster()
        self.launcher = KubernetesLauncher(kind, ClusterOptions(image="x:1"), self.cluster, waits=FAST)

    def job(self, name: str, code: str = "pass", *, run: str = "r1", digest: str = "d1") -> Job:
        return Job(name, ("-c", code), 1, 1, labels={RUN: run}, digest=digest)

    def let_it_end(self, job: Job, exit_code: int) -> None:
        self.cluster.end(job.name, exit_code)

    def is_there(self, job: Job) -> bool:
        return job.name in self.cluster.jobs

    def close(self) -> None:
        pass


class OnWhateverClusterThereIs(OnACluster):
    """The launcher `auto`, where no PyTorchJobs are served."""

    def __init__(self) -> None:
        super().__init__(TRAINJOB)
        self.cluster.served = ("trainjobs",)
        self.cluster.allowed = lambda *right: False  # so that preflight starts no pod, which nobody would end
        other = KubernetesLauncher(PYTORCHJOB, ClusterOptions(image="x:1"), Cluster(), waits=FAST)
        self.launcher = AutoLauncher([other, self.launcher])


class AsAnotherDistributionHasIt(Place):
    """The launcher of `plain.py`, which an entry point offers."""

    def __init__(self) -> None:
        self.launcher = PlainLauncher()

    def job(self, name: str, code: str = "pass", *, run: str = "r1", digest: str = "d1") -> Job:
        return Job(name, ("-c", code), 1, 1, labels={RUN: run}, digest=digest)

    def let_it_end(self, job: Job, exit_code: int) -> None:
        pass

    def is_there(self, job: Job) -> bool:
        return self.launcher._goes_on(job.name)

    def close(self) -> None:
        for handle in list(self.launcher._agents):
            self.launcher.cancel(handle)
            self.launcher.wait(handle, lambda line: None)


PLACES: dict[str, Callable[[], Place]] = {
    "local": OnThisMachine,
    "pytorchjob": lambda: OnACluster(PYTORCHJOB),
    "trainjob": lambda: OnACluster(TRAINJOB),
    "auto": OnWhateverClusterThereIs,
    "plain": AsAnotherDistributionHasIt,
}
LONG = "import time; time.sleep(60)"


def test_every_launcher_has_a_place_here():
    assert set(LAUNCHERS) == set(PLACES) - {"plain"}


def test_another_distribution_offers_a_launcher_by_an_entry_point(tmp_path: Path):
    with installed(tmp_path, GROUP, "plain", "tests.laws.plain:open_launcher"):
        assert [*launchers()] == ["plain", *LAUNCHERS]
        assert open_launcher("plain").name == "plain"
        code = "from curricle.cli import main; main()"
        done = subprocess.run([sys.executable, "-c", code, "train", "--help"], capture_output=True, text=True)
    assert "|plain|" in f"|{done.stdout.partition('--launcher [')[2].partition(']')[0]}|", done.stdout + done.stderr
    with pytest.raises(ConfigError, match="no launcher 'plain'"):
        open_launcher("plain")


@pytest.fixture(params=PLACES)
def place(request: pytest.FixtureRequest) -> Iterator[Place]:
    place = PLACES[request.param]()
    assert place.launcher.name == request.param
    yield place
    place.close()


def quiet(line: str) -> None:
    """Where log lines go that no test looks at."""


def test_the_protocol_is_whole(place: Place):
    for verb in VERBS:
        asked = inspect.signature(getattr(Launcher, verb))
        offered = inspect.signature(getattr(type(place.launcher), verb))
        needed = [name for name, parameter in offered.parameters.items() if parameter.default is parameter.empty]
        assert needed == list(asked.parameters), verb
    assert isinstance(place.launcher.max_attempts, int) and place.launcher.max_attempts >= 1
    assert place.launcher.retryable <= RETRYABLE


def test_rendering_is_pure_and_equal_twice(place: Place):
    job = place.job("a-job")
    kept = dataclasses.replace(job)
    assert place.launcher.render(job) == place.launcher.render(job) and job == kept
    assert "a-job" in str(place.launcher.render(job))
    with pytest.raises(JobError):
        place.launcher.attach(job.name)


def test_manifests_are_yaml_and_what_is_rendered(place: Place):
    jobs = [place.job("a-job"), place.job("another")]
    documents = [document for document in yaml.safe_load_all(place.launcher.manifests(jobs)) if document is not None]
    assert documents in ([], [place.launcher.render(job) for job in jobs])
    assert [d for d in yaml.safe_load_all(place.launcher.manifests([])) if d is not None] == []


def test_the_same_work_is_adopted_and_other_work_of_its_name_refused(place: Place):
    job = place.job("a-job", LONG)
    handle = place.launcher.submit(job)
    assert place.launcher.submit(dataclasses.replace(job)) == handle == place.launcher.attach(job.name)
    with pytest.raises(JobError) as caught:
        place.launcher.submit(place.job("a-job", LONG, digest="d2"))
    assert caught.value.reason == "refused" and caught.value.exit_code == 2
    assert place.is_there(job)


def test_a_job_that_nobody_has_submitted_cannot_be_attached_to(place: Place):
    with pytest.raises(JobError, match="nobody-knows") as caught:
        place.launcher.attach("nobody-knows")
    assert caught.value.reason == "lost"


@pytest.mark.parametrize(
    ("exit_code", "state", "reason"),
    [
        (0, "succeeded", "succeeded"),
        (2, "failed", "configuration"),
        (75, "failed", "store_away"),
        (7, "failed", "error"),
    ],
)
def test_waiting_gives_the_outcome(place: Place, exit_code: int, state: str, reason: str):
    job = place.job("a-job", f"import sys; sys.exit({exit_code})")
    handle = place.launcher.submit(job)
    place.let_it_end(job, exit_code)
    outcome = place.launcher.wait(handle, quiet)
    assert (outcome.state, outcome.reason, outcome.exit_code) == (state, reason, exit_code), outcome
    assert bool(outcome.where) == bool(exit_code)


def test_cancelling_ends_the_wait_and_is_no_error_twice(place: Place):
    job = place.job("a-job", LONG)
    handle = place.launcher.submit(job)
    place.launcher.cancel(handle)
    place.launcher.cancel(handle)
    outcome = place.launcher.wait(handle, quiet)
    assert (outcome.state, outcome.reason) == ("cancelled", "cancelled") and not place.is_there(job)
    place.launcher.cancel(handle)


def test_a_run_takes_its_own_jobs_with_it_and_no_other(place: Place):
    jobs = [place.job("one", LONG, run="r1"), place.job("two", LONG, run="r1"), place.job("three", LONG, run="r2")]
    for job in jobs:
        place.launcher.submit(job)
    assert sorted(place.launcher.delete_by_run("r1")) == ["one", "two"]
    assert [place.is_there(job) for job in jobs] == [False, False, True]
    assert place.launcher.delete_by_run("r1") == [] == place.launcher.delete_by_run("r3")


def test_preflight_gives_findings(place: Place):
    findings = list(place.launcher.preflight(("-c", "pass")))
    assert all(isinstance(finding, Finding) for finding in findings)


@pytest.mark.parametrize("name", [name for name in LAUNCHERS if name != "auto"])  # which must ask what it is to render
def test_opening_connects_to_nothing_and_rendering_needs_no_cluster(name: str, tmp_path: Path):
    """In a process of its own, without a kubeconfig: no client of a cluster is even imported."""
    code = (
        "import sys\nfrom curricle.launch import open_launcher\nfrom curricle.launch.job import Job\n"
        f"launcher = open_launcher({name!r})\n"
        "assert not {'torchx', 'kubernetes', 'torch'} & set(sys.modules), sys.modules\n"
        "job = Job('a-job', ('-c', 'pass'), 1, 1, digest='d')\n"
        "launcher.render(job), launcher.manifests([job])\n"
        "assert not {'kubernetes', 'torch'} & set(sys.modules), sys.modules\n"
    )
    environment = {"PATH": "", "HOME": str(tmp_path), "CURRICLE_TRAINER_IMAGE": "x:1", "PYTHONPATH": ":".join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("name", "advice"),
    [("pytorchjobs", "'pytorchjob'"), ("Local", "'local'"), ("", "there are local, pytorchjob, trainjob, auto")],
)
def test_an_unknown_launcher_is_refused_with_the_nearest(name: str, advice: str):
    for refuse in (check_launcher, open_launcher):
        with pytest.raises(ConfigError, match=f"no launcher {name!r}; .*{advice}"):
            refuse(name)


def test_every_kind_of_job_is_rendered_by_its_own_names():
    """Nothing of a PyTorchJob is left in what the Kubernetes launcher makes and says of another kind."""
    place = PLACES["trainjob"]()
    job = dataclasses.replace(place.job("a-job"), nodes=3)
    text = place.launcher.manifests([job])
    assert "kind: TrainJob" in text and "a-job-node-0-0.a-job:29500" in text and "pytorch" not in text.lower()
    with pytest.raises(ConfigError, match="at most 45"):
        place.launcher.render(dataclasses.replace(job, name="n" * 46))
    finding = list(place.launcher.preflight(("-c", "pass")))[0]
    assert (finding.name, finding.advice) == ("TrainJob API", "Install the Kubeflow Trainer (2.3 or newer).")
