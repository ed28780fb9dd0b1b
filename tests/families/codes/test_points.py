"""The code table as points of a manifold, trained by Riemannian Adam: the laws of the loop hold, and checkpoints are of one form."""

import json
import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from curricle.config.load import to_tree
from curricle.config.schema import DataLoaderConfig, PathsConfig, TrackingConfig, TrainerConfig
from curricle.errors import Interrupted
from curricle.families.codes.config import CodesConfig, CodesData, CodesModel, CodesTraining, Curriculum
from curricle.families.codes.model import CodesHead
from curricle.families.codes.prepare import prepare
from curricle.families.codes.task import POINTS, build
from curricle.planning import stage_digest
from curricle.store import open_store
from curricle.store.manifest import publish
from curricle.training import worker
from curricle.training.spec import StageSpec

EPOCHS = 2


@pytest.fixture(scope="module")
def classification(tmp_path_factory):
    """A tree of 3 roots with 3 children of 3 leaves each, and 8 texts a leaf."""
    folder = tmp_path_factory.mktemp("tree")
    codes = ["A", "B", "C"]
    for _ in range(2):
        codes += [f"{code}{digit}" for code in codes if len(code) == len(codes[-1]) for digit in "123"]
    rows = "".join(f"{code},{code[0]} sort of {' '.join(code)} things\n" for code in sorted(codes))
    (folder / "codes.csv").write_text(f"code,title\n{rows}")
    words = ["bread", "stone", "water", "paper", "glass", "cloth", "metal", "music"]
    leaves = [code for code in codes if len(code) == 3]
    texts = "".join(f"{word} for {code[0]} number {i * 13 + k},{code}\n" for i, code in enumerate(leaves) for k, word in enumerate(words))  # fmt: skip
    (folder / "texts.csv").write_text(f"text,code\n{texts}")
    return folder


@pytest.fixture(scope="module")
def settings(classification, tiny_encoder):
    return CodesConfig(
        family="codes",
        data=CodesData(classification=str(classification / "codes.csv"), labelled=str(classification / "texts.csv")),
        model=CodesModel(encoder=str(tiny_encoder), dim=6, fusion="mean", max_tokens=24),
        curriculum=Curriculum(
            name="02_stage", objective="retrieval", features="cached", texts=("entry", "title"), trainable=("head", "table", "temperature")
        ),
        data_loader=DataLoaderConfig(batch_size=64),
        tracking=TrackingConfig(tensorboard=False, mlflow=False),
        training=CodesTraining(
            learning_rate=0.01,
            table_optimizer="riemannian_adam",
            trainer=TrainerConfig(accelerator="cpu", precision="32-true", max_epochs=EPOCHS, gradient_clip_val=0.1),
        ),
    )  # fmt: skip


@pytest.fixture(scope="module")
def data(settings, tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "prepared"
    folder.mkdir()
    prepare(settings, folder)
    return folder


def train(place, settings, data, *, stop_at=0, parent=None):
    """Train a stage by the real worker; after `stop_at` steps it is asked to stop. Its place."""
    store = f"{place}/store"
    if not Path(store).exists():
        publish(open_store(store), "data/codes-1", data, kind="dataset", digest="x", metrics={}, lineage={}, info={})
    paths = PathsConfig(store_uri=store, outputs_dir=f"{place}/outputs", cache_dir=f"{place}/cache")
    spec = StageSpec(
        run_id="r", stage="02_stage", digest="d", family="codes", config=to_tree(replace(settings, paths=paths)),
        start="continued" if parent else "scratch", data_uri=f"{store}/data/codes-1", data_digest="x", parent_uri=parent and str(parent),
    )  # fmt: skip
    uri = f"{store}/r/02_stage"
    open_store(store).write("r/02_stage/stage.json", spec.to_json(uri).encode())

    def watched(context):
        task, seen = build(context), []
        own = task.losses

        def losses(batch):
            seen.append(batch)
            if len(seen) == stop_at:
                os.kill(os.getpid(), signal.SIGTERM)
            return own(batch)

        task.losses = losses
        return task

    worker.run(uri, build=watched, schema=CodesConfig)
    return Path(uri)


def contents(uri):
    last = uri / "last.ckpt"
    state = torch.load(last / "state.pt", weights_only=True)["optimizer"]
    return load_file(last / "model.safetensors") | load_file(last / "trained.safetensors"), state


def with_precision(settings, precision):
    return replace(settings, training=replace(settings.training, trainer=replace(settings.training.trainer, precision=precision)))  # fmt: skip


@pytest.fixture(scope="module", params=["32-true", "16-mixed"])
def straight(request, settings, data, tmp_path_factory):
    """(configuration, place of a stage that was trained in one go) in each precision."""
    config = with_precision(settings, request.param)
    return config, train(tmp_path_factory.mktemp("straight"), config, data)


def equal(a, b):
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[k], b[k]) for k in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(map(equal, a, b))
    return torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b


def test_interrupted_and_resumed_is_bitwise_equal_to_uninterrupted(straight, data, tmp_path):
    config, whole = straight
    with pytest.raises(Interrupted):
        train(tmp_path, config, data, stop_at=4)
    resumed = train(tmp_path, config, data)
    (weights, state), (again, state_again) = contents(whole), contents(resumed)
    assert equal(weights, again) and equal(state, state_again)
    assert (whole / "history.json").read_bytes() == (resumed / "history.json").read_bytes()


def test_the_points_are_on_the_manifold_moved_and_the_table_of_the_checkpoint_says_where(straight, settings, data):
    _, whole = straight
    weights, state = contents(whole)
    points = weights.pop(POINTS)
    assert points.dtype == torch.float64 and len(state["parts"]) == 2
    torch.testing.assert_close(points[:, 0], (1 + (points[:, 1:] ** 2).sum(1)).sqrt(), rtol=0, atol=1e-12)
    head = CodesHead(settings.model, 32, torch.ones(len(points), dtype=torch.int64))
    with torch.no_grad():
        head.table.copy_(weights["head.table"])
        plain = head.codes()
        before = head.put_on_manifold()
        torch.testing.assert_close(before[:, 1:], points[:, 1:], rtol=0, atol=1e-5)
        for ours, curved in zip(plain, head.codes(), strict=True):
            torch.testing.assert_close(ours, curved, rtol=0, atol=1e-5)
    history = torch.tensor([loss for _, loss in _losses(whole)])
    assert history[-4:].mean() < history[:4].mean()


def _losses(uri):
    return json.loads((uri / "history.json").read_text())["losses"]


def test_a_stage_goes_on_from_a_checkpoint_of_the_other_optimiser(straight, settings, data, tmp_path):
    _, whole = straight
    best = next(path for path in whole.iterdir() if path.suffix == ".ckpt" and path.name != "last.ckpt")
    flat = replace(settings, training=replace(settings.training, table_optimizer="adamw"))
    once = train(tmp_path / "flat", flat, data, parent=best)
    assert not (once / "last.ckpt/trained.safetensors").exists()
    best = next(path for path in once.iterdir() if path.suffix == ".ckpt" and path.name != "last.ckpt")
    again = train(tmp_path / "curved", settings, data, parent=best)
    assert contents(again)[0].keys() == contents(whole)[0].keys()


def test_the_default_leaves_digests_as_they_were():
    before = "dd5cf14cc8e25db3e69ddb2e703781f797d1d2e7df3805516d2b6073d6bb3c46"  # of this configuration, before there was the setting
    flat = CodesConfig(family="codes", curriculum=Curriculum(name="02_stage"))
    curved = replace(flat, training=CodesTraining(table_optimizer="riemannian_adam"))
    assert stage_digest(flat, "x", "") == before != stage_digest(curved, "x", "")
