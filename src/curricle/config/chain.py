"""Chains and stage files: which stages there are, and one stage's effective configuration.

A chain file (`config/text_curriculum/chain_*.yaml`) orders stages and may set their epochs and learning rate. A stage file
(`config/text_curriculum/<stage>.yaml`) holds the curriculum's keys at its top level, as people write them, and may hold the
sections `training`, `data_loader`, `model` and `data` beside them. Precedence, last wins: default, base file, stage file, chain,
command line.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from curricle.config.load import Layer, Loaded, build, compose, nest, read_overrides, read_yaml
from curricle.config.schema import StageConfig, require
from curricle.errors import ConfigError
from curricle.families import family

FOLDER = "text_curriculum"
SECTIONS = ("training", "data_loader", "model", "data")


@dataclass(frozen=True, kw_only=True)
class ChainStage:
    """One stage of a chain, and what the chain says of it."""

    name: str
    """The stage file's stem."""
    max_epochs: int | None = None
    """Overrides training.trainer.max_epochs."""
    learning_rate: float | None = None
    """Overrides training.learning_rate."""

    def __post_init__(self) -> None:
        require(self.max_epochs is None or self.max_epochs > 0, f"max_epochs must be above 0, not {self.max_epochs}")
        require(
            self.learning_rate is None or 0 < self.learning_rate < 1,
            f"learning_rate must lie between 0 and 1, not {self.learning_rate}",
        )


@dataclass(frozen=True, kw_only=True)
class Chain:
    """An ordered list of stages."""

    chain_name: str
    """For people: shown in logs and tracking."""
    stages: tuple[ChainStage, ...]
    """In training order."""

    def __post_init__(self) -> None:
        names = [s.name for s in self.stages if s is not None]
        require(len(names) > 0, "stages must name at least one stage")
        twice = sorted({n for n in names if names.count(n) > 1})
        require(not twice, f"stages lists {', '.join(twice)} more than once; a stage has one place in a run")


@dataclass(frozen=True)
class ChainSource:
    """A chain with the places its values came from."""

    chain: Chain
    layers: dict[str, Layer]
    """Per stage, what the chain itself sets."""


def load_chain(name: str, config_dir: Path) -> ChainSource:
    """The chain of that name under `config_dir`, or at that path.

    Raises:
        ConfigError: no such file, or not a chain.
    """
    path = Path(name) if name.endswith((".yaml", ".yml")) else config_dir / FOLDER / f"{name}.yaml"
    layer = read_yaml(path, what="chain")
    chain = build(Chain, layer).config
    layers = {}
    for stage in chain.stages:
        values = {"training.trainer.max_epochs": stage.max_epochs, "training.learning_rate": stage.learning_rate}
        given = {key: value for key, value in values.items() if value is not None}
        layers[stage.name] = compose(
            [Layer(nest(key, value), {key: f"{path}, stage {stage.name}"}) for key, value in given.items()]
        )
    return ChainSource(chain, layers)


def adhoc_chain(stages: list[str]) -> ChainSource:
    """A chain of stages named on the command line.

    Raises:
        ConfigError: none, or one twice.
    """
    try:
        chain = Chain(chain_name="-".join(stages), stages=tuple(ChainStage(name=name) for name in stages))
    except ValueError as error:
        raise ConfigError(f"--curricula: {error}") from None
    return ChainSource(chain, {})


def list_curricula(config_dir: Path) -> list[tuple[str, Path]]:
    """Every stage file under `config_dir`: (name, path), sorted."""
    return [(p.stem, p) for p in sorted((config_dir / FOLDER).glob("*.yaml")) if not p.stem.startswith("chain_")]


def list_chains(config_dir: Path) -> list[tuple[str, Path]]:
    """Every chain file under `config_dir`: (name, path), sorted."""
    return [(p.stem, p) for p in sorted((config_dir / FOLDER).glob("chain_*.yaml"))]


def load_stage(base: Path, name: str, overrides: list[str], chain_layer: Layer | None = None) -> Loaded[StageConfig]:
    """One stage's effective configuration.

    Args:
        base: the base file; stage files stand in the folder `text_curriculum` beside it.
        name: the stage.
        overrides: dotted overrides of the command line.
        chain_layer: what the chain sets for this stage.

    Raises:
        ConfigError: a file is missing or a value wrong; all problems at once.
    """
    base_layer = read_yaml(base, what="base configuration")
    path = base.parent / FOLDER / f"{name}.yaml"
    known = [stem for stem, _ in list_curricula(base.parent)]
    if name not in known:
        near = difflib.get_close_matches(name, known, 1, 0.4)
        hint = f" (did you mean {near[0]}?)" if near else ""
        raise ConfigError(f"stage {name!r} has no file {path}{hint}; stages there: {', '.join(known) or 'none'}")
    layers = [
        base_layer,
        _stage_layer(read_yaml(path, what="stage file")),
        chain_layer or Layer({}),
        read_overrides(overrides),
    ]
    layer = compose(layers)
    layer = Layer(layer.tree | {"curriculum": {"name": name} | _section(layer.tree, "curriculum")}, layer.origins)
    schema = family(str(layer.tree.get("family", "naics"))).load("config")
    return build(schema, Layer({"family": "naics"} | layer.tree, layer.origins))


def _section(tree: dict[str, Any], name: str) -> dict[str, Any]:
    section = tree.get(name, {})
    return section if isinstance(section, dict) else {}


def _stage_layer(layer: Layer) -> Layer:
    tree = {key: layer.tree[key] for key in SECTIONS if key in layer.tree}
    tree["curriculum"] = {key: value for key, value in layer.tree.items() if key not in SECTIONS}
    origins = {
        (key if key.partition(".")[0] in SECTIONS else f"curriculum.{key}"): place
        for key, place in layer.origins.items()
    }
    return Layer(tree, origins)
