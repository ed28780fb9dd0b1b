"""Whole artifacts: published files first and manifest last, verified, fetched; the policy that stands once above all stores.

An artifact is a prefix of a store with its files and one `manifest.json`. The manifest names every file with size and
sha256, so an artifact is complete exactly when its manifest is there: half an upload has none, and readers trust
nothing else. Knows nothing of what the files mean.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

from curricle.errors import CheckpointError, Interrupted, StoreError
from curricle.store import Store, join_uri, open_store, split_uri
from curricle.store.folder import FolderStore
from curricle.store.keys import check_key
from curricle.store.layout import MANIFEST, STAGE, is_checkpoint, is_loaded, now, store_of
from curricle.store.local import is_part, open_plain, remove_named, what_else
from curricle.store.patience import give_up
from curricle.store.scratch import scratch
from curricle.store.strict import kind_of, read_object

Kind = Literal["dataset", "checkpoint", "stage", "evaluation"]
T = TypeVar("T")

_VERSION = 1
_LARGEST = sys.float_info.max
_PARALLEL = 4  # files on their way at once
_CHUNK = 1 << 20
_log = logging.getLogger(__name__)
_SETTLED = 2.0  # seconds: a younger file may change again within one tick of the file system's clock
_hashed: dict[tuple, str] = {}  # (path, *_state) → sha256, for this process


@dataclass(frozen=True)
class FileEntry:
    """One file of an artifact: bytes and hexadecimal sha256."""

    size: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """What an artifact consists of and where it comes from."""

    kind: Kind
    digest: str
    """The digest of what it was made from (configuration, data, parent), by which steps recognise finished work."""
    files: dict[str, FileEntry] = field(default_factory=dict)
    """Key below the artifact's prefix → size and sha256."""
    metrics: dict[str, float] = field(default_factory=dict)
    lineage: dict[str, str | None] = field(default_factory=dict)
    """What it was made from, by role (`parent`, `data` …): URIs or digests; None where there was nothing."""
    info: dict[str, Any] = field(default_factory=dict)
    """Anything else that JSON can say."""
    created: str = ""
    """UTC, ISO 8601, to the second."""

    def to_json(self) -> str:
        """Canonical JSON: sorted keys, the same manifest always the same text. Metrics that are no number are ``"nan"``, ``"inf"``, ``"-inf"``."""
        body = {
            "version": _VERSION,
            "kind": self.kind,
            "digest": self.digest,
            "files": {name: {"size": entry.size, "sha256": entry.sha256} for name, entry in self.files.items()},
            "metrics": {
                name: float(value) if math.isfinite(value) else str(float(value))
                for name, value in self.metrics.items()
            },
            "lineage": self.lineage,
            "info": self.info,
            "created": self.created,
        }
        try:
            return json.dumps(body, sort_keys=True, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
        except (TypeError, ValueError) as error:
            raise StoreError(
                f"a {self.kind} manifest cannot be written as JSON: {error}; `info` takes what JSON can say, without nan and inf"
            ) from error

    @classmethod
    def from_json(cls, text: str | bytes, where: str = "manifest") -> Manifest:
        """Read strictly what `to_json` wrote.

        Args:
            where: names the manifest in errors (its URI).

        Raises:
            StoreError: it is not JSON, a field is missing, unknown or of the wrong type, or a newer curricle wrote it.
        """

        def need(condition: bool, what: str) -> None:
            if not condition:
                raise StoreError(f"{where} is damaged: {what}; {_AGAIN}")

        try:
            body = read_object(text)
        except ValueError as error:
            raise StoreError(f"{where} is damaged: {error}; {_AGAIN}") from error
        version = body.get("version")
        if type(version) is int and version > _VERSION:
            raise StoreError(f"{where} has version {version}; this curricle reads version {_VERSION}: update curricle")
        need("version" in body, f"it has no 'version', and is no {MANIFEST} of Curricle's")
        need(type(version) is int and version == _VERSION, f"'version' is {_found(version)}, and should be {_VERSION}")
        wanted = {
            "version": int,
            "kind": str,
            "digest": str,
            "files": dict,
            "metrics": dict,
            "lineage": dict,
            "info": dict,
            "created": str,
        }
        missing, unknown = sorted(set(wanted) - set(body)), sorted(set(body) - set(wanted))
        need(not missing, f"it has no {', '.join(map(repr, missing))}")
        need(not unknown, f"it has unknown fields: {', '.join(map(repr, unknown))}"[:200])
        for name, kind in wanted.items():
            should = kind_of(kind())
            need(isinstance(body[name], kind), f"{name!r} is {kind_of(body[name])}, and should be {should}")
        need(
            body["kind"] in get_args(Kind),
            f"'kind' is {_found(body['kind'])}, and should be one of {', '.join(get_args(Kind))}",
        )
        files = {}
        for name, entry in body["files"].items():
            check_key(name, where)
            need(
                isinstance(entry, dict) and set(entry) == {"size", "sha256"},
                f"file {name!r} should have size and sha256, and is {kind_of(entry)}",
            )
            size, sha256 = entry["size"], entry["sha256"]
            need(type(size) is int and size >= 0, f"file {name!r} has size {_found(size)}")
            need(
                isinstance(sha256, str) and len(sha256) == 64 and set(sha256) <= set("0123456789abcdef"),
                f"file {name!r} has sha256 {_found(sha256)}",
            )
            files[name] = FileEntry(size, sha256)
        metrics = {}
        for name, value in body["metrics"].items():
            need(
                (type(value) in (int, float) and abs(value) <= _LARGEST) or value in ("nan", "inf", "-inf"),
                f"metric {name!r} is no number: {_found(value)}",
            )
            metrics[name] = float(value)
        for name, value in body["lineage"].items():
            need(value is None or isinstance(value, str), f"lineage {name!r} is {kind_of(value)}, and should be a text")
        return cls(body["kind"], body["digest"], files, metrics, body["lineage"], body["info"], body["created"])


_AGAIN = "delete this file and make the artifact again: curricle train-curriculum goes on with the stages of a run, curricle prepare makes data"


def _found(value: Any) -> str:
    """A value of JSON for a message: a short one as it stands."""
    return json.dumps(value) if isinstance(value, int | float | str | None) and len(str(value)) < 80 else kind_of(value)


def publish(
    store: Store,
    prefix: str,
    folder: Path | None,
    *,
    kind: Kind,
    digest: str,
    metrics: Mapping[str, float] | None = None,
    lineage: Mapping[str, str | None] | None = None,
    info: Mapping[str, Any] | None = None,
) -> Manifest:
    """Upload all files of `folder` (None: an artifact without files) under `prefix`, several at once, then the manifest.

    An artifact already there is withdrawn first (its manifest deleted), and files that only the old one had are deleted
    after the new manifest stands: at no moment does a manifest describe files that are not its own. In between there is
    no artifact at `prefix`; one that must never be away is published under a new prefix.

    Raises:
        StoreError: the folder is missing, or a file changed while it was read, or the store refuses.
    """
    paths = files_of(folder) if folder is not None else {}
    key = _key(prefix, MANIFEST)
    before = store.read(key)
    if before is not None:
        store.delete(key)

    def upload(name: str) -> tuple[str, FileEntry]:
        path = paths[name]
        before_reading = _state(path)
        entry = FileEntry(path.stat().st_size, sha256_of(path))
        store.put(_key(prefix, name), path)
        if _state(path) != before_reading:
            raise StoreError(
                f"{store.uri}: {path} changed while it was published to {prefix!r}; publish a finished folder"
            )
        return name, entry

    manifest = Manifest(
        kind=kind,
        digest=digest,
        files=dict(_each(upload, paths)),
        metrics=dict(metrics or {}),
        lineage=dict(lineage or {}),
        info=dict(info or {}),
        created=now(),
    )
    text = manifest.to_json()
    verify(store, prefix, manifest, digests=False)
    store.write(key, text.encode())
    if before is not None:
        _delete_leftovers(store, prefix, before, manifest)
    return manifest


def read_manifest(store: Store, prefix: str) -> Manifest | None:
    """The manifest of the artifact at `prefix` (`""`: the store's root), or None when there is no complete artifact.

    Raises:
        StoreError: a manifest is there but damaged.
    """
    text = store.read(_key(prefix, MANIFEST))
    return None if text is None else Manifest.from_json(text, join_uri(store.uri, prefix, MANIFEST))


def verify(store: Store, prefix: str, manifest: Manifest, *, digests: bool = True) -> None:
    """Compare what the store holds with the manifest: sizes, and with `digests` every sha256 (a remote file is downloaded for it).

    Raises:
        CheckpointError, StoreError: files are missing or altered; all of them are named.
    """
    problems = differences(store, prefix, manifest, digests=digests)
    if problems:
        raise _altered(join_uri(store.uri, prefix), manifest, problems)


def _altered(uri: str, manifest: Manifest, problems: Iterable[str], again: str = "") -> CheckpointError | StoreError:
    """The error for an artifact whose files are wrong; `again` says what was tried besides."""
    said = "; ".join(problems)
    message = f"{manifest.kind} {uri} is not what its manifest says: {said}{again}. Delete it and make it again."
    return CheckpointError(message) if manifest.kind == "checkpoint" else StoreError(message)


def differences(store: Store, prefix: str, manifest: Manifest, *, digests: bool = True) -> list[str]:
    """What of the manifest's files is missing or altered, as `verify` looks at it: a phrase each."""
    return list(_wrong_files(store, prefix, manifest, digests=digests).values())


def _wrong_files(store: Store, prefix: str, manifest: Manifest, *, digests: bool = True) -> dict[str, str]:
    """The manifest's files that are missing or altered, each with what is wrong with it."""
    if not manifest.files:
        return {}
    there = {entry.key: entry.size for entry in store.list(f"{prefix}/" if prefix else "")}

    def problem(name: str) -> str | None:
        entry, size = manifest.files[name], there.get(_key(prefix, name))
        if size is None:
            return f"{name} is missing"
        if size != entry.size:
            return f"{name} has {size} bytes, the manifest says {entry.size}"
        if not digests:
            return None
        path = store.local(_key(prefix, name))
        if path is not None and (what := what_else(path)):
            return f"{name} is {what}"
        if path is not None:
            digest = sha256_of(path)
        else:
            with scratch("curricle-verify-") as folder:
                store.get(_key(prefix, name), folder / "file")
                digest = _sha256(folder / "file")
        return (
            None
            if digest == entry.sha256
            else f"{name} was altered: its sha256 is {digest[:12]}…, the manifest says {entry.sha256[:12]}…"
        )

    found = dict(zip(manifest.files, _each(problem, manifest.files), strict=True))
    return {name: text for name, text in found.items() if text}


def fetch(uri: str, cache_dir: Path) -> tuple[Path, Manifest]:
    """Bring a whole, verified artifact to this machine.

    A folder of this machine is verified where it lies and returned as it is; a file or link in it that loaders read and the manifest does not
    list is an error (`layout.is_loaded`), and so is a checkpoint's folder that a link leads out of its store to. Anything else is downloaded, several files
    at once, to `cache_dir/<name>-<digest of the manifest>`, which appears only when every size and sha256 is right; what
    lies there already is verified again and used. A file that arrives altered is fetched once more: it may have been damaged on its way.

    Args:
        uri: the artifact's own URI, the prefix that holds its manifest.

    Returns:
        The folder with the artifact's files, and its manifest.

    Raises:
        CheckpointError, StoreError: no complete artifact (what is there is listed), or not what its manifest says.
    """
    store = open_store(uri)
    manifest = read_manifest(store, "")
    if manifest is None:
        raise _incomplete(store, uri)
    local = store.local("")
    if local is not None:
        _refuse_link(local)
        _verify_folder(local, uri, manifest)
        return local, manifest
    text = manifest.to_json()
    target = cache_dir / f"{split_uri(uri)[1]}-{hashlib.sha256(text.encode()).hexdigest()[:16]}"
    if _is_cached(target, manifest):
        return target, manifest
    try:
        cache_dir.mkdir(parents=True, exist_ok=True)
        with scratch(".fetching-", cache_dir) as place:
            part = place / "new"
            part.mkdir()
            _each(lambda name: store.get(name, part / name), manifest.files)
            arrived = FolderStore(str(part))
            if wrong := _wrong_files(arrived, "", manifest):
                _log.warning("%s arrived damaged and is fetched again: %s", uri, "; ".join(wrong.values()))
                _each(lambda name: store.get(name, part / name), wrong)
                if still := _wrong_files(arrived, "", manifest):
                    raise _altered(uri, manifest, still.values(), ", and was so again when it was fetched twice")
            (part / MANIFEST).write_text(text, encoding="utf-8")
            try:
                part.rename(target)
            except OSError:
                # another process fetched the same artifact meanwhile: its files are as good, if they verify
                if not _is_cached(target, manifest):
                    raise
    except OSError as error:
        raise StoreError(f"cannot fetch {uri} to {target}: {error.strerror or error}") from error
    return target, manifest


def _verify_folder(folder: Path, uri: str, manifest: Manifest) -> None:
    """`verify` of a folder of this machine from which loaders read: they find by its name also what no manifest lists.

    Raises:
        CheckpointError, StoreError: names what is missing, altered, or there unlisted.
    """
    unlisted = [f"{name} is there, and is not listed in it" for name in _unlisted(folder, manifest)]
    if unlisted:
        raise _altered(uri, manifest, unlisted)
    verify(FolderStore(str(folder)), "", manifest)


def _unlisted(folder: Path, manifest: Manifest) -> list[str]:
    """Names in an artifact's folder that loaders read and its manifest does not list: files, and links whatever they lead to."""
    names = []
    for place, folders, files in os.walk(folder):
        here = Path(place)
        links = [name for name in folders if (here / name).is_symlink()]
        if here == folder:  # what else lies below, as the checkpoints of a stage, is read for itself
            folders[:] = [name for name in folders if is_loaded(name) and name not in links]
        names += [(here / name).relative_to(folder).as_posix() for name in (*files, *links) if not is_part(name)]
    return sorted(name for name in names if is_loaded(name) and name not in {*manifest.files, MANIFEST})


def _refuse_link(folder: Path) -> None:
    """Refuse a checkpoint at a stage's place whose folder lies elsewhere than in that store: what is there may change with the link.

    Raises:
        CheckpointError: names both.
    """
    if not is_checkpoint(folder.name) or not any((folder.parent / name).is_file() for name in (STAGE, MANIFEST)):
        return
    real, root = Path(os.path.realpath(folder)), os.path.realpath(store_of(str(folder)))
    if not real.is_relative_to(root):
        raise CheckpointError(
            f"{folder} is refused: a link leads out of the store, to {real}; open the checkpoint there instead"
        )


def sha256_of(path: Path) -> str:
    """A local file's sha256; remembered within this process while inode, size and mtime stay the same."""
    key = (os.path.abspath(path), *_state(path))
    if key in _hashed:
        return _hashed[key]
    digest = _sha256(path)
    if time.time() - path.stat().st_mtime > _SETTLED:
        _hashed[key] = digest
    return digest


def _state(path: Path) -> tuple[int, int, int]:
    stat = path.stat()
    return stat.st_ino, stat.st_size, stat.st_mtime_ns


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with open_plain(path) as source:
        while chunk := source.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _key(prefix: str, name: str) -> str:
    return f"{prefix}/{name}" if prefix else name


def _each(work: Callable[[str], T], names: Mapping[str, Any]) -> list[T]:
    """`work` of every name, several at once, in order; the first error stops what has not begun."""
    if len(names) < 2:
        return [work(name) for name in names]
    with ThreadPoolExecutor(min(_PARALLEL, len(names)), thread_name_prefix="store") as pool:
        jobs = [pool.submit(work, name) for name in names]
        try:
            return [job.result() for job in jobs]
        except (KeyboardInterrupt, SystemExit, Interrupted):
            give_up()  # else the threads would go on waiting for a store that is away
            raise
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def files_of(folder: Path) -> dict[str, Path]:
    """The files of a folder that an artifact is made of, by their names in it.

    Raises:
        StoreError: there is no such folder, or a link in it leads out of it (to a file that nobody meant to hand over), to a folder, or nowhere.
    """
    if not folder.is_dir():
        raise StoreError(
            f"cannot publish {folder}: {'it is no folder' if folder.exists() else 'there is no such folder'}"
        )
    inside = folder.resolve()
    for path in sorted(folder.rglob("*")):
        target = path.resolve()
        if path.is_symlink() and not (target.is_file() and target.is_relative_to(inside)):
            raise StoreError(
                f"{folder}: {path.relative_to(folder)} is a link to {target}, and only links to files of the same folder are followed; "
                "copy what is meant to its place (`cp -rL` copies a folder with its links followed)"
            )
    files = {
        path.relative_to(folder).as_posix(): path
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not is_part(path.name)
    }
    files.pop(MANIFEST, None)
    return files


def _delete_leftovers(store: Store, prefix: str, before: bytes, manifest: Manifest) -> None:
    try:
        old = Manifest.from_json(before)
    except StoreError:  # a damaged manifest names no files that could be trusted to be its own
        return
    for name in sorted(set(old.files) - set(manifest.files)):
        store.delete(_key(prefix, name))


def _is_cached(target: Path, manifest: Manifest) -> bool:
    if not target.is_dir():
        return False
    try:
        _verify_folder(target, str(target), manifest)
    except (CheckpointError, StoreError) as error:
        _log.warning("the copy in %s is damaged and is fetched again: %s", target, error)
        stays = ["a link"] if target.is_symlink() else remove_named(target, {*manifest.files, MANIFEST})
        if stays:
            raise StoreError(
                f"the copy in {target} is damaged, and cannot make room for a whole one: it is or holds {stays[0]}, which Curricle "
                "did not write; move that away"
            ) from None
        return False
    return True


def _incomplete(store: Store, uri: str) -> CheckpointError | StoreError:
    there = [f"{entry.key} ({entry.size} bytes)" for entry in islice(store.list(""), 11)]
    if len(there) > 10:
        there[10] = "…"
    held = (
        f"no {MANIFEST}, only {', '.join(there)}: an upload that was not finished, or not an artifact's own place"
        if there
        else "nothing"
    )
    message = f"no complete artifact at {uri}: found {held}. Make it again, or pass the URI of a complete one."
    return CheckpointError(message) if split_uri(uri)[1].endswith(".ckpt") else StoreError(message)
