"""HTTP connections to one server that are patient: what a store of any kind speaks over.

Owns time limits, what is tried again and for how long (`store.patience`), proxies and certificates; it knows no protocol above HTTP. A server that is away
is waited for, request by request; what is wrong stays wrong and is raised at once.
"""

from __future__ import annotations

import io
import re
import socket
import ssl
from collections.abc import Callable
from http.client import HTTPResponse, IncompleteRead
from typing import Any
from urllib.parse import unquote, urlsplit

import certifi
import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import (
    ClosedPoolError,
    HTTPError,
    ProxyError,
)
from urllib3.exceptions import TimeoutError as HTTPTimeout
from urllib3.response import BaseHTTPResponse
from urllib3.util import Retry, Timeout

from curricle.environment import AWS_CA_BUNDLE, CA_CERTIFICATES, SSL_CERT_FILE, proxy_for, value_of
from curricle.errors import StoreError
from curricle.store.patience import Server, Tries
from curricle.store.wire import GONE, Cause, cause

BLOCK = 64 << 10  # bytes sent or taken in one go: the time limits count for each
_SOCKET = [
    *HTTPConnection.default_socket_options,
    (
        socket.SOL_SOCKET,
        socket.SO_SNDBUF,
        256 << 10,
    ),  # what waits in there has not been sent: megabytes would look like silence
]
_CONNECT, _IDLE = 3.5, 10.0
"""Seconds for a connection (it survives two lost packets) and for a block that is sent, and between two bytes received. Doubled after each time
that they were not enough, for a server may be slow, up to the next two."""
_LONGEST_CONNECT, _LONGEST_IDLE = 30.0, 60.0
_ONCE = Retry(total=None, connect=0, read=0, status=0, other=0, redirect=3, raise_on_status=False)
_ANSWERS_OF_ITS_OWN = (501, 505, 507)
"""Of 500 and more, those that will be the same the next time (507: no space left)."""


class _WholeLines:
    """Lines of an answer's head; an end of the stream within or before one is an error, but before the first."""

    def __init__(self, stream: Any):
        self._stream, self._begun = stream, False

    def readline(self, limit: int) -> bytes:
        line = self._stream.readline(limit)
        cut = len(line) < limit and not line.endswith(b"\n")
        if cut and (self._begun or line.startswith(b"HTTP/")):
            raise IncompleteRead(line)
        self._begun = True
        return line

    def close(self) -> None:
        self._stream.close()


class _Answer(HTTPResponse):
    """An answer whose head came whole: `http.client` takes the end of a connection for the end of the head."""

    def begin(self) -> None:
        """Read the head.

        Raises:
            IncompleteRead: the connection ended within it.
        """
        stream, self.fp = self.fp, _WholeLines(self.fp)  # type: ignore[assignment]  # all that `begin` asks of a stream
        try:
            super().begin()
        finally:
            if self.fp is not None:  # the answer may have no body
                self.fp = stream


class _Connection(HTTPConnection):
    response_class = _Answer


class _SecureConnection(HTTPSConnection):
    response_class = _Answer


class _Connections(HTTPConnectionPool):
    ConnectionCls = _Connection


class _SecureConnections(HTTPSConnectionPool):
    ConnectionCls = _SecureConnection


class Patient(urllib3.PoolManager):
    """Connections to one server; a request that finds it away is sent again until the patience ends. All our requests may be repeated.

    Raises:
        Away: it stayed away.
    """

    def __init__(self, server: Server, **options: Any):
        super().__init__(retries=_ONCE, blocksize=BLOCK, socket_options=_SOCKET, **options)
        self.pool_classes_by_scheme = {"http": _Connections, "https": _SecureConnections}
        self._server = server

    def urlopen(  # type: ignore[override]  # as in PoolManager, which differs from its own base
        self, method: str, url: str, redirect: bool = True, **options: Any
    ) -> BaseHTTPResponse:
        body = options.pop("body", None)
        data = body.getvalue() if isinstance(body, io.BytesIO) else body
        tries, slow = Tries(self._server), 0
        while True:
            options["timeout"] = Timeout(
                connect=_limit(_CONNECT, slow, _LONGEST_CONNECT, tries.patience),
                read=_limit(_IDLE, slow, _LONGEST_IDLE, tries.patience),
            )
            options["body"] = io.BytesIO(data) if data else data  # one piece would have to be sent within the limit
            try:
                response = super().urlopen(method, url, redirect=redirect, **options)
                if response.status >= 300:  # what the client reads of it later would break outside of these tries
                    _ = response.data
            except HTTPError as error:
                why = why_away(error, self._server)
                if why is None:
                    raise
                if _took_too_long(error):
                    slow += 1
                    self.clear()  # other connections that were kept lead to the same silence
            else:
                if response.status == 407 and proxy_for(
                    self._server.url
                ):  # it answers for a server that it does not lead to
                    raise ProxyError("", OSError(f"Tunnel connection failed: 407 {response.reason}"))
                why = _why_refused(response)
                if why is None:
                    if options.get("preload_content", True):
                        self._server.answered()  # of a download, the bytes count
                    return response
            tries.failed(why)


class _PatientThroughProxy(Patient, urllib3.ProxyManager):
    """The same through a proxy (`proxy_url`)."""


def connections(server: Server, url: str, *, ca_file: str = "", direct: bool = False, **options: Any) -> Patient:
    """Connections to a server, through the proxy that the environment names for it.

    Args:
        ca_file: the authorities to trust; empty: those of `SSL_CERT_FILE` or `AWS_CA_BUNDLE`, else those that come with the package certifi. Those of
            `CURRICLE_CA_CERTIFICATES` are trusted beside them.
        direct: take no proxy, as for an address that only this machine can reach.

    Raises:
        StoreError: the proxy or the authorities cannot be used.
    """
    options |= _trust(ca_file) if url.startswith("https://") else {}
    server.asked_directly = direct
    proxy = "" if direct else proxy_for(url)
    if not proxy:
        return Patient(server, **options)
    try:
        user = urlsplit(proxy).netloc.rpartition("@")[0]
        headers = urllib3.make_headers(proxy_basic_auth=unquote(user)) if user else None
        return _PatientThroughProxy(server, proxy_url=proxy, proxy_headers=headers, **options)
    except (HTTPError, ValueError) as error:
        raise StoreError(f"the proxy in HTTPS_PROXY or HTTP_PROXY cannot be used: {short(error)}") from None


def _trust(ca_file: str) -> dict[str, Any]:
    """The authorities, as urllib3 takes them."""
    named = [(name, value) for name in (SSL_CERT_FILE, AWS_CA_BUNDLE) if (value := value_of(name))]
    name, file = next((one for one in named if ca_file in ("", one[1])), ("the file of authorities", ca_file))
    more = value_of(CA_CERTIFICATES)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    for source, given in ((f"{name}={file}", {"cafile": file}), (CA_CERTIFICATES, {"cadata": more})):
        try:
            if all(given.values()):
                context.load_verify_locations(**given)
        except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
            raise StoreError(
                f"{source} holds no certificates that can be read ({getattr(error, 'strerror', None) or error}); give a file or text in PEM form"
            ) from None
    trust: dict[str, Any] = {"cert_reqs": "CERT_REQUIRED", "ca_certs": file or certifi.where()}
    return trust | ({"ca_cert_data": more} if more else {})


def _limit(least: float, slow: int, most: float, patience: float) -> float:
    """Seconds for the next try, after `slow` ones that ran out of time."""
    return min(least * 2**slow, most, max(2.0, patience))


def _took_too_long(error: BaseException) -> bool:
    seen = getattr(error, "reason", None) or error
    return isinstance(seen, HTTPTimeout) or any(isinstance(e, TimeoutError) for e in seen.args)


def why_away(error: HTTPError, server: Server) -> str | None:
    """What was seen where the server is away; None where something is wrong that stays wrong."""
    kind = cause(error).kind
    away = kind in GONE or (kind == "unknown" and server.has_answered) or isinstance(error, ClosedPoolError)
    return why_failed(error, server).words if away else None


def why_failed(error: BaseException, server: Server) -> Cause:
    """What happened, with the proxy that was asked."""
    return cause(error, "" if server.asked_directly else server.url)


def received(response: BaseHTTPResponse, server: Server, take: Callable[[bytes], object]) -> str:
    """Hand on a body block by block, and give the connection back; why it was cut off where the server went away, empty where it came whole.

    Raises:
        HTTPError: something is wrong that stays wrong.
    """
    try:
        for block in response.stream(BLOCK):
            take(block)
        server.answered()
        return ""
    except HTTPError as error:
        if why := why_away(error, server):
            return why
        raise
    finally:
        response.close()
        response.release_conn()


def _why_refused(response: BaseHTTPResponse) -> str | None:
    """What the server says where it cannot answer now; None for an answer. The connection of one that is not taken is given back."""
    status = response.status
    refused = status == 429 or (status >= 500 and status not in _ANSWERS_OF_ITS_OWN)
    if not refused and status != 400:
        return None
    body = response.data[:10_000].decode(errors="replace")
    said = [" ".join(part.split()) for part in re.findall("<(?:Code|Message)>(.*?)</", body, re.DOTALL)]
    if not refused and said[:1] != ["RequestTimeout"]:  # the server's own word for a stalled upload
        return None
    response.release_conn()
    return short(f"HTTP {status} {': '.join(said) or response.reason or ''}")


def short(error: Any) -> str:
    return " ".join(str(error).split())[:200]
