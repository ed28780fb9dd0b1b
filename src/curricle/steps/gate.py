"""Gate: whether a model may be promoted, by a rule over its metrics, and why."""

from __future__ import annotations

import operator
import re
from dataclasses import dataclass
from typing import Literal

from curricle.errors import ConfigError

_RULE = re.compile(r"\s*(?P<metric>[\w/@.\-]+)\s*(?P<op>>=|<=|>|<)\s*(?P<value>[-+]?[0-9.]+(?:[eE][-+]?\d+)?)\s*")
_OPS = {">=": operator.ge, "<=": operator.le, ">": operator.gt, "<": operator.lt}


@dataclass(frozen=True)
class Decision:
    """Promote or hold, with every condition's outcome."""

    decision: Literal["promote", "hold"]
    reason: str


def gate(metrics: dict[str, float], rule: str) -> Decision:
    """Decide by a rule: conditions ``metric >= number`` joined with ``and``; an empty rule promotes.

    Raises:
        ConfigError: the rule cannot be read, or names a metric that was not measured.
    """
    if not rule.strip():
        return Decision("promote", "no rule was given")
    outcomes = []
    for part in re.split(r"\s+and\s+|,", rule):
        found = _RULE.fullmatch(part)
        if not found:
            raise ConfigError(f"gate rule {part!r} is not of the form `metric >= number` (joined with `and`)")
        metric = found["metric"]
        if metric not in metrics:
            raise ConfigError(
                f"gate rule names {metric!r}, which was not measured; measured: {', '.join(sorted(metrics))}"
            )
        holds = _OPS[found["op"]](metrics[metric], float(found["value"]))
        outcomes.append(
            (holds, f"{metric} {metrics[metric]:.4f} {'is' if holds else 'is not'} {found['op']} {found['value']}")
        )
    decision: Literal["promote", "hold"] = "promote" if all(holds for holds, _ in outcomes) else "hold"
    return Decision(decision, "; ".join(text for _, text in outcomes))
