"""The environment is read when it is asked, and an empty variable is one that is not set."""

import os
from pathlib import Path

import pytest

from curricle import environment


def test_an_empty_variable_counts_as_not_set(monkeypatch: pytest.MonkeyPatch):
    names = {value for name, value in vars(environment).items() if name.isupper() and isinstance(value, str)}
    for name in names:
        monkeypatch.delenv(name, raising=False)
    asked = (
        environment.checkpoint_path,
        environment.mlflow_uri,
        environment.config_file,
        environment.rank_numbers,
        environment.meeting_place,
        environment.attempt,
        environment.agent,
        environment.error_file,
        lambda: environment.shutdown_seconds(7),
    )
    unset = [ask() for ask in asked]
    for name in names:
        monkeypatch.setenv(name, "")
    assert [ask() for ask in asked] == unset
    assert unset[2:4] == ["config/config.yaml", (0, 1, 0)] and unset[-2:] == [None, 7]


def test_a_rank_reads_its_place_in_the_job(monkeypatch: pytest.MonkeyPatch):
    for name, value in {
        "RANK": "5",
        "WORLD_SIZE": "8",
        "LOCAL_RANK": "1",
        "MASTER_ADDR": "n0",
        "MASTER_PORT": "2",
    }.items():
        monkeypatch.setenv(name, value)
    place = environment.rank_numbers()
    assert (place.rank, place.world_size, place.local_rank) == (5, 8, 1) and environment.meeting_place() == "n0:2"


def test_a_default_goes_behind_what_is_set(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    environment.set_default(environment.OMP_NUM_THREADS, "1")
    assert os.environ["OMP_NUM_THREADS"] == "3"


def test_an_only_rank_inherits_everything_and_its_place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("RANK", "7")
    monkeypatch.setenv("MINE", "x")
    given = environment.of_only_rank("attempt-1", tmp_path / "error.json")
    assert (given["MINE"], given["RANK"], given["WORLD_SIZE"]) == ("x", "0", "1")
    assert (given["TORCHELASTIC_RUN_ID"], given["TORCHELASTIC_ERROR_FILE"]) == (
        "attempt-1",
        str(tmp_path / "error.json"),
    )
    assert os.environ["RANK"] == "7"


def test_a_folder_stands_first_and_once_on_the_python_path(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(["/a", "", "/ours", "/b"]))
    environment.put_first_on_python_path(Path("/ours"))
    assert os.environ["PYTHONPATH"].split(os.pathsep) == ["/ours", "/a", "/b"]
