"""Exported folders: plain transformers, peft, sentence-transformers and ONNX Runtime load them, and compute what our model computes."""

import json
import re
import shutil
import warnings

import numpy as np
import pytest
import torch
import yaml
from click.testing import CliRunner
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoTokenizer

from curricle import hyperbolic, open_model
from curricle.cli.use import export
from curricle.config.load import to_tree
from curricle.errors import CheckpointError, OutputError
from curricle.families.codes import onnx, use
from curricle.families.codes.config import Curriculum
from curricle.families.codes.prepare import load
from curricle.families.codes.task import build
from curricle.families.codes.use import open_checkpoint
from curricle.store import open_store
from curricle.store.manifest import publish
from curricle.training.distributed import Ranks
from curricle.training.task import StageContext
from tests.families.codes.tiny import PARTS, config, task_of
from tests.faults.full import file_size_limit

TEXTS = ["we brew craft beer", "Soybean farming", "a", " ".join(["wholesale of second-hand machines"] * 20)]
"""The last is longer than `max_tokens`."""


def checkpoint(place, source, encoder, trainable):
    """A checkpoint as the loop publishes one, and its data; their folders."""
    settings = config(
        source, encoder, Curriculum(name="texts", objective="retrieval", trainable=trainable, texts=("entry", "title"))
    )
    task, made, store = task_of(settings, place), place / "made", open_store(str(place / "store"))
    made.mkdir()
    save_file({n: t.detach().contiguous() for n, t in task.weights().items()}, made / "model.safetensors")
    (made / "config.yaml").write_text(yaml.safe_dump(to_tree(settings)))
    task.save_extras(made)
    publish(store, "data/naics-1", place / "data-0", kind="dataset", digest="x", metrics={}, lineage={}, info={})
    publish(
        store,
        "r/texts/best.ckpt",
        made,
        kind="checkpoint",
        digest="y",
        metrics={"val_loss": 0.5, "val/mrr": 0.25},
        info={"family": "naics"},
        lineage={"data_uri": str(place / "store/data/naics-1")},
    )
    return place / "store/r/texts/best.ckpt", place / "store/data/naics-1"


def exported(folder, output):
    done = CliRunner().invoke(export, ["--format", "huggingface", "-o", str(output), "--model", str(folder)])
    assert done.exit_code == 0, done.output
    return output


@pytest.fixture(scope="module")
def adapted(small_census, tiny_encoder, tmp_path_factory):
    """(checkpoint folder, our features of `TEXTS`, exported folder) of a stage that trained the encoder."""
    place = tmp_path_factory.mktemp("adapted")
    folder, data = checkpoint(place, small_census, tiny_encoder, PARTS)
    return folder, ours(folder, data), exported(folder, place / "out")


@torch.no_grad()
def ours(folder, data):
    settings, _, model = open_checkpoint(folder, data)
    return model.encoder.encode(model.encoder.tokenize(TEXTS, settings.model.max_tokens), 4096)


@torch.no_grad()
def plain(model, tokenizer):
    """What the model card says: mean of the token states, normalised."""
    batch = tokenizer(TEXTS, padding=True, truncation=True, return_tensors="pt")
    mask = batch["attention_mask"].unsqueeze(-1)
    hidden = model.eval()(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).last_hidden_state
    return torch.nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1), dim=-1)


def test_plain_transformers_give_our_vectors(adapted):
    _, wanted, output = adapted
    found = plain(AutoModel.from_pretrained(output), AutoTokenizer.from_pretrained(output))
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-5)


@pytest.mark.parametrize("where", ["export", "checkpoint"])
def test_plain_peft_gives_our_vectors(adapted, tiny_encoder, where):
    folder, wanted, output = adapted
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
        model = PeftModel.from_pretrained(
            AutoModel.from_pretrained(tiny_encoder), (output if where == "export" else folder) / "adapter"
        )
    tokenizer = AutoTokenizer.from_pretrained(output)
    torch.testing.assert_close(plain(model, tokenizer), wanted, rtol=0, atol=1e-5)
    assert (plain(AutoModel.from_pretrained(tiny_encoder), tokenizer) - wanted).abs().max() > 1e-3, (
        "the adapters must matter here"
    )


def test_the_folder_has_a_card_the_codes_and_the_head_alone(adapted):
    _, _, output = adapted
    card = (output / "README.md").read_text()
    front = yaml.safe_load(card.split("---")[1])
    assert front["library_name"] == "transformers"
    assert (
        "| mean reciprocal rank | 25.0 |" in card
        and "stage texts, seed 0" in card
        and "[More Information Needed]" not in card
    )
    assert not (output / "adapter" / "README.md").exists()
    head = load_file(output / "head.safetensors")
    assert all(name.startswith("head.") for name in head)
    assert len(json.loads((output / "codes.json").read_text())) == len(head["head.table"]) == 2125


def test_the_ways_to_load_that_the_card_shows_run_as_they_stand(adapted, tiny_encoder, monkeypatch):
    folder, wanted, output = adapted
    first, second = re.findall(r"```python\n(.*?)```", (output / "README.md").read_text(), re.DOTALL)
    names = {"FOLDER": str(output), "BASE": str(tiny_encoder)}
    exec(first, names)
    torch.testing.assert_close(names["features"], wanted[:1], rtol=0, atol=1e-5)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
        exec(second, names)
    torch.testing.assert_close(plain(names["model"], names["tokenizer"]), wanted, rtol=0, atol=1e-5)


def test_a_stage_without_adapters_exports_the_base_encoder(small_census, tiny_encoder, tmp_path):
    folder, data = checkpoint(tmp_path, small_census, tiny_encoder, ("head", "table"))
    output = exported(folder, tmp_path / "out")
    found = plain(AutoModel.from_pretrained(output), AutoTokenizer.from_pretrained(output))
    torch.testing.assert_close(found, ours(folder, data), rtol=0, atol=1e-5)
    assert not (output / "adapter").exists() and "as it was" in (output / "README.md").read_text()


def test_an_export_is_whole_or_not_there_and_the_same_command_works_after_a_stop(adapted, tmp_path, monkeypatch):
    folder, _, _ = adapted
    monkeypatch.setattr(use, "text_of", lambda *given: 1 / 0)
    done = CliRunner().invoke(export, ["--format", "huggingface", "-o", str(tmp_path / "out"), "--model", str(folder)])
    assert isinstance(done.exception, ZeroDivisionError) and list(tmp_path.iterdir()) == []
    monkeypatch.undo()
    output = exported(folder, tmp_path / "out")
    before = {p: p.read_bytes() for p in output.rglob("*") if p.is_file()}
    (tmp_path / "link").symlink_to("nowhere")
    for name, kind in (("out", "huggingface"), ("out", "npz"), ("link", "npz")):
        done = CliRunner().invoke(export, ["--format", kind, "-o", str(tmp_path / name), "--model", str(folder)])
        assert isinstance(done.exception, OutputError) and "is there already" in str(done.exception)
    assert before == {p: p.read_bytes() for p in output.rglob("*") if p.is_file()}


def test_an_export_to_a_full_disk_is_one_error_and_leaves_nothing(adapted, tmp_path):
    folder, _, _ = adapted
    data = folder.parents[2] / "data/naics-1"
    with pytest.raises(OutputError, match="cannot write the export .*out: "), file_size_limit(20_000):
        use.export(folder, data, tmp_path / "out", "huggingface")
    assert list(tmp_path.iterdir()) == []


def test_an_encoders_folder_that_changed_since_the_training_is_refused_and_named(small_census, tiny_encoder, tmp_path):
    encoder = shutil.copytree(tiny_encoder, tmp_path / "encoder")
    folder, data = checkpoint(tmp_path, small_census, encoder, ("head",))
    open_checkpoint(folder, data)
    weights = load_file(encoder / "model.safetensors")
    name = "encoder.layer.0.output.dense.weight"
    save_file(weights | {name: weights[name] + 0.1}, encoder / "model.safetensors", {"format": "pt"})
    said = f"the encoder in {encoder} is not the one that .*best.ckpt was trained on: model.safetensors was altered"
    with pytest.raises(CheckpointError, match=said):
        open_checkpoint(folder, data)
    settings = config(
        small_census, encoder, Curriculum(name="texts", objective="retrieval", trainable=("head",), texts=("entry",))
    )
    with pytest.raises(CheckpointError, match=said):
        build(StageContext(settings, data, folder, tmp_path / "next", torch.device("cpu"), Ranks()))
    (folder / "encoder.json").unlink()  # as an earlier version left it
    open_checkpoint(folder, data)


def test_the_projector_finds_vectors_of_both_models_and_a_line_a_code(adapted, tmp_path):
    from google.protobuf import text_format
    from tensorboard.plugins.projector.projector_config_pb2 import ProjectorConfig

    folder, _, _ = adapted
    call = ["--format", "projector", "-o", str(tmp_path / "points"), "--model", str(folder)]
    assert CliRunner().invoke(export, call, catch_exceptions=False).exit_code == 0
    CliRunner().invoke(export, ["-o", str(tmp_path / "codes.npz"), "--model", str(folder)], catch_exceptions=False)
    place = tmp_path / "points"
    with np.load(tmp_path / "codes.npz") as file:
        known = {name: file[name] for name in ("coordinates", "time")}
    config = text_format.Parse((place / "projector_config.pbtxt").read_text(), ProjectorConfig())
    lines = (place / config.embeddings[0].metadata_path).read_text().splitlines()
    assert lines[0].split("\t") == ["code", "title", "level", "top"] and len(lines) == 2126
    assert {len(line.split("\t")) for line in lines} == {4}
    ball, tangent = (np.loadtxt(place / one.tensor_path) for one in config.embeddings)
    assert [list(one.tensor_shape) for one in config.embeddings] == [list(ball.shape), list(tangent.shape)]
    radius = np.linalg.norm(tangent, axis=1)
    np.testing.assert_allclose(np.linalg.norm(ball, axis=1), np.tanh(radius / 2), atol=1e-4)
    np.testing.assert_allclose(ball, known["coordinates"] / (1 + known["time"])[:, None], atol=1e-4)
    done = CliRunner().invoke(export, call)
    assert isinstance(done.exception, OutputError) and "is there already" in str(done.exception)


@torch.no_grad()
def directions(folder, data, texts):
    """Of our own model: unit directions, and its head."""
    settings, _, model = open_checkpoint(folder, data)
    features = model.encoder.encode(model.encoder.tokenize(texts, settings.model.max_tokens), 4096)
    return model.head.direction(features), model.head


def data_of(folder):
    return folder.parents[2] / "data/naics-1"


def run(folder, output, kind):
    done = CliRunner().invoke(export, ["--format", kind, "-o", str(output), "--model", str(folder)])
    assert done.exit_code == 0, done.output
    return done.output


def python_of(output):
    """Every block of code of the card, in order."""
    return "".join(re.findall(r"```python\n(.*?)```", (output / "README.md").read_text(), re.DOTALL))


@pytest.fixture(scope="module")
def sentence(adapted, tmp_path_factory):
    output = tmp_path_factory.mktemp("sentence") / "out"
    run(adapted[0], output, "sentence-transformers")
    return output


def nearest_of_ours(folder, data, text):
    found, head = directions(folder, data, [text])
    table = load(data)
    away = head.to_codes(found, head.text_depth(1), torch.from_numpy(table.leaves))[0]
    return [table.codes[table.leaves[i]] for i in away.argsort()[:5]]


def test_stock_sentence_transformers_give_our_directions_and_the_nearest_codes(adapted, sentence):
    from sentence_transformers import SentenceTransformer

    folder = adapted[0]
    wanted, _ = directions(folder, data_of(folder), TEXTS)
    model = SentenceTransformer(str(sentence), device="cpu")
    torch.testing.assert_close(torch.from_numpy(model.encode(TEXTS)), wanted, rtol=0, atol=1e-5)
    assert model.max_seq_length == 24 and {type(module).__module__.partition(".")[0] for module in model} == {
        "sentence_transformers"
    }
    names = {"FOLDER": str(sentence)}
    exec(python_of(sentence), names)
    assert names["nearest"][0].tolist() == nearest_of_ours(folder, data_of(folder), "we brew craft beer")
    assert (
        yaml.safe_load((sentence / "README.md").read_text().split("---")[1])["library_name"] == "sentence-transformers"
    )


@pytest.fixture(scope="module")
def in_8_bits(adapted, tmp_path_factory):
    """(folder, what was said) of a graph in 8 bits; the one in float32 is checked on the way."""
    pytest.importorskip("onnxruntime")
    output = tmp_path_factory.mktemp("onnx") / "out"
    onnx.SECONDS = 0.02
    return output, run(adapted[0], output, "onnx-int8")


def test_a_graph_in_8_bits_says_what_it_costs_and_its_head_stays_exact(in_8_bits, adapted):
    from onnx import load as read

    output, said = in_8_bits
    checked = json.loads((output / "export.json").read_text())
    lines = [line for line in said.splitlines() if "validation texts" in line or "torch" in line or "size" in line]
    assert len(lines) == 3 and all(line in (output / "README.md").read_text() for line in lines)
    assert checked["format"] == "onnx-int8" and 0 < checked["max_difference"] < 0.1 and checked["same_code"] > 0.5
    assert (
        checked["texts"] == len(load(data_of(adapted[0])).split("validation")) and min(checked["texts_per_second"]) > 0
    )
    kinds = {tensor.name: tensor.data_type for tensor in read(output / "model.onnx").graph.initializer}
    head = [kind for name, kind in kinds.items() if re.match(r"(first|last)\.weight", name)]
    assert head == [1, 1]  # float32
    assert sum(kind == 3 for kind in kinds.values()) >= 6  # int8


def test_what_the_card_of_a_graph_prints_runs_and_finds_our_codes(in_8_bits, adapted):
    output, _ = in_8_bits
    names = {"FOLDER": str(output)}
    exec(python_of(output), names)
    wanted, _ = directions(adapted[0], data_of(adapted[0]), ["we brew craft beer"])
    torch.testing.assert_close(torch.from_numpy(names["directions"]), wanted, rtol=0, atol=0.1)
    assert names["nearest"].shape == (1, 5)


def test_a_graph_that_is_another_model_is_refused_and_leaves_nothing(in_8_bits, adapted, tmp_path, monkeypatch):
    """In the place of the exact graph stands the one in 8 bits."""
    monkeypatch.setattr(
        onnx, "write_graph", lambda module, path, **named: shutil.copy(in_8_bits[0] / "model.onnx", path)
    )
    done = CliRunner().invoke(export, ["--format", "onnx", "-o", str(tmp_path / "out"), "--model", str(adapted[0])])
    assert isinstance(done.exception, CheckpointError) and "is not the same model: its directions differ" in str(
        done.exception
    )
    assert list(tmp_path.iterdir()) == []


def test_hyperbolic_points_of_a_model_are_where_the_model_puts_codes_and_texts(adapted):
    folder, data = adapted[0], data_of(adapted[0])
    codes = hyperbolic.points(open_model(str(folder)))
    texts = hyperbolic.points(open_model(str(folder)), TEXTS)
    found, head = directions(folder, data, TEXTS)
    everyone = torch.arange(len(codes))
    with torch.no_grad():
        wanted = head.to_codes(found, head.text_depth(len(TEXTS)), everyone)
    away = hyperbolic.distance(texts.coordinates[:, None], codes.coordinates[None])
    assert abs(away - wanted.numpy()).max() < 1e-4  # ours are in float32
    names = [name for name, _ in hyperbolic.nearest(codes, texts["we brew craft beer"], top=3)]
    assert names == [codes.names[i] for i in wanted[0].argsort()[:3]]
    assert hyperbolic.nearest(codes, codes["111110"], top=1) == [("111110", 0.0)] and len(codes.titles) == len(codes)
    space = hyperbolic.manifold(codes)
    full = torch.from_numpy(codes.full[:50])
    assert space._check_point_on_manifold(full)[0]
    between = hyperbolic.distance(codes.coordinates[:50, None], codes.coordinates[None, :50])
    torch.testing.assert_close(space.dist(full[:, None], full[None]), torch.from_numpy(between), rtol=0, atol=1e-5)
    with pytest.raises(KeyError):
        codes["nothing"]
