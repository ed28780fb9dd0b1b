"""What a page prints: its code blocks and the command lines in them. Pure; knows pages, and nothing of Sphinx or of how commands run."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FENCE = re.compile(r"^(?P<fence>`{3,})(?P<info>[^\n`]*)\n(?P<text>.*?)^(?P=fence)$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """One code block of a page."""

    words: tuple[str, ...]
    """What stands behind the opening fence: the language, then what the tests are told."""
    text: str
    line: int
    """Number of the opening fence's line in the page."""

    @property
    def language(self) -> str:
        """Its language; empty where none is named."""
        return self.words[0] if self.words else ""

    @property
    def file(self) -> str:
        """The file that it shows the whole of; empty where none is named."""
        return next((word for word in self.words[1:] if "." in word), "")


def pages() -> list[Path]:
    """README, CONTRIBUTING, and every page of docs/."""
    return [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


def title(page: Path) -> str:
    """A page's first heading."""
    return next(line[2:] for line in page.read_text(encoding="utf-8").splitlines() if line.startswith("# "))


def blocks(page: Path) -> list[Block]:
    """The code blocks of a page, in order."""
    text = page.read_text(encoding="utf-8")
    return [
        Block(tuple(found["info"].split()), found["text"], text.count("\n", 0, found.start()) + 1)
        for found in FENCE.finditer(text)
    ]


def command_lines(page: Path) -> list[str]:
    """Lines of code blocks that call `curricle`, as they are printed; lines that a backslash ends are joined with the next."""
    found = []
    for block in blocks(page):
        for line in block.text.replace("\\\n", " ").splitlines():
            line = line.strip().removeprefix("- ").removeprefix("run: ").removeprefix("$ ")
            if re.search(r"(^|[;|&]\s*)curricle ", line):
                found.append(re.sub(r"\s+", " ", line) if "\\" in block.text else line)
    return found


def calls(line: str) -> list[str]:
    """The calls of `curricle` in a printed line, without comment and redirection; a place to fill in becomes a word."""
    line = re.sub(r"\s#\s.*", "", line)
    line = re.sub(r"<[^<>|\s][^<>|]*>", "x", re.sub(r"\$\{\{.*?\}\}", "x", line))
    parts = [part.strip() for part in re.split(r"[;|]|&&", line)]
    return [re.sub(r"[<>]\s*\S+", "", part).strip() for part in parts if part.startswith("curricle ")]
