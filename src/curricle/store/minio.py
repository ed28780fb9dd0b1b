"""A store in a bucket of MinIO, S3 or anything that speaks S3, over the `minio` package.

Owns the connection (settings, time limits, what is tried again) and turns what a server or the network says into `StoreError`s that
say what to do. A server that is away is waited for, request by request (`store.patience`), and is then a `StoreUnavailable`; what is wrong
(credentials, bucket, region, an unknown host) is said at once. Uploads go in parts, several at once; downloads stream to a hidden file and go
on where a broken connection left off. Memory is bounded by `_PART` x (`_PARALLEL` + 1) for each file on its way.
"""

from __future__ import annotations

import io
import os
import re
import socket
import ssl
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import BadStatusLine, HTTPResponse, IncompleteRead, RemoteDisconnected
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import urlsplit
from xml.etree.ElementTree import ParseError

import certifi
import urllib3
from minio import Minio
from minio.deleteobjects import DeleteObject
from minio.error import MinioException, S3Error
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import (
    ClosedPoolError,
    HTTPError,
    NameResolutionError,
    NewConnectionError,
    ProtocolError,
    ProxyError,
    SSLError,
)
from urllib3.exceptions import TimeoutError as HTTPTimeout
from urllib3.response import BaseHTTPResponse
from urllib3.util import Retry, Timeout

from curricle.environment import (
    AWS_ACCESS_KEY_ID,
    AWS_ENDPOINT_URL,
    AWS_ENDPOINT_URL_S3,
    AWS_REGION,
    AWS_SECRET_ACCESS_KEY,
    AWS_SESSION_TOKEN,
    S3_ENDPOINT,
    SSL_CERT_FILE,
    everything,
)
from curricle.errors import StoreError, StoreUnavailable
from curricle.store import Entry
from curricle.store.folder import open_local
from curricle.store.keys import check_delete, check_key, check_prefix, manifests_first
from curricle.store.local import write_whole
from curricle.store.patience import Away, Server, Tries, server_at

ENDPOINT_VARIABLES = (S3_ENDPOINT, AWS_ENDPOINT_URL_S3, AWS_ENDPOINT_URL)
"""Where the endpoint stands; the first that is set counts."""
AWS_ENDPOINT = "https://s3.amazonaws.com"

_PART = 8 << 20  # bytes of one part; 10,000 parts is S3's limit, so larger files get larger parts (`_part_size`)
_PARALLEL = 3
_CHUNK = 1 << 20
_BLOCK = 64 << 10  # bytes sent or taken in one go: the time limits count for each
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


class _PatientPool(urllib3.PoolManager):
    """Connections to one server; a request that finds it away is sent again until the patience ends. All our requests may be repeated.

    Raises:
        Away: it stayed away.
    """

    def __init__(self, server: Server, **options: Any):
        super().__init__(retries=_ONCE, blocksize=_BLOCK, socket_options=_SOCKET, **options)
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
                why = _why_away(error, self._server)
                if why is None:
                    raise
                if _took_too_long(error):
                    slow += 1
                    self.clear()  # other connections that were kept lead to the same silence
            else:
                why = _why_refused(response)
                if why is None:
                    if options.get("preload_content", True):
                        self._server.answered()  # of a download, the bytes count
                    return response
            tries.failed(why)


def _limit(least: float, slow: int, most: float, patience: float) -> float:
    """Seconds for the next try, after `slow` ones that ran out of time."""
    return min(least * 2**slow, most, max(2.0, patience))


def _cause(error: BaseException) -> BaseException:
    return getattr(error, "reason", None) or error


def _took_too_long(error: BaseException) -> bool:
    cause = _cause(error)
    return isinstance(cause, HTTPTimeout) or any(isinstance(e, TimeoutError) for e in cause.args)


def _why_away(error: HTTPError, server: Server) -> str | None:
    """What was seen where the server is away; None where something is wrong that stays wrong."""
    cause = _cause(error)
    if isinstance(cause, ProxyError):
        cause = cause.original_error
    root = cause.__cause__ or cause.__context__
    if isinstance(cause, SSLError):
        away = any(isinstance(e, ssl.SSLEOFError | ConnectionError) for e in (*cause.args, root))
    elif isinstance(cause, NameResolutionError):
        unknown = isinstance(root, socket.gaierror) and root.errno in (socket.EAI_NONAME, socket.EAI_NODATA)
        away = server.has_answered or not unknown
    elif isinstance(cause, ProtocolError):
        away = not any(isinstance(e, BadStatusLine) and not isinstance(e, RemoteDisconnected) for e in cause.args)
    else:
        away = isinstance(cause, NewConnectionError | HTTPTimeout | ClosedPoolError)
    if not away:
        return None
    return _short(root if isinstance(cause, NewConnectionError) and root else cause)


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
    return _short(f"HTTP {status} {': '.join(said) or response.reason or ''}")


@dataclass(frozen=True)
class S3Settings:
    """How to reach an S3 server. The secret never shows in `repr`."""

    endpoint: str
    """``host`` or ``host:port``, without scheme."""
    access_key: str
    secret_key: str
    region: str | None = None
    """None: the server is asked for the bucket's region."""
    secure: bool = True
    """Whether TLS is spoken."""
    session_token: str | None = None
    """Belongs to temporary credentials of AWS."""
    ca_file: str | None = None
    """The certificate authorities to trust; None: those that come with the package certifi."""

    def __post_init__(self) -> None:
        if not self.endpoint or "/" in self.endpoint:
            raise StoreError(f"S3 endpoint {self.endpoint!r} is not a host or host:port")

    def __repr__(self) -> str:
        return f"S3Settings({self.url}, access_key={self.access_key!r}, secret_key=…, region={self.region!r})"

    @property
    def url(self) -> str:
        """The endpoint with its scheme, as in messages."""
        return f"{'https' if self.secure else 'http'}://{self.endpoint}"

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None, *, scheme: str = "s3") -> S3Settings:
        """Read the settings from the variables that `curricle.environment` describes; an empty one counts as not set.

        Credentials are required. Without an endpoint, ``s3://`` means Amazon's own (https://s3.amazonaws.com); ``minio://`` has no
        such default.

        Args:
            environment: the variables; None means this process's own, as in worker processes.
            scheme: of the store's URI, ``s3`` or ``minio``.

        Raises:
            StoreError: naming every variable that is missing or cannot be used.
        """
        variables = everything() if environment is None else environment
        missing = [name for name in (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY) if not variables.get(name)]
        source = next((name for name in ENDPOINT_VARIABLES if variables.get(name)), None)
        if source is None and scheme == "minio":
            missing.insert(0, f"{S3_ENDPOINT} (or {' or '.join(ENDPOINT_VARIABLES[1:])})")
        if missing:
            raise StoreError(
                f"a {scheme}:// store needs environment variables that are not set: {', '.join(missing)}. "
                f"Set them, for example {S3_ENDPOINT}=http://minio-service.kubeflow:9000; in a pod they come from a secret"
            )
        endpoint = variables[source].strip() if source else AWS_ENDPOINT
        try:
            parts = urlsplit(endpoint if "://" in endpoint else f"http://{endpoint}")
            port = parts.port
        except ValueError:
            parts, port = urlsplit(""), -1
        if (
            parts.scheme not in ("http", "https")
            or not parts.hostname
            or parts.path.strip("/")
            or parts.query
            or parts.username
            or any(c.isspace() for c in endpoint)
            or port == -1
        ):
            raise StoreError(
                f"{source}={endpoint!r} is no endpoint: expected http://host:port or https://host:port, without a path"
            )
        host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
        return cls(
            endpoint=f"{host}:{port}" if port else host,
            access_key=variables[AWS_ACCESS_KEY_ID],
            secret_key=variables[AWS_SECRET_ACCESS_KEY],
            region=variables.get(AWS_REGION) or None,
            secure=parts.scheme == "https",
            session_token=variables.get(AWS_SESSION_TOKEN) or None,
            ca_file=variables.get(SSL_CERT_FILE) or None,
        )


class MinioStore:
    """A store under one prefix of a bucket. Opening it does not talk to the server; the first verb does.

    Args:
        uri: ``minio://bucket/prefix`` or ``s3://bucket/prefix``; the prefix may be missing.
        settings: None reads them from the environment (`S3Settings.from_environment`).
    """

    def __init__(self, uri: str, settings: S3Settings | None = None):
        scheme, _, rest = uri.partition("://")
        bucket, _, prefix = rest.partition("/")
        if scheme not in ("minio", "s3") or not bucket:
            raise StoreError(f"cannot open {uri!r}: expected minio://bucket/prefix or s3://bucket/prefix")
        self.uri = uri.rstrip("/")
        self._bucket = bucket
        prefix = prefix.strip("/")
        self._root = check_key(prefix, uri) + "/" if prefix else ""
        self.settings = settings or S3Settings.from_environment(scheme=scheme)
        self._server = server_at(self.settings.url)
        http = _PatientPool(
            self._server,
            maxsize=4 * _PARALLEL,
            cert_reqs="CERT_REQUIRED",
            ca_certs=self.settings.ca_file or certifi.where(),
        )
        self._client = Minio(
            self.settings.endpoint,
            access_key=self.settings.access_key,
            secret_key=self.settings.secret_key,
            session_token=self.settings.session_token,
            secure=self.settings.secure,
            region=self.settings.region,
            http_client=http,
        )

    def write(self, key: str, data: bytes) -> None:
        """Make `key` hold `data`, atomically."""
        name = self._name(key)
        with self._errors("write", key):
            self._upload(name, io.BytesIO(data), len(data))

    def read(self, key: str) -> bytes | None:
        """The object's bytes, or None when there is no such object (an unknown bucket is an error)."""
        name, out = self._name(key), io.BytesIO()
        with self._errors("read", key):
            try:
                self._download(name, out)
            except S3Error as error:
                if error.code == "NoSuchKey":
                    return None
                raise
        return out.getvalue()

    def put(self, key: str, path: Path) -> None:
        """Upload a local file in parts, several at once; the object appears when the last part has arrived."""
        name = self._name(key)
        with open_local(path, key, self.uri) as source, self._errors("put", key):
            size = os.fstat(source.fileno()).st_size
            try:
                self._upload(name, source, size)
            except OSError as error:
                raise StoreError(
                    f"{self.uri}: cannot put {key!r}: {path} could not be read to its end ({error}); did it change meanwhile?"
                ) from error

    def get(self, key: str, path: Path) -> None:
        """Download to a local file, which appears only when it is whole; a broken connection goes on where it left off."""
        name = self._name(key)

        def download(out: BinaryIO) -> None:
            with self._errors("get", key):
                self._download(name, out)

        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(path, download)
        except OSError as error:
            raise StoreError(
                f"{self.uri}: got {key!r}, but cannot write it to {path}: {error.strerror or error}"
            ) from error

    def list(self, prefix: str) -> Iterator[Entry]:
        """Every object whose key starts with `prefix`, sorted by key."""
        check_prefix(prefix, self.uri)
        with self._errors("list", prefix):
            for item in self._client.list_objects(self._bucket, prefix=self._root + prefix, recursive=True):
                marks_empty_folder = item.object_name.endswith("/")  # consoles make such objects
                if not item.is_dir and not marks_empty_folder:
                    yield Entry(item.object_name.removeprefix(self._root), item.size)

    def delete(self, prefix: str) -> int:
        """Delete every object at or under `prefix`, manifests first; the number deleted."""
        prefix = check_delete(prefix, self.uri)
        keys = [entry.key for entry in self.list(prefix) if entry.key == prefix or entry.key.startswith(prefix + "/")]
        with self._errors("delete", prefix):
            manifests, rest = manifests_first(keys)
            for key in manifests:  # one by one: a server deletes the keys of one request in any order
                self._client.remove_object(self._bucket, self._root + key)
            refused = list(self._client.remove_objects(self._bucket, [DeleteObject(self._root + key) for key in rest]))
            if refused:
                raise StoreError(
                    f"{self.uri}: could not delete {len(refused)} objects under {prefix!r}: {refused[0].name}: {refused[0].message}"
                )
        return len(keys)

    def local(self, key: str) -> Path | None:
        """None: objects of a bucket never lie on this machine."""
        if key:
            check_key(key.removesuffix("/"), self.uri)
        return None

    def _name(self, key: str) -> str:
        return self._root + check_key(key, self.uri)

    def _upload(self, name: str, source: BinaryIO, size: int) -> None:
        """Upload `size` bytes. A server that lost the parts, or whose answer to the last request was lost, gets them again."""
        tries = Tries(self._server)
        while True:
            source.seek(0)
            try:
                self._client.put_object(
                    self._bucket, name, source, size, part_size=_part_size(size), num_parallel_uploads=_PARALLEL
                )
                return
            except S3Error as error:
                if error.code != "NoSuchUpload":
                    raise
            tries.failed("HTTP 404 NoSuchUpload: the parts, or the answer to the last request, were lost")

    def _download(self, name: str, out: BinaryIO) -> None:
        """Stream an object into `out`; after a broken connection, go on behind the bytes that have arrived, in the same version."""
        size, etag, tries = None, "", Tries(self._server)
        while size is None or out.tell() < size:
            before = out.tell()
            response = self._client.get_object(
                self._bucket, name, offset=before, request_headers={"If-Match": etag} if etag else None
            )
            if size is None:
                size, etag = int(response.headers["Content-Length"]), response.headers.get("ETag", "")
            why = ""
            try:
                for chunk in response.stream(_BLOCK):
                    out.write(chunk)
                self._server.answered()
            except HTTPError as error:
                why = _why_away(error, self._server) or ""
                if not why:
                    raise
            finally:
                response.close()
                response.release_conn()
            if why:
                if out.tell() > before:
                    tries.go_on()
                    self._server.answered()
                tries.failed(why)

    @contextmanager
    def _errors(self, verb: str, key: str) -> Iterator[None]:
        """Turn whatever the client raises into a StoreError that says what to do."""
        try:
            yield
        except Away as away:
            raise StoreUnavailable(f"{self.uri}: cannot {verb} {key!r}: {self._away(away)}") from away
        except S3Error as error:
            raise StoreError(f"{self.uri}: cannot {verb} {key!r}: {self._advice(error)}") from error
        except (MinioException, ParseError) as error:
            raise StoreError(
                f"{self.uri}: cannot {verb} {key!r}: {self.settings.url} answers, but not as an S3 server ({_short(error)}). "
                f"Is S3_ENDPOINT its API's address (for MinIO port 9000, not the console's 9001)?"
            ) from error
        except HTTPError as error:
            raise StoreError(f"{self.uri}: cannot {verb} {key!r}: {self._unreachable(error)}") from error
        except ValueError as error:  # the client's own check of the bucket's name
            raise StoreError(f"{self.uri}: cannot {verb} {key!r}: {error}") from error

    def _advice(self, error: S3Error) -> str:
        at, who = self.settings.url, f"AWS_ACCESS_KEY_ID={self.settings.access_key!r}"
        status = error.response.status
        said = f"{error.code or f'HTTP {status}'}: {error.message or 'without a word'}"
        match error.code:
            case "InvalidAccessKeyId":
                return f"wrong credentials: {at} does not know {who}. Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY to those of this server"
            case "SignatureDoesNotMatch":
                return f"wrong credentials: the secret does not belong to {who} at {at}. Set AWS_SECRET_ACCESS_KEY"
            case "AccessDenied":
                return f"not allowed: {at} knows {who}, but its policy does not permit this in bucket {self._bucket!r}. Ask for read, write, list and delete there"
            case "NoSuchBucket":
                return f"unknown bucket: {at} has no bucket {self._bucket!r}. Create it, or correct the URI"
            case "PreconditionFailed":
                return "the object was replaced while it was downloaded. Try again"
            case "NoSuchKey":
                return f"no such object in bucket {self._bucket!r} at {at}"
            case "RequestTimeTooSkewed" | "RequestExpired":
                now = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime())
                return f"clock skew: this machine says {now} UTC and {at} disagrees by more than it allows. Set the clock of the machine that is wrong ({said})"
            case "AuthorizationHeaderMalformed" | "InvalidRegion":
                return f"wrong region {self.settings.region!r}: {error.message}. Correct or unset AWS_REGION"
            case "XMinioStorageFull":
                return f"{at} has no space left ({said})"
            case _:
                return f"{at} says {said}"

    def _unreachable(self, error: HTTPError) -> str:
        cause = _cause(error)
        if isinstance(cause, SSLError):
            return (
                f"wrong endpoint: TLS with {self.settings.url} failed ({_short(cause)}). Use http:// in S3_ENDPOINT where the server speaks no TLS; "
                "point SSL_CERT_FILE to its authority where it has its own"
            )
        return f"wrong endpoint: nothing usable at {self.settings.url} ({_short(cause.__cause__ or cause)}). Check S3_ENDPOINT"

    def _away(self, away: Away) -> str:
        what = "the server is away" if self._server.has_answered else "the server is away, or S3_ENDPOINT is wrong"
        return (
            f"{what}: {self.settings.url} has not answered for {away.seconds:.0f} s ({away}). "
            "The same command goes on when it answers again"
        )


def _part_size(size: int) -> int:
    """Bytes of one part of an upload: `_PART`, or more when the file would need more than 10,000."""
    return max(_PART, -(-size // 9_000 // _CHUNK) * _CHUNK)


def _short(error: Any) -> str:
    return " ".join(str(error).split())[:200]
