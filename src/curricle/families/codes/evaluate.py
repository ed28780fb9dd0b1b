"""Test metrics of a checkpoint, after a check that nothing that is measured was trained on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from curricle.families.codes import metrics
from curricle.families.codes.carrying import read_carried
from curricle.families.codes.continued import classification_digest, require_same
from curricle.families.codes.prepare import CodeTable, load
from curricle.families.codes.robust import FOREIGN, WAYS
from curricle.families.codes.scorer import Scorer
from curricle.families.codes.texts import LabelledText
from curricle.families.codes.tree import Tree
from curricle.families.reliability import calibration_error

ERROR = 0.05
"""Share of wrong codes that is allowed where the share of texts coded without a person is measured."""
ERRORS = (0.01, 0.02, 0.05, 0.1)
"""Of `assign --max-error`, that are looked at together (`rules`)."""
ROBUST = 1000
"""Test texts that are changed in each way, at most."""


def evaluate(checkpoint_dir: Path, data_dir: Path) -> dict[str, float]:
    """Retrieval on test texts (and on those of hidden codes, where there are any), robustness, and structure of all codes.

    Raises:
        DataError: an evaluation text is among the training texts.
    """
    scorer = Scorer.load(checkpoint_dir, data_dir)
    scorer.table.check_no_leak()
    return all_metrics(scorer)


def evaluate_on(checkpoint_dir: Path, data_dir: Path, own_dir: Path) -> dict[str, float]:
    """Retrieval of the test texts of other data by a model that rests on its own: what a continued training is compared with.

    Where a crosswalk made the data of the model's codes, the probability of an old code is divided among its new ones: what the model says through the concordance.

    Raises:
        DataError: the data are of other codes, or a text to measure is among the texts that the model was trained with.
    """
    scorer, asked = Scorer.load(checkpoint_dir, own_dir), load(data_dir)
    carried = read_carried(data_dir)
    shares = None
    if carried and carried.of == classification_digest(scorer.table.tree) != classification_digest(asked.tree):
        shares = through(scorer.table.tree, asked.tree, carried.targets)
    else:
        require_same(scorer.table.tree, asked.tree, f"the data {data_dir}")
    known = [t for t in scorer.table.texts if t.split == "train"]
    CodeTable.check_no_leak(replace(asked, texts=[*known, *(t for t in asked.texts if t.split != "train")]))
    return measure(scorer, "test", "test", asked, shares)


def through(old: Tree, new: Tree, targets: Mapping[str, tuple[str, ...]]) -> np.ndarray:
    """[old leaves, new leaves]: the share of each old code that goes to each new one."""
    column = {new.codes[leaf]: i for i, leaf in enumerate(new.leaves)}
    share = np.zeros((len(old.leaves), len(column)), dtype=np.float32)
    for i, leaf in enumerate(old.leaves):
        mine = targets.get(old.codes[leaf], ())
        for code in mine:
            share[i, column[code]] = 1 / len(mine)
    return share


def all_metrics(scorer: Scorer) -> dict[str, float]:
    """What `evaluate` gives."""
    scores = measure(scorer, "test", "test") | measure(scorer, "cold", "cold") | robustness(scorer)
    form = metrics.structure(scorer.model.space.head.between(), scorer.table.tree)
    return scores | {f"structure/{name}": value for name, value in form.items()}


def measure(
    scorer: Scorer, split: str, name: str, table: CodeTable | None = None, shares: np.ndarray | None = None
) -> dict[str, float]:
    """Retrieval metrics of a split's texts among all leaf codes, and how far their confidence holds, as ``<name>/<metric>``; where a continued training
    made domains, also ``<name>/<domain>/<metric>``.

    Args:
        table: holds the texts; None for the scorer's own.
        shares: [the scorer's leaves, the table's]: how codes become those of the table, where they are others.
    """
    table = table or scorer.table
    texts, target = texts_of(table, split)
    if not texts:
        return {}
    scored = scorer.scored([t.text for t in texts])
    logs, confidence, sure = scored.logs, scored.confidence(), scorer.threshold(ERROR)
    if shares is not None:
        logs, confidence = np.log(np.maximum(np.exp(logs) @ shares, 1e-30)), confidence @ shares
    found = _figures(logs, confidence, target, table, sure)
    found = {f"{name}/{key}": value for key, value in found.items()}
    domains = np.array([table.domain(t) for t in texts])
    for domain in np.unique(domains) if table.batches else ():
        rows = domains == domain
        figures = _figures(logs[rows], confidence[rows], target[rows], table, sure)
        found |= {f"{name}/{domain}/{key}": figures[key] for key in metrics.OF_DOMAIN}
    return found


def _figures(
    logs: np.ndarray, confidence: np.ndarray, target: np.ndarray, table: CodeTable, threshold: float
) -> dict[str, float]:
    """Of n texts: log-probabilities and confidence [n, leaves], and the column [n] of each one's code."""
    values = metrics.retrieval(logs, target, table.tree)
    first = confidence.argmax(1)
    confidence, right = confidence[np.arange(len(first)), first], first == target
    coded, wrong = _alone(confidence, right, threshold)
    return values | {
        "ece": calibration_error(confidence, right),
        "automatic@5": coded,
        "error@5": wrong,
        "texts": float(len(target)),
    }


def rules(scorer: Scorer, sure: np.ndarray, right: np.ndarray) -> list[tuple[float, float, float, float]]:
    """Of each of `ERRORS`: (that share, the threshold that validation texts give for it, share of texts at or above it, share wrong of those).

    Args:
        sure, right: confidence [n] of the texts' first codes, and whether they are right.
    """
    rows = []
    for error in ERRORS:
        least = scorer.threshold(error)
        rows.append((error, least, *_alone(sure, right, least)))
    return rows


def _alone(confidence: np.ndarray, right: np.ndarray, threshold: float) -> tuple[float, float]:
    """Of texts by their first codes [n]: the share at or above the threshold, and the share wrong of those."""
    sure = confidence >= threshold
    return float(sure.mean()), float(1 - right[sure].mean()) if sure.any() else 0.0


def robustness(scorer: Scorer) -> dict[str, float]:
    """Top-1 of the test texts that change when careless people write them, and how well texts of no business are told from them."""
    texts, target = texts_of(scorer.table, "test")
    draw = np.random.default_rng(0)
    some = np.sort(draw.permutation(len(texts))[:ROBUST])
    said, target = [texts[i].text for i in some], target[some]
    if not said:
        return {}
    values = {}
    for name, change in WAYS.items():
        changed = change(said, draw)
        rows = [i for i, (a, b) in enumerate(zip(said, changed, strict=True)) if a != b] or list(range(len(said)))
        first = scorer.scored([changed[i] for i in rows]).logs.argmax(1)
        values[f"{name}_top1"] = float((first == target[rows]).mean())
    real = scorer.scored(said).no_code
    other = scorer.scored(list(FOREIGN)).no_code
    values["foreign_auroc"] = metrics.told_apart(real, other)
    values["foreign_found"] = float((other > 0.5).mean())
    values["real_kept"] = float((real <= 0.5).mean())
    return {f"robust/{name}": value for name, value in values.items()}


def texts_of(table: CodeTable, split: str) -> tuple[list[LabelledText], np.ndarray]:
    """The labelled texts of a split, and the column [n] of each one's code."""
    column = {table.codes[leaf]: i for i, leaf in enumerate(table.leaves)}
    texts = [t for t in table.split(split) if t.kind == "entry" and t.code in column]
    return texts, np.array([column[t.code] for t in texts], dtype=np.int64)
