"""Verbs that use a trained model, whatever its family: search, assign, export, evaluate; and promote, which says which one is meant."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from curricle.cli.look import console
from curricle.steps.assign import assign_csv
from curricle.steps.evaluate import evaluate_model
from curricle.steps.promote import promote as pin
from curricle.steps.use import Model, open_model

STORE = click.option("--store", default="checkpoints", show_default=True, help="Store of the runs.")
MODEL = click.option(
    "--model",
    default="",
    metavar="RUN|STAGE|RUN/STAGE|PATH",
    help="Run, stage, path or URI of a checkpoint; default the promoted model, else the newest finished chain's.",
)


@click.command()
@click.argument("texts", nargs=-1, required=True)
@click.option("--top", default=5, show_default=True, type=click.IntRange(1, 100), help="Codes a text.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON Lines.")
@STORE
@MODEL
def search(texts: tuple[str, ...], top: int, as_json: bool, store: str, model: str) -> None:
    """Find the codes nearest to texts."""
    for text, hits in zip(texts, _open(store, model, "search").search(texts, top), strict=True):
        if as_json:
            rows = [{"code": h.code, "title": h.title, "score": round(h.score, 6)} for h in hits]
            click.echo(json.dumps({"text": text, "hits": rows}))
            continue
        console.print(text, style="bold", highlight=False, markup=False)
        for hit in hits:
            console.print(f"  {hit.code:<7} {hit.score:6.3f}  {hit.title}", highlight=False, markup=False)


@click.command()
@click.argument("source", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--column", required=True, help="Column that holds the text.")
@click.option("--output", "-o", required=True, type=click.Path(dir_okay=False, path_type=Path), help="CSV to write.")
@STORE
@MODEL
def assign(source: Path, column: str, output: Path, store: str, model: str) -> None:
    """Assign a code to every row of a CSV: all columns are kept; code, title and confidence are added."""
    rows = assign_csv(source, column, output, lambda: _open(store, model, "assign").coder())
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
    _open(store, model, "export").export(output, kind)
    click.echo(str(output))


@click.command()
@click.option(
    "--data", default="", help="URI of prepared data, or folder of a dataset; default what the model was trained with."
)
@STORE
@MODEL
def evaluate(data: str, store: str, model: str) -> None:
    """Measure a model of any family on what was held out of its data, or on other data; prints JSON."""
    if model and "://" not in model and Path(model).is_dir():
        click.echo(f"model {model}", err=True)
        metrics = evaluate_model(model, data).metrics
    else:
        metrics = _open(store, model, "evaluate").evaluate(data)
    click.echo(json.dumps(metrics, indent=1, sort_keys=True))


@click.command()
@click.argument("model", metavar="RUN|RUN/STAGE|PATH")
@click.option("--reason", default="by hand", show_default=True, help="Why, for people.")
@STORE
def promote(model: str, reason: str, store: str) -> None:
    """Make a model the one that search, assign, export and evaluate take where none is named. Of a run its last stage counts."""
    made = pin(model, store, reason)
    click.echo(f"promoted {made.uri} ({made.family})")


def _open(store: str, model: str, verb: str) -> Model:
    opened = open_model(model, store, verb=verb)
    print(f"model {opened.uri}: {opened.reason}", file=sys.stderr)
    return opened
