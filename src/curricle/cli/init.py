"""The verb `init`: the shipped configuration as files to edit, and example data to try it with."""

from __future__ import annotations

from pathlib import Path

import click

from curricle.config.defaults import FOLDER, SHIPPED
from curricle.errors import ConfigError, OutputError
from curricle.registry import FAMILIES
from curricle.store.ours import new_folder


@click.command()
@click.argument("folder", metavar="DIR", type=click.Path(file_okay=False, path_type=Path))
@click.option("--data-only", is_flag=True, help="Write the example data alone, beside a configuration that is there.")
def init(folder: Path, data_only: bool) -> None:
    """Write the shipped configuration to DIR/config, to be edited, and small synthetic datasets beside it, where its experiments look for
    data. Overwrites nothing."""
    if data_only:
        _say_data(write_example_data(folder))
        return
    written = write_copy(folder)
    click.echo(f"wrote {written}; a command that runs in {folder} reads it instead of the shipped one.")
    try:
        _say_data(write_example_data(folder))
    except OutputError as error:
        click.echo(f"no example data were written: {error}")
    click.echo("Next:")
    if folder.resolve() != Path.cwd():
        click.echo(f"  cd {folder}")
    click.echo("  curricle train --list-curricula       # the stages and chains there are")
    click.echo("  curricle plan --chain chain_smoke     # what would run, why, and where every value comes from")
    click.echo(
        "  curricle plan --experiment config/experiment/resume_ner_baseline.yaml     # the same on the example data"
    )


def _say_data(written: list[Path]) -> None:
    click.echo(
        f"wrote {', '.join(str(path) for path in written)}: synthetic examples, to be replaced by your own data."
    )


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


def write_example_data(folder: Path) -> list[Path]:
    """Write the example data of every family that has some, below `folder`; the folders written.

    Raises:
        OutputError: one of the places holds something already.
        ConfigError: they cannot be written.
    """
    entries = [entry for entry in FAMILIES.values() if entry.example]
    try:
        return [path for entry in entries for path in entry.load("example")(folder)]
    except OSError as error:
        raise ConfigError(f"cannot write example data to {folder}: {error.strerror}") from None
