"""What a continued training starts from: which source decides, what it leads to, and what is wrong with one."""

import json
from pathlib import Path

import pytest

from curricle.errors import CheckpointError, StoreError
from curricle.steps.start import Asked, asked_of, explain_checkpoint, find_start, resolve_checkpoint_path
from curricle.store import open_store
from curricle.store.manifest import publish, read_manifest
from tests.families.ner.foreign import WEIGHTS, checkpoint


def cache(path: Path, content: object) -> Path:
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_the_environment_goes_before_the_config_and_the_config_before_the_cache(tmp_path):
    a, b = checkpoint(tmp_path / "a"), checkpoint(tmp_path / "b")
    c = checkpoint(tmp_path / "c/checkpoint")
    previous = cache(tmp_path / "cache.json", {"output_dir": str(tmp_path / "c")})
    config = {"training": {"checkpoint": {"source_path": str(b)}}}
    path, place = explain_checkpoint(config, previous, environ={"CHECKPOINT_PATH": str(a)})
    assert (path, place.via) == (a, "environment") and len(place.reasons) == 3
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
    path, place = explain_checkpoint({}, environ={})
    assert path is None and place.via == "scratch" and len(place.reasons) == 4
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


def test_a_uri_stays_a_uri_so_that_a_training_elsewhere_sees_it(tmp_path):
    store = f"file://{tmp_path}/store"
    publish(
        open_store(store),
        "run/model",
        checkpoint(tmp_path / "made"),
        kind="checkpoint",
        digest="d",
        info={"family": "ner"},
    )
    start = find_start(Asked(source_path=f"{store}/run/model", store_uri=store), "ner")
    assert start.source.uri == f"{store}/run/model" and start.source.digest == "d" and start.folder is None


def test_a_checkpoint_of_another_family_is_refused_by_name(tmp_path):
    store = str(tmp_path / "store")
    publish(
        open_store(store),
        "run/model",
        checkpoint(tmp_path / "made"),
        kind="checkpoint",
        digest="d",
        info={"family": "naics"},
    )
    with pytest.raises(
        CheckpointError, match="is a checkpoint of (naics|codes); a training of ner cannot start from it"
    ):
        find_start(Asked(source_path=f"{store}/run/model", store_uri=store), "ner")


def test_a_foreign_folder_is_planned_as_its_copy_in_the_store_and_copied_only_when_it_is_needed(tmp_path):
    store, made = str(tmp_path / "store"), checkpoint(tmp_path / "made")
    start = find_start(Asked(environment=str(made), store_uri=store), "ner")
    assert start.source.uri.startswith(f"{store}/imported/ner-") and not Path(store).exists()
    start.ensure()
    start.ensure()
    copied = read_manifest(open_store(start.source.uri), "")
    assert copied.digest == start.source.digest and set(copied.files) == {
        "config.json",
        "model.safetensors",
        "tokenizer.json",
    }


def test_the_block_of_a_configuration_asks_the_question(tmp_path):
    asked = asked_of({"training": {"checkpoint": {"source_path": "x"}}, "paths": {"store_uri": "s"}}, run_id="r")
    assert (asked.source_path, asked.store_uri, asked.run_id, asked.required) == ("x", "s", "r", True)
    assert not asked_of({}).required and not asked_of({"checkpoint": {"allow_scratch": True}}).required
    with pytest.raises(CheckpointError, match="must be a mapping"):
        asked_of({"checkpoint": "x"})


def test_the_errors_are_those_that_the_guide_names(tmp_path):
    with pytest.raises(FileNotFoundError, match="does not exist"):
        find_start(Asked(environment=f"{tmp_path}/absent/x"), "ner")


def test_a_link_out_of_a_checkpoint_is_refused_before_anything_of_it_is_copied(tmp_path):
    made = checkpoint(tmp_path / "made")
    (tmp_path / "id_rsa").write_text("mine")
    (made / "notes.txt").symlink_to(tmp_path / "id_rsa")
    asked = asked_of({"paths": {"store_uri": str(tmp_path / "store")}, "checkpoint": {"source_path": str(made)}})
    with pytest.raises(StoreError, match="notes.txt is a link to .*id_rsa"):
        find_start(asked, "ner")
    assert not (tmp_path / "store").exists()
