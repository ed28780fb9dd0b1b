"""Following a job that was started elsewhere: which stage is meant, and that nothing is started or stopped."""

from pathlib import Path

import pytest

from curricle.config.chain import load_stage
from curricle.errors import JobError
from curricle.launch.job import Outcome
from curricle.planning import Holdings, StageInput, plan_chain
from curricle.steps.attach import attach_stage
from curricle.steps.source import write_plan
from curricle.store import open_store
from curricle.store.manifest import publish
from curricle.training.events import Log, Step

CONFIG = Path(__file__).parents[2] / "config" / "config.yaml"


class Watcher:
    """Has one job, and can do nothing but watch it."""

    def __init__(self, job_name: str):
        self.job_name = job_name

    def attach(self, job_name: str) -> str:
        if job_name != self.job_name:
            raise JobError(f"no job {job_name}", reason="lost")
        return job_name

    def wait(self, handle, on_log) -> Outcome:
        on_log('[0] {"event": "step", "epoch": 1, "step": 2, "steps": 3, "loss": 0.5}')
        on_log("[0] words")
        return Outcome("succeeded", "succeeded", 0)


@pytest.fixture
def plan(tmp_path):
    stages = [StageInput(name, load_stage(CONFIG, name, []), "data", "d1") for name in ("01_stage", "02_stage")]
    made = plan_chain(
        stages, chain_name="c", store_uri=str(tmp_path), start=None, holdings=Holdings(), resume=True, run_id="r"
    )
    write_plan(made)
    return made


def test_the_stage_under_way_is_followed_and_its_events_are_heard(plan, tmp_path):
    first, second = plan.stages
    publish(open_store(str(tmp_path)), "r/01_stage", None, kind="stage", digest=first.digest, info={"best": "x"})
    heard = []
    stage, outcome = attach_stage("r", "", str(tmp_path), Watcher(second.job_name), heard.append)
    assert stage.name == "02_stage" and outcome.state == "succeeded"
    assert heard == [Step(1, 2, 3, 0.5), Log("[0] words")]


@pytest.mark.parametrize(
    ("run", "stage", "said"),
    [("q", "", "holds no run 'q'"), ("r", "09_stage", "trains no stage '09_stage'; it trains 01_stage, 02_stage")],
)
def test_what_is_not_there_is_said(plan, tmp_path, run, stage, said):
    with pytest.raises(JobError, match=said):
        attach_stage(run, stage, str(tmp_path), Watcher("none"), print)
