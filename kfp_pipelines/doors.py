"""The steps as pipeline components call them: plain strings and numbers in, plain values out.

A component's body is a call of one function here; whatever it does more would be logic in a component.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import cast, get_args

from curricle import environment
from curricle.config.chain import load_chain, load_stage
from curricle.errors import ConfigError
from curricle.launch import LAUNCHERS, check_launcher, open_launcher
from curricle.planning import ChainPlan, Source, StartMode
from curricle.steps import chain as chains
from curricle.steps import evaluate, gate, prepare, source, train
from curricle.steps import preflight as checks
from curricle.steps.promote import finish_run, promote
from curricle.steps.relay import LogRelay
from curricle.store import layout, open_store, split_uri
from curricle.training.events import Event, to_line
from kfp_pipelines.tables import markdown_table


@dataclass(frozen=True)
class StageArtifacts:
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


def config_file(name: str = "config.yaml") -> Path:
    """A base file of the image's configuration, by its path below the folder of the one that the environment names."""
    return Path(environment.config_file()).parent / name


def _overrides(data_key: str, data_source: str, overrides: str, store_uri: str) -> list[str]:
    data = [f"{data_key}={data_source}"] if data_key and data_source else []
    return [*data, *shlex.split(overrides), f"paths.store_uri={store_uri}"]


def prepare_data(config: str, chain: str, data_key: str, data_source: str, overrides: str, store_uri: str) -> str:
    """Prepare the data of every stage of a chain; its URI, or one a stage separated by spaces where they differ.

    Args:
        config: base file, below the configuration's folder.
        chain: name of a chain file.
        data_key: dotted key of the setting that `data_source` is the value of; empty where the pipeline has none.
    """
    base, given = config_file(config), _overrides(data_key, data_source, overrides, store_uri)
    named = load_chain(chain, base.parent)
    loaded = [load_stage(base, stage.name, given, named.layers.get(stage.name)) for stage in named.chain.stages]
    uris = [prepare.prepare_data(stage.config) for stage in loaded]
    return uris[0] if len(set(uris)) == 1 else " ".join(uris)


def preflight(store_uri: str, launcher: str, show: Callable[[str], None]) -> None:
    """Try everything that training will ask for; `show` gets the table as Markdown even where something fails.

    Raises:
        ConfigError: something that training needs is not there; names all of it.
    """
    findings = checks.run_checks(store_uri, launcher)
    rows = [["ok" if f.ok else "FAILED", f.name, f.detail, f.advice] for f in findings]
    table = markdown_table(["", "check", "found", "what to do"], rows)
    print(table, flush=True)
    show(table)
    checks.require(findings)


def resolve_start(from_checkpoint: str, store_uri: str, stage: str) -> Source:
    """The checkpoint a run starts from; an empty URI when none was asked for."""
    if not from_checkpoint:
        return Source("", "", f"no checkpoint was asked for: {stage or 'the first stage'} starts from scratch")
    return source.resolve_source(from_checkpoint, store_uri, asked="from_checkpoint")


def plan_run(
    *,
    config: str,
    chain: str,
    stages: str,
    data_key: str,
    data_source: str,
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
    if start_mode not in (modes := get_args(StartMode)):
        raise ConfigError(f"start_mode {start_mode!r} is not one of {', '.join(modes)}")
    check_launcher(launcher)
    selected = None if stages in ("", "all") else frozenset(name.strip() for name in stages.split(","))
    request = chains.ChainRequest(
        config=config_file(config),
        chain=chain,
        overrides=tuple(_overrides(data_key, data_source, overrides, store_uri)),
        from_checkpoint=start_uri,
        resume=resume,
        run_id=run_id,
        selected=selected,
        start_mode=cast(StartMode, start_mode),
        data_uris=tuple(data_uri.split()),
    )
    return keep_plan(chains.make_plan(request))


def keep_plan(plan: ChainPlan) -> PlannedRun:
    """Write a plan to its run's place in the store."""
    table = markdown_table(
        ["stage", "start", "why", "digest"], [[s.name, s.start, s.reason, s.digest[:12]] for s in plan.stages]
    )
    return PlannedRun(source.write_plan(plan), [s.start for s in plan.stages], table)


def train_stage(plan_uri: str, index: int, parent_uri: str, launcher: str, task_config: str = "") -> StageArtifacts:
    """Train one stage of a stored plan; progress goes to the log, and to the store. `task_config` (JSON) is what was set on the KFP task."""
    where, plan = open_launcher(launcher, task_config), _plan(plan_uri)
    with LogRelay(plan.stages[index].uri) as relay:

        def listen(event: Event) -> None:
            print(to_line(event), flush=True)
            relay(event)

        return _result(train.train_stage(plan, index, parent_uri, where, listen))


def reuse_stage(plan_uri: str, index: int, parent_uri: str) -> StageArtifacts:
    """Take a stage that is complete already, or pass on its parent when it was not selected."""
    return _result(train.reuse_stage(_plan(plan_uri), index, parent_uri))


def evaluate_model(uri: str) -> EvaluationResult:
    """Measure the chain's model on the data that it was trained with."""
    done = evaluate.evaluate_model(uri, "")
    return EvaluationResult(done.metrics, evaluate.page("Evaluation", {"checkpoint": done.uri}, done.metrics))


def gate_model(metrics_json: str, rule: str, uri: str, store_uri: str) -> gate.Verdict:
    """Decide on promotion, and pin a model that a rule promoted: it is then the one that is taken where none is named.

    Without a rule nothing was judged, so a model that somebody pinned stays the one.
    """
    verdict = gate.judge_rule(json.loads(metrics_json), rule)
    if verdict.promotes and rule.strip():
        promote(uri, store_uri, f"gate: {verdict.reason}")
    return verdict


def cleanup(run_id: str, store_uri: str, launcher: str, status: str) -> str:
    """Delete the jobs that a run left behind and write its final state; runs whatever happened before."""
    layout.check_run_id(run_id)
    note = {"run_id": run_id, "status": status}
    if launcher in LAUNCHERS:  # a run that named another one has failed before it started a job
        deleted = open_launcher(launcher).delete_by_run(run_id)
        if deleted or launcher != "local":
            note["deleted_jobs"] = str(deleted)
    plan = source.read_plan(store_uri, run_id)
    if plan is not None:
        finish_run(plan, status, note)
    else:
        open_store(store_uri).write(f"{run_id}/{layout.FINAL}", json.dumps(note, sort_keys=True).encode())
    return json.dumps(note, sort_keys=True)


def _plan(uri: str) -> ChainPlan:
    run_uri = split_uri(uri)[0]
    data = open_store(run_uri).read(layout.PLAN)
    if data is None:
        raise ConfigError(f"no plan at {uri}; the plan task writes it first")
    return ChainPlan.from_stored(data, run_uri)


def _result(outcome: train.StageOutcome) -> StageArtifacts:
    title = f"Stage {outcome.lineage.get('stage', 'not selected')}"
    return StageArtifacts(
        outcome.uri,
        outcome.manifest.to_json(),
        outcome.metrics,
        evaluate.page(title, outcome.lineage, outcome.metrics),
        outcome.lineage,
    )
