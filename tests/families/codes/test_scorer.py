"""The scorer of a small model: made once and kept, read again, made anew when damaged; probabilities, "no code" and reasons."""

import json
import logging
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from curricle.cli.use import search
from curricle.errors import CheckpointError
from curricle.families.codes import model_torch, onnx
from curricle.families.codes import scorer as module
from curricle.families.codes.onnx import in_8_bits
from curricle.families.codes.opinions import FIRST, OPINIONS, by_rank, by_spread
from curricle.families.codes.scorer import Scorer, highest
from curricle.families.codes.weighing import Weights
from tests.families.codes.test_export import checkpoint

TEXTS = ["Soybean kind growing for markets", "we brew craft beer"]


@pytest.fixture(scope="module")
def place(small_census, tiny_encoder, tmp_path_factory):
    """(checkpoint folder, data folder, cache with a scorer in it, that scorer's answers)."""
    made = tmp_path_factory.mktemp("scored")
    folder, data = checkpoint(made, small_census, tiny_encoder, ("head", "table", "temperature"))
    cache = made / "cache"
    return folder, data, cache, Scorer.load(folder, data, cache).scored(TEXTS)


def _kept(cache):
    return sorted(path for path in cache.iterdir() if path.name.startswith("scorer-"))


def test_a_scorer_is_kept_and_read_again_and_gives_the_same_numbers(place, monkeypatch, caplog):
    folder, data, cache, first = place
    assert [path.suffix for path in _kept(cache)] == [".json", ".safetensors"]
    monkeypatch.setattr(Scorer, "_tune", lambda self: 1 / 0)
    with caplog.at_level(logging.WARNING):
        scorer = Scorer.load(folder, data, cache)
        light = scorer.scored(TEXTS)
        assert "model" not in vars(scorer), "a few texts are asked without torch"
        assert scorer.model and not caplog.records
        again = scorer.scored(TEXTS)
    assert np.array_equal(again.logs, first.logs) and np.array_equal(again.no_code, first.no_code)
    assert np.allclose(light.logs, first.logs, atol=1e-3) and np.allclose(light.no_code, first.no_code, atol=1e-4)


@pytest.mark.parametrize(
    "text", ["", "a", "Soybean farming, and 3 other things!", "\u30d1\u30f3\u5c4b", "second-hand machines " * 30]
)
def test_the_arrays_compute_what_torch_computes(place, text):
    folder, data, cache, _ = place
    scorer = Scorer.load(folder, data, cache)
    light, whole = scorer._light, scorer.model
    features = whole.features([text])
    assert np.allclose(light.features([text]), features, atol=1e-5)
    directions = whole.directions(features)
    assert np.allclose(light.directions(features), directions, atol=1e-5)
    assert np.allclose(light.distances(directions), whole.distances(directions), atol=1e-3)
    memory = scorer.memory
    assert np.allclose(light.cosines(directions, memory.directions), whole.cosines(directions, memory.directions), atol=1e-5)  # fmt: skip
    rows, _ = memory.ngrams.rows([text, "soybean farming", ""])
    product = whole.product(rows, memory.linear.weights)
    assert product.shape == (3, len(scorer.codes)) and product.dtype == np.float32
    assert np.allclose(light.product(rows, memory.linear.weights), product, atol=1e-5)


@pytest.mark.parametrize("bits", [16, 8])
def test_in_fewer_bits_answers_differ_little(place, monkeypatch, bits):
    folder, data, cache, _ = place
    scorer = Scorer.load(folder, data, cache)
    monkeypatch.setattr(model_torch, "fast_in_bf16", lambda: bits == 16)
    texts = TEXTS * 10
    exact, fast = scorer.search(texts, 3), scorer.search_fast(texts, 3)
    assert not scorer.model.fast
    first = [[(row[0].code, row[0].confidence) for row in hits] for hits in (exact, fast)]
    assert [code for code, _ in first[0]] == [code for code, _ in first[1]]
    shares = [[share for _, share in row] for row in first]
    assert np.allclose(*shares, atol=0.1) and shares[0] != shares[1], "that is what fewer bits cost"
    assert bool(list(cache.glob("encoder-int8-*"))) == (bits == 8)


def test_the_encoder_in_8_bits_is_made_anew_when_damaged_and_taken_from_who_was_quicker(place, tmp_path, monkeypatch):
    folder, data, cache, _ = place
    encoder = Scorer.load(folder, data, cache).model.space.encoder
    ids = encoder.tokenize(TEXTS, 24)
    first = in_8_bits(encoder, cache)
    assert first.encode(ids, 4096).shape == (2, encoder.width) and first.encode([], 4096).shape == (0, encoder.width)
    (made,) = cache.glob("encoder-int8-*")
    whole = (made / "model.onnx").read_bytes()
    monkeypatch.setattr(onnx, "write_graph", lambda model, path, **_: path.write_bytes(whole))
    monkeypatch.setattr(onnx, "quantise", lambda path: None)
    kept = shutil.copytree(made, tmp_path / made.name)
    (kept / "model.onnx").write_bytes(whole[:2000] + b"\0" * 99 + whole[2099:])
    assert torch.equal(in_8_bits(encoder, tmp_path).encode(ids, 4096), first.encode(ids, 4096))
    assert (kept / "model.onnx").read_bytes() == whole
    kept.rename(tmp_path / "quicker")
    monkeypatch.setattr(onnx, "quantise", lambda path: (tmp_path / "quicker").rename(kept))
    assert torch.equal(in_8_bits(encoder, tmp_path).encode(ids, 4096), first.encode(ids, 4096))
    shutil.rmtree(kept)
    os.mkfifo(kept)
    with pytest.raises(CheckpointError, match="move it away"):
        in_8_bits(encoder, tmp_path)


def test_a_question_imports_neither_torch_nor_transformers(place):
    folder, data, cache, _ = place
    program = (
        "import sys\nfrom pathlib import Path\nfrom curricle.families.codes.scorer import Scorer\n"
        f"hits = Scorer.load(Path({str(folder)!r}), Path({str(data)!r}), Path({str(cache)!r})).search(['soybean kind'], 3)\n"
        "assert len(hits[0]) == 3\nprint(sorted({'torch', 'transformers', 'sklearn'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("damage", ["cut", "noise", "empty", "no JSON", "other JSON", "other format", "pipe"])
def test_a_damaged_scorer_is_no_scorer(place, tmp_path, damage):
    _, _, cache, _ = place
    said, arrays = _kept(cache)
    key = said.stem.removeprefix("scorer-")
    raw, content = arrays.read_bytes(), said.read_text()
    assert module.read_kept(cache, key) is not None
    if damage in ("cut", "noise", "empty"):
        raw = {"cut": raw[:-9], "noise": raw[:-9] + b"123456789", "empty": b""}[damage]
    elif damage != "pipe":
        changed = json.loads(content) | {"format": 0}
        content = {"no JSON": "{", "other JSON": "[]", "other format": json.dumps(changed)}[damage]
    if damage == "pipe":
        os.mkfifo(tmp_path / arrays.name)
    else:
        (tmp_path / arrays.name).write_bytes(raw)
    (tmp_path / said.name).write_text(content)
    assert module.read_kept(tmp_path, key) is None


def test_a_cache_that_cannot_be_written_is_said_and_stops_nothing(place, monkeypatch, caplog):
    folder, data, _, first = place

    def full(*given):
        raise OSError(28, "No space left on device")

    known = module.read_kept(place[2], _kept(place[2])[0].stem.removeprefix("scorer-"))
    monkeypatch.setattr(module, "read_kept", lambda *given: None)
    monkeypatch.setattr(Scorer, "_tune", lambda self: known[1])
    monkeypatch.setattr(module, "write_kept", full)
    with caplog.at_level(logging.WARNING):
        again = Scorer.load(folder, data, place[2]).scored(TEXTS)
    assert np.allclose(again.logs, first.logs, atol=1e-5)
    assert ["made once" in r.message or "cannot be kept" in r.message for r in caplog.records] == [True, True]


def test_probabilities_of_all_codes_and_of_none_sum_to_one_and_the_words_decide(place):
    folder, data, cache, first = place
    assert np.allclose(first.confidence().sum(1) + first.no_code, 1, atol=1e-4)
    hits = Scorer.load(folder, data, cache).search(TEXTS, 3)
    assert [len(row) for row in hits] == [3, 3]
    best = next(hit for hit in hits[0] if hit.code)
    assert best.code == "111110" and best.path[0][0] == "11" and best.path[-1] == (best.code, best.title)
    assert all(a.confidence >= b.confidence for row in hits for a, b in zip(row, row[1:], strict=False) if a.code)


def test_every_opinion_is_what_its_name_says(place):
    folder, data, cache, _ = place
    scorer = Scorer.load(folder, data, cache)
    memory, texts = scorer.memory, ["growing soybeans", "a brewery"]
    near, said = memory.near(texts), dict(zip(OPINIONS, memory.of(texts).values, strict=True))
    sectors = np.array([code[:3] for code in scorer.codes])  # the second level of NAICS
    assert len(memory.above.bias) == len(set(sectors)) < len(scorer.codes)
    for sector in ("111", "312"):
        row = said["linear_above"][:, sectors == sector]
        assert np.array_equal(row, np.repeat(row[:, :1], row.shape[1], 1))
    for space, name in enumerate(("encoder", "direction", "ngrams")):
        leaf = scorer.codes.index("111110")
        assert np.array_equal(said[name][:, leaf], near.spaces[space][:, memory.owners == leaf].max(1))
    itself = memory.near([memory.texts[0]])
    assert [round(float(space[0, 0]), 3) for space in itself.spaces] == [1, 1, 1]


def test_a_text_that_was_trained_on_gets_its_own_code(place):
    """Validation texts are never nearly a training text: weights that are chosen on them must not take nearness as a sign against a code."""
    folder, data, cache, _ = place
    scorer = Scorer.load(folder, data, cache)
    codes: dict[str, set[str]] = {}
    for text in scorer.table.split("train", "entry"):
        codes.setdefault(text.text, set()).add(text.code)
    asked = [text for text, own in codes.items() if len(own) == 1][::7]
    found = scorer.search(asked, 1)
    right = [next(iter(codes[text])) == hits[0].code for text, hits in zip(asked, found, strict=True)]
    assert np.mean(right) > 0.95
    assert (scorer.tuning.weights.seen[[1, 2, 3, 4]] > -1).all()


def test_where_no_code_is_likelier_than_any_it_stands_first(place, monkeypatch):
    folder, data, cache, _ = place
    scorer = Scorer.load(folder, data, cache)
    monkeypatch.setattr(Weights, "no_code", lambda self, signs: np.full(len(signs), 0.9))
    (hits,) = scorer.search(["xq"], 3)
    assert [bool(hit.code) for hit in hits] == [False, True, True]
    assert hits[0].confidence == pytest.approx(0.9) and hits[0].title.startswith("no code") and hits[0].path == ()
    assert sum(hit.confidence for hit in hits[1:]) <= 0.1
    assert scorer.explain(["xq"], [hits])[0][0].neighbours == ()


def test_reasons_are_the_texts_the_words_and_the_cross_references(place):
    folder, data, cache, _ = place
    scorer = Scorer.load(folder, data, cache)
    texts = ["Growing soybeans", "making cheese for years"]
    hits = [[scorer._hit(scorer.codes.index(code), 0.5)] for code in ("111120", "111130")]
    (canola,), (beans,) = scorer.explain(texts, hits)
    assert canola.neighbours and 0 < canola.share <= 1
    assert canola.share >= sum(n.share for n in canola.neighbours) - 1e-6
    assert [e.code for e in canola.elsewhere] == ["111110"] and canola.elsewhere[0].source == "111120"
    assert beans.elsewhere[0].code == "31-33" and "cheese" in beans.elsewhere[0].text
    again = scorer.explain(["Soybean kind growing"], [[scorer._hit(scorer.codes.index("111110"), 0.5)]])[0][0]
    assert "soybean" in again.neighbours[0].words and again.words[0][0] in {"soybean", "kind", "growing"}


def test_search_prints_probabilities_and_reasons(place, monkeypatch, tmp_path):
    folder, data, cache, _ = place
    monkeypatch.chdir(tmp_path)
    real = Scorer.load
    monkeypatch.setattr(Scorer, "load", lambda folder, data: real(folder, data, cache))
    shown = CliRunner().invoke(search, [TEXTS[0], "--model", str(folder), "--top", "2"])
    assert shown.exit_code == 0, shown.output
    lines = [line for line in shown.output.splitlines() if line.startswith("  ")]
    assert len(lines) == 2 and all("%" in line for line in lines) and any("111110" in line for line in lines)
    row = json.loads(CliRunner().invoke(search, [TEXTS[0], "--json", "--explain", "--model", str(folder)]).stdout)
    hit = next(hit for hit in row["hits"] if hit["code"] == "111110")
    assert 0 <= hit["confidence"] <= 1 and hit["path"][0]["code"] == "11" and hit["reasons"]["neighbours"]
    explained = CliRunner().invoke(search, [TEXTS[0], "--explain", "--model", str(folder)]).output
    assert "in 11 Agriculture" in explained and "words: " in explained


@pytest.mark.parametrize("top", [1, 4, 30, 99])
def test_the_highest_values_come_in_order_and_of_equal_ones_the_first(top):
    values = np.random.default_rng(0).normal(size=(6, 30)).astype(np.float32)
    values[:, [3, 17]] = 9.0
    assert np.array_equal(highest(values, top), np.argsort(-values, axis=1, kind="stable")[:, :top])


def test_ranks_and_spreads_say_how_a_code_stands_among_the_others_of_its_text():
    draw = np.random.default_rng(0)
    values = draw.normal(size=(20, 50)).astype(np.float32)
    values[:, 10:20] = 0.0
    higher = (values[:, None, :] > values[:, :, None]).sum(2)
    np.testing.assert_allclose(by_rank(values), -np.log(FIRST + higher), rtol=1e-6)
    mixed = draw.permutation(50)
    np.testing.assert_array_equal(by_rank(values)[:, mixed], by_rank(values[:, mixed]))
    spread = by_spread(values)
    np.testing.assert_allclose(spread, by_spread(3 * values + 2), atol=1e-4)
    np.testing.assert_allclose(spread.std(1), 1, atol=1e-4)
    same = np.full((2, 7), 0.3, dtype=np.float32)
    assert abs(by_spread(same)).max() < 1e-3 and len(np.unique(by_rank(same))) == 1
