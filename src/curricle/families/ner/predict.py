"""Use of a trained folder: raw text of any length to spans with offsets."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from curricle.errors import CheckpointError, DataError
from curricle.families.ner.model import build_model
from curricle.families.ner.resolve import check_checkpoint
from curricle.families.ner.tagger import Tagger


def load_tagger(folder: Path | str, device: str | torch.device = "cpu") -> Tagger:
    """The tagger of a checkpoint's folder.

    Raises:
        CheckpointError: the folder holds no whole token-classification model.
    """
    folder = Path(folder)
    if (folder / "whole").is_dir():
        folder = folder / "whole"
    facts = check_checkpoint(folder)
    if not facts.labels:
        raise CheckpointError(f"{folder} is a plain encoder: its config.json names no token-classification head; train it first")
    model, tokenizer, _ = build_model("", facts.labels, folder)
    place = folder / "windows.json"
    window = json.loads(place.read_text(encoding="utf-8")) if place.is_file() else {"max_tokens": 128, "stride": 32}
    device = torch.device(device)
    return Tagger(model.to(device).eval(), tokenizer, facts.labels, device, **window)


def predict(tagger: Tagger, texts: Sequence[str]) -> list[list[dict[str, Any]]]:
    """Per text its spans: ``{"start", "end", "label", "text"}``, characters, end exclusive, in text order."""
    spans, _, _ = tagger.tag(tagger.encode(texts), range(len(texts)))
    return [[{"start": s, "end": e, "label": label, "text": text[s:e]} for s, e, label in spans[i]] for i, text in enumerate(texts)]


def predict_lines(tagger: Tagger, lines: Iterable[str], batch: int = 256) -> Iterator[str]:
    """Lines in, JSON lines out. A line that begins with ``{`` is a record whose `text` is taken and whose other keys are kept.

    Raises:
        DataError: such a line is not JSON or has no text; names its number.
    """
    held: list[dict[str, Any]] = []

    def flush() -> Iterator[str]:
        for record, spans in zip(held, predict(tagger, [r["text"] for r in held]), strict=True):
            yield json.dumps(record | {"annotations": [[s["start"], s["end"], s["label"]] for s in spans]}, ensure_ascii=False)
        held.clear()

    for number, line in enumerate(lines, 1):
        line = line.rstrip("\r\n")
        if not line.strip():
            continue
        record: Any = {"text": line}
        if line.lstrip().startswith("{"):
            try:
                record = json.loads(line)
            except ValueError as error:
                raise DataError(f"input line {number} begins with {{ and is not JSON: {error}") from None
            if type(record.get("text")) is not str:
                raise DataError(f"input line {number}: text must be a string")
        held.append(record)
        if len(held) == batch:
            yield from flush()
    if held:
        yield from flush()
