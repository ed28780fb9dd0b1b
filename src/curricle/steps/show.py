"""Show: what a store holds, run by run and stage by stage."""

from __future__ import annotations

from typing import Any

from curricle.errors import StoreError
from curricle.store import layout, open_store
from curricle.store.failure import Failure
from curricle.store.manifest import read_manifest
from curricle.store.runs import stages as begun_stages


def list_runs(store_uri: str) -> list[dict[str, Any]]:
    """One row a run: its id, its stages and their states."""
    runs: dict[str, list[str]] = {}
    for row in _stages(store_uri, ""):
        runs.setdefault(row["run"], []).append(f"{row['stage']} {row['state']}")
    return [{"run": run, "stages": ", ".join(stages)} for run, stages in runs.items()]


def describe_run(store_uri: str, run: str) -> list[dict[str, Any]]:
    """One row a stage of a run: state, start, best checkpoint, metrics, or why it failed.

    Raises:
        StoreError: there is no such run; lists those there are.
    """
    rows = _stages(store_uri, run)
    if not rows:
        runs = [row["run"] for row in list_runs(store_uri)]
        raise StoreError(f"{store_uri} holds no run {run!r}; runs there: {', '.join(runs) or 'none'}")
    return rows


def _stages(store_uri: str, run: str) -> list[dict[str, Any]]:
    store = open_store(store_uri)
    rows = []
    for place in begun_stages(store, run):
        prefix, files = place.prefix, place.files
        spec = layout.read_record(store.read(f"{prefix}/{layout.STAGE}"))
        row: dict[str, Any] = {
            "run": place.run,
            "stage": place.stage,
            "state": "interrupted",
            "start": spec.get("start", ""),
            "family": spec.get("family", ""),
            "digest": str(spec.get("digest", ""))[:12],
            "created": "",
            "detail": "",
        }
        manifest = read_manifest(store, prefix) if layout.MANIFEST in files else None
        if manifest:
            best = ", ".join(f"{key} {value:.4f}" for key, value in sorted(manifest.metrics.items())[:6])
            row |= {"state": "complete", "created": manifest.created, "detail": best}
        elif failure := Failure.read(store, prefix) if layout.FAILURE in files else None:
            row |= {"state": "failed", "detail": failure.why}
        rows.append(row)
    return rows
