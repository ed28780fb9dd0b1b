"""Reads a concordance of two classifications, and says what became of each code: unchanged, renamed, merged, split, dead, new. Pure Python; knows no model.

A concordance is a table of old code and new code, a row a pair. An old code that it does not list keeps its code. Codes are leaves: what is above them is the new classification's.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from curricle.errors import ConfigError, DataError
from curricle.families.codes.classification import NOTHING, by_code, matcher
from curricle.families.codes.tree import Tree
from curricle.tables import Row, Table, open_table

Status = Literal["unchanged", "renamed", "merged", "split", "dead", "new"]
STATUSES: tuple[Status, ...] = ("unchanged", "renamed", "merged", "split", "dead", "new")
MEANINGS = {
    "unchanged": "one old code, one new code, the same code and title",
    "renamed": "one old code, one new code, but another code or title",
    "merged": "its new code also holds other old codes",
    "split": "it has several new codes: its texts are asked of the model",
    "dead": "no new code: its texts are left out",
    "new": "no old code leads to it",
}
KNOWN = 0.5
"""Least share of a column's cells that must be codes of a classification."""
NAMED = 5


@dataclass(frozen=True)
class Concordance:
    """What a file says, in its order."""

    pairs: tuple[tuple[str, str], ...]
    """(old leaf, new code); the second is empty where nothing follows."""
    titles: Mapping[str, str]
    """Of new codes, where the file has them."""
    said: str
    """As what it was read, for people."""
    left_out: Mapping[str, int]
    """Reason → rows."""


@dataclass(frozen=True)
class Reconciliation:
    """What became of each leaf of the old classification."""

    old: Tree
    new: Tree
    targets: Mapping[str, tuple[str, ...]]
    """Old leaf → new leaves, none for a dead one."""
    old_status: Mapping[str, Status]
    new_status: Mapping[str, Status]
    unlisted: int
    """Old codes that the file does not name, so that they stay."""

    @property
    def sources(self) -> dict[str, tuple[str, ...]]:
        """New leaf → old leaves."""
        found: dict[str, list[str]] = {}
        for old, targets in self.targets.items():
            for new in targets:
                found.setdefault(new, []).append(old)
        return {new: tuple(old) for new, old in found.items()}

    def counts(self) -> dict[str, dict[str, int]]:
        """How many old and new codes have each status."""
        sides = {"old": Counter(self.old_status.values()), "new": Counter(self.new_status.values())}
        return {side: {status: count[status] for status in STATUSES} for side, count in sides.items()}

    def points(self) -> list[tuple[str, ...]]:
        """For each new code, in order, the old codes whose mean point it starts from; none for one that starts from its parent.

        A leaf starts from the old codes that became it alone, else from those of which it is a part; a code above leaves from the old one of its name, else from
        those at its depth above the old codes of its leaves.
        """
        old, new = self.old, self.new
        whole = {n: tuple(o for o in each if len(self.targets[o]) == 1) for n, each in self.sources.items()}
        sources = {n: whole[n] or each for n, each in self.sources.items()}
        made: list[tuple[str, ...]] = []
        for i, code in enumerate(new.codes):
            if not new.children[i]:
                made.append(sources.get(code, ()))
            elif code in old.index:
                made.append((code,))
            else:
                below = [s for leaf in new.leaves if new.subtree[i, leaf] for s in sources.get(new.codes[leaf], ())]
                at = [old.ancestors[old.index[s], min(int(new.depth[i]), len(old.levels)) - 1] for s in below]
                made.append(tuple(dict.fromkeys(old.codes[a] for a in at if a >= 0)))
        return made


def read_concordance(
    path: Path, old: Tree, new: Tree | None, *, columns: Mapping[str, str] | None = None, encoding: str = ""
) -> Concordance:
    """Read a concordance. Which column holds what is recognised by the codes in it.

    Args:
        new: the new classification, where it is known.
        columns: names of the columns `old` and `new`, where they are not recognised.

    Raises:
        DataError: it is no table, or less than half of its old (new) codes are of the classification.
        ConfigError: no column is recognised, or one that was named is not there.
    """
    table = open_table(path, encoding=encoding)
    rows = list(table.rows())
    for row in rows:
        if row.problem:
            raise DataError(f"{path}, {table.unit} {row.line}: {row.problem}")
    of_old, of_new = matcher(old.codes), matcher(new.codes) if new else None
    at = _columns(path, table, rows, of_old, of_new, columns or {})
    texts = {side: _title_beside(table, rows, at[side], set(at.values())) for side in ("old", "new")}
    leaf_of = {"old": _leaves(old, of_old), "new": _leaves(new, of_new) if new and of_new else lambda cell: cell}
    left_out: Counter[str] = Counter()
    named: dict[str, list[str]] = {}
    pairs: dict[tuple[str, str], None] = {}
    titles: dict[str, str] = {}
    for row in rows:
        cells = {side: "" if (c := row.cells[at[side]].strip()).casefold() in NOTHING else c for side in ("old", "new")}
        codes = {side: leaf_of[side](cell) if cell else "" for side, cell in cells.items()}
        why = next(
            (f"the {side} code is no leaf of its classification" for side in ("old", "new") if codes[side] is None), ""
        )
        if not why and not codes["old"]:
            why = "" if codes["new"] else "both codes are empty"
            if not why:
                continue  # a code that is new: the new classification has it
        if why:
            left_out[why] += 1
            named.setdefault(why, []).append(f"{table.unit} {row.line}: {cells['old']!r} → {cells['new']!r}")
            continue
        pairs[codes["old"] or "", codes["new"] or ""] = None
        if codes["new"] and (place := texts["new"]) is not None and (title := " ".join(row.cells[place].split())):
            titles.setdefault(codes["new"], title)
    if not pairs or sum(left_out.values()) > KNOWN * len(rows):
        said = "; ".join(f"{count} × {why} ({', '.join(named[why][:3])})" for why, count in left_out.items())
        raise DataError(
            f"{path} is no concordance from the model's classification: of {len(rows)} rows {len(pairs)} pairs are left. {said}"
        )
    listed = {o for o, n in pairs if n}
    kept = [pair for pair in pairs if pair[1] or pair[0] not in listed]
    said = "; ".join(f"{side} codes {table.columns[at[side]]!r}" for side in ("old", "new"))
    said += "".join(f", titles {table.columns[place]!r}" for place in (texts["new"],) if place is not None)
    said += "".join(f"; {count} rows left out, {why} ({', '.join(named[why][:3])})" for why, count in left_out.items())
    return Concordance(tuple(kept), titles, f"{path}: {table.said}; {said}; {len(kept):,} pairs", dict(left_out))


def _leaves(tree: Tree, match: Callable[[str], str | None]) -> Callable[[str], str | None]:
    """Finds the leaf that a cell means; None for none or several."""

    def find(cell: str) -> str | None:
        code = match(cell)
        leaf = -1 if code is None else int(tree.sole_leaf[tree.index[code]])
        return tree.codes[leaf] if leaf >= 0 else None

    return find


def _columns(
    path: Path,
    table: Table,
    rows: Sequence[Row],
    of_old: Callable[[str], str | None],
    of_new: Callable[[str], str | None] | None,
    wanted: Mapping[str, str],
) -> dict[str, int]:
    """Positions of the old and the new codes: the column whose cells are most often codes of that classification; where the new one is not known, one that looks like codes."""
    at: dict[str, int] = {}
    for side, name in wanted.items():
        if name:
            found = [
                i for i, column in enumerate(table.columns) if column.strip().casefold() == name.strip().casefold()
            ]
            if len(found) != 1:
                raise ConfigError(f"--{side}-column {name}: {path} has {'no such column' if not found else 'that column twice'}; its columns: {', '.join(map(repr, table.columns))}")  # fmt: skip
            if found[0] in at.values():
                raise ConfigError(f"--old-column and --new-column are both {name}: {path} has the old codes in one column and the new ones in another")  # fmt: skip
            at[side] = found[0]
    cells = [[c for row in rows if (c := row.cells[i].strip()).casefold() not in NOTHING] for i in range(len(table.columns))]  # fmt: skip

    def share(i: int, is_code: Callable[[str], object]) -> float:
        return sum(map(bool, map(is_code, cells[i]))) / len(cells[i]) if cells[i] else 0.0

    for side, is_code in (("old", of_old), ("new", of_new or _looks_like_a_code)):
        free = [i for i in range(len(table.columns)) if i not in at.values()]
        best = max(free, key=lambda i: (share(i, is_code), -i), default=None)
        if side not in at and (best is None or share(best, is_code) < KNOWN):
            raise ConfigError(
                f"{path} ({table.said}): no column holds {side} codes; its columns: {', '.join(map(repr, table.columns))}. Name it: --{side}-column NAME, if this is "
                "a concordance from the model's classification"
            )
        if side not in at and best is not None:
            at[side] = best
    return at


def _looks_like_a_code(cell: str) -> bool:
    return len(cell) <= 20 and not re.search(r"\s", cell) and bool(re.search(r"\d", cell) or cell.isupper())


def _title_beside(table: Table, rows: Sequence[Row], code: int, codes: set[int]) -> int | None:
    """The column of titles to the right of a column of codes, before the next one."""
    for i in range(code + 1, len(table.columns)):
        if i in codes:
            return None
        worded = sum(bool(re.search(r"[^\W\d_]{3}", row.cells[i])) for row in rows)
        if worded > KNOWN * len(rows):
            return i
    return None


def derived(old: Tree, found: Concordance) -> Tree:
    """The new classification where none is named: the new leaves, each below the old code above leaves that its code lies under, else below that of its old code."""
    listed = {o for o, _ in found.pairs}
    leaves = dict.fromkeys([n for _, n in found.pairs if n] + [c for c in (old.codes[i] for i in old.leaves) if c not in listed])  # fmt: skip
    inner = [old.codes[i] for i in range(len(old.codes)) if old.children[i]]
    order = [*inner, *(code for code in leaves if code not in set(inner))]
    first = {n: o for o, n in reversed(found.pairs) if n}
    by_prefix = dict(zip(order, by_code(order), strict=True))
    above_old = {old.codes[i]: old.codes[p] if p >= 0 else None for i, p in enumerate(old.parent)}
    prefixed = by_code(old.codes) == [above_old[code] for code in old.codes]
    parents: dict[str, str | None] = {code: above_old[code] for code in inner}
    for code in order[len(inner) :]:
        parents[code] = (
            above_old.get(code) or (by_prefix[code] if prefixed else None) or above_old.get(first.get(code, ""))
        )
    used = set(leaves)
    for code in leaves:
        at = parents.get(code)
        while at is not None and at not in used:
            used.add(at)
            at = parents.get(at)
    kept = [code for code in order if code in used]
    return Tree.of(kept, [parents[code] for code in kept])


def reconcile(
    old: Tree,
    new: Tree,
    found: Concordance,
    old_titles: Mapping[str, str | None],
    new_titles: Mapping[str, str | None],
) -> Reconciliation:
    """What became of each old leaf, and what each new one comes from."""
    is_leaf = {new.codes[i] for i in new.leaves}
    targets: dict[str, list[str]] = {}
    for o, n in found.pairs:
        targets.setdefault(o, [])
        if n:
            targets[o].append(n)
    unlisted = 0
    for code in (old.codes[i] for i in old.leaves):
        if code not in targets:
            unlisted += code in is_leaf
            targets[code] = [code] if code in is_leaf else []
    into = Counter(n for each in targets.values() for n in each)
    same = {c for c in is_leaf if c in old.index and _plain(old_titles.get(c)) == _plain(new_titles.get(c))}

    def of_old(code: str) -> Status:
        each = targets[code]
        if len(each) != 1:
            return "split" if each else "dead"
        return "merged" if into[each[0]] > 1 else "unchanged" if each[0] == code and code in same else "renamed"

    old_status = {old.codes[i]: of_old(old.codes[i]) for i in old.leaves}
    comes: dict[str, set[Status]] = {}
    for o, each in targets.items():
        for n in each:
            comes.setdefault(n, set()).add(old_status[o])

    def of_new(code: str) -> Status:
        if not into[code]:
            return "new"
        return "merged" if into[code] > 1 else next(iter(comes[code]))

    return Reconciliation(
        old,
        new,
        {o: tuple(each) for o, each in targets.items()},
        old_status,
        {new.codes[i]: of_new(new.codes[i]) for i in new.leaves},
        unlisted,
    )


def _plain(title: str | None) -> str:
    return " ".join(re.findall(r"\w+", title or "")).casefold()
