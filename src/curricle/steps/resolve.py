"""Resolve: which checkpoint a chain starts from. An explicit source that is missing or broken is an error, never a detour."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from curricle.config.schema import TrackingConfig
from curricle.errors import CheckpointError, CurricleError
from curricle.plan import Source
from curricle.store import Store, join_uri, layout, open_store
from curricle.store.manifest import Manifest, read_manifest


@dataclass(frozen=True)
class Candidate:
    """A complete checkpoint of a stage, with its validation loss."""

    uri: str
    val_loss: float
    manifest: Manifest


def resolve_source(text: str, store_uri: str) -> Source:
    """The checkpoint that ``--from-checkpoint`` means.

    Args:
        text: a stage name (the lowest validation loss over all runs wins), the path or URI of a checkpoint or of a stage, or an MLflow
            run id (32 hex digits).
        store_uri: where runs are looked for by name.

    Raises:
        CheckpointError: nothing complete was found; lists what is there.
    """
    if "/" in text or text.endswith(".ckpt"):
        return _at(text)
    if re.fullmatch(r"[0-9a-f]{32}", text):
        return _of_mlflow_run(text)
    return _of_stage(text, store_uri)


def best_checkpoint(place_uri: str) -> str:
    """The best checkpoint of a complete stage, by URI.

    Raises:
        CheckpointError: the stage is not complete.
    """
    manifest = read_manifest(open_store(place_uri), "")
    if manifest is None or manifest.kind != "stage":
        raise CheckpointError(
            f"{place_uri} holds no complete stage ({layout.MANIFEST} is missing); {_listing(place_uri)}"
        )
    return join_uri(place_uri, manifest.info["best"])


def _at(uri: str) -> Source:
    uri = uri.rstrip("/")
    manifest = read_manifest(open_store(uri), "")
    if manifest is None:
        raise CheckpointError(
            f"--from-checkpoint {uri}: no complete checkpoint there ({layout.MANIFEST} is missing); {_listing(uri)}"
        )
    if manifest.kind == "stage":
        best = best_checkpoint(uri)
        return Source(best, manifest.digest, f"best checkpoint of {uri}")
    if manifest.kind != "checkpoint":
        raise CheckpointError(f"--from-checkpoint {uri} is a {manifest.kind}, not a checkpoint")
    return Source(uri, manifest.digest, f"--from-checkpoint {uri}")


def _of_stage(stage: str, store_uri: str) -> Source:
    store = open_store(store_uri)
    good, broken, stages = find_checkpoints(store, store_uri, stage)
    if not good:
        found = "; unreadable: " + "; ".join(broken) if broken else ""
        trained = (
            f"stages with checkpoints there: {', '.join(stages)}" if stages else "no checkpoint of any stage is there"
        )
        raise CheckpointError(
            f"--from-checkpoint {stage}: {store_uri} holds no complete checkpoint of stage {stage!r}{found}; {trained}. "
            f"Train {stage} first, or give the path of a checkpoint"
        )
    best = min(good, key=lambda c: c.val_loss)
    ties = [c for c in good if c.val_loss == best.val_loss]
    best = max(ties, key=lambda c: (c.manifest.created, c.uri))
    reason = f"best of {len(good)} checkpoint{'s' * (len(good) > 1)} of {stage} (val_loss {best.val_loss:.4f})"
    if len(ties) > 1:
        reason += f"; {len(ties)} tie, the newest was taken"
    if broken:
        reason += f"; left out as unreadable: {'; '.join(broken)}"
    return Source(best.uri, best.manifest.digest, reason)


def _of_mlflow_run(run_id: str) -> Source:
    """The stage that an MLflow run tracked: its tags and parameters say which."""
    tracking = os.environ.get("MLFLOW_TRACKING_URI", TrackingConfig().mlflow_uri)
    path = tracking.removeprefix("sqlite:///")
    if path != tracking and not Path(path).is_file():
        raise CheckpointError(
            f"--from-checkpoint {run_id} looks like an MLflow run id, but {tracking} is not there; set MLFLOW_TRACKING_URI"
        )
    from mlflow.exceptions import MlflowException
    from mlflow.tracking import MlflowClient

    try:
        run = MlflowClient(tracking).get_run(run_id)
    except MlflowException as error:
        raise CheckpointError(f"--from-checkpoint {run_id}: {tracking} knows no such run ({error.message})") from None
    tags, params = run.data.tags, run.data.params
    missing = [name for name in ("curricle.run", "curricle.stage") if name not in tags] + ["paths.store_uri"] * (
        "paths.store_uri" not in params
    )
    if missing:
        raise CheckpointError(
            f"--from-checkpoint {run_id}: the MLflow run {run.info.run_name} has no {', '.join(missing)}; it is no run of Curricle"
        )
    found = _at(join_uri(params["paths.store_uri"], tags["curricle.run"], tags["curricle.stage"]))
    return Source(found.uri, found.digest, f"MLflow run {run.info.run_name}")


def find_checkpoints(store: Store, store_uri: str, stage: str) -> tuple[list[Candidate], list[str], list[str]]:
    """All checkpoints of a stage in all runs: complete ones, why others are left out, and which stages have any.

    ``last.ckpt`` is never among them: it is for resuming, not for continuing.
    """
    pattern = re.compile(r"(?P<place>[^/]+/(?P<stage>[^/]+))/(?P<name>[^/]+\.ckpt)/(?P<file>.+)")
    folders: dict[tuple[str, str, str], set[str]] = {}
    for entry in store.list(""):
        found = pattern.fullmatch(entry.key)
        if found and found["name"] != layout.LAST and layout.parse_checkpoint_name(found["name"]):
            folders.setdefault((found["stage"], found["place"], found["name"]), set()).add(found["file"])
    good, broken = [], []
    for (owner, place, name), files in sorted(folders.items()):
        if owner != stage:
            continue
        prefix = f"{place}/{name}"
        try:
            manifest = read_manifest(store, prefix) if layout.MANIFEST in files else None
        except CurricleError as error:
            broken.append(f"{prefix} ({error})")
            continue
        if manifest is None:
            broken.append(f"{prefix} (no {layout.MANIFEST}: its upload never finished)")
        elif (
            not isinstance(manifest.metrics.get("val_loss"), int | float)
            or manifest.metrics["val_loss"] != manifest.metrics["val_loss"]
        ):
            broken.append(f"{prefix} (its manifest gives no val_loss)")
        else:
            good.append(Candidate(join_uri(store_uri, prefix), manifest.metrics["val_loss"], manifest))
    return good, broken, sorted({owner for owner, _, _ in folders})


def _listing(uri: str) -> str:
    """What lies at a place or beside it, for an error message."""
    here = sorted({e.key.split("/")[0] for e in open_store(uri).list("")})
    if here:
        return f"it holds {', '.join(here[:8])}{' ...' * (len(here) > 8)}"
    head = uri.rpartition("/")[0] or "."
    beside = sorted({e.key.split("/")[0] for e in open_store(head).list("")})
    if beside:
        return f"it is empty or missing; {head} holds {', '.join(beside[:8])}{' ...' * (len(beside) > 8)}"
    return f"neither it nor {head} holds anything"
