"""Markdown in which a text is a text: nothing that a user or a server said is read as markup. Of the run view of Kubeflow Pipelines, and of model cards."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence


def markdown_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; every cell is shown as it is, in one line."""
    lines = [_row(head), "|" + "---|" * len(head), *(_row(row) for row in rows)]
    return "\n".join(lines)


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(escaped(cell) for cell in cells) + " |"


def escaped(words: str) -> str:
    """Words without markup, in one line: HTML, links and images, code, emphasis (an underscore in a name), and what ends a cell or a line."""
    text = html.escape(" ".join(words.split()), quote=False)
    for mark in "\\`*_~[]|":
        text = text.replace(mark, f"\\{mark}")
    return text
