"""What a folder of a transformers model is found to be."""

import json

import pytest

from curricle.errors import CheckpointError
from curricle.families.ner.checkpoint import check_checkpoint
from tests.families.ner.foreign import WEIGHTS, checkpoint


@pytest.mark.parametrize(
    ("files", "problem"),
    [
        ({"config__json": None}, "holds no config.json"),
        ({"config__json": "{"}, "config.json is not JSON"),
        ({"model__safetensors": None}, "holds no weights"),
        ({"model__safetensors": b""}, "is empty"),
        ({"model__safetensors": WEIGHTS[:-1]}, "is cut off"),
        ({"model__safetensors": b"abc"}, "no whole safetensors"),
        ({"tokenizer__json": None}, "holds no tokenizer"),
        (
            {
                "config__json": json.dumps(
                    {"architectures": ["BertForTokenClassification"], "id2label": {"0": "O", "2": "X"}}
                )
            },
            "no entry '1'",
        ),
    ],
)
def test_a_damaged_checkpoint_is_refused(tmp_path, files, problem):
    with pytest.raises(CheckpointError, match=problem):
        check_checkpoint(checkpoint(tmp_path / "c", **files))


def test_shards_adapters_and_trainer_folders_are_taken(tmp_path):
    index = json.dumps({"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}})
    shards = checkpoint(
        tmp_path / "s",
        **{"model.safetensors": None, "model.safetensors.index.json": index, "model-1.safetensors": WEIGHTS},
    )
    with pytest.raises(CheckpointError, match="lacks model-2"):
        check_checkpoint(shards)
    (shards / "model-2.safetensors").write_bytes(WEIGHTS)
    assert check_checkpoint(shards).kind == "sharded"
    (tmp_path / "p").mkdir()
    (tmp_path / "p/adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "base"}))
    (tmp_path / "p/adapter_model.safetensors").write_bytes(WEIGHTS)
    assert check_checkpoint(tmp_path / "p").base_model == "base"
    for step in (500, 1000):
        checkpoint(tmp_path / f"t/checkpoint-{step}")
    assert check_checkpoint(tmp_path / "t").path.name == "checkpoint-1000"
