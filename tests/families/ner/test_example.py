"""The example datasets: always the same, whole, hard enough to say something, and without a text in two files."""

import hashlib
import json
import re

import pytest

from curricle.families.ner.example import FOLDERS, SIZES, UNLABELLED, write_example
from curricle.families.ner.formats import load_records

DIGEST = "b8ea7848c3a1"
"""Of all files: README prints what was measured on them, so whoever changes them measures anew."""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("example")
    assert write_example(folder) == [folder / name for name in FOLDERS]
    return folder


def words(place, folder, split):
    rows = load_records(place / folder / f"{split}.json")
    return rows, [(row["text"][start:end], label) for row in rows for start, end, label in row["annotations"]]


def without_spans(row):
    ends = [0, *(place for start, end, _ in row["annotations"] for place in (start, end)), len(row["text"])]
    return [row["text"][ends[i] : ends[i + 1]] for i in range(0, len(ends), 2)]


def test_the_bytes_are_always_the_same(place):
    digest = hashlib.sha256()
    for path in sorted(p for p in place.rglob("*") if p.is_file()):
        digest.update(path.relative_to(place).as_posix().encode() + path.read_bytes())
    assert digest.hexdigest().startswith(DIGEST)


@pytest.mark.parametrize(
    ("folder", "labels"),
    [(FOLDERS[0], {"PERSON", "ORG", "PLACE"}), (FOLDERS[1], {"PERSON", "ORG", "PRODUCT", "FEATURE"})],
)
def test_a_dataset_has_its_labels_its_sizes_and_no_text_twice(place, folder, labels):
    texts = []
    for split in ("train", "validation", "test"):
        rows, spans = words(place, folder, split)
        assert len(rows) == SIZES[split] and {label for _, label in spans} == labels
        assert all(word == word.strip() and word for word, _ in spans) and any(not row["annotations"] for row in rows)
        texts += [row["text"] for row in rows]
    assert len(set(texts)) == len(texts)


@pytest.mark.parametrize("folder", FOLDERS)
def test_it_is_not_solved_by_a_list_of_words(place, folder):
    """Names in test that training lacks; words with several labels, or with one here and none there; spans beside punctuation."""
    _, train = words(place, folder, "train")
    rows, test = words(place, folder, "test")
    known = {word for word, _ in train}
    assert 0.2 < sum(word not in known for word, _ in test) / len(test) < 0.8
    labels = {word: {label for w, label in train if w == word} for word in known}
    assert sum(len(found) > 1 for found in labels.values()) >= 5
    outside = " ".join(piece for row in rows for piece in without_spans(row)).lower()
    assert len({word.lower() for word in known} & set(re.findall(r"\w+", outside))) >= 2
    beside = [row["text"][end : end + 1] for row in rows for _, end, _ in row["annotations"]]
    assert sum(mark in set(".,:;'\"/()") for mark in beside if mark) >= 30


def test_the_texts_that_nobody_annotated_stand_one_a_line(place):
    texts = (place / FOLDERS[1] / UNLABELLED).read_text().splitlines()
    assert len(texts) == SIZES[UNLABELLED] == len(set(texts))
    annotated = {
        row["text"]
        for split in ("train", "test")
        for row in json.loads((place / FOLDERS[1] / f"{split}.json").read_text())
    }
    assert not annotated & set(texts)
