"""The two pages: one to try the model, one that describes the API. Made once; each is whole, and its policy names its own scripts and styles by digest."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from curricle import __version__
from curricle.report.page import render, rendered
from curricle.serve.limits import Limits
from curricle.serve.model import PREDICT, SEARCH, Served

TEMPLATES = "curricle.serve:templates/"
_INLINE = re.compile(r"<(script|style)>(.*?)</\1>", re.DOTALL)


@dataclass(frozen=True)
class Page:
    """A page and the content security policy that it is sent with."""

    body: bytes
    policy: str


def front(served: Served, limits: Limits) -> Page:
    """The page to try the model."""
    sections = [
        {"key": section.key, "title": section.title, "body": rendered(section.template, **section.data)}
        for section in served.sections()
    ]
    text = render(
        f"{TEMPLATES}front.html",
        served=served,
        limits=limits,
        sections=sections,
        searches=SEARCH in served.verbs,
        predicts=PREDICT in served.verbs,
        assigns="assign" in served.verbs,
        version=__version__,
    )
    return _page(text)


def reference(schema: Mapping[str, Any]) -> Page:
    """The page of an OpenAPI document."""
    operations = [
        _operation(method, path, told, schema)
        for path, methods in schema["paths"].items()
        for method, told in methods.items()
    ]
    groups: dict[str, list[dict[str, Any]]] = {}
    for one in operations:
        groups.setdefault(one["group"], []).append(one)
    shapes = {
        name: list(_fields(shape))
        for name, shape in schema["components"]["schemas"].items()
        if name not in ("HTTPValidationError", "ValidationError")
    }
    return _page(render(f"{TEMPLATES}reference.html", info=schema["info"], groups=groups, shapes=shapes, schemas=schema["components"]["schemas"]))  # fmt: skip


def _page(text: str) -> Page:
    digests: dict[str, list[str]] = {"script": [], "style": []}
    for kind, content in _INLINE.findall(text):
        digests[kind].append(f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'")
    rules = {
        "default-src": ["'none'"],
        "script-src": digests["script"] or ["'none'"],
        "style-src": digests["style"] or ["'none'"],
        "img-src": ["data:"],
        "connect-src": ["'self'"],
        **{name: ["'none'"] for name in ("base-uri", "form-action", "frame-ancestors")},
    }
    return Page(text.encode(), "; ".join(f"{name} {' '.join(values)}" for name, values in rules.items()))


def _operation(method: str, path: str, told: Mapping[str, Any], schema: Mapping[str, Any]) -> dict[str, Any]:
    content = told.get("requestBody", {}).get("content", {})
    body = next((_type(one["schema"]) for one in content.values()), "")
    example = _example(schema["components"]["schemas"].get(body, {}))
    answers = {
        status: next((_type(one.get("schema", {})) for one in answer.get("content", {}).values()), "")
        for status, answer in told["responses"].items()
        if status != "422"
    }
    line = f"curl -s {'' if method in ('get', 'post') else f'-X {method.upper()} '}"
    if "{table}" in path:
        line += '-H "Authorization: Bearer $KEY" '
    if example:
        line += f"-H 'Content-Type: application/json' -d '{json.dumps(example, ensure_ascii=False)}' "
    elif method == "post":
        line += "--data-binary @in.csv "
    return {
        "group": (told.get("tags") or [""])[0],
        "method": method.upper(),
        "path": path,
        "key": told["operationId"],
        "summary": told.get("summary", ""),
        "description": told.get("description", ""),
        "parameters": [
            {"name": p["name"], "where": p["in"], "type": _type(p["schema"]), "required": p.get("required", False), "description": p.get("description", "")}
            for p in told.get("parameters", ())
        ],
        "body": body,
        "answers": answers,
        "curl": f"{line}$SERVER{path.replace('{table}', '$ID')}",
    }  # fmt: skip


def _fields(shape: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for name, one in shape.get("properties", {}).items():
        default = one.get("default")
        yield {
            "name": name,
            "type": _type(one),
            "required": name in shape.get("required", ()),
            "description": one.get("description", ""),
            "default": "" if default in (None, "") else json.dumps(default),
            "bounds": _bounds(one),
        }


def _bounds(one: Mapping[str, Any]) -> str:
    """What a value must keep to, in words."""
    inner = next((part for part in one.get("anyOf", ()) if part.get("type") != "null"), one)
    said = [f"{inner['minimum']:g} to {inner['maximum']:g}"] if "minimum" in inner and "maximum" in inner else []
    said += [f"at most {inner['maxItems']} entries"] if "maxItems" in inner else []
    text = inner.get("items", inner)
    return ", ".join([*said, *([f"at most {text['maxLength']:,} characters"] if "maxLength" in text else [])])


def _type(one: Mapping[str, Any]) -> str:
    """A schema's type in a word or two; the name of a component for itself."""
    if "$ref" in one:
        return one["$ref"].rpartition("/")[2]
    if "anyOf" in one:
        return " or ".join(_type(part) for part in one["anyOf"])
    if "enum" in one:
        return " | ".join(map(str, one["enum"]))
    if one.get("type") == "array":
        return f"list of {_type(one.get('items', {}))}" if "items" in one else "list"
    return str(one.get("type", ""))


def _example(shape: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that have to be given, each with its example."""
    return {name: one["examples"][0] for name, one in shape.get("properties", {}).items() if one.get("examples")}
