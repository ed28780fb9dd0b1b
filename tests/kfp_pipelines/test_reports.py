"""What tasks emit is what `curricle report` writes: the same page, of the same store."""

import re
from pathlib import Path
from types import SimpleNamespace

import pytest

from curricle.report.build import run_page, stage_page
from curricle.report.facts import read_run
from curricle.steps.findings import find
from curricle.store import open_store
from curricle.store.manifest import read_manifest
from kfp_pipelines import reports
from kfp_pipelines.artifacts import write_page
from tests.report import made_up
from tests.report.made_up import RUN


@pytest.fixture
def store(tmp_path):
    made = made_up.ner(tmp_path)
    made_up.checkpoints(tmp_path, "ner")
    return made


def without_time(page: str) -> str:
    return re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d UTC", "", page)


def test_a_stage_task_emits_the_stages_report(store):
    manifest = read_manifest(open_store(store), f"{RUN}/two")
    known = read_run(store, RUN)
    page = reports.of_stage("two", f"{store}/{RUN}/two", manifest)
    assert without_time(page) == without_time(stage_page(known, known.result, links=False))
    assert "Not selected" in (bare := reports.of_stage("two", "", manifest)) and "there is no stage before it" in bare
    assert "0.8000 on validation records" in reports.of_stage("other", f"{store}/data/made", manifest)


def test_an_evaluation_emits_the_runs_report_with_the_verdict_to_come_and_leaves_it_in_the_store(store):
    best = next(Path(store, RUN, "two").glob("*.ckpt"))
    found = find(str(best))
    page = reports.of_run(store, RUN, str(best), found)
    assert without_time(page) == without_time(run_page(read_run(store, RUN), links=False))
    assert Path(store, RUN, "report.html").is_file() and Path(store, RUN, "two", "report.html").is_file()
    told = {"decision": "promote", "reason": "new gained", "before": {"new": 0.25}, "after": {"new": 0.75}}
    page = reports.of_run(store, RUN, str(best), found, told)
    assert "Promoted</strong> new gained" in page and "Before and after" in page and ">+50.0<" in page
    by_itself = reports.of_run(store, "another-run", str(best), found)
    assert without_time(by_itself) == without_time(run_page(read_run(store, RUN), links=False))


def test_a_page_has_a_name_that_a_browser_opens(tmp_path):
    class Artifact(SimpleNamespace):
        path = property(lambda self: self.uri)

    artifact = Artifact(uri=str(tmp_path / "stage_report"))
    for _ in range(2):
        write_page(artifact, "<!doctype html>")
    assert [path.name for path in tmp_path.iterdir()] == ["stage_report.html"]
