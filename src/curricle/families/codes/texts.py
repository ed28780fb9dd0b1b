"""Labelled texts, the split of those of the Census workbooks, and the check that no evaluation text leaks into training. Pure Python and numpy."""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from curricle.errors import ConfigError, DataError
from curricle.families.codes.labelled import word_set
from curricle.families.codes.workbooks import Sources, level_of, parent_of

Split = Literal["train", "validation", "test", "cold"]

JACCARD = 0.9
"""From this similarity of character trigrams on, two texts count as the same."""

_SLACK = 1e-9
"""0.9 is no binary fraction."""


@dataclass(frozen=True, slots=True)
class LabelledText:
    """A text and the code it belongs to; of a cross-reference, `code` is the code it names and `source_code` the one it stands under."""

    text: str
    code: str
    kind: Literal["entry", "cross_reference", "title", "description"]
    split: Split
    source_code: str | None = None
    weight: float = 1.0
    """How often the text counts; above 1 where several rows were the same."""
    date: str | None = None
    source: str | None = None
    """What the table of the text says, where it has such columns."""
    batch: int = 0
    """Number of the batch that the text came with: 0 of the first data, 1 of what a first continued training added."""


def labelled_texts(
    sources: Sources, *, split_seed: int, hidden_codes: int = 0
) -> tuple[list[LabelledText], dict[str, int]]:
    """Every labelled text with its split, and how many were dropped for which reason.

    Index entries are split per code: 15 % test for codes with 4 or more, 5 % validation with 8 or more, the rest train. Then
    an evaluation entry is dropped that permutes the words of, or has trigram similarity 0.9 or more with, a training entry or any
    title, and a cross-reference phrase that contains or nearly is an evaluation text. All texts of `hidden_codes` leaves go to `cold`.

    Raises:
        ConfigError: fewer than `hidden_codes` leaves have two siblings.
    """
    cold = cold_codes(sources, split_seed=split_seed, count=hidden_codes)
    entries = _split_entries(sources, split_seed, cold)
    titles = [LabelledText(t, c, "title", "cold" if c in cold else "train") for c, t in sources.titles.items()]
    descriptions = [
        LabelledText(t, c, "description", "cold" if c in cold else "train") for c, t in sources.descriptions.items()
    ]
    training = [t for t in entries if t.split == "train"]
    held_out = [t for t in entries if t.split != "train"]
    twin = NearDuplicates([*(t.text for t in training), *(t.text for t in titles)])
    kept = [t for t in held_out if twin.find(t.text) is None]
    phrases, multiple, containing = _phrases(sources, cold, [t.text for t in kept])
    keep = {id(t) for t in kept} | {id(t) for t in training}
    dropped = {
        "dropped_entries": len(held_out) - len(kept),
        "dropped_cross_references": containing,
        "unnamed_cross_references": multiple,
    }
    return [*(t for t in entries if id(t) in keep), *phrases, *titles, *descriptions], dropped


def cold_codes(sources: Sources, *, split_seed: int, count: int) -> frozenset[str]:
    """`count` leaves with at least two siblings, drawn with the split's seed."""
    leaves = [(code, parent_of(code) or "") for code in sources.titles if level_of(code) == 6]
    return cold_leaves(leaves, split_seed=split_seed, count=count)


def cold_leaves(leaves: Iterable[tuple[str, str]], *, split_seed: int, count: int) -> frozenset[str]:
    """`count` of these leaves (code, its parent or nothing) with at least two siblings, drawn with the split's seed.

    Raises:
        ConfigError: there are fewer.
    """
    if not count:
        return frozenset()
    families: dict[str, list[str]] = defaultdict(list)
    for code, above in leaves:
        families[above].append(code)
    eligible = [code for leaves in families.values() if len(leaves) >= 3 for code in leaves]
    if count > len(eligible):
        raise ConfigError(
            f"data.hidden_codes is {count}, but only {len(eligible)} leaf codes have two siblings or more"
        )
    order = np.random.default_rng([split_seed, 1]).permutation(len(eligible))[:count]
    return frozenset(eligible[i] for i in order)


def _split_entries(sources: Sources, split_seed: int, cold: frozenset[str]) -> list[LabelledText]:
    by_code: dict[str, list[str]] = defaultdict(list)
    for code, text in sources.entries:
        by_code[code].append(text)
    rng = np.random.default_rng([split_seed, 0])
    texts = []
    for code in sources.titles:
        own = by_code.get(code, [])
        test = round(0.15 * len(own)) if len(own) >= 4 else 0
        validation = max(1, round(0.05 * len(own))) if len(own) >= 8 else 0
        splits: list[Split] = ["train"] * len(own)
        for place, i in enumerate(rng.permutation(len(own))[: test + validation]):
            splits[i] = "test" if place < test else "validation"
        texts += [
            LabelledText(t, code, "entry", "cold" if code in cold else s) for t, s in zip(own, splits, strict=True)
        ]
    return texts


def _phrases(sources: Sources, cold: frozenset[str], held_out: Sequence[str]) -> tuple[list[LabelledText], int, int]:
    """(texts, rows that do not name exactly one code, phrases dropped because they contain or nearly are an evaluation text)."""
    contained, twin = _Containment(held_out), NearDuplicates(held_out)
    texts, unnamed, containing = [], 0, 0
    for row in sources.cross_references:
        if len(row.targets) != 1:
            unnamed += 1
        elif contained.find(row.phrase) is not None or twin.find(row.phrase) is not None:
            containing += 1
        else:
            target = row.targets[0]
            texts.append(
                LabelledText(row.phrase, target, "cross_reference", "cold" if target in cold else "train", row.source)
            )
    return texts, unnamed, containing


class Apart:
    """Tells what is nearly, in other word order, or as part of a phrase, among fixed texts."""

    def __init__(self, texts: Sequence[LabelledText]):
        self._texts = [t for t in texts if t.kind != "description"]
        self._twins = NearDuplicates([t.text for t in self._texts])
        self._phrases = [" ".join(("", *words(t.text), "")) for t in self._texts if t.kind == "cross_reference"]

    def twin(self, text: str) -> LabelledText | None:
        """A text that is nearly this one."""
        place = self._twins.find(text)
        return None if place is None else self._texts[place]

    def gives_away(self, text: str) -> bool:
        """Whether one is nearly this text, or a cross-reference's phrase contains it."""
        inside = " ".join(("", *words(text), ""))
        return self.twin(text) is not None or any(inside in phrase for phrase in self._phrases)


def check_no_leak(texts: Iterable[LabelledText]) -> None:
    """Make sure that no evaluation entry is, nearly or in other word order, a training entry or a title, nor part of a training phrase.

    Raises:
        DataError: one is; names both texts.
    """
    texts = list(texts)
    training = [t for t in texts if t.split == "train" and t.kind in ("entry", "cross_reference") or t.kind == "title"]
    held_out = [t for t in texts if t.split != "train" and t.kind == "entry"]
    twin = NearDuplicates([t.text for t in training])
    for text in held_out:
        other = twin.find(text.text)
        if other is not None:
            _leak(text, training[other])
    contained = _Containment([t.text for t in held_out])
    for text in texts:
        if text.split == "train" and text.kind == "cross_reference":
            inside = contained.find(text.text)
            if inside is not None:
                _leak(held_out[inside], text)


def check_word_sets(texts: Iterable[LabelledText]) -> None:
    """Make sure that no evaluation entry has the word set of a training entry or a title: the rule of tables' data.

    Raises:
        DataError: one has; names both texts.
    """
    texts = list(texts)
    training = {
        hash(word_set(t.text)): i
        for i, t in enumerate(texts)
        if t.split == "train" and t.kind == "entry" or t.kind == "title"
    }
    for text in texts:
        if text.split in ("validation", "test") and (other := training.get(hash(word_set(text.text)))) is not None:
            _leak(text, texts[other])


def _leak(text: LabelledText, other: LabelledText) -> None:
    raise DataError(
        f"the {text.split} text {text.text!r} of code {text.code} leaks into training: it is nearly the same as, or part of, "
        f"the {other.kind} {other.text!r} of code {other.code}; prepare the data again"
    )


def words(text: str) -> tuple[str, ...]:
    """The lower-case words of a text."""
    return tuple(re.findall(r"[a-z0-9]+", text.lower()))


def trigrams(text: str) -> frozenset[str]:
    """The character trigrams of a text in lower case with single spaces."""
    flat = " ".join(text.lower().split())
    return frozenset(flat[i : i + 3] for i in range(max(1, len(flat) - 2)))


class NearDuplicates:
    """Finds, among fixed texts, one with the same words in any order or with trigram Jaccard of at least 0.9.

    Two sets of n and m trigrams can only reach 0.9 if they share one among the n - ceil(0.9 n) + 1 rarest of the one and the
    m - ceil(0.9 m) + 1 rarest of the other, so that an inverted index over those few leaves a handful of candidates.
    """

    def __init__(self, texts: Sequence[str]):
        self._sets = [trigrams(t) for t in texts]
        self._frequency = Counter(gram for grams in self._sets for gram in grams)
        self._bags: dict[tuple[str, ...], int] = {}
        self._postings: dict[str, list[int]] = defaultdict(list)
        for i, text in enumerate(texts):
            self._bags.setdefault(tuple(sorted(words(text))), i)
            for gram in self._rarest(self._sets[i]):
                self._postings[gram].append(i)

    def find(self, text: str) -> int | None:
        """Index of a near-duplicate, or None."""
        same = self._bags.get(tuple(sorted(words(text))))
        if same is not None:
            return same
        grams = trigrams(text)
        candidates = {i for gram in self._rarest(grams) for i in self._postings.get(gram, ())}
        for i in sorted(candidates):
            shared = len(grams & self._sets[i])
            if shared >= JACCARD * (len(grams) + len(self._sets[i]) - shared) - _SLACK:
                return i
        return None

    def _rarest(self, grams: frozenset[str]) -> list[str]:
        count = len(grams) - math.ceil(JACCARD * len(grams) - _SLACK) + 1
        return sorted(grams, key=lambda gram: (self._frequency[gram], gram))[:count]


class _Containment:
    """Finds which of some fixed texts stands, as whole words, inside another text."""

    def __init__(self, texts: Sequence[str]):
        self._by_first: dict[str, list[tuple[tuple[str, ...], int]]] = defaultdict(list)
        for i, text in enumerate(texts):
            parts = words(text)
            if parts:
                self._by_first[parts[0]].append((parts, i))

    def find(self, text: str) -> int | None:
        parts = words(text)
        for start, first in enumerate(parts):
            for inner, i in self._by_first.get(first, ()):
                if parts[start : start + len(inner)] == inner:
                    return i
        return None
