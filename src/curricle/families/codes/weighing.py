"""How the opinions of a text become probabilities of codes, and of there being no code at all. Pure: arrays in, arrays out.

A code's logit is the weighted sum of its opinions over a temperature that depends on the text's signs. All is chosen by likelihood on
validation texts, which no opinion has seen, with a pull towards plain values, so that few texts move little. Codes without examples have weights and a
constant of their own, chosen while a tenth of the codes after the other plays one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

PLAIN = (1.0, 4.0, 4.0, 4.0, 2.0, *(0.0,) * 7)
"""Weights of the opinions to be pulled towards."""
UNITS = (1.0, 8.0, 8.0, 8.0, 2.0, 8.0, 8.0, 2.0, 1.0, 1.0, 1.0, 1.0)
"""What counts as one step of each weight: an opinion is a log-probability, a cosine, a margin, or a place among the codes."""
BARE = 4
"""Of the first so many opinions a code without examples has weights; the others say nothing of it, or the same again."""
PULL, PULL_OF_FEW = 3e-4, 0.1
"""Strength of the pull, per squared step, beside a mean loss; of fewer than a hundred texts the second one divided by their number."""
TO_THE_END = {"maxiter": 300, "ftol": 1e-10, "gtol": 1e-7}
"""A fit that stopped after 60 steps was .0005 MRR away from where it would have come (NAICS, 12 opinions), to one side or the other with the last digit of an opinion."""
FOLDS = 10
PAIRS = 6_000_000
"""Texts times codes that are looked at in one fit, at most; but `FEWEST` texts."""
FEWEST = 500
FEWEST_REAL = 20
"""Real texts from which on "no code" is learned: from fewer, every unseen text looked like nonsense."""
FOREIGN = 0.1
"""Share of texts without a code that is expected before one is read."""


@dataclass(frozen=True)
class Weights:
    """What `chosen` chooses."""

    seen: np.ndarray
    """Of the opinions [K], for codes with examples."""
    bare: np.ndarray
    """Of the opinions [K], for codes without; 0 from `BARE` on."""
    lift: float
    """On top for codes without examples."""
    centre: np.ndarray
    """Mean of the signs [7] over validation texts."""
    spread: np.ndarray
    """Standard deviation of the signs [7]."""
    heat: np.ndarray
    """Of the standardised signs [7], in the temperature's logarithm."""
    blunt: float
    """Divides every logit once more, so that the first code's probability is its share of right ones; see `blunted`."""
    foreign: np.ndarray
    """Of the standardised signs [7], then a constant, in the log-odds of there being no code."""

    def log_probabilities(self, values: np.ndarray, signs: np.ndarray, bare: np.ndarray) -> np.ndarray:
        """Opinions [K, n, codes], signs [n, 7], bare bool [codes] → log-probabilities [n, codes], given that there is a code."""
        return log_softmax(self._logits(values, bare) / self._temperature(signs)[:, None])

    def _logits(self, values: np.ndarray, bare: np.ndarray) -> np.ndarray:
        logits = np.tensordot(self.seen.astype(np.float32), values, 1)
        if bare.any():
            logits[:, bare] = np.tensordot(self.bare.astype(np.float32), values[:, :, bare], 1) + self.lift
        return logits

    def _temperature(self, signs: np.ndarray) -> np.ndarray:
        heat = np.clip(self._standard(signs) @ self.heat, -2.0, 2.0)
        return (self.blunt * np.exp(heat)).astype(np.float32)

    def _standard(self, signs: np.ndarray) -> np.ndarray:
        return np.clip((signs - self.centre) / self.spread, -6, 6)

    def no_code(self, signs: np.ndarray) -> np.ndarray:
        """Probability [n] that a text belongs to no code: it is nonsense, or of something else."""
        return 1 / (1 + np.exp(-(self._standard(signs) @ self.foreign[:-1] + self.foreign[-1])))

    def as_json(self) -> dict[str, Any]:
        """Plain lists and numbers."""
        return {
            name: value.tolist() if isinstance(value, np.ndarray) else value for name, value in asdict(self).items()
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Weights:
        """What `as_json` wrote.

        Raises:
            KeyError, TypeError, ValueError: it is something else.
        """
        names = ("seen", "bare", "centre", "spread", "heat", "foreign")
        if not len(content["seen"]) == len(content["bare"]) == len(PLAIN):
            raise ValueError(f"weights of {len(content['seen'])} opinions; there are {len(PLAIN)}")
        return cls(
            lift=float(content["lift"]),
            blunt=float(content["blunt"]),
            **{n: np.array(content[n], dtype=np.float64) for n in names},
        )


def chosen(values: np.ndarray, signs: np.ndarray, target: np.ndarray, weights: Weights | None = None) -> Weights:
    """Weights and temperature for codes with examples; the rest as in `weights`, where it starts.

    Args:
        values: opinions [K, n, codes] of validation texts.
        target: the right code's column [n].
    """
    if weights is None:
        zero = np.zeros(signs.shape[1])
        spread = np.maximum(signs.std(0, dtype=np.float64), 1e-3) if len(signs) else zero + 1
        centre = signs.mean(0, dtype=np.float64) if len(signs) else zero
        plain = np.array(PLAIN)
        plain_bare = plain * (np.arange(len(plain)) < BARE)
        weights = Weights(plain, plain_bare, 0.0, centre, spread, zero, 1.0, np.zeros(len(zero) + 1))
    if not len(target):
        return weights
    take = sample(len(target), values.shape[2])
    values, target, signs = values[:, take], target[take], signs[take]
    standard = weights._standard(signs)
    units, rows, pull = np.array(UNITS), np.arange(len(target)), _pull(len(target))

    def loss(given: np.ndarray) -> tuple[float, np.ndarray]:
        steps, heat = given[: len(units)], given[len(units) :]
        seen = np.array(PLAIN) + steps * units
        warm = np.clip(standard @ heat, -2.0, 2.0)
        cold = np.exp(-warm).astype(np.float32)
        logits = np.tensordot(seen.astype(np.float32), values, 1) * cold[:, None]
        shares = log_softmax(logits)
        value = -shares[rows, target].mean()
        np.exp(shares, out=shares)
        shares[rows, target] -= 1
        slope = np.einsum("nm,knm->k", shares * (cold / len(rows))[:, None], values, optimize=True) * units
        warmer = -(shares * logits).sum(1) * (np.abs(warm) < 2.0) @ standard / len(rows)
        return value + pull * (given @ given), np.concatenate([slope, warmer]) + 2 * pull * given

    from scipy.optimize import minimize

    start = np.concatenate([(weights.seen - np.array(PLAIN)) / units, weights.heat])
    found = minimize(loss, start, jac=True, method="L-BFGS-B", options=TO_THE_END).x
    return replace(weights, seen=np.array(PLAIN) + found[: len(units)] * units, heat=found[len(units) :])


def _pull(texts: int) -> float:
    return max(PULL, PULL_OF_FEW / max(texts, 1))


def blunted(logs: np.ndarray, target: np.ndarray) -> float:
    """By what to divide log-probabilities [n, codes] so that the first code's probability predicts best whether it is the right one.

    Likelihood of the right code alone left the first one 2 points too sure. To be chosen on texts that the weights were chosen without.
    """
    if not len(target):
        return 1.0
    right = logs.argmax(1) == target

    def loss(divisor: float) -> float:
        first = np.clip(np.exp(log_softmax(logs / divisor).max(1)), 1e-6, 1 - 1e-6)
        return float(-np.log(np.where(right, first, 1 - first)).mean())

    return float(min(np.geomspace(0.7, 1.6, 37), key=loss))


def lifted(
    weights: Weights, values: np.ndarray, unseen: np.ndarray, signs: np.ndarray, target: np.ndarray, seed: int
) -> Weights:
    """Weights and constant of codes without examples.

    A tenth of the codes plays them, one tenth after the other. A text is looked at twice: while its own code plays one, and while it does not, which counts
    nine times as much, as it would happen.

    Args:
        values: opinions [K, n, codes] of validation texts.
        unseen: the first four of them as if no code had an example.
    """
    take = sample(len(target), values.shape[2] * 2)
    values, unseen, signs, target = values[:, take], unseen[:, take], signs[take], target[take]
    codes = values.shape[2]
    fold = np.random.default_rng(seed).permutation(codes) % FOLDS
    cold = 1 / weights._temperature(signs)[:, None]
    known = np.tensordot(weights.seen.astype(np.float32), values, 1) * cold
    rows, units, pull = np.arange(len(target)), np.array(UNITS[:BARE]), _pull(len(target))
    roles = [(fold == fold[target][:, None], 1 / FOLDS), (fold == (fold[target][:, None] + 1) % FOLDS, 1 - 1 / FOLDS)]

    def loss(given: np.ndarray) -> tuple[float, np.ndarray]:
        own = np.array(PLAIN[:BARE]) + given[:BARE] * units
        played = (np.tensordot(own.astype(np.float32), unseen[:BARE], 1) + np.float32(given[BARE])) * cold
        value, slope = 0.0, np.zeros(BARE + 1)
        for role, share in roles:
            shares = log_softmax(np.where(role, played, known))
            value -= share * shares[rows, target].mean()
            np.exp(shares, out=shares)
            shares[rows, target] -= 1
            shares *= role * cold * (share / len(rows))
            slope[:BARE] += np.einsum("nm,knm->k", shares, unseen[:BARE], optimize=True) * units
            slope[BARE] += shares.sum()
        away = np.append(given[:BARE], 0)
        return value + pull * (away @ away), slope + 2 * pull * away

    from scipy.optimize import minimize

    start = np.append((weights.seen[:BARE] - np.array(PLAIN[:BARE])) / units, 0.0)
    found = minimize(loss, start, jac=True, method="L-BFGS-B", options=TO_THE_END).x
    own = np.append(np.array(PLAIN[:BARE]) + found[:BARE] * units, np.zeros(len(PLAIN) - BARE))
    return replace(weights, bare=own, lift=float(found[BARE]))


def told_apart(weights: Weights, real: np.ndarray, other: np.ndarray) -> Weights:
    """Log-odds of there being no code, by logistic regression on signs [n, 7] of real texts and of others; `FOREIGN` is the prior. Of fewer than `FEWEST_REAL` real texts nothing is learned: every text has a code."""
    if len(real) < FEWEST_REAL or not len(other):
        return replace(weights, foreign=np.append(np.zeros(len(weights.heat)), -20.0))
    from sklearn.linear_model import LogisticRegression

    both = weights._standard(np.concatenate([real, other]))
    label = np.repeat([0, 1], [len(real), len(other)])
    model = LogisticRegression(C=1.0, class_weight="balanced", max_iter=500).fit(both, label)
    prior = np.log(FOREIGN / (1 - FOREIGN))
    return replace(weights, foreign=np.append(model.coef_[0], model.intercept_[0] + prior))


def sample(texts: int, codes: int) -> np.ndarray:
    """Which texts are looked at, so that a fit stays small: positions, ascending."""
    most = max(FEWEST, PAIRS // max(codes, 1))
    return np.arange(texts) if texts <= most else np.sort(np.random.default_rng(0).permutation(texts)[:most])


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Logits [n, codes] → log-probabilities."""
    shifted = logits - logits.max(1, keepdims=True)
    shifted -= np.log(np.exp(shifted).sum(1, keepdims=True))
    return shifted
