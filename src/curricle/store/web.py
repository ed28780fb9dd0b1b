"""Read-only sources of data and models: a Hugging Face hub (``hf://``) and plain web servers (``https://``), as stores that nothing is written to.

    hf://ORG/NAME[@REVISION][/FOLDER]             files of a model
    hf://datasets/ORG/NAME[@REVISION][/FOLDER]    files of a dataset
    https://HOST/FOLDER                           files by name: a web server lists none
    https://HOST/FOLDER/FILE#sha256=HEX           the one file, refused where it is another

A revision of a hub is resolved to its commit once, and files are read at that commit; those that the hub knows a SHA-256 of must have it. Within `once` each
file is downloaded once, and what was read is told with its digest. Nothing falls back: a file that is not there, not allowed or too large is an error.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import quote, unquote, urlsplit

from urllib3.exceptions import HTTPError
from urllib3.response import BaseHTTPResponse

from curricle.environment import HF_ENDPOINT, HF_TOKEN, value_of
from curricle.errors import StoreError, StoreUnavailable
from curricle.store import Entry, Store
from curricle.store.connections import connections, received, short, why_failed
from curricle.store.keys import check_key, check_prefix
from curricle.store.local import write_whole
from curricle.store.patience import Away, Tries, server_at
from curricle.store.scratch import scratch
from curricle.store.wire import may_be_proxys

SCHEMES = ("hf", "https", "http")
HUB = "https://huggingface.co"
MOST = 20 << 30
"""Bytes of one file at most."""
MOST_IN_MEMORY = 64 << 20
"""Bytes of a file that is read whole, as manifests are."""

_REPOSITORY = re.compile(r"(?P<kind>datasets/)?(?P<name>[\w.-]+/[\w.-]+)(@(?P<revision>[^/]+))?(/(?P<folder>.*))?")


@dataclass
class Once:
    """What was fetched in a block of `once`."""

    folder: Path
    files: dict[str, tuple[Path, str]] = field(default_factory=dict)
    """URI of the file, at its commit → (its copy, SHA-256)."""

    @property
    def digests(self) -> dict[str, str]:
        """URI of each file → its SHA-256, for a manifest."""
        return {uri: digest for uri, (_, digest) in sorted(self.files.items())}


_once: ContextVar[Once | None] = ContextVar("_once", default=None)


@contextmanager
def once() -> Iterator[Once]:
    """Download every file once within the block, however often it is read: its bytes are the same each time."""
    if there := _once.get():
        yield there
        return
    with scratch("curricle-web-") as folder:
        made = Once(folder)
        token = _once.set(made)
        try:
            yield made
        finally:
            _once.reset(token)


def keys(store: Store, names: Sequence[str]) -> list[str]:
    """The keys of a store; of a web server, which lists nothing, those of `names` that are there."""
    if isinstance(store, WebStore) and not store.lists:
        return [entry.key for name in names for entry in store.list(name) if entry.key == name]
    return [entry.key for entry in store.list("")]


def settled(uri: str) -> str:
    """A URI that means the same tomorrow: of a hub, with the commit that its revision is now."""
    store = WebStore(uri)
    return store._hub.name("").rstrip("/") if store._hub and store.commit else uri


class WebStore:
    """See the module; the verbs of `store.Store`, of which those that write raise."""

    def __init__(self, uri: str):
        self.uri = uri.rstrip("/")
        place, _, pin = self.uri.partition("#")
        self._pinned: dict[str, str] = {}
        if pin:
            place, _, name = place.rpartition("/")
            if not re.fullmatch(r"sha256=[0-9a-fA-F]{64}", pin) or not name or place.endswith("/"):
                raise StoreError(f"{uri}: expected #sha256= and 64 hex digits behind the URI of one file")
            self._pinned = {unquote(name): pin.partition("=")[2].lower()}
        self._hub: _Hub | None = None
        if place.startswith("hf://"):
            self._hub = _Hub(place)
            self._base = self._hub.url
        else:
            try:
                parts = urlsplit(place)
            except ValueError as error:
                raise StoreError(f"{uri}: expected https://host/path ({error})") from None
            if not parts.hostname or parts.query or parts.username:
                raise StoreError(f"{uri}: expected https://host/path, without a password and without a query (?...)")
            self._base = f"{parts.scheme}://{parts.netloc}"
        self._place = place
        self._server = server_at(self._base, "the hub" if self._hub else "the web server")
        self._http = connections(self._server, self._base)

    @property
    def lists(self) -> bool:
        """Whether it can say what it holds."""
        return self._hub is not None or bool(self._pinned)

    @property
    def commit(self) -> str:
        """Of a hub the commit that is read; empty of a web server."""
        if self._hub is None:
            return ""
        with self._errors("look at", ""):
            self._files()
        return self._hub.commit

    def read(self, key: str) -> bytes | None:
        """The file's bytes, or None when there is no such file."""
        with self._errors("read", key):
            response = self._open("GET", self._url(key))
            if response is None:
                return None
            try:
                data = response.read(MOST_IN_MEMORY + 1)
            finally:
                response.close()
                response.release_conn()
            if len(data) > MOST_IN_MEMORY:
                raise StoreError(f"{self.uri}: {key!r} has more than {MOST_IN_MEMORY >> 20} MiB")
            self._check(key, hashlib.sha256(data).hexdigest())
            return data

    def get(self, key: str, path: Path) -> None:
        """Download to a local file, which appears only when it is whole."""
        held, uri = _once.get(), self._name(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        if held and uri in held.files:
            shutil.copyfile(held.files[uri][0], path)
            return
        digest = ""

        def download(out: BinaryIO) -> None:
            nonlocal digest
            with self._errors("get", key):
                digest = self._download(key, out)

        try:
            write_whole(path, download)
        except OSError as error:
            raise StoreError(
                f"{self.uri}: got {key!r}, but cannot write it to {path}: {error.strerror or error}"
            ) from error
        if held:
            copy = held.folder / f"{len(held.files):06}"
            shutil.copyfile(path, copy)
            held.files[uri] = (copy, digest)

    def list(self, prefix: str) -> Iterator[Entry]:
        """Every file whose key starts with `prefix`, sorted; of a web server only the file that `prefix` names."""
        check_prefix(prefix, self.uri)
        if self._hub:
            with self._errors("list", prefix):
                found = [Entry(key, size) for key, (size, _) in sorted(self._files().items()) if key.startswith(prefix)]
            yield from (entry for entry in found if not self._pinned or entry.key in self._pinned)
        elif self._pinned:
            yield from (Entry(name, 0) for name in self._pinned if name.startswith(prefix))
        elif prefix and not prefix.endswith("/"):
            with self._errors("look for", prefix):
                response = self._open("HEAD", self._url(prefix))
            if response is not None:
                yield Entry(prefix, int(response.headers.get("Content-Length") or 0))
        else:
            raise StoreError(f"{self.uri}: a web server does not say what it holds; name one file")

    def write(self, key: str, data: bytes) -> None:
        """Refused."""
        raise self._read_only("write", key)

    def put(self, key: str, path: Path) -> None:
        """Refused."""
        raise self._read_only("put", key)

    def delete(self, prefix: str) -> int:
        """Refused."""
        raise self._read_only("delete", prefix)

    def local(self, key: str) -> Path | None:
        """None: it lies elsewhere."""
        return None

    def _read_only(self, verb: str, key: str) -> StoreError:
        return StoreError(f"{self.uri}: cannot {verb} {key!r}: {self._place.partition('://')[0]}:// is only read from")

    def _files(self) -> dict[str, tuple[int, str]]:
        """Of a hub: key → (bytes, SHA-256 where the hub knows it)."""
        assert self._hub is not None
        if not self._hub.files:
            response = self._open("GET", self._hub.question, preload=True)
            if response is None:
                raise StoreError(
                    f"{self.uri}: {self._hub.url} has no {self._hub.what}, or that has no revision {self._hub.revision!r}"
                )
            self._hub.answered(response.data)
        return self._hub.files

    def _url(self, key: str) -> str:
        check_key(key, self.uri)
        if self._hub:
            if key not in self._files():
                return ""
            return self._hub.file(key)
        return f"{self._place}/{quote(key)}"

    def _name(self, key: str) -> str:
        """The file's own URI, which means the same tomorrow where a hub has it."""
        with self._errors("get", key):
            if self._hub and self._files():
                return self._hub.name(key)
        return f"{self._place}/{key}"

    def _open(self, method: str, url: str, *, preload: bool = False) -> BaseHTTPResponse | None:
        """The answer to one request; None where there is no such thing."""
        if not url:
            return None
        token = value_of(HF_TOKEN) if self._hub else ""
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        response = self._http.urlopen(
            method, url, headers={**headers, "Accept-Encoding": "identity"}, preload_content=preload or method == "HEAD"
        )
        if response.status == 200:
            return response
        response.release_conn()
        if response.status in (404, 410):
            return None
        if response.status in (401, 403):
            if self._hub:
                sent = f"that of {HF_TOKEN} was sent" if token else f"{HF_TOKEN} is not set"
                raise StoreError(
                    f"{self.uri}: {self._base} shows no {self._hub.what} (HTTP {response.status}): correct the name, or give a token that may read it ({sent}) "
                    f"and accept its conditions on the hub{may_be_proxys(self._base)}"
                )
            proxys = may_be_proxys(self._base)
            raise StoreError(f"{self.uri}: not allowed: {self._base} answers HTTP {response.status}{proxys}")
        said = f"{self.uri}: {self._base} answers HTTP {response.status} {response.reason or ''}".rstrip()
        raise StoreError(f"{said}{may_be_proxys(self._base)}")

    def _download(self, key: str, out: BinaryIO) -> str:
        """Stream a file into `out`; its SHA-256. One that breaks off is begun again."""
        tries = Tries(self._server)
        while True:
            out.seek(0)
            out.truncate()
            response = self._open("GET", self._url(key))
            if response is None:
                raise StoreError(f"{self.uri}: there is no {key!r}")
            size = int(response.headers.get("Content-Length") or 0)
            digest = hashlib.sha256()

            def take(block: bytes, size: int = size, digest: Any = digest) -> None:
                if max(out.tell() + len(block), size) > MOST:
                    raise StoreError(f"{self.uri}: {key!r} has more than {MOST >> 30} GiB, and is not taken")
                digest.update(block)
                out.write(block)

            why = received(response, self._server, take)
            if not why:
                self._check(key, digest.hexdigest())
                return digest.hexdigest()
            tries.failed(why)

    def _check(self, key: str, digest: str) -> None:
        expected = self._pinned.get(key) or (self._hub.files[key][1] if self._hub else "")
        if expected and digest != expected:
            raise StoreError(
                f"{self.uri}: {key!r} has sha256 {digest[:12]}…, expected {expected[:12]}…: it is another file, or was altered on its way"
            )

    @contextmanager
    def _errors(self, verb: str, key: str) -> Iterator[None]:
        try:
            yield
        except Away as away:
            raise StoreUnavailable(
                f"{self.uri}: cannot {verb} {key!r}: {self._base} has not answered for {away.seconds:.0f} s ({away}). "
                f"The same command goes on when it answers again{self._elsewhere()}"
            ) from away
        except HTTPError as error:
            raise StoreError(
                f"{self.uri}: cannot {verb} {key!r}: {why_failed(error, self._server).of(self._base)}{self._elsewhere()}"
            ) from error

    def _elsewhere(self) -> str:
        """What to do where no way leads to the hub."""
        return (
            f". Without a way to the hub, name a folder or a store that holds the files, or a mirror in {HF_ENDPOINT}"
            if self._hub
            else ""
        )


class _Hub:
    """A repository of a hub at a revision: what to ask, and what it said."""

    def __init__(self, uri: str):
        match = _REPOSITORY.fullmatch(uri.removeprefix("hf://"))
        if not match or match["name"].startswith("datasets/"):
            raise StoreError(f"{uri}: expected hf://ORG/NAME[@REVISION][/FOLDER], or hf://datasets/ORG/NAME...")
        self.url = value_of(HF_ENDPOINT).rstrip("/") or HUB
        self._kind, self._repository = match["kind"] or "", match["name"]
        self.what = f"{'dataset' if self._kind else 'model'} {self._repository}"
        self.revision = unquote(match["revision"] or "main")
        self._folder = f"{match['folder'].strip('/')}/" if match["folder"] else ""
        self.commit = ""
        self.files: dict[str, tuple[int, str]] = {}

    @property
    def question(self) -> str:
        api = f"{self.url}/api/{self._kind or 'models/'}{self._repository}"
        return f"{api}/revision/{quote(self.revision, safe='')}?blobs=true"

    def answered(self, data: bytes) -> None:
        """Take the hub's answer to `question`."""
        try:
            answer = json.loads(data)
            self.commit = str(answer["sha"])
            files = {str(entry["rfilename"]): _facts(entry) for entry in answer["siblings"]}
            if not re.fullmatch("[0-9a-f]{40,64}", self.commit):
                raise ValueError("its commit is none")
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise StoreError(f"{self.url} answers, but not as a Hugging Face hub ({short(error)})") from None
        self.files = {
            name.removeprefix(self._folder): facts for name, facts in files.items() if name.startswith(self._folder)
        }
        if not self.files:
            raise StoreError(
                f"{self.what} at {self.revision} holds nothing in {self._folder or 'it'}; it holds {', '.join(sorted(files)[:12]) or 'nothing'}"
            )

    def file(self, key: str) -> str:
        return f"{self.url}/{self._kind}{self._repository}/resolve/{self.commit}/{quote(self._folder + key)}"

    def name(self, key: str) -> str:
        return f"hf://{self._kind}{self._repository}@{self.commit}/{self._folder}{key}"


def _facts(entry: dict[str, Any]) -> tuple[int, str]:
    lfs = entry.get("lfs") or {}
    return int(entry.get("size") or lfs.get("size") or 0), str(lfs.get("sha256") or "")
