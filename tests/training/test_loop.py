"""Laws of the loop, in one process."""

import json
import math
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from curricle.config.schema import StageConfig
from curricle.errors import CheckpointError, Interrupted, JobError
from curricle.store import open_store
from curricle.store.manifest import read_manifest
from curricle.store.ours import retire_stage
from curricle.store.runs import stages
from curricle.training import worker
from curricle.training.events import Done, Epoch, Resumed, Saved, Step, Warned
from curricle.training.loop import rate
from tests.training.toy import Toy, make_config, make_stage


def train(uri, events=None, build=Toy):
    return worker.run(uri, build=build, schema=StageConfig, report=events.append if events is not None else None)


def weights(uri: str) -> dict[str, torch.Tensor]:
    return load_file(Path(uri, "last.ckpt", "model.safetensors"))


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def test_a_stage_trains_and_leaves_best_last_and_manifest(tmp_path):
    uri, events = make_stage(tmp_path), []
    result = train(uri, events)
    assert result.epochs == 3 and result.steps == 18
    names = sorted(p.name for p in Path(uri).iterdir())
    assert names == sorted([result.best, "history.json", "last.ckpt", "manifest.json", "stage.json"])
    best = Path(uri, result.best)
    assert {p.name for p in best.iterdir()} == {
        "model.safetensors",
        "state.pt",
        "config.yaml",
        "labels.json",
        "manifest.json",
    }
    manifest = read_manifest(open_store(f"{tmp_path}/store/sequential_01"), "01_stage")
    assert manifest.kind == "stage" and manifest.digest == "d1" and manifest.info["best"] == result.best
    assert manifest.lineage["data_digest"] == "x" and manifest.metrics == result.metrics
    assert [type(e) for e in events if not isinstance(e, Step)] == [Epoch, Saved] * 3 + [Done]
    epochs = [e for e in events if isinstance(e, Epoch)]
    assert events[-1] == Done(best=result.best, epochs=3, steps=18, metrics=result.metrics)
    assert result.metrics["val_loss"] == min(e.metrics["val_loss"] for e in epochs)
    curves = json.loads(Path(uri, "history.json").read_text())
    assert curves["epochs"] == [{"epoch": e.epoch, "step": e.step, **e.metrics} for e in epochs]
    assert curves["losses"] == [[i + 1, e.loss] for i, e in enumerate(e for e in events if isinstance(e, Step))]


@pytest.mark.parametrize(("scores", "best"), [((0.1, 0.3, 0.2), 2), ((-0.1, -0.2, -0.3), 1)])
def test_a_score_picks_the_checkpoint_whatever_the_loss(tmp_path, scores, best):
    class Scored(Toy):
        def validate(self):
            self.looks = getattr(self, "looks", 0) + 1
            return {"val_loss": 1.0 / self.looks, "val/score": scores[self.looks - 1]}

    result = train(make_stage(tmp_path), build=Scored)
    assert f"epoch={best:02d}" in result.best and result.metrics["val/score"] == scores[best - 1]


@pytest.mark.parametrize("step", [1, 4, 6, 7, 18])
def test_interrupted_and_resumed_is_bitwise_equal_to_uninterrupted(tmp_path, monkeypatch, step):
    straight = make_stage(tmp_path / "a")
    train(straight)
    uri = make_stage(tmp_path / "b")
    monkeypatch.setenv("TOY", f"term@{step}")
    with pytest.raises(Interrupted) as stopped:
        train(uri)
    assert stopped.value.exit_code == 128 + signal.SIGTERM
    assert not Path(uri, "manifest.json").exists()
    monkeypatch.delenv("TOY")
    events = []
    Path(uri, "history.json").unlink()  # as if the attempt had ended right before it was written
    result = train(uri, events)
    assert events[0] == Resumed(epoch=(step - 1) // 6, step=step)
    assert same(weights(straight), weights(uri)) and Path(straight, result.best).is_dir()
    assert Path(straight, "history.json").read_bytes() == Path(uri, "history.json").read_bytes()


def test_a_crash_loses_only_the_steps_since_the_last_save(tmp_path):
    straight = make_stage(tmp_path / "a")
    train(straight)
    uri = make_stage(tmp_path / "b", make_config(tmp_path / "b", save_every_n_steps=2))

    class Crashing(Toy):
        def losses(self, batch):
            if self.steps_seen == 11:
                raise RuntimeError("lightning")
            return super().losses(batch)

    with pytest.raises(RuntimeError, match="lightning"):
        train(uri, build=Crashing)
    events = []
    train(uri, events)
    assert events[0].step == 10
    assert same(weights(straight), weights(uri))


def test_a_state_of_other_work_is_refused(tmp_path, monkeypatch):
    uri = make_stage(tmp_path)
    monkeypatch.setenv("TOY", "term@3")
    with pytest.raises(Interrupted):
        train(uri)
    make_stage(tmp_path, digest="d2")
    with pytest.raises(CheckpointError, match="d1.*d2"):
        train(uri)


def test_a_complete_stage_is_not_trained_again(tmp_path):
    uri = make_stage(tmp_path)
    train(uri)
    before = Path(uri, "manifest.json").read_text()
    assert train(uri) is None
    assert Path(uri, "manifest.json").read_text() == before


@pytest.mark.parametrize(("behaviour", "what"), [("nan", "loss"), ("nan-gradient", "gradient")])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_loss_or_gradient_that_is_not_finite_ends_its_step_and_names_it_with_its_records(
    tmp_path, monkeypatch, behaviour, what, accumulate
):
    uri = make_stage(tmp_path, make_config(tmp_path, accumulate_grad_batches=accumulate, gradient_clip_val=0))
    monkeypatch.setenv("TOY", f"{behaviour}@4")
    with pytest.raises(JobError) as error:
        train(uri)
    step = {1: 4, 2: 2}[accumulate]
    said = str(error.value)
    assert f"stage 01_stage: the {what} is not finite at step {step} (epoch 1): loss=" in said
    assert ("loss=nan, twice=nan" in said) == (what == "loss")
    for name, value in {"learning_rate": "0.02", "warmup_steps": "2", "gradient_clip_val": "0.0"}.items():
        assert f"{name} (it is {value})" in said
    assert "precision" not in said, "it is 32-true already"
    assert error.value.exit_code == 2 and not Path(uri, "last.ckpt").exists()
    saved = json.loads(Path(uri, "bad_batch.json").read_text())
    assert saved["stage"] == "01_stage" and saved["step"] == step and saved["epoch"] == 1
    assert "3.bias" in saved["not_finite"] and saved["gradient_norm"] == "nan"
    (rank,) = saved["ranks"]
    assert [len(batch["records"]) for batch in rank] == [8] * accumulate
    first = rank[-1]["records"][0]["row"] if what == "loss" else rank[0]["records"][0]["row"]
    assert f"{uri}/bad_batch.json" in said and f"first row {first};" in said


def test_a_loss_in_half_precision_that_overflows_is_scaled_down_and_trains_on(tmp_path):
    class Steep(Toy):
        def losses(self, batch):
            losses = super().losses(batch)
            return {"loss": losses["loss"] * 1e2}

    events = []
    config = make_config(tmp_path, precision="16-mixed")
    result = train(make_stage(tmp_path, config), events, build=Steep)
    left_out = [event for event in events if isinstance(event, Warned)]
    assert 0 < len(left_out) < result.steps and "step 1 is left out" in left_out[0].message


def test_half_precision_whose_gradient_no_scale_helps_is_caught(tmp_path):
    class Broken(Toy):
        def losses(self, batch):
            losses = super().losses(batch)
            return {"loss": losses["loss"] + (0 * self.model[3].bias).abs().sqrt().sum()}

    uri = make_stage(tmp_path, make_config(tmp_path, precision="16-mixed"))
    with pytest.raises(JobError, match="the gradient is not finite at step 17 .*precision 32-true"):
        train(uri, build=Broken)


def test_the_batch_of_a_failure_is_no_part_of_the_stage_and_goes_with_the_next_attempt(tmp_path, monkeypatch):
    uri = make_stage(tmp_path)
    monkeypatch.setenv("TOY", "nan@9")
    with pytest.raises(JobError):
        train(uri)
    assert Path(uri, "bad_batch.json").is_file()
    store = open_store(f"{tmp_path}/store")
    (place,) = stages(store)
    assert not place.complete and not [name for name in place.checkpoints if "batch" in name]
    monkeypatch.delenv("TOY")
    train(uri)
    assert not Path(uri, "bad_batch.json").exists() and read_manifest(open_store(uri), "").files == {}


def test_a_stage_that_is_trained_again_takes_the_batch_of_a_failure_with_it(tmp_path, monkeypatch):
    uri = make_stage(tmp_path)
    monkeypatch.setenv("TOY", "nan@1")
    with pytest.raises(JobError):
        train(uri)
    assert retire_stage(open_store(f"{tmp_path}/store/sequential_01"), "01_stage") == []
    assert not Path(uri).exists()


def test_no_epochs_means_validate_and_save_once(tmp_path):
    uri = make_stage(tmp_path, make_config(tmp_path, max_epochs=0))
    result = train(uri)
    assert result.epochs == 0 and result.steps == 0 and result.best.startswith("01_stage-epoch=00-")
    assert Path(uri, result.best, "model.safetensors").is_file()


@pytest.mark.parametrize("precision", ["16-mixed", "bf16-mixed", "auto"])
def test_every_precision_trains_on_a_cpu(tmp_path, precision):
    uri = make_stage(tmp_path, make_config(tmp_path, precision=precision, accumulate_grad_batches=4))
    result = train(uri)
    assert result.steps == 3 * 2 and math.isfinite(result.metrics["val_loss"])


def test_the_rate_warms_up_then_falls_to_zero():
    rates = [rate(step, 100, 30) for step in range(101)]
    assert rates[:10] == sorted(rates[:10]) and rates[10] == 1.0 and rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[100] == pytest.approx(0)


def test_main_ends_with_2_and_one_line_when_the_place_is_empty(tmp_path, capsys):
    assert worker.main(["--stage-uri", str(tmp_path / "store" / "run" / "01_stage")]) == 2
    text = capsys.readouterr().err.strip().splitlines()
    assert len(text) == 1 and "stage.json" in text[0]


def test_main_records_why_it_failed(tmp_path, monkeypatch):
    uri = make_stage(tmp_path)
    monkeypatch.setenv("TOY", "nan@1")
    assert worker.main(["--stage-uri", uri], build=Toy, schema=StageConfig) == 2
    record = json.loads(Path(uri, "failure.json").read_text())
    assert record["exit_code"] == 2 and "not finite" in record["message"] and record["where"] == "rank 0"


def test_a_complete_stage_is_given_no_failure(tmp_path):
    uri = make_stage(tmp_path)
    train(uri)
    worker._record(uri, "the other rank was killed after the end", 1, "lost")
    assert not Path(uri, "failure.json").exists()


def test_a_place_that_describes_other_work_than_the_argv_is_refused_and_left_alone(tmp_path, capsys):
    uri = make_stage(tmp_path)
    arguments = ["--stage-uri", uri, "--digest", "d2"]
    assert worker.main(arguments, build=Toy, schema=StageConfig) == 2
    said = capsys.readouterr().err
    assert "digest is d1, this job's is d2" in said and len(said.splitlines()) == 1
    assert sorted(p.name for p in Path(uri).iterdir()) == ["stage.json"]


def test_a_complete_model_of_other_work_is_neither_overwritten_nor_given_a_failure(tmp_path, capsys):
    uri = make_stage(tmp_path)
    train(uri)
    before = sorted(p.name for p in Path(uri).iterdir())
    make_stage(tmp_path, digest="d2")
    assert worker.main(["--stage-uri", uri, "--digest", "d2"], build=Toy, schema=StageConfig) == 2
    assert "its digest is d1, this stage's is d2" in capsys.readouterr().err
    assert sorted(p.name for p in Path(uri).iterdir()) == before
    assert read_manifest(open_store(uri), "").digest == "d1"


def test_early_stopping_counts_the_epochs_that_gain_too_little(tmp_path):
    class Level(Toy):
        def validate(self):
            self.looks = getattr(self, "looks", 0) + 1
            return {"val_loss": 1.0 - 0.001 * self.looks}

    config = make_config(tmp_path, max_epochs=9)
    stopping = replace(config.training.early_stopping, enabled=True, patience=2, min_delta=0.01)
    config = replace(config, training=replace(config.training, early_stopping=stopping))
    assert train(make_stage(tmp_path, config), build=Level).epochs == 3
