"""The verb compare: models side by side, or the matrix of their scores over datasets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
from rich.markup import escape
from rich.table import Table

from curricle.cli.look import console
from curricle.steps.compare import Comparison, compare_models, score_matrix


@click.command()
@click.argument("models", nargs=-1, required=True, metavar="RUN|RUN/STAGE|PATH...")
@click.option("--store", default="checkpoints", show_default=True, help="Store of the runs.")
@click.option("--test", is_flag=True, help="Measure each model on its test split now.")
@click.option(
    "--data",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    multiple=True,
    help="Folder of a dataset (repeatable): print the matrix of all models' test scores on all datasets instead.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def compare(models: tuple[str, ...], store: str, test: bool, data: tuple[Path, ...], as_json: bool) -> None:
    """Show models side by side: stages, settings that differ, metrics. Of a run its last stage counts."""
    if data:
        text, rows = score_matrix(models, data, store)
        click.echo(json.dumps(dict(zip(models, rows, strict=True)), indent=1) if as_json else text)
        return
    if len(models) < 2:
        raise click.UsageError("name at least two models to compare (curricle show lists the runs)")
    comparison = compare_models(models, store, test=test)
    if as_json:
        sides = [
            {"name": s.name, "uri": s.uri, "stages": s.stages, "data_digest": s.data_digest} for s in comparison.sides
        ]
        click.echo(
            json.dumps(
                {
                    "models": sides,
                    "settings": comparison.settings,
                    "metrics": comparison.metrics,
                    "notes": comparison.notes,
                },
                indent=1,
            )
        )
        return
    _tables(comparison)


def _tables(comparison: Comparison) -> None:
    for note in comparison.notes:
        console.print(note, style="yellow", highlight=False, markup=False)
    names = [escape(side.name) for side in comparison.sides]
    rows: list[tuple[str, list[Any]]] = [("stages", [", ".join(side.stages) for side in comparison.sides])]
    _table("settings that differ", names, [*rows, *comparison.settings.items()])
    table = Table(box=None, padding=(0, 2, 0, 0), title="metrics", title_justify="left")
    table.add_column("metric")
    for name in names:
        table.add_column(name, justify="right", overflow="fold")
    for name in names[1:]:
        table.add_column("change" if len(names) == 2 else f"{name} - {names[0]}", justify="right", overflow="fold")
    for key, values in comparison.metrics.items():
        shown = ["-" if value is None else f"{value:.4f}" for value in values]
        changes = ["" if value is None or values[0] is None else f"{value - values[0]:+.4f}" for value in values[1:]]
        table.add_row(key, *shown, *changes)
    console.print(table)


def _table(title: str, names: list[str], rows: list[tuple[str, list[Any]]]) -> None:
    table = Table(box=None, padding=(0, 2, 0, 0), title=title, title_justify="left")
    for name in ("", *names):
        table.add_column(name, overflow="fold")
    for key, values in rows:
        table.add_row(key, *("-" if value is None else escape(str(value)) for value in values))
    console.print(table)
    console.print()
