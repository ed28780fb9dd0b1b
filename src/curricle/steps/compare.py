"""Compare trained models: what was set differently, what was measured, side by side; and the matrix of scores of a chain of trainings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from curricle.config.load import leaves
from curricle.config.schema import NOT_IN_DIGEST
from curricle.errors import DataError
from curricle.registry import FamilyEntry
from curricle.steps.evaluate import CACHE, entry_of, evaluate_model
from curricle.steps.findings import entry_named
from curricle.steps.gate import matrix
from curricle.steps.source import read_plan, resolve_source
from curricle.store import layout, open_store, split_uri
from curricle.store.manifest import fetch, read_manifest


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
    entry: FamilyEntry | None
    """Its family."""


@dataclass(frozen=True)
class Comparison:
    """Models side by side."""

    sides: tuple[Side, ...]
    settings: dict[str, list[Any]]
    """Values that differ, by dotted key, one a model; None where a model has no such key."""
    metrics: dict[str, list[float | None]]
    """All that was measured, one value a model; first what says most."""
    notes: tuple[str, ...]


def compare_models(names: Sequence[str], store_uri: str, *, test: bool = False, cache_dir: Path = CACHE) -> Comparison:
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
    names_of = {key for m in measured for key in m}
    entry = sides[0].entry
    order = dict.fromkeys((*(entry.said_most(names_of) if entry else ()), *sorted(names_of)))
    metrics = {key: [m.get(key) for m in measured] for key in order}
    return Comparison(sides, differing, metrics, tuple(notes))


def score_matrix(
    names: Sequence[str], data: Sequence[Path], store_uri: str, cache_dir: Path = CACHE
) -> tuple[str, list[dict[str, float]]]:
    """The headline figure of every model (rows) on the test records of every dataset (columns): what a chain of trainings won and forgot.

    Where that leaves out what is found of labels that a dataset does not annotate, a second table counts it.

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
    rows, full = [], []
    for name in names:
        side = _side(name, store_uri)
        entry = entry_of(fetch(side.uri, cache_dir)[1], side.uri)
        row, beside = {}, {}
        for column, place in zip(columns, data, strict=True):
            metrics = evaluate_model(side.uri, str(place), cache_dir).metrics
            headline = entry.headline(metrics)
            if not headline:
                raise DataError(
                    f"{place} gives no {' nor '.join(entry.headlines)} for {name}; measured: {', '.join(sorted(metrics)) or 'nothing'}"
                )
            row[column] = metrics[headline]
            beside[column] = metrics.get(f"{headline}_full", metrics[headline])
        rows.append(row)
        full.append(beside)
    table = matrix(list(names), rows)
    if full != rows:
        table += (
            f"\n\ncounting as wrong what is found of labels that nobody looked for there:\n{matrix(list(names), full)}"
        )
    return table, rows


def _side(name: str, store_uri: str) -> Side:
    source = resolve_source(name, store_uri, asked="model")
    plan = read_plan(store_uri, name) if "/" not in name and "://" not in name else None
    stages = tuple(stage.name for stage in plan.selected) if plan else ()
    place, checkpoint_name = split_uri(source.uri)
    spec = layout.read_record(open_store(place).read(layout.STAGE))
    stage, checkpoint = read_manifest(open_store(place), ""), read_manifest(open_store(source.uri), "")
    is_best = stage is not None and stage.kind == "stage" and stage.info.get("best") == checkpoint_name
    manifest = stage if is_best else checkpoint
    assert manifest is not None  # resolve_source has read it
    settings = {
        key: value
        for key, value in leaves(spec.get("config") or {}).items()
        if not key.startswith(("tracking", *NOT_IN_DIGEST))
    }
    data_digest = manifest.lineage.get("data_digest") or ""
    entry = entry_named(manifest.info)
    return Side(
        name, source.uri, stages or (split_uri(place)[1],), settings, dict(manifest.metrics), data_digest, entry
    )
