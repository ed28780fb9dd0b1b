"""Geometry of the code table: AdamW on tangent vectors against Riemannian Adam on points, nested dimensions, and pooling in the space.

    python -m tests.benchmarks.naics_geometry [--source FOLDER|demo] [--seeds 0,1,2] [--parts optimisers,dimensions,nested,pooled]

Each line is one training of `02_stage` from scratch (head, table, temperature, radii; the encoder stands still) and its test texts, by the distance to the
code table alone. What was measured is kept in `--work`, a line a training: the same command goes on, other parts are added, and the table has all.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from curricle.families.codes import metrics
from curricle.families.codes.config import CodesConfig
from curricle.families.codes.encoder import cached_features
from curricle.families.codes.geometry import polar, soft_cap
from curricle.families.codes.model import CodesHead
from curricle.families.codes.prepare import CodeTable, load, prepare
from curricle.families.codes.task import RetrievalTask
from curricle.families.encoders import budget_batches
from curricle.training.checkpoint import Checkpoints
from curricle.training.distributed import Ranks
from curricle.training.events import nobody
from curricle.training.loop import run_stage
from curricle.training.precision import resolve_precision
from curricle.training.task import StageContext
from tests.benchmarks.naics_models import CENSUS, stage_config
from tests.benchmarks.report import OUTPUT, write_report

DIMENSIONS = (8, 16, 32, 64)
TOKENS = 32
"""Of a text, at most, where tokens are pooled in the space."""
FIGURES = ("top1", "mrr", "hit@5", "pearson", "ndcg@10", "edge_map")
PARTS = ("optimisers", "dimensions", "nested", "pooled")


class Stage(RetrievalTask):
    """The stage as it is, without looks at the validation data on the way: its last epoch counts."""

    looks = 0

    def validate(self) -> dict[str, float]:
        self.looks += 1
        return {"val_loss": 1.0 / self.looks}

    def features_of(self, texts: list[str]) -> Tensor:
        """What `head.direction` takes for texts that are not of the training."""
        found = cached_features(self.encoder, texts, self.config.model.max_tokens, 4096, self.context.work_dir / resolve_precision(self.config.training.trainer.precision, self.device).name)  # fmt: skip
        return torch.from_numpy(found)

    def measure(self) -> Iterator[tuple[str, dict[str, float]]]:
        """(what it is called, figures) of each space that the training made."""
        yield "", self.figures()

    @torch.no_grad()
    def figures(self) -> dict[str, float]:
        texts = [t for t in self.table.split("test") if t.kind == "entry"]
        column = {code: i for i, code in enumerate(self.tree.leaves)}
        target = np.array([column[self.tree.index[t.code]] for t in texts])
        direction = self.head.direction(self.features_of([t.text for t in texts]))
        leaves = torch.from_numpy(self.tree.leaves)
        distances = self.head.to_codes(direction, self.head.text_depth(len(texts)), leaves)
        found = metrics.retrieval(-distances.double().numpy(), target, self.tree)
        found |= metrics.structure(self.head.between(), self.tree)
        return {name: found[name] for name in FIGURES}


class NestedHead(CodesHead):
    """A head whose first `used` dimensions are a space of their own, at the same radii (after Kusupati et al., 2022, "Matryoshka")."""

    used = DIMENSIONS[-1]

    def direction(self, features: Tensor) -> Tensor:
        return nn.functional.normalize((self.linear(features) + self.residual(features))[:, : self.used], dim=-1)

    def codes(self, table: Tensor | None = None) -> tuple[Tensor, Tensor]:
        vectors = self.table if table is None else table
        return soft_cap(polar(vectors)[0], 5.0), polar(vectors[:, : self.used])[1]


class Nested(Stage):
    """All of `DIMENSIONS` in one training: the mean of their losses."""

    def __init__(self, context: StageContext, config: CodesConfig):
        super().__init__(context, config)
        self.head.__class__ = NestedHead

    def losses(self, batch: Any) -> dict[str, Tensor]:
        found = []
        for self.head.used in DIMENSIONS:
            found.append(super().losses(batch))
        return {name: torch.stack([each[name] for each in found]).mean() for name in found[0]}

    def measure(self) -> Iterator[tuple[str, dict[str, float]]]:
        for self.head.used in DIMENSIONS:
            yield f", first {self.head.used} dimensions", self.figures()


class PooledHead(CodesHead):
    """A text is the Lorentz centroid of its tokens' points: ``Σ x / |Σ x|`` (Law et al., 2019). A token's radius is learned; the text's is its level's,
    so that what counts of the centroid is its direction: a mean of the tokens' directions, weighed by the sinh of their radii."""

    store: Any
    """The tokens of all texts: `states` [tokens, width], `start` and `count` of each text."""

    def direction(self, features: Tensor) -> Tensor:
        """features: float [n, 1], numbers of texts; or [n, width] as ever (where the table is started)."""
        if features.shape[-1] > 1:
            return super().direction(features)
        texts = features[:, 0].long()
        count, start = self.store.count[texts], self.store.start[texts]
        owner = torch.repeat_interleave(torch.arange(len(texts)), count)
        first = torch.cumsum(count, 0) - count
        rows = start[owner] + torch.arange(len(owner)) - first[owner]
        states = nn.functional.normalize(self.store.states[rows].float(), dim=-1)
        radius = soft_cap(1 + self.token_radius(states)[:, 0].abs(), 5.0)
        space = torch.sinh(radius).unsqueeze(-1) * super().direction(states)
        total = torch.zeros((len(texts), space.shape[1])).index_add(0, owner, space)
        return nn.functional.normalize(total, dim=-1)


class Pooled(Stage):
    """The encoder's tokens pooled in the space, not before it."""

    def __init__(self, context: StageContext, config: CodesConfig):
        super().__init__(context, config)
        self.head.__class__ = PooledHead
        self.head.token_radius = nn.Linear(self.encoder.width, 1, bias=False)
        nn.init.normal_(self.head.token_radius.weight, std=0.01)
        self.groups["head"] += list(self.head.token_radius.parameters())
        test = [t.text for t in self.table.split("test") if t.kind == "entry"]
        self.numbers = self.number | {text: len(self.number) + i for i, text in enumerate(test)}
        self.head.store = self._tokens(list(self.numbers))

    @torch.inference_mode()
    def _tokens(self, texts: list[str]) -> Any:
        ids = self.encoder.tokenize(texts, TOKENS)
        count = torch.tensor([len(row) for row in ids])
        start = torch.cumsum(count, 0) - count
        states = torch.empty((int(count.sum()), self.encoder.width), dtype=torch.float16)
        for rows in budget_batches(count.tolist(), 4096):
            longest = max(len(ids[row]) for row in rows)
            batch = torch.tensor([ids[row] + [0] * (longest - len(ids[row])) for row in rows])
            mask = torch.tensor([[1] * len(ids[row]) + [0] * (longest - len(ids[row])) for row in rows])
            found = self.encoder.states(batch, mask)
            for i, row in enumerate(rows):
                states[start[row] : start[row] + count[row]] = found[i, : len(ids[row])].half()
        return SimpleNamespace(states=states.clone(), start=start.clone(), count=count.clone())

    def _text_features(self, rows: np.ndarray) -> Tensor:
        return torch.from_numpy(rows).float().unsqueeze(-1)

    def features_of(self, texts: list[str]) -> Tensor:
        return torch.tensor([[float(self.numbers[text])] for text in texts])


class NoCurves:
    """Curves go nowhere."""

    key = ""

    def log(self, values: dict[str, float], step: int) -> None:
        """Nothing."""

    def describe(self, facts: dict[str, Any]) -> None:
        """Nothing."""


def variants(parts: Sequence[str], rates: Sequence[float]) -> Iterator[tuple[str, type[Stage], dict[str, Any]]]:
    """(name, task, changes of the configuration: `table_optimizer`, `learning_rate`, `dim`) of each training of these parts."""
    if "optimisers" in parts:
        for rate in rates:
            shown = "" if rate == 1 else f", rates × {rate:g}"
            yield f"AdamW on tangent vectors{shown}", Stage, {"rate": rate}
            yield f"Riemannian Adam on points{shown}", Stage, {"rate": rate, "optimizer": "riemannian_adam"}
    if "dimensions" in parts:
        for dim in DIMENSIONS[:-1]:
            yield f"AdamW, {dim} dimensions", Stage, {"dim": dim}
    if "nested" in parts:
        yield f"nested {'/'.join(map(str, DIMENSIONS))} in one training", Nested, {}
    if "pooled" in parts:
        yield f"tokens pooled in the space (at most {TOKENS})", Pooled, {}


def train(kind: type[Stage], changes: dict[str, Any], config: CodesConfig, data: Path, work: Path) -> list[dict]:
    """Train, measure; the rows of the table."""
    training = replace(config.training, table_optimizer=changes.get("optimizer", "adamw"), learning_rate=config.training.learning_rate * changes.get("rate", 1.0))  # fmt: skip
    config = replace(config, training=training, model=replace(config.model, dim=changes.get("dim", config.model.dim)))
    place = work / "stage"
    checkpoints = Checkpoints(str(place / str(time.time_ns())), stage="02_stage", digest="", config_text="", lineage={}, info={}, scratch_dir=work / "scratch")  # fmt: skip
    began = time.process_time()
    task = kind(StageContext(config, data, None, work / "features", torch.device("cpu"), Ranks()), config)
    ready = time.process_time()
    try:
        done = run_stage(task, config, checkpoints, Ranks(), tracker=NoCurves(), report=nobody)
    finally:
        checkpoints.close()
    cost = {"steps": done.steps, "training CPU-s": time.process_time() - ready, "before it CPU-s": ready - began}
    task.model.eval()
    return [{"name": name} | figures | cost for name, figures in task.measure()]


def summary(lines: list[dict]) -> list[dict]:
    """The table: means over seeds, and largest - smallest of the first figure."""
    names = list(dict.fromkeys(f"{line['variant']}{line['name']}" for line in lines))
    rows = []
    for name in names:
        found = [line for line in lines if f"{line['variant']}{line['name']}" == name]
        keys = [key for key in found[0] if key not in ("variant", "name", "seed")]
        means = {key: statistics.fmean(line[key] for line in found) for key in keys}
        spread = max(line["top1"] for line in found) - min(line["top1"] for line in found)
        rows.append({"training": name, "seeds": len(found), "top1": means.pop("top1"), "largest - smallest": spread} | means)  # fmt: skip
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.naics_geometry", description=(__doc__ or "").split("\n")[0])  # fmt: skip
    parser.add_argument("--source", default=str(CENSUS), help="folder with the four Census workbooks, or demo")
    parser.add_argument("--seeds", default="0,1,2", help="seeds to train with (default 0,1,2)")
    parser.add_argument("--parts", default=",".join(PARTS), help=f"what to measure (default all: {','.join(PARTS)})")
    parser.add_argument(
        "--rates", default="1", help="of the part `optimisers`: factors of the learning rate (default 1)"
    )
    parser.add_argument("--epochs", type=int, default=0, help="epochs of the stage (default its own)")
    parser.add_argument("--work", type=Path, default=Path(".curricle/geometry"), help="folder of what is measured, prepared and cached")  # fmt: skip
    parser.add_argument("--output", type=Path, default=OUTPUT, help=f"folder of the report (default {OUTPUT})")
    options = parser.parse_args()
    place = options.work / Path(options.source).name
    place.mkdir(parents=True, exist_ok=True)
    made = place / f"measured-{options.epochs or 'own'}-epochs.jsonl"
    config = stage_config("02_stage", f"model.dim={DIMENSIONS[-1]}", source=options.source)
    if options.epochs:
        config = replace(config, training=replace(config.training, trainer=replace(config.training.trainer, max_epochs=options.epochs)))  # fmt: skip
    data = place / "data"
    if not (data / "codes.jsonl").is_file():
        data.mkdir(exist_ok=True)
        prepare(config, data)
    lines = [json.loads(line) for line in made.read_text().splitlines()] if made.is_file() else []
    rates = [float(rate) for rate in options.rates.split(",")]
    for seed in map(int, options.seeds.split(",")):
        for name, kind, changes in variants(options.parts.split(","), rates):
            if any((line["variant"], line["seed"]) == (name, seed) for line in lines):
                continue
            torch.manual_seed(seed)
            for row in train(kind, changes, replace(config, seed=seed), data, place):
                lines.append({"variant": name, "seed": seed} | row)
                with made.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(lines[-1]) + "\n")
                print(json.dumps(lines[-1]), flush=True)
    table: CodeTable = load(data)
    tests = [t for t in table.split("test") if t.kind == "entry"]
    notes = [
        f"{len(tests)} test entries among {len(table.leaves)} codes, by the distance to the code table; structure over all pairs of all codes",
        "before it CPU-s: reading data, the encoder and its features (the first training computes them)",
    ]
    seeds = sorted({line["seed"] for line in lines})
    write_report(f"naics_geometry-{place.name}", summary(lines), options.output, seeds=seeds, notes=notes)


if __name__ == "__main__":
    main()
