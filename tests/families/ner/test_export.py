"""Models for other programs: the ONNX graph is the model, its folder runs, the card says what is known and nothing else."""

import json
import re
import sys
from types import SimpleNamespace

import pytest
import torch

from curricle.cards.card import gather, licence, text_of
from curricle.errors import CheckpointError, ConfigError, DataError, OutputError
from curricle.families.ner import export as exporting
from curricle.families.ner.card import described
from curricle.families.ner.checkpoint import check_checkpoint
from curricle.families.ner.evaluate import evaluate
from curricle.families.ner.export import SENTENCES, export
from curricle.families.ner.predict import load_tagger, predict
from curricle.store import open_store
from curricle.store.manifest import publish

TAGS = ("O", "B-NAME", "I-NAME", "B-CITY", "I-CITY")
SIZE = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}


def tiny(folder, kind):
    """A random model of an architecture that finds many spans, with a tokenizer of whole words and letters."""
    import transformers as t
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    words = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        *sorted({*" ".join(SENTENCES).lower().split(), "anna", "berlin", "knows"}),
    ]
    backend = Tokenizer(models.WordPiece({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    special = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    t.PreTrainedTokenizerFast(tokenizer_object=backend, **special).save_pretrained(folder)
    common = {"vocab_size": len(words), "pad_token_id": 0, "id2label": dict(enumerate(TAGS))}
    make = {
        "bert": lambda: t.BertConfig(**SIZE, **common),
        "distilbert": lambda: t.DistilBertConfig(dim=32, n_layers=2, n_heads=2, hidden_dim=32, **common),
        "roberta": lambda: t.RobertaConfig(**SIZE, **common),
        "deberta": lambda: t.DebertaV2Config(
            **SIZE, **common, relative_attention=True, position_biased_input=False, pos_att_type=["p2c", "c2p"], position_buckets=16,
            share_att_key=True, norm_rel_ebd="layer_norm", type_vocab_size=0,
        ),
        "modernbert": lambda: t.ModernBertConfig(**SIZE, **common, bos_token_id=2, eos_token_id=3, cls_token_id=2, sep_token_id=3),
    }  # fmt: skip
    torch.manual_seed(0)
    model = t.AutoModelForTokenClassification.from_config(make[kind]())
    with torch.no_grad():
        model.classifier.weight.normal_(std=0.7)
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    return tiny(tmp_path_factory.mktemp("bert"), "bert")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dataset_of_mine")
    rows = [{"text": f"anna {i} knows berlin", "annotations": [[0, 4, "NAME"], [8 + len(str(i)), 14 + len(str(i)), "CITY"]]} for i in range(12)]  # fmt: skip
    (folder / "test.json").write_text(json.dumps(rows))
    return folder


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(exporting, "SECONDS", 0.02)


@pytest.fixture(scope="module")
def exported(bert, data, tmp_path_factory):
    """(folder, what was checked) of the graph in 8 bits: its making checks the exact one first."""
    pytest.importorskip("onnxruntime")
    exporting.SECONDS = 0.02
    folder = tmp_path_factory.mktemp("out") / "int8"
    return folder, export(bert, folder, "onnx", int8=True, data_dir=data)


def test_a_graph_in_8_bits_is_compared_and_says_what_it_costs(exported, bert, data):
    folder, checked = exported
    assert checked.texts == 12 and checked.source == f"test records of {data.name}" and checked.model_spans > 12
    assert 0 < checked.max_logit_difference < 1 and min(checked.bytes) > 0
    assert checked.equal_spans <= min(checked.model_spans, checked.graph_spans)
    assert checked.f1[0] == evaluate(bert, data)["test/f1"] and min(checked.texts_per_second) > 0
    assert json.loads((folder / "export.json").read_text())["format"] == "onnx-int8"
    assert sorted(path.name for path in folder.iterdir()) == [
        *("README.md", "config.json", "export.json", "model.onnx", "tokenizer.json", "tokenizer_config.json", "windows.json")
    ]  # fmt: skip


def test_the_runtime_makes_no_slow_norms_of_a_graph(exported, tmp_path):
    import onnx
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    onnxruntime.InferenceSession(str(exported[0] / "model.onnx"), options, providers=["CPUExecutionProvider"])
    kinds = {node.op_type for node in onnx.load(tmp_path / "optimised.onnx").graph.node}
    assert "LayerNormalization" in kinds and "SkipLayerNormalization" not in kinds


def test_the_folder_of_a_graph_tags_and_is_measured_like_a_model_and_is_not_trained_further(exported, data):
    folder, checked = exported
    found = predict(load_tagger(folder), ["anna knows berlin", SENTENCES[-1], ""])
    assert (
        all({"start", "end", "label", "text", "score"} == set(span) for spans in found for span in spans)
        and found[2] == []
    )
    assert evaluate(folder, data)["test/f1"] == checked.f1[1]
    with pytest.raises(CheckpointError, match="is an ONNX export, which .* run and nothing trains further"):
        check_checkpoint(folder)
    with pytest.raises(CheckpointError, match="is an ONNX export"):
        export(folder, folder.parent / "again", "huggingface")


def test_what_the_card_of_a_graph_prints_runs(exported, capsys):
    folder, _ = exported
    card = (folder / "README.md").read_text()
    code = re.search(r"```python\n(.*?)```", card, re.DOTALL)[1].replace("FOLDER", repr(str(folder)))
    exec(compile(code, "README.md", "exec"), {})
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[0][0] == "[CLS]" and {tag for _, tag in lines} <= set(TAGS) and "largest difference of logits" in card


def test_a_damaged_graph_is_one_sentence(exported, tmp_path):
    import shutil

    shutil.copytree(exported[0], tmp_path / "m")
    (tmp_path / "m/model.onnx").write_bytes(b"no graph")
    with pytest.raises(CheckpointError, match="model.onnx cannot be read by ONNX Runtime"):
        load_tagger(tmp_path / "m")


def test_a_graph_that_differs_is_refused_and_leaves_nothing(bert, tmp_path, monkeypatch):
    """The graph's place is taken by a model of other weights."""
    pytest.importorskip("onnxruntime")
    monkeypatch.setattr(exporting, "_write_graph", lambda tagger, path, model: None)
    other = load_tagger(tiny(tmp_path / "other", "distilbert"))
    own = exporting.load_tagger
    monkeypatch.setattr(exporting, "load_tagger", lambda folder: other if ".new-" in str(folder) else own(folder))
    with pytest.raises(CheckpointError, match="is not the same model: it differs by .* nothing was written"):
        export(bert, tmp_path / "out", "onnx")
    assert not list(tmp_path.glob("*out*"))


def test_an_architecture_that_cannot_be_traced_is_one_sentence(bert, tmp_path, monkeypatch):
    pytest.importorskip("onnxruntime")

    def fail(*args, **options):
        raise torch.onnx.OnnxExporterError("no decomposition for aten::odd\nmore lines")

    monkeypatch.setattr(torch.onnx, "export", fail)
    with pytest.raises(
        CheckpointError,
        match=r"BertForTokenClassification\) cannot be written as ONNX by torch .*aten::odd; nothing was written",
    ):
        export(bert, tmp_path / "out", "onnx")
    assert not list(tmp_path.glob("*out*"))


def test_nothing_is_overwritten_and_a_missing_library_is_said_first(bert, data, tmp_path, monkeypatch):
    (tmp_path / "mine").write_text("mine")
    with pytest.raises(OutputError, match="is there already, and is not overwritten"):
        export(bert, tmp_path / "mine", "huggingface")
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(ModuleNotFoundError, match="onnxscript"):
        export(bert, tmp_path / "out", "onnx")
    with pytest.raises(DataError, match="holds no record with text"):
        export(bert, tmp_path / "out", "huggingface", data_dir=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_the_folder_for_transformers_has_a_card_with_a_table_and_finds_the_same(bert, data, tmp_path):
    from transformers import pipeline

    assert export(bert, tmp_path / "out", "huggingface", data_dir=data) is None
    card = (tmp_path / "out/README.md").read_text()
    assert "| label | precision | recall | F1 | support |" in card and re.search(r"\| CITY \| .* \| 12 \|", card)
    assert card.count("not stated") >= 5 and "license:" not in card.split("---")[1]
    found = predict(load_tagger(tmp_path / "out"), ["anna knows berlin"])[0]
    assert found == predict(load_tagger(bert), ["anna knows berlin"])[0]
    piped = pipeline("token-classification", model=str(tmp_path / "out"), aggregation_strategy="first")(
        "anna knows berlin"
    )
    assert [(s["start"], s["end"], s["entity_group"]) for s in piped] == [
        (s["start"], s["end"], s["label"]) for s in found
    ]


def test_the_card_says_what_run_and_data_know_and_no_licence_that_nobody_stated(bert, data, tmp_path):
    report = {
        "read": {"old": {"train": 9}, "new": {"train": 1200, "test": 12}},
        "kept": {"train": {"old": 9, "new": 1100}, "validation": {"new": 100}},
        "annotations": {"new": {"CITY": 5}},
        "dropped": {"blank text": 2, "duplicate in training": 0},
    }
    (data / "report.json").write_text(json.dumps(report))
    base = tmp_path / "my-encoder"
    base.mkdir()
    (base / "README.md").write_text("---\nlicense: mit\ntags: [a]\n---\n# Encoder\n")
    publish(
        open_store(str(tmp_path)), "m", bert, kind="checkpoint", digest="d1", info={"stage": "science", "run_id": "r1"},
        lineage={"data_digest": "dd", "parent_digest": "pp"}, metrics={"val/old/f1_before": 0.5, "val/old/f1": 0.48},
    )  # fmt: skip
    (tmp_path / "m/config.yaml").write_text(
        f"model: {{encoder: {base}, dropout: null}}\ndata: {{new_dataset_path: /home/me/secret/{data.name}, replay: 0.5}}\ntraining: {{learning_rate: null}}\n"
    )
    seen = gather(str(tmp_path / "m"), str(data))
    card = text_of(described(seen))
    assert "run and stage r1/science" in card and "a folder called my-encoder" in card and "/home/me" not in card
    assert (
        "| licence of this model | not stated |" in card
        and "| licence of the base model | mit, by the card in its folder |" in card
    )
    name = data.name.replace("_", "\\_")
    assert f"| new | {name} | 1,200 train, 12 test | 1,100 | 100 | CITY 5 |" in card and "2 × blank text" in card
    assert "training data: dd." in card and "digest pp." in card and "| old | 50.0 | 48.0 | -2.0 |" in card
    assert "F1 on validation" in card and "| data.replay | 0.5 |" in card
    assert "| training.learning\\_rate | by rule" in card and "dropout" not in card
    change = ({"old": 0.6, "new": 0.0}, {"old": 0.61, "new": 0.7})
    assert "| new | 0.0 | 70.0 | +70.0 |" in text_of(described(seen, change=change))


@pytest.mark.parametrize("text", ["", "# no head", "---\nlicense: [a]\n---\n", "---\nlicense: mit\n", "---\n{\n---\n"])
def test_a_card_without_a_licence_states_none(text):
    assert licence(text) == ""


def test_int8_of_another_format_is_refused(bert, tmp_path):
    from click.testing import CliRunner

    from curricle.cli.ner import ner

    done = CliRunner().invoke(ner, ["export", "--model", str(bert), "--int8", "-o", str(tmp_path / "o")])
    assert isinstance(done.exception, ConfigError) and "--int8 is of --format onnx" in str(done.exception)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "int8"),
    [("distilbert", False), ("distilbert", True), ("roberta", True), ("deberta", True), ("modernbert", True)],
)
def test_every_architecture_that_is_named_becomes_a_graph(kind, int8, tmp_path, monkeypatch):
    """The making of one in 8 bits compares the exact one first, and refuses it where it differs."""
    pytest.importorskip("onnxruntime")
    monkeypatch.setattr(exporting, "LARGEST_DIFFERENCE", 1e-4)
    checked = export(tiny(tmp_path / "m", kind), tmp_path / "out", "onnx", int8=int8)
    assert SimpleNamespace(**vars(checked)).texts == len(SENTENCES) and checked.model_spans > 8
    assert int8 or (checked.equal_texts == checked.texts and checked.max_logit_difference < 1e-4)
