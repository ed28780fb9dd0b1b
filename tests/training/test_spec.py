"""What a worker is told is read strictly: a damaged stage.json is one error that names it."""

import json
from pathlib import Path

import pytest

from curricle.errors import CheckpointError
from curricle.training import worker
from curricle.training.spec import StageSpec
from tests.training.toy import make_stage

DAMAGED = {
    "nothing": "",
    "no JSON": "{",
    "no object": "[]",
    "deep": "[" * 99_999,
    "wrong types": {"config": "x"},
    "a number for text": {"digest": 5},
    "a field more": {"argv": ["-c", "1"]},
    "another format": {"format": 9},
}


@pytest.mark.parametrize("case", DAMAGED)
def test_a_damaged_stage_file_is_one_error_that_names_it(case, tmp_path):
    uri, damage = make_stage(tmp_path), DAMAGED[case]
    path = Path(uri, "stage.json")
    path.write_text(damage if isinstance(damage, str) else json.dumps(json.loads(path.read_text()) | damage))
    with pytest.raises(CheckpointError, match="01_stage/stage.json (is damaged|has format 9)"):
        StageSpec.read(uri)


def test_a_family_that_is_not_there_is_one_error(tmp_path):
    uri = make_stage(tmp_path)
    with pytest.raises(
        CheckpointError, match="stage.json holds no configuration of this version: family .toy. is not one of"
    ):
        worker.run(uri)
