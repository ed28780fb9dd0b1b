"""Chains and stage files: which stages there are, and one stage's effective configuration.

A chain file (`text_curriculum/chain_*.yaml` beside the base file) orders stages, may set their epochs and learning rate, and may say
when its result is promoted. A stage file (`text_curriculum/<stage>.yaml`) holds sections of the configuration. Where the family has a
section of its own for a stage (`FamilyEntry.section`), that section's keys stand at the file's top level, as people write them.
Precedence, last wins: default, base file, stage file, chain, command line.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from curricle.config.load import Layer, Loaded, anchored, build, compose, nest, read_overrides, read_yaml
from curricle.config.schema import LearningRate, Range, StageConfig, Text, require
from curricle.errors import ConfigError
from curricle.registry import CHAIN_FAMILY, FamilyEntry, canonical, family

FOLDER = "text_curriculum"
SECTIONS = ("training", "data_loader", "model", "data")
"""Sections that may stand in a stage file beside the keys of the family's own."""


@dataclass(frozen=True, kw_only=True)
class ChainStage:
    """One stage of a chain, and what the chain says of it."""

    name: Text
    """The stage file's stem."""
    max_epochs: Annotated[int, Range("[1, 100000]")] | None = None
    """Overrides training.trainer.max_epochs."""
    learning_rate: LearningRate | None = None
    """Overrides training.learning_rate."""


@dataclass(frozen=True, kw_only=True)
class Chain:
    """An ordered list of stages."""

    chain_name: Text
    """For people: shown in logs and tracking."""
    stages: tuple[ChainStage, ...]
    """In training order."""
    gate: str = ""
    """Rule over the test metrics of the last stage (``test/f1 >= 0.5``): where it holds, the result is promoted. Empty: nothing is."""

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
    given, above = read_yaml(base, what="base configuration"), read_overrides(overrides)
    path = base.parent / FOLDER / f"{name}.yaml"
    known = [stem for stem, _ in list_curricula(base.parent)]
    if name not in known:
        near = difflib.get_close_matches(name, known, 1, 0.4)
        hint = f" (did you mean {near[0]}?)" if near else ""
        raise ConfigError(f"stage {name!r} has no file {path}{hint}; stages there: {', '.join(known) or 'none'}")
    named = canonical(compose([given, above]).tree.get("family", CHAIN_FAMILY))
    entry = family(named)
    stage_file = read_yaml(path, what="stage file")
    if canonical(stage_file.tree.get("family", named)) != named:
        raise ConfigError(
            f"{stage_file.origins['family']}: family is {stage_file.tree['family']!r}, and {base} says {named!r}; the stages of one base "
            "file are of one family: give the other one a base file of its own"
        )
    own = _stage_layer(stage_file, name, entry)
    layer = compose([given, own, chain_layer or Layer({}), above])
    layer = Layer(layer.tree | {"family": named}, layer.origins)
    return build(entry.load("config"), anchored(layer, base.parent, entry.paths))


def _stage_layer(layer: Layer, name: str, entry: FamilyEntry) -> Layer:
    """A stage file as a layer of the configuration."""
    if not entry.section:
        if layer.tree.get("name", name) != name:
            raise ConfigError(
                f"{layer.origins['name']}: name is {layer.tree['name']!r}; a stage is called as its file: {name}"
            )
        tree = {key: value for key, value in layer.tree.items() if key != "name"}
        return Layer(tree, {key: place for key, place in layer.origins.items() if key != "name"})
    tree = {key: layer.tree[key] for key in SECTIONS if key in layer.tree}
    tree[entry.section] = {"name": name} | {key: value for key, value in layer.tree.items() if key not in SECTIONS}
    origins = {
        (key if key.partition(".")[0] in SECTIONS else f"{entry.section}.{key}"): place
        for key, place in layer.origins.items()
    }
    return Layer(tree, origins)
