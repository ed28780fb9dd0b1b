"""Options that several verbs share."""

from __future__ import annotations

from pathlib import Path

import click

from curricle.config.defaults import config_file


def shipped(context: click.Context, parameter: click.Parameter, path: Path | None) -> Path | None:
    """The file of the set that ships with Curricle, where there is no folder config/ here."""
    return config_file(path) if path else None


CONFIG = click.option(
    "--config",
    type=click.Path(path_type=Path),
    default=Path("config/config.yaml"),
    show_default=True,
    callback=shipped,
    help="Base configuration file; without a folder config/ here, the set that ships with Curricle.",
)
