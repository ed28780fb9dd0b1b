"""Two commands at once, on one place or with one cache: each ends with its own work or says why not, and what stands there is one of the two, whole."""

import random
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from tests.faults import works
from tests.faults.harness import Trial, Work, difference, end_of, uninterrupted

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="finds processes in /proc")


def with_options(work: Work, *options: str) -> Work:
    """The same command with further options."""
    return replace(work, program=lambda folder: [*work.program(folder), *options])


def holds(result: dict[str, object], right: dict[str, object]) -> bool:
    """Whether all stages and weights of one result are in another, by whatever names."""

    def of(made: dict[str, object]) -> list[object]:
        stages = [v for v in made.values() if isinstance(v, dict) and v.get("kind") == "stage"]
        tensors = [content for name, content in made.items() if name.endswith(".safetensors")]
        return [*((stage["digest"], stage["metrics"]) for stage in stages), *tensors]

    there, wanted = of(result), of(right)
    return bool(wanted) and all(one in there for one in wanted)


def pair(folder: Path, first: Work, second: Work, rights: Sequence[dict[str, object]], pause: float) -> tuple[str, str]:
    """Start two works in one folder; how both ended, and what is wrong with that.

    Args:
        rights: results of which one must stand there.
        pause: seconds between the two starts.
    """
    trial = Trial(first, folder)
    commands = [trial.start()]
    time.sleep(pause)
    trial.work = second
    commands.append(trial.start())
    codes = "+".join(end_of(command) for command in commands)
    result = trial.result()
    differences = [difference(right, result) for right in rights]
    problems = [f"exit codes {codes}"] if codes not in ("0+0", "0+2", "2+0") else []
    side_by_side = codes == "0+0" and all(holds(result, right) for right in rights)
    problems += ["; ".join(differences)] if all(differences) and not side_by_side else []
    problems += trial.orphans() + trial.half() + trial.leftovers()
    said = trial.log()
    if "Traceback" in said or (problems and "error" in said):
        problems.append(said[-1500:])
    return codes, "; ".join(problems)


def test_two_combinations_into_one_folder_leave_one_whole_result(tmp_path):
    one = works.combine("command")
    other = with_options(one, "--seed", "7")
    rights = [uninterrupted(work, tmp_path / name)[0] for work, name in ((one, "one"), (other, "other"))]
    assert pair(tmp_path / "both", one, other, rights, 0)[1] == ""


@pytest.mark.faults
def test_many_pairs_of_commands(tmp_path, pytestconfig, tiny_encoder):
    """Prints a table: how often each pair ran, how it ended, and how often something was wrong."""
    times, draw = pytestconfig.getoption("--pairs"), random.Random(pytestconfig.getoption("--kills-seed"))
    store = works.trained_naics(tmp_path / "naics", tiny_encoder)
    chain, combine = works.chain(1), works.combine("command")
    assign, export = works.naics("assign", store), works.naics("export", store)
    pairs = {
        "a chain twice": (chain, chain),
        "a chain and another configuration of it": (chain, with_options(chain, "training.learning_rate=0.2")),
        "a chain on two ranks twice": (works.chain(2), works.chain(2)),
        "combine twice": (combine, combine),
        "combine with two seeds into one folder": (combine, with_options(combine, "--seed", "7")),
        "combine twice over a former result": (works.combine("command", again=True),) * 2,
        "assign twice into one file, one empty cache": (assign, assign),
        "export twice into one folder": (export, export),
    }
    rows, wrong = [], []
    for name, (one, other) in pairs.items():
        works_of_it = [one] if one is other else [one, other]
        straight = [uninterrupted(work, tmp_path / f"{name}-{n}") for n, work in enumerate(works_of_it)]
        ends: dict[str, int] = {}
        bad = 0
        for number in range(times):
            pause = draw.choice((0.0, draw.uniform(0, straight[0][1])))
            codes, problem = pair(tmp_path / f"{name} {number}", one, other, [made for made, _ in straight], pause)
            ends[codes] = ends.get(codes, 0) + 1
            bad += bool(problem)
            wrong += [f"{name}, {pause:.2f} s between them: {problem}"] if problem else []
        ended = ", ".join(f"{codes}: {count}" for codes, count in sorted(ends.items()))
        rows.append(f"| {name} | {times} | {ended} | {bad} |")
        print(rows[-1], flush=True)
    print("\n| pair | times | exit codes | wrong |\n|---|---|---|---|\n" + "\n".join(rows))
    assert not wrong, "\n".join(wrong)
