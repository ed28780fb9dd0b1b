"""What keeps the old domain: soft targets of the old model, averages of weights, and a stage with both that is stopped and resumed."""

import json
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from curricle.config.load import from_tree
from curricle.config.schema import DataLoaderConfig, EarlyStoppingConfig, TrainerConfig, TrainingConfig
from curricle.errors import ConfigError, Interrupted
from curricle.families.ner.config import NerConfig, NerData, NerForgetting, NerLora, NerModel, NerTraining
from curricle.families.ner.levers import by_labels, mixed
from curricle.families.ner.prepare import prepare
from curricle.families.ner.task import build, layer_of
from curricle.store import layout
from curricle.training.checkpoint import Checkpoints, load_weights
from curricle.training.distributed import Ranks
from curricle.training.loop import run_stage
from curricle.training.task import StageContext
from curricle.training.tracking import NoTracker
from tests.families.ner.test_task import context, dataset, train

NONE = NerModel(max_tokens=32, stride=8)


@pytest.fixture(scope="module")
def old(tmp_path_factory):
    """A model of NAME and SKILL, and the new domain: the same sentences with AGE where SKILL was, and nobody marked the names."""
    tmp = tmp_path_factory.mktemp("old")
    config = NerConfig(data=NerData(new_dataset_path=str(dataset(tmp / "data-old", "knows"))), model=NONE)
    parent = train(build(context(tmp, config)), tmp / "model")
    new = dataset(tmp / "data-new", "is", ("NAME", "AGE"))
    for path in new.iterdir():
        path.write_text(
            path.read_text()
            .replace('[[0, 3, "NAME"], ', "[")
            .replace('[[0, 2, "NAME"], ', "[")
            .replace('[[0, 4, "NAME"], ', "[")
        )
    data = NerData(strategy="new_only", old_dataset_path=str(tmp / "data-old"), new_dataset_path=str(new))
    return replace(config, data=data), parent


def test_a_new_only_stage_keeps_the_labels_of_the_old_dataset_that_it_watches(old, tmp_path):
    task = build(context(tmp_path, *old))
    assert {"B-NAME", "B-SKILL", "B-AGE"} <= set(task.tags) and task.validate()["val/old/f1_before"] == 1.0


@pytest.mark.parametrize("lora", [False, True])
def test_rows_of_added_tags_are_fitted_before_training_and_nothing_else_is(old, tmp_path, lora):
    config, parent = old
    task = build(context(tmp_path, replace(config, model=replace(NONE, lora=NerLora(enabled=lora))), parent))
    before, now = load_file(parent / layout.WEIGHTS), task.model.state_dict()
    source = task.made.sources()
    assert task.made.added() == [i for i, tag in enumerate(task.tags) if "AGE" in tag]
    for name, was in before.items():
        names = [
            n
            for n in now
            if n.replace("base_layer.", "").replace("modules_to_save.default.", "").endswith(name)
            and "original" not in n
        ]
        for found in names:
            rows = [r for r, s in enumerate(source) if s] if name.startswith("classifier") else slice(None)
            wanted = was[[s[0] for s in source if s]] if name.startswith("classifier") else was
            assert torch.equal(now[found][rows], wanted), found
        assert names, name
    assert task.validate()["val/new/f1/AGE"] > 0.9


def test_soft_targets_keep_labels_that_nobody_marked_in_the_new_text(old, tmp_path):
    config, parent = old
    config = replace(config, data=replace(config.data, labels_of_source="all"))
    scores = {}
    for weight in (0.0, 5.0):
        task = build(context(tmp_path, replace(config, forgetting=NerForgetting(distill=weight)), parent))
        train(task, tmp_path / f"model{weight}", epochs=8)
        scores[weight] = task.validate()["val/old/f1/NAME"]
    assert scores[0.0] == 0.0 and scores[5.0] == 1.0


def test_labels_that_a_source_does_not_annotate_are_kept_without_any_soft_target(old, tmp_path):
    task = build(context(tmp_path, *old))
    train(task, tmp_path / "model", epochs=8)
    found = task.validate()
    assert found["val/old/f1/NAME"] == 1.0 and found["val/new/f1"] == 1.0
    assert "val/new/f1/NAME" not in found and found["val/new/f1_full"] < 1.0


@pytest.mark.parametrize("lora", [False, True])
def test_frozen_layers_and_all_below_them_stay_and_the_others_learn(old, tmp_path, lora):
    config, parent = old
    model = replace(NONE, frozen_layers=4, lora=NerLora(enabled=lora))
    task = build(context(tmp_path, replace(config, model=model), parent))
    train(task, tmp_path / "model", epochs=2)
    place = tmp_path / "model" / ("whole" if lora else "")
    before, after = load_file(parent / layout.WEIGHTS), load_file(place / layout.WEIGHTS)
    moved = {
        layer_of(name)
        for name, was in before.items()
        if was.shape == after[name].shape and not torch.equal(after[name], was)
    }
    assert moved - {None} == {4, 5} and torch.equal(*(w["bert.embeddings.LayerNorm.weight"] for w in (before, after)))


def test_more_frozen_layers_than_there_are_is_an_error(old, tmp_path):
    config, parent = old
    with pytest.raises(ConfigError, match="frozen_layers is 7, and the encoder has 6 layers"):
        build(context(tmp_path, replace(config, model=replace(NONE, frozen_layers=7)), parent))


def test_replay_by_labels_reads_every_label_about_equally_often():
    labels = [{"a"}] * 60 + [{"a", "b"}] * 6 + [{"c"}] * 6 + [set()] * 60
    order = by_labels(labels, np.random.default_rng(0).permutation(len(labels)).tolist())
    assert sorted(order) == list(range(len(labels)))
    first = [labels[i] for i in order[:16]]
    assert sum(not found for found in first) == 4 and all(3 <= sum(x in found for found in first) <= 8 for x in "abc")


def test_replay_by_labels_is_what_an_epoch_reads(old, tmp_path):
    config, parent = old
    data = replace(config.data, strategy="combined", replay=0.4, replay_draw="each_epoch", replay_choice="labels")
    task = build(context(tmp_path, replace(config, data=data), parent))
    read = [i for rows, _ in task.batches(0) for i in rows if i in task.ring]
    assert sorted(read) == sorted(task.ring[: task.drawn])
    with pytest.raises(ValueError, match="needs replay_draw each_epoch"):
        replace(data, replay_draw="once")


def test_soft_targets_ask_nothing_of_a_model_that_still_says_what_the_old_one_said(old, tmp_path):
    config, parent = old
    config = replace(
        config,
        data=replace(config.data, new_dataset_path=config.data.old_dataset_path),
        forgetting=NerForgetting(distill=1.0),
        training=TrainingConfig(trainer=TrainerConfig(precision="32-true")),
    )
    task = build(context(tmp_path, config, parent))
    task.model.eval()
    assert all(float(task.losses(batch)["distill"]) == pytest.approx(0, abs=1e-4) for batch in task.batches(0))
    whole = task.losses(task.batches(0)[0])["loss"].item()
    parts = []
    for rank in range(2):
        task.ranks = Ranks(rank=rank, world_size=2)
        parts.append(task.losses(task.batches(0)[0])["loss"].item())
    assert whole == pytest.approx(sum(parts) / 2, rel=1e-4)
    assert set(task.losses((task.batches(0)[0][0][:0], 1))) == {"loss", "distill"}


def test_an_average_keeps_the_trained_rows_of_added_tags_and_is_what_is_published(old, tmp_path):
    config, parent = old
    task = build(context(tmp_path, replace(config, forgetting=NerForgetting(average=(0.5,))), parent))
    start = {n: t.clone() for n, t in task.start.items()}
    train(task, tmp_path / "model", epochs=8)
    trained = {n: t.clone() for n, t in task.weights().items()}
    half = mixed(start, trained, 0.5, task.made)
    rows = {tag: i for i, tag in enumerate(task.tags)}
    head, kept, fresh = "classifier.weight", rows["B-NAME"], rows["B-AGE"]
    assert torch.allclose(half[head][kept], (start[head][kept] + trained[head][kept]) / 2) and torch.equal(
        half[head][fresh], trained[head][fresh]
    )
    found = task.validate()
    assert found["val/average"] in (0.5, 1.0)
    wanted = half if found["val/average"] == 0.5 else trained
    assert all(torch.equal(wanted[n], t) for n, t in task.weights().items())
    task.published = half
    task.save_extras(tmp_path / "saved")
    assert all(torch.equal(trained[n], t) for n, t in load_weights(tmp_path / "saved").items())
    task.losses(task.batches(0)[0])
    assert all(torch.equal(trained[n], t) for n, t in task.weights().items())


def test_each_average_is_scored_by_its_own_weights_under_autocast_too(old, tmp_path):
    config, parent = old
    task = build(context(tmp_path, replace(config, forgetting=NerForgetting(average=(0.5,))), parent))
    train(task, tmp_path / "model", epochs=8)
    trained = {n: t.clone() for n, t in task.weights().items()}
    losses, metrics = [], task._metrics
    task._metrics = lambda: losses.append((found := metrics())["val_loss"]) or found
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        task.validate()
    for share, loss in zip((1.0, 0.5), losses, strict=True):
        task.load_weights(mixed(task.start, trained, share, task.made))
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            assert metrics()["val_loss"] == loss
    assert losses[0] != losses[1]


def run(place: Path, config: NerConfig, parent: Path, stop_at: int = 0) -> Path:
    """Train a stage at `place`, from where it stands; its best checkpoint."""
    ranks = Ranks()
    task = build(
        StageContext(
            config=config,
            data_dir=place.parent / "prepared",
            parent_dir=parent,
            work_dir=place,
            device=ranks.device,
            ranks=ranks,
        )
    )
    losses, steps = task.losses, []

    def counted(batch):
        steps.append(batch)
        if len(steps) == stop_at:
            ranks.request_stop(signal.SIGTERM)
        return losses(batch)

    task.losses = counted
    checkpoints = Checkpoints(
        str(place / "stage"),
        stage="stage",
        digest="d",
        config_text="",
        lineage={},
        info={},
        scratch_dir=place / "scratch",
    )
    try:
        uri = checkpoints.resume_uri()
        result = run_stage(
            task,
            config,
            checkpoints,
            ranks,
            tracker=NoTracker(),
            report=lambda event: None,
            resume_dir=Path(uri) if uri else None,
        )
    finally:
        checkpoints.close()
    return place / "stage" / result.best


@pytest.mark.parametrize("stop_at", [4, 5])
def test_a_stage_with_all_levers_that_was_stopped_goes_on_bit_for_bit(old, tmp_path, stop_at):
    config, parent = old
    config = replace(
        config,
        forgetting=NerForgetting(distill=1.0, average=(0.3, 0.6)),
        data_loader=DataLoaderConfig(batch_size=2),
        training=TrainingConfig(learning_rate=1e-3, trainer=TrainerConfig(max_epochs=3)),
    )
    prepare(config, tmp_path / "prepared")
    whole = run(tmp_path / "whole", config, parent)
    with pytest.raises(Interrupted):
        run(tmp_path / "halves", config, parent, stop_at)
    resumed = run(tmp_path / "halves", config, parent)
    assert resumed.name == whole.name
    a, b = (load_file(folder / layout.WEIGHTS) for folder in (whole, resumed))
    assert a.keys() == b.keys() and all(torch.equal(a[n], b[n]) for n in a)


@pytest.mark.parametrize(("said", "batch", "peak"), [(None, 16, 4e-4), (None, 64, 8e-4), (1e-5, 64, 1e-5)])
def test_a_rate_that_is_said_is_taken_and_one_that_is_not_goes_by_encoder_and_batch(old, tmp_path, said, batch, peak):
    config, parent = old
    config = replace(
        config,
        data_loader=DataLoaderConfig(batch_size=batch),
        training=NerTraining(learning_rate=said, warmup_steps=0, trainer=TrainerConfig(max_epochs=1)),
    )
    task = build(context(tmp_path, config, parent))
    checkpoints = Checkpoints(
        str(tmp_path / "stage"),
        stage="stage",
        digest="d",
        config_text="",
        lineage={},
        info={},
        scratch_dir=tmp_path / "scratch",
    )
    logged = []

    class Tracker(NoTracker):
        def log(self, values, step):
            logged.append(values)

    try:
        run_stage(task, config, checkpoints, Ranks(), tracker=Tracker(), report=lambda event: None)
    finally:
        checkpoints.close()
    rates = logged[0]
    assert rates["train/lr/layer5"] == pytest.approx(peak) and rates["train/lr/layer0"] == pytest.approx(peak * 0.8**5)
    assert rates["train/lr/head"] == pytest.approx(3 * peak)


def test_averages_are_tried_after_the_last_epoch_or_after_each_that_may_be_it(old, tmp_path):
    config, parent = old
    for early, epochs in ((False, [2]), (True, [0, 1, 2])):
        stopping = EarlyStoppingConfig(enabled=early)
        task = build(
            context(
                tmp_path,
                replace(
                    config,
                    forgetting=NerForgetting(average=(0.5,)),
                    training=NerTraining(early_stopping=stopping, trainer=TrainerConfig(max_epochs=3)),
                ),
                parent,
            )
        )
        tried = []
        for epoch in range(3):
            task.batches(epoch)
            tried += [epoch] if "val/average" in task.validate() else []
        assert tried == epochs


def test_half_of_an_adapter_is_half_of_what_it_adds(old, tmp_path):
    config, parent = old
    config = replace(config, forgetting=NerForgetting(average=(0.5,)), model=replace(NONE, lora=NerLora(enabled=True)))
    task = build(context(tmp_path, config, parent))
    train(task, tmp_path / "model", epochs=4)
    name = "bert.encoder.layer.0.intermediate.dense.weight"
    begun, trained = (load_file(folder / layout.WEIGHTS)[name] for folder in (parent, tmp_path / "model/whole"))
    task.published = mixed(task.start, task.weights(), 0.5, task.made)
    task.save_extras(tmp_path / "half")
    half = load_file(tmp_path / "half/whole" / layout.WEIGHTS)[name]
    assert not torch.allclose(begun, trained, atol=1e-5) and torch.allclose(half, (begun + trained) / 2, atol=1e-6)


def test_every_epoch_replays_another_share_of_the_old_records_and_a_first_training_reads_all(old, tmp_path):
    config, parent = old
    data = replace(config.data, strategy="combined", replay=0.4, replay_draw="each_epoch")
    task = build(context(tmp_path, replace(config, data=data), parent))
    origins = [json.loads(line)["origin"] for line in (tmp_path / "data/train.jsonl").read_text().splitlines()]
    kept, new = ({i for i, o in enumerate(origins) if o == name} for name in ("old", "new"))
    read = [[task.data.windows[i].record for rows, _ in task.batches(epoch) for i in rows] for epoch in range(5)]
    shares = [set(rows) & kept for rows in read]
    assert all(len(rows) == len(set(rows)) == len(new) + round(0.4 * len(kept)) and new <= set(rows) for rows in read)
    assert set().union(*shares) == kept and shares[0] != shares[1] and not shares[0] & shares[1]
    assert [sorted(rows) for rows, _ in task.batches(1)] == [sorted(rows) for rows, _ in task.batches(1)]
    first = build(context(tmp_path, replace(config, data=data), name="first"))
    assert {int(i) for rows, _ in first.batches(0) for i in rows} == set(range(len(origins)))


def test_a_first_training_takes_no_notice_of_levers_that_keep_an_old_model(old, tmp_path):
    config, _ = old
    task = build(context(tmp_path, replace(config, forgetting=NerForgetting(distill=1.0, average=(0.5,)))))
    assert set(task.losses(task.batches(0)[0])) == {"loss"} and "val/average" not in task.validate()


def test_levers_out_of_their_range_are_refused():
    for wrong in ({"distill": -1.0}, {"average": (1.0,)}):
        with pytest.raises(ValueError, match="must lie in"):
            from_tree(NerForgetting, wrong)
