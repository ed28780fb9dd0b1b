"""What stands before every route: who may ask, how much, and the headers of every answer. Plain ASGI."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Collection, Mapping
from contextlib import suppress
from urllib.parse import urlsplit

import orjson
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from curricle.serve.limits import Limits
from curricle.serve.metrics import Metrics

_log = logging.getLogger(__name__)
LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
HEADERS = {
    "content-security-policy": "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=()",
    "cache-control": "no-store",
}
"""Of every answer that does not say otherwise itself."""
VERSION = "x-model-version"
QUIET = ("/healthz", "/readyz", "/metrics")
"""Answered however many requests are under way: who watches must see a server that is busy."""
DRAINED = 10.0
"""Seconds that the rest of a body is waited for that is too long."""
UPLOAD = "/v1/tables"
"""Its body may be a table."""


class Refused(HTTPException):
    """A request that the model will not see. `reason` is a word for the figures."""

    def __init__(self, status: int, reason: str, sentence: str, headers: dict[str, str] | None = None):
        super().__init__(status, sentence, headers or {})
        self.reason = reason


def problem(sentence: str, version: str) -> bytes:
    """The body of every answer that is none."""
    return orjson.dumps({"error": sentence, "model_version": version})


class Guard:
    """ASGI middleware.

    Args:
        hosts: names that a request may call this server; empty takes every name.
        version: of the model.
    """

    def __init__(self, app: ASGIApp, limits: Limits, metrics: Metrics, hosts: Collection[str], version: str):
        self.app, self.limits, self.metrics = app, limits, metrics
        self.hosts, self.version = frozenset(hosts), version
        self.under_way = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        if scope["method"] == "HEAD":
            scope = {**scope, "method": "GET"}  # who serves the connection leaves the body out
        began, status = time.perf_counter(), 500
        started = False

        async def answer(message: Message) -> None:
            nonlocal status, started
            if message["type"] == "http.response.start":
                status, started = message["status"], True
                own = {name for name, _ in message["headers"]}
                message["headers"] = [*message["headers"], *(pair for pair in self._headers if pair[0] not in own)]
            await send(message)

        counts = scope["path"] not in QUIET
        self.under_way += counts
        self.metrics.in_flight.set(self.under_way)
        try:
            self._check(scope, counts)
            await self.app(scope, _limited(scope, receive, self.limits), answer)
        except Refused as refused:
            self.metrics.refused.labels(refused.reason).inc()
            if refused.reason == "size":
                await _rest_of(receive)
            await _say(answer, refused.status_code, problem(refused.detail, self.version), refused.headers or {})
        except Exception:
            _log.exception("%s %s", scope["method"], getattr(scope.get("route"), "path", "elsewhere"))
            if not started:
                await _say(answer, 500, problem("an error of the server; its log says more", self.version), {})
        finally:
            self.under_way -= counts
            self.metrics.in_flight.set(self.under_way)
            route = getattr(scope.get("route"), "path", "other")
            self.metrics.requests.labels(route, str(status)).inc()
            self.metrics.seconds.labels(route).observe(time.perf_counter() - began)

    @property
    def _headers(self) -> list[tuple[bytes, bytes]]:
        named = {**HEADERS, VERSION: self.version}
        return [(name.encode(), value.encode()) for name, value in named.items()]

    def _check(self, scope: Scope, counts: bool) -> None:
        """Whether a request may go on, by its head alone.

        Raises:
            Refused: it may not.
        """
        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        host = headers.get(b"host", "")
        if self.hosts and _name(f"//{host}") not in self.hosts:
            raise Refused(421, "host", "this server is not known by that name; see --allowed-host")
        if scope["method"] not in ("GET", "HEAD") and not self._same_origin(headers, host):
            raise Refused(403, "origin", "a page of another site may not ask this server")
        if counts and self.under_way > self.limits.requests:
            raise Refused(503, "requests", "too many requests at once; try again", {"retry-after": "1"})

    def _same_origin(self, headers: dict[bytes, str], host: str) -> bool:
        site, origin = headers.get(b"sec-fetch-site", ""), headers.get(b"origin", "")
        if site:
            return site in ("same-origin", "none")
        return not origin or urlsplit(origin).netloc == host or _name(origin) in self.hosts - LOOPBACK


def _name(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


def _limited(scope: Scope, receive: Receive, limits: Limits) -> Receive:
    """`receive`, refusing a body that is too long or comes too slowly."""
    most = limits.table if scope["path"] == UPLOAD else limits.body
    declared = next((value for name, value in scope["headers"] if name == b"content-length"), b"0")
    if not declared.isdigit() or int(declared) > most:
        raise Refused(413, "size", f"a request here has at most {most:,} bytes")
    got, end, whole = 0, time.monotonic() + limits.seconds * (10 if most == limits.table else 1), False

    async def limited() -> Message:
        nonlocal got, whole
        if whole:
            return await receive()  # whether who asked has gone
        try:
            async with asyncio.timeout(max(0.0, end - time.monotonic())):
                message = await receive()
        except TimeoutError:
            raise Refused(408, "slow", "the request did not come whole in time", {"connection": "close"}) from None
        got += len(message.get("body", b""))
        if got > most:
            raise Refused(413, "size", f"a request here has at most {most:,} bytes", {"connection": "close"})
        whole = message["type"] == "http.request" and not message.get("more_body", False)
        return message

    return limited


async def _rest_of(receive: Receive) -> None:
    """Let go by what is still coming, for a while: who sends a body reads no answer before its end, and sees a broken connection instead."""
    with suppress(TimeoutError):
        async with asyncio.timeout(DRAINED):
            while (message := await receive())["type"] == "http.request" and message.get("more_body", False):
                pass


async def _say(send: Send, status: int, body: bytes, headers: Mapping[str, str]) -> None:
    named = {"content-type": "application/json", "content-length": str(len(body)), **headers}
    await send(
        {"type": "http.response.start", "status": status, "headers": [(n.encode(), v.encode()) for n, v in named.items()]}
    )  # fmt: skip
    await send({"type": "http.response.body", "body": body})
