"""Where the data comes from: the sources' fingerprint, and workbooks and tables as local files. Kept apart from `prepare`, which needs numpy."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from curricle.errors import ConfigError, DataError, MissingDataError, StoreError
from curricle.families.codes.config import CodesConfig, CodesData
from curricle.families.codes.workbooks import WORKBOOKS, demo_titles, require_workbooks
from curricle.registry import PARENT
from curricle.store import open_store
from curricle.store.local import what_else
from curricle.store.manifest import read_manifest
from curricle.store.scratch import scratch
from curricle.tables import SUFFIXES, find_files

FORMAT, TABLES_FORMAT, FURTHER_FORMAT = 1, 1, 1
"""Of the workbooks', of tables' and of a continued training's data: raised whenever the same sources prepare to other bytes."""


def fingerprint(config: CodesConfig) -> str:
    """Digest of what the prepared data depends on: the sources' bytes, the split's settings, the format. Prepares nothing.

    Raises:
        DataError: a source is missing.
    """
    if config.data.old:
        return _of_further(config.data)
    if config.data.classification:
        return _of_tables(config.data)
    parts = [
        f"naics format {FORMAT}",
        f"split seed {config.data.split_seed}",
        f"hidden codes {config.data.hidden_codes}",
    ]
    if config.data.source == "demo":
        titles = json.dumps(demo_titles(), ensure_ascii=False)
        parts.append(f"demo {hashlib.sha256(titles.encode()).hexdigest()}")
    else:
        with local_folder(config.data.source) as folder:
            require_workbooks(folder)
            for book in WORKBOOKS:
                parts.append(f"{book.file} {hashlib.sha256((folder / book.file).read_bytes()).hexdigest()}")
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _of_tables(data: CodesData) -> str:
    kept = asdict(data) | {"classification": "", "labelled": ""}
    del kept["old"], kept["replay"]
    digest = hashlib.sha256(f"tables format {TABLES_FORMAT}\n{json.dumps(kept, sort_keys=True)}\n".encode())
    with local_tables(data) as (classification, labelled):
        _add_files(digest, [*filter(None, [classification]), *labelled])
    return digest.hexdigest()


def _add_files(digest: Any, files: Iterable[tuple[Path, str]]) -> None:
    for path, _ in files:
        with path.open("rb") as file:
            digest.update(f"{path.suffix.lower()} {hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())


def _of_further(data: CodesData) -> str:
    """Of new texts behind old data, which are known by their digest: their manifest's, or, before they are prepared, that in their name.

    Raises:
        ConfigError: no new texts are named.
        DataError: the old data are named by neither, or hold another classification than is named.
    """
    if not data.files:
        raise ConfigError(
            "data.labelled names no new texts for the continued training; say data.labelled=corrections.csv"
        )
    if data.old == PARENT:
        raise DataError(
            f"data.old is {PARENT!r}: only a training knows which model goes before (--from-checkpoint); name prepared data by their URI"
        )
    manifest = read_manifest(open_store(data.old), "")
    digest_of_old = manifest.digest[:16] if manifest else data.old.rstrip("/").rpartition("-")[2]
    if not re.fullmatch(r"[0-9a-f]{16}", digest_of_old):
        raise MissingDataError(f"data.old: {data.old} holds no prepared data (manifest.json is missing)")
    said = asdict(data.columns) | {"encoding": data.encoding, "seed": data.split_seed, "replay": data.replay}
    digest = hashlib.sha256(
        f"further format {FURTHER_FORMAT}\n{digest_of_old}\n{json.dumps(said, sort_keys=True)}\n".encode()
    )
    with local_tables(data) as (classification, labelled):
        if classification and manifest:
            _check_classification(data, classification)
        _add_files(digest, labelled)
    return digest.hexdigest()


def _check_classification(data: CodesData, named: tuple[Path, str]) -> None:
    """Refuse another classification than that of the old data before anything runs; needs numpy, so only where one is named."""
    from curricle.families.codes.continued import check_same, tree_of
    from curricle.families.codes.prepare import read_rows

    with scratch("curricle-codes-") as place:
        open_store(data.old).get("codes.jsonl", place / "codes.jsonl")
        check_same(data, tree_of(list(read_rows(place / "codes.jsonl"))), named)


@contextmanager
def local_tables(data: CodesData) -> Iterator[tuple[tuple[Path, str] | None, list[tuple[Path, str]]]]:
    """The table of codes (None where none is named) and those of labelled texts as local files, each with its name for people; those of a store are fetched
    to a temporary folder.

    Raises:
        DataError: one is missing.
    """
    with ExitStack() as stack:

        def local(where: str) -> list[tuple[Path, str]]:
            if "://" in where:
                return _fetched(where, stack.enter_context(scratch("curricle-codes-")))
            if strange := what_else(Path(where)):
                raise DataError(f"{where} is {strange}; name a file, or a folder of tables")
            return [(path, str(path)) for path in find_files(where)]

        codes = local(data.classification) if data.classification else []
        if data.classification and len(codes) != 1:
            raise DataError(
                f"data.classification {data.classification} names {len(codes)} tables; give the one that holds the codes"
            )
        yield codes[0] if codes else None, [found for where in data.files for found in local(where)]


def _fetched(uri: str, folder: Path) -> list[tuple[Path, str]]:
    """The tables at a store URI, one or those under a prefix, in `folder`."""
    above, _, name = uri.rstrip("/").rpartition("/")
    single = name.lower().endswith(SUFFIXES)
    store = open_store(above if single else uri)
    held = sorted(entry.key for entry in store.list(name if single else ""))
    keys = [key for key in held if key == name] if single else [key for key in held if key.lower().endswith(SUFFIXES)]
    if not keys:
        with suppress(StoreError):  # a web server lists nothing
            held = sorted(entry.key for entry in store.list(""))
        raise MissingDataError(
            f"no table at {uri}; {above if single else uri} holds {', '.join(held[:12]) or 'nothing'}"
        )
    for number, key in enumerate(keys):
        store.get(key, folder / f"{number:05}{Path(key).suffix}")
    base = above if single else uri.rstrip("/")
    return [(folder / f"{number:05}{Path(key).suffix}", f"{base}/{key}") for number, key in enumerate(keys)]


@contextmanager
def local_folder(source: str) -> Iterator[Path]:
    """The source as a local folder; a store's workbooks are fetched to a temporary one."""
    if "://" not in source:
        yield Path(source)
        return
    from curricle.store.web import keys

    store = open_store(source)
    held = set(keys(store, [book.file for book in WORKBOOKS]))
    missing = [book.file for book in WORKBOOKS if book.file not in held]
    if missing:
        expected = ", ".join(repr(book.file) for book in WORKBOOKS)
        raise DataError(
            f"{source} lacks {', '.join(map(repr, missing))}; expected {expected}; it holds: {', '.join(sorted(held)) or 'nothing'}"
        )
    with scratch("curricle-naics-") as folder:
        for book in WORKBOOKS:
            store.get(book.file, folder / book.file)
        yield folder
