"""PEFT folders as peft itself writes them: the logits are peft's, or one sentence says the way out."""

import json
import shutil

import pytest
import torch
from peft import IA3Config, LoraConfig, PromptTuningConfig, get_peft_model

from curricle.errors import CheckpointError
from curricle.families.ner.checkpoint import check_checkpoint
from curricle.families.ner.labels import tags_of
from curricle.families.ner.model import build_model
from curricle.families.ner.predict import load_tagger

TAGS = tags_of(["NAME"])
TEXT = "anna knows berlin"


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A folder with a plain encoder (``plain``) and the same one with a trained head (``tagger``)."""
    from transformers import AutoModelForTokenClassification, BertConfig, BertModel, BertTokenizerFast

    folder = tmp_path_factory.mktemp("bases")
    for name in ("plain", "tagger"):
        (folder / name).mkdir()
        (folder / name / "vocab.txt").write_text(
            "\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *TEXT.split()])
        )
        BertTokenizerFast(str(folder / name / "vocab.txt")).save_pretrained(folder / name)
    torch.manual_seed(0)
    size = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    BertModel(BertConfig(vocab_size=8, **size)).save_pretrained(folder / "plain")
    named = {"id2label": dict(enumerate(TAGS)), "label2id": {tag: i for i, tag in enumerate(TAGS)}}
    AutoModelForTokenClassification.from_pretrained(str(folder / "plain"), **named).save_pretrained(folder / "tagger")
    return folder


def saved(source, folder, section, labels=TAGS, kind="AutoModelForTokenClassification"):
    """An adapter of random numbers on that base, in a folder as peft saves it; what peft gives for `TEXT`."""
    import transformers

    named = {"id2label": dict(enumerate(TAGS)), "label2id": {tag: i for i, tag in enumerate(TAGS)}}
    model = get_peft_model(getattr(transformers, kind).from_pretrained(str(source), **named), section)
    draw = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.copy_(torch.randn(parameter.shape, generator=draw) * 0.3)
        model.eval().save_pretrained(folder)
        if labels:
            (folder / "labels.json").write_text(json.dumps({"labels": labels}))
        ids = transformers.AutoTokenizer.from_pretrained(str(source))(TEXT, return_tensors="pt")
        answer = model(**ids)
    return model, ids, answer[0]


def lora(task="TOKEN_CLS", **more):
    return LoraConfig(r=4, target_modules=["query", "value"], task_type=task, **more)


def logits_of(folder, ids):
    with torch.no_grad():
        return load_tagger(folder).model(**ids).logits


@pytest.mark.parametrize(
    "section",
    [
        lora(),
        lora(None, modules_to_save=["classifier"]),
        lora(use_rslora=True),
        lora(use_dora=True),
        lora(bias="all"),
        lora(modules_to_save=["classifier", "word_embeddings"]),
        IA3Config(task_type="TOKEN_CLS", target_modules=["query"], feedforward_modules=[]),
    ],
    ids=["lora", "modules_to_save", "rslora", "dora", "bias", "embeddings", "ia3"],
)
def test_an_adapter_with_a_head_gives_what_peft_gives(section, base, tmp_path):
    _, ids, wanted = saved(base / "plain", tmp_path / "a", section)
    torch.testing.assert_close(logits_of(tmp_path / "a", ids), wanted, atol=1e-5, rtol=0)


def test_an_adapter_without_a_head_uses_that_of_its_base_and_its_names(base, tmp_path):
    _, ids, wanted = saved(base / "tagger", tmp_path / "a", lora(None), labels=None)
    assert check_checkpoint(tmp_path / "a").labels == TAGS
    torch.testing.assert_close(logits_of(tmp_path / "a", ids), wanted, atol=1e-5, rtol=0)
    _, _, made = build_model("", tags_of(["NAME", "CITY"]), tmp_path / "a")
    assert (made.counts()["added"], made.counts()["dropped"]) == (2, 0)


def test_an_adapter_without_any_head_is_a_start_and_no_tagger(base, tmp_path):
    """A labels.json beside it names rows that are nowhere."""
    adapted, _, _ = saved(base / "plain", tmp_path / "a", lora(None))
    with pytest.raises(CheckpointError, match="is an adapter without a head .*as a start for training it will do"):
        load_tagger(tmp_path / "a")
    model, _, made = build_model("", tags_of(["CITY"]), tmp_path / "a")
    assert made is None and not check_checkpoint(tmp_path / "a").trained
    key = "bert.encoder.layer.0.attention.self.query.weight"
    torch.testing.assert_close(model.state_dict()[key], adapted.merge_and_unload().state_dict()[key])


@pytest.mark.parametrize(("on", "hint"), [("plain", False), ("tagger", True)])
def test_a_head_without_names_says_how_to_name_it(on, hint, base, tmp_path):
    saved(base / on, tmp_path / "a", lora(), labels=None)
    with pytest.raises(CheckpointError, match="with a head of its own, and no labels.json names its rows") as error:
        load_tagger(tmp_path / "a")
    assert ("if it kept the rows of its base model" in str(error.value)) == hint
    saved(base / on, tmp_path / "b", lora(), labels=["O", "B-NAME"])
    with pytest.raises(CheckpointError, match="labels.json names 2 rows, and the head beside it has 3"):
        load_tagger(tmp_path / "b")


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (
            "/no/such",
            "its base model '/no/such' is no folder here .* set base_model_name_or_path in adapter_config.json",
        ),
        (None, "names no base_model_name_or_path, .* write its folder or Hugging Face name there"),
        ("", "names no base_model_name_or_path"),
        (["x"], "names no base_model_name_or_path"),
    ],
)
def test_a_base_that_is_not_there_says_where_to_name_it(value, said, base, tmp_path):
    saved(base / "plain", tmp_path / "a", lora())
    rewrite(tmp_path / "a", value)
    with pytest.raises(CheckpointError, match=said):
        load_tagger(tmp_path / "a")


def rewrite(folder, value):
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"base_model_name_or_path": value}))


def test_a_base_beside_the_adapter_is_found_from_any_folder(base, tmp_path, monkeypatch):
    _, ids, wanted = saved(base / "plain", tmp_path / "run/a", lora())
    shutil.copytree(base / "plain", tmp_path / "run/base")
    rewrite(tmp_path / "run/a", "../base")
    monkeypatch.chdir("/")
    torch.testing.assert_close(logits_of(tmp_path / "run/a", ids), wanted, atol=1e-5, rtol=0)


def test_a_trainer_s_adapter_folder_without_tokenizer_takes_that_of_the_base_and_one_with_its_own(base, tmp_path):
    from transformers import AutoTokenizer

    _, ids, wanted = saved(base / "plain", tmp_path / "run/checkpoint-7", lora())
    torch.testing.assert_close(logits_of(tmp_path / "run", ids), wanted, atol=1e-5, rtol=0)
    tokenizer = AutoTokenizer.from_pretrained(str(base / "plain"))
    tokenizer.model_max_length = 77
    tokenizer.save_pretrained(tmp_path / "run/checkpoint-7")
    assert load_tagger(tmp_path / "run").tokenizer.model_max_length == 77
    tokenizer.add_tokens(["extra"])
    tokenizer.save_pretrained(tmp_path / "run/checkpoint-7")
    with pytest.raises(CheckpointError, match="has 9 tokens and its base model .* 8: .*merge_and_unload"):
        load_tagger(tmp_path / "run")


def test_a_merged_folder_is_a_model(base, tmp_path):
    model, ids, wanted = saved(base / "plain", tmp_path / "a", lora())
    model.merge_and_unload().save_pretrained(tmp_path / "m")
    shutil.copy(base / "plain/tokenizer.json", tmp_path / "m")
    torch.testing.assert_close(logits_of(tmp_path / "m", ids), wanted, atol=1e-5, rtol=0)


def test_what_cannot_be_merged_is_one_sentence(base, tmp_path):
    saved(base / "plain", tmp_path / "p", PromptTuningConfig(task_type="TOKEN_CLS", num_virtual_tokens=4))
    with pytest.raises(CheckpointError, match="PROMPT_TUNING, which is no part of a model's matrices"):
        build_model("", TAGS, tmp_path / "p")
    saved(base / "plain", tmp_path / "f", lora("FEATURE_EXTRACTION"), labels=None, kind="AutoModel")
    with pytest.raises(
        CheckpointError,
        match="lacks tensors of its adapters as they sit in BertForTokenClassification.*merge_and_unload",
    ):
        build_model("", TAGS, tmp_path / "f")
