"""What a bucket can do wrong, told apart; against a real MinIO where one answers, else against a small server that plays one part."""

import re
import socket
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
    assert type(error.value) is kind and "said by the test" in str(error.value)


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
        with pytest.raises(StoreError, match="wrong endpoint: nothing usable at") as error:
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
