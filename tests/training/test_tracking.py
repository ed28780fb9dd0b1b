"""TensorBoard and MLflow get true values; neither stops a training."""

from dataclasses import replace
from pathlib import Path

import pytest

from curricle.config.schema import StageConfig, TrackingConfig
from curricle.errors import Interrupted
from curricle.training import worker
from curricle.training.events import Warned
from curricle.training.tracking import Tracker
from tests.training.toy import Toy, make_config, make_stage


def curves(folder: Path) -> dict[str, list[tuple[int, float]]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder))
    events.Reload()
    return {name: [(e.step, e.value) for e in events.Scalars(name)] for name in events.Tags()["scalars"]}


def train(uri, report=None):
    return worker.run(uri, build=Toy, schema=StageConfig, report=report)


def tracked(tmp_path, **changes):
    settings = TrackingConfig(
        tensorboard=True, mlflow=True, mlflow_uri=f"sqlite:///{tmp_path}/mlflow.db", log_every_n_steps=1
    )
    return make_stage(tmp_path, replace(make_config(tmp_path), tracking=replace(settings, **changes)))


@pytest.mark.filterwarnings("ignore")
def test_curves_params_and_tags_reach_both_and_a_resumed_stage_goes_on_in_the_same_run(tmp_path, monkeypatch):
    from mlflow.tracking import MlflowClient

    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    uri, events = tracked(tmp_path), []
    monkeypatch.setenv("TOY", "term@8")
    with pytest.raises(Interrupted):
        train(uri, events.append)
    monkeypatch.delenv("TOY")
    result = train(uri, events.append)
    assert not [e for e in events if isinstance(e, Warned)]
    found = curves(tmp_path / "outputs" / "sequential_01" / "01_stage")
    assert [step for step, _ in found["train/loss"]] == list(range(1, 19))
    assert found["train/global_batch/rows"][0] == (1, 8.0)
    assert [step for step, _ in found["val_loss"]] == [6, 12, 18]
    assert min(value for _, value in found["val_loss"]) == pytest.approx(result.metrics["val_loss"])
    client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    runs = client.search_runs([client.get_experiment_by_name("curricle").experiment_id])
    assert len(runs) == 1, "a resumed stage goes on in its MLflow run"
    run = runs[0]
    assert run.info.run_name == "sequential_01/01_stage" and run.info.status == "FINISHED"
    assert run.data.params["training.learning_rate"] == "0.02" and run.data.tags["curricle.digest"] == "d1"
    assert run.data.params["effective.learning_rate"] == "0.02" and "effective.precision" in run.data.params
    assert sorted({m.step for m in client.get_metric_history(run.info.run_id, "train/loss")}) == list(range(1, 19))


def test_tensorboard_shows_the_settings_and_compares_stages_by_them_and_no_chart_goes_before_the_losses(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    uri, events = tracked(tmp_path, mlflow=False), []
    train(uri, events.append)
    assert not [e for e in events if isinstance(e, Warned)]
    found = EventAccumulator(str(tmp_path / "outputs" / "sequential_01" / "01_stage"))
    found.Reload()
    assert sorted(name.partition("/")[0] for name in found.Tags()["scalars"])[0] == "train"
    assert b"|training.learning_rate|`0.02`|" in found.Tensors("settings/text_summary")[0].tensor_proto.string_val[0]
    content = found.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    settings = HParamsPluginData.FromString(content).session_start_info.hparams
    assert settings["effective.learning_rate"].number_value == 0.02


def test_no_group_of_charts_goes_before_that_of_the_losses(tmp_path):
    tracker = Tracker(folder=tmp_path, mlflow_uri=None, experiment="e", run_name="r", params={}, tags={}, purge_step=None, warn=print)  # fmt: skip
    tracker.log({"structure/pearson": 0.5, "train/loss": 1.0, "val/top1": 0.5, "train/epoch": 1.0}, 1)
    tracker.close()
    assert sorted(curves(tmp_path)) == ["train/epoch", "train/loss", "val/structure/pearson", "val/top1"]


def test_a_backend_that_fails_is_one_warning_and_training_goes_on(tmp_path):
    (tmp_path / "outputs").write_text("a file where TensorBoard wants a folder")
    uri, events = tracked(tmp_path, mlflow_uri="nonsense://nowhere"), []
    assert train(uri, events.append).epochs == 3
    messages = [e.message for e in events if isinstance(e, Warned)]
    assert len(messages) == 2 and "TensorBoard is left out" in messages[0] and "MLflow is left out" in messages[1]


def test_the_warning_of_a_backend_shows_no_password(tmp_path):
    uri, events = tracked(tmp_path), []
    away = "nonsense://anna:hunter2@nowhere"
    worker.run(uri, build=Toy, schema=StageConfig, report=events.append, mlflow_uri=away)
    (message,) = [e.message for e in events if isinstance(e, Warned)]
    assert "MLflow is left out" in message and "hunter2" not in message


def test_log_returns_at_once_however_slow_a_backend_is(tmp_path, monkeypatch):
    import time

    from curricle.training import tracking

    class Slow:
        def __init__(self, *args):
            time.sleep(0.5)

        def write(self, points):
            time.sleep(0.5)

        def close(self, status):
            pass

    monkeypatch.setattr(tracking, "_TensorBoard", Slow)
    said = []
    tracker = Tracker(
        folder=tmp_path,
        mlflow_uri=None,
        experiment="e",
        run_name="r",
        params={},
        tags={},
        purge_step=None,
        warn=said.append,
    )
    begin = time.perf_counter()
    for step in range(100):
        tracker.log({"a": 1.0}, step)
    assert time.perf_counter() - begin < 0.2
    tracker.close(patience=0.1)
    assert len(said) == 1 and "did not end" in said[0]


@pytest.mark.filterwarnings("ignore")
def test_a_name_that_mlflow_refuses_is_written_under_one_that_it_takes(tmp_path, monkeypatch):
    from mlflow.tracking import MlflowClient

    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    said, place = [], f"sqlite:///{tmp_path}/mlflow.db"
    tracker = Tracker(
        folder=None,
        mlflow_uri=place,
        experiment="e",
        run_name="r",
        params={},
        tags={},
        purge_step=None,
        warn=said.append,
    )
    tracker.log({"val/hit@10": 0.5, "val/f1/R&D": 0.25, "val/f1/Straße": 1.0}, 1)
    tracker.close()
    client = MlflowClient(place)
    (run,) = client.search_runs([client.get_experiment_by_name("e").experiment_id])
    assert not said and run.data.metrics == {"val/hit_at_10": 0.5, "val/f1/R_D": 0.25, "val/f1/Straße": 1.0}
