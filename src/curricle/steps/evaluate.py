"""Evaluate: test metrics of a checkpoint, and the small page that shows them."""

from __future__ import annotations

import html
from dataclasses import dataclass
from pathlib import Path

from curricle.errors import CheckpointError
from curricle.families import family
from curricle.steps.resolve import resolve_source
from curricle.store.manifest import fetch


@dataclass(frozen=True)
class Evaluation:
    """What was measured, by metric name, and on what."""

    uri: str
    metrics: dict[str, float]


def evaluate_model(uri: str, data_uri: str, cache_dir: Path = Path(".curricle")) -> Evaluation:
    """Measure a checkpoint, or the best one of a stage, on the test split of prepared data.

    Args:
        uri: checkpoint or stage.
        data_uri: prepared data; empty takes what the model was trained with.

    Raises:
        CheckpointError: nothing complete is there.
    """
    source = resolve_source(uri, "")
    folder, manifest = fetch(source.uri, cache_dir)
    name = manifest.info.get("family")
    if not name:
        raise CheckpointError(
            f"{source.uri}: its manifest names no family; it was not written by this version of curricle"
        )
    data_dir, _ = fetch(data_uri or manifest.lineage.get("data_uri") or "", cache_dir)
    return Evaluation(source.uri, family(name).load("evaluate")(folder, data_dir))


def page(title: str, facts: dict[str, str], metrics: dict[str, float]) -> str:
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
