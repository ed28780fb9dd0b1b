"""Verbs that use a trained model, whatever its family: search, assign, export, evaluate; and promote, which says which one is meant."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from curricle.cli.look import Count, console
from curricle.cli.options import Number
from curricle.report.assigned import About, assigned_page, check_place, place_for
from curricle.steps.assign import Listener, Opened, assign_table, rejects_of
from curricle.steps.assigned import NO_TEXT, Order, part
from curricle.steps.evaluate import evaluate_model
from curricle.steps.promote import pinned_because
from curricle.steps.promote import promote as pin
from curricle.steps.register import register as register_model
from curricle.steps.table_output import KINDS
from curricle.steps.use import Model, hit_as_json, open_model
from curricle.store.local import write_whole

ONE_FILE = ("npz", "parquet")
"""Formats of `export` that are a file, and its ending."""
REJECTED = 3
"""Exit code of `assign` where all is done but rows that are none."""
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
@click.option("--explain", is_flag=True, help="Also print what each code rests on.")
@STORE
@MODEL
def search(texts: tuple[str, ...], top: int, as_json: bool, explain: bool, store: str, model: str) -> None:
    """Find the likeliest codes of texts, with their probabilities."""
    asked = [text for text in texts if text.strip()]
    if not asked:
        raise click.UsageError("there is no text: what is given is empty")
    opened = _open(store, model, "search")
    hits = opened.search(asked, top)
    reasons = opened.explain(asked, hits) if explain else [[None] * len(row) for row in hits]
    found = zip(hits, reasons, strict=True)
    for text in texts:
        row, why = next(found) if text.strip() else ([], [])
        if as_json:
            click.echo(json.dumps({"text": text, "hits": [hit_as_json(*pair) for pair in zip(row, why, strict=True)]}))
            continue
        console.print(text, style="bold", highlight=False, markup=False)
        if not text.strip():
            console.print(f"  -       {NO_TEXT}", highlight=False, markup=False)
        for hit, reason in zip(row, why, strict=True):
            for line in (f"  {hit.code or '-':<7} {hit.confidence:6.1%}  {hit.title}", *_lines(hit, reason)):
                console.print(line, highlight=False, markup=False, soft_wrap=True)


def _lines(hit: Any, reason: Any) -> Iterator[str]:
    """What is printed below a code."""
    if reason is None or not hit.code:
        return
    yield f"          in {' > '.join(f'{code} {title}' for code, title in hit.path[:-1])}"
    for near in reason.neighbours:
        shared = f" [{', '.join(near.words)}]" if near.words else ""
        yield f"          {part(near.share):>4}  {near.text}{shared}"
    if reason.words:
        yield f"          words: {', '.join(word for word, _ in reason.words)}"
    for other in reason.elsewhere:
        yield f"          excluded from {other.source}: {other.text} (see {other.code} {other.title})"


@click.command()
@click.argument("source", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--column", required=True, metavar="NAME|NUMBER", help="Column that holds the text.")
@click.option("--output", "-o", required=True, type=click.Path(dir_okay=False, path_type=Path), help="File to write: .csv, .tsv, .xlsx, .jsonl, .parquet.")  # fmt: skip
@click.option("--top", default=1, show_default=True, type=click.IntRange(1, 100), help="Codes a row: the best, and alternatives.")  # fmt: skip
@click.option("--max-error", type=Number(0, 1), metavar="SHARE", help="Mark rows for review so that at most this share of the others is wrong, as on validation texts.")  # fmt: skip
@click.option("--review-below", type=Number(0, 1), metavar="CONFIDENCE", help="Mark rows for review whose confidence is lower.")  # fmt: skip
@click.option("--explain", is_flag=True, help="Also columns of what the code rests on.")
@click.option("--fast", is_flag=True, help="Encode in 16 bits where the processor is fast in them (AMX), else in 8 (needs curricle[onnx]): up to twice as many rows a second, and confidences that differ by some hundredths from those of search.")  # fmt: skip
@click.option("--prefix", default="", help="What the names of the added columns begin with.")
@click.option("--rejects", type=click.Path(dir_okay=False, path_type=Path), help="Where rows go that are none; default beside OUTPUT, without its ending: out.rejects.csv.")  # fmt: skip
@click.option("--report", "page", type=click.Path(dir_okay=False, path_type=Path), help="Where the report goes; default OUTPUT.report.html, the output's name without its ending.")  # fmt: skip
@click.option("--no-report", is_flag=True, help="Write no report.")
@click.option("--encoding", default="", help="Encoding of the input, where it is not recognised.")
@click.option("--output-encoding", default="", help="Encoding of the output; default the input's own, UTF-8 where it has none.")  # fmt: skip
@click.option("--header/--no-header", default=None, help="Whether the first row names the columns, where it is not recognised.")  # fmt: skip
@STORE
@MODEL
def assign(source: Path, output: Path, rejects: Path | None, page: Path | None, no_report: bool, encoding: str, output_encoding: str, header: bool | None, store: str, model: str, **asked: Any) -> None:  # fmt: skip
    """Assign a code to every row of a table: CSV, TSV, XLSX, JSON Lines or parquet.

    All rows and columns are kept; code, title, confidence, review, alternatives and model_version are added. A row that is none (too many cells, a byte
    that is no text) goes to a file of its own, and the exit code is 3. After a kill the same command goes on. A report, without any text of the
    table, tells how much is coded, how sure, and which codes.
    """
    if page and no_report:
        raise click.UsageError("--report and --no-report are the opposite of one another; give one of them")
    order, opened, report = Order(**asked), [], page or place_for(output)
    if not no_report:
        check_place(report, [source, output, rejects or rejects_of(output)])

    def coder() -> Opened:
        opened.append(_open(store, model, "assign"))
        return opened[0].coder()

    with Count("coding") as count:
        done = assign_table(
            source, output, order, coder, rejects=rejects, encoding=encoding,
            output_encoding=output_encoding, header=header, listener=Listener(lambda said: click.echo(said, err=True), count),
        )  # fmt: skip
    marked = f": {done.coded:,} coded, {done.review:,} for review" if order.has_rule or done.review else ""
    empty = f" ({done.tally['empty']:,} without a text)" if done.tally.get("empty") else ""
    without = f", {done.without:,} of them without a code{empty}" if done.without else ""
    click.echo(f"{done.rows:,} rows → {output}{marked}{without}", err=True)
    if not no_report:
        why = f"{opened[0].uri} ({opened[0].reason})"
        text = assigned_page(About(str(output), str(source), why, done))
        write_whole(report, lambda out: out.write(text.encode()))
        click.echo(f"report: {report}", err=True)
    if done.bad:
        more = f", and {done.bad - len(done.named):,} more" if done.bad > len(done.named) else ""
        click.echo(f"rejected: {done.bad:,}, kept in {done.rejects}: {'; '.join(done.named)}{more}", err=True)
        sys.exit(REJECTED)


@click.command()
@click.option(
    "--format",
    "kind",
    type=click.Choice(["npz", "parquet", "huggingface", "sentence-transformers", "onnx", "onnx-int8", "projector"]),
    default="npz",
    show_default=True,
    help="npz and parquet: a file of the codes' coordinates. The others are folders: the encoder (huggingface); encoder and head, as "
    "SentenceTransformer loads them or as one graph, which is compared with the model on validation texts; vectors and names for TensorBoard's projector.",
)
@click.option("--output", "-o", required=True, type=click.Path(path_type=Path), help="New file or folder.")
@STORE
@MODEL
def export(kind: str, output: Path, store: str, model: str) -> None:
    """Export the codes' coordinates, or a folder of the model for other programs."""
    ending = output.suffix.lower()
    if kind in ONE_FILE and ending != f".{kind}" and ending in (*KINDS, *(f".{other}" for other in ONE_FILE)):
        also = f"; --format {ending[1:]} writes that" if ending[1:] in ONE_FILE else ""
        raise click.UsageError(f"--format {kind} writes an .{kind} file, and {output} ends in {ending}{also}")
    for line in _open(store, model, "export").export(output, kind):
        click.echo(line, err=True)
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


@click.command()
@click.argument("model", metavar="RUN|RUN/STAGE|PATH")
@click.option(
    "--to",
    "registry",
    required=True,
    metavar="mlflow|URL",
    help="mlflow (the registry of MLFLOW_TRACKING_URI), or the URL of a Kubeflow Model Registry.",
)
@click.option("--name", required=True, help="Name of the registered model, under which its versions stand.")
@click.option(
    "--verdict", default="", help="Why it is good, for people; default what promoted it, where it is the promoted one."
)
@STORE
def register(model: str, registry: str, name: str, verdict: str, store: str) -> None:
    """Register a model: its place in the store, digest, verdict and run. Its weights stay where they are."""
    click.echo(
        register_model(model, store, registry=registry, name=name, verdict=verdict or pinned_because(model, store))
    )


def _open(store: str, model: str, verb: str) -> Model:
    opened = open_model(model, store, verb=verb)
    print(f"model {opened.uri}: {opened.reason}", file=sys.stderr)
    return opened
