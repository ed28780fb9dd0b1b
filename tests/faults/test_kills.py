"""Whatever process is killed, whenever and however: the same command ends with the same weights, and nothing is left over.

The long form prints its table: `make test-faults` (KILLS=200).
"""

import random
import sys
import time
from pathlib import Path

import pytest

from tests.faults import works
from tests.faults.harness import Kill, run_trial, table, uninterrupted
from tests.store.outage import SETTINGS, bucket

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="finds processes in /proc")


def wrong(kills: list[Kill]) -> str:
    return "\n".join(str(kill) for kill in kills if not kill.well)


@pytest.mark.parametrize("work", [works.stage(1), works.combine("command"), works.combine("data worker")])
def test_a_dozen_kills_leave_no_trace(tmp_path, work):
    draw = random.Random(7)
    straight, seconds = uninterrupted(work, tmp_path / "straight")
    kills = [kill for n in range(2) for kill in run_trial(work, tmp_path / str(n), straight, seconds, 3, draw)]
    assert not wrong(kills), wrong(kills)


@pytest.mark.faults
def test_many_kills_leave_no_trace(tmp_path, pytestconfig, monkeypatch, tiny_encoder):
    """Prints a line a trial, and the table of all."""
    wanted, draw = pytestconfig.getoption("--kills"), random.Random(pytestconfig.getoption("--kills-seed"))
    kills: list[Kill] = []
    with bucket() as server:
        for name, value in {**SETTINGS, "S3_ENDPOINT": f"http://127.0.0.1:{server.server_port}"}.items():
            monkeypatch.setenv(name, value)
        kinds = [works.stage(1), works.chain(1), works.stage(2), works.chain(1, "minio://bucket/{}"), works.chain(2)]
        kinds += [works.combine("command"), works.combine("command", again=True), works.combine("data worker")]
        kinds += _of_trained_models(tmp_path, tiny_encoder)
        straight = [None] * len(kinds)
        began, number = time.monotonic(), draw.randrange(len(kinds))
        while sum(kill.outcome != "missed" for kill in kills) < wanted:
            which, number = number % len(kinds), number + 1
            work = kinds[which]
            straight[which] = straight[which] or uninterrupted(work, tmp_path / f"straight-{which}")
            made = run_trial(work, tmp_path / f"trial-{number}", *straight[which], 4, draw)
            kills += made
            what = [f"{kill.target} {kill.signal} {kill.moment}: {kill.outcome}" for kill in made]
            print(f"{time.monotonic() - began:6.0f} s  {work.name}, {work.ranks} ranks: {what}")
            print(wrong(made), end="", flush=True)
    print(f"\n{table(kills)}")
    assert not wrong(kills), wrong(kills)


def _of_trained_models(folder: Path, encoder: Path) -> list[works.Work]:
    """What uses a model: the works of models that are trained here first."""
    uninterrupted(works.chain(1), folder / "line")
    store = works.trained_naics(folder / "naics", encoder)
    return [works.evaluate(folder / "line" / "store"), *(works.naics(verb, store) for verb in ("assign", "export"))]
