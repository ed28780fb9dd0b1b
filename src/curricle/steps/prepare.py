"""Prepare data: from a family's sources to a dataset in the store, addressed by the digest of its sources."""

from __future__ import annotations

import os
from pathlib import Path

from curricle.config.load import leaves
from curricle.config.schema import StageConfig
from curricle.errors import ConfigError, StoreError
from curricle.registry import PARENT, family
from curricle.store import join_uri, layout, open_store, web
from curricle.store.local import what_else
from curricle.store.manifest import publish, read_manifest
from curricle.store.scratch import scratch


def data_place(config: StageConfig) -> tuple[str, str]:
    """Where the stage's data is or will be, and its digest; prepares nothing."""
    digest = family(config.family).load("fingerprint")(config)
    return join_uri(config.paths.store_uri, layout.DATA, f"{config.family}-{digest[:16]}"), digest


def keeps_data(config: StageConfig) -> bool:
    """Whether the stage's data depend on what the model before was trained with, which only a plan knows."""
    key = family(config.family).continues
    return bool(key) and leaves(config)[key] == PARENT


def check_folders(config: StageConfig) -> None:
    """Refuse folders for outputs and cache that cannot be made, and what is no folder where one is read, before anything runs.

    Raises:
        ConfigError: names the key, the place and what stands there.
    """
    values, paths = leaves(config), config.paths
    for key in family(config.family).folders:
        given = str(values.get(key) or "")
        if given and "://" not in given and os.path.exists(given) and not os.path.isdir(given):
            raise ConfigError(f"{key} {given} is {what_else(Path(given)) or 'a file'}, not a folder; name a folder")
    for name in ("outputs_dir", "cache_dir"):
        place = Path(os.path.abspath(getattr(paths, name)))
        there = next(folder for folder in (place, *place.parents) if os.path.lexists(folder))
        if not there.is_dir():
            raise ConfigError(f"paths.{name} {getattr(paths, name)} cannot be made: {there} is no folder")


def check_planned(config: StageConfig, from_scratch: bool) -> None:
    """Refuse what a stage asks of folders and files on this machine and cannot get, as far as the family knows when it is planned.

    Raises:
        ConfigError, DataError: names the key, or the file.
    """
    entry = family(config.family)
    if entry.planned:
        entry.load("planned")(config, from_scratch)


def prepare_data(config: StageConfig) -> str:
    """Prepare the stage's data unless the store has it; its URI.

    Raises:
        DataError: a source is missing or damaged.
        StoreError: the store refuses.
    """
    with web.once() as read:  # the bytes that are prepared are those of the digest
        uri, digest = data_place(config)
        store = open_store(config.paths.store_uri)
        prefix = f"{layout.DATA}/{config.family}-{digest[:16]}"
        if read_manifest(store, prefix):
            return uri
        with scratch("curricle-data-") as folder:
            facts = family(config.family).load("prepare")(config, folder)
            info = {"family": config.family} | facts | ({"sources": read.digests} if read.digests else {})
            publish(store, prefix, folder, kind="dataset", digest=digest, info=info)
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
