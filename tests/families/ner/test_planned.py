"""What a plan refuses of a NER stage by the small files of folders on this machine."""

import json

import pytest

from curricle.config.experiment import Gate
from curricle.config.load import from_tree
from curricle.errors import ConfigError
from curricle.families.ner.config import NerConfig, NerData, NerForgetting, NerModel
from curricle.families.ner.planned import check_planned
from tests.families.ner.foreign import checkpoint


def stage(teacher="", **model):
    forgetting = NerForgetting(distill=1.0, teacher=str(teacher)) if teacher else NerForgetting()
    return NerConfig(data=NerData(new_dataset_path="x"), model=NerModel(**model), forgetting=forgetting)


@pytest.mark.parametrize(
    ("facts", "model", "said"),
    [
        ({"model_type": "bert", "max_position_embeddings": 64}, {"max_tokens": 65}, "positions for 64 tokens"),
        ({"model_type": "roberta", "max_position_embeddings": 66}, {"max_tokens": 65}, "positions for 64 tokens"),
        ({"model_type": "bert", "num_hidden_layers": 2}, {"frozen_layers": 9}, "frozen_layers is 9, and .* has 2 layers"),
        ({"model_type": "distilbert", "n_layers": 2}, {"frozen_layers": 3}, "frozen_layers is 3, and .* has 2 layers"),
        ({"model_type": "bert", "max_position_embeddings": 64}, {"max_tokens": 64}, ""),
        ({"model_type": "modernbert", "max_position_embeddings": 64}, {"max_tokens": 65}, ""),
    ],
)  # fmt: skip
def test_an_encoder_s_own_file_bounds_windows_and_frozen_layers(tmp_path, facts, model, said):
    (tmp_path / "config.json").write_text(json.dumps(facts))
    config = stage(encoder=str(tmp_path), **model)
    check_planned(config, False)
    if not said:
        return check_planned(config, True)
    with pytest.raises(ConfigError, match=said):
        check_planned(config, True)


def test_the_embedded_encoder_has_512_positions_and_6_layers():
    for model, said in (({"max_tokens": 513}, "positions for 512"), ({"frozen_layers": 7}, "has 6 layers")):
        with pytest.raises(ConfigError, match=said):
            check_planned(stage(**model), True)
    check_planned(stage(max_tokens=512, frozen_layers=6, encoder="some/name/elsewhere"), True)


def test_a_teacher_is_a_tagger(tmp_path):
    (tmp_path / "empty").mkdir()
    for folder, said in (
        (tmp_path / "empty", "forgetting.teacher: .* holds no config.json"),
        (checkpoint(tmp_path / "plain", config__json="{}"), "forgetting.teacher: .* has no token-classification head"),
    ):
        with pytest.raises(ConfigError, match=said):
            check_planned(stage(folder), False)
    check_planned(stage(checkpoint(tmp_path / "good")), False)
    check_planned(stage(tmp_path / "elsewhere"), False)


def test_a_drop_that_is_allowed_is_not_negative():
    with pytest.raises(ConfigError, match=r"max_drop.*\[0, 10\]"):
        from_tree(Gate, {"max_drop": -1})
