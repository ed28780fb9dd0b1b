"""The verb completion."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

SHELLS = ("bash", "zsh", "fish")


@click.command()
@click.argument("shell", type=click.Choice(SHELLS))
def completion(shell: str) -> None:
    """Print the completion script of a shell: `eval "$(curricle completion bash)"`, or for good in the shell's own start file."""
    from curricle.cli import cli

    made = get_completion_class(shell)
    assert made is not None
    click.echo(made(cli, {}, "curricle", "_CURRICLE_COMPLETE").source())
