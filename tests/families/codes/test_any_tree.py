"""Every objective, validation, scoring and evaluation on trees that are nothing like NAICS: deep and ragged, and of one level."""

import dataclasses

import pytest
import torch
import yaml

from curricle.config.load import to_tree
from curricle.config.schema import DataLoaderConfig, TrainerConfig
from curricle.families.codes.config import CodesConfig, CodesData, CodesModel, CodesTraining, Curriculum
from curricle.families.codes.evaluate import measure, robustness
from curricle.families.codes.metrics import measured
from curricle.families.codes.prepare import prepare
from curricle.families.codes.scorer import Scorer
from curricle.families.codes.task import build
from curricle.store import layout
from curricle.training.distributed import Ranks
from curricle.training.task import StageContext

WORDS = ["bread", "beer", "meat", "fish", "milk", "salt", "corn", "rice", "wool", "iron", "coal", "wood"]
DEEP = ["A", "1", "12", "123", "1234", "12345", "123456", "1234567", "124", "B", "2", "3", "31", "32"]
"""Sections above numbers; leaves 1234567, 124, 2, 31 and 32 at depths 8, 4, 2, 3 and 3."""
FLAT = [f"K{i}" for i in range(6)]


@pytest.fixture(scope="module", params=["deep", "flat"])
def made(request, tmp_path_factory, tiny_encoder):
    """(configuration, folder, facts) of a small data set on such a tree."""
    folder = tmp_path_factory.mktemp(request.param)
    codes = {"deep": DEEP, "flat": FLAT}[request.param]
    (folder / "codes.tsv").write_text(
        "code\ttitle\n" + "".join(f"{c}\ttitle of {c} {WORDS[i % 12]}\n" for i, c in enumerate(codes))
    )
    leaves = codes if request.param == "flat" else ["1234567", "124", "2", "31", "32"]
    rows = [
        f"{WORDS[i % 12]} {WORDS[(i * k) % 12]} work {k}x{i}|{c}" for k, c in enumerate(leaves, 1) for i in range(24)
    ]
    (folder / "texts.psv").write_text("\n".join(["text|code", *rows]))
    config = CodesConfig(
        family="codes",
        data=CodesData(classification=str(folder / "codes.tsv"), labelled=str(folder / "texts.psv")),
        curriculum=Curriculum(name="x"),
        data_loader=DataLoaderConfig(batch_size=16),
        model=CodesModel(encoder=str(tiny_encoder), dim=6, fusion="gate", max_tokens=24),
        training=CodesTraining(trainer=TrainerConfig(accelerator="cpu", precision="32-true")),
    )
    return config, folder, prepare(config, folder / "data")


def task_of(made, **curriculum):
    config, folder, _ = made
    config = dataclasses.replace(config, curriculum=Curriculum(name="x", **curriculum))
    return build(StageContext(config, folder / "data", None, folder / "work", torch.device("cpu"), Ranks()))


def test_every_objective_learns_and_validates_on_the_trees_own_levels(made):
    levels = made[2]["levels"]
    for curriculum in (
        {"objective": "geometry", "features": "cached", "trainable": (), "texts": ("title",)},
        {"objective": "retrieval", "features": "live", "texts": ("entry", "title", "code")},
        *([{"objective": "contrastive", "features": "cached", "n_negatives": 4}] if len(levels) > 1 else []),
    ):
        task = task_of(made, **curriculum)
        assert len(task.head.radii()) == len(levels) and (task.head.radii().diff() > 0).all()
        if curriculum["objective"] != "geometry":
            loss = task.losses(task.batches(0)[0])["loss"]
            loss.backward()
            assert torch.isfinite(loss) and any(p.grad is not None and p.grad.any() for p in task.model.parameters())
        with torch.no_grad():
            scores = task.validate()
        assert all(torch.isfinite(torch.tensor(value)) for value in scores.values()), scores
        assert {n for n in scores if "top1@" in n} == {f"val/top1@{level}" for level in levels[:-1]}


def test_a_perfect_placing_is_ranked_on_every_level(made):
    import numpy as np

    from curricle.families.codes.metrics import retrieval

    task = task_of(made, objective="geometry", features="cached", trainable=(), texts=("title",))
    leaves = len(task.tree.leaves)
    found = retrieval(np.eye(leaves), np.arange(leaves), task.tree)
    assert {value for name, value in found.items()} == {1.0}


def test_the_scorer_finds_the_leaves_wherever_they_lie(made, tmp_path):
    from safetensors.torch import save_file

    from curricle.families.codes.prepare import load
    from curricle.families.codes.task import load_model

    config, folder, facts = made
    table = load(folder / "data")
    checkpoint = tmp_path / "checkpoint"
    checkpoint.mkdir()
    weights = load_model(config, table, torch.device("cpu")).weights()
    save_file({name: tensor.contiguous() for name, tensor in weights.items()}, checkpoint / layout.WEIGHTS)
    (checkpoint / layout.CONFIG).write_text(yaml.safe_dump(to_tree(config)))
    scorer = Scorer.load(checkpoint, folder / "data", tmp_path / "cache")
    known = next(t for t in table.split("train", "entry"))
    hits = [hit for hit in scorer.search([known.text], len(table.leaves) + 1)[0] if hit.code]
    assert {hit.code for hit in hits} == {table.codes[i] for i in table.leaves} and hits[0].code == known.code
    assert all(hit.path[-1] == (hit.code, hit.title) for hit in hits)
    assert sum(hit.confidence for hit in hits) <= 1 + 1e-4
    found = measure(scorer, "test", "test") | robustness(scorer)
    assert set(found) == {name for name in measured(facts) if name.startswith(("test/", "robust/"))}


def test_a_filter_by_levels_that_a_tree_lacks_says_which_there_are(made):
    from curricle.errors import ConfigError

    if len(made[2]["levels"]) > 1:  # the flat one has no triplets at all
        with pytest.raises(ConfigError, match="the levels here are 1, 2, 3, 4, 5, 6, 7, 8"):
            task_of(made, objective="contrastive", features="cached", anchor_level=(99,))
