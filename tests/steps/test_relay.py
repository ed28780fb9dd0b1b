"""Log lines by way of the store: each once, in order; what is missed is counted; a store that refuses harms nobody."""

from pathlib import Path

from curricle.config.chain import load_stage
from curricle.errors import StoreError
from curricle.planning import Holdings, StageInput, plan_chain
from curricle.registry import family
from curricle.steps import relay as module
from curricle.steps.relay import KEPT, LogRelay, RunReader
from curricle.store import layout
from curricle.store.failure import Failure
from curricle.store.folder import FolderStore
from curricle.training import pace
from curricle.training.events import Done, Epoch, Log, Saved, Step

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
        for text in ("epoch 1 step 3/3 loss 0.500", "saved last.ckpt", "epoch 2 step 1/3 loss 0.250")
    ]


def test_a_stage_is_told_in_lines_that_a_screen_holds(monkeypatch):
    """A cluster's log showed up to 900 characters of JSON a line."""
    clock = iter(range(0, 10_000, 40))
    monkeypatch.setattr(pace.time, "monotonic", lambda: next(clock))
    tell = module.Narrator(2, family("codes")).line
    many = {f"structure/diagnostic_{number}": 0.123456789 for number in range(20)}
    lines = [
        tell(Epoch(0, metrics={"val_loss": 0.6313, "val/top1": 0.8307} | many)),
        tell(Step(1, 12, 24, 2.6789)),
        tell(Step(1, 24, 24, 0.04321)),
        tell(Epoch(1, 24, True, {"train/loss_epoch": 3.5186, "val_loss": 0.615, "val/top1": 0.9425} | many)),
        tell(Step(2, 24, 24, 1.5)),
        tell(Done("01_stage-epoch=01-val_loss=0.6150.ckpt", 2, 48, {"val/top1": 0.9425} | many)),
        tell(Log("x" * 300)),
    ]
    assert lines == [
        "epoch 0/2, before training: val loss 0.631, top-1 0.83",
        "epoch 1/2 step 12/24 loss 2.68 top-1 0.83",
        "epoch 1/2 step 24/24 loss 0.0432 top-1 0.83, 80 s left",
        "epoch 1/2 done: loss 3.52, val loss 0.615, top-1 0.94 (best so far), 3 min left",
        "epoch 2/2 step 24/24 loss 1.50 top-1 0.94",
        "done, best is 01_stage-epoch=01-val_loss=0.6150.ckpt: top-1 0.94",
        "x" * 300,
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


def test_a_stage_says_how_far_it_is_and_how_long_it_takes_yet(tmp_path, monkeypatch):
    clock = iter(range(0, 10_000, 100))
    monkeypatch.setattr(pace.time, "monotonic", lambda: next(clock))
    (place,) = planned(tmp_path, "01_stage")
    reader = RunReader(str(tmp_path), "r")
    relay = LogRelay(place, every=60, epochs=4)
    for epoch, step in (
        (2, 10),
        (3, 10),
        (3, 10.1),
        (4, 20),
    ):  # resumed in the second epoch; 10 steps of 20 are half of one
        relay(Step(epoch, int(step), 20, 0.5))
        relay._write()
        said = [line for line in reader.lines() if "%" in line]
        expected = {(2, 10): ["01_stage: 37 %"], (3, 10): ["01_stage: 62 %, 2 min left at most"], (3, 10.1): [],
                    (4, 20): ["01_stage: 100 %, 0 s left at most"]}[(epoch, step)]  # fmt: skip
        assert said == expected, "only where it is five percent further"
