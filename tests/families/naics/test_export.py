"""The exported folder: plain transformers and plain peft load it, and compute what our encoder computes."""

import json
import warnings

import pytest
import torch
import yaml
from click.testing import CliRunner
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoTokenizer

from curricle.cli.use import export
from curricle.config.load import to_tree
from curricle.errors import OutputError
from curricle.families.naics import use
from curricle.families.naics.config import Curriculum
from curricle.families.naics.use import open_checkpoint
from curricle.store import open_store
from curricle.store.manifest import publish
from tests.families.naics.tiny import PARTS, config, task_of
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
        "| val/mrr | 0.2500 |" in card and "stage `texts`, seed 0" in card and "[More Information Needed]" not in card
    )
    assert not (output / "adapter" / "README.md").exists()
    head = load_file(output / "head.safetensors")
    assert all(name.startswith("head.") for name in head)
    assert len(json.loads((output / "codes.json").read_text())) == len(head["head.table"]) == 2125


def test_the_code_in_the_card_runs_as_it_stands(adapted):
    _, wanted, output = adapted
    code = (output / "README.md").read_text().split("```python")[1].split("```")[0]
    names = {"FOLDER": str(output)}
    exec(code, names)
    torch.testing.assert_close(names["features"], wanted[:1], rtol=0, atol=1e-5)


def test_a_stage_without_adapters_exports_the_base_encoder(small_census, tiny_encoder, tmp_path):
    folder, data = checkpoint(tmp_path, small_census, tiny_encoder, ("head", "table"))
    output = exported(folder, tmp_path / "out")
    found = plain(AutoModel.from_pretrained(output), AutoTokenizer.from_pretrained(output))
    torch.testing.assert_close(found, ours(folder, data), rtol=0, atol=1e-5)
    assert not (output / "adapter").exists() and "as it was" in (output / "README.md").read_text()


def test_an_export_is_whole_or_not_there_and_the_same_command_works_after_a_stop(adapted, tmp_path, monkeypatch):
    folder, _, _ = adapted
    monkeypatch.setattr(use, "model_card", lambda *given: 1 / 0)
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
