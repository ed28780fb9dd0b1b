"""References between artifacts: how one names another, so that a store can be moved, copied or opened from anywhere.

Within a store a reference is a relative path from the artifact that holds it (``../../data/naics-0123``), as in a web page. What lies
elsewhere is named by its full URI, or by its absolute folder. Before version 0.2 a reference was whatever the store's URI was then,
often relative to a working folder that nobody knows any more: `resolve` looks for such a one in the artifact's own store.
"""

from __future__ import annotations

import os
import posixpath
from collections.abc import Mapping

from curricle.store import join_uri, layout, open_store


def absolute(uri: str) -> str:
    """The URI itself, or a folder's absolute path: the same place named in one way."""
    if "://" not in uri:
        return os.path.abspath(os.path.expanduser(uri))
    return uri.rstrip("/")


def refer(uri: str, place: str, store_uri: str) -> str:
    """How the artifact at `place` names `uri`: relative when both lie in the store at `store_uri`, else in full. Empty stays empty.

    Without a store (an artifact that was copied out of one) every reference is in full.
    """
    if not uri:
        return ""
    target, root, here = absolute(uri), absolute(store_uri), absolute(place)
    if not store_uri or not (_inside(target, root) and _inside(here, root)):
        return target
    path = posixpath.relpath(target.removeprefix(root).lstrip("/") or ".", here.removeprefix(root).lstrip("/") or ".")
    return path if path.startswith("../") else f"./{path}"


def _inside(uri: str, root: str) -> bool:
    return uri == root or uri.startswith(root.rstrip("/") + "/")


def resolve(reference: str | None, place: str) -> str:
    """The URI that `reference` in the artifact at `place` means. None and empty give an empty string."""
    if not reference:
        return ""
    if reference.startswith(("./", "../")):
        scheme, sep, path = absolute(place).partition("://")
        path = path if sep else scheme
        joined = posixpath.normpath(posixpath.join(path, reference))
        return f"{scheme}://{joined}" if sep else joined
    return _found_again(reference, place)


def relocate(lineage: Mapping[str, str | None], place: str, target: str, store_uri: str) -> dict[str, str | None]:
    """A manifest's lineage as it reads in a copy of the artifact at `target`: what ends in ``_uri`` is a reference, the rest stays."""
    return {
        key: refer(resolve(value, place), target, store_uri) if key.endswith("_uri") else value
        for key, value in lineage.items()
    }


def _found_again(reference: str, place: str) -> str:
    """A reference in full: as it is where something lies there, else the place of the same name in the artifact's own store."""
    if "://" in reference or _holds(reference):
        return reference
    root = layout.store_of(absolute(place))
    parts = reference.rstrip("/").split("/")
    for count in (2, 3):
        candidate = join_uri(root, *parts[-count:])
        if len(parts) >= count and _holds(candidate):
            return candidate
    return reference


def _holds(uri: str) -> bool:
    return open_store(uri).read(layout.MANIFEST) is not None
