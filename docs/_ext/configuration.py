"""The reference of the configuration: every setting of every family and of every other file, from the dataclasses themselves."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import json
import textwrap
import types
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from curricle.config.chain import Chain
from curricle.config.experiment import Experiment
from curricle.config.schema import Filled, Range, StageConfig
from curricle.config.search import Benchmark, Search
from curricle.launch.kubernetes.options import ClusterSettings
from curricle.registry import FAMILIES

NAMES = {str: "text", int: "whole number", float: "number", bool: "true or false", type(None): "null", Any: "anything"}
FILES: dict[str, type] = {
    "chain": Chain,
    "experiment": Experiment,
    "search": Search,
    "benchmark": Benchmark,
    "cluster": ClusterSettings,
}
"""The other files, by the marks in the page under their headings, and their dataclasses."""


@dataclass(frozen=True)
class Setting:
    """One setting of a file."""

    key: str
    kind: str
    default: str
    meaning: str
    section: str
    """The dotted key of the dataclass that it stands in; empty at the top."""


def meanings(cls: type) -> dict[str, str]:
    """The docstring under each field of a dataclass, those of its bases included."""
    found: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        if not dataclasses.is_dataclass(base):
            continue
        (tree,) = ast.parse(textwrap.dedent(inspect.getsource(base))).body
        body = typing.cast(ast.ClassDef, tree).body
        for field, text in zip(body, body[1:], strict=False):
            if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant):
                found[ast.unparse(field.target)] = " ".join(str(text.value.value).split())
    return found


def kind(hint: Any) -> str:
    """What a setting may be, in words: its type and its range."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        base, *notes = arguments
        said = kind(base)
        for note in notes:
            said += (
                f" in `{note.interval}`"
                if isinstance(note, Range)
                else ", not empty"
                if isinstance(note, Filled)
                else ""
            )
        return said
    if origin is typing.Literal:
        return " \\| ".join(f"`{value}`" for value in arguments)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(kind(one) for one in arguments)
    if origin is tuple:
        parts = [kind(one) for one in arguments if one is not Ellipsis]
        return f"list of {parts[0]}" if Ellipsis in arguments else f"list of {len(parts)}: {', '.join(parts)}"
    if origin is dict:
        return f"mapping of {kind(arguments[0])} to {kind(arguments[1])}"
    if dataclasses.is_dataclass(hint):
        return "settings"
    return NAMES[hint]


def nested(hint: Any) -> tuple[type, str] | None:
    """The dataclass whose settings stand below this one, and what its key gets at its end: nothing, `[]` in a list, `.<name>` in a mapping."""
    if dataclasses.is_dataclass(hint):
        return typing.cast(type, hint), ""
    ends = {tuple: "[]", dict: ".<name>"}
    origin = typing.get_origin(hint)
    for one in typing.get_args(hint) if origin is not typing.Literal else ():
        if below := nested(one):
            return below[0], ends.get(origin, "") + below[1]
    return None


def shown(value: Any) -> str:
    """A default as YAML would have it."""
    if isinstance(value, tuple):
        value = list(value)
    return f"`{json.dumps(value, ensure_ascii=False)}`"


def settings(cls: type, prefix: str = "", given: Any = None) -> Iterator[Setting]:
    """Every setting of a dataclass, those of nested ones by their dotted keys.

    Args:
        given: an instance that the class above takes as its default; its values go before the fields' own.
    """
    hints, said = typing.get_type_hints(cls, include_extras=True), meanings(cls)
    for field in dataclasses.fields(cls):
        default = field.default
        if given is not None:
            default = getattr(given, field.name)
        elif field.default_factory is not dataclasses.MISSING:
            default = field.default_factory()
        key, below = f"{prefix}{field.name}", nested(hints[field.name])
        whole = dataclasses.is_dataclass(hints[field.name])
        if not whole:
            shows = "required" if default is dataclasses.MISSING else shown(default)
            yield Setting(key, kind(hints[field.name]), shows, said[field.name], prefix.rstrip("."))
        if below:
            instance = default if dataclasses.is_dataclass(default) and not isinstance(default, type) else None
            yield from settings(below[0], f"{key}{below[1]}.", instance)


def table(rows: list[Setting]) -> str:
    """Markdown: a table for each section of settings."""
    lines: list[str] = []
    for section in dict.fromkeys(row.section for row in rows):
        lines += [
            f"### `{section}`" if section else "",
            "",
            "| setting | may be | default | meaning |",
            "|---|---|---|---|",
        ]
        for row in rows:
            if row.section == section:
                meaning = row.meaning.replace("|", "\\|")
                lines.append(f"| `{row.key}` | {row.kind} | {row.default} | {meaning} |")
        lines.append("")
    return "\n".join(lines)


def page() -> str:
    """The settings that all families share, and those of each family."""
    common = list(settings(StageConfig))
    parts = ["## All families", "", table(common)]
    for name, entry in FAMILIES.items():
        own = [row for row in settings(entry.load("config")) if row not in common]
        parts += [f"## Family `{name}`: {entry.title}", "", table(own)]
    return "\n".join(parts)


def file(name: str) -> str:
    """The settings of one of `FILES`."""
    return table(list(settings(FILES[name])))
