"""NAICS 2017 carried to 2022 against training on 2022 from nothing: quality on the same test texts, on those whose code changed, and cost.

    python -m tests.benchmarks.naics_crosswalk [--seed 0] [--chain chain_smoke] [--place FOLDER] [--scorer]

Both years' index entries of the Census are the labelled texts. Their split goes by a hash of a text's word set, so that a text that stands in both years is on the same side
in both. All is measured on the test entries of 2022, by their official codes; no model sees their words. What is trained already in the folder is not trained again.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import resource
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from curricle.families.codes import metrics
from curricle.families.codes.carrying import read_carried
from curricle.families.codes.evaluate import texts_of, through
from curricle.families.codes.labelled import text_number, word_set
from curricle.families.codes.model_torch import TorchModel
from curricle.families.codes.prepare import CodeTable, load
from curricle.families.codes.scorer import Scorer
from curricle.families.codes.task import distinct_texts
from curricle.families.codes.use import open_checkpoint
from curricle.families.codes.workbooks import hierarchy, read_workbooks
from curricle.steps.evaluate import data_of
from curricle.steps.use import open_model
from curricle.store.manifest import fetch
from tests.benchmarks.naics_models import CACHE, CENSUS
from tests.benchmarks.report import OUTPUT, ROOT, write_report

SHORT = [
    "curriculum.features=cached",
    "curriculum.trainable=[head,table,temperature,radius]",
    "curriculum.loss.stress=10",
    "curriculum.loss.smoothing=0",
    "model.max_tokens=128",
    "data_loader.batch_size=256",
    "training.learning_rate=1e-3",
    "training.trainer.max_epochs=2",
]
"""What makes the training after a crosswalk one of the short chain: as its 02_stage, but shorter."""
OLD = CENSUS.parent / "classifications" / "naics2017"
CONCORDANCE = OLD / "naics2017_naics2022.csv"


def split_of(text: str) -> str:
    """The same for the same words: 15 % test, 5 % validation."""
    draw = text_number("split " + "\n".join(word_set(text))) % 100
    return "test" if draw < 15 else "validation" if draw < 20 else "train"


def write_tables(place: Path) -> None:
    """`codes<year>.csv` and `texts<year>.csv` of both years."""
    place.mkdir(parents=True, exist_ok=True)
    with (OLD / "codes.csv").open(encoding="utf-8-sig", newline="") as file:
        old = [(row["code"], row["title"]) for row in csv.DictReader(file)]
    with (OLD / "index.csv").open(encoding="cp1252", newline="") as file:
        rows = [(row["INDEX ITEM DESCRIPTION"].strip(), row["NAICS17"]) for row in csv.DictReader(file)]
    known = {code for code, _ in old}
    _write(place / "codes2017.csv", ("code", "title"), old)
    _write(place / "texts2017.csv", ("text", "code", "split"), [(t, c, split_of(t)) for t, c in rows if c in known])
    sources = read_workbooks(CENSUS)
    above = dict(zip(sources.titles, hierarchy(sources.titles)[0], strict=True))
    codes = [(code, title, above[code] or "") for code, title in sources.titles.items()]
    _write(place / "codes2022.csv", ("code", "title", "parent"), codes)
    _write(place / "texts2022.csv", ("text", "code", "split"), [(t, c, split_of(t)) for c, t in sources.entries])


def _write(path: Path, head: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([head, *rows])


def run(place: Path, name: str, *argv: str) -> float:
    """A command of curricle in the folder; its CPU-s, remembered from the first time."""
    record = place / f"{name}.cost.json"
    if record.is_file():
        return float(json.loads(record.read_text()))
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    print("$ curricle", *argv, file=sys.stderr, flush=True)
    path = os.pathsep.join([str(ROOT / "src"), str(ROOT)])
    subprocess.run(
        [sys.executable, "-c", "from curricle.cli import main; main()", *argv],
        cwd=place, env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path}, check=True)  # fmt: skip
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cost = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    record.write_text(json.dumps(cost))
    return cost


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--chain", default="chain_smoke")
    parser.add_argument("--place", type=Path, default=CACHE / "benchmarks" / "crosswalk")
    parser.add_argument(
        "--scorer",
        action="store_true",
        help="measure as `evaluate` does, with all opinions weighed; else by the code table alone",
    )
    given = parser.parse_args()
    place = given.place.resolve()
    if not (place / "texts2022.csv").is_file():
        write_tables(place)
    common = ["--config", str(ROOT / "config" / "config.yaml"), f"seed={given.seed}", "tracking.mlflow=false"]
    cost = {year: train(place, year, given.chain, given.seed, common) for year in (2017, 2022)}
    old, nothing = (f"{given.chain}-{year}-seed{given.seed}" for year in (2017, 2022))
    carried = f"carried-seed{given.seed}"
    tables = place / carried
    cost[carried] = run(
        place, carried, "crosswalk", str(CONCORDANCE), "--model", old, "--classification", str(place / "codes2022.csv"), "-o", str(tables), "--run-id", carried,
        "--gate", "", *common, *SHORT, "paths.cache_dir=.cache-2017")  # fmt: skip
    os.chdir(place)
    models = {run: open_model(run, "checkpoints") for run in (old, nothing, carried)}
    data = {run: fetch(data_of(model.manifest, model.uri), CACHE)[0] for run, model in models.items()}
    asked = load(data[nothing])
    texts, target = texts_of(asked, "test")
    trained = {word_set(t.text) for place in data.values() for t in load(place).texts if t.split == "train" and t.kind != "description"}  # fmt: skip
    kept = np.array([word_set(t.text) not in trained for t in texts])  # a title of 2017 may be an entry of 2022
    texts, target = [t for t, keep in zip(texts, kept, strict=True) if keep], target[kept]
    record = read_carried(data[carried])
    assert record is not None
    changed = changed_codes(asked, record.targets)
    rows = []
    for name, run_id, spent in (
        ("2017 model through the concordance, not trained", old, 0.0),
        ("2022 from nothing", nothing, cost[2022]),
        ("2017 model carried and trained further", carried, cost[carried]),
    ):
        known, logs = said(models[run_id].folder, data[run_id], [t.text for t in texts], given.scorer)
        if run_id == old:
            logs = np.log(np.maximum(np.exp(logs) @ through(known.tree, asked.tree, record.targets), 1e-30))
        found: dict = {
            "model": name,
            "training CPU-s": round(spent),
            "texts encoded": len(distinct_texts(load(data[run_id]))) if spent else 0,
        }
        for part, chosen in (("all", np.ones(len(texts), dtype=bool)), ("changed", np.isin(target, changed))):
            values = metrics.retrieval(logs[chosen], target[chosen], asked.tree)
            found |= {f"{part}: {m}": values[m] for m in ("top1", "mrr", "hit@5")} | {
                f"{part}: texts": int(chosen.sum())
            }
        rows.append(found)
        print(found, file=sys.stderr, flush=True)
    notes = [
        f"changed: test texts of the {len(changed)} codes of 2022 that are not one code of 2017 with the same number",
        placed(tables, place),
    ]
    write_report("naics_crosswalk", rows, OUTPUT, seeds=[given.seed], notes=notes)


def said(folder: Path, data_dir: Path, texts: list[str], scorer: bool) -> tuple[CodeTable, np.ndarray]:
    """The data of a model, and its log-probabilities [n, leaves] for texts: all opinions weighed, or the distance to the codes alone."""
    if scorer:
        made = Scorer.load(folder, data_dir)
        return made.table, made.scored(texts).logs
    model = TorchModel(*open_checkpoint(folder, data_dir), CACHE / "work")
    return model.table, model.distances(model.directions(model.features(texts)))


def changed_codes(asked: CodeTable, targets: Mapping[str, tuple[str, ...]]) -> np.ndarray:
    """Columns of the codes of 2022 that do not come from the code of the same number alone."""
    sources: dict[str, list[str]] = {}
    for before, after in targets.items():
        for code in after:
            sources.setdefault(code, []).append(before)
    return np.array([i for i, leaf in enumerate(asked.leaves) if sources.get(asked.codes[leaf]) != [asked.codes[leaf]]])


def placed(tables: Path, place: Path) -> str:
    """How often the model placed a text of a split code where the index of 2022 has it."""
    with (place / "texts2022.csv").open(encoding="utf-8", newline="") as file:
        official = {row["text"].casefold(): row["code"] for row in csv.DictReader(file)}
    with (tables / "texts.csv").open(encoding="utf-8-sig", newline="") as file:
        rows = [
            row
            for row in csv.DictReader(file)
            if row["crosswalked_by"] == "model" and row["text"].casefold() in official
        ]
    right = sum(official[row["text"].casefold()] == row["code"] for row in rows)
    return f"texts of split codes that the model placed and that stand in the index of 2022: {len(rows)}, of them as there: {right}"


def train(place: Path, year: int, chain: str, seed: int, common: list[str]) -> float:
    """Train the chain on one year's texts, with a feature cache of its own; CPU-s."""
    data = [f"data.classification={place / f'codes{year}.csv'}", f"data.labelled={place / f'texts{year}.csv'}"]
    run_id = f"{chain}-{year}-seed{seed}"
    return run(place, run_id, "train-curriculum", "--chain", chain, "--run-id", run_id, *common, *data, f"paths.cache_dir=.cache-{year}")  # fmt: skip


if __name__ == "__main__":
    main()
