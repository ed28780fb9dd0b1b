"""Options that several verbs share."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from curricle.config.defaults import config_file


class Number(click.FloatRange):
    """A finite number within bounds. NaN lies within every range, and infinity within one that is open above."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        made = click.FLOAT.convert(value, param, ctx)
        if not math.isfinite(made):
            self.fail(f"{made} is no finite number", param, ctx)
        return super().convert(value, param, ctx)


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

_SERVER = (
    click.option(
        "--endpoint",
        envvar="KF_PIPELINES_ENDPOINT",
        default="",
        help="URL of the Kubeflow Pipelines API; default the environment's or the cluster's own.",
    ),
    click.option(
        "--token",
        envvar="CURRICLE_KFP_TOKEN",
        default="",
        help="Bearer token. Prefer the environment variable: others see the command line.",
    ),
    click.option(
        "--token-file",
        envvar="KF_PIPELINES_SA_TOKEN_PATH",
        default="",
        help="File with the token, read anew for every request; default the pod's projected one.",
    ),
    click.option(
        "--cookies",
        envvar="CURRICLE_KFP_COOKIES",
        default="",
        help="Cookies of a browser that has logged in: NAME=VALUE; NAME=VALUE. Sent beside a token, where both are given.",
    ),
    click.option(
        "--ca-cert", envvar="SSL_CERT_FILE", default="", help="PEM file of the authorities to trust, for one's own."
    ),
    click.option(
        "--namespace",
        envvar="CURRICLE_KFP_NAMESPACE",
        default="",
        help="The user's namespace (profile) on a multi-user server; a server for one user is not told it.",
    ),
)
"""How a Kubeflow Pipelines server is reached."""


def to_server(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options of `kfp_pipelines.gateway.Access`, and the `access` that they make."""

    @functools.wraps(command)
    def with_access(
        *, endpoint: str, token: str, token_file: str, cookies: str, ca_cert: str, namespace: str, **others: Any
    ) -> Any:
        from kfp_pipelines.gateway import Access

        access = Access(
            endpoint=endpoint,
            token=token,
            token_file=token_file,
            cookies=cookies,
            ca_cert=ca_cert,
            namespace=namespace,
        )
        return command(access=access, **others)

    return functools.reduce(lambda function, option: option(function), reversed(_SERVER), with_access)
