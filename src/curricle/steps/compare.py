"""Compare trained models: what was set differently, what was measured, side by side; and the matrix of scores of a chain of trainings."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from curricle.config.load import leaves
from curricle.config.schema import NOT_IN_DIGEST
from curricle.errors import CheckpointError, DataError
from curricle.families import family
from curricle.families.ner.forgetting import matrix
from curricle.plan import ChainPlan
from curricle.steps.evaluate import evaluate_model
from curricle.steps.resolve import resolve_source
from curricle.store import join_uri, layout, open_store, split_uri
from curricle.store.manifest import fetch, read_manifest

HEADLINES = ("test/f1", "test/top1", "val/f1", "val/top1")


@dataclass(frozen=True)
class Side:
    """One of the compared models."""

    name: str
    """As it was asked for."""
    uri: str
    stages: tuple[str, ...]
    """Of its run, in order; its own stage alone where it was named by a checkpoint."""
    settings: dict[str, Any]
    """Every value of its last stage, by dotted key."""
    metrics: dict[str, float]
    data_digest: str


@dataclass(frozen=True)
class Comparison:
    """Models side by side."""

    sides: tuple[Side, ...]
    settings: dict[str, list[Any]]
    """Values that differ, by dotted key, one a model; None where a model has no such key."""
    metrics: dict[str, list[float | None]]
    """All that was measured, one value a model."""
    notes: tuple[str, ...]


def compare_models(
    names: Sequence[str], store_uri: str, *, test: bool = False, cache_dir: Path = Path(".curricle")
) -> Comparison:
    """Put models side by side.

    Args:
        names: runs, stages (alone, or behind their run and a slash), or paths or URIs of checkpoints; of a run its last stage counts.
        test: measure each on its test split now, beside the validation metrics that its training left.

    Raises:
        CheckpointError, StoreError: a model is not there, or not complete.
    """
    sides = tuple(_side(name, store_uri) for name in names)
    notes = []
    if len({side.data_digest for side in sides}) > 1:
        notes.append(
            "trained on different data: "
            + ", ".join(f"{s.name} {s.data_digest[:12]}" for s in sides)
            + "; their scores are not of the same texts"
        )
    measured = [side.metrics | (evaluate_model(side.uri, "", cache_dir).metrics if test else {}) for side in sides]
    keys = sorted({key for side in sides for key in side.settings})
    rows = {key: [side.settings.get(key) for side in sides] for key in keys}
    differing = {key: row for key, row in rows.items() if any(value != row[0] for value in row[1:])}
    metrics = {key: [m.get(key) for m in measured] for key in sorted({key for m in measured for key in m})}
    return Comparison(sides, differing, metrics, tuple(notes))


def score_matrix(
    names: Sequence[str], data: Sequence[Path], store_uri: str, cache_dir: Path = Path(".curricle")
) -> tuple[str, list[dict[str, float]]]:
    """The headline figure of every model (rows) on the test records of every dataset (columns): what a chain of trainings won and forgot.

    Returns:
        The table for people, and its rows by dataset.

    Raises:
        DataError: a dataset has nothing to measure on, or two have one name.
    """
    columns = [folder.resolve().name for folder in data]
    if len(set(columns)) < len(columns):
        columns = [str(folder) for folder in data]
    if len(set(columns)) < len(columns):
        raise DataError(f"--data names a folder twice: {', '.join(columns)}")
    rows = []
    for name in names:
        folder, manifest = fetch(_side(name, store_uri).uri, cache_dir)
        evaluate = family(manifest.info.get("family", "ner")).load("evaluate")
        row = {}
        for column, place in zip(columns, data, strict=True):
            found = evaluate(folder, place)
            row[column] = next(found[key] for key in HEADLINES if key in found)
        rows.append(row)
    return matrix(list(names), rows), rows


def _side(name: str, store_uri: str) -> Side:
    store = open_store(store_uri)
    stages: tuple[str, ...] = ()
    wanted = name
    plan = store.read(f"{name}/{layout.PLAN}") if "://" not in name and not Path(name).is_absolute() else None
    if plan is not None:
        planned = [stage for stage in ChainPlan.from_json(plan).stages if stage.start != "skip"]
        stages, wanted = tuple(stage.name for stage in planned), planned[-1].uri
        if read_manifest(open_store(wanted), "") is None:
            raise CheckpointError(
                f"run {name} is not complete: its last stage {planned[-1].name} has no {layout.MANIFEST} at {wanted}; "
                "run the same command again, it goes on from there"
            )
    elif "/" in name and "://" not in name and store.read(f"{name}/{layout.MANIFEST}") is not None:
        wanted = join_uri(store_uri, name)
    source = resolve_source(wanted, store_uri)
    place = split_uri(source.uri)[0]
    spec = json.loads(open_store(place).read(layout.STAGE) or b"{}")
    stage, checkpoint = read_manifest(open_store(place), ""), read_manifest(open_store(source.uri), "")
    best = (
        stage if stage and stage.kind == "stage" and stage.info.get("best") == split_uri(source.uri)[1] else checkpoint
    )
    assert best is not None
    settings = {
        key: value
        for key, value in leaves(spec.get("config") or {}).items()
        if not key.startswith(("tracking", *NOT_IN_DIGEST))
    }
    return Side(
        name,
        source.uri,
        stages or (split_uri(place)[1],),
        settings,
        dict(best.metrics),
        best.lineage.get("data_digest") or "",
    )
