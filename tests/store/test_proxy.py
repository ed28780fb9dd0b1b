"""A bucket's server is asked through the environment's proxy, and without it where `NO_PROXY` says so."""

import re
import socket
import threading
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from curricle import environment
from curricle.errors import StoreError
from curricle.store import open_store


@pytest.fixture
def proxy(monkeypatch):
    """A proxy that answers for the server behind it; the request lines and passwords that it saw."""
    seen = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *args):
            pass

        def do_GET(self):
            seen.append((self.path, self.headers["Proxy-Authorization"]))
            self.send_response(200)
            self.send_header("Content-Length", "5")
            self.end_headers()
            self.wfile.write(b"hello")

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    for name in ("HTTPS_PROXY", "https_proxy", "http_proxy", "NO_PROXY", "no_proxy", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    settings = {
        "S3_ENDPOINT": "http://bucket.invalid:9000",
        "AWS_ACCESS_KEY_ID": "a",
        "AWS_SECRET_ACCESS_KEY": "b",
        "AWS_REGION": "us-east-1",
        "CURRICLE_STORE_PATIENCE": "0",
        "HTTP_PROXY": f"http://me:p%40ss@127.0.0.1:{server.server_port}",
    }
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    yield seen
    server.shutdown()
    server.server_close()


def test_a_bucket_is_read_through_the_proxy(proxy):
    assert open_store("minio://bucket/runs").read("x") == b"hello"
    assert proxy == [("http://bucket.invalid:9000/bucket/runs/x", "Basic bWU6cEBzcw==")]


def test_no_proxy_goes_without(proxy, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "localhost,.invalid")
    with pytest.raises(StoreError):
        open_store("minio://bucket/runs").read("x")
    assert proxy == []


@pytest.mark.parametrize("wrong", ["nonsense://x", "http://[bad"])
def test_a_proxy_that_is_none_is_one_message(proxy, monkeypatch, wrong):
    monkeypatch.setenv("HTTP_PROXY", wrong)
    with pytest.raises(StoreError, match="the proxy in HTTPS_PROXY or HTTP_PROXY cannot be used"):
        open_store("minio://bucket/runs")


@pytest.mark.parametrize(
    ("url", "without", "used"),
    [
        ("https://10.1.2.3:9000", "10.0.0.0/8", False),
        ("https://10.1.2.3:9000", "11.0.0.0/8, foo", True),
        ("https://[fd00::1]:9000", "fd00::/8", False),
        ("https://store.example.com", "example.com", False),
        ("https://store.example.com", "", True),
        ("http://store.example.com", "", False),
        ("https://store.example.com", "not/a/network,%%", True),
    ],
)
def test_hosts_domains_and_networks_go_without(monkeypatch, url, without, used):
    for name in ("http_proxy", "HTTP_PROXY", "no_proxy", "https_proxy", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HTTPS_PROXY", "proxy.example.com:3128")
    monkeypatch.setenv("NO_PROXY", without)
    assert environment.proxy_for(url) == ("http://proxy.example.com:3128" if used else "")


@contextmanager
def refusing(answer):
    """A proxy that answers everything alike; None: nobody is there."""
    if answer is None:
        yield 9
        return
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def take():
            with suppress(OSError):
                while True:
                    one, _ = listener.accept()
                    one.recv(65536)
                    one.sendall(answer)
                    one.close()

        threading.Thread(target=take, daemon=True).start()
        yield listener.getsockname()[1]


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (None, "nobody answers there (the connection is refused)"),
        (b"HTTP/1.1 403 Forbidden\r\nContent-Length: 6\r\n\r\ndenied", "NO_PROXY"),
        (b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n", "wants a user and a password"),
    ],
)
@pytest.mark.parametrize("place", ["minio://bucket/runs", "hf://org/model", "{scheme}://web.invalid/data"])
def test_a_proxy_that_refuses_is_named_with_its_variable(proxy, monkeypatch, scheme, answer, said, place):
    monkeypatch.setenv("S3_ENDPOINT", f"{scheme}://bucket.invalid:9000")
    monkeypatch.setenv("HF_ENDPOINT", f"{scheme}://hub.invalid")
    monkeypatch.delenv("HTTP_PROXY")
    with refusing(answer) as port:
        monkeypatch.setenv(f"{scheme.upper()}_PROXY", f"http://me:p4ssw0rd@127.0.0.1:{port}")
        with pytest.raises(StoreError) as caught:
            open_store(place.format(scheme=scheme)).read("x")
    told = str(caught.value)
    assert (
        f"the proxy http://***@127.0.0.1:{port} of {scheme.upper()}_PROXY" in told
        and "NO_PROXY" in told
        and said in told
    )
    assert "p4ssw0rd" not in told and not SPEECH.search(told), told


SPEECH = re.compile(r"Error\(|Remote|Status|Pool|Connections?\(|object at|0x|Max retries|_ssl")
"""What is Python's own."""
