"""The parameters of a compiled pipeline, read from its YAML, and ``name=value`` texts checked against them. Imports no kfp."""

from __future__ import annotations

import difflib
import math
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from curricle.errors import ConfigError, PipelineError
from curricle.masking import holds_secret, masked, variable_within
from curricle.store.local import what_else
from curricle.store.strict import read_json

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
    choices: tuple[Any, ...] = ()
    """The values that it may have; empty where any of its kind will do."""

    def refuses(self, value: Any) -> list[str]:
        """Why a value of its kind is none that it may have; empty where it is."""
        if not self.choices or value in self.choices:
            return []
        near = difflib.get_close_matches(str(value), map(str, self.choices), 1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        return [f"{self.name} must be one of {', '.join(map(str, self.choices))}, not {str(value)!r}{hint}"]


def read_documents(package: Path) -> list[Any]:
    """The documents of a compiled pipeline: its specification, and what a platform adds.

    Raises:
        yaml.YAMLError, ValueError, RecursionError: no YAML, or no text.
    """
    return list(yaml.safe_load_all(package.read_text(encoding="utf-8")))


def read_parameters(package: Path) -> dict[str, Parameter]:
    """The parameters of a compiled pipeline, by name.

    Raises:
        PipelineError: the file is missing, or no compiled pipeline.
    """
    if strange := what_else(package):
        raise PipelineError(f"{package} is {strange}; name the file of a compiled pipeline")
    if not package.is_file():
        there = ", ".join(sorted(p.name for p in package.parent.glob("*.yaml"))) if package.parent.is_dir() else ""
        raise PipelineError(
            f"no compiled pipeline {package}; {package.parent} holds {there or 'no YAML'}. Compile with `curricle pipeline compile`"
        )
    try:
        spec = read_documents(package)[0]
        inputs = spec["root"].get("inputDefinitions", {}).get("parameters", {})
        _check_form(spec)
        return {
            name: Parameter(
                name,
                item["parameterType"],
                item.get("defaultValue"),
                not item.get("isOptional", False),
                item.get("description", ""),
                tuple(item.get("literals", ())),
            )
            for name, item in inputs.items()
        }
    except (yaml.YAMLError, ValueError, RecursionError, LookupError, TypeError, AttributeError):
        raise PipelineError(
            f"{package} is no compiled pipeline (its pipelineInfo, root, components, a task or an input is not there, or not as the compiler writes it); compile with "
            "`curricle pipeline compile`"
        ) from None


def _check_form(spec: Any) -> None:
    """Look at all that is read of a specification; raises `LookupError`, `TypeError`, `AttributeError` or `ValueError` where something is not there."""
    trees = [spec["root"]["dag"], *(one["dag"] for one in spec["components"].values() if "dag" in one)]
    for tree in trees:
        names = tree["tasks"].keys()
        if not names:
            raise ValueError
        for task in tree["tasks"].values():
            spec["components"][task["componentRef"]["name"]], task["taskInfo"]["name"].strip()
            if not names >= set(task.get("dependentTasks", [])):
                raise ValueError
    if not str(spec["pipelineInfo"]["name"]).strip():
        raise ValueError


def parse(texts: list[str], known: dict[str, Parameter]) -> dict[str, Any]:
    """``name=value`` texts as typed values.

    Raises:
        PipelineError: unknown names (with the nearest), one twice, wrong types, missing ones: all of them.
    """
    problems, values, seen = [], {}, dict[str, str]()
    for text in texts:
        name, sep, value = text.partition("=")
        if not sep:
            problems.append(f"{text!r} is not of the form name=value")
        elif name in seen:
            problems.append(f"{name} is given twice ({masked(seen[name])!r} and {masked(text)!r}); leave one out")
        elif name not in known:
            near = difflib.get_close_matches(name, known, 1)
            problems.append(
                f"no parameter {name!r}; " + (f"did you mean {near[0]!r}?" if near else f"there are {', '.join(known)}")
            )
        elif holds_secret(value) or variable_within(value):
            problems.append(
                f"{name} holds a password or token ({masked(value)}), and Kubeflow shows and keeps parameters; it belongs into a secret of the cluster"
            )
        else:
            seen[name] = text
            try:
                values[name] = _value(known[name].kind, value)
            except (ValueError, RecursionError):
                problems.append(f"{name} must be {KINDS[known[name].kind]}, not {value!r}")
                continue
            problems += known[name].refuses(values[name])
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
        number = float(text)
        if not math.isfinite(number):
            raise ValueError
        return number
    value = read_json(text)
    if not isinstance(value, list if kind == "LIST" else dict):
        raise ValueError
    return value


def over(*layers: list[str]) -> list[str]:
    """Overrides of several parameters as one list: what a later one sets too is left out of those before it."""
    made: list[str] = []
    for layer in layers:
        keys = {item.partition("=")[0] for item in layer}
        made = [item for item in made if item.partition("=")[0] not in keys] + layer
    return made


def overrides_of(data_key: str, data_source: str, overrides: str, store_uri: str) -> list[str]:
    """All overrides of a chain's run: the data that a parameter of their own names, the given ones, the store."""
    data = [f"{data_key}={data_source}"] if data_key and data_source else []
    return over(data, split_overrides(overrides), [f"paths.store_uri={store_uri}"])


def split_overrides(text: str) -> list[str]:
    """The overrides in one text, separated by spaces; quotes hold one with spaces together.

    Raises:
        ConfigError: a quote is not closed.
    """
    try:
        return shlex.split(text)
    except ValueError as error:
        raise ConfigError(f"parameter overrides {text!r}: {str(error).lower()}; a quote needs its other half") from None
