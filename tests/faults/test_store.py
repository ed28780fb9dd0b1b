"""Whatever fault a store's server has, during whatever verb: no half of an artifact is taken for the whole, and who waits comes to the right end.

A fault that passes costs time alone. One that lasts is `StoreUnavailable` (exit code 75), and afterwards the same call ends well. The door
stands in front of a bucket in memory, and in the long form of a real MinIO where one answers.
"""

import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from curricle.errors import StoreUnavailable
from curricle.store import connections
from curricle.store.manifest import fetch, publish, read_manifest, verify
from curricle.store.minio import MinioStore
from tests.faults import works
from tests.faults.harness import Trial, difference, end_of, uninterrupted
from tests.faults.store import FAULTS, FaultyDoor
from tests.store.outage import SETTINGS, bucket

LARGE = 9 << 20
"""Bytes of a file that goes in two parts."""


@dataclass
class Place:
    """A store behind a door, and the same store by a way that has no faults."""

    store: MinioStore
    direct: MinioStore
    door: FaultyDoor
    folder: Path

    def file(self, size: int, name: str = "file") -> Path:
        path = self.folder / name
        if not path.exists() or path.stat().st_size != size:
            path.write_bytes(random.Random(size).randbytes(size))
        return path

    def artifact(self) -> Path:
        folder = self.folder / "artifact"
        folder.mkdir(exist_ok=True)
        for name, size in (("a", 1000), ("b", 60_000), ("c", 1 << 20)):
            self.file(size, f"artifact/{name}")
        return folder


def _write(place: Place, key: str) -> bool:
    data = place.file(50_000).read_bytes()
    place.store.write(key, data)
    return place.direct.read(key) == data


def _put(place: Place, key: str) -> bool:
    place.store.put(key, place.file(LARGE, "large"))
    return place.direct.read(key) == place.file(LARGE, "large").read_bytes()


def _read(place: Place, key: str) -> bool:
    return place.store.read("there/b") == place.file(60_000, "artifact/b").read_bytes()


def _get(place: Place, key: str) -> bool:
    target = place.folder / "got" / key
    try:
        place.store.get("large", target)
    except StoreUnavailable:
        assert not list(target.parent.glob("*")) if target.parent.exists() else True, "a part of a file stands there"
        raise
    same = target.read_bytes() == place.file(LARGE, "large").read_bytes()
    target.unlink()
    return same


def _list(place: Place, key: str) -> bool:
    return [entry.key for entry in place.store.list("there/")] == [
        f"there/{name}" for name in ("a", "b", "c", "manifest.json")
    ]


def _delete(place: Place, key: str) -> bool:
    for name in "abc":
        place.direct.write(f"{key}/{name}", b"x")
    place.store.delete(key)
    return not list(place.direct.list(f"{key}/"))


def _publish(place: Place, key: str) -> bool:
    manifest = publish(place.store, key, place.artifact(), kind="dataset", digest=key)
    verify(place.direct, key, manifest)
    return True


def _fetch(place: Place, key: str) -> bool:
    cache = place.folder / "cache" / key
    try:
        with pytest.MonkeyPatch.context() as through:
            through.setenv("S3_ENDPOINT", place.store.settings.url)
            fetched, _ = fetch(f"{place.store.uri}/there", cache)
    except StoreUnavailable:
        assert not cache.exists() or not list(cache.iterdir()), "a part of an artifact stands in the cache"
        raise
    return all((fetched / name).read_bytes() == (place.artifact() / name).read_bytes() for name in "abc")


VERBS: dict[str, Callable[[Place, str], bool]] = {
    "write": _write,
    "put": _put,
    "read": _read,
    "get": _get,
    "list": _list,
    "delete": _delete,
    "publish": _publish,
    "fetch": _fetch,
}
"""Each does its work through the door, and says whether what came of it is right."""


def never_half(place: Place, key: str) -> None:
    """Nothing with a manifest is less than the whole, seen without faults."""
    manifest = read_manifest(place.direct, key)
    if manifest is not None:
        verify(place.direct, key, manifest)


def passing(place: Place, verb: str, fault: str, key: str, after: int) -> bool:
    """Whether the verb comes to the right end though the fault is there for its first second and a half."""
    place.door.begin(fault, after)
    timer = threading.Timer(1.5, place.door.end)
    timer.start()
    try:
        return VERBS[verb](place, key)
    finally:
        timer.join()
        place.door.end()
        never_half(place, key)


def lasting(place: Place, verb: str, fault: str, key: str, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether a fault that does not pass is the error that a retry may cure, and the same call ends well once it is over."""
    with monkeypatch.context() as patched:
        patched.setenv("CURRICLE_STORE_PATIENCE", "2")
        place.door.begin(fault, 40)  # less than the head of any answer: no byte of a body comes
        try:
            VERBS[verb](place, key)
            return fault == "slow"
        except StoreUnavailable as error:
            assert error.exit_code == 75 and "None" not in str(error)
        finally:
            place.door.end()
            never_half(place, key)
    return VERBS[verb](place, key)


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Place]]:
    """Opens a store of the server that the environment names, with a door of its own before it."""
    doors = []
    monkeypatch.setattr(connections, "_IDLE", 1.0)
    monkeypatch.setattr(connections, "_CONNECT", 1.0)

    def open_at(uri: str) -> Place:
        address = urlsplit(os.environ["S3_ENDPOINT"])
        door = FaultyDoor(address.hostname or "", address.port or 80)
        doors.append(door)
        direct = MinioStore(uri)
        behind = MinioStore(uri, replace(direct.settings, endpoint=door.endpoint))
        place = Place(behind, direct, door, tmp_path)
        publish(direct, "there", place.artifact(), kind="dataset", digest="d")
        direct.put("large", place.file(LARGE, "large"))
        return place

    yield open_at
    for door in doors:
        door.close()


@pytest.fixture
def place(places, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    """A bucket in memory."""
    with bucket() as server:
        for name, value in {**SETTINGS, "S3_ENDPOINT": f"http://127.0.0.1:{server.server_port}"}.items():
            monkeypatch.setenv(name, value)
        yield places("minio://bucket/runs")


@pytest.mark.parametrize(
    ("verb", "fault"),
    [("publish", "503"), ("fetch", "truncated"), ("put", "reset"), ("list", "truncated"), ("get", "slow")],
)
def test_a_fault_that_passes_costs_time_alone(place: Place, verb: str, fault: str):
    assert passing(place, verb, fault, "k", 3000)


@pytest.mark.parametrize(("verb", "fault"), [("publish", "truncated"), ("fetch", "503"), ("get", "reset")])
def test_a_fault_that_lasts_leaves_no_half_and_the_same_call_ends_well_afterwards(
    place: Place, verb: str, fault: str, monkeypatch: pytest.MonkeyPatch
):
    assert lasting(place, verb, fault, "k", monkeypatch)


@pytest.mark.faults
@pytest.mark.parametrize("server", ["a bucket in memory", "MinIO"])
def test_every_fault_during_every_verb(server: str, places, request: pytest.FixtureRequest, monkeypatch):
    """Prints a table: each verb with each fault, three faults that pass, at several places of a connection, and one that lasts."""
    if server == "MinIO":
        uri = request.getfixturevalue("minio_uri")
        place = places(uri)
    else:
        place = request.getfixturevalue("place")
    print(f"\n{server}: right ends of tries\n\n| verb | {' | '.join(FAULTS)} |\n|---|{'---|' * len(FAULTS)}")
    problems: list[str] = []
    for verb in VERBS:
        cells = [_cell(place, verb, fault, monkeypatch, problems) for fault in FAULTS]
        print(f"| {verb} | {' | '.join(cells)} |", flush=True)
    assert not problems, "\n".join(problems)


def _cell(place: Place, verb: str, fault: str, monkeypatch: pytest.MonkeyPatch, problems: list[str]) -> str:
    """``right of all``; what was wrong is added to the problems."""
    tries = [partial(passing, place, verb, fault, f"{verb}-{fault}-{after}", after) for after in (40, 400, 20_000)]
    tries.append(partial(lasting, place, verb, fault, f"{verb}-{fault}", monkeypatch))
    right = 0
    for number, attempt in enumerate(tries):
        try:
            ended = attempt()
        except Exception as error:  # whatever comes, the table goes on
            ended, problem = False, f"{type(error).__name__}: {error}"
        else:
            problem = "another content"
        right += ended
        problems += [] if ended else [f"{verb}, {fault}, try {number}: {problem}"]
    return f"{right} of {len(tries)}"


@pytest.mark.faults
def test_every_fault_during_a_training(tmp_path, monkeypatch: pytest.MonkeyPatch):
    """A chain of two stages, with the fault coming and going all the time: the same weights, metrics and files as without."""
    draw, rows = random.Random(5), []
    for name, value in {**SETTINGS, "CURRICLE_STORE_PATIENCE": "300"}.items():  # what a user has
        monkeypatch.setenv(name, value)
    with bucket() as server:
        monkeypatch.setenv("S3_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
        work = works.chain(1, "minio://bucket/{}")
        straight, _ = uninterrupted(work, tmp_path / "straight")
        for fault in FAULTS:
            door = FaultyDoor("127.0.0.1", server.server_port)
            trial = Trial(work, tmp_path / fault)
            monkeypatch.setenv("S3_ENDPOINT", f"http://{door.endpoint}")
            command = trial.start()
            began, faults = time.monotonic(), 0
            while command.poll() is None:
                time.sleep(draw.uniform(0, 1.5))
                door.begin(fault, draw.choice((40, 400, 3000)))
                time.sleep(draw.uniform(0.1, 1))
                door.end()
                faults += 1
            seconds = time.monotonic() - began
            monkeypatch.setenv("S3_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
            code = end_of(command)
            problem = "" if code == "0" else f"exit code {code}: {trial.log()[-800:]}"
            problem = problem or difference(straight, trial.result()) or "; ".join(trial.half() + trial.leftovers())
            rows.append(f"| {fault} | {faults} | {seconds:.0f} | {problem or 'equal'} |")
            print(rows[-1], flush=True)
            door.close()
    print("\n| fault | times | seconds | ended |\n|---|---|---|---|\n" + "\n".join(rows))
    assert all(row.endswith("| equal |") for row in rows), "\n".join(rows)
