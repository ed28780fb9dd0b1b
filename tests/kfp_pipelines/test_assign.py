"""The pipeline that codes a table, as it is compiled, on this machine: a shard is killed, and the next run does that one alone."""

import csv
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from curricle.errors import ConfigError
from curricle.steps.assign import PIECE
from curricle.store import open_store
from curricle.store.manifest import publish
from kfp_pipelines.doors_assign import cut_table

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "kfp_pipelines/compiled/assign.yaml"


@pytest.fixture
def place(tmp_path: Path, monkeypatch):
    """A table of three shards, the texts of each its own, and a store with a pinned model of the toy family."""
    monkeypatch.chdir(tmp_path)
    files = {
        "toy_coder-1.dist-info/METADATA": "Metadata-Version: 2.1\nName: toy-coder\nVersion: 1\n",
        "toy_coder-1.dist-info/entry_points.txt": "[curricle.families]\ntoy = tests.kfp_pipelines.toy_coder:ENTRY\n",
        "in.csv": "text,id\n" + "".join(f"{text},{i}\n" for text in ("first", "deadly", "third") for i in range(PIECE)),
    }
    for name, text in files.items():
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_text(text)
    publish(open_store("store/run/one/x.ckpt"), "", None, kind="checkpoint", digest="d" * 64, info={"family": "toy"})
    return tmp_path


def run(place: Path, *parameters: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(place), str(ROOT / "src"), str(ROOT)])
    argv = ["pipeline", "run", "--local", str(PACKAGE), "store_uri=store", "model=run/one/x.ckpt", *parameters]
    return subprocess.run(
        [sys.executable, "-c", "from curricle.cli import main; main()", *argv],
        cwd=place,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_a_killed_shard_alone_is_coded_by_the_next_run(place: Path):
    given = ("table_uri=in.csv", "column=text", "output_uri=out.csv", "shards=3", "review_below=0.6", "run_id=r1")
    Path("deadly").touch()
    done = run(place, *given)
    assert done.returncode == 2 and "Traceback" not in done.stderr.splitlines()[-1] and not Path("out.csv").exists()
    Path("deadly").unlink()
    done = run(place, *given)
    assert done.returncode == 0, done.stdout + done.stderr
    with open("out.csv", newline="") as lines:
        rows = list(csv.DictReader(lines))
    assert [row["id"] for row in rows] == [str(i) for _ in range(3) for i in range(PIECE)]
    assert Counter((row["code"], row["review"], row["model_version"]) for row in rows) == {("5", "yes", "d" * 12): 2 * PIECE, ("6", "yes", "d" * 12): PIECE}  # fmt: skip
    assert Counter(Path("asked").read_text().split()) == {"first": 1, "deadly": 1, "third": 1}
    (work,) = Path("store/assigned").iterdir()
    assert sorted(path.name for path in work.iterdir()) == ["done.json", "work.json"]


@pytest.mark.parametrize(
    ("column", "max_error", "message"), [("", "", "column is empty"), ("text", "5 %", "max_error '5 %' is no number from 0 to 1")]
)  # fmt: skip
def test_a_parameter_that_makes_no_sense_is_named(column: str, max_error: str, message: str):
    with pytest.raises(ConfigError, match=message):
        cut_table("in.csv", column, "out.csv", "", 1, max_error, "", False, "", "", 3, "store")
