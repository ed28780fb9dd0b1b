"""A stage's place has one owner: the second waits or is refused, a dead owner is replaced, a silent one that comes back stops."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import asdict

import pytest

from curricle.steps import claim as module
from curricle.steps.claim import Claim, Claimant, Held
from curricle.store import layout
from curricle.store.folder import FolderStore

HOLD = """
import sys, time
from curricle.steps.claim import Claim
from curricle.store.folder import FolderStore
with Claim(FolderStore(sys.argv[1]), sys.argv[2], lambda line: print(line, flush=True), every=float(sys.argv[4])) as claim:
    print("holds", claim.waited, flush=True)
    time.sleep(float(sys.argv[3]))
"""


def hold(place, digest, seconds, every=0.2) -> subprocess.Popen:
    """A process that holds the place for so many seconds."""
    arguments = [sys.executable, "-c", HOLD, str(place), digest, str(seconds), str(every)]
    return subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.fixture
def store(tmp_path):
    return FolderStore(str(tmp_path / "r" / "01_stage"))


def elsewhere(store, digest="d", beat=0) -> Claimant:
    """A claim of a process of another machine."""
    owner = Claimant("t", digest, host="pod-7", machine="other", pid=1, process_start="5", since="noon", beat=beat)
    store.write(layout.CLAIM, json.dumps(asdict(owner)).encode())
    return owner


def test_a_claim_stands_while_it_is_held_and_is_gone_afterwards(store):
    with Claim(store, "d", print, every=0.05) as claim:
        first = store.read(layout.CLAIM)
        time.sleep(0.2)
        assert json.loads(store.read(layout.CLAIM))["beat"] > json.loads(first)["beat"] and not claim.waited
    assert store.read(layout.CLAIM) is None
    with pytest.raises(ZeroDivisionError), Claim(store, "d", print):
        raise ZeroDivisionError
    assert store.read(layout.CLAIM) is None


def test_the_second_with_the_same_work_says_who_is_at_it_and_waits(store, tmp_path):
    first = hold(store.uri, "d", 2)
    assert first.stdout.readline() == "holds False\n"
    said = []
    with Claim(store, "d", said.append, every=0.2) as claim:
        assert first.wait(10) == 0 and claim.waited
    assert len(said) == 1 and f"process {first.pid} on" in said[0] and "waiting" in said[0]
    first.communicate()


def test_the_second_with_other_work_is_refused_at_once_with_the_owners_name(store):
    first = hold(store.uri, "d1", 30)
    first.stdout.readline()
    with pytest.raises(Held, match=f"process {first.pid} on .*digest d1; this one is d2") as refused:
        Claim(store, "d2", print).__enter__()
    assert refused.value.exit_code == 2 and json.loads(store.read(layout.CLAIM))["digest"] == "d1"
    first.kill()
    first.communicate()


@pytest.mark.parametrize("number", [2, 3])
def test_of_several_that_start_at_once_one_holds_at_a_time(store, number):
    processes = [hold(store.uri, "d", 0.5) for _ in range(number)]
    outputs = [process.communicate(timeout=60) for process in processes]
    assert [process.returncode for process in processes] == [0] * number, outputs
    assert sum("holds False" in out for out, _ in outputs) == 1, outputs
    assert sum("holds True" in out for out, _ in outputs) == number - 1, outputs


def test_a_killed_owner_is_replaced_at_once_whatever_it_did(store):
    first = hold(store.uri, "d1", 30, every=10)
    first.stdout.readline()
    first.kill()
    first.communicate()
    said, began = [], time.monotonic()
    with Claim(store, "d2", said.append, every=10) as claim:
        assert time.monotonic() - began < 5 and not claim.waited
    assert len(said) == 1 and f"process {first.pid} on" in said[0] and "dead" in said[0]


def test_a_stopped_owner_keeps_its_place_however_long_it_is_silent(store):
    first = hold(store.uri, "d1", 30, every=0.05)
    first.stdout.readline()
    first.send_signal(signal.SIGSTOP)
    time.sleep(0.5)
    with pytest.raises(Held):
        Claim(store, "d2", print, every=0.05).__enter__()
    first.kill()
    first.communicate()


def test_a_process_number_that_was_given_anew_is_not_the_owner(store):
    with Claim(store, "d1", print):
        owner = json.loads(store.read(layout.CLAIM))
    store.write(layout.CLAIM, json.dumps(owner | {"pid": os.getppid(), "process_start": "1"}).encode())
    said = []
    with Claim(store, "d2", said.append):
        assert "dead" in said[0]


def test_an_owner_elsewhere_that_is_silent_for_three_beats_is_dead(store):
    elsewhere(store)
    said, began = [], time.monotonic()
    with Claim(store, "d", said.append, every=0.2):
        assert time.monotonic() - began > 3 * 0.2
    assert "waiting" in said[0] and "pod-7" in said[1] and "dead" in said[1]


def test_a_store_that_was_away_makes_no_owner_dead_and_costs_no_long_wait(store, monkeypatch):
    """The read of a watcher lasts as long as the outage, and the owner could not beat meanwhile."""
    owner, real, reads = elsewhere(store), FolderStore.read, []

    def read(self, key):
        reads.append(key)
        if len(reads) == 3:
            time.sleep(1)  # five beats
        if len(reads) == 4:
            elsewhere(store, beat=1)
        if len(reads) == 6:
            store.delete(key)
        return real(self, key)

    monkeypatch.setattr(FolderStore, "read", read)
    said = []
    with Claim(store, owner.digest, said.append, every=0.2) as claim:
        assert claim.waited
    assert not any("dead" in line for line in said), said


def test_taking_a_place_of_a_store_that_was_away_does_not_wait_many_times_as_long(store, monkeypatch):
    real, slept, sleep = Claim.renew, [], time.sleep
    monkeypatch.setattr(Claim, "renew", lambda self: (sleep(0.5), real(self)))
    monkeypatch.setattr(module.time, "sleep", lambda seconds: (slept.append(seconds), sleep(seconds)))
    with Claim(store, "d", print, every=0.3):
        pass
    assert max(slept) <= module.SETTLE + 0.3


def test_an_owner_elsewhere_that_beats_is_alive(store):
    elsewhere(store, "d1")
    threading.Timer(0.3, elsewhere, (store, "d1", 1)).start()
    with pytest.raises(Held, match="pod-7"):
        Claim(store, "d2", print, every=0.2).__enter__()


def test_one_that_was_silent_too_long_and_replaced_stops_and_leaves_the_other_alone(store):
    with pytest.raises(Held, match="pod-7"), Claim(store, "d", print, every=0.05) as claim:
        claim.confirm()
        other = elsewhere(store)
        time.sleep(0.3)
        thread = threading.Thread(target=claim.confirm)  # would print a traceback, which is an error here
        thread.start()
        thread.join()
        claim.confirm()
    assert json.loads(store.read(layout.CLAIM)) == asdict(other)


def test_of_two_that_both_find_a_free_place_the_last_to_write_holds_it(store, monkeypatch):
    """The first comes back from its pause to another's token, and waits."""
    pauses = []

    def pause(seconds):
        if not pauses:
            elsewhere(store)
        pauses.append(seconds)
        real(min(seconds, 0.1))

    real = time.sleep
    monkeypatch.setattr(module.time, "sleep", pause)
    said = []
    with Claim(store, "d", said.append, every=0.2):
        pass
    assert pauses[0] >= module.SETTLE and "pod-7" in said[0]


def test_a_damaged_claim_is_nobodys(store):
    for data in (b"{", b"[1]", b"{}", b'"x"'):
        store.write(layout.CLAIM, data)
        with Claim(store, "d", print):
            pass


def test_the_place_of_a_dead_owner_is_taken_when_what_it_started_has_ended(store):
    """A rank outlives the killed command for a moment, and saves: what it wrote then was taken for the work of who came next."""
    dead = hold(store.uri, "d", 60)
    dead.stdout.readline()
    rank = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)", "--stage-uri", store.uri])
    dead.kill()
    dead.communicate()
    said, taken = [], threading.Event()

    def take():
        with Claim(store, "d", said.append, every=0.2):
            taken.set()

    second = threading.Thread(target=take)
    second.start()
    assert not taken.wait(1.5) and f"({rank.pid}) to end" in said[-1]
    rank.kill()
    rank.wait()
    assert taken.wait(5) and "taken over" in said[-1]
    second.join()


def test_processes_that_outlive_their_owner_too_long_are_named(store, monkeypatch):
    monkeypatch.setattr(module, "WRITERS", 0.2)
    dead = hold(store.uri, "d", 60)
    dead.stdout.readline()
    dead.kill()
    dead.communicate()
    rank = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)", "--stage-uri", store.uri])
    time.sleep(0.1)
    with pytest.raises(Held, match=f"still work there: {rank.pid}. End them"):
        Claim(store, "d", print, every=0.2).__enter__()
    rank.kill()
    rank.wait()
