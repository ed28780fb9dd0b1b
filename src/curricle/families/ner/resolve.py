"""Which checkpoint a NER training continues from: the environment, then the configuration, then a cache file; and what a checkpoint is.

The first source that is set decides. One that is set and does not lead to a whole checkpoint is an error, never a detour to the next.
Nothing set at all means scratch, if the configuration does not ask for a checkpoint or allows it (``checkpoint.allow_scratch``).
"""

from __future__ import annotations

import json
import os
import re
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from curricle.config.schema import PathsConfig
from curricle.errors import CheckpointError, StoreError
from curricle.store.manifest import fetch

ENVIRONMENT = "CHECKPOINT_PATH"
WEIGHTS = ("model.safetensors", "pytorch_model.bin", "model.bin")
TOKENIZERS = ("tokenizer.json", "vocab.txt", "vocab.json", "spiece.model", "sentencepiece.bpe.model", "tokenizer.model")
_PLACEHOLDER = re.compile(r"\{([^{}]*)\}")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+-]*")


@dataclass(frozen=True)
class CheckpointFacts:
    """What a checkpoint folder was found to be."""

    path: Path
    kind: str
    """`model` (whole weights), `sharded` or `adapter` (PEFT)."""
    base_model: str = ""
    """The adapter's base model."""
    labels: tuple[str, ...] = ()
    """Labels of the head in row order; empty for a plain encoder or an adapter without a label file."""


@dataclass(frozen=True)
class Resolution:
    """Which source won, and why the others did not."""

    path: Path | None
    """The checkpoint, or None for scratch."""
    source: str
    """`environment`, `config`, `cache` or `scratch`."""
    reasons: tuple[str, ...]
    """One sentence a source, in order of priority."""
    facts: CheckpointFacts | None = None


def resolve_checkpoint_path(
    config: Mapping[str, Any],
    previous_cache_path: Path | str | None = None,
    backbone: str | None = None,
    run_id: str | None = None,
    *,
    environ: Mapping[str, str] | None = None,
) -> Path | None:
    """The checkpoint to continue from, or None for scratch. See `explain_checkpoint`."""
    return explain_checkpoint(config, previous_cache_path, backbone, run_id, environ=environ).path


def explain_checkpoint(
    config: Mapping[str, Any],
    previous_cache_path: Path | str | None = None,
    backbone: str | None = None,
    run_id: str | None = None,
    *,
    environ: Mapping[str, str] | None = None,
    named: Callable[[str], Path] | None = None,
) -> Resolution:
    """Resolve the checkpoint and say why.

    Args:
        config: holds ``training.checkpoint`` or a top-level ``checkpoint`` block: `source_path`, `validate`, `allow_scratch`; relative paths
            are tried against the working folder, then against the parent of ``_config_dir``.
        previous_cache_path: JSON file of a former training whose `output_dir` holds ``checkpoint``.
        backbone, run_id: fill ``{backbone}`` and ``{run_id}`` of `source_path`.
        environ: where CHECKPOINT_PATH is looked up; the process's environment by default.
        named: leads a stage's name or an MLflow run id (a source without a slash that is no folder) to a checkpoint's folder.

    Raises:
        CheckpointError: a source is set, but leads to no whole checkpoint; or none is set and scratch is not allowed.
    """
    environ = os.environ if environ is None else environ
    block = _block(config)
    validate = block.get("validate", True)
    reasons: list[str] = []
    for source, find in (
        ("environment", lambda: _from_environment(config, environ, named)),
        ("config", lambda: _from_config(config, block, backbone, run_id, named)),
        ("cache", lambda: _from_cache(previous_cache_path)),
    ):
        found, why = find()
        if found is None:
            reasons.append(f"{source}: {why}")
            continue
        try:
            facts = check_checkpoint(found) if validate else CheckpointFacts(_existing(found), "model")
        except CheckpointError as error:
            raise CheckpointError(f"{why}: {error}") from None
        later = {"environment": ("config", "cache"), "config": ("cache",), "cache": ()}[source]
        reasons.append(f"{source}: {why} leads to {facts.path} ({facts.kind}): taken")
        reasons += [f"{other}: not looked at, {source} goes before it" for other in later]
        return Resolution(facts.path, source, tuple(reasons), facts)
    if block and not block.get("allow_scratch", False):
        raise CheckpointError(
            "no checkpoint to continue from ("
            + "; ".join(reasons)
            + f"). Set {ENVIRONMENT} or checkpoint.source_path, "
            "give a cache file, or set checkpoint.allow_scratch to true to start from the base encoder"
        )
    return Resolution(None, "scratch", (*reasons, "scratch: no source is set"))


def _block(config: Mapping[str, Any]) -> Mapping[str, Any]:
    training = config.get("training") or {}
    inner, outer = training.get("checkpoint") if isinstance(training, Mapping) else None, config.get("checkpoint")
    block = inner if inner is not None else outer
    if block is not None and not isinstance(block, Mapping):
        raise CheckpointError(f"checkpoint must be a mapping with source_path and validate, not {block!r}")
    return block or {}


def _existing(path: Path) -> Path:
    if not path.is_dir():
        raise CheckpointError(
            f"Checkpoint path {path} {'is a file, not a folder' if path.exists() else 'does not exist'}"
        )
    return path


def _from_environment(
    config: Mapping[str, Any], environ: Mapping[str, str], named: Callable[[str], Path] | None
) -> tuple[Path | None, str]:
    value = environ.get(ENVIRONMENT, "")
    if not value.strip():
        return None, f"{ENVIRONMENT} is not set"
    if named and _is_name(value):
        return named(value), f"{ENVIRONMENT}={value}"
    return _local(value, config, f"{ENVIRONMENT}={value}"), f"{ENVIRONMENT}={value}"


def _is_name(text: str) -> bool:
    return _NAME.fullmatch(text) is not None and not Path(text).exists()


def _local(place: str, config: Mapping[str, Any], why: str) -> Path:
    """A folder as it is; a store's URI as a verified local copy below ``paths.cache_dir``."""
    if "://" not in place:
        return Path(place)
    paths = config.get("paths") or {}
    try:
        return fetch(place, Path(paths.get("cache_dir", PathsConfig().cache_dir)) / "checkpoints")[0]
    except StoreError as error:
        raise CheckpointError(f"{why}: {error}") from None


def _from_config(
    config: Mapping[str, Any],
    block: Mapping[str, Any],
    backbone: str | None,
    run_id: str | None,
    named: Callable[[str], Path] | None,
) -> tuple[Path | None, str]:
    pattern = block.get("source_path")
    if not pattern:
        return None, "checkpoint.source_path is not set"
    why = f"checkpoint.source_path {pattern}"
    place = fill_pattern(str(pattern), {"backbone": backbone, "run_id": run_id})
    if named and _is_name(place) and not (Path(config.get("_config_dir") or ".").resolve().parent / place).exists():
        return named(place), why
    path = _local(place, config, why)
    if path.is_absolute() or path.is_dir():
        return path, why
    beside = Path(config.get("_config_dir") or ".").resolve().parent / path
    if beside.is_dir():
        return beside, why
    here = Path.cwd() / path
    missing = f"{here} does not exist" if here == beside else f"neither {here} nor {beside} exists"
    raise CheckpointError(f"{why}: {missing}; train the model first, or correct the path")


def fill_pattern(pattern: str, values: Mapping[str, str | None]) -> str:
    """Fill ``{name}`` placeholders.

    Raises:
        CheckpointError: a placeholder is unknown or has no value, or a value is more than one plain folder name.
    """

    def value(found: re.Match[str]) -> str:
        name = found[1]
        if name not in values:
            raise CheckpointError(
                f"checkpoint.source_path {pattern!r} holds {{{name}}}; known are "
                + ", ".join(f"{{{known}}}" for known in values)
            )
        filling = values[name]
        if not filling:
            raise CheckpointError(
                f"checkpoint.source_path {pattern!r} needs {name}, and none was given (--{name.replace('_', '-')})"
            )
        if not _NAME.fullmatch(filling) or ".." in filling:
            raise CheckpointError(
                f"{name} {filling!r} is not a plain name (letters, digits, . _ @ + -): a path in it could leave the "
                f"folder of {pattern!r}; of a name like org/model give the part behind the slash"
            )
        return filling

    return _PLACEHOLDER.sub(value, pattern)


def _from_cache(cache: Path | str | None) -> tuple[Path | None, str]:
    if not cache:
        return None, "no cache file was given"
    cache = Path(cache)
    why = f"cache file {cache}"
    try:
        content = json.loads(cache.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise CheckpointError(f"{why} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise CheckpointError(f"{why} is not JSON: {error}") from None
    if not isinstance(content, dict):
        raise CheckpointError(f"{why} must hold an object with output_dir, not a {type(content).__name__}")
    folder = content.get("output_dir")
    if not isinstance(folder, str) or not folder:
        raise CheckpointError(
            f"{why} has no output_dir (its keys: {', '.join(content) or 'none'}); a final training writes it"
        )
    if re.match(r"[A-Za-z]:[\\/]|\\\\", folder):
        raise CheckpointError(f"{why}: output_dir {folder} is a Windows path; it was written on another machine")
    path = Path(folder)
    if not path.is_absolute() and not path.is_dir():
        path = cache.parent / path
    if not path.is_dir():
        raise CheckpointError(f"{why}: output_dir {folder} does not exist (deleted, or written on another machine)")
    return path / "checkpoint", why


def check_checkpoint(folder: Path | str) -> CheckpointFacts:
    """Open a checkpoint's files and say what it is. A trainer's folder leads to its newest ``checkpoint-N`` child.

    Raises:
        CheckpointError: it is no whole checkpoint; says which file is missing or damaged.
    """
    folder = _existing(Path(folder))
    if not (folder / "config.json").is_file() and not (folder / "adapter_config.json").is_file():
        children = {
            int(m[1]): p for p in folder.iterdir() if p.is_dir() and (m := re.fullmatch(r"checkpoint-(\d+)", p.name))
        }
        if children:
            folder = children[max(children)]
        else:
            folder = next((folder / name for name in ("checkpoint", "whole") if (folder / name).is_dir()), folder)
    if (folder / "adapter_config.json").is_file():
        adapter = _json(folder / "adapter_config.json")
        _weights(folder, ("adapter_model.safetensors", "adapter_model.bin"))
        base = adapter.get("base_model_name_or_path") or ""
        if not base:
            raise CheckpointError(
                f"{folder}/adapter_config.json names no base_model_name_or_path; the adapter cannot be used without it"
            )
        labels = _json(folder / "labels.json").get("labels", ()) if (folder / "labels.json").is_file() else ()
        return CheckpointFacts(folder, "adapter", base, tuple(labels))
    if not (folder / "config.json").is_file():
        here = ", ".join(sorted(p.name for p in folder.iterdir())[:12]) or "nothing"
        raise CheckpointError(f"{folder} holds no config.json (nor adapter_config.json); it holds {here}")
    config = _json(folder / "config.json")
    kind = _weights(folder, WEIGHTS)
    if not any((folder / name).is_file() for name in TOKENIZERS):
        raise CheckpointError(f"{folder} holds no tokenizer ({', '.join(TOKENIZERS[:3])} ...)")
    return CheckpointFacts(folder, kind, labels=_labels(config, folder))


def _labels(config: dict[str, Any], folder: Path) -> tuple[str, ...]:
    if not any(str(a).endswith("ForTokenClassification") for a in config.get("architectures") or ()):
        return ()
    named = config.get("id2label") or {}
    try:
        labels = [named[str(i)] for i in range(len(named))]
    except KeyError as error:
        raise CheckpointError(
            f"{folder}/config.json: id2label has no entry {error} although it has {len(named)}"
        ) from None
    if len(set(labels)) < len(labels):
        raise CheckpointError(f"{folder}/config.json: id2label names a label twice")
    return tuple(labels)


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(f"{path} is not JSON: {error}") from None
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} must hold an object, not a {type(content).__name__}")
    return content


def _weights(folder: Path, names: tuple[str, ...]) -> str:
    for name in names:
        if (folder / name).is_file():
            _weight_file(folder / name)
            return "model"
        index = folder / f"{name}.index.json"
        if index.is_file():
            shards = sorted(set(_json(index).get("weight_map", {}).values()))
            if not shards:
                raise CheckpointError(f"{index} names no weight files")
            for shard in shards:
                if not (folder / shard).is_file():
                    raise CheckpointError(f"{folder} lacks {shard}, which {index.name} names")
                _weight_file(folder / shard)
            return "sharded"
    raise CheckpointError(f"{folder} holds no weights ({', '.join(names)}, or an index of shards)")


def _weight_file(path: Path) -> None:
    size = path.stat().st_size
    if size == 0:
        raise CheckpointError(f"{path} is empty (0 bytes)")
    if path.suffix != ".safetensors":
        return
    with path.open("rb") as file:
        head = file.read(8)
        length = struct.unpack("<Q", head)[0] if len(head) == 8 else size
        if 8 + length > size:
            raise CheckpointError(f"{path} is no whole safetensors file ({size} bytes)")
        try:
            header = json.loads(file.read(length))
            ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
        except (ValueError, KeyError, TypeError, AttributeError):
            raise CheckpointError(f"{path} has a damaged header") from None
    if 8 + length + max(ends, default=0) != size:
        raise CheckpointError(
            f"{path} is cut off: {size} bytes, its header tells of {8 + length + max(ends, default=0)}"
        )
