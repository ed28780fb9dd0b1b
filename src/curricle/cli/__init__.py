"""The `curricle` command: thin verbs over `steps`, and how they look in a terminal.

Verbs are imported on choice, so that `curricle --help` and `curricle plan` stay quick and need neither torch nor kfp.
"""

from __future__ import annotations

import importlib
import io
import os
import signal
import sys
import traceback
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import click

from curricle import __version__, environment
from curricle.cli.extras import extra_of
from curricle.errors import CurricleError
from curricle.masking import masked, visible
from curricle.store.process import take_all_characters

VERBS = {
    "init": ("init", "Write the shipped configuration to a folder, to be edited."),
    "train": ("chain", "Train one stage."),
    "train-curriculum": ("chain", "Train a chain of stages."),
    "plan": ("chain", "Show what would run and why; run nothing."),
    "prepare": ("chain", "Prepare the data of a stage."),
    "attach": ("chain", "Follow a stage's job that was started elsewhere."),
    "show": ("chain", "Show the runs of a store, or one run."),
    "report": ("report", "Make the HTML report of a run."),
    "promote": ("use", "Pin the model that is taken where none is named."),
    "register": ("use", "Register a model with MLflow or Kubeflow's Model Registry."),
    "search": ("use", "Find the codes for a text."),
    "assign": ("use", "Assign a code to every row of a table."),
    "serve": ("serve", "Serve a trained model: a page and an API."),
    "export": ("use", "Export the codes' coordinates or a loadable model."),
    "crosswalk": ("crosswalk", "Carry a model over to another classification."),
    "evaluate": ("use", "Measure a model on the held-out texts."),
    "compare": ("compare", "Show trained models side by side, or their scores over datasets."),
    "combine": ("ner", "Combine NER datasets for continued training."),
    "convert": ("ner", "Convert a NER dataset between the layouts of annotation tools."),
    "resolve-checkpoint": ("ner", "Show which checkpoint continued NER training would start from."),
    "ner": ("ner", "Tag text with a trained NER model, or measure it."),
    "preflight": ("preflight", "Try store and cluster before training needs them."),
    "pipeline": ("pipeline", "Compile and run the Kubeflow pipelines."),
    "submit": ("submit", "Run a compiled pipeline on Kubeflow and watch it."),
    "recurring": ("submit", "Keep Kubeflow's recurring runs as the files say."),
    "completion": ("completion", "Print the completion script of a shell."),
}


WAITS = ("serve", "show", "attach", "submit", "recurring", "pipeline", "ner")
"""Verbs that wait for others: requests, a job, a pipeline, standard input. Of the rest it is told every now and then that they are at work."""

GO_ON = ("train", "train-curriculum", "pipeline")
"""Verbs that save as they go."""


class Verbs(click.Group):
    """A group whose commands are imported when they are called, and listed without importing them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in VERBS:
            return None
        module = importlib.import_module(f"curricle.cli.{VERBS[name][0]}")
        return getattr(module, name.replace("-", "_"))

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in VERBS.items()])


@click.group(cls=Verbs, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="curricle")
def cli() -> None:
    """Train text encoders in chains of stages, on one machine or on Kubeflow."""


def main() -> None:
    """Entry point of the console script: every `CurricleError` is one message and its exit code, never a traceback.

    So is a library that an extra would have installed (exit 2), and what the system, a text or a depth ends: `OSError`, `UnicodeError`,
    `RecursionError`, `MemoryError` (exit 2). Anything else is a mistake of ours and stays a traceback.
    """
    _open_closed_streams()
    signal.signal(signal.SIGTERM, _terminated)
    environment.set_default(environment.PYTHONSAFEPATH, "1")
    take_all_characters()
    try:
        with _told():
            cli.main(standalone_mode=False)
        sys.stdout.flush()
    except CurricleError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(error.exit_code)
    except click.ClickException as error:
        said = io.StringIO()
        error.show(said)
        click.echo(visible(masked(said.getvalue())), err=True, nl=False)
        sys.exit(error.exit_code)
    except ModuleNotFoundError as error:
        extra = extra_of(error.name or "")
        if not extra:
            raise
        click.echo(
            f"error: `{f'curricle {_verb()}'.strip()}` needs {error.name}, which is not installed; install curricle[{extra}]",
            err=True,
        )
        sys.exit(2)
    except (click.Abort, KeyboardInterrupt):
        click.echo(f"stopped; {_afterwards()}", err=True)
        sys.exit(130)
    except BrokenPipeError:  # who read the output has gone, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except (OSError, UnicodeError, RecursionError, MemoryError) as error:
        click.echo(f"error: {visible(masked(_sentence(error)))}", err=True)
        sys.exit(2)


@contextmanager
def _told() -> Iterator[None]:
    """Tell on standard error every 30 seconds what the command is at, for as long as nothing else does (`training.pulse`)."""
    from curricle.training.pulse import Pulse, working

    verb = _verb()
    with ExitStack() as open_:
        if verb and verb not in WAITS:
            open_.enter_context(working(f"curricle {verb}"))
        open_.enter_context(Pulse(lambda line: click.echo(f"  {masked(line)}", err=True)))
        yield


def _open_closed_streams() -> None:
    """Give this process the null device where a stream was closed (``>&-``): who closed it wants nothing of it, and no file may take its number."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            nothing = os.open(os.devnull, os.O_RDWR)
            os.dup2(nothing, number, inheritable=True)
            if nothing > 2:
                os.close(nothing)
            setattr(sys, name, open(number, "w" if number else "r", encoding="utf-8"))  # noqa: SIM115


def _verb() -> str:
    """The verb of this process's command line; empty where it has none."""
    return next((word for word in sys.argv[1:] if word in VERBS), "")


def _afterwards() -> str:
    """What the command that was stopped does when it is given again."""
    if _verb() in GO_ON:
        return "the same command goes on from the last saved state"
    return "nothing is half-written, and the same command begins again"


def _sentence(error: Exception) -> str:
    """What the system, a text or a depth that nobody foresaw has ended, with the file's name where one is known."""
    file = getattr(error, "filename", None) or next(reversed(_paths(error)), "")
    about = f"{file}: " if file else ""
    if isinstance(error, UnicodeEncodeError):
        return (
            f"{about}{error.object[error.start : error.end]!r} cannot be written as {error.encoding}; "
            "set PYTHONIOENCODING=utf-8, or write it without such characters"
        )
    if isinstance(error, UnicodeDecodeError):
        return f"{about}not {error.encoding} text: byte {error.start} is {error.object[error.start]:#04x}"
    if isinstance(error, RecursionError):
        return f"{about}nested too deeply to be read"
    if isinstance(error, MemoryError):
        return f"{about}out of memory; take a smaller input or a smaller batch ({error or 'no more is known'})"
    return f"{about}{getattr(error, 'strerror', None) or error or type(error).__name__}"


def _paths(error: Exception) -> list[Path]:
    """The paths that the calls which ended in the error were at work on, the innermost last."""
    frames = (frame for frame, _ in traceback.walk_tb(error.__traceback__))
    return [value for frame in frames for value in frame.f_locals.values() if isinstance(value, Path)]


def _terminated(signum: int, frame: object) -> None:
    click.echo(f"stopped on request; {_afterwards()}", err=True)
    raise SystemExit(128 + signum)
