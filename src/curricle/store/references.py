"""References between artifacts: how one names another, so that a store can be moved, copied or opened from anywhere.

Within a store a reference is a relative path from the artifact that holds it (``../../data/naics-0123``), as in a web page. What lies
elsewhere is named by its full URI, or by its absolute folder. Before version 0.2 a reference was whatever the store's URI was then,
often relative to a working folder that nobody knows any more: `resolve` looks for such a one in the artifact's own store.
"""

from __future__ import annotations

import os
import posixpath
from collections.abc import Mapping
from urllib.parse import unquote

from curricle.errors import ConfigError
from curricle.store import join_uri, layout, open_store


def absolute(uri: str) -> str:
    """The URI itself, or a folder's absolute path: the same place named in one way."""
    if uri.startswith("file://"):
        return unquote(uri.removeprefix("file://").removeprefix("localhost")).rstrip("/") or "/"
    if "://" not in uri:
        return os.path.abspath(os.path.expanduser(uri))
    return uri.rstrip("/")


def _real(uri: str) -> str:
    """The place itself, whatever link or scheme it is named by: what two names of one place share."""
    place = absolute(uri)
    if "://" not in place:
        return os.path.realpath(place)
    return place.replace("s3://", "minio://", 1) if place.startswith("s3://") else place


def refer(uri: str, place: str, store_uri: str) -> str:
    """How the artifact at `place` names `uri`: relative when both lie in the store at `store_uri`, else in full. Empty stays empty.

    Without a store (an artifact that was copied out of one) every reference is in full.
    """
    if not uri:
        return ""
    target, root, here = _real(uri), _real(store_uri), _real(place)
    if not store_uri or not (_inside(target, root) and _inside(here, root)):
        return absolute(uri)
    path = posixpath.relpath(target.removeprefix(root).lstrip("/") or ".", here.removeprefix(root).lstrip("/") or ".")
    return path if path.startswith("../") else f"./{path}"


def _inside(uri: str, root: str) -> bool:
    return uri == root or uri.startswith(root.rstrip("/") + "/")


def resolve(reference: str | None, place: str) -> str:
    """The URI that `reference` in the artifact at `place` means. None and empty give an empty string.

    Raises:
        ConfigError: it holds a control character.
    """
    if not reference:
        return ""
    if any(ord(character) < 32 for character in reference):
        raise ConfigError(f"{place}: a reference holds a control character: {reference!r}")
    if is_relative(reference):
        scheme, sep, path = absolute(place).partition("://")
        path = path if sep else scheme
        joined = posixpath.normpath(posixpath.join(path, reference))
        return f"{scheme}://{joined}" if sep else joined
    return _found_again(reference, place)


def is_relative(reference: str) -> bool:
    """Whether a reference stays within the store of the artifact that holds it."""
    return reference.startswith(("./", "../"))


def relocate(lineage: Mapping[str, str | None], place: str, target: str, store_uri: str) -> dict[str, str | None]:
    """A manifest's lineage as it reads in a copy of the artifact at `target`: what ends in ``_uri`` is a reference, the rest stays."""
    return {
        key: refer(resolve(value, place), target, store_uri) if key.endswith("_uri") else value
        for key, value in lineage.items()
    }


def _found_again(reference: str, place: str) -> str:
    """A reference of version 0.1: the place of that name in the artifact's own store, else as it is.

    The own store goes first: a copy of a store must not lead back to what it was copied from.
    """
    if "://" in reference:
        return reference
    parts, above = reference.rstrip("/").split("/"), absolute(place).split("/")
    for depth in (1, 2, 3):  # the store lies so far above a run, a stage, a checkpoint
        for count in (2, 3):
            candidate = join_uri("/".join(above[:-depth]) or "/", *parts[-count:])
            if len(parts) >= count and len(above) > depth and _holds(candidate):
                return candidate
    return reference


def _holds(uri: str) -> bool:
    store = open_store(uri)
    return any(store.read(name) is not None for name in (layout.MANIFEST, layout.STAGE))
