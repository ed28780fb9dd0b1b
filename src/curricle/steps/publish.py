"""Promoted models of continued trainings: copied to where the next one looks for its start, and pinned."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from curricle.steps.evaluate import CACHE
from curricle.steps.promote import promote
from curricle.steps.source import resolve_source
from curricle.store import join_uri, layout, open_store, references
from curricle.store.manifest import fetch, publish, read_manifest
from curricle.store.runs import published


def publish_checkpoint(
    uri: str, store_uri: str, name: str, run_id: str, info: Mapping[str, Any], reason: str, cache_dir: Path = CACHE
) -> str:
    """Copy a promoted model to ``published/<name>/<run id>``, where `newest_published` looks, and pin it; the copy's URI.

    Raises:
        CheckpointError, StoreError: the model is not whole, or the store refuses.
    """
    source = resolve_source(uri, store_uri)
    folder, manifest = fetch(source.uri, cache_dir)
    prefix = f"{layout.PUBLISHED}/{name}/{run_id}"
    store, place = open_store(store_uri), join_uri(store_uri, prefix)
    there = read_manifest(store, prefix)
    if there is None or there.digest != manifest.digest:
        lineage = references.relocate(manifest.lineage, source.uri, place, store_uri)
        lineage["published_from"] = references.refer(source.uri, place, store_uri)
        publish(
            store,
            prefix,
            folder,
            kind="checkpoint",
            digest=manifest.digest,
            metrics=manifest.metrics,
            lineage=lineage,
            info=dict(manifest.info) | dict(info),
        )
    promote(place, store_uri, reason)
    return place


def newest_published(store_uri: str, names: tuple[str, ...], backbone: str) -> str:
    """URI of the newest published model of a backbone under the first of these names that has one; empty where none has."""
    store = open_store(store_uri)
    for name in names:
        models = []
        for prefix in published(store, name):
            manifest = read_manifest(store, prefix)
            if manifest and manifest.info.get("backbone", backbone) == backbone:
                models.append((manifest.created, prefix))
        if models:
            return join_uri(store_uri, max(models)[1])
    return ""
