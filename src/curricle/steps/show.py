"""Show: what a store holds, run by run and stage by stage."""

from __future__ import annotations

from typing import Any

from curricle.errors import ConfigError, StoreError
from curricle.planning import StagePlan
from curricle.registry import family, names
from curricle.steps.source import read_plan
from curricle.store import Store, layout, open_store
from curricle.store.failure import Failure
from curricle.store.manifest import read_manifest
from curricle.store.runs import RunPlace, StagePlace, survey

EARLIER = "of an earlier plan"
"""Said of a stage that lies in a run, and that the run's newest plan does not name."""
SHOWN = 4
"""So many metrics of a stage are shown."""


def list_runs(store_uri: str) -> list[dict[str, Any]]:
    """One row a run: its id, its stages and their states."""
    store = open_store(store_uri)
    runs = {run: _rows(store, store_uri, place) for run, place in survey(store).items()}
    return [{"run": run, "stages": _stages(rows)} for run, rows in runs.items() if rows]


def describe_run(store_uri: str, run: str) -> list[dict[str, Any]]:
    """One row a stage of a run: state, start, what it reached, or why it failed.

    First the stages of the run's newest plan, in order, wherever they lie (a reused one may lie in another run); then what else was trained in
    the run's place, marked as ``earlier``.

    Raises:
        StoreError: there is no such run; lists those there are.
    """
    store = open_store(store_uri)
    place = survey(store, run).get(run)
    rows = _rows(store, store_uri, place) if place else []
    if not rows:
        runs = [row["run"] for row in list_runs(store_uri)]
        raise StoreError(f"{store_uri} holds no run {run!r}; runs there: {', '.join(runs) or 'none'}")
    return rows


def _stages(rows: list[dict[str, Any]]) -> str:
    """The stages of a run with their states, in a line."""
    said = [
        f"{row['stage']} {row['state']}{' (reused)' if row['start'] == 'reuse' else ''}".strip()
        for row in rows
        if not row["earlier"]
    ]
    earlier = sum(row["earlier"] for row in rows)
    return ", ".join([*said, *([f"and {earlier} {EARLIER}"] if earlier else [])])


def _rows(store: Store, store_uri: str, run: RunPlace) -> list[dict[str, Any]]:
    trained = {place.prefix: place for place in run.trained()}
    rows = []
    planned = layout.PLAN in run.files and not run.run.startswith(layout.SEARCH)  # a search plans trial by trial
    try:
        plan = read_plan(store_uri, run.run) if planned else None
    except ConfigError as error:
        plan = None
        rows = [_row(run.run, "", "unreadable plan") | {"detail": str(error)}]
    for stage in plan.selected if plan else ():
        prefix = "/".join(stage.uri.split("/")[-2:])
        rows.append(_planned(store, run.run, stage, trained.pop(prefix, None) or _place(store, prefix)))
    for place in trained.values():
        rows.append(_trained(store, place) | {"earlier": plan is not None})
    return rows


def _place(store: Store, prefix: str) -> StagePlace | None:
    """The place of a stage, wherever it lies; None where nothing was trained there."""
    run, _, stage = prefix.partition("/")
    found = survey(store, run).get(run)
    return next((place for place in found.trained() if place.stage == stage), None) if found else None


def _planned(store: Store, run: str, stage: StagePlan, place: StagePlace | None) -> dict[str, Any]:
    if place is None:
        missing = "is not there any more" if stage.start == "reuse" else ""
        row = _row(run, stage.uri.rpartition("/")[2], "missing" if missing else "not begun") | {
            "family": stage.family,
            "digest": stage.digest[:12],
            "detail": f"{stage.uri} {missing}" if missing else "",
        }
    else:
        row = _trained(store, place) | {"run": run}
        if place.run != run:
            row |= {"stage": stage.name, "detail": "; ".join(filter(None, (f"in {place.prefix}", row["detail"])))}
    return row | {"start": stage.start}


def _trained(store: Store, place: StagePlace) -> dict[str, Any]:
    prefix, files = place.prefix, place.files
    spec = layout.read_record(store.read(f"{prefix}/{layout.STAGE}"))
    row = _row(place.run, place.stage, "interrupted") | {
        "start": spec.get("start", ""),
        "family": spec.get("family", ""),
        "digest": str(spec.get("digest", ""))[:12],
    }
    manifest = read_manifest(store, prefix) if layout.MANIFEST in files else None
    if manifest:
        row |= {
            "state": "complete",
            "created": manifest.created,
            "detail": _best(manifest.metrics, str(manifest.info.get("family", ""))),
        }
    elif failure := Failure.read(store, prefix) if layout.FAILURE in files else None:
        row |= {"state": "failed", "detail": failure.why}
    return row


def _row(run: str, stage: str, state: str) -> dict[str, Any]:
    blank = dict.fromkeys(("start", "family", "digest", "created", "detail"), "")
    return {"run": run, "stage": stage, "state": state, "earlier": False} | blank


def _best(metrics: dict[str, float], name: str) -> str:
    """The metrics that say most, by the family that measured them."""
    entry = family(name) if name in names() else None
    said = dict.fromkeys((*entry.headlines, "val_loss", *entry.columns) if entry else ())
    keys = [key for key in said if key in metrics] or sorted(metrics)
    return ", ".join(f"{key} {metrics[key]:.4f}" for key in keys[:SHOWN])
