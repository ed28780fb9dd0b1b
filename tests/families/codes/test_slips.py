"""Slips in training texts: bounded, drawn anew, of any script; nothing that is measured has them."""

import numpy as np
import pytest
import torch

from curricle.families.codes.config import Curriculum
from curricle.families.codes.slips import EVERY, LEFT_OUT, hasty, slipped
from tests.families.codes.tiny import PARTS, config, task_of

TEXTS = [
    "Manufacturing wholesale electrical services",
    "Ärzte für Allgemeinmedizin",
    "日本語の会社です",
    "a",
    "",
    "42 / 7",
]


@pytest.mark.parametrize("text", TEXTS)
def test_a_hasty_text_is_another_with_the_same_words_in_the_same_order(text):
    draw = np.random.default_rng(0)
    made = [hasty(text, draw) for _ in range(50)]
    assert all(set(one) <= set(text) for one in made)
    assert all(one.count(" ") == text.count(" ") for one in made)
    slips = 1 + len(text) // EVERY
    assert max(len(one) for one in made) <= len(text) + slips
    letters = sum(letter.isalpha() for letter in text)
    assert len(set(made)) > 10 if letters > 2 else set(made) == {text}


def test_a_letter_left_out_is_one_letter_less():
    draw = np.random.default_rng(1)
    assert {len(slipped("Breweries", draw, 2, LEFT_OUT + 1)) for _ in range(20)} == {7}


def test_training_reads_some_texts_with_slips_and_validation_reads_none(small_census, tiny_encoder, tmp_path):
    curriculum = Curriculum(name="slips", objective="retrieval", trainable=PARTS, texts=("entry",), typos=0.5)
    task = task_of(config(small_census, tiny_encoder, curriculum), tmp_path)
    rows = task.text_rows[:40]
    clean = [task.tokens[row] for row in rows]
    assert task._as_written(rows) == clean, "outside training a text is read as it stands"

    task.model.train()
    torch.manual_seed(3)
    first, second = task._as_written(rows), task._as_written(rows)
    torch.manual_seed(3)
    assert task._as_written(rows) == first, "a resumed run draws what it would have drawn"
    assert first != second and [task.tokens[row] for row in rows] == clean
    changed = sum(a != b for a, b in zip(first, clean, strict=True))
    assert 8 <= changed <= 32 and all(len(read) <= 24 for read in first)
