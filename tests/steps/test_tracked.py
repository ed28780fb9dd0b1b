"""What MLflow and TensorBoard are given of a complete stage, by a real database."""

import json
from pathlib import Path

import pytest

from curricle.errors import StoreError
from curricle.planning import ChainPlan
from curricle.report.track import RUN_REPORT, track_reports
from curricle.steps.tracked import hand_over, tracking_of
from curricle.store import layout
from tests.report import made_up
from tests.report.made_up import RUN

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture
def tracked(tmp_path, monkeypatch):
    """(client, the store of a run of two stages, MLflow's run of each)."""
    from mlflow.tracking import MlflowClient

    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    monkeypatch.chdir(tmp_path)
    store = made_up.codes(tmp_path / "store")
    made_up.checkpoints(tmp_path / "store", "codes")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    there = client.create_experiment("e")
    runs = [
        client.create_run(there, tags={"curricle.digest": f"digest{n}", "curricle.run": RUN}).info.run_id
        for n in (0, 1)
    ]
    return client, store, runs


def test_each_stages_run_holds_plan_report_and_card(tracked):
    client, store, runs = tracked
    assert track_reports(store, RUN) == 2
    names = [layout.CARD, layout.PLAN, layout.REPORT]
    assert [sorted(a.path for a in client.list_artifacts(run)) for run in runs] == [names, sorted([*names, RUN_REPORT])]
    held = {name: Path(client.download_artifacts(runs[1], name)).read_text() for name in (*names, RUN_REPORT)}
    assert ChainPlan.from_stored(held[layout.PLAN].encode(), f"{store}/{RUN}").run_id == RUN
    assert held[layout.CARD].startswith("---\nlibrary_name: transformers") and "<h1>two</h1>" in held[layout.REPORT]
    assert f"<h1>{RUN}</h1>" in held[RUN_REPORT] and 'href="../' not in held[layout.REPORT]
    assert track_reports(store, RUN) == 2, "again replaces them"


def test_no_database_is_made_and_what_is_not_tracked_stays_so(tracked, tmp_path, monkeypatch):
    place = f"sqlite:///{tmp_path}/mlflow.db"
    assert tracking_of({}) == place and hand_over(place, "another digest", RUN, {"a": "b"}) is False
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    assert tracking_of({"tracking": {"mlflow": False}}) == ""
    assert tracking_of({"tracking": {"mlflow_uri": "sqlite:///none.db"}}) == "" and not Path("none.db").exists()
    assert tracking_of({}) == "sqlite:///mlflow.db"


def test_what_mlflow_refuses_is_one_error_without_a_password(tracked):
    with pytest.raises(StoreError, match="does not take report.html") as caught:
        hand_over("nonsense://anna:hunter2@nowhere", "d", RUN, {"report.html": ""})
    assert "hunter2" not in str(caught.value)


def test_the_environment_goes_before_the_configuration(monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow:5000")
    assert tracking_of(json.loads('{"tracking": {"mlflow_uri": "sqlite:///x.db"}}')) == "http://mlflow:5000"
