"""Continued NER training: what each lever keeps of the old domain, gains on the new one, and costs, on pairs of real datasets.

    CURRICLE_SHARED=../shared python -m tests.benchmarks.ner_forgetting --split validation      # what the defaults were chosen by
    CURRICLE_SHARED=../shared python -m tests.benchmarks.ner_forgetting --pair wnut17-tech --arm default --arm everything

Every arm continues the same old model, by the family's own preparation, task and loop. CPU-s are those of preparing, training and
validating in this process, without the start of Python.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

import torch

from curricle.config.load import Layer, build, compose, nest, read_overrides
from curricle.families.ner import task as ner_task
from curricle.families.ner.config import NerConfig
from curricle.families.ner.formats import split_file
from curricle.families.ner.predict import load_tagger
from curricle.families.ner.prepare import prepare
from curricle.families.ner.tagger import ScoredSet
from curricle.train.checkpoint import Checkpoints
from curricle.train.distributed import Ranks
from curricle.train.loop import run_stage
from curricle.train.task import StageContext
from curricle.train.tracking import NoTracker
from tests.benchmarks.report import OUTPUT, write_report

DATA = Path(os.environ.get("CURRICLE_SHARED", "../shared")) / "data/ner"
CACHE = Path(".curricle/benchmarks/ner_forgetting")
PAIRS = {
    "wnut17-science": ("wnut17", "crossner/science"),
    "wnut17-tech": ("wnut17", "skillspan/tech"),
    "house-tech": ("skillspan/house", "skillspan/tech"),
    "tech-wnut17": ("skillspan/tech", "wnut17"),
    "house-literature": ("skillspan/house", "crossner/literature"),
}
EVERYTHING = "everything"
"""The arm that begins with the plain encoder; all others continue the old model."""
ARMS: dict[str, list[str]] = {
    EVERYTHING: ["data.strategy=combined"],
    "new only": ["data.strategy=new_only"],
    "combined": ["data.strategy=combined"],
    "default": ["data.strategy=combined", "data.replay=0.25", "model.layer_decay=0.8", "model.head_lr_scale=10"],
}


def trained(config: NerConfig, parent: Path | None, place: Path) -> tuple[Path, float]:
    """Train one stage below `place`: its best checkpoint, and the CPU-s."""
    begin = time.process_time()
    prepare(config, place / "data")
    ranks = Ranks()
    task = ner_task.build(StageContext(config=config, data_dir=place / "data", parent_dir=parent, work_dir=place, device=torch.device("cpu"), ranks=ranks))
    checkpoints = Checkpoints(str(place / "stage"), stage="stage", digest="d", config_text="", lineage={}, info={}, scratch_dir=place / "scratch")
    def report(event):
        if event["event"] == "epoch":
            print({k: (round(v, 4) if isinstance(v, float) else v) for k, v in event.items() if k in ("epoch", "step", "best", "val_loss", "val/f1", "val/old/f1", "val/new/f1", "val/average")}, file=sys.stderr, flush=True)
    try:
        result = run_stage(task, config, checkpoints, ranks, tracker=NoTracker(), report=report)
    finally:
        checkpoints.close()
    return place / "stage" / result.best, time.process_time() - begin


def configured(folders: dict[str, Path], overrides: list[str], seed: int) -> NerConfig:
    """The shipped defaults with an arm's overrides."""
    layers = [Layer(nest(f"data.{name}_dataset_path", str(folder)), {}) for name, folder in folders.items()]
    return build(NerConfig, compose([*layers, read_overrides([f"seed={seed}", *overrides])])).config


def old_model(name: str, seed: int, overrides: list[str]) -> Path:
    """The model of an old dataset, trained once and kept."""
    place = CACHE / f"{name.replace('/', '-')}-seed{seed}"
    if not (place / "model").is_dir():
        shutil.rmtree(place, ignore_errors=True)
        found, cost = trained(configured({"new": DATA / name}, overrides, seed), None, place)
        print(f"old model of {name}: {cost:.0f} CPU-s", file=sys.stderr, flush=True)
        shutil.copytree(found, place / "model")
        shutil.rmtree(place / "stage")
    return place / "model"


def f1(model: Path, dataset: Path, split: str) -> float:
    """Micro F1 in percent."""
    tagger = load_tagger(model)
    scores, _ = ScoredSet(split_file(dataset, split), tagger).score(tagger)
    return 100 * scores["all"]["f1"]


def measured(pair: str, arm: str, overrides: list[str], seed: int, split: str, base: list[str]) -> dict:
    """One line of the table."""
    old, new = PAIRS[pair]
    parent = old_model(old, seed, base)
    with tempfile.TemporaryDirectory() as work:
        config = configured({"old": DATA / old, "new": DATA / new}, overrides, seed)
        model, cost = trained(config, None if arm == EVERYTHING else parent, Path(work))
        row = {"pair": pair, "arm": arm, "seed": seed, "old before": f1(parent, DATA / old, split), "old": f1(model, DATA / old, split),
               "new": f1(model, DATA / new, split), "CPU-s": cost}
    print(" ".join(f"{k} {v:.2f}" if isinstance(v, float) else str(v) for k, v in row.items()), file=sys.stderr, flush=True)
    return row


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.ner_forgetting", description="Levers against forgetting, on pairs of NER datasets.")
    parser.add_argument("--pair", action="append", choices=PAIRS, help="repeatable; default all")
    parser.add_argument("--arm", action="append", choices=ARMS, help="repeatable; default all")
    parser.add_argument("--try", dest="tried", action="append", default=[], metavar="'KEY=VALUE ...'", help="a further arm: its overrides; repeatable")
    parser.add_argument("--seeds", default="0", help="default 0")
    parser.add_argument("--split", choices=("test", "validation"), default="test", help="records that are scored (default test)")
    parser.add_argument("--base", default="", metavar="'KEY=VALUE ...'", help="overrides of the old model's training")
    parser.add_argument("--output", type=Path, default=OUTPUT, help=f"folder of the report (default {OUTPUT})")
    options = parser.parse_args()
    arms = {name: ARMS[name] for name in options.arm or ([] if options.tried else ARMS)} | {words: words.split() for words in options.tried}
    seeds = [int(s) for s in options.seeds.split(",")]
    rows = [measured(pair, arm, overrides, seed, options.split, options.base.split())
            for seed in seeds for pair in options.pair or PAIRS for arm, overrides in arms.items()]
    write_report("ner_forgetting", rows, options.output, seeds=seeds, notes=[f"F1 in percent on {options.split} records"])


if __name__ == "__main__":
    main()
