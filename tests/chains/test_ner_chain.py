"""A chain of three NER stages on real records, by the real command: planned, killed, resumed, reused, gated, promoted, moved."""

import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.command import curricle

ROOT = Path(__file__).parents[2]
STAGES = ("wnut", "skillspan", "science")
SOURCES = {"wnut17": "wnut17", "skillspan": "skillspan/tech", "science": "crossner/science"}
SIZES = {"train": 64, "validation": 20, "test": 20}
FAST = [
    "training.trainer.max_epochs=1",
    "training.trainer.precision=32-true",
    "training.trainer.save_every_n_steps=2",
    "training.learning_rate=1e-3",
    "model.max_tokens=32",
    "model.stride=8",
    "tracking.mlflow=false",
    "tracking.tensorboard=false",
]
GATE = "test/new/f1 >= 0 and test/old/f1 >= 0"


def command(place: Path, *arguments: str) -> list[str]:
    return [sys.executable, "-c", "from curricle.cli import main; main()", *arguments]


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}", "OMP_NUM_THREADS": "1", "COLUMNS": "160"}


@pytest.fixture(scope="module")
def place(shared, tmp_path_factory) -> Path:
    """A working folder with the shipped configuration and the first records of three real datasets."""
    folder = tmp_path_factory.mktemp("ner-chain")
    shutil.copytree(ROOT / "config", folder / "config")
    for name, source in SOURCES.items():
        (folder / "datasets" / name).mkdir(parents=True)
        for split, count in SIZES.items():
            records = json.loads((shared / "data" / "ner" / source / f"{split}.json").read_text())
            annotated = [record for record in records if record["annotations"] and len(record["text"]) < 300]
            (folder / "datasets" / name / f"{split}.json").write_text(json.dumps(annotated[:count]))
    return folder


CHAIN = ["--config", "config/ner/config.yaml", "--curricula", ",".join(STAGES), *FAST]


@pytest.fixture(scope="module")
def killed(place) -> Path:
    """The chain, killed with all that it started in the middle of its second stage; the place of that stage."""
    stage = place / "checkpoints" / "sequential_wnut-skillspan-science" / "skillspan"
    process = subprocess.Popen(
        command(place, "train-curriculum", *CHAIN, "--gate", GATE), cwd=place, env=environment(), start_new_session=True
    )
    for _ in itertools.repeat(None, 6000):
        if (stage / "last.ckpt" / "manifest.json").is_file() or process.poll() is not None:
            break
        time.sleep(0.1)
    assert process.poll() is None, "the chain ended before it could be killed"
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    return stage


@pytest.fixture(scope="module")
def resumed(place, killed) -> subprocess.CompletedProcess:
    """The same command again."""
    assert not (killed / "manifest.json").exists()
    return curricle(place, "train-curriculum", *CHAIN, "--gate", GATE)


def test_the_plan_shows_each_stage_with_its_data_and_starts(place):
    plan = json.loads(curricle(place, "plan", "--json", *CHAIN).stdout)
    assert [stage["start"] for stage in plan["stages"]] == ["scratch", "continued", "continued"]
    assert len({stage["data_uri"] for stage in plan["stages"]}) == 3
    assert plan["stages"][1]["config"]["data"]["old_dataset_path"] == "datasets/wnut17"


def test_after_a_kill_the_same_command_goes_on_where_it_was(resumed):
    assert "already complete with this digest" in resumed.stdout and "resumed at epoch" in resumed.stdout
    assert re.search(r"promote: test/new/f1 0\.\d+ is >= 0", resumed.stdout), resumed.stdout


def test_what_is_complete_is_reused_and_the_promoted_model_is_the_one_that_is_meant(place, resumed):
    again = curricle(place, "train-curriculum", *CHAIN)
    assert again.stdout.count("already complete with this digest") >= 3 and "epoch  1" not in again.stdout
    measured = curricle(place, "evaluate")
    assert "science/science-epoch=01" in measured.stderr and "promoted" in measured.stderr
    assert {"test/f1", "test/new/f1", "test/old/f1"} <= set(json.loads(measured.stdout))


def test_every_stage_is_measured_on_every_dataset(place, resumed):
    data = [word for name in SOURCES for word in ("--data", f"datasets/{name}")]
    table = curricle(place, "compare", *STAGES, *data).stdout.splitlines()
    assert table[0].split() == ["after", *SOURCES] and [line.split()[0] for line in table[1:4]] == list(STAGES)


def test_a_moved_store_goes_on_being_used(place, resumed, tmp_path):
    shutil.copytree(place / "checkpoints", tmp_path / "elsewhere")
    measured = curricle(
        tmp_path, "evaluate", "--store", "elsewhere", "--model", "sequential_wnut-skillspan-science/wnut"
    )
    assert "test/f1" in json.loads(measured.stdout)
