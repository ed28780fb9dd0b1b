"""A trained encoder and head as numpy arrays, to ask a text or two without the seconds that importing torch takes. BERT's architecture alone.

Computes in float32 what `model_torch` computes: a test holds them together. Its arrays are made by `model_torch.arrays`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from scipy import sparse

from curricle.families.codes.ngrams import product

LARGEST = 60_000_000
"""Numbers of an encoder that are kept as arrays, at most: reading them must stay quicker than importing torch."""


class NumpyModel:
    """See `families.codes.opinions.Asked`.

    Args:
        arrays: of `model_torch.arrays`.
    """

    def __init__(self, arrays: Mapping[str, np.ndarray]):
        from tokenizers import Tokenizer

        self.arrays = arrays
        self.layers, self.heads, tokens = (int(number) for number in arrays["shape"])
        self.epsilon = float(arrays["epsilon"][0])
        self.tokenizer = Tokenizer.from_str(bytes(arrays["tokenizer"]).decode())
        self.tokenizer.enable_truncation(tokens)
        self.tokenizer.no_padding()

    def features(self, texts: list[str]) -> np.ndarray:
        """Normalised mean of the token states [n, width], one text after the other."""
        return np.stack([self._feature(self.tokenizer.encode(text).ids) for text in texts])

    def _feature(self, ids: list[int]) -> np.ndarray:
        a = self.arrays
        x = self._normed(a["word"][ids] + a["position"][: len(ids)] + a["type"][0], "embedding")
        for layer in range(self.layers):
            x = self._layer(x, f"layer{layer}")
        mean = x.mean(0)
        return mean / max(float(np.linalg.norm(mean)), 1e-12)

    def _layer(self, x: np.ndarray, name: str) -> np.ndarray:
        length, width = x.shape
        mixed = self._linear(x, f"{name}.qkv").reshape(length, 3, self.heads, width // self.heads)
        query, key, value = mixed.transpose(1, 2, 0, 3)
        scores = query @ key.transpose(0, 2, 1) / np.float32(math.sqrt(width // self.heads))
        shares = np.exp(scores - scores.max(-1, keepdims=True))
        shares /= shares.sum(-1, keepdims=True)
        seen = (shares @ value).transpose(1, 0, 2).reshape(length, width)
        x = self._normed(x + self._linear(seen, f"{name}.seen"), f"{name}.first")
        return self._normed(x + self._linear(_gelu(self._linear(x, f"{name}.up")), f"{name}.down"), f"{name}.second")

    def _linear(self, x: np.ndarray, name: str) -> np.ndarray:
        return x @ self.arrays[f"{name}.weight"].T + self.arrays[f"{name}.bias"]

    def _normed(self, x: np.ndarray, name: str) -> np.ndarray:
        centred = x - x.mean(-1, keepdims=True)
        scale = np.sqrt((centred * centred).mean(-1, keepdims=True) + np.float32(self.epsilon))
        return centred / scale * self.arrays[f"{name}.weight"] + self.arrays[f"{name}.bias"]

    def directions(self, features: np.ndarray) -> np.ndarray:
        """Unit directions [n, dim]."""
        out = features @ self.arrays["axes"].T + self._linear(_gelu(self._linear(features, "hidden")), "out")
        return out / np.maximum(np.linalg.norm(out, axis=1, keepdims=True), 1e-12)

    def distances(self, directions: np.ndarray) -> np.ndarray:
        """Log-probabilities [n, leaves] by the distance to the codes (`geometry.pairwise`)."""
        a = self.arrays
        own, radius = float(a["radius"][0]), a["code_radius"]
        chord = np.maximum(2 - 2 * (directions @ a["code_direction"].T), 0)
        square = np.sinh((own - radius) / 2) ** 2 + np.sinh(own) * np.sinh(radius) * chord / 4
        logits = -2 * np.arcsinh(np.sqrt(square)) / float(a["unit"][0])
        logits -= logits.max(1, keepdims=True)
        logits -= np.log(np.exp(logits).sum(1, keepdims=True))
        return np.asarray(logits, dtype=np.float32)

    def cosines(self, vectors: np.ndarray, others: np.ndarray) -> np.ndarray:
        """[n, width], [m, width] → [n, m]."""
        return vectors @ others.T

    def product(self, rows: sparse.csr_matrix, table: sparse.csr_matrix) -> np.ndarray:
        """[n, F], [F, m] → dense [n, m]."""
        return product(rows, table)


def _gelu(x: np.ndarray) -> np.ndarray:
    from scipy.special import erf

    return np.asarray(x * (1 + erf(x / np.float32(math.sqrt(2)))) / 2, dtype=np.float32)


def fits(arrays: Mapping[str, Any]) -> bool:
    """Whether there are arrays of a model among these."""
    return "tokenizer" in arrays
