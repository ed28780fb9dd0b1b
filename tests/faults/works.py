"""The commands that are killed: a stage by the launcher, a chain, and the verbs that write results, each on a tiny input."""

from __future__ import annotations

import json
from pathlib import Path

from tests.faults.harness import RANDOM, START, Work, uninterrupted
from tests.laws.conftest import COMMON, MAKE
from tests.training.toy import make_config, make_stage

MAIN = "from curricle.cli import main; main()"
OF_A_JOB = ("command", "agent", "rank", "last rank")
SAVES = {
    START: (),
    RANDOM: (),
    "save": ("cache/work/save-*",),
    "upload": ("store/*/*/.*.part", "store/*/*/*/.*.part"),
    "validation": ("store/*/*/*val_loss*",),
    "end": ("store/*/*/manifest.json",),
}


def stage(ranks: int) -> Work:
    """The toy stage, by launcher, agent and ranks."""

    def prepare(folder: Path) -> None:
        make_stage(folder, make_config(folder, devices=ranks, max_epochs=4, save_every_n_steps=3))

    moments = {**SAVES, "first save": ("store/*/*/last.ckpt/manifest.json",)}
    place = "store/sequential_01/01_stage"
    return Work(
        "stage",
        ranks,
        prepare,
        lambda folder: ["-m", "tests.faults.toy_command", str(folder / place), str(ranks)],
        moments,
        OF_A_JOB if ranks > 1 else OF_A_JOB[:3],
    )


def _line_family(folder: Path) -> None:
    """The line family as an installed distribution (`folder` is on the path), its points, and two stages of it."""
    files = {
        "line_family-1.dist-info/METADATA": "Metadata-Version: 2.1\nName: line-family\nVersion: 1\n",
        "line_family-1.dist-info/entry_points.txt": "[curricle.families]\nline = tests.laws.line:ENTRY\n",
        "points.csv": "".join(f"{x / 10},{x / 5 + 1}\n" for x in range(20)),
        "config/config.yaml": "family: line\ntraining: {learning_rate: 0.1, trainer: {max_epochs: 3, accelerator: cpu}}\n"
        "tracking: {mlflow: false, tensorboard: false}\n"
        "paths: {store_uri: store, outputs_dir: outputs, cache_dir: cache}\n",
        "config/text_curriculum/one.yaml": "data: {points: ../points.csv}\n",
        "config/text_curriculum/two.yaml": "data: {points: ../points.csv}\ntraining: {learning_rate: 0.05}\n",
    }
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def chain(ranks: int) -> Work:
    """Two stages of the line family by the genuine command."""
    overrides = [f"training.trainer.devices={ranks}", "training.trainer.save_every_n_steps=3"]
    moments = {
        **SAVES,
        "data preparation": ("tmp/curricle-data-*", "store/data/*/.*.part", "store/data/*/points.csv"),
        "plan": ("store/*/plan.json",),
        "claim": ("store/*/*/claim.json",),
        "second stage": ("store/*/two/stage.json",),
    }
    argv = ["train-curriculum", "--config", "config/config.yaml", "--curricula", "one,two", *overrides]
    return Work("chain", ranks, _line_family, lambda folder: ["-c", MAIN, *argv], moments, OF_A_JOB[: 2 + ranks])


def combine(target: str) -> Work:
    """Two datasets into one, read by two processes as large ones are."""

    def prepare(folder: Path) -> None:
        for name, word in (("old", "Anna"), ("new", "Berlin")):
            (folder / name).mkdir()
            for split, count in (("train", 20000), ("validation", 2000)):
                rows = [
                    {"text": f"{word} {name} {split} {i} knows", "annotations": [[0, len(word), "NAME"]]}
                    for i in range(count)
                ]
                (folder / name / f"{split}.json").write_text(json.dumps(rows))

    program = f"import curricle.families.ner.combine as combine; combine._LARGE = 1; {MAIN}"
    argv = ["combine", "--old", "old", "--new", "new", "-o", "results/out"]
    moments = {RANDOM: (), "writing": ("results/.out.writing-*",)} if target == "command" else {START: ()}
    return Work("combine", 0, prepare, lambda folder: ["-c", program, *argv], moments, (target,), ("results",))


def evaluate(model: Path) -> Work:
    """A trained model of the line family measured."""

    def prepare(folder: Path) -> None:
        _line_family(folder)
        (folder / "store").symlink_to(model)

    program = f"import sys; sys.stdout = open('scores.txt', 'w'); {MAIN}"
    argv = ["evaluate", "--store", "store"]
    return Work(
        "evaluate",
        0,
        prepare,
        lambda folder: ["-c", program, *argv],
        {RANDOM: ()},
        ("command",),
        ("scores.txt",),
    )


def naics(verb: str, store: Path) -> Work:
    """A verb of a trained NAICS model: ``assign``, or ``export`` of a folder that transformers loads."""

    def prepare(folder: Path) -> None:
        (folder / "rows.csv").write_text("text\n" + "".join(f"brews beer {i}\n" for i in range(40)))

    argv = {
        "assign": ["assign", "rows.csv", "--column", "text", "-o", "results/out.csv"],
        "export": ["export", "--format", "huggingface", "-o", "results/model"],
    }[verb]
    moments = {RANDOM: (), "writing": ("results/.*.new-*", "results/.*.part")}

    def made(folder: Path) -> None:
        prepare(folder)
        (folder / "results").mkdir()

    return Work(
        verb,
        0,
        made,
        lambda folder: ["-c", MAIN, *argv, "--store", str(store)],
        moments,
        ("command",),
        ("results",),
    )


def trained_naics(folder: Path) -> Path:
    """Train a tiny chain of the NAICS family; its store."""
    argv = ["train-curriculum", "--config", "config/config.yaml", "--curricula", "one,two", "paths.store_uri=store"]
    argv += ["paths.outputs_dir=outputs", "paths.cache_dir=cache", *COMMON]
    work = Work("naics", 1, lambda place: MAKE["naics"](place) and None, lambda place: ["-c", MAIN, *argv], {}, ())
    uninterrupted(work, folder)
    return folder / "store"
