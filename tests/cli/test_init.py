"""`curricle init` writes the shipped configuration once, and never over anything."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from curricle.cli import cli
from curricle.config.defaults import SHIPPED
from curricle.config.experiment import compose_backbone, load_experiment
from curricle.errors import OutputError


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
    said = f"{tmp_path / 'file/below/config'} cannot be written: {tmp_path / 'file'} is no folder"
    assert isinstance(error, OutputError) and str(error) == said


def test_a_copy_that_was_not_finished_is_not_there_and_the_same_command_works(tmp_path, monkeypatch):
    write = Path.write_bytes
    monkeypatch.setattr(
        Path, "write_bytes", lambda self, data: write(self, data) if self.name != "config.yaml" else 1 / 0
    )
    assert isinstance(init(tmp_path / "new").exception, ZeroDivisionError)
    assert not (tmp_path / "new").exists()
    monkeypatch.undo()
    assert init(tmp_path / "new").exception is None and (tmp_path / "new/config/config.yaml").is_file()


def test_example_data_lie_where_the_shipped_experiments_look_for_them(tmp_path, monkeypatch):
    done = init(tmp_path / "new")
    assert done.exception is None and "synthetic" in done.output
    monkeypatch.chdir(tmp_path / "new")
    for name, keys in (("baseline", ["new"]), ("continued", ["old", "new"])):
        path = Path(f"config/experiment/resume_ner_{name}.yaml")
        data = compose_backbone(load_experiment(path), path, "minilm", []).loaded.config.data
        for key in keys:
            folder = Path(getattr(data, f"{key}_dataset_path"))
            assert {p.stem for p in folder.glob("*.json")} == {"train", "validation", "test"}


@pytest.mark.parametrize("mine", ["dataset_new/train.json", "dataset_tiny/seed0/train.json"])
def test_beside_data_of_the_users_own_no_example_is_written(mine, tmp_path):
    (tmp_path / mine).parent.mkdir(parents=True)
    (tmp_path / mine).write_text("mine")
    done = init(tmp_path)
    assert done.exception is None and "no example data were written" in done.output
    files = [p for p in tmp_path.rglob("*") if p.is_file() and not p.is_relative_to(tmp_path / "config")]
    assert files == [tmp_path / mine] and (tmp_path / mine).read_text() == "mine"
    again = CliRunner().invoke(cli, ["init", str(tmp_path), "--data-only"], standalone_mode=False).exception
    assert isinstance(again, OutputError) and "is there already" in str(again)


def test_data_only_stands_beside_a_configuration_that_is_there(tmp_path):
    (tmp_path / "config").mkdir()
    (tmp_path / "config/mine.yaml").write_text("mine")
    done = CliRunner().invoke(cli, ["init", str(tmp_path), "--data-only"], standalone_mode=False)
    assert done.exception is None and (tmp_path / "dataset_new/unlabelled.txt").is_file()
    assert [p.name for p in (tmp_path / "config").iterdir()] == ["mine.yaml"]
