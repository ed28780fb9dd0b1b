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
