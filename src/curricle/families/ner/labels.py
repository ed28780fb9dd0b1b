"""Labels and tags: the B-/I-/O tags of a set of labels, what the tags of any head mean, and how its rows become those of a new one, by meaning."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, cast

from curricle.errors import ConfigError, DataError

Status = Literal["kept", "permuted", "split", "merged", "added", "dropped"]
Part = Literal["O", "B", "I", "E", "S", ""]
"""Of a span: outside, its first word, one within, its last, its only one, and any word where the scheme does not tell."""
_PARTS: dict[str, Part] = {"B": "B", "I": "I", "E": "E", "L": "E", "S": "S", "U": "S"}
"""IOB, IOBES (E, S) and BILOU (L, U)."""
_STANDS_IN: dict[Part, tuple[Part, ...]] = {
    "B": ("B", "", "I"),
    "I": ("I", "", "B"),
    "E": ("E", "I", "", "B"),
    "S": ("S", "B", "", "I"),
    "": ("", "B", "I"),
}
"""For a part of a span, the row of a head that tells of it: the first that the scheme has. (IOB1 opens with I where nothing is before.)"""


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


class Tag(NamedTuple):
    """What a row of a head stands for."""

    part: Part
    label: str
    """Empty for outside."""


class Scheme:
    """The rows of a head by meaning: ``B-x`` and its kin, ``x-B`` (or with ``_``), or plain labels; ``O`` in any place.

    Args:
        tags: the rows' names, in order.

    Raises:
        ValueError: the names tell no labels (``LABEL_0`` ...), none of them is ``O``, or two mean the same.
    """

    def __init__(self, tags: Sequence[str]):
        self.tags = tuple(tags)
        named = [tag for tag in self.tags if tag != "O"]
        if named and all(re.fullmatch(r"LABEL_\d+", tag) for tag in self.tags):
            raise ValueError(f"its rows have no names ({self.tags[0]} ...)")
        if "O" not in self.tags:
            raise ValueError(
                f"none of its rows ({', '.join(self.tags[:6])}{' ...' if len(self.tags) > 6 else ''}) is O, for words outside of any span"
            )
        first = [re.fullmatch(r"([BIESLU])[-_](.+)", tag) for tag in named]
        last = [re.fullmatch(r"(.+)[-_]([BIESLU])", tag) for tag in named]
        if all(first):
            means = [Tag(_PARTS[m[1]], m[2]) for m in first if m]
        elif all(last):
            means = [Tag(_PARTS[m[2]], m[1]) for m in last if m]
        else:
            means = [Tag("", tag) for tag in named]
        rest = iter(means)
        self.means = tuple(Tag("O", "") if tag == "O" else next(rest) for tag in self.tags)
        self.at = {mean: row for row, mean in enumerate(self.means)}
        """Meaning → row."""
        if len(self.at) < len(self.means):
            twice = sorted({"-".join(filter(None, m)) for m in self.means if self.means.count(m) > 1})
            raise ValueError(f"two of its rows mean {', '.join(twice)}")
        self.outside = self.at[Tag("O", "")]
        """The row of words outside of any span."""
        self.labels = sorted({mean.label for mean in means})
        """All labels."""

    def row(self, part: Part, label: str) -> int | None:
        """The row that tells of a part of a span, or None for a label that is not among `labels`."""
        if part == "O":
            return self.outside
        return next((self.at[Tag(p, label)] for p in _STANDS_IN[part] if Tag(p, label) in self.at), None)

    def rows(self, label: str, words: int) -> list[int]:
        """The rows of a span's words, in order.

        Raises:
            KeyError: no row tells of the label.
        """
        parts: list[Part] = ["S"] if words == 1 else ["B", *["I"] * (words - 2), "E"]  # type: ignore[list-item]  # of two literals
        rows = [row for part in parts if (row := self.row(part, label)) is not None]
        if len(rows) < words:
            raise KeyError(label)
        return rows


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
    also: int | None = None
    """A second row of the checkpoint's, with which the first is averaged."""


@dataclass(frozen=True)
class Reconciliation:
    """How a checkpoint's head becomes the new one."""

    rows: tuple[Row, ...]

    def head(self) -> list[Row]:
        """The rows of the new head, in order."""
        by_place = {row.new: row for row in self.rows if row.new is not None}
        return [by_place[place] for place in sorted(by_place)]

    def sources(self) -> list[tuple[int, ...]]:
        """For each new row, in order, the checkpoint's rows whose mean it is; none for a fresh one."""
        return [tuple(place for place in (row.old, row.also) if place is not None) for row in self.head()]

    def added(self) -> list[int]:
        """New rows that the checkpoint has nothing for."""
        return [row for row, source in enumerate(self.sources()) if not source]

    def counts(self) -> dict[str, int]:
        """How many rows have each status."""
        return {
            status: sum(r.status == status for r in self.rows)
            for status in ("kept", "permuted", "split", "merged", "added", "dropped")
        }

    def table(self) -> str:
        """The rows as a table for people."""
        width = max([3, *(len(r.tag) for r in self.rows)])
        lines = [f"{'tag':<{width}}  checkpoint  now  what"]
        for row in self.rows:
            old, new = ("-" if n is None else str(n) for n in (row.old, row.new))
            old += f"+{row.also}" if row.also is not None else ""
            lines.append(f"{row.tag:<{width}}  {old:>10}  {new:>3}  {row.status}")
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """For a manifest or a checkpoint's folder."""
        return {"counts": self.counts(), "rows": [[r.tag, r.old, r.new, r.status] for r in self.rows]}


def reconcile(checkpoint: Sequence[str], wanted: Sequence[str]) -> Reconciliation:
    """Match the tags of a checkpoint's head, of any scheme, with the wanted ones by meaning.

    kept: same row; permuted: other row; split: a row of the checkpoint that does not tell a span's first word from the others gives its weights to
    ``B-`` and ``I-`` alike; merged: the mean of two rows, since ``B-`` stands here for a span's only word too (S, U) and ``I-`` for its last (E, L);
    added: fresh; dropped: in the checkpoint only.

    Raises:
        ConfigError: a side's tags tell no labels, or two mean the same.
    """
    sides = []
    for side, tags in (("checkpoint", checkpoint), ("data", wanted)):
        try:
            sides.append(Scheme(tags))
        except ValueError as error:
            raise ConfigError(f"the {side}'s tags {', '.join(tags[:8])} cannot be reconciled: {error}") from None
    theirs, ours = sides
    rows, used = [], set()
    for new, (tag, mean) in enumerate(zip(ours.tags, ours.means, strict=True)):
        old, also, status = theirs.row(mean.part, mean.label), None, cast(Status, "added")
        if old is not None:
            status = "kept" if old == new else "permuted"
            if theirs.means[old] != mean:
                status = "split"
            twin: Part = "S" if mean.part == "B" else "E"
            if mean.part in ("B", "I") and theirs.means[old] == mean and Tag(twin, mean.label) not in ours.at:
                also = theirs.at.get(Tag(twin, mean.label))
            if also is not None:
                status = "merged"
        used |= {old, also}
        rows.append(Row(tag, old, new, status, also))
    rows += [Row(tag, old, None, "dropped") for old, tag in enumerate(theirs.tags) if old not in used]
    return Reconciliation(tuple(rows))
