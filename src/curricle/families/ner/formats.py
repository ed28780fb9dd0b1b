"""Records of a NER dataset: how they stand in a file, where each begins and ends, and what makes one valid.

A record is ``{"text": str, "annotations": [[start, end, label], ...]}``; offsets are characters, end exclusive; further keys are
kept. Three layouts are read: one JSON array, JSON Lines, and CoNLL. UTF-8 only; a byte order mark at the start of a file is skipped.
A file is read once, in order, through a memory map: what stays in memory is the record at hand and, if wished, its byte range.
What a JSON value says may be written as other tools do (`kinds`), as its first record shows; all others in the file are of the same kind.
Folders and binary files are read by `foreign`.

CoNLL: a line is a token (its first column) and a tag (its last one), columns apart by tabs if the line has one, else by blanks; no other
white space separates. An empty line or a ``-DOCSTART-`` line ends a sentence; the text is the tokens joined by blanks. Tags are O, B- and I-
(IOB1 and IOB2), with S- and E- (IOBES) or U- and L- (BILOU). A line that begins with ``#`` and has no tag is a comment, unless its first column
is a word like ``#golang``, alone or before a tab: that is a token whose tag is missing, and refused. Of three columns or more the first may count
the tokens of each sentence (GermEval, CoNLL-U): then the second one is the token, and every line that begins with ``#`` is a comment.
"""

from __future__ import annotations

import itertools
import json
import math
import mmap
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

import orjson

from curricle.errors import CurricleError, DataError, MissingDataError
from curricle.families.ner.foreign import features_beside, foreign_kind, read_foreign
from curricle.families.ner.kinds import SEED, Kind, LeftOut, Odd, has_objects, kind_of
from curricle.families.ner.labels import label_problem
from curricle.families.ner.tokens import SCHEMES, TAG, Span, record_of
from curricle.store.local import what_else
from curricle.store.strict import read_json

Layout = Literal["array", "lines", "conll"]

NAMES: dict[Layout, str] = {"array": "JSON array", "lines": "JSON Lines", "conll": "CoNLL"}
"""For people."""
SPLITS = ("train", "validation", "test")
SUFFIXES = (".json", ".jsonl", ".conll")
FURTHER_SUFFIXES = (".ndjson", ".txt", ".tsv", ".bio", ".iob", ".iob2", ".spacy", ".parquet", ".arrow")
"""Looked for where a split has no file of the first three."""
_JSON = (".json", ".jsonl", ".ndjson")
_LOOKED_AT = 100
"""Sentences of a CoNLL file that show whether its first column counts."""
_NUMBER = re.compile("[0-9]{1,9}")
_SPLIT_WORD = re.compile(r"[0-9]+[-.][0-9]+")
_FORGET = 8 << 20
"""Bytes of a file after which its mapped pages are let go (whole pages on every system)."""
_BOM = b"\xef\xbb\xbf"
_BOUNDARY = re.compile(rb"\}\s*([,\]])\s*")
_BEHIND = re.compile(rb"\s*([,\]])\s*")
_TOKEN = re.compile(rb'"(?:[^"\\]|\\.)*"|[{}\[\]]', re.DOTALL)
_HALF = re.compile(r"\\u[dD][89a-fA-F]")
_SPACE = re.compile(rb"\s*")
_ONCE = (b'"text"', b'"annotations"', b'"entities"', b'"label"', b'"spans"', b'"tokens"', b'"ner_tags"')
"""Keys that say what a record is. One of them twice in a record makes it be read slowly, for it may stand twice in one object; of further keys
the last counts, as in all JSON: to look at them all would halve the speed."""


class Piece(NamedTuple):
    """One record as it stands in a file: its number (from 1), its byte range, and what it says."""

    number: int
    start: int
    """-1 where it has no byte range, as in a folder or a binary file."""
    end: int
    record: dict[str, Any]
    plain: bool = True
    """Whether its bytes are the record itself as JSON."""


@dataclass
class Seen:
    """What a file turned out to be, filled while it is read."""

    what: str = ""
    """Layout and kind, for people."""
    left_out: Counter[str] = field(default_factory=Counter)
    """What was no record, or no span, by the rules of the tool that wrote it."""
    notes: Counter[str] = field(default_factory=Counter)
    """What people should know of how records were read."""
    numbered: bool = False
    """Of CoNLL: whether the first column counts the tokens, and the second one is the token."""


def split_file(folder: Path, split: str) -> Path | None:
    """The file of one split in a dataset folder (``train.json``, ``train.jsonl`` or ``train.conll``, else one of the further suffixes, else
    the BRAT or Hugging Face folder ``train``), or None.

    Raises:
        DataError: two files of one split stand there.
    """
    files: list[Path] = []
    for suffixes in (SUFFIXES, FURTHER_SUFFIXES):
        files = files or [path for suffix in suffixes if (path := folder / f"{split}{suffix}").is_file()]
    if not files and (folder / split).is_dir() and foreign_kind(folder / split):
        files = [folder / split]
    if len(files) > 1:
        raise DataError(
            f"{folder} holds {' and '.join(p.name for p in files)}: which one is the {split} data? Keep one"
        )
    return files[0] if files else None


def require_folder(folder: Path, what: str = "dataset") -> None:
    """Refuse a dataset's path that is no folder.

    Raises:
        MissingDataError: says what stands there.
    """
    if not folder.is_dir():
        what_stands = f"{what_else(folder) or 'a file'}, not a folder" if folder.exists() else "not there"
        raise MissingDataError(f"{what} path not found: {folder} is {what_stands}")


def dataset_files(folder: Path | str, what: str = "dataset") -> dict[str, Path]:
    """The files of a dataset folder by split; `train` is always there.

    Raises:
        MissingDataError: the folder or its training file is missing.
    """
    folder = Path(folder)
    require_folder(folder, what)
    files = {split: path for split in SPLITS if (path := split_file(folder, split))}
    if "train" not in files:
        here = ", ".join(sorted(p.name for p in folder.iterdir())[:10]) or "nothing"
        raise MissingDataError(
            f"{what}: {folder}/train.json is not there (nor train.jsonl, train.conll); the folder holds {here}"
        )
    return files


def layout_of(path: Path, data: bytes | mmap.mmap) -> Layout:
    """Which layout a file has: by its suffix and its first characters; of another suffix JSON is what begins with a record."""
    if path.suffix == ".conll":
        return "conll"
    first = _after_space(data, len(_BOM) if data[:3] == _BOM else 0)
    if data[first : first + 1] == b"[":
        inside = _after_space(data, first + 1)
        if data[inside : inside + 1] == b'"' and _is_json(_line(data, first)):
            return "lines"  # of pairs [text, {entities}]
        if data[inside : inside + 1] == b"]" and _after_space(data, inside + 1) == len(data):
            return "array"  # of no record
        return "array" if path.suffix in _JSON or data[inside : inside + 2] in (b'{"', b'["') else "conll"
    return (
        "lines" if path.suffix in _JSON or data[first : first + 1] == b"{" and _is_json(_line(data, first)) else "conll"
    )


def _line(data: bytes | mmap.mmap, at: int) -> bytes:
    end = data.find(b"\n", at)
    return data[at : len(data) if end < 0 else end]


def _is_json(raw: bytes) -> bool:
    try:
        _loads(raw)
    except ValueError:
        return False
    return True


def iter_pieces(path: Path, seen: Seen | None = None) -> Iterator[Piece]:
    """All records of a file, in order, each checked (`check_record`). Memory is bounded by the longest record.

    Args:
        seen: is told what the file turned out to be.

    Raises:
        DataError: the file cannot be read, is damaged, or a record is wrong; names file, record number and byte.
    """
    try:  # around the reading alone: what the reader of the records raises does not come in here
        yield from _pieces(path, Seen() if seen is None else seen)
    except CurricleError:  # some of ours are OSErrors too
        raise
    except OSError as error:
        raise DataError(f"{error.filename or path} cannot be read: {error.strerror or error}") from None


def _pieces(path: Path, seen: Seen) -> Iterator[Piece]:
    if strange := what_else(path):
        raise DataError(
            f"{path} is {strange}, and records are read from a file or a folder, for they are read twice; write it to a file first"
        )
    if path.is_dir() or path.suffix not in (*_JSON, ".conll") and foreign_kind(path):
        seen.what = foreign_kind(path)
        if not seen.what:
            below = sorted({str(place.parent.relative_to(path)) for place in path.rglob("*.ann")})
            way = f"; sub-folders are not read ({', '.join(below[:5])}): give each alone" if below else ""
            raise DataError(f"{path} is a folder with neither .ann nor .arrow files{way}")
        for number, record in enumerate(read_foreign(path, seen.left_out, seen.notes), 1):
            check_record(record, path, number)
            yield Piece(number, -1, -1, record, False)
        return
    if path.stat().st_size == 0:
        raise DataError(f"{path} is empty (0 bytes); a JSON array, JSON Lines or CoNLL was expected")
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        start = len(_BOM) if data[:3] == _BOM else 0
        layout = layout_of(path, data)
        if layout == "conll":
            seen.numbered = _is_numbered(path, data, start)
            values: Iterator[tuple[int, int, Any]] = _conll(path, data, start, seen)
        else:
            values = (_array if layout == "array" else _lines)(path, data, start)
        behind = 0
        kind, seen.what = None, NAMES[layout]
        for number, (begin, end, value) in enumerate(values, 1):
            record, plain = value, layout != "conll"
            if plain:
                if kind is None:
                    kind = kind_of(value)
                    seen.what = f"{NAMES[layout]}, {kind.shape}"
                if kind is not SEED or has_objects(value):
                    plain = False
                    try:
                        record = _read(kind, value, path, number, seen.notes)
                    except LeftOut as reason:
                        seen.left_out[str(reason)] += 1
                        continue
            check_record(record, path, number)
            if end - behind > _FORGET:
                data.madvise(mmap.MADV_DONTNEED, behind, _FORGET)
                behind += _FORGET
            yield Piece(number, begin, end, record, plain)


def _read(kind: Kind, value: Any, path: Path, number: int, notes: Counter[str]) -> dict[str, Any]:
    """The record of a JSON value that is of this kind, as the first one of the file is."""
    own = kind_of(value)
    if own is not kind and own is not SEED and own.shape != kind.shape:
        raise DataError(f"{path}, record {number}: {kind.shape} was expected, as before, and this is {own.shape}")
    if type(value) is not (list if kind.name == "spacy" else dict):
        raise DataError(f"{path}, record {number}: {kind.shape} was expected, as before, not {_kind(value)}")
    try:
        return kind.read(value, features_beside(path), notes)
    except Odd as problem:
        raise DataError(f"{path}, record {number}: {problem}") from None


def read_piece(path: Path, number: int, start: int, raw: bytes, numbered: bool = False) -> dict[str, Any]:
    """The record of a `Piece` that was read before, from its bytes.

    Args:
        numbered: as `Seen` says of its file.

    Raises:
        DataError: they are no record any more (the file was changed meanwhile); names file, record and byte.
    """
    if path.suffix == ".conll" or path.suffix not in _JSON and not (raw[:1] in b"[{" and _is_json(raw)):
        return record_of(*_token_lines(path, number, start, raw, Seen(numbered=numbered)))
    try:
        value = _loads(raw)
    except ValueError as error:
        raise _fail(
            path, number, start, f"not JSON any more, the file was changed while it was read: {error}"
        ) from None
    kind = kind_of(value)
    return value if kind is SEED and not has_objects(value) else _read(kind, value, path, number, Counter())


def _fail(path: Path, number: int, byte: int, problem: str) -> DataError:
    return DataError(f"{path}, record {number} (byte {byte}): {problem}")


def _loads(raw: bytes) -> Any:
    """What the standard library reads; orjson, which refuses a little more (NaN, lone surrogates), only makes it faster."""
    if any(raw.count(key) > 1 for key in _ONCE):
        _require_once(raw)
    try:
        return orjson.loads(raw)
    except orjson.JSONDecodeError:
        text = raw.decode("utf-8")
        try:
            value = json.loads(text, parse_constant=_no_number, parse_float=_finite)
            if isinstance(value, dict) and _HALF.search(text):  # those of text and labels are `check_record`'s
                json.dumps({**value, "text": 0, "annotations": 0}, ensure_ascii=False).encode()
            return value
        except RecursionError:
            raise json.JSONDecodeError("nested too deeply", text, 0) from None
        except UnicodeEncodeError:
            raise json.JSONDecodeError("half a surrogate pair, which is no character", text, 0) from None
        except ValueError as error:
            if isinstance(error, json.JSONDecodeError):
                raise
            raise json.JSONDecodeError("a whole number of thousands of digits", text, 0) from None


def _no_number(word: str) -> Any:
    raise json.JSONDecodeError(f"{word}, which is no number in JSON", word, 0)


def _finite(digits: str) -> float:
    value = float(digits)
    if math.isinf(value):
        raise json.JSONDecodeError(f"{digits[:20]}, which is larger than any number", digits, 0)
    return value


def _require_once(raw: bytes) -> None:
    """Refuse a record in which one object has a key twice; what is no JSON is left to others."""
    text = raw.decode("utf-8", "replace")
    try:
        read_json(text)
    except (json.JSONDecodeError, RecursionError):
        return
    except ValueError as error:
        if "stands twice" in str(error):
            raise json.JSONDecodeError(str(error).partition(";")[0], text, 0) from None


def _after_space(data: bytes | mmap.mmap, at: int) -> int:
    """The first byte from `at` on that is no white space."""
    space = _SPACE.match(data, at)
    return space.end() if space else at


def _array(path: Path, data: mmap.mmap, at: int) -> Iterator[tuple[int, int, dict[str, Any]]]:
    size = len(data)
    at = _after_space(data, _after_space(data, at) + 1)
    number = 1
    if data[at : at + 1] == b"]":
        _nothing_after(path, data, at + 1, 0)
        return
    while True:
        boundary = _BOUNDARY.search(data, at)
        record: Any = None
        if boundary:
            end = boundary.start() + 1
            try:
                record = _loads(data[at:end])
            except ValueError:
                boundary = None
        if boundary is None:
            end = _object_end(data, at)
            try:
                record = _loads(data[at:end])
            except UnicodeDecodeError as error:
                raise _fail(path, number, at + error.start, "not UTF-8 text") from None
            except json.JSONDecodeError as error:
                cut = " (the file seems to be cut off)" if end >= size else ""
                raise _fail(
                    path, number, at + len(error.doc[: error.pos].encode()), f"not JSON: {error.msg}{cut}"
                ) from None
            boundary = _BEHIND.match(data, end)
            if not boundary:
                raise _fail(
                    path,
                    number,
                    end,
                    "a comma or the closing ] was expected after this record; the file seems to be cut off",
                )
        yield at, end, record
        if boundary[1] == b"]":
            _nothing_after(path, data, boundary.end(), number)
            return
        at, number = boundary.end(), number + 1


def _nothing_after(path: Path, data: mmap.mmap, at: int, number: int) -> None:
    at = _after_space(data, at)
    if at < len(data):
        raise _fail(path, number, at, "something stands after the closing ] of the array")


def _object_end(data: mmap.mmap, at: int) -> int:
    """Where the value that begins at `at` ends, by counting brackets outside strings; the file's end if it never closes."""
    depth = 0
    for token in _TOKEN.finditer(data, at):
        mark = token[0][:1]
        if mark in b"{[":
            depth += 1
        elif mark in b"}]":
            depth -= 1
            if depth <= 0:
                return token.end() if depth == 0 else token.start()
        elif depth == 0:
            return token.end()
    return len(data)


def _lines(path: Path, data: mmap.mmap, at: int) -> Iterator[tuple[int, int, dict[str, Any]]]:
    number, size = 0, len(data)
    while at < size:
        end = data.find(b"\n", at)
        end = size if end < 0 else end
        raw = data[at:end]
        if raw.strip():
            number += 1
            try:
                record = _loads(raw)
            except UnicodeDecodeError as error:
                raise _fail(path, number, at + error.start, "not UTF-8 text") from None
            except json.JSONDecodeError as error:
                raise _fail(
                    path,
                    number,
                    at + len(error.doc[: error.pos].encode()),
                    f"not JSON: {error.msg}; a JSON array of records or one record a line was expected",
                ) from None
            yield at, end, record
        at = end + 1


def _conll(path: Path, data: mmap.mmap, at: int, seen: Seen) -> Iterator[tuple[int, int, dict[str, Any]]]:
    number = 1
    for begin, end in _blocks(data, at):
        tokens, tags = _token_lines(path, number, begin, data[begin:end], seen)
        if tokens:
            yield begin, end, record_of(tokens, tags)
            number += 1


def _is_numbered(path: Path, data: mmap.mmap, at: int) -> bool:
    """Whether the first of three columns or more counts the tokens: in all of the first sentences, of which one has several.

    Raises:
        DataError: it holds numbers alone, and they do not count: no token, and no number of one.
    """
    columns: list[list[str]] = []
    for begin, end in itertools.islice(_blocks(data, at), _LOOKED_AT):
        lines = data[begin:end].decode("utf-8", "replace").split("\n")
        rows = [_columns(line) for line in lines if not line.startswith("#")]
        columns.append([row[0] for row in rows if not _SPLIT_WORD.fullmatch(row[0])])
        if min(map(len, rows), default=3) < 3 or not all(map(_NUMBER.fullmatch, columns[-1])):
            return False
    if max(map(len, columns), default=0) < 2:
        return False
    for number, column in enumerate(columns, 1):
        if not _counts(column):
            raise DataError(
                f"{path}, sentence {number}: the first column holds numbers alone ({', '.join(column[:8])}), which are no tokens, and they do not count those "
                "of each sentence. Take that column out, or put an empty line behind each sentence"
            )
    return True


def _counts(column: list[str]) -> bool:
    """Whether these are whole numbers, each one more than that before."""
    return all(map(_NUMBER.fullmatch, column)) and all(
        int(number) == place for place, number in enumerate(column, int(column[0]) if column else 0)
    )


def _blocks(data: mmap.mmap, at: int) -> Iterator[tuple[int, int]]:
    """Byte ranges of the lines between empty lines and ``-DOCSTART-`` lines."""
    begin, behind, size = -1, -1, len(data)
    while at < size:
        end = data.find(b"\n", at)
        end = size if end < 0 else end
        line = data[at:end].strip(b" \t\r")
        if line and line.split(maxsplit=1)[:1] != [b"-DOCSTART-"]:
            begin, behind = (at if begin < 0 else begin), end
        elif begin >= 0:
            yield begin, behind
            begin = -1
        at = end + 1
    if begin >= 0:
        yield begin, behind


def _token_lines(path: Path, number: int, byte: int, raw: bytes, seen: Seen) -> tuple[list[str], list[str]]:
    """Tokens and tags of one sentence's lines; of comments alone, none."""
    try:
        lines = raw.decode("utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise _fail(path, number, byte + error.start, "not UTF-8 text") from None
    tokens, tags, counts, nested = [], [], [], False
    for line in (line.removesuffix("\r") for line in lines):
        if "\r" in line:
            problem = f"line {line[:80]!r}: a carriage return alone ends no line; end lines with \\n or \\r\\n"
            raise _fail(path, number, byte, problem)
        columns = _columns(line)
        if seen.numbered:
            if line.startswith("#"):
                continue
            if _SPLIT_WORD.fullmatch(columns[0]):
                seen.left_out["CoNLL-U lines of a word that is split into tokens, or of none (1-2, 1.1)"] += 1
                continue
            counts.append(columns.pop(0))
            nested |= len(columns) > 2 and columns[-2][1:2] == "-" and TAG.fullmatch(columns[-2]) is not None
        tag = columns[-1].strip() if len(columns) > 1 else ""
        if TAG.fullmatch(tag):
            tokens.append(columns[0])
            tags.append(tag)
        elif not _is_comment(line, columns):
            also = " after the token's number" if seen.numbered else ""
            problem = f"line {line[:80]!r}: a token and a tag were expected{also} ({SCHEMES})"
            raise _fail(path, number, byte, problem)
    if not _counts(counts):
        problem = f"the first column counts the tokens in the first sentences, and not here ({', '.join(counts[:8])})"
        raise _fail(path, number, byte, f"{problem}. Take that column out, or correct it")
    if counts:
        seen.notes["sentences whose first column counts the tokens, so the second one is the token"] += 1
    seen.notes["sentences with tags in two columns, of which the last one is read"] += nested
    return tokens, tags


def _columns(line: str) -> list[str]:
    return line.split("\t") if "\t" in line else [column for column in line.split(" ") if column] or [""]


def _is_comment(line: str, columns: list[str]) -> bool:
    """Whether a line without a tag is a comment, and not a token whose tag is missing."""
    return columns[0] == "#" or line.startswith("#") and "\t" not in line and len(columns) > 1


def check_record(record: Any, path: Path | str, number: int) -> None:
    """Refuse a record that is not exactly a text with its spans.

    Raises:
        DataError: names file, record and what is wrong: no object, text missing or no string or with half a character,
            annotations missing or no list, a span that is not ``[start, end, label]``, is empty, negative or ends behind the text,
            a label that is none (`labels.label_problem`).
    """

    def wrong(problem: str) -> DataError:
        return DataError(f"{path}, record {number}: {problem}")

    if type(record) is not dict:
        raise wrong(f"an object with text and annotations was expected, not {_kind(record)}")
    text = record.get("text")
    if type(text) is not str:
        raise wrong(f"text must be a string, not {_kind(text)}" if "text" in record else "text is missing")
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise wrong(f"text holds half a surrogate pair at character {error.start}, which is no character") from None
    spans = record.get("annotations")
    if type(spans) is not list:
        if "annotations" in record:
            raise wrong(f"annotations must be a list of [start, end, label], not {_kind(spans)}")
        raise wrong(
            "annotations is missing"
            + ("; there is `entities`: rename it to annotations" if "entities" in record else "")
        )
    size = len(text)
    for span in spans:
        if type(span) is list and len(span) == 3:
            start, end, label = span
            whole = (
                type(start) is int and type(end) is int and type(label) is str and label and 0 <= start < end <= size
            )
            if whole and not label_problem(label):
                continue
        raise wrong(f"annotation {1 + next(i for i, s in enumerate(spans) if s is span)} {_span_problem(span, size)}")


def _span_problem(span: Any, size: int) -> str:
    if type(span) is not list or len(span) != 3:
        what = f"a list of {len(span)}" if isinstance(span, list) else _kind(span)
        return f"must be [start, end, label], not {what}"
    start, end, label = span
    if type(start) is not int or type(end) is not int or type(label) is not str or not label:
        return f"must be [number, number, label], not {json.dumps(span)[:80]}"
    if problem := label_problem(label):
        return f"has the label {label!r}, which {problem}"
    return (
        f"[{start}, {end}, {label!r}] does not lie inside the text of {size} characters "
        "(start from 0, end exclusive and larger than start)"
    )


def _kind(value: Any) -> str:
    return (
        "null"
        if value is None
        else {dict: "an object", list: "a list", str: "a string", bool: "a truth value"}.get(type(value), "a number")
    )


def overlapping(spans: list[list[Any]]) -> int:
    """How many spans begin before one that begins no later has ended."""
    reach = count = 0
    for start, end, _ in spans:
        if start < reach:
            break
        reach = end
    else:
        return 0
    reach = 0
    for start, end, _ in sorted(spans):
        count += start < reach
        reach = max(reach, end)
    return count


def left_out_of(path: Path) -> str:
    """What a file holds that is no record, for the end of a message; empty for nothing. Reads it once more."""
    seen = Seen()
    for _ in iter_pieces(path, seen):
        pass
    return said_left_out(seen.left_out)


def said_left_out(counts: Mapping[str, int]) -> str:
    """Such counts for the end of a message; empty for none."""
    said = "; ".join(f"{count} × {why}" for why, count in sorted(counts.items()) if count)
    return f" (left out: {said})" if said else ""


def load_records(path: Path) -> list[dict[str, Any]]:
    """All records of a file, in memory: for sets that are tokenised whole anyway."""
    return [piece.record for piece in iter_pieces(path)]


def spans_of(record: dict[str, Any]) -> list[Span]:
    """A record's annotations as tuples, in the order they are listed."""
    return [(start, end, label) for start, end, label in record["annotations"]]
