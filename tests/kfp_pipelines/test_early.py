"""What a task would refuse after minutes is refused before anything is sent; what only the cluster knows is not judged here."""

from pathlib import Path

import pytest

from curricle.errors import PipelineError
from kfp_pipelines.early import check_names, check_values
from kfp_pipelines.gateway import Access
from kfp_pipelines.parameters import parse, read_documents, read_parameters
from kfp_pipelines.submit import submit, with_defaults

COMPILED = Path(__file__).parents[2] / "kfp_pipelines" / "compiled"
CONTINUED = ("new_dataset_path=/x", "old_dataset_path=/y")
TABLE = ("table_uri=s3://a/b.csv", "column=x", "output_uri=s3://a/c.csv")


def checked(pipeline: str, *texts: str) -> None:
    package = COMPILED / f"{pipeline}.yaml"
    known = read_parameters(package)
    check_values(read_documents(package)[0], with_defaults(parse(list(texts), known), known))


@pytest.mark.parametrize(
    ("pipeline", "texts", "said"),
    [
        ("chain_smoke", ["overrides=trainin.learning_rate=1e-4"], "overrides: trainin: unknown key; did you mean 'training'?"),
        ("chain_smoke", ["overrides=training.learning_rate=-4"], "overrides: training.learning_rate: must lie in (0, 1)"),
        ("chain_smoke", ["overrides=data_loader.batch_size=1.5"], "must be a whole number"),
        ("chain_smoke", ["overrides='open"], "a quote needs its other half"),
        ("chain_ner", ["overrides=model.max_tokens=9999999"], "overrides: model.max_tokens: must lie in"),
        ("continued_training", [*CONTINUED, "overrides=data.replay=7"], "overrides: data.replay: must lie in (0, 1]"),
        ("chain_smoke", ["stages=01_stag"], "'01_stag' is no stage of this pipeline; did you mean '01_stage'?"),
        ("chain_smoke", ["store_uri=mino://x/y"], "store_uri: cannot open 'mino://x/y': scheme 'mino'"),
        ("chain_smoke", ["store_uri=file:runs"], "a file URI is absolute, file:///folder"),
        ("chain_smoke", ["store_uri=~/runs"], "every pod would look for in its own home"),
        ("chain_smoke", ["store_uri=https://x/y"], "https:// is only read from"),
        ("chain_smoke", ["start_mode=zzz"], "start_mode must be one of auto, scratch, continued, not 'zzz'"),
        ("assign", [*TABLE, "shards=1000"], "1000 shards; 1 to 100 are possible"),
        ("assign", [*TABLE, "max_error=3"], "max_error '3' is no number from 0 to 1"),
    ],
)  # fmt: skip
def test_what_a_task_would_refuse_is_refused_before_anything_is_sent(pipeline, texts, said):
    with pytest.raises(PipelineError) as caught:
        checked(pipeline, *texts)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("pipeline", "texts"),
    [
        ("chain_smoke", ["stages=02_stage", "overrides=training.learning_rate=1e-4 data_loader.batch_size=64"]),
        ("chain_smoke", ["store_uri=file:///mnt/runs", "run_id=r-1"]),
        ("continued_training", [*CONTINUED, "experiment=only_in_the_image", "overrides=what.it=knows"]),
        ("assign", list(TABLE)),
    ],
)
def test_what_is_right_or_known_to_the_cluster_alone_is_taken(pipeline, texts):
    checked(pipeline, *texts)


def test_a_chain_that_is_not_among_the_files_here_is_left_to_the_plan_task(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config").mkdir()
    checked("chain_smoke", "overrides=what.it=knows")


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("service_account", "Curricle_Launcher", "--service-account 'Curricle_Launcher' cannot be one's name"),
        ("experiment", "", "--experiment '' is no name"),
        ("experiment", "é" * 65, "has 130 bytes; Kubeflow keeps 128"),
        ("run_name", "a\nb", "no line break or tab"),
        ("run_name", "x" * 256, "has 256 bytes; Kubeflow keeps 255"),
        ("run_name", "my supersecret99 run", "holds a password or token"),
        ("experiment", "supersecret99", "holds a password or token"),
    ],
)
def test_a_name_that_kubeflow_or_kubernetes_refuses_is_refused_with_its_option(name, value, said, monkeypatch):
    monkeypatch.setenv("MY_TOKEN", "supersecret99")
    good = {"experiment": "curricle", "run_name": "", "service_account": "curricle-launcher"}
    check_names(**good)
    with pytest.raises(PipelineError) as caught:
        check_names(**good | {name: value})
    assert said in str(caught.value)


@pytest.mark.parametrize("name", ["می‌خواهم آموزش", "夜間　実行", "👨‍👩‍👧 run"])
def test_a_name_of_any_script_is_taken(name):
    check_names(experiment=name, run_name=name, service_account="")


def test_submit_looks_before_it_connects():
    with pytest.raises(PipelineError, match="'x' is no stage of this pipeline; it has.*; overrides: nope: unknown key"):
        submit(COMPILED / "chain_smoke.yaml", ["stages=x", "overrides=nope=1"], Access(endpoint="http://127.0.0.1:9"), say=print)  # fmt: skip
