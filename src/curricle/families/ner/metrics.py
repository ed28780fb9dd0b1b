"""Exact span scores: a predicted span counts only if start, end and label are all right."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Spans = Iterable[tuple[Hashable, Hashable, str]]


KINDS = ("right", "predicted", "true", "beyond")


@dataclass
class SpanCounts:
    """Right, predicted and true spans by label, and those beyond what is annotated; add up over records and ranks."""

    right: Counter[str] = field(default_factory=Counter)
    predicted: Counter[str] = field(default_factory=Counter)
    true: Counter[str] = field(default_factory=Counter)
    beyond: Counter[str] = field(default_factory=Counter)
    """Of the predicted ones, those of labels that nobody looked for in their record."""

    def add(self, gold: Spans, predicted: Spans, own: Container[str] | None = None) -> None:
        """Count one record, in which the labels `own` are annotated (None: all)."""
        gold, predicted = set(gold), set(predicted)
        if own is not None:
            self.beyond.update(label for _, _, label in predicted if label not in own)
        self.right.update(label for _, _, label in gold & predicted)
        self.predicted.update(label for _, _, label in predicted)
        self.true.update(label for _, _, label in gold)

    def flat(self, labels: Iterable[str]) -> dict[str, float]:
        """All counts of the given labels by name, for a sum over ranks."""
        return {f"{kind}/{label}": float(getattr(self, kind)[label]) for kind in KINDS for label in labels}

    @classmethod
    def from_flat(cls, flat: Mapping[str, float]) -> SpanCounts:
        """The inverse of `flat`."""
        made = cls()
        for name, value in flat.items():
            kind, _, label = name.partition("/")
            if value:
                getattr(made, kind)[label] = round(value)
        return made

    def scores(self) -> dict[str, float]:
        """``precision``, ``recall``, ``f1`` (micro), ``f1_macro`` (over labels in gold or prediction) and ``f1/<label>``.

        They leave the spans `beyond` out: what is predicted where nobody looked for it is neither right nor wrong. ``f1_full`` counts those as
        wrong too, as seqeval does. A ratio of 0 to 0 counts as 0, as in seqeval.
        """
        counted = self.predicted - self.beyond
        labels = sorted(self.true.keys() | counted.keys())
        per_label = {label: _f1(self.right[label], counted[label], self.true[label]) for label in labels}
        right, predicted, true = self.right.total(), counted.total(), self.true.total()
        return {
            "precision": right / predicted if predicted else 0.0,
            "recall": right / true if true else 0.0,
            "f1": _f1(right, predicted, true),
            "f1_full": _f1(right, self.predicted.total(), true),
            "f1_macro": sum(per_label.values()) / len(labels) if labels else 0.0,
        } | {f"f1/{label}": value for label, value in per_label.items()}


SCORES = ("precision", "recall", "f1", "f1_full", "f1_macro", "unreachable", "ece")
"""Of every domain, and of all records together; beside them ``f1/<label>``."""


def measured(facts: Mapping[str, Any]) -> set[str]:
    """Names of what `evaluate` gives, by the facts of the prepared data; none where data of an earlier version do not tell."""
    names = {*SCORES, *(f"f1/{label}" for label in facts["labels"])}
    return {
        name
        for split, domains in facts.get("scored", {}).items()
        for name in (
            f"{split}/loss",
            *(f"{split}/{one}{score}" for one in ("", *(f"{d}/" for d in domains)) for score in names),
        )
    }


def _f1(right: int, predicted: int, true: int) -> float:
    return 2 * right / (predicted + true) if predicted + true else 0.0


def ratios(counts: Sequence[int]) -> dict[str, float | None]:
    """Precision, recall and F1 of (right, predicted, annotated) spans; None for a ratio of 0 to 0, which says nothing."""
    right, predicted, true = counts
    return {
        "precision": right / predicted if predicted else None,
        "recall": right / true if true else None,
        "f1": 2 * right / (predicted + true) if predicted + true else None,
    }
