"""The verb preflight."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path

import click
from rich.markup import escape

from curricle.cli.look import console, plain_table
from curricle.cli.options import CONFIG
from curricle.config.chain import list_curricula, load_stage
from curricle.errors import ConfigError
from curricle.launch import launchers
from curricle.steps.preflight import run_checks


@click.command()
@click.option(
    "--launcher",
    type=click.Choice(tuple(launchers())),
    default="local",
    show_default=True,
    help="Where jobs will run.",
)
@click.option("--store", default="", help="Store to try; default paths.store_uri of the configuration.")
@CONFIG
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def preflight(launcher: str, store: str, config: Path, as_json: bool) -> None:
    """Try store and cluster before training needs them, with the workers' own credentials in a pod; exit code 2 if something fails."""
    if not store:
        stages = list_curricula(config.parent)
        if not stages:
            raise ConfigError(f"{config.parent} holds no stage files that would name a store; give --store")
        store = load_stage(config, stages[0][0], []).config.paths.store_uri
    findings = []
    for finding in run_checks(store, launcher):
        findings.append(finding)
        mark = "ok" if finding.ok else "FAILED"
        click.echo(f"{mark:<7} {finding.name}: {' '.join(finding.detail.split())}", err=True)
    if as_json:
        click.echo(json.dumps([asdict(f) for f in findings], indent=1))
    else:
        table = plain_table(f"preflight of {launcher}, store {store}")
        for name in ("", "check", "found", "what to do"):
            table.add_column(name, overflow="fold")
        for f in findings:
            mark = "[green]ok[/]"
            if not f.ok:
                mark = "[red]FAILED[/]"
            elif f.advice:
                mark = "[yellow]not seen[/]"
            table.add_row(mark, escape(f.name), escape(f.detail), escape(f.advice))
        console.print(table)
    if not all(f.ok for f in findings):
        sys.exit(2)
