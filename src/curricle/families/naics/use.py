"""Use a trained model: score texts against all six-digit codes, and export codes and encoder.

The scorer is what `search`, `assign` and `evaluate` share. It adds up four opinions about a text: the geodesic distance to the code table,
the nearest training text in the encoder's space and in the head's directions, and the nearest by character n-grams. Codes without a
single labelled example (`data.hidden_codes`, or new in the classification) get a constant on top, or the others, which have many texts
to be near to, would bury them. The weights, that constant and the temperature of the confidence are chosen on the validation texts alone.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError

from curricle.config.load import from_tree, read_yaml
from curricle.errors import CheckpointError, OutputError
from curricle.families.naics.card import model_card
from curricle.families.naics.config import NaicsConfig
from curricle.families.naics.encoder import cached_features
from curricle.families.naics.geometry import exp0, polar, time
from curricle.families.naics.metrics import retrieval
from curricle.families.naics.prepare import NaicsTable, load
from curricle.families.naics.task import ADAPTER, CHANNELS, CodeSpace, distinct_texts, load_model, read_checkpoint
from curricle.families.naics.texts import LabelledText
from curricle.store import layout, open_store
from curricle.store.local import write_whole
from curricle.store.manifest import read_manifest
from curricle.store.ours import new_folder, require_free
from curricle.training.precision import resolve_precision

CACHE = Path(".curricle/work")
GRID = (0.0, 1.0, 2.0, 4.0, 7.0, 10.0, 15.0, 20.0, 30.0)
LIFTS = tuple(float(lift) for lift in range(0, 17, 2))
FOLDS = 10
DESCRIBING = ("title", "description")
CHUNK = 256


@dataclass(frozen=True)
class Hit:
    """A code for a text."""

    code: str
    title: str
    score: float
    """Sum of the opinions, log-scaled; comparable within one text only."""
    confidence: float
    """Probability of the code, calibrated on validation texts."""


def open_checkpoint(folder: Path, data_dir: Path) -> tuple[NaicsConfig, NaicsTable, CodeSpace]:
    """The model of a checkpoint folder, on the CPU.

    Raises:
        CheckpointError: the folder holds no NAICS checkpoint, or its weights do not fit.
    """
    for name in (layout.CONFIG, layout.WEIGHTS):
        if not (folder / name).is_file():
            raise CheckpointError(
                f"{folder} is no NAICS checkpoint: {name} is missing; it holds {', '.join(sorted(p.name for p in folder.iterdir()))}"
            )
    config = from_tree(NaicsConfig, read_yaml(folder / layout.CONFIG).tree)
    table = load(data_dir)
    model = load_model(config, table, torch.device("cpu"))
    model.load_weights(read_checkpoint(folder))
    model.eval()
    return config, table, model


def leaf_texts(table: NaicsTable) -> tuple[list[LabelledText], np.ndarray]:
    """Every text that may be known and belongs to one six-digit code alone, and that code's position among the leaves; sorted by it.

    These are the training texts, and the titles and descriptions of hidden codes: a new code is known by them.
    """
    column = {int(code): i for i, code in enumerate(table.leaves)}
    sole = table.tree.sole_leaf
    known = [*table.split("train"), *(t for t in table.split("cold") if t.kind in DESCRIBING)]
    pairs = [(t, column[int(sole[table.tree.index[t.code]])]) for t in known if sole[table.tree.index[t.code]] >= 0]
    pairs.sort(key=lambda pair: pair[1])
    return [t for t, _ in pairs], np.array([leaf for _, leaf in pairs], dtype=np.int64)


class Scorer:
    """Scores texts against all six-digit codes."""

    def __init__(self, config: NaicsConfig, table: NaicsTable, model: CodeSpace, cache: Path):
        from sklearn.feature_extraction.text import TfidfVectorizer

        self.config, self.table, self.model, self.cache = config, table, model, cache
        self.leaves = table.leaves
        self.codes = [table.codes[i] for i in self.leaves]
        memory, owners = leaf_texts(table)
        self.memory = [t.text for t in memory]
        self.everything = _Memory.of(owners, np.arange(len(owners)))
        described = np.array([t.kind in DESCRIBING for t in memory])
        self.described = _Memory.of(owners[described], np.flatnonzero(described))
        self.bare = np.ones(len(self.leaves), dtype=bool)
        """Leaves that no labelled example was seen of."""
        self.bare[owners[[t.kind == "entry" for t in memory]]] = False
        distinct = distinct_texts(table)
        number = {text: i for i, text in enumerate(distinct)}
        features = self._features(distinct)
        self.features = features[[number[t] for t in self.memory]]
        self.directions = self._directions(self.features)
        rows = np.array([[number.get(table.channels[name][i] or "", -1) for name in CHANNELS] for i in self.leaves])
        with torch.inference_mode():
            channels = torch.from_numpy(np.where((rows >= 0)[..., None], features[rows], 0))
            self.by_text = model.head.table.clone()
            self.by_text[torch.from_numpy(self.leaves)] = model.head.by_text(
                channels, torch.from_numpy(rows >= 0), torch.full((len(rows),), 6)
            )
        self.ngrams = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), sublinear_tf=True, dtype=np.float32)
        self.grams = self.ngrams.fit_transform(self.memory).T.tocsr()
        self.weights, self.lift, self.temperature = self._tuned()

    @classmethod
    def load(cls, folder: Path, data_dir: Path, cache: Path = CACHE) -> Scorer:
        """Open a checkpoint for scoring; the first time, training texts are encoded and the weights chosen, then both are kept in `cache`."""
        config, table, model = open_checkpoint(folder, data_dir)
        model.encoder.fold()
        return cls(config, table, model, cache)

    def _precision(self) -> Any:
        return resolve_precision(self.config.training.trainer.precision, torch.device("cpu"))

    def _features(self, texts: list[str]) -> np.ndarray:
        precision = self._precision()
        with precision.autocast():
            return cached_features(
                self.model.encoder,
                texts,
                self.config.model.max_tokens,
                self.config.data_loader.token_budget,
                self.cache / precision.name,
            )

    @torch.inference_mode()
    def _encode(self, texts: list[str]) -> np.ndarray:
        encoder = self.model.encoder
        with self._precision().autocast():
            return encoder.encode(
                encoder.tokenize(texts, self.config.model.max_tokens), self.config.data_loader.token_budget
            ).numpy()

    @torch.inference_mode()
    def _directions(self, features: np.ndarray) -> np.ndarray:
        return self.model.head.direction(torch.from_numpy(features)).numpy()

    def opinions(self, texts: list[str], unseen: np.ndarray | None = None) -> np.ndarray:
        """[4, n, leaves]: log-probability by distance, then nearest training text by encoder, by direction and by n-grams (cosines).

        Args:
            unseen: bool [leaves]; of these codes nothing but title and description is used, as if nobody had labelled a text with them.
        """
        features = self._encode(texts)
        direction = self._directions(features)
        opinions = np.full((4, len(texts), len(self.leaves)), -1.0, dtype=np.float32)
        near = (
            features @ self.features.T,
            direction @ self.directions.T,
            (self.ngrams.transform(texts) @ self.grams).toarray(),
        )
        for k, similarity in enumerate(near, start=1):
            self.everything.nearest(similarity, opinions[k])
            if unseen is not None:
                only = self.described.nearest(similarity, np.full_like(opinions[k], -1.0))
                opinions[k][:, unseen] = only[:, unseen]
        head = self.model.head
        with torch.inference_mode():
            level = torch.full((len(texts),), 6)
            logits = head.logits(head.to_codes(torch.from_numpy(direction), level, torch.from_numpy(self.leaves)))
            if unseen is not None:
                placed = head.logits(
                    head.to_codes(torch.from_numpy(direction), level, torch.from_numpy(self.leaves), self.by_text)
                )
                logits = torch.where(torch.from_numpy(unseen), placed, logits)
            opinions[0] = logits.log_softmax(-1).numpy()
        return opinions

    def scores(self, texts: list[str]) -> np.ndarray:
        """[n, leaves] summed opinions; higher is better."""
        parts = [
            np.tensordot(self.weights, self.opinions(texts[i : i + CHUNK]), 1) for i in range(0, len(texts), CHUNK)
        ]
        return np.concatenate(parts) + self.lift * self.bare

    def search(self, texts: list[str], top: int) -> list[list[Hit]]:
        """The best codes of each text, best first."""
        if not texts:
            return []
        scores = self.scores(texts)
        scaled = scores / self.temperature
        scaled -= scaled.max(1, keepdims=True)
        probability = np.exp(scaled)
        probability /= probability.sum(1, keepdims=True)
        titles = self.table.channels["title"]
        hits = []
        for row, shares in zip(scores, probability, strict=True):
            best = np.argsort(-row, kind="stable")[:top]
            hits.append(
                [Hit(self.codes[i], titles[self.leaves[i]] or "", float(row[i]), float(shares[i])) for i in best]
            )
        return hits

    def _tuned(self) -> tuple[np.ndarray, float, float]:
        digest = hashlib.sha256(self.model.encoder.digest().encode())
        for name, tensor in sorted(self.model.head.state_dict().items()):
            digest.update(name.encode() + tensor.numpy().tobytes())
        digest.update("\n".join(self.memory).encode() + self.bare.tobytes())
        path = self.cache / f"scorer-{digest.hexdigest()[:32]}.json"
        if (kept := _kept_tuning(path)) is not None:
            return kept
        weights, lift, temperature = self._tune()
        path.parent.mkdir(parents=True, exist_ok=True)
        content = json.dumps({"weights": weights.tolist(), "lift": lift, "temperature": temperature})
        write_whole(path, lambda out: out.write(content.encode()))
        return weights, lift, temperature

    def _tune(self) -> tuple[np.ndarray, float, float]:
        """Coordinate search of the weights for MRR on validation, then the lift, then the temperature for likelihood; distance keeps weight 1."""
        texts = self.table.split("validation")
        column = {code: i for i, code in enumerate(self.codes)}
        target = np.array([column[t.code] for t in texts])
        opinions = self._all_opinions([t.text for t in texts])
        weights = np.array([1.0, 0.0, 0.0, 0.0], dtype=np.float32)
        best = _mrr(np.tensordot(weights, opinions, 1), target)
        for _ in range(2):
            for k in (1, 2, 3):
                for value in GRID:
                    candidate = weights.copy()
                    candidate[k] = value
                    mrr = _mrr(np.tensordot(candidate, opinions, 1), target)
                    if mrr > best + 1e-9:
                        best, weights = mrr, candidate
        lift = self._lift([t.text for t in texts], target, opinions, weights) if self.bare.any() else 0.0
        scores = np.tensordot(weights, opinions, 1) + lift * self.bare
        spread = np.geomspace(0.2, 10, 25)
        return weights, lift, float(min(spread, key=lambda t: _nll(scores / t, target)))

    def _all_opinions(self, texts: list[str], unseen: np.ndarray | None = None) -> np.ndarray:
        return np.concatenate(
            [self.opinions(texts[i : i + CHUNK], unseen) for i in range(0, len(texts), CHUNK)], axis=1
        )

    def _lift(self, texts: list[str], target: np.ndarray, opinions: np.ndarray, weights: np.ndarray) -> float:
        """What a code without examples gets on top, so that it is ranked as well as it can be without burying the others.

        A tenth of the codes after the other plays the one without examples; chosen is the harmonic mean of the MRR of their texts and
        of others': calibrated stacking (Chao et al., "An Empirical Study and Analysis of Generalized Zero-Shot Learning", ECCV 2016).
        """
        fold = np.random.default_rng(self.config.seed).permutation(len(self.leaves)) % FOLDS
        bare = np.tensordot(weights, self._all_opinions(texts, np.ones_like(self.bare)), 1)
        seen = np.tensordot(weights, opinions, 1)
        best, chosen = -1.0, 0.0
        for lift in LIFTS:
            shares: tuple[list[float], list[float]] = ([], [])
            for k in range(FOLDS):
                played = fold == k
                scores = np.where(played | self.bare, bare + lift, seen)
                for kept, rows in zip(shares, (played[target], fold[target] == (k + 1) % FOLDS), strict=True):
                    kept += list(_reciprocal_ranks(scores[rows], target[rows]))
            unseen, others = float(np.mean(shares[0])), float(np.mean(shares[1]))
            if (mean := 2 * unseen * others / (unseen + others)) > best + 1e-9:
                best, chosen = mean, lift
        return chosen


@dataclass(frozen=True)
class _Memory:
    """Some of the remembered texts, by the leaf that each belongs to."""

    rows: np.ndarray
    leaves: np.ndarray
    starts: np.ndarray

    @classmethod
    def of(cls, owners: np.ndarray, rows: np.ndarray) -> _Memory:
        """owners [n]: each row's leaf, ascending."""
        leaves, starts = np.unique(owners, return_index=True)
        return cls(rows, leaves, starts)

    def nearest(self, similarity: np.ndarray, out: np.ndarray) -> np.ndarray:
        """The highest similarity [n, memory] of each leaf's texts, into out [n, leaves]."""
        mine = similarity if len(self.rows) == similarity.shape[1] else similarity[:, self.rows]
        out[:, self.leaves] = np.maximum.reduceat(mine, self.starts, axis=1)
        return out


def _kept_tuning(path: Path) -> tuple[np.ndarray, float, float] | None:
    """Weights, lift and temperature in a file of the cache; None where there is none, or it is not whole."""
    try:
        kept = json.loads(path.read_text())
        weights = np.array(kept["weights"], dtype=np.float32)
        return (weights, float(kept["lift"]), float(kept["temperature"])) if weights.shape == (4,) else None
    except (OSError, ValueError, TypeError, KeyError):
        return None


def _reciprocal_ranks(scores: np.ndarray, target: np.ndarray) -> np.ndarray:
    return 1 / (scores >= scores[np.arange(len(target)), target][:, None]).sum(1)


def _mrr(scores: np.ndarray, target: np.ndarray) -> float:
    return float(_reciprocal_ranks(scores, target).mean())


def _nll(scores: np.ndarray, target: np.ndarray) -> float:
    shifted = scores - scores.max(1, keepdims=True)
    return float((np.log(np.exp(shifted).sum(1)) - shifted[np.arange(len(target)), target]).mean())


def measure(scorer: Scorer, split: str, name: str) -> dict[str, float]:
    """Retrieval metrics of a split's texts among all six-digit codes, as ``<name>/<metric>``."""
    texts = [t for t in scorer.table.split(split) if t.kind == "entry" and t.code in scorer.codes]
    if not texts:
        return {}
    column = {code: i for i, code in enumerate(scorer.codes)}
    scores = scorer.scores([t.text for t in texts])
    values = retrieval(scores, np.array([column[t.code] for t in texts]), scorer.codes)
    return {f"{name}/{metric}": value for metric, value in values.items()} | {f"{name}/texts": float(len(texts))}


def export(folder: Path, data_dir: Path, output: Path, kind: str) -> None:
    """Write the codes (``npz``, ``parquet``: code, level, title, space coordinates, time, radius) or a ``huggingface`` folder.

    The Hugging Face folder holds the encoder with its adapters merged in (`AutoModel` loads it), the adapters as they are in `adapter/`
    (`PeftModel` loads them onto the base encoder), the tokenizer, the head, the codes and a model card.

    It appears whole or not at all.

    Raises:
        OutputError: `output` is there already, or there is no room for it.
    """
    require_free(output)
    config, table, model = open_checkpoint(folder, data_dir)
    with torch.inference_mode():
        radius, direction = model.head.codes()
        points = exp0(radius.double().unsqueeze(-1) * direction.double(), 1.0)
        columns: dict[str, Any] = {
            "code": np.array(table.codes),
            "level": table.level,
            "title": np.array([t or "" for t in table.channels["title"]]),
            "radius": polar(radius.double().unsqueeze(-1) * direction.double())[0].numpy(),
            "time": time(points, 1.0).numpy(),
        }
    if kind == "npz":
        write_whole(output, lambda out: np.savez(out, coordinates=points.numpy(), **columns))
    elif kind == "parquet":
        import pyarrow
        import pyarrow.parquet

        coordinates = {f"x{i}": points[:, i].numpy() for i in range(points.shape[1])}
        table_of_codes = pyarrow.table({**columns, **coordinates})
        write_whole(output, lambda out: pyarrow.parquet.write_table(table_of_codes, out))
    else:
        with new_folder(output) as fresh:
            try:
                _export_folder(folder, fresh, config, table, model)
            except SafetensorError as error:
                raise OutputError(f"cannot write the export {output}: {error}; nothing was written") from error


def _export_folder(folder: Path, output: Path, config: NaicsConfig, table: NaicsTable, model: CodeSpace) -> None:
    from safetensors.torch import save_file

    encoder = model.encoder
    adapted = encoder.adapted
    if adapted:
        encoder.model.peft_config[
            "default"
        ].base_model_name_or_path = config.model.encoder  # not where the base lies on this machine
        encoder.model.save_pretrained(output / ADAPTER)
        (output / ADAPTER / "README.md").unlink(missing_ok=True)  # peft's is a form to be filled in
    merged = encoder.model.merge_and_unload() if adapted else encoder.model
    merged.save_pretrained(output)
    encoder.tokenizer.model_max_length = config.model.max_tokens
    encoder.tokenizer.save_pretrained(output)
    save_file(
        {f"head.{name}": tensor.contiguous() for name, tensor in model.head.state_dict().items()},
        output / "head.safetensors",
    )
    (output / "codes.json").write_text(json.dumps(list(table.codes)) + "\n", encoding="utf-8")
    shutil.copyfile(folder / layout.CONFIG, output / "curricle.yaml")
    manifest = read_manifest(open_store(str(folder)), "")
    card = model_card(config, len(table.codes), adapted, manifest.metrics if manifest else {})
    (output / "README.md").write_text(card, encoding="utf-8")
