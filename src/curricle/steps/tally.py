"""What came of a coded table, counted row by row: how many codes, how sure, which most often. Keeps no text of the table, so that what is told of it tells of nobody."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from curricle.errors import DataError
from curricle.steps.assigned import COLUMNS, NO_TEXT, Order, Values, added_to
from curricle.tables import open_table

BINS = 20
"""Of the histogram of confidences, each as wide."""
MOST = 40
"""Codes that are told of, the most frequent."""


class Counts:
    """What was written.

    Args:
        order: which columns a row's values are.
    """

    def __init__(self, order: Order) -> None:
        self._at = {name: order.columns.index(name) for name in COLUMNS}
        self.rows = self.coded = self.review = self.without = self.empty = 0
        self._bins = [[0, 0] for _ in range(BINS)]
        self._codes: dict[str, list[Any]] = {}
        self._versions: Counter[str] = Counter()

    def seen(self, values: Values) -> Values:
        """Count a row."""
        code, title, confidence, review, _, version = (values[self._at[name]] for name in COLUMNS)
        for_review = review == "yes"
        self.rows += 1
        self.without += not code
        self.empty += not code and title == NO_TEXT
        self.review += for_review
        self.coded += bool(code) and not for_review
        self._versions[str(version)] += 1
        if code and isinstance(confidence, int | float):
            self._bins[max(0, min(BINS - 1, int(confidence * BINS)))][for_review] += 1
            one = self._codes.setdefault(str(code), [str(title or ""), 0, 0, 0.0])
            one[1] += 1
            one[2] += for_review
            one[3] += confidence
        return values

    def tally(self) -> dict[str, Any]:
        """What a report shows beside the four counts, as JSON can say it.

        Returns:
            ``bins``: rows with a code by confidence, those that nobody looks at and those for review; ``most``: the most frequent codes as [code, title, rows, of them for review,
            mean confidence]; ``distinct``: how many codes there are; ``versions``: rows by version of the model; ``empty``: rows without a text.
        """
        order = sorted(self._codes.items(), key=lambda pair: (-pair[1][1], pair[0]))
        return {
            "bins": self._bins,
            "most": [[code, title, n, review, round(total / n, 4)] for code, (title, n, review, total) in order[:MOST]],
            "distinct": len(order),
            "versions": dict(self._versions.most_common(5)),
            "empty": self.empty,
        }


def tally_of(path: Path) -> Counts:
    """Count a table that `assign` wrote.

    Raises:
        DataError: it cannot be read, or has not the columns that `assign` adds.
    """
    table = open_table(path)
    added = added_to(table.columns)
    if not added:
        raise DataError(
            f"{path} was not written by curricle assign: its last columns are {', '.join(table.columns[-3:])}, and should be {', '.join(COLUMNS)}"
        )
    counts = Counts(Order(column="", explain=added > len(COLUMNS)))
    at = COLUMNS.index("confidence")
    for row in table.rows():
        if not row.problem:
            values: Values = list(row.cells[-added:])
            values[at] = _number(str(values[at]))
            counts.seen(values)
    return counts


def _number(text: str) -> float | None:
    try:
        return float(text.replace(",", "."))
    except ValueError:
        return None
