"""The command: what it says, where it listens, how it stops, and how it behaves when more comes than it can do."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest
import uvicorn

from curricle.serve.limits import Limits
from curricle.serve.protocol import bounded
from curricle.serve.server import _Server, listen
from tests.serve import world

ROOT = Path(__file__).parents[2]


def curricle(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from curricle.cli import main; main()", "serve", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)


def test_it_listens_at_this_machine_alone_unless_told_otherwise(codes):
    assert codes.url.startswith("http://127.0.0.1:")
    found = {line.split()[1] for line in Path("/proc/net/tcp").read_text().splitlines()[1:] if line.split()[3] == "0A"}
    assert f"0100007F:{codes.port:04X}" in found and f"00000000:{codes.port:04X}" not in found


def test_answers_are_sent_at_once():
    """Without TCP_NODELAY an answer waits up to 40 ms for a client that acknowledges late; asyncio sets it where a socket says that it is TCP's."""

    async def accepted() -> int:
        bound, found = listen("127.0.0.1", 0), asyncio.get_running_loop().create_future()

        def met(reader, writer):
            found.set_result(writer.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
            writer.close()

        async with await asyncio.start_server(met, sock=bound):
            _, writer = await asyncio.open_connection(*bound.getsockname())
            value = await found
            writer.close()
            await writer.wait_closed()
        return value

    assert asyncio.run(accepted()) == 1


def test_stopping_answers_what_has_come_and_leaves_nothing(codes_store):
    server = world.start(codes_store.parent)
    server.ask("v1/tables", b"text\nbeer\n")
    mine = [p for p in Path(tempfile.gettempdir()).glob(f"curricle-serve-{server.process.pid}-*")]
    assert len(mine) == 1
    answers: list[int] = []

    def ask() -> None:
        answers.append(
            server.ask("v1/search", {"texts": [f"beer number {i}" for i in range(16)], "explain": True}).status
        )

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    while "curricle_requests_in_flight 4.0" not in server.ask("metrics").body.decode() and len(answers) < 1:
        pass
    server.process.send_signal(signal.SIGTERM)
    for thread in threads:
        thread.join()
    assert server.ended() == 0 and answers == [200] * 4
    assert not mine[0].exists()
    with pytest.raises(OSError):
        socket.create_connection(("127.0.0.1", server.port), 1)
    assert server.said[-1] == "stopped; all that had come was answered"


def test_a_server_that_is_stopped_ends_the_process_soon_after_its_grace_whatever_it_is_at(monkeypatch):
    monkeypatch.setattr("curricle.serve.server.LATE", 0.0)
    ended = []
    server = _Server(uvicorn.Config(None), 0.0, lambda: ended.append("ended"))
    assert server.last.daemon and not server.last.is_alive(), "it runs from the first signal on"
    server._stop(signal.SIGTERM, None)
    server._stop(signal.SIGTERM, None)
    server.last.join(10)
    assert ended == ["ended"] and server.should_exit and not server.force_exit


def test_who_connects_while_it_stops_is_told_so_and_not_waited_for(monkeypatch):
    """On a busy machine a connection is taken up after uvicorn has let the others go: it was waited for until its own limit, 30 s."""
    refused, said = [], []

    async def late(server: _Server, sockets: object = None) -> None:
        reader, writer = await asyncio.open_connection(*server.servers[0].sockets[0].getsockname())
        said.append(await asyncio.wait_for(reader.read(), 20))
        writer.close()

    async def app(scope, receive, send) -> None: ...

    async def stopped() -> None:
        http = bounded(Limits(), refused.append, lambda sentence: sentence.encode())
        server = _Server(uvicorn.Config(app, http=http, lifespan="off", ws="none", log_config=None), 30.0, list)
        server.config.load()
        server.lifespan = server.config.lifespan_class(server.config)
        await server.startup([listen("127.0.0.1", 0)])
        await server.shutdown()
        server.servers[0].close()

    monkeypatch.setattr(uvicorn.Server, "shutdown", late)
    asyncio.run(stopped())
    assert said[0].startswith(b"HTTP/1.1 503 stopping") and refused == ["stopping"]


def test_an_idle_connection_does_not_keep_it(codes_store):
    server = world.start(codes_store.parent)
    idle = socket.create_connection(("127.0.0.1", server.port))
    began = time.monotonic()
    assert server.stop(signal.SIGINT) == 0 and time.monotonic() - began < 10
    idle.close()


def test_when_too_much_waits_it_says_so_and_goes_on(codes_store):
    server = world.start(codes_store.parent, "--waiting", "1", "--batch", "1")
    try:
        told: list[world.Answer] = []
        texts = [f"beer number {i}" for i in range(16)]
        threads = [threading.Thread(target=lambda: told.append(server.ask("v1/search", {"texts": texts, "explain": True}))) for _ in range(12)]  # fmt: skip
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert {answer.status for answer in told} == {200, 503}
        refused = next(answer for answer in told if answer.status == 503)
        assert refused.headers["retry-after"] == "1" and "wait already" in refused.json["error"]
        assert server.ask("v1/search", {"texts": ["beer"]}).status == 200
        assert 'curricle_refused_total{reason="busy"}' in server.ask("metrics").body.decode()
    finally:
        server.stop()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--port", "{port}"), "cannot listen at 127.0.0.1, port {port}: Address already in use"),
        (("--port", "0", "--host", "nowhere.invalid"), "cannot listen at nowhere.invalid"),
        (("--port", "0", "--store", "empty"), "empty holds no trained model"),
        (("--port", "0", "--model", "nobody"), "nobody"),
    ],
    ids=["port", "host", "store", "model"],
)
def test_what_cannot_be_served_is_one_message(codes, tmp_path, arguments, said):
    done = curricle(*(part.format(port=codes.port) for part in arguments), folder=tmp_path)
    assert done.returncode == 2 and said.format(port=codes.port) in done.stderr and "Traceback" not in done.stderr


def test_without_its_libraries_it_names_the_extra(tmp_path):
    code = "import sys; sys.modules['prometheus_client'] = None; from curricle.cli import main; main()"
    done = subprocess.run([sys.executable, "-c", code, "serve"], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 2 and done.stderr.endswith("install curricle[serve]\n") and done.stderr.count("\n") == 1


def test_at_another_address_it_says_that_it_asks_for_no_password_and_takes_any_name(codes_store):
    server = world.start(codes_store.parent, "--host", "0.0.0.0")
    try:
        assert any("no password is asked for" in line for line in server.said)
        assert server.ask("healthz", Host="some.name").status == 200
    finally:
        server.stop()
    server = world.start(codes_store.parent, "--host", "0.0.0.0", "--allowed-host", "Our.Name")  # fmt: skip
    try:
        assert server.ask("healthz", Host="our.name:8000").status == server.ask("healthz").status == 200
        assert server.ask("healthz", Host="some.name").status == 421
        asked = {"texts": ["beer"]}
        assert server.ask("v1/search", asked, Origin="https://our.name").status == 200, "behind a proxy"
        assert server.ask("v1/search", asked, Origin="https://some.name").status == 403
    finally:
        server.stop()


def test_it_serves_with_no_way_out_of_the_machine(ner_store):
    """`images/offline.py`'s hook refuses every name and address elsewhere."""
    hook = (ROOT / "images/offline.py").read_text().partition("def main()")[0]
    place = Path(tempfile.mkdtemp(dir=ner_store.parent))
    (place / "sitecustomize.py").write_text(hook)
    path = os.pathsep.join(filter(None, [str(place), os.environ.get("PYTHONPATH", "")]))
    server = world.start(ner_store.parent, PYTHONPATH=path, PYTHONSAFEPATH="")
    try:
        assert server.ask("v1/predict", {"texts": ["Anna sees"]}).status == server.ask("").status == 200
    finally:
        assert server.stop() == 0
