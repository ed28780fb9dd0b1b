"""What the laws share: the families with a small chain each, trained once, and a launcher that runs jobs in this process."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import pytest

from curricle.config.chain import load_stage
from curricle.launch.job import Outcome
from curricle.registry import FAMILIES, GROUP, FamilyEntry, family
from curricle.steps.chain import ChainRequest, make_plan, run_chain
from curricle.training import worker
from tests.installed import installed

NAMES = [*FAMILIES, "line"]


class HereLauncher:
    """Runs each job's ranks in this process: what a launcher does for one rank, without the seconds of a new one."""

    name = "here"
    max_attempts = 1
    retryable = frozenset()

    def __init__(self):
        self.jobs = []

    def submit(self, job):
        self.jobs.append(job)
        return job.name

    def wait(self, handle, on_log):
        job = next(job for job in reversed(self.jobs) if job.name == handle)
        code = worker.main([*job.argv[2:]])
        return Outcome(
            "succeeded" if code == 0 else "failed", "succeeded" if code == 0 else "error", code, "see the log"
        )

    def cancel(self, handle):
        pass


@pytest.fixture(scope="session")
def line_family(tmp_path_factory):
    """The line family as an installed distribution: on the path of this process and of those that it starts."""
    with installed(tmp_path_factory.mktemp("site"), GROUP, "line", "tests.laws.line:ENTRY"):
        yield


@dataclass(frozen=True)
class Sample:
    """A small chain of one family in a folder of its own."""

    name: str
    folder: Path
    stages: tuple[str, ...]

    @property
    def entry(self) -> FamilyEntry:
        return family(self.name)

    @property
    def base(self) -> Path:
        return self.folder / "config" / "config.yaml"

    @property
    def store(self) -> str:
        return str(self.folder / "store")

    def request(self, *overrides: str, **given) -> ChainRequest:
        places = [f"paths.{name}={self.folder / folder}" for name, folder in PLACES.items()]
        own = {item.partition("=")[0]: item for item in (*places, *COMMON, *overrides)}
        return ChainRequest(config=self.base, curricula=self.stages, overrides=tuple(own.values()), **given)

    def stage(self, *overrides: str):
        """The first stage's configuration."""
        return load_stage(self.base, self.stages[0], [*self.request(*overrides).overrides]).config


PLACES = {"store_uri": "store", "outputs_dir": "outputs", "cache_dir": "cache"}
COMMON = ("tracking.mlflow=false", "tracking.tensorboard=false", "training.trainer.accelerator=cpu")


def _codes(folder: Path) -> tuple[str, ...]:
    folder.mkdir(exist_ok=True)
    leaves = {"111": "bread", "112": "cheese", "121": "beer", "122": "wine", "211": "wool", "212": "silk", "221": "coal", "222": "salt"}  # fmt: skip
    above = {"1": "Food", "11": "Meals", "12": "Drinks", "2": "Other", "21": "Cloth", "22": "Mines"}
    titles = above | {code: f"Makers of {word}" for code, word in leaves.items()}
    (folder / "codes.csv").write_text("code,title\n" + "".join(f"{code},{title}\n" for code, title in titles.items()))
    texts = [f"{word} {place} number {i},{code}\n" for code, word in leaves.items() for place in ("shop", "works") for i in range(12)]  # fmt: skip
    (folder / "texts.csv").write_text("text,code\n" + "".join(texts))
    files = {
        "config.yaml": "family: codes\nmodel: {dim: 8, max_tokens: 32}\ntraining: {trainer: {max_epochs: 1}}\n"
        "data: {classification: ../codes.csv, labelled: [../texts.csv]}\n",
        "text_curriculum/one.yaml": "objective: geometry\nfeatures: cached\ntrainable: []\ntexts: [title, description]\n",
        "text_curriculum/two.yaml": "objective: retrieval\nfeatures: cached\ntrainable: [fusion, head, table, temperature]\ntexts: [entry, title]\n",
    }
    return _written(folder, files, ("one", "two"))


def _ner(folder: Path) -> tuple[str, ...]:
    for name, word, label in (("people", "Anna", "NAME"), ("places", "Berlin", "CITY")):
        (folder / name).mkdir(parents=True)
        for split, count in (("train", 24), ("validation", 6), ("test", 6)):
            rows = [
                {"text": f"{word} {name} {split} {i} knows", "annotations": [[0, len(word), label]]}
                for i in range(count)
            ]
            (folder / name / f"{split}.json").write_text(json.dumps(rows))
    common = "model: {max_tokens: 16, stride: 4}\ntraining: {learning_rate: 1e-3, trainer: {max_epochs: 1}}\n"
    files = {
        "config.yaml": f"family: ner\n{common}",
        "text_curriculum/one.yaml": "data: {new_dataset_path: ../people}\n",
        "text_curriculum/two.yaml": "data: {strategy: combined, old_dataset_path: ../people, new_dataset_path: ../places}\n",
    }
    return _written(folder, files, ("one", "two"))


def _line(folder: Path) -> tuple[str, ...]:
    folder.mkdir(exist_ok=True)
    (folder / "points.csv").write_text("".join(f"{x / 10},{x / 5 + 1}\n" for x in range(20)))
    files = {
        "config.yaml": "family: line\ntraining: {learning_rate: 0.1, trainer: {max_epochs: 2, precision: 32-true}}\n",
        "text_curriculum/one.yaml": "data: {points: ../points.csv}\n",
        "text_curriculum/two.yaml": "data: {points: ../points.csv}\n",
    }
    return _written(folder, files, ("one", "two"))


def _written(folder: Path, files: dict[str, str], stages: tuple[str, ...]) -> tuple[str, ...]:
    for name, text in files.items():
        path = folder / "config" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return stages


MAKE = {"codes": _codes, "ner": _ner, "line": _line}


@pytest.fixture(scope="session", params=NAMES)
def sample(request, tmp_path_factory, line_family) -> Sample:
    """The small chain of each family, not trained."""
    folder = tmp_path_factory.mktemp(request.param)
    return Sample(request.param, folder, MAKE[request.param](folder))


@pytest.fixture(scope="session")
def trained(sample) -> tuple[Sample, list]:
    """The chain of each family, trained once; its outcomes."""
    return sample, run_chain(make_plan(sample.request()), HereLauncher(), lambda event: None)
