"""Where NER datasets come from: folders as they lie, or prefixes of a store, fetched for as long as they are read."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from curricle.errors import DataError
from curricle.families.ner.config import NerData
from curricle.families.ner.formats import FURTHER_SUFFIXES, SPLITS, SUFFIXES
from curricle.store.scratch import scratch


@contextmanager
def local_datasets(data: NerData) -> Iterator[NerData]:
    """The same section with every dataset on this machine.

    Raises:
        DataError: a store's prefix holds no training file.
        StoreError: the store refuses.
    """
    remote = {
        name: value for name in ("old_dataset_path", "new_dataset_path") if "://" in (value := getattr(data, name))
    }
    with scratch("curricle-ner-") as place:
        folders: dict[str, Any] = {
            name: str(_fetched(uri, place / name, f"data.{name}")) for name, uri in remote.items()
        }
        yield replace(data, **folders)


def _fetched(uri: str, folder: Path, what: str) -> Path:
    from curricle.store import open_store, web

    store = open_store(uri)
    wanted = [f"{split}{suffix}" for split in SPLITS for suffix in (*SUFFIXES, *FURTHER_SUFFIXES)]
    held = web.keys(store, wanted)
    keys = [key for key in held if key in wanted]
    folders = set(SPLITS) - {key.partition(".")[0] for key in keys}
    keys += [key for key in held if key.count("/") == 1 and key.partition("/")[0] in folders]
    if not any(key.startswith(("train.", "train/")) for key in keys):
        raise DataError(
            f"{what}: {uri}/train.json is not there (nor train.jsonl, train.conll); it holds {', '.join(held[:10]) or 'nothing'}"
        )
    folder.mkdir()
    for key in keys:
        (folder / key).parent.mkdir(exist_ok=True)
        store.get(key, folder / key)
    return folder
