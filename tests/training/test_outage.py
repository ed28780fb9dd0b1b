"""Training while its store is away: it goes on, waits where it must, and ends so that it can be tried again. Genuine processes, a bucket in memory."""

import io
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load, load_file

from curricle.config.schema import StageConfig
from curricle.errors import JobError, StoreUnavailable
from curricle.launch.job import Job
from curricle.launch.local import LocalLauncher
from curricle.steps.train import train_stage
from curricle.store import layout, open_store
from curricle.store.failure import Failure
from curricle.store.manifest import read_manifest
from curricle.training import checkpoint, worker
from curricle.training.events import Epoch, Log, Saved, Step, Warned, read_line
from tests.steps.toy_stage import make_plan
from tests.store.outage import SETTINGS, Bucket, Door, bucket, wait_until
from tests.training.toy import Toy, make_config, make_stage

URI = "minio://bucket/runs"
TOY_JOB = "-m tests.training.toy_worker --progress json --stage-uri"


@pytest.fixture
def away(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Bucket, Door]]:
    """A bucket and the door before it; the environment, which jobs inherit, leads through the door."""
    with bucket() as server:
        door = Door(*server.server_address)
        for name, value in {**SETTINGS, "S3_ENDPOINT": f"http://{door.endpoint}"}.items():
            monkeypatch.setenv(name, value)
        yield server, door
        door.close()


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> dict[str, torch.Tensor]:
    """The weights that the toy comes to when nothing disturbs it."""
    uri = make_stage(tmp_path_factory.mktemp("straight"))
    worker.run(uri, build=Toy, schema=StageConfig)
    return load_file(Path(uri, layout.LAST, layout.WEIGHTS))


def weights(server: Bucket, place: str) -> dict[str, torch.Tensor]:
    return load(server.objects[f"runs/{place}/{layout.LAST}/{layout.WEIGHTS}"])


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def run(uri: str, behaviour: str, lines: list[str], processes: int = 1):
    launcher = LocalLauncher()
    job = Job("toy-job", (*TOY_JOB.split(), uri), 1, processes, env={"TOY": behaviour})
    return launcher.wait(launcher.submit(job), lines.append)


def test_a_store_away_for_two_seconds_does_not_end_a_training(away, straight, tmp_path):
    server, door = away
    uri = make_stage(tmp_path, make_config(tmp_path, save_every_n_steps=1), store_uri=URI)
    lines: list[str] = []
    ended = threading.Event()

    def disturb() -> None:
        for trouble in ("refuse", "reset"):
            seen = len(lines)
            wait_until(lambda seen=seen: any('"step"' in line for line in lines[seen:]) or ended.is_set())
            with door.away(2, trouble):
                pass

    disturber = threading.Thread(target=disturb)
    disturber.start()
    outcome = run(uri, "slow0.15", lines)
    ended.set()
    disturber.join()
    assert outcome.state == "succeeded", "\n".join(lines)
    assert same(weights(server, "sequential_01/01_stage"), straight)
    events = [read_line(line) for line in lines]
    warned = [event.message for event in events if isinstance(event, Warned)]
    assert any("does not answer" in message for message in warned) and len(warned) <= 4, lines
    assert not any(isinstance(event, Log) and "does not answer" in event.line for event in events)


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
def test_an_outage_that_lasts_ends_with_the_retryable_reason_and_the_same_command_goes_on(
    away, straight, tmp_path, monkeypatch, processes
):
    server, door = away
    monkeypatch.setenv("CURRICLE_STORE_PATIENCE", "2")
    uri = make_stage(tmp_path, make_config(tmp_path, devices=processes, save_every_n_steps=2), store_uri=URI)
    lines: list[str] = []

    def hear(line: str) -> None:
        lines.append(line)
        if '"event": "saved"' in line and len([x for x in lines if '"saved"' in x]) == 3:
            door.shut("refuse")

    launcher = LocalLauncher()
    job = Job("toy-job", (*TOY_JOB.split(), uri), 1, processes, env={"TOY": "slow0.2"})
    outcome = launcher.wait(launcher.submit(job), hear)
    assert (outcome.reason, outcome.exit_code, outcome.where) == ("store_away", 75, "rank 0"), lines
    assert "the server is away" in outcome.message
    door.open()
    assert run(uri, "", lines, processes).state == "succeeded", lines
    assert any('"resumed"' in line for line in lines), lines
    if processes == 1:
        assert same(weights(server, "sequential_01/01_stage"), straight)


@pytest.mark.slow
def test_the_local_launcher_tries_again_when_the_store_is_back(away, straight, tmp_path, monkeypatch):
    server, door = away
    plan = make_plan(tmp_path, "d1", store_uri=URI, save_every_n_steps=1)
    monkeypatch.setenv("TOY", "slow0.1")
    monkeypatch.setenv("CURRICLE_STORE_PATIENCE", "2")
    said: list[object] = []

    def listen(event: object) -> None:
        said.append(event)
        if "shut" not in said and len([e for e in said if isinstance(e, Saved)]) == 3:
            said.append("shut")
            monkeypatch.setenv("CURRICLE_STORE_PATIENCE", "30")  # this process's own; the worker has its two seconds
            door.shut("refuse")
        if isinstance(event, Log) and "[agent]" in event.line:
            threading.Timer(1, door.open).start()

    outcome = train_stage(plan, 0, "", LocalLauncher(), listen)
    text = "\n".join(map(str, said))
    assert outcome.manifest.digest == "d1" and same(weights(server, "r/01_stage"), straight), text
    assert "attempt 1 of 3 ended: store_away (rank 0); starting again from the last checkpoint" in text, text
    assert "Resumed(" in text and read_manifest(open_store(URI), "r/01_stage") is not None
    assert Failure.read(open_store(URI), "r/01_stage") is None


@pytest.mark.slow
def test_a_store_that_stays_away_ends_the_step_with_the_retryable_code(away, tmp_path, monkeypatch):
    _, door = away
    plan = make_plan(tmp_path, "d1", store_uri=URI, save_every_n_steps=1)
    monkeypatch.setenv("CURRICLE_STORE_PATIENCE", "2")

    def listen(event: object) -> None:
        if isinstance(event, Saved):
            door.shut("refuse")

    with pytest.raises((StoreUnavailable, JobError)) as error:
        train_stage(plan, 0, "", LocalLauncher(), listen)
    assert (error.value.exit_code, error.value.reason) == (75, "store_away")


@pytest.mark.slow
def test_training_goes_on_during_an_outage_longer_than_the_patience_until_it_must_save(
    away, straight, tmp_path, monkeypatch
):
    """The upload thread tries on: the next save comes after the outage, and nothing was lost."""
    server, door = away
    monkeypatch.setenv("CURRICLE_STORE_PATIENCE", "1")
    monkeypatch.setattr(checkpoint, "PAUSE", 0.2)
    uri = make_stage(tmp_path, store_uri=URI)
    steps: list[float] = []

    def report(event: object) -> None:
        if isinstance(event, Epoch) and not steps:
            door.shut("refuse")
            threading.Timer(4, door.open).start()
        if isinstance(event, Step) and door.trouble:
            steps.append(time.monotonic())

    monkeypatch.setenv("TOY", "slow1")
    worker.run(uri, build=Toy, schema=StageConfig, report=report)
    assert len(steps) >= 3, "no step was made while the store was away"
    assert same(weights(server, "sequential_01/01_stage"), straight)


def test_the_failure_record_names_the_outage_where_it_can_be_written(away, tmp_path, monkeypatch):
    """The store comes back between the last try and the record."""
    _, door = away
    monkeypatch.setenv("CURRICLE_STORE_PATIENCE", "1")
    uri = make_stage(tmp_path, store_uri=URI)

    def run_while_away(*args, **options):
        door.shut("refuse")
        try:
            open_store(URI).read("x")
        finally:
            door.open()

    monkeypatch.setattr(worker, "run", run_while_away)
    monkeypatch.setattr("sys.stderr", io.StringIO())
    assert worker.main(["--stage-uri", uri]) == 75
    record = Failure.read(open_store(URI), "sequential_01/01_stage")
    assert record is not None and (record.cause, record.exit_code) == ("store_away", 75)
    assert "the server is away" in record.message
