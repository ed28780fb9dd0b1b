"""The `curricle` command: thin verbs over `steps`, and how they look in a terminal.

Verbs are imported on choice, so that `curricle --help` and `curricle plan` stay quick and need neither torch nor kfp.
"""

from __future__ import annotations

import importlib
import signal
import sys

import click

from curricle import __version__
from curricle.cli.extras import extra_of
from curricle.errors import CurricleError

VERBS = {
    "init": ("init", "Write the shipped configuration to a folder, to be edited."),
    "train": ("chain", "Train one stage."),
    "train-curriculum": ("chain", "Train a chain of stages."),
    "plan": ("chain", "Show what would run and why; run nothing."),
    "prepare": ("chain", "Prepare the data of a stage."),
    "attach": ("chain", "Follow a stage's job that was started elsewhere."),
    "show": ("chain", "Show the runs of a store, or one run."),
    "promote": ("use", "Pin the model that is taken where none is named."),
    "search": ("use", "Find the codes for a text."),
    "assign": ("use", "Assign a code to every row of a CSV file."),
    "export": ("use", "Export the codes' coordinates or a loadable model."),
    "evaluate": ("use", "Measure a model on the held-out texts."),
    "compare": ("compare", "Show trained models side by side, or their scores over datasets."),
    "combine": ("ner", "Combine NER datasets for continued training."),
    "resolve-checkpoint": ("ner", "Show which checkpoint continued NER training would start from."),
    "ner": ("ner", "Tag text with a trained NER model, or measure it."),
    "preflight": ("preflight", "Try store and cluster before training needs them."),
    "pipeline": ("pipeline", "Compile and run the Kubeflow pipelines."),
    "submit": ("submit", "Run a compiled pipeline on Kubeflow and watch it."),
    "recurring": ("submit", "Keep Kubeflow's recurring runs as the files say."),
}


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

    So is a library that an extra would have installed (exit 2); any other failed import is ours and stays a traceback.
    """
    signal.signal(signal.SIGTERM, _terminated)
    try:
        cli.main(standalone_mode=False)
    except CurricleError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(error.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except ModuleNotFoundError as error:
        extra = extra_of(error.name or "")
        if not extra:
            raise
        verb = next((word for word in sys.argv[1:] if word in VERBS), "")
        click.echo(
            f"error: `{f'curricle {verb}'.strip()}` needs {error.name}, which is not installed; install curricle[{extra}]",
            err=True,
        )
        sys.exit(2)
    except (click.Abort, KeyboardInterrupt):
        click.echo("stopped; the same command goes on from the last saved state", err=True)
        sys.exit(130)


def _terminated(signum: int, frame: object) -> None:
    raise SystemExit(128 + signum)
