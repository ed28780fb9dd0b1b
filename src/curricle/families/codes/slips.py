"""Texts as hasty people write them. Pure; the same for the same draws. No language is assumed: letters come from the text itself."""

from __future__ import annotations

import numpy as np

LEFT_OUT, DOUBLED, SWAPPED, REPLACED = range(4)
FEWEST_LETTERS = 3
"""Letters of a text from which on one may be a slip."""
EVERY = 10
"""Characters for one slip."""
SHORTENED = 0.25
"""Share of the changed texts in which a word is abbreviated besides."""
LONG = 5
"""Letters of a word from which on it is abbreviated."""


def slipped(text: str, draw: np.random.Generator, slips: int, kinds: int = REPLACED) -> str:
    """A text with so many slips, each of one of the first `kinds` kinds: a letter left out, doubled, changed for its neighbour, or for another of the text."""
    letters = list(text)
    for _ in range(slips):
        places = [i for i, letter in enumerate(letters) if letter.isalpha()]
        if len(places) < FEWEST_LETTERS:
            break
        i = int(draw.choice(places))
        kind = draw.integers(kinds)
        if kind == LEFT_OUT:
            del letters[i]
        elif kind == DOUBLED:
            letters.insert(i, letters[i])
        elif kind == REPLACED:
            letters[i] = letters[int(draw.choice(places))]
        elif i + 1 < len(letters):
            letters[i], letters[i + 1] = letters[i + 1], letters[i]
    return "".join(letters)


def hasty(text: str, draw: np.random.Generator) -> str:
    """A training text as it might have been written: up to one slip for every ten characters begun, and now and then a word abbreviated to some of its letters (manufacturing, mfg)."""
    if draw.random() < SHORTENED:
        text = _shortened(text, draw)
    return slipped(text, draw, int(draw.integers(1, 2 + len(text) // EVERY)), REPLACED + 1)


def _shortened(text: str, draw: np.random.Generator) -> str:
    words = text.split(" ")
    long = [i for i, word in enumerate(words) if len(word) >= LONG and word.isalpha()]
    if not long:
        return text
    i = int(draw.choice(long))
    word = words[i]
    kept = np.sort(draw.choice(np.arange(1, len(word)), int(draw.integers(2, min(LONG, len(word)))), replace=False))
    words[i] = word[0] + "".join(word[place] for place in kept)
    return " ".join(words)
