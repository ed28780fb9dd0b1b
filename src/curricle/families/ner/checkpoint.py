"""What a folder of a transformers model is: whole weights, shards or an adapter, with or without a head; opened just far enough to know."""

from __future__ import annotations

import json
import re
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from curricle.errors import CheckpointError, MissingCheckpointError
from curricle.families.ner.labels import Scheme

WEIGHTS = ("model.safetensors", "pytorch_model.bin", "model.bin")
TOKENIZERS = (
    "tokenizer.json",
    "vocab.txt",
    "vocab.json",
    "spiece.model",
    "sentencepiece.bpe.model",
    "tokenizer.model",
)
TOKENIZER_SETTINGS = ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "merges.txt")


@dataclass(frozen=True)
class CheckpointFacts:
    """What a checkpoint folder was found to be."""

    path: Path
    kind: str
    """`model` (whole weights), `sharded` or `adapter` (PEFT)."""
    base_model: str = ""
    """The adapter's base model."""
    labels: tuple[str, ...] = ()
    """Names of the head's rows, in order; empty for a plain encoder or an adapter without a label file."""

    @property
    def trained(self) -> bool:
        """Whether the folder holds a model that can be measured, and not only an encoder."""
        return bool(self.labels) or self.kind == "adapter"


def check_checkpoint(folder: Path | str) -> CheckpointFacts:
    """Open a checkpoint's files and say what it is. A trainer's folder leads to its newest ``checkpoint-N`` child.

    Raises:
        CheckpointError: it is no whole checkpoint; says which file is missing or damaged.
    """
    folder = Path(folder)
    if not folder.is_dir():
        what = "is a file, not a folder" if folder.exists() else "does not exist"
        raise MissingCheckpointError(f"Checkpoint path {folder} {what}")
    if not (folder / "config.json").is_file() and not (folder / "adapter_config.json").is_file():
        children = {
            int(m[1]): p for p in folder.iterdir() if p.is_dir() and (m := re.fullmatch(r"checkpoint-(\d+)", p.name))
        }
        if children:
            folder = children[max(children)]
        else:
            folder = next((folder / name for name in ("checkpoint", "whole") if (folder / name).is_dir()), folder)
    if (folder / "adapter_config.json").is_file():
        adapter = read_object(folder / "adapter_config.json")
        _weights(folder, ("adapter_model.safetensors", "adapter_model.bin"))
        base = adapter.get("base_model_name_or_path") or ""
        if not base:
            raise CheckpointError(
                f"{folder}/adapter_config.json names no base_model_name_or_path; the adapter cannot be used without it"
            )
        return CheckpointFacts(folder, "adapter", base, _label_file(folder))
    if not (folder / "config.json").is_file():
        here = ", ".join(sorted(p.name for p in folder.iterdir())[:12]) or "nothing"
        raise CheckpointError(f"{folder} holds no config.json (nor adapter_config.json); it holds {here}")
    config = read_object(folder / "config.json")
    kind = _weights(folder, WEIGHTS)
    if not any((folder / name).is_file() for name in TOKENIZERS):
        above = sorted(path.name for path in folder.parent.iterdir() if path.name in (*TOKENIZERS, *TOKENIZER_SETTINGS))
        way = (
            f"the folder above has it: copy {', '.join(above)} there"
            if above
            else (
                "save the one that it was trained with there: AutoTokenizer.from_pretrained(BASE).save_pretrained(FOLDER)"
            )
        )
        raise CheckpointError(f"{folder} holds no tokenizer ({', '.join(TOKENIZERS[:3])} ...); {way}")
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
    if labels and all(re.fullmatch(r"LABEL_\d+", str(label)) for label in labels):
        named = _label_file(folder)
        if len(named) != len(labels):
            problem = f"names {len(named)} of them" if named else "is not there"
            raise CheckpointError(
                f"{folder}/config.json does not name the {len(labels)} rows of its head (LABEL_0 ...), and labels.json beside it {problem}. "
                'Write them there in the order of the rows: {"labels": ["O", "B-NAME", "I-NAME"]}'
            )
        labels = list(named)
    try:
        Scheme(labels)
    except ValueError as error:
        raise CheckpointError(f"{folder}/config.json: its head cannot be used: {error}") from None
    return tuple(labels)


def _label_file(folder: Path) -> tuple[str, ...]:
    """The names of a head's rows in `labels.json`; none where there is no such file."""
    path = folder / "labels.json"
    if not path.is_file():
        return ()
    labels = read_object(path).get("labels")
    if not isinstance(labels, list) or not all(isinstance(label, str) and label for label in labels):
        raise CheckpointError(f'{path} must hold {{"labels": [...]}}: the names of the head\'s rows, in order')
    return tuple(labels)


def read_object(path: Path) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        CheckpointError: it is something else.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
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
            shards = sorted(set(read_object(index).get("weight_map", {}).values()))
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
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError, MemoryError):
            raise CheckpointError(f"{path} has a damaged header") from None
    if 8 + length + max(ends, default=0) != size:
        raise CheckpointError(
            f"{path} is cut off: {size} bytes, its header tells of {8 + length + max(ends, default=0)}"
        )
