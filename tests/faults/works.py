"""The commands that are killed: a stage by the launcher, a chain, and the verbs that write results, each on a tiny input."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tests.faults.harness import RANDOM, START, Moment, Work, uninterrupted
from tests.faults.moment import LIGHT
from tests.laws.conftest import COMMON, MAKE
from tests.training.toy import make_config, make_stage

MAIN = "from curricle.cli import main; main()"
OF_A_JOB = ("command", "agent", "rank", "last rank")
TRAINING: dict[str, Moment | None] = {
    START: None,
    RANDOM: None,
    "first step": Moment("curricle.moment", "^step"),
    "step": Moment("curricle.moment", "^step", 12),
    "validation": Moment("curricle.moment", "^validation", 2),
    "save": Moment("os.mkdir", "/work/save-", 3),
    "save, half": Moment("open", "/save-.*/config.yaml", 3),
    "upload": Moment("os.rename", r"\.ckpt/(model|state|manifest)", 6),
    "old state goes": Moment("os.remove", r"\.ckpt/", 4),
    "stage ends": Moment("os.rename", r"/0?\w+/manifest\.json$"),
}
"""Moments of a stage whose store is a folder."""


def stage(ranks: int) -> Work:
    """The toy stage, by launcher, agent and ranks."""

    def prepare(folder: Path) -> None:
        make_stage(folder, make_config(folder, devices=ranks, max_epochs=4, save_every_n_steps=3))

    place = "store/sequential_01/01_stage"
    return Work(
        "stage",
        ranks,
        prepare,
        lambda folder: ["-m", "tests.faults.toy_command", str(folder / place), str(ranks)],
        TRAINING | {"stage ends": Moment("os.rename", "01_stage/manifest.json$")},
        OF_A_JOB if ranks > 1 else OF_A_JOB[:3],
        store="store",
        environment={LIGHT: "1"},
    )


def line_family(folder: Path) -> None:
    """The line family as an installed distribution (`folder` is on the path), its points, and two stages of it."""
    files = {
        "line_family-1.dist-info/METADATA": "Metadata-Version: 2.1\nName: line-family\nVersion: 1\n",
        "line_family-1.dist-info/entry_points.txt": "[curricle.families]\nline = tests.faults.line:ENTRY\n",
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


def chain(ranks: int, store: str = "store") -> Work:
    """Two stages of the line family by the genuine command; `store` as in `Work`."""
    overrides = [f"training.trainer.devices={ranks}", "training.trainer.save_every_n_steps=3"]
    moments = TRAINING | {
        "data preparation": Moment("os.mkdir", "/tmp/curricle-data-"),
        "data go to the store": Moment("os.rename", "store/data/", 2),
        "plan": Moment("os.rename", "/plan.json"),
        "claim": Moment("os.rename", "/claim.json", 2),
        "stage.json": Moment("os.rename", "/stage.json", 2),
        "stage ends": Moment("os.rename", r"(one|two)/manifest\.json$"),
        "second stage": Moment("os.rename", "two/.*ckpt/"),
    }
    if "://" in store:
        moments = {name: moment for name, moment in moments.items() if not moment or moment.event != "os.rename"}
        moments = {name: moment for name, moment in moments.items() if not moment or moment.event != "os.remove"}
        moments |= {
            "data go to the store": Moment("http.client.send", "PUT /.*/data/", 2),
            "upload": Moment("http.client.send", r"PUT /.*\.ckpt/", 8),
            "old state goes": Moment("http.client.send", r"DELETE /.*\.ckpt/", 2),
            "claim": Moment("http.client.send", "PUT /.*/claim.json", 2),
            "stage ends": Moment("http.client.send", "PUT /.*/(one|two)/manifest.json"),
        }
    argv = ["train-curriculum", "--config", "config/config.yaml", "--curricula", "one,two", *overrides]

    def program(folder: Path) -> list[str]:
        return ["-c", MAIN, *argv, f"paths.store_uri={store.format(folder.name)}"]

    name, results = ("chain", ("store",)) if store == "store" else ("chain, S3", ())
    return Work(
        name,
        ranks,
        line_family,
        program,
        moments,
        OF_A_JOB[: 2 + ranks],
        results,
        store=store,
        environment={LIGHT: "1"},
    )


def combine(target: str, *, again: bool = False) -> Work:
    """Two datasets into one, read by two processes as large ones are; with `again` in place of what the same command made before."""
    program = f"import curricle.families.ner.combine as combine; combine._LARGE = 1; {MAIN}"
    argv = ["combine", "--old", "old", "--new", "new", "-o", "results/out"]

    def prepare(folder: Path) -> None:
        for name, word in (("old", "Anna"), ("new", "Berlin")):
            (folder / name).mkdir()
            for split, count in (("train", 4000), ("validation", 400)):
                rows = [
                    {"text": f"{word} {name} {split} {i} knows", "annotations": [[0, len(word), "NAME"]]}
                    for i in range(count)
                ]
                (folder / name / f"{split}.json").write_text(json.dumps(rows))
        if again:
            subprocess.run([sys.executable, "-c", MAIN, *argv, "--seed", "7"], cwd=folder, check=True)

    reading = {"reading": Moment("open", r"(old|new)/\w+\.json", 1)}
    moments = reading | {
        RANDOM: None,
        "readers start": Moment("os.fork", "", 2),
        "writing": Moment("open", r"writing-.*/(train|validation)\.jsonl", 2),
        "manifest": Moment("os.rename", "writing-.*/manifest.json"),
        "renaming": Moment("os.rename", "results/(out|.out.*/old)$", 2 if again else 1),
    }
    name = "combine again" if again else "combine"
    return Work(
        name,
        0,
        prepare,
        lambda folder: ["-c", program, *argv],
        moments if target == "command" else reading,
        (target,),
        ("results",),
        store="results",
        replaced=("out",),
    )


def evaluate(model: Path) -> Work:
    """A trained model of the line family measured."""

    def prepare(folder: Path) -> None:
        line_family(folder)
        (folder / "store").symlink_to(model)

    program = f"import sys; sys.stdout = open('scores.txt', 'w'); {MAIN}"
    return Work(
        "evaluate",
        0,
        prepare,
        lambda folder: ["-c", program, "evaluate", "--store", "store"],
        {RANDOM: None, "evaluation": Moment("curricle.moment", "evaluation")},
        ("command",),
        ("scores.txt",),
        environment={LIGHT: "1"},
    )


def naics(verb: str, store: Path) -> Work:
    """A verb of a trained NAICS model: ``assign``, or ``export`` of a folder that transformers loads."""

    def prepare(folder: Path) -> None:
        (folder / "results").mkdir()
        (folder / "rows.csv").write_text("text\n" + "".join(f"brews beer {i % 40}\n" for i in range(9000)))

    argv, moments = {
        "assign": (
            ["assign", "rows.csv", "--column", "text", "-o", "results/out.csv"],
            {
                "features are kept": Moment("os.rename", "features-"),
                "piece": Moment("os.rename", r"\.assigning-.*/\d+\.jsonl$", 3),
                "going on": Moment("os.rename", r"\.assigning-[^/]*$"),
                "writing": Moment("open", r"/\.out\.csv\.[^/]*part"),
                "renaming": Moment("os.rename", "out.csv$"),
            },
        ),
        "export": (
            ["export", "--format", "huggingface", "-o", "results/model"],
            {
                "begin": Moment("os.mkdir", r"\.model\.new-"),
                "writing": Moment("open", "/new/(config|codes).json"),
                "renaming": Moment("os.rename", "results/model$"),
            },
        ),
    }[verb]
    return Work(
        verb,
        0,
        prepare,
        lambda folder: ["-c", MAIN, *argv, "--store", str(store)],
        {RANDOM: None, **moments},
        ("command",),
        ("results",),
        once=verb == "export",
    )


def trained_naics(folder: Path, encoder: Path) -> Path:
    """Train a tiny chain of the NAICS family on a tiny encoder; its store."""
    argv = ["train-curriculum", "--config", "config/config.yaml", "--curricula", "one,two", "paths.store_uri=store"]
    argv += ["paths.outputs_dir=outputs", "paths.cache_dir=cache", f"model.encoder={encoder}", *COMMON]
    work = Work("naics", 1, lambda place: MAKE["codes"](place) and None, lambda place: ["-c", MAIN, *argv], {}, ())
    uninterrupted(work, folder)
    return folder / "store"
