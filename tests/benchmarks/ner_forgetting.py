"""Continued NER training: what each lever keeps of the old domain, gains on the new one, and costs, on pairs of real datasets.

    CURRICLE_SHARED=../shared python -m tests.benchmarks.ner_forgetting --split validation --records 1000
    CURRICLE_SHARED=../shared python -m tests.benchmarks.ner_forgetting --pair wnut17-tech --arm default --arm everything

Defaults are chosen on validation records; test records are scored once, for the report. Every arm but `everything` continues the same old
model; all use the family's own preparation, task and loop. CPU-s are those of preparing, training and validating, without the start of
Python.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from curricle.config.load import Layer, build, compose, nest, read_overrides, read_yaml
from curricle.families.ner import task as ner_task
from curricle.families.ner.combine import text_key
from curricle.families.ner.config import NerConfig, NerModel
from curricle.families.ner.formats import split_file
from curricle.families.ner.predict import load_tagger
from curricle.families.ner.prepare import prepare
from curricle.families.ner.tagger import ScoredSet
from curricle.training.checkpoint import Checkpoints
from curricle.training.distributed import Ranks
from curricle.training.loop import run_stage
from curricle.training.task import StageContext
from curricle.training.tracking import NoTracker
from tests.benchmarks.report import OUTPUT, ROOT, write_report

DATA = Path(os.environ.get("CURRICLE_SHARED", "../shared")) / "data/ner"
PAIRS = {
    "wnut17-science": ("wnut17", "crossner/science"),
    "wnut17-tech": ("wnut17", "skillspan/tech"),
    "house-tech": ("skillspan/house", "skillspan/tech"),
    "tech-wnut17": ("skillspan/tech", "wnut17"),
    "house-literature": ("skillspan/house", "crossner/literature"),
}
EVERYTHING = "everything"
"""The arm that begins with the plain encoder; all others continue the old model."""
SHIPPED = read_yaml(ROOT / "config/train_continued.yaml").tree
DEFAULT = [*(f"data.{name}={SHIPPED['data'][name]}" for name in ("strategy", "replay", "replay_draw")),
           f"data_loader.batch_size={SHIPPED['training']['batch_size']}"]  # fmt: skip
ARMS: dict[str, list[str]] = {
    EVERYTHING: ["data.strategy=combined"],
    "default": DEFAULT,
    "new only": ["data.strategy=new_only"],
    "combined": ["data.strategy=combined"],
    "default, replay drawn once": [*DEFAULT, "data.replay_draw=once"],
    "default, replay 0.25": [*DEFAULT, "data.replay=0.25"],
    "default, 2 epochs": [*DEFAULT, "training.trainer.max_epochs=2"],
    "default, batches of 32": [*DEFAULT, "data_loader.batch_size=32"],
    "default, distillation 0.5": [*DEFAULT, "forgetting.distill=0.5"],
    "default, averages": [*DEFAULT, "forgetting.average=[0.5, 0.7, 0.85]"],
    "default, LoRA": [*DEFAULT, "model.lora.enabled=true"],
    "default, LoRA at 2e-3": [*DEFAULT, "model.lora.enabled=true", "training.learning_rate=2e-3"],
    "default, half the rate": [*DEFAULT, "training.learning_rate=2e-4"],
    "default, no layer decay": [*DEFAULT, "model.layer_decay=1"],
    "new only, distillation": ["data.strategy=new_only", "forgetting.distill=1"],
    "new only, averages": ["data.strategy=new_only", "forgetting.average=[0.3, 0.5, 0.7]"],
    "the guide's rate": [*DEFAULT, "training.learning_rate=1e-5"],
}


def trained(config: NerConfig, parent: Path | None, place: Path) -> tuple[Path, float]:
    """Train one stage below `place`: its best checkpoint, and the CPU-s."""
    begin = time.process_time()
    prepare(config, place / "data")
    ranks = Ranks()
    task = ner_task.build(
        StageContext(
            config=config,
            data_dir=place / "data",
            parent_dir=parent,
            work_dir=place,
            device=torch.device("cpu"),
            ranks=ranks,
        )
    )
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
        result = run_stage(task, config, checkpoints, ranks, tracker=NoTracker(), report=lambda event: None)
    finally:
        checkpoints.close()
    return place / "stage" / result.best, time.process_time() - begin


def configured(folders: dict[str, Path], overrides: list[str], seed: int) -> NerConfig:
    """The shipped defaults with an arm's overrides."""
    layers = [Layer(nest(f"data.{name}_dataset_path", str(folder)), {}) for name, folder in folders.items()]
    return build(NerConfig, compose([*layers, read_overrides([f"seed={seed}", *overrides])])).config


@dataclass(frozen=True)
class Setting:
    """What all arms of a run share."""

    split: str
    """Records that are scored."""
    records: int
    """Training records that a dataset is cut to; 0 is all."""
    resplit: bool
    """Draw training, validation and test records anew from all that a dataset holds."""
    work: Path
    """Folder for datasets and old models."""

    def dataset(self, name: str) -> Path:
        """The dataset, or a copy that is split anew or cut (validation to a third of `records`; test stays whole), always by hash."""
        if not self.records and not self.resplit:
            return DATA / name
        target = self.work / name
        if not target.is_dir():
            target.mkdir(parents=True)
            splits = {
                split: json.loads((DATA / name / f"{split}.json").read_text(encoding="utf-8"))
                for split in ("train", "validation", "test")
            }
            for found in splits.values():
                found.sort(key=by_hash)
            if self.resplit:
                pool = sorted(
                    {text_key(r["text"]): r for found in splits.values() for r in found}.values(), key=by_hash
                )
                fifth, tenth = len(pool) // 5, len(pool) // 10
                splits = {
                    "test": pool[:fifth],
                    "validation": pool[fifth : fifth + tenth],
                    "train": pool[fifth + tenth :],
                }
            for split, most in (("train", self.records), ("validation", self.records // 3), ("test", 0)):
                (target / f"{split}.json").write_text(json.dumps(splits[split][: most or None]), encoding="utf-8")
        return target

    def old_model(self, name: str, seed: int) -> Path:
        """The model of an old dataset, trained once and kept."""
        place = self.work / f"model-{name.replace('/', '-')}-{seed}"
        if not (place / "model").is_dir():
            found, cost = trained(configured({"new": self.dataset(name)}, [], seed), None, place)
            print(f"old model of {name}: {cost:.0f} CPU-s", file=sys.stderr, flush=True)
            found.rename(place / "model")
        return place / "model"

    def f1(self, model: Path, name: str) -> float:
        """Micro F1 in percent, over all records of the split."""
        tagger = load_tagger(model)
        scores, _ = ScoredSet(
            split_file(self.dataset(name) if self.resplit else DATA / name, self.split), tagger
        ).score(tagger)
        return 100 * scores["all"]["f1"]

    def measured(self, pair: str, arm: str, overrides: list[str], seed: int) -> dict:
        """One line of the table."""
        old, new = PAIRS[pair]
        parent = self.old_model(old, seed)
        with tempfile.TemporaryDirectory(dir=self.work) as place:
            config = configured({"old": self.dataset(old), "new": self.dataset(new)}, overrides, seed)
            model, cost = trained(config, None if arm == EVERYTHING else parent, Path(place))
            row = {"pair": pair, "arm": arm, "seed": seed, "old before": self.f1(parent, old), "old after": self.f1(model, old),
                   "new before": self.f1(parent, new), "new after": self.f1(model, new), "CPU-s": cost}  # fmt: skip
        print(
            " ".join(f"{k} {v:.2f}" if isinstance(v, float) else str(v) for k, v in row.items()),
            file=sys.stderr,
            flush=True,
        )
        return row


def by_hash(record: dict) -> bytes:
    """What records are ordered by."""
    return hashlib.sha256(record["text"].encode()).digest()


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.ner_forgetting",
        description="Levers against forgetting, on pairs of NER datasets.",
    )
    parser.add_argument("--pair", action="append", choices=PAIRS, help="repeatable; default all")
    parser.add_argument("--arm", action="append", choices=ARMS, help="repeatable; default all")
    parser.add_argument(
        "--try",
        dest="tried",
        action="append",
        default=[],
        metavar="'KEY=VALUE ...'",
        help="a further arm: its overrides; repeatable",
    )
    parser.add_argument("--seeds", default="0", help="default 0")
    parser.add_argument(
        "--split", choices=("test", "validation"), default="test", help="records that are scored (default test)"
    )
    parser.add_argument("--records", type=int, default=0, help="cut the datasets to so many training records; 0: all")
    parser.add_argument(
        "--resplit", action="store_true", help="draw the splits anew: those of WNUT-17 come from different sites"
    )
    parser.add_argument("--output", type=Path, default=OUTPUT, help=f"folder of the report (default {OUTPUT})")
    options = parser.parse_args()
    arms = {name: ARMS[name] for name in options.arm or ([] if options.tried else ARMS)} | {
        words: words.split() for words in options.tried
    }
    seeds = [int(s) for s in options.seeds.split(",")]
    with tempfile.TemporaryDirectory() as work:
        setting = Setting(options.split, options.records, options.resplit, Path(work))
        rows = [setting.measured(pair, arm, overrides, seed)
                for seed in seeds for pair in options.pair or PAIRS for arm, overrides in arms.items()]  # fmt: skip
    size = f"datasets cut to {options.records} training records" if options.records else "whole datasets"
    size += ", split anew" if options.resplit else ""
    notes = [
        f"micro F1 in percent on all {options.split} records; {size}; {NerModel().encoder}; default: {' '.join(DEFAULT)}",
        f"{EVERYTHING}: old and new together from the plain encoder; all other arms continue the old model",
    ]
    write_report("ner_forgetting", rows, options.output, seeds=seeds, notes=notes)


if __name__ == "__main__":
    main()
