"""Why a code: the training texts it rests on, the words that match, and the cross-references that point elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from curricle.families.codes.foreign import known_words
from curricle.families.codes.ngrams import words
from curricle.families.codes.opinions import CHUNK, Memory, Nearness

NEIGHBOURS = 3
"""Training texts that are shown of a code."""
SMALLEST = 0.005
"""Share of the nearness from which on a training text is shown beside the nearest one."""
SHARPNESS = 20.0
"""A training text counts with exp of its similarity times this."""
ELSEWHERE = 3
"""Cross-references that are shown of a code."""
RELEVANT = 0.1
"""n-gram cosine with the text from which on a cross-reference is shown."""


@dataclass(frozen=True)
class Neighbour:
    """A training text near to the text."""

    text: str
    similarity: float
    """Cosine in the encoder's space."""
    share: float
    """Its part in the nearness of all training texts of all codes, 0 to 1."""
    words: tuple[str, ...]
    """Words that it shares with the text."""


@dataclass(frozen=True)
class Elsewhere:
    """A cross-reference: what is excluded from a code, and where it belongs."""

    source: str
    """The code, or one above it."""
    text: str
    code: str
    title: str


@dataclass(frozen=True)
class Reasons:
    """What a code for a text rests on. Everything is empty for "no code"."""

    share: float = 0.0
    """Part of the code's training texts in the nearness of all."""
    neighbours: tuple[Neighbour, ...] = ()
    """The nearest training texts of the code."""
    words: tuple[tuple[str, float], ...] = ()
    """Words of the text that speak for the code, with their weights in the linear model, strongest first."""
    elsewhere: tuple[Elsewhere, ...] = ()
    """Cross-references that might apply, the most similar first."""


def reasons(memory: Memory, texts: Sequence[str], codes: Sequence[Sequence[str]]) -> list[list[Reasons]]:
    """Of each text and each of its codes; an empty code has none."""
    made = []
    for start in range(0, len(texts), CHUNK):
        some = list(texts[start : start + CHUNK])
        near = memory.near(some)
        for row, (text, found) in enumerate(zip(some, codes[start : start + CHUNK], strict=True)):
            heat = np.exp(SHARPNESS * (near.spaces[0][row] - near.spaces[0][row].max(initial=-1.0)))
            heat /= max(float(heat.sum()), 1e-9)
            made.append([_reasons(memory, near, row, text, code, heat) if code else Reasons() for code in found])
    return made


def _reasons(memory: Memory, near: Nearness, row: int, text: str, code: str, heat: np.ndarray) -> Reasons:
    leaf = int(np.flatnonzero(memory.leaves == memory.table.tree.index[code])[0])
    mine = np.flatnonzero(memory.owners == leaf)
    similarity = near.spaces[0][row]
    order = mine[np.argsort(-similarity[mine], kind="stable")]
    best = {memory.texts[i].lower(): i for i in reversed(order)}
    # a title may also be an entry: of texts that are the same the first one counts
    neighbours: list[Neighbour] = []
    for i in [i for i in order if best[memory.texts[i].lower()] == i][:NEIGHBOURS]:
        if neighbours and heat[i] < SMALLEST:
            break
        shared = tuple(known_words(text, memory.texts[i]))
        neighbours.append(Neighbour(memory.texts[i], float(similarity[i]), float(heat[i]), shared))
    return Reasons(float(heat[mine].sum()), tuple(neighbours), _speaking(memory, text, leaf), _elsewhere(memory, text, code))  # fmt: skip


def _speaking(memory: Memory, text: str, leaf: int) -> tuple[tuple[str, float], ...]:
    found = list(dict.fromkeys(words(text)))
    held = [(word, memory.ngrams.index[f"={word}"]) for word in found if f"={word}" in memory.ngrams.index]
    weights = [(word, float(memory.linear.weights[column, leaf])) for word, column in held]
    return tuple(sorted([pair for pair in weights if pair[1] > 0], key=lambda pair: -pair[1]))


def _elsewhere(memory: Memory, text: str, code: str) -> tuple[Elsewhere, ...]:
    table = memory.table
    own, at = [code], table.tree.index[code]
    while (at := int(table.parent[at])) >= 0:
        own.insert(0, table.codes[at])
    known = memory.cross_references
    there = list(
        {(t.text.lower(), t.code): t for source in own for t in known.get(source, ()) if t.code not in own}.values()
    )
    if not there:
        return ()
    rows, _ = memory.ngrams.rows([text, *(t.text for t in there)])
    similarity = (rows[1:] @ rows[0].T).toarray().ravel()
    order = [i for i in np.argsort(-similarity, kind="stable")[:ELSEWHERE] if similarity[i] >= RELEVANT]
    titles = table.channels["title"]
    return tuple(
        Elsewhere(t.source_code or "", t.text, t.code, titles[table.tree.index[t.code]] or "")
        for t in (there[i] for i in order)
    )
