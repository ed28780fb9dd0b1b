"""Give every row of a table a code: all columns are kept, some are added; the output appears only when it is whole.

The table is read three times: to count its rows and find those that are none, to code them piece by piece, and to write the result. Each coded piece is a small
file in a hidden folder beside the output, so that the same command goes on after a kill. In memory are one piece and the newest texts with their values.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import orjson

from curricle.errors import CurricleError, DataError, OutputError
from curricle.steps.assigned import (
    Coder,
    Order,
    Rule,
    Values,
    is_assigned,
    names_for,
    rule_of,
    text_column,
    values_of,
    values_of_nothing,
)
from curricle.steps.table_output import ROWS_OF_A_SHEET, delimited, form_of, write_rows
from curricle.steps.tally import Counts
from curricle.store.local import is_open_pipe, what_else, write_whole
from curricle.store.manifest import sha256_of
from curricle.store.ours import check_output_file, check_replaced
from curricle.store.scratch import leftovers, owner, remove_leftovers, scratch
from curricle.tables import SUFFIXES, Row, Table, open_table

PIECE = 4096
"""Rows that are coded and kept together: what a kill costs, and what is sorted by length."""
WORTH_KEEPING = 2
"""Coded pieces from which on a command that ends early leaves them to the next one."""
ASKED = 512
"""Texts that a coder is asked at once."""
REMEMBERED = 50_000
"""Texts whose values are remembered, the newest: a text that stands in many rows is coded once."""
FORMAT = 1
"""Raised whenever a piece changes its meaning."""
SHOWN = 3
"""Rows that are none, named in full."""
_FIRST_BYTES = {b"PAR1": ".parquet", b"PK\x03\x04": ".xlsx", b"{": ".jsonl", b"[": ".jsonl"}
"""What a file without a known ending is, by its beginning; else a delimited one."""


@dataclass(frozen=True)
class Opened:
    """A model that codes."""

    coder: Coder
    version: str
    """For the column `model_version`."""
    identity: str
    """Digest of all that decides what it says."""


@dataclass(frozen=True)
class Survey:
    """A table that was read through."""

    rows: int
    """Good ones."""
    bad: int
    named: tuple[str, ...]
    """The first bad ones, with place and problem."""
    digest: str
    """SHA-256 of the file."""
    rejects: str
    """SHA-256 of the file of rejects."""


@dataclass(frozen=True)
class Assigned:
    """What came of a table."""

    rows: int
    """Written, each with its values."""
    coded: int
    """With a code, and not for review."""
    review: int
    without: int
    """Without a code; they are for review too."""
    bad: int
    """Rows that are none: not in the output, but in the file of rejects."""
    named: tuple[str, ...]
    rejects: Path
    """There where `bad` is not 0."""
    tally: Mapping[str, Any] = field(default_factory=dict)
    """`tally.Counts.tally`."""
    rule: str = ""
    """What is for review, for people; empty where nobody asked for a rule."""


@dataclass(frozen=True)
class Listener:
    """Who hears how it goes."""

    say: Callable[[str], None] = lambda sentence: None
    """Called with a sentence for people."""
    count: Callable[[int, int], None] = lambda done, total: None
    """Called with (rows done, all rows)."""


def assign_table(
    source: Path,
    output: Path,
    order: Order,
    open_coder: Callable[[], Opened],
    *,
    rejects: Path | None = None,
    encoding: str = "",
    output_encoding: str = "",
    header: bool | None = None,
    listener: Listener = Listener(),  # immutable
) -> Assigned:
    """Code every row of a table.

    Args:
        source: CSV, TSV, XLSX, JSON Lines or parquet; also a pipe that is open.
        output: its ending says the kind. Rows and columns are the input's, in order, then `Order.columns`.
        open_coder: called once the table is known to be good.
        rejects: where rows go that are none; default beside the output, without its ending: ``out.rejects.csv``. Written only where there are any.
        encoding, header: of the source, where they are not to be recognised.
        output_encoding: another one than the source's own.

    Raises:
        DataError: the table cannot be read, or holds bad rows alone.
        ConfigError: it has no such column, or the form is not written.
        OutputError: output or rejects may not be written, or an output is there that this command did not write. Nothing is written then.
    """
    rejects = rejects or rejects_of(output)
    check_output_file(output, [source])
    check_output_file(rejects, [source, output])
    for path in (output, rejects):
        if not path.parent.is_dir():
            raise OutputError(f"{path}: there is no folder {path.parent}; make it, or write elsewhere")
    if os.path.abspath(rejects) == os.path.abspath(output):
        raise OutputError(f"output and rejects are one file, {output}; name another one with --rejects")
    with _plain_file(source) as (path, kind):
        table = open_table(path, encoding=encoding, header=header, kind=kind)
        at = text_column(table.columns, order.column, str(source))
        names, form = names_for(order, table.columns, str(source)), form_of(output, table, output_encoding)
        check_replaced(output, "curricle assign", lambda head: is_own_table(output))
        survey = look_through(table)
        listener.say(f"{source}: {table.said}; {survey.rows:,} rows")
        if names[0] != f"{order.prefix}{order.columns[0]}":
            listener.say(f"{source} has columns of the names that are added, so these are {', '.join(names)}")
        if survey.bad and not survey.rows:
            raise DataError(f"{source} holds no good row: {'; '.join(survey.named)}")
        if form.suffix == ".xlsx" and survey.rows >= ROWS_OF_A_SHEET:
            raise OutputError(f"{output}: a workbook takes {ROWS_OF_A_SHEET:,} rows, header included, and {source} has {survey.rows:,}; write a CSV or parquet")  # fmt: skip
        _check_rejects(rejects, survey, listener)
        with _progress_folder(output) as folder:
            opened = open_coder()
            rule = rule_of(order, opened.coder)
            if rule.said:
                listener.say(rule.said)
            _adopt(folder, output, _key(order, at, survey, opened, table))
            _code(table, at, order, rule, opened, folder, survey.rows, listener)
            if survey.bad:
                write_whole(rejects, lambda out: out.writelines(reject_lines(table)))
            counts = Counts(order)
            rows = ((row, counts.seen(values)) for row, values in joined(table, kept_values(folder)))
            write_whole(output, lambda out: write_rows(out, form, table, names, rows))
    return Assigned(counts.rows, counts.coded, counts.review, counts.without, survey.bad, survey.named, rejects, counts.tally(), rule.said)  # fmt: skip


def rejects_of(output: Path) -> Path:
    """Where the rejects of an output go, if nobody says."""
    return output.with_name(f"{output.stem}.rejects.csv")


def is_own_table(output: Path) -> bool:
    """Whether a file is a table that `assign` wrote."""
    with suppress(CurricleError):
        return is_assigned(open_table(output, kind=_kind_of(output)).columns)
    return False


def look_through(table: Table) -> Survey:
    """Read a table once."""
    rows, bad, named, digest = 0, 0, [], hashlib.sha256()
    for row in table.rows():
        if not row.problem:
            rows += 1
            continue
        bad += 1
        if bad == 1:
            digest.update(_reject_head(table))
        digest.update(_reject_line(table, row))
        if bad <= SHOWN:
            named.append(f"{table.place(row.line)} {row.problem}")
    return Survey(rows, bad, tuple(named), sha256_of(table.path), digest.hexdigest())


def code_rows(rows: Sequence[tuple[int, str]], order: Order, rule: Rule, opened: Opened, known: Known, tell: Callable[[int], None] = lambda rows: None) -> list[tuple[int, Values]]:  # fmt: skip
    """The values of rows (line, text): each distinct text is coded once, together with others of about its length.

    Args:
        known: values of texts that were coded before; gets the new ones.
        tell: called now and then with about how many of the rows are done.
    """
    new = known.lacks(text for _, text in rows)
    made: dict[str, Values] = {text: known.values[text] for _, text in rows if text in known.values}
    for start in range(0, len(new), ASKED):
        some = new[start : start + ASKED]
        hits = (opened.coder.assign_fast if order.fast else opened.coder.assign)(some, order.top)
        why = opened.coder.explain(some, [row[:1] for row in hits]) if order.explain else [[None]] * len(some)
        for text, found, reasons in zip(some, hits, why, strict=True):
            made[text] = values_of(found, rule, opened.version, reasons[0], explain=order.explain)
        tell((start + len(some)) * len(rows) // len(new))
    known.add((text, made[text]) for text in new)
    nothing = values_of_nothing(order, opened.version)
    return [(line, made[text] if text else nothing) for line, text in rows]


class Known:
    """Values of the newest texts, `REMEMBERED` at most. The same texts in the same order leave the same, so that a command that goes on ends alike."""

    def __init__(self) -> None:
        self.values: dict[str, Values] = {}
        self._order: deque[str] = deque()

    def lacks(self, texts: Iterable[str]) -> list[str]:
        """Those of the texts that are not known, each once, the shortest first; an empty one is none."""
        return sorted({text for text in texts if text and text not in self.values}, key=lambda text: (len(text), text))

    def add(self, pairs: Iterable[tuple[str, Values]]) -> None:
        """Remember texts that are not known yet."""
        for text, values in pairs:
            self.values[text] = values
            self._order.append(text)
        while len(self._order) > REMEMBERED:
            del self.values[self._order.popleft()]


def texts_of(table: Table, at: int) -> Iterator[tuple[int, str]]:
    """(line, text) of every good row; the text without white space around it."""
    return ((row.line, row.cells[at].strip()) for row in table.rows() if not row.problem)


def write_values(path: Path, coded: Iterable[tuple[int, Values]]) -> None:
    """Keep the values of rows in a file."""
    write_whole(path, lambda out: out.writelines(orjson.dumps(pair) + b"\n" for pair in coded))


def read_values(path: Path) -> Iterator[tuple[int, Values]]:
    """What `write_values` wrote."""
    with path.open("rb") as lines:
        for line in lines:
            number, values = orjson.loads(line)
            yield number, values


def kept_values(folder: Path) -> Iterator[tuple[int, Values]]:
    """All that is kept in a folder, piece after piece."""
    for path in sorted(folder.glob("*.jsonl")):
        yield from read_values(path)


def _code(
    table: Table, at: int, order: Order, rule: Rule, opened: Opened, folder: Path, total: int, listener: Listener
) -> None:
    """Code every good row, but for the pieces that are in the folder already."""
    texts, known, done = texts_of(table, at), Known(), 0
    there = sum(1 for _ in folder.glob("*.jsonl"))
    if there:
        listener.say(f"goes on after row {min(there * PIECE, total):,} of {total:,}")
    listener.count(0, total)
    for number in range(-(-total // PIECE)):
        rows, path = list(islice(texts, PIECE)), folder / f"{number:08d}.jsonl"
        if path.is_file():
            former = {text: values for (_, text), (_, values) in zip(rows, read_values(path), strict=True)}
            known.add((text, former[text]) for text in known.lacks(former))
        else:
            write_values(path, code_rows(rows, order, rule, opened, known, lambda part, done=done: listener.count(done + part, total)))  # type: ignore[misc]  # fmt: skip
        done += len(rows)
        listener.count(done, total)


def joined(table: Table, values: Iterator[tuple[int, Values]]) -> Iterator[tuple[Row, Values]]:
    """Every good row with its values.

    Raises:
        DataError: the table is another one than the values are of.
    """
    for row in table.rows():
        if not row.problem:
            line, own = next(values, (0, []))
            if line != row.line:
                raise DataError(f"{table.path} was changed while it was coded; run the command again")
            yield row, own
    if next(values, None) is not None:
        raise DataError(f"{table.path} was changed while it was coded; run the command again")


def _key(order: Order, at: int, survey: Survey, opened: Opened, table: Table) -> str:
    about = [FORMAT, PIECE, at, asdict(order), survey.digest, opened.identity, opened.version, table.said]
    return hashlib.sha256(orjson.dumps(about, option=orjson.OPT_SORT_KEYS)).hexdigest()


def _check_rejects(place: Path, survey: Survey, listener: Listener) -> None:
    """Refuse to replace a file of rejects that holds other rows: somebody may have mended them."""
    if not place.exists():
        return
    if not survey.bad:
        listener.say(
            f"{place} was there before, perhaps of another table, and stays as it is: this command rejects no row"
        )
    elif sha256_of(place) != survey.rejects:
        raise OutputError(
            f"{place} is there already and holds other rows than the {survey.bad:,} that are rejected now; move it away, or name another file with --rejects"
        )


def _reject_head(table: Table) -> bytes:
    return _bytes(delimited(["line", "problem", *table.columns], table.separator or ","), table)


def _reject_line(table: Table, row: Row) -> bytes:
    return _bytes(delimited([str(row.line), row.problem, *row.cells], table.separator or ","), table)


def _bytes(text: str, table: Table) -> bytes:
    """In the table's own encoding, with the very bytes that were no text in it."""
    encoding = table.encoding or "utf-8"
    try:
        return text.encode(encoding, "surrogateescape")
    except UnicodeEncodeError:
        return text.encode(encoding, "backslashreplace")


def reject_lines(table: Table) -> Iterator[bytes]:
    yield _reject_head(table)
    yield from (_reject_line(table, row) for row in table.rows() if row.problem)


@contextmanager
def _plain_file(source: Path) -> Iterator[tuple[Path, str]]:
    """(the source as a file that can be read again, what to read it as where its name does not tell)."""
    if is_open_pipe(source):
        with scratch("curricle-assign-") as folder:
            path = folder / "piped"
            with source.open("rb") as pipe, path.open("wb") as out:
                shutil.copyfileobj(pipe, out)
            yield path, _kind(path)
        return
    if strange := what_else(source):
        raise DataError(f"{source} is {strange}; name a file, or pipe a command's output: <(command), or /dev/stdin")
    yield source, _kind_of(source) if source.is_file() else ""


def _kind_of(path: Path) -> str:
    """What to read a file as where its name does not tell."""
    return "" if path.suffix.lower() in SUFFIXES else _kind(path)


def _kind(path: Path) -> str:
    with path.open("rb") as file:
        first = file.read(4)
    return next((kind for mark, kind in _FIRST_BYTES.items() if first.startswith(mark)), ".csv")


@contextmanager
def _progress_folder(output: Path) -> Iterator[Path]:
    """A folder for the coded pieces, hidden beside the output. It goes when the block ends well, or when few pieces are in it."""
    folder = Path(tempfile.mkdtemp(prefix=f"{_hidden(output)}{owner()}-", dir=output.parent))
    done = False
    try:
        yield folder
        done = True
    finally:
        if done or len(list(folder.glob("*.jsonl"))) < WORTH_KEEPING:
            shutil.rmtree(folder, ignore_errors=True)


def _hidden(output: Path) -> str:
    return f".{output.name[:40]}.assigning-"


def _adopt(folder: Path, output: Path, key: str) -> None:
    """Take what a dead command left of this very work in the place of an empty folder; what it left of other work goes."""
    for left in leftovers(_hidden(output), output.parent):
        with suppress(OSError):  # another process may have been faster
            if (left / "key").read_text() == key:
                left.rename(folder)
                break
    remove_leftovers(_hidden(output), output.parent)
    (folder / "key").write_text(key)
