"""Labels and tags: the B-/I-/O tags of a set of labels, and how the rows of a checkpoint's head become the rows of a new one, by name."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from curricle.errors import ConfigError, DataError

Status = Literal["kept", "permuted", "split", "added", "dropped"]


def tags_of(labels: Iterable[str]) -> tuple[str, ...]:
    """``O``, then ``B-x`` and ``I-x`` of every label, labels sorted.

    Raises:
        ConfigError: a label is empty or looks like a tag.
    """
    labels = sorted(set(labels))
    for label in labels:
        if not label or label == "O" or label[:2] in ("B-", "I-"):
            raise ConfigError(
                f"label {label!r} looks like a tag; labels are plain names (SKILL), the tags B-SKILL and I-SKILL are made of them"
            )
    return ("O", *(f"{prefix}-{label}" for label in labels for prefix in "BI"))


def label_of(tag: str) -> str:
    """``x`` of ``B-x``, ``I-x`` or plain ``x``; empty for ``O``."""
    if tag == "O":
        return ""
    return tag[2:] if tag[:2] in ("B-", "I-") else tag


def check_labels(annotated: Iterable[str], allowed: Sequence[str], where: str) -> None:
    """Refuse labels of the data that the configuration does not name: they would silently become ``O``.

    Raises:
        DataError: names the labels and what is allowed.
    """
    unknown = sorted(set(annotated) - set(allowed))
    if unknown:
        raise DataError(
            f"{where} holds labels {', '.join(unknown)}, which data.labels does not name ({', '.join(sorted(allowed))}); "
            "add them there or take them out of the data"
        )


@dataclass(frozen=True)
class Row:
    """One tag: its row in the checkpoint's head and in the new one."""

    tag: str
    old: int | None
    new: int | None
    status: Status


@dataclass(frozen=True)
class Reconciliation:
    """How a checkpoint's head becomes the new one."""

    rows: tuple[Row, ...]

    def head(self) -> list[Row]:
        """The rows of the new head, in order."""
        by_place = {row.new: row for row in self.rows if row.new is not None}
        return [by_place[place] for place in sorted(by_place)]

    def sources(self) -> list[int | None]:
        """For each new row, in order, the checkpoint's row that it copies, or None for a fresh one."""
        return [row.old for row in self.head()]

    def added(self) -> list[int]:
        """New rows that the checkpoint has nothing for."""
        return [row for row, source in enumerate(self.sources()) if source is None]

    def counts(self) -> dict[str, int]:
        """How many rows have each status."""
        return {
            status: sum(r.status == status for r in self.rows)
            for status in ("kept", "permuted", "split", "added", "dropped")
        }

    def table(self) -> str:
        """The rows as a table for people."""
        width = max([3, *(len(r.tag) for r in self.rows)])
        lines = [f"{'tag':<{width}}  checkpoint  now  what"]
        for row in self.rows:
            old, new = ("-" if n is None else str(n) for n in (row.old, row.new))
            lines.append(f"{row.tag:<{width}}  {old:>10}  {new:>3}  {row.status}")
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """For a manifest or a checkpoint's folder."""
        return {"counts": self.counts(), "rows": [[r.tag, r.old, r.new, r.status] for r in self.rows]}


def reconcile(checkpoint: Sequence[str], wanted: Sequence[str]) -> Reconciliation:
    """Match the tags of a checkpoint's head with the wanted ones by name.

    kept: same row; permuted: other row; split: a plain label of the checkpoint gives its weights to ``B-`` and ``I-`` alike;
    added: fresh; dropped: in the checkpoint only.

    Raises:
        ConfigError: a tag stands twice on one side.
    """
    for side, tags in (("checkpoint", checkpoint), ("data", wanted)):
        twice = sorted({t for t in tags if list(tags).count(t) > 1})
        if twice:
            raise ConfigError(f"the {side}'s tags name {', '.join(twice)} twice")
    at = {tag: i for i, tag in enumerate(checkpoint)}
    rows, used = [], set()
    for new, tag in enumerate(wanted):
        old = at.get(tag)
        status: Status = "added"
        if old is not None:
            status = "kept" if old == new else "permuted"
        elif label_of(tag) in at and tag != "O":
            old, status = at[label_of(tag)], "split"
        used.add(old)
        rows.append(Row(tag, old, new, status))
    rows += [Row(tag, old, None, "dropped") for tag, old in at.items() if old not in used]
    return Reconciliation(tuple(rows))
