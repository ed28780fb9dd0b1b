"""What a key may look like, the same for every store.

A key is `/`-separated, relative, and names an object below the store's root. Whatever could leave the root, or mean
two objects in two stores, is refused before any store sees it.
"""

from __future__ import annotations

from curricle.errors import StoreError
from curricle.store.layout import MANIFEST


def check_key(key: str, uri: str) -> str:
    """The key itself when every store can hold it.

    Raises:
        StoreError: the key is empty, absolute, has an empty, ``.`` or ``..`` segment, or a character no store keeps apart.
    """
    if not key:
        raise StoreError(f"{uri}: the empty key names no object; pass a path below the store's root")
    if any(segment in ("", ".", "..") for segment in key.split("/")):
        raise StoreError(f"{uri}: key {key!r} refused: a key is relative, without empty, '.' or '..' segments")
    if "\\" in key or any(ord(c) < 32 for c in key):
        raise StoreError(
            f"{uri}: key {key!r} refused: backslashes and control characters do not survive in every store"
        )
    return key


def check_prefix(prefix: str, uri: str) -> str:
    """A prefix to list: empty (everything), or a key, or the beginning of one (may end in ``/``)."""
    if prefix.strip("/"):
        check_key(prefix.removesuffix("/"), uri)
    elif prefix:
        raise StoreError(f"{uri}: prefix {prefix!r} refused: a prefix is relative; pass '' to list everything")
    return prefix


def check_delete(prefix: str, uri: str) -> str:
    """A prefix to delete, without its trailing ``/``; never empty, so that an unset variable cannot empty a store."""
    if not prefix.strip("/"):
        raise StoreError(
            f"{uri}: refused to delete everything at the store's root; name a prefix below it (or open the store's parent)"
        )
    return check_key(prefix.removesuffix("/"), uri)


def manifests_first(keys: list[str]) -> tuple[list[str], list[str]]:
    """(manifests, the rest), outermost manifests first: an artifact stops being complete before it loses a file."""
    manifests = sorted((k for k in keys if k.rpartition("/")[2] == MANIFEST), key=lambda k: (k.count("/"), k))
    return manifests, [k for k in keys if k.rpartition("/")[2] != MANIFEST]
