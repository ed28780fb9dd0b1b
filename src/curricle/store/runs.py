"""The runs of a store, read from its listing: runs → stages → checkpoints. The one place that takes the layout's keys apart.

One listing is enough, whatever is asked; manifests and records are read by who needs them.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from curricle.store import Store, layout


@dataclass
class StagePlace:
    """What lies at one stage's place."""

    run: str
    stage: str
    files: set[str] = field(default_factory=set)
    """Names directly at the place: ``stage.json``, ``manifest.json``, ``failure.json`` ..."""
    checkpoints: dict[str, set[str]] = field(default_factory=dict)
    """Best checkpoints by name, complete or not → the keys below each; ``last.ckpt`` is not among them."""

    @property
    def prefix(self) -> str:
        """The place's key."""
        return f"{self.run}/{self.stage}"

    @property
    def complete(self) -> bool:
        """Whether the stage's manifest stands."""
        return layout.MANIFEST in self.files


@dataclass
class RunPlace:
    """What lies at one run's place."""

    run: str
    files: set[str] = field(default_factory=set)
    """Names directly at the place: ``plan.json``, ``failure.json``, ``final.json``."""
    bytes: int = 0
    """Of all that lies there."""
    modified: float = 0.0
    """When something was last written there, in seconds since 1970 by the store's clock."""
    stages: dict[str, StagePlace] = field(default_factory=dict)
    """By name, sorted. Also places that hold nothing of a stage but a stray object; `trained` leaves those out."""

    def trained(self) -> list[StagePlace]:
        """The stages that were begun, complete or not."""
        kept = (layout.STAGE, layout.MANIFEST, layout.FAILURE)
        return [place for place in self.stages.values() if place.files & set(kept)]


def survey(store: Store, run: str = "") -> dict[str, RunPlace]:
    """Every run of the store by id, sorted; with `run` that one alone."""
    runs: dict[str, RunPlace] = {}
    for entry in store.list(f"{run}/" if run else ""):
        name, *rest = entry.key.split("/")
        if name in layout.RESERVED or not rest:
            continue
        place = runs.setdefault(name, RunPlace(name))
        place.bytes += entry.size
        place.modified = max(place.modified, entry.modified)
        if len(rest) == 1:
            place.files.add(rest[0])
            continue
        stage = place.stages.setdefault(rest[0], StagePlace(name, rest[0]))
        if len(rest) == 2:
            stage.files.add(rest[1])
        elif layout.parse_checkpoint_name(rest[1]):
            stage.checkpoints.setdefault(rest[1], set()).add("/".join(rest[2:]))
    return runs


def stages(store: Store, run: str = "") -> list[StagePlace]:
    """Every stage that was begun, in all runs or in one."""
    return [stage for place in survey(store, run).values() for stage in place.trained()]


def checkpoint_names(store: Store, place: str) -> set[str]:
    """Names of the best checkpoints at one stage's place, which is a key of the store, complete or not; ``last.ckpt`` is not among them."""
    below = f"{place}/"
    names = {entry.key.removeprefix(below).split("/")[0] for entry in store.list(below)}
    return {name for name in names if layout.parse_checkpoint_name(name)}


def published(store: Store, name: str) -> list[str]:
    """Keys of the complete models that were published under a name."""
    suffix = f"/{layout.MANIFEST}"
    keys = [entry.key for entry in store.list(f"{layout.PUBLISHED}/{name}/")]
    return [key.removesuffix(suffix) for key in keys if key.count("/") == 3 and key.endswith(suffix)]
