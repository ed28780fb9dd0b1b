"""Continued training: the checkpoint it starts from as an artifact, what it changed in both domains, and whether that is promoted."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from curricle.families.ner.forgetting import Verdict, judge
from curricle.families.ner.resolve import Resolution, check_checkpoint, explain_checkpoint
from curricle.plan import Source
from curricle.steps.evaluate import evaluate_model
from curricle.steps.resolve import resolve_source
from curricle.store import join_uri, layout, open_store
from curricle.store.manifest import fetch, publish, read_manifest, sha256_of


@dataclass(frozen=True)
class Scores:
    """F1 in [0, 1] by domain, before and after, on the test records (validation where there are none)."""

    before: dict[str, float]
    """Empty where there was nothing to measure: a plain encoder, or scratch."""
    after: dict[str, float]
    metrics: dict[str, float]
    """Everything that was measured of the new model."""


def resolve_ner(
    config: Mapping[str, Any], cache: Path | str | None, backbone: str | None, run_id: str | None
) -> Resolution:
    """`explain_checkpoint`, where a source may also be a stage's name or an MLflow run id.

    Raises:
        CheckpointError: a source is set, but leads to no whole checkpoint.
    """
    paths = config.get("paths") or {}

    def named(text: str) -> Path:
        found = resolve_source(text, str(paths.get("store_uri", "checkpoints")))
        return fetch(found.uri, Path(paths.get("cache_dir", ".curricle")) / "checkpoints")[0]

    return explain_checkpoint(config, cache, backbone, run_id, environ=os.environ, named=named)


def import_checkpoint(folder: Path, store_uri: str, reason: str) -> Source:
    """A checkpoint's folder as something that a chain can start from: one of ours as it lies, a foreign one as a copy in the store.

    Raises:
        CheckpointError, StoreError: the folder is no whole checkpoint, or the store refuses.
    """
    manifest = read_manifest(open_store(str(folder)), "")
    if manifest is not None and manifest.kind == "checkpoint":
        return Source(str(folder), manifest.digest, reason)
    facts = check_checkpoint(folder)
    files = sorted(p for p in facts.path.rglob("*") if p.is_file())
    digest = hashlib.sha256(
        "\n".join(f"{p.relative_to(facts.path)} {sha256_of(p)}" for p in files).encode()
    ).hexdigest()
    prefix = f"{layout.IMPORTED}/ner-{digest[:16]}"
    store = open_store(store_uri)
    if read_manifest(store, prefix) is None:
        publish(
            store,
            prefix,
            facts.path,
            kind="checkpoint",
            digest=digest,
            info={"family": "ner", "imported_from": str(folder)},
        )
    return Source(join_uri(store_uri, prefix), digest, reason)


def publish_checkpoint(
    uri: str, store_uri: str, name: str, run_id: str, info: Mapping[str, Any], cache_dir: Path = Path(".curricle")
) -> str:
    """Copy a promoted model to ``published/<name>/<run id>``, where `newest_published` finds it; the copy's URI.

    Raises:
        CheckpointError, StoreError: the model is not whole, or the store refuses.
    """
    folder, manifest = fetch(resolve_source(uri, store_uri).uri, cache_dir)
    prefix = f"{layout.PUBLISHED}/{name}/{run_id}"
    store = open_store(store_uri)
    there = read_manifest(store, prefix)
    if there is None or there.digest != manifest.digest:
        publish(
            store,
            prefix,
            folder,
            kind="checkpoint",
            digest=manifest.digest,
            metrics=manifest.metrics,
            lineage=dict(manifest.lineage) | {"published_from": uri},
            info=dict(manifest.info) | dict(info),
        )
    return join_uri(store_uri, prefix)


def newest_published(store_uri: str, names: tuple[str, ...], backbone: str) -> str:
    """URI of the newest published model of a backbone under the first of these names that has one; empty where none has."""
    store = open_store(store_uri)
    for name in names:
        found = []
        for entry in store.list(f"{layout.PUBLISHED}/{name}/"):
            prefix = entry.key.removesuffix(f"/{layout.MANIFEST}")
            manifest = read_manifest(store, prefix) if prefix != entry.key else None
            if manifest and manifest.info.get("backbone", backbone) == backbone:
                found.append((manifest.created, prefix))
        if found:
            return join_uri(store_uri, max(found)[1])
    return ""


def compare(parent_uri: str, child_uri: str, data_uri: str, cache_dir: Path = Path(".curricle")) -> Scores:
    """Measure a continued model and the one it came from on the same records, domain by domain.

    Raises:
        CheckpointError, DataError: a model is not whole, or there is nothing to measure on.
    """
    after = evaluate_model(child_uri, data_uri, cache_dir).metrics
    before: dict[str, float] = {}
    if parent_uri:
        folder, _ = fetch(resolve_source(parent_uri, "").uri, cache_dir)
        facts = check_checkpoint(folder)
        if facts.labels or facts.kind == "adapter":
            before = evaluate_model(parent_uri, data_uri, cache_dir).metrics
    return Scores(by_domain(before), by_domain(after), after)


def by_domain(metrics: Mapping[str, float], name: str = "f1") -> dict[str, float]:
    """``test/<domain>/<name>`` (or ``val/...``) as domain → value."""
    return {
        key.split("/")[1]: value for key, value in metrics.items() if key.count("/") == 2 and key.endswith(f"/{name}")
    }


def decide(scores: Scores, min_gain: float, max_drop: float) -> Verdict:
    """Promote or hold. Without scores before (scratch, or a plain encoder) there is nothing to lose; without an old domain, the gain alone counts."""
    if not scores.before:
        return Verdict("promote", "there was no model before")
    if "old" not in scores.before or "old" not in scores.after:
        same = {"old": 0.0}
        verdict = judge(scores.before | same, scores.after | same, min_gain=min_gain, max_drop=max_drop)
        return Verdict(
            verdict.decision,
            verdict.reason.partition("; old")[0] + "; the old domain was not measured: no old_dataset_path",
        )
    verdict = judge(scores.before, scores.after, min_gain=min_gain, max_drop=max_drop)
    annotated = by_domain(scores.metrics, "f1_annotated").get("old", scores.after["old"])
    if annotated - scores.after["old"] < 5e-5:
        return verdict
    return Verdict(
        verdict.decision,
        f"{verdict.reason}; without spans of labels that no old record has, old scores {annotated:.4f}",
    )
