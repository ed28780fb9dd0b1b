"""Quality of codes: our trained models and the baselines on the same prepared data and the same test texts, by the family's own metrics.

    python -m tests.benchmarks.naics_quality --model URI [--model URI ...] [--data URI]
    python -m tests.benchmarks.naics_quality --seeds 0,1,2          # trains the chain first, once a seed, on NAICS
    python -m tests.benchmarks.naics_quality --classification noc/structure.csv --labelled noc/titles.csv [--chain chain_smoke]   # ... on any classification
    python -m tests.benchmarks.naics_quality --data FOLDER          # the baselines alone, on prepared data

Everything that a baseline chooses, it chooses on the validation texts. The test texts are scored once a row of the table.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import torch

from curricle.config.load import from_tree, read_yaml
from curricle.families.codes import metrics
from curricle.families.codes.config import CodesConfig, CodesModel
from curricle.families.codes.encoder import Encoder, cached_features
from curricle.families.codes.evaluate import all_metrics, rules, texts_of
from curricle.families.codes.opinions import leaf_texts
from curricle.families.codes.prepare import CodeTable, load
from curricle.families.codes.scorer import Scorer
from curricle.store import layout, open_store
from curricle.store.manifest import read_manifest
from curricle.training.precision import resolve_precision
from tests.benchmarks.naics_models import CACHE, CENSUS, Trained, open_trained
from tests.benchmarks.report import OUTPUT, ROOT, write_report

RETRIEVAL = ("top1", "mrr", "hit@5", "hit@10", "precision@70")
"""Beside `top1@<level>` of each level."""
STRUCTURE = ("pearson", "spearman_within", "ndcg@10", "parent@1_nu", "edge_map", "distortion")
CONFIDENCE = ("ece",)
ROBUST = ("upper_top1", "typos_top1", "abbreviated_top1", "sentence_top1", "foreign_auroc")
PROBE_STRENGTHS = (10.0, 100.0)
PROBE_ITERATIONS = 100
RESOURCES = ("training CPU-s", "training peak GB", "encoder passes, forward", "encoder passes, with gradient")
"""A pass is all training texts once through the encoder: the cost that does not depend on the machine."""


class Baselines:
    """Scores of the test texts without any training of ours: frozen MiniLM, TF-IDF, a linear probe."""

    def __init__(self, table: CodeTable):
        self.table = table
        self.codes = [table.codes[i] for i in table.leaves]
        known, self.owners = leaf_texts(table)
        self.memory = [t.text for t in known]
        self.first_of = np.unique(self.owners, return_index=True)
        self.test, self.test_target = self._texts("test")
        self.validation, self.validation_target = self._texts("validation")
        self.encoder = Encoder(CodesModel(), torch.device("cpu"))
        self.precision = resolve_precision("auto", torch.device("cpu"))

    def _texts(self, split: str) -> tuple[list[str], np.ndarray]:
        column = {code: i for i, code in enumerate(self.codes)}
        texts = [t for t in self.table.split(split) if t.kind == "entry" and t.code in column]
        return [t.text for t in texts], np.array([column[t.code] for t in texts])

    def features(self, texts: list[str]) -> np.ndarray:
        """Normalised mean-pooled MiniLM vectors."""
        with self.precision.autocast():
            return cached_features(self.encoder, texts, 128, 4096, CACHE / "work" / self.precision.name)

    def retrieval(self, scores: np.ndarray) -> dict[str, float]:
        return _shown(metrics.retrieval(scores, self.test_target, self.table.tree))

    def structure(self, vectors: np.ndarray) -> dict[str, float]:
        """Of cosine distances between all codes."""
        distances = np.maximum(1 - vectors.astype(np.float64) @ vectors.T.astype(np.float64), 0)
        found = metrics.structure(distances, self.table.tree)
        return {name: found[name] for name in STRUCTURE if name in found}

    def nearest(self, similarity: np.ndarray) -> np.ndarray:
        """[n, texts] → [n, leaves]: similarity of the nearest known text of each code."""
        owned, starts = self.first_of
        scores = np.full((len(similarity), len(self.codes)), -1.0, dtype=np.float32)
        scores[:, owned] = np.maximum.reduceat(similarity, starts, axis=1)
        return scores

    def rows(self) -> list[dict]:
        """The lines of the table."""
        test = self.features(self.test)
        titles = self.features([t or "" for t in self.table.channels["title"]])
        held = [i for i, d in enumerate(self.table.channels["description"]) if d]
        descriptions = titles.copy()
        descriptions[held] = self.features([self.table.channels["description"][i] or "" for i in held])
        both = titles + descriptions
        both /= np.linalg.norm(both, axis=1, keepdims=True)
        made = []
        for name, vectors in (
            ("title", titles),
            ("description, title where it has none", descriptions),
            ("mean of title and description", both),
        ):
            found = self.retrieval(test @ vectors[self.table.leaves].T)
            made.append({"model": f"raw MiniLM cosine: {name}", "n": 1} | found | self.structure(vectors))
        made.append({"model": "TF-IDF words (1,2): one document a code", "n": 1} | self.retrieval(self._documents()))
        made.append(
            {"model": "TF-IDF characters (2-5): 1-NN over training texts", "n": 1} | self.retrieval(self._ngrams())
        )
        start = time.process_time()
        scores = self._linear()
        made.append(
            {"model": "linear SVM on words (1,2) and characters (2-5)", "n": 1}
            | self.retrieval(scores)
            | {RESOURCES[0]: time.process_time() - start}
        )
        memory = self.features(self.memory)
        made.append(
            {"model": "raw MiniLM: 1-NN over training texts", "n": 1} | self.retrieval(self.nearest(test @ memory.T))
        )
        start = time.process_time()
        scores = self._probe(memory, test)
        made.append(
            {"model": "linear probe on MiniLM", "n": 1}
            | self.retrieval(scores)
            | {RESOURCES[0]: time.process_time() - start}
        )
        return made

    def _documents(self) -> np.ndarray:
        from sklearn.feature_extraction.text import TfidfVectorizer

        documents = [""] * len(self.codes)
        for text, owner in zip(self.memory, self.owners, strict=True):
            documents[owner] += text + " . "
        words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, dtype=np.float32)
        table = words.fit_transform(documents)
        return (words.transform(self.test) @ table.T).toarray()

    def _ngrams(self) -> np.ndarray:
        from sklearn.feature_extraction.text import TfidfVectorizer

        grams = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), sublinear_tf=True, dtype=np.float32)
        table = grams.fit_transform(self.memory).T.tocsr()
        return np.concatenate(
            [
                self.nearest((grams.transform(self.test[i : i + 256]) @ table).toarray())
                for i in range(0, len(self.test), 256)
            ]
        )

    def _linear(self) -> np.ndarray:
        """One-against-rest linear SVM over TF-IDF of word and character n-grams: the strongest plain way."""
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.pipeline import make_union
        from sklearn.svm import LinearSVC

        grams = make_union(
            TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, dtype=np.float32),
            TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), sublinear_tf=True, dtype=np.float32),
        )
        model = LinearSVC().fit(grams.fit_transform(self.memory), self.owners)
        found = model.decision_function(grams.transform(self.test))
        scores = np.full((len(self.test), len(self.codes)), -np.inf)
        scores[:, model.classes_] = found if found.ndim == 2 else np.stack([-found, found], 1)
        return scores

    def _probe(self, memory: np.ndarray, test: np.ndarray) -> np.ndarray:
        """Multinomial logistic regression over the codes that have a text; its strength is chosen by MRR on validation."""
        import warnings

        from sklearn.exceptions import ConvergenceWarning
        from sklearn.linear_model import LogisticRegression

        validation = self.features(self.validation)
        probe = LogisticRegression(
            max_iter=PROBE_ITERATIONS, tol=1e-7
        )  # the default tolerance stops long before the best validation figure
        best, chosen = -1.0, np.empty(0)
        for strength in PROBE_STRENGTHS:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)
                probe.set_params(C=strength).fit(memory, self.owners)

            def score(features: np.ndarray) -> np.ndarray:
                scores = np.full((len(features), len(self.codes)), -np.inf)
                scores[:, probe.classes_] = probe.decision_function(features)
                return scores

            found = metrics.retrieval(score(validation), self.validation_target, self.table.tree)["mrr"]
            print(f"linear probe: C {strength:g}: validation MRR {found:.4f}", file=sys.stderr, flush=True)
            if found > best:
                best, chosen = found, score(test)
        return chosen


def measured(model: Trained) -> dict[str, float]:
    """The figures of `curricle evaluate` that the table shows."""
    start = time.process_time()
    scorer = Scorer.load(model.folder, model.data_dir)
    scorer.table.check_no_leak()
    found = all_metrics(scorer)
    print(f"{model.uri}: top-1 {found['test/top1']:.4f}", file=sys.stderr, flush=True)
    test = {name.removeprefix("test/"): value for name, value in found.items() if name.startswith("test/")}
    return (
        _shown(test)
        | {name: test[name] for name in CONFIDENCE}
        | automation(scorer)
        | {name: found[f"robust/{name}"] for name in ROBUST}
        | {name: found[f"structure/{name}"] for name in STRUCTURE if f"structure/{name}" in found}
        | {"scorer and evaluation CPU-s": time.process_time() - start}
    )


def automation(scorer: Scorer) -> dict[str, float]:
    """Share of the test texts that `assign --max-error` codes without a person, and how many of those codes are wrong."""
    texts, target = texts_of(scorer.table, "test")
    confidence = scorer.scored([t.text for t in texts]).confidence()
    values = {}
    for error, _, coded, wrong in rules(scorer, confidence.max(1), confidence.argmax(1) == target):
        values |= {f"coded, --max-error {error:g}": coded, f"wrong of these, --max-error {error:g}": wrong}
    return values


def _shown(found: dict[str, float]) -> dict[str, float]:
    """Of the retrieval metrics those of the table."""
    return {name: found[name] for name in (*RETRIEVAL, *(n for n in found if n.startswith("top1@")))}


def train(chain: str, seed: int, name: str, overrides: list[str]) -> tuple[str, dict[str, float]]:
    """Train a chain by the real command in its own folder; the URI of its last stage, and what the training cost."""
    place = (CACHE / "benchmarks" / f"{name}{chain}-seed{seed}").resolve()
    place.mkdir(parents=True, exist_ok=True)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(
        [sys.executable, "-c", "from curricle.cli import main; main()", "train-curriculum", "--chain", chain, "--config", str(ROOT / "config" / "config.yaml"),
         f"seed={seed}", f"paths.store_uri={place / 'checkpoints'}", *overrides],
        cwd=place, env={**os.environ, "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")}, check=True)  # fmt: skip
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    store = str(place / "checkpoints")
    stages = [p.parent for p in Path(store).glob("*/*/manifest.json") if (p.parent / layout.STAGE).is_file()]
    last = max(stages, key=lambda p: read_manifest(open_store(str(p)), "").created)
    cost = {
        RESOURCES[0]: after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
        RESOURCES[1]: after.ru_maxrss / 2**20,
        **encoder_passes(stages),
    }
    return str(last), cost


def encoder_passes(stages: list[Path]) -> dict[str, float]:
    """Passes over the training texts that a chain's stages needed: one an epoch where the encoder is in each step; one where features are kept, for each state of the encoder."""
    forward, trained, kept = 0, 0.0, False
    for place in sorted(stages, key=lambda p: read_manifest(open_store(str(p)), "").created):
        config = json.loads((place / layout.STAGE).read_text(encoding="utf-8"))["config"]["curriculum"]
        if config["features"] == "live" and "encoder" in config["trainable"]:
            trained, kept = trained + read_manifest(open_store(str(place)), "").info["epochs"], False
        elif not kept:
            forward, kept = forward + 1, True
    return {RESOURCES[2]: float(forward), RESOURCES[3]: float(trained)}


def mean_and_spread(name: str, found: list[dict[str, float]]) -> list[dict]:
    """One line of means and one of largest minus smallest."""
    keys = list(found[0])
    mean = {"model": f"{name}: mean", "n": len(found)} | {k: statistics.fmean(f[k] for f in found) for k in keys}
    if len(found) == 1:
        return [mean]
    return [
        mean,
        {"model": f"{name}: largest - smallest", "n": len(found)}
        | {k: max(f[k] for f in found) - min(f[k] for f in found) for k in keys},
    ]


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.naics_quality",
        description="Test metrics of trained models and of the baselines, on NAICS or any classification.",
    )
    parser.add_argument(
        "--model",
        action="append",
        default=[],
        metavar="URI",
        help="trained stage or checkpoint, one a seed; repeatable; none: train the chain",
    )
    parser.add_argument(
        "--data", default="", metavar="URI", help="prepared data; default what the first model was trained with"
    )
    parser.add_argument(
        "--chain",
        default="chain_full",
        help="chain to train where no --model is given (default chain_full: stages 01 to 05)",
    )
    parser.add_argument("--seeds", default="0,1,2", help="seeds to train with (default 0,1,2)")
    parser.add_argument(
        "--source", type=Path, default=CENSUS, help="folder with the four Census workbooks, for training"
    )
    parser.add_argument(
        "--classification", type=Path, help="table of codes, for training on another classification than NAICS"
    )
    parser.add_argument(
        "--labelled",
        type=Path,
        action="append",
        default=[],
        help="table of labelled texts, with --classification; repeatable",
    )
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="override for training; repeatable"
    )
    parser.add_argument("--output", type=Path, default=OUTPUT, help=f"folder of the report (default {OUTPUT})")
    options = parser.parse_args()
    costs: list[dict[str, float]] = []
    uris = options.model
    data, name = [f"data.source={options.source.resolve()}"], ""
    if options.classification:
        files = ", ".join(f"'{path.resolve()}'" for path in options.labelled)
        data = [f"data.classification={options.classification.resolve()}", f"data.labelled=[{files}]"]
        name = f"{options.classification.parent.name}-"
    if not uris and options.data:
        table = load(Path(options.data))
        table.check_no_leak()
        write_report(f"{name}codes_baselines", Baselines(table).rows(), options.output, seeds=[], notes=[f"prepared data {options.data}"])  # fmt: skip
        return
    if not uris:
        trained = [train(options.chain, int(seed), name, [*data, *options.set]) for seed in options.seeds.split(",")]
        uris, costs = [uri for uri, _ in trained], [cost for _, cost in trained]
    models = [open_trained(uri, options.data) for uri in uris]
    digests = {m.manifest.lineage["data_digest"] for m in models}
    if len(digests) > 1:
        parser.error(
            f"the models were trained on different data ({', '.join(sorted(digests))}); a test text of one may be a training text of another"
        )
    seeds = [from_tree(CodesConfig, read_yaml(m.folder / "config.yaml").tree).seed for m in models]
    table = load(models[0].data_dir)
    table.check_no_leak()
    found = [measured(m) | (costs[i] if costs else {}) for i, m in enumerate(models)]
    rows = [{"model": f"curricle, seed {seed}", "n": 1} | values for seed, values in zip(seeds, found, strict=True)]
    rows = mean_and_spread("curricle", found) + (rows if len(rows) > 1 else []) + Baselines(table).rows()
    notes = [
        f"{len([t for t in table.split('test') if t.kind == 'entry'])} test entries among {len(table.leaves)} codes; n is the number of trainings; "
        "top1@k: right on level k; precision@70: top-1 on the most certain 70 %",
        "structure (pearson to distortion): all pairs of all codes, cosine distance for MiniLM, geodesic distance of the code table for curricle",
        f"data digest {sorted(digests)[0]}; no test text is, by likeness (NAICS) or word set, a training text (checked before measuring)",
        "known texts of 1-NN, TF-IDF and probe: training entries, cross-reference phrases, titles, descriptions that belong to one code",
        f"linear probe: logistic regression, at most {PROBE_ITERATIONS} L-BFGS iterations a strength, C of {', '.join(f'{c:g}' for c in PROBE_STRENGTHS)} chosen on validation",
        *(f"seed {seed}: {m.uri}" for seed, m in zip(seeds, models, strict=True)),
    ]
    write_report(f"{name}naics_quality", rows, options.output, seeds=seeds, notes=notes)


if __name__ == "__main__":
    main()
