"""The steps as pipeline components call them: plain strings and numbers in, plain values out.

A component's body is a call of one function here; whatever it does more would be logic in a component.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import cast, get_args

from curricle import environment
from curricle.config.chain import load_chain, load_stage
from curricle.config.load import leaves
from curricle.errors import CheckpointError, ConfigError, CurricleError, Finding
from curricle.launch import check_launcher, launchers, open_launcher
from curricle.planning import ChainPlan, Source, StartMode
from curricle.registry import FamilyEntry, family
from curricle.steps import chain as chains
from curricle.steps import evaluate, gate, prepare, register, source, train
from curricle.steps import preflight as checks
from curricle.steps.findings import find, write_verdict
from curricle.steps.promote import finish_run, named_model, promote
from curricle.steps.relay import TRAIN, LogRelay
from curricle.store import join_uri, layout, open_store, references, split_uri
from curricle.store.failure import Failure
from curricle.store.manifest import read_manifest
from curricle.training.events import Event, Step, Working, metric_title
from curricle.training.pulse import Pulse, working
from kfp_pipelines import pages, reports
from kfp_pipelines.parameters import overrides_of

STEP_EVERY = 5.0
"""Seconds between two lines about steps in a component's log, as between two writes of the relay."""


@dataclass(frozen=True)
class StageArtifacts:
    """What a training component emits."""

    uri: str
    """The stage's place, which the next stage is given."""
    manifest: str
    """Of its best checkpoint: what files it has."""
    metrics: dict[str, float]
    """Those that say most, in the order of every page."""
    html: str
    lineage: dict[str, str]


@dataclass(frozen=True)
class PlannedRun:
    """What the plan component emits."""

    plan_uri: str
    modes: list[str]
    text: str
    """The plan as Markdown."""


@dataclass(frozen=True)
class EvaluationResult:
    """What the evaluation component emits."""

    metrics: dict[str, float]
    """All of them: a gate's rule may name any."""
    few: dict[str, float]
    """Those that say most, in the order of every page."""
    html: str
    manifest: str
    """Of the checkpoint that was measured."""
    lineage: dict[str, str]


def config_file(name: str = "config.yaml") -> Path:
    """A base file of the image's configuration, by its path below the folder of the one that the environment names."""
    return Path(environment.config_file()).parent / name


def prepare_data(config: str, chain: str, data_key: str, data_source: str, overrides: str, store_uri: str) -> str:
    """Prepare the data of every stage of a chain; its URI, or one a stage separated by spaces where they differ. Empty where a stage keeps data of the model
    before: the plan, which knows that model, prepares them.

    Args:
        config: base file, below the configuration's folder.
        chain: name of a chain file.
        data_key: dotted key of the setting that `data_source` is the value of; empty where the pipeline has none.
    """
    base, given = config_file(config), overrides_of(data_key, data_source, overrides, store_uri)
    named = load_chain(chain, base.parent)
    loaded = [load_stage(base, stage.name, given, named.layers.get(stage.name)) for stage in named.chain.stages]
    if any(prepare.keeps_data(stage.config) for stage in loaded):
        return ""
    uris = [prepare.prepare_data(stage.config) for stage in loaded]
    return uris[0] if len(set(uris)) == 1 else " ".join(uris)


def preflight(store_uri: str, launcher: str, show: Callable[[str], None]) -> None:
    """Try everything that training will ask for; `show` gets the table as Markdown even where something fails.

    Raises:
        ConfigError: something that training needs is not there; names all of it.
    """
    tell_findings(try_all(store_uri, launcher), show)


def try_all(store_uri: str, launcher: str) -> Iterator[Finding]:
    """What training needs of store and launcher, tried; each finding as soon as it is known."""
    return checks.run_checks(store_uri, launcher)


def tell_findings(tried: Iterable[Finding], show: Callable[[str], None]) -> None:
    """Print each finding as it comes and `show` all as Markdown, then raise `ConfigError` where one has failed; names all of them."""
    findings = []
    for finding in tried:
        print(pages.preflight_lines([finding]), flush=True)
        findings.append(finding)
    show(pages.preflight(findings))
    checks.require(findings)


def require_launcher(name: str) -> None:
    """Raise `ConfigError` unless there is such a launcher and it can train from here: ``local`` trains in the component's own image."""
    check_launcher(name)
    if name == "local":
        checks.require(open_launcher(name).preflight(()))


def resolve_start(from_checkpoint: str, store_uri: str, stage: str) -> Source:
    """The checkpoint a run starts from; an empty URI when none was asked for."""
    if not from_checkpoint:
        return Source("", "", f"no checkpoint was asked for: {stage or 'the first stage'} starts from scratch")
    return named_model(from_checkpoint, store_uri, asked="from_checkpoint")


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
    gate_rule: str,
) -> PlannedRun:
    """Plan a chain and store the plan. A rule that nobody could judge by is refused here, before anything trains."""
    if start_mode not in (modes := get_args(StartMode)):
        raise ConfigError(f"start_mode {start_mode!r} is not one of {', '.join(modes)}")
    require_launcher(launcher)
    selected = None if stages in ("", "all") else frozenset(name.strip() for name in stages.split(","))
    request = chains.ChainRequest(
        config=config_file(config),
        chain=chain,
        overrides=tuple(overrides_of(data_key, data_source, overrides, store_uri)),
        from_checkpoint=start_uri,
        gate=gate_rule,
        resume=resume,
        run_id=run_id,
        selected=selected,
        start_mode=cast(StartMode, start_mode),
        data_uris=tuple(data_uri.split()),
    )
    plan = chains.make_plan(request)
    if not request.data_uris:
        chains.prepare_all(plan)
    return keep_plan(plan)


def keep_plan(plan: ChainPlan) -> PlannedRun:
    """Write a plan to its run's place in the store, and forget there how an earlier run of that id ended."""
    uri = source.write_plan(plan)
    run = open_store(split_uri(uri)[0])
    for key in (layout.VERDICT, layout.FAILURE):
        if run.read(key) is not None:
            run.delete(key)
    return PlannedRun(uri, [s.start for s in plan.stages], pages.plan(plan))


def train_stage(plan_uri: str, index: int, parent_uri: str, launcher: str, task_config: str = "") -> StageArtifacts:
    """Train one stage of a stored plan; progress goes to the log, and to the store. `task_config` (JSON) is what was set on the KFP task."""
    where, plan = open_launcher(launcher, task_config), _plan(plan_uri)
    stage = plan.stages[index]
    epochs = stage.config["training"]["trainer"]["max_epochs"]
    told = Pulse(lambda line: print(line, flush=True))
    with LogRelay(stage.uri, epochs=epochs, entry=family(stage.family)) as relay, working("starting") as phase, told:
        shown = -math.inf

        def listen(event: Event) -> None:
            nonlocal shown
            line = relay(event)
            told.restart()
            if isinstance(event, Step | Working):
                phase.at(line)
                if time.monotonic() - shown < STEP_EVERY:
                    return
                shown = time.monotonic()
            print(line, flush=True)

        return _result(train.train_stage(plan, index, parent_uri, where, listen), stage.name)


def reuse_stage(plan_uri: str, index: int, parent_uri: str) -> StageArtifacts:
    """Take a stage that is complete already, or pass on its parent when it was not selected."""
    plan = _plan(plan_uri)
    return _result(train.reuse_stage(plan, index, parent_uri), plan.stages[index].name)


@dataclass(frozen=True)
class ModelFacts:
    """Where a model comes from."""

    entry: FamilyEntry
    manifest: str
    """Of its checkpoint."""
    lineage: dict[str, str]
    keeps_data: bool
    """Whether its data hold those of the model before, so that both can be compared."""


def describe_model(uri: str) -> ModelFacts:
    """Where the checkpoint at a URI, or the best one of the stage there, comes from.

    Raises:
        CheckpointError: nothing complete is there.
    """
    checkpoint = source.resolve_source(uri, "").uri
    manifest = read_manifest(open_store(checkpoint), "")
    if manifest is None:
        raise CheckpointError(f"{checkpoint} holds no complete checkpoint ({layout.MANIFEST} is missing)")
    lineage = {"checkpoint_uri": checkpoint}
    for name, place in (("parent_checkpoint_uri", "parent_uri"), ("data_uri", "data_uri")):
        if where := references.resolve(manifest.lineage.get(place), checkpoint):
            lineage[name] = where
    place = split_uri(checkpoint)[0]
    spec = open_store(place).read(layout.STAGE)
    if spec is not None:
        lineage["stage_uri"] = place
    entry = evaluate.entry_of(manifest, checkpoint)
    config = layout.read_record(spec).get("config") if entry.continues else None
    keeps = isinstance(config, dict) and bool(leaves(config).get(entry.continues))
    return ModelFacts(entry, manifest.to_json(), lineage, keeps)


def evaluate_model(uri: str, store_uri: str, run_id: str) -> EvaluationResult:
    """Measure the chain's model on the data that it was trained with, once; the run's report is then of that."""
    model, found = describe_model(uri), find(uri)
    metrics = {name: value for name, value in found["metrics"].items() if value is not None}
    parent = model.lineage.get("parent_checkpoint_uri", "")
    if parent and model.keeps_data:
        metrics |= gate.change(evaluate.measure_change(parent, uri, model.lineage["data_uri"], known=metrics))
    html = reports.of_run(store_uri, run_id, model.lineage["checkpoint_uri"], found)
    return EvaluationResult(metrics, pages.few(metrics, model.entry), html, model.manifest, model.lineage)


def gate_model(metrics_json: str, rule: str, uri: str, store_uri: str, run_id: str) -> gate.Verdict:
    """Decide on promotion, and pin a model that a rule promoted: it is then the one that is taken where none is named.

    Without a rule nothing was judged, so a model that somebody pinned stays the one.
    """
    verdict = gate.judge_rule(json.loads(metrics_json), rule)
    write_verdict(store_uri, run_id, verdict, {"rule": rule})
    if verdict.promotes and rule.strip():
        promote(uri, store_uri, f"gate: {verdict.reason}")
    return verdict


def register_model(uri: str, store_uri: str, registry: str, name: str, verdict: str, metrics_json: str) -> str:
    """Register a model with what the gate said of it; as what and where.

    Args:
        metrics_json: metrics by name, or the scores of a continued training.
    """
    measured = json.loads(metrics_json)
    if isinstance(measured.get("metrics"), dict):
        sides = {f"{when}/{domain}": value for when in ("before", "after") for domain, value in measured[when].items()}
        measured = measured["metrics"] | sides
    return register.register(uri, store_uri, registry=registry, name=name, verdict=verdict, metrics=measured)


def check_registry(registry: str, model_name: str) -> None:
    """Refuse a registry or a name that cannot be meant, before anything trains."""
    if registry:
        register.check(registry, model_name)


@dataclass(frozen=True)
class Cleaned:
    """What the exit handler emits."""

    note: str
    """What was done, as JSON."""
    summary: str
    """How the run ended, as Markdown: all that a person wants to know first."""


def cleanup(run_id: str, store_uri: str, launcher: str, status: str) -> Cleaned:
    """Delete the jobs that a run left behind and write its final state; runs whatever happened before."""
    run_id = layout.check_run_id(run_id)
    note = {"run_id": run_id, "status": status}
    if launcher in launchers():  # a run that named another one has failed before it started a job
        deleted = open_launcher(launcher, None).delete_by_run(run_id)
        if deleted or launcher != "local":
            note["deleted_jobs"] = str(deleted)
    plan = source.read_plan(store_uri, run_id)
    if plan is not None:
        finish_run(plan, status, note)
        reports.leave(store_uri, run_id)
    else:
        open_store(store_uri).write(f"{run_id}/{layout.FINAL}", json.dumps(note, sort_keys=True).encode())
    try:
        summary = pages.summary(_summary(plan, run_id, store_uri, status))
    except CurricleError as error:  # the run has ended, and that is written
        summary = pages.summary(pages.Summary(run_id, status, [], "", "", "", [f"there is no more to tell: {error}"]))
    return Cleaned(json.dumps(note, sort_keys=True), summary)


def _summary(plan: ChainPlan | None, run_id: str, store_uri: str, status: str) -> pages.Summary:
    """What the run's place tells of how it ended."""
    run = open_store(join_uri(store_uri, layout.run_folder(run_id)))
    good = status in ("COMPLETE", "SUCCEEDED")
    failures: list[Failure] = []
    stages, result = [], ""
    for stage in plan.stages if plan else ():
        store = open_store(stage.uri) if stage.uri and stage.start != "skip" else None
        manifest = read_manifest(store, "") if store else None
        done = manifest is not None and manifest.digest == stage.digest
        headline = ""
        if manifest and done:
            name = family(stage.family).headline(manifest.metrics)
            headline = f"{metric_title(name)} {pages.figure(name, manifest.metrics[name])}" if name else ""
            result = join_uri(stage.uri, manifest.info["best"]) if "best" in manifest.info else stage.uri
        elif store and not good and (failure := Failure.read(store)):
            failures.append(failure)
        stages.append(
            pages.StageEnd(
                stage.name, pages.happens(stage), "done" if done else "" if store is None else "not complete", headline
            )
        )
    whole = None if good else Failure.read(run)
    if whole and not (whole.task == TRAIN and any(failure.message in whole.message for failure in failures)):
        failures.append(whole)
    verdict = layout.read_record(run.read(layout.VERDICT)) if plan else {}
    decided = (str(verdict.get("decision", "")), str(verdict.get("reason", "")))
    return pages.Summary(run_id, status, stages, *decided, result, [failure.sentence() for failure in failures])


def _plan(uri: str) -> ChainPlan:
    run_uri = split_uri(uri)[0]
    data = open_store(run_uri).read(layout.PLAN)
    if data is None:
        raise ConfigError(f"no plan at {uri}; the plan task writes it first")
    return ChainPlan.from_stored(data, run_uri)


def _result(outcome: train.StageOutcome, name: str) -> StageArtifacts:
    """Of a stage that was not selected, and has none before it, there is nothing to tell."""
    place, lineage = outcome.uri, outcome.lineage
    entry = evaluate.entry_of(outcome.manifest, place) if "family" in outcome.manifest.info else None
    checkpoint = read_manifest(open_store(lineage["checkpoint_uri"]), "") if lineage else None
    html = reports.of_stage(name, place, outcome.manifest)
    few = pages.few(outcome.metrics, entry) if entry else outcome.metrics
    return StageArtifacts(place, (checkpoint or outcome.manifest).to_json(), few, html, lineage)
