"""The listing of a store as runs, stages and checkpoints."""

from pathlib import Path

import pytest

from curricle.store import Store, open_store
from curricle.store.runs import checkpoint_names, published, stages, survey

FIRST, SECOND = "a-epoch=01-val_loss=0.5000.ckpt", "a-epoch=02-val_loss=nan.ckpt"


@pytest.fixture
def filled(tmp_path: Path) -> Store:
    store = open_store(str(tmp_path))
    for key in (
        "data/ner-1/manifest.json",
        "imported/ner-2/manifest.json",
        "published/x/b_r1/manifest.json",
        "published/x/b_r2/model.safetensors",
        "published/x/b_r1/deep/manifest.json",
        "published/xy/b_r3/manifest.json",
        "promoted",
        "r1/plan.json",
        "r1/a/stage.json",
        f"r1/a/{FIRST}/model.safetensors",
        f"r1/a/{SECOND}/deep/config.yaml",
        f"r1/a/{SECOND}/manifest.json",
        "r1/a/last.ckpt/manifest.json",
        "r1/stray/notes.txt",
        "r1/ab/manifest.json",
        "r10/a/failure.json",
    ):
        store.write(key, b"{}")
    return store


def test_a_listing_becomes_runs_with_their_stages_and_checkpoints(filled: Store):
    runs = survey(filled)
    assert list(runs) == ["r1", "r10"] and runs["r1"].files == {"plan.json"}
    stage = runs["r1"].stages["a"]
    assert (stage.prefix, stage.complete, stage.files) == ("r1/a", False, {"stage.json"})
    assert stage.checkpoints == {FIRST: {"model.safetensors"}, SECOND: {"deep/config.yaml", "manifest.json"}}
    assert runs["r1"].stages["ab"].complete


def test_one_run_is_surveyed_without_those_whose_names_begin_like_it(filled: Store):
    assert list(survey(filled, "r1")) == ["r1"] and survey(filled, "r") == {}


def test_a_stray_object_makes_no_stage(filled: Store):
    assert [place.prefix for place in stages(filled)] == ["r1/a", "r1/ab", "r10/a"]


def test_checkpoints_of_a_place_are_named_whole_or_half_and_the_newest_state_is_none(filled: Store):
    assert checkpoint_names(filled, "r1/a") == {FIRST, SECOND}
    assert checkpoint_names(filled, "r1") == checkpoint_names(filled, "r1/none") == set()


def test_only_whole_models_of_that_very_name_count_as_published(filled: Store):
    assert published(filled, "x") == ["published/x/b_r1"]
