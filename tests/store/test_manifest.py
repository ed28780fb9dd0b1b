"""What a whole artifact promises, over every store."""

import contextlib
import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from curricle.errors import CheckpointError, StoreError
from curricle.store import Store, join_uri, open_store, split_uri
from curricle.store.manifest import (
    FileEntry,
    Manifest,
    fetch,
    publish,
    read_manifest,
    sha256_of,
    verify,
)


class Stopped(BaseException):
    """The process dies here."""


class Dying:
    """A store whose process dies before its n-th change."""

    def __init__(self, store: Store, changes: int):
        self.store, self.uri, self.left = store, store.uri, changes

    def _change(self) -> None:
        if self.left == 0:
            raise Stopped
        self.left -= 1

    def write(self, key, data):
        self._change()
        self.store.write(key, data)

    def put(self, key, path):
        self._change()
        self.store.put(key, path)

    def delete(self, prefix):
        self._change()
        return self.store.delete(prefix)

    def __getattr__(self, name):
        return getattr(self.store, name)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three small files, one in a subfolder."""
    made = tmp_path / "made"
    (made / "adapter").mkdir(parents=True)
    (made / "model.safetensors").write_bytes(b"weights" * 100)
    (made / "adapter" / "config.json").write_bytes(b"{}")
    (made / "state.pt").write_bytes(b"")
    return made


def published(store: Store, folder: Path, prefix: str = "run/01/best.ckpt") -> Manifest:
    return publish(
        store,
        prefix,
        folder,
        kind="checkpoint",
        digest="d1",
        metrics={"val_loss": 0.25},
        lineage={"parent": None, "data": "sha"},
        info={"epoch": 3},
    )


def test_a_published_artifact_is_read_back_as_it_was_made(store: Store, folder: Path):
    manifest = published(store, folder)
    assert set(manifest.files) == {"model.safetensors", "adapter/config.json", "state.pt"}
    assert manifest.files["model.safetensors"] == FileEntry(700, sha256_of(folder / "model.safetensors"))
    assert (
        manifest.metrics == {"val_loss": 0.25}
        and manifest.lineage == {"parent": None, "data": "sha"}
        and manifest.info == {"epoch": 3}
    )
    assert read_manifest(store, "run/01/best.ckpt") == manifest
    verify(store, "run/01/best.ckpt", manifest)


def test_half_an_upload_is_never_complete(store: Store, folder: Path, tmp_path: Path):
    for changes in range(4):
        dying = Dying(store, changes)
        with pytest.raises(Stopped):
            published(dying, folder, f"run/{changes}.ckpt")
        assert read_manifest(store, f"run/{changes}.ckpt") is None
        with pytest.raises(CheckpointError, match="no complete artifact") as error:
            fetch(join_uri(store.uri, f"run/{changes}.ckpt"), tmp_path / "cache")
        for entry in store.list(f"run/{changes}.ckpt/"):
            assert entry.key.rpartition("/")[2] in str(error.value)
    published(Dying(store, 4), folder, "run/whole.ckpt")
    assert read_manifest(store, "run/whole.ckpt") is not None


def test_replacing_an_artifact_never_leaves_a_manifest_over_files_that_are_not_its_own(
    store: Store, folder: Path, tmp_path: Path
):
    other = tmp_path / "other"
    other.mkdir()
    (other / "model.safetensors").write_bytes(b"other")
    for changes in range(4):
        old = published(store, folder)
        with contextlib.suppress(Stopped):
            publish(Dying(store, changes), "run/01/best.ckpt", other, kind="checkpoint", digest="d2")
        manifest = read_manifest(store, "run/01/best.ckpt")
        assert manifest is None or manifest.digest == ("d1" if changes == 0 else "d2")
        if manifest is not None:
            verify(store, "run/01/best.ckpt", manifest)
        else:
            assert old.digest == "d1"
    published(store, folder)
    publish(store, "run/01/best.ckpt", other, kind="checkpoint", digest="d2")
    assert [entry.key for entry in store.list("")] == [
        "run/01/best.ckpt/manifest.json",
        "run/01/best.ckpt/model.safetensors",
    ]


@pytest.mark.parametrize(
    ("damage", "said"), [(b"weights" * 99, "693 bytes"), (b"weighty" * 100, "altered"), (None, "missing")]
)
def test_a_truncated_altered_or_lost_file_is_found(
    store: Store, folder: Path, tmp_path: Path, damage: bytes | None, said: str
):
    manifest = published(store, folder)
    key = "run/01/best.ckpt/model.safetensors"
    if damage is None:
        store.delete(key)
    else:
        store.write(key, damage)
    with pytest.raises(CheckpointError, match=f"model.safetensors .*{said}"):
        verify(store, "run/01/best.ckpt", manifest)
    with pytest.raises((CheckpointError, StoreError), match="model.safetensors"):
        fetch(join_uri(store.uri, "run/01/best.ckpt"), tmp_path / "cache")
    assert not list((tmp_path / "cache").glob("*"))


@pytest.mark.parametrize("how", ["altered", "linked"])
@pytest.mark.parametrize(
    "name", ["model.safetensors", "config.yaml", "adapter_config.json", "adapter/config.json", "vocab.txt", "tokenizer"]
)
def test_what_loaders_read_and_the_manifest_does_not_list_is_refused(tmp_path: Path, folder: Path, name: str, how: str):
    store = open_store(str(tmp_path / "store"))
    if name == "tokenizer" and how == "altered":
        name = "tokenizer/tokenizer.json"
    manifest = published(store, folder, "a.ckpt")
    place = tmp_path / "store/a.ckpt"
    listed = {kept: entry for kept, entry in manifest.files.items() if kept != name}
    store.write("a.ckpt/manifest.json", replace(manifest, files=listed).to_json().encode())
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/file").write_bytes(b"other")
    (place / name).parent.mkdir(exist_ok=True)
    (place / name).unlink(missing_ok=True)
    if how == "linked":
        (place / name).symlink_to(tmp_path / "outside" if name == "tokenizer" else tmp_path / "outside/file")
    else:
        (place / name).write_bytes(b"other")
    with pytest.raises(CheckpointError, match=f"a.ckpt is not what its manifest says: {name} is there"):
        fetch(str(place), tmp_path / "cache")


def test_a_manifest_that_lists_nothing_makes_nothing_of_what_lies_there_trusted(tmp_path: Path, folder: Path):
    store = open_store(str(tmp_path / "store"))
    manifest = replace(published(store, folder, "a.ckpt"), files={})
    store.write("a.ckpt/manifest.json", manifest.to_json().encode())
    with pytest.raises(CheckpointError, match="adapter/config.json is there.*model.safetensors is there"):
        fetch(f"{tmp_path}/store/a.ckpt", tmp_path / "cache")


def test_what_no_loader_reads_may_lie_beside_a_model(tmp_path: Path, folder: Path):
    published(open_store(str(tmp_path / "store")), folder, "a.ckpt")
    place = tmp_path / "store/a.ckpt"
    (place / "README.md").write_text("a card")
    (place / "plots").mkdir()
    (place / "plots/losses.json").write_text("{}")
    assert fetch(str(place), tmp_path / "cache")[0] == place


def test_a_checkpoint_whose_folder_a_link_leads_out_of_the_store_to_is_refused(tmp_path: Path, folder: Path):
    store = open_store(str(tmp_path / "store"))
    store.write("run/01/stage.json", b"{}")
    published(open_store(str(tmp_path / "elsewhere")), folder, "last.ckpt")
    (tmp_path / "store/run/01/last.ckpt").symlink_to(tmp_path / "elsewhere/last.ckpt")
    with pytest.raises(
        CheckpointError, match="run/01/last.ckpt is refused: a link leads out of the store, to .*elsewhere"
    ):
        fetch(f"{tmp_path}/store/run/01/last.ckpt", tmp_path / "cache")
    assert fetch(f"{tmp_path}/elsewhere/last.ckpt", tmp_path / "cache")


def test_sizes_alone_are_checked_without_reading_files(store: Store, folder: Path):
    manifest = published(store, folder)
    store.write("run/01/best.ckpt/model.safetensors", b"weighty" * 100)
    verify(store, "run/01/best.ckpt", manifest, digests=False)


def test_a_fetched_artifact_is_whole_and_fetched_once(store: Store, folder: Path, tmp_path: Path):
    manifest = published(store, folder)
    uri = join_uri(store.uri, "run/01/best.ckpt")
    place, found = fetch(uri, tmp_path / "cache")
    assert found == manifest
    assert {name: sha256_of(place / name) for name in manifest.files} == {
        name: sha256_of(folder / name) for name in manifest.files
    }
    if store.local("run"):
        assert place == store.local("run/01/best.ckpt") and not (tmp_path / "cache").exists()
        return
    before = (place / "model.safetensors").stat().st_mtime_ns
    assert fetch(uri, tmp_path / "cache") == (place, manifest)
    assert (place / "model.safetensors").stat().st_mtime_ns == before
    (place / "model.safetensors").write_bytes(b"weighty" * 100)
    assert fetch(uri, tmp_path / "cache")[0] == place
    assert (place / "model.safetensors").read_bytes() == b"weights" * 100
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [place.name]


class Flipping:
    """A store elsewhere whose first downloads of a file arrive with a byte changed."""

    def __init__(self, store: Store, times: int):
        self.store, self.uri, self.left, self.asked = store, store.uri, times, []

    def get(self, key, path):
        self.store.get(key, path)
        self.asked.append(key)
        if key == "model.safetensors" and self.left:
            self.left -= 1
            data = bytearray(path.read_bytes())
            data[3] ^= 1
            path.write_bytes(data)

    def local(self, key):
        return None

    def __getattr__(self, name):
        return getattr(self.store, name)


def test_a_byte_that_changed_on_the_way_is_fetched_again_before_anybody_is_told_to_delete(
    tmp_path: Path, folder: Path, monkeypatch, caplog
):
    published(open_store(str(tmp_path)), folder, "a.ckpt")
    remote = Flipping(open_store(f"{tmp_path}/a.ckpt"), 1)
    monkeypatch.setattr("curricle.store.manifest.open_store", lambda uri: remote)
    place, _ = fetch("minio://bucket/a.ckpt", tmp_path / "cache")
    assert (place / "model.safetensors").read_bytes() == b"weights" * 100
    assert remote.asked.count("model.safetensors") == 2 and remote.asked.count("state.pt") == 1, (
        "what was right is kept"
    )
    assert "model.safetensors was altered" in caplog.text and "fetched again" in caplog.text


def test_a_file_that_is_wrong_twice_is_wrong_in_the_store(tmp_path: Path, folder: Path, monkeypatch):
    published(open_store(str(tmp_path)), folder, "a.ckpt")
    remote = Flipping(open_store(f"{tmp_path}/a.ckpt"), 9)
    monkeypatch.setattr("curricle.store.manifest.open_store", lambda uri: remote)
    with pytest.raises(CheckpointError, match="minio://bucket/a.ckpt .*model.safetensors was altered.* fetched twice"):
        fetch("minio://bucket/a.ckpt", tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == [] and remote.asked.count("model.safetensors") == 2


@pytest.mark.parametrize("where", ["file", "folder", "nowhere"])
def test_a_link_that_leaves_the_folder_is_refused_and_nothing_of_it_uploaded(
    store: Store, folder: Path, tmp_path, where
):
    (tmp_path / "private").mkdir()
    (tmp_path / "private/key").write_text("mine")
    target = {"file": tmp_path / "private/key", "folder": tmp_path / "private", "nowhere": tmp_path / "absent"}[where]
    (folder / "extra").symlink_to(target)
    with pytest.raises(StoreError, match=f"extra is a link to {target}"):
        published(store, folder)
    assert not list(store.list(""))


def test_a_link_to_a_file_within_the_folder_is_that_file(store: Store, folder: Path):
    (folder / "same").symlink_to("model.safetensors")
    assert published(store, folder).files["same"].size == 700


def test_an_artifact_without_files_is_a_manifest_alone(store: Store):
    manifest = publish(store, "run/01", None, kind="stage", digest="d")
    assert manifest.files == {} and [entry.key for entry in store.list("")] == ["run/01/manifest.json"]
    verify(store, "run/01", manifest)


def test_publishing_a_stage_leaves_the_checkpoints_below_it(store: Store, folder: Path):
    published(store, folder)
    publish(store, "run/01", None, kind="stage", digest="d")
    publish(store, "run/01", None, kind="stage", digest="e")
    assert [read_manifest(store, place).kind for place in ("run/01/best.ckpt", "run/01")] == ["checkpoint", "stage"]


def test_a_damaged_manifest_is_an_error_that_names_it(store: Store, folder: Path):
    published(store, folder, "run/b.ckpt")
    store.write("run/b.ckpt/manifest.json", store.read("run/b.ckpt/manifest.json")[:-20])
    with pytest.raises(StoreError, match="run/b.ckpt/manifest.json is damaged"):
        read_manifest(store, "run/b.ckpt")


def test_a_folder_published_where_it_lies_is_not_copied(tmp_path: Path, folder: Path):
    store = open_store(str(tmp_path))
    inode = (folder / "model.safetensors").stat().st_ino
    published(store, folder, "made")
    assert (folder / "model.safetensors").stat().st_ino == inode
    assert fetch(str(folder), tmp_path / "cache")[0] == folder


def test_publishing_a_folder_that_is_not_there_says_so(store: Store, tmp_path: Path):
    with pytest.raises(StoreError, match="there is no such folder"):
        published(store, tmp_path / "nowhere")
    assert list(store.list("")) == []


def test_a_file_that_changes_while_it_is_published_makes_nothing_complete(store: Store, folder: Path):
    class Growing(Dying):
        def put(self, key, path):
            self.store.put(key, path)
            with open(path, "ab") as out:
                out.write(b"more")

    with pytest.raises(StoreError, match="changed while it was published"):
        published(Growing(store, 99), folder)
    assert read_manifest(store, "run/01/best.ckpt") is None


def test_a_remembered_digest_is_forgotten_when_the_file_changes(tmp_path: Path):
    path = tmp_path / "file"
    path.write_bytes(b"one")
    os.utime(path, (1e9, 1e9))
    first = sha256_of(path)
    assert sha256_of(path) == first
    path.write_bytes(b"two")
    assert sha256_of(path) != first
    os.utime(path, (2e9, 2e9))
    assert sha256_of(path) != first


def test_a_store_that_is_not_there_is_named_with_nothing_in_it(tmp_path: Path):
    with pytest.raises(CheckpointError, match=r"no complete artifact at .*/nowhere/last.ckpt: found nothing"):
        fetch(str(tmp_path / "nowhere" / "last.ckpt"), tmp_path / "cache")


def test_the_same_manifest_is_always_the_same_text():
    files = {"b": FileEntry(1, "0" * 64), "a": FileEntry(2, "f" * 64)}
    one = Manifest(
        "dataset",
        "d",
        files,
        {"x": float("inf"), "a": 1},
        {"q": None, "b": "s"},
        {"deep": {"z": [1, None], "a": "é"}},
        "2026-01-01T00:00:00Z",
    )
    two = Manifest(
        "dataset",
        "d",
        dict(reversed(files.items())),
        {"a": 1.0, "x": float("inf")},
        {"b": "s", "q": None},
        {"deep": {"a": "é", "z": [1, None]}},
        "2026-01-01T00:00:00Z",
    )
    assert one.to_json() == two.to_json()
    assert Manifest.from_json(one.to_json()) == one


GOOD = json.loads(Manifest("dataset", "d", {"a": FileEntry(1, "0" * 64)}, {"m": 1.0}, {"p": None}, {}, "t").to_json())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"version": 2}, "update curricle"),
        ({"version": None}, "'version'"),
        ({"kind": "model"}, "dataset, checkpoint, stage, evaluation"),
        ({"digest": 3}, "'digest' is a number, and should be a text"),
        ({"version": []}, "'version' is a list, and should be 1"),
        ({"extra": 1}, "unknown fields: 'extra'"),
        ({"files": {"../a": {"size": 1, "sha256": "0" * 64}}}, "refused"),
        ({"files": {"a": {"size": -1, "sha256": "0" * 64}}}, "size -1"),
        ({"files": {"a": {"size": True, "sha256": "0" * 64}}}, "size true"),
        ({"files": {"a": {"size": 1, "sha256": "0" * 63 + "G"}}}, "sha256"),
        ({"files": {"a": 5}}, "file 'a'"),
        ({"metrics": {"m": "much"}}, "metric 'm'"),
        ({"metrics": {"m": [1]}}, "metric 'm'"),
        ({"lineage": {"p": 3}}, "lineage 'p'"),
    ],
)
def test_a_manifest_that_is_not_one_is_refused_with_the_reason(change: dict, said: str):
    with pytest.raises(StoreError, match=said):
        Manifest.from_json(json.dumps({**GOOD, **change}), "s3://b/x/manifest.json")


@pytest.mark.parametrize("text", ["", "[" * 99_999, "{", "[]", "null", '"x"', b"\xff\xfe", '{"version": 1}'])
def test_text_that_is_no_manifest_is_refused(text: str | bytes):
    with pytest.raises(StoreError, match="here/manifest.json is damaged"):
        Manifest.from_json(text, "here/manifest.json")


def test_info_that_json_cannot_say_is_refused_before_anything_is_complete(store: Store, folder: Path):
    with pytest.raises(StoreError, match="cannot be written as JSON"):
        publish(store, "a", folder, kind="dataset", digest="d", info={"x": {1, 2}})
    assert read_manifest(store, "a") is None


def test_uris_come_apart_and_together():
    assert split_uri("minio://bucket/a/b/") == ("minio://bucket/a", "b")
    assert join_uri("minio://bucket/a", "b", "c") == "minio://bucket/a/b/c"
