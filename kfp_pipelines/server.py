"""A Kubeflow Pipelines server as one user sees it: pipelines by their content, experiments, runs and recurring runs, all in that user's namespace."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from curricle.errors import PipelineError
from kfp_pipelines.describe import describe
from kfp_pipelines.gateway import PATIENCE, Access, Gateway
from kfp_pipelines.parameters import read_documents

EXPERIMENT = (
    "Runs of Curricle's pipelines: chains of training stages, each from the best checkpoint of the one before. "
    "Compare runs by the metrics of their evaluation."
)
"""What a new experiment is described with."""


@dataclass(frozen=True)
class Version:
    """An uploaded pipeline of a certain content."""

    pipeline_id: str
    version_id: str
    name: str
    uploaded: bool
    """Whether this call uploaded it."""


def content_digest(package: Path) -> str:
    """SHA-256 of a compiled pipeline's bytes, 64 hex digits."""
    return hashlib.sha256(package.read_bytes()).hexdigest()


class Server:
    """A connection that has been tried.

    Args:
        access: where, with what, as whom.
        say: gets a line where there is something to wait for.

    Raises:
        PipelineError: nothing answers there, it wants a login, or it serves several users and no namespace is named.
    """

    def __init__(self, access: Access, say: Callable[[str], None] = lambda line: None):
        self._gateway = Gateway(access, say)
        self._client = self._gateway.client
        self.ask, self.strange = self._gateway.ask, self._gateway.strange
        health = self.ask("connect", self._client._healthz_api.healthz_service_get_healthz, patience=PATIENCE)
        self.namespace = self._namespace(access.namespace, health.multi_user)
        """What every call names; None on a server for a single user, which has none."""

    def _namespace(self, given: str, multi_user: bool | None) -> str | None:
        if multi_user is False:
            return None
        pods = Path(self._client._NAMESPACE_PATH)
        own = pods.read_text(encoding="utf-8").strip() if pods.is_file() else ""
        name = given or str(self._client.get_user_namespace() or "") or own
        if not name and multi_user:
            raise PipelineError(
                "this server serves several users, and no namespace is named; give --namespace (CURRICLE_KFP_NAMESPACE), the name of your profile"
            )
        return name or None

    def run_url(self, run_id: str) -> str:
        """Page of a run."""
        return f"{self._gateway.url}/#/runs/details/{run_id}"

    def ensure_version(self, package: Path) -> Version:
        """The version that holds exactly this package, uploaded unless it is there: named ``sha-<12 hex digits>`` after the content. The pipeline's
        description is that of the first content.

        Raises:
            PipelineError: the server refuses.
        """
        info = read_documents(package)[0]["pipelineInfo"]
        name = str(info["name"])
        wanted = f"sha-{content_digest(package)[:12]}"
        pipeline_id = self._pipeline_id(name) or self._make_pipeline(name, package)
        version = self._find_version(pipeline_id, wanted)
        if version is not None:
            return Version(pipeline_id, version.pipeline_version_id, f"{name} {wanted}", False)
        try:
            made = self.ask(
                f"upload {name} {wanted}",
                self._client.upload_pipeline_version,
                str(package),
                wanted,
                pipeline_id=pipeline_id,
                description=str(info.get("description", ""))[:500],  # it travels in the URL
                again=False,
            )
        except PipelineError as error:
            if "literals" in str(error):
                raise PipelineError(
                    f"{error}. This server knows no select boxes (2.16 does); compile with `curricle pipeline compile --plain-form`"
                ) from None
            raise
        return Version(pipeline_id, made.pipeline_version_id, f"{name} {wanted}", True)

    def _pipeline_id(self, name: str) -> str | None:
        """The SDK's own look-up by name knows no namespace. Operation 1 is "equals"."""
        only = {"predicates": [{"operation": 1, "key": "display_name", "stringValue": name}]}
        found = self.ask(
            f"find pipeline {name!r}",
            self._client._pipelines_api.pipeline_service_list_pipelines,
            filter=json.dumps(only),
            **self._where(),
        )
        return next(
            (
                self._id_of(one, "pipeline_id", "find pipeline")
                for one in self._listed("find pipeline", found.pipelines)
            ),
            None,
        )

    def _make_pipeline(self, name: str, package: Path) -> str:
        """An empty pipeline: the SDK's `upload_pipeline` makes a version of its own, which would be the same content twice."""
        from kfp_server_api import V2beta1Pipeline

        body = V2beta1Pipeline(name=name, display_name=name, description=describe(package), namespace=self.namespace)
        try:
            return self.ask(
                f"make pipeline {name!r}",
                self._client._pipelines_api.pipeline_service_create_pipeline,
                body,
                again=False,
            ).pipeline_id
        except PipelineError:
            if there := self._pipeline_id(name):  # somebody else made it meanwhile
                return there
            raise

    def _find_version(self, pipeline_id: str, wanted: str) -> Any:
        versions = self._pages(
            "list versions",
            "pipeline_versions",
            lambda token: self._client.list_pipeline_versions(pipeline_id, page_token=token, page_size=100),
        )
        return next((version for version in versions if version.display_name == wanted), None)

    def ensure_experiment(self, name: str) -> str:
        """The id of an experiment, made unless it is there."""
        made = self.ask(
            f"experiment {name!r}",
            self._client.create_experiment,
            name,
            description=EXPERIMENT,
            namespace=self.namespace,
            again=False,
        )
        return self._id_of(made, "experiment_id", f"experiment {name!r}")

    def start(self, experiment_id: str, name: str, version: Version, parameters: dict[str, Any], account: str) -> Any:
        """A new run."""
        options: dict[str, Any] = {"service_account": account} if account else {}
        made = self.ask(
            f"run {version.name}",
            self._client.run_pipeline,
            experiment_id,
            name,
            pipeline_id=version.pipeline_id,
            version_id=version.version_id,
            params=parameters,
            again=False,
            **options,
        )
        self._id_of(
            made, "run_id", f"run {version.name}: whether it was started is not known, look at the server first"
        )
        return made

    def get_run(self, run_id: str, patience: float) -> Any:
        """A run as it is now."""
        what = f"look at run {run_id}"
        run = self.ask(what, self._client.get_run, run_id, patience=patience)
        if run.run_details is not None:
            self._listed(what, getattr(run.run_details, "task_details", 0))
        return run

    def terminate(self, run_id: str) -> None:
        """End a run; its exit handler still runs."""
        self.ask("terminate the run", self._client.terminate_run, run_id)

    def recurring_runs(self) -> list[Any]:
        """Every recurring run of the namespace."""
        return list(
            self._pages(
                "list recurring runs",
                "recurring_runs",
                lambda token: self._client.list_recurring_runs(page_token=token, page_size=100, **self._where()),
            )
        )

    def make_recurring(self, experiment_id: str, name: str, version: Version, **options: Any) -> Any:
        """A new recurring run, disabled; `options` as `kfp.Client.create_recurring_run` has them."""
        return self.ask(
            f"create recurring run {name}",
            self._client.create_recurring_run,
            experiment_id,
            name,
            pipeline_id=version.pipeline_id,
            version_id=version.version_id,
            enabled=False,
            again=False,
            **options,
        )

    def enable(self, run: Any, enabled: bool) -> None:
        """Let a recurring run fire, or keep it from it."""
        call = self._client.enable_recurring_run if enabled else self._client.disable_recurring_run
        self.ask(f"{'enable' if enabled else 'disable'} {run.display_name}", call, run.recurring_run_id)

    def delete_recurring(self, run: Any) -> None:
        """Disabled first, then deleted without its children: what it started goes on."""
        self.enable(run, False)
        self.ask(
            f"delete recurring run {run.display_name}",
            self._client._recurring_run_api.recurring_run_service_delete_recurring_run,
            run.recurring_run_id,
            propagation_policy="ORPHAN",
        )

    def _where(self) -> dict[str, Any]:
        return {"namespace": self.namespace} if self.namespace else {}

    def _pages(self, what: str, field: str, call: Callable[[str], Any]) -> Iterator[Any]:
        token, seen = "", set[str]()
        while True:
            page = self.ask(what, call, token)
            yield from self._listed(what, getattr(page, field))
            token = str(page.next_page_token or "")
            if not token:
                return
            if token in seen:
                raise self.strange(what, "the same page comes again and again")
            seen.add(token)

    def _listed(self, what: str, found: Any) -> list[Any]:
        """A list of objects, as the SDK reads them; none is an empty one."""
        if found is None:
            return []
        if not isinstance(found, list) or not all(hasattr(one, "to_dict") for one in found):
            raise self.strange(what, "a list was asked for, and something else is there")
        return found

    def _id_of(self, answer: Any, name: str, what: str) -> str:
        found = getattr(answer, name, None)
        if not found or not isinstance(found, str):
            raise self.strange(what, f"it names no {name}")
        return found
