"""Labels and tags: the B-/I-/O tags of a set of labels, what the tags of any head mean, and how its rows become those of a new one, by meaning."""

from __future__ import annotations

import functools
import re
import unicodedata
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

_NO_SPAN = re.compile(r"x|0|</?s>|[\[<]?(?:pad|cls|sep|unk|mask|bos|eos|start|stop)[\]>]?", re.IGNORECASE)
"""Rows that old scripts add to a head for what is no word: padding, special tokens, sub-words that continue a word (X)."""


@functools.lru_cache(4096)
def label_problem(label: str) -> str:
    """Why a text cannot be a label's name, as the end of a sentence; empty where it can: it is seen, written and read again, and is no tag."""
    kinds = [unicodedata.category(c) for c in label]
    if any(kind in ("Cc", "Cs") for kind in kinds) or not any(kind[0] in "LNPS" for kind in kinds):
        return "holds a control character or half a surrogate pair, or nothing that can be seen"
    name = label.strip()
    if name == "O" or name[:2] in ("B-", "I-"):
        return "looks like a tag; labels are plain names (SKILL), the tags B-SKILL and I-SKILL are made of them, and O is of words without one"
    return ""


def tags_of(labels: Iterable[str]) -> tuple[str, ...]:
    """``O``, then ``B-x`` and ``I-x`` of every label, labels sorted.

    Raises:
        ConfigError: a label is none (`label_problem`).
    """
    labels = sorted(set(labels))
    for label in labels:
        if problem := label_problem(label):
            raise ConfigError(f"label {label!r} {problem}")
    return ("O", *(f"{prefix}-{label}" for label in labels for prefix in "BI"))


class Tag(NamedTuple):
    """What a row of a head stands for."""

    part: Part
    label: str
    """Empty for outside."""


class Scheme:
    """The rows of a head by meaning: ``B-x`` and its kin, ``x-B`` (or with ``_``), or plain labels; ``O`` in any place.

    Beside tags with parts, rows for what is no word (``X``, ``[CLS]``, ``PAD`` ...) mean no span, as ``O`` does.

    Args:
        tags: the rows' names, in order.

    Raises:
        ValueError: the names tell no labels (``LABEL_0`` ...), none of them is ``O``, two mean the same, tags with parts are mixed with others,
            or a label is none (`label_problem`).
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
        words = [tag for tag in named if not _NO_SPAN.fullmatch(tag)]
        means = _with_parts(words)
        if means is None:
            words, means = named, [Tag("", tag) for tag in named]
        meant = dict(zip(words, means, strict=True))
        if len(meant) < len(words) or self.tags.count("O") > 1 or len(set(means)) < len(means):
            twice = sorted({"-".join(filter(None, m)) for m in means if means.count(m) > 1} or {"O"})
            raise ValueError(f"two of its rows mean {', '.join(twice)}")
        outside = Tag("O", "")
        self.means = tuple(meant.get(tag, outside) for tag in self.tags)
        self.at = {mean: row for row, mean in enumerate(self.means)} | {outside: self.tags.index("O")}
        """Meaning → row."""
        for label in sorted({mean.label for mean in means}):
            if problem := label_problem(label):
                raise ValueError(f"the label {label!r} of its rows {problem}")
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


def _with_parts(tags: Sequence[str]) -> list[Tag] | None:
    """What tags of parts (``B-x``, ``x-B``) mean; None for plain labels.

    Raises:
        ValueError: some are of parts and others are not.
    """
    prefixed = [Tag(_PARTS[m[1]], m[2]) if (m := re.fullmatch(r"([BIESLU])[-_](.+)", tag)) else None for tag in tags]
    suffixed = [Tag(_PARTS[m[2]], m[1]) if (m := re.fullmatch(r"(.+)[-_]([BIESLU])", tag)) else None for tag in tags]
    for means in (prefixed, suffixed):
        if tags and all(means):
            return [mean for mean in means if mean]
    for means in (prefixed, suffixed):  # plain ones may look alike: B_CELL, VITAMIN-B
        parts = [(mean.label, mean.part) for mean in means if mean]
        labels = [label for label, _ in set(parts)]
        if len(set(labels)) < len(labels) or any(tag[:2] in ("B-", "I-") for tag in tags):
            odd = [tag for tag, mean in zip(tags, means, strict=True) if not mean]
            like = next((tag for tag, mean in zip(tags, means, strict=True) if mean), "")
            raise ValueError(
                f"its rows mix tags of parts ({like} ...) with {', '.join(odd)}: name all rows in their order in `labels.json` beside config.json "
                f'({{"labels": ["O", ...]}}), {odd[0]} as B-{odd[0]} if it is a label, as X if it is of no word'
            )
    return None


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
        if mean.part == "O":  # O itself, or a row of that name for what is no word
            old = theirs.tags.index(tag) if tag in theirs.tags else None
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
