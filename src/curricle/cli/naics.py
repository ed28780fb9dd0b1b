"""Verbs that use a NAICS model: search, assign, export, evaluate."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click

from curricle.cli.look import console
from curricle.steps.use import Model, open_model

STORE = click.option("--store", default="checkpoints", show_default=True, help="Store of the runs.")
MODEL = click.option(
    "--model",
    default="",
    metavar="STAGE|PATH",
    help="Stage name, path or URI of a checkpoint; default the newest complete stage.",
)


@click.command()
@click.argument("texts", nargs=-1, required=True)
@click.option("--top", default=5, show_default=True, type=click.IntRange(1, 100), help="Codes a text.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON Lines.")
@STORE
@MODEL
def search(texts: tuple[str, ...], top: int, as_json: bool, store: str, model: str) -> None:
    """Find the NAICS codes nearest to business texts."""
    for text, hits in zip(texts, _scorer(store, model).search(list(texts), top), strict=True):
        if as_json:
            click.echo(
                json.dumps(
                    {
                        "text": text,
                        "hits": [{"code": h.code, "title": h.title, "score": round(h.score, 6)} for h in hits],
                    }
                )
            )
            continue
        console.print(f"[bold]{text}[/]", highlight=False)
        for hit in hits:
            console.print(f"  {hit.code:<7} {hit.score:6.3f}  {hit.title}", highlight=False, markup=False)


@click.command()
@click.argument("source", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--column", required=True, help="Column that holds the text.")
@click.option("--output", "-o", required=True, type=click.Path(dir_okay=False, path_type=Path), help="CSV to write.")
@STORE
@MODEL
def assign(source: Path, column: str, output: Path, store: str, model: str) -> None:
    """Assign a code to every row of a CSV: all columns are kept, naics_code, naics_title and naics_confidence are added."""
    from curricle.steps.use import assign_csv

    rows = assign_csv(source, column, output, lambda: _scorer(store, model))
    click.echo(f"{rows} rows → {output}", err=True)


@click.command()
@click.option(
    "--format",
    "kind",
    type=click.Choice(["npz", "parquet", "huggingface"]),
    default="npz",
    show_default=True,
    help="npz and parquet: codes, coordinates, radius; huggingface: save_pretrained folder.",
)
@click.option("--output", "-o", required=True, type=click.Path(path_type=Path), help="File, or folder for huggingface.")
@STORE
@MODEL
def export(kind: str, output: Path, store: str, model: str) -> None:
    """Export the codes' coordinates, or a model folder that transformers loads."""
    _load(store, model).export(output, kind)
    click.echo(str(output))


@click.command()
@click.option("--data", default="", help="URI of prepared data; default the data the model was trained with.")
@STORE
@MODEL
def evaluate(data: str, store: str, model: str) -> None:
    """Measure a model on the held-out texts; prints JSON."""
    click.echo(json.dumps(_load(store, model).evaluate(data), indent=1, sort_keys=True))


def _load(store: str, model: str) -> Model:
    opened = open_model(model, store)
    print(f"model {opened.uri}", file=sys.stderr)
    return opened


def _scorer(store: str, model: str) -> Any:
    return _load(store, model).scorer()
