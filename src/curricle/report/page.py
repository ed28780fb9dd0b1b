"""Facts and sections → HTML: the templates, and what a page must not be (larger than it may, or with a secret in it)."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from importlib.resources import files
from typing import Any

from jinja2 import BaseLoader, Environment, StrictUndefined, TemplateNotFound
from jinja2.utils import htmlsafe_json_dumps
from markupsafe import Markup

from curricle.errors import OutputError
from curricle.masking import masked
from curricle.report.charts import number, share

LARGEST = 2_000_000
"""Bytes of a page."""
OURS = "<!-- made by curricle report -->"
"""Stands in every page: what has it may be replaced by a newer one."""


class _Packages(BaseLoader):
    """Templates by ``package:path``; a bare name is one of the report's own."""

    def get_source(self, environment: Environment, template: str) -> tuple[str, str, Callable[[], bool]]:
        package, _, path = template.rpartition(":")
        place = files(package or "curricle.report")
        for part in (path if package else f"templates/{path}").split("/"):
            place = place / part
        try:
            return place.read_text(encoding="utf-8"), str(place), lambda: True
        except OSError:
            raise TemplateNotFound(template) from None


@functools.cache
def environment() -> Environment:
    """Everything is escaped but scripts and styles of ours, which hold no text of anybody's."""
    made = Environment(
        loader=_Packages(),
        autoescape=lambda name: not (name or "").endswith((".js", ".css")),
        undefined=StrictUndefined,
        finalize=lambda value: masked(value) if type(value) is str else value,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {
        "number": _or_dash(number),
        "share": _or_dash(share),
        "change": _or_dash(lambda value: f"{100 * value:+.1f}"),
        "count": lambda value: f"{value:,}",
        "span": span,
        "when": lambda text: re.sub(r"(\d)T(\d\d:\d\d).*", r"\1 \2 UTC", str(text)),
        "plain": _plain,
        "json": lambda value: htmlsafe_json_dumps(_masked(value), separators=(",", ":"), ensure_ascii=False),
    }
    return made


def render(template: str, **facts: Any) -> str:
    """A template's page.

    Raises:
        OutputError: it is larger than `LARGEST`.
    """
    text = environment().get_template(template).render(**facts)
    text = re.sub(r"[\ud800-\udfff]", "\ufffd", text)
    if len(text.encode()) > LARGEST:
        raise OutputError(f"the page has {len(text.encode()):,} bytes; {LARGEST:,} are the most")
    return text


def rendered(template: str, **facts: Any) -> Markup:
    """A part of a page, escaped already."""
    return Markup(environment().get_template(template).render(**facts))


def _or_dash(show: Callable[[float], str]) -> Callable[[Any], str]:
    def shown(value: Any) -> str:
        plain = isinstance(value, int | float) and value == value and abs(value) != float("inf")
        return show(float(value)) if plain else "–"

    return shown


def _masked(value: Any) -> Any:
    """Plain data without a secret in its texts."""
    if isinstance(value, str):
        return masked(value)
    if isinstance(value, dict):
        return {key: _masked(entry) for key, entry in value.items()}
    if not isinstance(value, list | tuple):
        return value
    if value and all(isinstance(entry, str) and "\n" not in entry for entry in value):
        return masked("\n".join(value)).split(
            "\n"
        )  # at once: a thousand titles are a thousand looks at the environment
    return value if all(isinstance(entry, int | float) for entry in value) else [_masked(entry) for entry in value]


def span(seconds: float) -> str:
    """``8 s``, ``3 min``, ``2.5 h``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _plain(value: Any) -> str:
    """A setting's or a fact's value in a line."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, int):
        return f"{value:,}" if abs(value) >= 10_000 else str(value)
    if isinstance(value, dict):
        return ", ".join(f"{key} {_plain(entry)}" for key, entry in value.items()) or "none"
    if isinstance(value, list | tuple):
        return ", ".join(map(_plain, value)) or "none"
    return str(value)
