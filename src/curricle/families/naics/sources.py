"""Where the data comes from: the sources' fingerprint and the workbooks as a local folder. Kept apart from `prepare`, which needs numpy."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from curricle.errors import DataError
from curricle.families.naics.config import NaicsConfig
from curricle.families.naics.workbooks import WORKBOOKS, demo_titles, require_workbooks
from curricle.store.scratch import scratch

FORMAT = 1
"""Raised whenever the same sources prepare to other bytes."""


def fingerprint(config: NaicsConfig) -> str:
    """Digest of what the prepared data depends on: the sources' bytes, the split's settings, the format. Prepares nothing.

    Raises:
        DataError: a source is missing.
    """
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


@contextmanager
def local_folder(source: str) -> Iterator[Path]:
    """The source as a local folder; a store's workbooks are fetched to a temporary one."""
    if "://" not in source:
        yield Path(source)
        return
    from curricle.store import open_store

    store = open_store(source)
    held = {entry.key for entry in store.list("")}
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
