"""Where a bucket's credentials come from when no keys are set: against a server that plays Amazon's token service, a machine, a container and the bucket."""

import json
import threading
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import pytest

from curricle import environment
from curricle.errors import StoreError, StoreUnavailable
from curricle.store import open_store
from curricle.store.minio import S3Settings

TOKEN = "the-pods-own-token-s3cr3t"
VARIABLES = [value for name, value in vars(environment).items() if name.startswith(("AWS_", "S3_"))]


class Amazon(BaseHTTPRequestHandler):
    """Gives out keys that are numbered, each for an hour, and takes them as a bucket."""

    protocol_version = "HTTP/1.1"
    refuses = b""
    lasts = timedelta(hours=1)

    def log_message(self, *args):
        pass

    def _any(self):
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        url = urlsplit(self.path)
        query = parse_qs(url.query)
        signed = self.headers.get("Authorization", "")
        who = signed.partition("Credential=")[2].partition("/")[0]
        self.server.seen.append((self.command, url.path, who, self.headers.get("X-Amz-Security-Token")))
        self.server.queries.append(query)
        if "Action" in query:
            if self.refuses:
                return self._reply(403, self.refuses)
            return self._reply(200, self._keys_xml())
        if url.path == "/latest/api/token":
            return self._reply(200, b"metadata-token")
        if url.path == "/latest/meta-data/iam/security-credentials/":
            return self._reply(200, b"node-role")
        if url.path in ("/latest/meta-data/iam/security-credentials/node-role", "/pod-identity"):
            assert self.headers.get("X-aws-ec2-metadata-token") or self.headers.get("Authorization") == TOKEN
            return self._reply(200, self._keys_json())
        return self._reply(200, b"whole")

    do_GET = do_PUT = do_POST = do_DELETE = _any

    def _key(self):
        self.server.given += 1
        return f"KEY{self.server.given}", (datetime.now(UTC) + self.lasts).strftime("%Y-%m-%dT%H:%M:%SZ")

    def _keys_xml(self):
        key, until = self._key()
        return (
            "<AssumeRoleWithWebIdentityResponse><AssumeRoleWithWebIdentityResult><Credentials>"
            f"<AccessKeyId>{key}</AccessKeyId><SecretAccessKey>x</SecretAccessKey><SessionToken>session</SessionToken><Expiration>{until}</Expiration>"
            "</Credentials></AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>"
        ).encode()

    def _keys_json(self):
        key, until = self._key()
        answer = {"AccessKeyId": key, "SecretAccessKey": "x", "Token": "session", "Expiration": until}
        return json.dumps(answer).encode()

    def _reply(self, status, body):
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Content-Type", "application/xml")
        self.send_header("ETag", '"1"')
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def amazon(monkeypatch, tmp_path):
    """The server, named as the bucket's; nothing else is set."""
    for name in (*VARIABLES, "http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    handler = type("Handler", (Amazon,), {})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.seen, server.queries, server.given, server.handler = [], [], 0, handler
    server.url = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setenv("S3_ENDPOINT", server.url)
    monkeypatch.setenv("AWS_REGION", "eu-west-1")
    monkeypatch.setenv("CURRICLE_STORE_PATIENCE", "0")
    monkeypatch.setenv("HOME", str(tmp_path))
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def pod(amazon, monkeypatch, tmp_path):
    """A pod with a role: the file with its token."""
    file = tmp_path / "token"
    file.write_text(f"{TOKEN}\n")
    monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(file))
    monkeypatch.setenv("AWS_ROLE_ARN", "arn:aws:iam::1:role/trainer")
    return file


def bucket(amazon):
    return [(who, session) for _, path, who, session in amazon.seen if path.startswith("/bucket")]


def test_a_pods_token_is_changed_for_keys_once(amazon, pod):
    store = open_store("s3://bucket/runs")
    assert store.read("a") == store.read("b") == b"whole"
    assert bucket(amazon) == [("KEY1", "session")] * 2 and amazon.given == 1
    (query,) = (query for query in amazon.queries if "Action" in query)
    assert query["WebIdentityToken"] == [TOKEN] and query["RoleArn"] == ["arn:aws:iam::1:role/trainer"]


def test_keys_that_run_out_are_renewed_with_the_token_that_is_there_then(amazon, pod):
    amazon.handler.lasts = timedelta(seconds=5)  # less than the client's margin
    store = open_store("s3://bucket/runs")
    store.read("a")
    pod.write_text("newer")
    store.read("a")
    assert [who for who, _ in bucket(amazon)] == ["KEY1", "KEY2"]
    assert [query["WebIdentityToken"] for query in amazon.queries if query] == [[TOKEN], ["newer"]]


def test_a_role_that_is_refused_is_named_and_its_token_is_not(amazon, pod, capsys):
    amazon.handler.refuses = (
        b"<E><Error><Code>AccessDenied</Code><Message>Not authorized to assume</Message></Error></E>"
    )
    with pytest.raises(StoreError, match="HTTP 403 AccessDenied: Not authorized to assume") as error:
        open_store("s3://bucket/runs").read("a")
    pod.unlink()
    with pytest.raises(StoreError, match="role arn:aws:iam::1:role/trainer.*No such file") as gone:
        open_store("s3://bucket/runs").read("a")
    assert TOKEN not in f"{error.value}{gone.value}" and bucket(amazon) == []


def test_a_token_service_that_is_away_is_away(amazon, pod, monkeypatch, caplog):
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", "http://127.0.0.1:9")
    with (
        caplog.at_level("DEBUG"),
        pytest.raises(StoreUnavailable, match="no credentials from the web identity in") as error,
    ):
        open_store("s3://bucket/runs").read("a")
    assert TOKEN not in str(error.value) and error.value.exit_code == 75


def test_amazons_own_token_service_is_that_of_the_region(pod, monkeypatch):
    monkeypatch.delenv("S3_ENDPOINT")
    assert "by https://sts.eu-west-1.amazonaws.com)" in repr(S3Settings.from_environment())
    monkeypatch.setenv("AWS_REGION", "cn-north-1")
    assert "by https://sts.cn-north-1.amazonaws.com.cn)" in repr(S3Settings.from_environment())


def profiles(folder, name, **keys):
    folder.mkdir(exist_ok=True)
    file = folder / name
    lines = [f"[{section}]\n" + "".join(f"{k} = {v}\n" for k, v in pairs.items()) for section, pairs in keys.items()]
    file.write_text("\n".join(lines))
    return file


KEYS = {"aws_access_key_id": "ofprofile", "aws_secret_access_key": "p%rcent/s3cr3t"}


def test_a_profile_gives_keys_and_region(amazon, monkeypatch, tmp_path):
    monkeypatch.delenv("AWS_REGION")
    profiles(tmp_path / ".aws", "credentials", default={**KEYS, "aws_access_key_id": "ofdefault"}, team=KEYS)
    profiles(
        tmp_path / ".aws", "config", **{"default": {"region": "eu-central-1"}, "profile team": {"region": "eu-north-1"}}
    )
    assert S3Settings.from_environment().region == "eu-central-1"
    monkeypatch.setenv("AWS_PROFILE", "team")
    assert S3Settings.from_environment().region == "eu-north-1"
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-west-2")
    assert S3Settings.from_environment().region == "us-west-2"
    open_store("s3://bucket/runs").read("a")
    assert bucket(amazon) == [("ofprofile", None)]


def test_keys_in_the_environment_go_before_everything_else(amazon, pod, monkeypatch, tmp_path):
    profiles(tmp_path / ".aws", "credentials", default=KEYS)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "mine")
    with pytest.raises(StoreError, match="not set: AWS_SECRET_ACCESS_KEY\\."):
        S3Settings.from_environment()
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x")
    open_store("minio://bucket/runs").read("a")
    assert bucket(amazon) == [("mine", None)]


def test_a_profile_without_keys_is_refused_with_what_gives_them(amazon, monkeypatch, tmp_path):
    profiles(tmp_path / ".aws", "config", **{"profile sso": {"sso_start_url": "https://x"}})
    monkeypatch.setenv("AWS_PROFILE", "sso")
    with pytest.raises(StoreError, match="AWS_PROFILE=sso: .*export-credentials --profile sso"):
        open_store("s3://bucket/runs")
    (tmp_path / ".aws/config").write_text("no section = 1")
    with pytest.raises(StoreError, match="config cannot be read as a file of AWS profiles"):
        open_store("s3://bucket/runs")


def test_an_eks_pod_identity_is_asked_with_its_token_file(amazon, monkeypatch, tmp_path):
    (tmp_path / "token").write_text(TOKEN)
    monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"{amazon.url}/pod-identity")
    monkeypatch.setenv("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", str(tmp_path / "token"))
    open_store("s3://bucket/runs").read("a")
    assert bucket(amazon) == [("KEY1", "session")]


def test_the_machine_is_asked_for_amazons_own_bucket_only(amazon, monkeypatch):
    monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", amazon.url)
    with pytest.raises(StoreError, match="not set: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY \\(or AWS_PROFILE"):
        open_store("s3://bucket/runs")
    monkeypatch.delenv("S3_ENDPOINT")
    keys = S3Settings.from_environment().source.retrieve()
    assert (keys.access_key, keys.session_token) == ("KEY1", "session")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with pytest.raises(StoreError, match="not set: AWS_ACCESS_KEY_ID"):
        S3Settings.from_environment()


def test_a_machine_without_a_profile_says_what_to_set_and_soon(amazon, monkeypatch):
    monkeypatch.delenv("S3_ENDPOINT")
    monkeypatch.setenv("CURRICLE_STORE_PATIENCE", "300")
    monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", "http://127.0.0.1:9")
    begun = datetime.now(UTC)
    with pytest.raises(StoreError, match="instance profile .*set AWS_ACCESS_KEY_ID") as error:
        S3Settings.from_environment().source.retrieve()
    assert type(error.value) is StoreError and (datetime.now(UTC) - begun).total_seconds() < 5
