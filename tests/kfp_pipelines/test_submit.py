"""Submission against the recorded answers of a real server: exit codes, content versions, wrong parameters, reasons, interruption."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(Path(__file__).parent))
from fake_kfp import FakeKfp  # noqa: E402

from curricle.config.chain import load_stage  # noqa: E402
from curricle.errors import PipelineError  # noqa: E402
from curricle.planning import Holdings, StageInput, plan_chain  # noqa: E402
from curricle.steps.relay import LogRelay  # noqa: E402
from curricle.training.events import Epoch, Log  # noqa: E402
from kfp_pipelines.describe import describe  # noqa: E402
from kfp_pipelines.gateway import Access  # noqa: E402
from kfp_pipelines.parameters import read_parameters  # noqa: E402
from kfp_pipelines.submit import submit  # noqa: E402

PACKAGE = ROOT / "kfp_pipelines" / "compiled" / "chain_smoke.yaml"
DEFAULTS = {name: parameter.default for name, parameter in read_parameters(PACKAGE).items()}


@pytest.fixture
def serve(shared):
    made = []

    def start(*scenarios):
        made.append(FakeKfp(shared / "data" / "kfp-api", *scenarios))
        return made[-1]

    yield start
    for fake in made:
        fake.close()


def planned(store: str, run_id: str) -> None:
    """What a pipeline's plan component leaves in the store."""
    stages = [
        StageInput(name, load_stage(ROOT / "config" / "config.yaml", name, []), "data", "d1")
        for name in ("01_stage", "02_stage")
    ]
    plan = plan_chain(
        stages, chain_name="chain_smoke", store_uri=store, start=None, holdings=Holdings(), resume=True, run_id=run_id
    )
    Path(store, run_id).mkdir(parents=True)
    Path(store, run_id, "plan.json").write_text(plan.to_stored())


def write(path: str, record: dict) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(json.dumps(record))


def curricle(place: Path, *arguments: str) -> subprocess.CompletedProcess:
    env = {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}", "HOME": str(place)}
    code = "import kfp_pipelines.submit as s; w = s._watch; s._watch = lambda c, r, t, p, say, names: w(c, r, t, 0.01, say, names); from curricle.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=place, env=env, capture_output=True, text=True, timeout=120
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done


def test_a_run_that_succeeds_exits_0_and_its_stages_are_told(serve, tmp_path):
    fake = serve()
    done = curricle(tmp_path, "submit", str(PACKAGE), "launcher=local", "resume=false", "--endpoint", fake.url)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "run: succeeded" in done.stdout and "hi: running" in done.stdout
    assert not [line for line in done.stdout.splitlines() if line.startswith(("root:", "executor", "hi-driver:"))]
    sent = fake.bodies[0]["runtime_config"]["parameters"]
    assert sent == DEFAULTS | {"launcher": "local", "resume": False}, "the run's page shows what was not given too"


def test_the_same_content_is_uploaded_once(serve, tmp_path):
    fake = serve()
    first = curricle(tmp_path, "submit", str(PACKAGE), "--endpoint", fake.url, "--no-wait")
    again = curricle(tmp_path, "submit", str(PACKAGE), "--endpoint", fake.url, "--no-wait")
    assert "uploaded chain-smoke sha-" in first.stdout and "found chain-smoke sha-" in again.stdout
    assert fake.calls.count(("POST", "/pipelines/upload_version")) == 1


def test_a_new_pipeline_has_one_version_of_one_content_and_a_description_for_its_page(serve, tmp_path):
    fake = serve()
    fake.pipeline, fake.versions = None, []
    run = submit(
        PACKAGE, ["stages=01_stage", "resume=false"], Access(endpoint=fake.url), wait=False, say=lambda line: None
    )
    assert len(fake.versions) == 1 and fake.pipeline["display_name"] == "chain-smoke"
    text = fake.pipeline["description"]
    assert "**Examples**" in text and text.startswith("Trains the stages `01_stage`")
    bare = [word for word in re.sub(r"`[^`]*`", "", text).split() if "_" in word]
    assert not bare, f"Markdown would read these as italics: {bare}"
    assert run.name == "chain_smoke stages=01_stage resume=false" == fake.bodies[0]["display_name"]


@pytest.mark.parametrize("package", sorted(PACKAGE.parent.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_shipped_pipeline_has_a_description_with_three_examples(package):
    text = describe(package)
    assert text.partition("**Examples**")[2].count("\n- ") == 3 and len(text) < 8000
    assert all(f"- `{name}` (" in text for name in read_parameters(package))


def test_compiled_pipelines_are_uploaded_by_content(serve, tmp_path):
    fake = serve()
    folder = tmp_path / "compiled"
    folder.mkdir()
    (folder / PACKAGE.name).write_bytes(PACKAGE.read_bytes())
    assert (
        "uploaded chain-smoke sha-"
        in curricle(tmp_path, "pipeline", "upload", str(folder), "--endpoint", fake.url).stdout
    )
    assert (
        "found    chain-smoke sha-"
        in curricle(tmp_path, "pipeline", "upload", str(folder), "--endpoint", fake.url).stdout
    )


def test_a_failed_run_exits_1_with_the_reason_that_the_store_holds(serve, tmp_path):
    fake = serve("watch a run that fails")
    store = f"{tmp_path}/store"
    planned(store, "nightly")
    write(
        f"{store}/nightly/01_stage/failure.json", {"stage": "01_stage", "cause": "error", "message": "an earlier run's"}
    )
    fake.on_run = lambda: write(
        f"{store}/nightly/02_stage/failure.json",
        {"stage": "02_stage", "cause": "oom_killed", "message": "the worker used more than 8Gi"},
    )
    done = curricle(
        tmp_path, "submit", str(PACKAGE), "run_id=nightly", f"store_uri={store}", "--endpoint", fake.url, "--json"
    )
    result = json.loads(done.stdout)
    assert done.returncode == 1 == result["exit_code"]
    assert result["reasons"] == ["stage 02_stage failed (oom_killed): the worker used more than 8Gi"]


def test_without_a_store_the_failed_task_is_named_with_its_pod_and_where_its_message_is(serve, tmp_path):
    fake = serve("watch a run that fails")
    said = []
    run = submit(PACKAGE, [f"store_uri={tmp_path}"], Access(endpoint=fake.url), poll=0.01, say=said.append)
    (reason,) = run.reasons
    assert run.exit_code == 1 and reason.startswith("task boom failed") and "pod fail-n49m7-...-42326811" in reason
    assert "get workflow fail-n49m7 -o jsonpath='{.status.nodes.fail-n49m7-42326811.message}'" in reason
    assert run.url in said[-1]


def test_a_driver_that_fails_is_named_with_its_task_its_message_and_its_pod(serve, tmp_path):
    fake = serve("watch a run that fails")
    for frame in fake.frames:  # as when Kubeflow's own pod fails: the task itself never begins
        for task in frame.get("run_details", {}).get("task_details", []):
            if task.get("display_name") == "boom-driver":
                task |= {
                    "state": "FAILED",
                    "error": {"code": 13, "message": "dial tcp: lookup ml-pipeline: no such host"},
                }
            elif task.get("display_name", "").startswith(("boom", "executor")):
                task.pop("state", None)
    run = submit(PACKAGE, [f"store_uri={tmp_path}"], Access(endpoint=fake.url), poll=0.01, say=lambda line: None)
    assert run.reasons == [
        "driver of task boom failed: dial tcp: lookup ml-pipeline: no such host; pod fail-n49m7-...-1903893128"
    ]


@pytest.mark.parametrize(
    ("package", "text", "said"),
    [
        ("chain_smoke", "gate_rule=better", "gate_rule: .*'better'"),
        ("chain_smoke", "overrides=model.encoder='a b", "parameter overrides .*no closing quotation"),
        ("chain_smoke", "overrides=training.learning_rate 1e-4", "'training.learning_rate' is not of the form"),
        ("chain_smoke", "run_id=a/b", "run id 'a/b' holds"),
        ("chain_smoke", "run_id=\N{ROCKET}", "run id .* holds"),
        ("chain_smoke", "run_id=data", "a store's own folder"),
        ("chain_smoke", "registry=mlfow", "registry 'mlfow' is neither mlflow nor the URL"),
        ("continued_training", "max_drop=1.5", "max_drop is a difference"),
        ("continued_training", "min_gain=nan", "min_gain"),
    ],
)
def test_a_text_that_no_task_could_read_is_said_before_anything_is_sent(serve, package, text, said):
    fake = serve()
    given = [text, "new_dataset_path=x"] if package == "continued_training" else [text]
    with pytest.raises(PipelineError, match=said):
        submit(PACKAGE.with_stem(package), given, Access(endpoint=fake.url), say=lambda line: None)
    assert fake.calls == []


def test_log_lines_that_the_stages_write_into_the_store_are_streamed(serve, tmp_path):
    fake, store = serve(), f"{tmp_path}/store"
    planned(store, "nightly")
    with LogRelay(f"{store}/nightly/01_stage") as earlier:
        earlier(Log("an earlier run's"))

    def train():
        with LogRelay(f"{store}/nightly/01_stage") as relay:
            relay(Epoch(epoch=1, metrics={"val_loss": 0.25}))
            relay(Log("[worker-0] hello"))

    fake.on_run = train
    done = curricle(tmp_path, "submit", str(PACKAGE), "run_id=nightly", f"store_uri={store}", "--endpoint", fake.url)
    assert done.returncode == 0
    assert [line for line in done.stdout.splitlines() if line.startswith("01_stage")] == [
        "01_stage: epoch 1 done: val loss 0.250",
        "01_stage: [worker-0] hello",
    ]


def test_a_store_that_cannot_be_read_from_here_is_said_once_and_the_watch_goes_on(serve, tmp_path, monkeypatch):
    for name in ("S3_ENDPOINT", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name, raising=False)
    done = curricle(tmp_path, "submit", str(PACKAGE), "--endpoint", serve().url)
    assert (
        done.returncode == 0
        and done.stdout.count("cannot be read from here (minio://mlpipeline/curricle)") == 1
        and "run: succeeded" in done.stdout
    )


def test_a_terminated_run_exits_3_although_the_server_calls_it_failed(serve, tmp_path):
    fake = serve("watch a terminated run")
    assert fake.frames[-1]["state"] == "FAILED"
    done = curricle(tmp_path, "submit", str(PACKAGE), "--endpoint", fake.url)
    assert done.returncode == 3, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("text", "said"), [("resum=false", "did you mean 'resume'"), ("resume=maybe", "must be true or false")]
)
def test_a_wrong_parameter_is_said_before_anything_is_sent(serve, tmp_path, text, said):
    fake = serve()
    done = curricle(tmp_path, "submit", str(PACKAGE), text, "--endpoint", fake.url)
    assert done.returncode == 2 and said in done.stderr and fake.calls == []


def test_no_server_is_one_message(tmp_path):
    done = curricle(tmp_path, "submit", str(PACKAGE), "--endpoint", "http://127.0.0.1:9")
    assert done.returncode == 2 and "http://127.0.0.1:9" in done.stderr


@pytest.mark.parametrize(("answer", "code"), [("terminate", 3), ("detach", 4)])
def test_ctrl_c_terminates_or_detaches(serve, tmp_path, answer, code, monkeypatch):
    import kfp_pipelines.submit as module

    fake = serve()
    watch, calls = module._watch, []

    def interrupted_once(client, run, timeout, poll, say, names):
        calls.append(run)
        if len(calls) == 1:
            raise KeyboardInterrupt
        watch(client, run, timeout, 0.01, say, names)

    monkeypatch.setattr(module, "_watch", interrupted_once)
    access = Access(endpoint=fake.url)
    run = module.submit(PACKAGE, [], access, say=lambda text: None, interrupted=lambda: answer)
    assert run.exit_code == code and (("POST", f"/runs/{run.run_id}:terminate") in fake.calls) == (
        answer == "terminate"
    )


@pytest.mark.parametrize(("choice", "code"), [("terminate", 3), ("detach", 4), ("ask", 4)])
def test_ctrl_c_in_a_terminal_does_what_was_chosen_and_detaches_where_nobody_can_answer(serve, tmp_path, choice, code):
    fake = serve()
    fake.frames = [frame for frame in fake.frames if frame["state"] == "RUNNING"][:1]
    env = {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}", "HOME": str(tmp_path)}
    as_in_a_terminal = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "  # a suite in the background has it ignored
    command = [sys.executable, "-c", f"{as_in_a_terminal}from curricle.cli import main; main()", "submit", str(PACKAGE), "launcher=local",
               f"store_uri={tmp_path}/store", "--endpoint", fake.url, "--on-interrupt", choice]  # fmt: skip
    child = subprocess.Popen(
        command, cwd=tmp_path, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True
    )
    while "run: running" not in child.stdout.readline():
        assert child.poll() is None
    child.send_signal(signal.SIGINT)
    child.communicate(timeout=60)
    assert child.returncode == code
    assert any(path.endswith(":terminate") for _, path in fake.calls) == (choice == "terminate")


@pytest.mark.parametrize("verb", ["create", "submit"])
def test_kfps_own_command_takes_the_compiled_file_as_it_is(serve, verb):
    fake = serve()
    command = [
        str(Path(sys.executable).parent / "kfp"),
        "--endpoint",
        fake.url,
        "run",
        verb,
        "-e",
        "curricle",
        "-r",
        "r",
        "-f",
        str(PACKAGE),
        "stages=all",
        "preflight=false",
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    spec, platform = yaml.safe_load_all(PACKAGE.read_text())
    sent = fake.bodies[-1]
    assert sent["pipeline_spec"] == {"pipeline_spec": spec, "platform_spec": platform}
    assert sent["runtime_config"]["parameters"] == {"stages": "all", "preflight": False}
