"""The verb compare: models side by side, or the matrix of their scores over datasets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
from rich.markup import escape

from curricle.cli.look import console, plain_table
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
    """Models by letters, so that any number of long names fits into any width: who is who, what was set differently, what was measured."""
    for note in comparison.notes:
        console.print(note, style="yellow", highlight=False, markup=False)
    letters = [_letter(number) for number in range(len(comparison.sides))]
    table = plain_table("models")
    for name in ("", "model", "stages"):
        table.add_column(name, overflow="fold", style="bold" if not name else None)
    for letter, side in zip(letters, comparison.sides, strict=True):
        table.add_row(letter, escape(side.name), escape(", ".join(side.stages)))
    console.print(table)
    console.print()
    table = plain_table("settings that differ")
    for name in ("setting", *letters):
        table.add_column(name, overflow="fold")
    for key, settings in comparison.settings.items():
        table.add_row(key, *map(_shown, settings))
    console.print(table if comparison.settings else "no setting differs")
    console.print()
    table = plain_table("metrics")
    table.add_column("metric", overflow="fold")
    for name in letters:
        table.add_column(name, justify="right", no_wrap=True)
    for name in letters[1:]:
        table.add_column(f"{name} - {letters[0]}", justify="right", no_wrap=True)
    for key, values in comparison.metrics.items():
        shown = ["-" if value is None else f"{value:.4f}" for value in values]
        changes = ["" if value is None or values[0] is None else f"{value - values[0]:+.4f}" for value in values[1:]]
        table.add_row(escape(key), *shown, *changes)
    console.print(table)


def _letter(number: int) -> str:
    """A, B ... Z, A1, B1 ..."""
    return chr(ord("A") + number % 26) + (str(number // 26) if number >= 26 else "")


def _shown(value: Any) -> str:
    """A setting in a cell."""
    if isinstance(value, list | tuple):
        return escape(", ".join(map(str, value))) or "none"
    return "-" if value is None else escape(str(value))
