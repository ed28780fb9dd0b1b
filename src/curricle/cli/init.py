"""The verb `init`: the shipped configuration as files to edit."""

from __future__ import annotations

from pathlib import Path

import click

from curricle.config.defaults import FOLDER, SHIPPED
from curricle.errors import ConfigError
from curricle.store.ours import new_folder


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


def write_copy(folder: Path) -> Path:
    """Write the shipped set to `folder`/config, to be edited; the folder written.

    It is written whole or not at all.

    Raises:
        OutputError: `folder`/config is a file or a link, or holds something already.
        ConfigError: it cannot be written.
    """
    target = folder / FOLDER
    try:
        with new_folder(target) as fresh:
            for source in sorted(path for path in SHIPPED.rglob("*") if path.is_file()):
                copy = fresh / source.relative_to(SHIPPED)
                copy.parent.mkdir(parents=True, exist_ok=True)
                copy.write_bytes(source.read_bytes())
    except OSError as error:
        raise ConfigError(f"cannot write {target}: {error.strerror}") from None
    return target
