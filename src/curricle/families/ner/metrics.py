"""Exact span scores: a predicted span counts only if start, end and label are all right."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

Spans = Iterable[tuple[Hashable, Hashable, str]]


@dataclass
class SpanCounts:
    """Right, predicted and true spans by label; add up over records and ranks."""

    right: Counter[str] = field(default_factory=Counter)
    predicted: Counter[str] = field(default_factory=Counter)
    true: Counter[str] = field(default_factory=Counter)

    def add(self, gold: Spans, predicted: Spans) -> None:
        """Count one record."""
        gold, predicted = set(gold), set(predicted)
        self.right.update(label for _, _, label in gold & predicted)
        self.predicted.update(label for _, _, label in predicted)
        self.true.update(label for _, _, label in gold)

    def flat(self, labels: Iterable[str]) -> dict[str, float]:
        """All counts of the given labels by name, for a sum over ranks."""
        return {
            f"{kind}/{label}": float(getattr(self, kind)[label])
            for kind in ("right", "predicted", "true")
            for label in labels
        }

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

        ``f1_annotated`` leaves predicted spans of labels out that no gold span has: nobody looked for those in these records, so the rest of
        the way down to ``f1`` is not what was forgotten, but what else is predicted. A ratio of 0 to 0 counts as 0, as in seqeval.
        """
        labels = sorted(self.true.keys() | self.predicted.keys())
        per_label = {label: _f1(self.right[label], self.predicted[label], self.true[label]) for label in labels}
        right, predicted, true = self.right.total(), self.predicted.total(), self.true.total()
        return {
            "precision": right / predicted if predicted else 0.0,
            "recall": right / true if true else 0.0,
            "f1": _f1(right, predicted, true),
            "f1_annotated": _f1(right, sum(self.predicted[label] for label in self.true), true),
            "f1_macro": sum(per_label.values()) / len(labels) if labels else 0.0,
        } | {f"f1/{label}": value for label, value in per_label.items()}


SCORES = ("precision", "recall", "f1", "f1_annotated", "f1_macro", "unreachable")
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
