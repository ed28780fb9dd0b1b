"""A head of any label scheme: what its rows mean, what it predicts, and what of it a continued training takes over."""

import json

import pytest
import torch

from curricle.errors import CheckpointError, ConfigError, DataError
from curricle.families.ner.checkpoint import check_checkpoint
from curricle.families.ner.config import NerConfig, NerData
from curricle.families.ner.evaluate import evaluate
from curricle.families.ner.labels import Scheme, Tag, reconcile, tags_of
from curricle.families.ner.model import build_model, positions_of
from curricle.families.ner.predict import load_tagger, predict
from curricle.families.ner.prepare import prepare

SCHEMES = {
    "iob": ("O", "B-NAME", "I-NAME", "B-CITY", "I-CITY"),
    "other order": ("I-CITY", "B-NAME", "O", "I-NAME", "B-CITY"),
    "iobes": ("O", "B-NAME", "I-NAME", "E-NAME", "S-NAME", "B-CITY", "I-CITY", "E-CITY", "S-CITY"),
    "bilou": ("O", "B-NAME", "I-NAME", "L-NAME", "U-NAME", "B-CITY", "I-CITY", "L-CITY", "U-CITY"),
    "suffixes": ("O", "NAME-B", "NAME-I", "CITY-B", "CITY-I"),
    "underscores": ("O", "B_NAME", "I_NAME", "B_CITY", "I_CITY"),
    "plain": ("CITY", "NAME", "O"),
    "iob1": ("O", "I-NAME", "I-CITY"),
}
TEXT = "anna miller lives in berlin"
GOLD = [[0, 11, "NAME"], [21, 27, "CITY"]]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A random BERT whose every word has a vector of its own, and a tokenizer of whole words."""
    from transformers import BertConfig, BertModel, BertTokenizerFast

    folder = tmp_path_factory.mktemp("tiny")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *sorted({*TEXT.split(), "knows", "bob"})]
    (folder / "vocab.txt").write_text("\n".join(words))
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(words), hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32
    )
    BertModel(config).save_pretrained(folder)
    BertTokenizerFast(str(folder / "vocab.txt")).save_pretrained(folder)
    return folder


def save_with_head(tiny, folder, tags, kind="AutoModelForTokenClassification"):
    """The tiny encoder with a head of these rows, as transformers saves it."""
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(str(tiny))
    model = getattr(transformers, kind).from_pretrained(
        str(tiny), id2label=dict(enumerate(tags)), label2id={tag: i for i, tag in enumerate(tags)}
    )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return model, tokenizer


def fit(model, tokenizer, rows):
    """Make the head give these rows for the words of `TEXT`: least squares on their vectors."""
    model.eval()
    with torch.no_grad():
        vectors = model.base_model(**tokenizer(TEXT, return_tensors="pt")).last_hidden_state[0, 1:-1]
        wanted = torch.nn.functional.one_hot(torch.tensor(rows), model.config.num_labels).float() * 8
        model.classifier.weight.copy_(torch.linalg.lstsq(vectors, wanted).solution.T)
        model.classifier.bias.zero_()


@pytest.fixture(params=SCHEMES)
def trained(request, tiny, tmp_path):
    """A checkpoint of that scheme that finds both entities of `TEXT`."""
    tags = SCHEMES[request.param]
    model, tokenizer = save_with_head(tiny, tmp_path / "checkpoint", tags)
    scheme = Scheme(tags)
    fit(model, tokenizer, [*scheme.rows("NAME", 2), scheme.outside, scheme.outside, *scheme.rows("CITY", 1)])
    model.save_pretrained(tmp_path / "checkpoint")
    return tmp_path / "checkpoint"


def test_it_predicts_and_is_measured_in_its_own_scheme(trained, tmp_path):
    found = predict(load_tagger(trained), [TEXT])[0]
    assert [[s["start"], s["end"], s["label"]] for s in found] == GOLD
    (tmp_path / "data").mkdir()
    (tmp_path / "data/test.json").write_text(json.dumps([{"text": TEXT, "annotations": GOLD}]))
    scores = evaluate(trained, tmp_path / "data")
    assert scores["test/f1"] == 1.0 and scores["test/loss"] < 0.1


def test_a_continued_training_begins_with_what_it_knew(trained):
    model, _, made = build_model("", tags_of(["AGE", "CITY", "NAME"]), trained)
    assert made.counts()["added"] == 2, made.table()
    rows = {tag: row for row, tag in enumerate(tags_of(["AGE", "CITY", "NAME"]))}
    ids = load_tagger(trained).tokenizer(TEXT, return_tensors="pt")
    with torch.no_grad():
        logits = model.eval()(**ids).logits[0, 1:-1, [rows[t] for t in ("O", "B-NAME", "B-CITY")]]
    assert logits.argmax(-1).tolist()[0] == 1 and logits.argmax(-1).tolist()[2:] == [0, 0, 2]


def test_rows_without_names_are_refused_before_any_training_and_a_file_names_them(tiny, tmp_path):
    save_with_head(tiny, tmp_path / "m", ("LABEL_0", "LABEL_1", "LABEL_2"))
    with pytest.raises(
        CheckpointError, match=r"does not name the 3 rows of its head.*labels\.json beside it is not there"
    ):
        check_checkpoint(tmp_path / "m")
    (tmp_path / "m/labels.json").write_text('{"labels": ["O", "B-NAME"]}')
    with pytest.raises(CheckpointError, match="names 2 of them"):
        check_checkpoint(tmp_path / "m")
    (tmp_path / "m/labels.json").write_text('{"labels": ["O", "B-NAME", "I-NAME"]}')
    assert check_checkpoint(tmp_path / "m").labels == ("O", "B-NAME", "I-NAME")
    assert load_tagger(tmp_path / "m").scheme.labels == ["NAME"]


@pytest.mark.parametrize(
    ("tags", "problem"),
    [
        (("NOUN", "VERB"), "none of its rows .NOUN, VERB. is O"),
        (("O", "B-NAME", "NAME-B"), "mix tags of parts .B-NAME ....* with NAME-B: name all rows .*labels.json"),
        (("O", "B-PERSON", "I-PERSON", "ORG"), "mix tags of parts .B-PERSON ....* with ORG: .*ORG as B-ORG"),
        (("O", "B_A", "I_A", "ORG", "PAD"), "mix tags of parts .B_A ....* with ORG: "),
        (("ORG", "A-B", "A-I", "O"), "mix tags of parts .A-B ....* with ORG: "),
        (("O", "X", "B-PERSON", "GPE", "S-DATE"), "mix tags of parts .B-PERSON ....* with GPE: "),
        (("O", "B-B-A", "I-B-A"), "the label 'B-A' of its rows looks like a tag"),
        (("O", "O", "B-NAME"), "two of its rows mean O"),
        (("O", "B-NAME", "B_NAME"), "two of its rows mean B-NAME"),
        (("O", "S-NAME", "U-NAME"), "two of its rows mean S-NAME"),
    ],
)
def test_a_head_whose_rows_cannot_be_told_apart_is_refused(tags, problem, tiny, tmp_path):
    save_with_head(tiny, tmp_path / "m", tags)
    with pytest.raises(CheckpointError, match=problem):
        load_tagger(tmp_path / "m")
    with pytest.raises(ConfigError, match=problem):
        reconcile(tags, tags_of(["NAME"]))


def test_labels_json_corrects_rows_that_are_mixed(tiny, tmp_path):
    save_with_head(tiny, tmp_path / "m", ("O", "B-PERSON", "I-PERSON", "ORG"))
    (tmp_path / "m/labels.json").write_text('{"labels": ["O", "B-PERSON", "I-PERSON"]}')
    with pytest.raises(CheckpointError, match="labels.json names 3 rows, and the head beside it has 4"):
        check_checkpoint(tmp_path / "m")
    (tmp_path / "m/labels.json").write_text('{"labels": ["O", "B-PERSON", "I-PERSON", "B-ORG"]}')
    assert load_tagger(tmp_path / "m").scheme.labels == ["ORG", "PERSON"]


@pytest.mark.parametrize(
    "tags",
    [
        ("O", "B-NAME", "I-NAME", "X", "[CLS]", "[SEP]"),
        ("PAD", "O", "B-NAME", "I-NAME"),
        ("<pad>", "O", "NAME-B", "NAME-I", "<s>", "</s>", "UNK"),
        ("0", "O", "B_NAME", "I_NAME"),
    ],
)
def test_rows_for_what_is_no_word_mean_no_span(tags, tiny, tmp_path):
    scheme = Scheme(tags)
    assert scheme.labels == ["NAME"] and scheme.outside == tags.index("O")
    rest = [row for row, mean in enumerate(scheme.means) if mean.part == "O"]
    assert len(rest) == len(tags) - 2
    made = reconcile(tags, tags_of(["NAME"]))
    assert made.sources() == [(scheme.outside,), *((row,) for row in scheme.rows("NAME", 2))]
    assert reconcile(tags, tags).sources() == [(row,) for row in range(len(tags))]
    if tags[-1] == "[SEP]":
        model, tokenizer = save_with_head(tiny, tmp_path / "m", tags)
        fit(model, tokenizer, [*scheme.rows("NAME", 2), 3, scheme.outside, 4])
        model.save_pretrained(tmp_path / "m")
        tagger = load_tagger(tmp_path / "m")
        found = predict(tagger, [TEXT])[0]
        assert [(s["start"], s["end"], s["label"]) for s in found] == [(0, 11, "NAME")]


@pytest.mark.parametrize(
    "tags",
    [("O", "B_CELL", "T_CELL"), ("VITAMIN-B", "PROTEIN", "O"), ("O", "X", "PER"), ("O", "S-PHASE", "ORG"), ("O",)],
)
def test_plain_labels_may_look_like_parts(tags):
    assert Scheme(tags).labels == sorted({*tags} - {"O"})


@pytest.mark.parametrize("kind", ["AutoModelForTokenClassification", "AutoModelForSequenceClassification"])
@pytest.mark.parametrize("rows", [3, 5])
def test_an_encoder_with_a_head_of_its_own_lends_no_row(kind, rows, tiny, tmp_path, caplog):
    """Three rows are as many as are wanted: they were taken over under other names."""
    model, _ = save_with_head(
        tiny, tmp_path / "m", [f"x{i}" for i in range(rows)] if "Sequence" in kind else SCHEMES["iob"][:rows], kind
    )
    made, _, reconciled = build_model(str(tmp_path / "m"), tags_of(["SKILL"]))
    assert reconciled is None and made.classifier.weight.shape == (3, 32)
    assert not torch.equal(made.classifier.weight, model.classifier.weight[:3])
    assert torch.equal(
        made.base_model.embeddings.word_embeddings.weight, model.base_model.embeddings.word_embeddings.weight
    )
    assert rows > 3 or "brings a head of its own" in caplog.text
    caplog.clear()
    build_model(str(tiny), tags_of(["SKILL"]))
    assert "head of its own" not in caplog.text


def test_a_trainer_s_folder_without_tokenizer_says_where_it_is(tiny, tmp_path):
    save_with_head(tiny, tmp_path / "run/checkpoint-9", SCHEMES["iob"])
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / "run/checkpoint-9" / name).rename(tmp_path / "run" / name)
    (tmp_path / "run/checkpoint-9/vocab.txt").unlink(missing_ok=True)
    with pytest.raises(
        CheckpointError, match="the folder above has it: copy tokenizer.json, tokenizer_config.json there"
    ):
        check_checkpoint(tmp_path / "run")


@pytest.mark.parametrize("tags", SCHEMES.values(), ids=SCHEMES)
def test_a_head_that_stays_as_it_is_keeps_every_row(tags):
    assert reconcile(tags, tags).sources() == [(row,) for row in range(len(tags))]


def test_the_rows_of_a_span_are_those_that_the_scheme_has():
    assert Scheme(SCHEMES["iobes"]).rows("NAME", 3) == [1, 2, 3] and Scheme(SCHEMES["iobes"]).rows("NAME", 1) == [4]
    assert Scheme(SCHEMES["plain"]).rows("NAME", 2) == [1, 1] and Scheme(SCHEMES["iob1"]).rows("CITY", 2) == [2, 2]
    assert Scheme(SCHEMES["suffixes"]).means[1] == Tag("B", "NAME")
    with pytest.raises(KeyError):
        Scheme(SCHEMES["iob"]).rows("AGE", 1)


def test_windows_longer_than_the_positions_are_refused_and_a_foreign_model_gets_shorter_ones(tiny, tmp_path):
    from transformers import AutoConfig, AutoTokenizer, BertForTokenClassification

    config = AutoConfig.from_pretrained(str(tiny), max_position_embeddings=16, id2label=dict(enumerate(SCHEMES["iob"])))
    model = BertForTokenClassification(config)
    model.save_pretrained(tmp_path / "short")
    AutoTokenizer.from_pretrained(str(tiny)).save_pretrained(tmp_path / "short")
    assert positions_of(model) == 16
    tagger = load_tagger(tmp_path / "short")
    assert (tagger.max_tokens, tagger.stride) == (16, 4)
    predict(tagger, [TEXT * 9])
    (tmp_path / "short/windows.json").write_text('{"max_tokens": 17, "stride": 4}')
    with pytest.raises(CheckpointError, match="positions for 16 tokens"):
        load_tagger(tmp_path / "short")


def test_a_padding_row_is_no_position():
    from transformers import (
        DebertaV2Config,
        DebertaV2ForTokenClassification,
        RobertaConfig,
        RobertaForTokenClassification,
    )

    size = {"vocab_size": 9, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8}
    roberta = RobertaConfig(**size, max_position_embeddings=34, pad_token_id=1)
    assert positions_of(RobertaForTokenClassification(roberta)) == 32
    deberta = DebertaV2Config(**size, position_biased_input=False, relative_attention=True)
    assert positions_of(DebertaV2ForTokenClassification(deberta)) is None


def test_new_data_that_nobody_annotated_is_refused(tmp_path):
    for name, spans in (("old", [[0, 4, "NAME"]]), ("new", [])):
        (tmp_path / name).mkdir()
        for split in ("train", "validation"):
            rows = [{"text": f"anna {name} {split} {i}", "annotations": spans} for i in range(3)]
            (tmp_path / name / f"{split}.json").write_text(json.dumps(rows))
    data = NerData(strategy="combined", old_dataset_path=str(tmp_path / "old"), new_dataset_path=str(tmp_path / "new"))
    with pytest.raises(DataError, match="none of the 6 records of .*new for training and validation has"):
        prepare(NerConfig(data=data), tmp_path / "out")
    assert not (tmp_path / "out").exists()
