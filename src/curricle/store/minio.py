"""A store in a bucket of MinIO, S3 or anything that speaks S3, over the `minio` package.

Owns the connection (settings, time limits, what is tried again) and turns what a server or the network says into `StoreError`s that
say what to do. A server that is away is waited for, request by request (`store.patience`), and is then a `StoreUnavailable`; what is wrong
(credentials, bucket, region, an unknown host) is said at once. Uploads go in parts, several at once; downloads stream to a hidden file and go
on where a broken connection left off. Memory is bounded by `_PART` x (`_PARALLEL` + 1) for each file on its way.
"""

from __future__ import annotations

import functools
import io
import logging
import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO
from urllib.parse import urlsplit
from xml.etree.ElementTree import ParseError

from minio import Minio
from minio.deleteobjects import DeleteObject
from minio.error import MinioException, S3Error
from urllib3.exceptions import HTTPError

from curricle.environment import (
    AWS_ACCESS_KEY_ID,
    AWS_CA_BUNDLE,
    AWS_DEFAULT_REGION,
    AWS_ENDPOINT_URL,
    AWS_ENDPOINT_URL_S3,
    AWS_PROFILE,
    AWS_REGION,
    AWS_SECRET_ACCESS_KEY,
    AWS_SESSION_TOKEN,
    AWS_WEB_IDENTITY_TOKEN_FILE,
    S3_ENDPOINT,
    SSL_CERT_FILE,
    everything,
)
from curricle.errors import StoreError, StoreUnavailable
from curricle.store import Entry, credentials
from curricle.store.connections import connections, received, short, why_failed
from curricle.store.folder import open_local
from curricle.store.keys import check_delete, check_key, check_prefix, manifests_first
from curricle.store.local import write_whole
from curricle.store.patience import Away, Tries, server_at
from curricle.store.wire import may_be_proxys

ENDPOINT_VARIABLES = (S3_ENDPOINT, AWS_ENDPOINT_URL_S3, AWS_ENDPOINT_URL)
"""Where the endpoint stands; the first that is set counts."""
AWS_ENDPOINT = "https://s3.amazonaws.com"

_PART = 8 << 20  # bytes of one part; 10,000 parts is S3's limit, so larger files get larger parts (`_part_size`)
_PARALLEL = 3
_CHUNK = 1 << 20
_GUESS = "us-east-1"
"""The region that a request is signed for where nobody named one: most servers take any, and one that does not says which it wants."""
_regions: dict[tuple[str, str], str] = {}
"""(server, bucket) → the region that it wanted, for all stores of this process."""
_one_by_one: set[str] = set()
"""Servers that do not delete several objects at once."""
_log = logging.getLogger(__name__)

_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")


@dataclass(frozen=True)
class S3Settings:
    """How to reach an S3 server. The secret never shows in `repr`."""

    endpoint: str
    """``host`` or ``host:port``, without scheme."""
    access_key: str = ""
    secret_key: str = ""
    region: str | None = None
    """None: what the server says that it wants."""
    secure: bool = True
    """Whether TLS is spoken."""
    session_token: str | None = None
    """Belongs to temporary credentials of AWS."""
    ca_file: str | None = None
    """The certificate authorities to trust; None: those that come with the package certifi."""
    source: credentials.Source | None = None
    """Where credentials come from in place of the keys."""

    def __post_init__(self) -> None:
        if not self.endpoint or "/" in self.endpoint:
            raise StoreError(f"S3 endpoint {self.endpoint!r} is not a host or host:port")

    def __repr__(self) -> str:
        keys = f"source={self.source!r}" if self.source else f"access_key={self.access_key!r}, secret_key=…"
        return f"S3Settings({self.url}, {keys}, region={self.region!r})"

    @property
    def who(self) -> str:
        """Whose credentials they are, for messages."""
        return self.source.name if self.source else f"{AWS_ACCESS_KEY_ID}={self.access_key!r}"

    @property
    def url(self) -> str:
        """The endpoint with its scheme, as in messages."""
        return f"{'https' if self.secure else 'http'}://{self.endpoint}"

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None, *, scheme: str = "s3") -> S3Settings:
        """Read the settings from the variables that `curricle.environment` describes; an empty one counts as not set.

        Credentials are the two keys; else what `credentials.find` finds: a pod's role, a profile, a container, for Amazon's own server also this machine.
        Without an endpoint, ``s3://`` means Amazon's own (https://s3.amazonaws.com); ``minio://`` has no such default.

        Args:
            environment: the variables; None means this process's own, as in worker processes.
            scheme: of the store's URI, ``s3`` or ``minio``.

        Raises:
            StoreError: naming every variable that is missing or cannot be used.
        """
        variables = everything() if environment is None else environment
        keys = [name for name in (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY) if variables.get(name)]
        source = next((name for name in ENDPOINT_VARIABLES if variables.get(name)), None)
        region = variables.get(AWS_REGION) or variables.get(AWS_DEFAULT_REGION) or ""
        for name in (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN, AWS_REGION, AWS_DEFAULT_REGION):
            if not variables.get(name, "").isprintable():
                raise StoreError(
                    f"{name} holds a line break or another sign that cannot be sent; a secret that was made with `echo` has one at its end (`echo -n` has none)"
                )
        there = source is not None or scheme != "minio"
        url = _url(source, variables[source].strip() if source else AWS_ENDPOINT) if there else ""
        found = None
        if not keys:
            found, region = credentials.find(variables, endpoint=url, region=region)
        missing = [] if there else [f"{S3_ENDPOINT} (or {' or '.join(ENDPOINT_VARIABLES[1:])})"]
        missing += [] if found else [name for name in (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY) if name not in keys]
        if missing:
            instead = f" (or {AWS_PROFILE}, or {AWS_WEB_IDENTITY_TOKEN_FILE} in a pod with a role)"
            example = "" if there else f" for example {S3_ENDPOINT}=http://minio-service.kubeflow:9000;"
            raise StoreError(
                f"a {scheme}:// store needs environment variables that are not set: {', '.join(missing)}{instead if not keys and not found else ''}. "
                f"Set them;{example} in a pod they come from a secret"
            )
        return cls(
            endpoint=url.partition("://")[2],
            access_key=variables[AWS_ACCESS_KEY_ID] if keys else "",
            secret_key=variables[AWS_SECRET_ACCESS_KEY] if keys else "",
            region=region or None,
            secure=url.startswith("https://"),
            session_token=(variables.get(AWS_SESSION_TOKEN) or None) if keys else None,
            ca_file=variables.get(SSL_CERT_FILE) or variables.get(AWS_CA_BUNDLE) or None,
            source=found,
        )


def _url(variable: str | None, endpoint: str) -> str:
    """An endpoint as ``http://host:port`` or ``https://host``.

    Raises:
        StoreError: it is none; names the variable that holds it.
    """
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
            f"{variable}={endpoint!r} is no endpoint: expected http://host:port or https://host:port, without a path"
        )
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{parts.scheme}://{host}{f':{port}' if port else ''}"


def place_of(uri: str) -> tuple[str, str]:
    """Bucket and prefix of ``minio://bucket/prefix`` or ``s3://bucket/prefix``.

    Raises:
        StoreError: it is none.
    """
    scheme, _, rest = uri.partition("://")
    bucket, _, prefix = rest.partition("/")
    if scheme not in ("minio", "s3") or not bucket:
        raise StoreError(f"cannot open {uri!r}: expected minio://bucket/prefix or s3://bucket/prefix")
    if "@" in bucket:
        raise StoreError(
            f"cannot open {scheme}://...: a password or token stands before the bucket; keys belong into {AWS_ACCESS_KEY_ID} and {AWS_SECRET_ACCESS_KEY}"
        )
    if not _BUCKET.fullmatch(bucket):
        raise StoreError(
            f"cannot open {uri!r}: {bucket!r} cannot be a bucket's name, which has at most 63 letters, digits, '.', '-' and '_'"
        )
    prefix = prefix.strip("/")
    return bucket, check_key(prefix, uri) if prefix else ""


class MinioStore:
    """A store under one prefix of a bucket. Opening it does not talk to the server; the first verb does.

    Args:
        uri: ``minio://bucket/prefix`` or ``s3://bucket/prefix``; the prefix may be missing.
        settings: None reads them from the environment (`S3Settings.from_environment`).
    """

    def __init__(self, uri: str, settings: S3Settings | None = None):
        bucket, prefix = place_of(uri)
        self.uri = uri.rstrip("/")
        self._bucket = bucket
        self._root = f"{prefix}/" if prefix else ""
        self.settings = settings or S3Settings.from_environment(scheme=uri.partition("://")[0])
        self._server = server_at(self.settings.url)
        self._http = connections(
            self._server, self.settings.url, ca_file=self.settings.ca_file or "", maxsize=4 * _PARALLEL
        )

    @functools.cached_property
    def _client(self) -> Minio:
        """The client, for the bucket's region. Where nobody named it the server is asked by reading an object that is not there: what a wrong one is answered
        with names the right one, and no right is needed for it (`s3:GetBucketLocation` would be one)."""
        place = (self.settings.url, self._bucket)
        region = self.settings.region or _regions.get(place)
        if region:
            return self._connected(region)
        client = self._connected(_GUESS)
        try:
            response = client.get_object(self._bucket, f"{self._root}curricle-region")
            response.close()
            response.release_conn()
        except S3Error as error:
            region = _wanted_region(error)
        except MinioException:
            return client  # the verb that is wanted says what is wrong
        _regions[place] = region or _GUESS
        return self._connected(region) if region else client

    def _connected(self, region: str) -> Minio:
        return Minio(
            self.settings.endpoint,
            access_key=self.settings.access_key or None,
            secret_key=self.settings.secret_key or None,
            session_token=self.settings.session_token,
            credentials=self.settings.source,
            secure=self.settings.secure,
            region=region,
            http_client=self._http,
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
                if error.code == "NoSuchKey" or (error.code == "AccessDenied" and self._is_absent(key)):
                    return None
                raise
        return out.getvalue()

    def _is_absent(self, key: str) -> bool:
        """Whether an object that may not be read is not there: a server says so only to who may list the whole bucket, and a policy may allow less."""
        try:
            return all(entry.key != key for entry in self.list(key))
        except StoreError:
            return False

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
                    written = item.last_modified.timestamp() if item.last_modified else 0.0
                    yield Entry(item.object_name.removeprefix(self._root), item.size, written)

    def delete(self, prefix: str) -> int:
        """Delete every object at or under `prefix`, manifests first; the number deleted."""
        prefix = check_delete(prefix, self.uri)
        keys = [entry.key for entry in self.list(prefix) if entry.key == prefix or entry.key.startswith(prefix + "/")]
        with self._errors("delete", prefix):
            manifests, rest = manifests_first(keys)
            for key in manifests:  # one by one: a server deletes the keys of one request in any order
                self._client.remove_object(self._bucket, self._root + key)
            self._delete_all(rest, prefix)
        return len(keys)

    def _delete_all(self, keys: Sequence[str], prefix: str) -> None:
        """Delete objects, many with one request; one by one where the server knows no such request (Google's, some gateways), which is said once."""
        names = [self._root + key for key in keys]
        if self.settings.url not in _one_by_one:
            try:
                refused = list(self._client.remove_objects(self._bucket, map(DeleteObject, names)))
            except MinioException as error:
                if not _knows_no_bulk(error):
                    raise
                _one_by_one.add(self.settings.url)
                _log.warning(
                    "the store at %s deletes no several objects at once (%s): they are deleted one by one",
                    self.settings.url,
                    short(error),
                )
            else:
                if refused:
                    raise StoreError(
                        f"{self.uri}: could not delete {len(refused)} objects under {prefix!r}: {refused[0].name}: {refused[0].message}"
                    )
                return
        for name in names:
            self._client.remove_object(self._bucket, name)

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
            if why := received(response, self._server, out.write):
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
                f"{self.uri}: cannot {verb} {key!r}: {self.settings.url} answers, but not as an S3 server ({short(error)}). "
                f"Is S3_ENDPOINT its API's address (for MinIO port 9000, not the console's 9001)?{may_be_proxys(self.settings.url)}"
            ) from error
        except HTTPError as error:
            raise StoreError(f"{self.uri}: cannot {verb} {key!r}: {self._unreachable(error)}") from error
        except ValueError as error:  # the client's own check of the bucket's name
            raise StoreError(f"{self.uri}: cannot {verb} {key!r}: {error}") from error

    def _advice(self, error: S3Error) -> str:
        at, who = self.settings.url, self.settings.who
        status = error.response.status
        said = f"{error.code or f'HTTP {status}'}: {error.message or 'without a word'}"
        match error.code:
            case "InvalidAccessKeyId":
                return f"wrong credentials: {at} does not know {who}. Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY to those of this server"
            case "SignatureDoesNotMatch":
                return f"wrong credentials: the secret does not belong to {who} at {at}. Set AWS_SECRET_ACCESS_KEY"
            case "AccessDenied":
                return f"not allowed: {at} knows {who}, but its policy does not permit this in bucket {self._bucket!r}. Ask for read, write, list and delete there"
            case "ExpiredToken" | "InvalidToken" | "InvalidTokenId":
                return f"credentials that are not valid any more: {at} refuses those of {who} ({said}). Renew them, with AWS_SESSION_TOKEN where they have one"
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
                return f"wrong region {self.settings.region or _GUESS!r}: {error.message}. Correct AWS_REGION"
            case "XMinioStorageFull":
                return f"{at} has no space left ({said})"
            case _:
                return f"{at} says {said}"

    def _unreachable(self, error: HTTPError) -> str:
        why, url = why_failed(error, self._server), self.settings.url
        if why.kind == "proxy":
            return why.of(url)
        if why.kind in ("plain", "untrusted", "tls"):
            advice = "Use http:// in S3_ENDPOINT"
            if why.kind != "plain":
                advice = "Point SSL_CERT_FILE (or AWS_CA_BUNDLE) to its authority where it has its own"
            return f"wrong endpoint: TLS with {url} failed ({why.words}). {advice}"
        return f"wrong endpoint: {why.of(url)}. Check S3_ENDPOINT"

    def _away(self, away: Away) -> str:
        what = "the server is away" if self._server.has_answered else "the server is away, or S3_ENDPOINT is wrong"
        return (
            f"{what}: {self.settings.url} has not answered for {away.seconds:.0f} s ({away}). "
            "The same command goes on when it answers again"
        )


def _wanted_region(error: S3Error) -> str:
    """The region that a server wants instead of the one that a request was signed for; empty where it says none."""
    header = error.response.headers.get("x-amz-bucket-region", "")
    said = re.search(r"expecting '([\w-]+)'", error.message or "")
    wanted = header or (said[1] if said else "")
    return wanted if wanted != _GUESS else ""


def _knows_no_bulk(error: MinioException) -> bool:
    """Whether a server's answer to a request to delete several objects means that it knows none such; not that it forbids this one."""
    if isinstance(error, S3Error):
        return (
            error.response.status in (404, 405, 411, 501)
            or (
                error.response.status == 400
                and error.code in ("InvalidArgument", "InvalidRequest", "BadRequest", "NotImplemented", "MalformedXML")
            )
            if error.code != "NoSuchBucket"
            else False
        )
    return bool(re.search(r"[Cc]ode:? (404|405|411|501)\b", str(error)))


def _part_size(size: int) -> int:
    """Bytes of one part of an upload: `_PART`, or more when the file would need more than 10,000."""
    return max(_PART, -(-size // 9_000 // _CHUNK) * _CHUNK)
