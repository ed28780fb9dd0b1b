"""What nobody foresaw ends in one message and exit code 2; a mistake of ours keeps its traceback."""

import subprocess
import sys
from pathlib import Path

import click
import pytest

from curricle import cli

RAISED = {
    "full disk": (OSError(28, "No space left on device", "out/x.csv"), "error: out/x.csv: No space left on device\n"),
    "no such folder": (FileNotFoundError(2, "No such file or directory", "a"), "error: a: No such file or directory\n"),
    "no connection": (ConnectionRefusedError(111, "Connection refused"), "error: Connection refused\n"),
    "latin text": (UnicodeDecodeError("utf-8", b"a\xe9", 1, 2, "x"), "error: not utf-8 text: byte 1 is 0xe9\n"),
    "ascii terminal": (
        UnicodeEncodeError("ascii", "a→", 1, 2, "x"),
        "error: '→' cannot be written as ascii; set PYTHON",
    ),
    "deep": (RecursionError("maximum"), "error: nested too deeply to be read\n"),
    "memory": (MemoryError(), "error: out of memory"),
}


@pytest.fixture
def ending(monkeypatch):
    """The command ends with an error; what it does then."""

    def run(error, work=None):
        def verb():
            work() if work else None
            raise error

        monkeypatch.setattr(cli, "cli", click.Command("x", callback=verb))
        monkeypatch.setattr(sys, "argv", ["curricle"])
        cli.main()

    return run


@pytest.mark.parametrize("case", RAISED)
def test_an_error_of_the_system_is_one_message(case, ending, capsys):
    error, message = RAISED[case]
    with pytest.raises(SystemExit) as end:
        ending(error)
    said = capsys.readouterr().err
    assert end.value.code == 2 and message in said and said.count("\n") == 1


@pytest.mark.parametrize("error", [ValueError("x"), TypeError("x"), AssertionError("x"), KeyError("x")])
def test_a_mistake_of_ours_keeps_its_traceback(error, ending):
    with pytest.raises(type(error)):
        ending(error)


def test_the_file_is_named_where_python_does_not(ending, capsys, tmp_path):
    path = tmp_path / "latin.txt"
    path.write_bytes(b"caf\xe9")
    with pytest.raises(SystemExit):
        ending(ValueError(), lambda: path.read_text(encoding="utf-8"))
    assert capsys.readouterr().err == f"error: {path}: not utf-8 text: byte 3 is 0xe9\n"


CODE = "import sys; from curricle.cli import main; main()"


def test_a_reader_that_has_gone_ends_quietly():
    command = f"{sys.executable} -c '{CODE}' plan --chain chain_smoke paths.store_uri=none | true"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert done.stderr == ""


def test_a_full_disk_behind_the_output_is_one_message():
    with open("/dev/full", "w") as full:
        done = subprocess.run([sys.executable, "-c", CODE, "--help"], stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 2 and done.stderr == "error: No space left on device\n"
