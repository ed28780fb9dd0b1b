"""From files and overrides to a typed configuration: strict, with the origin of every value.

A `Layer` is one source of values (a file, the command line). `compose` lays them over each other, last wins; `build` turns
the result into the schema's dataclass, converting by declared type, and reports every problem at once with file and line.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import math
import os
import re
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

import yaml

from curricle.config.defaults import data_root
from curricle.errors import ConfigError
from curricle.masking import holds_secret, masked, variable_within

C = TypeVar("C")

NODES, DEPTH, BYTES = 100_000, 50, 1 << 20
"""Values of a YAML file at most, its aliases written out, levels of nesting, and the file's size."""
LONGEST = 4096
"""Characters of a text at most: that of the longest path."""
DEFAULT = "default"
COMMAND_LINE = "command line"


@dataclass(frozen=True)
class Layer:
    """Values from one source, and where each dotted key stands in it (``config/config.yaml:12``)."""

    tree: dict[str, Any]
    origins: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Loaded(Generic[C]):
    """A configuration, and for every dotted leaf where its value came from."""

    config: C
    origins: dict[str, str]


class _Loader(yaml.SafeLoader):
    """Safe YAML that reads `1e-4` as a number (PyYAML follows YAML 1.1 and makes it text) and dates as text."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith((":timestamp", ":float", ":int"))]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver("tag:yaml.org,2002:int", re.compile(r"^[-+]?(0|[1-9][0-9]*)$"), list("-+0123456789"))
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?$|^[-+]?\.(inf|Inf|INF)$|^\.(nan|NaN|NAN)$"),
    list("-+.0123456789"),
)


class Twice(yaml.constructor.ConstructorError):
    """A key stands twice in one mapping, of which plain YAML would take the last."""

    def __init__(self, key: str, mark: yaml.Mark, first: int):
        super().__init__(None, None, f"key {key!r} stands twice", mark)
        self.line, self.first = mark.line + 1, first


_KEYS = {f"tag:yaml.org,2002:{name}" for name in ("str", "int", "merge")}


def read_yaml(path: Path, *, what: str = "configuration file") -> Layer:
    """Read one YAML file whose top level is a mapping.

    Raises:
        ConfigError: the file is missing (names the folder's YAML files), no YAML, has a key twice, or is no mapping.
    """
    if path.exists() and not path.is_file() and not path.is_dir():
        raise ConfigError(f"{what} {path} is a pipe, a socket or a device; name a file")
    if not path.is_file():
        here = sorted(p.name for p in path.parent.glob("*.yaml")) if path.parent.is_dir() else []
        names = ", ".join(here) or "no YAML file"
        raise ConfigError(f"{what} {path} is not there; {path.parent} holds {names}")
    try:
        size = path.stat().st_size
        if size > BYTES:
            raise ConfigError(f"{what} {path} has {size:,} bytes; {BYTES:,} are allowed")
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8 text: {error}") from None
    except OSError as error:
        raise ConfigError(f"{what} {path} cannot be read: {error.strerror}") from None
    return parse_yaml(text, str(path))


def parse_yaml(text: str, where: str) -> Layer:
    """The same for YAML that is no file; `where` is what its lines are named by.

    Raises:
        ConfigError: it is no YAML, has a key twice, or is no mapping.
    """
    origins: dict[str, str] = {}

    def look(node: yaml.Node) -> None:
        if not isinstance(node, yaml.MappingNode):
            kind = "list" if isinstance(node, yaml.SequenceNode) else "single value"
            raise ConfigError(f"{where} must hold a mapping (key: value) at its top level, not a {kind}")
        _walk(node, "", where, origins)

    try:
        tree = _construct(text, look)
    except Twice as error:
        raise ConfigError(f"{where}:{error.line}: {error.problem} (first at {where}:{error.first})") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        raise ConfigError(f"{where}{line} is not YAML: {getattr(error, 'problem', None) or error}") from None
    except _UNREADABLE as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f"{where} is not YAML that can be read: {_said(error)}") from None
    return Layer(tree or {}, origins)


def _construct(text: str, look: Callable[[yaml.Node], None]) -> Any:
    """The document's value, None for none; `look` sees its nodes first, when they are known to be few and not to hold themselves.

    Raises:
        yaml.YAMLError, ValueError, RecursionError: it is no YAML, too large or too deep, or has a tag or key that plain YAML has not.
    """
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        _size(node, {}, ())
        look(node)
        return loader.construct_document(node)
    finally:
        loader.dispose()


def _size(node: yaml.Node, known: dict[int, tuple[int, int]], above: tuple[int, ...]) -> tuple[int, int]:
    """How many nodes a node is when every alias is written out, and how many levels.

    Raises:
        ConstructorError: more than `NODES`, deeper than `DEPTH`, within itself, or with a key that is no plain value.
    """
    if id(node) in known:
        return known[id(node)]

    def refuse(problem: str) -> yaml.constructor.ConstructorError:
        return yaml.constructor.ConstructorError(None, None, problem, node.start_mark)

    if id(node) in above:
        raise refuse("an alias (*name) within what it stands for")
    parts: list[yaml.Node] = []
    if isinstance(node, yaml.MappingNode):
        keys: dict[str, yaml.Node] = {}
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise refuse("a key that is a list or a mapping; a key is a plain word")
            if key.tag not in _KEYS:
                raise refuse(f"the key {key.value[:80]!r} is read as {key.tag.rpartition(':')[2]}; put it in quotes")
            if (first := keys.setdefault(key.value, key)) is not key:
                raise Twice(key.value[:80], key.start_mark, first.start_mark.line + 1)
        parts = [value for _, value in node.value]
    elif isinstance(node, yaml.SequenceNode):
        parts = node.value
    count, levels = 1, 1
    for part in parts:
        inside, deep = _size(part, known, (*above, id(node)))
        count, levels = count + inside, max(levels, deep + 1)
        if count > NODES:
            raise refuse(f"more than {NODES:,} values once its aliases (*name) are written out")
        if levels > DEPTH:
            raise refuse(f"nested deeper than {DEPTH} levels")
    known[id(node)] = count, levels
    return count, levels


_UNREADABLE = (ValueError, TypeError, KeyError, AttributeError, RecursionError)
"""What PyYAML raises, beside its own errors, for a value that does not fit its tag."""


def _said(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "nested too deeply"
    return str(error) if isinstance(error, ValueError) else "a value does not fit its tag (!!name)"


def _walk(node: yaml.MappingNode, prefix: str, where: str, origins: dict[str, str]) -> None:
    for key_node, value_node in node.value:
        key = f"{prefix}{key_node.value}"
        place = f"{where}:{key_node.start_mark.line + 1}"
        if key in origins:
            raise ConfigError(f"{place}: key {key!r} stands twice (first at {origins[key]})")
        origins[key] = place
        if isinstance(value_node, yaml.MappingNode):
            _walk(value_node, f"{key}.", where, origins)


def read_overrides(overrides: Iterable[str], words: Mapping[str, str] | None = None) -> Layer:
    """Dotted overrides (``training.learning_rate=1e-4``); values are YAML, so ``[1, 2]``, ``null`` and ``true`` work.

    Args:
        words: what some keys may be called → the configuration's own.

    Raises:
        ConfigError: an item has no ``=`` or a value that is no YAML, or two items set the same, in whatever words.
    """
    tree: dict[str, Any] = {}
    origins: dict[str, str] = {}
    given: dict[str, str] = {}
    problems = []
    for item in overrides:
        key, sep, text = item.partition("=")
        if not sep or not re.fullmatch(r"[A-Za-z_][\w.]*", key):
            problems.append(
                f"override {item!r} is not of the form section.key=value (for example training.learning_rate=1e-4)"
            )
            continue
        try:
            value = _construct(text, lambda node: None) if text else ""
        except (yaml.YAMLError, *_UNREADABLE) as error:
            said = getattr(error, "problem", None) or _said(error)
            problems.append(f"override {item[:200]!r}: the value is not YAML ({said}); quote it")
            continue
        key = (words or {}).get(key, key)
        own = dict.fromkeys((leaf for leaf, _ in _leaves(value, key)), item)
        if both := next(((leaf, other) for leaf in own for other in given if _overlap(leaf, other)), None):
            leaf, other = both
            problems.append(f"overrides {given[other][:200]!r} and {item[:200]!r} both set {leaf}; leave one out")
        given |= own
        tree = _merge(tree, nest(key, value))
        origins[key] = COMMAND_LINE
    if problems:
        raise ConfigError(problems)
    return Layer(tree, origins)


def _overlap(key: str, other: str) -> bool:
    """Whether two dotted keys are one, or one is within the other."""
    return f"{key}.".startswith(f"{other}.") or f"{other}.".startswith(f"{key}.")


def nest(key: str, value: Any) -> dict[str, Any]:
    """``nest("a.b", 1)`` is ``{"a": {"b": 1}}``."""
    for part in reversed(key.split(".")):
        value = {part: value}
    return value


def anchored(layer: Layer, folder: Path, keys: Iterable[str]) -> Layer:
    """The layer with the folders under `keys` that a file names made relative to the configuration's folder.

    Those of the command line stay relative to the working folder; URIs and absolute folders stay what they are.
    """
    tree, folder = layer.tree, data_root(folder)
    for key in keys:
        *path, last = key.split(".")
        section: Any = tree
        for part in path:
            section = section.get(part) if isinstance(section, dict) else None
        value = section.get(last) if isinstance(section, dict) else None
        if layer.origins.get(key) == COMMAND_LINE:
            continue
        if isinstance(value, list):
            tree = _merge(tree, nest(key, [_anchored(item, folder) for item in value]))
        elif isinstance(value, str):
            tree = _merge(tree, nest(key, _anchored(value, folder)))
    return Layer(tree, layer.origins)


def _anchored(value: Any, folder: Path) -> Any:
    """A folder or file relative to `folder`; what is none, or a URI, as it is."""
    return os.path.normpath(folder / value) if isinstance(value, str) and value and "://" not in value else value


def compose(layers: list[Layer]) -> Layer:
    """Lay the layers over each other: mappings merge, anything else is replaced; the last layer wins."""
    tree: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for layer in layers:
        tree = _merge(tree, layer.tree)
        origins |= layer.origins
    return Layer(tree, origins)


def _merge(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        old = merged.get(key)
        merged[key] = _merge(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged


def build(schema: type[C], layer: Layer) -> Loaded[C]:
    """Make the schema's dataclass of a composed layer.

    Raises:
        ConfigError: unknown keys (with the nearest known one), wrong types, failed checks: all of them.
    """
    return _build(schema, layer, fresh=True)


def _build(schema: type[C], layer: Layer, *, fresh: bool) -> Loaded[C]:
    builder = _Builder(layer.origins)
    builder.refuse_secrets(layer.tree, "", fresh)
    config = builder.dataclass(schema, layer.tree, "")
    if builder.problems:
        raise ConfigError(builder.problems)
    return Loaded(config, {key: layer.origins.get(key, DEFAULT) for key in leaves(config)})


def from_tree(schema: type[C], tree: dict[str, Any]) -> C:
    """The schema's dataclass of a plain tree (`to_tree`'s inverse), as it was stored: secrets of this process's environment are not looked for."""
    return _build(schema, Layer(tree), fresh=False).config


def with_value(loaded: Loaded[C], key: str, value: Any, origin: str) -> Loaded[C]:
    """The same configuration with another value at a dotted key.

    Raises:
        ConfigError: it may not be that.
    """
    tree = _merge(to_tree(loaded.config), nest(key, value))
    return Loaded(from_tree(type(loaded.config), tree), loaded.origins | {key: origin})


def to_tree(config: Any) -> Any:
    """A configuration as plain dicts, lists and scalars, as YAML and JSON hold them."""
    if dataclasses.is_dataclass(config) and not isinstance(config, type):
        return {f.name: to_tree(getattr(config, f.name)) for f in dataclasses.fields(config)}
    if isinstance(config, tuple | list):
        return [to_tree(item) for item in config]
    if isinstance(config, dict):
        return {key: to_tree(value) for key, value in config.items()}
    return config


def leaves(config: Any) -> dict[str, Any]:
    """Every value by dotted key."""
    return dict(_leaves(to_tree(config), ""))


def _leaves(tree: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    if isinstance(tree, dict) and (tree or not prefix):
        for key, value in tree.items():
            yield from _leaves(value, f"{prefix}.{key}" if prefix else key)
    else:
        yield prefix, tree


@functools.cache
def _hints(schema: type) -> dict[str, Any]:
    return typing.get_type_hints(schema, include_extras=True)


class _Lines(str):
    """Text without bounds."""


class _Refused(ValueError):
    """A value of the right kind that may not be; says what it must be."""


class _Builder:
    def __init__(self, origins: dict[str, str]):
        self.origins = origins
        self.problems: list[str] = []

    def origin(self, key: str) -> str:
        """Where a key, something in it, or the nearest mapping above it was given; empty when nowhere."""
        within = next((place for name, place in self.origins.items() if name.startswith(f"{key}.")), "")
        if within and key not in self.origins:
            return within
        while key:
            if key in self.origins:
                return self.origins[key]
            key = key.rpartition(".")[0]
        return ""

    def problem(self, key: str, text: str) -> None:
        place = self.origin(key)
        self.problems.append(": ".join(part for part in (place, key, text) if part))

    def refuse_secrets(self, value: Any, at: str, fresh: bool) -> None:
        """Note every text that holds a password or token, and in `fresh` settings what the environment holds as one: a configuration is stored
        beside the model, shown, and handed to processes.
        """
        if isinstance(value, dict):
            for key, entry in value.items():
                self.refuse_secrets(key, at, fresh)
                self.refuse_secrets(entry, _dotted(at, key), fresh)
        elif isinstance(value, list | tuple):
            for entry in value:
                self.refuse_secrets(entry, at, fresh)
        elif isinstance(value, str) and holds_secret(value):
            self.problem(
                at,
                f"holds a password or token ({masked(value)}); a configuration is stored and shown. Put it into the environment: "
                "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or the whole of MLFLOW_TRACKING_URI; AWS_ACCESS_KEY_ID and "
                "AWS_SECRET_ACCESS_KEY for a store. A cluster's settings name a secret for it in env_from_secrets",
            )
        elif fresh and isinstance(value, str) and (name := variable_within(value)):
            self.problem(
                at,
                f"holds the secret of the environment variable {name} ({masked(value)}); a configuration is stored and shown: leave it out "
                "(a cluster's settings name a secret for it in env_from_secrets)",
            )

    def dataclass(self, schema: type, tree: Any, at: str, base: Any = None) -> Any:
        """The section; what the tree does not name is as in `base`, the section's default where its owner has one of its own."""
        if not isinstance(tree, dict):
            self.problem(at, f"must be a section of keys, not {_show(tree)}")
            return None
        fields = {f.name: f for f in dataclasses.fields(schema)}
        before = len(self.problems)
        values = {}
        for key, value in tree.items():
            if key in fields:
                default = _default_of(fields[key], base)
                values[key] = self.value(_hints(schema)[key], value, _dotted(at, key), default)
            else:
                near = difflib.get_close_matches(str(key), fields, 1, 0.5)
                known = f"did you mean {near[0]!r}?" if near else f"known here: {', '.join(fields)}"
                self.problem(_dotted(at, key), f"unknown key; {known}")
        if base is None:
            for name in fields:
                if name not in values and _is_required(fields[name]):
                    self.problem(_dotted(at, name), "is required and nowhere given")
        if len(self.problems) > before:
            return None
        try:
            return schema(**values) if base is None else dataclasses.replace(base, **values)
        except ValueError as error:
            blamed = next((name for name in fields if str(error).startswith(f"{name} ")), "")
            self.problem(_dotted(at, blamed), str(error))
            return None

    def value(self, kind: Any, value: Any, at: str, default: Any = None) -> Any:
        try:
            return self.convert(kind, value, at, default)
        except _Refused as error:
            self.problem(at, f"{error}, not {_show(value)}")
        except (TypeError, ValueError):
            self.problem(at, f"must be {_name(kind)}, not {_show(value)}")
        return None

    def convert(self, kind: Any, value: Any, at: str, default: Any = None) -> Any:
        """The value as the declared type; raises TypeError or ValueError where it is none."""
        origin = typing.get_origin(kind)
        if isinstance(kind, type) and dataclasses.is_dataclass(kind):
            return self.dataclass(kind, value, at, default if isinstance(default, kind) else None)
        if origin is typing.Annotated:
            kind, *rules = typing.get_args(kind)
            made = self.convert(kind, value, at, default)
            if problem := next((said for rule in rules if (said := rule.problem(made))), ""):
                raise _Refused(problem)
            return made
        if origin is typing.Literal:
            for choice in typing.get_args(kind):
                if value == choice and isinstance(value, bool) == isinstance(choice, bool):
                    return choice
            raise ValueError
        if origin in (types.UnionType, typing.Union):
            return self.union(typing.get_args(kind), value, at)
        if origin is tuple:
            if not isinstance(value, list | tuple):
                raise TypeError
            items = typing.get_args(kind)
            if items[-1] is Ellipsis:
                items = (items[0],) * len(value)
            # Another length than the declared one is a ValueError of zip.
            return tuple(self.convert(item, one, at) for item, one in zip(items, value, strict=True))
        if origin is dict:
            if not isinstance(value, dict):
                raise TypeError
            item = typing.get_args(kind)[1]
            if item is str:  # what a cluster's variables and annotations hold may be of several lines
                item = _Lines
            return {str(key): self.convert(item, one, f"{at}.{key}") for key, one in value.items()}
        if kind is Any:
            return value
        return _scalar(kind, value)

    def union(self, kinds: tuple[Any, ...], value: Any, at: str) -> Any:
        if value is None and type(None) in kinds:
            return None
        refused: ValueError | None = None
        for kind in kinds:
            if kind is type(None):
                continue
            try:
                return self.convert(kind, value, at)
            except _Refused as error:
                refused = error
            except (TypeError, ValueError):
                continue
        raise refused or TypeError


def _dotted(at: str, key: Any) -> str:
    """The dotted key of `key` in the section `at`; either may be empty."""
    return ".".join(part for part in (at, str(key)) if part)


def _default_of(item: dataclasses.Field[Any], base: Any) -> Any:
    """The section that a field is without the tree: that of `base`, else what the schema makes; None where it makes none."""
    if base is not None:
        return getattr(base, item.name)
    return None if item.default_factory is dataclasses.MISSING else item.default_factory()


def _is_required(item: dataclasses.Field[Any]) -> bool:
    return item.default is dataclasses.MISSING and item.default_factory is dataclasses.MISSING


def _scalar(kind: type, value: Any) -> Any:
    if kind is bool and isinstance(value, bool):
        return value
    if isinstance(value, bool):
        raise TypeError
    if kind is int and isinstance(value, int):
        return value
    if kind is float and isinstance(value, int | float | str):
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
        if not math.isfinite(number):
            raise _Refused("must be a finite number")
        return number
    if kind is _Lines and isinstance(value, str):
        return value
    if kind is str and isinstance(value, str):
        if len(value) > LONGEST:
            raise _Refused(f"must have at most {LONGEST} characters")
        if any(ord(c) < 32 or c == "\x7f" or 0xD800 <= ord(c) < 0xE000 for c in value):
            raise _Refused("must hold no control characters and no half characters")
        return value
    raise TypeError


def _name(kind: Any) -> str:
    origin = typing.get_origin(kind)
    if origin is typing.Annotated:
        return _name(typing.get_args(kind)[0])
    if origin is typing.Literal:
        return "one of " + ", ".join(str(a) for a in typing.get_args(kind))
    if origin in (types.UnionType, typing.Union):
        return " or ".join(_name(a) for a in typing.get_args(kind))
    if origin is tuple:
        items = typing.get_args(kind)
        if items[-1] is Ellipsis:
            return f"a list ([...]), each item {_name(items[0])}"
        return f"a list of {len(items)} ([{', '.join(_name(item) for item in items)}])"
    if origin is dict:
        return f"a mapping (key: value), each value {_name(typing.get_args(kind)[1])}"
    if kind is type(None):
        return "null"
    words: dict[Any, str] = {
        int: "a whole number",
        float: "a number",
        bool: "true or false",
        str: "text",
        _Lines: "text",
        Any: "anything",
    }
    return words.get(kind, getattr(kind, "__name__", str(kind)))


def _show(value: Any) -> str:
    """A value for a message; a long one is cut."""
    if value is None:
        return "null"
    try:
        text = repr(value)
    except ValueError:  # of a whole number with thousands of digits
        text = "a number of thousands of digits"
    return f"{text if len(text) <= 200 else f'{text[:200]}…'} ({type(value).__name__})"
