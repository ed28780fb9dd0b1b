"""Tables as people have them: CSV, TSV, XLSX, JSON Lines and parquet, read row by row with the place of each row.

Owns encoding, separator, header, quotes and how a cell becomes text; says what it recognised. Knows nothing of what the columns mean. In memory are one row and a
sample of the first ones, however long the file is.

A row that is none (too many cells, a byte that is no text, a quote that is never closed) is handed out with its `problem`: whether it stops the work, goes to
a file of rejects or is counted is the caller's to decide.
"""

from __future__ import annotations

import codecs
import csv
import glob
import json
import math
import re
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, time
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from curricle.errors import ConfigError, DataError, MissingDataError

DELIMITED, LINES, BOOKS, COLUMNAR = (".csv", ".tsv", ".tab", ".txt", ".psv"), (".jsonl", ".ndjson", ".json"), (".xlsx", ".xlsm"), (".parquet",)  # fmt: skip
SUFFIXES = (*DELIMITED, *LINES, *BOOKS, *COLUMNAR)
"""Endings of files that are read, in any case."""
SEPARATORS = {",": "comma", ";": "semicolon", "\t": "tab", "|": "bar"}
NO_SEPARATOR = "\x1f"
"""Stands in no text: in a table of one column a comma is a part of the text."""
SAMPLE = 200
"""Rows that are looked at before the first is handed out."""
UNPACKED = 4 << 30
"""Bytes of a workbook once it is unpacked, at most."""
STRAYS = 8
"""Lines with a quote that is never closed that are told apart from what stands below them: for each the file is read once more."""
_BLOCK = 1 << 20
_CELL = (1 << 31) - 1
"""Characters of a cell at most."""
_BOMS = (
    *((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF32_LE, "utf-32-le"), (codecs.BOM_UTF32_BE, "utf-32-be")),
    *((codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be")),
)
_MULTIBYTE = re.compile(rb"[\xc2-\xdf][\x80-\xbf]|[\xe0-\xef][\x80-\xbf]{2}|[\xf0-\xf4][\x80-\xbf]{3}")
_HIGH = re.compile(rb"[\x80-\xff]")
_HALF = re.compile("[\ud800-\udfff]")
_LONG = re.compile(rb"[\s:\[,-]\d{19}")
"""A number that may need more than 64 bits, which orjson makes a rounded one of."""


class Row(NamedTuple):
    """One row of a table."""

    line: int
    """Where it begins: the line of a text file, the row of a sheet, the number of a record; from 1."""
    cells: list[str]
    """As many as the table has columns; of a row with a `problem` what was found."""
    problem: str = ""
    """Why it is no row; empty for a good one."""
    typed: Any = None
    """The cells before they became text, where the file's have types: a list of a sheet's row, or the object of a JSON line."""


@dataclass(frozen=True)
class Table:
    """A file that was looked into and not yet read."""

    path: Path
    columns: tuple[str, ...]
    """Names as the header has them, equal and empty ones too; ``1``, ``2`` ... where there is no header."""
    sample: tuple[Row, ...]
    """The first good rows."""
    said: str
    """What was recognised, for people: ``UTF-8, comma, header in line 1``."""
    has_header: bool
    _read: Callable[[], Iterator[Row]] = field(repr=False, compare=False)
    encoding: str = ""
    """Python's name; empty where a file has none of its own (XLSX, parquet)."""
    separator: str = ""
    """Of a delimited file."""
    unit: str = "line"
    """What `Row.line` counts: ``line``, ``row`` or ``record``."""

    def rows(self) -> Iterator[Row]:
        """Every row below the header that is not blank, from the start of the file each time.

        Raises:
            DataError: the file cannot be read any further.
        """
        return self._read()

    def place(self, line: int) -> str:
        """A row's place for messages."""
        return f"{self.path}, {self.unit} {line}"


def open_table(path: Path, *, encoding: str = "", header: bool | None = None, kind: str = "") -> Table:
    """Look into a file.

    Args:
        kind: one of `SUFFIXES`, to read it as whatever its name ends in.
        encoding: Python's name of a text file's encoding; empty recognises UTF-8, UTF-16 and UTF-32 (with a byte order mark or without), and takes cp1252 for
            what is none of them.
        header: whether the first row names the columns; None takes it for names unless it looks like the rows below.

    Raises:
        MissingDataError: there is no such file.
        DataError: it is of no kind that is read, empty, or damaged.
        ConfigError: there is no such encoding.
    """
    if not path.is_file():
        near = f"; it is a folder with {_names(path)}" if path.is_dir() else ""
        raise MissingDataError(f"no table {path}: there is no such file{near}")
    suffix = kind or path.suffix.lower()
    if suffix not in SUFFIXES:
        advice = "save it as XLSX or CSV" if suffix in (".xls", ".ods", ".xlsb") else f"read are {', '.join(SUFFIXES)}"
        raise DataError(f"{path}: a file that ends in {suffix or 'nothing'} is not read; {advice}")
    if suffix in COLUMNAR:
        return _columnar(path)
    if suffix in BOOKS or (suffix in DELIMITED and _starts(path, b"PK\x03\x04")):
        return _book(path, header)
    named = encoding or _encoding(path)
    encoding_of(named)
    return _records(path, named) if suffix in LINES else _delimited(path, named, header)


def encoding_of(name: str) -> str:
    """Python's name of an encoding.

    Raises:
        ConfigError: there is none of that name, or it is none of texts, as ``base64``.
    """
    try:
        "a".encode(name, "surrogateescape")
        return codecs.lookup(name).name
    except (LookupError, ValueError):
        raise ConfigError(
            f"there is no encoding {name!r} for texts; give one that Python knows, as cp1252, utf-8-sig or shift_jis"
        ) from None


def find_files(where: str) -> list[Path]:
    """The files that a path, a folder (all its tables) or a pattern with ``*`` means, sorted by name.

    Raises:
        MissingDataError: none.
    """
    place = Path(where)
    if place.is_file():
        return [place]
    if place.is_dir():
        found = sorted(
            p for p in place.iterdir() if p.is_file() and p.suffix.lower() in SUFFIXES and p.name[0] not in ".~"
        )
        if not found:
            raise MissingDataError(
                f"the folder {where} holds no table ({', '.join(SUFFIXES)}); it holds {_names(place)}"
            )
        return found
    found = (
        sorted(p for p in map(Path, glob.glob(where, recursive=True)) if p.is_file()) if glob.has_magic(where) else []
    )
    if not found:
        above = next((p for p in place.parents if p.is_dir()), Path("."))
        raise MissingDataError(f"no file {where}; {above} holds {_names(above)}")
    return found


def _names(folder: Path) -> str:
    names = sorted(p.name for p in folder.iterdir() if p.name[0] != ".")
    return ", ".join(names[:12]) + (f" and {len(names) - 12} more" if len(names) > 12 else "") or "nothing"


def _starts(path: Path, mark: bytes) -> bool:
    with path.open("rb") as file:
        return file.read(len(mark)) == mark


# Text files


def _encoding(path: Path) -> str:
    """UTF-8, UTF-16 or UTF-32 by byte order mark or content, else cp1252; ``utf-8`` also for one in which single bytes are damaged."""
    with path.open("rb") as file:
        head = file.read(4096)
        for mark, name in _BOMS:
            if head.startswith(mark):
                return name
        even, odd = head[::2].count(0), head[1::2].count(0)
        if max(even, odd) > len(head) // 8:  # every second byte of Latin text in UTF-16 is zero
            return "utf-16-le" if odd > even else "utf-16-be"
        file.seek(0)
        decoder = codecs.getincrementaldecoder("utf-8")()
        try:
            while block := file.read(_BLOCK):
                decoder.decode(block)
            decoder.decode(b"", True)
            return "utf-8"
        except UnicodeDecodeError:
            pass
        file.seek(0)
        whole = lone = 0
        while block := file.read(_BLOCK):
            found = _MULTIBYTE.findall(block)
            whole += len(found)
            lone += len(_HIGH.findall(block)) - sum(map(len, found))
    return "utf-8" if whole > lone else "cp1252"


def _lines(path: Path, encoding: str) -> Iterator[str]:
    """Lines with their ends, ``\\n``, ``\\r\\n`` or ``\\r``; a byte that is no text becomes half a character, which `_problem` finds."""
    errors = "strict" if encoding.startswith(("utf-16", "utf-32")) else "surrogateescape"
    try:
        with path.open(encoding=encoding, errors=errors, newline="") as file:
            first = file.readline()
            yield first.removeprefix("\ufeff")
            yield from file
    except (UnicodeError, OSError) as error:
        raise DataError(f"{path} cannot be read as {_shown(encoding)} ({error})") from None


def _shown(encoding: str) -> str:
    return {"utf-8": "UTF-8", "utf-16-le": "UTF-16", "utf-16-be": "UTF-16"}.get(encoding, encoding)


def _problem(cells: Sequence[str], width: int) -> str:
    """Why cells are no row of a table of so many columns; empty where they are one."""
    if len(cells) != width:
        return f"has {len(cells)} cells, and the table {width} columns"
    for cell in cells:
        if not cell.isascii() and (found := _HALF.search(cell)):
            byte = ord(found[0]) - 0xDC00
            return (
                f"holds a byte {byte:#04x} that is no text in this encoding"
                if 0 <= byte < 256
                else "holds half a character"
            )
        if "\0" in cell:
            return ZERO
    return ""


ZERO = "holds a zero byte"
"""What is wrong with a row of a binary file."""


def _parsed(path: Path, encoding: str, separator: str) -> Iterator[Row]:
    """The records of a delimited file as they are; blank lines are left out."""
    taken, open_at_end, strays = 0, False, 0

    def feed() -> Iterator[str]:
        nonlocal taken, open_at_end
        for line in islice(_lines(path, encoding), taken, None):
            taken += 1
            yield line
        open_at_end = True

    reader = csv.reader(feed(), delimiter=separator)
    before = csv.field_size_limit()
    while True:
        start = taken + 1
        csv.field_size_limit(_CELL)  # a setting of the process, which others have their own wish for
        try:
            cells = next(reader, None)
        except csv.Error as error:
            raise DataError(f"{path}, line {start}: {error}") from None
        finally:
            csv.field_size_limit(before)
        if cells is None:
            return
        if open_at_end and strays < STRAYS:  # the line alone is lost, not all below it
            line = next(islice(_lines(path, encoding), start - 1, None)).rstrip("\r\n")
            yield Row(start, line.split(separator), "opens a quote that is never closed")
            taken, open_at_end, strays = start, False, strays + 1
            reader = csv.reader(feed(), delimiter=separator)
        elif open_at_end:
            yield Row(start, cells, f"opens a quote that is never closed, and so {taken - start + 1} lines are one row")
        elif any(cell and not cell.isspace() for cell in cells):
            yield Row(start, cells)


def _delimited(path: Path, encoding: str, header: bool | None) -> Table:
    separator, width = _separator(path, encoding)
    between = separator if width > 1 else NO_SEPARATOR
    rows = list(islice(_parsed(path, encoding, between), SAMPLE))
    if not rows:
        raise DataError(f"{path}: is empty")
    skip, has_header = _header(rows, header)
    columns = tuple(str(i + 1) for i in range(width))
    row_names = False
    if has_header:
        names = [cell.strip() for cell in rows[skip].cells]
        row_names = _has_row_names(path, encoding, separator, rows[skip:])
        columns = ("", *names) if row_names else tuple(names)
    begin = rows[skip + has_header].line if len(rows) > skip + has_header else math.inf

    def read() -> Iterator[Row]:
        for row in _parsed(path, encoding, between):
            if row.line < begin:
                continue
            cells = _fitted(row.cells, len(columns))
            yield Row(row.line, cells, row.problem or _problem(cells, len(columns)))

    said = f"{_shown(encoding)}, {SEPARATORS[separator]}" if len(columns) > 1 else _shown(encoding)
    said += f", header in line {rows[skip].line}" if has_header else ", no header"
    said += ", first column without a name: row names" if row_names else ""
    return _looked(path, columns, read, said, has_header, encoding, separator)


def _has_row_names(path: Path, encoding: str, separator: str, rows: Sequence[Row]) -> bool:
    """Whether a header and the rows below it are as R's ``write.table`` writes them: every row begins with a name that the header has no name for.

    Rows whose text holds the separator have a cell too many as well. So either the header and all row names stand in quotes, or tabs separate and the names are 1, 2, 3 ...
    """
    header, below = rows[0], [row for row in rows[1:] if not row.problem]
    names = [row.cells[0] for row in below]
    if (
        not below
        or any(len(row.cells) != len(header.cells) + 1 for row in below)
        or not any(row.cells[-1] for row in below)
    ):
        return False
    if separator == "\t" and len(below) > 1 and names == [str(i + 1) for i in range(len(names))]:
        return True
    quoted = {
        row.line: separator.join(f'"{cell}"' for cell in (header.cells if row is header else row.cells[:1]))
        for row in (header, *below)
    }
    lines = enumerate(_lines(path, encoding), start=1)
    begin = {number: line for number, line in islice(lines, below[-1].line) if number in quoted}
    return len(set(names)) == len(names) and all(begin[line].startswith(cells) for line, cells in quoted.items())


def _fitted(cells: list[str], width: int) -> list[str]:
    """Cells without empty ones too many at the end, and with empty ones where a row stops early: both say nothing."""
    if len(cells) > width and not any(cells[width:]):
        return cells[:width]
    return cells + [""] * (width - len(cells)) if 1 < len(cells) < width else cells


def _separator(path: Path, encoding: str) -> tuple[str, int]:
    """The separator whose rows agree best on a number of cells above one, and that number; a comma and 1 where there is none."""
    best, chosen, width = (0.0, 0), ",", 1
    for separator in SEPARATORS:
        rows = list(islice(_parsed(path, encoding, separator), SAMPLE))
        counts = Counter(len(row.cells) for row in rows if not row.problem)
        if not counts or any(row.problem for row in rows) and len(rows) < 2:
            continue
        common, times = max(counts.items(), key=lambda item: (item[1], item[0]))
        score = (round(times / len(rows), 1), common)
        if common > 1 and score > best:
            best, chosen, width = score, separator, common
    return chosen, width


def _header(rows: Sequence[Row], wanted: bool | None) -> tuple[int, bool]:
    """(rows above the table, whether its first row names the columns)."""
    filled = [sum(bool(cell.strip()) for cell in row.cells) for row in rows]
    usual = max(Counter(filled).items(), key=lambda found: (found[1], found[0]))[0]
    skip = next((i for i, count in enumerate(filled[:20]) if count >= min(2, usual)), 0)
    if wanted is not None:
        return skip, wanted
    first, below = rows[skip].cells, [row.cells for row in rows[skip + 1 :]]
    for i, cell in enumerate(first):
        column = [cells[i] for cells in below if i < len(cells) and cells[i].strip()]
        digits = sum(bool(re.search(r"\d", value)) for value in column)
        if column and re.search(r"\d", cell) and not re.search(r"[^\W\d]{2}", cell) and digits > 0.9 * len(column):
            return skip, False  # a number above numbers is no name
    return skip, True


def _looked(path: Path, columns: tuple[str, ...], read: Callable[[], Iterator[Row]], said: str, has_header: bool, encoding: str = "", separator: str = "", unit: str = "line") -> Table:  # fmt: skip
    rows = [*islice(read(), SAMPLE)]
    if any("\0" in name for name in columns) or (rows and all(row.problem == ZERO for row in rows)):
        raise DataError(f"{path}: holds zero bytes: a binary file, no text. Save it as CSV, TSV, JSON Lines or XLSX")
    sample = tuple(row for row in rows if not row.problem)
    return Table(path, columns, sample, said, has_header, read, encoding, separator, unit)


class _Twice(ValueError):
    """An object has this key twice."""


def _json(raw: bytes) -> Any:
    """A value, with numbers of any length as they stand there.

    Raises:
        _Twice: an object of it has a key twice, and one value would be lost.
        ValueError: it is no JSON.
    """
    import orjson

    value = orjson.loads(raw)
    records = value if isinstance(value, list) else [value]
    keys = sum(len(record) for record in records if isinstance(record, dict))
    if not _LONG.search(raw) and raw.count(b'":') + raw.count(b'" :') - raw.count(b'\\":') <= keys:
        return value

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        made = dict(pairs)
        if len(made) < len(pairs):
            raise _Twice(next(key for i, (key, _) in enumerate(pairs) if key in dict(pairs[:i])))
        return made

    return json.loads(raw, object_pairs_hook=once)


def _records(path: Path, encoding: str) -> Table:
    """JSON Lines, or one array of objects (which is held in memory)."""
    text = "".join(islice(_lines(path, encoding), 1)).lstrip()
    array = text.startswith("[")

    def values() -> Iterator[tuple[int, Any, str]]:
        if array:
            try:
                whole = _json(b"".join(line.encode() for line in _lines(path, encoding)))
            except _Twice as error:
                raise DataError(f"{path}: an object has the key {error.args[0]!r} twice") from None
            except (ValueError, UnicodeError, RecursionError) as error:
                raise DataError(f"{path}: is no JSON ({error})") from None
            yield from ((number, value, "") for number, value in enumerate(whole, start=1))
            return
        for number, line in enumerate(_lines(path, encoding), start=1):
            if line.strip():
                try:
                    yield number, _json(line.encode()), ""
                except _Twice as error:
                    yield number, line.strip(), f"has the key {error.args[0]!r} twice"
                except (ValueError, UnicodeError, RecursionError) as error:
                    yield number, line.strip(), f"is no JSON ({str(error).partition(':')[0]})"

    names = dict.fromkeys(key for _, value, _ in islice(values(), SAMPLE) if isinstance(value, dict) for key in value)
    if not names:
        raise DataError(f"{path}: is empty, or holds no JSON objects ({{...}}), one a line")
    columns = tuple(names)

    def read() -> Iterator[Row]:
        for number, value, problem in values():
            if not problem and not isinstance(value, dict):
                problem = "is no JSON object"
            cells = [_text(value.get(name)) for name in columns] if isinstance(value, dict) else [str(value)]
            yield Row(number, cells, problem or _problem(cells, len(columns)), value)

    return _looked(path, columns, read, "a JSON array" if array else "JSON Lines", True, encoding, unit="record" if array else "line")  # fmt: skip


# Binary files


_ESCAPED = re.compile(r"_x00([01][0-9A-F])_", re.IGNORECASE)
"""How a workbook writes a control character that XML cannot hold, and a carriage return."""


def of_book(value: Any) -> Any:
    """A cell's value as it was meant: control characters are no `_x000D_`."""
    return _ESCAPED.sub(lambda found: chr(int(found[1], 16)), value) if isinstance(value, str) else value


def for_book(text: str) -> str:
    """A text as a workbook holds it. Line feeds and tabs stand in it as they are, as Excel writes them."""
    return re.sub(r"[\x00-\x08\x0b-\x1f]", lambda found: f"_x{ord(found[0]):04X}_", text)


def _text(cell: Any) -> str:
    """A cell of another type than text as text: whole numbers without ``.0``, dates as ISO 8601, lists joined by ``; ``, nothing as nothing."""
    if isinstance(cell, str):
        return cell
    if cell is None:
        return ""
    if isinstance(cell, bool):
        return str(cell).lower()
    if isinstance(cell, float):
        if not math.isfinite(cell):
            return ""
        return str(int(cell)) if cell.is_integer() and abs(cell) < 1e15 else repr(cell)
    if isinstance(cell, datetime):
        return cell.date().isoformat() if cell.time() == time() else cell.isoformat()
    if isinstance(cell, date | time):
        return cell.isoformat()
    if isinstance(cell, list | tuple):
        return "; ".join(map(_text, cell))
    return str(cell)


_DAMAGED = (zipfile.BadZipFile, LookupError, EOFError, SyntaxError, ValueError, TypeError, AttributeError, OverflowError, NotImplementedError, RuntimeError, OSError)  # fmt: skip
"""What openpyxl, its XML and zip make of a file that is not what it should be."""


def _book(path: Path, header: bool | None) -> Table:
    """The first sheet of a workbook that holds rows. A number with a format of zeros (``0000``) is as long as its format."""
    import zlib

    import openpyxl

    damaged = (*_DAMAGED, zlib.error)

    def raw(sheet: str) -> Iterator[Row]:
        try:
            with path.open("rb") as file:  # openpyxl leaves a damaged file open
                book = openpyxl.load_workbook(file, read_only=True, data_only=True)
                table = book[sheet]
                table.reset_dimensions()  # many programs write them wrong
                for number, row in enumerate(table.iter_rows(), start=1):
                    values = [of_book(cell.value) for cell in row]
                    cells = [_sheet_text(cell, value) for cell, value in zip(row, values, strict=True)]
                    while cells and not cells[-1].strip():
                        cells.pop()
                    if cells:
                        zeros = [cell if cell[:1] == "0" and cell != "0" and cell.isdigit() else None for cell in cells]
                        yield Row(number, cells, typed=[zeros[i] or values[i] for i in range(len(cells))])
        except damaged as error:
            raise DataError(
                f"{path}, sheet {sheet!r}: is damaged ({error or type(error).__name__}); save it again"
            ) from None

    try:
        with path.open("rb") as file:
            size = sum(item.file_size for item in zipfile.ZipFile(file).infolist())
            if size > UNPACKED:
                raise DataError(
                    f"{path}: has {size:,} bytes once it is unpacked; {UNPACKED:,} are allowed. Save it as CSV"
                )
            book = openpyxl.load_workbook(file, read_only=True, data_only=True)
            sheets = book.sheetnames
            parts = {name: getattr(book[name], "_worksheet_path", "") for name in sheets}
    except zipfile.BadZipFile:
        raise DataError(
            f"{path}: cannot be read as an Excel workbook (it cannot be unpacked: damaged, or of another kind); save it again"
        ) from None
    except damaged as error:
        raise DataError(
            f"{path}: cannot be read as an Excel workbook ({error or type(error).__name__}); save it again"
        ) from None
    for sheet in sheets:
        rows = list(islice(raw(sheet), SAMPLE))
        if rows:
            break
    else:
        raise DataError(f"{path}: none of its sheets ({', '.join(map(repr, sheets))}) holds a row")
    skip, has_header = _header(rows, header)
    width = max(len(row.cells) for row in rows)
    names = [cell.strip() for cell in rows[skip].cells] + [""] * (width - len(rows[skip].cells))
    columns = tuple(names) if has_header else tuple(str(i + 1) for i in range(width))
    begin = rows[skip].line + has_header

    def read() -> Iterator[Row]:
        for row in raw(sheet):
            if row.line >= begin:
                cells = row.cells + [""] * (len(columns) - len(row.cells))
                yield Row(
                    row.line, cells, _problem(cells, len(columns)), row.typed + [None] * (len(cells) - len(row.typed))
                )

    unread = [name for name in sheets if name != sheet]
    others = f" (not read: {', '.join(map(repr, unread))})" if unread else ""
    said = f"sheet {sheet!r}{others}" + (f", header in row {rows[skip].line}" if has_header else ", no header")
    if unknown := _without_value(path, parts[sheet]):
        said += f", {unknown:,} formulas without a value are empty: open it in a spreadsheet program and save it"
    return _looked(path, columns, read, said, has_header, unit="row")


_FORMULA = re.compile(rb"(?:</f>|<f(?: [^>]*)?/>)\s*(?:<v\s*/>|<v></v>)?\s*</c>")
"""The end of a cell that has a formula and no value: no spreadsheet program has worked it out yet."""


def _without_value(path: Path, part: str) -> int:
    """How many formulas of a sheet, a part of the archive, have no value that could be read."""
    found, kept = 0, b""
    with zipfile.ZipFile(path) as archive, archive.open(part.lstrip("/")) as content:
        while block := content.read(_BLOCK):
            kept += block
            cut = kept.rfind(b"</c>") + len(b"</c>") if b"</c>" in kept else 0
            found += len(_FORMULA.findall(kept[:cut]))
            kept = kept[cut:]
    return found


def _sheet_text(cell: Any, value: Any) -> str:
    if isinstance(value, int | float) and not isinstance(value, bool):
        text, shape = _text(value), str(getattr(cell, "number_format", "") or "")
        return text.zfill(len(shape)) if re.fullmatch(r"0{2,}", shape) and text.isdigit() else text
    return _text(value)


def _columnar(path: Path) -> Table:
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            columns = tuple(file.schema_arrow.names)
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{path}: cannot be read as parquet ({str(error).splitlines()[0]})") from None

    def read() -> Iterator[Row]:
        number = 0
        try:
            with pyarrow.parquet.ParquetFile(path) as file:
                for batch in file.iter_batches(batch_size=4096):
                    for values in zip(*(column.to_pylist() for column in batch.columns), strict=True):
                        number += 1
                        yield Row(number, list(map(_text, values)))
        except (pyarrow.ArrowException, OSError) as error:
            raise DataError(f"{path}, after row {number}: is damaged ({str(error).splitlines()[0]})") from None

    if not columns:
        raise DataError(f"{path}: has no columns")
    return _looked(path, columns, read, "parquet", True, unit="row")
