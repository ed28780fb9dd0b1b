"""The verb `init`: the shipped configuration as files to edit."""

from __future__ import annotations

from pathlib import Path

import click

from curricle.config.defaults import write_copy


@click.command()
@click.argument("folder", metavar="DIR", type=click.Path(file_okay=False, path_type=Path))
def init(folder: Path) -> None:
    """Write the shipped configuration to DIR/config, to be edited. Overwrites nothing."""
    written = write_copy(folder)
    click.echo(f"wrote {written}; a command that runs in {folder} reads it instead of the shipped one. Next:")
    if folder.resolve() != Path.cwd():
        click.echo(f"  cd {folder}")
    click.echo("  curricle train --list-curricula       # the stages and chains there are")
    click.echo("  curricle plan --chain chain_smoke     # what would run, why, and where every value comes from")
