"""JSON whose objects have each key once. The standard library takes the last of two in silence, and a person has meant the first."""

from __future__ import annotations

import json
import re
from typing import Any


def read_json(text: str | bytes) -> Any:
    """The value of a JSON text.

    Raises:
        ValueError: it is no JSON, or an object in it has a key twice; names key and lines.
        RecursionError: it is nested too deeply.
    """
    try:
        return json.loads(text, object_pairs_hook=_once)
    except _Twice as error:
        text = text.decode("utf-8", "replace") if isinstance(text, bytes) else text
        spelled = {json.dumps(error.key), json.dumps(error.key, ensure_ascii=False)}
        found = re.finditer("|".join(map(re.escape, spelled)) + r"(?=\s*:)", text)
        lines = list(dict.fromkeys(str(text.count("\n", 0, match.start()) + 1) for match in found))
        where = f"; it stands in line {', '.join(lines[:5])}" if lines else ""
        raise ValueError(f"key {error.key[:80]!r} stands twice in one object{where}") from None


def read_object(text: str | bytes) -> dict[str, Any]:
    """The object in a JSON text.

    Raises:
        ValueError: it holds none; says why, in words for people.
    """
    try:
        value = read_json(text)
    except UnicodeDecodeError:
        raise ValueError("it is no UTF-8 text") from None
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except json.JSONDecodeError as error:
        if not error.doc.strip():
            raise ValueError("it is empty") from None
        if error.msg.startswith("Unterminated") or error.pos >= len(error.doc.rstrip()):
            raise ValueError(f"it is cut off in line {error.doc.count(chr(10)) + 1}") from None
        raise ValueError(f"it is no JSON, from line {error.lineno}, column {error.colno} on") from None
    if not isinstance(value, dict):
        raise ValueError(f"it holds {kind_of(value)}, not an object")
    return value


def kind_of(value: Any) -> str:
    """What a JSON value is, for people."""
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    kinds: dict[type, str] = {dict: "an object", list: "a list", str: "a text"}
    return kinds.get(type(value), "a number")


class _Twice(ValueError):
    def __init__(self, key: str):
        super().__init__(key)
        self.key = key


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        keys = [key for key, _ in pairs]
        raise _Twice(next(key for key in keys if keys.count(key) > 1))
    return made
