"""The scorer: what `search`, `assign` and `evaluate` share. It weighs the opinions of a trained model into probabilities of codes.

The first use of a model makes it: training texts are encoded, the linear model is trained, the weights are chosen on validation
texts. It is then kept in the cache, under the digest of model and data; a store is never written to.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from curricle.config.load import from_tree, read_yaml
from curricle.errors import CheckpointError
from curricle.families.codes.config import CodesConfig
from curricle.families.codes.explain import Reasons, reasons
from curricle.families.codes.foreign import embedded, foreign_texts, words_of
from curricle.families.codes.metrics import threshold
from curricle.families.codes.model_numpy import NumpyModel, fits
from curricle.families.codes.opinions import CHUNK, Asked, Memory, Opinions
from curricle.families.codes.prepare import load
from curricle.families.codes.weighing import Weights, blunted, chosen, lifted, log_softmax, sample, told_apart
from curricle.store import layout
from curricle.store.local import open_plain, write_whole
from curricle.training.pulse import working

if TYPE_CHECKING:
    from curricle.families.codes.model_torch import TorchModel

log = logging.getLogger(__name__)

CACHE = Path(".curricle/work")
FORMAT = 5
"""Raised whenever what is kept changes its meaning."""
NO_CODE = "no code: nonsense, or of something else"
FOLDS = 5
FEW = 16
"""Texts that are asked without torch, at most."""
MADE_UP = 400
"""Texts of each kind that "no code" is learned from."""


@dataclass(frozen=True)
class Hit:
    """A code for a text."""

    code: str
    """Empty for "no code"."""
    title: str
    score: float
    """Logarithm of the confidence."""
    confidence: float
    """Probability of the code, calibrated on validation texts."""
    path: tuple[tuple[str, str], ...] = ()
    """(code, title) from the top of the tree down to the code."""


@dataclass(frozen=True)
class Scored:
    """Of n texts."""

    logs: np.ndarray
    """float32 [n, leaves]: log-probability of each code, given that there is one."""
    no_code: np.ndarray
    """Probability [n] that there is none."""

    def confidence(self) -> np.ndarray:
        """Probability of each code [n, leaves]."""
        return np.exp(self.logs) * (1 - self.no_code)[:, None]


@dataclass(frozen=True)
class Tuning:
    """What was chosen on validation texts."""

    weights: Weights
    confidence: np.ndarray
    """Of the first code of each validation text, by weights that were chosen without it."""
    right: np.ndarray
    """Whether that code was the right one."""

    def as_json(self) -> dict[str, Any]:
        """Plain lists and numbers."""
        shown = {"confidence": self.confidence.tolist(), "right": self.right.astype(int).tolist()}
        return {"weights": self.weights.as_json(), **shown}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Tuning:
        """What `as_json` wrote.

        Raises:
            KeyError, TypeError, ValueError: it is something else.
        """
        weights = Weights.from_json(content["weights"])
        return cls(weights, np.array(content["confidence"], dtype=np.float64), np.array(content["right"], dtype=bool))


class Scorer:
    """Scores texts against all leaf codes."""

    def __init__(self, folder: Path, data_dir: Path, cache: Path):
        self.folder, self.data_dir, self._cache = folder, data_dir, cache
        config_of(folder)
        self.table = load(data_dir)
        self.leaves = self.table.leaves
        self.codes = [self.table.codes[i] for i in self.leaves]
        self._paths: dict[int, tuple[tuple[str, str], ...]] = {}
        """Of the leaves that were found so far."""
        key = key_of(folder, data_dir)
        self.files = [cache / f"scorer-{key}.{kind}" for kind in ("safetensors", "json")]
        """Where it is kept: the arrays, and what says that they are whole."""
        kept = read_kept(cache, key)
        self._light: NumpyModel | None = None
        if kept is not None:
            arrays, self.tuning = kept
            self._light = NumpyModel(arrays) if fits(arrays) else None
            self.memory = Memory(self.table, self._ask, arrays)
            return
        log.warning("the scorer of this model is made once, from its training texts, and kept in %s", cache)
        with working("making the model's scorer"):
            self.memory = Memory.made(self.model, cache)
            self.tuning = self._tune()
        try:
            write_kept(cache, key, self.memory.tensors() | self.model.arrays(), self.tuning)
        except OSError as error:
            log.warning("the scorer cannot be kept (%s), so it is made again next time", error)

    @classmethod
    def load(cls, folder: Path, data_dir: Path, cache: Path = CACHE) -> Scorer:
        """Open a checkpoint for scoring; the first time takes as long as it takes to encode the training texts, and more.

        Raises:
            CheckpointError: the folder holds no such checkpoint.
        """
        return cls(folder, data_dir, cache)

    @cached_property
    def model(self) -> TorchModel:
        """The model in torch; a few texts are asked without it."""
        from curricle.families.codes.model_torch import TorchModel
        from curricle.families.codes.use import open_checkpoint

        config, _, space = open_checkpoint(self.folder, self.data_dir)
        return TorchModel(config, self.table, space, self._cache)

    def _ask(self, count: int) -> Asked:
        """A few texts are asked of the arrays, until torch has been imported anyway."""
        if self._light is None or count > FEW or "model" in self.__dict__:
            return self.model
        return self._light

    def scored(self, texts: list[str]) -> Scored:
        """Probabilities of all codes, and of there being none."""
        parts = [self.weighed(self.memory.of(texts[i : i + CHUNK])) for i in range(0, len(texts), CHUNK)]
        if not parts:
            return Scored(np.zeros((0, len(self.codes)), dtype=np.float32), np.zeros(0))
        return Scored(np.concatenate([p.logs for p in parts]), np.concatenate([p.no_code for p in parts]))

    def weighed(self, opinions: Opinions) -> Scored:
        """Probabilities, of texts whose opinions are known."""
        weights = self.tuning.weights
        logs = weights.log_probabilities(opinions.values, opinions.signs, self.memory.bare)
        return Scored(logs, weights.no_code(opinions.signs))

    def search(self, texts: list[str], top: int) -> list[list[Hit]]:
        """The best codes of each text, best first; where none is likelier than any, "no code" stands before them."""
        hits = []
        scored = self.scored(texts)
        for order, shares, none in zip(highest(scored.logs, top), scored.confidence(), scored.no_code, strict=True):
            first = [Hit("", NO_CODE, float(np.log(none)), float(none))] if none > 0.5 else []
            rest = order[: top - len(first)].tolist()
            hits.append(first + [self._hit(leaf, float(shares[leaf])) for leaf in rest])
        return hits

    def search_fast(self, texts: list[str], top: int) -> list[list[Hit]]:
        """The same with texts encoded in 16 bits where the processor is fast in them, else in 8: confidences differ in the second digit."""
        self.model.fast = True
        try:
            return self.search(texts, top)
        finally:
            self.model.fast = False

    def _hit(self, leaf: int, share: float) -> Hit:
        if leaf not in self._paths:
            self._paths[leaf] = self.path(int(self.leaves[leaf]))
        path = self._paths[leaf]
        return Hit(*path[-1], float(np.log(max(share, 1e-30))), share, path)

    def path(self, code: int) -> tuple[tuple[str, str], ...]:
        """(code, title) from the top of the tree down to a code."""
        steps = []
        while code >= 0:
            steps.append((self.table.codes[code], self.table.channels["title"][code] or ""))
            code = int(self.table.parent[code])
        return tuple(reversed(steps))

    def explain(self, texts: list[str], hits: list[list[Hit]]) -> list[list[Reasons]]:
        """What each hit of `search` rests on."""
        return reasons(self.memory, texts, [[hit.code for hit in row] for row in hits])

    def threshold(self, max_error: float) -> float:
        """The confidence from which on the share of wrong first codes is at most `max_error`, on validation texts; above 1 where there is none."""
        return threshold(self.tuning.confidence, self.tuning.right, max_error)

    def _tune(self) -> Tuning:
        texts = self.table.split("validation")
        column = {code: i for i, code in enumerate(self.codes)}
        texts = [t for t in texts if t.code in column]
        texts = [texts[i] for i in sample(len(texts), len(self.codes))]
        target = np.array([column[t.code] for t in texts], dtype=np.int64)
        said = [t.text for t in texts]
        opinions, unseen = self.memory.of_both(said, self.model)
        seed = self.model.config.seed
        values, signs = opinions.values, opinions.signs
        weights = chosen(values, signs, target)
        fold = np.random.default_rng(seed).permutation(len(target)) % FOLDS
        logs = np.zeros(values.shape[1:], dtype=np.float32)
        nobody = np.zeros(len(self.codes), dtype=bool)
        for k in range(FOLDS if len(target) > FOLDS else 0):
            out = fold == k
            apart = chosen(values[:, ~out], signs[~out], target[~out], weights)
            logs[out] = apart.log_probabilities(values[:, out], signs[out], nobody)
        if len(target) > FOLDS:
            weights = replace(weights, blunt=blunted(logs, target))
            logs = log_softmax(logs / weights.blunt)
        if self.memory.bare.any():
            weights = lifted(weights, values, unseen, signs, target, seed)
        vocabulary = words_of(self.model.space.encoder.tokenizer)
        longer = embedded(said, vocabulary, min(MADE_UP, len(said)), seed)
        other = foreign_texts(said, vocabulary, MADE_UP, seed)
        real = np.concatenate([signs, self.memory.of(longer).signs]) if longer else signs
        weights = told_apart(weights, real, self.memory.of(other).signs)
        confidence = np.exp(logs.max(1)) * (1 - weights.no_code(signs))
        return Tuning(weights, confidence, logs.argmax(1) == target)


def highest(values: np.ndarray, top: int) -> np.ndarray:
    """Columns of the `top` highest of each row's values, the highest first; all of them where there are no more."""
    if top < values.shape[1]:
        columns = np.sort(np.argpartition(-values, top - 1, axis=1)[:, :top], axis=1)
    else:
        columns = np.broadcast_to(np.arange(values.shape[1]), values.shape)
    order = np.argsort(-np.take_along_axis(values, columns, 1), axis=1, kind="stable")
    return np.take_along_axis(columns, order, 1)


def key_of(folder: Path, data_dir: Path) -> str:
    """Digest of what a scorer depends on: the checkpoint, the data, and the files of an encoder that lies in a folder.

    Raises:
        CheckpointError: the folder holds no such checkpoint.
    """
    digest = hashlib.sha256(f"{FORMAT}".encode())
    config = config_of(folder)
    for path in (folder / layout.CONFIG, folder / layout.WEIGHTS, *sorted(data_dir.glob("*.jsonl"))):
        digest.update(path.name.encode() + hashlib.sha256(path.read_bytes()).digest())
    encoder = Path(config.model.encoder)
    for path in sorted(encoder.iterdir()) if encoder.is_dir() else ():
        about = path.stat()
        digest.update(f"{path.name} {about.st_size} {about.st_mtime_ns}".encode())
    return digest.hexdigest()[:32]


def config_of(folder: Path) -> CodesConfig:
    """The configuration of a checkpoint folder.

    Raises:
        CheckpointError: the folder holds no such checkpoint.
    """
    for name in (layout.CONFIG, layout.WEIGHTS):
        if not (folder / name).is_file():
            raise CheckpointError(
                f"{folder} is no NAICS checkpoint: {name} is missing; it holds {', '.join(sorted(p.name for p in folder.iterdir()))}"
            )
    return from_tree(CodesConfig, read_yaml(folder / layout.CONFIG).tree)


def read_kept(cache: Path, key: str) -> tuple[dict[str, np.ndarray], Tuning] | None:
    """What `write_kept` wrote; None where there is nothing, or it is not whole, or no plain file."""
    from safetensors.numpy import load as load_arrays

    try:
        with (
            open_plain(cache / f"scorer-{key}.json") as said,
            open_plain(cache / f"scorer-{key}.safetensors") as arrays,
        ):
            content, raw = json.load(said), arrays.read()
        if content["format"] != FORMAT or content["sha256"] != hashlib.sha256(raw).hexdigest():
            return None
        return load_arrays(raw), Tuning.from_json(content["tuning"])
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None


def write_kept(cache: Path, key: str, tensors: dict[str, np.ndarray], tuning: Tuning) -> None:
    """Write the arrays, and then what says that they are whole.

    Raises:
        OSError: the cache cannot be written to.
    """
    from safetensors.numpy import save

    raw = save({name: np.ascontiguousarray(array) for name, array in tensors.items()})
    content = {"format": FORMAT, "sha256": hashlib.sha256(raw).hexdigest(), "tuning": tuning.as_json()}
    cache.mkdir(parents=True, exist_ok=True)
    write_whole(cache / f"scorer-{key}.safetensors", lambda out: out.write(raw))
    said = json.dumps(content).encode()
    write_whole(cache / f"scorer-{key}.json", lambda out: out.write(said))
