"""The split of the labelled texts, and the leak check."""

from collections import Counter

import pytest

from curricle.errors import ConfigError, DataError
from curricle.families.codes.texts import (
    LabelledText,
    NearDuplicates,
    check_no_leak,
    cold_codes,
    labelled_texts,
    trigrams,
    words,
)
from curricle.families.codes.workbooks import Sources, level_of, parent_of, read_demo, read_workbooks


@pytest.fixture(scope="module")
def census(shared) -> Sources:
    return read_workbooks(shared / "data" / "naics2022")


@pytest.fixture(scope="module")
def split(census) -> tuple[list[LabelledText], dict[str, int]]:
    return labelled_texts(census, split_seed=0)


def test_the_split_of_the_census_has_its_known_sizes(split):
    texts, dropped = split
    assert Counter(f"{t.kind} {t.split}" for t in texts) == {
        "entry train": 16_224, "entry validation": 988, "entry test": 2705, "cross_reference train": 4401, "title train": 2125,
        "description train": 2111,
    }  # fmt: skip
    assert dropped == {"dropped_entries": 456, "dropped_cross_references": 107, "unnamed_cross_references": 93}


def test_the_split_of_the_census_does_not_leak(split):
    check_no_leak(split[0])


def test_no_evaluation_text_of_the_census_is_a_training_text_by_a_direct_comparison(split):
    texts, _ = split
    seen = [t.text for t in texts if t.split == "train" and t.kind in ("entry", "cross_reference", "title")]
    bags = {tuple(sorted(words(t))) for t in seen}
    sets = [trigrams(t) for t in seen]
    held_out = [t for t in texts if t.split != "train"]
    assert not [t for t in held_out if tuple(sorted(words(t.text))) in bags]
    for text in held_out[::90]:
        own = trigrams(text.text)
        assert max(len(own & other) / len(own | other) for other in sets) < 0.9


def test_another_seed_splits_otherwise_and_the_same_seed_alike():
    demo = read_demo()
    first = labelled_texts(demo, split_seed=0)[0]
    assert first == labelled_texts(demo, split_seed=0)[0]
    assert first != labelled_texts(demo, split_seed=1)[0]


def test_small_codes_keep_their_entries_for_training():
    texts, _ = labelled_texts(sources({"111110": 3, "111120": 5, "111130": 9}), split_seed=0)
    counted = Counter((t.code, t.split) for t in texts if t.kind == "entry")
    assert counted == {
        ("111110", "train"): 3, ("111120", "train"): 4, ("111120", "test"): 1, ("111130", "train"): 7, ("111130", "validation"): 1,
        ("111130", "test"): 1,
    }  # fmt: skip


def test_hidden_codes_are_leaves_with_two_siblings_and_train_nothing():
    demo = read_demo()
    cold = cold_codes(demo, split_seed=0, count=100)
    texts, _ = labelled_texts(demo, split_seed=0, hidden_codes=100)
    siblings = Counter(parent_of(c) for c in demo.titles)
    assert len(cold) == 100 and all(level_of(c) == 6 and siblings[parent_of(c)] >= 3 for c in cold)
    assert {t.split for t in texts if t.code in cold} == {"cold"}
    assert {t.code for t in texts if t.split == "cold"} == cold


def test_more_hidden_codes_than_there_are_is_an_error():
    with pytest.raises(ConfigError, match="data.hidden_codes is 2000, but only .* leaf codes have two siblings"):
        cold_codes(read_demo(), split_seed=0, count=2000)


def entry(text: str, split: str, code: str = "111110") -> LabelledText:
    return LabelledText(text, code, "entry", split)


@pytest.mark.parametrize(
    ("test", "training"),
    [
        (entry("Soybean farming", "test"), entry("Soybean farming", "train")),
        (entry("Farming, soybean", "validation"), entry("Soybean farming", "train", "111120")),
        (
            entry("Chocolate coated nuts manufacturing plant", "test"),
            entry("Chocolate coated nuts manufacturing plants", "train"),
        ),
        (entry("Soybean farming", "cold"), LabelledText("Soybean Farming", "111110", "title", "cold")),
        (
            entry("Soybean farming", "test"),
            LabelledText("Growing and soybean farming", "111120", "cross_reference", "train"),
        ),
    ],
)
def test_a_leak_is_an_error_that_names_both_texts(test, training):
    with pytest.raises(DataError) as error:
        check_no_leak([training, test])
    assert (
        repr(test.text) in str(error.value)
        and repr(training.text) in str(error.value)
        and "leaks into training" in str(error.value)
    )


def test_a_text_inside_a_description_or_of_other_words_is_no_leak():
    check_no_leak([
        LabelledText("This industry is soybean farming", "111110", "description", "train"),
        entry("Soybean farming", "test"), entry("Soybean seed farming", "train"),
    ])  # fmt: skip


def test_near_duplicates_are_those_of_a_full_search():
    demo = [text for _, text in read_demo().entries][:1500]
    index = NearDuplicates(demo[::2])
    sets = [trigrams(t) for t in demo[::2]]
    bags = [sorted(words(t)) for t in demo[::2]]
    for text in demo[1::20]:
        own = trigrams(text)
        full = any(len(own & s) >= 0.9 * len(own | s) for s in sets) or sorted(words(text)) in bags
        assert (index.find(text) is not None) == full


@pytest.mark.parametrize("length", [12, 22, 31, 32, 41, 60, 61, 62])
def test_the_similarity_counts_from_nine_tenths_on(length):
    letters = "abcdefghijklmnopqrstuvwxyz0123456789"
    base = "".join(letters[(i * i + 3 * i) % 36] + letters[i % 36] for i in range(length))[:length]
    found = []
    for cut in range(1, length - 3):
        text = base[:-cut]
        similarity = len(trigrams(text)) / len(trigrams(base))
        assert (NearDuplicates([base]).find(text) is not None) == (similarity >= 0.9 - 1e-9)
        assert (NearDuplicates([text]).find(base) is not None) == (similarity >= 0.9 - 1e-9)
        found.append(similarity >= 0.9 - 1e-9)
    assert any(found) and not all(found)


def sources(entries: dict[str, int]) -> Sources:
    """A few codes with that many unlike entries each."""
    titles = {"11": "A", "111": "B", "1111": "C"} | {c: f"D{c}" for c in entries} | {c[:5]: f"E{c}" for c in entries}
    made = tuple(
        (code, " ".join(f"{code}{i}{k}{'xyzw'[k] * (i + 3)}" for k in range(4)))
        for code, n in entries.items()
        for i in range(n)
    )
    return Sources(dict(sorted(titles.items())), {}, {}, made, ())
