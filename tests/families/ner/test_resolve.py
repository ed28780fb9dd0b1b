"""Checkpoint resolution: checks 27-31 of the specification."""

import json
import struct
from pathlib import Path

import pytest

from curricle.errors import CheckpointError
from curricle.families.ner.resolve import check_checkpoint, explain_checkpoint, resolve_checkpoint_path
from curricle.store import open_store
from curricle.store.manifest import publish

HEADER = json.dumps({"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
WEIGHTS = struct.pack("<Q", len(HEADER)) + HEADER + b"\0\0\0\0"


def checkpoint(path: Path, **files: str | bytes | None) -> Path:
    path.mkdir(parents=True)
    content = {
        "config.json": json.dumps(
            {"architectures": ["BertForTokenClassification"], "id2label": {"0": "O", "1": "B-X"}}
        ),
        "model.safetensors": WEIGHTS,
        "tokenizer.json": "{}",
    } | {k.replace("__", "."): v for k, v in files.items()}
    for name, data in content.items():
        if data is not None:
            (path / name).write_bytes(data if isinstance(data, bytes) else data.encode())
    return path


def cache(path: Path, content: object) -> Path:
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_the_environment_goes_before_the_config_and_the_config_before_the_cache(tmp_path):
    a, b = checkpoint(tmp_path / "a"), checkpoint(tmp_path / "b")
    c = checkpoint(tmp_path / "c/checkpoint")
    previous = cache(tmp_path / "cache.json", {"output_dir": str(tmp_path / "c")})
    config = {"training": {"checkpoint": {"source_path": str(b)}}}
    found = explain_checkpoint(config, previous, environ={"CHECKPOINT_PATH": str(a)})
    assert (
        (found.path, found.source) == (a, "environment")
        and len(found.reasons) == 3
        and found.facts.labels == ("O", "B-X")
    )
    assert resolve_checkpoint_path(config, previous, environ={}) == b
    assert resolve_checkpoint_path({"checkpoint": {"source_path": str(b)}}, previous, environ={}) == b
    assert resolve_checkpoint_path({}, previous, environ={}) == c


def test_a_source_that_is_set_and_invalid_is_an_error_that_names_it(tmp_path):
    config = {"checkpoint": {"source_path": str(checkpoint(tmp_path / "good"))}}
    with pytest.raises(CheckpointError, match="CHECKPOINT_PATH=.*absent.*does not exist"):
        resolve_checkpoint_path(config, environ={"CHECKPOINT_PATH": str(tmp_path / "absent")})


def test_a_store_uri_leads_to_a_verified_copy(tmp_path):
    made = checkpoint(tmp_path / "made")
    publish(open_store(f"file://{tmp_path}/store"), "run/model", made, kind="checkpoint", digest="d", info={})
    config = {
        "checkpoint": {"source_path": f"file://{tmp_path}/store/{{run_id}}/model"},
        "paths": {"cache_dir": str(tmp_path / "cache")},
    }
    found = resolve_checkpoint_path(config, None, None, "run", environ={})
    assert (found / "model.safetensors").read_bytes() == WEIGHTS
    with pytest.raises(CheckpointError, match="source_path .*absent"):
        resolve_checkpoint_path(config, None, None, "absent", environ={})


def test_nothing_set_is_scratch_only_where_no_checkpoint_is_asked_for(tmp_path):
    found = explain_checkpoint({}, environ={})
    assert found.path is None and found.source == "scratch" and len(found.reasons) == 4
    with pytest.raises(CheckpointError, match="allow_scratch"):
        resolve_checkpoint_path({"checkpoint": {"validate": True}}, environ={})
    assert resolve_checkpoint_path({"checkpoint": {"allow_scratch": True}}, environ={}) is None


def test_patterns_are_filled_relative_to_the_config_folder_and_never_leave_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    target = checkpoint(tmp_path / "project/outputs/distilbert_20251227_220407/checkpoint")
    config = {
        "checkpoint": {"source_path": "outputs/{backbone}_{run_id}/checkpoint"},
        "_config_dir": str(tmp_path / "project/config"),
    }
    assert resolve_checkpoint_path(config, None, "distilbert", "20251227_220407", environ={}) == target
    with pytest.raises(CheckpointError, match="needs run_id"):
        resolve_checkpoint_path(config, None, "distilbert", None, environ={})
    for bad in ("../ok", "a/b", "..", ".hidden", "/etc", "a\x00b", "a..b"):
        with pytest.raises(CheckpointError, match="backbone .* is not a plain name"):
            resolve_checkpoint_path(config, None, bad, "1", environ={})
        with pytest.raises(CheckpointError, match="run_id .* is not a plain name"):
            resolve_checkpoint_path(config, None, "distilbert", bad, environ={})
    with pytest.raises(CheckpointError, match="holds {variant}; known are {backbone}, {run_id}"):
        resolve_checkpoint_path({"checkpoint": {"source_path": "x/{variant}"}}, None, "a", "b", environ={})


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (None, "cannot be read: No such file"),
        ("{", "is not JSON"),
        ([1], "must hold an object with output_dir, not a list"),
        ({"trial_name": "t"}, "no output_dir .its keys: trial_name"),
        ({"output_dir": "gone"}, "gone does not exist"),
        ({"output_dir": "C:\\out\\1"}, "Windows path"),
    ],
)
def test_each_fault_of_a_cache_file_has_its_reason(tmp_path, content, problem):
    path = tmp_path / "cache.json"
    if content is not None:
        cache(path, content)
    with pytest.raises(CheckpointError, match=problem):
        resolve_checkpoint_path({}, path, environ={})


@pytest.mark.parametrize(
    ("files", "problem"),
    [
        ({"config__json": None}, "holds no config.json"),
        ({"config__json": "{"}, "config.json is not JSON"),
        ({"model__safetensors": None}, "holds no weights"),
        ({"model__safetensors": b""}, "is empty"),
        ({"model__safetensors": WEIGHTS[:-1]}, "is cut off"),
        ({"model__safetensors": b"abc"}, "no whole safetensors"),
        ({"tokenizer__json": None}, "holds no tokenizer"),
        (
            {
                "config__json": json.dumps(
                    {"architectures": ["BertForTokenClassification"], "id2label": {"0": "O", "2": "X"}}
                )
            },
            "no entry '1'",
        ),
    ],
)
def test_a_damaged_checkpoint_is_refused(tmp_path, files, problem):
    with pytest.raises(CheckpointError, match=problem):
        check_checkpoint(checkpoint(tmp_path / "c", **files))


def test_shards_adapters_and_trainer_folders_are_taken(tmp_path):
    index = json.dumps({"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}})
    shards = checkpoint(
        tmp_path / "s",
        **{"model.safetensors": None, "model.safetensors.index.json": index, "model-1.safetensors": WEIGHTS},
    )
    with pytest.raises(CheckpointError, match="lacks model-2"):
        check_checkpoint(shards)
    (shards / "model-2.safetensors").write_bytes(WEIGHTS)
    assert check_checkpoint(shards).kind == "sharded"
    (tmp_path / "p").mkdir()
    (tmp_path / "p/adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "base"}))
    (tmp_path / "p/adapter_model.safetensors").write_bytes(WEIGHTS)
    assert check_checkpoint(tmp_path / "p").base_model == "base"
    for step in (500, 1000):
        checkpoint(tmp_path / f"t/checkpoint-{step}")
    assert check_checkpoint(tmp_path / "t").path.name == "checkpoint-1000"
