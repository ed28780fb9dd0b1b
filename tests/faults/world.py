"""The folder that bad input is tried in: small configurations, datasets, a store with a trained NER chain and a NAICS one, an encoder."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from curricle.steps.chain import ChainRequest, make_plan, run_chain
from tests.laws.conftest import HereLauncher

WORDS = (
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    *"abcdefghijklmnopqrstuvwxyz0123456789",
    "anna",
    "knows",
    "berlin",
)
PATHS = (
    "paths: {store_uri: store, outputs_dir: outputs, cache_dir: cache}\ntracking: {mlflow: false, tensorboard: false}\n"
)
NER = f"""family: ner
{PATHS}model: {{encoder: encoder, max_tokens: 16, stride: 4}}
training: {{learning_rate: 1e-3, trainer: {{max_epochs: 1, accelerator: cpu}}}}
"""
NAICS = f"""family: naics
{PATHS}model: {{encoder: encoder, dim: 4, max_tokens: 16}}
training: {{trainer: {{max_epochs: 1, accelerator: cpu}}}}
"""
FILES = {
    "conf/config.yaml": NER,
    "conf/text_curriculum/one.yaml": "data: {new_dataset_path: ../people}\n",
    "conf/text_curriculum/two.yaml": "data: {new_dataset_path: ../places}\n",
    "conf/text_curriculum/chain_both.yaml": "chain_name: both\nstages: [{name: one}, {name: two}]\n",
    "codes/config.yaml": NAICS,
    "codes/text_curriculum/flat.yaml": "objective: geometry\nfeatures: cached\ntrainable: []\ntexts: [title]\n",
    "exp/experiment/e.yaml": (
        "experiment_name: e\ndata_config: data/d.yaml\nmodel_config: model/m.yaml\ntrain_config: train.yaml\n"
        "benchmark_config: bench.yaml\nstages: {training: {backbones: [m]}}\n"
    ),
    "exp/experiment/search.yaml": (
        "experiment_name: e\ndata_config: data/d.yaml\nmodel_config: model/m.yaml\ntrain_config: train.yaml\n"
        "hpo_config: hpo/h.yaml\nstages: {hpo: {}, training: {backbones: [m]}}\n"
    ),
    "exp/data/d.yaml": "local_path: ../people\n",
    "exp/model/m.yaml": "backbone: encoder\npreprocessing: {max_length: 16}\nstride: 4\n",
    "exp/train.yaml": f"{PATHS}training: {{epochs: 1, batch_size: 4, learning_rate: 1e-3}}\n",
    "exp/hpo/h.yaml": "search_space: {learning_rate: {type: choice, values: [1e-3]}}\nsampling: {max_trials: 1}\n",
    "exp/bench.yaml": "benchmarking: {batch_sizes: [1], iterations: 1, warmup_iterations: 0}\n",
    "recurring/nightly.yaml": "name: nightly\npipeline: chain_smoke.yaml\nschedule: {cron: '0 0 2 * * *'}\n",
    "in.csv": "id,text\n1,anna knows\n2,berlin\n",
    "thesis.txt": "mine\n",
}


def make_world(folder: Path) -> Path:
    """Fill a folder: everything in it is good, and every case spoils one thing in a copy of it. The working folder must be `folder`."""
    for name, text in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    for name, word, label in (("people", "anna", "NAME"), ("places", "berlin", "CITY")):
        (folder / name).mkdir()
        for split, count in (("train", 6), ("validation", 2), ("test", 2)):
            rows = [{"text": f"{word} {split} {i} knows", "annotations": [[0, len(word), label]]} for i in range(count)]
            (folder / name / f"{split}.json").write_text(json.dumps(rows))
    _encoder(folder / "encoder")
    ask = ChainRequest(config=Path("conf/config.yaml"), curricula=("one",), run_id="good")
    run_chain(make_plan(ask), HereLauncher(), lambda event: None)
    ask = ChainRequest(
        config=Path("codes/config.yaml"), curricula=("flat",), run_id="coded", overrides=("paths.store_uri=naics",)
    )
    run_chain(make_plan(ask), HereLauncher(), lambda event: None)
    (best,) = (folder / "store/good/one").glob("one-*.ckpt")
    shutil.copytree(best, folder / "tagger")
    (folder / "tagger/manifest.json").unlink()
    return folder


def _encoder(folder: Path) -> None:
    import torch
    from transformers import BertConfig, BertModel, BertTokenizerFast

    folder.mkdir()
    (folder / "vocab.txt").write_text("\n".join(WORDS) + "\n")
    BertTokenizerFast(str(folder / "vocab.txt")).save_pretrained(folder)
    torch.manual_seed(0)
    shape = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    BertModel(BertConfig(vocab_size=len(WORDS), max_position_embeddings=32, **shape)).save_pretrained(folder)
