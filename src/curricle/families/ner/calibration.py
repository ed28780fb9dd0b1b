"""How sure a model is of what it finds, as a rate of errors: of the spans with probability 0.8, about four in five are right.

A word's confidence is the softmax of its tag, a span's the mean of its words': networks give too much (Guo et al. 2017, "On Calibration of
Modern Neural Networks", arXiv 1706.04599). The probability is sigmoid(scale · logit(confidence) + offset), after Platt 1999 ("Probabilistic
Outputs for Support Vector Machines"): a temperature, 1 / scale, on the log-odds, and an offset for how hard the data are. Both are fitted to
whether the spans that are found in validation records are exactly right; a second pair is fitted to the words outside of spans, for the
certainty of whole texts. Which spans are found does not depend on it.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from curricle.errors import CheckpointError
from curricle.families.ner.checkpoint import read_object
from curricle.families.ner.tokens import Span
from curricle.families.ner.windows import Window

CALIBRATION_FILE = "calibration.json"
FLATTEST = 0.01
"""The least scale that is fitted: a higher confidence is always a higher probability."""
_EDGE = 1e-6
"""How near to 0 and 1 a confidence is told from them."""


@dataclass(frozen=True)
class Scale:
    """From confidences to probabilities."""

    scale: float = 1.0
    """Not negative: a higher confidence is never a lower probability."""
    offset: float = 0.0
    count: int = 0
    """How many confidences it was fitted to."""

    def __call__(self, confidences: np.ndarray) -> np.ndarray:
        """Their probabilities, rounded to six places."""
        return np.round(_sigmoid(self.scale * _logit(confidences) + self.offset), 6)


@dataclass(frozen=True)
class Calibration:
    """What a model's folder says of its probabilities."""

    spans: Scale
    outside: Scale
    """Of words that are found to be in no span."""

    def write(self, folder: Path) -> None:
        """Write it beside the model."""
        (folder / CALIBRATION_FILE).write_text(json.dumps(asdict(self)) + "\n", encoding="utf-8")


def read_calibration(folder: Path) -> Calibration | None:
    """What the folder of a model says; None where it has no such file.

    Raises:
        CheckpointError: the file is damaged.
    """
    path = folder / CALIBRATION_FILE
    if not path.is_file():
        return None
    content = read_object(path)
    spans, outside = _scale(content.get("spans")), _scale(content.get("outside"))
    if set(content) != {"spans", "outside"} or spans is None or outside is None:
        wanted = (
            "spans and outside, each with scale and offset (numbers, scale not negative) and count (a whole number)"
        )
        raise CheckpointError(f"{path} must hold {wanted}, not {content}"[:400])
    return Calibration(spans, outside)


def _scale(content: Any) -> Scale | None:
    """A stored scale; None for anything else."""
    if not isinstance(content, dict) or set(content) != {"scale", "offset", "count"}:
        return None
    scale, offset, count = content["scale"], content["offset"], content["count"]
    if not all(type(n) in (int, float) and abs(n) < 1e6 for n in (scale, offset)) or type(count) is not int:
        return None
    return Scale(float(scale), float(offset), count) if scale >= 0 and count >= 0 else None


class Sureness:
    """Listens while records are tagged, and keeps how sure the model was of each word, and what it found.

    Args:
        outside: the tag of words outside of spans.
    """

    def __init__(self, outside: int):
        self.outside = outside
        self._parts: dict[int, list[tuple[np.ndarray, np.ndarray, np.ndarray]]] = defaultdict(list)
        self.spans: dict[int, list[Span]] = {}
        """By record, what was found."""

    def __call__(self, batch: Sequence[Window], logits: torch.Tensor, best: np.ndarray) -> None:
        """Take the logits [windows, longest, tags] of a batch, and the tags [windows, longest] that were taken."""
        sure = logits.softmax(-1).amax(-1).cpu().numpy()
        for row, window in enumerate(batch):
            at = window.positions
            self._parts[window.record].append((window.words, sure[row, at], best[row, at] == self.outside))

    def confidences(self, record: int, bounds: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Of a record: those of its spans; the words outside of spans, and theirs.

        Args:
            bounds: of the record's words, `Encoded.bounds`.
        """
        sure, outside = np.ones(len(bounds)), np.zeros(len(bounds), bool)
        for words, part, is_outside in self._parts[record]:
            sure[words], outside[words] = part, is_outside
        first = np.searchsorted(bounds[:, 0], [start for start, _, _ in self.spans[record]])
        last = np.searchsorted(bounds[:, 1], [end for _, end, _ in self.spans[record]])
        spans = np.array([sure[low : high + 1].mean() for low, high in zip(first, last, strict=True)])
        words = np.flatnonzero(outside)
        return spans, words, sure[words]


def fit_scale(confidences: np.ndarray, right: np.ndarray) -> Scale:
    """The scale under which the probabilities fit best to which of them are right; without any, the one that changes nothing.

    The targets are Platt's: (r + 1) / (r + 2) for r right ones, 1 / (w + 2) for w wrong ones, so that a handful that are all right makes no
    model certain. One unit normal prior around scale 1 and offset 0 keeps the order of confidences where they are few.
    """
    hits = np.asarray(right, bool)
    x = np.stack([_logit(np.asarray(confidences, float)), np.ones(len(hits))], 1)
    target = np.where(hits, (hits.sum() + 1) / (hits.sum() + 2), 1 / ((~hits).sum() + 2))
    start = np.array([1.0, 0.0])

    def loss(at: np.ndarray) -> float:
        z = x @ at
        return float((np.logaddexp(0, z) - target * z).sum() + 0.5 * ((at - start) ** 2).sum())

    at = start
    for _ in range(50):  # Newton's steps, halved where they overshoot; the loss is convex
        p = _sigmoid(x @ at)
        slope = x.T @ (p - target) + (at - start)
        step = np.linalg.solve(x.T @ (x * (p * (1 - p))[:, None]) + np.eye(2), slope)
        size = 1.0
        while size > 1e-6 and loss(at - size * step) > loss(at):
            size /= 2
        at = at - size * step
        if np.abs(step).max() < 1e-7:
            break
    if at[0] < FLATTEST:  # the less sure the more often right: little more is known than the share of right ones
        at = np.array([FLATTEST, np.log(target.mean() / (1 - target.mean())) - FLATTEST * x[:, 0].mean()])
    return Scale(round(float(at[0]), 4), round(float(at[1]), 4), len(hits))


def _logit(p: np.ndarray) -> np.ndarray:
    p = np.clip(p, _EDGE, 1 - _EDGE)
    return np.log(p / (1 - p))


def _sigmoid(z: np.ndarray) -> np.ndarray:
    return np.exp(-np.logaddexp(0, -z))
