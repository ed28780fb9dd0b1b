"""Connections beyond the bound, and requests that never begin: each is told so, and those that were there go on."""

import json
import socket
import threading
import time

import pytest
import uvicorn

from curricle.serve.guard import problem
from curricle.serve.limits import Limits
from curricle.serve.protocol import bounded


async def app(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


@pytest.fixture(scope="module")
def server():
    counted = []
    http = bounded(Limits(connections=3, seconds=1.0), counted.append, lambda sentence: problem(sentence, "v1"))
    config = uvicorn.Config(app, http=http, log_config=None, lifespan="off", ws="none", timeout_keep_alive=15)
    made, bound = uvicorn.Server(config), socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=made.run, args=([bound],), daemon=True)
    thread.start()
    while not made.started:
        time.sleep(0.02)
    yield bound.getsockname(), counted
    made.should_exit = True
    thread.join(20)
    bound.close()


def asked(place, text: bytes) -> socket.socket:
    made = socket.create_connection(place, timeout=10)
    made.sendall(text)
    return made


def all_of(made: socket.socket) -> bytes:
    said = b""
    while part := made.recv(4096):
        said += part
    return said


@pytest.mark.parametrize("sent", [b"", b"GET / HTT", b"GET / HTTP/1.1\r\nhost: x\r\n"])
def test_a_request_that_does_not_begin_in_time_is_let_go_and_told_so(server, sent):
    place, counted = server
    with asked(place, sent) as made:
        head, _, body = all_of(made).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 408") and "in time" in json.loads(body)["error"] and counted[-1] == "slow"


def test_a_second_request_has_its_own_time(server):
    whole = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"
    with asked(server[0], whole) as made:
        assert made.recv(4096).startswith(b"HTTP/1.1 200")
        made.sendall(b"GET / HTT")
        assert b"HTTP/1.1 408" in all_of(made)


def test_of_too_many_connections_the_last_is_refused_and_the_first_are_answered(server):
    place, counted = server
    there = [asked(place, b"") for _ in range(3)]
    time.sleep(0.2)
    with asked(place, b"") as late:
        said = all_of(late)
    assert said.startswith(b"HTTP/1.1 503") and b"retry-after: 1" in said and json.loads(said.partition(b"\r\n\r\n")[2])["model_version"] == "v1"  # fmt: skip
    assert counted[-1] == "connections"
    for made in there:
        made.sendall(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        assert all_of(made).endswith(b"ok")
        made.close()
