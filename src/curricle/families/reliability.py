"""How far probabilities hold, for every family."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

BINS = 15
"""Of equal width: those of Guo et al. 2017, "On Calibration of Modern Neural Networks" (arXiv 1706.04599)."""


def calibration_error(scores: Iterable[float], right: Iterable[bool]) -> float:
    """Expected calibration error: |mean score - share right| over `BINS` bins, weighted by how many are in each; 0 for none."""
    p, hits = np.fromiter(scores, float), np.fromiter(right, float)
    gaps = np.bincount(_bins(p), weights=p - hits, minlength=BINS)
    return float(np.abs(gaps).sum() / max(1, len(p)))


def reliability(scores: Iterable[float], right: Iterable[bool]) -> list[list[float]]:
    """[mean score, share right, how many] of each of the `BINS` bins that holds any, in order: the points of a reliability diagram."""
    p, hits = np.fromiter(scores, float), np.fromiter(right, float)
    counts, sums, rights = (np.bincount(_bins(p), weights=weights, minlength=BINS) for weights in (None, p, hits))
    return [
        [round(float(s / n), 4), round(float(r / n), 4), int(n)]
        for n, s, r in zip(counts, sums, rights, strict=True)
        if n
    ]


def _bins(scores: np.ndarray) -> np.ndarray:
    return np.minimum((scores * BINS).astype(int), BINS - 1)
