"""Which model is meant where none is named: pins, finished chains, and what is damaged or gone."""

import json
from pathlib import Path

import pytest

from curricle.errors import CheckpointError, StoreError
from curricle.steps.promote import default_model, promote
from curricle.steps.source import best_checkpoint, resolve_source
from curricle.store import layout, open_store
from curricle.store.manifest import publish

FAMILY = "codes"


def stage(store: Path, run: str, name: str, digest: str = "d1", family: str = FAMILY) -> str:
    """A complete stage with its best checkpoint; the checkpoint's URI."""
    opened, best = open_store(str(store)), layout.checkpoint_name(name, 1, 0.5)
    folder = store.parent / f"made-{run}-{name}-{digest}"
    folder.mkdir()
    (folder / layout.WEIGHTS).write_bytes(b"weights")
    info = {"family": family}
    publish(
        opened, f"{run}/{name}/{best}", folder, kind="checkpoint", digest=digest, metrics={"val_loss": 0.5}, info=info
    )
    publish(opened, f"{run}/{name}", None, kind="stage", digest=digest, info=info | {"best": best})
    opened.write(f"{run}/{name}/{layout.STAGE}", json.dumps({"family": family, "digest": digest}).encode())
    return f"{store}/{run}/{name}/{best}"


def finished(store: Path, run: str, result: object) -> None:
    open_store(str(store)).write(f"{run}/{layout.FINAL}", json.dumps({"state": "SUCCEEDED", "result": result}).encode())


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "store"


def test_a_finished_chain_is_taken_and_half_a_chain_and_a_search_are_not(store):
    done = stage(store, "whole", "a")
    finished(store, "whole", "./a")
    stage(store, "half", "a")
    stage(store, "hpo-x", "trial")
    finished(store, "hpo-x", "./trial")
    source = default_model(str(store))
    assert source.uri == done and "last stage of whole, the newest finished chain" in source.reason


@pytest.mark.parametrize("result", [5, ["a"], "", "http://x/y", "minio://x/y", "./\u0000", "../../../etc"])
def test_a_damaged_end_of_one_run_costs_that_run_alone(store, result):
    done = stage(store, "good", "a")
    finished(store, "good", "./a")
    stage(store, "bad", "a")
    finished(store, "bad", result)
    assert default_model(str(store)).uri == done


@pytest.mark.parametrize(
    "text",
    ["{}", "[]", "5", "{", '{"model": 5, "digest": "d1", "reason": "", "time": ""}', '{"model": "", "digest": "", "reason": "", "time": ""}',
     '{"model": "../r/a", "digest": "d1", "reason": "", "time": 5}', '{"model": "./\\u0000", "digest": "d1", "reason": "", "time": ""}'],
)  # fmt: skip
def test_a_damaged_pin_is_one_message_that_names_its_file(store, text):
    stage(store, "r", "a")
    open_store(str(store)).write("promoted/codes.json", text.encode())
    with pytest.raises(StoreError, match=r"promoted/codes.json is damaged .*`curricle promote` writes it anew"):
        default_model(str(store))


def test_a_pin_holds_until_what_it_names_is_gone_or_other_work(store):
    pinned = stage(store, "r", "a")
    stage(store, "newer", "a", "d2")
    finished(store, "newer", "./a")
    promote("r/a", str(store), "because")
    source = default_model(str(store))
    assert source.uri == pinned and "because" in source.reason
    record = json.loads((store / "promoted" / "codes.json").read_text())
    assert record["model"].startswith("../")
    (store / "promoted" / "codes.json").write_text(json.dumps(record | {"digest": "00"}))
    with pytest.raises(StoreError, match="it was trained again since"):
        default_model(str(store))
    (store / "promoted" / "codes.json").write_text(json.dumps(record))
    open_store(str(store)).delete("r")
    with pytest.raises(StoreError, match="promoted/codes.json pins .*curricle promote"):
        default_model(str(store))


@pytest.mark.parametrize("spelling", ["{link}", "file://{store}", "{store}/"])
def test_a_pin_stays_within_the_store_however_the_store_is_spelled(store, spelling):
    uri = stage(store, "r", "a")
    link = store.parent / "link"
    link.symlink_to(store)
    promote(uri, spelling.format(link=link, store=store), "x")
    assert json.loads((store / "promoted" / "codes.json").read_text())["model"].startswith("../")


def test_what_to_do_is_said_where_nothing_is_finished(store):
    stage(store, "r", "a")
    stage(store, "n", "b", family="ner")
    with pytest.raises(StoreError, match=r"no finished chain that can search; complete stages there: r/a\. Name one"):
        default_model(str(store), "search")


@pytest.mark.parametrize("best", [5, None, "../b", "x"])
def test_a_stage_whose_manifest_names_no_checkpoint_is_damaged(store, best):
    publish(open_store(str(store)), "r/a", None, kind="stage", digest="d", info={"family": FAMILY, "best": best})
    with pytest.raises(CheckpointError, match="manifest.json is damaged: its best checkpoint is"):
        best_checkpoint(f"{store}/r/a")


def test_a_reason_that_holds_a_password_is_kept_without_it(store):
    stage(store, "r", "a")
    made = promote("r/a", str(store), "see https://me:s3cr3t-word@host/run/5")
    kept = (store / layout.PROMOTED / f"{FAMILY}.json").read_text()
    assert "s3cr3t-word" not in kept + made.reason and "host/run/5" in kept


def test_a_pin_and_a_model_of_the_familys_former_name_are_read(store):
    """`naics` is what `codes` was called: nothing of that time is lost, and a new pin goes before an old one."""
    old, new = stage(store, "old", "a", family="naics"), stage(store, "new", "b")
    finished(store, "old", "./a")
    assert default_model(str(store)).uri == old
    made = promote(old, str(store), "by hand")
    assert made.family == "codes" and not (store / "promoted" / "naics.json").exists()
    (store / "promoted" / "codes.json").rename(store / "promoted" / "naics.json")
    assert default_model(str(store), "search").uri == old
    promote(new, str(store), "better")
    assert default_model(str(store)).uri == new
    assert (
        resolve_source("a", str(store), of_family="codes").uri
        == resolve_source("a", str(store), of_family="naics").uri
        == old
    )
