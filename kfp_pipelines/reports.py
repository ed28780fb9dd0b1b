"""The pages that tasks emit: the very ones of `curricle report`, of a stage and of the run so far. Decides which, and makes none itself."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

from curricle.errors import CurricleError, StoreError
from curricle.report.build import run_page, stage_page, write_reports
from curricle.report.facts import RunFacts, StageFacts, read_run
from curricle.report.track import track_reports
from curricle.store import layout, split_uri
from curricle.store.manifest import Manifest


def of_stage(name: str, place: str, manifest: Manifest) -> str:
    """The page of a stage, wherever it lies: another run's is reused.

    Args:
        place: the stage's place; empty for one that was not selected and has none before it.
        manifest: what is there; of what is no stage of a run (a published checkpoint) the page says no more.
    """
    if not place:
        return _bare(name, "not selected", "The run does not train it, and there is no stage before it.", {}, {})
    base, stage_name = split_uri(place)
    with suppress(StoreError):
        store_uri, run = split_uri(base)
        known = read_run(store_uri, run)
        found = next((one for one in known.stages if one.place == f"{known.run}/{stage_name}"), None)
        if found is not None:
            return stage_page(known, found, links=False)
    return _bare(name, "complete", "", manifest.metrics, manifest.info)


def _bare(name: str, state: str, detail: str, metrics: Mapping[str, float], info: Mapping[str, Any]) -> str:
    stage = StageFacts(name, "", state, detail, "", str(info.get("family", "")), False, False, metrics=metrics, info=info)  # fmt: skip
    return stage_page(RunFacts("", "", [stage], "", {}), stage, links=False)


def of_run(store_uri: str, run: str, uri: str, found: Mapping[str, Any], verdict: Mapping[str, Any] = {}) -> str:
    """The page of a run whose result has been measured; its reports in the store, and in MLflow where it is tracked, become those of now.

    Args:
        uri: the measured stage or checkpoint.
        found: `steps.findings.find`.
        verdict: what the gate will say; empty for what it has said.
    """
    place = uri.rstrip("/").rpartition("/")[0] if layout.is_checkpoint(uri.rstrip("/").rpartition("/")[2]) else uri
    base, stage_name = split_uri(place)
    try:
        known = read_run(store_uri, run)
    except StoreError:  # no plan of it: a task that is run by itself
        store_uri, run = split_uri(base)
        known = read_run(store_uri, run)
    leave(known.store_uri, known.run, track=True)
    key = "/".join((split_uri(base)[1], stage_name))
    stages = [replace(one, findings=found) if one.place == key else one for one in known.stages]
    return run_page(replace(known, stages=stages, verdict=verdict or known.verdict), links=False)


def leave(store_uri: str, run: str, track: bool = False) -> None:
    """Write a run's reports into its store; what goes wrong is printed and ends nothing."""
    try:
        print(f"report: {write_reports(store_uri, run)}")
        if track:
            track_reports(store_uri, run)
    except CurricleError as error:
        print(f"no report in the store: {error}")
