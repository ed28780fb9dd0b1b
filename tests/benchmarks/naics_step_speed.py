"""Speed of a NAICS training step on the real Census data, against the naive scheme (`naive.py`), in one run.

    python -m tests.benchmarks.naics_step_speed [--source FOLDER] [--naive-steps 2]

Three sides, each with forward, backward, gradient clipping and AdamW, in the same precision, on one thread:

- `03_stage`: the stage as shipped. A row is a labelled text.
- `codes`: the contrastive objective with the encoder in training on whole codes, so that a row is what it is on the naive side.
- `naive`: the reference's scheme. A row is a code with its four channels.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from curricle.families.codes.prepare import load
from curricle.families.codes.task import build
from curricle.families.codes.triplets import sample
from curricle.training.distributed import Ranks
from curricle.training.precision import resolve_precision
from curricle.training.task import StageContext
from tests.benchmarks.naics_models import CACHE, CENSUS, prepared, stage_config
from tests.benchmarks.naive import NaiveModel
from tests.benchmarks.report import OUTPUT, write_report

CODES = (
    "curriculum.features=live",
    "curriculum.trainable=[encoder,fusion,head,temperature,radius]",
    "curriculum.n_negatives=24",
)
"""The classic first stage with the encoder trained: anchors, positives and 24 negatives a pair, all of the batch shared."""


class Side:
    """One way to train, step by step; counts what a step did."""

    def __init__(
        self,
        name: str,
        parameters: list[torch.nn.Parameter],
        autocast: Callable[[], AbstractContextManager],
        device: torch.device,
    ):
        self.name, self.parameters, self.autocast, self.device = name, parameters, autocast, device
        self.optimizer = torch.optim.AdamW(parameters, lr=1e-5)
        self.wall: list[float] = []
        self.cpu: list[float] = []
        self.counts: list[dict[str, int]] = []

    def step(self, loss: Callable[[], torch.Tensor], counts: dict[str, int], *, timed: bool) -> None:
        """One optimiser step."""
        self._settle()
        wall, cpu = time.perf_counter(), time.process_time()
        self.optimizer.zero_grad(set_to_none=True)
        with self.autocast():
            value = loss()
        value.backward()
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimizer.step()
        self._settle()
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        print(
            f"{self.name}: {'step' if timed else 'warm-up'} {wall:.2f} s, loss {float(value.detach()):.4f}",
            file=sys.stderr,
            flush=True,
        )
        if timed:
            self.wall.append(wall)
            self.cpu.append(cpu)
            self.counts.append(counts)

    def _settle(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def row(self) -> dict[str, Any]:
        """The side's line of the table. On a CPU, time is CPU time of the one thread, so that neighbours do not count."""
        spent = self.wall if self.device.type == "cuda" else self.cpu
        total = {name: sum(c[name] for c in self.counts) for name in self.counts[0]}
        rates = [c["rows"] / t for c, t in zip(self.counts, spent, strict=True)]
        return {
            "side": self.name, "steps": len(spent), "s a step": statistics.fmean(spent), "s a step (wall)": statistics.fmean(self.wall),
            "rows a step": total["rows"] / len(spent), "triplets a step": total["triplets"] / len(spent), "tokens a step": total["tokens"] / len(spent),
            "rows/s": total["rows"] / sum(spent), "rows/s, least-most": f"{min(rates):.4g}-{max(rates):.4g}", "triplets/s": total["triplets"] / sum(spent),
        }  # fmt: skip


def ours(
    name: str,
    stage: str,
    overrides: tuple[str, ...],
    data_dir: Path,
    options: argparse.Namespace,
    steps: int,
    warmup: int,
) -> Side:
    """Steps of the family's own task for a stage."""
    config = stage_config(stage, *overrides, f"training.trainer.precision={options.precision}", source=options.source)
    device = torch.device(options.device)
    task = build(StageContext(config, data_dir, None, CACHE / "work", device, Ranks(device=device)))
    task.model.train()
    precision = resolve_precision(config.training.trainer.precision, device)
    side = Side(name, [p for g in task.parameter_groups() for p in g["params"]], precision.autocast, device)
    batches = task.batches(0)
    for i in range(warmup + steps):
        torch.manual_seed(i)
        batch = batches[i % len(batches)]
        encoded: list[int] = []
        count = task.encoder.encode
        task.encoder.encode = lambda ids, budget, count=count, encoded=encoded: (
            encoded.extend(map(len, ids)),
            count(ids, budget),
        )[1]
        made: dict[str, int] = {}
        side.step(lambda batch=batch: task.losses(batch)["loss"], made, timed=i >= warmup)
        task.encoder.encode = count
        made |= {"tokens": sum(encoded)} | counted(task, batch)
    return side


def counted(task: Any, batch: Any) -> dict[str, int]:
    """Rows and triplets of the step that was just taken."""
    if hasattr(batch, "items"):
        sizes = np.bincount(task.tree.depth)[1:]
        ancestors = task.tree.ancestors[task.target[batch.items]] >= 0
        return {"rows": len(batch.items), "triplets": int((ancestors * (sizes - 1)).sum())}
    held = np.concatenate([batch.anchors, batch.positives, batch.negatives.ravel()])
    pairs = task.scalars()["train/global_batch/global_k_negatives"] * len(batch.anchors)
    return {"rows": len(np.unique(held[held >= 0])), "triplets": round(pairs)}


def naive(data_dir: Path, options: argparse.Namespace) -> Side:
    """Steps of the naive scheme."""
    config = stage_config(
        "classic_01",
        "curriculum.n_negatives=24",
        f"training.trainer.precision={options.precision}",
        source=options.source,
    )
    table, device = load(data_dir), torch.device(options.device)
    torch.manual_seed(0)
    model = NaiveModel(config.model.encoder)
    model.read(table)
    model.to(device).train()
    triplets = sample(table, config.curriculum, 0)
    assert triplets.negatives is not None
    whole = np.flatnonzero((triplets.negatives >= 0).all(1))
    order = whole[np.random.default_rng(0).permutation(len(whole))]
    side = Side(
        "naive",
        [p for p in model.parameters() if p.requires_grad],
        resolve_precision(config.training.trainer.precision, device).autocast,
        device,
    )
    for i in range(options.naive_steps + 1):
        timed = i > 0
        rows = order[i * options.naive_pairs : (i + 1) * options.naive_pairs]
        negatives = triplets.negatives[rows] if timed else triplets.negatives[rows, :1]
        count = len(rows) * (2 + negatives.shape[1])
        counts = {"rows": count, "triplets": negatives.size, "tokens": count * (24 + 3 * 512)}
        side.step(
            lambda rows=rows, negatives=negatives: model.loss(
                triplets.anchors[rows], triplets.positives[rows], negatives
            ),
            counts,
            timed=timed,
        )
    return side


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.naics_step_speed", description="Training step against the naive scheme."
    )
    parser.add_argument("--source", type=Path, default=CENSUS, help="folder with the four Census workbooks")
    parser.add_argument("--steps", type=int, default=40, help="timed steps of 03_stage (default 40)")
    parser.add_argument("--code-steps", type=int, default=2, help="timed steps on whole codes (default 2)")
    parser.add_argument(
        "--code-pairs", type=int, default=16, help="pairs of a step on whole codes (default 16); memory grows with them"
    )
    parser.add_argument("--naive-steps", type=int, default=2, help="timed steps of the naive scheme (default 2)")
    parser.add_argument("--naive-pairs", type=int, default=1, help="pairs of a naive step, 26 rows each (default 1)")
    parser.add_argument("--precision", default="auto", help="of all sides (default auto)")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"), help="of all sides (default cpu)")
    parser.add_argument("--output", type=Path, default=OUTPUT, help=f"folder of the report (default {OUTPUT})")
    options = parser.parse_args()
    options.source = options.source.resolve()
    torch.set_num_threads(1)
    data_dir = prepared(stage_config("03_stage", source=options.source))
    text = ours("03_stage", "03_stage", (), data_dir, options, options.steps, 5)
    codes = ours(
        "codes",
        "classic_01",
        (*CODES, f"data_loader.batch_size={options.code_pairs}"),
        data_dir,
        options,
        options.code_steps,
        1,
    )
    slow = naive(data_dir, options)
    rows = [side.row() for side in (text, codes, slow)]
    for row in rows:
        row["rows/s vs naive"] = row["rows/s"] / rows[-1]["rows/s"]
        row["triplets/s vs naive"] = row["triplets/s"] / rows[-1]["triplets/s"]
    precision = resolve_precision(options.precision, torch.device(options.device)).name
    notes = [
        f"all sides: {precision}, one thread, real Census data, forward, backward, clipping and AdamW; {'wall' if options.device == 'cuda' else 'CPU'} seconds where not said otherwise",
        "row: one item that the encoder takes in for the step. 03_stage: a labelled text (index entry, cross-reference phrase, title or description). "
        "codes: a distinct code with its channels that are there, encoded once however many pairs use it. naive: a code with four padded channels, each time it occurs",
        "triplet: (anchor, positive, negative) whose comparison is in the loss, with gradient. 03_stage: (text, its code or ancestor at a level, another code of that level). "
        "codes: (anchor, positive, a code of the batch's pool that is farther in the tree). naive: (anchor, positive, one of the pair's own 24 negatives)",
        "tokens: real ones for ours; slots (3 x 512 + 24 a row) for the naive scheme",
        "codes and naive: same codes, same 24 drawn negatives a pair (classic_01); ours cuts a channel at model.max_tokens (128), the naive scheme at 512",
        "the naive scheme's LambdaRank and hierarchy terms and its data loader are left out, which makes it faster than it was",
    ]
    notes.append(f"peak memory of the process {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.1f} GB")
    write_report("naics_step_speed", rows, options.output, seeds=[0], notes=notes)


if __name__ == "__main__":
    main()
