"""What is read and written besides plain files: pipes, devices, closed streams, a full disk. Nothing waits for ever, and nothing is left over."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest

from curricle import cli
from curricle.cli.init import write_copy
from curricle.cli.ner import _checked_input
from curricle.config.load import read_yaml
from curricle.errors import ConfigError, CurricleError, DataError
from curricle.families.ner.convert import convert
from curricle.families.ner.formats import load_records
from curricle.steps.assign import Opened, assign_table
from curricle.steps.assigned import Order
from curricle.steps.final import read_cache
from kfp_pipelines.compile import compile_all
from kfp_pipelines.parameters import read_parameters
from tests.faults.full import file_size_limit


@pytest.fixture(autouse=True)
def soon():
    """A test that waits for ever fails."""
    signal.signal(signal.SIGALRM, signal.default_int_handler)
    signal.alarm(60)
    yield
    signal.alarm(0)


class Coder:
    def assign(self, texts, top):
        return [[SimpleNamespace(code="11", title="eleven", confidence=0.5)] for _ in texts]


def assign(source, output):
    return assign_table(source, output, Order(column="text"), lambda: Opened(Coder(), "v", "d"))


READERS = {
    "convert": lambda path: convert(path, path.parent / "new/out.jsonl", "jsonl"),
    "records": load_records,
    "assign": lambda path: assign(path, path.parent / "out.csv"),
    "configuration": read_yaml,
    "cache": read_cache,
    "pipeline": read_parameters,
}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("place", ["fifo.jsonl", "/dev/zero"])
def test_a_pipe_that_nobody_has_open_and_a_device_are_refused_before_they_are_opened(tmp_path, reader, place):
    os.mkfifo(tmp_path / "fifo.jsonl")
    (tmp_path / "z").symlink_to(place)
    with pytest.raises(CurricleError, match=r"is (a pipe|a device)"):
        READERS[reader](tmp_path / "z")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["fifo.jsonl", "z"]


def test_assign_reads_what_another_command_writes(tmp_path):
    """As ``curricle assign <(zcat rows.csv.gz)`` does."""
    reader, writer = os.pipe()
    thread = threading.Thread(target=lambda: (os.write(writer, b"text\nbeer\n"), os.close(writer)))
    thread.start()
    assert assign(Path(f"/dev/fd/{reader}"), tmp_path / "o").rows == 1
    thread.join()
    os.close(reader)
    assert [line.split(",")[:2] for line in (tmp_path / "o").read_text().splitlines()] == [
        ["text", "code"],
        ["beer", "11"],
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["o"]


def test_a_line_without_an_end_is_refused(monkeypatch):
    with open("/dev/zero") as zero:
        monkeypatch.setattr(sys, "stdin", zero)
        with pytest.raises(DataError, match=r"input line 1 \(byte 0\): longer than 67,108,864 bytes"):
            _checked_input()


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_a_closed_stream_is_an_empty_one(closed, tmp_path):
    made = subprocess.run(
        ["bash", "-c", f'"$0" -c "from curricle.cli import main; main()" plan --chain none {closed}', sys.executable],
        capture_output=True, text=True, cwd=tmp_path,
    )  # fmt: skip
    assert made.returncode == 2 and "Traceback" not in made.stderr and not list(tmp_path.iterdir())
    assert ("2>&-" in closed) == (not made.stderr)


def chain(folder):
    (folder / "text_curriculum").mkdir(parents=True)
    (folder / "config.yaml").write_text("family: ner\n")
    (folder / "text_curriculum/one.yaml").write_text("data: {new_dataset_path: x}\n")
    (folder / "text_curriculum/chain_c.yaml").write_text("chain_name: c\nstages: [{name: one}]\n")
    return folder


WRITERS = {
    "init": lambda folder: write_copy(folder / "a/b"),
    "convert": lambda folder: convert(folder / "in.jsonl", folder / "a/b/out.conll", "conll"),
    "convert to a folder": lambda folder: convert(folder / "in.jsonl", folder / "a/b/out", "brat"),
    "compile": lambda folder: compile_all(folder / "a/b", config_dir=folder / "conf"),
}


@pytest.mark.parametrize("writer", WRITERS)
def test_a_full_disk_leaves_neither_half_a_file_nor_the_folders_that_were_made_for_it(tmp_path, writer, monkeypatch):
    chain(tmp_path / "conf")
    (tmp_path / "in.jsonl").write_text('{"text": "%s", "annotations": []}\n' % ("word " * 3000))
    scratch = tmp_path / "tmp"
    scratch.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    before = sorted(tmp_path.rglob("*"))
    with file_size_limit(300), pytest.raises((OSError, ConfigError)):
        WRITERS[writer](tmp_path)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("command", "said"),
    [
        *((verb, "the same command goes on from the last saved state") for verb in ("train -e x", "train-curriculum")),
        *(
            (verb, "nothing is half-written, and the same command begins again")
            for verb in ("ner export --model m", "ner select", "ner evaluate", "convert train", "combine", "evaluate")
        ),
    ],
)
def test_a_command_that_is_stopped_says_what_it_does_when_it_is_given_again(monkeypatch, capsys, command, said):
    monkeypatch.setattr(sys, "argv", ["curricle", *command.split()])
    with pytest.raises(SystemExit) as end:
        cli._terminated(signal.SIGTERM, None)
    assert (end.value.code, capsys.readouterr().err) == (143, f"stopped on request; {said}\n")


def test_ctrl_c_ends_a_command_with_the_same_sentence():
    code = (
        "import os, signal, curricle.cli as c; c.cli.main = lambda **_: os.kill(os.getpid(), signal.SIGINT); c.main()"
    )
    made = subprocess.run([sys.executable, "-c", code, "ner", "export"], capture_output=True, text=True)
    said = "stopped; nothing is half-written, and the same command begins again\n"
    assert (made.returncode, made.stderr) == (130, said)
