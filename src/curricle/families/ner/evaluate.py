"""Test scores of a trained folder, by domain; and its report: what a threshold on the spans' probabilities does, and which errors are made."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from curricle.errors import DataError
from curricle.families.ner.calibration import Calibration, Sureness
from curricle.families.ner.formats import left_out_of, require_folder, split_file
from curricle.families.ner.mistakes import KINDS, mistakes
from curricle.families.ner.predict import calibrate, load_tagger
from curricle.families.ner.tagger import ScoredSet, Tagger
from curricle.families.reliability import calibration_error

THRESHOLDS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)


@dataclass(frozen=True)
class Point:
    """What is left where spans of a lower probability are dropped. A ratio of 0 to 0 is 0."""

    threshold: float
    kept: int
    """Spans that are left."""
    precision: float
    recall: float
    f1: float
    coverage: float
    """Share of the found spans that are left."""


@dataclass(frozen=True)
class Report:
    """What `curricle ner evaluate` shows."""

    source: Path
    """The records that were measured."""
    calibration: Calibration | None
    metrics: dict[str, float]
    """Those of `evaluate`."""
    curve: list[Point]
    """Of all spans, a point a threshold."""
    labels: dict[str, list[Point]]
    """The same by label: those of the head, and those that only the records have."""
    mistakes: Counter[tuple[str, str, str]]
    """(kind, gold label, predicted label) → how often (`mistakes`)."""
    unknown: tuple[str, ...]
    """Labels of the records that the head lacks: all their spans are missed."""

    def notes(self) -> list[str]:
        """What a reader of the scores should know first, a sentence each."""
        out = []
        if self.calibration is None:
            out.append(
                "the model's folder holds no calibration.json: its probabilities are its own, not calibrated (--calibrate DATA)"
            )
        true = {
            label: sum(n for kind, n in kinds.items() if kind != "spurious") for label, kinds in self.kinds().items()
        }
        if not any(true.values()):
            out.append(f"no record of {self.source} has an annotation: nothing that is found can be right")
        elif self.unknown:
            known = [label for label in self.labels if label not in self.unknown]
            spans = sum(true[label] for label in self.unknown)
            which = (
                "none of its labels is the model's"
                if not any(true[label] for label in known)
                else "it has labels that the model lacks"
            )
            out.append(
                f"{self.source}: {which} ({', '.join(self.unknown)}; the model's are {', '.join(known)}): their {spans} spans count as missed"
            )
        return out

    def kinds(self) -> dict[str, dict[str, int]]:
        """Label → kind → count: of the gold label, of spurious spans the predicted one."""
        out = {label: dict.fromkeys(KINDS, 0) for label in self.labels}
        for (kind, gold, predicted), count in self.mistakes.items():
            out[gold or predicted][kind] += count
        return out

    def taken_for(self) -> dict[str, dict[str, int]]:
        """Label → the labels that its spans were given instead, the most frequent first."""
        out: dict[str, dict[str, int]] = {}
        for (kind, gold, predicted), count in sorted(self.mistakes.items(), key=lambda entry: (-entry[1], entry[0])):
            if kind == "label":
                out.setdefault(gold, {})[predicted] = count
        return out

    def to_dict(self) -> dict[str, Any]:
        """The metrics by name; beside them calibration, thresholds and errors."""
        return self.metrics | {
            "records": str(self.source),
            "calibration": asdict(self.calibration) if self.calibration else None,
            "thresholds": {
                "all": [asdict(point) for point in self.curve],
                "labels": {label: [asdict(point) for point in points] for label, points in self.labels.items()},
            },
            "errors": {"labels": self.kinds(), "taken_for": self.taken_for()},
            "unknown_labels": list(self.unknown),
        }


def evaluate(checkpoint_dir: Path, data_dir: Path) -> dict[str, float]:
    """``test/f1`` and its kin over all test records (validation where there are none: ``val/...``), and by domain where there are two; each record
    by the labels that its source annotates (`annotated`).

    ``unreachable`` counts the gold spans that no prediction can equal (`windows`); ``ece`` is the calibration error of the found spans'
    probabilities (`calibration`).

    Args:
        checkpoint_dir: a trained folder.
        data_dir: prepared data, or any dataset folder.

    Raises:
        CheckpointError: the folder is no whole model.
        DataError: there is nothing to test on.
    """
    return _measure(load_tagger(checkpoint_dir), Path(data_dir)).metrics


def report(checkpoint_dir: Path, data_dir: Path, calibrate_on: Path | None = None) -> Report:
    """The same, with all that `Report` holds.

    Args:
        calibrate_on: a dataset's folder, to whose validation records the probabilities are fitted first.

    Raises:
        CheckpointError, DataError: as `evaluate`, and there is nothing to fit to.
    """
    tagger = load_tagger(checkpoint_dir)
    if calibrate_on is not None:
        calibrate(tagger, calibrate_on)
    return _measure(tagger, Path(data_dir))


@dataclass(frozen=True)
class Judged:
    """One span that was found."""

    domain: str
    label: str
    score: float
    is_right: bool


@dataclass(frozen=True)
class Tagged:
    """Test records that a model has tagged."""

    prefix: str
    """Of metrics: ``test``, or ``val`` where there are no test records."""
    path: Path
    records: ScoredSet
    seen: Sureness
    scores: dict[str, dict[str, float]]
    """By domain, and ``all``."""
    loss: float


def tag_test(tagger: Tagger, data_dir: Path) -> Tagged:
    """Tag the test records of a dataset, or those of validation where there are none.

    Raises:
        DataError: there are neither, or none has text.
    """
    require_folder(data_dir)
    prefix, path = "test", split_file(data_dir, "test")
    if path is None:
        prefix, path = "val", split_file(data_dir, "validation")
    if path is None:
        raise DataError(
            f"{data_dir} holds neither test nor validation records (test.json, validation.json, or .jsonl, .conll)"
        )
    records, seen = ScoredSet(path, tagger), Sureness(tagger.scheme.outside)
    if not records.data.windows:
        raise DataError(f"{path} holds no record with text{left_out_of(path)}: there is nothing to test on")
    return Tagged(prefix, path, records, seen, *records.score(tagger, seen=seen))


def _measure(tagger: Tagger, data_dir: Path) -> Report:
    return measure(tagger, tag_test(tagger, data_dir))


def measure(tagger: Tagger, tagged: Tagged) -> Report:
    """What was measured of tagged records."""
    prefix, path, records, seen, loss = tagged.prefix, tagged.path, tagged.records, tagged.seen, tagged.loss
    scores = {domain: dict(values) for domain, values in tagged.scores.items()}
    judged, wrong = judge(records, seen, tagger.scales)
    for domain, values in scores.items():
        counts = records.unreachable
        values["unreachable"] = float(counts.total() if domain == "all" else counts[domain])
        own = [span for span in judged if domain in ("all", span.domain)]
        values["ece"] = calibration_error((span.score for span in own), (span.is_right for span in own))
    out = {f"{prefix}/loss": loss} | {f"{prefix}/{name}": value for name, value in scores.pop("all").items()}
    for domain, values in scores.items():
        out |= {f"{prefix}/{domain}/{name}": value for name, value in values.items()}
    true = Counter(label for gold in records.data.gold for *_, label in gold)
    by_label = {label: curve([span for span in judged if span.label == label], true[label]) for label in records.labels}
    unknown = tuple(sorted(true.keys() - set(tagger.scheme.labels)))
    return Report(path, tagger.calibration, out, curve(judged, true.total()), by_label, wrong, unknown)


def judge(
    records: ScoredSet, seen: Sureness, scales: Calibration
) -> tuple[list[Judged], Counter[tuple[str, str, str]]]:
    """Every span that was found of a label that is annotated in its record, and all errors of these labels by kind."""
    judged: list[Judged] = []
    wrong: Counter[tuple[str, str, str]] = Counter()
    for record, found in seen.spans.items():
        gold = set(records.data.gold[record])
        each = scales.spans(seen.confidences(record, records.data.bounds[record])[0]).tolist()
        domain = records.origins[record]
        own = records.own[record]
        judged += [Judged(domain, s[2], score, s in gold) for s, score in zip(found, each, strict=True) if s[2] in own]
        wrong.update(mistakes(gold, [s for s in found if s[2] in own]))
    return judged, wrong


def curve(found: Sequence[Judged], true: int, thresholds: Sequence[float] = THRESHOLDS) -> list[Point]:
    """What is left of found spans at each threshold.

    Args:
        true: how many spans are annotated.
    """
    scores, right = np.array([span.score for span in found]), np.array([span.is_right for span in found], bool)
    points = []
    for threshold in thresholds:
        left = scores >= threshold
        kept, hits = int(left.sum()), int(right[left].sum())
        points.append(
            Point(
                threshold,
                kept,
                precision=hits / kept if kept else 0.0,
                recall=hits / true if true else 0.0,
                f1=2 * hits / (kept + true) if kept + true else 0.0,
                coverage=kept / len(found) if found else 0.0,
            )
        )
    return points
