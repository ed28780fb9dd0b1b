"""Reads a classification from a table: codes with titles, what is below what, and where given level, description, examples and exclusions.

Owns how columns are recognised and how the tree is found: by a column of parents, by columns that hold a code's ancestors, or by the codes themselves
(prefixes, ranges such as ``31-33``, letters above numbers). Codes are text. Pure Python; knows nothing of splits or training.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from curricle.errors import ConfigError, DataError
from curricle.tables import Row, Table, open_table

NOTHING = {"", "na", "n/a", "none", "null", "nan", "-", "--", "."}
"""What stands for no parent, level or description, in any case. A code or a title may be any of them."""
NAMES: Mapping[str, tuple[str, ...]] = {
    "code": ("code", "codes", "notation", "kode", "codigo", "código", "codice", "id"),
    "title": ("title", "titles", "label", "preferredlabel", "name", "titel", "bezeichnung", "libelle", "libellé", "intitule", "intitulé", "titulo", "título", "heading"),
    "parent": ("parent", "broader", "parents", "superior"),
    "level": ("level", "niveau", "nivel", "ebene", "livello", "depth"),
    "description": ("description", "definition", "descriptions", "definitions", "descr", "beschreibung"),
    "examples": ("examples", "example", "includes", "included", "inclusions", "include"),
    "exclusions": ("exclusions", "excludes", "excluded", "exclusion", "exclude"),
}  # fmt: skip
"""Words by which a column is known, the surest first."""
WORDS_OF_NOTE = 5
"""Of what stands alone in a row: a code without a title is not so long."""


@dataclass(frozen=True)
class Classification:
    """Codes in the order of the file; every mapping is keyed by code."""

    codes: tuple[str, ...]
    parents: tuple[str | None, ...]
    levels: tuple[int | None, ...]
    """The numbers of the file's column of levels, None where it has none."""
    titles: Mapping[str, str]
    descriptions: Mapping[str, str]
    examples: Mapping[str, tuple[str, ...]]
    exclusions: Mapping[str, str]
    said: str
    """What was recognised, for people."""


def read_classification(
    path: Path, columns: Mapping[str, str], *, encoding: str = "", shown: str = ""
) -> Classification:
    """Read a classification.

    Args:
        columns: names of columns by what they hold (the keys of `NAMES`); what is missing or empty is recognised.
        shown: the file's name in messages, where it is not its path.

    Raises:
        DataError: the file is no table, a row is none, or the codes make no tree; names the line.
        ConfigError: no column holds codes or titles, or one that was named is not there.
    """
    table, shown = open_table(path, encoding=encoding), shown or str(path)
    places = _columns(table, columns, shown)
    if (
        table.has_header
        and "code" in places
        and not _word(table.columns[places["code"]], "code")
        and not columns.get("code")
        and not _heads(table.columns[places["code"]], [row.cells[places["code"]] for row in table.sample])
    ):
        table = open_table(path, encoding=encoding, header=False)
    rows: list[Row] = []
    notes: list[Row] = []
    empty = 0
    for row in table.rows():
        if _is_note(row, places, bool(notes)):
            notes.append(row)
            continue
        if not row.problem and not _code(row, places):
            empty += 1
            continue
        if notes or row.problem:  # a code below a note: that one is none
            bad = next((note for note in notes if note.problem), row)
            if bad.problem:
                raise DataError(f"{shown}, {table.unit} {bad.line}: {bad.problem}")
            rows, notes = rows + notes, []
        if isinstance(row.typed, list) and isinstance(row.typed[places["code"]], date):
            raise DataError(
                f"{shown}, {table.unit} {row.line}: the code is a date, {row.cells[places['code']]}; save that column as text"
            )
        rows.append(row)
    rows = _once(rows, places, table.unit, shown)
    if not rows:
        raise DataError(f"{shown}: column {table.columns[places['code']]!r} holds no code")
    codes = [_code(row, places) for row in rows]
    levels = [_level(row.cells[places["level"]]) if "level" in places else None for row in rows]
    parents, by = _parents(rows, codes, levels, places, table, shown)

    def text(row: Row, what: str) -> str:
        cell = " ".join(row.cells[places[what]].split()) if what in places else ""
        return "" if cell.casefold() in NOTHING else cell

    titles = {code: " ".join(row.cells[places["title"]].split()) or code for code, row in zip(codes, rows, strict=True)}
    known = ", ".join(f"{what} {table.columns[place]!r}" for what, place in places.items())
    said = f"{shown}: {table.said}; {known}; tree {by}; {len(codes):,} codes"
    said += _unread(rows, codes, places, table)
    if untitled := [code for code, row in zip(codes, rows, strict=True) if not row.cells[places["title"]].strip()]:
        said += f"; {len(untitled):,} codes without a title have their code for one, as {untitled[0]!r}"
    if empty:
        said += f"; {empty} rows without a code are left out"
    if notes:
        named = ", ".join(f"{note.line}: {_lone(note, places)[:60]!r}" for note in notes[:3])
        said += f"; notes below the codes are left out ({len(notes)}; {table.unit} {named}{', ...' * (len(notes) > 3)})"
    return Classification(
        codes=tuple(codes),
        parents=tuple(parents),
        levels=tuple(levels),
        titles=titles,
        descriptions={
            code: found for code, row in zip(codes, rows, strict=True) if (found := text(row, "description"))
        },
        examples={code: some for code, row in zip(codes, rows, strict=True) if (some := _examples(row, places))},
        exclusions={code: found for code, row in zip(codes, rows, strict=True) if (found := text(row, "exclusions"))},
        said=said,
    )


def named_columns(table: Table, wanted: Mapping[str, str], shown: str) -> dict[str, int]:
    """Positions of the columns that a user named.

    Raises:
        ConfigError: one is not there, or there twice.
    """
    places = {}
    for what, name in wanted.items():
        if name:
            found = [i for i, column in enumerate(table.columns) if column == name] or [
                i for i, column in enumerate(table.columns) if column.casefold() == name.strip().casefold()
            ]
            if len(found) != 1:
                raise ConfigError(
                    f"data.columns.{what} is {name!r}, and {shown} has {'no such column' if not found else 'that column twice'}; its columns: {_list(table.columns)}"
                )
            places[what] = found[0]
    return places


def known_as(name: str, words: Sequence[str]) -> int:
    """How surely a column's name means one of these words: 0 not at all, more for the whole name and for earlier words."""
    parts = re.findall(r"[^\W\d_]+", re.sub(r"(?<=[^\W\d_A-Z])(?=[A-Z])", " ", name).casefold())
    best = 0
    for order, word in enumerate(words):
        if word in parts:
            best = max(best, 100 * (parts == [word]) + 10 * (parts[-1] == word) + len(words) - order)
    return best


def _heads(name: str, cells: Sequence[str]) -> bool:
    """Whether a word stands above a column of codes that are written otherwise: letters above numbers, or a word without a digit above codes with digits."""

    def share(pattern: str) -> float:
        return sum(bool(re.search(pattern, cell)) for cell in cells) / max(1, len(cells))

    letters, digits = bool(re.search(r"[^\W\d_]", name)), bool(re.search(r"\d", name))
    return letters and (share(r"[^\W\d_]") < 0.1 or (not digits and len(name) > 1 and share(r"\d") > 0.5))


def _word(name: str, what: str) -> bool:
    return known_as(name, NAMES[what]) > 0


def _list(names: Iterable[str]) -> str:
    return ", ".join(repr(name) for name in names) or "none"


def _columns(table: Table, wanted: Mapping[str, str], shown: str) -> dict[str, int]:
    places = named_columns(table, {what: wanted.get(what, "") for what in NAMES}, shown)
    for what, words in NAMES.items():
        free = [i for i in range(len(table.columns)) if i not in places.values()]
        scores = {i: known_as(table.columns[i], words) for i in free}
        if what == "parent":  # the parent's title is none
            scores = {i: score for i, score in scores.items() if not _word(table.columns[i], "title")}
        if what in ("code", "title"):  # nor is the parent's code the code
            scores = {i: score for i, score in scores.items() if not _word(table.columns[i], "parent")}
        best = max(scores, key=lambda i: scores[i], default=None)
        if what not in places and best is not None and scores[best] > 0:
            places[what] = best
    if "title" not in places and "description" in places and not wanted.get("description"):
        places["title"] = places.pop("description")
    if "code" not in places or "title" not in places:
        guess = _by_content(table, places)
        missing = [what for what in ("code", "title") if what not in guess]
        if missing:
            raise ConfigError(
                f"{shown} ({table.said}): no column is known as that of {' and '.join(missing)}s; its columns: {_list(table.columns)}. "
                f"Name {'them' if len(missing) > 1 else 'it'}: {', '.join(f'data.columns.{what}=NAME' for what in missing)}"
            )
        places = guess
    order = list(NAMES)
    return dict(sorted(places.items(), key=lambda item: order.index(item[0])))


def _by_content(table: Table, places: dict[str, int]) -> dict[str, int]:
    """Without names: codes are short and each there once, titles are the longest text."""
    guess = dict(places)
    values = [[row.cells[i].strip() for row in table.sample] for i in range(len(table.columns))]
    free = [i for i in range(len(table.columns)) if i not in guess.values() and any(values[i])]
    length = {i: sum(map(len, values[i])) / len(values[i]) for i in free}
    if "code" not in guess:
        single = [
            i
            for i in free
            if len(set(values[i])) == len(values[i]) and not any(" " in v or len(v) > 20 for v in values[i])
        ]
        counting = {i for i in single if values[i] == [str(n) for n in range(int(values[i][0]), int(values[i][0]) + len(values[i]))]} if all(v[:1].isdecimal() and v.isdecimal() for i in single for v in values[i]) and len(single) > 1 else set()  # fmt: skip
        single = [i for i in single if i not in counting] or single
        if not single:
            return guess
        guess["code"] = min(single, key=lambda i: length[i])
    rest = [i for i in free if i != guess["code"] and any(re.search(r"[^\W\d_]{2}", v) for v in values[i])]
    if "title" not in guess and rest:
        guess["title"] = max(rest, key=lambda i: (len(set(values[i])) > 0.9 * len(values[i]), length[i]))
    return guess


def _code(row: Row, places: Mapping[str, int]) -> str:
    return row.cells[places["code"]].strip()


def _lone(row: Row, places: Mapping[str, int]) -> str:
    """What stands in the code's column alone, or in the only cell; empty where more stands in the row."""
    if row.problem:
        return row.cells[0].strip() if len(row.cells) == 1 and row.problem.startswith("has 1 ") else ""
    filled = [cell.strip() for cell in row.cells if cell.strip()]
    return filled[0] if len(filled) == 1 and filled[0] == _code(row, places) else ""


def _is_note(row: Row, places: Mapping[str, int], below: bool) -> bool:
    """Whether a row is a note: alone in its row stands what begins with a mark, has a colon or many words, or anything that is `below` a note."""
    text = _lone(row, places)
    return bool(text) and (below or bool(re.search(r"^[*†‡§©]|:(\s|$)|：", text)) or len(text.split()) >= WORDS_OF_NOTE)


def _once(rows: list[Row], places: Mapping[str, int], unit: str, shown: str) -> list[Row]:
    """Each code's first row; DataError where a code is there twice with two titles."""
    first: dict[str, Row] = {}
    for row in rows:
        code = _code(row, places)
        other = first.setdefault(code, row)
        if other is not row and other.cells[places["title"]].strip() != row.cells[places["title"]].strip():
            raise DataError(
                f"{shown}: code {code!r} is there twice, in {unit} {other.line} ({other.cells[places['title']]!r}) and {unit} {row.line} "
                f"({row.cells[places['title']]!r}); where codes lost their leading zeros, save that column as text"
            )
    return list(first.values())


def _level(cell: str) -> int | None:
    cell = cell.strip()
    return int(cell) if re.fullmatch(r"[0-9]{1,4}", cell) else None


def _examples(row: Row, places: Mapping[str, int]) -> tuple[str, ...]:
    if "examples" not in places:
        return ()
    parts = re.split(r"[\n;|•]", row.cells[places["examples"]])
    found = (" ".join(part.strip(" -*·").split()) for part in parts)
    return tuple(part for part in found if part.casefold() not in NOTHING)


# The tree


def _parents(rows: list[Row], codes: list[str], levels: list[int | None], places: Mapping[str, int], table: Table, shown: str) -> tuple[list[str | None], str]:  # fmt: skip
    """The parent of each code, and how it was found."""
    known = set(codes)
    if "parent" in places:
        match = matcher(codes)
        parents: list[str | None] = []
        for row, code in zip(rows, codes, strict=True):
            cell = row.cells[places["parent"]].strip()
            above = cell if cell in known else None if cell.casefold() in NOTHING else match(cell)
            if above is None and cell.casefold() not in NOTHING:
                raise DataError(
                    f"{shown}, {table.unit} {row.line}: code {code!r} has the parent {cell!r}, which is no code of this file"
                )
            parents.append(None if above == code else above)
        if circle := _circle(codes, parents):
            line = rows[codes.index(circle[0])].line
            raise DataError(
                f"{shown}, {table.unit} {line}: code {circle[0]!r} is among its own ancestors: {' → '.join(circle)}"
            )
        if any(parents):
            return parents, f"by column {table.columns[places['parent']]!r}"
        return parents, f"of one level (column {table.columns[places['parent']]!r} names no parent)"
    if by_columns := _by_columns(rows, codes, known, places, table):
        return by_columns
    if why := _one_level(codes, levels):
        return [None] * len(codes), f"of one level ({why})"
    found = by_code(codes)
    if sections := _by_section(rows, codes, found, places, table):
        return sections
    outline = _outline(codes, levels)
    agrees = outline and all(o == f for o, f in zip(outline, found, strict=True) if f is not None)
    if outline and agrees and outline != found:
        return outline, "by level and order of rows"
    if not any(found):
        return found, "of one level (no code is below another)"
    idle = _idle_sections(codes, found)
    more = f" (which numbers belong to {', '.join(idle[:5])} the table does not say; a column of parents would: data.columns.parent=NAME)" if idle else ""  # fmt: skip
    return found, f"by prefix of the codes{more}"


def _idle_sections(codes: list[str], parents: list[str | None]) -> list[str]:
    """Letters on the top with nothing below them, where numbers stand on the top too."""
    above, roots = set(parents), [code for code, parent in zip(codes, parents, strict=True) if parent is None]
    letters = [code for code in roots if code.isalpha() and len(code) <= 5 and code not in above]
    return letters if any(code[0].isdigit() for code in roots) else []


def _by_section(
    rows: list[Row], codes: list[str], parents: list[str | None], places: Mapping[str, int], table: Table
) -> tuple[list[str | None], str] | None:
    """Parents by the codes alone, but for the numbers on the top: these by a column that holds the letter of each one's section."""
    letters = {code for code, parent in zip(codes, parents, strict=True) if parent is None and code.isalpha()}
    numbers = [i for i, (code, parent) in enumerate(zip(codes, parents, strict=True)) if code[0].isdigit() and (parent is None or parent in letters)]  # fmt: skip
    if not letters or not numbers:
        return None
    for place in (i for i in range(len(table.columns)) if i not in places.values()):
        cells = [rows[i].cells[place].strip() for i in numbers]
        if all(cell in letters for cell in cells):
            made = list(parents)
            for i, cell in zip(numbers, cells, strict=True):
                made[i] = cell
            return made, f"by prefix of the codes, sections by column {table.columns[place]!r}"
    return None


def _circle(codes: list[str], parents: list[str | None]) -> list[str]:
    """A code and what is above it, up to itself again; empty where no code is among its own ancestors."""
    above, ended = dict(zip(codes, parents, strict=True)), set[str]()
    for code in codes:
        way: dict[str, None] = {}
        at: str | None = code
        while at is not None and at not in ended and at not in way:
            way[at] = None
            at = above[at]
        if at in way:
            return [*list(way)[list(way).index(at) :], at]
        ended.update(way)
    return []


def _one_level(codes: list[str], levels: list[int | None]) -> str:
    """Why no code is below another, whatever the codes begin with; empty where nothing says so. Of running numbers 12 is not below 1."""
    if len(set(levels)) == 1 and levels[0] is not None:
        return f"all codes are of level {levels[0]}"
    if any(set(codes) == {str(n) for n in range(first, first + len(codes))} for first in (0, 1)):
        return "the codes are running numbers; data.columns.parent=NAME says otherwise"
    return ""


def _unread(rows: list[Row], codes: list[str], places: Mapping[str, int], table: Table) -> str:
    """Of a column that is not read and holds codes of this table alone: what to do if they are parents; else empty."""
    known = set(codes)
    free = [] if "parent" in places else [i for i in range(len(table.columns)) if i not in places.values()]
    for i in free:
        cells = [row.cells[i].strip() for row in rows]
        others = [cell for cell in cells if cell.casefold() not in NOTHING]
        if len(others) * 2 > len(rows) and set(others) <= known and not any(map(str.__eq__, cells, codes)):
            return f"; column {table.columns[i]!r} is not read: if it names parents, say data.columns.parent={table.columns[i]}"
    return ""


STRAYING = 0.02
"""Share of codes that may stand in none of the columns of ancestors: slips of the table."""


def _by_columns(
    rows: list[Row], codes: list[str], known: set[str], places: Mapping[str, int], table: Table
) -> tuple[list[str | None], str] | None:
    """Parents out of columns like `naics2d`, `naics3d` ..., and how they were found: a code stands in the column of its own level, its parent in the one before.

    A code that stands in none of them has the parent that codes alone give, and so has what begins with it. None where there are no such columns.
    """
    free = [i for i in range(len(rows[0].cells)) if i not in places.values()]
    holding = [i for i in free if any(row.cells[i].strip() == code for row, code in zip(rows, codes, strict=True))]
    if len(holding) < 2:
        return None
    parents: list[str | None] = []
    straying: list[int] = []
    unknown: dict[str, int] = {}
    for i, (row, code) in enumerate(zip(rows, codes, strict=True)):
        cells = [row.cells[i].strip() for i in holding]
        if code not in cells:
            straying.append(i)
            cells = []
        before = cells[: cells.index(code)] if cells else []
        left = [cell for cell in before if cell in known]
        parents.append(left[-1] if left else None)
        if before and not left and before[-1].casefold() not in NOTHING:
            unknown[before[-1]] = unknown.get(before[-1], 0) + 1
    if len(straying) > STRAYING * len(codes) or not any(parents):
        return None
    lost = {codes[i] for i in straying}
    for i, above in enumerate(by_code(codes) if straying else ()):
        if codes[i] in lost or above in lost:
            parents[i] = above
    said = f"by columns {', '.join(repr(table.columns[i]) for i in holding)}"
    if straying:
        said += f" ({len(straying)} codes that stand in none of them by prefix, as {codes[straying[0]]!r})"
    for cell, count in unknown.items():
        said += f" ({count} codes under {cell!r}, which is no code of this table, have no parent)"
    return parents, said


def _outline(codes: list[str], levels: list[int | None]) -> list[str | None] | None:
    """Parents by order: the last code before of a smaller level. None where a level is missing, or the first row is not of the smallest one."""
    if any(level is None for level in levels) or levels[0] != min(level for level in levels if level is not None):
        return None
    open_: list[tuple[int, str]] = []
    parents: list[str | None] = []
    for code, level in zip(codes, levels, strict=True):
        assert level is not None
        while open_ and open_[-1][0] >= level:
            open_.pop()
        parents.append(open_[-1][1] if open_ else None)
        open_.append((level, code))
    return parents


def by_code(codes: Sequence[str]) -> list[str | None]:
    """Parents by the codes alone.

    The parent is the longest code that begins this one, marks such as dots and hyphens aside; where all codes are of one length, zeros at their end count as nothing.
    A range (``31-33``, ``A00-A09``) stands above what lies in it; letters without anything below stand above the numbers that follow them.
    """
    return _letters(list(codes), _by_prefix(codes))


def _by_prefix(codes: Sequence[str]) -> list[str | None]:
    """The same without the letters above numbers."""
    if numbered := _numbered(codes):
        return numbered
    plain = _plain(codes)
    ranges = [(code, *pair) for code in codes if (pair := _range(code))]
    plain |= _without_padding({code: key for code, key in plain.items() if not _range(code)})
    roman = _roman(codes)
    owner: dict[str, str] = {}
    for code in codes:
        if not _range(code) and code not in roman:
            owner.setdefault(plain[code], code)
    parents: list[str | None] = []
    for code in codes:
        key, own = plain[code], _range(code)
        above = None
        if own is None and code not in roman:
            above = next(
                (owner[key[:n]] for n in range(len(key) - 1, 0, -1) if key[:n] in owner and owner[key[:n]] != code),
                None,
            )
        if above is None:
            low, high = own or (key, key)
            around = [
                r
                for r in ranges
                if r[0] != code and r[1] <= low[: len(r[1])] and high[: len(r[2])] <= r[2] and len(low) >= len(r[1])
            ]
            above = min(around, key=lambda r: (-len(r[1]), _between(r[1], r[2])))[0] if around else None
        parents.append(above)
    return parents


def _plain(codes: Sequence[str]) -> dict[str, str]:
    """Each code without marks and in one case, unless codes differ in nothing else; without a check digit where all have one (``03111000-2``)."""
    checked = {code: re.fullmatch(r"(\d{4,})-\d", code) for code in codes}
    if all(checked.values()) and len({found[1] for found in checked.values() if found}) == len(checked):
        return {code: found[1] for code, found in checked.items() if found}
    plain = {code: re.sub(r"[\W_]", "", code) or code for code in codes}
    upper = {code: key.upper() for code, key in plain.items()}
    return upper if len(set(upper.values())) == len(set(plain.values())) else plain


def _roman(codes: Sequence[str]) -> set[str]:
    """The codes I, II, III, IV ... where the codes of letters alone are just these."""
    letters = {code for code in codes if code.isalpha()}
    ones, tens = ("", "I", "II", "III", "IV", "V", "VI", "VII", "VIII", "IX"), ("", "X", "XX", "XXX", "XL", "L")
    numerals = [ten + one for ten in tens for one in ones][1 : len(letters) + 1]
    return letters if len(letters) > 1 and letters == set(numerals) else set()


def _numbered(codes: Sequence[str]) -> list[str | None]:
    """Parents of codes that are numbered as chapters are (1, 1.1, 1.2, 2, 12, 12.1): 12 is not below 1. Empty where they are not.

    They are where most codes have a mark, and the numbers before the first one have no zeros in front, are codes themselves, and of different length. Numbers behind it are whole numbers too where siblings count on from one to the
    next, else digits one by one (the 1.11 below 1.1).
    """
    parts = {code: tuple(part for part in re.split(r"[\W_]+", code) if part) or (code,) for code in codes}
    firsts = {found[0] for found in parts.values()}
    chapters = {found[0] for found in parts.values() if len(found) == 1}
    plain = all(first.isdigit() and (first[0] != "0" or first == "0") for first in firsts)
    if not plain or firsts != chapters or len(codes) < 2 * len(chapters) or len({len(first) for first in firsts}) == 1:
        return []
    siblings: dict[tuple[str, ...], set[str]] = {}
    for found in parts.values():
        if len(found) > 1:
            siblings.setdefault(found[:-1], set()).add(found[-1])
    counted = all(
        names == {str(n) for n in range(first, first + len(names))}
        for names in siblings.values()
        if len({len(name) for name in names}) > 1
        for first in [min((int(name) for name in names if name.isdigit()), default=0)]
    )

    def keys(found: tuple[str, ...]) -> list[tuple[str, ...]]:
        """What may stand for a code above this one, the nearest first."""
        if counted:
            return [found[:n] for n in range(len(found) - 1, 0, -1)]
        return [(found[0], *digits) for rest in ["".join(found[1:])] for n in range(len(rest) - 1, -1, -1) for digits in [tuple(rest[:n])]]  # fmt: skip

    owner: dict[tuple[str, ...], str] = {}
    for code, found in parts.items():
        owner.setdefault(found if counted else (found[0], *"".join(found[1:])), code)
    return [next((owner[key] for key in keys(parts[code]) if key in owner and owner[key] != code), None) for code in codes]  # fmt: skip


def _without_padding(plain: dict[str, str]) -> dict[str, str]:
    """Keys of one length without the zeros that stand for finer levels (``111000`` → ``111``); nothing where zeros do not seem to.

    They do where every key lies under one that ends in two zeros at least. Plain numbers that make a whole tree in steps of two or three digits are cut in such steps.
    """
    if len(plain) < 2 or len({len(key) for key in plain.values()}) > 1 or len(next(iter(plain.values()))) < 4:
        return {}
    bare = {code: key.rstrip("0") or key[0] for code, key in plain.items()}
    width, marked = len(next(iter(plain.values()))), any(not code.isdigit() for code in plain)
    for step in (1,) if marked else (n for n in (3, 2, 1) if width % n == 0):
        cut = {code: plain[code][: -(-len(key) // step) * step] for code, key in bare.items()}
        keys = set(cut.values())
        roots = {key for key in keys if not any(key[:n] in keys for n in range(1, len(key)))}
        whole = step == 1 or all(key in roots or key[:-step] in keys for key in keys)
        padded = all(plain[code].endswith("00") for code, key in cut.items() if key in roots)
        if len(keys) == len(cut) and whole and padded and len(roots) < len(keys):
            return cut
    return {}


def _range(code: str) -> tuple[str, str] | None:
    found = re.fullmatch(r"(\w+)\s*[-–—]\s*(\w+)", code)
    low, high = (found[1].upper(), found[2].upper()) if found else ("", "")
    alike = (
        len(low) == len(high)
        and re.sub(r"\d", "0", low) == re.sub(r"\d", "0", high)
        or low[:1].isalpha()
        and high[:1].isalpha()
        and len(low) == len(high)
    )
    return (low, high) if low and low < high and alike else None


def _between(low: str, high: str) -> str:
    """Something that is smaller for narrower ranges of one length."""
    return "".join(chr(max(0, ord(h) - ord(l))) for l, h in zip(low, high, strict=True))  # noqa: E741


def _letters(codes: list[str], parents: list[str | None]) -> list[str | None]:
    """Numbers on the top below the letter that stands before them, where each letter has some: of letters one after the other nobody knows which numbers they mean."""
    above, roman = {parent for parent in parents if parent}, _roman(codes)
    sections = {c for c, p in zip(codes, parents, strict=True) if p is None and (re.fullmatch(r"[^\W\d_]{1,2}", c) or c in roman)}  # fmt: skip
    numbers = {c for c, p in zip(codes, parents, strict=True) if p is None and c[0].isdigit()}
    if not sections or sections & above or not numbers or codes[0] not in sections:
        return parents
    order = [code in sections for code in codes if code in sections or code in numbers]
    if order[-1] or any(here and after for here, after in zip(order, order[1:], strict=False)):
        return parents
    last: str | None = None
    made = list(parents)
    for i, code in enumerate(codes):
        if code in sections:
            last = code
        elif code in numbers:
            made[i] = last
    return made


def matcher(codes: Iterable[str]) -> Callable[[str], str | None]:
    """Finds the code that another way of writing means: other marks and case (``11 1011`` for ``11-1011``), a ``.0`` of a number, lost zeros; None for none or several."""
    known = list(codes)
    exact, loose = set(known), dict[str, str | None]()
    unchecked = _plain(known)
    for code in known:
        for key in {_bare(code), unchecked[code].upper()}:
            loose[key] = None if key in loose else code
    leading = sorted({len(code) for code in known if code[0] == "0" and code.isdigit()})
    zeros = max((len(code) - len(code.lstrip("0")) for code in known), default=0)

    def find(text: str) -> str | None:
        text = text.strip()
        for way in (text, text.removesuffix(".0")):
            if way in exact:
                return way
        if (
            text[:1].isdigit() and not text.isdigit()
        ):  # 1.42 for 01.42: before marks are dropped, which would make it 14.2
            padded = [way for n in range(1, zeros + 1) if (way := "0" * n + text) in exact]
            if padded:
                return padded[0] if len(padded) == 1 else None
        for way in (text, text.removesuffix(".0")):
            found = loose.get(_bare(way))
            if found and _same_marks(way, found):
                return found
        digits = text.removesuffix(".0")
        padded = [digits.zfill(n) for n in leading if digits.isdigit() and n > len(digits) and digits.zfill(n) in exact]
        if len(padded) == 1:
            return padded[0]
        bare = [loose.get(_bare("0" * n + text)) for n in range(1, zeros + 1)] if text.isdigit() else []
        bare = [code for code in bare if code and not code.isdigit()]
        return bare[0] if len(bare) == 1 else None

    return find


def _bare(code: str) -> str:
    return re.sub(r"[\W_]", "", code).upper()


def _same_marks(text: str, code: str) -> bool:
    """Whether marks, where both have some, stand at the same places: 1.42 is not 14.2."""
    one, other = re.split(r"[\W_]+", text), re.split(r"[\W_]+", code)
    return len(one) == 1 or len(other) == 1 or [len(part) for part in one] == [len(part) for part in other]
