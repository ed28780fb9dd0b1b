"""Findings: what is measured of a model for its report, once, and kept at its stage's place. Nothing of it is trusted but by the digests of model and data."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from curricle.errors import CurricleError, StoreError
from curricle.masking import masked
from curricle.planning import ChainPlan
from curricle.registry import FamilyEntry, canonical, family, names
from curricle.steps.evaluate import CACHE, Evaluation, by_domain, data_folder, data_of, entry_of, evaluate_model
from curricle.steps.gate import Verdict
from curricle.steps.source import resolve_source
from curricle.store import Store, layout, open_store, references, split_uri
from curricle.store.findings import FORMAT, read_findings
from curricle.store.manifest import Manifest, fetch, read_manifest
from curricle.training.pulse import working

_log = logging.getLogger(__name__)


def find(uri: str, *, measure: bool = True, cache_dir: Path = CACHE) -> dict[str, Any]:
    """Findings of a complete stage's best checkpoint, measured on the data that it was trained with where nobody did so before.

    Args:
        uri: the stage's place, or its best checkpoint.
        measure: False takes what is known, else what costs seconds.

    Raises:
        CheckpointError, DataError: the model is not whole, or there is nothing to measure on.
    """
    source = resolve_source(uri, "", asked="model")
    place, name = split_uri(source.uri)
    store, stage = open_store(place), read_manifest(open_store(place), "")
    of_stage = stage is not None and stage.kind == "stage" and stage.info.get("best") == name
    known = read_findings(open_store(split_uri(place)[0]), split_uri(place)[1], stage) if of_stage and stage else {}
    if known and (known["measured"] or not measure):
        return known
    folder, manifest = fetch(source.uri, cache_dir)
    entry = entry_of(manifest, source.uri)
    if not entry.findings:
        return {"metrics": evaluate_model(uri, "", cache_dir).metrics, "measured": True} if measure else known
    data_dir = fetch(data_of(manifest, source.uri), cache_dir)[0]
    with working(f"measuring {masked(source.uri)}"):
        content = _finite(entry.load("findings")(folder, data_dir, _parent(manifest, source.uri, cache_dir), measure))
    if of_stage and stage:
        record = {
            "format": FORMAT,
            "digest": stage.digest,
            "checkpoint": name,
            "measured": measure,
            "created": layout.now(),
        }
        try:
            store.write(layout.FINDINGS, layout.write_record(record | {"content": content}))
        except StoreError as error:
            _log.warning("the findings are not kept: %s", masked(str(error)))
    return {**content, "measured": measure}


def find_on(uri: str, data: str, cache_dir: Path = CACHE) -> dict[str, Any]:
    """The same on other data, which nothing keeps.

    Args:
        data: prepared data by URI, or the folder of a dataset.

    Raises:
        CheckpointError, DataError: as `find`.
    """
    source = resolve_source(uri, "", asked="model")
    folder, manifest = fetch(source.uri, cache_dir)
    entry = entry_of(manifest, source.uri)
    if not entry.findings:
        return {"metrics": evaluate_model(uri, data, cache_dir).metrics, "measured": True}
    data_dir = data_folder(data, source.uri, manifest, cache_dir)
    with working(f"measuring {masked(source.uri)}"):
        content = entry.load("findings")(folder, data_dir, _parent(manifest, source.uri, cache_dir), True)
    return {**_finite(content), "measured": True}


def read_matrix(store: Store, plan: ChainPlan) -> dict[str, Any]:
    """What `find_matrix` kept of these very stages; empty where nothing is."""
    record = layout.read_record(store.read(f"{plan.run_id}/{layout.MATRIX}"))
    return record if record.get("digests") == [stage.digest for stage in plan.selected] else {}


def find_matrix(
    plan: ChainPlan, cache_dir: Path = CACHE, evaluate: Callable[[str, str, Path], Evaluation] = evaluate_model
) -> dict[str, Any]:
    """The headline score of each stage's model on the domain that each stage brought in, measured once: what a chain won and forgot.

    Returns:
        ``stages``, ``measure``, and ``rows``: of each model, in order, its score on each stage's own domain (None where that has none). Empty for a chain
        over one data set.

    Raises:
        CheckpointError, DataError: a stage is not complete, or its data have nothing to measure on.
    """
    stages, store = plan.selected, open_store(plan.store_uri)
    if len({stage.data_digest for stage in stages}) < 2:
        return {}
    if known := read_matrix(store, plan):
        return known
    measure = family(stages[-1].family).headlines[0].rpartition("/")[2]
    rows = [
        [by_domain(evaluate(model.uri, data.data_uri, cache_dir).metrics, measure).get("new") for data in stages]
        for model in stages
    ]
    record = {
        "digests": [s.digest for s in stages],
        "stages": [s.name for s in stages],
        "measure": measure,
        "rows": rows,
    }
    try:
        store.write(f"{plan.run_id}/{layout.MATRIX}", layout.write_record(_finite(record)))
    except StoreError as error:
        _log.warning("the matrix is not kept: %s", masked(str(error)))
    return record


def keep_verdict(store_uri: str, run: str, digest: str, verdict: Verdict, scores: Mapping[str, Any]) -> None:
    """Write to a run's place what was decided about its result; a store that refuses is said, and ends nothing.

    Args:
        digest: of the result's stage.
        scores: what it was decided by, as JSON can say it.
    """
    try:
        write_verdict(store_uri, run, verdict, {"digest": digest, **scores})
    except StoreError as error:
        _log.warning("the verdict is not kept: %s", masked(str(error)))


def write_verdict(store_uri: str, run: str, verdict: Verdict, scores: Mapping[str, Any]) -> None:
    """The same, where a verdict that is not kept is an error.

    Raises:
        StoreError: the store refuses.
    """
    record = {"decision": verdict.decision, "reason": masked(verdict.reason), "time": layout.now(), **scores}
    open_store(store_uri).write(f"{layout.run_folder(run)}/{layout.VERDICT}", layout.write_record(_finite(record)))


def _finite(value: Any) -> Any:
    """Plain data in which a number that is not finite is null: JSON knows none."""
    if isinstance(value, dict):
        return {key: _finite(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _parent(manifest: Manifest, uri: str, cache_dir: Path) -> Path | None:
    """The files of the model that this one continues; None for scratch, or where they are gone: a report then has no before."""
    parent = references.resolve(manifest.lineage.get("parent_uri"), uri)
    if not parent:
        return None
    try:
        return fetch(resolve_source(parent, "").uri, cache_dir)[0]
    except CurricleError as error:
        _log.warning("no before in the report: %s", masked(str(error)))
        return None


def entry_named(info: Mapping[str, Any]) -> FamilyEntry | None:
    """The family that a record names; None for one that is not installed here."""
    name = canonical(info.get("family", ""))
    return family(name) if name in names() else None
