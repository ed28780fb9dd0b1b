"""A model in MLflow's registry, of a real database, and in Kubeflow's Model Registry, of a server that keeps to its API description.

The server's paths, statuses and error bodies are those of kubeflow/model-registry's OpenAPI description (v1alpha3, and v1 beside it) and of its end-to-end tests: a find that fails is
404, a creation 201, an unknown field 400 with `{"code": "Bad Request", "message": "json: unknown field ..."}`."""

import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import pytest
from click.testing import CliRunner

from curricle.cli import cli
from curricle.errors import ConfigError, CurricleError, StoreError, StoreUnavailable
from curricle.steps.promote import promote
from curricle.steps.register import check, register
from kfp_pipelines import doors
from tests.steps.test_promote import stage

KNOWN = {
    "registered_models": {"name", "description", "state", "customProperties", "owner", "externalId", "readme", "language"},
    "model_versions": {"name", "description", "state", "customProperties", "author", "externalId", "registeredModelId"},
    "artifacts": {"artifactType", "name", "description", "state", "customProperties", "externalId", "uri", "modelFormatName", "modelFormatVersion"},
}  # fmt: skip


class Registry(BaseHTTPRequestHandler):
    """Keeps what it is told."""

    versions = ("v1alpha3",)
    token = ""

    def log_message(self, *args):
        pass

    def _any(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        url = urlsplit(self.path)
        query = {key: values[0] for key, values in parse_qs(url.query).items()}
        match = re.fullmatch(r"/api/model_registry/(\w+)/(\w+)(?:/(\w+))?(/artifacts)?", url.path)
        if not match or match[1] not in self.versions:
            return self._reply(404, b"404 page not found", "text/plain")
        if self.token and self.headers.get("Authorization") != f"Bearer {self.token}":
            return self._reply(401, {"code": "Unauthorized", "message": "no token"})
        what, number, artifacts = match[2], match[3], match[4]
        self.server.seen.append(f"{self.command} {url.path.partition(match[1])[2]}")
        there = self.server.objects
        if self.command == "GET" and what in ("registered_model", "model_version"):
            kind = f"{what}s"
            found = [o for o in there if o["kind"] == kind and o["name"] == query["name"]]
            if what == "model_version":
                found = [o for o in found if o["registeredModelId"] == query["parentResourceId"]]
            return (
                self._reply(200, found[0]) if found else self._reply(404, {"code": "Not Found", "message": "no such"})
            )
        if self.command == "GET":
            return self._reply(200, {"items": [], "size": 0, "pageSize": 1, "nextPageToken": ""})
        given = json.loads(body)
        kind = "artifacts" if artifacts else what
        if unknown := set(given) - KNOWN[kind]:
            return self._reply(400, {"code": "Bad Request", "message": f'json: unknown field "{unknown.pop()}"'})
        if self.command == "PATCH":
            (one,) = [o for o in there if o["id"] == number]
            one.update(given)
            return self._reply(200, one)
        same = [o for o in there if o["kind"] == kind and o["name"] == given["name"] and o.get("of") == number]
        if same and kind != "artifacts":
            return self._reply(409, {"code": "Conflict", "message": "already exists"})
        if same:
            return self._reply(200, same[0])
        made = {**given, "id": str(len(there) + 1), "kind": kind, "of": number}
        there.append(made)
        return self._reply(201, made)

    do_GET = do_POST = do_PATCH = _any

    def _reply(self, status, answer, kind="application/json"):
        data = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


@pytest.fixture
def registry(monkeypatch):
    for name in ("CURRICLE_REGISTRY_TOKEN", "http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("CURRICLE_STORE_PATIENCE", "0")
    handler = type("Handler", (Registry,), {})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.objects, server.seen, server.handler = [], [], handler
    server.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def model(tmp_path):
    """A complete stage's best checkpoint in a store."""
    return stage(tmp_path / "store", "run-1", "last", digest="d" * 64)


def texts(properties):
    return {
        key: value["string_value"]
        for key, value in properties.items()
        if value["metadataType"] == "MetadataStringValue"
    }


def test_kubeflows_registry_gets_model_version_and_artifact_once(registry, model, tmp_path):
    def again():
        return register(
            model,
            str(tmp_path / "store"),
            registry=registry.url,
            name="codes",
            verdict="promote: top1 0.9",
            metrics={"test/top1": 0.9, "x": float("nan")},
        )

    assert "codes run-1-dddddddddddd registered" in again()
    named, version, artifact = registry.objects
    assert (named["kind"], named["name"], named["state"]) == ("registered_models", "codes", "LIVE")
    assert (version["name"], version["registeredModelId"]) == ("run-1-dddddddddddd", named["id"])
    facts = {
        "uri": model,
        "digest": "d" * 64,
        "verdict": "promote: top1 0.9",
        "gate": "promoted",
        "run": "run-1",
        "stage": "last",
        "family": "codes",
    }
    assert texts(version["customProperties"]) == {f"curricle.{key}": value for key, value in facts.items()}
    assert version["customProperties"]["metric.test/top1"] == {
        "metadataType": "MetadataDoubleValue",
        "double_value": 0.9,
    }
    assert "metric.x" not in version["customProperties"]
    assert (artifact["artifactType"], artifact["uri"], artifact["of"]) == ("model-artifact", model, version["id"])
    assert "was there already" in again() and len(registry.objects) == 3


def test_another_verdict_changes_the_version_that_is_there(registry, model, tmp_path):
    for verdict in ("hold: top1 0.1", "promote: by hand"):
        register(model, str(tmp_path / "store"), registry=registry.url, name="codes", verdict=verdict)
    assert len(registry.objects) == 3 and registry.objects[1]["description"] == "promote: by hand"
    assert any(line.startswith("PATCH /model_versions/2") for line in registry.seen)


@pytest.mark.parametrize("versions", [("v1",), ("v1", "v1alpha3")])
def test_the_newer_api_goes_before_the_older(versions, registry, model, tmp_path):
    registry.handler.versions = versions
    said = register(model, str(tmp_path / "store"), registry=f"{registry.url}/api/model_registry/", name="codes")
    assert "registered" in said and len(registry.objects) == 3


def test_a_bucket_is_named_as_others_know_it(registry, monkeypatch, tmp_path):
    from curricle.store import open_store
    from tests.store.outage import SETTINGS, bucket

    made = stage(tmp_path / "store", "run-1", "last")
    with bucket() as held:
        for name, value in (*SETTINGS.items(), ("S3_ENDPOINT", f"http://127.0.0.1:{held.server_port}")):
            monkeypatch.setenv(name, value)
        for entry in open_store(str(tmp_path / "store")).list(""):
            held.objects[f"runs/{entry.key}"] = (tmp_path / "store" / entry.key).read_bytes()
        register("run-1/last", "minio://bucket/runs", registry=registry.url, name="codes")
    assert registry.objects[2]["uri"] == f"s3://bucket/runs/{made.partition('/store/')[2]}"


def test_what_a_registry_does_not_take_is_one_message(registry, model, tmp_path, monkeypatch):
    def tried(url, kind=StoreError):
        with pytest.raises(kind) as error:
            register(model, str(tmp_path / "store"), registry=url, name="codes")
        return str(error.value)

    registry.handler.token = "t0ken-of-the-tests"
    assert "CURRICLE_REGISTRY_TOKEN" in tried(registry.url)
    monkeypatch.setenv("CURRICLE_REGISTRY_TOKEN", "t0ken-of-the-tests")
    register(model, str(tmp_path / "store"), registry=registry.url, name="codes")
    monkeypatch.setitem(KNOWN, "registered_models", set())
    registry.objects.clear()
    assert 'HTTP 400 to POST registered_models: json: unknown field "' in tried(registry.url)
    registry.handler.versions = ()
    assert "no Model Registry is there" in tried(registry.url)
    away = tried("http://127.0.0.1:9", StoreUnavailable)
    assert "the Model Registry at http://127.0.0.1:9/api/model_registry has not answered" in away
    assert "(the connection is refused)" in away and "store" not in away
    assert registry.objects == []


@pytest.mark.parametrize(
    ("registry", "name"),
    [("mflow", "x"), ("ftp://host", "x"), ("http://me:pw@host", "x"), ("mlflow", ""), ("mlflow", "a/b"), ("http://host?x=1", "x")],
)  # fmt: skip
def test_a_registry_or_name_that_is_none_is_refused_before_anything_trains(registry, name):
    with pytest.raises(ConfigError):
        check(registry, name)
    with pytest.raises(ConfigError):
        doors.check_registry(registry, name)
    doors.check_registry("", name)


def test_mlflows_registry_gets_a_version_once_and_the_command_says_so(model, tmp_path, monkeypatch):
    from mlflow.tracking import MlflowClient

    uri = f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    store = str(tmp_path / "store")
    promote(model, store, "gate: test/top1 0.9 is >= 0.8")
    call = ["register", "run-1/last", "--store", store, "--to", "mlflow", "--name", "codes"]
    done = [CliRunner().invoke(cli, call, catch_exceptions=False) for _ in range(2)]
    assert "registered as codes version 1" in done[0].output and "is this model already" in done[1].output
    (version,) = MlflowClient(uri, uri).search_model_versions("name='codes'")
    assert version.source == model and version.tags["curricle.digest"] == "d" * 64
    assert (
        version.tags["curricle.verdict"] == "promote (gate: test/top1 0.9 is >= 0.8)"
        and version.tags["curricle.run"] == "run-1"
    )
    assert version.tags["curricle.gate"] == "promoted"
    client = MlflowClient(uri, uri)
    assert client.get_model_version_by_alias("codes", "promoted").version == version.version
    assert version.description.startswith("promote (gate: test/top1 0.9 is &gt;= 0.8)\n\n# Codes of NAICS 2022")
    register(model, store, registry="mlflow", name="codes", verdict="hold: too weak")
    assert client.get_model_version_by_alias("codes", "promoted").version == version.version, "a held one gets no alias"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "nonsense://x")
    with pytest.raises(CurricleError, match="MLflow at nonsense://x"):
        register(model, store, registry="mlflow", name="codes")


def test_mlflow_that_is_away_is_named_as_the_registry_in_plain_words(model, tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    with pytest.raises(StoreUnavailable) as caught:
        register(model, str(tmp_path / "store"), registry="mlflow", name="codes")
    said = "MLflow's registry: nobody answers at http://127.0.0.1:9: the connection is refused. It is that of MLFLOW_TRACKING_URI"
    assert str(caught.value) == said


def test_the_pipelines_task_gives_the_scores_of_a_continued_training_by_domain(monkeypatch):
    given = {}
    monkeypatch.setattr(doors.register, "register", lambda uri, store, **named: given.update(named) or "said")
    scores = {"before": {"new": 0.5}, "after": {"new": 0.75}, "metrics": {"test/f1": 0.7}, "full": {}}
    assert doors.register_model("u", "s", "mlflow", "n", "promote: yes", json.dumps(scores)) == "said"
    assert given["metrics"] == {"test/f1": 0.7, "before/new": 0.5, "after/new": 0.75}
    doors.register_model("u", "s", "mlflow", "n", "promote: yes", '{"test/top1": 0.5}')
    assert given["metrics"] == {"test/top1": 0.5}


def test_what_somebody_else_registers_in_between_is_taken(registry, model, tmp_path, monkeypatch):
    """Two runs at once: neither found it, and the second is told that it is there."""
    asked = Registry._any

    def late(self):
        what = self.path.partition("?")[0].rpartition("/")[2]
        if self.command == "GET" and what in self.server.hidden:
            self.server.hidden.remove(what)
            return self._reply(404, {"code": "Not Found", "message": "no such"})
        return asked(self)

    registry.hidden = set()
    for command in ("do_GET", "do_POST", "do_PATCH"):
        monkeypatch.setattr(registry.handler, command, late)

    def again():
        return register(model, str(tmp_path / "store"), registry=registry.url, name="codes", verdict="promote: yes")

    assert " registered with" in again()
    registry.hidden = {"registered_model", "model_version"}  # neither is seen at first
    assert "was there already" in again() and len(registry.objects) == 3 and not registry.hidden
