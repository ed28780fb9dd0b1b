"""Character spans → tags on words → windows of tokens, and back. Needs a fast tokenizer, for its offsets.

A word ends at white space, around punctuation and around CJK characters (`splitting`), or sooner where the tokenizer's own pre-tokenisation
ends it; its first sub-word carries the tag, inner sub-words and special tokens are never scored (-100). Rules, all counted:
- Of overlapping spans the longest stays, then the earlier, then the first listed.
- A span that cuts a word is taken as if it covered the whole word.
- An edge of a span that lies in no word (white space, a control character) cannot be predicted: the span counts as missed.
- A span none of whose characters is in a word, or whose words a longer one took, is lost.
A span that one of the last three meets is unreachable: no prediction can be exactly right.
A text longer than a window becomes several that overlap by `stride` tokens; each word is scored in exactly one, where its context is largest.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from curricle.errors import ConfigError
from curricle.families.ner.labels import Scheme, Tag
from curricle.families.ner.splitting import with_words
from curricle.families.ner.tokens import Span, without_overlaps

IGNORE = -100


@dataclass(frozen=True)
class Window:
    """One piece of a text as the model sees it."""

    record: int
    ids: np.ndarray
    """Token ids with special tokens, [length]."""
    positions: np.ndarray
    """Where in `ids` the scored words begin, [words]."""
    words: np.ndarray
    """Those words' numbers in the record, [words]."""
    tags: np.ndarray
    """Their tag ids, [words]; empty without gold."""


@dataclass
class Encoded:
    """Records as windows, with what is needed to go back to characters."""

    windows: list[Window] = field(default_factory=list)
    bounds: list[np.ndarray] = field(default_factory=list)
    """Per record: start and end of every word in characters, [words, 2]."""
    gold: list[list[Span]] = field(default_factory=list)
    """Per record: the spans after the overlap rule, in characters as annotated."""
    counts: Counter[str] = field(default_factory=Counter)
    """overlapping, cut a word, edge in no word, lost."""
    unreachable: list[int] = field(default_factory=list)
    """Per record: how many of its gold spans cannot be predicted exactly."""


def special_ids(tokenizer: Any) -> tuple[list[int], list[int]]:
    """The tokens that the tokenizer puts before and behind a text."""
    if not tokenizer.is_fast:
        raise ConfigError(
            f"{type(tokenizer).__name__} is a slow tokenizer: it gives no offsets, so spans cannot be placed; "
            "use a model with a tokenizer.json"
        )
    mask = tokenizer("a", return_special_tokens_mask=True)
    inner = [i for i, special in enumerate(mask["special_tokens_mask"]) if not special]
    return mask["input_ids"][: inner[0]], mask["input_ids"][inner[-1] + 1 :]


def encode(
    texts: Sequence[str],
    spans: Sequence[Sequence[Span]] | None,
    tokenizer: Any,
    scheme: Scheme,
    *,
    max_tokens: int,
    stride: int,
) -> Encoded:
    """Texts, with gold spans or without, as windows of at most `max_tokens` tokens (special ones included).

    Raises:
        ConfigError: the tokenizer is slow, or the window is too small for its stride.
    """
    prefix, suffix = special_ids(tokenizer)
    tokenizer = with_words(tokenizer)
    room = max_tokens - len(prefix) - len(suffix)
    if stride >= room:
        raise ConfigError(
            f"model.stride {stride} must be smaller than the {room} tokens that model.max_tokens {max_tokens} leaves for text"
        )
    out = Encoded()
    for begin in range(0, len(texts), 1000):
        batch = tokenizer(
            list(texts[begin : begin + 1000]), add_special_tokens=False, return_attention_mask=False, verbose=False
        )
        for i, encoding in enumerate(batch.encodings):
            record = begin + i
            firsts, bounds = _words(encoding.offsets, encoding.word_ids, texts[record])
            out.bounds.append(bounds)
            tags = np.empty(0, np.int64)
            if spans is not None:
                gold, overlapping = without_overlaps(spans[record])
                out.gold.append(gold)
                out.counts["overlapping"] += overlapping
                tags, unreachable = _tag(gold, bounds, scheme, out.counts)
                out.unreachable.append(unreachable)
            _cut(out, record, np.asarray(encoding.ids, np.int32), firsts, tags, prefix, suffix, room, stride)
    return out


def _words(offsets: list[tuple[int, int]], word_ids: list[int | None], text: str) -> tuple[np.ndarray, np.ndarray]:
    """First token and character bounds of each word; white space at a word's edges is not part of it."""
    firsts: list[int] = []
    bounds: list[list[int]] = []
    before = None
    for token, ((start, end), word) in enumerate(zip(offsets, word_ids, strict=True)):
        while start < end and text[start].isspace():
            start += 1
        if start >= end:
            continue
        if word is not None and word == before:
            bounds[-1][1] = max(end, bounds[-1][1])
            continue
        if bounds and start < bounds[-1][1]:
            continue
        before = word
        firsts.append(token)
        bounds.append([start, end])
    return np.array(firsts, np.int64), np.array(bounds, np.int64).reshape(-1, 2)


def _tag(gold: list[Span], bounds: np.ndarray, scheme: Scheme, counts: Counter[str]) -> tuple[np.ndarray, int]:
    """A record's tag ids, and how many spans they do not give back."""
    unreachable = 0
    tags = np.full(len(bounds), scheme.outside, np.int64)
    free = np.ones(len(bounds), bool)
    for start, end, label in sorted(gold, key=lambda s: s[0] - s[1]):
        low = int(np.searchsorted(bounds[:, 1], start, side="right"))
        high = int(np.searchsorted(bounds[:, 0], end, side="left"))
        if low >= high or not free[low:high].all():
            counts["lost"] += 1
            unreachable += 1
            continue
        cut = bool(bounds[low, 0] < start or bounds[high - 1, 1] > end)
        outside = bool(bounds[low, 0] > start or bounds[high - 1, 1] < end)
        counts["cut a word"] += cut
        counts["edge in no word"] += outside
        unreachable += cut or outside
        free[low:high] = False
        tags[low:high] = scheme.rows(label, high - low)
    return tags, unreachable


def _cut(
    out: Encoded,
    record: int,
    ids: np.ndarray,
    firsts: np.ndarray,
    tags: np.ndarray,
    prefix: list[int],
    suffix: list[int],
    room: int,
    stride: int,
) -> None:
    starts = [0]
    while starts[-1] + room < len(ids):
        starts.append(starts[-1] + room - stride)
    for k, start in enumerate(starts):
        low = start + stride // 2 if k else 0
        high = starts[k + 1] + stride // 2 if k + 1 < len(starts) else len(ids)
        words = np.arange(*np.searchsorted(firsts, [low, high]))
        if not len(words):
            continue
        piece = np.concatenate([prefix, ids[start : start + room], suffix]).astype(np.int64)
        out.windows.append(
            Window(record, piece, firsts[words] - start + len(prefix), words, tags[words] if len(tags) else tags)
        )


def decode(tags: Sequence[Tag], bounds: np.ndarray) -> list[Span]:
    """What a record's words were found to be → spans in characters.

    A word within a span (I, E) that continues nothing of its label opens one; words of one plain label in a row are one span, for such a scheme
    does not tell two of them apart.
    """
    spans: list[Span] = []
    before = Tag("O", "")
    for tag, (start, end) in zip(tags, bounds.tolist(), strict=True):
        follows = before.label == tag.label and before.part not in ("O", "E", "S")
        if tag.part in ("I", "E", "") and follows:
            spans[-1] = (spans[-1][0], end, tag.label)
        elif tag.part != "O":
            spans.append((start, end, tag.label))
        before = tag
    return spans
