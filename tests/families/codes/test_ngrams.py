"""n-grams of texts and the linear model over them."""

import numpy as np
import pytest
from scipy import sparse

from curricle.families.codes import ngrams, opinions
from curricle.families.codes.ngrams import NGrams, grams, train_linear
from curricle.families.codes.opinions import Groups, evenly


def test_words_pairs_and_characters_of_any_script_are_counted():
    assert set(grams("Dog food!")) == {
        *("=dog", "=food", "=dog food"),
        *(" do", "dog", "og ", " dog", "dog ", " dog "),
        *(" fo", "foo", "ood", "od ", " foo", "food", "ood ", " food", "food "),
    }
    assert grams("dog dog").count("=dog") == 2
    assert "=bäckerei" in grams("BÄCKEREI") and "=пекарня" in grams("Пекарня") and "=パン屋" in grams("パン屋")
    assert grams("") == [] and grams("?!") == []
    assert len(grams("a" * 10**6)) < 20_000


def test_rows_have_length_one_and_say_how_much_of_a_text_is_known():
    known = NGrams.of(["dog food", "dog grooming", "cat food"])
    assert "=dog" in known.index and "=cat" not in known.index
    rows, share = known.rows(["dog food", "dog zebra", "zzz", ""])
    assert np.allclose(np.asarray(np.sqrt(rows.multiply(rows).sum(1))).ravel()[:2], 1)
    assert share[0] > share[1] > 0 and share[2] == share[3] == 0
    assert rows[2].nnz == rows[3].nnz == 0


def test_the_linear_model_finds_the_code_of_words_it_knows_and_a_code_without_texts_takes_none():
    texts = [
        f"{word} {kind}" for word in ("bread", "steel", "legal") for kind in ("making", "selling", "advice", "repair")
    ]
    owners = np.repeat([0, 1, 3], 4)
    known = NGrams.of(texts)
    rows, _ = known.rows(texts)
    model = train_linear(rows, owners, np.ones(4, dtype=bool))
    asked, _ = known.rows(["bread wholesale", "steel wholesale", "legal wholesale"])
    decisions = model(asked)
    assert decisions.argmax(1).tolist() == [0, 1, 3] and (decisions[:, 2] == -1).all()
    again = train_linear(rows, owners, np.ones(4, dtype=bool))
    assert np.array_equal(again.weights.toarray(), model.weights.toarray())
    assert model.weights.dtype == np.float32 and sparse.issparse(model.weights)


def test_a_code_of_many_kinds_of_things_does_not_take_the_texts_of_far_codes(monkeypatch):
    """With near negatives alone it did: its own decision was the highest for most texts."""
    monkeypatch.setattr(ngrams, "NEAR", 5)
    monkeypatch.setattr(ngrams, "FAR", 60)
    draw = np.random.default_rng(0)
    vocabulary = np.array([f"word{i}" for i in range(60)])
    texts, owners = [], []
    for code in range(12):
        for _ in range(20):
            own = vocabulary[code * 5 : code * 5 + 5] if code else vocabulary
            texts.append(" ".join(draw.choice(own, 3)))
            owners.append(code)
    known = NGrams.of(texts)
    model = train_linear(known.rows(texts)[0], np.array(owners), np.ones(12, dtype=bool))
    asked = [" ".join(vocabulary[code * 5 : code * 5 + 2]) for code in range(1, 12)]
    assert (model(known.rows(asked)[0]).argmax(1) == np.arange(1, 12)).mean() > 0.9


def test_of_too_many_texts_each_code_keeps_as_many():
    owners = np.repeat([0, 1, 2, 3], [50, 3, 20, 1])
    kept = evenly(owners, 24)
    counts = np.bincount(owners[kept], minlength=4)
    assert (np.diff(kept) > 0).all() and counts.tolist() == [10, 3, 10, 1]
    assert evenly(owners, 100).tolist() == list(range(74))
    assert np.array_equal(kept, evenly(owners, 24)) and len(evenly(owners, 2)) == 2


@pytest.mark.parametrize("few", [1, 3, 100], ids=["turn by turn", "both", "run by run"])
def test_the_nearest_remembered_text_of_each_leaf_equals_the_one_found_one_by_one(few, monkeypatch):
    monkeypatch.setattr(opinions, "FEW_RUNS", few)
    draw = np.random.default_rng(0)
    owners = np.sort(draw.choice([0, 1, 3, 6], size=40))
    described = draw.random(40) < 0.4
    described[owners == 1], described[owners == 3] = True, False
    order = np.lexsort((~described, owners))
    described = described[order]
    similarity = draw.normal(size=(5, 40))
    groups = Groups(owners, described)
    assert sorted(groups.order) == list(range(40)) and bool(len(groups.rest)) == (few > 1)
    every, describing = groups.nearest(similarity[:, groups.order], 8)
    for found, asked in ((every, np.ones(40, dtype=bool)), (describing, described)):
        for leaf in range(8):
            mine = similarity[:, asked & (owners == leaf)]
            assert np.array_equal(found[:, leaf], mine.max(1) if mine.shape[1] else np.full(5, -1.0))
    nobody = Groups(owners[:0], described[:0]).nearest(similarity[:, :0], 3)
    assert (np.stack(nobody) == -1).all()


def test_texts_are_found_again_without_the_character_n_grams_that_are_everywhere(monkeypatch):
    monkeypatch.setattr(ngrams, "FLOOR", 3)
    texts = ["making bread", "making steel", "making glass", "making bread rolls", "steel rolls"]
    known = NGrams.of(texts)
    rows, _ = known.rows(texts)
    telling = known.telling(rows)
    held = {known.names[i] for i in telling.indices}
    assert "=making" in held and " mak" not in held and "brea" in held
    assert np.allclose(np.asarray(telling.multiply(telling).sum(1)).ravel(), 1)
    monkeypatch.setattr(ngrams, "FLOOR", 400)
    assert known.telling(rows).nnz == rows.nnz, "few texts are searched fast enough"
