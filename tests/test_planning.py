"""Laws of the plan: what changes a digest, what is reused, where a stage goes."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from curricle.config.load import Layer, build, read_overrides
from curricle.errors import ConfigError
from curricle.families.codes.config import CodesConfig
from curricle.planning import REFERENCES, ChainPlan, Holdings, Source, StageInput, job_name, plan_chain, stage_digest
from curricle.steps.chain import ChainRequest, make_plan
from curricle.store import layout
from curricle.store.references import absolute

ROOT = Path(__file__).parents[1]


def stage(name: str, *overrides: str, data: str = "d1") -> StageInput:
    layer = read_overrides([f"curriculum.name={name}", "family=naics", *overrides])
    return StageInput(name, build(CodesConfig, Layer(layer.tree, layer.origins)), f"store/data/{data}", data)


def plan(stages, *, holdings=None, start=None, resume=True, **options) -> ChainPlan:
    return plan_chain(
        stages,
        chain_name="c",
        store_uri="store",
        start=start,
        holdings=holdings or Holdings(),
        resume=resume,
        **options,
    )


def test_a_chain_starts_from_scratch_and_continues():
    made = plan([stage("01_stage"), stage("02_stage"), stage("03_stage")])
    assert [s.start for s in made.stages] == ["scratch", "continued", "continued"]
    assert made.run_id == "sequential_01-02-03"
    assert made.stages[1].parent_uri == made.stages[0].uri == "store/sequential_01-02-03/01_stage"
    assert made.stages[1].parent_digest == made.stages[0].digest


def test_a_change_in_one_stage_changes_its_digest_and_all_after_it():
    before = plan([stage("a"), stage("b"), stage("c")])
    after = plan([stage("a"), stage("b", "training.learning_rate=0.01"), stage("c")])
    same = [x.digest == y.digest for x, y in zip(before.stages, after.stages, strict=True)]
    assert same == [True, False, False]


@pytest.mark.parametrize(
    "override",
    [
        "paths.store_uri=elsewhere",
        "tracking.mlflow=false",
        "training.trainer.devices=2",
        "training.trainer.accelerator=cpu",
        "experiment_name=x",
    ],
)
def test_where_and_how_wide_a_stage_runs_is_not_in_its_digest(override):
    assert stage_digest(stage("a").loaded.config, "d", "") == stage_digest(stage("a", override).loaded.config, "d", "")


@pytest.mark.parametrize(
    "override",
    [
        "seed=1",
        "training.trainer.max_epochs=9",
        "model.dim=8",
        "curriculum.n_positives=3",
        "training.trainer.precision=32-true",
    ],
)
def test_what_is_learned_is_in_the_digest(override):
    assert stage_digest(stage("a").loaded.config, "d", "") != stage_digest(stage("a", override).loaded.config, "d", "")


def test_other_data_give_another_digest():
    assert plan([stage("a")]).stages[0].digest != plan([stage("a", data="d2")]).stages[0].digest


def test_a_complete_stage_is_reused_from_any_run():
    first = plan([stage("a"), stage("b")])
    held = Holdings(complete={("a", first.stages[0].digest): "store/other/a"})
    made = plan([stage("a"), stage("b")], holdings=held)
    assert made.stages[0].start == "reuse" and made.stages[0].uri == "store/other/a"
    assert made.stages[1].start == "continued" and made.stages[1].parent_uri == "store/other/a"
    assert made.stages[1].digest == first.stages[1].digest


def test_what_is_being_trained_was_not_interrupted():
    first = plan([stage("a")]).stages[0]
    held = Holdings(occupied={first.uri: first.digest})
    assert plan([stage("a")], holdings=held).stages[0].reason.endswith("; resumes where it was interrupted")
    held = replace(held, training=frozenset({first.uri}))
    assert plan([stage("a")], holdings=held).stages[0].reason.endswith("; is being trained now")


def test_without_resume_a_complete_stage_is_trained_again():
    first = plan([stage("a")])
    held = Holdings(
        complete={("a", first.stages[0].digest): first.stages[0].uri},
        occupied={first.stages[0].uri: first.stages[0].digest},
    )
    made = plan([stage("a")], holdings=held, resume=False)
    assert made.stages[0].start == "scratch" and "trained again" in made.stages[0].reason


def test_a_changed_stage_does_not_overwrite_what_was_trained_before():
    first = plan([stage("a")]).stages[0]
    held = Holdings(complete={("a", first.digest): first.uri}, occupied={first.uri: first.digest})
    changed = plan([stage("a", "seed=1")], holdings=held).stages[0]
    assert changed.start == "scratch" and changed.uri != first.uri and "another configuration" in changed.reason


def test_an_interrupted_stage_keeps_its_place_and_says_that_it_resumes():
    first = plan([stage("a")]).stages[0]
    made = plan([stage("a")], holdings=Holdings(occupied={first.uri: first.digest})).stages[0]
    assert made.uri == first.uri and "resumes" in made.reason


def test_a_chain_continues_the_checkpoint_that_was_named():
    made = plan([stage("b")], start=Source("store/r/a/x.ckpt", "abc", "best of a"))
    assert (
        made.stages[0].start == "continued"
        and made.stages[0].parent_uri == "store/r/a/x.ckpt"
        and made.stages[0].reason == "best of a"
    )


def test_stages_that_are_not_selected_are_skipped_and_the_next_starts_from_the_last_that_ran():
    made = plan([stage("a"), stage("b"), stage("c")], selected={"a", "c"})
    assert [s.start for s in made.stages] == ["scratch", "skip", "continued"]
    assert made.stages[2].parent_uri == made.stages[0].uri == made.stages[1].uri


def test_contradictions_are_errors():
    with pytest.raises(ConfigError, match="stages x are not in chain c; it has a"):
        plan([stage("a")], selected={"x"})
    with pytest.raises(ConfigError, match="no checkpoint was given"):
        plan([stage("a")], start_mode="continued")
    with pytest.raises(ConfigError, match="drop one of the two"):
        plan([stage("a")], start=Source("u", "d", "r"), start_mode="scratch")


def test_a_plan_survives_json():
    made = plan([stage("a"), stage("b")])
    made = replace(
        made,
        stages=tuple(
            replace(s, **{n: absolute(getattr(s, n)) for n in REFERENCES if getattr(s, n)}) for s in made.stages
        ),
    )
    assert ChainPlan.from_stored(made.to_stored(), f"store/{made.run_id}") == replace(made, store_uri="store")


def test_a_stored_plan_follows_its_store_and_holds_no_command():
    text = plan([stage("a"), stage("b")]).to_stored()
    moved = ChainPlan.from_stored(text, "minio://bucket/elsewhere/r")
    assert moved.store_uri == "minio://bucket/elsewhere"
    assert [s.uri for s in moved.stages] == [f"minio://bucket/elsewhere/r/{name}" for name in "ab"]
    assert (
        moved.stages[1].parent_uri == moved.stages[0].uri
        and moved.stages[0].data_uri == "minio://bucket/elsewhere/data/d1"
    )
    assert "argv" not in text and moved.stages[0].argv[-1] == moved.stages[0].digest


@pytest.mark.parametrize(
    "text", ["", "[]", "{", '{"format": 9}', '{"format": 2, "stages": [{}]}', '{"format": 2, "stages": 3}']
)
def test_a_damaged_plan_is_one_message(text):
    with pytest.raises(ConfigError, match="store/r/plan.json.*make the plan again"):
        ChainPlan.from_stored(text, "store/r")


@pytest.mark.parametrize("change", [{"digest": 5}, {"config": "x"}, {"uri": 5}, {"start": "sideways"}, {"argv2": []}])
def test_a_plan_with_a_damaged_stage_is_one_message(change):
    tree = json.loads(plan([stage("a")]).to_stored())
    tree["stages"][0] |= change
    for text in (json.dumps(tree), "[" * 99_999):
        with pytest.raises(ConfigError, match="store/r/plan.json is damaged.*make the plan again"):
            ChainPlan.from_stored(text, "store/r")


def test_a_command_in_a_stored_plan_is_not_read():
    tree = json.loads(plan([stage("a")]).to_stored())
    tree["stages"][0]["argv"] = ["-c", "import os; os.system('touch ran')"]
    made = ChainPlan.from_stored(json.dumps(tree), "store/r").stages[0]
    assert made.argv == ("-m", "curricle.training.worker", "--stage-uri", made.uri, "--digest", made.digest)


def test_a_run_id_of_any_length_has_a_place_that_its_stages_lie_in():
    made = plan([stage("a")], run_id="学" * 300)
    assert made.run_id == layout.run_folder("学" * 300) and made.stages[0].uri.endswith(f"/{made.run_id}/a")


@pytest.mark.parametrize("run_id", ["../x", "/abs", "a/b", "data", "a\x07", "-x"])
def test_a_run_id_that_is_no_plain_name_is_refused_before_anything_is_planned(run_id):
    with pytest.raises(ConfigError, match="run id"):
        plan([stage("a")], run_id=run_id)
    if run_id not in ("data", "a\x07"):  # the one is a stage name, the other no YAML
        with pytest.raises(ConfigError, match="stage name"):
            plan([stage(run_id)])


def test_job_names_are_dns_labels_that_tell_work_apart():
    name = job_name("run", "01_Stage with a very long name that no label could hold", "d")
    assert len(name) <= 52 and name[0].isalpha() and name == name.lower() and "_" not in name
    assert name != job_name("run", "01_Stage with a very long name that no label could hold", "e")


def test_the_shipped_chains_in_64_dimensions_have_the_digests_of_version_0_1_so_that_what_was_trained_is_found(
    tmp_path,
):
    golden = json.loads((ROOT / "tests" / "golden" / "digests.json").read_text())
    for chain, stages in golden.items():
        request = ChainRequest(
            config=ROOT / "config" / "config.yaml",
            chain=chain,
            overrides=(f"paths.store_uri={tmp_path}", "model.dim=64"),
        )
        assert {stage.name: stage.digest for stage in make_plan(request).stages} == stages, chain


def test_a_complete_stage_without_its_checkpoint_is_not_reused():
    first = plan([stage("a")]).stages[0]
    key = ("a", first.digest)
    held = Holdings({key: first.uri}, {first.uri: first.digest}, {key: f"{first.uri}/best.ckpt"})
    with pytest.raises(ConfigError, match="best.ckpt is not there.*--resume false"):
        plan([stage("a")], holdings=held)
    assert plan([stage("a")], holdings=held, resume=False).stages[0].start == "scratch"
