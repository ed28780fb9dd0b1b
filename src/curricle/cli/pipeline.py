"""Verbs of the compiled pipelines: compile, graph, upload, run."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import click

from curricle.cli.look import console
from curricle.cli.options import to_server
from curricle.errors import PipelineError

if TYPE_CHECKING:
    from kfp_pipelines.gateway import Access


@click.group()
def pipeline() -> None:
    """Compile the Kubeflow pipelines, and run a compiled one on this machine."""


@pipeline.command("compile")
@click.option(
    "--output",
    "-o",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("kfp_pipelines/compiled"),
    show_default=True,
    help="Folder for the YAML files.",
)
@click.option(
    "--config-dir",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("config"),
    show_default=True,
    help="Folder of the chains.",
)
@click.option("--image", default="curricle/control:dev", show_default=True, help="Image of the components.")
@click.option(
    "--trainer-image",
    default="curricle/trainer:dev",
    show_default=True,
    help="Image of the training jobs, and of the evaluation.",
)
@click.option(
    "--minimal", is_flag=True, help="Each also in a short form, NAME_minimal, that asks only for what everybody sets."
)
@click.option("--plain-form", is_flag=True, help="No select boxes in the form: a server of 2.15 refuses them.")
def compile_pipelines(
    output: Path, config_dir: Path, image: str, trainer_image: str, minimal: bool, plain_form: bool
) -> None:
    """Write one pipeline per chain; the same input gives the same bytes."""
    from kfp_pipelines.compile import compile_all

    made = compile_all(
        output,
        config_dir=config_dir,
        image=image,
        trainer_image=trainer_image,
        minimal=minimal,
        plain_form=plain_form,
    )
    for path in made:
        click.echo(str(path))


@pipeline.command()
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path), default=Path("kfp_pipelines/compiled"))
@to_server
@click.option("--image", default="", help="Compile anew with this image of the components, instead of FOLDER.")
@click.option("--trainer-image", default="", help="And with this image of the training jobs.")
def upload(folder: Path, access: Access, image: str, trainer_image: str) -> None:
    """Upload every compiled pipeline of FOLDER whose content the server does not have yet."""
    from kfp_pipelines.compile import compile_all
    from kfp_pipelines.parameters import compiled
    from kfp_pipelines.server import Server

    if bool(image) != bool(trainer_image):
        raise click.UsageError("give --image and --trainer-image together: a pipeline names both")
    with TemporaryDirectory(prefix="curricle-pipelines-") as scratch:
        packages = (
            compile_all(Path(scratch), image=image, trainer_image=trainer_image)
            if image
            else sorted(compiled(folder).glob("*.yaml"))
        )
        if not packages:
            raise PipelineError(
                f"{folder} holds no compiled pipeline (*.yaml); compile with `curricle pipeline compile`"
            )
        server = Server(access, lambda line: click.echo(line, err=True))
        for package in packages:
            version = server.ensure_version(package)
            click.echo(f"{'uploaded' if version.uploaded else 'found':<9}{version.name}")


@pipeline.command()
@click.argument("package", type=click.Path(path_type=Path))
def graph(package: Path) -> None:
    """Print a compiled pipeline's tasks as Kubeflow's pages call and nest them, and what a run of it costs in pods and in nodes one after the other."""
    from kfp_pipelines.parameters import compiled, read_documents, read_parameters
    from kfp_pipelines.shape import graph as graph_of

    package = compiled(package)
    read_parameters(package)
    click.echo(str(graph_of(read_documents(package)[0])))


@pipeline.command()
@click.argument("package", type=click.Path(path_type=Path))
@click.argument("parameters", nargs=-1, metavar="[NAME=VALUE]...")
@click.option("--local", is_flag=True, help="Run on this machine by kfp.local: no Docker, no cluster.")
@click.option(
    "--root",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("outputs/pipelines"),
    show_default=True,
    help="Folder for the run's artifacts.",
)
def run(package: Path, parameters: tuple[str, ...], local: bool, root: Path) -> None:
    """Run a compiled pipeline with parameters."""
    if not local:
        raise click.UsageError("give --local; to run on a cluster use `kfp run create` with this file")
    from kfp_pipelines.local import run_local

    result = run_local(package, list(parameters), root)
    console.print(
        f"done; artifacts in {result.root}, runs in {result.parameters.get('store_uri')}", highlight=False, markup=False
    )
