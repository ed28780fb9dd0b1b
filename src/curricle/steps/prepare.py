"""Prepare data: from a family's sources to a dataset in the store, addressed by the digest of its sources."""

from __future__ import annotations

import os
from pathlib import Path

from curricle.config.schema import PathsConfig, StageConfig
from curricle.errors import ConfigError, StoreError
from curricle.registry import family
from curricle.store import join_uri, layout, open_store
from curricle.store.manifest import publish, read_manifest
from curricle.store.scratch import scratch


def data_place(config: StageConfig) -> tuple[str, str]:
    """Where the stage's data is or will be, and its digest; prepares nothing."""
    digest = family(config.family).load("fingerprint")(config)
    return join_uri(config.paths.store_uri, layout.DATA, f"{config.family}-{digest[:16]}"), digest


def check_folders(paths: PathsConfig) -> None:
    """Refuse folders for outputs and cache that cannot be made, before anything runs.

    Raises:
        ConfigError: something above one of them is no folder.
    """
    for name in ("outputs_dir", "cache_dir"):
        place = Path(os.path.abspath(getattr(paths, name)))
        there = next(folder for folder in (place, *place.parents) if os.path.lexists(folder))
        if not there.is_dir():
            raise ConfigError(f"paths.{name} {getattr(paths, name)} cannot be made: {there} is no folder")


def prepare_data(config: StageConfig) -> str:
    """Prepare the stage's data unless the store has it; its URI.

    Raises:
        DataError: a source is missing or damaged.
        StoreError: the store refuses.
    """
    uri, digest = data_place(config)
    store = open_store(config.paths.store_uri)
    prefix = f"{layout.DATA}/{config.family}-{digest[:16]}"
    if read_manifest(store, prefix):
        return uri
    with scratch("curricle-data-") as folder:
        facts = family(config.family).load("prepare")(config, folder)
        publish(store, prefix, folder, kind="dataset", digest=digest, info={"family": config.family} | facts)
    return uri


def data_digest(uri: str) -> str:
    """The digest of prepared data.

    Raises:
        StoreError: there is no complete dataset at that URI.
    """
    manifest = read_manifest(open_store(uri), "")
    if manifest is None:
        raise StoreError(f"{uri} holds no prepared data ({layout.MANIFEST} is missing); run `curricle prepare` first")
    return manifest.digest
