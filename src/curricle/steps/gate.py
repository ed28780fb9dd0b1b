"""Gate: whether a model may be promoted, and why: by a rule over its metrics, or by what it gained and lost against the one before."""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from curricle.errors import ConfigError, DataError

_RULE = re.compile(r"\s*(?P<metric>[\w/@.\-]+)\s*(?P<op>>=|<=|>|<)\s*(?P<value>[-+]?[0-9.]+(?:[eE][-+]?\d+)?)\s*")
_OPS = {">=": operator.ge, "<=": operator.le, ">": operator.gt, "<": operator.lt}
_CHANGE = {"gain": ">=", "drop": "<="}
"""The words of a change, and from which side each is bounded."""
_SLACK = 1e-12
"""What float arithmetic may add to a difference of two scores."""


@dataclass(frozen=True)
class Verdict:
    """Promote or hold, and why."""

    decision: Literal["promote", "hold"]
    reason: str
    bounds: Mapping[str, float] = field(default_factory=dict)
    """Of a model that is held: the bounds (`min_gain`, `max_drop`) with which it would be promoted, where others than those given would do."""

    @property
    def promotes(self) -> bool:
        """Whether the model is promoted."""
        return self.decision == "promote"


@dataclass(frozen=True)
class Scores:
    """The headline metric in [0, 1] by domain, before and after, on the test records (validation where there are none)."""

    before: dict[str, float]
    """Empty where there was nothing to measure: a plain encoder, or scratch."""
    after: dict[str, float]
    metrics: dict[str, float]
    """Everything that was measured of the new model."""
    full: dict[str, float] = field(default_factory=dict)
    """As `after`, counting also what the model says of labels that nobody looked for in the domain's records; empty where the family tells no
    such."""
    unreachable: dict[str, float] = field(default_factory=dict)
    """How many annotations of a domain no prediction can equal; empty where the family tells no such."""
    full_before: dict[str, float] = field(default_factory=dict)
    """As `before`, counted as `full`."""


Condition = tuple[str, str, float]
"""(metric, comparison, number)"""


GAIN, DROP = "gain", "drop"
"""What a rule may name beside metrics: how far the new domain rose, and how far the old one fell, against the model before."""


def change(scores: Scores) -> dict[str, float]:
    """`GAIN` and `DROP` of the headline metric, as far as both models were measured in the domain."""
    both = {d: scores.after[d] - scores.before[d] for d in ("old", "new") if d in scores.before and d in scores.after}
    return ({GAIN: both["new"]} if "new" in both else {}) | ({DROP: -both["old"]} if "old" in both else {})


def asks_change(rule: str) -> bool:
    """Whether a rule compares with the model before.

    Raises:
        ConfigError: it cannot be read, or bounds a change from the wrong side.
    """
    wrong = [f"{metric} {op}" for metric, op, _ in parse_rule(rule) if _CHANGE.get(metric, op) != op]
    if wrong:
        raise ConfigError(f"gate rule {rule!r}: {wrong[0]} bounds from the wrong side; say gain >= 0 and drop <= 0.01")
    return any(metric in _CHANGE for metric, _, _ in parse_rule(rule))


def judge(scores: Scores, rule: str) -> Verdict:
    """Decide by a rule over metrics of the new model, and over `GAIN` and `DROP` against the one before.

    Raises:
        ConfigError: the rule cannot be read, or names a metric that was not measured.
        DataError: a change was not measured.
    """
    bounds = {metric: value for metric, _, value in parse_rule(rule) if metric in _CHANGE}
    if not asks_change(rule):
        return judge_rule(scores.metrics, rule)
    verdict = judge_scores(scores, bounds.get(GAIN, -math.inf), bounds.get(DROP, math.inf))
    rest = " and ".join(f"{m} {op} {value!r}" for m, op, value in parse_rule(rule) if m not in _CHANGE)
    if not rest:
        return verdict
    other = judge_rule(scores.metrics, rest)
    passes = verdict.promotes and other.promotes
    return Verdict(
        "promote" if passes else "hold", f"{verdict.reason}; {other.reason}", verdict.bounds if other.promotes else {}
    )


def parse_rule(rule: str) -> list[Condition]:
    """The conditions of a rule: ``metric >= number`` joined with ``and``; none of an empty rule.

    Raises:
        ConfigError: the rule cannot be read.
    """
    conditions: list[Condition] = []
    for part in re.split(r"\s+and\s+|,", rule) if rule.strip() else ():
        match = _RULE.fullmatch(part)
        try:
            conditions.append((match["metric"], match["op"], float(match["value"])))  # type: ignore[index]  # None raises too
        except (TypeError, ValueError):
            raise ConfigError(f"gate rule {part!r} is not of the form `metric >= number` (joined with `and`)") from None
    return conditions


def judge_rule(metrics: Mapping[str, float], rule: str) -> Verdict:
    """Decide by a rule; an empty one promotes.

    Raises:
        ConfigError: the rule cannot be read, or names a metric that was not measured.
    """
    conditions = parse_rule(rule)
    if not conditions:
        return Verdict("promote", "no rule was given")
    outcomes = []
    for metric, op, bound in conditions:
        if metric not in metrics:
            raise ConfigError(
                f"gate rule names {metric!r}, which was not measured; measured: {', '.join(sorted(metrics))}"
            )
        holds = _OPS[op](metrics[metric], bound)
        outcomes.append((holds, f"{metric} {metrics[metric]:.4f} {'is' if holds else 'is not'} {op} {bound:g}"))
    promotes = all(holds for holds, _ in outcomes)
    return Verdict("promote" if promotes else "hold", "; ".join(text for _, text in outcomes))


def judge_scores(scores: Scores, min_gain: float, max_drop: float) -> Verdict:
    """Promote if the new domain rises by at least `min_gain` and the old one falls by at most `max_drop`; an infinite bound bounds nothing.

    Without scores before (scratch, or a plain encoder) there is nothing to lose; without an old domain, the gain alone counts.

    Raises:
        DataError: the new domain was not measured.
    """
    before, after = scores.before, scores.after
    if not before:
        return Verdict("promote", "there was no model before")
    bounded = math.isfinite(min_gain)
    if bounded and ("new" not in before or "new" not in after):
        raise DataError(
            f"the gate needs the score of the domain new before and after; measured: {', '.join(sorted(before)) or 'none'} "
            f"before, {', '.join(sorted(after)) or 'none'} after"
        )
    bounds: dict[str, float] = {}
    said, rises, keeps = [], True, True
    if "new" in before and "new" in after:
        gain = after["new"] - before["new"]
        rises = gain >= min_gain - _SLACK
        of = f", {'at least' if rises else 'less than'} {min_gain:+.4f}" if bounded else ""
        said.append(f"new {before['new']:.4f} → {after['new']:.4f} ({gain:+.4f}{of})")
        if not rises:
            bounds["min_gain"] = math.floor(gain * 1e4) / 1e4
    if "old" in before and "old" in after:
        change = after["old"] - before["old"]
        keeps = -change <= max_drop + _SLACK
        within = f", {'within' if keeps else 'beyond'} the drop of {max_drop:.4f} allowed"
        if not keeps:
            bounds["max_drop"] = math.ceil(-change * 1e4) / 1e4
        said.append(
            f"old {before['old']:.4f} → {after['old']:.4f} ({change:+.4f}{within if math.isfinite(max_drop) else ''})"
        )
    else:
        said.append("the old domain was not measured: no old dataset was given")
    apart = []
    for domain in ("old", "new"):
        full = scores.full.get(domain, after.get(domain, 0.0))
        if abs(full - after.get(domain, 0.0)) >= 5e-5:
            was = f"{scores.full_before[domain]:.4f} → " if domain in scores.full_before else ""
            apart.append(f"{domain} scores {was}{full:.4f}")
    if apart:
        said.append(f"with spans of labels that nobody looked for there counted as wrong, {' and '.join(apart)}")
    if missed := [f"{count:.0f} of {domain}" for domain, count in sorted(scores.unreachable.items()) if count]:
        said.append(f"counted as missed, for no prediction can equal them: {' and '.join(missed)} annotations")
    return Verdict("promote" if rises and keeps else "hold", "; ".join(said), bounds)


def matrix(models: Sequence[str], scores: Sequence[Mapping[str, float]]) -> str:
    """A score of every model (rows) on every dataset (columns), as a table for people; a dash where it was not measured."""
    columns = list(dict.fromkeys(name for row in scores for name in row))
    width = max(map(len, ["after", *models]))
    widths = [max(8, len(column)) for column in columns]
    lines = [f"{'after':<{width}}  " + "  ".join(f"{c:>{w}}" for c, w in zip(columns, widths, strict=True))]
    for model, row in zip(models, scores, strict=True):
        cells = [f"{row[c]:>{w}.4f}" if c in row else f"{'-':>{w}}" for c, w in zip(columns, widths, strict=True)]
        lines.append(f"{model:<{width}}  " + "  ".join(cells))
    return "\n".join(lines)
