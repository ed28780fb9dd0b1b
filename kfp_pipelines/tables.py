"""Markdown tables for the run view of Kubeflow Pipelines, in which a cell is text: nothing that a user or a server said is read as markup."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence


def markdown_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; every cell is shown as it is, in one line."""
    lines = [_row(head), "|" + "---|" * len(head), *(_row(row) for row in rows)]
    return "\n".join(lines)


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(_text(cell) for cell in cells) + " |"


def _text(cell: str) -> str:
    """A cell without markup: HTML, links and images, code, and what ends a cell or a line."""
    text = html.escape(" ".join(cell.split()), quote=False)
    for mark in "\\`[]|":
        text = text.replace(mark, f"\\{mark}")
    return text
