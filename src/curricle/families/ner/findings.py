"""What a report shows of a NER model: its scores by domain and label beside those of the model before, its errors in their texts, how sure it is, its labels."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from curricle.errors import CurricleError
from curricle.families.ner.checkpoint import WHOLE
from curricle.families.ner.evaluate import Judged, Tagged, curve, judge, measure, tag_test
from curricle.families.ner.labels import Scheme, reconcile
from curricle.families.ner.metrics import SpanCounts
from curricle.families.ner.mistakes import paired
from curricle.families.ner.model import LABELS_FILE
from curricle.families.ner.predict import load_tagger
from curricle.families.ner.tagger import ScoredSet, Tagger
from curricle.families.ner.tokens import Span
from curricle.families.reliability import reliability

EACH = 8
"""Errors of a kind that are shown."""
POINTS = 60
"""Thresholds of the curve of precision and coverage."""
AROUND = 90
"""Characters on either side of an error."""


def findings(checkpoint_dir: Path, data_dir: Path, parent_dir: Path | None, measure: bool) -> dict[str, Any]:
    """See `registry.FamilyEntry.findings`.

    Raises:
        CheckpointError, DataError: as `evaluate`.
    """
    content: dict[str, Any] = {"reconciliation": _reconciliation(checkpoint_dir, parent_dir)}
    return content | (_measured(checkpoint_dir, data_dir, parent_dir) if measure else {})


def _measured(checkpoint_dir: Path, data_dir: Path, parent_dir: Path | None) -> dict[str, Any]:
    tagger = load_tagger(checkpoint_dir)
    tagged = tag_test(tagger, data_dir)
    report = measure(tagger, tagged)
    judged, _ = judge(tagged.records, tagged.seen, tagger.scales)
    content: dict[str, Any] = {
        "metrics": report.metrics,
        "on": "test" if tagged.prefix == "test" else "validation",
        "records": len(tagged.records.origins),
        "calibrated": tagger.calibration is not None,
        "domains": by_domain(tagged.records, tagged.seen.spans),
        "thresholds": {
            "all": _thresholds(judged, tagged.records.data.gold),
            "labels": {
                label: _thresholds(own, [[s for s in gold if s[2] == label] for gold in tagged.records.data.gold])
                for label in report.labels
                if (own := [span for span in judged if span.label == label])
            },
        },
        "kinds": report.kinds(),
        "taken_for": report.taken_for(),
        "unknown": list(report.unknown),
        "notes": report.notes(),
        "reliability": reliability((span.score for span in judged), (span.is_right for span in judged)),
        "examples": _examples(tagger, tagged),
    }
    before = _before(parent_dir, data_dir)
    return content | ({"before": before} if before else {})


def _thresholds(found: Sequence[Judged], gold: Sequence[Sequence[Span]]) -> list[dict[str, float]]:
    """What is left of found spans at some `POINTS` thresholds, evenly over the spans, from the surest to all."""
    scores = sorted((span.score for span in found), reverse=True)
    wanted = (
        sorted({scores[round(i * (len(scores) - 1) / POINTS)] for i in range(POINTS + 1)}, reverse=True)
        if scores
        else []
    )
    rows = curve(found, sum(map(len, gold)), wanted)
    return [{name: round(value, 4) for name, value in asdict(point).items()} for point in rows]


def _before(parent_dir: Path | None, data_dir: Path) -> dict[str, Any]:
    """The same records, tagged by the model before; empty for a plain encoder, or one that is not whole."""
    if parent_dir is None:
        return {}
    try:
        tagger = load_tagger(parent_dir)
        tagged = tag_test(tagger, data_dir)
    except CurricleError:
        return {}
    return {"metrics": measure(tagger, tagged).metrics, "domains": by_domain(tagged.records, tagged.seen.spans)}


def by_domain(records: ScoredSet, spans: Mapping[int, Sequence[Span]]) -> dict[str, dict[str, list[int]]]:
    """Domain → label → [right, predicted, annotated], of the labels that are annotated in each record.

    Args:
        spans: found ones by record.
    """
    counts = defaultdict[str, SpanCounts](SpanCounts)
    for record, found in spans.items():
        own = [span for span in found if span[2] in records.own[record]]
        counts[str(records.origins[record])].add(records.data.gold[record], own)
    return {
        domain: {
            label: [one.right[label], one.predicted[label], one.true[label]]
            for label in sorted(one.true.keys() | one.predicted.keys())
        }
        for domain, one in sorted(counts.items())
    }


def _examples(tagger: Tagger, tagged: Tagged) -> dict[str, list[dict[str, Any]]]:
    """Kind → the worst errors of it: of what was found the surest, of what was missed those in the records that the model was surest of."""
    records = tagged.records
    found: dict[str, list[tuple[float, int, Span | None, Span | None]]] = defaultdict(list)
    for record, spans in tagged.seen.spans.items():
        scores = tagger.scales.spans(tagged.seen.confidences(record, records.data.bounds[record])[0]).tolist()
        score = dict(zip(spans, scores, strict=True))
        own = [span for span in spans if span[2] in records.own[record]]
        sure = min(scores, default=1.0)
        for kind, gold, said in paired(records.data.gold[record], own):
            if kind != "right":
                found[kind].append((score[said] if said else sure, record, gold, said))
    return {
        kind: [_example(records.texts[record], *row) for _, record, *row in _apart(rows)]
        for kind, rows in sorted(found.items())
    }


def _apart(rows: Sequence[tuple[float, int, Any, Any]]) -> list[tuple[float, int, Any, Any]]:
    """The surest, one a record."""
    seen: set[int] = set()
    kept: list[tuple[float, int, Any, Any]] = []
    for row in sorted(rows, key=lambda row: (-row[0], row[1])):
        if row[1] not in seen and len(kept) < EACH:
            seen.add(row[1])
            kept.append((row[0], row[1], row[2], (row[3], row[0])))
    return kept


def _example(text: str, gold: Span | None, said: tuple[Span | None, float]) -> dict[str, Any]:
    span, score = said
    both = [one for one in (gold, span) if one]
    low = max(0, min(start for start, _, _ in both) - AROUND)
    high = min(len(text), max(end for _, end, _ in both) + AROUND)
    return {
        "gold": _parts(text, low, high, gold),
        "said": _parts(text, low, high, span),
        "true": gold[2] if gold else "",
        "label": span[2] if span else "",
        "score": round(score, 4) if span else None,
    }


def _parts(text: str, low: int, high: int, span: Span | None) -> list[str]:
    """A piece of a text as what stands before, within and after a span."""
    if span is None:
        return [("… " if low else "") + text[low:high] + (" …" if high < len(text) else "")]
    start, end, _ = span
    return [
        ("… " if low else "") + text[low:start],
        text[start:end],
        text[end:high] + (" …" if high < len(text) else ""),
    ]


def _reconciliation(checkpoint_dir: Path, parent_dir: Path | None) -> dict[str, Any]:
    """How the head of the model before became this one: label → what happened to it, and what the rows' counts are."""
    now, before = _tags(checkpoint_dir), _tags(parent_dir)
    if not before or not now:
        return {"labels": {label: "added" for label in _labels(now)}, "counts": {}}
    try:
        made = reconcile(before, now)
    except CurricleError:
        return {"labels": {}, "counts": {}}
    old, new = _labels(before), _labels(now)
    states = {
        label: "kept" if label in old and label in new else "added" if label in new else "dropped"
        for label in sorted({*old, *new})
    }
    return {"labels": states, "counts": made.counts()}


def _tags(folder: Path | None) -> list[str]:
    """The tags of a folder's head, as its labels.json or config.json says them; none where neither does."""
    if folder is None:
        return []
    inner = folder / WHOLE if (folder / WHOLE).is_dir() else folder
    try:
        if (inner / LABELS_FILE).is_file():
            return [str(tag) for tag in json.loads((inner / LABELS_FILE).read_text(encoding="utf-8"))["labels"]]
        config: Mapping[str, Any] = json.loads((inner / "config.json").read_text(encoding="utf-8"))
        return [str(tag) for _, tag in sorted(config.get("id2label", {}).items(), key=lambda pair: int(pair[0]))]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return []


def _labels(tags: Sequence[str]) -> set[str]:
    try:
        return set(Scheme(tags).labels)
    except ValueError:
        return set()
