"""Verbs of the NER family: combine, convert, resolve-checkpoint, ner predict, ner select, ner evaluate, ner export."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click
from rich.markup import escape
from rich.table import Table

from curricle.cli.look import console, plain_table
from curricle.cli.options import Number, shipped
from curricle.config.load import read_yaml
from curricle.errors import ConfigError
from curricle.training.pulse import working

if TYPE_CHECKING:
    from curricle.families.ner.evaluate import Report

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
    "--replay",
    type=Number(0, 1, min_open=True),
    default=None,
    help="Share of the old training records to keep; all by default.",
)
@click.option(
    "--validation-ratio",
    type=Number(0, 1, min_open=True, max_open=True),
    default=0.1,
    show_default=True,
    help="Share of records for a new validation set.",
)
@click.option(
    "--new-validation/--keep-validation",
    default=True,
    show_default=True,
    help="Draw a new validation set, or join those that are there.",
)
@click.option(
    "--seed", type=click.IntRange(0, 2**32 - 1), default=42, show_default=True, help="Decides everything that is drawn."
)
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

    if old is None and strategy != "new_only":
        raise click.UsageError(
            f"--old is missing: the folder of the old dataset, which --strategy {strategy} reads; --strategy new_only takes the new one alone"
        )
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


def _checkpoint_of(context: click.Context, parameter: click.Parameter, model: Path) -> Path:
    """The folder of a model as it is, held against its manifest where it has one; of a stage or a run in a store here, its best checkpoint."""
    from curricle.steps.evaluate import CACHE
    from curricle.steps.source import resolve_source
    from curricle.store import layout, open_store
    from curricle.store.manifest import fetch, read_manifest

    if not model.is_dir():
        return model
    place = str(model.absolute())
    store = open_store(place)
    manifest = read_manifest(store, "")
    if manifest.kind == "stage" if manifest else store.read(layout.PLAN) is not None:
        return fetch(resolve_source(place, "", asked="--model").uri, CACHE)[0]
    if manifest:
        fetch(place, CACHE)  # it lies here: nothing is fetched, everything is verified
    return model


MODEL = click.option(
    "--model",
    type=FOLDER,
    required=True,
    callback=_checkpoint_of,
    help="Folder of a trained model, or of a stage or a run, whose best checkpoint is meant.",
)
FORMAT = click.option(
    "--format",
    "form",
    type=click.Choice(["jsonl", "label-studio"]),
    default="jsonl",
    show_default=True,
    help="label-studio: tasks with pre-annotations and their scores, as one JSON array.",
)


CALIBRATE = click.option(
    "--calibrate",
    "calibrate_on",
    metavar="DATA",
    type=FOLDER,
    default=None,
    help="Folder of a dataset: fit the probabilities to its validation records first, instead of what the model's folder says; for models of earlier "
    "versions and of other programs, and texts of another domain. Nothing is written.",
)


@ner.command()
@MODEL
@FORMAT
@click.option(
    "--threshold",
    type=Number(0, 1),
    default=0.0,
    help="Leave out spans that are less probable; `ner evaluate` shows what a threshold does. By default none is left out.",
)
@CALIBRATE
def predict(model: Path, form: Literal["jsonl", "label-studio"], threshold: float, calibrate_on: Path | None) -> None:
    """Tag standard input, a text or a JSON record a line; for each line, an empty one too, a JSON record with annotations
    [start, end, label] and, in the same order, their scores goes to standard output.

    A score is the probability that a span is exactly right: of the spans with 0.8 about four in five are. It is calibrated on the validation
    records of the model's training.

    A file is checked whole before anything is written; of a pipe, the lines before a wrong one are.
    """
    from curricle.families.ner.predict import predict_lines

    lines = _checked_input()
    for line in predict_lines(_tagger(model, calibrate_on), lines, form=form, threshold=threshold):
        click.echo(line.encode())


@ner.command()
@MODEL
@click.option("--uncertain", type=click.IntRange(min=1), required=True, help="How many texts to pick.")
@FORMAT
@CALIBRATE
def select(model: Path, uncertain: int, form: Literal["jsonl", "label-studio"], calibrate_on: Path | None) -> None:
    """Pick what to annotate next: of standard input, read as by predict, the texts that the model is least sure of, the least sure first.

    A text's certainty is the least probability of one of its spans, or of one of its other words that it is in no span, calibrated as those of
    predict. Blank texts and equal ones are passed over.
    """
    from curricle.families.ner.predict import array_of, select_uncertain, task_of

    lines = _checked_input()
    chosen, texts = select_uncertain(_tagger(model, calibrate_on), lines, uncertain)
    click.echo(f"{len(chosen)} of {texts} texts", err=True)
    if form == "label-studio":
        rows: Iterable[str] = array_of(task_of(*found) for found in chosen)
    else:
        rows = (
            json.dumps(record | {"scores": each, "certainty": whole}, ensure_ascii=False)
            for record, each, whole in chosen
        )
    for line in rows:
        click.echo(line.encode())


def _tagger(model: Path, calibrate_on: Path | None) -> Any:
    """The model; says so where its probabilities are its own."""
    from curricle.families.ner.predict import calibrate, load_tagger

    with working("opening the model"):
        tagger = load_tagger(model)
    if calibrate_on is not None:
        with working(f"calibrating on {calibrate_on}"):
            made = calibrate(tagger, calibrate_on)
        click.echo(f"calibrated on {made.spans.count} spans of {calibrate_on}", err=True)
    elif tagger.calibration is None:
        click.echo(
            f"{model} holds no calibration.json (it is of an earlier version, or of another program): scores are the model's own, not calibrated; "
            "--calibrate DATA does it on a dataset's validation records",
            err=True,
        )
    return tagger


def _checked_input() -> Iterator[str]:
    """The lines of standard input; a file's are checked first."""
    from curricle.families.ner.predict import LONGEST, decoded, records_of

    source = sys.stdin.buffer

    def lines() -> Iterator[bytes]:
        return iter(lambda: source.readline(LONGEST), b"")  # /dev/zero is one line without an end

    if source.seekable():
        for _ in records_of(decoded(lines())):
            pass
        source.seek(0)
    return decoded(lines())


@ner.command()
@MODEL
@click.option("--data", type=FOLDER, required=True, help="Folder of a dataset.")
@CALIBRATE
@click.option(
    "--json/--table", "as_json", default=None, help="How to print it; by default a table in a terminal, else JSON."
)
def evaluate(model: Path, data: Path, calibrate_on: Path | None, as_json: bool | None) -> None:
    """Measure a model on a dataset's test records (validation where there are none): exact span F1, the calibration error of its probabilities,
    precision, recall and coverage against the threshold of predict, and the kinds of errors by label.

    coverage: the share of the found spans that a threshold leaves. boundary: the right label, overlapping. label: overlapping, another label.
    missed: overlaps nothing that was found. spurious: overlaps nothing that is annotated. Each error counts once.
    """
    from curricle.families.ner.evaluate import report

    with working(f"measuring {model} on {data}"):
        made = report(model, data, calibrate_on)
    for note in made.notes():
        click.echo(note, err=True)
    if as_json if as_json is not None else not sys.stdout.isatty():
        click.echo(json.dumps(made.to_dict(), indent=1, sort_keys=True))
    else:
        _show(made)


SHOWN = (0.0, 0.5, 0.9)
"""Thresholds of the table by label; JSON has all."""


def _show(report: Report) -> None:
    """Print precision, recall and coverage against the threshold, and the kinds of errors, in all and by label."""
    from curricle.families.ner.mistakes import KINDS

    known = report.calibration
    ece = next(value for name, value in report.metrics.items() if name.count("/") == 1 and name.endswith("/ece"))
    how = f"calibrated on {known.spans.count} validation spans" if known else "not calibrated"
    console.print(f"{report.source}", markup=False, highlight=False, soft_wrap=True)
    console.print(f"probabilities: {how}; calibration error {ece:.3f}\n", markup=False, highlight=False)
    table = _table("threshold", "spans", "precision", "recall", "F1", "coverage")
    for point in report.curve:
        shares = (point.precision, point.recall, point.f1, point.coverage)
        table.add_row(f"{point.threshold:.2f}", str(point.kept), *(f"{share:.3f}" for share in shares))
    console.print(table)

    console.print("\nprecision and recall by label, in percent, at thresholds", highlight=False)
    table = _table("label", "true", "found", *(f"{threshold:g}" for threshold in SHOWN), left=1)
    kinds = report.kinds()
    for label, points in report.labels.items():
        shown = [point for point in points if point.threshold in SHOWN]
        true = sum(count for kind, count in kinds[label].items() if kind != "spurious")
        cells = (f"{100 * point.precision:.0f} {100 * point.recall:3.0f}" for point in shown)
        table.add_row(escape(label), str(true), str(points[0].kept), *cells)
    console.print(table)

    console.print("\nkinds of errors", highlight=False)
    table = _table("label", *KINDS, "taken for", left=1)
    taken = report.taken_for()
    for label, counts in kinds.items():
        others = ", ".join(f"{other} {count}" for other, count in islice(taken.get(label, {}).items(), 2))
        table.add_row(escape(label), *(str(counts[kind]) for kind in KINDS), escape(others))
    if len(kinds) > 1:
        table.add_row("all", *(str(sum(counts[kind] for counts in kinds.values())) for kind in KINDS), "")
    console.print(table)


def _table(*names: str, left: int = 0) -> Table:
    """A table of numbers; the first `left` columns, and one for remarks, hold words."""
    table = plain_table()
    for place, name in enumerate(names):
        words = place < left or name == "taken for"
        table.add_column(name, justify="left" if words else "right", overflow="fold", no_wrap=not words)
    return table


@ner.command()
@MODEL
@click.option(
    "--format",
    "kind",
    type=click.Choice(["huggingface", "onnx"]),
    default="huggingface",
    show_default=True,
    help="huggingface: what transformers loads; onnx: a graph for ONNX Runtime, checked against the model. Both with tokenizer and card.",
)
@click.option(
    "--int8", is_flag=True, help="Of onnx: weights in 8 bits; a quarter of the size, not quite the same spans."
)
@click.option(
    "--data",
    type=FOLDER,
    default=None,
    help="Dataset that the card's scores and the checks are made on; default what the model was trained with.",
)
@click.option("--output", "-o", type=FOLDER, required=True, help="New folder.")
def export(model: Path, kind: str, int8: bool, data: Path | None, output: Path) -> None:
    """Export a model for other programs, with its card; a graph is compared with the model in spans, logits and speed."""
    from curricle.families.ner.export import export as write
    from curricle.steps.evaluate import data_at_hand

    if int8 and kind != "onnx":
        raise ConfigError("--int8 is of --format onnx; transformers loads no such weights")
    if data is None:
        data, why = data_at_hand(model)
        if data is None:
            click.echo(f"the card has no scores ({why}); --data names a dataset", err=True)
    with working(f"exporting {model}"):
        checked = write(model, output, kind, int8=int8, data_dir=data)
    for line in checked.lines() if checked else ():
        click.echo(line, err=True)
    click.echo(str(output))
