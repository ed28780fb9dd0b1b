"""What the NAICS benchmarks share: trained models by URI, and the prepared Census data."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from curricle.config.chain import load_stage
from curricle.families.codes.config import CodesConfig
from curricle.steps.evaluate import data_of
from curricle.steps.prepare import prepare_data
from curricle.steps.source import resolve_source
from curricle.store.manifest import Manifest, fetch
from tests.benchmarks.report import ROOT

CENSUS = Path(os.environ.get("CURRICLE_SHARED", ROOT.parent / "shared")) / "data" / "naics2022"
CACHE = Path(".curricle")


@dataclass(frozen=True)
class Trained:
    """A checkpoint and the data it is measured on, both local."""

    uri: str
    folder: Path
    manifest: Manifest
    data_dir: Path


def open_trained(uri: str, data: str) -> Trained:
    """The best checkpoint of a stage, or a checkpoint, at a path or URI.

    Args:
        data: prepared data; empty takes what the model was trained with.
    """
    source = resolve_source(uri, "")
    folder, manifest = fetch(source.uri, CACHE)
    return Trained(source.uri, folder, manifest, fetch(data or data_of(manifest, source.uri), CACHE)[0])


def stage_config(stage: str, *overrides: str, source: Path) -> CodesConfig:
    """The shipped configuration of a stage, on the workbooks in `source`."""
    loaded = load_stage(
        ROOT / "config" / "config.yaml",
        stage,
        [f"data.source={source}", "paths.store_uri=.curricle/benchmarks", *overrides],
        None,
    )
    assert isinstance(loaded.config, CodesConfig)
    return loaded.config


def prepared(config: CodesConfig) -> Path:
    """The prepared data of a configuration, made if it is not there yet."""
    return fetch(prepare_data(config), CACHE)[0]
