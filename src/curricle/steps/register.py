"""Register a trained model where a platform keeps its list of models: MLflow's registry, or Kubeflow's Model Registry by its REST API.

A registry holds names and facts, never weights: the version points to the model's place in the store, with its digest, the gate's verdict and its run. The same
model with the same verdict is registered once, however often that is asked for.
"""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, urlsplit

from urllib3.exceptions import HTTPError

from curricle import environment
from curricle.cards.card import Card, said_in
from curricle.config.schema import TrackingConfig
from curricle.errors import ConfigError, CurricleError, StoreError, StoreUnavailable
from curricle.markdown import escaped
from curricle.masking import masked
from curricle.steps.card import card_of
from curricle.steps.promote import pinned_because
from curricle.steps.source import resolve_source
from curricle.steps.tracked import find_run
from curricle.store import open_store, references
from curricle.store.connections import connections, short, why_failed
from curricle.store.manifest import read_manifest
from curricle.store.patience import Away, server_at
from curricle.store.wire import GONE, may_be_proxys, network_cause

MLFLOW = "mlflow"
"""What MLflow's registry is called: that of `MLFLOW_TRACKING_URI`."""
_NAME = re.compile(r"[^/:.%\"']+")
ALIAS = "promoted"
"""Of the version in MLflow that is the promoted model."""
DECISIONS = ("promote", "hold")
"""What a gate's verdict begins with, the good one first."""
DESCRIPTION = 4900
"""Characters of a version's description; MLflow's databases keep 5,000."""
_VERSIONS = ("v1", "v1alpha3")
"""Of Kubeflow's API, newest first."""


@dataclass(frozen=True)
class ModelFacts:
    """What is said of a model."""

    name: str
    uri: str
    """Its place, as other programs know it: ``s3://``, where the store is called ``minio://``."""
    digest: str
    verdict: str
    """What the gate said, or that nobody asked it."""
    run: str
    stage: str
    family: str
    metrics: Mapping[str, float] = field(default_factory=dict)
    card: Card | None = None
    promoted: bool = False
    """Whether the store's pin or the gate says so."""

    @property
    def properties(self) -> dict[str, str]:
        """All of it but name and metrics, by the names under which a registry keeps it."""
        decided = "promoted" if self.promoted else "not promoted"
        facts = {"uri": self.uri, "digest": self.digest, "verdict": self.verdict, "gate": decided, "run": self.run, "stage": self.stage, "family": self.family}  # fmt: skip
        return {f"curricle.{key}": value for key, value in facts.items() if value}


def register(
    model: str,
    store_uri: str,
    *,
    registry: str,
    name: str,
    verdict: str = "",
    metrics: Mapping[str, float] | None = None,
) -> str:
    """Register a model; a sentence that says as what and where.

    Args:
        model: as `steps.source.resolve_source` takes it.
        registry: `MLFLOW`, or the URL of a Kubeflow Model Registry, with or without ``/api/model_registry``.
        name: of the registered model, under which its versions stand.
        verdict: the gate's, in words; empty where it was not asked.
        metrics: what to show beside it; None takes those of the model's manifest.

    Raises:
        ConfigError: there is no such kind of registry, or the name is none.
        CheckpointError, StoreError: the model is not there; the registry refuses or is away.
    """
    check(registry, name)
    facts = facts_of(model, store_uri, name, verdict, metrics)
    if registry == MLFLOW:
        return _in_mlflow(facts, environment.mlflow_uri() or TrackingConfig().mlflow_uri)
    return _ModelRegistry(registry).register(facts)


def check(registry: str, name: str) -> None:
    """Refuse what cannot be meant, before anything trains.

    Raises:
        ConfigError: it is neither `MLFLOW` nor a URL, or the name is none.
    """
    try:
        parts = urlsplit(registry)
    except ValueError:
        parts = urlsplit("")
    if registry != MLFLOW and not (parts.scheme in ("http", "https") and parts.hostname and not parts.query):
        raise ConfigError(
            f"registry {registry!r} is neither {MLFLOW} nor the URL of a Kubeflow Model Registry (http://model-registry-service.kubeflow:8080)"
        )
    if parts.username or parts.password:
        raise ConfigError(f"the registry's URL holds a password; give its token in {environment.REGISTRY_TOKEN}")
    if not _NAME.fullmatch(name):
        raise ConfigError(
            f"{name!r} cannot be a registered model's name: at least one character, and none of / : . % and quotes"
        )


def facts_of(model: str, store_uri: str, name: str, verdict: str, metrics: Mapping[str, float] | None) -> ModelFacts:
    """What is known of a model of the store."""
    source = resolve_source(model, store_uri, asked="register")
    manifest = read_manifest(open_store(source.uri), "")
    info = dict(manifest.info) if manifest else {}
    place = references.absolute(source.uri)
    stage, run = (place.rstrip("/").split("/")[-2:-4:-1] + ["", ""])[:2]
    held = dict(manifest.metrics) if manifest else {}
    said = verdict.partition(":")[0].strip()
    pinned = bool(pinned_because(source.uri, store_uri)) if said not in DECISIONS else said == DECISIONS[0]
    return ModelFacts(
        name=name,
        uri=place.replace("minio://", "s3://", 1) if place.startswith("minio://") else place,
        digest=source.digest,
        verdict=masked(verdict) or "nobody asked the gate",
        run=str(info.get("run_id") or run),
        stage=stage,
        family=str(info.get("family", "")),
        metrics={key: float(value) for key, value in (held if metrics is None else metrics).items()},
        card=card_of(source.uri),
        promoted=pinned,
    )


def _in_mlflow(facts: ModelFacts, tracking: str) -> str:
    from mlflow.exceptions import MlflowException
    from mlflow.tracking import MlflowClient

    where = masked(tracking)
    try:
        with warnings.catch_warnings():  # of a database's library, of itself
            warnings.simplefilter("ignore")
            return _new_version(MlflowClient(tracking, tracking), facts, where)
    except CurricleError:
        raise
    except Exception as error:  # an address that is none makes MLflow, its database or its driver fail in any way
        if why := network_cause(error, tracking):
            kind = StoreUnavailable if why.kind in GONE else StoreError
            raise kind(f"MLflow's registry: {why.of(where)}. It is that of {environment.MLFLOW_TRACKING_URI}") from None
        if isinstance(error, MlflowException):
            raise StoreError(f"MLflow at {where} does not register {facts.name}: {short(error.message)}") from None
        raise StoreError(
            f"MLflow at {where} cannot be asked ({short(error)}); set {environment.MLFLOW_TRACKING_URI}"
        ) from None


def _new_version(client: Any, facts: ModelFacts, where: str) -> str:
    tags = facts.properties | {f"metric.{key}": f"{value:.6g}" for key, value in facts.metrics.items()}
    tags = {re.sub(r"[^\w\-./: ]", "_", key.replace("@", "_at_")): value[:4000] for key, value in tags.items()}
    there = client.search_model_versions(f"name='{facts.name}'")
    for version in there:
        if facts.properties.items() <= version.tags.items():
            _point(client, facts, version.version)
            return f"{facts.name} version {version.version} of MLflow at {where} is this model already"
    if not client.search_registered_models(f"name='{facts.name}'"):
        client.create_registered_model(facts.name, description="Models of Curricle; their weights lie in its store.")
    made = client.create_model_version(
        facts.name, facts.uri, run_id=find_run(client, facts.digest) or None, tags=tags, description=_described(facts)
    )
    _point(client, facts, made.version)
    return f"registered as {facts.name} version {made.version} with MLflow at {where}"


def _point(client: Any, facts: ModelFacts, version: str) -> None:
    """Let the alias name the version where the model is the promoted one: ``models:/NAME@promoted`` is what people load."""
    if facts.promoted:
        client.set_registered_model_alias(facts.name, ALIAS, version)


def _described(facts: ModelFacts) -> str:
    """The verdict, and of the card as much as a version's description holds; the run's artifacts have all of it."""
    verdict = escaped(facts.verdict)[:1000]
    return f"{verdict}\n\n{said_in(facts.card, DESCRIPTION - len(verdict) - 2)}" if facts.card else verdict


class _ModelRegistry:
    """Kubeflow's Model Registry behind a URL."""

    def __init__(self, url: str):
        base = url.rstrip("/")
        self._base = base if base.endswith("/api/model_registry") else f"{base}/api/model_registry"
        self._server = server_at(url, "the Model Registry")
        self._http = connections(self._server, url)
        self._version = ""

    def register(self, facts: ModelFacts) -> str:
        """See the module."""
        self._version = next((version for version in _VERSIONS if self._serves(version)), "")
        if not self._version:
            raise StoreError(
                f"{self._base} knows neither {' nor '.join(_VERSIONS)}: no Model Registry is there; is the URL its REST service's?"
            )
        model = self._found_or_made(
            f"registered_model?name={quote(facts.name)}",
            "registered_models",
            {"name": facts.name, "description": "Models of Curricle; their weights lie in its store.", "state": "LIVE"},
        )[0]
        number = f"{facts.run or facts.stage or 'model'}-{facts.digest[:12]}"
        properties = _texts(facts.properties) | _numbers(facts.metrics)
        version, made = self._found_or_made(
            f"model_version?name={quote(number)}&parentResourceId={quote(str(_id(model)))}",
            "model_versions",
            {
                "name": number,
                "registeredModelId": _id(model),
                "description": facts.verdict,
                "state": "LIVE",
                "customProperties": properties,
            },
        )
        if (
            not made and version.get("customProperties") != properties
        ):  # the same model with another verdict, or other scores
            changes = {"description": facts.verdict, "customProperties": properties}
            version = self._ask("PATCH", f"model_versions/{_id(version)}", changes) or version
        self._ask(  # made where it is not there, by its name
            "POST",
            f"model_versions/{_id(version)}/artifacts",
            {
                "artifactType": "model-artifact",
                "name": number,
                "uri": facts.uri,
                "modelFormatName": f"curricle-{facts.family or 'model'}",
                "state": "LIVE",
                "customProperties": _texts({"sha256": facts.digest}),
            },
        )
        how = "registered" if made else "was there already"
        return f"{facts.name} {number} {how} with the Model Registry at {self._base} (model {_id(model)}, version {_id(version)})"

    def _found_or_made(self, question: str, path: str, body: Mapping[str, Any]) -> tuple[dict[str, Any], bool]:
        """What the question finds, else what is made; whether it was made here. Somebody else may make it in between."""
        found = self._ask("GET", question)
        if found is not None:
            return found, False
        try:
            return self._ask("POST", path, body) or {}, True
        except StoreError:
            if (there := self._ask("GET", question)) is None:
                raise
            return there, False

    def _serves(self, version: str) -> bool:
        self._version = version
        return self._ask("GET", "registered_models?pageSize=1") is not None

    def _ask(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> dict[str, Any] | None:
        """The answer's object; None where there is no such thing (of a question only)."""
        url = f"{self._base}/{self._version}/{path}"
        token = environment.value_of(environment.REGISTRY_TOKEN).strip()
        headers = {"Accept": "application/json"} | ({"Authorization": f"Bearer {token}"} if token else {})
        data = json.dumps(body).encode() if body is not None else None
        if data is not None:
            headers |= {"Content-Type": "application/json", "Content-Length": str(len(data))}
        try:
            response = self._http.urlopen(
                method,
                url,
                body=data,
                headers=headers,
                redirect=False,
            )
        except Away as away:
            raise StoreUnavailable(
                f"the Model Registry at {self._base} has not answered for {away.seconds:.0f} s ({away})"
            ) from None
        except HTTPError as error:
            raise StoreError(f"the Model Registry: {why_failed(error, self._server).of(self._base)}") from None
        status = response.status
        if status == 404 and method == "GET":
            return None
        try:
            answer = json.loads(response.data)
            if not isinstance(answer, dict):
                raise ValueError
        except (ValueError, RecursionError):
            login = status in (301, 302, 303, 307, 401, 403) or status < 300
            told = f"; a token goes into {environment.REGISTRY_TOKEN}" if login else ""
            raise StoreError(
                f"{self._base} answers HTTP {status}, but not as a Model Registry{told}{may_be_proxys(self._base)}"
            ) from None
        if status in (401, 403):
            raise StoreError(
                f"{self._base} does not allow {method} {path.partition('?')[0]}: {short(answer.get('message', status))}; a token goes into {environment.REGISTRY_TOKEN}"
            )
        if status >= 300:
            said = short(answer.get("message") or answer.get("code") or "")
            raise StoreError(f"{self._base} answers HTTP {status} to {method} {path.partition('?')[0]}: {said}")
        return answer


def _id(answer: Mapping[str, Any] | None) -> str:
    if not answer or not isinstance(answer.get("id"), str | int):
        raise StoreError("the Model Registry answers without an id")
    return str(answer["id"])


def _texts(values: Mapping[str, str]) -> dict[str, Any]:
    return {key: {"metadataType": "MetadataStringValue", "string_value": value} for key, value in values.items()}


def _numbers(values: Mapping[str, float]) -> dict[str, Any]:
    """JSON knows no NaN and no infinity: such a metric is left out."""
    finite = {key: value for key, value in values.items() if abs(value) < float("inf")}
    return {
        f"metric.{key}": {"metadataType": "MetadataDoubleValue", "double_value": value} for key, value in finite.items()
    }
