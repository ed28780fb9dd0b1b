"""Tokens with tags, and characters with spans: what CoNLL and Hugging Face files hold, there and back.

There: the text is the tokens joined by blanks. Back: tokens are what stands between white space, or, in a file where spans begin or end within
such, also every punctuation mark and CJK character alone; a span that still ends within a token splits it.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from curricle.families.ner.splitting import is_alone

Span = tuple[int, int, str]
"""(start, end, label) in characters, end exclusive."""
TAG = re.compile(r"O|[BIESLU]-\S+")
SCHEMES = "O, B-x, I-x, also S-x, E-x, U-x, L-x"
_BLANKS = re.compile(r"[^ \t\r\n]+")


def without_overlaps(spans: Sequence[Span]) -> tuple[list[Span], int]:
    """Spans by the overlap rule (the longest stays, then the earlier, then the first listed), in text order, and how many were dropped."""
    kept: list[Span] = []
    for _, span in sorted(enumerate(spans), key=lambda item: (item[1][0] - item[1][1], item[1][0], item[0])):
        if all(span[1] <= other[0] or other[1] <= span[0] for other in kept):
            kept.append(span)
    return sorted(kept), len(spans) - len(kept)


def record_of(tokens: Sequence[str], tags: Sequence[str]) -> dict[str, Any]:
    """The record of space-joined tokens. What continues nothing (I-, E- or L- without a beginning) opens a span, as in IOB1."""
    spans: list[list[Any]] = []
    at, open_label = 0, ""
    for token, tag in zip(tokens, tags, strict=True):
        place, _, label = tag.partition("-")
        if place in "IEL" and label == open_label:
            spans[-1][1] = at + len(token)
        elif place != "O":
            spans.append([at, at + len(token), label])
        open_label = label if place in "BI" else ""
        at += len(token) + 1
    return {"text": " ".join(tokens), "annotations": spans}


def ends_with_blanks(records: Iterable[dict[str, Any]]) -> bool:
    """Whether every span of these records begins and ends where white space does: then the texts are tokenised already."""
    return all(
        (start == 0 or text[start - 1] in " \t\r\n") and (end == len(text) or text[end] in " \t\r\n")
        for record in records
        if (text := record["text"]) is not None
        for start, end, _ in record["annotations"]
    )


def tagged(record: dict[str, Any], fine: bool, losses: Counter[str]) -> tuple[list[str], list[str]]:
    """Tokens and IOB2 tags of a record.

    Args:
        fine: punctuation marks and CJK characters are tokens of their own.
        losses: is added what such tokens cannot hold.
    """
    text = record["text"]
    spans, overlapping = without_overlaps([(s, e, label) for s, e, label in record["annotations"]])
    losses["overlapping annotations, of which the longest stays"] += overlapping
    borders = {edge for start, end, _ in spans for edge in (start, end)}
    bounds = [piece for run in _BLANKS.finditer(text) for piece in _pieces(text, run.start(), run.end(), fine, borders)]
    tags, at = ["O"] * len(bounds), 0
    for start, end, label in spans:
        while at < len(bounds) and bounds[at][0] < start:
            at += 1
        first = at
        while at < len(bounds) and bounds[at][1] <= end:
            tags[at] = f"{'B' if at == first else 'I'}-{_plain(label, losses)}"
            at += 1
        if at == first:
            losses["annotations of white space alone"] += 1
        elif (bounds[first][0], bounds[at - 1][1]) != (start, end):
            losses["white space at the edge of an annotation"] += 1
    tokens = [text[start:end] for start, end in bounds]
    losses["texts whose white space becomes one blank between tokens"] += text != " ".join(tokens)
    return tokens, tags


def _pieces(text: str, start: int, end: int, fine: bool, borders: set[int]) -> Iterable[tuple[int, int]]:
    """The tokens of a run without white space."""
    cuts = [start]
    for at in range(start + 1, end):
        if at in borders or fine and (is_alone(text[at]) or is_alone(text[at - 1])):
            cuts.append(at)
    return zip(cuts, [*cuts[1:], end], strict=True)


def _plain(label: str, losses: Counter[str]) -> str:
    plain = re.sub(r"\s", "_", label)
    losses["labels with white space, which becomes _"] += plain != label
    return plain
