"""Labels, windows and metrics: checks 19-26 and 32-34 of the specification."""

import random
import warnings

import numpy as np
import pytest

from curricle.errors import ConfigError, DataError
from curricle.families.ner.formats import load_records, spans_of
from curricle.families.ner.labels import Scheme, Tag, check_labels, reconcile, tags_of
from curricle.families.ner.metrics import SpanCounts
from curricle.families.ner.windows import decode, encode, without_overlaps

TAGS = tags_of(["EMAIL", "NAME", "SKILL"])
SCHEME = Scheme(TAGS)


def means(tags):
    """What tags of B-, I- and O mean, read without the product."""
    return [Tag("O", "") if tag == "O" else Tag(tag[0], tag[2:]) for tag in tags]


@pytest.fixture(scope="module")
def tokenizer():
    from curricle.families.encoders import EMBEDDED, encoder_folder, load_tokenizer

    return load_tokenizer(encoder_folder(EMBEDDED))


def scores(gold, predicted, own=None):
    """Of sequences of tags, by the way of the product: tags → spans → counts → scores."""
    counts = SpanCounts()
    for right, guess in zip(gold, predicted, strict=True):
        places = np.arange(len(right))
        bounds = np.stack([places, places + 1], 1)
        counts.add(decode(means(right), bounds), decode(means(guess), bounds), own)
    return counts.scores()


def round_trip(tokenizer, text, spans, max_tokens=64, stride=8):
    made = encode([text], [spans], tokenizer, SCHEME, max_tokens=max_tokens, stride=stride)
    tags = {}
    for window in made.windows:
        assert (
            len(window.ids) <= max_tokens
            and (window.positions > 0).all()
            and (window.positions < len(window.ids) - 1).all()
        )
        for word, tag in zip(window.words.tolist(), window.tags.tolist(), strict=True):
            assert word not in tags, "each word is scored once"
            tags[word] = TAGS[tag]
    assert sorted(tags) == list(range(len(made.bounds[0]))), "each word is scored"
    return decode(means([tags[i] for i in range(len(tags))]), made.bounds[0]), made.counts


@pytest.mark.parametrize(
    "text",
    [
        "Ann knows Go",
        "e\u0301tude Go",
        "👩🏽\u200d💻 codes Go 🎉",
        "שלום Go עולם",
        "Zoë—Go…",
        "名前Go太郎",
        "  Go\n\tGo ",
        "ﬁne Go \ufeffx",
    ],
)
def test_spans_survive_the_way_to_tokens_and_back(tokenizer, text):
    start = text.index("Go")
    assert round_trip(tokenizer, text, [(start, start + 2, "SKILL")])[0] == [(start, start + 2, "SKILL")]


def test_touching_entities_of_one_type_stay_two(tokenizer):
    spans = [(0, 2, "SKILL"), (3, 7, "SKILL")]
    assert round_trip(tokenizer, "Go Rust", spans)[0] == spans


def test_a_span_that_cuts_a_word_covers_the_word_and_is_counted(tokenizer):
    found, counts = round_trip(tokenizer, "Ann knows Go", [(5, 7, "SKILL")])
    assert found == [(4, 9, "SKILL")] and counts["cut a word"] == 1


def test_of_overlapping_spans_the_longest_stays(tokenizer):
    spans = [(0, 2, "NAME"), (0, 7, "SKILL"), (3, 7, "EMAIL")]
    assert without_overlaps(spans) == ([(0, 7, "SKILL")], 2)
    found, counts = round_trip(tokenizer, "Go Rust", spans)
    assert found == [(0, 7, "SKILL")] and counts["overlapping"] == 2


def test_a_span_without_a_word_is_counted_as_lost(tokenizer):
    assert round_trip(tokenizer, "a   b", [(2, 3, "SKILL")]) == ([], {"overlapping": 0, "lost": 1})


@pytest.mark.parametrize(
    "name", ["wnut17", "skillspan/house", "skillspan/tech", "crossner/ai", "crossner/literature", "crossner/science"]
)
def test_real_annotations_survive_windows_of_64_tokens_but_for_those_that_are_counted(tokenizer, shared, name):
    records = load_records(shared / "data/ner" / name / "train.json")
    tags = tags_of({label for r in records for *_, label in r["annotations"]})
    made = encode(
        [r["text"] for r in records],
        [spans_of(r) for r in records],
        tokenizer,
        Scheme(tags),
        max_tokens=64,
        stride=16,
    )
    found = [["O"] * len(bounds) for bounds in made.bounds]
    for window in made.windows:
        for word, tag in zip(window.words.tolist(), window.tags.tolist(), strict=True):
            found[window.record][word] = tags[tag]
    spans = [decode(means(t), bounds) for t, bounds in zip(found, made.bounds, strict=True)]
    missed = sum(len(set(gold) - set(got)) for gold, got in zip(made.gold, spans, strict=True))
    assert (
        len(made.windows) > len(records)
        and missed == made.counts["edge in no word"] + made.counts["cut a word"] + made.counts["lost"]
    )
    assert made.counts["overlapping"] == {"skillspan/house": 29, "skillspan/tech": 135}.get(name, 0)


def test_long_texts_lose_no_entity(tokenizer):
    draw = random.Random(0)
    words = [draw.choice(["Go", "internationalisation", "x", "kubernetes"]) for _ in range(400)]
    text, spans, at = " ".join(words), [], 0
    for i, word in enumerate(words):
        if i % 3 == 0:
            spans.append((at, at + len(word), "SKILL"))
        at += len(word) + 1
    for size, stride in ((16, 4), (32, 0), (64, 17), (512, 32)):
        assert round_trip(tokenizer, text, spans, size, stride)[0] == spans
    with pytest.raises(ConfigError, match="stride"):
        round_trip(tokenizer, text, spans, 16, 14)


def test_labels_keep_their_names_and_half_a_span_is_worth_nothing():
    gold = [["B-SKILL", "I-SKILL", "O", "B-EMAIL", "B-NAME"]]
    perfect = scores(gold, gold)
    assert perfect["f1"] == 1.0 and {k for k in perfect if k.startswith("f1/")} == {"f1/EMAIL", "f1/NAME", "f1/SKILL"}
    assert scores([["B-SKILL", "I-SKILL"]], [["B-SKILL", "O"]])["f1"] == 0.0


def test_spans_of_labels_that_nobody_annotated_are_told_apart():
    gold, guess = [["B-SKILL", "O", "O", "B-SKILL"]], [["B-SKILL", "O", "B-NAME", "O"]]
    found = scores(gold, guess, own={"SKILL"})
    assert found["f1"] == pytest.approx(2 * 1 / (1 + 2)) and found["f1_full"] == pytest.approx(2 * 1 / (2 + 2))
    assert found["precision"] == 1.0 and found["f1_macro"] == found["f1"] and "f1/NAME" not in found
    everything = scores(gold, guess)
    assert everything["f1"] == everything["f1_full"] == found["f1_full"]


def test_scores_equal_seqeval():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from seqeval.metrics import classification_report

        draw = random.Random(1)
        for _ in range(30):
            gold, guess = ([draw.choices(TAGS, k=12) for _ in range(8)] for _ in range(2))
            guess = [
                [g if draw.random() < 0.7 else p for g, p in zip(a, b, strict=True)]
                for a, b in zip(gold, guess, strict=True)
            ]
            theirs = classification_report(gold, guess, output_dict=True, zero_division=0)
            ours = scores(gold, guess)
            assert ours["f1"] == pytest.approx(theirs["micro avg"]["f1-score"])
            assert ours["precision"] == pytest.approx(theirs["micro avg"]["precision"])
            assert ours["recall"] == pytest.approx(theirs["micro avg"]["recall"])
            assert ours["f1_macro"] == pytest.approx(theirs["macro avg"]["f1-score"])
            for label in ("EMAIL", "NAME", "SKILL"):
                assert ours[f"f1/{label}"] == pytest.approx(theirs[label]["f1-score"])


def test_rows_are_matched_by_name_whatever_their_order():
    old = ("O", "B-SKILL", "I-SKILL", "B-AGE", "I-AGE")
    made = reconcile(old, tags_of(["NAME", "SKILL"]))
    assert made.sources() == [(0,), (), (), (1,), (2,)]
    assert made.counts() == {"kept": 1, "permuted": 2, "split": 0, "merged": 0, "added": 2, "dropped": 2}
    assert "B-AGE" in made.table() and "dropped" in made.table()
    assert reconcile(("SKILL", "O"), ("O", "B-SKILL", "I-SKILL")).sources() == [(1,), (0,), (0,)]
    with pytest.raises(ConfigError, match="two of its rows mean O"):
        reconcile(("O", "O"), ("O",))


def test_a_label_that_the_configuration_does_not_name_is_refused():
    with pytest.raises(DataError, match="holds labels EXPERTISE"):
        check_labels({"SKILL", "EXPERTISE"}, ["SKILL"], "train.json")
    with pytest.raises(ConfigError, match="looks like a tag"):
        tags_of(["B-SKILL"])
