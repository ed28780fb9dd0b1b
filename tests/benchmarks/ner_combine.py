"""Combining two NER datasets, of 500 MB each if not said otherwise, validated, shuffled, split and written: ours against Hugging Face `datasets`, in one run.

    CURRICLE_SHARED=../shared python -m tests.benchmarks.ner_combine [--rounds 3] [--datasets] [--megabytes 500]

`--datasets` needs `pip install datasets`, which is in no environment of ours. Each way runs in a process of its own; the records are
about 4 KB, cut together from SkillSpan's sentences, and are deleted afterwards. Private memory is what the processes of a way wrote
(anonymous pages, all its processes together) beyond what they had after their imports; the offset index is counted apart.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.benchmarks.report import OUTPUT, write_report

DATA = Path(os.environ.get("CURRICLE_SHARED", "../shared")) / "data/ner/skillspan"
RECORD = 3_400
"""Characters of a record's text; with its annotations about 4 KB."""


def generate(source: Path, target: Path, seed: int, size: int) -> int:
    """Write `size` bytes of records into train.json, a JSON array as the seed writes it; how many."""
    sentences = [
        (r["text"] + " ", r["annotations"]) for r in json.loads((source / "train.json").read_text(encoding="utf-8"))
    ]
    draw = random.Random(seed)
    target.mkdir(parents=True)
    written = count = 0
    with (target / "train.json").open("w", encoding="utf-8") as out:
        out.write("[")
        while written < size:
            parts, spans, at = [], [], 0
            while at < RECORD:
                text, found = draw.choice(sentences)
                spans += [[start + at, end + at, label] for start, end, label in found]
                parts.append(text)
                at += len(text)
            line = (",\n" if count else "") + json.dumps(
                {"text": "".join(parts), "annotations": spans}, ensure_ascii=False
            )
            written += out.write(line)
            count += 1
        out.write("]\n")
    return count


OURS = """
from curricle.families.ner.combine import combine_datasets
ready()
made = combine_datasets(old, new, "combined", 0.1, 42, output_dir=out)
index = sum(a.nbytes for f in made.train._files for a in (f.starts, f.ends, f.groups, f.keys)) + sum(p._which.nbytes + p._rows.nbytes for p in made.values())
done(index=index, train=len(made["train"]), validation=len(made["validation"]))
"""
THEIRS = """
import datasets
datasets.disable_progress_bars()
datasets.config.HF_DATASETS_CACHE = datasets.config.HF_DATASETS_CACHE.__class__(out) / "cache"
span = {"start": datasets.Value("int64"), "end": datasets.Value("int64"), "label": datasets.Value("string")}
features = datasets.Features({"text": datasets.Value("string"), "annotations": [span]})
def records(path):
    with open(path + "/train.json", encoding="utf-8") as file:
        for r in json.load(file):
            yield {"text": r["text"], "annotations": [dict(zip(span, s)) for s in r["annotations"]]}
ready()
parts = [datasets.Dataset.from_generator(records, features=features, gen_kwargs={"path": p}, cache_dir=out + "/cache") for p in (old, new)]
split = datasets.concatenate_datasets(parts).shuffle(seed=42).train_test_split(0.1, seed=42)
split["train"].to_json(out + "/train.jsonl")
split["test"].to_json(out + "/validation.jsonl")
done(train=len(split["train"]), validation=len(split["test"]))
"""
FRAME = """
import json, os, sys, time
old, new, out = sys.argv[1:]
def cpu(): return sum(os.times()[:4])
def say(**facts): print(json.dumps(facts), flush=True)
def ready():
    global begin, used
    say(ready=True); sys.stdin.readline(); begin, used = time.perf_counter(), cpu()
def done(**facts): say(seconds=time.perf_counter() - begin, cpu=cpu() - used, **facts)
"""


def private(pid: int) -> int:
    """Anonymous private bytes of a process and its children."""
    total = 0
    pids = [pid]
    for one in pids:
        try:
            pids += [int(p) for p in Path(f"/proc/{one}/task/{one}/children").read_text().split()]
            total += sum(
                1024 * int(line.split()[1])
                for line in Path(f"/proc/{one}/smaps_rollup").read_text().splitlines()
                if line.startswith("Private_Dirty")
            )
        except OSError:  # it has ended meanwhile
            continue
    return total


def measured(name: str, code: str, folders: list[Path], out: Path) -> dict:
    """Run one way once."""
    shutil.rmtree(out, ignore_errors=True)
    os.sync()
    process = subprocess.Popen(
        [sys.executable, "-c", FRAME + code, *map(str, folders), str(out)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert json.loads(process.stdout.readline()) == {"ready": True}
    before = peak = private(process.pid)
    process.stdin.write("\n")
    process.stdin.flush()
    while process.poll() is None:
        peak = max(peak, private(process.pid))
        time.sleep(0.1)
    facts = json.loads(process.stdout.read())
    index = facts.get("index", 0)
    row = {"way": name, "seconds": facts["seconds"], "CPU-s": facts["cpu"], "private MB": (peak - before) / 1e6, "of it index MB": index / 1e6,
           "beyond the index MB": (peak - before - index) / 1e6, "train": facts["train"], "validation": facts["validation"],
           "load before": os.getloadavg()[0]}  # fmt: skip
    print(row, file=sys.stderr, flush=True)
    return row


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.ner_combine",
        description="Combine two NER datasets, against Hugging Face datasets.",
    )
    parser.add_argument("--rounds", type=int, default=3, help="runs of ours; all are reported (default 3)")
    parser.add_argument("--megabytes", type=int, default=500, help="size of each of the two datasets (default 500)")
    parser.add_argument("--datasets", action="store_true", help="also Hugging Face datasets, once")
    parser.add_argument(
        "--work", type=Path, default=None, help="folder on the disk to measure (default the system's temporary one)"
    )
    parser.add_argument("--output", type=Path, default=OUTPUT, help=f"folder of the report (default {OUTPUT})")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.work) as work:
        folders = [Path(work) / name for name in ("old", "new")]
        counts = [
            generate(DATA / domain, folder, seed, options.megabytes * 1_000_000)
            for seed, (domain, folder) in enumerate(zip(("house", "tech"), folders, strict=True))
        ]
        rows = [measured("curricle", OURS, folders, Path(work) / "out") for _ in range(options.rounds)]
        if options.datasets:
            rows.append(
                measured("datasets: from_generator with typed features", THEIRS, folders, Path(work) / "theirs")
            )
    rows.sort(key=lambda row: row["seconds"])
    notes = [
        f"{sum(counts)} records in two JSON arrays of {options.megabytes} MB; both ways shuffle, split 10 % off and write JSON Lines; only ours checks "
        "every record and removes duplicates",
        "files are in the page cache; seconds without the start of Python and imports",
    ]
    write_report("ner_combine", rows, options.output, seeds=[0, 1], notes=notes)


if __name__ == "__main__":
    main()
