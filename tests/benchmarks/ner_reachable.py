"""Which share of gold spans a tokenizer lets a tagger reach at all: real texts with normal punctuation, by kind of tokenizer.

    CURRICLE_SHARED=../shared python -m tests.benchmarks.ner_reachable

The tokenizers are built as transformers builds those kinds, with vocabularies trained on the same texts (none can be fetched here);
`tests/families/ner/test_words.py` holds them to 99 %.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from curricle.families.ner.formats import load_records
from tests.benchmarks.report import OUTPUT, write_report
from tests.families.ner.test_words import punctuated, reached, trained

DATA = Path(os.environ.get("CURRICLE_SHARED", "../shared")) / "data/ner"


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.ner_reachable", description="Reachable gold spans by kind of tokenizer."
    )
    parser.add_argument("--records", type=int, default=1200, help="of each dataset (default 1200)")
    parser.add_argument("--output", type=Path, default=OUTPUT, help=f"folder of the report (default {OUTPUT})")
    options = parser.parse_args()
    rows: dict[str, dict] = {}
    notes = []
    for name in ("crossner/science", "wnut17"):
        records = [punctuated(r) for r in load_records(DATA / name / "train.json")[: options.records]]
        texts, spans = [text for text, _ in records], [marked for _, marked in records]
        notes.append(f"{name}: {len(records)} training records, {sum(map(len, spans))} spans")
        for kind, tokenizer in trained(texts).items():
            share, _ = reached(tokenizer, texts, spans)
            rows.setdefault(kind, {"tokenizer": kind})[f"{name}, %"] = 100 * share
    write_report("ner_reachable", list(rows.values()), options.output, seeds=[], notes=notes)


if __name__ == "__main__":
    main()
