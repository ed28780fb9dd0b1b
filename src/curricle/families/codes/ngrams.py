"""Texts as weighted counts of word and character n-grams, and a linear model over them. Knows texts and columns, no encoder and no tree.

Nothing here assumes a language: a word is a run of letters and digits. scikit-learn is imported to train, never to ask.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy import sparse

LONGEST = 4096
"""Characters of a text that are looked at."""
VOCABULARY = 1 << 18
"""n-grams that are kept at most: those in most texts."""
WORDS, WORD = 1 << 16, 64
"""Words whose n-grams are remembered at most, and characters of one at most: most texts are made of a few thousand short ones."""
CHARACTERS = (3, 4, 5)
"""Lengths of character n-grams. Pairs were left out: they are in every text, and made the index four times slower."""
NEAR, FAR = 300, 6000
"""Negative texts of a code in training: the nearest to its mean, and a sample that is the same for all codes. With the near ones
alone a code of many kinds of things takes every text. Alone, with 6,000 far ones it is two points better than with 2,500 and one worse than with all texts, at
1.5 times and 5 times the cost of 2,500 (NAICS)."""
COMMON, FLOOR = 0.02, 400
"""Share and number of texts from which on a character n-gram finds no text: 2 % of them hold 18 times as many entries of the index (NAICS), and the words that they are in
stay."""
SMALLEST = 0.01
"""Weights of the linear model below this are dropped: more than half of them, without a difference in its ranks."""


def words(text: str) -> list[str]:
    """The words of a text in lower case."""
    return re.findall(r"\w+", text[:LONGEST].lower())


def grams(text: str) -> list[str]:
    """Words (``=word``), pairs of words (``=one two``), and the character n-grams of each word with a space before and after it."""
    found = words(text)
    return [gram for word in found for gram in _of_word(word)] + _pairs(found)


def _of_word(word: str) -> list[str]:
    padded = f" {word} "
    return [f"={word}", *(padded[i : i + n] for n in CHARACTERS for i in range(len(padded) - n + 1))]


def _pairs(found: list[str]) -> list[str]:
    return [f"={a} {b}" for a, b in zip(found, found[1:], strict=False)]


@dataclass(frozen=True)
class NGrams:
    """The n-grams that at least two of some texts hold, and how rare each is."""

    names: tuple[str, ...]
    rarity: np.ndarray
    """float32 [F]: smoothed inverse document frequency, as scikit-learn's."""
    unknown: float
    """Rarity of an n-gram that is not among them."""

    @classmethod
    def of(cls, texts: Sequence[str]) -> NGrams:
        """Of training texts."""
        frequency = Counter(gram for text in texts for gram in dict.fromkeys(grams(text)))
        names = [gram for gram, count in frequency.most_common(VOCABULARY) if count >= 2]
        counts = np.array([frequency[gram] for gram in names], dtype=np.float64)
        rarity = np.log((1 + len(texts)) / (1 + counts)) + 1
        return cls(tuple(names), rarity.astype(np.float32), float(np.log((1 + len(texts)) / 2) + 1))

    @cached_property
    def index(self) -> dict[str, int]:
        """n-gram → column."""
        return {name: i for i, name in enumerate(self.names)}

    @cached_property
    def _of_words(self) -> dict[str, tuple[list[int], list[str]]]:
        """Of words that were asked for: the columns of their n-grams, and the n-grams that have none."""
        return {}

    def _columns(self, word: str) -> tuple[list[int], list[str]]:
        known = self._of_words.get(word)
        if known is None:
            found = _of_word(word)
            places = [self.index.get(gram, -1) for gram in found]
            known = [place for place in places if place >= 0], [g for g, p in zip(found, places, strict=True) if p < 0]
            if len(self._of_words) >= WORDS:
                self._of_words.clear()
            if len(word) <= WORD:
                self._of_words[word] = known
        return known

    def rows(self, texts: Sequence[str]) -> tuple[sparse.csr_matrix, np.ndarray]:
        """(rows of length 1 or 0, float32 [n, F]; the share of each text's weight that is known, float32 [n])."""
        starts = [0]
        columns: list[int] = []
        counts: list[int] = []
        strange = np.zeros(len(texts), dtype=np.float32)
        for row, text in enumerate(texts):
            found = words(text)
            held: list[int] = []
            unknown: set[str] = set()
            for word in found:
                known, others = self._columns(word)
                held += known
                unknown.update(others)
            for pair in _pairs(found):
                place = self.index.get(pair)
                if place is None:
                    unknown.add(pair)
                else:
                    held.append(place)
            counted = Counter(held)
            columns += counted
            counts += counted.values()
            strange[row] = len(unknown)
            starts.append(len(columns))
        places = np.array(columns, dtype=np.int32)
        weights = (1 + np.log(np.array(counts, dtype=np.float32))) * self.rarity[places]
        table = sparse.csr_matrix((weights, places, np.array(starts)), (len(texts), len(self.names)))
        weight = np.asarray(table.sum(1)).ravel()
        return _normed(table), weight / np.maximum(weight + strange * self.unknown, 1e-9)

    def telling(self, rows: sparse.csr_matrix) -> sparse.csr_matrix:
        """Rows of length 1 again, without the character n-grams that are in over `COMMON` of the texts: most of a search's time would go into them."""
        frequency = np.bincount(rows.indices, minlength=len(self.names))
        often = frequency > max(FLOOR, COMMON * rows.shape[0])
        dropped = often & np.array([not name.startswith("=") for name in self.names], dtype=bool)
        kept = rows.copy()
        kept.data[dropped[rows.indices]] = 0
        kept.eliminate_zeros()
        return _normed(kept)


def _normed(rows: sparse.csr_matrix) -> sparse.csr_matrix:
    """The same rows, divided in place by their lengths."""
    length = np.sqrt(np.asarray(rows.multiply(rows).sum(1)).ravel())
    rows.data /= np.repeat(np.maximum(length, 1e-9), np.diff(rows.indptr))
    return rows


def product(rows: sparse.csr_matrix, table: sparse.csr_matrix) -> np.ndarray:
    """Of two sparse matrices, [n, F] and [F, m], as a dense one."""
    return (rows @ table).toarray()


@dataclass(frozen=True)
class Linear:
    """One linear decision a code, over n-grams."""

    weights: sparse.csr_matrix
    """float32 [F, codes]."""
    bias: np.ndarray
    """float32 [codes]."""

    def __call__(self, rows: sparse.csr_matrix, product: Callable[[sparse.csr_matrix, sparse.csr_matrix], np.ndarray] = product) -> np.ndarray:  # fmt: skip
        """Decision values [n, codes]. `product` of two sparse matrices is a dense one."""
        return product(rows, self.weights) + self.bias


def train_linear(rows: sparse.csr_matrix, owners: np.ndarray, wanted: np.ndarray) -> Linear:
    """A linear support vector machine for each code against the others; one thread, the same for the same input.

    Each code sees its own texts, the `NEAR` texts of others that lie nearest to its mean, and `FAR` others, so that the cost grows with the
    number of codes alone.

    Args:
        owners: int64 [n], the code of each row.
        wanted: bool [codes]; the others, and those without a row, get no weights and a bias of -1.
    """
    from sklearn.svm import LinearSVC

    codes = len(wanted)
    exact = rows.astype(np.float64)
    member = sparse.csr_matrix((np.ones(len(owners)), (owners, np.arange(len(owners)))), (codes, len(owners)))
    means = _normed((member @ rows).tocsr())
    turned = rows.T.tocsr()
    far = np.random.default_rng(0).permutation(len(owners))[:FAR]
    weights, bias = [], np.full(codes, -1.0, dtype=np.float32)
    for start in range(0, codes, 64):
        nearness = (means[start : start + 64] @ turned).toarray()
        for code in range(start, min(codes, start + 64)):
            mine = np.flatnonzero(owners == code)
            row = nearness[code - start]
            near = np.argpartition(-row, NEAR)[:NEAR] if len(row) > NEAR else np.arange(len(row))
            others = np.unique(np.concatenate([near, far]))
            others = others[owners[others] != code]
            if not wanted[code] or not len(mine) or not len(others):
                weights.append(sparse.csr_matrix((1, rows.shape[1]), dtype=np.float32))
                continue
            label = np.repeat([1, -1], [len(mine), len(others)])
            machine = LinearSVC(tol=1e-2, max_iter=300, random_state=0, dual=True)
            machine.fit(exact[np.concatenate([mine, others])], label)
            kept = np.where(np.abs(machine.coef_) < SMALLEST, 0, machine.coef_).astype(np.float32)
            weights.append(sparse.csr_matrix(kept))
            bias[code] = machine.intercept_[0]
    return Linear(sparse.vstack(weights).T.tocsr().astype(np.float32), bias)
