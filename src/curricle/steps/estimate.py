"""What a planned stage will take: records and steps by its prepared data, time and memory by the newest complete stage of its name in the store."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
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


def estimates(plan: ChainPlan) -> dict[str, Estimate]:
    """By stage, for those that train.

    Raises:
        StoreError: the store cannot be read.
    """
    wanted = {stage.name: stage for stage in plan.stages if stage.trains}
    store, newest = open_store(plan.store_uri), dict[str, tuple[str, Estimate]]()
    for place in stages(store) if wanted else ():
        for name in set(layout.stages_at(place.stage)) & wanted.keys():
            manifest = read_manifest(store, place.prefix) if place.complete else None
            made = _estimate(wanted[name], manifest, place.prefix, store) if manifest else None
            if made and manifest and manifest.created >= newest.get(name, ("",))[0]:
                newest[name] = (manifest.created, made)
    return {name: _counted(stage, newest.get(name, ("", Estimate()))[1]) for name, stage in wanted.items()}


def _counted(stage: StagePlan, like: Estimate) -> Estimate:
    """The estimate with what the stage's own data tell, where they are prepared."""
    entry = family(stage.family)
    data = read_manifest(open_store(stage.data_uri), "") if entry.counted else None
    records = entry.load("counted")(data.info, stage.config) if data else None
    if records is None:
        return like
    trainer = stage.config["training"]["trainer"]
    size = stage.config["data_loader"]["batch_size"] * trainer["accumulate_grad_batches"]
    return replace(like, records=records, steps=like.steps or math.ceil(records / size) * trainer["max_epochs"])


def _estimate(stage: StagePlan, manifest: Manifest, place: str, store: Store) -> Estimate | None:
    facts = manifest.info
    epochs, steps, seconds = (_number(facts.get(name)) for name in ("epochs", "steps", "seconds_per_step"))
    if not (epochs and steps and seconds) or facts.get("family") != stage.family:
        return None
    there = layout.read_record(store.read(f"{place}/{layout.STAGE}")).get("config")
    here, there = leaves(stage.config), leaves(there) if isinstance(there, dict) else {}
    if any(here.get(key) != there.get(key) for key in ALIKE):
        return None
    planned = round(steps / epochs * stage.config["training"]["trainer"]["max_epochs"])
    return Estimate(None, planned, planned * seconds, _number(facts.get("peak_memory_mb")), place)


def trained_seconds(info: Mapping[str, Any]) -> float:
    """About how long a complete stage trained, by what its manifest says."""
    return _number(info.get("steps")) * _number(info.get("seconds_per_step"))


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) and value > 0 else 0.0
