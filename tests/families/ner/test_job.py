"""A NER stage as a genuine job of two processes: check 37 of the specification."""

import json
import random
import warnings
from pathlib import Path

import pytest

from curricle.config.load import to_tree
from curricle.config.schema import DataLoaderConfig, PathsConfig, TrackingConfig, TrainerConfig, TrainingConfig
from curricle.families.ner.config import NerConfig, NerData, NerModel
from curricle.families.ner.evaluate import evaluate
from curricle.families.ner.predict import calibrate, load_tagger
from curricle.launch.job import Job
from curricle.launch.local import LocalLauncher
from curricle.steps.prepare import data_digest, prepare_data
from curricle.store import join_uri, open_store, references
from curricle.training.spec import StageSpec


def dataset(folder: Path) -> Path:
    draw, folder = random.Random(0), folder / "source"
    folder.mkdir()
    for split, count in (("train", 12), ("validation", 7)):
        records = []
        for i in range(count):
            name, verb = draw.choice(["Ann", "Bo", "Cem"]) + str(i), " ".join(["knows"] * draw.randint(1, 9))
            records.append(
                {
                    "text": f"{name} {verb} Go",
                    "annotations": [
                        [0, len(name), "NAME"],
                        [len(name) + len(verb) + 2, len(name) + len(verb) + 4, "SKILL"],
                    ],
                }
            )
        (folder / f"{split}.json").write_text(json.dumps(records))
    return folder


@pytest.fixture(scope="module")
def stage(tmp_path_factory, tiny_encoder) -> Path:
    """A stage trained by two ranks."""
    place = tmp_path_factory.mktemp("job")
    config = NerConfig(
        data=NerData(new_dataset_path=str(dataset(place))),
        model=NerModel(encoder=str(tiny_encoder), max_tokens=12, stride=4),
        experiment_name="two-ranks",
        paths=PathsConfig(
            store_uri=str(place / "store"), outputs_dir=str(place / "outputs"), cache_dir=str(place / "cache")
        ),
        training=TrainingConfig(
            learning_rate=2e-2, trainer=TrainerConfig(max_epochs=3, devices=2, accelerator="cpu", precision="32-true")
        ),
        data_loader=DataLoaderConfig(batch_size=4),
        tracking=TrackingConfig(tensorboard=False, mlflow_uri=f"sqlite:///{place}/mlflow.db"),
    )
    data_uri = prepare_data(config)
    uri = join_uri(config.paths.store_uri, "r1", "training")
    spec = StageSpec(
        run_id="r1",
        stage="training",
        digest="d",
        family="ner",
        config=to_tree(config),
        start="scratch",
        data_uri=data_uri,
        data_digest=data_digest(data_uri),
    )
    open_store(uri).write("stage.json", spec.to_json(uri).encode())
    launcher, lines = LocalLauncher(), []
    outcome = launcher.wait(
        launcher.submit(Job("ner", ("-m", "curricle.training.worker", "--stage-uri", uri), 1, 2)), lines.append
    )
    assert outcome.state == "succeeded", lines
    return Path(uri)


def test_two_processes_are_one_training_that_counts_each_validation_record_once(stage):
    from mlflow.tracking import MlflowClient

    manifest = json.loads((stage / "manifest.json").read_text())
    assert manifest["info"]["world_size"] == 2
    alone = evaluate(
        stage / manifest["info"]["best"], Path(references.resolve(manifest["lineage"]["data_uri"], str(stage)))
    )
    best = json.loads((stage / manifest["info"]["best"] / "manifest.json").read_text())["metrics"]
    assert best["val_loss"] == pytest.approx(alone["val/loss"], rel=1e-5)
    assert {k: best[k] for k in ("val/f1", "val/precision", "val/recall", "val/f1/NAME")} == pytest.approx(
        {k: alone[k] for k in ("val/f1", "val/precision", "val/recall", "val/f1/NAME")}
    )
    tagger = load_tagger(stage / manifest["info"]["best"])
    theirs, data = tagger.calibration, references.resolve(manifest["lineage"]["data_uri"], str(stage))
    assert theirs is not None and theirs.spans.count == calibrate(tagger, data).spans.count, "the spans of both ranks"
    assert theirs.spans.scale == pytest.approx(tagger.calibration.spans.scale, abs=0.01)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # mlflow's own, of sqlalchemy 2.1
        client = MlflowClient(f"sqlite:///{stage.parents[2]}/mlflow.db")
        runs = client.search_runs([client.get_experiment_by_name("two-ranks").experiment_id])
        points = client.get_metric_history(runs[0].info.run_id, "val_loss")
    assert len(runs) == 1 and runs[0].info.status == "FINISHED" and len(points) == 3
