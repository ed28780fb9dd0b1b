"""An experiment from its file to its result: checkpoint, combination, training, both domains' scores, promotion. Of any family."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from curricle import environment
from curricle.config.experiment import (
    Composed,
    Experiment,
    backbones_of,
    compose_backbone,
    config_dir_of,
    load_experiment,
    overlay,
    words_of,
)
from curricle.config.load import leaves, to_tree
from curricle.config.schema import StageConfig
from curricle.errors import CheckpointError, ConfigError
from curricle.launch.job import Launcher
from curricle.planning import ChainPlan, StageInput, plan_chain, stage_digest
from curricle.registry import family
from curricle.steps.card import card_text
from curricle.steps.chain import holdings, run_chain
from curricle.steps.evaluate import measure_change
from curricle.steps.final import BEST_CACHE, final_folder, read_cache, select_run, write_final
from curricle.steps.findings import find, keep_verdict
from curricle.steps.gate import Scores, Verdict, judge_scores
from curricle.steps.prepare import check_folders, check_planned, data_place
from curricle.steps.promote import promote, promoted
from curricle.steps.start import Start, asked_of, find_start
from curricle.store import layout, open_store, split_uri
from curricle.store.manifest import fetch
from curricle.training.events import Listener


@dataclass(frozen=True)
class Planned:
    """One backbone's training, decided before anything runs."""

    experiment: Experiment
    composed: Composed
    plan: ChainPlan
    run_id: str
    """Without the backbone: what ``{run_id}`` of a source path stands for."""
    start: Start
    notes: tuple[str, ...]
    """What was decided and why, for people."""


@dataclass(frozen=True)
class Finished:
    """What came of it."""

    uri: str
    """The trained checkpoint in the store."""
    scores: Scores
    verdict: Verdict
    folder: Path | None
    """``outputs/final_training/.../checkpoint``, when promoted."""


def read_experiment(path: Path, overrides: list[str]) -> Experiment:
    """An experiment file whose names can be those of stages and folders; see `config.experiment.load_experiment`.

    Raises:
        ConfigError: it is missing or wrong, or a name is none.
    """
    experiment = load_experiment(path, overrides)
    names = {"experiment_name": (experiment.experiment_name,), "backbones": experiment.stages.training.backbones}
    for key, given in names.items():
        for name in given:
            try:
                layout.check_stage_name(name)
            except ConfigError as error:
                raise ConfigError(f"{path}: {key}: {error}") from None
    return experiment


def plan_experiment(
    path: Path, backbone: str, overrides: list[str], *, run_id: str = "", resume: bool = True
) -> Planned:
    """Compose an experiment for one backbone and plan its training. Writes nothing.

    Raises:
        ConfigError, CheckpointError, DataError: a file, the checkpoint or a dataset is missing or wrong.
    """
    if run_id:
        run_id = layout.check_run_id(run_id)
    experiment = read_experiment(path, overrides)
    words = words_of(family(experiment.family))
    best = _result_of_search(experiment, backbone)
    above = overlay(best["hyperparameters"], words, str(BEST_CACHE)) if best else None
    composed = compose_backbone(experiment, path, backbone, overrides, above)
    config = composed.loaded.config
    check_folders(config)
    notes = list(composed.notes)
    if best:
        notes.append(f"hyperparameters of {best['trial_name']} ({BEST_CACHE}): {best['hyperparameters']}")
    start, why = start_of(experiment, path, backbone, config)
    notes += why
    data_uri, digest = data_place(config)
    store_uri = config.paths.store_uri
    held = holdings(open_store(store_uri), store_uri, {experiment.experiment_name})
    prefix = f"{backbone}_continued_" if experiment.continued_training else f"{backbone}_"
    if not run_id and resume:
        wanted = stage_digest(config, digest, start.source.digest if start.source else "")
        places = [place for (_, d), place in held.complete.items() if d == wanted]
        places += [place for place, d in held.occupied.items() if d == wanted]
        before = next((split_uri(split_uri(p)[0])[1] for p in sorted(places)), "")
        run_id = before.removeprefix(prefix) if before.startswith(prefix) else ""
    run_id = run_id or f"{datetime.now():%Y%m%d_%H%M%S}"
    name = f"{prefix}{run_id}"
    stage = StageInput(
        experiment.experiment_name,
        composed.loaded,
        data_uri,
        digest,
        tracking_names(experiment, backbone, name),
    )
    plan = plan_chain(
        [stage],
        chain_name=f"{experiment.experiment_name} ({backbone})",
        store_uri=store_uri,
        start=start.source,
        holdings=held,
        resume=resume,
        run_id=name,
    )
    check_planned(config, start.source is None)
    return Planned(experiment, composed, plan, run_id, start, tuple(notes))


def plan_experiments(
    path: Path, overrides: list[str], *, backbone: str = "", run_id: str = "", resume: bool = True
) -> list[Planned]:
    """Plan an experiment's training for each of its backbones, or for the one named; see `plan_experiment`."""
    backbones = backbones_of(read_experiment(path, overrides), path, backbone)
    return [plan_experiment(path, name, overrides, run_id=run_id, resume=resume) for name in backbones]


def run_experiment(planned: Planned, launcher: Launcher, listen: Listener) -> Finished:
    """Train, measure before and after in both domains, decide, and on promotion put the model where the next training looks for it."""
    experiment, config = planned.experiment, planned.composed.loaded.config
    planned.start.ensure()
    outcome = run_chain(planned.plan, launcher, listen)[-1]
    uri = outcome.lineage["checkpoint_uri"]
    continued = experiment.continued_training
    parent = outcome.lineage["parent_checkpoint_uri"]
    data_uri, cache_dir = planned.plan.stages[0].data_uri, Path(config.paths.cache_dir)
    scores = measure_change(parent if continued else "", uri, data_uri, cache_dir)
    if continued:
        verdict = judge_scores(scores, continued.gate.min_gain, continued.gate.max_drop)
    else:
        verdict = Verdict("promote", "a first training")
    keep_verdict(
        config.paths.store_uri,
        planned.plan.run_id,
        outcome.manifest.digest,
        verdict,
        {"before": scores.before, "after": scores.after, "full_before": scores.full_before, "full": scores.full},
    )
    pinned = promoted(config.paths.store_uri, experiment.family) if continued is None else None
    folder = None
    if verdict.promotes:
        checkpoint, manifest = fetch(uri, cache_dir / "checkpoints")
        backbone = planned.composed.backbone
        record = {
            "experiment": experiment.experiment_name,
            "backbone": backbone,
            "run_id": planned.run_id,
            "checkpoint_uri": uri,
            "parent_uri": parent,
            "config": _hyperparameters(config),
            "metrics": outcome.metrics | scores.metrics,
            "before": scores.before,
            "after": scores.after,
        }
        find(uri, cache_dir=cache_dir)  # what card and report show beside
        card = card_text(uri)
        target = final_folder(config.paths.outputs_dir, backbone, planned.run_id)
        folder = write_final(checkpoint, manifest, target, record, card)
        if pinned is None or pinned.uri == uri:
            promote(uri, config.paths.store_uri, verdict.reason)
        else:
            said = f"{verdict.reason}, which was compared with nothing: {pinned.uri} stays the promoted model (`curricle promote` changes that)"
            verdict = replace(verdict, reason=said)
    return Finished(uri, scores, verdict, folder)


def start_of(experiment: Experiment, path: Path, backbone: str, config: StageConfig) -> tuple[Start, list[str]]:
    """What an experiment's training starts from, and what to say of it.

    Raises:
        CheckpointError: a source is set and leads to no whole checkpoint of the family, or none is set and one is needed.
    """
    wanted, continued = environment.checkpoint_path(), experiment.continued_training
    if continued is None:
        pattern = leaves(config).get("checkpoint.source_path") or ""
        given = {environment.CHECKPOINT_PATH: wanted, "checkpoint.source_path": pattern}
        ignored = [
            f"{name}={place} is not used: {path} has no continued_training" for name, place in given.items() if place
        ]
        return Start(None, "scratch", ()), ignored
    folder = config_dir_of(path)
    tree = to_tree(config)
    notes: list[str] = []
    run_id = None
    pattern = str((tree.get("checkpoint") or {}).get("source_path") or "")
    if "{run_id}" in pattern and not wanted:
        roots = (Path(), folder.resolve().parent)
        metric = family(experiment.family).headlines[-1]
        selection, base = continued.checkpoint_selection, continued.base_experiment
        run_id, why = select_run(pattern, backbone, selection, base, roots, metric)
        notes.append(f"run id {run_id}: {why}")
    cache = Path(continued.previous_training_cache) if continued.previous_training_cache else None
    if cache and not cache.is_file() and (folder.parent / cache).is_file():
        cache = folder.parent / cache
    asked = asked_of(tree, environment=wanted, cache=cache, backbone=backbone, run_id=run_id, config_dir=folder)
    start = find_start(asked if "checkpoint" in tree else replace(asked, required=False), experiment.family)
    notes += start.reasons
    if start.source is None:
        notes.append(
            "no old model: every record is read, and what the configuration does to keep the old domain has nothing to keep"
        )
    return start, notes


def tracking_names(experiment: Experiment, backbone: str, run_name: str) -> dict[str, Any]:
    """The guide's names: experiment ``<name>-continued-<backbone>``, run ``<backbone>_continued_<run id>``, tag training_type."""
    kind = "continued" if experiment.continued_training is not None else ""
    ending = backbone if experiment.naming.include_backbone_in_experiment else ""
    tags = {"training_type": kind or "baseline", "backbone": backbone}
    if experiment.stages.training.aml_experiment:
        tags["aml_experiment"] = experiment.stages.training.aml_experiment
    name = "-".join(filter(None, (experiment.experiment_name, kind, ending)))
    return {"experiment": name, "run_name": run_name, "tags": tags}


def _hyperparameters(config: StageConfig) -> dict[str, Any]:
    """The hyperparameters by the words of the family's experiment files, as cache files hold them."""
    words, values = words_of(family(config.family)), leaves(config)
    return {word: values[key] for word, key in words.hyperparameters.items()}


def _result_of_search(experiment: Experiment, backbone: str) -> Mapping[str, Any]:
    """The search's result that a training goes by: where the experiment lists the stage `hpo` and it was run."""
    if experiment.stages.hpo is None:
        return {}
    best = read_cache(BEST_CACHE)
    if (best.get("experiment"), best.get("backbone")) == (
        experiment.experiment_name,
        backbone,
    ) and "trial_name" in best:
        return best
    raise CheckpointError(
        f"{experiment.experiment_name} lists the stage hpo, and {BEST_CACHE} holds no result of it for {backbone}; "
        "run the search first (--stage hpo), or all stages"
    )


def summary(planned: Planned, finished: Finished) -> dict[str, Any]:
    """Everything about a finished experiment, for ``--json``."""
    return {
        "run_id": planned.run_id,
        "checkpoint_uri": finished.uri,
        "before": finished.scores.before,
        "after": finished.scores.after,
        "after_full": finished.scores.full,
        "metrics": finished.scores.metrics,
        "decision": finished.verdict.decision,
        "reason": finished.verdict.reason,
        "bounds": dict(finished.verdict.bounds),
        "folder": str(finished.folder) if finished.folder else None,
        "notes": list(planned.notes),
    }
