"""Listening, and stopping well: what has come is answered, nothing new is taken."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from types import FrameType

import uvicorn

from curricle.errors import ConfigError
from curricle.serve.app import create_app
from curricle.serve.guard import LOOPBACK, problem
from curricle.serve.limits import Limits
from curricle.serve.model import Served
from curricle.serve.protocol import bounded

STOPS = (signal.SIGINT, signal.SIGTERM)


LATE = 5.0
"""Seconds after the grace that a server gets to put its things away."""


class _Server(uvicorn.Server):
    """uvicorn's, which a signal ends well instead of ending the process.

    Args:
        give_up: ends the process. Called where the grace and `LATE` have passed since the first signal: the model's thread may be at a batch that takes long on a busy machine,
            a table's at its own, and Python waits for its threads without an end.
    """

    def __init__(self, config: uvicorn.Config, grace: float, give_up: Callable[[], object]):
        super().__init__(config)
        self.last = threading.Timer(grace + LATE, give_up)
        self.last.daemon = True

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        before = {number: signal.signal(number, self._stop) for number in STOPS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Take nothing new, and let all that is under way end."""
        self.config.http_protocol_class.stopping = True  # type: ignore[attr-defined]  # `bounded` makes one for each server
        await super().shutdown(sockets)

    def _stop(self, number: int, frame: FrameType | None) -> None:
        if not self.should_exit:
            self.last.start()
        self.force_exit = self.should_exit and number == signal.SIGINT  # Ctrl-C a second time
        self.should_exit = True


def is_loopback(host: str) -> bool:
    """Whether an address is reached from this machine alone."""
    return host in LOOPBACK or host.startswith("127.")


def listen(host: str, port: int) -> socket.socket:
    """A socket that is bound, and does not listen yet.

    Raises:
        ConfigError: the address is not to be had.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    made = socket.socket(
        family, socket.SOCK_STREAM, socket.IPPROTO_TCP
    )  # asyncio asks for it, before it turns Nagle's 40 ms off
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        made.bind((host, port))
    except (OSError, OverflowError) as error:
        made.close()
        raise ConfigError(f"cannot listen at {host}, port {port}: {getattr(error, 'strerror', None) or error}; choose another --host or --port") from None  # fmt: skip
    return made


def address_of(bound: socket.socket) -> str:
    """For a browser."""
    host, port = bound.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://{f'[{host}]' if ':' in host else host}:{port}/"


def serve(served: Served, bound: socket.socket, limits: Limits, hosts: Collection[str], ready: Callable[[], None]) -> None:  # fmt: skip
    """Answer until SIGTERM or Ctrl-C.

    Args:
        hosts: names that a request may call this server, beside those of this machine; without any, and at another address than loopback, every name.
        ready: called once it listens.
    """
    loopback = is_loopback(bound.getsockname()[0])
    known = {*hosts, *LOOPBACK} if hosts or loopback else set()
    app = create_app(served, limits, {name.lower() for name in known})
    config = uvicorn.Config(
        app,
        log_config=None,
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        ws="none",
        http=bounded(limits, app.state.refused, lambda sentence: problem(sentence, served.version)),
        timeout_keep_alive=15,
        timeout_graceful_shutdown=limits.grace,
    )

    def give_up() -> None:
        app.state.forget()
        print(f"stopped {limits.grace + LATE:g} s after it was asked to, in the middle of its work: not all that had come was answered", file=sys.stderr, flush=True)  # fmt: skip
        os._exit(1)

    server = _Server(config, limits.grace, give_up)

    async def run() -> None:
        task = asyncio.create_task(server.serve(sockets=[bound]))
        while not server.started and not task.done():
            await asyncio.sleep(0.02)
        if server.started:
            ready()
        await task

    asyncio.run(run())
