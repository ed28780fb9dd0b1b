"""The same configuration and data give the same digests, manifests and bits of weights, whatever the hash seed, the locale and the order of files."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
VARIANTS = {
    "plain": {"PYTHONHASHSEED": "0", "LC_ALL": "C.UTF-8"},
    "another": {
        "PYTHONHASHSEED": "4711",
        "LC_ALL": "C",
        "PYTHONCOERCECLOCALE": "0",
        "PYTHONUTF8": "0",
        "REVERSED": "1",
    },
}
"""Environments to train in. ``LC_ALL=C`` alone would be made UTF-8 by Python."""
SCRIPT = r"""
import hashlib, json, os, sys
from pathlib import Path
if os.environ.get("REVERSED"):
    listed, scanned = os.listdir, os.scandir
    class Reversed:
        def __init__(self, entries): self.entries = iter(entries)
        def __iter__(self): return self
        def __next__(self): return next(self.entries)
        def __enter__(self): return self
        def __exit__(self, *error): pass
        def close(self): pass
    os.listdir = lambda *place: sorted(listed(*place), reverse=True)
    os.scandir = lambda *place: Reversed(sorted(scanned(*place), key=lambda entry: entry.name, reverse=True))
import torch
from transformers import BertConfig, BertModel, BertTokenizerFast
from curricle.steps.chain import make_plan, run_chain
from curricle.steps.prepare import prepare_data
from tests.laws.conftest import HereLauncher, MAKE, Sample

letters = "abcdefghijklmnopqrstuvwxyz0123456789ëłóź"
words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *("##" + letter for letter in letters)]
Path("vocab.txt").write_text("\n".join(words), encoding="utf-8")
torch.manual_seed(0)
sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
BertModel(BertConfig(vocab_size=len(words), max_position_embeddings=64, **sizes)).save_pretrained("encoder")
BertTokenizerFast("vocab.txt").save_pretrained("encoder")

found = {}
for family in ("line", "ner", "codes"):
    folder = Path(family)
    sample = Sample(family, folder, MAKE[family](folder))
    if family == "ner":
        row = {"text": "Zoë lives in Łódź", "annotations": [[0, 3, "NAME"], [13, 17, "ORT"]]}
        (folder / "people/train.json").write_text(json.dumps([row] * 8, ensure_ascii=False), encoding="utf-8")
    outcomes, plan = [], make_plan(sample.request(*["model.encoder=encoder"] * (family == "ner")))
    if family == "codes":  # its training has nothing of its own here, and takes half a minute
        prepare_data(sample.stage())
    else:
        outcomes = run_chain(plan, HereLauncher(), lambda event: None)
    found[family] = {
        "digests": [stage.digest for stage in plan.stages],
        "metrics": [outcome.metrics for outcome in outcomes],
        "files": sorted([p.as_posix(), hashlib.sha256(p.read_bytes()).hexdigest()] for p in Path(sample.store).rglob("*")
            if p.suffix in (".jsonl", ".safetensors", ".csv")),
    }
print("FOUND", json.dumps(found))
"""


@pytest.mark.slow
def test_hash_seed_locale_and_order_of_files_change_no_digest_and_no_bit(tmp_path, line_family):
    found = {}
    for name, variables in VARIANTS.items():
        place = tmp_path / name
        place.mkdir()
        (place / "run.py").write_text(SCRIPT, encoding="utf-8")
        done = subprocess.run(
            [sys.executable, "run.py"],
            cwd=place, env={**os.environ, **variables}, capture_output=True, text=True, encoding="utf-8", timeout=300,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        found[name] = json.loads(done.stdout.rpartition("FOUND ")[2])
    assert found["plain"] == found["another"]
    files = {family: [Path(file).name for file, _ in facts["files"]] for family, facts in found["plain"].items()}
    assert files["line"].count("model.safetensors") == files["ner"].count("model.safetensors") == 4
    assert {"train.jsonl", "validation.jsonl"} < set(files["ner"]) and {"codes.jsonl", "texts.jsonl"} <= set(
        files["codes"]
    )
