"""Bad input of every kind ends in one message with the documented exit code, and nothing is written: the table of `tests.faults.bad_cases`.

`make test` tries every ninth case of each kind, `make test-faults` all of them.
"""

import os
import subprocess
import sys
from dataclasses import replace

import pytest

from curricle.cli.look import console
from tests.faults.bad_cases import cases
from tests.faults.bad_input import attempt
from tests.faults.world import make_world

ALL = cases()
KINDS = {kind: [case for case in ALL if case.kind == kind] for kind in dict.fromkeys(case.kind for case in ALL)}
EVERY = 9
COSTLY = ("a bomb of rows", "encoder people", "encoder thesis.txt", "a zip bomb")
"""Left to `make test-faults`: each takes seconds."""


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bad") / "world"
    folder.mkdir()
    before = os.getcwd()
    os.chdir(folder)
    yield make_world(folder)
    os.chdir(before)


def wrong(tried_cases, world, place) -> list[str]:
    tried = [attempt(case, world, place / "try") for case in tried_cases]
    return [f"{one.case.kind}: {one.case.name}: {one.wrong}" for one in tried if one.wrong]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", KINDS)
def test_bad_input_is_one_message_and_writes_nothing(kind, world, tmp_path):
    chosen = KINDS[kind][len(kind) % min(EVERY, len(KINDS[kind])) :: EVERY]
    assert wrong([case for case in chosen if case.name not in COSTLY], world, tmp_path) == []


@pytest.mark.faults
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", KINDS)
def test_all_bad_input_is_one_message_and_writes_nothing(kind, world, tmp_path):
    assert wrong(KINDS[kind], world, tmp_path) == []


def test_what_a_case_could_not_write_is_not_printed_by_the_next(world, tmp_path, capsys):
    full = next(case for case in ALL if case.name == "/dev/full: show")
    assert attempt(full, world, tmp_path / "a").wrong == ""
    console.print("next")
    assert capsys.readouterr().out == "next\n"


def test_the_table_has_more_than_400_cases_of_different_names():
    names = [f"{case.kind}: {case.name}" for case in ALL]
    assert len(set(names)) == len(names) > 400


def test_what_is_wrong_is_seen(world, tmp_path):
    """The harness fails where a command ends well, says nothing of the file, or writes."""
    good = KINDS["places that cannot be written"][0]
    assert "ended with 0" in attempt(replace(good, argv=("--version",)), world, tmp_path / "a").wrong
    assert "does not say" in attempt(replace(good, says=("nowhere",)), world, tmp_path / "b").wrong
    writes = replace(good, argv=("init", "new"), code=0, says=("wrote",))
    assert "changed ('new'" in attempt(writes, world, tmp_path / "c").wrong


@pytest.mark.parametrize(
    "locale", [{"PYTHONIOENCODING": "ascii"}, {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}]
)
def test_a_real_terminal_of_few_characters_shows_a_plan(locale, world):
    code = "from curricle.cli import main; main()"
    command = [sys.executable, "-c", code, "plan", "--config", "conf/config.yaml", "-c", "one"]
    done = subprocess.run(command, cwd=world, env={**os.environ, **locale}, capture_output=True)
    assert done.returncode == 0 and b"\\u2192" in done.stdout, done.stderr
