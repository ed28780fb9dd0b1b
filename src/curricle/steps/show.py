"""Show: what a store holds, run by run and stage by stage."""

from __future__ import annotations

import json
import re
from typing import Any

from curricle.errors import StoreError
from curricle.store import layout, open_store
from curricle.store.failure import Failure
from curricle.store.manifest import read_manifest

_STAGE_FILE = re.compile(r"([^/]+)/([^/]+)/(stage\.json|manifest\.json|failure\.json)")


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


def latest_stage(store_uri: str, family: str) -> str:
    """The place of the newest complete stage of a family.

    Raises:
        StoreError: there is none.
    """
    newest: tuple[str, str] | None = None
    for row in _stages(store_uri, ""):
        if row["state"] == "complete" and row["family"] in (family, ""):
            newest = max(newest or ("", ""), (row["created"], f"{store_uri.rstrip('/')}/{row['run']}/{row['stage']}"))
    if newest is None:
        raise StoreError(
            f"{store_uri} holds no complete {family} stage; train one first (curricle train-curriculum --chain chain_smoke)"
        )
    return newest[1]


def _stages(store_uri: str, run: str) -> list[dict[str, Any]]:
    store = open_store(store_uri)
    seen: dict[tuple[str, str], set[str]] = {}
    for entry in store.list(f"{run}/" if run else ""):
        found = _STAGE_FILE.fullmatch(entry.key)
        if found and found[1] not in (layout.DATA, layout.IMPORTED):
            seen.setdefault((found[1], found[2]), set()).add(found[3])
    rows = []
    for (run_id, stage), files in sorted(seen.items()):
        prefix = f"{run_id}/{stage}"
        spec = json.loads(store.read(f"{prefix}/{layout.STAGE}") or b"{}")
        row: dict[str, Any] = {
            "run": run_id,
            "stage": stage,
            "state": "interrupted",
            "start": spec.get("start", ""),
            "family": spec.get("family", ""),
            "digest": spec.get("digest", "")[:12],
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
