"""`curricle init` writes the shipped configuration once, and never over anything."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from curricle.cli import cli
from curricle.config.defaults import SHIPPED
from curricle.errors import ConfigError, OutputError


def init(folder):
    return CliRunner().invoke(cli, ["init", str(folder)], standalone_mode=False)


def test_it_writes_every_file_and_says_what_to_do_next(tmp_path):
    done = init(tmp_path / "new")
    assert done.exception is None
    files = {p.relative_to(SHIPPED): p.read_bytes() for p in SHIPPED.rglob("*") if p.is_file()}
    written = tmp_path / "new/config"
    assert {p.relative_to(written): p.read_bytes() for p in written.rglob("*") if p.is_file()} == files
    assert f"cd {tmp_path / 'new'}" in done.output and "curricle plan --chain chain_smoke" in done.output


def test_in_the_folder_of_the_command_there_is_no_folder_to_go_to(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "cd " not in init(".").output


def test_an_empty_folder_is_filled(tmp_path):
    (tmp_path / "config").mkdir()
    assert init(tmp_path).exception is None and (tmp_path / "config/config.yaml").is_file()


@pytest.mark.parametrize("name", ["config", "config/mine.yaml"], ids=["a file", "a folder that holds one"])
def test_what_is_there_is_refused_and_left_alone(name, tmp_path):
    mine = tmp_path / name
    mine.parent.mkdir(exist_ok=True)
    mine.write_text("mine")
    before = sorted(tmp_path.rglob("*"))
    error = init(tmp_path).exception
    assert (
        isinstance(error, OutputError)
        and error.exit_code == 2
        and f"{tmp_path / 'config'} is there already" in str(error)
    )
    assert sorted(tmp_path.rglob("*")) == before and mine.read_text() == "mine"


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").touch()
    error = init(tmp_path / "file/below").exception
    assert isinstance(error, ConfigError) and f"cannot write {tmp_path / 'file/below/config'}" in str(error)


def test_a_copy_that_was_not_finished_is_not_there_and_the_same_command_works(tmp_path, monkeypatch):
    write = Path.write_bytes
    monkeypatch.setattr(
        Path, "write_bytes", lambda self, data: write(self, data) if self.name != "config.yaml" else 1 / 0
    )
    assert isinstance(init(tmp_path / "new").exception, ZeroDivisionError)
    assert list((tmp_path / "new").iterdir()) == []
    monkeypatch.undo()
    assert init(tmp_path / "new").exception is None and (tmp_path / "new/config/config.yaml").is_file()
