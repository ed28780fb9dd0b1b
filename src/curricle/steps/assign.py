"""Code every row of a CSV file, streaming: the output keeps all columns, and appears only when it is whole."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import BinaryIO, Protocol

from curricle.errors import DataError
from curricle.store.local import write_whole
from curricle.store.ours import check_output_file

BATCH = 512
"""Rows that are coded together."""


class Coder(Protocol):
    """What assigns: a family's opened model."""

    columns: tuple[str, ...]
    """Columns that it adds."""

    def assign(self, texts: Sequence[str]) -> list[tuple[str, ...]]:
        """The values of `columns` for each text."""


def assign_csv(source: Path, column: str, output: Path, open_coder: Callable[[], Coder]) -> int:
    """Stream a CSV through a coder.

    Args:
        source: UTF-8 CSV with a header.
        column: the text column.
        output: keeps every column and adds the coder's.
        open_coder: called once the header is known to be good.

    Returns:
        The number of rows written.

    Raises:
        DataError: no such column, a column stands twice or is ours, the file is no UTF-8 CSV (a quote that is never closed, a cell
            of more than 131,072 characters), or a row has more or fewer cells than the header.
        OutputError: the output is the input, a link, a folder or a device; a plain file is replaced.
    """
    check_output_file(output, [source])
    with source.open(encoding="utf-8-sig", newline="") as lines:
        rows = csv.DictReader(lines, strict=True)
        with _named(source, rows):
            header = list(rows.fieldnames or [])
        if twice := sorted({name for name in header if header.count(name) > 1}):
            raise DataError(f"{source} has the column {', '.join(twice)} twice; rename one first")
        if column not in header:
            raise DataError(
                f"{source} has no column {column!r}; its columns: {', '.join(header) or 'none (the file is empty)'}"
            )
        coder = open_coder()
        clash = [name for name in coder.columns if name in header]
        if clash:
            raise DataError(f"{source} already has the column {', '.join(clash)}; rename it first")
        count = 0

        def fill(out: BinaryIO) -> None:
            nonlocal count
            text = io.TextIOWrapper(out, encoding="utf-8", newline="")
            writer = csv.DictWriter(text, [*header, *coder.columns])
            writer.writeheader()
            for batch in _batches(rows, source):
                coded = coder.assign([row[column] for row in batch])
                for row, values in zip(batch, coded, strict=True):
                    writer.writerow(row | dict(zip(coder.columns, values, strict=True)))
                count += len(batch)
            text.detach()

        write_whole(output, fill)
    return count


def _batches(rows: csv.DictReader, source: Path) -> Iterator[list[dict[str, str]]]:
    def checked() -> Iterator[dict[str, str]]:
        for number, row in enumerate(rows, start=1):
            if None in row or None in row.values():
                raise DataError(f"{source}, row {number} (line {rows.line_num}): not as many cells as the header has")
            if any("\0" in cell for cell in row.values()):
                raise DataError(f"{source}, row {number} (line {rows.line_num}): holds a zero byte; it is no text")
            yield row

    stream = checked()
    while True:
        with _named(source, rows):
            batch = list(islice(stream, BATCH))
        if not batch:
            return
        yield batch


@contextmanager
def _named(source: Path, rows: csv.DictReader) -> Iterator[None]:
    """What goes wrong while rows are read, as an error that names the file and its line."""
    try:
        yield
    except UnicodeDecodeError as error:
        raise DataError(
            f"{source}, after line {rows.line_num}: not UTF-8 text (a byte {error.object[error.start]:#04x})"
        ) from None
    except csv.Error as error:
        raise DataError(f"{source}, line {rows.line_num}: {error}") from None
    except OSError as error:
        raise DataError(f"{source} cannot be read: {error.strerror}") from None
