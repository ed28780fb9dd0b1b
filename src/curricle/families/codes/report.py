"""The codes' part of a report: findings → sections. Pure; the shapes of findings are those of `findings`."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

from curricle.config.schema import in_store
from curricle.sections import Part, Section, Seen

WANTED = 0.05
"""Share of errors whose threshold the slider begins at."""
CHANGED = {
    "upper": "in upper case",
    "typos": "with a typing error for every ten characters",
    "abbreviated": "with the usual abbreviations",
    "sentence": "in a sentence",
}
"""Ways of `robust.WAYS`, for people."""


def sections(seen: Seen) -> Part:
    """See `registry.FamilyEntry.sections`."""
    found, made = seen.findings, []
    worries = _worries(seen)
    if "automation" in found:
        made.append(_section("automation", "How much it codes alone", _automation(found, seen)))
        made.append(
            _section(
                "sure",
                "How sure it is",
                {"bins": found["reliability"], "tops": found["by_top"], "texts": found["texts"]},
            )
        )
        made.append(_section("ways", "Against simpler ways", _ways(found)))
        made.append(
            _section("confusions", "What it confuses", {"pairs": found["confusions"], "sure": found["sure_and_wrong"]})
        )
    if "disc" in found:
        made.insert(0, _section("disc", "All codes", {"disc": found["disc"], "levels": found.get("levels", [])}))
    if isinstance(carried := seen.data.get("crosswalk"), Mapping):
        made.append(_section("crosswalk", "What became of the codes", _crosswalk(carried)))
    return Part(made, worries)


def _section(key: str, title: str, data: Mapping[str, Any]) -> Section:
    return Section(key=key, title=title, template=f"curricle.families.codes:templates/{key}.html", data=data)


def _level_names(levels: list[int]) -> list[str]:
    return [*(f"level {level}" for level in levels[:-1]), "the code itself"]


def _automation(found: Mapping[str, Any], seen: Seen) -> dict[str, Any]:
    """The slider: one group of points a level, the finest first."""
    points, names = found["automation"], _level_names(found["levels"])
    n = found["texts"]
    groups = []
    for k in reversed(range(len(names))):
        rows = [
            [p[0], p[1], p[2 + k], round(p[1] * n), round(p[1] * n * p[2 + k]), n - round(p[1] * n)] for p in points
        ]
        groups.append({"name": names[k], "points": rows})
    rules = found.get("rules", [])
    least = next((rule[1] for rule in rules if rule[0] == WANTED), None)
    if least is None:
        allowed = [i for i, row in enumerate(groups[0]["points"]) if row[2] <= WANTED]
    else:  # where `assign --max-error` begins to ask a person: chosen without the test texts
        allowed = [i for i, row in enumerate(groups[0]["points"]) if row[0] >= least] or [0]
    columns = [
        ("threshold", "number"),
        ("coded automatically", "share"),
        ("of these wrong", "share"),
        ("texts coded", "count"),
        ("wrong among them", "count"),
        ("left to a person", "count"),
    ]
    trade = {
        "name": "Share of texts that are coded automatically, against the share of them that is wrong",
        "x_label": "share of test texts coded automatically",
        "y_label": "share wrong among them",
        "group_label": "an error is counted on",
        "slider_label": "the surest texts alone, or all",
        "groups": groups,
        "columns": [{"name": name, "kind": kind} for name, kind in columns],
        "start": allowed[-1] if allowed else len(points) - 1,
        "command": f"curricle assign IN.csv --column TEXT -o OUT.csv --review-below {{0}} --model {shlex.quote(seen.name)}{in_store(seen.store_uri)}",
        "from_zero": True,
    }
    return {"trade": trade, "texts": n, "rules": rules}


def _ways(found: Mapping[str, Any]) -> dict[str, Any]:
    metrics, names = found["metrics"], _level_names(found["levels"])
    rows = [{"name": name, "shares": shares} for name, *shares in found["ways"]]
    robust = [
        {"name": said, "value": metrics[f"robust/{name}_top1"]}
        for name, said in CHANGED.items()
        if metrics.get(f"robust/{name}_top1") is not None
    ]
    foreign = {key: metrics.get(f"robust/{key}") for key in ("foreign_auroc", "foreign_found", "real_kept")}
    whole = {key: metrics.get(f"test/{key}") for key in ("top1", "hit@5", "hit@10", "mrr")}
    structure = {key: value for key, value in metrics.items() if key.startswith("structure/")}
    return {"rows": rows, "levels": names, "robust": robust, "foreign": foreign, "whole": whole, "structure": structure}


def _crosswalk(carried: Mapping[str, Any]) -> dict[str, Any]:
    """Of `crosswalk`'s report: a row a status that there is, and the old codes that changed."""
    sides = carried["became"]
    rows = [{"status": status, "meaning": carried["meanings"][status], **{side: sides[side][status] for side in sides}} for status in carried["statuses"]]  # fmt: skip
    return {
        "read_as": carried["read_as"],
        "became": [row for row in rows if any(row[side] for side in sides)],
        "texts": carried["texts"],
        "left_out": carried["left_out"],
        "changed": [(old, status, targets) for old, (status, *targets) in carried["changed"].items()],
    }


DROPPED = {
    "dropped_entries": "index entries for measuring (nearly the same as a training text)",
    "dropped_cross_references": "cross-references (they contain a text for measuring)",
}
"""What preparing left out and why, by the fact that counts it."""


def dropped_from(data: Mapping[str, Any]) -> str:
    """What preparing left out of the data, and why; empty for nothing."""
    counts = {key: n for key, n in data.items() if key.startswith("dropped_") and n}
    return ", ".join(f"{n:,} {DROPPED.get(key, key.removeprefix('dropped_'))}" for key, n in counts.items())


def _worries(seen: Seen) -> list[str]:
    said, found = [], seen.findings
    absent, metrics = found.get("absent"), found.get("metrics", {})
    if absent and absent["untrained"]:
        which = ", ".join(absent["first"]) + (" ..." if absent["untrained"] > len(absent["first"]) else "")
        said.append(
            f"{absent['untrained']:,} of {absent['codes']:,} codes have no labelled training text and are known by their titles alone: {which}"
        )
    if absent and absent["untested"]:
        said.append(
            f"{absent['untested']:,} of {absent['codes']:,} codes have no test text: nothing is measured of them"
        )
    if 0 < found.get("texts", 0) < 300:
        said.append(
            f"there are only {found['texts']} test texts: shares are good to some ± {100 / found['texts'] ** 0.5:.0f} points"
        )
    if (metrics.get("test/ece") or 0) > 0.05:
        said.append(
            f"its probabilities are off by {100 * metrics['test/ece']:.0f} points on average: see “How sure it is” before you set a threshold"
        )
    if dropped := dropped_from(seen.data):
        said.append(f"left out of the data: {dropped}")
    left_out = seen.data.get("left_out")
    if isinstance(left_out, dict) and any(left_out.values()):
        said.append(
            "rows were left out of the data: " + ", ".join(f"{n:,} × {why}" for why, n in left_out.items() if n)
        )
    return said
