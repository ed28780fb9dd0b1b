"""A Sphinx extension: parts of pages that are made from the code while the site is built, so that nothing is written twice.

A line ``<!-- made: NAME -->`` in a page becomes what `PARTS` says: Markdown, made from the dataclasses of the configuration, from the commands of
click, from `curricle.__all__`. Nothing of it is committed, and none of it can grow old.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from pygments.lexers import JsonLexer, TextLexer

from docs._ext import commands, configuration, python

ROOT = Path(__file__).resolve().parents[2]
PARTS: dict[str, Callable[[], str]] = {
    "configuration": configuration.page,
    **{name: partial(configuration.file, name) for name in configuration.FILES},
    "commands": commands.page,
    "python": python.page,
}
MARK = re.compile(r"^<!-- made: (\S+) -->$", re.MULTILINE)
ELSEWHERE = {"CONTRIBUTING.md": "contributing.md", "SECURITY.md": "security.md", "CHANGELOG.md": "changelog.md"}
"""Files beside docs/ that are pages of the site too."""


def fill(text: str) -> str:
    """A page's text with its made parts in place of their marks.

    Raises:
        KeyError: a mark names no part.
    """
    return MARK.sub(lambda mark: PARTS[mark[1]](), text)


FILE = re.compile(r"^(```+)([\w-]+) (\S*\.\S*)$", re.MULTILINE)
"""The opening fence of a block that shows the whole of a file."""


def lead(text: str, up: str) -> str:
    """A page's text whose links to files beside docs/ lead to their pages; `up` leads from the page to the folder docs."""
    for file, page in ELSEWHERE.items():
        text = re.sub(rf"\]\((?:\.\./)*{re.escape(file)}(?=[)#])", f"]({up}{page}", text)
    return text


def plain_bars(app: Any, what: str, name: str, value: Any, options: Any, lines: list[str]) -> None:
    """In a docstring, a bar outside of code is a bar (|x|), no substitution of reStructuredText."""
    for number, line in enumerate(lines):
        parts = line.split("`")
        parts[::2] = [part.replace("|", "\\|") for part in parts[::2]]
        lines[number] = "`".join(parts)


def _read(app: Any, name: str, source: list[str]) -> None:
    text = FILE.sub(r"\1{code-block} \2\n:caption: \3\n", fill(source[0]))
    source[0] = lead(text, "../" * name.count("/"))


def _include(app: Any, path: Path, name: str, source: list[str]) -> None:
    source[0] = lead(source[0], "../" * name.count("/"))


def setup(app: Any) -> dict[str, Any]:
    """Sphinx calls this."""
    app.setup_extension("sphinx.ext.autodoc")  # whose event is connected to
    app.connect("source-read", _read)
    app.connect("include-read", _include)
    app.connect("autodoc-process-docstring", plain_bars)
    app.add_lexer("jsonl", JsonLexer)
    app.add_lexer("conll", TextLexer)
    return {"parallel_read_safe": True}
