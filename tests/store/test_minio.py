"""What a bucket can do wrong, told apart; against a real MinIO where one answers, else against a small server that plays one part."""

import re
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from curricle.errors import StoreError, StoreUnavailable
from curricle.store import open_store
from curricle.store.minio import MinioStore, S3Settings
from tests.store import outage

SECRET = "s3cr3t-of-the-tests"
KEYS = {"AWS_ACCESS_KEY_ID": "who", "AWS_SECRET_ACCESS_KEY": SECRET}


@pytest.mark.parametrize(
    ("environment", "scheme", "url"),
    [
        ({"S3_ENDPOINT": "http://minio-service.kubeflow:9000"}, "minio", "http://minio-service.kubeflow:9000"),
        ({"S3_ENDPOINT": "minio:9000", "AWS_ENDPOINT_URL": "https://other"}, "s3", "http://minio:9000"),
        (
            {"S3_ENDPOINT": "", "AWS_ENDPOINT_URL_S3": "https://a/", "AWS_ENDPOINT_URL": "https://b"},
            "minio",
            "https://a",
        ),
        ({"AWS_ENDPOINT_URL": "http://[::1]:9000"}, "s3", "http://[::1]:9000"),
        ({}, "s3", "https://s3.amazonaws.com"),
    ],
)
def test_the_endpoint_comes_from_the_first_variable_that_is_set(environment: dict, scheme: str, url: str):
    settings = S3Settings.from_environment({**KEYS, **environment}, scheme=scheme)
    assert (settings.url, settings.access_key, settings.secret_key, settings.region) == (url, "who", SECRET, None)


def test_missing_settings_are_all_named():
    with pytest.raises(StoreError) as error:
        S3Settings.from_environment({"AWS_ACCESS_KEY_ID": ""}, scheme="minio")
    for name in [
        "S3_ENDPOINT",
        "AWS_ENDPOINT_URL_S3",
        "AWS_ENDPOINT_URL",
        "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY",
    ]:
        assert name in str(error.value)


@pytest.mark.parametrize(
    "endpoint", ["ftp://x", "http://", "http://x/path", "http://x:port", "http://u:p@x", "http://x:99999"]
)
def test_an_endpoint_that_is_none_is_refused_by_its_variable(endpoint: str):
    with pytest.raises(StoreError, match="S3_ENDPOINT=.* is no endpoint"):
        S3Settings.from_environment({**KEYS, "S3_ENDPOINT": endpoint})


def test_the_secret_is_never_shown():
    assert SECRET not in repr(S3Settings("x:1", "who", SECRET))


@pytest.mark.parametrize("uri", ["minio://", "s3:///prefix", "minio://bucket/../other", "minio://bucket/a//b"])
def test_a_uri_without_bucket_or_with_a_way_out_is_refused(uri: str):
    with pytest.raises(StoreError):
        MinioStore(uri, S3Settings("x:1", "who", SECRET))


def said(store: MinioStore, tmp_path: Path, kind: type[StoreError] = StoreError) -> list[str]:
    """What every verb says when it fails, and that it fails with this very error."""
    (tmp_path / "file").write_bytes(b"x")
    messages = []
    for verb in [
        lambda: store.read("a"),
        lambda: store.write("a", b"x"),
        lambda: store.put("a", tmp_path / "file"),
        lambda: store.get("a", tmp_path / "out"),
        lambda: list(store.list("")),
        lambda: store.delete("a"),
    ]:
        with pytest.raises(StoreError) as error:
            verb()
        assert type(error.value) is kind and store.uri in str(error.value) and SECRET not in str(error.value)
        messages.append(str(error.value))
    assert not (tmp_path / "out").exists()
    return messages


def test_an_unknown_access_key_a_wrong_secret_and_an_unknown_bucket_are_told_apart(
    minio_environment: dict, minio_uri: str, tmp_path: Path
):
    for change, uri, expected in [
        ({"AWS_ACCESS_KEY_ID": "nobody"}, minio_uri, "wrong credentials: .* does not know AWS_ACCESS_KEY_ID='nobody'"),
        ({"AWS_SECRET_ACCESS_KEY": SECRET}, minio_uri, "wrong credentials: the secret does not belong"),
        ({}, "minio://no-such-bucket-here/x", "unknown bucket: .*'no-such-bucket-here'"),
        ({}, "minio://B/x", "[Bb]ucket"),
    ]:
        store = MinioStore(uri, S3Settings.from_environment({**minio_environment, **change}))
        for message in said(store, tmp_path):
            assert re.search(expected, message), message


def test_a_clock_that_is_off_is_named_as_the_cause(minio_uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with monkeypatch.context() as patched:
        patched.setattr("minio.time.utcnow", lambda: datetime.now(UTC) + timedelta(hours=2))
        messages = said(open_store(minio_uri), tmp_path)
    for message in messages:
        assert "clock skew" in message and "UTC" in message


def test_s3_and_minio_name_the_same_place(minio_uri: str):
    open_store(minio_uri).write("k", b"x")
    assert open_store("s3" + minio_uri.removeprefix("minio")).read("k") == b"x"


def test_an_endpoint_where_nobody_answers_may_be_wrong_or_away_and_says_so(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("CURRICLE_STORE_PATIENCE", "1")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        store = MinioStore(
            "minio://bucket/x", S3Settings(f"127.0.0.1:{free.getsockname()[1]}", "who", SECRET, secure=False)
        )
        for verb in [lambda: store.read("a"), lambda: store.write("a", b"x")]:
            begun = time.monotonic()
            with pytest.raises(StoreUnavailable, match="the server is away, or S3_ENDPOINT is wrong: .*refused"):
                verb()
            assert time.monotonic() - begun < 10


@pytest.mark.parametrize(
    ("number", "kind", "words"),
    [
        (socket.EAI_NONAME, StoreError, "wrong endpoint.*no-such-host.invalid"),
        (socket.EAI_AGAIN, StoreUnavailable, "the server is away, or S3_ENDPOINT is wrong"),
    ],
)
def test_a_name_that_nobody_knows_is_wrong_and_a_name_server_that_is_away_is_away(
    number: int, kind: type[StoreError], words: str, monkeypatch: pytest.MonkeyPatch
):
    def ask(*args, **options):
        raise socket.gaierror(number, "said by the test")

    monkeypatch.setenv("CURRICLE_STORE_PATIENCE", "0")
    store = at("no-such-host.invalid:9000")
    with monkeypatch.context() as patched:
        patched.setattr(socket, "getaddrinfo", ask)
        with pytest.raises(StoreError, match=words) as error:
            store.read("a")
    assert type(error.value) is kind


def test_a_name_that_is_unknown_for_once_is_away_where_its_server_has_answered(monkeypatch: pytest.MonkeyPatch):
    def ask(*args, **options):
        raise socket.gaierror(socket.EAI_NONAME, "said by the test")

    monkeypatch.setenv("CURRICLE_STORE_PATIENCE", "0")
    with server(lambda request, number: reply(request, 200, b"x", ETag='"1"', Connection="close")) as endpoint:
        store = at(endpoint)
        store.read("a")
        with monkeypatch.context() as patched:
            patched.setattr(socket, "getaddrinfo", ask)
            with pytest.raises(StoreUnavailable, match="the server is away: "):
                store.read("a")


@contextmanager
def server(answer: Callable[[BaseHTTPRequestHandler, int], None]) -> Iterator[str]:
    """An HTTP server on this machine; `answer` gets each request and its number, from 0."""
    count = 0

    class Handler(BaseHTTPRequestHandler):
        def handle_any(self) -> None:
            nonlocal count
            count += 1
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            answer(self, count - 1)

        do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = handle_any

        def log_message(self, *args) -> None:
            pass

    running = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"127.0.0.1:{running.server_address[1]}"
    finally:
        running.shutdown()
        thread.join()
        running.server_close()


def reply(request: BaseHTTPRequestHandler, status: int, body: bytes = b"", **headers: str) -> None:
    request.send_response(status)
    for name, value in {"Content-Length": str(len(body)), **headers}.items():
        request.send_header(name.replace("_", "-"), value)
    request.end_headers()
    request.wfile.write(body)


def at(endpoint: str, secure: bool = False) -> MinioStore:
    return MinioStore("minio://bucket/x", S3Settings(endpoint, "who", SECRET, region="us-east-1", secure=secure))


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_a_server_that_fails_twice_is_asked_again(status: int):
    def answer(request, number):
        reply(request, *((status, b"") if number < 2 else (200, b"whole")), ETag='"1"')

    with server(answer) as endpoint:
        assert at(endpoint).read("k") == b"whole"


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
@pytest.mark.parametrize(
    ("body", "kind", "words"),
    [
        (
            b"<Error><Code>SlowDown</Code><Message>Reduce your rate</Message></Error>",
            "application/xml",
            "SlowDown: Reduce your rate",
        ),
        (b"<html>a gateway</html>", "text/html", "HTTP 50|HTTP 429 Too"),
        (b"", "application/xml", "HTTP 50|HTTP 429 Too"),
        (b"<Error></Error>", "application/xml", "HTTP 50|HTTP 429 Too"),
    ],
)
def test_a_server_that_keeps_failing_is_unavailable_and_quoted(
    status: int, body: bytes, kind: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("CURRICLE_STORE_PATIENCE", "0.3")
    with server(lambda request, number: reply(request, status, body, Content_Type=kind)) as endpoint:
        for message in said(at(endpoint), tmp_path, StoreUnavailable):
            assert re.search(words, message) and "None" not in message and "S3 server" not in message, message


@pytest.mark.parametrize("body", [b"<Error></Error>", b"<Odd/>"])
def test_an_error_without_a_word_is_quoted_as_what_it_is(body: bytes, tmp_path: Path):
    with server(lambda request, number: reply(request, 409, body, Content_Type="application/xml")) as endpoint:
        for message in said(at(endpoint), tmp_path):
            assert "says HTTP 409" in message and "None" not in message, message


def test_a_full_server_is_not_waited_for():
    full = b"<Error><Code>XMinioStorageFull</Code><Message>full</Message></Error>"
    with (
        server(lambda request, number: reply(request, 507, full, Content_Type="application/xml")) as endpoint,
        pytest.raises(StoreError, match="no space left") as error,
    ):
        at(endpoint).write("k", b"x")
    assert not isinstance(error.value, StoreUnavailable)


def test_an_upload_that_the_server_calls_stalled_is_sent_again():
    stalled = b"<Error><Code>RequestTimeout</Code><Message>Your socket was idle</Message></Error>"

    def answer(request, number):
        reply(request, *((400, stalled) if number < 1 else (200, b"")), Content_Type="application/xml", ETag='"1"')

    with server(answer) as endpoint:
        at(endpoint).write("k", b"x")


def test_a_server_that_speaks_no_http_is_a_wrong_endpoint():
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def greet() -> None:
            one, _ = listener.accept()
            one.sendall(b"SSH-2.0-server\r\n")
            one.recv(10_000)
            one.close()

        thread = threading.Thread(target=greet)
        thread.start()
        with pytest.raises(
            StoreError,
            match="wrong endpoint: http://127.* is there, but what it says is no HTTP, and begins with 'SSH-2.0-server'",
        ) as error:
            at(f"127.0.0.1:{listener.getsockname()[1]}").read("k")
        thread.join()
    assert not isinstance(error.value, StoreUnavailable)


def test_a_broken_download_goes_on_where_it_stopped(tmp_path: Path):
    data, ranges = bytes(range(256)) * 40, []

    def answer(request, number):
        ranges.append((request.headers.get("Range"), request.headers.get("If-Match")))
        begin = int((request.headers.get("Range") or "bytes=0-")[6:].partition("-")[0])
        rest = data[begin:]
        request.send_response(206 if begin else 200)
        request.send_header("Content-Length", str(len(rest)))
        request.send_header("ETag", '"v1"')
        request.end_headers()
        request.wfile.write(rest if number == 2 else rest[:4000])
        request.close_connection = True

    with server(answer) as endpoint:
        at(endpoint).get("k", tmp_path / "k")
    assert (tmp_path / "k").read_bytes() == data
    assert ranges[0] == (None, None) and all(match == '"v1"' for _, match in ranges[1:]) and len(ranges) == 3
    assert [path.name for path in tmp_path.iterdir()] == ["k"]


def test_an_error_whose_body_breaks_off_is_asked_for_again():
    body = b"<Error><Code>NoSuchKey</Code><Message>gone</Message></Error>"

    def answer(request, number):
        request.send_response(404)
        request.send_header("Content-Length", str(len(body)))
        request.send_header("Content-Type", "application/xml")
        request.end_headers()
        request.wfile.write(body[: 10 if number < 2 else None])
        request.close_connection = True

    with server(answer) as endpoint:
        assert at(endpoint).read("k") is None


def test_a_download_that_stays_broken_is_given_up_and_leaves_nothing_behind(tmp_path: Path, monkeypatch):
    monkeypatch.setenv("CURRICLE_STORE_PATIENCE", "1")

    def answer(request, number):
        request.send_response(200)
        request.send_header("Content-Length", "1000")
        request.send_header("ETag", '"v1"')
        request.end_headers()
        request.close_connection = True

    with server(answer) as endpoint, pytest.raises(StoreUnavailable, match="cannot get 'k'"):
        at(endpoint).get("k", tmp_path / "k")
    assert list(tmp_path.iterdir()) == []


def test_a_server_that_is_no_s3_is_said_to_be_none(tmp_path: Path):
    def answer(request, number):
        reply(request, 404, b"<html>console</html>", Content_Type="text/html")

    with server(answer) as endpoint:
        for message in said(at(endpoint), tmp_path):
            assert "answers, but not as an S3 server" in message and "S3_ENDPOINT" in message


def test_a_page_in_place_of_a_listing_is_said_to_be_no_s3():
    def answer(request, number):
        reply(request, 200, b"<!doctype html><p>console", Content_Type="text/html")

    with server(answer) as endpoint, pytest.raises(StoreError, match="not as an S3 server"):
        list(at(endpoint).list(""))


def test_tls_to_a_server_without_it_says_so():
    with (
        server(lambda request, number: reply(request, 400)) as endpoint,
        pytest.raises(StoreError, match="TLS with https://.* failed.*http://"),
    ):
        at(endpoint, secure=True).read("k")


def test_a_policy_that_forbids_is_not_called_a_wrong_password():
    def answer(request, number):
        reply(
            request,
            403,
            b"<Error><Code>AccessDenied</Code><Message>Access Denied.</Message></Error>",
            Content_Type="application/xml",
        )

    with server(answer) as endpoint, pytest.raises(StoreError, match="not allowed: .*policy"):
        at(endpoint).read("k")


WRONG_REGION = b"<Error><Code>AuthorizationHeaderMalformed</Code><Message>The region 'us-east-1' is wrong; expecting 'eu-north-1'</Message></Error>"
DENIED = b"<Error><Code>AccessDenied</Code><Message>Access Denied.</Message></Error>"


def test_a_region_that_nobody_named_is_the_one_that_the_server_wants_and_its_location_is_not_asked_for():
    seen = []

    def answer(request, number):
        region = request.headers["Authorization"].split("/")[2]
        seen.append((region, request.path))
        if region != "eu-north-1":
            return reply(request, 400, WRONG_REGION, Content_Type="application/xml")
        return reply(request, 200, b"whole", ETag='"1"')

    with server(answer) as endpoint:
        for _ in range(2):
            store = MinioStore("minio://bucket/x", S3Settings(endpoint, "who", SECRET, secure=False))
            assert store.read("k") == b"whole"
    assert [region for region, _ in seen] == ["us-east-1", "eu-north-1", "eu-north-1"]
    assert not [path for _, path in seen if "location" in path]


def test_an_object_that_is_not_there_is_none_where_only_a_prefix_may_be_listed():
    """Without the right to list the whole bucket, S3 forbids the reading of an absent object."""
    allowed = ["x/"]

    def answer(request, number):
        if "list-type" in request.path:
            prefix = request.path.partition("prefix=")[2].partition("&")[0].replace("%2F", "/")
            if any(prefix.startswith(part) for part in allowed):
                body = b"<ListBucketResult><Name>bucket</Name><IsTruncated>false</IsTruncated></ListBucketResult>"
                return reply(request, 200, body, Content_Type="application/xml")
        return reply(request, 403, DENIED, Content_Type="application/xml")

    with server(answer) as endpoint:
        assert at(endpoint).read("k") is None
        allowed.clear()
        with pytest.raises(StoreError, match="not allowed"):
            at(endpoint).read("k")


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (400, b"<Error><Code>InvalidArgument</Code><Message>Cannot create buckets using a POST.</Message></Error>", "application/xml"),
        (501, b"<Error><Code>NotImplemented</Code><Message>A header</Message></Error>", "application/xml"),
        (405, b"method not allowed", "text/plain"),
    ],
)  # fmt: skip
def test_a_store_that_deletes_no_several_objects_at_once_is_asked_one_by_one_and_it_is_said_once(
    status: int, body: bytes, kind: str, caplog
):
    posts = []

    def refuse(self, key, query, content):
        posts.append(key)
        reply(self, status, body, Content_Type=kind)

    with outage.bucket() as held:
        held.RequestHandlerClass = type("Google", (outage._Request,), {"_post": refuse})
        store = at(f"127.0.0.1:{held.server_port}")
        for folder in ("a", "b"):
            held.objects |= {f"x/{folder}/{name}": b"" for name in ("1", "2", "manifest.json")}
            assert store.delete(folder) == 3
        assert held.objects == {} and len(posts) == 1
        assert [r for r in held.requests if r.startswith("DELETE")][0] == "DELETE x/a/manifest.json"
    assert [r.message for r in caplog.records if "one by one" in r.message] and len(caplog.records) == 1


def test_a_delete_that_is_forbidden_is_not_tried_one_by_one():
    deleted = []

    def forbid(self, key, query, content):
        reply(self, 403, DENIED, Content_Type="application/xml")

    with outage.bucket() as held:
        held.RequestHandlerClass = type("Closed", (outage._Request,), {"_post": forbid, "_delete": deleted.append})
        held.objects |= {"x/a/1": b""}
        with pytest.raises(StoreError, match="not allowed"):
            at(f"127.0.0.1:{held.server_port}").delete("a")
    assert deleted == []


@pytest.fixture(scope="module")
def authority(tmp_path_factory) -> Path:
    """A certificate of its own for 127.0.0.1, with its key beside it."""
    folder = tmp_path_factory.mktemp("authority")
    made = subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2", "-subj", "/CN=store",
         "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", "key.pem", "-out", "cert.pem"], cwd=folder, capture_output=True,
    )  # fmt: skip
    if made.returncode:
        pytest.skip(f"openssl makes no certificate here: {made.stderr.decode()[-200:]}")
    return folder / "cert.pem"


@pytest.mark.parametrize("variable", ["SSL_CERT_FILE", "AWS_CA_BUNDLE", "CURRICLE_CA_CERTIFICATES"])
def test_an_authority_of_its_own_is_trusted_by_each_variable(variable, authority, monkeypatch):
    for name in ("SSL_CERT_FILE", "AWS_CA_BUNDLE", "CURRICLE_CA_CERTIFICATES"):
        monkeypatch.delenv(name, raising=False)
    with outage.bucket() as held:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(authority, authority.with_name("key.pem"))
        held.socket = context.wrap_socket(held.socket, server_side=True)
        held.objects["x/k"] = b"whole"
        endpoint = f"127.0.0.1:{held.server_port}"
        with pytest.raises(StoreError, match="TLS with .* failed .*SSL_CERT_FILE"):
            at(endpoint, secure=True).read("k")
        monkeypatch.setenv(variable, authority.read_text() if variable.startswith("CURR") else str(authority))
        assert at(endpoint, secure=True).read("k") == b"whole"


@pytest.mark.parametrize("variable", ["SSL_CERT_FILE", "AWS_CA_BUNDLE", "CURRICLE_CA_CERTIFICATES"])
def test_an_authority_that_is_none_is_refused_by_its_variable(variable, monkeypatch, tmp_path):
    for name in ("SSL_CERT_FILE", "AWS_CA_BUNDLE", "CURRICLE_CA_CERTIFICATES"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "ca.pem").write_text("nothing of that kind")
    for value in (str(tmp_path / "absent.pem"), str(tmp_path / "ca.pem")):
        monkeypatch.setenv(variable, value)
        with pytest.raises(StoreError, match=f"{variable}.* holds no certificates"):
            at("x:1", secure=True)


@pytest.mark.parametrize("name", ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION"])
def test_a_key_with_a_line_break_is_named_and_never_shown(name):
    variables = {"S3_ENDPOINT": "http://x:1", "AWS_ACCESS_KEY_ID": "someone", "AWS_SECRET_ACCESS_KEY": "something"}
    with pytest.raises(StoreError, match=f"{name} holds a line break") as caught:
        S3Settings.from_environment(variables | {name: "SEKRET\n"})
    assert "SEKRET" not in str(caught.value)


@pytest.mark.parametrize("uri", ["minio://u:SEKRET@bucket/x", "s3://SEKRET@bucket"])
def test_a_password_in_a_uri_is_refused_when_it_is_opened_and_never_shown(uri):
    with pytest.raises(StoreError, match="belong into AWS_ACCESS_KEY_ID") as caught:
        MinioStore(uri, SETTINGS_OF_NOBODY)
    assert "SEKRET" not in str(caught.value)


def test_what_cannot_be_a_buckets_name_is_refused_when_it_is_opened():
    with pytest.raises(StoreError, match="cannot be a bucket's name"):
        MinioStore("minio://my bucket/x", SETTINGS_OF_NOBODY)


SETTINGS_OF_NOBODY = S3Settings(endpoint="x:1", access_key="a", secret_key="b", secure=False)
