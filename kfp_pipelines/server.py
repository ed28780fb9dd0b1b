"""A Kubeflow Pipelines server: connect, find or upload a pipeline by its content, and what its answers mean."""

from __future__ import annotations

import hashlib
import io
import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from curricle.errors import PipelineError


@dataclass(frozen=True)
class Version:
    """An uploaded pipeline of a certain content."""

    pipeline_id: str
    version_id: str
    name: str
    uploaded: bool
    """Whether this call uploaded it."""


def connect(endpoint: str, token: str = "", namespace: str = "") -> Any:
    """A client of the server.

    Args:
        endpoint: URL; empty takes KF_PIPELINES_ENDPOINT, the kfp configuration, or the cluster this runs in.
        token: bearer token; empty takes the projected service-account token where there is one.
        namespace: the user's namespace on a multi-user server.

    Raises:
        PipelineError: nothing answers there.
    """
    from urllib3.exceptions import HTTPError

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import kfp

        try:
            with answers(f"connect to {endpoint or 'Kubeflow Pipelines'}"):
                client = kfp.Client(host=endpoint or None, existing_token=token or None)
                if namespace:
                    client.set_user_namespace(namespace)
        except (HTTPError, OSError, ValueError) as error:
            raise PipelineError(
                f"no Kubeflow Pipelines server at {endpoint or 'the default endpoint'}: {error}; give --endpoint, or set KF_PIPELINES_ENDPOINT"
            ) from None
    return client


@contextmanager
def answers(what: str) -> Iterator[None]:
    """Turn what the server refuses into one message."""
    from kfp_server_api import ApiException
    from urllib3.exceptions import HTTPError

    try:
        with redirect_stdout(io.StringIO()):  # kfp prints links there; ours go where the caller says
            yield
    except ApiException as error:
        try:
            said = json.loads(error.body)["message"]
        except (TypeError, ValueError, KeyError):
            said = str(error.body or error.reason)
        raise PipelineError(f"{what}: the server answered {error.status}: {said}") from None
    except HTTPError as error:
        raise PipelineError(f"{what}: {error}") from None


def content_digest(package: Path) -> str:
    """SHA-256 of a compiled pipeline's bytes, 64 hex digits."""
    return hashlib.sha256(package.read_bytes()).hexdigest()


def ensure_version(client: Any, package: Path) -> Version:
    """The version that holds exactly this package, uploaded unless it is there: named ``sha-<12 hex digits>`` after the content.

    Raises:
        PipelineError: the server refuses.
    """
    name = next(iter(yaml.safe_load_all(package.read_text(encoding="utf-8"))))["pipelineInfo"]["name"]
    wanted = f"sha-{content_digest(package)[:12]}"
    with answers(f"find pipeline {name!r}"):
        pipeline_id = client.get_pipeline_id(name)
        uploaded = False
        if pipeline_id is None:
            pipeline_id = client.upload_pipeline(str(package), pipeline_name=name).pipeline_id
        for version in _pages(
            lambda token: client.list_pipeline_versions(pipeline_id, page_token=token, page_size=100),
            "pipeline_versions",
        ):
            if version.display_name == wanted:
                break
        else:
            version, uploaded = client.upload_pipeline_version(str(package), wanted, pipeline_id=pipeline_id), True
    return Version(pipeline_id, version.pipeline_version_id, f"{name} {wanted}", uploaded)


def ensure_experiment(client: Any, name: str) -> str:
    """The id of an experiment, made unless it is there."""
    with answers(f"experiment {name!r}"):
        return client.create_experiment(name).experiment_id


def recurring_runs(client: Any) -> list[Any]:
    """Every recurring run that the user sees."""
    with answers("list recurring runs"):
        return list(_pages(lambda token: client.list_recurring_runs(page_token=token, page_size=100), "recurring_runs"))


def _pages(ask: Any, field: str) -> Iterator[Any]:
    token = ""
    while True:
        page = ask(token)
        yield from getattr(page, field) or []
        token = page.next_page_token or ""
        if not token:
            return
