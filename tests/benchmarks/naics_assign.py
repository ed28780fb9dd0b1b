"""Throughput of `curricle assign` on one core, after loading, on real index entries.

python -m tests.benchmarks.naics_assign --model URI [--data URI] [--texts 2000]
"""

from __future__ import annotations

import argparse
import csv
import itertools
import resource
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from curricle.families.codes.coder import Coder
from curricle.families.codes.prepare import load
from curricle.families.codes.scorer import Scorer
from curricle.steps.assign import Opened, assign_table
from curricle.steps.assigned import Order
from tests.benchmarks.naics_models import CACHE, open_trained
from tests.benchmarks.report import OUTPUT, write_report


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.naics_assign", description="Texts a second of `assign` on one core."
    )
    parser.add_argument("--model", required=True, metavar="URI", help="trained stage or checkpoint")
    parser.add_argument(
        "--data", default="", metavar="URI", help="prepared data; default what the model was trained with"
    )
    parser.add_argument("--texts", type=int, default=2000, help="index entries of the test split (default 2000)")
    parser.add_argument("--repeats", type=int, default=3, help="runs over them (default 3)")
    parser.add_argument("--output", type=Path, default=OUTPUT, help=f"folder of the report (default {OUTPUT})")
    options = parser.parse_args()
    torch.set_num_threads(1)
    model = open_trained(options.model, options.data)
    entries = [t for t in load(model.data_dir).split("test") if t.kind == "entry"]
    chosen = [entries[i] for i in np.random.default_rng(0).permutation(len(entries))[: options.texts]]
    start, cpu = time.perf_counter(), time.process_time()
    Scorer.load(model.folder, model.data_dir)
    cold = (time.perf_counter() - start, time.process_time() - cpu)
    start, cpu = time.perf_counter(), time.process_time()
    coder = Coder(model.folder, lambda: model.data_dir)
    opened = Opened(coder, "", "")
    coder.search(["warm"], 1)
    warm = (time.perf_counter() - start, time.process_time() - cpu)
    rows, right = [], {}
    with tempfile.TemporaryDirectory() as folder:
        source, output = Path(folder, "in.csv"), Path(folder, "out.csv")
        with source.open("w", encoding="utf-8", newline="") as out:
            writer = csv.writer(out)
            writer.writerow(["text", "code"])
            writer.writerows((t.text, t.code) for t in chosen)
        coder.search([t.text for t in chosen[:64]], 1)
        for run, fast in itertools.product(range(options.repeats), (False, True)):
            start, cpu = time.perf_counter(), time.process_time()
            count = assign_table(source, output, Order(column="text", prefix="found_", fast=fast), lambda: opened).rows
            wall, used = time.perf_counter() - start, time.process_time() - cpu
            rows.append(
                {
                    "what": f"assign{' --fast' * fast}, run {run + 1}",
                    "texts": count,
                    "texts/s (wall)": count / wall,
                    "texts/s (CPU)": count / used,
                    "seconds": wall,
                    "CPU-s": used,
                }
            )
            with output.open(encoding="utf-8", newline="") as lines:
                right[fast] = sum(row["code"] == row["found_code"] for row in csv.DictReader(lines))
    waits = []
    for t in chosen[:50]:
        start = time.perf_counter()
        coder.search([t.text], 5)
        waits.append(time.perf_counter() - start)
    median = float(np.median(waits))
    rows.append(
        {
            "what": "search, one text at a time (median of 50)",
            "texts": 50,
            "texts/s (wall)": 1 / median,
            "seconds": median,
        }
    )
    rows.append({"what": "loading, caches as they were", "seconds": cold[0], "CPU-s": cold[1]})
    rows.append({"what": "loading, caches there", "seconds": warm[0], "CPU-s": warm[1]})
    notes = [
        "one thread; `assign_table` as the command runs it: reads a CSV, scores, writes a CSV; model, features and n-gram index are loaded before",
        f"real index entries of the test split, drawn with seed 0; {right[False] / len(chosen):.4f} of them got the right code, {right[True] / len(chosen):.4f} with --fast (the work that was timed was the real work)",
        f"peak memory of the process {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GB; feature cache in {CACHE / 'work'}",
        f"model {model.uri}",
    ]
    write_report("naics_assign", rows, options.output, seeds=[0], notes=notes)


if __name__ == "__main__":
    main()
