"""One contract, run over every store: what holds for a folder holds for a bucket."""

import hashlib
import os
import random
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from curricle.errors import StoreError
from curricle.store import Store
from tests.store.sqlite_store import SqliteStore

BAD_KEYS = ["../out", "a/../../out", "a/..", "/etc/passwd", "a//b", "./a", "a\\..\\b", "a\nb"]


def test_what_was_written_is_read(store: Store):
    store.write("a/b c/ünï.json", b"one")
    assert store.read("a/b c/ünï.json") == b"one"
    store.write("a/b c/ünï.json", b"")
    assert store.read("a/b c/ünï.json") == b""


def test_an_object_that_is_not_there_reads_as_none(store: Store):
    assert store.read("a/b") is None
    store.write("a/b/c", b"x")
    assert store.read("a/b") is None


@pytest.mark.parametrize("key", [*BAD_KEYS, "", "a/"])
def test_a_key_that_leaves_the_root_is_refused_by_every_verb(store: Store, key: str, tmp_path: Path):
    (tmp_path / "file").write_bytes(b"x")
    verbs = [
        lambda: store.write(key, b"x"),
        lambda: store.read(key),
        lambda: store.put(key, tmp_path / "file"),
        lambda: store.get(key, tmp_path / "out"),
    ]
    if key in BAD_KEYS:
        verbs += [lambda: list(store.list(key)), lambda: store.delete(key), lambda: store.local(key)]
    for verb in verbs:
        with pytest.raises(StoreError) as error:
            verb()
        assert store.uri in str(error.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("size", [0, 1, 8 << 20, (20 << 20) + 7])
def test_a_file_comes_back_as_it_was_put(store: Store, tmp_path: Path, size: int):
    source, back = tmp_path / "source", tmp_path / "deep" / "back"
    source.write_bytes(random.Random(size).randbytes(size))
    store.put("x/file.bin", source)
    (entry,) = store.list("")
    assert entry[:2] == ("x/file.bin", size) and abs(entry.modified - time.time()) < 60
    store.get("x/file.bin", back)
    assert hashlib.sha256(back.read_bytes()).digest() == hashlib.sha256(source.read_bytes()).digest()
    assert [p.name for p in back.parent.iterdir()] == ["back"]


def test_getting_what_is_not_there_leaves_nothing_behind(store: Store, tmp_path: Path):
    with pytest.raises(StoreError, match="no (such )?object") as error:
        store.get("a/b", tmp_path / "down" / "b")
    assert store.uri in str(error.value) and "'a/b'" in str(error.value)
    assert not list((tmp_path / "down").glob("*"))


def test_putting_a_file_that_is_not_there_names_it(store: Store, tmp_path: Path):
    with pytest.raises(StoreError, match="nowhere.bin"):
        store.put("a", tmp_path / "nowhere.bin")
    assert list(store.list("")) == []


def test_listing_is_sorted_by_key_and_matches_the_beginning_of_keys(store: Store):
    keys = ["a/b/2", "a-b", "a/b/10", "a/bc", "a.b", "b", "a/é", "a/b.x/1"]
    for key in keys:
        store.write(key, key.encode())
    assert [entry.key for entry in store.list("")] == sorted(keys)
    assert [entry.key for entry in store.list("a/b")] == ["a/b.x/1", "a/b/10", "a/b/2", "a/bc"]
    assert [entry.key for entry in store.list("a/b/")] == ["a/b/10", "a/b/2"]
    assert list(store.list("c")) == []
    assert {entry.size for entry in store.list("a/bc")} == {4}


def test_deleting_takes_what_is_at_or_under_a_prefix_and_no_neighbour(store: Store):
    for key in ["a/b/1", "a/b/2/3", "a/bc", "c"]:
        store.write(key, b"x")
    assert store.delete("a/b/") == 2
    assert [entry.key for entry in store.list("")] == ["a/bc", "c"]
    assert store.delete("c") == 1
    assert store.delete("c") == 0
    assert [entry.key for entry in store.list("")] == ["a/bc"]
    store.write("a/b", b"a file where a folder was")
    assert store.read("a/b") == b"a file where a folder was"


def test_deleting_everything_by_an_empty_prefix_is_refused(store: Store):
    store.write("a", b"x")
    for prefix in ["", "/"]:
        with pytest.raises(StoreError, match="refused"):
            store.delete(prefix)
    assert store.read("a") == b"x"


def test_a_delete_takes_the_manifests_first_the_outermost_before_all(store: Store, monkeypatch: pytest.MonkeyPatch):
    for key in ["r/a.bin", "r/manifest.json", "r/c.ckpt/a.bin", "r/c.ckpt/manifest.json", "r/z.bin"]:
        store.write(key, b"x")
    order: list[str] = []

    def recording(verb, names_of):
        def record(*args, **named):
            order.extend(name[name.index("/r/") + 3 :] for name in names_of(args))
            return verb(*args, **named)

        return record

    if isinstance(store, SqliteStore):  # all at once: nobody sees an order
        assert store.delete("r") == 5 and list(store.list("")) == []
        return
    if store.local("r"):
        monkeypatch.setattr(Path, "unlink", recording(Path.unlink, lambda args: [str(args[0])]))
    else:
        client = store._client
        monkeypatch.setattr(client, "remove_object", recording(client.remove_object, lambda args: [args[1]]))
        monkeypatch.setattr(
            client, "remove_objects", recording(client.remove_objects, lambda args: [item.name for item in args[1]])
        )
    assert store.delete("r") == 5
    assert order == ["manifest.json", "c.ckpt/manifest.json", "a.bin", "c.ckpt/a.bin", "z.bin"]


def test_concurrent_writers_leave_one_whole_object_and_readers_never_see_a_part(store: Store):
    size, failures, done = 300_000, [], threading.Event()
    store.write("k", b"0" * size)

    def write(letter: bytes) -> None:
        for _ in range(6):
            store.write("k", letter * size)

    def read() -> None:
        while not done.is_set():
            data = store.read("k") or b""
            if len(data) != size or len(set(data)) != 1:
                failures.append((len(data), set(data)))

    reader = threading.Thread(target=read)
    writers = [threading.Thread(target=write, args=(letter,)) for letter in (b"a", b"b", b"c")]
    for thread in [reader, *writers]:
        thread.start()
    for thread in writers:
        thread.join()
    done.set()
    reader.join()
    assert failures == []
    assert [entry[:2] for entry in store.list("")] == [("k", size)]


MEMORY = """
import resource, sys
from pathlib import Path
from curricle.store import open_store
store, folder = open_store(sys.argv[1]), Path(sys.argv[2])
store.put("small", folder / "small"); store.get("small", folder / "small.back")
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
store.put("big", folder / "big"); store.get("big", folder / "big.back")
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_a_large_file_goes_through_bounded_memory(uri: str, tmp_path: Path):
    (tmp_path / "small").write_bytes(b"x")
    with open(tmp_path / "big", "wb") as out:
        out.truncate(96 << 20)
    run = subprocess.run(
        [sys.executable, "-c", MEMORY, uri, str(tmp_path)],
        capture_output=True,
        text=True,
        check=True,
        env=dict(os.environ),
    )
    assert int(run.stdout) * 1024 < 56 << 20, f"{int(run.stdout) >> 10} MiB for a file of 96 MiB"
    assert (tmp_path / "big.back").stat().st_size == 96 << 20
