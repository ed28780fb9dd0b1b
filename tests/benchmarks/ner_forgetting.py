"""Continued NER training: what each lever keeps of the old domain, gains on the new one, and costs, on pairs of real datasets.

    CURRICLE_SHARED=../shared python -m tests.benchmarks.ner_forgetting --set held-out --arm default --seeds 0,1,2 \\
        --resplit --records 400 --scored 400 --results held-out.jsonl
    CURRICLE_SHARED=../shared python -m tests.benchmarks.ner_forgetting --pair wnut17-tech --arm default --split validation

Defaults are chosen on validation records of the pairs `tuning`; test records, and the pairs `held-out`, are scored once, for the report. Every arm
but `everything` continues the same old model; all use the family's own preparation, task and loop. With ``--results`` every training is a line of
that file, and old models lie beside it: the same command, stopped and started again, goes on, and further pairs, seeds and arms come to it.

Cost: CPU-s of preparing, training and validating, without the start of Python; and `work`: tokens (padded) through the encoder in all that time, a
forward pass counted as one third and a backward pass as two thirds of the share of layers that learn. The latter is the same on a busy machine.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import os
import shutil
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from curricle.config.load import Layer, build, compose, nest, read_overrides, read_yaml
from curricle.families.ner import task as ner_task
from curricle.families.ner.combine import text_key
from curricle.families.ner.config import NerConfig, NerModel
from curricle.families.ner.metrics import SpanCounts
from curricle.families.ner.predict import load_tagger
from curricle.families.ner.prepare import prepare
from curricle.families.ner.tagger import ScoredSet
from curricle.families.ner.task import layer_of
from curricle.training.checkpoint import Checkpoints
from curricle.training.distributed import Ranks
from curricle.training.loop import run_stage
from curricle.training.task import StageContext
from curricle.training.tracking import NoTracker
from tests.benchmarks.report import OUTPUT, ROOT, write_report

DATA = Path(os.environ.get("CURRICLE_SHARED", "../shared")) / "data/ner"
SETS = {
    "tuning": {
        "wnut17-science": ("wnut17", "crossner/science"),
        "wnut17-tech": ("wnut17", "skillspan/tech"),
        "house-tech": ("skillspan/house", "skillspan/tech"),
    },
    "held-out": {
        "wnut17-literature": ("wnut17", "crossner/literature"),
        "house-literature": ("skillspan/house", "crossner/literature"),
        "science-ai": ("crossner/science", "crossner/ai"),
        "science-house": ("crossner/science", "skillspan/house"),
        "tech-wnut17": ("skillspan/tech", "wnut17"),
        "tech-science": ("skillspan/tech", "crossner/science"),
    },
}
"""Pairs (old, new): those on which the defaults were chosen, and those on which nothing was."""
PAIRS = {name: pair for pairs in SETS.values() for name, pair in pairs.items()}
DRAWS = 1000
"""Of the bootstrap."""
EVERYTHING = "everything"
"""The arm that all are compared with. What begins with this word begins with the plain encoder; all others continue the old model."""
SHIPPED = read_yaml(ROOT / "config/train_continued.yaml").tree
DEFAULT = [*(f"data.{name}={SHIPPED['data'][name]}" for name in ("strategy", "replay", "replay_draw")),
           f"data_loader.batch_size={SHIPPED['training']['batch_size']}"]  # fmt: skip
ARMS: dict[str, list[str]] = {
    EVERYTHING: ["data.strategy=combined"],
    "everything, every O is O": ["data.strategy=combined", "data.labels_of_source=all"],
    "default": DEFAULT,
    "default, every O is O": [*DEFAULT, "data.labels_of_source=all"],
    "default, replay by labels": [*DEFAULT, "data.replay_choice=labels"],
    "default, 3 layers frozen": [*DEFAULT, "model.frozen_layers=3"],
    "default, all layers frozen": [*DEFAULT, "model.frozen_layers=6", "training.learning_rate=4e-4"],
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


class Work:
    """Counts the tokens that go through word embeddings, and so through the encoder, while it is open."""

    def __enter__(self) -> Work:
        self.forward = self.backward = 0
        self._hook = torch.nn.modules.module.register_module_forward_pre_hook(self._see)
        return self

    def __exit__(self, *_: object) -> None:
        self._hook.remove()

    def _see(self, module: torch.nn.Module, inputs: tuple) -> None:
        if isinstance(module, torch.nn.Embedding) and module.num_embeddings > 10_000:
            self.forward += inputs[0].numel()
            self.backward += inputs[0].numel() * torch.is_grad_enabled()

    def done(self, model: torch.nn.Module) -> float:
        """What was done with a model, in thousands of tokens that pass it both ways."""
        layers = {layer: False for name, _ in model.named_parameters() if (layer := layer_of(name)) is not None}
        layers |= {
            layer_of(name): True
            for name, p in model.named_parameters()
            if p.requires_grad and layer_of(name) is not None
        }
        return (self.forward + 2 * self.backward * sum(layers.values()) / len(layers)) / 3000


def trained(config: NerConfig, parent: Path | None, place: Path) -> tuple[Path, float, float]:
    """Train one stage below `place`: its best checkpoint, the CPU-s, and the work."""
    begin = time.process_time()
    with Work() as work:
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
    return place / "stage" / result.best, time.process_time() - begin, work.done(task.model)


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
    scored: int
    """Records that scores are of, at most; 0 is all."""
    resplit: bool
    """Draw training, validation and test records anew from all that a dataset holds."""
    work: Path
    """Folder for datasets and old models."""

    def facts(self) -> dict[str, Any]:
        """What must be equal for two figures to be compared."""
        return {name: value for name, value in asdict(self).items() if name != "work"}

    def dataset(self, name: str) -> Path:
        """A copy of the dataset, split anew or cut as was asked (validation to a third of `records`), always by hash."""
        target = self.work / name
        if not target.is_dir():
            made = self.work / "making"
            shutil.rmtree(made, ignore_errors=True)
            made.mkdir(parents=True)
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
            scored = splits[self.split][: self.scored or None]
            for split, most in (("train", self.records), ("validation", self.records // 3), ("test", 0)):
                (made / f"{split}.json").write_text(json.dumps(splits[split][: most or None]), encoding="utf-8")
            (made / "scored.json").write_text(json.dumps(scored), encoding="utf-8")
            target.parent.mkdir(parents=True, exist_ok=True)
            made.rename(target)
        return target

    def old_model(self, name: str, seed: int) -> Path:
        """The model of an old dataset, trained once and kept."""
        place = self.work / f"model-{name.replace('/', '-')}-{seed}"
        if not (place / "model").is_dir():
            shutil.rmtree(place, ignore_errors=True)
            found, cost, _ = trained(configured({"new": self.dataset(name)}, [], seed), None, place)
            print(f"old model of {name}, seed {seed}: {cost:.0f} CPU-s", file=sys.stderr, flush=True)
            found.rename(place / "model")
        return place / "model"

    def counts(self, model: Path, name: str) -> list[list[int]]:
        """Of every scored record: right, predicted of labels that the dataset annotates, all predicted, and true spans."""
        tagger = load_tagger(model)
        records = ScoredSet(self.dataset(name) / "scored.json", tagger)
        spans, _, _ = tagger.tag(records.data, range(len(records.own)))
        out = []
        for record, own in enumerate(records.own):
            one = SpanCounts()
            one.add(records.data.gold[record], spans[record], own)
            predicted = one.predicted.total()
            out.append([one.right.total(), predicted - one.beyond.total(), predicted, one.true.total()])
        return out

    def measured(self, pair: str, arm: str, overrides: list[str], seed: int) -> dict[str, Any]:
        """One training, as a line of the results."""
        old, new = PAIRS[pair]
        parent = self.old_model(old, seed)
        with tempfile.TemporaryDirectory(dir=self.work) as place:
            config = configured({"old": self.dataset(old), "new": self.dataset(new)}, overrides, seed)
            model, cost, work = trained(config, None if arm.startswith(EVERYTHING) else parent, Path(place))
            counts = {
                "old before": self.counts(parent, old), "old after": self.counts(model, old),
                "new before": self.counts(parent, new), "new after": self.counts(model, new),
            }  # fmt: skip
        return {"pair": pair, "arm": arm, "overrides": overrides, "seed": seed, **self.facts(),
                "CPU-s": round(cost, 1), "work": round(work, 1), "counts": counts}  # fmt: skip


def f1(counts: Any, full: bool = False) -> Any:
    """Micro F1 in percent of summed counts [..., 4]: by the labels that the records annotate, or of all."""
    right, own, predicted, true = np.moveaxis(np.asarray(counts, float), -1, 0)
    return 200 * right / np.maximum(1, (predicted if full else own) + true)


def line(row: dict[str, Any]) -> dict[str, Any]:
    """A training for people."""
    shown = {name: row[name] for name in ("pair", "arm", "seed")}
    for name, counts in row["counts"].items():
        shown[name] = round(float(f1(np.sum(counts, 0))), 1)
    full = round(float(f1(np.sum(row["counts"]["old after"], 0), full=True)), 1)
    return shown | {"old after, all labels": full, "CPU-s": row["CPU-s"], "work": row["work"]}


def means(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Per arm, over all pairs and seeds that have `everything` too: means with 95 % intervals of a bootstrap over the scored records.

    The records of a pair are drawn once for all arms and seeds, so that differences are of the same records.
    """
    draw = np.random.default_rng(0)
    resampled: dict[str, np.ndarray] = {}

    def drawn(row: dict[str, Any], what: str, full: bool = False) -> np.ndarray:
        """F1 of all records, and of each draw, [1 + DRAWS]."""
        counts = np.array(row["counts"][what])
        key = f"{row['pair']} {what.split()[0]}"
        if key not in resampled:
            times = draw.multinomial(len(counts), np.full(len(counts), 1 / len(counts)), DRAWS)
            resampled[key] = np.concatenate([np.ones((1, len(counts)), int), times])
        return f1(resampled[key] @ counts, full)

    def shown(values: list[np.ndarray]) -> str:
        mean = np.mean(values, 0)
        low, high = np.percentile(mean[1:], [2.5, 97.5])
        return f"{mean[0]:+.1f} [{low:+.1f}, {high:+.1f}]"

    whole = {(r["pair"], r["seed"]): r for r in rows if r["arm"] == EVERYTHING}
    out = []
    for arm in dict.fromkeys(r["arm"] for r in rows):
        mine = [(r, whole[r["pair"], r["seed"]]) for r in rows if r["arm"] == arm and (r["pair"], r["seed"]) in whole]
        if not mine:
            continue
        out.append({
            "arm": arm,
            "trainings": len(mine),
            "pairs": len({r["pair"] for r, _ in mine}),
            "old, change": shown([drawn(r, "old after") - drawn(r, "old before") for r, _ in mine]),
            "old, change, all labels": shown([drawn(r, "old after", True) - drawn(r, "old before", True) for r, _ in mine]),
            "old - everything": shown([drawn(r, "old after") - drawn(w, "old after") for r, w in mine]),
            "new - everything": shown([drawn(r, "new after") - drawn(w, "new after") for r, w in mine]),
            "CPU-s / everything": round(sum(r["CPU-s"] for r, _ in mine) / sum(w["CPU-s"] for _, w in mine), 2),
            "work / everything": round(sum(r["work"] for r, _ in mine) / sum(w["work"] for _, w in mine), 2),
        })  # fmt: skip
    return out


def known(path: Path | None, setting: Setting) -> list[dict[str, Any]]:
    """The results so far; a last line that was cut off is left out.

    Raises:
        SystemExit: a line is of another setting, or is none.
    """
    rows: list[dict[str, Any]] = []
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path and path.is_file() else []
    for number, text in enumerate(lines, 1):
        if not text.endswith("\n"):
            print(f"{path}, line {number}: cut off, is measured again", file=sys.stderr)
            assert path is not None
            path.write_text("".join(lines[:-1]), encoding="utf-8")
            break
        rows.append(row := json.loads(text))
        if differing := {name: row.get(name) for name, value in setting.facts().items() if row.get(name) != value}:
            raise SystemExit(
                f"{path}, line {number} was measured with {differing}; name another file for {setting.facts()}"
            )
    return rows


def by_hash(record: dict) -> bytes:
    """What records are ordered by."""
    return hashlib.sha256(record["text"].encode()).digest()


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.ner_forgetting",
        description="Levers against forgetting, on pairs of NER datasets.",
    )
    parser.add_argument("--pair", action="append", choices=PAIRS, help="repeatable; default all, or those of --set")
    parser.add_argument("--set", choices=SETS, help="the pairs that the defaults were chosen on, or the others")
    parser.add_argument(
        "--arm", action="append", choices=ARMS, help="repeatable; default all. `everything` always comes along"
    )
    parser.add_argument(
        "--try",
        dest="tried",
        action="append",
        default=[],
        metavar="'KEY=VALUE ...'",
        help="a further arm: the default with these overrides; repeatable",
    )
    parser.add_argument("--seeds", default="0", help="default 0")
    parser.add_argument(
        "--split", choices=("test", "validation"), default="test", help="records that are scored (default test)"
    )
    parser.add_argument("--records", type=int, default=0, help="cut the datasets to so many training records; 0: all")
    parser.add_argument("--scored", type=int, default=0, help="score at most so many records of each domain; 0: all")
    parser.add_argument(
        "--resplit", action="store_true", help="draw the splits anew: those of WNUT-17 come from different sites"
    )
    parser.add_argument("--results", type=Path, help="file of results (JSON Lines) that this run continues")
    parser.add_argument("--output", type=Path, default=OUTPUT, help=f"folder of the report (default {OUTPUT})")
    options = parser.parse_args()
    arms = {name: ARMS[name] for name in [EVERYTHING, *(options.arm or ([] if options.tried else ARMS))]}
    arms |= {words: [*DEFAULT, *words.split()] for words in options.tried}
    pairs = options.pair or (SETS[options.set] if options.set else PAIRS)
    seeds = [int(s) for s in options.seeds.split(",")]
    with tempfile.TemporaryDirectory() as scratch:
        work = options.results.with_suffix(".work") if options.results else Path(scratch)
        setting = Setting(options.split, options.records, options.scored, options.resplit, work)
        rows = known(options.results, setting)
        done = {(r["pair"], r["arm"], *r["overrides"], r["seed"]) for r in rows}
        for seed, pair, (arm, overrides) in itertools.product(seeds, pairs, arms.items()):
            if (pair, arm, *overrides, seed) not in done:
                rows.append(row := setting.measured(pair, arm, overrides, seed))
                print(json.dumps(line(row)), file=sys.stderr, flush=True)
                if options.results:
                    with options.results.open("a", encoding="utf-8") as file:
                        file.write(json.dumps(row) + "\n")
    rows = [
        r
        for r in rows
        if r["arm"] in arms and r["overrides"] == arms[r["arm"]] and r["seed"] in seeds and r["pair"] in pairs
    ]
    size = f"datasets cut to {options.records} training records" if options.records else "whole datasets"
    size += ", split anew" if options.resplit else ""
    size += (
        f"; at most {options.scored} {options.split} records scored"
        if options.scored
        else f"; all {options.split} records scored"
    )
    notes = [
        f"micro F1 in percent; {size}; {NerModel().encoder}; default: {' '.join(DEFAULT)}",
        f"{EVERYTHING}: old and new together from the plain encoder; all other arms continue the old model",
        "first lines: means over pairs and seeds, with 95 % intervals of a bootstrap over the scored records",
        "old, change: by the labels that the old domain annotates; all labels: spans of the others count as wrong",
    ]
    write_report("ner_forgetting", [*means(rows), *map(line, rows)], options.output, seeds=seeds, notes=notes)


if __name__ == "__main__":
    main()
