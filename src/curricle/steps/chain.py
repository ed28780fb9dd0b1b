"""A chain as the user asks for it → its plan → its stages one by one: the plain loop behind `train` and `train-curriculum`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from curricle.config.chain import ChainSource, adhoc_chain, load_chain, load_stage
from curricle.errors import ConfigError
from curricle.launch.job import Launcher
from curricle.plan import ChainPlan, Holdings, Source, StageInput, plan_chain
from curricle.steps.prepare import data_digest, data_place, prepare_data
from curricle.steps.resolve import resolve_source
from curricle.steps.train import StageOutcome, reuse_stage, train_stage
from curricle.store import Store, join_uri, layout, open_store
from curricle.store.manifest import read_manifest
from curricle.train.events import Listener, StageDone, StageStarted


@dataclass(frozen=True)
class ChainRequest:
    """What a user asks for: the same on the command line and in a pipeline."""

    config: Path = Path("config/config.yaml")
    chain: str = ""
    curricula: tuple[str, ...] = ()
    overrides: tuple[str, ...] = ()
    from_checkpoint: str = ""
    resume: bool = True
    run_id: str = ""
    selected: frozenset[str] | None = None
    start_mode: Literal["auto", "scratch", "continued"] = "auto"
    data_uri: str = ""
    """Prepared data; empty computes it from the configuration."""


def chain_source(request: ChainRequest) -> ChainSource:
    """The chain that the request names."""
    if request.chain:
        return load_chain(request.chain, request.config.parent)
    if not request.curricula:
        raise ConfigError("no stages: give --chain NAME or --curricula a,b,c")
    return adhoc_chain(list(request.curricula))


def make_plan(request: ChainRequest) -> ChainPlan:
    """Plan the requested chain against what its store holds. Trains, prepares and writes nothing.

    Raises:
        ConfigError, CheckpointError, DataError, StoreError: something asked for is wrong or missing.
    """
    source = chain_source(request)
    stages = []
    for stage in source.chain.stages:
        loaded = load_stage(request.config, stage.name, list(request.overrides), source.layers.get(stage.name))
        uri, digest = (
            (request.data_uri, data_digest(request.data_uri)) if request.data_uri else data_place(loaded.config)
        )
        stages.append(StageInput(stage.name, loaded, uri, digest))
    store_uri = stages[0].loaded.config.paths.store_uri
    if any(s.loaded.config.paths != stages[0].loaded.config.paths for s in stages):
        raise ConfigError(
            "the stages of a chain must share their `paths`; set them in the base file or on the command line"
        )
    start: Source | None = resolve_source(request.from_checkpoint, store_uri) if request.from_checkpoint else None
    return plan_chain(
        stages,
        chain_name=source.chain.chain_name,
        store_uri=store_uri,
        start=start,
        holdings=holdings(open_store(store_uri), store_uri, {s.name for s in stages}),
        resume=request.resume,
        run_id=request.run_id,
        selected=set(request.selected) if request.selected is not None else None,
        start_mode=request.start_mode,
    )


def holdings(store: Store, store_uri: str, names: set[str]) -> Holdings:
    """What the store holds of the named stages, in all runs."""
    complete: dict[tuple[str, str], str] = {}
    occupied: dict[str, str] = {}
    pattern = re.compile(rf"([^/]+/([^/]+))/({re.escape(layout.STAGE)}|{re.escape(layout.MANIFEST)})")
    for entry in store.list(""):
        found = pattern.fullmatch(entry.key)
        if not found or found[2] not in names:
            continue
        place = join_uri(store_uri, found[1])
        if found[3] == layout.MANIFEST:
            manifest = read_manifest(store, found[1])
            if manifest and manifest.kind == "stage":
                complete[found[2], manifest.digest] = place
                occupied[place] = manifest.digest
        elif place not in occupied:
            occupied[place] = layout.read_stage_digest(store.read(entry.key))
    return Holdings(complete, occupied)


def run_chain(plan: ChainPlan, launcher: Launcher, listen: Listener) -> list[StageOutcome]:
    """Run a plan stage by stage. A failing stage ends the run with its `JobError`; stages before it stay complete."""
    store = open_store(plan.store_uri)
    store.write(f"{plan.run_id}/{layout.PLAN}", plan.to_json().encode())
    outcomes: list[StageOutcome] = []
    parent_uri = ""
    for index, stage in enumerate(plan.stages):
        listen(
            StageStarted(
                index=index,
                stages=len(plan.stages),
                name=stage.name,
                start=stage.start,
                reason=stage.reason,
                uri=stage.uri,
                epochs=stage.config["training"]["trainer"]["max_epochs"],
            )
        )
        if stage.start in ("reuse", "skip"):
            outcome = reuse_stage(plan, index, parent_uri)
        else:
            _ensure_data(stage.data_uri, stage.config)
            outcome = train_stage(plan, index, parent_uri, launcher, listen)
        parent_uri = outcome.uri
        outcomes.append(outcome)
        listen(StageDone(index=index, name=stage.name, start=stage.start, uri=outcome.uri, metrics=outcome.metrics))
    return outcomes


def _ensure_data(uri: str, tree: dict[str, Any]) -> None:
    from curricle.config.load import from_tree
    from curricle.families import family

    if read_manifest(open_store(uri), "") is None:
        made = prepare_data(from_tree(family(tree["family"]).load("config"), tree))
        if made != uri:
            raise ConfigError(
                f"the data's sources changed since the plan was made: planned {uri}, now {made}; plan again"
            )
