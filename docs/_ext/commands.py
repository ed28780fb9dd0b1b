"""The reference of the command line: every verb as click knows it, with examples from the pages of this documentation."""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Iterator
from pathlib import Path

import click

from curricle.cli import cli
from docs._ext import printed

EXAMPLES = 3
"""Of a verb, at most."""


def verbs(
    command: click.Command = cli, context: click.Context | None = None
) -> Iterator[tuple[str, click.Command, click.Context]]:
    """Every command that does something: its words, itself, and the context that writes its usage."""
    context = context or click.Context(command, info_name="curricle")
    if not isinstance(command, click.Group):
        yield context.command_path, command, context
        return
    for name in command.list_commands(context):
        below = command.get_command(context, name)
        assert below is not None, name
        yield from verbs(below, click.Context(below, parent=context, info_name=name))


@functools.cache
def examples(path: str) -> list[tuple[Path, str]]:
    """Printed lines that call a command, with the page where each stands: the tutorials' first."""
    order = sorted(printed.pages(), key=lambda page: "tutorials" not in page.parts)
    found: dict[str, tuple[Path, str]] = {}
    for page in order:
        for line in printed.command_lines(page):
            for call in printed.calls(line):
                if f"{call} ".startswith(f"{path} ") and call not in found:
                    found[call] = (page, line)
    return list(found.values())[:EXAMPLES]


def may_be(parameter: click.Parameter) -> str:
    """What the value of an option may be."""
    if isinstance(parameter, click.Option) and parameter.is_flag:
        return "switch"
    kind = parameter.type
    if isinstance(kind, click.Choice):
        return " \\| ".join(f"`{one}`" for one in kind.choices)
    if isinstance(kind, click.IntRange | click.FloatRange):
        low = "" if kind.min is None else f"{'(' if kind.min_open else '['}{kind.min}, "
        high = "" if kind.max is None else f"{kind.max}{')' if kind.max_open else ']'}"
        whole = "whole number" if isinstance(kind, click.IntRange) else "number"
        return (
            f"{whole} in `{low}{high}`"
            if low and high
            else f"{whole} from {kind.min} on"
            if low
            else f"{whole} up to {kind.max}"
        )
    if isinstance(kind, click.Path):
        return "folder" if not kind.file_okay else "file" if not kind.dir_okay else "path"
    return {"integer": "whole number", "float": "number", "boolean": "`true` \\| `false`"}.get(kind.name, "text")


def default_of(option: click.Option) -> str:
    """The default; empty where there is none to tell of."""
    value = option.default
    if option.required:
        return "required"
    if option.is_flag or value is None or value == "" or callable(value) or str(value) == "Sentinel.UNSET":
        return "" if value is not True else "on"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def _rows(command: click.Command) -> Iterator[str]:
    for option in command.params:
        if not isinstance(option, click.Option) or option.hidden:
            continue
        names = ", ".join(f"`{name}`" for name in (*option.opts, *option.secondary_opts))
        text = " ".join((option.help or "").split()).replace("|", "\\|").replace("<", "&lt;").replace("{", "&#123;")
        if option.envvar:
            text += f" Also from the environment: `{option.envvar}`."
        if option.multiple:
            text += " May be given several times."
        yield f"| {names} | {may_be(option)} | {default_of(option)} | {text} |"


def page() -> str:
    """One section a verb: usage, what it does, options, examples."""
    parts: list[str] = []
    for path, command, context in verbs():
        usage = " ".join(command.collect_usage_pieces(context))
        parts += [f"## {path}", "", "```text", f"{path} {usage}", "```", ""]
        for paragraph in re.split(r"\n\s*\n", (command.help or "").strip()):
            parts += [" ".join(paragraph.split()).replace("<", "&lt;"), ""]
        rows = list(_rows(command))
        if rows:
            parts += ["| option | value | default | meaning |", "|---|---|---|---|", *rows, ""]
        shown = examples(path)
        if shown:
            links = {page: os.path.relpath(page, printed.ROOT / "docs/reference") for page, _ in shown}
            named = ", ".join(
                f"[{printed.title(page)}]({link})" if "docs" in page.parts else page.name
                for page, link in links.items()
            )
            parts += [
                f"Examples, from {named}:",
                "",
                "```bash",
                *(re.sub(r"\s{3,}#", "  #", line) for _, line in shown),
                "```",
                "",
            ]
    return "\n".join(parts)
