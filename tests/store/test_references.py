"""References between artifacts: relative within a store, in full out of it, and those of version 0.1."""

import shutil
from pathlib import Path

import pytest

from curricle.store import open_store
from curricle.store.manifest import publish
from curricle.store.references import refer, relocate, resolve


@pytest.mark.parametrize(
    ("uri", "place", "store", "reference"),
    [
        ("minio://b/p/data/x", "minio://b/p/r/s/c.ckpt", "minio://b/p", "../../../data/x"),
        ("s3://b/p/data/x", "minio://b/p/r/s", "minio://b/p", "../../data/x"),
        ("/s/r/s1", "/s/r", "/s", "./s1"),
        ("file:///s/r/s1", "/s/r/s2", "file:///s", "../s1"),
        ("/elsewhere/r/s1", "/s/r/s2", "/s", "/elsewhere/r/s1"),
        ("minio://c/x", "/s/r/s2", "/s", "minio://c/x"),
        ("", "/s/r", "/s", ""),
        ("/s2/r", "/s/r", "/s", "/s2/r"),
    ],
)
def test_a_reference_is_relative_where_both_lie_in_the_store(uri, place, store, reference):
    assert refer(uri, place, store) == reference


@pytest.mark.parametrize("place", ["minio://b/p/r/s/c.ckpt", "/s/r/s", "file:///s/r"])
def test_what_was_referred_to_is_resolved(place):
    store = place[: place.index("/r")]
    assert resolve(refer(f"{store}/data/x", place, store), place) in (f"{store}/data/x", "/s/data/x")


def test_a_control_character_is_no_reference():
    with pytest.raises(ValueError, match="control character"):
        resolve("./a\0b", "/s")


def test_a_copy_of_a_store_of_version_0_1_never_leads_back_to_what_it_was_copied_from(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for key, kind in (("data/naics-1", "dataset"), ("r/s", "stage")):
        publish(open_store("checkpoints"), key, None, kind=kind, digest="d")
    shutil.copytree("checkpoints", "copy")
    for place in ("copy/r", "copy/r/s", "copy/r/s/c.ckpt"):
        assert resolve("checkpoints/data/naics-1", place) == str(tmp_path / "copy/data/naics-1")
        assert resolve("checkpoints/r/s", place) == str(tmp_path / "copy/r/s")
    Path("checkpoints").rename("gone")
    assert resolve("checkpoints/data/naics-1", "copy/r/s") == str(tmp_path / "copy/data/naics-1")
    assert resolve("checkpoints/data/naics-2", "copy/r/s") == "checkpoints/data/naics-2"


def test_lineage_reads_right_at_another_place():
    lineage = {"data_uri": "../../data/x", "parent_uri": None, "data_digest": "../d"}
    moved = relocate(lineage, "/s/r/s1", "/s/published/n/r", "/s")
    assert moved == {"data_uri": "../../../data/x", "parent_uri": "", "data_digest": "../d"}
