"""The model: a transformers encoder with a token-classification head, made from a base encoder or a checkpoint, labels by name.

A checkpoint's head is loaded as it is and its rows are then moved by `labels.reconcile`; nothing is thrown away because a size differs.
"""

from __future__ import annotations

import functools
import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from curricle.errors import CheckpointError, ConfigError
from curricle.families.encoders import (
    Wrong,
    check_tensors,
    encoder_folder,
    load_config,
    load_model,
    load_tokenizer,
    merge_adapters,
)
from curricle.families.ner.checkpoint import TOKENIZERS, CheckpointFacts, check_checkpoint, require_positions
from curricle.families.ner.config import NerConfig
from curricle.families.ner.labels import Reconciliation, Row, reconcile

LABELS_FILE = "labels.json"
_log = logging.getLogger(__name__)


def build_model(
    encoder: str, tags: Sequence[str], checkpoint: Path | None = None, *, dropout: float | None = None, seed: int = 0
) -> tuple[Any, Any, Reconciliation | None]:
    """Model in float32, tokenizer, and how the checkpoint's head was carried over (None from a base encoder).

    Args:
        encoder: base encoder; used for scratch, and to check nothing else.
        tags: rows of the head, in order.
        seed: draws the fresh rows.

    Raises:
        CheckpointError: the checkpoint cannot be read or is no encoder; it or the base encoder is not whole, or code of its own.
        ConfigError: the base encoder cannot be read.
    """
    tags = list(tags)
    if checkpoint is None:
        model, tokenizer, _ = _with_head(encoder_folder(encoder), tags, ConfigError, dropout, seed, fresh=True)
        return model, tokenizer, None
    facts = check_checkpoint(checkpoint)
    head_tags = list(facts.labels)
    if facts.kind == "adapter":
        model, tokenizer = _with_adapters(facts, head_tags or tags, dropout, seed)
        if not head_tags:
            return model, tokenizer, None
    else:
        model, tokenizer, missing = _with_head(
            facts.path,
            head_tags or tags,
            CheckpointError,
            dropout,
            seed,
            fresh=not head_tags,
        )
        if not head_tags:
            return model, tokenizer, None
        check_tensors(facts.path, missing, {})
    made = reconcile(head_tags, tags)
    replace_head(model, made, seed)
    _log.info("labels of %s:\n%s", facts.path, made.table())
    return model, tokenizer, made


def _with_adapters(facts: CheckpointFacts, tags: Sequence[str], dropout: float | None, seed: int) -> tuple[Any, Any]:
    """An adapter's base model with the adapters merged in, and its tokenizer: that of the adapter's folder, where it has one.

    The head is the adapter's own, else the base model's; a fresh one where neither has any.
    """
    kept = bool(facts.labels) and not facts.own_head
    base = encoder_folder(facts.base_model)
    try:
        model, tokenizer, missing = _with_head(base, tags, CheckpointError, dropout, seed, fresh=not kept)
    except CheckpointError as error:
        if Path(base).exists():
            raise
        raise CheckpointError(
            f"{facts.path} is an adapter, and its base model {facts.base_model!r} is no folder here (nor in the adapter's) and cannot be "
            f"fetched by that name ({error}). Put the base model's folder there, or set base_model_name_or_path in adapter_config.json to where it is"
        ) from None
    if kept:
        check_tensors(base, missing, {})
    model = merge_adapters(model, facts.path, missing if facts.labels and facts.own_head else ())
    if any((facts.path / name).is_file() for name in TOKENIZERS):
        tokenizer = load_tokenizer(facts.path, CheckpointError)
        rows = model.get_input_embeddings().num_embeddings
        if len(tokenizer) > rows:
            raise CheckpointError(
                f"the tokenizer of {facts.path} has {len(tokenizer)} tokens and its base model {base} {rows}: the adapter was trained on a base model with "
                "more; save that one, with the adapters merged in (merge_and_unload)"
            )
    return model, tokenizer


def _with_head(
    source: str | Path,
    tags: Sequence[str],
    wrong: Wrong,
    dropout: float | None,
    seed: int,
    *,
    fresh: bool,
) -> tuple[Any, Any, list[str]]:
    """A model with a head of these rows, its tokenizer, and the names of the tensors that are drawn anew.

    Args:
        fresh: the head is to be a new one: rows of a head that `source` brings were trained for something else, and are left out.
    """
    from transformers import AutoModelForTokenClassification
    from transformers.utils import logging

    logging.set_verbosity_error()  # of a fresh head: that it is fresh
    settings: dict[str, Any] = {"id2label": dict(enumerate(tags)), "label2id": {tag: i for i, tag in enumerate(tags)}}
    if dropout is not None:
        settings["classifier_dropout"] = dropout
    torch.manual_seed(seed)
    model, missing = load_model(AutoModelForTokenClassification, source, wrong, **settings)
    if fresh and _head_name(model) + ".weight" not in missing:
        _log.warning("%s brings a head of its own, which is left out: its rows were trained for something else", source)
        replace_head(model, Reconciliation(tuple(Row(tag, None, row, "added") for row, tag in enumerate(tags))), seed)
    return model, load_tokenizer(source, wrong), missing


def head_of(model: Any) -> torch.nn.Linear:
    """The classifier of a token-classification model."""
    return getattr(model, _head_name(model))


def positions_of(model: Any) -> int | None:
    """How many tokens a model has positions for; None where it has no table of them (relative or rotary positions)."""
    for name, part in model.named_modules():
        if name.endswith("position_embeddings") and isinstance(part, torch.nn.Embedding):
            return part.num_embeddings - (0 if part.padding_idx is None else part.padding_idx + 1)
    return None


def check(config: NerConfig, parent_dir: Path | None) -> None:
    """What is known before a stage begins: that its windows fit the encoder, or the checkpoint's. Loads no weights.

    Raises:
        ConfigError: they do not, or the encoder cannot be read.
        CheckpointError: the checkpoint is not whole.
    """
    facts = check_checkpoint(parent_dir) if parent_dir is not None else None
    source = config.model.encoder if facts is None else facts.base_model or str(facts.path)
    require_positions(config.model.max_tokens, _positions_at(encoder_folder(source)), source)


@functools.lru_cache(64)
def _positions_at(source: str) -> int | None:
    """`positions_of` the model of a folder or name, by its configuration."""
    from transformers import AutoModelForTokenClassification

    config = load_config(source, ConfigError)
    try:
        with torch.device("meta"):
            return positions_of(AutoModelForTokenClassification.from_config(config))
    except Exception as error:  # what stands in a configuration can make the library fail in any way
        said = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ConfigError(f"{source} cannot be loaded as an encoder: {said[:300]}") from None


def _head_name(model: Any) -> str:
    for name in ("classifier", "score"):
        if isinstance(getattr(model, name, None), torch.nn.Linear):
            return name
    raise ConfigError(
        f"{type(model).__name__} has no linear classifier; use an encoder whose token-classification head is one linear layer"
    )


@torch.no_grad()
def replace_head(model: Any, made: Reconciliation, seed: int) -> None:
    """Give the model the new head: rows copied by meaning (the mean of two where two are merged), fresh ones drawn from N(0, 0.02²) with zero bias, config's labels set."""
    old, sources = head_of(model), made.sources()
    new = torch.nn.Linear(old.in_features, len(sources), bias=old.bias is not None, dtype=old.weight.dtype)
    draw = torch.Generator().manual_seed(seed)
    new.weight.copy_(torch.randn(new.weight.shape, generator=draw) * 0.02)
    if new.bias is not None:
        new.bias.zero_()
    for row, source in enumerate(sources):
        if source:
            new.weight[row] = old.weight[list(source)].mean(0)
            if new.bias is not None:
                new.bias[row] = old.bias[list(source)].mean(0)
    setattr(model, _head_name(model), new)
    tags = [row.tag for row in made.head()]
    model.num_labels = model.config.num_labels = len(tags)
    model.config.id2label, model.config.label2id = dict(enumerate(tags)), {t: i for i, t in enumerate(tags)}


def create_model_and_tokenizer(
    config: Mapping[str, Any],
    label2id: Mapping[str, int],
    id2label: Mapping[Any, str],
    checkpoint_path: Path | str | None = None,
) -> tuple[torch.nn.Module, Any, torch.device]:
    """The seed's call: (model on its device, tokenizer, device). A checkpoint's head is reconciled with the labels by name.

    Args:
        config: its ``model.encoder`` or ``model.backbone`` names the base encoder; a `NerConfig` is taken too.
        label2id, id2label: the head's rows; each must be the other's inverse.

    Raises:
        ConfigError: the two mappings disagree, or no encoder is named.
        CheckpointError: the checkpoint cannot be used.
    """
    by_id = {int(i): label for i, label in id2label.items()}
    if {label: i for i, label in by_id.items()} != dict(label2id) or sorted(by_id) != list(range(len(by_id))):
        raise ConfigError(
            f"label2id {dict(label2id)} and id2label {dict(id2label)} are not each other's inverse over 0..n-1"
        )
    section = config.get("model", {}) if isinstance(config, Mapping) else {"encoder": config.model.encoder}
    encoder = section.get("encoder") or section.get("backbone")
    if not encoder and checkpoint_path is None:
        raise ConfigError("config['model'] names no encoder (or backbone), and no checkpoint was given")
    model, tokenizer, _ = build_model(
        encoder or "", [by_id[i] for i in range(len(by_id))], Path(checkpoint_path) if checkpoint_path else None
    )
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return model.to(device), tokenizer, device


def write_labels(
    folder: Path, tags: Sequence[str], made: Reconciliation | None, annotations: Mapping[str, int]
) -> None:
    """Write the tag list, how it came about, and how many training annotations a rule of `windows` changed."""
    content = {
        "labels": list(tags),
        "reconciliation": made.to_dict() if made else None,
        "annotations": dict(annotations),
    }
    (folder / LABELS_FILE).write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
