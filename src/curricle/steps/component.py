"""The steps as pipeline components call them: plain strings and numbers in, plain values out.

A component's body is a call of one function here; whatever it does more would be logic in a component.
"""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from curricle.config.chain import list_curricula, load_stage
from curricle.errors import ConfigError
from curricle.launch import check_launcher, open_launcher
from curricle.plan import ChainPlan
from curricle.steps import chain as chains
from curricle.steps import evaluate, gate, prepare, resolve, train
from curricle.steps import preflight as checks
from curricle.steps.relay import LogRelay
from curricle.store import join_uri, layout, open_store
from curricle.train.events import Event, to_line

CONFIG = Path(os.environ.get("CURRICLE_CONFIG", "config/config.yaml"))
"""The base file; the control image says where its own is."""


@dataclass(frozen=True)
class StageResult:
    """What a training component emits."""

    uri: str
    manifest: str
    metrics: dict[str, float]
    html: str
    lineage: dict[str, str]


@dataclass(frozen=True)
class PlannedRun:
    """What the plan component emits."""

    plan_uri: str
    modes: list[str]
    table: str


@dataclass(frozen=True)
class EvaluationResult:
    """What the evaluation component emits."""

    metrics: dict[str, float]
    html: str


def prepare_data(family: str, config: str, overrides: str, store_uri: str) -> str:
    """Prepare data; its URI."""
    base = Path(config) if config else CONFIG
    stages = list_curricula(base.parent)
    if not stages:
        raise ConfigError(f"{base.parent} holds no stage files; data cannot be described without one")
    loaded = load_stage(
        base, stages[0][0], [f"family={family}", *shlex.split(overrides), f"paths.store_uri={store_uri}"]
    )
    return prepare.prepare_data(loaded.config)


def preflight(store_uri: str, launcher: str, show: Callable[[str], None]) -> None:
    """Try everything that training will ask for; `show` gets the table as Markdown even where something fails.

    Raises:
        ConfigError: something that training needs is not there; names all of it.
    """
    findings = checks.preflight(store_uri, launcher)
    rows = [f"| {'ok' if f.ok else 'FAILED'} | {f.name} | {f.detail} | {f.advice} |" for f in findings]
    table = "\n".join(["| | check | found | what to do |", "|---|---|---|---|", *rows])
    print(table, flush=True)
    show(table)
    checks.require(findings)


def resolve_start(from_checkpoint: str, store_uri: str, stage: str) -> resolve.Source:
    """The checkpoint a run starts from; an empty URI when none was asked for."""
    if not from_checkpoint:
        return resolve.Source("", "", f"no checkpoint was asked for: {stage or 'the first stage'} starts from scratch")
    return resolve.resolve_source(from_checkpoint, store_uri)


def plan_run(
    *,
    chain: str,
    stages: str,
    overrides: str,
    store_uri: str,
    data_uri: str,
    start_uri: str,
    start_mode: str,
    resume: bool,
    run_id: str,
    launcher: str,
) -> PlannedRun:
    """Plan a chain and store the plan."""
    if start_mode not in ("auto", "scratch", "continued"):
        raise ConfigError(f"start_mode {start_mode!r} is not one of auto, scratch, continued")
    check_launcher(launcher)
    selected = None if stages in ("", "all") else frozenset(name.strip() for name in stages.split(","))
    request = chains.ChainRequest(
        config=CONFIG,
        chain=chain,
        overrides=(*shlex.split(overrides), f"paths.store_uri={store_uri}"),
        from_checkpoint=start_uri,
        resume=resume,
        run_id=run_id,
        selected=selected,
        start_mode=start_mode,
        data_uri=data_uri,
    )
    return keep_plan(chains.make_plan(request))


def keep_plan(plan: ChainPlan) -> PlannedRun:
    """Write a plan to its run's place in the store."""
    key = f"{plan.run_id}/{layout.PLAN}"
    open_store(plan.store_uri).write(key, plan.to_json().encode())
    rows = [f"| {s.name} | {s.start} | {s.reason} | {s.digest[:12]} |" for s in plan.stages]
    table = "\n".join(["| stage | start | why | digest |", "|---|---|---|---|", *rows])
    return PlannedRun(join_uri(plan.store_uri, key), [s.start for s in plan.stages], table)


def train_stage(plan_uri: str, index: int, parent_uri: str, launcher: str, task_config: str = "") -> StageResult:
    """Train one stage of a stored plan; progress goes to the log, and to the store. `task_config` (JSON) is what was set on the KFP task."""
    where, plan = open_launcher(launcher, task_config), _plan(plan_uri)
    with LogRelay(plan.stages[index].uri) as relay:

        def listen(event: Event) -> None:
            print(to_line(event), flush=True)
            relay(event)

        return _result(train.train_stage(plan, index, parent_uri, where, listen))


def reuse_stage(plan_uri: str, index: int, parent_uri: str) -> StageResult:
    """Take a stage that is complete already, or pass on its parent when it was not selected."""
    return _result(train.reuse_stage(_plan(plan_uri), index, parent_uri))


def evaluate_model(uri: str, data_uri: str) -> EvaluationResult:
    """Measure the chain's model."""
    found = evaluate.evaluate_model(uri, data_uri)
    return EvaluationResult(
        found.metrics, evaluate.page("Evaluation", {"checkpoint": found.uri, "data": data_uri}, found.metrics)
    )


def gate_model(metrics_json: str, rule: str) -> gate.Decision:
    """Decide on promotion."""
    return gate.gate(json.loads(metrics_json), rule)


def cleanup(run_id: str, store_uri: str, launcher: str, status: str) -> str:
    """Delete the jobs that a run left behind and write its final state; runs whatever happened before."""
    note = {"run_id": run_id, "status": status}
    if launcher == "pytorchjob":
        note["deleted_jobs"] = str(open_launcher(launcher).delete_by_run(run_id))
    open_store(store_uri).write(f"{run_id}/final.json", json.dumps(note, sort_keys=True).encode())
    return json.dumps(note, sort_keys=True)


def _plan(uri: str) -> ChainPlan:
    data = open_store(uri.rpartition("/")[0]).read(layout.PLAN)
    if data is None:
        raise ConfigError(f"no plan at {uri}; the plan task writes it first")
    return ChainPlan.from_json(data)


def _result(outcome: train.StageOutcome) -> StageResult:
    title = f"Stage {outcome.lineage.get('stage', 'not selected')}"
    return StageResult(
        outcome.uri,
        outcome.manifest.to_json(),
        outcome.metrics,
        evaluate.page(title, outcome.lineage, outcome.metrics),
        outcome.lineage,
    )
