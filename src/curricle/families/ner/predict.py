"""Use of a trained folder: raw text of any length to spans with offsets."""

from __future__ import annotations

import heapq
import itertools
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import torch

from curricle.errors import CheckpointError, DataError
from curricle.families.ner.calibration import Calibration, Sureness, read_calibration
from curricle.families.ner.checkpoint import WHOLE, check_checkpoint, read_object
from curricle.families.ner.combine import text_key
from curricle.families.ner.formats import require_folder, split_file
from curricle.families.ner.kinds import regions_of, rest
from curricle.families.ner.model import build_model, positions_of
from curricle.families.ner.onnx_model import open_onnx
from curricle.families.ner.tagger import ScoredSet, Tagger
from curricle.store.strict import read_json

LONGEST = 1 << 26
"""Bytes of a line of the input at most."""
Form = Literal["jsonl", "label-studio"]
Found = tuple[dict[str, Any], list[float], float]
"""A record with the spans that the model finds, their probabilities, and the record's certainty (`tagger.Scored`)."""


def load_tagger(folder: Path | str, device: str | torch.device = "cpu") -> Tagger:
    """The tagger of a checkpoint's folder; its probabilities are calibrated where the folder says how (`calibration`).

    Raises:
        CheckpointError: the folder holds no whole token-classification model, or a file beside it is damaged.
    """
    folder = Path(folder)
    if (folder / WHOLE).is_dir():
        folder = folder / WHOLE
    facts = check_checkpoint(folder, to_run=True)
    if not facts.labels and facts.kind == "adapter":
        raise CheckpointError(
            f"{folder} is an adapter without a head (peft saves one for task_type TOKEN_CLS, or with modules_to_save), and its base model "
            f"{facts.base_model} brings none that is known here: as a start for training it will do, for tagging it lacks the classifier"
        )
    if not facts.labels:
        raise CheckpointError(
            f"{folder} is a plain encoder: its config.json names no token-classification head; train it first"
        )
    model, tokenizer, _ = open_onnx(facts.path) if facts.kind == "onnx" else build_model("", facts.labels, folder)
    window = _windows(folder / "windows.json", positions_of(model))
    device = torch.device(device)
    known = read_calibration(folder)
    return Tagger(model.to(device).eval(), tokenizer, facts.labels, device, calibration=known, **window)


def calibrate(tagger: Tagger, data: Path | str) -> Calibration:
    """Fit the probabilities of a tagger to the validation records of a dataset's folder (its test records are left for the test).

    Raises:
        DataError: there are none, or the model finds no span in them.
    """
    require_folder(Path(data))
    path = split_file(Path(data), "validation")
    if path is None:
        raise DataError(
            f"{data} holds no validation records (validation.json, .jsonl, .conll) to fit the probabilities to"
        )
    records, seen = ScoredSet(path, tagger), Sureness(tagger.scheme.outside)
    records.score(tagger, seen=seen)
    made = records.calibration(seen)
    if made is None:
        raise DataError(f"the model finds no span in {path}: there is nothing to fit the probabilities to")
    tagger.calibration = made
    return made


def _windows(path: Path, positions: int | None) -> dict[str, int]:
    """Length and stride of the windows that a model was trained with, where its folder says so; else 128 and 32, within its positions.

    Raises:
        CheckpointError: the file is damaged.
    """
    if not path.is_file():
        longest = min(128, positions or 128)
        return {"max_tokens": longest, "stride": longest // 4}
    window = read_object(path)
    length, stride = window.get("max_tokens"), window.get("stride")
    if set(window) != {"max_tokens", "stride"} or type(length) is not int or type(stride) is not int:
        raise CheckpointError(f"{path} must hold max_tokens and stride, two whole numbers, not {window}"[:300])
    if positions is not None and length > positions:
        raise CheckpointError(f"{path}: max_tokens is {length}, and the model has positions for {positions} tokens")
    if not 0 <= stride < length - 2:
        raise CheckpointError(f"{path}: stride {stride} must lie in [0, max_tokens - 2); max_tokens is {length}")
    return {"max_tokens": length, "stride": stride}


def predict(tagger: Tagger, texts: Sequence[str], threshold: float = 0.0) -> list[list[dict[str, Any]]]:
    """Per text its spans: ``{"start", "end", "label", "text", "score"}``, characters, end exclusive, in text order.

    Args:
        threshold: spans whose score (`tagger.Scored`) is lower are left out.
    """
    return [
        [
            {"start": start, "end": end, "label": label, "text": text[start:end], "score": score}
            for (start, end, label), score in zip(found.spans, found.scores, strict=True)
            if score >= threshold
        ]
        for text, found in zip(texts, tagger.tag_scored(tagger.encode(texts)), strict=True)
    ]


def decoded(lines: Iterable[bytes]) -> Iterator[str]:
    """Lines of UTF-8; a byte order mark at the start is skipped.

    Raises:
        DataError: a line is something else; names its number and the byte in the input.
    """
    at = 0
    for number, line in enumerate(lines, 1):
        if len(line) >= LONGEST:
            raise DataError(
                f"input line {number} (byte {at}): longer than {LONGEST:,} bytes; one text a line was expected"
            )
        try:
            text = line.decode("utf-8")
        except UnicodeDecodeError as error:
            raise DataError(f"input line {number} (byte {at + error.start}): not UTF-8 text") from None
        yield text.removeprefix("\ufeff") if number == 1 else text
        at += len(line)


def records_of(lines: Iterable[str]) -> Iterator[dict[str, Any]]:
    """The record of each line: a text, which may be empty, or JSON (what begins with ``{``) whose `text` is taken.

    Raises:
        DataError: such a line is not JSON or has no text; names its number.
    """
    for number, line in enumerate(lines, 1):
        line = line.rstrip("\r\n")
        record: Any = {"text": line}
        if line.lstrip().startswith("{"):
            try:
                record = read_json(line)
                json.dumps(record, ensure_ascii=False).encode()
            except UnicodeEncodeError:
                raise DataError(f"input line {number} holds half a surrogate pair, which is no character") from None
            except (ValueError, RecursionError) as error:
                raise DataError(f"input line {number} begins with {{ and is not JSON: {error}") from None
            if type(record.get("text")) is not str:
                raise DataError(f"input line {number}: text must be a string")
        yield record


def predict_lines(
    tagger: Tagger, lines: Iterable[str], batch: int = 256, form: Form = "jsonl", threshold: float = 0.0
) -> Iterator[str]:
    """Lines in (`records_of`), the records out with what was found; a record's other keys are kept.

    Args:
        form: `jsonl`: JSON Lines with `annotations` and, in the same order, their `scores`; `label-studio`: the lines of one JSON array of tasks
            with pre-annotations and their scores.
        threshold: spans whose score is lower are left out.

    Raises:
        DataError: a line is no record.
    """
    scored = _scored(tagger, records_of(lines), batch, threshold)
    if form == "label-studio":
        yield from array_of(task_of(*found) for found in scored)
    else:
        yield from (json.dumps(record | {"scores": each}, ensure_ascii=False) for record, each, _ in scored)


def select_uncertain(tagger: Tagger, lines: Iterable[str], count: int, batch: int = 256) -> tuple[list[Found], int]:
    """The `count` records that the model is least sure of, the least sure first, and how many texts there were to choose from.

    Blank texts are no choice, and of equal texts (`combine.text_key`) one is. In memory are those chosen and a key of each text.

    Raises:
        DataError: a line is no record.
    """
    held: list[tuple[float, int, Found]] = []
    seen: set[bytes] = set()

    def fresh() -> Iterator[dict[str, Any]]:
        for record in records_of(lines):
            if record["text"].strip() and (key := text_key(record["text"])) not in seen:
                seen.add(key)
                yield record

    for number, found in enumerate(_scored(tagger, fresh(), batch)):
        entry = (-found[2], -number, found)
        if len(held) < count:
            heapq.heappush(held, entry)
        else:
            heapq.heappushpop(held, entry)
    return [found for *_, found in sorted(held, reverse=True)], len(seen)


def _scored(tagger: Tagger, records: Iterator[dict[str, Any]], batch: int, threshold: float = 0.0) -> Iterator[Found]:
    while held := list(itertools.islice(records, batch)):
        tagged = tagger.tag_scored(tagger.encode([record["text"] for record in held]))
        for record, (spans, each, whole) in zip(held, tagged, strict=True):
            kept = [i for i, score in enumerate(each) if score >= threshold]
            yield record | {"annotations": [list(spans[i]) for i in kept]}, [each[i] for i in kept], whole


def task_of(record: dict[str, Any], each: Sequence[float], whole: float) -> dict[str, Any]:
    """A Label Studio task whose regions are pre-annotations with scores."""
    regions = [region | {"score": score} for region, score in zip(regions_of(record), each, strict=True)]
    return {"data": {"text": record["text"]} | rest(record), "predictions": [{"score": whole, "result": regions}]}


def array_of(values: Iterable[Any]) -> Iterator[str]:
    """The lines of a JSON array, one value a line, as they come."""
    mark = "["
    for value in values:
        yield mark + json.dumps(value, ensure_ascii=False)
        mark = ","
    yield "]" if mark == "," else "[]"
