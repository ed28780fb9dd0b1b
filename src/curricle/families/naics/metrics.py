"""The metrics, in one place and in float64: retrieval of codes for texts, and structure of the codes against the tree.

Definitions: every pair of all codes, never a sample; tree distance through a virtual root above the sectors; ties averaged in Spearman.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from curricle.families.naics.tree import Tree

RETRIEVAL = (
    *("top1", "hit@5", "hit@10", "mrr"),
    *("top1@2", "top1@3", "top1@4", "top1@5"),
    *("precision@50", "precision@70", "precision@90"),
    "texts",
)
"""Of the texts of one split."""
STRUCTURE = (
    *("pearson", "distortion", "spearman", "spearman_within"),
    *("ndcg@10", "parent@1", "parent@1_nu", "edge_map"),
)
"""Of all codes."""


def measured(facts: Mapping[str, Any]) -> set[str]:
    """Names of what `evaluate` gives, by the facts of the prepared data."""
    splits = [name for name in ("test", "cold") if facts.get(f"entry_{name}")]
    return {f"{name}/{metric}" for name in splits for metric in RETRIEVAL} | {f"structure/{name}" for name in STRUCTURE}


def retrieval(scores: np.ndarray, target: np.ndarray, candidates: list[str]) -> dict[str, float]:
    """Retrieval metrics.

    Args:
        scores: [n, m], higher is better.
        target: [n], column of the right code.
        candidates: the m codes.

    Returns:
        ``top1``, ``hit@5``, ``hit@10``, ``mrr``, ``top1@2`` to ``top1@5`` digits, ``precision@50/70/90`` (top-1 precision on the most
        certain share of texts, certainty being the margin between the first two). A tie counts against the right code.
    """
    n = len(target)
    if not n:
        return {}
    own = scores[np.arange(n), target]
    rank = (scores >= own[:, None]).sum(1)
    first = scores.argmax(1)
    out = {
        "top1": (rank == 1).mean(),
        "hit@5": (rank <= 5).mean(),
        "hit@10": (rank <= 10).mean(),
        "mrr": (1 / rank).mean(),
    }
    codes = np.array(candidates)
    for digits in (2, 3, 4, 5):
        prefix = np.array([sector(c) if digits == 2 else c[:digits] for c in codes])
        out[f"top1@{digits}"] = (prefix[first] == prefix[target]).mean()
    if scores.shape[1] > 1:
        two = -np.partition(-scores, 1, axis=1)[:, :2]
        order = np.argsort(two[:, 1] - two[:, 0], kind="stable")
        right = first == target
        for share in (50, 70, 90):
            out[f"precision@{share}"] = right[order[: max(1, n * share // 100)]].mean()
    return {name: float(value) for name, value in out.items()}


def sector(code: str) -> str:
    """The two-digit sector a code belongs to, combined sectors as one (``32`` → ``31``)."""
    return {"32": "31", "33": "31", "45": "44", "49": "48"}.get(code[:2], code[:2])


def structure(distances: np.ndarray, tree: Tree) -> dict[str, float]:
    """How well distances [N, N] of all codes follow the tree.

    Returns:
        ``pearson``, ``spearman``, ``spearman_within`` (mean over sectors of 5 codes or more), ``ndcg@10`` (gain ``2^(1-D)``),
        ``parent@1`` and ``parent@1_nu`` (nearest code of the level above; nu: parents with two children or more), ``edge_map``
        (parent and children among all other codes), ``distortion`` (mean of |ratio / median ratio - 1|).
    """
    everyone = np.arange(len(tree.codes))
    true = tree.tree_distance(everyone[:, None], everyone[None, :])
    scores = _pairs(distances, true, tree.ancestors[:, 0]) | _neighbours(distances, true, tree)
    return {name: float(value) for name, value in scores.items()}


def _pairs(distances: np.ndarray, true: np.ndarray, sectors: np.ndarray) -> dict[str, float]:
    """What is measured over pairs of codes, and over pairs within a sector."""
    upper = np.triu(np.ones(true.shape, dtype=bool), 1)
    d, t = distances[upper], true[upper].astype(np.float64)
    ratio = d / t
    scores = {
        "pearson": _pearson(d, t),
        "distortion": np.abs(ratio / np.median(ratio) - 1).mean(),
        "spearman": _pearson(_ranks(d), _ranks(t)),
    }
    within = []
    for s in np.unique(sectors):
        rows = np.flatnonzero(sectors == s)
        if len(rows) >= 5:
            block, pairs = np.ix_(rows, rows), np.triu_indices(len(rows), 1)
            within.append(_pearson(_ranks(distances[block][pairs]), _ranks(true[block][pairs])))
    return scores | {"spearman_within": np.mean(within)}


def _neighbours(distances: np.ndarray, true: np.ndarray, tree: Tree) -> dict[str, float]:
    """What is measured on each code's neighbours in order of distance."""
    order = distances.copy()
    np.fill_diagonal(order, np.inf)
    order = np.argsort(order, axis=1, kind="stable")
    discount = 1 / np.log2(np.arange(10) + 2)
    gain = 2.0 ** (1 - true)
    np.fill_diagonal(gain, 0)
    reached = np.take_along_axis(gain, order[:, :10], 1) @ discount
    gain.sort(axis=1)
    return {"ndcg@10": (reached / (gain[:, :-11:-1] @ discount)).mean()} | _edges(distances, order, tree)


def _edges(distances: np.ndarray, order: np.ndarray, tree: Tree) -> dict[str, float]:
    n = len(tree.codes)
    right: list[bool] = []
    counted: list[bool] = []
    for level in range(3, 7):
        rows, above = np.flatnonzero(tree.level == level), np.flatnonzero(tree.level == level - 1)
        if len(rows):
            nearest = above[distances[np.ix_(rows, above)].argmin(1)]
            right.extend(nearest == tree.parent[rows])
            counted.extend(len(tree.children[p]) > 1 for p in tree.parent[rows])
    right_, counted_ = np.array(right), np.array(counted)
    place = np.empty_like(order)
    np.put_along_axis(place, order, np.arange(1, n + 1)[None, :].repeat(n, 0), 1)
    precision = []
    for i in range(n):
        linked = [*tree.children[i], *([tree.parent[i]] if tree.parent[i] >= 0 else [])]
        ranks = np.sort(place[i, linked])
        precision.append((np.arange(1, len(ranks) + 1) / ranks).mean())
    return {"parent@1": right_.mean(), "parent@1_nu": right_[counted_].mean(), "edge_map": np.mean(precision)}


def _pearson(a: np.ndarray, b: np.ndarray) -> float:
    a, b = a - a.mean(), b - b.mean()
    norm = np.sqrt((a @ a) * (b @ b))
    return float(a @ b / norm) if norm > 0 else float("nan")


def _ranks(values: np.ndarray) -> np.ndarray:
    """Ranks with ties averaged."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = counts.cumsum()
    return ((last - counts + 1 + last) / 2)[inverse]
