"""Verbs of the compiled pipelines: compile, run."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import click

from curricle.cli.look import console
from curricle.errors import PipelineError


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
def compile_pipelines(output: Path, config_dir: Path, image: str, trainer_image: str) -> None:
    """Write one pipeline per chain; the same input gives the same bytes."""
    from kfp_pipelines.compile import compile_all

    for path in compile_all(output, config_dir=config_dir, image=image, trainer_image=trainer_image):
        click.echo(str(path))


@pipeline.command()
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path), default=Path("kfp_pipelines/compiled"))
@click.option(
    "--endpoint",
    envvar="KF_PIPELINES_ENDPOINT",
    default="",
    help="URL of the Kubeflow Pipelines API; default the environment's or the cluster's own.",
)
@click.option("--token", envvar="CURRICLE_KFP_TOKEN", default="", help="Bearer token.")
@click.option("--namespace", default="", help="The user's namespace on a multi-user server.")
@click.option("--image", default="", help="Compile anew with this image of the components, instead of FOLDER.")
@click.option("--trainer-image", default="", help="And with this image of the training jobs.")
def upload(folder: Path, endpoint: str, token: str, namespace: str, image: str, trainer_image: str) -> None:
    """Upload every compiled pipeline of FOLDER whose content the server does not have yet."""
    from kfp_pipelines.compile import compile_all
    from kfp_pipelines.parameters import compiled
    from kfp_pipelines.server import connect, ensure_version

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
        client = connect(endpoint, token, namespace)
        for package in packages:
            version = ensure_version(client, package)
            click.echo(f"{'uploaded' if version.uploaded else 'found':<9}{version.name}")


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
