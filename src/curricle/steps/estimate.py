"""What a planned stage will take, by what it took before: the newest complete stage of its name in the store."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from curricle.config.load import leaves
from curricle.planning import ChainPlan, StagePlan
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

    steps: int
    seconds: float
    """From its first step to its end, on the machine of the stage that it is taken from."""
    memory_mb: float
    """Peak of one process."""
    place: str
    """The stage that it is taken from: ``RUN/STAGE``."""


def estimates(plan: ChainPlan) -> dict[str, Estimate]:
    """By stage, for those that train and that the store knows a like one of.

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
    return {name: made for name, (_, made) in newest.items()}


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
    return Estimate(planned, planned * seconds, _number(facts.get("peak_memory_mb")), place)


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) and value > 0 else 0.0
