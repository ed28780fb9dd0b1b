"""Whatever process is killed, whenever and however: the same command ends with the same weights, and nothing is left over.

The long form prints its table: `make test-faults` (KILLS=200).
"""

import random
import sys
import time
from pathlib import Path
from signal import SIGINT, SIGKILL, SIGTERM

import pytest

from tests.faults import works
from tests.faults.harness import Kill, Trial, difference, run_trial, table, uninterrupted
from tests.store.outage import SETTINGS, bucket

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="finds processes in /proc")


def wrong(kills: list[Kill]) -> str:
    return "\n".join(str(kill) for kill in kills if not kill.well)


STAGE = [("rank", SIGKILL, "upload", 2), ("agent", SIGKILL, "save, half", 1), ("command", SIGTERM, "validation", 1)]
COMBINE = [("command", SIGKILL, "renaming", 1), ("command", SIGINT, "writing", 2), ("command", SIGTERM, "reading", 1)]
READER = [("data worker", SIGKILL, "reading", 1), ("data worker", SIGTERM, "reading", 1)]


@pytest.mark.parametrize(
    ("work", "kills"),
    [(works.stage(1), STAGE), (works.combine("command"), COMBINE), (works.combine("data worker"), READER)],
    ids=["stage", "combine", "reader"],
)
def test_kills_at_chosen_moments_leave_no_trace(tmp_path, work, kills):
    straight, _ = uninterrupted(work, tmp_path / "straight")
    trial = Trial(work, tmp_path / "trial")
    for target, number, moment, which in kills:
        made = trial.kill(target, number, moment, 0, which)
        assert made.well and made.outcome not in ("missed", "0"), (made, trial.log())
    assert trial.finish() == "" and difference(straight, trial.result()) == ""
    assert trial.leftovers() == [] == trial.half()


@pytest.mark.faults
def test_many_kills_leave_no_trace(tmp_path, pytestconfig, monkeypatch, tiny_encoder):
    """Prints a line a trial, and the table of all."""
    wanted, draw = pytestconfig.getoption("--kills"), random.Random(pytestconfig.getoption("--kills-seed"))
    kills: list[Kill] = []
    with bucket() as server:
        for name, value in {**SETTINGS, "S3_ENDPOINT": f"http://127.0.0.1:{server.server_port}"}.items():
            monkeypatch.setenv(name, value)
        evaluate, assign, export = _of_trained_models(tmp_path, tiny_encoder)
        kinds = [works.stage(1), works.combine("command"), works.chain(1), works.combine("data worker"), works.stage(2)]
        kinds += [evaluate, works.chain(1, "minio://bucket/{}"), works.combine("command", again=True), works.stage(1)]
        kinds += [assign, works.chain(2), export]
        straight = [None] * len(kinds)
        began, number = time.monotonic(), draw.randrange(len(kinds))
        try:
            while sum(kill.outcome != "missed" for kill in kills) < wanted:
                which, number = number % len(kinds), number + 1
                work = kinds[which]
                straight[which] = straight[which] or uninterrupted(work, tmp_path / f"straight-{which}")
                made = run_trial(work, tmp_path / f"trial-{number}", *straight[which], 6, draw)
                kills += made
                what = [f"{kill.target} {kill.signal} {kill.moment}: {kill.outcome}" for kill in made]
                print(f"{time.monotonic() - began:6.0f} s  {work.name}, {work.ranks} ranks: {what}")
                print(wrong(made), end="", flush=True)
        finally:  # also when a person has seen enough
            print(f"\n{table(kills)}")
    assert not wrong(kills), wrong(kills)


def _of_trained_models(folder: Path, encoder: Path) -> list[works.Work]:
    """What uses a model: the works of models that are trained here first."""
    uninterrupted(works.chain(1), folder / "line")
    store = works.trained_naics(folder / "naics", encoder)
    return [works.evaluate(folder / "line" / "store"), *(works.naics(verb, store) for verb in ("assign", "export"))]
