"""Prove that a place can be used before anything expensive asks for it; with the credentials of the process that runs this."""

from __future__ import annotations

import hashlib
import os
import uuid
from collections.abc import Callable, Iterable, Iterator

from curricle.errors import ConfigError, Finding, StoreError
from curricle.launch import open_launcher
from curricle.store import open_store
from curricle.store.patience import at_most
from curricle.store.scratch import scratch

PATIENCE = 15.0
"""Seconds that a verb waits for a store that is away: whoever asks whether it works wants to know soon."""
_SIZE = 1 << 20


def run_checks(store_uri: str, launcher: str, task_config: str = "") -> Iterator[Finding]:
    """Everything that training asks for, tried: the store from here, then what the launcher needs, which for a cluster includes a pod as the
    workers will be that tries the store with the workers' own credentials. Each finding comes as soon as it is known.

    Raises:
        ConfigError: there is no such launcher, or its settings are wrong.
        JobError: there is no cluster.
    """
    opened = open_launcher(launcher, task_config)
    yield from check_store(store_uri)
    yield from opened.preflight(("-m", "curricle.steps.probe", store_uri))


def require(findings: Iterable[Finding]) -> None:
    """Raise `ConfigError` with every failed finding; nothing when all is well."""
    failed = [f"{f.name}: {f.detail}. {f.advice}" for f in findings if not f.ok]
    if failed:
        raise ConfigError(failed)


def check_store(uri: str) -> Iterator[Finding]:
    """Open the store, then write, read, list and delete one object of 1 MiB under a key that nobody else has.

    Never raises for what a store refuses: each verb that was tried is a finding. What cannot be tried after a failure is
    left out: without a write, which leaves all or nothing, there is nothing to read, list or delete.
    """

    def attempt(name: str, verb: Callable[[], str], advice: str) -> Finding:
        try:
            with at_most(PATIENCE):
                return Finding(name, True, verb())
        except StoreError as error:
            return Finding(name, False, str(error), advice)

    try:
        store = open_store(uri)
    except StoreError as error:
        advice = "Correct the URI or set the variables that it names (docs/stores.md)."
        yield Finding("open", False, str(error), advice)
        return
    yield Finding("open", True, store.uri)
    folder = f"curricle-preflight-{uuid.uuid4().hex}"
    key, data = f"{folder}/probe.bin", os.urandom(_SIZE)

    def write() -> str:
        with scratch("curricle-preflight-") as local:
            (local / "probe").write_bytes(data)
            store.put(key, local / "probe")
        return f"an object of {_SIZE >> 20} MiB"

    def read() -> str:
        content = store.read(key)
        if content is None:
            raise StoreError(f"{store.uri}: wrote {_SIZE} bytes to {key!r}, read back nothing")
        if content != data:
            what = f"{len(content)} bytes, sha256 {hashlib.sha256(content).hexdigest()[:12]}…"
            raise StoreError(f"{store.uri}: wrote {_SIZE} bytes to {key!r}, read back {what}")
        return "the same bytes came back"

    def list_() -> str:
        listed = [(entry.key, entry.size) for entry in store.list(f"{folder}/")]
        if listed != [(key, _SIZE)]:
            raise StoreError(f"{store.uri}: wrote {key!r}, but the listing of {folder!r} shows {listed}")
        return "the object is listed with its size"

    def delete() -> str:
        store.delete(folder)
        if store.read(key) is not None:
            raise StoreError(f"{store.uri}: deleted {key!r}, but it can still be read")
        return "nothing is left"

    written = attempt(
        "write", write, "Give the credentials the right to write here (s3:PutObject), or make the folder writable."
    )
    yield written
    if written.ok:
        yield attempt(
            "read",
            read,
            "Give the credentials the right to read here (s3:GetObject); a store that alters data cannot be used.",
        )
        yield attempt("list", list_, "Give the credentials the right to list the bucket (s3:ListBucket).")
        yield attempt(
            "delete",
            delete,
            f"Give the credentials the right to delete here (s3:DeleteObject); then remove {folder}/ by hand.",
        )
