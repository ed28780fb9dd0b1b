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
def test_many_kills_leave_no_trace(tmp_path, pytestconfig):
    """Prints a line a trial, and the table of all."""
    wanted, draw = pytestconfig.getoption("--kills"), random.Random(pytestconfig.getoption("--kills-seed"))
    straight: dict[str, tuple] = {}
    kinds = [works.stage(1), works.stage(2), works.chain(1), works.chain(2)]
    kinds += [works.combine(target) for target in ("command", "data worker")]
    kinds += _of_trained_models(tmp_path)
    kills: list[Kill] = []
    began, number = time.monotonic(), 0
    while sum(kill.outcome != "missed" for kill in kills) < wanted:
        work = kinds[number % len(kinds)]
        name = f"{work.name}-{work.ranks}-{'-'.join(work.targets).replace(' ', '-')}"
        if name not in straight:
            straight[name] = uninterrupted(work, tmp_path / f"straight-{name}")
        made = run_trial(work, tmp_path / f"{number}-{name}", *straight[name], 4, draw)
        kills, number = kills + made, number + 1
        print(
            f"{time.monotonic() - began:6.0f} s  {name}: {[f'{k.target} {k.signal} {k.moment} {k.outcome}' for k in made]}"
        )
        print(wrong(made), end="", flush=True)
    print(f"\n{table(kills)}")
    assert not wrong(kills), wrong(kills)


def _of_trained_models(folder: Path) -> list[works.Work]:
    """What uses a model: the works of models that are trained here first."""
    uninterrupted(works.chain(1), folder / "line")
    store = works.trained_naics(folder / "naics")
    return [works.evaluate(folder / "line" / "store"), *(works.naics(verb, store) for verb in ("assign", "export"))]
