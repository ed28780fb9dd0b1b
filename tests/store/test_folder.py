"""What only a folder can do."""

import os
import signal
import stat
from pathlib import Path

import pytest

from curricle.errors import StoreError
from curricle.store import open_store
from curricle.store.folder import FolderStore
from curricle.store.local import part_beside
from curricle.store.manifest import fetch, publish, read_manifest


def test_a_folder_and_its_file_uri_are_the_same_store(tmp_path: Path):
    open_store(str(tmp_path / "a b")).write("k", b"x")
    assert open_store((tmp_path / "a b").as_uri()).read("k") == b"x"
    assert open_store("file://localhost" + str(tmp_path / "a b")).read("k") == b"x"


def test_a_relative_folder_counts_from_where_it_was_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    store = FolderStore("runs")
    monkeypatch.chdir("/")
    store.write("k", b"x")
    assert store.uri == str(tmp_path / "runs") and (tmp_path / "runs" / "k").read_bytes() == b"x"


def test_a_tilde_is_the_users_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert FolderStore("~/runs").uri == str(tmp_path / "runs")


@pytest.mark.parametrize("uri", ["file://host/folder", "file://relative", "file:relative", "ftp://x/y", "://", ""])
def test_a_uri_that_is_no_folder_is_refused(uri: str):
    with pytest.raises(StoreError, match="cannot open"):
        open_store(uri)


def test_a_file_cannot_be_opened_as_a_store(tmp_path: Path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StoreError, match="it is a file"):
        FolderStore(str(tmp_path / "file"))


def test_opening_and_reading_create_nothing(tmp_path: Path):
    store = FolderStore(str(tmp_path / "none"))
    assert (store.read("k"), list(store.list("")), list(store.list("a/b")), store.local(""), store.delete("a")) == (
        None,
        [],
        [],
        None,
        0,
    )
    assert not (tmp_path / "none").exists()


def test_local_answers_with_the_path_of_what_is_there(tmp_path: Path):
    store = FolderStore(str(tmp_path))
    store.write("a/b", b"x")
    assert (store.local("a/b"), store.local("a"), store.local("a/"), store.local(""), store.local("c")) == (
        tmp_path / "a/b",
        tmp_path / "a",
        tmp_path / "a",
        tmp_path,
        None,
    )


def test_a_link_that_leads_out_of_the_store_is_refused(tmp_path: Path):
    (tmp_path / "out").mkdir()
    store = FolderStore(str(tmp_path / "store"))
    store.write("k", b"x")
    os.symlink(tmp_path / "out", tmp_path / "store" / "link")
    with pytest.raises(StoreError, match="leads out of the store"):
        store.write("link/k", b"x")
    assert list((tmp_path / "out").iterdir()) == []


def test_a_file_still_being_written_is_no_object_and_goes_with_its_folder(tmp_path: Path):
    store = FolderStore(str(tmp_path))
    store.write("a/k", b"x")
    part = part_beside(tmp_path / "a" / "k")
    part.write_bytes(b"half")
    assert [entry.key for entry in store.list("")] == ["a/k"]
    with pytest.raises(StoreError, match="being written"):
        store.read(f"a/{part.name}")
    store.write("a/k2", b"x")
    mine = tmp_path / "a" / ".mine.part"
    mine.write_bytes(b"a name like it, and no such file")
    assert store.delete("a") == 3
    assert list(tmp_path.iterdir()) == []


def test_a_write_that_fails_leaves_the_old_object_and_no_part(tmp_path: Path):
    store = FolderStore(str(tmp_path))
    store.write("k", b"old")
    with pytest.raises(TypeError):
        store.write("k", "text")
    assert store.read("k") == b"old" and [path.name for path in tmp_path.iterdir()] == ["k"]


def test_writing_below_a_file_says_what_is_in_the_way(tmp_path: Path):
    store = FolderStore(str(tmp_path))
    store.write("a", b"x")
    with pytest.raises(StoreError, match="cannot write 'a/b'"):
        store.write("a/b", b"x")
    assert store.read("a/b") is None


def test_objects_get_the_usual_permissions(tmp_path: Path):
    FolderStore(str(tmp_path)).write("k", b"x")
    (tmp_path / "plain").write_bytes(b"x")
    assert stat.S_IMODE((tmp_path / "k").stat().st_mode) == stat.S_IMODE((tmp_path / "plain").stat().st_mode)


def test_deleting_an_object_takes_what_a_killed_process_left_of_a_try_to_write_it(tmp_path, dead):
    store = FolderStore(str(tmp_path))
    store.write("stage/other.json", b"x")
    left = part_beside(tmp_path / "stage/failure.json")
    left.write_bytes(b"half")
    left, mine = dead(left), part_beside(tmp_path / "stage/failure.json")
    mine.write_bytes(b"half")
    assert store.delete("stage/failure.json") == 0
    assert not left.exists() and mine.exists() and store.read("stage/other.json") == b"x"


@pytest.fixture
def no_waiting():
    """A test that waits for a pipe's writer fails."""

    def waited(number, frame):
        raise AssertionError("waited for a pipe")

    former = signal.signal(signal.SIGALRM, waited)
    signal.alarm(5)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, former)


def test_a_pipe_in_place_of_an_object_is_refused_before_it_is_waited_for(tmp_path: Path, no_waiting):
    store = FolderStore(str(tmp_path / "store"))
    store.write("run/k", b"x")
    os.mkfifo(tmp_path / "store/run/final.json")
    for act in (
        lambda: store.read("run/final.json"),
        lambda: store.get("run/final.json", tmp_path / "copy"),
        lambda: store.put("other", tmp_path / "store/run/final.json"),
        lambda: read_manifest(store, "pipe"),
    ):
        (tmp_path / "store/pipe").mkdir(exist_ok=True)
        if not (tmp_path / "store/pipe/manifest.json").exists():
            os.mkfifo(tmp_path / "store/pipe/manifest.json")
        with pytest.raises(StoreError, match="(final|manifest).json.*it is a pipe"):
            act()


def test_a_pipe_in_place_of_an_artifacts_file_is_what_is_wrong_with_it(tmp_path: Path, no_waiting):
    (tmp_path / "made").mkdir()
    (tmp_path / "made/empty").write_bytes(b"")
    publish(FolderStore(str(tmp_path)), "a", tmp_path / "made", kind="dataset", digest="d")
    (tmp_path / "a/empty").unlink()
    os.mkfifo(tmp_path / "a/empty")
    with pytest.raises(StoreError, match="empty is a pipe"):
        fetch(f"{tmp_path}/a", tmp_path / "cache")


@pytest.mark.parametrize("target", ["loop", "nowhere"])
def test_a_link_that_leads_nowhere_is_passed_over_and_said_once(tmp_path: Path, target: str, caplog):
    store = FolderStore(str(tmp_path))
    store.write("run/k", b"x")
    (tmp_path / "run/loop").symlink_to(target)
    for _ in range(2):
        assert [entry.key for entry in store.list("")] == ["run/k"]
    assert caplog.text.count("run/loop is a link that leads nowhere") == 1


@pytest.mark.parametrize("uri", ["minio://", "s3:///", "minio:", "hf:/org/name"])
def test_a_uri_that_names_nothing_behind_its_scheme_is_no_folder(uri: str):
    with pytest.raises(StoreError, match=f"{uri.partition(':')[0]}:"):
        open_store(uri)
