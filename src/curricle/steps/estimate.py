"""What a planned stage will take: records and steps by its prepared data, time and memory by the newest complete stage of its name in the store."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from curricle.config.load import leaves
from curricle.planning import ChainPlan, StagePlan
from curricle.registry import family
from curricle.store import Store, layout, open_store
from curricle.store.manifest import Manifest, read_manifest
from curricle.store.runs import stages

ALIKE = (
    "model.encoder",
    "data_loader.batch_size",
    "training.trainer.devices",
    "training.trainer.num_nodes",
    "training.trainer.accumulate_grad_batches",
)
"""Settings that a step's cost depends on most: a stage that differs in one tells nothing."""


@dataclass(frozen=True)
class Estimate:
    """Expected cost of a stage."""

    records: int | None = None
    """Of one epoch; None where the data is not prepared, or does not tell."""
    steps: int | None = None
    """Of all epochs."""
    seconds: float = 0.0
    """From its first step to its end, on the machine of the stage that it is taken from; 0 where there is no such stage."""
    memory_mb: float = 0.0
    """Peak of one process."""
    place: str = ""
    """The stage that it is taken from: ``RUN/STAGE``."""


@dataclass(frozen=True)
class _Like:
    """What is known of a complete stage."""

    place: str
    steps_an_epoch: float
    seconds_a_step: float
    memory_mb: float
    same_data: bool


def estimates(plan: ChainPlan) -> dict[str, Estimate]:
    """By stage, for those that train.

    Raises:
        StoreError: the store cannot be read.
    """
    wanted = {stage.name: stage for stage in plan.stages if stage.trains}
    store, newest = open_store(plan.store_uri), dict[str, tuple[str, _Like]]()
    for place in stages(store) if wanted else ():
        for name in set(layout.stages_at(place.stage)) & wanted.keys():
            manifest = read_manifest(store, place.prefix) if place.complete else None
            made = _like(wanted[name], manifest, place.prefix, store) if manifest else None
            if made and manifest and manifest.created >= newest.get(name, ("",))[0]:
                newest[name] = (manifest.created, made)
    return {name: _counted(stage, newest[name][1] if name in newest else None) for name, stage in wanted.items()}


def _counted(stage: StagePlan, like: _Like | None) -> Estimate:
    """The steps by the stage's own data, where they are prepared, or of a stage like it on the same data; then what they take."""
    records, steps = _records(stage), None
    trainer = stage.config["training"]["trainer"]
    if like and like.same_data:
        steps = round(like.steps_an_epoch * trainer["max_epochs"])
    elif records is not None:
        size = stage.config["data_loader"]["batch_size"] * trainer["accumulate_grad_batches"]
        steps = math.ceil(records / size) * trainer["max_epochs"]
    if like is None or steps is None:
        return Estimate(records, steps)
    return Estimate(records, steps, steps * like.seconds_a_step, like.memory_mb, like.place)


def _records(stage: StagePlan) -> int | None:
    entry = family(stage.family)
    data = read_manifest(open_store(stage.data_uri), "") if entry.counted else None
    return entry.load("counted")(data.info, stage.config) if data else None


def _like(stage: StagePlan, manifest: Manifest, place: str, store: Store) -> _Like | None:
    """What a complete stage tells of another one; None where they are not alike."""
    facts = manifest.info
    epochs, steps, seconds = (_number(facts.get(name)) for name in ("epochs", "steps", "seconds_per_step"))
    if not (epochs and steps and seconds) or facts.get("family") != stage.family:
        return None
    there = layout.read_record(store.read(f"{place}/{layout.STAGE}")).get("config")
    here, there = leaves(stage.config), leaves(there) if isinstance(there, dict) else {}
    if any(here.get(key) != there.get(key) for key in ALIKE):
        return None
    same = manifest.lineage.get("data_digest") == stage.data_digest
    return _Like(place, steps / epochs, seconds, _number(facts.get("peak_memory_mb")), same)


def trained_seconds(info: Mapping[str, Any]) -> float:
    """About how long a complete stage trained, by what its manifest says."""
    return _number(info.get("steps")) * _number(info.get("seconds_per_step"))


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) and value > 0 else 0.0
