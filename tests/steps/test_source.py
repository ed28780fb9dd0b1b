"""Which checkpoint --from-checkpoint means, and what is said when there is none."""

from pathlib import Path

import pytest

from curricle.errors import CheckpointError, StoreError
from curricle.steps.source import best_checkpoint, resolve_source, write_plan
from curricle.store import layout, open_store
from curricle.store.manifest import publish
from tests.steps.toy_stage import make_plan


def checkpoint(store: Path, run: str, stage: str, loss: float, epoch: int = 1, **info: str) -> str:
    """Publish a tiny checkpoint; its URI."""
    folder = store.parent / f"made-{run}-{stage}-{epoch}-{loss}"
    folder.mkdir()
    (folder / layout.WEIGHTS).write_bytes(b"weights")
    prefix = f"{run}/{stage}/{layout.checkpoint_name(stage, epoch, loss)}"
    publish(
        open_store(str(store)),
        prefix,
        folder,
        kind="checkpoint",
        digest=f"{run}{stage}",
        metrics={"val_loss": loss},
        lineage={},
        info=info,
    )
    return f"{store}/{prefix}"


@pytest.fixture
def store(tmp_path: Path) -> Path:
    (tmp_path / "store").mkdir()
    return tmp_path / "store"


def test_the_lowest_validation_loss_over_all_runs_wins(store):
    checkpoint(store, "sequential_01-02", "02_stage", 0.5)
    best = checkpoint(store, "sequential_02", "02_stage", -0.25)
    checkpoint(store, "sequential_02-03", "02_stage", 1e-05)
    checkpoint(store, "sequential_02-03", "03_stage", -9.0)
    source = resolve_source("02_stage", str(store))
    assert source.uri == best and "best of 3 checkpoints of 02_stage" in source.reason


def test_the_manifest_decides_and_not_the_rounded_name(store):
    checkpoint(store, "a", "s", 0.12344)
    best = checkpoint(store, "b", "s", 0.12341)
    assert resolve_source("s", str(store)).uri == best


def test_last_is_never_taken_as_best(store):
    best = checkpoint(store, "a", "s", 0.5)
    folder = store.parent / "last"
    folder.mkdir()
    (folder / layout.WEIGHTS).write_bytes(b"w")
    publish(
        open_store(str(store)),
        f"a/s/{layout.LAST}",
        folder,
        kind="checkpoint",
        digest="d",
        metrics={"val_loss": 0.0},
        lineage={},
        info={},
    )
    assert resolve_source("s", str(store)).uri == best


def test_ties_are_said_and_the_newest_taken(store):
    checkpoint(store, "a", "s", 0.5)
    checkpoint(store, "b", "s", 0.5)
    assert "2 tie, the newest was taken" in resolve_source("s", str(store)).reason


def test_unreadable_checkpoints_are_left_out_and_named(store):
    good = checkpoint(store, "a", "s", 0.5)
    half = Path(checkpoint(store, "b", "s", 0.1))
    (half / layout.MANIFEST).unlink()
    torn = Path(checkpoint(store, "c", "s", 0.2))
    (torn / layout.MANIFEST).write_text("{")
    source = resolve_source("s", str(store))
    assert source.uri == good
    assert "no manifest.json: its upload never finished" in source.reason and "c/s/" in source.reason


def test_a_stage_that_was_never_trained_lists_those_that_were(store):
    checkpoint(store, "a", "01_stage", 0.5)
    with pytest.raises(
        CheckpointError, match="no complete checkpoint of stage '02_stage'; stages with checkpoints there: 01_stage"
    ):
        resolve_source("02_stage", str(store))


def test_a_path_is_taken_as_it_is(store):
    uri = checkpoint(store, "sequential_01-02-03", "03_stage", 0.1234, 10)
    assert uri.endswith("sequential_01-02-03/03_stage/03_stage-epoch=10-val_loss=0.1234.ckpt")
    assert resolve_source(uri, "elsewhere").uri == uri
    assert resolve_source(uri + "/", "elsewhere").uri == uri


def test_the_newest_state_is_another_parent_than_the_best_checkpoint(store, tmp_path):
    best = checkpoint(store, "r", "s", 0.5)
    made = tmp_path / "made-r-s-1-0.5"

    def digest_of_state(name: str) -> str:
        publish(open_store(str(store)), f"r/s/{name}", made, kind="checkpoint", digest="rs")
        return resolve_source(f"r/s/{name}", str(store)).digest

    digests = {resolve_source(best, str(store)).digest, *map(digest_of_state, (layout.LAST, layout.SPARE))}
    assert "rs" in digests and len(digests) == 2, "the same bytes are the same parent"
    (made / layout.WEIGHTS).write_bytes(b"later")
    assert digest_of_state(layout.LAST) not in digests


def test_a_path_that_is_not_there_lists_what_lies_beside_it(store):
    uri = Path(checkpoint(store, "a", "s", 0.5))
    with pytest.raises(CheckpointError, match=r"is empty or missing; .* holds s-epoch=01-val_loss=0\.5000\.ckpt"):
        resolve_source(str(uri.parent / "s-epoch=09-val_loss=0.1.ckpt"), "")


def test_the_place_of_a_complete_stage_means_its_best_checkpoint(store):
    uri = checkpoint(store, "a", "s", 0.5)
    publish(
        open_store(str(store)),
        "a/s",
        None,
        kind="stage",
        digest="d",
        metrics={"val_loss": 0.5},
        lineage={},
        info={"best": Path(uri).name},
    )
    assert best_checkpoint(f"{store}/a/s") == uri
    source = resolve_source(f"{store}/a/s", "")
    assert (source.uri, source.digest) == (uri, "d")


def test_of_several_families_only_the_one_that_is_trained_counts(store):
    mine = checkpoint(store, "a", "s", 0.5, family="ner")
    checkpoint(store, "b", "s", 0.0, family="line")
    assert resolve_source("s", str(store), of_family="ner").uri == mine
    with pytest.raises(CheckpointError, match="those of line, ner, for codes is trained"):
        resolve_source("s", str(store), of_family="naics")


def test_a_run_is_meant_by_its_id_and_its_path_and_a_name_that_is_both_is_refused(tmp_path):
    plan = make_plan(tmp_path, "d1")
    store, stage = plan.store_uri, plan.stages[0]
    best = checkpoint(Path(store), plan.run_id, stage.name, 0.5)
    publish(
        open_store(store),
        f"{plan.run_id}/{stage.name}",
        None,
        kind="stage",
        digest="d1",
        info={"best": Path(best).name},
    )
    write_plan(plan)
    assert {resolve_source(name, store).uri for name in (plan.run_id, f"{store}/{plan.run_id}")} == {best}
    checkpoint(Path(store), "other", plan.run_id, 0.1)
    with pytest.raises(CheckpointError, match=f"names a run and a stage.*say {plan.run_id}/{stage.name}"):
        resolve_source(plan.run_id, store)


def test_a_bucket_without_a_name_is_no_folder_here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StoreError, match="cannot open 'minio://': expected minio://bucket/prefix"):
        resolve_source("minio://", str(tmp_path))


def test_a_stage_or_a_run_that_is_not_there_is_said_with_the_store_and_what_it_holds(store, monkeypatch):
    monkeypatch.chdir(store.parent)
    checkpoint(store, "r", "01_stage", 0.5)
    checkpoint(store, "r", "02_stage", 0.4)
    open_store(str(store)).write("r/plan.json", b"{}")
    with pytest.raises(CheckpointError) as error:
        resolve_source("r/09_stage", "store", asked="model")
    assert str(error.value) == "model r/09_stage: r in store has no stage '09_stage'; its stages: 01_stage, 02_stage"
    with pytest.raises(
        CheckpointError, match="store holds no run 'q'; runs there: r; there is no path q/01_stage here"
    ):
        resolve_source("q/01_stage", "store")
    with pytest.raises(CheckpointError, match="no complete checkpoint there .*it holds 01_stage-epoch=01"):
        resolve_source("r/01_stage", "store")
