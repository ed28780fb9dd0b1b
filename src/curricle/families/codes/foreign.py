"""Texts that belong to no code, made up: what the scorer learns from to say "no code". No outside corpus and no language is needed.

Real ones are not at hand when a model is used. What they share with these: their words and characters lie apart from every training text.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from curricle.families.codes.ngrams import words

ENOUGH = 100
"""Words of a tokenizer from which on sentences are made of them."""


def words_of(tokenizer: Any) -> list[str]:
    """Whole words of a tokenizer's vocabulary, in its order: the frequent ones come first, in WordPiece's and in merged ones."""
    vocabulary = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    marked = [token[1:] for token, _ in vocabulary if token[:1] in ("\u2581", "\u0120")]
    plain = [token for token, _ in vocabulary if not token.startswith("##")]
    return [word for word in marked or plain if len(word) > 1 and word.isalpha()]


def foreign_texts(texts: Sequence[str], vocabulary: Sequence[str], count: int, seed: int) -> list[str]:
    """`count` texts of each kind: shuffled characters, random characters, and words drawn by rank, as in running text.

    Args:
        texts: real ones, whose characters and lengths are taken.
    """
    draw = np.random.default_rng([seed, 0])
    chosen = [texts[i] for i in draw.integers(len(texts), size=count)] if len(texts) else []
    made = [" ".join("".join(draw.permutation(list(word))) for word in text.split()) for text in chosen]
    letters = Counter(letter for text in texts for letter in text.lower() if letter.isalnum())
    if letters:
        names, shares = list(letters), np.array(list(letters.values()), dtype=np.float64)
        for _ in range(count):
            lengths = draw.integers(2, 11, size=draw.integers(1, 6))
            made.append(" ".join("".join(draw.choice(names, n, p=shares / shares.sum())) for n in lengths))
    return [*made, *(running_text(vocabulary, draw, int(draw.integers(2, 25))) for _ in range(count))]


def embedded(texts: Sequence[str], vocabulary: Sequence[str], count: int, seed: int) -> list[str]:
    """Real texts with words around them that say nothing of a code: long ones, for the scorer to know that these are no nonsense."""
    draw = np.random.default_rng([seed, 1])
    chosen = [texts[i] for i in draw.integers(len(texts), size=count)] if len(texts) else []
    return [f"{running_text(vocabulary, draw, a)} {text} {running_text(vocabulary, draw, b)}".strip() for text, a, b in zip(chosen, *draw.integers(0, 6, size=(2, count)), strict=True)]  # fmt: skip


def running_text(vocabulary: Sequence[str], draw: np.random.Generator, count: int) -> str:
    """Words drawn with a probability that falls with their rank (Zipf); random letters where there is no vocabulary to speak of."""
    if len(vocabulary) < ENOUGH:
        return " ".join("".join(draw.choice(list("abcdefghijklmnopqrstuvwxyz"), 5)) for _ in range(count))
    ranks = np.minimum(np.exp(draw.random(count) * np.log(len(vocabulary))) - 1, len(vocabulary) - 1).astype(int)
    return " ".join(vocabulary[i] for i in ranks)


def known_words(text: str, other: str) -> list[str]:
    """Words that two texts share, in the order of the first."""
    held = set(words(other))
    return [word for word in dict.fromkeys(words(text)) if word in held]
