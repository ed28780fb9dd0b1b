"""A store that is away is waited for, and never called wrong; in front of a bucket in memory, and of a real MinIO where one answers."""

import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from curricle.errors import ConfigError, CurricleError, StoreError, StoreUnavailable
from curricle.store import connections, minio, open_store, patience
from curricle.store.manifest import fetch, publish, read_manifest
from curricle.store.ours import retire
from curricle.store.patience import at_most, give_up
from tests.store.outage import SETTINGS, Door, Trouble, bucket, wait_until

URI = "minio://bucket/runs"


@pytest.fixture
def door(monkeypatch: pytest.MonkeyPatch) -> Iterator[Door]:
    """A door in front of a bucket in memory; the environment leads through it."""
    with bucket() as server:
        door = Door(*server.server_address)
        for name, value in {**SETTINGS, "S3_ENDPOINT": f"http://{door.endpoint}"}.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(connections, "_IDLE", 1.0)
        monkeypatch.setattr(connections, "_CONNECT", 1.0)
        yield door
        door.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Files of an artifact: small ones, and one of several parts."""
    folder = tmp_path / "artifact"
    folder.mkdir()
    for name in "abc":
        (folder / name).write_bytes(name.encode() * 1000)
    (folder / "large").write_bytes(os.urandom(17 << 20))
    return folder


def same(one: Path, other: Path) -> bool:
    return {p.name: p.read_bytes() for p in one.iterdir()} == {
        p.name: p.read_bytes() for p in other.iterdir() if p.name != "manifest.json"
    }


def publish_and_fetch(uri: str, folder: Path, cache: Path, door: Door, trouble: Trouble) -> None:
    store = open_store(uri)
    with door.away(2, trouble):
        publish(store, "x", folder, kind="dataset", digest="d")
    with door.away(2, trouble):
        fetched, _ = fetch(f"{uri}/x", cache)
    assert same(folder, fetched)
    fetched, _ = fetch(f"{uri}/x", cache)
    assert [entry.key for entry in store.list("x/")] == ["x/a", "x/b", "x/c", "x/large", "x/manifest.json"]


@pytest.mark.parametrize("trouble", ["refuse", "reset", "stall"])
def test_a_store_away_for_two_seconds_is_no_matter(trouble: Trouble, door: Door, folder: Path, tmp_path: Path):
    publish_and_fetch(URI, folder, tmp_path / "cache", door, trouble)


@pytest.mark.parametrize("trouble", ["refuse", "reset", "stall"])
def test_a_real_minio_away_for_two_seconds_is_no_matter(
    trouble: Trouble, minio_uri: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    address = urlsplit(os.environ["S3_ENDPOINT"])
    door = Door(address.hostname or "", address.port or 80)
    with monkeypatch.context() as patched:
        patched.setenv("S3_ENDPOINT", f"http://{door.endpoint}")
        patched.setattr(connections, "_IDLE", 1.0)
        publish_and_fetch(minio_uri, folder, tmp_path / "cache", door, trouble)
    door.close()


@pytest.mark.parametrize("trouble", ["reset", "stall"])
def test_trouble_in_the_middle_of_a_large_file_costs_a_part_not_the_file(trouble: Trouble, door: Door, folder: Path):
    store = open_store(URI)
    upload = threading.Thread(target=store.put, args=("k", folder / "large"))
    upload.start()
    wait_until(lambda: door.bytes_up > 1 << 20)
    with door.away(1.5, trouble):
        upload.join(60)
    assert store.read("k") == (folder / "large").read_bytes()


def verbs(store, path: Path) -> list[Callable[[], object]]:
    return [
        lambda: store.read("a"),
        lambda: store.write("a", b"x"),
        lambda: store.put("a", path),
        lambda: store.get("a", path.with_name("out")),
        lambda: list(store.list("")),
        lambda: store.delete("a"),
    ]


@pytest.mark.parametrize("trouble", ["refuse", "reset", "stall"])
def test_away_for_longer_than_the_patience_is_unavailability_for_every_verb(
    trouble: Trouble, door: Door, folder: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("CURRICLE_STORE_PATIENCE", "2")
    store = open_store(URI)
    store.write("a", b"x")
    door.shut(trouble)
    took = []
    for verb in verbs(store, folder / "a"):
        began = time.monotonic()
        with pytest.raises(StoreUnavailable, match="the server is away: .*has not answered for") as error:
            verb()
        took.append(time.monotonic() - began)
        assert error.value.exit_code == 75 and "None" not in str(error.value)
    assert 2 <= took[0] < 8 and max(took[1:]) < 1.9, "who has waited once does not wait again for the same outage"
    door.open()
    assert store.read("a") == b"x"


def test_an_outage_is_told_in_one_line_when_it_begins_and_one_when_it_ends(door: Door, caplog):
    store = open_store(URI)
    store.write("a", b"x")
    with caplog.at_level(logging.WARNING, "curricle.store"), door.away(3):
        readers = [threading.Thread(target=store.read, args=("a",)) for _ in range(4)]
        for reader in readers:
            reader.start()
        for reader in readers:
            reader.join()
    begins, ends = caplog.messages
    assert "does not answer" in begins and "waiting up to" in begins and "CURRICLE_STORE_PATIENCE" in begins
    assert "answers again, after" in ends


def test_a_connection_that_breaks_once_is_not_worth_a_line(door: Door, caplog):
    store = open_store(URI)
    store.write("a", b"x")
    with caplog.at_level(logging.WARNING, "curricle.store"):
        door.shut("reset")
        door.open()
        assert store.read("a") == b"x"
    assert caplog.messages == []


def test_who_need_not_wait_does_not_and_spends_nobodys_patience(door: Door, monkeypatch: pytest.MonkeyPatch, caplog):
    monkeypatch.setenv("CURRICLE_STORE_PATIENCE", "20")
    store = open_store(URI)
    store.write("a", b"x")
    door.shut("refuse")
    began = time.monotonic()
    with at_most(0.5), pytest.raises(StoreUnavailable):
        store.read("a")
    assert time.monotonic() - began < 3 and caplog.messages == []
    with door.away(1.5):
        assert store.read("a") == b"x"


def test_giving_up_ends_the_waiting_of_all_threads_at_once(door: Door):
    store, ends = open_store(URI), []

    def read() -> None:
        with pytest.raises(StoreUnavailable):
            store.read("a")
        ends.append(time.monotonic())

    door.shut("refuse")
    threads = [threading.Thread(target=read) for _ in range(3)]
    for thread in threads:
        thread.start()
    time.sleep(1)
    assert not ends
    began = time.monotonic()
    give_up()
    for thread in threads:
        thread.join()
    assert max(ends) - began < 3
    door.open()
    assert store.read("a") is None


def test_an_interrupted_fetch_does_not_wait_for_its_threads(door: Door, folder: Path, tmp_path: Path, monkeypatch):
    publish(open_store(URI), "x", folder, kind="dataset", digest="d")
    real, begun = minio.MinioStore.get, []

    def get(self, key: str, path: Path) -> None:
        if key == "a":
            wait_until(lambda: len(begun) > 1)
            time.sleep(0.5)
            raise KeyboardInterrupt
        begun.append(key)
        door.shut("refuse")
        real(self, key, path)

    monkeypatch.setattr(minio.MinioStore, "get", get)
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        fetch(f"{URI}/x", tmp_path / "cache")
    assert time.monotonic() - began < 10


def test_a_large_body_that_flows_slowly_is_not_cut_off(monkeypatch: pytest.MonkeyPatch, door: Door):
    """Each block has the limit, not the whole: the server takes longer than it for the request."""
    real = Door._pump

    def slow(self, here, there, up):
        recv = here.recv

        class Slow:
            def recv(self, size):
                time.sleep(0.02)
                return recv(size)

            def shutdown(self, how):
                here.shutdown(how)

        real(self, Slow() if up else here, there, up)

    monkeypatch.setattr(Door, "_pump", slow)
    store, data = open_store(URI), os.urandom(15 << 20)
    began = time.monotonic()
    store.write("k", data)
    assert time.monotonic() - began > 2 and door.bytes_up < 1.1 * len(data), "it was sent more than once"
    assert store.read("k") == data


@pytest.mark.parametrize("cut", [11, 22, 60])  # in the status line, behind it, in the length
@pytest.mark.parametrize("key", ["a", "missing"])
def test_an_answer_whose_head_is_cut_is_no_answer(cut: int, key: str, door: Door, monkeypatch: pytest.MonkeyPatch):
    store, real = open_store(URI), Door._pump
    store.write("a", b"x" * 1000)
    cuts = [cut, cut]

    def pump(self, here, there, up):
        if not up and cuts:
            there.sendall(here.recv(65536)[: cuts.pop()])
            for end in (here, there):
                end.shutdown(socket.SHUT_RDWR)
        else:
            real(self, here, there, up)

    door.shut("reset")
    door.open()
    monkeypatch.setattr(Door, "_pump", pump)
    assert store.read(key) == (b"x" * 1000 if key == "a" else None) and not cuts


@pytest.mark.parametrize("times", [1, 2])
def test_parts_that_the_server_lost_are_sent_again(
    times: int, door: Door, folder: Path, monkeypatch: pytest.MonkeyPatch
):
    store = open_store(URI)
    complete, lost = store._client._complete_multipart_upload, []

    def forget(bucket_name, object_name, upload_id, *rest):
        if len(lost) < times:
            lost.append(store._client._abort_multipart_upload(bucket_name, object_name, upload_id))
        return complete(bucket_name, object_name, upload_id, *rest)

    monkeypatch.setattr(store._client, "_complete_multipart_upload", forget)
    store.put("k", folder / "large")
    assert len(lost) == times and store.read("k") == (folder / "large").read_bytes()


def test_an_outage_is_never_taken_for_an_artifact_that_proves_nothing(door: Door, folder: Path, monkeypatch):
    """Away for the manifest alone, and back at once: whoever goes on would take the artifact's files for a stranger's."""
    store = open_store(URI)
    publish(store, "x", folder, kind="checkpoint", digest="d")

    def read(self, key: str) -> bytes:
        raise StoreUnavailable(key)

    with monkeypatch.context() as patched, pytest.raises(StoreUnavailable):
        patched.setattr(minio.MinioStore, "read", read)
        retire(store, "x")
    assert read_manifest(store, "x") is not None


@pytest.mark.parametrize("text", ["soon", "-1", "601", "nan", "inf"])
def test_a_patience_that_is_none_is_refused_by_its_variable(text: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("CURRICLE_STORE_PATIENCE", text)
    with pytest.raises(ConfigError, match=f"CURRICLE_STORE_PATIENCE='{text}'.*0 to 600"):
        patience.patience_seconds()


def test_the_pauses_grow_and_differ_and_the_last_try_is_at_the_end(monkeypatch: pytest.MonkeyPatch):
    now, pauses = [100.0], []

    def wait_for(condition, timeout):
        pauses.append(timeout)
        now[0] += timeout

    monkeypatch.setattr(patience._waiting, "wait_for", wait_for)
    monkeypatch.setattr(patience.time, "monotonic", lambda: now[0])
    monkeypatch.setenv("CURRICLE_STORE_PATIENCE", "100")
    tries = patience.Tries(patience.Server("x"))
    with pytest.raises(patience.Away) as error:
        while True:
            tries.failed("gone")
    assert error.value.seconds == pytest.approx(100) == sum(pauses)
    assert all(0.5 <= pause / min(0.25 * 2**n, 10) <= 1 for n, pause in enumerate(pauses[:-1]))


def test_unavailability_is_a_store_error_that_a_retry_may_cure():
    assert issubclass(StoreUnavailable, StoreError) and StoreUnavailable.exit_code != CurricleError.exit_code
