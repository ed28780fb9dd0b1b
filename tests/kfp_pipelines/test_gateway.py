"""What stands before a server: login pages, tokens that end, answers that ask for patience, own authorities, proxies, several users' namespaces.

The fronts are HTTP servers on this machine that answer as gateways do; behind them stand a real server's recorded answers."""

import datetime
import json
import os
import re
import select
import socket
import ssl
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, suppress
from email.utils import format_datetime
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(Path(__file__).parent))
from fake_kfp import FakeKfp  # noqa: E402

from curricle.errors import PipelineError  # noqa: E402
from kfp_pipelines import gateway  # noqa: E402
from kfp_pipelines.gateway import Access, Away, Gateway, Refused  # noqa: E402
from kfp_pipelines.server import Server  # noqa: E402
from kfp_pipelines.submit import submit  # noqa: E402

PACKAGE = ROOT / "kfp_pipelines" / "compiled" / "chain_smoke.yaml"
LOGIN = b"<!DOCTYPE html><html><head><title>Log in to Your Account</title></head><body>dex</body></html>"
HTML = {"Content-Type": "text/html; charset=utf-8"}
NAMES = ("KF_PIPELINES_ENDPOINT", "KF_PIPELINES_SA_TOKEN_PATH", "CURRICLE_KFP_TOKEN", "CURRICLE_KFP_COOKIES", "CURRICLE_KFP_NAMESPACE",
         "SSL_CERT_FILE", "HTTPS_PROXY", "HTTP_PROXY", "https_proxy", "http_proxy", "NO_PROXY", "no_proxy", "ALL_PROXY", "all_proxy")  # fmt: skip


@contextmanager
def front(answer, drips=False):
    """A port that takes every connection and says `answer`, whatever it is asked; None says nothing. `drips`: then a blank now and then, without end."""
    listener, held = socket.create_server(("127.0.0.1", 0)), []

    def take():
        while True:
            try:
                one, _ = listener.accept()
            except OSError:
                return
            held.append(one)
            if answer is not None:
                with suppress(OSError):
                    one.recv(65536)
                    one.sendall(answer.encode() if isinstance(answer, str) else answer)
                    while drips:
                        time.sleep(0.05)
                        one.sendall(b" ")
                one.close()

    threading.Thread(target=take, daemon=True).start()
    yield listener.getsockname()[1]
    listener.close()
    for one in held:
        one.close()


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch, tmp_path):
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    import kfp

    monkeypatch.setattr(kfp.Client, "_LOCAL_KFP_CONTEXT", str(tmp_path / "context.json"))


@pytest.fixture
def serve(shared):
    made = []

    def start(*scenarios, **options):
        made.append(FakeKfp(shared / "data" / "kfp-api", *scenarios, **options))
        return made[-1]

    yield start
    for fake in made:
        fake.close()


def watched(fake, access=None, **options):
    """A run of the smoke chain, watched: it, and what was said."""
    said: list[str] = []
    run = submit(PACKAGE, [f"store_uri={options.pop('store')}"], access or Access(endpoint=fake.url), poll=0.01, say=said.append, **options)  # fmt: skip
    return run, "\n".join(said)


# --- logins ---------------------------------------------------------------------------------------------------------


def login_page(method, path, headers):
    return 200, HTML, LOGIN


def login_redirect(method, path, headers):
    if path.startswith("/dex"):
        return 200, HTML, LOGIN
    return 302, {"Location": "/dex/auth?client_id=kubeflow-oidc-authservice"}, b""


def login_elsewhere(method, path, headers):
    return 303, {"Location": "https://login.example.com/oauth2/authorize?x=1"}, b""


def unauthorized(method, path, headers):
    return 401, {"Content-Type": "text/plain"}, b"Jwt is missing"


@pytest.mark.parametrize("front", [login_page, login_redirect, login_elsewhere, unauthorized])
@pytest.mark.parametrize(
    ("given", "advice"),
    [
        ({}, "none was sent: set CURRICLE_KFP_TOKEN"),
        ({"token": "t0ps3cr3t"}, "--token (CURRICLE_KFP_TOKEN) was sent"),
        ({"cookies": "authservice_session=t0ps3cr3t"}, "CURRICLE_KFP_COOKIES"),
    ],
)
def test_a_login_in_the_place_of_an_answer_is_told_with_what_was_sent(serve, front, given, advice):
    fake = serve()
    fake.front = front
    with pytest.raises(Refused) as error:
        Server(Access(endpoint=fake.url, **given))
    text = str(error.value)
    assert "wants a login" in text and "token missing or refused" in text and advice in text
    assert error.value.exit_code == 2 and "t0ps3cr3t" not in text and "<" not in text and fake.calls == []


def test_the_login_page_of_a_command_is_one_line_and_exit_code_2(serve, tmp_path):
    fake = serve()
    fake.front = login_redirect
    env = {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}", "HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", "from curricle.cli import main; main()", "submit", str(PACKAGE), "--endpoint", fake.url], env=env, capture_output=True, text=True, timeout=120
    )  # fmt: skip
    assert done.returncode == 2 and done.stdout == "", done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: connect: the server wants a login (302 to /dex/auth")


def test_another_address_of_the_same_page_is_told_and_gets_no_token(serve):
    fake = serve()
    fake.front = lambda method, path, headers: (301, {"Location": f"https://kubeflow.example.com{path}"}, b"")
    with pytest.raises(PipelineError, match=r"give --endpoint https://kubeflow\.example\.com/pipeline$"):
        Server(Access(endpoint=f"{fake.url}/pipeline", token="t"))


def test_a_page_that_is_no_api_is_told(serve):
    fake = serve()
    fake.front = lambda method, path, headers: (404, HTML, b"<html><h1>Not Found</h1></html>")
    with pytest.raises(PipelineError, match="no API of Kubeflow Pipelines is there"):
        Server(Access(endpoint=fake.url))


def test_what_is_not_allowed_names_the_role(serve):
    fake = serve()
    refusal = json.dumps({"code": 7, "message": "User 'x' is not authorized to list recurring runs"}).encode()
    fake.front = lambda method, path, headers: (403, {"Content-Type": "application/json"}, refusal) if "recurring" in path else None  # fmt: skip
    with pytest.raises(PipelineError, match="'x' is not authorized.*kubeflow-pipelines-edit in namespace team-a"):
        Server(Access(endpoint=fake.url, namespace="team-a")).recurring_runs()


# --- tokens ---------------------------------------------------------------------------------------------------------


def test_token_file_cookies_and_token_travel_as_the_sdk_sends_them(serve, tmp_path, monkeypatch):
    fake, seen = serve(), []
    fake.front = lambda method, path, headers: seen.append((headers["Authorization"], headers["Cookie"]))
    file = tmp_path / "token"
    file.write_text("first\n")
    server = Server(Access(endpoint=fake.url, token_file=str(file), cookies="a=1; b=2\n"))
    file.write_text("second\n")
    server.recurring_runs()
    Server(Access(endpoint=fake.url, token="third\n", token_file=str(file))).recurring_runs()
    fake.front = lambda method, path, headers: (401, {}, b"no")
    with pytest.raises(Refused, match="that of --token .* was sent: get a new one; cookies were sent"):
        Server(Access(endpoint=fake.url, token="third", cookies="a=1"))
    assert seen == [("Bearer first", "a=1; b=2"), ("Bearer second", "a=1; b=2"), *[("Bearer third", None)] * 2]


def test_a_token_that_ends_while_watching_is_read_again(serve, tmp_path):
    fake, file = serve(), tmp_path / "token"
    file.write_text("old")

    def front(method, path, headers):
        if "/runs/" in path and len(fake.frames) < 4 and headers["Authorization"] != "Bearer new":
            file.write_text("new")
            return 401, {"Content-Type": "text/plain"}, b"Jwt is expired"
        return None

    fake.front = front
    run, said = watched(fake, Access(endpoint=fake.url, token_file=str(file)), store=tmp_path)
    assert run.exit_code == 0 and "run: succeeded" in said


@pytest.mark.parametrize(
    "answer",
    [(401, {"Content-Type": "text/plain"}, b"Jwt is expired"), (200, HTML, LOGIN), (403, {}, b"RBAC: access denied"), (404, {}, b"{}")],
)  # fmt: skip
def test_a_run_that_cannot_be_watched_any_more_is_exit_code_4_with_its_url(serve, tmp_path, answer):
    fake = serve()
    fake.front = lambda method, path, headers: answer if "/runs/" in path and len(fake.frames) < 4 else None
    run, said = watched(fake, Access(endpoint=fake.url, token="ended"), store=tmp_path)
    assert run.exit_code == 4 and run.url in said.splitlines()[-1] and "may go on" in said
    assert json.loads(run.to_json())["reasons"], "a script reads why"


# --- patience -------------------------------------------------------------------------------------------------------


def in_seconds(clock, seconds):
    return str(seconds)


def as_a_date(clock, seconds):
    """By the server's own clock, which is an hour wrong."""
    return format_datetime(clock + datetime.timedelta(seconds=seconds), usegmt=True)


@pytest.mark.parametrize("status", [408, 425, 429, 503])
@pytest.mark.parametrize("form", [in_seconds, as_a_date])
def test_an_answer_that_asks_for_patience_is_waited_for_as_long_as_it_says(serve, tmp_path, status, form, monkeypatch):
    fake, slept, asked = serve(), [], []
    monkeypatch.setattr(gateway.time, "sleep", slept.append)
    clock = datetime.datetime.now(datetime.UTC) + datetime.timedelta(hours=1)

    def front(method, path, headers):
        asked.append((method, path))
        if asked.count((method, path)) == 1 and "/runs" in path and (method == "GET" or status != 503):
            return (
                status,
                {"Retry-After": form(clock, 7), "Date": as_a_date(clock, 0), "Content-Type": "text/plain"},
                b"local_rate_limited",
            )
        return None

    fake.front = front
    run, said = watched(fake, store=tmp_path)
    assert run.exit_code == 0 and f"answered {status}: local_rate_limited; again in" in said
    assert [s for s in slept if s > 1] and all(5 <= s <= 8 for s in slept if s > 1)
    assert len([body for body in fake.bodies if "runtime_config" in body]) == 1, "one run was started"


def test_a_wait_beyond_the_patience_ends_at_once_and_says_so(serve, monkeypatch):
    fake, slept = serve(), []
    monkeypatch.setattr(gateway.time, "sleep", slept.append)
    fake.front = lambda method, path, headers: (429, {"Retry-After": "86400"}, b"")
    with pytest.raises(Away, match="asks to be left alone for 86400 s"):
        Server(Access(endpoint=fake.url))
    assert slept == []


@pytest.mark.parametrize("odd", ["", "soon", "-5", "1e9", "９", "Wed, 99 Foo 2026", "Thu, 01 Jan 1970 00:00:00 GMT"])
def test_a_strange_retry_after_is_none_or_now(serve, odd):
    assert gateway._retry_after({"Retry-After": odd}) in (None, 0.0, 9.0)


def test_a_run_is_not_started_twice_where_nobody_knows_whether_it_was(serve, tmp_path):
    fake, posts = serve(), []

    def front(method, path, headers):
        if method == "POST" and path.endswith("/runs"):
            posts.append(path)
            return 504, {"Content-Type": "text/html"}, b"<html><body>upstream request timeout</body></html>"
        return None

    fake.front = front
    with pytest.raises(PipelineError, match="upstream request timeout.*not known"):
        watched(fake, store=tmp_path)
    assert len(posts) == 1


def test_a_server_that_is_away_for_longer_than_the_patience_is_exit_code_4(serve, tmp_path, monkeypatch):
    fake = serve()
    monkeypatch.setattr("kfp_pipelines.submit.AWAY", 0.1)

    def front(method, path, headers):
        return (502, HTML, b"<html>bad gateway</html>") if "/runs/" in path and len(fake.frames) < 4 else None

    fake.front = front
    run, said = watched(fake, store=tmp_path)
    assert run.exit_code == 4 and run.url in said.splitlines()[-1]


# --- own authorities ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    """A certificate for 127.0.0.1 that is its own authority: its file, and the server's side of it."""
    place = tmp_path_factory.mktemp("tls")
    made = subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2", "-subj", "/CN=kfp",
         "-addext", "subjectAltName=IP:127.0.0.1,DNS:kfp.test", "-keyout", place / "key.pem", "-out", place / "cert.pem"], capture_output=True)  # fmt: skip
    if made.returncode:
        pytest.skip(f"openssl makes no certificate here: {made.stderr.decode()[-200:]}")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(place / "cert.pem", place / "key.pem")
    return place / "cert.pem", context


def test_an_own_authority_is_trusted_where_it_is_named(serve, authority, tmp_path):
    file, context = authority
    fake = serve(certificate=context)
    with pytest.raises(
        PipelineError,
        match="its certificate is not trusted: self-signed certificate. Name the file of its own authority with --ca-cert",
    ):
        Server(Access(endpoint=fake.url))
    assert Server(Access(endpoint=fake.url, ca_cert=str(file))).recurring_runs() == []
    import certifi

    with pytest.raises(PipelineError, match="it must be signed by one of them"):
        Server(Access(endpoint=fake.url, ca_cert=certifi.where()))


# --- proxies --------------------------------------------------------------------------------------------------------


class Proxy:
    """A little forward proxy: CONNECT for https, whole URLs for http. `secret` is what it wants as Proxy-Authorization."""

    def __init__(self, secret=""):
        self.asked, self.secret = [], secret
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.socket.getsockname()[1]}"
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                client, _ = self.socket.accept()
            except OSError:
                return
            threading.Thread(target=self.serve, args=(client,), daemon=True).start()

    def serve(self, client):
        head = b""
        while b"\r\n\r\n" not in head:
            head += client.recv(65536) or b"\r\n\r\n"
        line = head.split(b"\r\n", 1)[0].decode()
        self.asked.append(line)
        if self.secret and f"Proxy-Authorization: Basic {self.secret}".lower() not in head.decode().lower():
            client.sendall(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
            return client.close()
        method, target, _ = line.split()
        host, _, port = target.removeprefix("http://").partition("/")[0].partition(":")
        with socket.create_connection((host, int(port))) as server, client:
            if method == "CONNECT":
                client.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
            else:
                server.sendall(head.replace(f"http://{host}:{port}".encode(), b"", 1))
            while True:
                ready, _, _ = select.select([client, server], [], [], 5)
                for one in ready:
                    data = one.recv(65536)
                    if not data:
                        return None
                    (server if one is client else client).sendall(data)
                if not ready:
                    return None


@pytest.fixture
def proxy():
    made = Proxy()
    yield made
    made.socket.close()


def test_a_proxy_of_the_environment_is_used_and_no_proxy_goes_without(serve, authority, proxy, monkeypatch):
    file, context = authority
    secure, plain = serve(certificate=context), serve()
    monkeypatch.setenv("HTTPS_PROXY", proxy.url)
    monkeypatch.setenv("http_proxy", proxy.url.removeprefix("http://"))
    Server(Access(endpoint=secure.url, ca_cert=str(file)))
    Server(Access(endpoint=plain.url))
    assert [line.split()[0] for line in proxy.asked] == ["CONNECT", "GET"]
    for without in ("127.0.0.1", "example.com, 127.0.0.0/8", "*"):
        monkeypatch.setenv("NO_PROXY", without)
        Server(Access(endpoint=secure.url, ca_cert=str(file)))
        assert len(proxy.asked) == 2, without


def test_a_proxy_with_a_password_gets_it_and_shows_it_to_nobody(serve, authority, monkeypatch):
    file, context = authority
    fake, proxy = serve(certificate=context), Proxy(secret="dXNlcjpwQHNz")
    monkeypatch.setenv("HTTPS_PROXY", proxy.url.replace("//", "//user:p%40ss@"))
    Server(Access(endpoint=fake.url, ca_cert=str(file)))
    monkeypatch.setenv("HTTPS_PROXY", proxy.url.replace("//", "//user:wr0ngp4ss@"))
    with pytest.raises(PipelineError, match="through the proxy.*407") as error:
        Server(Access(endpoint=fake.url, ca_cert=str(file)))
    assert "wr0ngp4ss" not in str(error.value)
    proxy.socket.close()


# --- connections ----------------------------------------------------------------------------------------------------

PEM = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
JSON = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
SPEECH = re.compile(r"Error|Remote|Status|Pool|Connections?\(|object at|0x|Max retries|_ssl|[(\[][^)\]]*$")
"""What is Python's own, or not closed."""


def tried(access, patience=0.0):
    """What is said of a server that cannot be used."""
    gate = Gateway(access)
    with pytest.raises(PipelineError) as caught:
        gate.ask("connect", gate.client._healthz_api.healthz_service_get_healthz, patience=patience)
    assert not SPEECH.search(str(caught.value)), str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("answer", "scheme", "said"),
    [
        (b"", "http", "is there, but it ends the connection without an answer. It may speak TLS: then give https://"),
        (JSON + b"Content-Length: 100\r\n\r\n{", "http", "is there, but its answer breaks off"),
        (JSON + b"Transfer-Encoding: chunked\r\n\r\n20\r\n{", "http", "is there, but its answer breaks off"),
        (JSON + b"Content-Encoding: gzip\r\nContent-Length: 2\r\n\r\n{}", "http", "cannot be unpacked"),
        (b"SSH-2.0-server\r\n", "http", "what it says is no HTTP, and begins with 'SSH-2.0-server'. Is --endpoint"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"a" * 70_000, "http", "no HTTP that can be read"),
        (b"HTTP/1.1 200 OK\r\nContent-Ty", "http", "not as Kubeflow Pipelines does: an empty answer"),
        (JSON + b"\r\n", "https", "is there, but it speaks no TLS. Give http:// in --endpoint"),
        (None, "http", "is there, but it says nothing within 0.2 s"),
        (None, "https", "is there, but it says nothing within 0.3 s"),
    ],
)
def test_what_really_happened_is_said_of_a_server_that_is_there(monkeypatch, answer, scheme, said):
    monkeypatch.setattr(gateway, "TIMEOUTS", (0.3, 0.2))
    with front(answer) as port:
        told = tried(Access(endpoint=f"{scheme}://127.0.0.1:{port}"))
    assert said in told and "nobody" not in told and f"{scheme}://127.0.0.1:{port}" in told
    assert "KF_PIPELINES_ENDPOINT is" not in told


@pytest.mark.parametrize(
    ("limits", "said"), [((0.4, 1 << 20), "does not end within 0.4 s"), ((60.0, 1 << 20), "within 1 MiB")]
)
def test_an_answer_without_end_is_given_up(monkeypatch, limits, said):
    monkeypatch.setattr(gateway, "WHOLE", limits[0])
    monkeypatch.setattr(gateway, "LARGEST", limits[1])
    with front(JSON + b"\r\n" + b" " * (2 << 20 if limits[0] > 1 else 1), drips=True) as port:
        assert said in tried(Access(endpoint=f"http://127.0.0.1:{port}"))


def test_nobody_there_says_how_to_forward_and_whether_an_endpoint_was_given(monkeypatch):
    told = tried(Access(endpoint="http://127.0.0.1:9"))
    assert (
        told
        == f"connect: nobody answers at http://127.0.0.1:9: the connection is refused. From outside of the cluster: {gateway._FORWARD}"
    )
    assert "nobody answers at http://kfp.invalid: no host of this name is known" in tried(Access(endpoint="http://kfp.invalid"))  # fmt: skip
    monkeypatch.setattr(Gateway, "_about_trust", lambda self: "")
    gate = Gateway(Access(endpoint="http://127.0.0.1:9"))
    gate.access = Access()
    assert "Neither --endpoint nor KF_PIPELINES_ENDPOINT is given" in gate._unreachable(gateway.Cause("nobody", "x"))


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ("nobody", "nobody answers there (the connection is refused)"),
        (b"HTTP/1.1 403 Forbidden\r\nContent-Length: 6\r\n\r\ndenied", ""),
        (b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n", "wants a user and a password"),
        (b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n", "502"),
        (b"SSH-2.0\r\n", "what it says is no HTTP"),
    ],
)
def test_a_proxy_that_does_not_lead_on_is_named_with_its_variable(monkeypatch, answer, said, scheme):
    variable = f"{scheme.upper()}_PROXY"
    with front(answer) as port:
        port = 9 if answer == "nobody" else port
        monkeypatch.setenv(variable, f"http://me:p4ssw0rd@127.0.0.1:{port}")
        told = tried(Access(endpoint=f"{scheme}://kfp.example.org"))
    assert f"the proxy http://***@127.0.0.1:{port} of {variable}" in told and "NO_PROXY" in told and said in told
    assert "nobody answers at" not in told and "p4ssw0rd" not in told


def test_the_first_try_again_is_said_and_a_huge_retry_after_is_bounded(serve, monkeypatch):
    fake, slept, lines, asked = serve(), [], [], iter(("9" * 400, "0", None))
    monkeypatch.setattr(gateway.time, "sleep", slept.append)

    def front(method, path, headers):
        wanted = next(asked)
        return (429, {"Retry-After": wanted}, b"") if wanted else None

    fake.front = front
    Gateway(Access(endpoint=fake.url)).ask("x", lambda: None)
    gate = Gateway(Access(endpoint=fake.url), lines.append)
    gate.ask("look", gate.client._healthz_api.healthz_service_get_healthz, patience=300)
    assert slept == [60.0, 0.0] and len(lines) == 1
    assert "again in 60 s, then at least every 60 s, for 300 s in all" in lines[0]
    assert "asks to be left alone for more than 1000000 s" in lines[0]


# --- several users --------------------------------------------------------------------------------------------------


def test_every_call_names_the_namespace(serve, tmp_path):
    fake = serve()
    fake.multi_user, fake.pipeline = True, None
    run, _ = watched(fake, Access(endpoint=fake.url, namespace="team-a"), store=tmp_path)
    server = Server(Access(endpoint=fake.url, namespace="team-a"))
    assert run.exit_code == 0 and server.recurring_runs() == [] and fake.namespaces == {"team-a"}
    assert fake.pipeline["namespace"] == "team-a"
    assert not (tmp_path / "context.json").exists(), "a choice for one command is not written into kfp's own file"


def test_without_a_namespace_that_is_said_before_anything_is_made(serve):
    fake = serve()
    fake.multi_user = True
    with pytest.raises(PipelineError, match="serves several users.*--namespace"):
        Server(Access(endpoint=fake.url))
    assert fake.calls == [("GET", "/healthz")]


def test_kfps_own_file_and_a_pods_namespace_are_the_defaults(serve, tmp_path, monkeypatch):
    fake = serve()
    fake.multi_user = True
    (tmp_path / "namespace").write_text("of-the-pod\n")
    monkeypatch.setattr("kfp.Client._NAMESPACE_PATH", str(tmp_path / "namespace"))
    assert Server(Access(endpoint=fake.url)).namespace == "of-the-pod"
    (tmp_path / "context.json").write_text('{"namespace": "of-the-file"}')
    assert Server(Access(endpoint=fake.url)).namespace == "of-the-file"
    assert Server(Access(endpoint=fake.url, namespace="given")).namespace == "given"


def test_a_server_for_one_user_is_not_told_a_namespace(serve):
    server = Server(Access(endpoint=serve().url, namespace="team-a"))
    assert server.namespace is None


# --- what a person may give -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"namespace": "Team_A"}, "cannot be one"),
        ({"namespace": "a" * 64}, "cannot be one"),
        ({"namespace": "a/../b"}, "cannot be one"),
        ({"namespace": "café"}, "cannot be one"),
        ({"namespace": "a\n"}, "cannot be one"),
        ({"token": "one\ntwo"}, "a line break"),
        ({"token": "tokén"}, "the character 'é'"),
        ({"cookies": "a=1\r\nX-Evil: 1"}, "a line break"),
        ({"token_file": "/"}, "--token-file (KF_PIPELINES_SA_TOKEN_PATH): /: Is a directory"),
        ({"token_file": "/nowhere/token"}, "No such file"),
        ({"token_file": "{empty}"}, "is empty"),
        ({"token_file": "{binary}"}, "is no text file"),
        ({"token_file": "{lines}"}, "a line break"),
        ({"ca_cert": "/"}, "--ca-cert (SSL_CERT_FILE): /: Is a directory"),
        ({"ca_cert": "{lines}"}, "no PEM"),
        ({"ca_cert": "nul\0"}, "--ca-cert"),
        ({"ca_cert": "{rubbish}"}, "holds no PEM certificate of an authority that can be read"),
        ({"endpoint": "http://me:two-secret@127.0.0.1:9"}, "holds a user or password, which is not sent"),
        ({"endpoint": "http://127.0.0.1:9/#/pipelines"}, "is the address of a page; leave out what follows #"),
    ],
)
def test_what_cannot_be_used_is_told_before_anything_is_sent(serve, tmp_path, given, said):
    for name, content in (("empty", b" \n"), ("binary", b"\xff\xfe\x00"), ("lines", b"one\ntwo\n"), ("rubbish", PEM)):
        (tmp_path / name).write_bytes(content)
    fake = serve()
    given = {name: value.format(**{n: tmp_path / n for n in ("empty", "binary", "lines", "rubbish")}) for name, value in given.items()}  # fmt: skip
    with pytest.raises(PipelineError) as error:
        Server(Access(**{"endpoint": fake.url} | given))
    assert said in str(error.value) and fake.calls == [] and "two" not in str(error.value)


@pytest.mark.parametrize(
    "endpoint", ["http://", "://", "http://[::1", "ftp://x", "http://a b", "http://127.0.0.1:99999"]
)
def test_an_endpoint_that_is_none_is_one_message(endpoint):
    with pytest.raises(PipelineError, match="endpoint"):
        Server(Access(endpoint=endpoint))


@pytest.mark.parametrize("body", [b"", b"not json", b"[]", b"\xff\xfe", b"5", b"[" * 99_999])
def test_an_answer_of_another_server_is_told(serve, body):
    fake = serve()
    fake.front = lambda method, path, headers: (200, {"Content-Type": "application/json"}, body)
    with pytest.raises(PipelineError, match="answers, but not as Kubeflow Pipelines does"):
        Server(Access(endpoint=fake.url))


@pytest.mark.parametrize("proxy", ["nonsense://x", "http://[bad"])
def test_a_proxy_that_is_none_is_one_message(serve, monkeypatch, proxy):
    monkeypatch.setenv("HTTP_PROXY", proxy)
    with pytest.raises(PipelineError, match="the proxy in HTTPS_PROXY or HTTP_PROXY cannot be used"):
        Server(Access(endpoint=serve().url))


def test_a_servers_text_cannot_colour_the_terminal(serve):
    fake = serve()
    fake.front = lambda method, path, headers: (401, {"Location": "/x\x1b[31m"}, b"\x1b[31mred\x07")
    with pytest.raises(Refused) as error:
        Server(Access(endpoint=fake.url))
    assert str(error.value).isprintable()


def test_an_account_that_the_server_does_not_take_is_said_with_the_setting_that_lists_it():
    """Kubeflow Pipelines from 2.18 on (kubeflow/pipelines#14181); the words are ours, the status is what its API gives for invalid input and denied rights."""

    class Error:
        status, headers = 400, {}
        body = json.dumps({"code": 3, "message": "ServiceAccount curricle-launcher is not in the allow list"})

    said = str(Gateway.__new__(Gateway)._refusal("run chain", Error, gateway._said(Error)))
    assert "does not take this service account: ServiceAccount curricle-launcher is not" in said
    assert "ALLOWEDSERVICEACCOUNTS" in said and "docs/kubeflow.md" in said


# --- answers in another form ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "answer"),
    [
        ("/versions", {"pipeline_versions": [None, 3]}),
        ("/experiments", {"experiments": 3}),
        ("/pipelines?", {"pipelines": "none"}),
        ("/versions", {"pipeline_versions": [], "next_page_token": "again"}),
    ],
)
def test_an_answer_in_another_form_is_one_sentence_and_never_asked_for_without_end(serve, tmp_path, path, answer):
    fake = serve()
    asked = []

    def front(method, url, headers):
        if path in url and method == "GET":
            asked.append(url)
            return 200, {"Content-Type": "application/json"}, json.dumps(answer).encode()

    fake.front = front
    with pytest.raises(PipelineError, match="answers, but not as Kubeflow Pipelines does"):
        watched(fake, store=str(tmp_path))
    assert len(asked) < 5 and not fake.bodies, "no run was started"


def test_a_start_without_an_id_is_not_known_to_have_been_one(serve, tmp_path):
    fake = serve()
    fake.front = lambda method, url, headers: (
        (200, {"Content-Type": "application/json"}, b'{"nothing": 1}') if method == "POST" and "/runs" in url else None
    )
    with pytest.raises(PipelineError, match="whether it was started is not known.*names no run_id"):
        watched(fake, store=str(tmp_path))


@pytest.mark.parametrize(
    "answer", [{"state": "MELTED"}, {}, {"state": "RUNNING", "run_details": {"task_details": [None, "x"]}}]
)
def test_a_run_that_is_told_in_another_form_is_not_watched_for_ever(serve, tmp_path, monkeypatch, answer):
    monkeypatch.setattr("kfp_pipelines.submit.AWAY", 0.1)
    fake = serve()
    fake.front = lambda method, url, headers: (
        (200, {"Content-Type": "application/json"}, json.dumps({"run_id": "r", **answer}).encode())
        if method == "GET" and "/runs/" in url
        else None
    )
    run, said = watched(fake, store=str(tmp_path))
    assert run.exit_code == 4 and "not watched to its end" in said and "answers, but not as" in said


def test_cookies_are_shown_to_nobody_also_when_a_server_sends_them_back(serve, tmp_path):
    fake = serve()
    fake.front = lambda method, url, headers: (
        400, {"Content-Type": "application/json"}, json.dumps({"message": f"refused header {headers.get('Cookie')}"}).encode()
    )  # fmt: skip
    with pytest.raises(PipelineError) as caught:
        watched(fake, Access(endpoint=fake.url, cookies="authservice_session=SEKRETSEKRET; b=SEKRET2222"), store=str(tmp_path))  # fmt: skip
    assert "SEKRET" not in str(caught.value) and "refused header" in str(caught.value)
