"""The weights of opinions: chosen by likelihood, calibrated, and fair to codes without examples."""

import json

import numpy as np
import pytest

from curricle.families.codes import metrics
from curricle.families.codes.weighing import PLAIN, Weights, blunted, chosen, lifted, log_softmax, told_apart
from curricle.families.reliability import calibration_error

CODES = 40


def _opinions(texts: int, seed: int, *, sure=None):
    """Opinions [K, n, CODES] of texts whose right code stands out, in the second one most; the last ones know nothing."""
    draw = np.random.default_rng(seed)
    target = draw.integers(CODES, size=texts)
    values = draw.normal(size=(len(PLAIN), texts, CODES)).astype(np.float32)
    values[[1, 2, 3, *range(5, len(PLAIN))]] *= 0.2
    gain = np.ones(texts) if sure is None else sure
    for k, own in enumerate((1.0, 0.5, 0.1)):
        values[k, np.arange(texts), target] += (own * gain).astype(np.float32)
    signs = draw.normal(size=(texts, 7)).astype(np.float32)
    return values, signs, target


NOBODY = np.zeros(CODES, dtype=bool)
LESS = np.array([0, 0.6, 0.6, 0.6, *[0] * (len(PLAIN) - 4)], dtype=np.float32)[:, None, None]
"""What a code without examples lacks."""


def test_the_weights_make_the_right_codes_likelier_and_know_which_opinion_is_worth_most():
    values, signs, target = _opinions(400, 0)
    weights = chosen(values, signs, target)
    fresh = _opinions(400, 1)
    plain = chosen(values[:, :0], signs[:0], target[:0])
    assert plain.seen.tolist() == list(PLAIN)

    def likelihood(w):
        return w.log_probabilities(fresh[0], fresh[1], NOBODY)[np.arange(400), fresh[2]].mean()

    assert likelihood(weights) > likelihood(plain) + 0.2
    assert weights.seen[1] > 4 * abs(weights.seen[3]) and abs(weights.seen[4]) < 0.2


def test_the_confidence_is_calibrated_also_where_a_sign_tells_sure_texts_from_others():
    draw = np.random.default_rng(2)
    known = draw.random(1500) < 0.5
    values, signs, target = _opinions(1500, 3, sure=np.where(known, 2.5, 0.2))
    signs[:, 3] = known
    half = slice(0, 750)
    weights = chosen(values[:, half], signs[half], target[half])
    rest = slice(750, None)
    logs = weights.log_probabilities(values[:, rest], signs[rest], NOBODY)
    right = logs.argmax(1) == target[rest]
    assert calibration_error(np.exp(logs.max(1)), right) < 0.08
    assert weights.heat[3] < -0.1, "a text that is known is surer"


def test_a_code_without_examples_is_found_and_buries_no_other():
    values, signs, target = _opinions(600, 4)
    unseen = values - LESS
    weights = lifted(chosen(values, signs, target), values, unseen, signs, target, 0)
    bare = np.arange(CODES) < 4
    fresh, signs, target = _opinions(600, 5)
    shown = np.where(bare, fresh - LESS, fresh)
    shares = np.exp(weights.log_probabilities(shown, signs, bare))
    assert shares[:, bare].sum(1).mean() == pytest.approx(np.isin(target, np.flatnonzero(bare)).mean(), abs=0.03)
    everyone = np.exp(weights.log_probabilities(shown, signs, NOBODY))[:, bare].sum(1).mean()
    assert everyone < 0.7 * shares[:, bare].sum(1).mean(), "without a lift they would be lost"


def test_texts_of_no_code_are_told_apart_by_their_signs():
    draw = np.random.default_rng(6)
    values, signs, target = _opinions(300, 7)
    signs += 2
    other = draw.normal(size=(300, 7)).astype(np.float32) - 2
    weights = told_apart(chosen(values, signs, target), signs, other)
    assert (weights.no_code(signs) < 0.5).mean() > 0.99 and (weights.no_code(other) > 0.5).mean() > 0.95
    for alone in (told_apart(weights, signs, other[:0]), told_apart(weights, signs[:19], other)):
        assert (alone.no_code(np.concatenate([signs, other])) < 1e-6).all(), (
            "with next to nothing to learn from, every text has a code"
        )


def test_a_first_code_that_is_too_sure_is_made_less_so():
    draw = np.random.default_rng(9)
    logits = draw.normal(size=(2000, 10)) * 2
    shares = np.exp(log_softmax(logits))
    target = np.array([draw.choice(10, p=row) for row in shares])
    assert blunted(log_softmax(logits * 1.4), target) == pytest.approx(1.4, abs=0.12)
    assert blunted(log_softmax(logits), target) == pytest.approx(1.0, abs=0.1)
    assert blunted(logits[:0], target[:0]) == 1.0


def test_weights_survive_json():
    values, signs, target = _opinions(100, 8)
    weights = chosen(values, signs, target)
    again = Weights.from_json(json.loads(json.dumps(weights.as_json())))
    assert np.array_equal(
        again.log_probabilities(values, signs, NOBODY), weights.log_probabilities(values, signs, NOBODY)
    )


def test_weights_of_other_opinions_are_refused():
    values, signs, target = _opinions(20, 8)
    content = chosen(values, signs, target).as_json()
    with pytest.raises(ValueError, match=f"weights of {len(PLAIN) + 3} opinions; there are {len(PLAIN)}"):
        Weights.from_json(content | {"seen": [*content["seen"], 0, 0, 0]})


def test_the_threshold_is_the_lowest_confidence_that_keeps_the_error():
    confidence = np.array([0.9, 0.8, 0.7, 0.6, 0.5])
    right = np.array([True, True, False, True, False])
    assert metrics.threshold(confidence, right, 0.3) == 0.6
    assert metrics.threshold(confidence, right, 0.0) == 0.8
    assert metrics.threshold(confidence, ~right, 0.0) > 1
    assert metrics.threshold(confidence[:0], right[:0], 0.5) > 1


def test_calibration_and_the_area_under_the_curve_on_numbers_worked_out_by_hand():
    confidence = np.array([0.2, 0.2, 0.8, 0.8])
    assert calibration_error(confidence, np.array([False, False, True, False])) == pytest.approx(0.25)
    assert metrics.told_apart(np.array([1.0, 2.0]), np.array([2.0, 3.0])) == pytest.approx(0.875)
