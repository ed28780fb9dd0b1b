"""NER training speed: our task and loop against the transformers `Trainer` as its token-classification example sets it up, in one run.

    CURRICLE_SHARED=../shared python -m tests.benchmarks.ner_speed [--records 1000]

The other side is `run_ner.py` of transformers: words in, first sub-words labelled, `DataCollatorForTokenClassification`, batches drawn
at random and padded to their longest. Encoder, records, batch size, epochs, learning rate, optimiser, clipping and thread are the
same, and both write weights and optimiser after each epoch; the scores are those of one scorer (exact spans). CPU-s are those of
training alone, without evaluation.
`Trainer` needs `accelerate`, which peft brings along.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from curricle.families.ner import task as ner_task
from curricle.families.ner.config import NerConfig, NerData, NerTraining
from curricle.families.ner.formats import load_records, spans_of
from curricle.families.ner.labels import tags_of
from curricle.families.ner.model import build_model
from curricle.families.ner.predict import load_tagger
from curricle.families.ner.prepare import prepare
from curricle.families.ner.tagger import ScoredSet, Tagger
from curricle.training.checkpoint import Checkpoints
from curricle.training.distributed import Ranks
from curricle.training.loop import run_stage
from curricle.training.precision import resolve_precision
from curricle.training.task import StageContext
from curricle.training.tracking import NoTracker
from tests.benchmarks.report import OUTPUT, write_report

DATA = Path(os.environ.get("CURRICLE_SHARED", "../shared")) / "data/ner/wnut17"
CPU = torch.device("cpu")


def ours(config: NerConfig, work: Path) -> tuple[Tagger, float]:
    """Trained by our loop; the CPU-s."""
    ranks = Ranks()
    task = ner_task.build(
        StageContext(config=config, data_dir=work / "data", parent_dir=None, work_dir=work, device=CPU, ranks=ranks)
    )
    looking, validate = 0.0, task.validate

    def timed() -> dict[str, float]:
        nonlocal looking
        begin = time.process_time()
        found = validate()
        looking += time.process_time() - begin
        return found

    task.validate = timed
    checkpoints = Checkpoints(
        str(work / "stage"),
        stage="stage",
        digest="d",
        config_text="",
        lineage={},
        info={},
        scratch_dir=work / "scratch",
    )
    begin = time.process_time()
    try:
        result = run_stage(task, config, checkpoints, ranks, tracker=NoTracker(), report=lambda event: None)
    finally:
        checkpoints.close()
    spent = time.process_time() - begin - looking
    return load_tagger(work / "stage" / result.best), spent


def theirs(config: NerConfig, work: Path, bf16: bool) -> tuple[Tagger, float]:
    """Trained by `Trainer`; the CPU-s of its `train`."""
    from transformers import DataCollatorForTokenClassification, Trainer, TrainingArguments

    tags = tags_of(json.loads((work / "data/labels.json").read_text(encoding="utf-8")))
    model, tokenizer, _ = build_model(config.model.encoder, tags, seed=config.seed)
    trainer = Trainer(
        model=model, train_dataset=tokenized(load_records(work / "data/train.jsonl"), tokenizer, tags), data_collator=DataCollatorForTokenClassification(tokenizer),
        args=TrainingArguments(output_dir=str(work / "trainer"), per_device_train_batch_size=config.data_loader.batch_size, seed=config.seed, bf16=bf16,
                               learning_rate=config.training.learning_rate, num_train_epochs=config.training.trainer.max_epochs, use_cpu=True,
                               save_strategy="epoch", report_to=[], disable_tqdm=True, logging_strategy="no"))  # fmt: skip
    begin = time.process_time()
    trainer.train()
    spent = time.process_time() - begin
    return Tagger(
        model.eval(), tokenizer, tags, CPU, max_tokens=config.model.max_tokens, stride=config.model.stride
    ), spent


def tokenized(records: list[dict], tokenizer: Any, tags: tuple[str, ...]) -> list[dict]:
    """run_ner's `tokenize_and_align_labels` on words at single spaces, as the corpus has them."""
    rows = []
    for record in records:
        words, at, named = record["text"].split(" "), 0, []
        spans = spans_of(record)
        for word in words:
            inside = next(((s, label) for s, e, label in spans if s <= at < e), None)
            named.append("O" if inside is None else f"{'B' if inside[0] == at else 'I'}-{inside[1]}")
            at += len(word) + 1
        made = tokenizer(words, is_split_into_words=True, truncation=True, max_length=128)
        ids = made.word_ids()
        made["labels"] = [
            -100 if w is None or (i and ids[i - 1] == w) else tags.index(named[w]) for i, w in enumerate(ids)
        ]
        rows.append(dict(made))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.ner_speed",
        description="Examples a CPU-second of NER training, against transformers' Trainer.",
    )
    parser.add_argument("--records", type=int, default=0, help="only so many training records; 0: all of WNUT-17")
    parser.add_argument("--same-precision", action="store_true", help="leave out Trainer at its default 32-true")
    parser.add_argument("--rate", type=float, default=4e-4, help="learning rate of all (default 4e-4)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=OUTPUT, help=f"folder of the report (default {OUTPUT})")
    options = parser.parse_args()
    precision = resolve_precision("auto", CPU).name
    with tempfile.TemporaryDirectory() as place:
        work = Path(place)
        (work / "source").mkdir()
        for split in ("train", "validation", "test"):
            records = json.loads((DATA / f"{split}.json").read_text(encoding="utf-8"))
            (work / f"source/{split}.json").write_text(
                json.dumps(records[: options.records or None] if split == "train" else records), encoding="utf-8"
            )
        config = NerConfig(
            seed=options.seed,
            data=NerData(new_dataset_path=str(work / "source")),
            training=NerTraining(learning_rate=options.rate),
        )
        prepare(config, work / "data")
        count = len(load_records(work / "data/train.jsonl")) * config.training.trainer.max_epochs
        ways = {
            f"curricle, {precision}": lambda: ours(config, work),
            f"Trainer, {precision}": lambda: theirs(config, work, precision == "bf16-mixed"),
        }
        if precision != "32-true" and not options.same_precision:
            ways["Trainer, its default 32-true"] = lambda: theirs(config, work, False)
        rows = []
        for name, train in ways.items():
            tagger, spent = train()
            row = {"way": name, "examples/CPU-s": count / spent, "CPU-s": spent}
            for split in ("validation", "test"):
                scores, _ = ScoredSet(work / f"data/{split}.jsonl", tagger).score(tagger)
                row[f"{split} F1"] = 100 * scores["all"]["f1"]
            rows.append(row)
            print(row, file=sys.stderr, flush=True)
        for row in rows:
            row["curricle is faster by"] = rows[0]["examples/CPU-s"] / row["examples/CPU-s"]
    notes = [
        f"WNUT-17, {count // config.training.trainer.max_epochs} training records, {config.training.trainer.max_epochs} epochs, batches of "
        f"{config.data_loader.batch_size}, learning rate {config.training.learning_rate:g}, {config.model.encoder}"
    ]
    write_report("ner_speed", rows, options.output, seeds=[options.seed], notes=notes)


if __name__ == "__main__":
    main()
