"""Tables as they are written: the rows of a table that was read, with columns added, as CSV, JSON Lines, XLSX or parquet. In memory is one row, or one batch of them.

Cells keep their types from XLSX to XLSX, from parquet to parquet and from JSON to JSON Lines; into every other kind of file they go as text.
"""

from __future__ import annotations

import codecs
import csv
import io
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, time, timedelta
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

from curricle.errors import ConfigError, DataError
from curricle.steps.assigned import NUMBERS, Value
from curricle.tables import BOOKS, COLUMNAR, DELIMITED, Row, Table, encoding_of, for_book

LINES = (".jsonl", ".ndjson")
KINDS = (*DELIMITED, *LINES, ".xlsx", *COLUMNAR)
"""Endings of files that are written."""
ROWS_OF_A_SHEET, CELL_OF_A_SHEET = 1_048_576, 32_767
"""What Excel takes: rows, and characters of a cell."""
_OF_A_SHEET = (bool, int, float, date, time, timedelta, type(None))
BATCH = 4096
_NOT_WRITTEN = (".json", ".xls", ".ods", ".xlsb", ".gz", ".zip", ".bz2", ".xz", ".zst", ".7z", ".pdf", ".doc", ".docx")
"""Endings that say what `assign` does not make; any other unknown one is a CSV."""
_OF_SUFFIX = {".tsv": "\t", ".tab": "\t", ".psv": "|"}
_BOM = "\ufeff"


@dataclass(frozen=True)
class Form:
    """How a file is written."""

    suffix: str
    encoding: str = "utf-8"
    separator: str = ","
    mark: bool = False
    """Whether it begins with a byte order mark."""


def form_of(output: Path, table: Table, encoding: str = "") -> Form:
    """How a table is written to a place: the kind that the place's ending says; a delimited file in the input's own encoding and separator where it
    has them, with its byte order mark (UTF-16 and UTF-32 always get one), but for ``.tsv`` and ``.psv``. Where the ending says nothing, a CSV.

    Args:
        encoding: another one, Python's name.

    Raises:
        ConfigError: this kind is not written, or there is no such encoding.
    """
    suffix = output.suffix.lower()
    if suffix in (*BOOKS, *_NOT_WRITTEN) and suffix not in KINDS:
        raise ConfigError(
            f"the output {output}: a file that ends in {suffix} is not written; written are {', '.join(KINDS)}"
        )
    chosen = encoding or table.encoding or "utf-8"
    chosen = encoding_of(chosen)
    with table.path.open("rb") as file:
        marked = not encoding and file.read(3) == codecs.BOM_UTF8
    marked = marked or chosen == "utf-8-sig" or chosen.startswith(("utf-16", "utf-32"))
    chosen = {"utf-8-sig": "utf-8", "utf-16": "utf-16-le", "utf-32": "utf-32-le"}.get(chosen, chosen)
    own = table.separator if suffix not in _OF_SUFFIX else ""
    return Form(suffix, chosen, own or _OF_SUFFIX.get(suffix, ","), marked)


def write_rows(
    out: BinaryIO, form: Form, table: Table, added: Sequence[str], rows: Iterable[tuple[Row, Sequence[Value]]]
) -> None:
    """Write the header and every row with its added values.

    Raises:
        DataError: a row cannot be written in this form; names it.
    """
    if form.suffix in LINES:
        _write_lines(out, table, added, rows)
    elif form.suffix in BOOKS:
        _write_book(out, table, added, rows)
    elif form.suffix in COLUMNAR:
        _write_columns(out, table, added, rows)
    else:
        _write_delimited(out, form, table, added, rows)


def written(value: Value) -> str:
    """A value as text: confidence with four digits."""
    return "" if value is None else f"{value:.4f}" if isinstance(value, float) else value


def delimited(cells: Sequence[str], separator: str) -> str:
    """One line of a delimited file."""
    line = io.StringIO()
    csv.writer(line, delimiter=separator).writerow(cells)
    return line.getvalue()


def _write_delimited(out: BinaryIO, form: Form, table: Table, added: Sequence[str], rows: Iterable[tuple[Row, Sequence[Value]]]) -> None:  # fmt: skip
    def line(cells: Sequence[str], place: str, errors: str) -> bytes:
        try:
            return delimited(cells, form.separator).encode(form.encoding, errors)
        except UnicodeEncodeError as error:
            raise DataError(
                f"{place}: {error.object[error.start]!r} cannot be written as {form.encoding}; take --output-encoding utf-8"
            ) from None

    out.write((_BOM if form.mark else "").encode(form.encoding))
    out.write(
        line([*table.columns, *added], f"{table.path}, header", "surrogateescape")
    )  # bytes of a name that are no text stay
    for row, values in rows:
        out.write(line([*row.cells, *map(written, values)], table.place(row.line), "strict"))


def unique_names(names: Sequence[str]) -> list[str]:
    """Names for files whose columns need one each: an empty one becomes ``column 3``, the second ``name`` becomes ``name (2)``."""
    made: list[str] = []
    for i, name in enumerate(names):
        base = name.encode("utf-8", "replace").decode() or f"column {i + 1}"
        found, number = base, 2
        while found in made or (found != name and found in names):
            found, number = f"{base} ({number})", number + 1
        made.append(found)
    return made


def _write_lines(
    out: BinaryIO, table: Table, added: Sequence[str], rows: Iterable[tuple[Row, Sequence[Value]]]
) -> None:
    import orjson

    names = unique_names([*table.columns, *added])
    own, new = names[: len(table.columns)], names[len(table.columns) :]
    for row, values in rows:
        content = dict(row.typed) if isinstance(row.typed, dict) else dict(zip(own, row.cells, strict=True))
        content |= dict(zip(new, values, strict=True))
        try:
            line = orjson.dumps(content)
        except TypeError:  # a number of more than 64 bits
            line = json.dumps(content, ensure_ascii=False).encode()
        out.write(line + b"\n")


def _write_book(out: BinaryIO, table: Table, added: Sequence[str], rows: Iterable[tuple[Row, Sequence[Value]]]) -> None:
    import openpyxl
    from openpyxl.cell import WriteOnlyCell

    book = openpyxl.Workbook(write_only=True)
    sheet = book.create_sheet("assigned")

    def cell(value: Any, place: str) -> Any:
        if isinstance(value, str):
            if len(value) > CELL_OF_A_SHEET:
                raise DataError(
                    f"{place}: a cell has {len(value):,} characters, and Excel takes {CELL_OF_A_SHEET:,}; write a CSV"
                )
            made = WriteOnlyCell(sheet, for_book(value))
            made.data_type = "s"  # a text that begins with = is no formula
            return made
        return value if isinstance(value, _OF_A_SHEET) else str(value)

    typed = table.path.suffix.lower() in BOOKS
    try:
        sheet.append([cell(name, str(table.path)) for name in (*table.columns, *added)])
        for row, values in rows:
            own, place = row.typed if typed else row.cells, table.place(row.line)
            sheet.append([cell(value, place) for value in (*own, *values)])
    except BaseException:  # openpyxl leaves its file open, and there
        sheet.close()
        sheet._writer.cleanup()
        raise
    book.save(out)


def _write_columns(
    out: BinaryIO, table: Table, added: Sequence[str], rows: Iterable[tuple[Row, Sequence[Value]]]
) -> None:
    import pyarrow
    import pyarrow.parquet

    names = unique_names([*table.columns, *added])
    kinds = [pyarrow.float64() if any(n.endswith(number) for number in NUMBERS) else pyarrow.string() for n in added]
    new = [pyarrow.field(name, kind) for name, kind in zip(names[len(table.columns) :], kinds, strict=True)]
    source = iter(rows)

    def added_to(batch: Any, values: Sequence[Sequence[Value]]) -> Any:
        columns = [pyarrow.array(column, kind) for column, kind in zip(zip(*values, strict=True), kinds, strict=True)]
        return pyarrow.record_batch([*batch.columns, *columns], schema=schema)

    if table.path.suffix.lower() in COLUMNAR:
        with pyarrow.parquet.ParquetFile(table.path) as file:
            schema = pyarrow.schema([*file.schema_arrow, *new], file.schema_arrow.metadata)
            with pyarrow.parquet.ParquetWriter(out, schema) as writer:
                for batch in file.iter_batches(batch_size=BATCH):
                    writer.write_batch(added_to(batch, [next(source)[1] for _ in range(batch.num_rows)]))
        return
    own = [pyarrow.field(name, pyarrow.string()) for name in names[: len(table.columns)]]
    schema = pyarrow.schema([*own, *new])
    with pyarrow.parquet.ParquetWriter(out, schema) as writer:
        while some := list(islice(source, BATCH)):
            cells = [pyarrow.array(column) for column in zip(*(row.cells for row, _ in some), strict=True)]
            writer.write_batch(added_to(pyarrow.record_batch(cells, schema=pyarrow.schema(own)), [v for _, v in some]))
