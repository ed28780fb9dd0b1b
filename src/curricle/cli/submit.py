"""Verbs towards a Kubeflow Pipelines server: submit, recurring apply."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from curricle.cli.options import Number, to_server
from curricle.errors import PipelineError

if TYPE_CHECKING:
    from kfp_pipelines.gateway import Access
    from kfp_pipelines.submit import Answer


@click.command()
@click.argument("package", type=click.Path(path_type=Path))
@click.argument("parameters", nargs=-1, metavar="[NAME=VALUE]...")
@to_server
@click.option("--experiment", default="curricle", show_default=True, help="Experiment of the run.")
@click.option(
    "--run-name", default="", help="Name of the run; default the pipeline's with the parameters that were given."
)
@click.option("--service-account", default="", help="Service account of the component pods, e.g. curricle-launcher.")
@click.option("--wait/--no-wait", default=True, show_default=True, help="Watch the run to its end.")
@click.option(
    "--timeout",
    type=Number(min=0),
    default=0.0,
    help="Seconds to watch; 0 for ever. The run goes on after it (exit 4).",
)
@click.option(
    "--on-interrupt",
    type=click.Choice(["ask", "terminate", "detach"]),
    default="ask",
    show_default=True,
    help="What Ctrl-C does to the run; ask detaches where nobody can answer.",
)
@click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="Print the result as JSON on standard output; progress goes to standard error.",
)
def submit(
    package: Path,
    parameters: tuple[str, ...],
    access: Access,
    on_interrupt: Answer | Literal["ask"],
    as_json: bool,
    **options: Any,
) -> None:
    """Run a compiled pipeline on Kubeflow: exit 0 when it succeeded, 1 failed, 3 cancelled, 4 still going."""
    from kfp_pipelines.submit import submit as send

    def interrupted() -> Answer:
        if on_interrupt != "ask":
            return on_interrupt
        if not sys.stdin.isatty():
            return "detach"
        return (
            "terminate"
            if click.confirm("terminate the run? (no detaches: it goes on)", default=False, err=True)
            else "detach"
        )

    done = send(
        package,
        list(parameters),
        access,
        say=lambda text: click.echo(text, err=as_json),
        interrupted=interrupted,
        **options,
    )
    if as_json:
        click.echo(done.to_json())
    sys.exit(done.exit_code if options["wait"] else 0)


@click.group()
def recurring() -> None:
    """Recurring runs from files."""


@recurring.command()
@click.argument("folder", type=click.Path(path_type=Path), default=Path("config/recurring-runs"))
@to_server
@click.option("--dry-run", is_flag=True, help="Say what would be done; do nothing.")
@click.option("--diff", is_flag=True, help="As --dry-run, and exit 2 where anything differs.")
@click.option("--prune", is_flag=True, help="Delete ours that no file names any more.")
@click.option(
    "--image",
    envvar="CURRICLE_CONTROL_IMAGE",
    default="",
    help="Image of the components, in the place of the default one.",
)
@click.option("--trainer-image", envvar="CURRICLE_TRAINER_IMAGE", default="", help="And of the training jobs.")
def apply(folder: Path, access: Access, dry_run: bool, diff: bool, prune: bool, image: str, trainer_image: str) -> None:
    """Make the server's recurring runs what the files of FOLDER say. Touches only what it made, and never ends a run.

    Without images those that a recurring run has are kept.
    """
    from kfp_pipelines.recurring import check, load_definitions, reconcile
    from kfp_pipelines.server import Server

    if image and not trainer_image:
        raise click.UsageError("give --image and --trainer-image together: a pipeline names both")
    wanted, bad = load_definitions(folder)
    if prune and bad:
        click.echo("nothing is pruned: a file that cannot be read may name what would be deleted", err=True)
    if not wanted:
        check(bad)
    try:
        server = Server(access, lambda line: click.echo(line, err=True))
    except PipelineError as error:
        if not bad:
            raise
        raise PipelineError("\n".join([str(error), "and of the files:", *(f"  - {text}" for text in bad)])) from None
    made, refused = reconcile(
        server,
        wanted,
        prune=prune and not bad,
        act=not (dry_run or diff),
        say=lambda c: click.echo(f"{'would ' if dry_run or diff else ''}{c.verb} {c.name}: {c.why}"),
        images=(image, trainer_image) if image else None,
    )
    if not made and not refused:
        click.echo(f"{len(wanted)} recurring {'run' if len(wanted) == 1 else 'runs'} as defined")
    check([*bad, *refused])
    if diff and made:
        sys.exit(2)
