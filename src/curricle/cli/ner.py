"""Verbs of the NER family: combine, convert, resolve-checkpoint, ner predict, ner select, ner evaluate."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal

import click

from curricle.cli.options import shipped
from curricle.config.load import read_yaml

FOLDER = click.Path(file_okay=False, path_type=Path)


@click.command()
@click.option(
    "--old",
    type=FOLDER,
    default=None,
    help="Folder of the old dataset (train.json, .jsonl, .conll, or another layout of docs/data-formats.md).",
)
@click.option("--new", type=FOLDER, required=True, help="Folder of the new dataset.")
@click.option(
    "--strategy",
    type=click.Choice(["combined", "new_only", "append"]),
    default="combined",
    show_default=True,
    help="combined shuffles, append keeps the order.",
)
@click.option(
    "--replay", type=float, default=None, help="Share of the old training records to keep, in (0, 1]; all by default."
)
@click.option(
    "--validation-ratio", type=float, default=0.1, show_default=True, help="Share of records for a new validation set."
)
@click.option(
    "--new-validation/--keep-validation",
    default=True,
    show_default=True,
    help="Draw a new validation set, or join those that are there.",
)
@click.option("--seed", type=int, default=42, show_default=True, help="Decides everything that is drawn.")
@click.option(
    "--output", "-o", type=FOLDER, required=True, help="Folder for train.jsonl, validation.jsonl and report.json."
)
def combine(
    old: Path | None,
    new: Path,
    strategy: str,
    replay: float | None,
    validation_ratio: float,
    new_validation: bool,
    seed: int,
    output: Path,
) -> None:
    """Combine datasets: deterministic, leak-free, bounded memory; prints what was read, kept and dropped."""
    from curricle.families.ner.combine import combine_datasets

    made = combine_datasets(
        old,
        new,
        strategy,
        validation_ratio,
        seed,
        create_new_validation=new_validation,
        replay=replay,
        output_dir=output,
    )
    click.echo(json.dumps(made.report, indent=1, ensure_ascii=False).encode())


@click.command()
@click.argument("source", metavar="IN", type=click.Path(path_type=Path))
@click.option("--output", "-o", type=click.Path(path_type=Path), required=True, help="New file; for brat a new folder.")
@click.option(
    "--to",
    "target",
    type=click.Choice(["seed", "jsonl", "conll", "label-studio", "doccano", "prodigy", "brat", "hf", "spacy"]),
    required=True,
    help="hf: JSON Lines, or Parquet with features for OUT.parquet; spacy: JSON, or a DocBin for OUT.spacy.",
)
@click.option("--strict", is_flag=True, help="Write nothing if the format cannot hold everything.")
def convert(source: Path, output: Path, target: str, strict: bool) -> None:
    """Convert a NER file or folder to another layout; its own layout is recognised and said, and so is what the other one cannot hold."""
    from curricle.families.ner.convert import convert as write

    for line in write(source, output, target, strict=strict).lines():
        click.echo(line, err=True)
    click.echo(str(output))


@click.command()
@click.option(
    "--config",
    type=click.Path(path_type=Path),
    default=Path("config/train_continued.yaml"),
    show_default=True,
    callback=shipped,
    help="File with a checkpoint block.",
)
@click.option("--cache", type=click.Path(path_type=Path), default=None, help="Cache file of a former training.")
@click.option("--backbone", default=None, help="Fills {backbone} of checkpoint.source_path.")
@click.option("--run-id", default=None, help="Fills {run_id} of checkpoint.source_path.")
def resolve_checkpoint(config: Path, cache: Path | None, backbone: str | None, run_id: str | None) -> None:
    """Print the checkpoint that continued training would start from; which source won, and why the others did not, goes to standard error."""
    from curricle.steps.start import explain_checkpoint

    tree = read_yaml(config).tree | {"_config_dir": str(config.parent)}
    folder, place = explain_checkpoint(tree, cache, backbone, run_id)
    for reason in place.reasons:
        click.echo(reason, err=True)
    click.echo(str(folder) if folder else "scratch")


@click.group()
def ner() -> None:
    """Use a trained NER model."""


MODEL = click.option("--model", type=FOLDER, required=True, help="Folder of a trained model.")
FORMAT = click.option(
    "--format",
    "form",
    type=click.Choice(["jsonl", "label-studio"]),
    default="jsonl",
    show_default=True,
    help="label-studio: tasks with pre-annotations and their scores, as one JSON array.",
)


@ner.command()
@MODEL
@FORMAT
def predict(model: Path, form: Literal["jsonl", "label-studio"]) -> None:
    """Tag standard input, a text or a JSON record a line; for each line, an empty one too, a JSON record with annotations
    [start, end, label] goes to standard output.

    A file is checked whole before anything is written; of a pipe, the lines before a wrong one are.
    """
    from curricle.families.ner.predict import load_tagger, predict_lines

    lines = _checked_input()
    for line in predict_lines(load_tagger(model), lines, form=form):
        click.echo(line.encode())


@ner.command()
@MODEL
@click.option("--uncertain", type=click.IntRange(min=1), required=True, help="How many texts to pick.")
@FORMAT
def select(model: Path, uncertain: int, form: Literal["jsonl", "label-studio"]) -> None:
    """Pick what to annotate next: of standard input, read as by predict, the texts that the model is least sure of, the least sure first.

    A text's certainty is the probability of its least sure word's tag. Blank texts and equal ones are passed over.
    """
    from curricle.families.ner.predict import array_of, load_tagger, select_uncertain, task_of

    lines = _checked_input()
    chosen, texts = select_uncertain(load_tagger(model), lines, uncertain)
    click.echo(f"{len(chosen)} of {texts} texts", err=True)
    if form == "label-studio":
        rows: Iterable[str] = array_of(task_of(*found) for found in chosen)
    else:
        rows = (json.dumps(record | {"certainty": whole}, ensure_ascii=False) for record, _, whole in chosen)
    for line in rows:
        click.echo(line.encode())


def _checked_input() -> Iterator[str]:
    """The lines of standard input; a file's are checked first."""
    from curricle.families.ner.predict import decoded, records_of

    source = sys.stdin.buffer
    if source.seekable():
        for _ in records_of(decoded(source)):
            pass
        source.seek(0)
    return decoded(source)


@ner.command()
@MODEL
@click.option("--data", type=FOLDER, required=True, help="Folder of a dataset.")
def evaluate(model: Path, data: Path) -> None:
    """Exact span F1 on the test records (validation where there are none), as JSON."""
    from curricle.families.ner.evaluate import evaluate as measure

    click.echo(json.dumps(measure(model, data), indent=1, sort_keys=True))
