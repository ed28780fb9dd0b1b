"""Labelled texts out of any number of tables: which columns hold what, which leaf a code means, which texts are kept, and their split.

Reads the files twice and keeps some 60 bytes a row in between (numbers, no texts), so that millions of rows fit into a process of ordinary size. Knows nothing of how the texts
are stored or trained on.
"""

from __future__ import annotations

import hashlib
import logging
import re
import unicodedata
from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from curricle.errors import ConfigError, DataError
from curricle.families.codes.classification import NAMES, NOTHING, known_as, matcher, named_columns
from curricle.families.codes.tree import Tree
from curricle.tables import Row, Table, open_table

_log = logging.getLogger(__name__)

TEXT = ("text", "texts", "entry", "description", "answer", "response", "activity", "occupation", "job", "product", "verbatim", "title", "titles", "item", "input", "sentence", "libelle", "libellé")  # fmt: skip
LABEL = (*NAMES["code"][:-1], "label", "class", "target", "category")
EXACT = {"weight": ("weight", "count", "frequency", "freq"), "date": ("date",), "source": ("source",), "group": ("group", "group_id"), "split": ("split", "fold")}  # fmt: skip
"""Names of the optional columns, which must be just these."""
SPLITS = {"train": "train", "training": "train", "validation": "validation", "valid": "validation", "val": "validation", "dev": "validation", "test": "test", "testing": "test", "": ""}  # fmt: skip
TRAIN, VALIDATION, TEST, DROPPED = 0, 1, 2, 3
NAMED = 3
"""Rows that are named of those left out for one reason."""
LOST = 0.5
"""Share of rows left out from which on the files are taken for the wrong ones."""
LONGEST = 10_000
"""Characters of a text that are kept."""
SHARES = (0.15, 0.05)
"""Of a code's texts, for test and for validation."""
MOST = (50_000, 10_000)
"""Texts for test and for validation at most."""


def word_set(text: str) -> tuple[str, ...]:
    """The distinct words of a text in any script, sorted, in one case and one form; of one without words its marks."""
    flat = unicodedata.normalize("NFKC", text).casefold()
    return tuple(sorted(set(re.findall(r"[^\W_]+", flat)))) or (" ".join(flat.split()),)


def text_number(text: str) -> int:
    """64 bits that stand for a text."""
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=8).digest(), "little")


@dataclass(frozen=True)
class Source:
    """A local file, and what it is called in messages."""

    path: Path
    shown: str


@dataclass(frozen=True)
class Text:
    """A labelled text that is kept."""

    text: str
    leaf: int
    """Position of its code in the tree."""
    split: str
    weight: float
    extra: dict[str, str]
    """Its date and source, where the table has such columns."""


@dataclass
class _Columns:
    table: Table
    text: int
    label: int
    further: dict[str, int]
    others: list[str]
    """Further columns that hold codes of the classification."""


@dataclass
class _Rows:
    """What is kept of each row between the two readings."""

    text: array[int] = field(default_factory=lambda: array("Q"))
    words: array[int] = field(default_factory=lambda: array("Q"))
    leaf: list[np.ndarray] = field(default_factory=list)
    weight: array[float] = field(default_factory=lambda: array("f"))
    group: array[int] = field(default_factory=lambda: array("Q"))
    split: array[int] = field(default_factory=lambda: array("b"))


class Labelled:
    """Labelled texts of several tables.

    Raises:
        DataError: a file is no table, no row or less than half of them can be used, or there is no text to validate on.
        ConfigError: a column was named that is not there, or none is recognised.
    """

    def __init__(self, sources: Sequence[Source], tree: Tree, columns: Mapping[str, str], *, encoding: str, split_seed: int, titles: Sequence[str], cold: np.ndarray, known: Callable[[np.ndarray], np.ndarray] | None = None):  # fmt: skip
        """titles: of all codes; a text with the words of one is trained on. cold: bool [N] codes whose texts are in no split but ``cold``. known: of texts that
        are added to others, the split of the others with the same words (`text_number` of `word_set` [n] → [n], -1 for none; see `divide_further`)."""
        self.tree, self.cold, self.encoding, self._known = tree, cold, encoding, known
        self.said: list[str] = []
        self.left_out: Counter[str] = Counter()
        self._named: dict[str, list[str]] = {}
        self._match = matcher(tree.codes)
        self._files = [(source, self._look(source, columns)) for source in sources]
        rows = _Rows()
        for source, found in self._files:
            self._read(source, found, rows)
        total = len(rows.text)
        leaf = np.concatenate(rows.leaf) if rows.leaf else np.empty(0, dtype=np.int32)
        lost = int((leaf < 0).sum())
        if not total:
            raise DataError(f"{', '.join(source.shown for source in sources)}: no labelled row below the header")
        if total == lost or lost > LOST * total:
            asked = " Is this the classification that they were coded with?" if any(self.left_out[why] for why in _WHY.values()) else ""  # fmt: skip
            raise DataError(f"of {total:,} labelled rows {lost:,} cannot be used: {self.why()}.{asked} Read were {'; '.join(self.said)}")  # fmt: skip
        self.rows = total
        self._settle(rows, leaf, titles, split_seed)

    def why(self) -> str:
        """What was left out, with the first places."""
        named = {reason: f" ({', '.join(places)})" for reason, places in self._named.items() if places}
        return "; ".join(
            f"{count:,} × {reason}{named.get(reason, '')}" for reason, count in self.left_out.most_common()
        )

    # Columns

    def _look(self, source: Source, wanted: Mapping[str, str]) -> _Columns:
        table = open_table(source.path, encoding=self.encoding)
        names = {what: wanted.get(what, "") for what in ("text", "label", *EXACT)}
        found = self._columns(table, names, source.shown)
        if table.has_header and self._is_leaf(table.columns[found.label]):
            table = open_table(source.path, encoding=self.encoding, header=False)
            found = self._columns(table, names, source.shown)
        further = "".join(f", {what} {table.columns[i]!r}" for what, i in found.further.items())
        self.said.append(f"{source.shown}: {table.said}; text {_named(table, found.text)}, code {_named(table, found.label)}{further}{_also(found.others)}")  # fmt: skip
        return found

    def _columns(self, table: Table, wanted: Mapping[str, str], shown: str) -> _Columns:
        places = named_columns(table, wanted, shown)
        free = [i for i in range(len(table.columns)) if i not in places.values()]
        values = {i: [row.cells[i] for row in table.sample] for i in range(len(table.columns))}
        others: list[str] = []
        if "label" not in places:
            share = {i: _share(values[i], lambda cell: self._leaf(cell) is not None) for i in free}
            leaves = {i: _share(values[i], self._is_leaf) for i in free}
            surely = {i: known_as(table.columns[i], LABEL) if table.has_header else 0 for i in free}
            best = max(free, key=lambda i: (share[i] >= LOST and surely[i] > 0, share[i] >= LOST, leaves[i] >= LOST, surely[i] > 0, share[i], surely[i]), default=None)  # fmt: skip
            others = [table.columns[i] for i in free if i != best and leaves[i] >= LOST and best is not None and share[best] >= LOST]  # fmt: skip
            if best is not None and (share[best] >= LOST or surely[best] > 0):
                places["label"] = best
        free = [i for i in free if i not in places.values()]
        for what, words in EXACT.items():
            for i in free:
                named = what not in places and table.has_header and table.columns[i].strip().casefold() in words
                if named and (what != "split" or _share(values[i], lambda cell: cell.strip().casefold() in SPLITS) >= LOST):  # fmt: skip
                    places[what] = i
        free = [i for i in free if i not in places.values()]
        if "text" not in places:
            surely = {i: known_as(table.columns[i], TEXT) if table.has_header else 0 for i in free}
            length = {i: sum(map(len, values[i])) for i in free if any(re.search(r"[^\W\d_]{2}", cell) for cell in values[i])}  # fmt: skip
            best = max(free, key=lambda i: (surely[i], length.get(i, 0)), default=None)
            if best is not None and (surely[best] > 0 or length.get(best, 0)):
                places["text"] = best
        missing = [what for what in ("text", "label") if what not in places]
        if missing:
            raise ConfigError(
                f"{shown} ({table.said}): no column is known as that of {' and '.join({'text': 'texts', 'label': 'codes'}[m] for m in missing)}; its columns: "
                f"{', '.join(map(repr, table.columns))}. Name it: {', '.join(f'data.columns.{m}=NAME' for m in missing)}"
            )
        others = [name for name in others if name != table.columns[places["text"]]]
        return _Columns(table, places["text"], places["label"], {w: places[w] for w in EXACT if w in places}, others)

    # First reading

    def _leaf(self, cell: str) -> int | None:
        """The leaf that a cell means; -1 for a code above several leaves, None for no code."""
        code = self._match(cell)
        return None if code is None else int(self.tree.sole_leaf[self.tree.index[code]])

    def _is_leaf(self, cell: str) -> bool:
        """Whether a cell means one leaf."""
        leaf = self._leaf(cell)
        return leaf is not None and leaf >= 0

    def _read(self, source: Source, found: _Columns, rows: _Rows) -> None:
        raw, number = array("i"), {}  # type: ignore[var-annotated]
        bad: list[tuple[int, int, str]] = []  # row, line, why
        lines = array("q")
        for row in found.table.rows():
            place = len(raw)
            cell = row.cells[found.label].strip() if not row.problem else ""
            text = " ".join(row.cells[found.text].split())[:LONGEST] if not row.problem else ""
            why = row.problem or ("the text is empty" if not text else "the code is empty" if cell.casefold() in NOTHING and cell not in self.tree.index else "")  # fmt: skip
            if why:
                bad.append((place, row.line, "the row is none: it " + why if row.problem else why))
                raw.append(-1)
            else:
                raw.append(number.setdefault(cell, len(number)))
            lines.append(row.line)
            rows.text.append(text_number(unicodedata.normalize("NFKC", text).casefold()))
            rows.words.append(text_number("\n".join(word_set(text))))
            if found.further:
                self._further(source, found, row, rows)
        self._pad(rows)
        target = self._targets(list(number), source)
        self._say_moved(list(number), target, raw, source)
        leaf = np.append(target, np.int32(-1))[np.frombuffer(raw, dtype=np.int32) if raw else np.empty(0, dtype=np.int32)]  # fmt: skip
        for _, line, why in bad:
            self._leave(why, found.table, source, line)
        if (target < 0).any():
            cells = list(number)
            for place in np.flatnonzero(leaf < 0).tolist():
                if raw[place] >= 0:
                    cell = cells[raw[place]]
                    why = _WHY[int(target[raw[place]])]
                    self._leave(why, found.table, source, lines[place], cell)
        rows.leaf.append(leaf.astype(np.int32))

    def _targets(self, cells: list[str], source: Source) -> np.ndarray:
        """The leaf of each distinct cell: -1 for a code above several leaves, -2 for none, -3 where a zero in front may be lost."""
        found = [self._leaf(cell) for cell in cells]
        changed = [cell for cell, leaf in zip(cells, found, strict=True) if leaf is not None and cell not in self.tree.index]  # fmt: skip
        widths = {len(self.tree.codes[i]) for i in self.tree.leaves}
        lost = any(cell.isdigit() and len(cell) < max(widths) for cell in changed)
        if lost and len(widths) == 1 and not any(cell[0] == "0" for cell in cells):
            leaves = {
                self.tree.codes[i]: int(i) for i in self.tree.leaves
            }  # all zeros in front are lost: 11 is 0011 too
            found = [leaves.get(cell.zfill(*widths), leaf) if cell.isdigit() else leaf for cell, leaf in zip(cells, found, strict=True)]  # fmt: skip
        else:
            ends = {self.tree.codes[i] for i in self.tree.leaves}
            found = [-3 if leaf is not None and leaf >= 0 and cell in self.tree.index and _may_lack_a_zero(cell, ends, widths) else leaf for cell, leaf in zip(cells, found, strict=True)]  # fmt: skip
        if changed:
            example = changed[0]
            leaf = found[cells.index(example)]
            meant = self._match(example) if leaf is None or leaf < 0 else self.tree.codes[leaf]
            self.said.append(f"{source.shown}: {len(changed)} codes are written in another way, as {example!r} for {meant!r}")  # fmt: skip
        return np.array([-2 if leaf is None else leaf for leaf in found], dtype=np.int32)

    def _say_moved(self, cells: list[str], target: np.ndarray, raw: array[int], source: Source) -> None:
        """Say which codes above a single leaf have become that leaf."""
        moved = [i for i, cell in enumerate(cells) if target[i] >= 0 and cell in self.tree.index and cell != self.tree.codes[target[i]]]  # fmt: skip
        if moved:
            texts = int(np.isin(np.frombuffer(raw, dtype=np.int32), moved).sum())
            example = f"{cells[moved[0]]!r} as {self.tree.codes[target[moved[0]]]!r}"
            self.said.append(f"{source.shown}: a code with a single one below it is read as that one, {example}; texts: {texts:,}")  # fmt: skip

    def _further(self, source: Source, found: _Columns, row: Row, rows: _Rows) -> None:
        self._pad(rows, but=1)
        get = found.further.get
        cells = {what: row.cells[i].strip() for what in EXACT if not row.problem and (i := get(what)) is not None}
        try:
            weight = float(cells.get("weight") or 1)
            if not 0 <= weight < 1e12:
                raise ValueError
        except ValueError:
            raise DataError(f"{source.shown}, {found.table.unit} {row.line}: the weight {cells['weight']!r} is no number from 0 on") from None  # fmt: skip
        split = cells.get("split", "").casefold()
        if split not in SPLITS:
            raise DataError(f"{source.shown}, {found.table.unit} {row.line}: the split {cells['split']!r} is none of train, validation, test; rename the column if it is no split")  # fmt: skip
        rows.weight.append(weight)
        rows.group.append(text_number("group " + cells["group"]) if cells.get("group") else 0)
        rows.split.append({"": -1, "train": TRAIN, "validation": VALIDATION, "test": TEST}[SPLITS[split]])

    def _pad(self, rows: _Rows, but: int = 0) -> None:
        """Rows of files without further columns have none; where no file has any, nothing is kept."""
        behind = len(rows.text) - but - len(rows.weight)
        if behind > 0 and any(found.further for _, found in self._files if found):
            rows.weight.extend([1.0] * behind)
            rows.group.extend([0] * behind)
            rows.split.extend([-1] * behind)

    def _leave(self, why: str, table: Table, source: Source, line: int, cell: str = "") -> None:
        self.left_out[why] += 1
        named = self._named.setdefault(why, [])
        if len(named) < NAMED:
            named.append(f"{source.shown}, {table.unit} {line}" + (f": {cell!r}" if cell else ""))

    # Which rows are kept, and where

    def _settle(self, rows: _Rows, leaf: np.ndarray, titles: Sequence[str], seed: int) -> None:
        text, words = np.frombuffer(rows.text, dtype=np.uint64), np.frombuffer(rows.words, dtype=np.uint64)
        weight = np.frombuffer(rows.weight, dtype=np.float32) if rows.weight else np.ones(len(text), dtype=np.float32)
        good = np.flatnonzero(leaf >= 0)
        kept, self.sums, twice = _once(text[good], leaf[good], weight[good])
        kept = good[kept]
        again = np.setdiff1d(good, np.concatenate([kept, good[twice]]))
        self._later: dict[int, str] = {}
        """Rows to be named once the files are read again, and why they are left out."""
        self._leave_rows(SAME, again)
        self._leave_rows(OTHER_CODE, good[twice])
        self.kept = np.zeros(len(text), dtype=bool)
        self.kept[kept] = True
        self.leaf = leaf
        self.split = np.full(len(text), DROPPED, dtype=np.int8)
        unit = words[kept]
        if rows.group and any(rows.group):
            unit = _joined(unit, np.frombuffer(rows.group, dtype=np.uint64)[kept])
        own = np.frombuffer(rows.split, dtype=np.int8)[kept] if rows.split else np.full(len(kept), -1, dtype=np.int8)
        titled = np.isin(words[kept], np.array([text_number("\n".join(word_set(title))) for title in titles], dtype=np.uint64))  # fmt: skip
        if self._known is None:
            chosen = divide(unit, leaf[kept], own, titled, self.cold[leaf[kept]], seed)
        else:
            chosen = divide_further(unit, self._known(words[kept]), own, titled | self.cold[leaf[kept]], seed)
        self._leave_rows("for evaluation in its split, and with the words of a training text", kept[chosen == DROPPED])
        self.split[kept] = chosen
        self.kept[kept[chosen == DROPPED]] = False
        if self._known is None and not (chosen == VALIDATION).any():
            raise DataError(
                f"none of {len(kept):,} labelled texts can be kept for validation: no code has two that are not alike, or the split column names none. Give more texts"
                + (f". Left out are {self.why()}" if self.left_out else "")
            )

    def texts(self) -> Iterator[Text]:
        """The texts that are kept, in the order of the files (the second reading)."""
        place = -1
        names = ("train", "validation", "test")
        sums = dict(self.sums)
        for source, found in self._files:
            for row in found.table.rows():
                place += 1
                if why := self._later.get(place, ""):
                    self._leave_named(why, source, found, row)
                if place >= self.rows:
                    raise DataError(f"{source.shown} changed while it was read")
                if self.kept[place]:
                    leaf = int(self.leaf[place])
                    text = " ".join(row.cells[found.text].split())[:LONGEST]
                    extra = {w: cell for w in ("date", "source") if (i := found.further.get(w)) is not None and (cell := row.cells[i].strip())}  # fmt: skip
                    split = "cold" if self.cold[leaf] else names[self.split[place]]
                    yield Text(text, leaf, split, sums.get(place, 1.0), extra)

    def _leave_rows(self, why: str, rows: np.ndarray) -> None:
        """Count rows [n] by their places, and name the first of them later."""
        if len(rows):
            self.left_out[why] += len(rows)
            self._later |= dict.fromkeys(np.sort(rows)[:NAMED].tolist(), why)

    def _leave_named(self, why: str, source: Source, found: _Columns, row: Row) -> None:
        self._named.setdefault(why, []).append(f"{source.shown}, {found.table.unit} {row.line}: {row.cells[found.text][:60]!r} as {row.cells[found.label]!r}")  # fmt: skip

    def facts(self) -> dict[str, Any]:
        """What was read and left out, for the manifest."""
        return {"rows": self.rows, "left_out": dict(self.left_out), "read_as": self.said}


SAME = "the same text with the same code stands there before"
OTHER_CODE = "the same text has another code more often (or first)"
_WHY = {
    -1: "the code has codes below it",
    -2: "the code is not in the classification",
    -3: "the code may have lost a zero in front, for it is a code with a single one below it, and with the zero another one",
}
"""Why a text is left out, by what `_targets` gives for its code."""


def _may_lack_a_zero(cell: str, leaves: set[str], widths: set[int]) -> bool:
    """Whether a code in digits is no leaf, and with zeros in front would be one."""
    return cell.isdigit() and cell not in leaves and any(cell.zfill(n) in leaves for n in widths if n > len(cell))


def _also(others: Sequence[str]) -> str:
    """What to do where codes stand in other columns too; empty where they do not."""
    return f"; codes stand in {', '.join(map(repr, others))} too: data.columns.label=NAME takes another one" if others else ""  # fmt: skip


def _named(table: Table, column: int) -> str:
    """A column's name, with its number where others have that name too."""
    name = table.columns[column]
    others = table.columns.count(name) - 1
    return f"{name!r}" + (
        f" (column {column + 1}; {others} more {'have' if others > 1 else 'has'} that name)" if others else ""
    )


def _share(cells: Sequence[str], is_code: Callable[[str], bool]) -> float:
    filled = [cell for cell in cells if cell.strip()]
    return sum(map(is_code, filled)) / len(filled) if filled else 0.0


def _once(text: np.ndarray, leaf: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, dict[int, float], np.ndarray]:
    """Of equal texts one row: of the code with the largest sum of weights, of equal sums the first.

    Returns:
        The rows kept, sorted; the weight of those that stand for more than a weight of 1; the first row of each code that lost its text to another.
    """
    if not len(text):
        return np.empty(0, dtype=np.int64), {}, np.empty(0, dtype=np.int64)
    order = np.lexsort((leaf, text))
    t, c = text[order], leaf[order]
    start = np.flatnonzero(np.r_[True, (t[1:] != t[:-1]) | (c[1:] != c[:-1])])
    total = np.add.reduceat(weight[order].astype(np.float64), start)
    first = np.minimum.reduceat(order, start)
    key = t[start]
    best = np.lexsort((first, -total, key))
    key = key[best]
    wins = np.r_[True, key[1:] != key[:-1]]
    winner, loser = best[wins], best[~wins]
    heavy = winner[total[winner] != 1.0]
    return np.sort(first[winner]), dict(zip(first[heavy].tolist(), total[heavy].tolist(), strict=True)), np.sort(first[loser])  # fmt: skip


def _joined(words: np.ndarray, group: np.ndarray) -> np.ndarray:
    """A number for each row, equal for rows that share a word set or a group, however many steps lie between."""
    _, a = np.unique(words, return_inverse=True)
    grouped = group != 0
    label = a.copy()
    _, g = np.unique(group[grouped], return_inverse=True)
    while True:  # the smallest number spreads over groups and word sets by turns
        before = label.copy()
        if grouped.any():
            least = np.full(g.max() + 1, np.iinfo(np.int64).max)
            np.minimum.at(least, g, label[grouped])
            label[grouped] = least[g]
        least = np.full(a.max() + 1, np.iinfo(np.int64).max)
        np.minimum.at(least, a, label)
        label = least[a]
        if (label == before).all():
            first = np.unique(label, return_inverse=True)[1]
            smallest = np.full(first.max() + 1, np.iinfo(np.uint64).max, dtype=np.uint64)
            np.minimum.at(smallest, first, words)
            return smallest[first]


def _mixed(numbers: np.ndarray, seed: int) -> np.ndarray:
    """64 bits drawn for each number, the same for the same number and seed (Vigna's splitmix64)."""
    with np.errstate(over="ignore"):
        x = numbers.astype(np.uint64) + np.uint64((seed + 1) * 0x9E3779B97F4A7C15 % 2**64)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return x ^ (x >> np.uint64(31))


def divide(
    unit: np.ndarray, leaf: np.ndarray, own: np.ndarray, titled: np.ndarray, cold: np.ndarray, seed: int
) -> np.ndarray:
    """The split of each text, int8 [n]: rows of one unit are never divided.

    Of each code's units 15 % go to test and 5 % to validation, at random with the seed and whatever their order; a code keeps at least one for training. A row with a split of
    its own has it, unless its unit trains as well: then it is `DROPPED`. A unit with the words of a title trains.

    Args:
        unit: uint64 [n]. leaf: [n]. own: int8 [n], -1 for none. titled, cold: bool [n].
    """
    units, first, inverse = np.unique(unit, return_index=True, return_inverse=True)
    chosen = np.full(len(units), TRAIN, dtype=np.int8)
    given = np.zeros(len(units), dtype=bool)
    given[inverse[own >= 0]] = True
    pinned = np.zeros(len(units), dtype=bool)
    pinned[inverse[titled | cold]] = True
    code = leaf[first]
    open_ = np.flatnonzero(~given & ~pinned)
    validated, tested = (own == VALIDATION).any(), (own == TEST).any()
    shares = [0.0 if tested else min(SHARES[0], MOST[0] / max(1, len(unit))), 0.0 if validated else min(SHARES[1], MOST[1] / max(1, len(unit)))]  # fmt: skip
    if (
        not validated and (given & ~pinned).any()
    ):  # a split of their own without validation: that is drawn from what trains
        trains = np.ones(len(units), dtype=bool)
        trains[inverse[own > TRAIN]] = False
        open_ = np.flatnonzero(trains & ~pinned)
    draw = _mixed(units[open_], seed)
    order = open_[np.lexsort((draw, code[open_]))]
    codes, start, count = np.unique(code[order], return_index=True, return_counts=True)
    luck = [_mixed(codes.astype(np.uint64), seed + 1 + k).astype(np.float64) / 2.0**64 for k in range(2)]
    test = np.floor(shares[0] * count + luck[0]).astype(np.int64)
    validation = np.floor(shares[1] * count + luck[1]).astype(np.int64)
    if not validated and len(count) and not np.minimum(validation, count - 1 - np.minimum(test, count - 1)).any():
        validation[np.argmax(count)] = max(1, round(shares[1] * count.max()))
        test[np.argmax(count)] = min(test[np.argmax(count)], max(0, count.max() - 2))
    test = np.minimum(test, np.maximum(0, count - 1))
    validation = np.minimum(validation, np.maximum(0, count - 1 - test))
    rank = np.arange(len(order)) - np.repeat(start, count)
    ends = np.repeat(test, count), np.repeat(test + validation, count)
    chosen[order[rank < ends[0]]] = TEST
    chosen[order[(rank >= ends[0]) & (rank < ends[1])]] = VALIDATION
    split = chosen[inverse]
    split[own >= 0] = np.where((own[own >= 0] == TRAIN) & (split[own >= 0] == VALIDATION), VALIDATION, own[own >= 0])
    trains = np.zeros(len(units), dtype=bool)
    trains[inverse[split == TRAIN]] = True
    trains |= pinned
    split[(split != TRAIN) & trains[inverse] & ~cold] = DROPPED
    mine = np.zeros(len(units), dtype=bool)  # one unit in validation and test: it stays in test
    mine[inverse[split == TEST]] = True
    split[(split == VALIDATION) & mine[inverse]] = DROPPED
    return split


def divide_further(unit: np.ndarray, known: np.ndarray, own: np.ndarray, trains: np.ndarray, seed: int) -> np.ndarray:
    """The split of each text that is added to texts that have theirs, int8 [n]: no word set and no group ends up on both sides.

    A text with the words of an old one has that one's split. Of all other units together 15 % go to test and 5 % to validation, drawn with the seed, one at least from
    three units on: their codes have old texts to train on. A unit that trains for any reason trains; what of it belongs to an old evaluation text is `DROPPED`.

    Args:
        unit: uint64 [n]. known: int8 [n], the split of an old text with these words, -1 for none. own: int8 [n], -1 for none. trains: bool [n], must train.
    """
    units, inverse = np.unique(unit, return_inverse=True)
    n = len(units)

    def with_any(rows: np.ndarray) -> np.ndarray:
        found = np.zeros(n, dtype=bool)
        found[inverse[rows]] = True
        return found

    chosen = np.full(n, TRAIN, dtype=np.int8)
    has = {split: with_any(known == split) | with_any((known < 0) & (own == split)) for split in (TRAIN, VALIDATION, TEST)}  # fmt: skip
    has[TRAIN] |= with_any(trains & (known < 0))
    settled = has[TRAIN] | has[VALIDATION] | has[TEST] | with_any(known == DROPPED)
    open_ = np.flatnonzero(~settled)
    count = len(open_)
    least = int(count >= 3)
    test = 0 if (own == TEST).any() else min(MOST[0], max(least, round(SHARES[0] * count)))
    validation = 0 if (own == VALIDATION).any() else min(MOST[1], max(least, round(SHARES[1] * count)))
    order = open_[np.argsort(_mixed(units[open_], seed), kind="stable")]
    chosen[order[:test]] = TEST
    chosen[order[test : test + validation]] = VALIDATION
    chosen[has[VALIDATION] & ~has[TRAIN]] = VALIDATION
    chosen[has[TEST] & ~has[TRAIN]] = TEST
    split = chosen[inverse]
    wanted = np.where(known >= 0, known, np.where(own > TRAIN, own, split))
    split[wanted != split] = DROPPED
    return split
