"""What training has left for MLflow and TensorBoard, and what it is given once the stage is complete: an MLflow run is found again by its stage's digest, a folder of TensorBoard
by its name.

Asks MLflow as `training.tracking` did: at `MLFLOW_TRACKING_URI`, else at the stage's own `tracking.mlflow_uri`. Makes no database where none is.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from curricle import environment
from curricle.cards.card import gather
from curricle.config.schema import PathsConfig, TrackingConfig
from curricle.errors import StoreError
from curricle.masking import masked
from curricle.steps.evaluate import CACHE, data_of
from curricle.steps.findings import entry_named
from curricle.steps.source import resolve_source
from curricle.store import split_uri
from curricle.store.connections import short
from curricle.store.manifest import fetch
from curricle.store.wire import network_cause


def tracking_of(config: Mapping[str, Any]) -> str:
    """Where the stage of a configuration is tracked; empty where nowhere, or where its database is gone."""
    section = config.get("tracking") or {}
    if not section.get("mlflow", TrackingConfig().mlflow):
        return ""
    uri = environment.mlflow_uri() or str(section.get("mlflow_uri") or TrackingConfig().mlflow_uri)
    path = uri.removeprefix("sqlite:///")
    return uri if path == uri or Path(path).is_file() else ""


def find_run(client: Any, digest: str, run: str = "") -> str:
    """Id of the newest MLflow run that tracked the stage of a digest; empty for none.

    Args:
        client: an `MlflowClient`.
        run: of Curricle's runs, where only that one is meant.
    """
    wanted = f"tags.`curricle.digest` = '{digest}'" + (f" and tags.`curricle.run` = '{run}'" if run else "")
    experiments = [one.experiment_id for one in client.search_experiments()]
    found = client.search_runs(experiments, wanted, max_results=1, order_by=["attributes.start_time DESC"])
    return found[0].info.run_id if found else ""


def hand_over(uri: str, digest: str, run: str, files: Mapping[str, str]) -> bool:
    """Give the MLflow run of a stage files, as artifacts; whether there is such a run.

    Args:
        uri: `tracking_of`.
        files: text by name.

    Raises:
        StoreError: MLflow refuses, or cannot be asked.
    """
    environment.set_default(environment.MLFLOW_DISABLE_TELEMETRY, "true")
    try:
        with warnings.catch_warnings():  # of a database's library, of itself
            warnings.simplefilter("ignore")
            from mlflow.tracking import MlflowClient

            client = MlflowClient(uri)
            there = find_run(client, digest, run)
            for name, text in files.items() if there else ():
                client.log_text(there, text, name)
    except Exception as error:  # an address that is none makes MLflow, its database or its driver fail in any way
        why = network_cause(error, uri)
        told = why.of(masked(uri)) if why else short(error)
        raise StoreError(f"MLflow at {masked(uri)} does not take {', '.join(files)}: {told}") from None
    return bool(there)


def leave_points(uri: str, cache_dir: Path = CACHE) -> Path | None:
    """Write what a complete stage's model learned into TensorBoard's folder of the stage, for its projector; the folder. None where the family has nothing to show there, or
    the stage was not tracked on this machine.

    Raises:
        CheckpointError: the model is not whole.
    """
    source = resolve_source(uri, "", asked="model")
    seen = gather(source.uri)
    entry = entry_named(seen.info)
    outputs = str(seen.config.get("paths.outputs_dir") or PathsConfig().outputs_dir)
    folder = Path(outputs) / str(seen.info.get("run_id")) / split_uri(split_uri(source.uri)[0])[1]
    if entry is None or not entry.projector or not folder.is_dir():
        return None
    checkpoint, manifest = fetch(source.uri, cache_dir)
    entry.load("projector")(checkpoint, fetch(data_of(manifest, source.uri), cache_dir)[0], folder)
    return folder
