"""The shipped set stands in for a folder `config/` that is not here, and for nothing else."""

from pathlib import Path

import pytest

from curricle.cli.init import write_copy
from curricle.config.chain import list_chains, load_chain, load_stage
from curricle.config.defaults import SHIPPED, config_file
from curricle.config.load import read_yaml
from curricle.errors import ConfigError

ROOT = Path(__file__).parents[2]
BASE = Path("config/config.yaml")


def test_the_shipped_set_is_the_folder_at_the_top():
    names = [
        {p.relative_to(top).as_posix() for p in top.rglob("*") if p.is_file()} for top in (SHIPPED, ROOT / "config")
    ]
    assert names[0] == names[1] and SHIPPED.samefile(ROOT / "config")


@pytest.mark.parametrize(
    "name", ["config", "config/config.yaml", "config/experiment/resume_ner_baseline.yaml", "./config/hpo/prod.yaml"]
)
def test_without_a_folder_here_the_shipped_file_is_read(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert config_file(Path(name)).samefile(SHIPPED / Path(name).relative_to("config"))


def test_a_chain_of_the_shipped_set_is_found_by_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = config_file(BASE).parent
    assert "chain_smoke" in dict(list_chains(folder)) and load_chain("chain_smoke", folder).chain.stages


def test_a_folder_here_goes_before_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_copy(Path())
    assert config_file(BASE) == BASE and config_file(Path("config")) == Path("config")


def test_what_a_folder_here_lacks_is_not_taken_from_the_shipped_set(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("config").mkdir()
    assert config_file(BASE) == BASE
    with pytest.raises(ConfigError, match=r"config/config\.yaml is not there"):
        read_yaml(config_file(BASE))


@pytest.mark.parametrize(
    "name", ["config/konfig.yaml", "other/config.yaml", "/nowhere/config/config.yaml", "config.yaml"]
)
def test_a_path_that_stands_nowhere_stays_as_it_was_given(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert config_file(Path(name)) == Path(name)


def test_the_data_of_the_shipped_set_lie_here_and_not_where_it_is_installed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    stage = load_stage(config_file(Path("config/ner/config.yaml")), "wnut", [])
    assert stage.config.data.new_dataset_path == "datasets/wnut17"
