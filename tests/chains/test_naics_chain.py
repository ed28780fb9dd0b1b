"""One NAICS chain end to end on embedded data, by the real command: trained, skipped, resumed, used, and run as a compiled pipeline."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.command import curricle

ROOT = Path(__file__).parents[2]
TINY = [
    "curriculum.texts=[entry,title]",
    "model.dim=8",
    "training.trainer.max_epochs=1",
    "model.max_tokens=16",
    "tracking.mlflow=false",
]


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A folder with the shipped configuration, as a user's working folder."""
    folder = tmp_path_factory.mktemp("work")
    shutil.copytree(ROOT / "config", folder / "config")
    return folder


def train(place: Path, *arguments: str, store: str = "checkpoints", expect: int = 0) -> subprocess.CompletedProcess:
    return curricle(place, "train-curriculum", *arguments, f"paths.store_uri={store}", *TINY, expect=expect)


@pytest.fixture(scope="module")
def trained(place) -> Path:
    train(place, "--curricula", "01_stage,02_stage")
    return place / "checkpoints" / "sequential_01-02"


def test_the_layout_is_what_the_guide_shows(trained):
    for stage in ("01_stage", "02_stage"):
        names = {p.name for p in (trained / stage).iterdir()}
        best = [n for n in names if n.startswith(f"{stage}-epoch=") and n.endswith(".ckpt")]
        assert len(best) == 1 and {"last.ckpt", "manifest.json", "stage.json"} <= names
        files = {p.name for p in (trained / stage / best[0]).iterdir()}
        assert {"model.safetensors", "state.pt", "config.yaml", "manifest.json"} <= files


def test_a_stage_records_where_it_comes_from(trained):
    first = json.loads((trained / "01_stage/manifest.json").read_text())
    second = json.loads((trained / "02_stage/manifest.json").read_text())
    assert second["lineage"]["parent_digest"] == first["digest"]
    assert second["lineage"]["parent_uri"].endswith(first["info"]["best"])
    assert second["metrics"]["val/mrr"] > first["metrics"]["val/mrr"]


def test_two_stages_stand_side_by_side_with_what_sets_them_apart(place, trained):
    found = json.loads(curricle(place, "compare", "sequential_01-02/01_stage", "sequential_01-02", "--json").stdout)
    assert found["settings"]["curriculum.name"] == ["01_stage", "02_stage"] and "model.dim" not in found["settings"]
    assert found["models"][1]["stages"] == ["01_stage", "02_stage"] and found["notes"] == []
    second = json.loads((trained / "02_stage/manifest.json").read_text())
    assert found["metrics"]["val/mrr"][1] == second["metrics"]["val/mrr"] != found["metrics"]["val/mrr"][0]
    assert "B - A" in curricle(place, "compare", "01_stage", "02_stage").stdout


def test_the_global_batch_figures_reach_tensorboard_with_true_values(place, trained):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(place / "outputs/sequential_01-02/02_stage"))
    events.Reload()
    values = {
        name: events.Scalars(f"train/global_batch/{name}")[0].value
        for name in (
            "global_batch_size",
            "global_k_negatives",
            "global_negatives_memory_mb",
            "similarity_matrix_memory_mb",
            "global_hard_negatives_used",
        )
    }
    assert values["global_batch_size"] == 256 and values["global_k_negatives"] == 2124
    assert values["global_negatives_memory_mb"] == pytest.approx(2125 * 8 * 4 / 2**20, rel=1e-5)
    assert values["similarity_matrix_memory_mb"] == pytest.approx(256 * 2125 * 4 / 2**20, rel=1e-5)
    assert values["global_hard_negatives_used"] == 0


def test_two_ranks_train_the_classic_objective_on_negatives_of_the_whole_batch(place, trained):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    curricle(
        place,
        "train",
        "--curriculum",
        "classic_01",
        "--from-checkpoint",
        "02_stage",
        "paths.store_uri=checkpoints",
        "model.dim=8",
        "model.max_tokens=16",
        "training.trainer.max_epochs=1",
        "tracking.mlflow=false",
        "training.trainer.devices=2",
        "training.trainer.accelerator=cpu",
        "curriculum.n_positives=1",
        "curriculum.n_negatives=4",
        "curriculum.anchor_level=[2, 3]",
        "tracking.log_every_n_steps=1",
    )
    made = json.loads((place / "checkpoints/sequential_classic_01/classic_01/manifest.json").read_text())
    assert made["info"]["world_size"] == 2
    events = EventAccumulator(str(place / "outputs/sequential_classic_01/classic_01"))
    events.Reload()
    assert events.Scalars("train/global_batch/global_batch_size")[0].value == 64
    assert events.Scalars("train/global_batch/global_hard_negatives_used")[0].value == 1
    assert events.Scalars("train/global_batch/global_k_negatives")[0].value > 4, (
        "more negatives than a rank drew for an anchor itself"
    )


def test_a_complete_chain_is_skipped_and_says_so(place, trained):
    before = (trained / "02_stage/manifest.json").stat().st_mtime_ns
    done = train(place, "--curricula", "01_stage,02_stage")
    assert done.stdout.count("already complete with this digest") >= 2
    assert (trained / "02_stage/manifest.json").stat().st_mtime_ns == before


def test_a_stage_continues_the_best_checkpoint_of_a_stage_by_name(place, trained):
    done = train(place, "--curricula", "05_stage", "--from-checkpoint", "02_stage")
    assert "best of 1 checkpoint of 02_stage" in done.stdout
    made = json.loads((place / "checkpoints/sequential_05/05_stage/manifest.json").read_text())
    assert "02_stage-epoch=" in made["lineage"]["parent_uri"]


def test_a_truncated_checkpoint_is_an_error_and_not_a_new_start(place, trained):
    broken = place / "broken.ckpt"
    best = next((trained / "02_stage").glob("02_stage-epoch=*.ckpt"))
    shutil.copytree(best, broken)
    weights = broken / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    done = train(place, "--curricula", "04_stage", "--from-checkpoint", str(broken), expect=2)
    assert "model.safetensors" in done.stderr
    assert not (place / "checkpoints/sequential_04/04_stage/manifest.json").exists()


def test_the_result_is_found_searched_assigned_and_exported(place, trained):
    hits = json.loads(curricle(place, "search", "--json", "--model", "02_stage", "apple orchards").stdout)["hits"]
    assert hits[0]["code"] == "111331" and len(hits) == 5
    (place / "in.csv").write_text('id,text\n1,apple orchards\n2,"breweries, small"\n')
    curricle(place, "assign", "in.csv", "--column", "text", "-o", "out.csv", "--model", "02_stage")
    rows = (place / "out.csv").read_text().splitlines()
    assert rows[0] == "id,text,code,title,confidence,review,alternatives,model_version" and len(rows) == 3
    assert rows[1].startswith("1,apple orchards,111331,")
    import numpy as np

    curricle(place, "export", "-o", "codes.npz", "--model", "02_stage")
    with np.load(place / "codes.npz") as codes:
        assert codes["coordinates"].shape == (2125, 8)
        assert np.allclose(codes["time"] ** 2 - (codes["coordinates"] ** 2).sum(1), 1)


def test_the_compiled_pipeline_gives_the_same_digests_and_weights(place, trained):
    from safetensors.numpy import load_file

    overrides = " ".join(TINY)
    curricle(
        place,
        "pipeline",
        "run",
        "--local",
        str(ROOT / "kfp_pipelines/compiled/chain_smoke.yaml"),
        "store_uri=piped",
        f"overrides={overrides}",
        "data_source=demo",
        "run_id=sequential_01-02",
    )
    for stage in ("01_stage", "02_stage"):
        one = json.loads((trained / stage / "manifest.json").read_text())
        other = json.loads((place / "piped/sequential_01-02" / stage / "manifest.json").read_text())
        assert one["digest"] == other["digest"]
        a, b = (
            load_file(folder / stage / m["info"]["best"] / "model.safetensors")
            for folder, m in ((trained, one), (place / "piped/sequential_01-02", other))
        )
        assert a.keys() == b.keys() and all((a[k] == b[k]).all() for k in a)
