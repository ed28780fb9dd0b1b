"""Show: what a store holds, run by run and stage by stage."""

from __future__ import annotations

from typing import Any

from curricle.errors import ConfigError, StoreError
from curricle.planning import StagePlan
from curricle.registry import canonical, family, names
from curricle.steps.claim import who_trains
from curricle.steps.promote import promoted
from curricle.steps.source import no_run, read_plan
from curricle.store import Store, join_uri, layout, open_store, references
from curricle.store.failure import Failure
from curricle.store.manifest import Manifest
from curricle.store.runs import RunPlace, StagePlace, survey

EARLIER = "of an earlier plan"
"""Said of a stage that lies in a run, and that the run's newest plan does not name."""
SHOWN = 4
"""So many metrics of a stage are shown."""
STOPPED = ("interrupted", "cancelled")
"""Causes of a failure that are none: somebody stopped the stage, and the same command goes on."""
UNREADABLE = "unreadable plan"
DAMAGED = "damaged"
"""State of a stage whose manifest cannot be read."""
WORST_FIRST = ("running", "failed", UNREADABLE, DAMAGED, "missing", "stopped", "not begun", "complete")
"""States of stages; a run is in the first of them that one of its stages is in."""


def list_runs(store_uri: str) -> list[dict[str, Any]]:
    """One row a run, the newest last.

    ``run``, ``damaged`` (what is wrong with its files, a sentence each), ``state`` (that of its stages, `WORST_FIRST`), ``stages`` (all, with their states), ``complete`` and ``planned`` (how many), ``best``
    (the headline metric of its last complete stage), ``changed`` (UTC), ``bytes``, ``promoted``.
    """
    store = open_store(store_uri)
    pins = _pins(store_uri)
    rows = [(place, stages) for place in survey(store).values() if (stages := _rows(store, store_uri, place))]
    return [_run_row(store_uri, place, stages, pins) for place, stages in sorted(rows, key=lambda row: row[0].modified)]


def describe_run(store_uri: str, run: str) -> list[dict[str, Any]]:
    """One row a stage of a run: state, start, what it reached, or why it failed.

    First the stages of the run's newest plan, in order, wherever they lie (a reused one may lie in another run); then what else was trained in
    the run's place, marked as ``earlier``.

    Raises:
        StoreError: there is no such run; lists those there are.
    """
    store, run = open_store(store_uri), layout.run_folder(run)
    place = survey(store, run).get(run)
    rows = _rows(store, store_uri, place) if place else []
    if not rows:
        raise StoreError(no_run(store_uri, run))
    pins = _pins(store_uri)
    for row in rows:
        if row["place"]:
            key = f"{row['place']}/{layout.HISTORY}"
            row["damaged"] += [said for said in (layout.inspect_record(store.read(key), key)[1],) if said]
    return [row | {"promoted": _is_pinned(join_uri(store_uri, row["place"]), pins)} for row in rows]


def _pins(store_uri: str) -> set[str]:
    """Where the promoted models of all families lie; one that cannot be read pins nothing here."""
    pins = set()
    for name in names():
        try:
            pointer = promoted(store_uri, name)
        except StoreError:
            continue
        if pointer:
            pins.add(references.absolute(pointer.uri))
    return pins


def _is_pinned(place: str, pins: set[str]) -> bool:
    place = references.absolute(place)
    return any(pin == place or pin.startswith(f"{place}/") for pin in pins)


def _run_row(store_uri: str, place: RunPlace, rows: list[dict[str, Any]], pins: set[str]) -> dict[str, Any]:
    planned = [row for row in rows if not row["earlier"]]
    states = {row["state"] for row in planned}
    done = [row for row in planned if row["state"] == "complete"]
    return {
        "run": place.run,
        "state": next((state for state in WORST_FIRST if state in states), "complete"),
        "stages": _stages(rows),
        "complete": len(done),
        "planned": sum(row["state"] != UNREADABLE for row in planned),
        "best": done[-1]["headline"] if done else "",
        "changed": layout.time_of(place.modified) if place.modified else "",
        "bytes": place.bytes,
        "damaged": [
            said for row in rows for said in (*row["damaged"], *[row["detail"]] * (row["state"] == UNREADABLE))
        ],
        "promoted": any(_is_pinned(join_uri(store_uri, row["place"]), pins) for row in planned if row["place"]),
    }


def _stages(rows: list[dict[str, Any]]) -> str:
    """The stages of a run with their states, in a line."""
    said = [
        f"{row['stage']} {row['state']}{' (reused)' if row['reused'] else ''}".strip()
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
        rows = [_row(run.run, "", UNREADABLE) | {"detail": str(error)}]
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
    began = (
        row["start"] if row["state"] == "complete" else ""
    )  # a later plan reuses it, and does not say how it came about
    return row | {"start": began or stage.start, "reused": stage.start == "reuse"}


def _trained(store: Store, place: StagePlace) -> dict[str, Any]:
    prefix, files = place.prefix, place.files
    spec, damaged = layout.inspect_record(store.read(f"{prefix}/{layout.STAGE}"), f"{prefix}/{layout.STAGE}")
    row = _row(place.run, place.stage, "stopped") | {
        "damaged": [damaged] if damaged else [],
        "start": spec.get("start", ""),
        "family": canonical(spec.get("family", "")),
        "digest": str(spec.get("digest", ""))[:12],
        "place": prefix,
    }
    text = store.read(key := f"{prefix}/{layout.MANIFEST}") if layout.MANIFEST in files else None
    try:
        manifest = None if text is None else Manifest.from_json(text, key)
    except StoreError as error:
        return row | {"state": DAMAGED, "damaged": [*row["damaged"], str(error)]}
    if manifest:
        return row | _complete(manifest)
    if layout.CLAIM in files and (owner := who_trains(store, prefix)):
        return row | {"state": "running", "detail": "; ".join(filter(None, (_so_far(place), str(owner))))}
    failure = Failure.read(store, prefix) if layout.FAILURE in files else None
    if failure and failure.cause not in STOPPED:
        return row | {"state": "failed", "created": failure.time, "detail": failure.why}
    return row | {"detail": f"{_so_far(place) or 'nothing saved yet'}; the same command goes on"}


def _complete(manifest: Manifest) -> dict[str, Any]:
    shown = said_most(manifest.metrics, canonical(manifest.info.get("family", "")))
    epochs = manifest.info.get("epochs")
    return {
        "state": "complete",
        "created": manifest.created,
        "epochs": epochs if isinstance(epochs, int) else None,
        "headline": shown[0] if shown else "",
        "detail": ", ".join(shown),
    }


def _so_far(place: StagePlace) -> str:
    """The best checkpoint of a stage that is not complete, by its name."""
    named = [parts for name in place.checkpoints if (parts := layout.parse_checkpoint_name(name))]
    if not named:
        return ""
    best = min(named, key=lambda parts: parts.val_loss)
    return f"best so far epoch {best.epoch}, val_loss {best.val_loss:.4f}"


def _row(run: str, stage: str, state: str) -> dict[str, Any]:
    blank = dict.fromkeys(("start", "family", "digest", "created", "place", "headline", "detail"), "")
    return {
        "run": run,
        "stage": stage,
        "state": state,
        "earlier": False,
        "epochs": None,
        "reused": False,
        "damaged": [],
    } | blank


def said_most(metrics: dict[str, float], name: str) -> list[str]:
    """The metrics that say most, by the family that measured them, the first one most of all."""
    entry = family(name) if name in names() else None
    keys = (entry.said_most(metrics) if entry else []) or sorted(metrics)
    return [f"{key} {metrics[key]:.4f}" for key in keys[:SHOWN]]
