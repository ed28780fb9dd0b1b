"""What a folder of a transformers model is: whole weights, shards or an adapter, with or without a head; opened just far enough to know."""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from curricle.errors import CheckpointError, ConfigError, MissingCheckpointError
from curricle.families.ner.labels import Scheme
from curricle.store import layout
from curricle.store.local import what_else
from curricle.store.strict import read_json

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

_HEAD = re.compile(r"\b(classifier|score)\b")
"""In the names of a head's tensors."""
WHOLE = "whole"
"""Folder in a LoRA stage's checkpoint with the model that has its adapters merged in."""


@dataclass(frozen=True)
class CheckpointFacts:
    """What a checkpoint folder was found to be."""

    path: Path
    kind: str
    """`model` (whole weights), `sharded`, `adapter` (PEFT) or `onnx` (a graph: can be run, not trained)."""
    base_model: str = ""
    """The adapter's base model: a folder of this machine, made good for the working folder, or a name."""
    own_head: bool = True
    """False for an adapter that saved no head: then `labels` are those of its base model's."""
    labels: tuple[str, ...] = ()
    """Names of the head's rows, in order; empty for a plain encoder."""

    @property
    def trained(self) -> bool:
        """Whether the folder holds a model that can be measured, and not only an encoder."""
        return bool(self.labels)


def check_checkpoint(folder: Path | str, *, to_run: bool = False) -> CheckpointFacts:
    """Open a checkpoint's files and say what it is. A trainer's folder leads to its newest ``checkpoint-N`` child.

    Args:
        to_run: an exported graph will do.

    Raises:
        CheckpointError: it is no whole checkpoint; says which file is missing or damaged.
    """
    folder = Path(folder)
    if not folder.is_dir():
        what = f"is {what_else(folder) or 'a file'}, not a folder" if folder.exists() else "does not exist"
        raise MissingCheckpointError(f"Checkpoint path {folder} {what}")
    if not (folder / "config.json").is_file() and not (folder / "adapter_config.json").is_file():
        children = {
            int(m[1]): p for p in folder.iterdir() if p.is_dir() and (m := re.fullmatch(r"checkpoint-(\d+)", p.name))
        }
        if children:
            folder = children[max(children)]
        else:
            folder = next((folder / name for name in ("checkpoint", WHOLE) if (folder / name).is_dir()), folder)
    if (folder / "adapter_config.json").is_file():
        return _adapter(folder)
    if not (folder / "config.json").is_file():
        here = ", ".join(sorted(p.name for p in folder.iterdir())[:12]) or "nothing"
        raise CheckpointError(f"{folder} holds no config.json (nor adapter_config.json); it holds {here}")
    config = read_object(folder / "config.json")
    weights = [name for name in WEIGHTS if (folder / name).is_file() or (folder / f"{name}.index.json").is_file()]
    if (folder / layout.GRAPH).is_file() and not weights:
        if not to_run:
            raise CheckpointError(
                f"{folder} is an ONNX export, which `curricle ner predict` and `ner evaluate` run and nothing trains further; "
                "name the checkpoint that it was made from"
            )
        kind = "onnx"
    else:
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


def _adapter(folder: Path) -> CheckpointFacts:
    """What an adapter folder is: with a head of its own, whose rows labels.json names, or on its base model's head, or of a plain encoder."""
    weights = ("adapter_model.safetensors", "adapter_model.bin")
    _weights(folder, weights)
    said = read_object(folder / "adapter_config.json").get("base_model_name_or_path")
    if not said or not isinstance(said, str):
        raise CheckpointError(
            f"{folder}/adapter_config.json names no base_model_name_or_path, and the adapter cannot be used without its base model; write its folder "
            "or Hugging Face name there"
        )
    beside = folder / said
    base = str(beside) if not Path(said).is_dir() and (beside / "config.json").is_file() else said
    named = _label_file(folder)
    tensors = _header(folder / weights[0]) if (folder / weights[0]).is_file() else {}
    own = any(map(_HEAD.search, tensors)) if tensors else bool(named)  # pickled weights are not opened here
    config = Path(base) / "config.json"
    of_base = _labels(read_object(config), Path(base)) if config.is_file() else ()
    if not own:
        return CheckpointFacts(folder, "adapter", base, own_head=False, labels=of_base)
    if not named:
        same = f"; if it kept the rows of its base model: {json.dumps({'labels': of_base})}" if of_base else ""
        raise CheckpointError(
            f"{folder} is an adapter with a head of its own, and no labels.json names its rows. Write them there in their order: "
            f'{{"labels": ["O", "B-NAME", "I-NAME"]}}{same}'
        )
    rows = {entry["shape"][0] for name, entry in tensors.items() if _HEAD.search(name) and entry.get("shape")}
    if rows - {len(named)}:
        raise CheckpointError(f"{folder}/labels.json names {len(named)} rows, and the head beside it has {max(rows)}")
    _scheme(named, folder / "labels.json")
    return CheckpointFacts(folder, "adapter", base, labels=named)


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
    except ValueError:  # a file beside it may name the rows better
        if (corrected := _label_file(folder)) and list(corrected) != labels:
            if len(corrected) != len(labels):
                raise CheckpointError(
                    f"{folder}/labels.json names {len(corrected)} rows, and the head beside it has {len(labels)}"
                ) from None
            _scheme(corrected, folder / "labels.json")
            return corrected
    _scheme(labels, folder / "config.json")
    return tuple(labels)


def _scheme(labels: Sequence[str], place: Path) -> None:
    try:
        Scheme(labels)
    except ValueError as error:
        raise CheckpointError(f"{place}: its head cannot be used: {error}") from None


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
        content = read_json(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is not JSON: {error}") from None
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} must hold an object, not a {type(content).__name__}")
    return content


def require_positions(max_tokens: int, positions: int | None, source: str | Path) -> None:
    """Refuse windows longer than a model's positions.

    Raises:
        ConfigError: says which length fits.
    """
    if positions is not None and max_tokens > positions:
        raise ConfigError(
            f"model.max_tokens is {max_tokens}, and {source} has positions for {positions} tokens; set model.max_tokens={positions} or less"
        )


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
    _header(path)


def _header(path: Path) -> dict[str, Any]:
    """The tensors of a safetensors file, which is found whole."""
    size = path.stat().st_size
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
    return {name: entry for name, entry in header.items() if name != "__metadata__"}
