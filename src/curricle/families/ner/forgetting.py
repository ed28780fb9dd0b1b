"""What a continued training cost and won: scores of domains before and after, the gate, and the matrix of a chain of stages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from curricle.errors import DataError

MAX_DROP = 0.01
"""F1 that the old domain may lose, where nothing else is said."""


def changes(before: Mapping[str, float], after: Mapping[str, float]) -> dict[str, float]:
    """``val/<domain>/f1_before`` and ``val/<domain>/f1_change`` (after minus before) of every domain that both name."""
    out: dict[str, float] = {}
    for domain in sorted(before.keys() & after.keys()):
        out[f"val/{domain}/f1_before"] = before[domain]
        out[f"val/{domain}/f1_change"] = after[domain] - before[domain]
    return out


def score(before: Mapping[str, float], after: Mapping[str, float], loss: float) -> float:
    """What picks a checkpoint: mean F1 over domains, less half the validation loss, less what ``old`` lost beyond `MAX_DROP`.

    The loss alone rises long before the F1 falls, and the F1 alone says little of a model that finds next to nothing yet. So a point that
    the old domain loses counts once up to `MAX_DROP`, and three times from there.
    """
    lost = before["old"] - after["old"] - MAX_DROP if "old" in before and "old" in after else 0.0
    return sum(after.values()) / len(after) - loss / 2 - max(0.0, lost)


@dataclass(frozen=True)
class Verdict:
    """Promote or hold, and why."""

    decision: Literal["promote", "hold"]
    reason: str


def judge(
    before: Mapping[str, float], after: Mapping[str, float], *, min_gain: float = 0.0, max_drop: float = MAX_DROP
) -> Verdict:
    """Promote if the new domain's F1 rises by at least `min_gain` and the old one's falls by at most `max_drop`.

    Args:
        before, after: F1 in [0, 1] of the domains `old` and `new`.

    Raises:
        DataError: a domain was not measured; names it.
    """
    missing = [
        f"{domain} {when}"
        for when, scores in (("before", before), ("after", after))
        for domain in ("old", "new")
        if domain not in scores
    ]
    if missing:
        raise DataError(f"the gate needs the F1 of both domains before and after; not measured: {', '.join(missing)}")
    gain, drop = after["new"] - before["new"], before["old"] - after["old"]
    rises, keeps = gain >= min_gain - 1e-12, drop <= max_drop + 1e-12
    reason = (
        f"new {before['new']:.4f} → {after['new']:.4f} ({gain:+.4f}, {'at least' if rises else 'less than'} {min_gain:+.4f}); "
        f"old {before['old']:.4f} → {after['old']:.4f} ({-drop:+.4f}, {'within' if keeps else 'beyond'} the drop of {max_drop:.4f} allowed)"
    )
    return Verdict("promote" if rises and keeps else "hold", reason)


def matrix(stages: Sequence[str], scores: Sequence[Mapping[str, float]]) -> str:
    """F1 of every domain (columns) after every stage (rows), as a table for people; a dash where it was not measured."""
    domains = list(dict.fromkeys(d for row in scores for d in row))
    width = max(map(len, ["after", *stages]))
    lines = [f"{'after':<{width}}  " + "  ".join(f"{d:>8}" for d in domains)]
    for stage, row in zip(stages, scores, strict=True):
        lines.append(f"{stage:<{width}}  " + "  ".join(f"{row[d]:>8.4f}" if d in row else f"{'-':>8}" for d in domains))
    return "\n".join(lines)
