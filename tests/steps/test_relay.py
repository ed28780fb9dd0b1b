"""Log lines by way of the store: each once, in order; what is missed is counted; a store that refuses harms nobody."""

from pathlib import Path

from curricle.config.chain import load_stage
from curricle.errors import StoreError
from curricle.planning import Holdings, StageInput, plan_chain
from curricle.steps import relay as module
from curricle.steps.relay import KEPT, LogRelay, RunReader
from curricle.store import layout
from curricle.store.failure import Failure
from curricle.store.folder import FolderStore
from curricle.training.events import Log, Saved, Step

CONFIG = Path(__file__).parents[2] / "config" / "config.yaml"


def planned(store, *names):
    """A run `r` that trains these stages; their places."""
    stages = [StageInput(name, load_stage(CONFIG, name, []), "data", "d1") for name in names]
    plan = plan_chain(
        stages, chain_name="c", store_uri=str(store), start=None, holdings=Holdings(), resume=True, run_id="r"
    )
    (store / "r").mkdir(parents=True)
    (store / "r" / layout.PLAN).write_text(plan.to_stored())
    return [s.uri for s in plan.stages]


def say(place, *lines):
    with LogRelay(place, every=60) as relay:
        for line in lines:
            relay(Log(line))


def test_every_line_comes_once_also_from_a_second_launcher(tmp_path):
    first, second = planned(tmp_path, "01_stage", "02_stage")
    reader = RunReader(str(tmp_path), "r")
    assert list(reader.lines()) == []
    say(first, "a", "b")
    assert list(reader.lines()) == ["01_stage: a", "01_stage: b"]
    assert list(reader.lines()) == []
    say(first, "c")
    say(second, "d")
    assert list(reader.lines()) == ["01_stage: c", "02_stage: d"]


def test_a_reader_that_comes_late_is_told_what_it_missed(tmp_path):
    (place,) = planned(tmp_path, "01_stage")
    reader = RunReader(str(tmp_path), "r")
    say(place, *(str(n) for n in range(KEPT + 5)))
    lines = list(reader.lines())
    assert lines[:2] == ["01_stage: (5 lines left out)", "01_stage: 5"] and len(lines) == KEPT + 1


def test_of_many_steps_between_two_writes_the_last_is_kept(tmp_path):
    (place,) = planned(tmp_path, "01_stage")
    reader = RunReader(str(tmp_path), "r")
    with LogRelay(place, every=60) as relay:
        for number in (1, 2, 3):
            relay(Step(epoch=1, step=number, steps=3, loss=0.5))
        relay(Saved("last.ckpt"))
        relay(Step(epoch=2, step=1, steps=3, loss=0.25))
    assert list(reader.lines()) == [
        f"01_stage: {text}"
        for text in ("epoch 1  step 3/3  loss 0.5000", "saved last.ckpt", "epoch 2  step 1/3  loss 0.2500")
    ]


def test_a_store_that_refuses_does_not_harm_the_training(tmp_path, monkeypatch):
    class Full(FolderStore):
        def write(self, key, data):
            raise StoreError("full")

    monkeypatch.setattr(module, "open_store", Full)
    say(f"{tmp_path}/stage", "a")


def test_failures_of_an_earlier_run_with_the_same_id_are_left_out(tmp_path):
    first, second = planned(tmp_path, "01_stage", "02_stage")
    for place in (first, second):
        Failure("m", stage=place[-8:], time="t1").write(FolderStore(place))
    reader = RunReader(str(tmp_path), "r")
    again, other = Failure("m", stage="02_stage", time="t2"), Failure("m", task="preflight")
    again.write(FolderStore(second))
    other.write(FolderStore(f"{tmp_path}/r"))
    assert reader.failures() == [other, again]
