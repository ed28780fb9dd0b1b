"""Where artifacts live: one small protocol, opened by URI.

Keys are `/`-separated and relative to the store's root. The seven verbs below are all that a store must do;
publishing, verifying and fetching whole artifacts stand once, above the seam, in `store.manifest`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path
from typing import NamedTuple, Protocol, runtime_checkable

from curricle.errors import StoreError


class Entry(NamedTuple):
    """One object of a store: its key, its size in bytes, and when it was written, in seconds since 1970 by the store's clock."""

    key: str
    size: int
    modified: float = 0.0


@runtime_checkable
class Store(Protocol):
    """Seven verbs (`local` beside them answers without touching the store). All raise `StoreError` with the store's URI and the key in the message."""

    uri: str

    def write(self, key: str, data: bytes) -> None:
        """Make `key` hold `data`, atomically: a reader sees the old or the new object, never a part."""

    def read(self, key: str) -> bytes | None:
        """The object's bytes, or None when there is no such object."""

    def put(self, key: str, path: Path) -> None:
        """Upload a local file, streaming, atomically."""

    def get(self, key: str, path: Path) -> None:
        """Download to a local file, streaming; the file appears only when it is whole."""

    def list(self, prefix: str) -> Iterator[Entry]:
        """Every object whose key starts with `prefix`, sorted by key."""

    def delete(self, prefix: str) -> int:
        """Delete every object at or under `prefix`, manifests first; the number deleted."""

    def local(self, key: str) -> Path | None:
        """The object's or folder's path when it already lies on this machine, else None (fetch it then)."""


GROUP = "curricle.stores"
"""Entry-point group under which other distributions offer stores: a scheme → what opens its URI."""
_CUT = re.compile(r"(minio|s3|hf|https?):(?!//)")


def check_uri(uri: str, *, written: bool = False) -> None:
    """Refuse a URI that no store could have, without opening it: nothing is asked, and no variable is needed.

    Args:
        written: whether the store is to be written.

    Raises:
        StoreError: what is wrong with it, and the right form.
    """
    scheme, place = _scheme_of(uri)
    if scheme in ("", "file"):
        from curricle.store.folder import root_of

        root_of(uri)
    elif scheme in ("minio", "s3"):
        from curricle.store.minio import place_of

        place_of(place)
    elif scheme in ("hf", "https", "http"):
        if written:
            raise StoreError(f"{uri}: {scheme}:// is only read from; name minio://bucket/prefix or s3://bucket/prefix")
    elif not entry_points(group=GROUP, name=scheme):
        raise _unknown(uri, scheme)


def _scheme_of(uri: str) -> tuple[str, str]:
    """The scheme, empty of a plain folder, and the URI with the slashes that were cut off it."""
    scheme, sep, _ = uri.partition("://")
    if not sep and (cut := _CUT.match(uri)):  # of `minio://` without a bucket, slashes were cut off or joined
        scheme, sep, uri = cut[1], "://", f"{cut[1]}://" if uri.rstrip("/") == f"{cut[1]}:" else uri
    if sep and not scheme:
        raise _unknown(uri, scheme)
    return scheme if sep else "", uri


def _unknown(uri: str, scheme: str) -> StoreError:
    return StoreError(
        f"cannot open {uri!r}: scheme {scheme!r} is not one of file, minio, s3 (or a plain folder), or hf, https to read from; "
        "one of another distribution must be installed here too"
    )


def open_store(uri: str) -> Store:
    """Open the store behind a URI: ``minio://`` or ``s3://`` (bucket/prefix), ``file://`` or a plain folder; ``hf://`` and ``https://`` to read from.

    Of any other scheme the entry point of that name in `GROUP` opens it.

    Raises:
        StoreError: the scheme is unknown.
    """
    scheme, uri = _scheme_of(uri)
    if scheme in ("", "file"):
        from curricle.store.folder import FolderStore

        return FolderStore(uri)
    if scheme in ("minio", "s3"):
        from curricle.store.minio import MinioStore

        return MinioStore(uri)
    if scheme in ("hf", "https", "http"):
        from curricle.store.web import WebStore

        return WebStore(uri)
    for point in entry_points(group=GROUP, name=scheme):
        return point.load()(uri)
    raise _unknown(uri, scheme)


def split_uri(uri: str) -> tuple[str, str]:
    """Cut an object's or prefix's URI into the (store URI, key) that address it: the last path segment is the key.

    ``minio://bucket/a/b`` → (``minio://bucket/a``, ``b``); ``/data/a/b`` → (``/data/a``, ``b``).
    """
    head, sep, tail = uri.rstrip("/").rpartition("/")
    if not sep:
        return ".", uri
    return (head or "/"), tail


def join_uri(base: str, *parts: str) -> str:
    """Append path segments to a URI or folder."""
    return "/".join([base.rstrip("/"), *(p.strip("/") for p in parts if p)])
