"""Convert a NER dataset from any layout that is read to one that other tools read: streaming, whole or not at all, every loss counted.

One rule for what a format cannot hold: the text with its annotations goes before all else, the rest is left out or made to fit, and counted.
With `strict` nothing may be lost.
"""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from curricle.errors import ConfigError, DataError
from curricle.families.ner.foreign import write_brat, write_docbin, write_parquet
from curricle.families.ner.formats import Seen, iter_pieces, said_left_out
from curricle.families.ner.kinds import KINDS, Kind, LeftOut, Odd, kind_of, rest
from curricle.families.ner.tokens import ends_with_blanks, record_of, tagged
from curricle.store.local import folders_above, write_whole
from curricle.store.ours import new_folder, require_free

TARGETS = ("seed", "jsonl", "conll", "label-studio", "doccano", "prodigy", "brat", "hf", "spacy")
HF = next(kind for kind in KINDS if kind.name == "hf")
ARRAYS = ("seed", "label-studio", "spacy")
"""Formats that are one JSON array; the other JSON ones are a value a line."""


@dataclass
class Converted:
    """What a conversion read and wrote."""

    what: str = ""
    """What the input turned out to be."""
    records: int = 0
    annotations: int = 0
    left_out: Counter[str] = field(default_factory=Counter)
    """What of the input is no record by the rules of its tool."""
    notes: Counter[str] = field(default_factory=Counter)
    """What people should know of how it was read."""
    losses: Counter[str] = field(default_factory=Counter)
    """What the target cannot hold."""

    def lines(self) -> list[str]:
        """For people."""
        lines = [f"read as {self.what}: {self.records} records, {self.annotations} annotations"]
        lines += [f"left out: {count} × {why}" for why, count in sorted(self.left_out.items()) if count]
        lines += [f"note: {count} × {why}" for why, count in sorted(self.notes.items()) if count]
        return lines + [
            f"not held by the target: {count} × {why}" for why, count in sorted(self.losses.items()) if count
        ]


def convert(source: Path, output: Path, target: str, *, strict: bool = False) -> Converted:
    """Read `source` and write it to `output`, which must not be there yet.

    Args:
        source: a file or folder of any layout that `formats` reads.
        target: one of `TARGETS`. `hf` is JSON Lines, or Parquet with features for a name in ``.parquet``; `spacy` is JSON, or a DocBin
            for a name in ``.spacy``; `brat` is a folder.

    Raises:
        DataError: the input is missing, damaged or wrong, with file and record; or, under `strict`, something would be lost.
        OutputError: something is at `output`.
        ConfigError: the target is none.
    """
    if target not in TARGETS:
        raise ConfigError(f"--to {target!r} is not one of {', '.join(TARGETS)}")
    if not source.exists():
        raise DataError(f"{source} is not there")
    require_free(output, for_file=target != "brat")
    fine = (target == "conll" or target == "hf") and not ends_with_blanks(p.record for p in iter_pieces(source))
    made, seen = Converted(), Seen()

    def records() -> Iterator[dict[str, Any]]:
        for piece in iter_pieces(source, seen):
            made.records += 1
            made.annotations += len(piece.record["annotations"])
            yield piece.record

    def finished() -> None:
        made.what, made.left_out, made.notes = seen.what, seen.left_out, seen.notes
        if not made.records:
            why = said_left_out(made.left_out)
            raise DataError(f"{source}, read as {made.what}, holds no record{why}; nothing was written")
        lost = {why: count for why, count in made.losses.items() if count}
        if strict and lost:
            said = "; ".join(f"{count} × {why}" for why, count in sorted(lost.items()))
            raise DataError(f"{source} does not fit into {target}, and nothing was written: {said}")

    if target == "brat":
        with new_folder(output) as folder:
            write_brat(records(), folder, made.losses)
            finished()
        return made

    def fill(out: BinaryIO) -> None:
        _write(records(), out, target, output.suffix, fine, made.losses)
        finished()

    with folders_above(output):
        write_whole(output, fill)
    return made


def _write(
    records: Iterable[dict[str, Any]], out: BinaryIO, target: str, suffix: str, fine: bool, losses: Counter[str]
) -> None:
    place = Path(out.name)
    if target == "spacy" and suffix == ".spacy":
        write_docbin(records, place, losses)
    elif target == "hf" and suffix == ".parquet":
        write_parquet(records, place, fine, losses)
    elif target == "hf":
        out.writelines(_json(_tokens(record, fine, losses)) + b"\n" for record in records)
    elif target == "conll":
        out.writelines(_conll(record, fine, losses) for record in records)
    else:
        kind = next(k for k in KINDS if k.write and k.name == ("seed" if target == "jsonl" else target))
        values = (_value(kind, record, losses) for record in records)
        if target not in ARRAYS:
            out.writelines(_json(value) + b"\n" for value in values)
            return
        marks = itertools.chain([b"[\n"], itertools.repeat(b",\n"))
        out.writelines(mark + _json(value) for mark, value in zip(marks, values, strict=False))
        out.write(b"\n]\n")


def _json(value: Any) -> bytes:
    """One line of JSON; escaped where a further key holds half a surrogate pair."""
    try:
        return json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return json.dumps(value).encode()


def _value(kind: Kind, record: dict[str, Any], losses: Counter[str]) -> Any:
    """A record's value; further keys that would be read as something else stay out."""
    assert kind.write
    value = kind.write(record)
    if not _is_read_back(kind, value, record):
        losses["further keys of records that mean something else there"] += 1
        value = kind.write({"text": record["text"], "annotations": record["annotations"]})
    return value


def _tokens(record: dict[str, Any], fine: bool, losses: Counter[str]) -> Any:
    """A record's tokens and tags with its further keys, as `_value`."""
    tokens, tags = tagged(record, fine, losses)
    value = {"tokens": tokens, "ner_tags": tags} | rest(record)
    if not _is_read_back(HF, value, record_of(tokens, tags) | rest(record)):
        losses["further keys of records that mean something else there"] += 1
        value = {"tokens": tokens, "ner_tags": tags}
    return value


def _conll(record: dict[str, Any], fine: bool, losses: Counter[str]) -> bytes:
    """A sentence and the empty line behind it."""
    tokens, tags = tagged(record, fine, losses)
    losses["further keys of records"] += len(record) > 2
    losses["texts without a word"] += not tokens
    losses["tokens -DOCSTART-, written without the last sign"] += (documents := tokens.count("-DOCSTART-"))
    if documents:
        tokens = ["-DOCSTART" if token == "-DOCSTART-" else token for token in tokens]
    lines = [f"{token}\t{tag}\n" for token, tag in zip(tokens, tags, strict=True)]
    return "".join([*lines, "\n"] if lines else []).encode()


def _is_read_back(kind: Kind, value: Any, record: dict[str, Any]) -> bool:
    try:
        return kind_of(value) is kind and kind.read(value, lambda column: [], Counter()) == record
    except (LeftOut, Odd):
        return False
