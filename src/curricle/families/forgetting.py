"""What a continued stage changed in each domain, and which of its epochs is kept for that."""

from __future__ import annotations

from collections.abc import Mapping

MAX_DROP = 0.01
"""Of the measure (F1, top-1) that the old domain may lose, where nothing else is said."""


def changes(before: Mapping[str, float], after: Mapping[str, float], measure: str) -> dict[str, float]:
    """``val/<domain>/<measure>_before`` and ``..._change`` (after minus before) of every domain that both name."""
    out: dict[str, float] = {}
    for domain in sorted(before.keys() & after.keys()):
        out[f"val/{domain}/{measure}_before"] = before[domain]
        out[f"val/{domain}/{measure}_change"] = after[domain] - before[domain]
    return out


def score(before: Mapping[str, float], after: Mapping[str, float], loss: float) -> float:
    """What picks a checkpoint: mean F1 (or top-1) over domains, less half the validation loss, less what ``old`` lost beyond `MAX_DROP`.

    The loss alone rises long before the F1 falls, and the F1 alone says little of a model that finds next to nothing yet. So a point that
    the old domain loses counts once up to `MAX_DROP`, and three times from there.
    """
    lost = before["old"] - after["old"] - MAX_DROP if "old" in before and "old" in after else 0.0
    return sum(after.values()) / len(after) - loss / 2 - max(0.0, lost)
