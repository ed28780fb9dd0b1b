"""Evaluate: test metrics of a model of any family, what a continued one changed, and the small page that shows them."""

from __future__ import annotations

import html
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from curricle.config.schema import PathsConfig
from curricle.errors import CheckpointError, CurricleError
from curricle.registry import FamilyEntry, family, names
from curricle.steps.gate import Scores
from curricle.steps.source import resolve_source
from curricle.store import open_store, references
from curricle.store.manifest import Manifest, fetch, read_manifest

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
        return Evaluation(uri, _of_foreign(folder)(folder, _data_dir(data, uri, None, cache_dir)))
    source = resolve_source(uri, "", asked="model")
    folder, manifest = fetch(source.uri, cache_dir)
    measure = entry_of(manifest, source.uri).load("evaluate")
    return Evaluation(source.uri, measure(folder, _data_dir(data, source.uri, manifest, cache_dir)))


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


def _data_dir(data: str, uri: str, manifest: Manifest | None, cache_dir: Path) -> Path:
    if data and "://" not in data and Path(data).is_dir() and read_manifest(open_store(data), "") is None:
        return Path(data)
    if data:
        return fetch(data, cache_dir)[0]
    if manifest is None:
        raise CheckpointError(
            f"{uri} was not trained by Curricle, so nothing says what to measure it on; name data with --data"
        )
    return fetch(data_of(manifest, uri), cache_dir)[0]


def _of_foreign(folder: Path) -> Callable[[Path, Path], dict[str, float]]:
    """How to measure a folder without a manifest: by the first family that knows what it is."""
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
        return entry.load("evaluate")
    raise CheckpointError(
        f"{folder} holds no manifest.json, and is of no other kind that can be measured ({'; '.join(said)})"
    )


def measure_change(parent_uri: str, child_uri: str, data_uri: str, cache_dir: Path = CACHE) -> Scores:
    """Measure a continued model and the one it came from on the same records, domain by domain.

    Args:
        parent_uri: empty for scratch.

    Raises:
        CheckpointError, DataError: a model is not whole, or there is nothing to measure on.
    """
    after = evaluate_model(child_uri, data_uri, cache_dir)
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
        by_domain(after.metrics, f"{measure}_annotated"),
        by_domain(after.metrics, "unreachable"),
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


def page(title: str, facts: Mapping[str, str], metrics: Mapping[str, float]) -> str:
    """A small self-contained HTML page: facts and metrics as two tables, for the run view of Kubeflow Pipelines."""

    def table(head: str, rows: list[tuple[str, str]]) -> str:
        body = "".join(f"<tr><th>{html.escape(k)}</th><td>{html.escape(v)}</td></tr>" for k, v in rows)
        return f"<h2>{head}</h2><table>{body}</table>" if rows else ""

    style = (
        "body{font:15px/1.5 system-ui,sans-serif;margin:2rem;color:#1c2733}h1{font-size:1.4rem}h2{font-size:1rem;margin-top:1.6rem;"
        "color:#5a6b7b}table{border-collapse:collapse}th{text-align:left;font-weight:500;padding:.25rem 2rem .25rem 0}"
        "td{font-variant-numeric:tabular-nums;padding:.25rem 0;overflow-wrap:anywhere}tr{border-bottom:1px solid #e6ebf0}"
    )
    shown = [(key, f"{value:.4f}") for key, value in sorted(metrics.items())]
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{html.escape(title)}</title><style>{style}</style>"
        f"<h1>{html.escape(title)}</h1>{table('Metrics', shown)}{table('Lineage', list(facts.items()))}</html>"
    )
