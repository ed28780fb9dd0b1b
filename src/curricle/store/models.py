"""Folders of model files that lie in a store, a hub or on a web server without a manifest of ours: brought to this machine, whole, and kept there."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from curricle.environment import XDG_CACHE_HOME, value_of
from curricle.errors import StoreError
from curricle.store import Store, open_store
from curricle.store.manifest import fetch, files_of, read_manifest, sha256_of
from curricle.store.scratch import scratch
from curricle.store.web import WebStore, keys

FILES = (
    *("config.json", "README.md", "model.safetensors", "model.safetensors.index.json", "adapter_config.json", "adapter_model.safetensors"),
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.txt", "vocab.json", "merges.txt"),
    *("spiece.model", "sentencepiece.bpe.model", "tokenizer.model", "calibration.json"),
)  # fmt: skip
"""What is asked for by name where nobody lists what there is."""
_OTHERS = (".h5", ".msgpack", ".onnx", ".onnx_data", ".ot", ".tflite", ".gguf", ".mlmodel", ".pb")
"""The same weights for other programs."""
_PICKLES = (".bin", ".pt", ".pth", ".ckpt")
"""Left out where there are safetensors."""


def models_cache() -> Path:
    """Where models are kept that the configuration names by a URI: below the user's cache folder."""
    return Path(value_of(XDG_CACHE_HOME) or Path.home() / ".cache") / "curricle" / "models"


def fetch_model(uri: str, cache_dir: Path) -> Path:
    """The folder with a model's files; an artifact of ours is verified by its manifest.

    Of a hub the commit names the folder, of a bucket what it lists; a web server tells neither, so that its files are fetched each time.

    Raises:
        StoreError: nothing is there, or a file is not what the hub says.
    """
    store = open_store(uri)
    if read_manifest(store, "") is not None:
        return fetch(uri, cache_dir)[0]
    names = _wanted(store)
    if "config.json" not in names and "adapter_config.json" not in names:
        raise StoreError(
            f"{uri} holds no model: config.json is not there; it holds {', '.join(names[:8]) or 'no file of one'}"
        )
    version = _version(store)
    slug = uri.rstrip("/").rpartition("/")[2].partition("@")[0]
    target = cache_dir / f"{slug}-{version}"
    if version and target.is_dir():
        return target
    try:
        cache_dir.mkdir(parents=True, exist_ok=True)
        with scratch(".fetching-", cache_dir) as place:
            part = place / "new"
            for name in names:
                store.get(name, part / name)
            if not version:
                lines = "\n".join(f"{name} {sha256_of(path)}" for name, path in files_of(part).items())
                target = cache_dir / f"{slug}-{hashlib.sha256(lines.encode()).hexdigest()[:16]}"
            try:
                part.rename(target)
            except OSError:
                if not target.is_dir():  # else another process fetched the same meanwhile
                    raise
    except OSError as error:
        raise StoreError(f"cannot fetch {uri} to {target}: {error.strerror or error}") from error
    return target


def _wanted(store: Store) -> list[str]:
    """The files that make up the model."""
    names = keys(store, FILES)
    index = "model.safetensors.index.json"
    if isinstance(store, WebStore) and not store.lists and index in names:
        try:
            parts: Sequence[str] = sorted(set(json.loads(store.read(index) or b"")["weight_map"].values()))
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise StoreError(f"{store.uri}/{index} is damaged: {error}") from None
        names += parts
    tensors = any(name.endswith(".safetensors") for name in names)
    left_out = (*_OTHERS, *_PICKLES) if tensors else _OTHERS
    return [
        name for name in names if not name.endswith(left_out) and not name.startswith(("onnx/", "openvino/", "coreml/"))
    ]


def _version(store: Store) -> str:
    """What changes with the files; empty where nobody tells."""
    if isinstance(store, WebStore):
        return store.commit[:16]
    lines = "\n".join(f"{entry.key} {entry.size} {entry.modified}" for entry in store.list(""))
    return hashlib.sha256(f"{store.uri}\n{lines}".encode()).hexdigest()[:16]
