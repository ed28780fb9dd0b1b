"""NER's part of a report: findings → sections. Pure; the shapes of findings are those of `findings`."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from curricle.families.ner.metrics import ratios
from curricle.sections import Part, Section, Seen
from curricle.store import join_uri

KINDS = {
    "spurious": ("Found where nothing is annotated", "the surest first"),
    "boundary": ("Right label, wrong borders", "the surest first"),
    "label": ("Another label", "the surest first"),
    "missed": ("Annotated, and not found", "first those in the records that the model was surest of"),
}
WANTED = 0.95
"""Precision that the slider begins at."""


def sections(seen: Seen) -> Part:
    """See `registry.FamilyEntry.sections`."""
    found, made = seen.findings, []
    if "domains" in found:
        made.append(_section("scores", "By domain and label", _scores(found)))
        made.append(
            _section(
                "spans",
                "Its worst errors",
                {"kinds": _errors(found), "counts": found["kinds"], "taken": found["taken_for"]},
            )
        )
        made.append(
            _section("coverage", "Precision against coverage", _coverage(found, join_uri(seen.store_uri, seen.name)))
        )
    labels = found.get("reconciliation", {}).get("labels")
    if labels:
        by_source = seen.data.get("labels_of_source")
        made.append(
            _section(
                "labels",
                "Labels",
                {
                    "labels": labels,
                    "counts": found["reconciliation"]["counts"],
                    "sources": by_source if isinstance(by_source, dict) else {},
                },
            )
        )
    return Part(made, _worries(seen))


def _section(key: str, title: str, data: Mapping[str, Any]) -> Section:
    return Section(key=key, title=title, template=f"curricle.families.ner:templates/{key}.html", data=data)


def _scores(found: Mapping[str, Any]) -> dict[str, Any]:
    before = found.get("before", {}).get("domains", {})
    domains = []
    for domain, labels in found["domains"].items():
        old = before.get(domain, {})
        rows = [
            {
                "label": label,
                "support": counts[2],
                **ratios(counts),
                "before": ratios(old.get(label, (0, 0, counts[2])))["f1"] if before else None,
            }
            for label, counts in labels.items()
        ]
        whole = [sum(column) for column in zip(*labels.values(), strict=True)] or [0, 0, 0]
        was = [sum(column) for column in zip(*old.values(), strict=True)] if old else None
        total = {"label": "all", "support": whole[2], **ratios(whole), "before": ratios(was)["f1"] if was else None}
        domains.append({"name": domain, "rows": rows, "total": total})
    return {"domains": domains, "on": found["on"], "records": found["records"], "compared": bool(before)}


def _errors(found: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [
        {"title": title, "order": order, "rows": found["examples"][kind]}
        for kind, (title, order) in KINDS.items()
        if found["examples"].get(kind)
    ]


def _coverage(found: Mapping[str, Any], model: str) -> dict[str, Any]:
    def group(name: str, points: Sequence[Mapping[str, float]]) -> dict[str, Any]:
        rows = [
            [p["threshold"], p["coverage"], p["precision"], p["recall"], p["f1"], p["kept"]]
            for p in points
            if p["kept"]
        ]
        return {"name": name, "points": rows}

    all_spans = group("all labels", found["thresholds"]["all"])
    groups = [all_spans, *(group(label, points) for label, points in found["thresholds"]["labels"].items())]
    groups = [one for one in groups if one["points"]]
    columns = (
        ("threshold", "number"),
        ("spans kept", "share"),
        ("precision", "share"),
        ("recall", "share"),
        ("F1", "share"),
        ("spans", "count"),
    )
    trade = {
        "name": "Precision of the spans that are kept, against the share that is kept",
        "x_label": "share of found spans that are kept",
        "y_label": "precision",
        "group_label": "of",
        "slider_label": "the surest only, or all spans",
        "groups": groups,
        "columns": [{"name": name, "kind": kind} for name, kind in columns],
        "start": max((i for i, row in enumerate(groups[0]["points"]) if row[2] >= WANTED), default=0) if groups else 0,
        "command": f"curricle ner predict --threshold {{0}} --model {shlex.quote(model)} < TEXTS",
        "from_zero": False,
    }
    return {"trade": trade if groups else None, "bins": found["reliability"], "calibrated": found["calibrated"]}


def _worries(seen: Seen) -> list[str]:
    found, metrics = seen.findings, {**seen.metrics, **(seen.findings.get("metrics") or {})}
    said = list(found.get("notes", ()))
    split = "test" if "test/unreachable" in metrics else "val"
    if unreachable := metrics.get(f"{split}/unreachable"):
        said.append(
            f"{unreachable:.0f} annotated spans can be equalled by no prediction (they overlap, or begin or end within a word) and count as missed"
        )
    for domain, labels in found.get("domains", {}).items():
        few = [label for label, counts in labels.items() if 0 < counts[2] < 30]
        if few:
            said.append(
                f"of {', '.join(few)} there are fewer than 30 annotated spans in the {domain} records: their scores are rough"
            )
    gone = [label for label, state in found.get("reconciliation", {}).get("labels", {}).items() if state == "dropped"]
    if gone:
        said.append(f"the model before also knew {', '.join(gone)}: those labels are not found any more")
    return said
