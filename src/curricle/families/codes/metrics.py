"""The metrics, in one place and in float64: retrieval of codes for texts, and structure of the codes against the tree.

Definitions: every pair of all codes, never a sample; tree distance through a virtual root above the roots; ties averaged in Spearman.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from curricle.families.codes.tree import Tree

RETRIEVAL = (
    "top1",
    "hit@5",
    "hit@10",
    "mrr",
    "precision@50",
    "precision@70",
    "precision@90",
    "ece",
    "automatic@5",
    "error@5",
    "texts",
)
"""Of the texts of one split, beside ``top1@<level>`` of each level above the finest."""
OF_DOMAIN = ("top1", "mrr", "hit@5", "ece", "automatic@5", "error@5", "texts")
"""Of the old and the new texts apart, where a continued training has both."""
STRUCTURE = (
    *("pearson", "distortion", "spearman", "spearman_within"),
    *("ndcg@10", "parent@1", "parent@1_nu", "edge_map"),
)
"""Of all codes; one for which a tree has nothing to measure (of a single level, say) is not there."""
ROBUST = (
    "upper_top1",
    "typos_top1",
    "abbreviated_top1",
    "sentence_top1",
    "foreign_auroc",
    "foreign_found",
    "real_kept",
)
"""Of test texts as careless people write them, and of texts without a code."""
NAICS_LEVELS = (2, 3, 4, 5, 6)
"""Of prepared data whose facts do not say."""


def measured(facts: Mapping[str, Any]) -> set[str]:
    """Names of what `evaluate` gives, by the facts of the prepared data."""
    splits = [name for name in ("test", "cold") if facts.get(f"entry_{name}")]
    levels = tuple(facts.get("levels", NAICS_LEVELS))
    found = (*RETRIEVAL, *(f"top1@{level}" for level in levels[:-1]))
    form = STRUCTURE if len(levels) > 1 else ("distortion", "ndcg@10")
    domains = {name: facts.get("scored", {}).get(name, ()) for name in splits}
    names = {f"{name}/{domain}/{metric}" for name, ds in domains.items() for domain in ds for metric in OF_DOMAIN}
    names |= {f"{name}/{metric}" for name in splits for metric in found} | {f"structure/{name}" for name in form}
    return names | ({f"robust/{name}" for name in ROBUST} if "test" in splits else set())


def retrieval(scores: np.ndarray, target: np.ndarray, tree: Tree) -> dict[str, float]:
    """Retrieval metrics.

    Args:
        scores: [n, m], higher is better, of the tree's m leaves.
        target: [n], column of the right code.

    Returns:
        ``top1``, ``hit@5``, ``hit@10``, ``mrr``, ``top1@<level>`` of each level above the finest, ``precision@50/70/90`` (top-1 precision on the most
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
    for level, above in zip(tree.levels[:-1], tree.cuts[tree.leaves].T, strict=False):
        out[f"top1@{level}"] = (above[first] == above[target]).mean()
    if scores.shape[1] > 1:
        two = -np.partition(-scores, 1, axis=1)[:, :2]
        order = np.argsort(two[:, 1] - two[:, 0], kind="stable")
        right = first == target
        for share in (50, 70, 90):
            out[f"precision@{share}"] = right[order[: max(1, n * share // 100)]].mean()
    return {name: float(value) for name, value in out.items()}


def threshold(confidence: np.ndarray, right: np.ndarray, max_error: float) -> float:
    """The lowest confidence [n] from which on the share of wrong ones is at most `max_error`; above 1 where there is none."""
    order = np.argsort(-confidence, kind="stable")
    error = np.cumsum(~right[order]) / np.arange(1, len(order) + 1)
    allowed = np.flatnonzero(error <= max_error)
    return float(confidence[order[allowed[-1]]]) if len(allowed) else 2.0


def told_apart(lower: np.ndarray, higher: np.ndarray) -> float:
    """Area under the ROC curve: how often a value [n] of the first is below one [m] of the second; ties count half."""
    both = _ranks(np.concatenate([lower, higher]))
    n, m = len(lower), len(higher)
    return float((both[n:].sum() - m * (m + 1) / 2) / (n * m)) if n and m else float("nan")


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
    return {name: float(value) for name, value in scores.items() if np.isfinite(value)}


def _pairs(distances: np.ndarray, true: np.ndarray, sectors: np.ndarray) -> dict[str, float]:
    """What is measured over pairs of codes, and over pairs within a sector (the codes under one root)."""
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
    return scores | {"spearman_within": _mean(within)}


def _neighbours(distances: np.ndarray, true: np.ndarray, tree: Tree) -> dict[str, float]:
    """What is measured on each code's neighbours in order of distance."""
    order = distances.copy()
    np.fill_diagonal(order, np.inf)
    order = np.argsort(order, axis=1, kind="stable")
    discount = 1 / np.log2(np.arange(min(10, len(order))) + 2)
    gain = 2.0 ** (1 - true)
    np.fill_diagonal(gain, 0)
    reached = np.take_along_axis(gain, order[:, :10], 1) @ discount
    gain.sort(axis=1)
    return {"ndcg@10": (reached / (gain[:, :-11:-1] @ discount)).mean()} | _edges(distances, order, tree)


def _edges(distances: np.ndarray, order: np.ndarray, tree: Tree) -> dict[str, float]:
    n = len(tree.codes)
    right: list[bool] = []
    counted: list[bool] = []
    for depth in range(2, len(tree.levels) + 1):
        rows, above = np.flatnonzero(tree.depth == depth), np.flatnonzero(tree.depth == depth - 1)
        if len(rows):
            nearest = above[distances[np.ix_(rows, above)].argmin(1)]
            right.extend(nearest == tree.parent[rows])
            counted.extend(len(tree.children[p]) > 1 for p in tree.parent[rows])
    right_, counted_ = np.array(right), np.array(counted, dtype=bool)
    place = np.empty_like(order)
    np.put_along_axis(place, order, np.arange(1, n + 1)[None, :].repeat(n, 0), 1)
    precision = []
    for i in range(n):
        linked = [*tree.children[i], *([tree.parent[i]] if tree.parent[i] >= 0 else [])]
        if not linked:
            continue
        ranks = np.sort(place[i, linked])
        precision.append((np.arange(1, len(ranks) + 1) / ranks).mean())
    return {"parent@1": _mean(right_), "parent@1_nu": _mean(right_[counted_]), "edge_map": _mean(precision)}


def _mean(values: Sequence[float] | np.ndarray) -> float:
    """The mean; NaN of nothing."""
    return float(np.mean(values)) if len(values) else float("nan")


def _pearson(a: np.ndarray, b: np.ndarray) -> float:
    a, b = a - a.mean(), b - b.mean()
    norm = np.sqrt((a @ a) * (b @ b))
    return float(a @ b / norm) if norm > 0 else float("nan")


def _ranks(values: np.ndarray) -> np.ndarray:
    """Ranks with ties averaged."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = counts.cumsum()
    return ((last - counts + 1 + last) / 2)[inverse]
