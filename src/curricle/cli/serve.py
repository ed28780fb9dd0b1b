"""The verb serve: a page and an API for one trained model."""

from __future__ import annotations

import os

import click

from curricle import environment
from curricle.cli.extras import require
from curricle.cli.use import MODEL, STORE


@click.command()
@MODEL
@STORE
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen at; 0.0.0.0 answers everybody who reaches this machine.")  # fmt: skip
@click.option("--port", default=8000, show_default=True, type=click.IntRange(0, 65535), help="Port; 0 takes a free one.")  # fmt: skip
@click.option("--allowed-host", "hosts", multiple=True, metavar="NAME", help="Name by which a request may call this server, beside this machine's own; may be given more than once.")  # fmt: skip
@click.option("--batch", default=32, show_default=True, type=click.IntRange(1, 1024), help="Texts that the model is asked at once.")  # fmt: skip
@click.option("--waiting", default=256, show_default=True, type=click.IntRange(1, 100_000), help="Texts that may wait; with more the answer is 503.")  # fmt: skip
@click.option("--table-mb", default=32, show_default=True, type=click.IntRange(1, 4096), help="Megabytes of a table.")
@click.option("--grace", default=30, show_default=True, type=click.IntRange(0, 3600), help="Seconds that requests under way get when the server is stopped.")  # fmt: skip
def serve(model: str, store: str, host: str, port: int, hosts: tuple[str, ...], batch: int, waiting: int, table_mb: int, grace: int) -> None:  # fmt: skip
    """Serve a trained model: a page to try it, an API to use it (docs/serve.md).

    Codes with probability, path and reasons; entities with scores; tables coded with progress. The page needs no network. It asks for no password:
    put a proxy that does before it, if others may reach it.
    """
    for module in ("fastapi", "uvicorn", "prometheus_client"):
        require(module)
    from curricle.serve.limits import Limits
    from curricle.serve.model import Served
    from curricle.serve.server import address_of, is_loopback, listen
    from curricle.serve.server import serve as answer
    from curricle.steps.use import open_model
    from curricle.training.pulse import working

    environment.set_default(environment.OMP_NUM_THREADS, str(max(1, len(os.sched_getaffinity(0)) - 1)))
    bound = listen(host, port)
    with working("opening the model"):
        opened = open_model(model, store)
    click.echo(f"model {opened.uri}: {opened.reason}", err=True)
    served = Served(opened)
    limits = Limits(batch=batch, waiting=waiting, table=table_mb << 20, unpacked=4 * table_mb << 20, grace=grace)
    with working("making ready to answer"):
        served.load(limits.batch)
    if not is_loopback(host):
        click.echo(f"listens at {host}: everybody who reaches this machine may ask, and no password is asked for", err=True)  # fmt: skip
    answer(
        served,
        bound,
        limits,
        hosts,
        lambda: click.echo(f"serving {served.title}, model {served.version}, at {address_of(bound)}", err=True),
    )
    click.echo("stopped; all that had come was answered", err=True)
