"""The dead-man's switch: silence is noticed, a launcher that comes back in time is too, and a store that fails proves nothing."""

import threading
import time

from curricle.errors import StoreError
from curricle.launch import heartbeat
from curricle.launch.heartbeat import Heartbeat, wait_for_silence
from curricle.store.folder import FolderStore


def watched(uri, seconds):
    """A watcher in a thread, and when it ended."""
    thread = threading.Thread(target=wait_for_silence, args=(uri, seconds), daemon=True)
    thread.start()
    return thread


def test_silence_ends_the_wait_and_a_beating_launcher_does_not(tmp_path):
    heart = Heartbeat(f"{tmp_path}/heartbeat", print, every=0.1)
    thread = watched(f"{tmp_path}/heartbeat", 0.6)
    thread.join(1.5)
    assert thread.is_alive()
    heart.stop()
    assert not (tmp_path / "heartbeat").exists()
    thread.join(2)
    assert not thread.is_alive()


def test_a_launcher_that_is_killed_and_started_again_within_the_grace_is_no_silence(tmp_path):
    thread = watched(f"{tmp_path}/heartbeat", 1.2)
    for _ in range(3):  # each launcher writes once and is gone
        (tmp_path / "heartbeat").write_bytes(str(time.monotonic()).encode())
        time.sleep(0.7)
    assert thread.is_alive()
    thread.join(3)
    assert not thread.is_alive()


def test_a_launcher_that_never_came_is_silence(tmp_path):
    thread = watched(f"{tmp_path}/heartbeat", 0.3)
    thread.join(2)
    assert not thread.is_alive()


def test_a_store_that_does_not_answer_stops_nothing(tmp_path, monkeypatch):
    class Down(FolderStore):
        def read(self, key):
            raise StoreError("no answer")

    monkeypatch.setattr(heartbeat, "open_store", Down)
    thread = watched(f"{tmp_path}/heartbeat", 0.3)
    thread.join(1)
    assert thread.is_alive()
    monkeypatch.setattr(Down, "read", FolderStore.read)
    thread.join(2)
    assert not thread.is_alive()


def test_a_store_that_refuses_a_beat_is_told(tmp_path):
    (tmp_path / "file").touch()
    told = []
    heart = Heartbeat(f"{tmp_path}/file/heartbeat", told.append, every=0.05)
    time.sleep(0.3)
    heart.stop()
    assert told and f"{tmp_path}/file" in told[0]
