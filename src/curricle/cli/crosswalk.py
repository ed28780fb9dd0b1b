"""The verb crosswalk: keep a model when the codes change."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from curricle.cli.chain import GATE, LAUNCHER, OVERRIDES, RESUME, RUN_ID, leave_report, log_of
from curricle.cli.extras import require
from curricle.cli.look import Progress, console, plain_table, plan_table, show_verdict
from curricle.cli.options import CONFIG
from curricle.cli.use import MODEL, STORE
from curricle.config.schema import in_store
from curricle.launch import open_launcher
from curricle.steps.chain import ChainRequest
from curricle.steps.crosswalk import carry, plan_further, train_further, write_report
from curricle.steps.estimate import estimates
from curricle.steps.use import open_model
from curricle.store.ours import new_folder, require_free


@click.command()
@click.argument("concordance", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@MODEL
@click.option("--output", "-o", required=True, type=click.Path(path_type=Path), help="New folder for the tables and the report.")  # fmt: skip
@click.option("--classification", default="", metavar="FILE", help="Table of the new codes, with all levels; without it, they are those of the concordance under the old codes above.")  # fmt: skip
@click.option("--old-column", default="", metavar="NAME", help="Column of the old codes, where it is not recognised.")
@click.option("--new-column", default="", metavar="NAME", help="Column of the new codes, where it is not recognised.")
@click.option("--encoding", default="", help="Encoding of the concordance, where it is not recognised.")
@click.option("--train/--no-train", default=True, show_default=True, help="Train the model further; without, only the tables are written.")  # fmt: skip
@STORE
@CONFIG
@GATE
@RESUME
@LAUNCHER
@RUN_ID
@OVERRIDES
def crosswalk(
    concordance: Path,
    model: str,
    output: Path,
    train: bool,
    store: str,
    config: Path,
    gate: str | None,
    resume: bool,
    launcher: str,
    run_id: str,
    overrides: tuple[str, ...],
    **order: Any,
) -> None:
    """Carry a model over to a new classification: texts follow their codes, the table its points, and it is trained further.

    data.labelled=FILE adds texts that are coded by the new classification.
    """
    require("torch")
    require_free(output)
    opened = open_model(model, store, verb="search")
    console.print(f"{opened.uri}: {opened.reason}", style="dim", highlight=False, markup=False, soft_wrap=True)
    with new_folder(output) as fresh:
        carried = carry(opened, concordance, store, fresh, **order)
        _show(carried.report)
        outcome = judged = None
        if train:
            asked = ChainRequest(config=config, overrides=(f"paths.store_uri={store}", *overrides), gate=gate, resume=resume, run_id=run_id)  # fmt: skip
            planned = plan_further(opened, carried, asked)
            plan_table(planned, values=False, expected=estimates(planned))
            with Progress(log_of(planned)) as progress:
                outcome, judged = train_further(planned, open_launcher(launcher), progress)
        write_report(fresh, carried, outcome, judged)
    if judged:
        show_verdict(judged.scores, judged.verdict)
    if outcome:
        leave_report(planned, outcome.uri)
    console.print(f"tables and report: {output}", highlight=False, markup=False, soft_wrap=True)
    console.print(
        f"next: {_next(output, outcome.uri if outcome else '', store)}", highlight=False, markup=False, soft_wrap=True
    )


def _show(report: Mapping[str, Any]) -> None:
    """What became of codes and texts."""
    console.print(report["read_as"], highlight=False, markup=False, soft_wrap=True)
    table = plain_table("what became of the codes")
    for name in ("what", "old", "new", ""):
        table.add_column(name, justify="right" if name in ("old", "new") else "left")
    sides = report["became"]
    for status in report["statuses"]:
        if any(sides[side][status] for side in sides):
            cells = (f"{sides[side][status]:,}" if sides[side][status] else "-" for side in ("old", "new"))
            table.add_row(status, *cells, report["meanings"][status])
    console.print(table)
    texts = report["texts"]
    console.print(
        f"texts: {texts['followed']:,} follow ({texts['followed_to_another_code']:,} of them to another code), {texts['by_model']:,} are placed by the model "
        f"({texts['by_model_unsure']:,} of them at less than 50 %)" + "".join(f"; {count:,} left out: {why}" for why, count in report["left_out"].items()),
        highlight=False, markup=False, soft_wrap=True,
    )  # fmt: skip


def _next(folder: Path, uri: str, store: str) -> str:
    """The commands that people go on with."""
    tables = [f"{key}={shlex.quote(str(folder / name))}" for key, name in (("data.classification", "classification.csv"), ("data.labelled", "texts.csv"))]  # fmt: skip
    alone = f"look at {folder / 'texts.csv'} where crosswalked_by is model; corrected, it trains a model of its own: curricle train-curriculum {' '.join(tables)}"
    if not uri:
        return alone
    return f'curricle promote {shlex.quote(uri)}{in_store(store)} (from then on all answers are of the new codes); curricle search "TEXT" --model {shlex.quote(uri)}; {alone}'
