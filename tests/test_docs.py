"""What README and docs print is a command line that the real command takes: no verb, option or argument of it has gone."""

import re
import shlex
from pathlib import Path

import click
import pytest

from curricle import environment
from curricle.cli import cli
from docs._ext import printed

ROOT = Path(__file__).parents[1]
PAGES = printed.pages()


def commands(page: Path) -> list[str]:
    """Calls of `curricle` in the code blocks of a page."""
    return [call for line in printed.command_lines(page) for call in printed.calls(line)]


def parse(line: str) -> None:
    """Raise click's own error where the command would not take this line."""
    command, words, context = cli, shlex.split(line)[1:], None
    while isinstance(command, click.Group) and words:
        context = click.Context(command, parent=context, info_name=words[0])
        name, found, words = command.resolve_command(context, words)
        command = found
        assert command is not None, name
    try:
        command.make_context(command.name, list(words), parent=context)
    except click.exceptions.Exit:  # --help, --version
        pass
    except (
        click.BadParameter
    ) as error:  # a file that is not here; a wrong option or a missing argument is another class
        if isinstance(error, click.MissingParameter):
            raise


@pytest.mark.parametrize(
    ("page", "line"), [pytest.param(p.name, line, id=f"{p.name}: {line}"[:100]) for p in PAGES for line in commands(p)]
)
def test_a_printed_command_is_one_that_the_command_line_takes(page, line):
    parse(line)


def test_every_environment_variable_stands_in_its_table():
    """Those that the package knows, and those that options of the command line can be given by."""

    def of_options(command: click.Command) -> set[str]:
        names = {option.envvar for option in command.params if isinstance(option.envvar, str)}
        if isinstance(command, click.Group):
            context = click.Context(command)
            for verb in command.list_commands(context):
                names |= of_options(command.get_command(context, verb))
        return names

    constants = {value for name, value in vars(environment).items() if name.isupper() and isinstance(value, str)}
    table = (ROOT / "docs/environment.md").read_text(encoding="utf-8")
    named = {
        name for line in table.splitlines() if line.startswith("|") for name in re.findall(r"`([A-Z0-9_]+)`", line)
    }
    assert named == constants | of_options(cli)


def test_readme_shows_every_verb_or_leads_to_it():
    shown = {shlex.split(line)[1] for page in PAGES for line in commands(page)}
    assert set(cli.list_commands(click.Context(cli))) - shown <= {"prepare"}


@pytest.mark.parametrize(
    "line", ["curricle brew", "curricle search", "curricle plan --chian x", "curricle pipeline compile --speed 3"]
)
def test_a_command_that_is_not_there_is_seen(line):
    with pytest.raises(click.UsageError):
        parse(line)
