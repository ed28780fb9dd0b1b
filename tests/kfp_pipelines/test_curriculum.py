"""The compiled chain: its shape, its size, and that compiling it is reproducible."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from curricle.errors import PipelineError
from kfp_pipelines.compile import write
from kfp_pipelines.curriculum import build
from kfp_pipelines.server import Server

STAGES = [f"0{number}_stage" for number in range(1, 9)]


def tasks_of(spec: dict) -> dict[str, dict]:
    """Every task of a pipeline, at any depth, by its name."""
    dags = [spec["root"]["dag"], *(c["dag"] for c in spec["components"].values() if "dag" in c)]
    return {name: task for dag in dags for name, task in dag["tasks"].items()}


@pytest.fixture(scope="module")
def longest(tmp_path_factory) -> Path:
    return write(build("chain_longest", STAGES), tmp_path_factory.mktemp("compiled") / "longest.yaml")


def test_a_chain_of_eight_stages_stays_well_under_what_argo_can_carry(longest):
    """256 KB is the least of its limits that people have met (kubeflow/pipelines #10968)."""
    assert longest.stat().st_size < 228_000


def test_every_task_but_the_exit_handlers_is_tried_once_more(longest):
    tasks = tasks_of(next(yaml.safe_load_all(longest.read_text())))
    ours = {name: task for name, task in tasks.items() if not name.startswith(("condition-", "exit-handler"))}
    retried = {name for name, task in ours.items() if task.get("retryPolicy", {}).get("maxRetryCount") == 1}
    assert set(ours) - retried == {"cleanup"}


def test_compiling_twice_gives_the_same_bytes(longest, tmp_path):
    assert write(build("chain_longest", STAGES), tmp_path / "again.yaml").read_bytes() == longest.read_bytes()


def test_branches_the_plan_and_the_resolution_are_never_cached(longest):
    tasks = tasks_of(next(yaml.safe_load_all(longest.read_text())))
    watched = {
        n: t for n, t in tasks.items() if n.startswith(("train-stage", "reuse-stage", "plan-chain", "resolve-start"))
    }
    assert len(watched) == 3 * len(STAGES) + 2
    assert not [name for name, task in watched.items() if task["cachingOptions"].get("enableCache")]


def test_branches_join_strings_and_never_artifacts(longest):
    text = longest.read_text()
    assert "valueFromOneof" in text
    assert "artifactSelectors" not in text


def test_a_chain_that_is_too_long_is_refused_with_a_way_out():
    with pytest.raises(PipelineError, match="has 9 stages; a compiled pipeline holds 1 to 8"):
        build("chain_long", [*STAGES, "09_stage"])


def test_another_image_reaches_every_component(tmp_path):
    path = write(
        build("chain_two", STAGES[:2]),
        tmp_path / "two.yaml",
        image="registry.local/control@sha256:00",
        trainer_image="registry.local/trainer:1",
    )
    assert "curricle/control:dev" not in path.read_text() and "curricle/trainer:dev" not in path.read_text()


def test_the_training_jobs_image_is_the_pipelines_own(tmp_path):
    path = write(build("chain_two", STAGES[:2]), tmp_path / "two.yaml", trainer_image="registry.local/trainer:1")
    executors = next(yaml.safe_load_all(path.read_text()))["deploymentSpec"]["executors"]
    for name in ("exec-preflight", "exec-train-stage", "exec-train-stage-4"):
        assert {"name": "CURRICLE_TRAINER_IMAGE", "value": "registry.local/trainer:1"} in executors[name]["container"][
            "env"
        ]


def test_a_server_of_2_15_gets_a_form_without_select_boxes(tmp_path):
    """Its proto does not know the field, and it refuses what it does not know."""
    path = write(build("chain_one", STAGES[:1]), tmp_path / "one.yaml", plain_form=True)
    assert "literals" not in path.read_text()

    class Old(Server):
        def __init__(self):
            self._client = SimpleNamespace(upload_pipeline_version=None)

        def _pipeline_id(self, name):
            return "p"

        def _find_version(self, pipeline_id, wanted):
            return None

        def ask(self, what, call, *arguments, **named):
            raise PipelineError('upload: 400 invalid v2 pipeline spec: proto: (line 1:2): unknown field "literals"')

    with pytest.raises(PipelineError, match="compile with `curricle pipeline compile --plain-form`"):
        Old().ensure_version(path)
