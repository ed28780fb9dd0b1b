"""What a planned stage is expected to take: by a like stage, and by its own data where these are others."""

import json
from dataclasses import replace

import pytest

from curricle.steps.estimate import estimates
from curricle.steps.source import read_plan
from curricle.store import layout
from curricle.store.folder import FolderStore
from curricle.store.manifest import publish
from tests.report import made_up


@pytest.fixture
def plan(tmp_path):
    """Two stages to train again: of the complete ones, each took 10 steps an epoch of half a second."""
    plan = read_plan(made_up.codes(tmp_path), made_up.RUN)
    stages = []
    for stage in plan.stages:
        trainer = stage.config["training"]["trainer"] | {"max_epochs": 4, "accumulate_grad_batches": 1}
        config = stage.config | {
            "curriculum": {"objective": "retrieval", "texts": ["entry"]},
            "data_loader": {"batch_size": 64},
            "training": stage.config["training"] | {"trainer": trainer},
        }
        stages.append(replace(stage, start="continued", config=config))
        record = tmp_path / made_up.RUN / stage.name / layout.STAGE
        record.write_text(json.dumps(json.loads(record.read_text()) | {"config": config}))
    return replace(plan, stages=tuple(stages))


def test_a_stage_like_one_on_the_same_data_takes_its_steps(plan):
    for name, made in estimates(plan).items():
        assert (made.steps, made.seconds, made.memory_mb) == (40, 20.0, 900)
        assert made.place == f"{made_up.RUN}/{name}"


def test_a_stage_on_other_data_takes_as_many_steps_as_these_have(plan, tmp_path):
    other = replace(
        plan, stages=tuple(replace(s, data_digest="d1", data_uri=f"{tmp_path}/data/x") for s in plan.stages)
    )
    assert {(made.steps, made.seconds, made.place) for made in estimates(other).values()} == {(None, 0.0, "")}
    publish(FolderStore(str(tmp_path)), "data/x", None, kind="dataset", digest="d1", info={"entry_train": 6400})
    for made in estimates(other).values():
        assert made.records == 6400 and made.steps == 400
        assert made.seconds == made.steps * 0.5
