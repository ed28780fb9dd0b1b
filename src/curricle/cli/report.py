"""The verb report: a run's pages, made from its store."""

from __future__ import annotations

from pathlib import Path

import click

from curricle.cli.look import console
from curricle.errors import CurricleError, OutputError
from curricle.masking import masked
from curricle.report.assigned import check_place, page_of_table, place_for
from curricle.report.build import evaluation_page, run_page, stage_page, write_reports
from curricle.report.facts import read_run
from curricle.report.track import track_reports
from curricle.steps.findings import find, find_matrix, find_on
from curricle.steps.source import no_stage, read_plan
from curricle.steps.tracked import leave_points
from curricle.store import join_uri, open_store, split_uri
from curricle.store.local import write_whole
from curricle.training.pulse import working


@click.command()
@click.argument("run", metavar="RUN[/STAGE]", default="")
@click.option("--store", "store_uri", default="checkpoints", show_default=True, help="Store of the runs.")
@click.option(
    "--measure/--no-measure",
    default=True,
    show_default=True,
    help="Measure the result (or STAGE) on its test records where nobody did so before; it is done once and kept in the store.",
)
@click.option(
    "--output",
    "-o",
    type=click.Path(dir_okay=False, path_type=Path),
    default=None,
    help="One page into this file; default report.html in the store, for the run and for each of its stages.",
)
@click.option(
    "--data", default="", help="Measure on this instead, prepared data or a dataset's folder; needs --output."
)
@click.option(
    "--assigned",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    default=None,
    metavar="FILE",
    help="The report of a table that curricle assign wrote, in the place of a run's; default beside it.",
)
def report(run: str, store_uri: str, measure: bool, output: Path | None, data: str, assigned: Path | None) -> None:
    """Make the HTML report of a run and of its stages: one file each, which needs nothing else.

    The page holds the verdict, what ran, curves, cost, and what the family shows of the result: for codes the disc of all codes, the slider of
    automation and the confusions; for NER scores before and after, the worst errors in their texts, precision against coverage.
    """
    if bool(run) == bool(assigned):
        raise click.UsageError("give either RUN (curricle show lists them) or --assigned FILE")
    if output is not None and not output.parent.is_dir():
        raise OutputError(f"--output {output}: there is no folder {output.parent}; make it first (mkdir -p)")
    if assigned:
        output = output or place_for(assigned)
        check_place(output, [assigned])
        text = page_of_table(assigned)
        write_whole(output, lambda out: out.write(text.encode()))
        click.echo(str(output))
        return
    if data and output is None:
        raise click.UsageError(
            "--data needs --output: what is measured on other data is no part of the run in the store"
        )
    run, _, name = run.strip("/").partition("/")
    known = read_run(store_uri, run)
    stage = (
        known.result
        if not name
        else next((s for s in known.stages if s.name == name or s.place == f"{run}/{name}"), None)
    )
    if stage is None:
        raise OutputError(no_stage(store_uri, run, name, (s.name for s in known.stages)))
    if output is not None:
        check_place(output, [])
    if data and output is not None:
        page = evaluation_page(known, stage, find_on(join_uri(store_uri, stage.place), data), data)
        write_whole(output, lambda out: out.write(page.encode()))
        click.echo(str(output))
        return
    if stage.state == "complete" and stage.place and not stage.findings.get("measured"):
        if measure:
            click.echo(f"measuring {stage.place} on its test records, once ...", err=True)
            find(join_uri(store_uri, stage.place))
        else:
            _look(join_uri(store_uri, stage.place))
        known = read_run(store_uri, run)
        stage = next(one for one in known.stages if (one.place, one.name) == (stage.place, stage.name))
    if measure and not name and all(one.state == "complete" for one in known.planned):
        if plan := read_plan(store_uri, run):
            find_matrix(plan)
        known = read_run(store_uri, run)
    if output is not None:
        text = stage_page(known, stage, links=False) if name else run_page(known, links=False)
        write_whole(output, lambda out: out.write(text.encode()))
        click.echo(str(output))
        return
    uri = write_reports(store_uri, run)
    _track(store_uri, run)
    click.echo(_here(join_uri(store_uri, f"{stage.place}/report.html") if name else uri))


def leave_report(store_uri: str, run: str, uri: str) -> None:
    """Write a run's pages at its end, and say where they are. What goes wrong is said and ends nothing: the run is complete.

    Args:
        uri: the result's stage.
    """
    try:
        with working("writing the report"):
            _look(uri)
            leave_points(uri)
            page = _here(write_reports(store_uri, run))
    except (CurricleError, OSError) as error:
        console.print(f"no report: {masked(str(error))}", style="yellow", highlight=False, markup=False, soft_wrap=True)
        return
    _track(store_uri, run)
    console.print(f"report: {page}", highlight=False, markup=False, soft_wrap=True)


def _track(store_uri: str, run: str) -> None:
    """Give the run's pages to MLflow where it is tracked there; what goes wrong is said and ends nothing."""
    try:
        with working("handing the report to MLflow"):
            track_reports(store_uri, run)
    except CurricleError as error:
        click.echo(masked(str(error)), err=True)


def _look(uri: str) -> None:
    """Find what costs seconds; what a model that is not whole any more cannot tell is said, and the report goes without."""
    try:
        find(uri, measure=False)
    except CurricleError as error:
        click.echo(f"the report has no more than the records of {uri}: {masked(str(error))}", err=True)


def _here(uri: str) -> str:
    """Where a browser opens a page: in a store of this machine it lies there; of another, it is named."""
    base, key = split_uri(uri)
    path = open_store(base).local(key)
    return uri if path is None else str(uri).removeprefix("file://")
