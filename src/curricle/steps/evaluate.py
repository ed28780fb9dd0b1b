"""Evaluate: test metrics of a model of any family, and what a continued one changed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from curricle.config.schema import PathsConfig
from curricle.errors import CheckpointError, CurricleError
from curricle.masking import masked
from curricle.registry import FamilyEntry, family, names
from curricle.steps.gate import Scores
from curricle.steps.source import resolve_source
from curricle.store import open_store, references
from curricle.store.manifest import Manifest, fetch, read_manifest
from curricle.training.pulse import working

CACHE = Path(PathsConfig().cache_dir)


@dataclass(frozen=True)
class Evaluation:
    """What was measured, by metric name, and on what."""

    uri: str
    metrics: dict[str, float]


def evaluate_model(uri: str, data: str, cache_dir: Path = CACHE) -> Evaluation:
    """Measure a checkpoint, or the best one of a stage, on the test split of prepared data.

    Args:
        uri: checkpoint or stage; also a folder that another program wrote, where a family knows what it is.
        data: prepared data by URI, or the folder of a dataset; empty takes what the model was trained with.

    Raises:
        CheckpointError: nothing complete is there.
    """
    folder = Path(uri)
    if "://" not in uri and folder.is_dir() and read_manifest(open_store(uri), "") is None:
        measure = foreign_family(folder)[1].load("evaluate")
        return Evaluation(uri, measure(folder, data_folder(data, uri, None, cache_dir)))
    source = resolve_source(uri, "", asked="model")
    folder, manifest = fetch(source.uri, cache_dir)
    entry, place = entry_of(manifest, source.uri), data_folder(data, source.uri, manifest, cache_dir)
    own = _own_data(source.uri, manifest, cache_dir) if data and entry.evaluate_on else None
    with working(f"measuring {masked(source.uri)}"):
        if own is not None and own.resolve() != place.resolve():
            return Evaluation(source.uri, entry.load("evaluate_on")(folder, place, own))
        return Evaluation(source.uri, entry.load("evaluate")(folder, place))


def _own_data(uri: str, manifest: Manifest, cache_dir: Path) -> Path | None:
    """The prepared data that a model was trained with; None where they are not there: those that are given then stand for them (see `data_of`)."""
    try:
        return fetch(data_of(manifest, uri), cache_dir)[0]
    except CheckpointError:
        return None


def entry_of(manifest: Manifest, uri: str) -> FamilyEntry:
    """The family that wrote an artifact.

    Raises:
        CheckpointError: its manifest names none.
    """
    name = manifest.info.get("family")
    if not name:
        raise CheckpointError(f"{uri}: its manifest names no family; it was not written by this version of curricle")
    return family(str(name))


def data_of(manifest: Manifest, uri: str) -> str:
    """The URI of the data that an artifact at `uri` was trained with.

    Raises:
        CheckpointError: its manifest names none, or it is not there.
    """
    data = references.resolve(manifest.lineage.get("data_uri"), uri)
    if not data:
        raise CheckpointError(f"{uri}: its manifest names no data that it was trained with; name some with --data")
    if read_manifest(open_store(data), "") is None:
        raise CheckpointError(
            f"{uri}: the data that it was trained with is not at {data} (a checkpoint that was copied out of its store leaves it behind); "
            "name it with --data, or take the checkpoint in its store"
        )
    return data


def data_at_hand(folder: Path, cache_dir: Path = CACHE) -> tuple[Path | None, str]:
    """The prepared data that the model of a folder was trained with; without any None, and why."""
    try:
        manifest = read_manifest(open_store(str(folder)), "")
        if manifest is None:
            return None, f"{folder} was not trained by Curricle, so nothing says what it was trained with"
        return fetch(data_of(manifest, str(folder)), cache_dir)[0], ""
    except CurricleError as error:
        return None, str(error)


def data_folder(data: str, uri: str, manifest: Manifest | None, cache_dir: Path) -> Path:
    """The folder of what a model at `uri` is measured on: a dataset's own, or prepared data on this machine; empty takes what it was trained with.

    Raises:
        CheckpointError: nothing says what.
    """
    if data and "://" not in data and Path(data).is_dir() and read_manifest(open_store(data), "") is None:
        return Path(data)
    if data:
        return fetch(data, cache_dir)[0]
    if manifest is None:
        raise CheckpointError(
            f"{uri} was not trained by Curricle, so nothing says what to measure it on; name data with --data"
        )
    return fetch(data_of(manifest, uri), cache_dir)[0]


def foreign_family(folder: Path) -> tuple[str, FamilyEntry]:
    """The first family, with its name, that knows what a folder without a manifest is.

    Raises:
        CheckpointError: none does.
    """
    said = []
    for name in names():
        entry = family(name)
        if not entry.checkpoint:
            continue
        try:
            entry.load("checkpoint")(folder)
        except CurricleError as error:
            said.append(f"no checkpoint of {name}: {error}")
            continue
        return name, entry
    raise CheckpointError(f"{folder} holds no manifest.json, and is of no other kind that is known ({'; '.join(said)})")


def measure_change(
    parent_uri: str, child_uri: str, data_uri: str, cache_dir: Path = CACHE, known: Mapping[str, float] | None = None
) -> Scores:
    """Measure a continued model and the one it came from on the same records, domain by domain.

    Args:
        parent_uri: empty for scratch.
        known: what was measured of the continued model already, on these data.

    Raises:
        CheckpointError, DataError: a model is not whole, or there is nothing to measure on.
    """
    if known is None:
        after = evaluate_model(child_uri, data_uri, cache_dir)
    else:
        after = Evaluation(resolve_source(child_uri, "", asked="model").uri, dict(known))
    _, manifest = fetch(after.uri, cache_dir)
    entry = entry_of(manifest, after.uri)
    measure = entry.headlines[0].rpartition("/")[2]
    before: dict[str, float] = {}
    if parent_uri and _is_trained(parent_uri, entry, cache_dir):
        before = evaluate_model(parent_uri, data_uri, cache_dir).metrics
    return Scores(
        by_domain(before, measure),
        by_domain(after.metrics, measure),
        after.metrics,
        full=by_domain(after.metrics, f"{measure}_full"),
        unreachable=by_domain(after.metrics, "unreachable"),
        full_before=by_domain(before, f"{measure}_full"),
    )


def _is_trained(uri: str, entry: FamilyEntry, cache_dir: Path) -> bool:
    """Whether the model before can be measured: a checkpoint of another program may be a plain encoder."""
    folder, _ = fetch(resolve_source(uri, "").uri, cache_dir)
    return not entry.checkpoint or entry.load("checkpoint")(folder).trained


def by_domain(metrics: Mapping[str, float], measure: str) -> dict[str, float]:
    """``test/<domain>/<measure>`` (or ``val/...``) as domain → value; where no domain is told apart, all of it is ``new``."""
    domains = {
        key.split("/")[1]: value
        for key, value in metrics.items()
        if key.count("/") == 2 and key.endswith(f"/{measure}")
    }
    if domains:
        return domains
    whole = next((metrics[key] for key in (f"test/{measure}", f"val/{measure}") if key in metrics), None)
    return {} if whole is None else {"new": whole}
