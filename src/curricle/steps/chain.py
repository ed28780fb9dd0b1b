"""A chain as the user asks for it → its plan → its stages one by one: the plain loop behind `train` and `train-curriculum`."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from pathlib import Path

from curricle.config.chain import ChainSource, adhoc_chain, load_chain, load_stage
from curricle.config.load import Loaded, from_tree, leaves, parse_yaml, with_value
from curricle.config.schema import StageConfig
from curricle.errors import ConfigError
from curricle.launch.job import Launcher
from curricle.planning import ChainPlan, Holdings, Source, StageInput, StagePlan, StartMode, plan_chain
from curricle.registry import PARENT, family
from curricle.steps.claim import who_trains
from curricle.steps.estimate import trained_seconds
from curricle.steps.evaluate import by_domain, data_of, measure_change
from curricle.steps.findings import find, keep_verdict
from curricle.steps.gate import DROP, GAIN, Scores, Verdict, asks_change, judge, parse_rule
from curricle.steps.prepare import check_folders, check_planned, data_digest, data_place, keeps_data, prepare_data
from curricle.steps.promote import finish_run, named_model, promote
from curricle.steps.source import require_family, write_plan
from curricle.steps.train import StageOutcome, check_nodes, reuse_stage, train_stage
from curricle.store import Store, join_uri, layout, open_store, references
from curricle.store.manifest import read_manifest
from curricle.store.runs import stages as begun_stages
from curricle.training.events import Listener, StageDone, StageStarted
from curricle.training.pulse import working


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
    start_mode: StartMode = "auto"
    data_uris: tuple[str, ...] = ()
    """Prepared data of each stage, or one for all; none computes it from the configuration."""
    gate: str | None = None
    """Rule of promotion; None takes the chain's own."""


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
    gate = source.chain.gate if request.gate is None else request.gate
    asks_change(gate)
    given = request.data_uris
    if len(given) not in (0, 1, len(source.chain.stages)):
        raise ConfigError(
            f"{len(given)} data URIs were given for {len(source.chain.stages)} stages: give one, or one a stage"
        )
    names = [stage.name for stage in source.chain.stages]
    configs = [load_stage(request.config, n, list(request.overrides), source.layers.get(n)) for n in names]
    paths, wanted = configs[0].config.paths, configs[0].config.family
    if any(loaded.config.paths != paths for loaded in configs):
        raise ConfigError(
            "the stages of a chain must share their `paths`; set them in the base file or on the command line"
        )
    store_uri = paths.store_uri
    start: Source | None = None
    if request.from_checkpoint:
        start = named_model(request.from_checkpoint, store_uri, of_family=wanted)
        require_family(start, wanted)
    stages: list[StageInput] = []
    before = ""
    for index, (name, loaded) in enumerate(zip(names, configs, strict=True)):
        prepared = given[index if len(given) > 1 else 0] if given else ""
        if not prepared:
            loaded = _keeping(loaded, name, start, before)
        uri, digest = (prepared, data_digest(prepared)) if prepared else data_place(loaded.config)
        stages.append(StageInput(name, loaded, uri, digest))
        if request.selected is None or name in request.selected:
            before = uri
    for given_stage in stages:
        check_folders(given_stage.loaded.config)
    made = plan_chain(
        stages,
        chain_name=source.chain.chain_name,
        store_uri=store_uri,
        start=start,
        holdings=holdings(open_store(store_uri), store_uri, {s.name for s in stages}),
        resume=request.resume,
        run_id=request.run_id,
        selected=set(request.selected) if request.selected is not None else None,
        start_mode=request.start_mode,
        gate=gate,
    )
    _check_fit(made)
    _check_gate(made)
    selected = {stage.name for stage in made.selected}
    for planned in stages:
        if planned.name in selected:
            check_planned(planned.loaded.config, not made.selected[0].parent_uri)
    return made


def _keeping(loaded: Loaded[StageConfig], name: str, start: Source | None, before: str) -> Loaded[StageConfig]:
    """A stage's configuration with the data that it keeps in place of `registry.PARENT`.

    Args:
        before: the data of the stage before it in the chain; empty for the first one, which keeps those of the checkpoint that the chain starts from.

    Raises:
        ConfigError: there is no model before.
        CheckpointError: the data of the model before are not there.
    """
    if not keeps_data(loaded.config):
        return loaded
    key = family(loaded.config.family).continues
    if not before and start is None:
        raise ConfigError(
            f"stage {name} goes on from what the model before was trained with ({key} is {PARENT!r}), and there is no model before: "
            f"name one with --from-checkpoint, for example --from-checkpoint {layout.PROMOTED}"
        )
    if not before and start is not None:
        manifest = read_manifest(open_store(start.uri), "")
        assert manifest is not None  # it was resolved
        before = data_of(manifest, start.uri)
    return with_value(loaded, key, before, "the data of the model before")


def _check_fit(plan: ChainPlan) -> None:
    """Refuse a stage that differs from the one that it starts from in what its weights depend on (`FamilyEntry.kept`).

    Raises:
        ConfigError: names the key and both values.
    """
    who = plan.selected[0].parent_uri
    text = open_store(who).read(layout.CONFIG) if who else None
    there = leaves(parse_yaml(text.decode(errors="replace"), join_uri(who, layout.CONFIG)).tree) if text else {}
    for stage in plan.selected:
        here = leaves(stage.config)
        for key in family(stage.family).kept:
            if key in there and there[key] != here[key]:
                raise ConfigError(
                    f"stage {stage.name} has {key} = {here[key]}, and {who}, which it starts from, was trained with {there[key]}: its weights do "
                    f"not fit. Set {key}={there[key]}, or start from scratch"
                )
        who, there = f"stage {stage.name}", here


def _check_gate(plan: ChainPlan) -> None:
    """Refuse a rule over metrics that the result's data do not give, as far as they are prepared.

    Raises:
        ConfigError: names the metric, and those there will be.
    """
    last = plan.selected[-1]
    measured = family(last.family).measured
    data = read_manifest(open_store(last.data_uri), "") if plan.gate and measured else None
    given = set(family(last.family).load("measured")(data.info)) if data else set()
    measure = family(last.family).headlines[0].rpartition("/")[2]
    domains = by_domain(dict.fromkeys(given, 0.0), measure)
    changes = {word for word, domain in ((GAIN, "new"), (DROP, "old")) if domain in domains}
    for metric, _, _ in parse_rule(plan.gate) if given else ():
        if metric not in given | changes:
            if metric in (GAIN, DROP):
                domain = "new" if metric == GAIN else "old"
                raise ConfigError(
                    f"the gate's rule names {metric!r}, which is measured on the {domain} test records, and the data of stage {last.name} have none: give more {domain} records, or "
                    "a rule over another metric"
                )
            near = difflib.get_close_matches(metric, sorted(given), 1)
            raise ConfigError(
                f"the gate's rule names {metric!r}, which the data of stage {last.name} do not give"
                f"{f' (did you mean {near[0]}?)' if near else ''}. There will be: {', '.join(sorted(given))}"
            )


def holdings(store: Store, store_uri: str, names: set[str]) -> Holdings:
    """What the store holds of the named stages, in all runs."""
    complete: dict[tuple[str, str], str] = {}
    broken: dict[tuple[str, str], str] = {}
    occupied: dict[str, str] = {}
    training: set[str] = set()
    for place in begun_stages(store):
        meant = names.intersection(layout.stages_at(place.stage))
        if not meant:
            continue
        uri = join_uri(store_uri, place.prefix)
        manifest = read_manifest(store, place.prefix) if place.complete else None
        if manifest and manifest.kind == "stage":
            best = str(manifest.info.get("best"))
            if layout.MANIFEST not in place.checkpoints.get(best, ()):
                broken |= {(name, manifest.digest): join_uri(uri, best) for name in meant}
            complete |= {(name, manifest.digest): uri for name in meant}
            occupied[uri] = manifest.digest
        elif layout.STAGE in place.files:
            occupied[uri] = layout.read_stage_digest(store.read(f"{place.prefix}/{layout.STAGE}"))
            if layout.CLAIM in place.files and who_trains(store, place.prefix):
                training.add(uri)
    return Holdings(complete, occupied, broken, frozenset(training))


def run_chain(plan: ChainPlan, launcher: Launcher, listen: Listener) -> list[StageOutcome]:
    """Run a plan stage by stage. A failing stage ends the run with its `JobError`; stages before it stay complete.

    All data is prepared first: where some cannot be, the run leaves nothing.
    """
    check_nodes(plan, launcher)
    prepare_all(plan)
    if plan.gate and plan.selected[-1].trains:
        _check_gate(plan)
    write_plan(plan)
    outcomes: list[StageOutcome] = []
    parent_uri = ""
    for index, stage in enumerate(plan.stages):
        listen(
            StageStarted(
                index=index,
                stages=len(plan.stages),
                name=stage.name,
                family=stage.family,
                start=stage.start,
                reason=stage.reason,
                uri=stage.uri,
                epochs=stage.config["training"]["trainer"]["max_epochs"],
            )
        )
        if stage.start in ("reuse", "skip"):
            outcome = reuse_stage(plan, index, parent_uri)
        else:
            outcome = train_stage(plan, index, parent_uri, launcher, listen)
        parent_uri = outcome.uri
        outcomes.append(outcome)
        took = trained_seconds(outcome.manifest.info) if outcome.waited else None
        listen(StageDone(index, stage.name, stage.start, outcome.uri, outcome.metrics, took))
    finish_run(plan, "SUCCEEDED", {})
    return outcomes


def prepare_all(plan: ChainPlan) -> None:
    """Prepare the data of every stage that trains, in order: a later one may go on from those of an earlier one.

    Raises:
        ConfigError, DataError, StoreError: some cannot be prepared, or changed since the plan was made.
    """
    for stage in plan.stages:
        if stage.trains:
            _ensure_data(stage)


@dataclass(frozen=True)
class Judged:
    """What was measured of a chain's result, and what was decided."""

    verdict: Verdict
    scores: Scores
    """Without domains where the rule asks for no change."""


def judge_chain(plan: ChainPlan, uri: str, *, pins: bool = True) -> Judged | None:
    """Measure a finished chain's model, decide by the plan's rule, and pin it where that promotes; None where the plan has no rule.

    A rule over `gain` or `drop` also measures the model that the chain started from, on the same records.

    Args:
        pins: whether a model that passes is pinned.

    Raises:
        ConfigError: the rule names a metric that was not measured.
    """
    if not plan.gate:
        return None
    cache_dir = Path(plan.stages[-1].config["paths"]["cache_dir"])
    metrics = {n: v for n, v in find(uri, cache_dir=cache_dir)["metrics"].items() if v is not None}
    scores = Scores({}, {}, metrics)
    if asks_change(plan.gate):
        first, last = plan.selected[0], plan.selected[-1]
        scores = measure_change(first.parent_uri, uri, last.data_uri, cache_dir, metrics)
    verdict = judge(scores, plan.gate)
    kept = {"rule": plan.gate} | ({"before": scores.before, "after": scores.after} if scores.after else {})
    keep_verdict(plan.store_uri, plan.run_id, plan.selected[-1].digest, verdict, kept)
    if verdict.promotes and pins:
        promote(uri, plan.store_uri, f"gate: {verdict.reason}")
    return Judged(verdict, scores)


def _ensure_data(stage: StagePlan) -> None:
    if read_manifest(open_store(stage.data_uri), "") is None:
        with working(f"preparing the data of {stage.name}"):
            made = prepare_data(from_tree(family(stage.family).load("config"), stage.config))
        if references.absolute(made) != references.absolute(stage.data_uri):
            raise ConfigError(
                f"the data's sources changed since the plan was made: planned {stage.data_uri}, now {made}; plan again"
            )
