"""README's section on NER runs from top to bottom as it is printed, on the data that ship, and gives what is printed (`tests/printed.py`)."""

import json
import re

import pytest

from tests import printed

NEARLY = 0.06
"""How far a score may be from the printed one on another machine (bf16 or float32, another number of threads)."""


def table(text: str) -> dict[str, list[float]]:
    """The rows of the table of domains: before and after."""
    rows = re.findall(r"^(new|old) +(-|\d\.\d+) +(\d\.\d+)", text, re.MULTILINE)
    return {name: [float(value) for value in values if value != "-"] for name, *values in rows}


def test_no_place_is_left_to_fill_in_and_the_quick_commands_run(tmp_path):
    lines = printed.commands()
    assert len(lines) >= 12 and not [line for line in lines if re.search(r"<\w+>", line)]
    printed.clone(tmp_path)
    quick = [line for line in lines if re.match(r"curricle (init|plan --exp|convert|plan --config)", line)]
    assert len(quick) == 4
    (tmp_path / "outputs").mkdir()
    for line in quick:
        done = printed.run(line, tmp_path)
        assert done.returncode == 0, (line, done.stdout + done.stderr)


@pytest.mark.slow
def test_the_section_runs_as_printed_and_gives_what_is_printed(tmp_path):
    printed.clone(tmp_path)
    done = {}
    for line, result in printed.run_all(tmp_path):
        assert result.returncode == 0, (line, result.stdout + result.stderr)
        done[line] = result.stdout
    assert list(done) == printed.commands()
    second = next(said for line, said in done.items() if "--run-id second" in line)
    assert "promote: new" in second and "model: outputs/final_training/minilm_second/checkpoint" in second
    expected, found = table(printed.section()), table(second)
    assert set(expected) == set(found) == {"old", "new"}
    for name in expected:
        assert found[name] == pytest.approx(expected[name], abs=NEARLY)
    spans = [json.loads(line) for line in (tmp_path / "outputs/spans.jsonl").read_text().splitlines()]
    assert len(spans) == len((tmp_path / "dataset_new/unlabelled.txt").read_text().splitlines())
    assert len(json.loads((tmp_path / "outputs/tasks.json").read_text())) == 20
