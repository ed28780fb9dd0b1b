"""The parameters of a compiled pipeline, read from its YAML, and ``name=value`` texts checked against them. Imports no kfp."""

from __future__ import annotations

import difflib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from curricle.errors import PipelineError
from curricle.masking import holds_secret, masked

KINDS = {
    "STRING": "text",
    "BOOLEAN": "true or false",
    "NUMBER_INTEGER": "a whole number",
    "NUMBER_DOUBLE": "a number",
    "LIST": "a JSON list",
    "STRUCT": "a JSON object",
}


HERE = Path("kfp_pipelines/compiled")
"""Where compiled pipelines stand in a checkout, and how the documents name them."""
COMPILED = Path(__file__).parent / "compiled"
"""Those that ship."""


def compiled(path: Path) -> Path:
    """Where a compiled pipeline, or the folder of all, is read: at `path`, or among the shipped ones, as `config.defaults.config_file` does it.

    A path that stands nowhere is returned as it came, so that whoever reads it says what is missing.
    """
    if path.exists() or HERE.exists() or not path.is_relative_to(HERE):
        return path
    shipped = COMPILED / path.relative_to(HERE)
    return shipped if shipped.exists() else path


@dataclass(frozen=True)
class Parameter:
    """One pipeline parameter, as a person fills it in."""

    name: str
    kind: str
    """KFP's word, a key of `KINDS`."""
    default: Any
    required: bool
    description: str


def read_parameters(package: Path) -> dict[str, Parameter]:
    """The parameters of a compiled pipeline, by name.

    Raises:
        PipelineError: the file is missing, or no compiled pipeline.
    """
    if not package.is_file():
        there = ", ".join(sorted(p.name for p in package.parent.glob("*.yaml"))) if package.parent.is_dir() else ""
        raise PipelineError(
            f"no compiled pipeline {package}; {package.parent} holds {there or 'no YAML'}. Compile with `curricle pipeline compile`"
        )
    try:
        spec: Any = next(iter(yaml.safe_load_all(package.read_text(encoding="utf-8"))), None)
        inputs = spec["root"].get("inputDefinitions", {}).get("parameters", {})
        spec["pipelineInfo"]
        return {
            name: Parameter(
                name,
                item["parameterType"],
                item.get("defaultValue"),
                not item.get("isOptional", False),
                item.get("description", ""),
            )
            for name, item in inputs.items()
        }
    except (yaml.YAMLError, ValueError, RecursionError, KeyError, TypeError, AttributeError):
        raise PipelineError(
            f"{package} is no compiled pipeline (it has no pipelineInfo and root, or an input without a type); compile with "
            "`curricle pipeline compile`"
        ) from None


def parse(texts: list[str], known: dict[str, Parameter]) -> dict[str, Any]:
    """``name=value`` texts as typed values.

    Raises:
        PipelineError: unknown names (with the nearest), wrong types, missing ones: all of them.
    """
    problems, values = [], {}
    for text in texts:
        name, sep, value = text.partition("=")
        if not sep:
            problems.append(f"{text!r} is not of the form name=value")
        elif name not in known:
            near = difflib.get_close_matches(name, known, 1)
            problems.append(
                f"no parameter {name!r}; " + (f"did you mean {near[0]!r}?" if near else f"there are {', '.join(known)}")
            )
        elif holds_secret(value):
            problems.append(
                f"{name} holds a password or token ({masked(value)}), and Kubeflow shows and keeps parameters; it belongs into a secret of the cluster"
            )
        else:
            try:
                values[name] = _value(known[name].kind, value)
            except (ValueError, RecursionError):
                problems.append(f"{name} must be {KINDS[known[name].kind]}, not {value!r}")
    problems += [
        f"{p.name} has no default and was not given ({p.description})"
        for p in known.values()
        if p.required and p.name not in values
    ]
    if problems:
        raise PipelineError("; ".join(problems))
    return values


def _value(kind: str, text: str) -> Any:
    if kind == "STRING":
        return text
    if kind == "BOOLEAN":
        if text.lower() not in ("true", "false"):
            raise ValueError
        return text.lower() == "true"
    if kind == "NUMBER_INTEGER":
        return int(text)
    if kind == "NUMBER_DOUBLE":
        return float(text)
    value = json.loads(text)
    if not isinstance(value, list if kind == "LIST" else dict):
        raise ValueError
    return value
