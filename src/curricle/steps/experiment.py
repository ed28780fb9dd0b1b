"""An experiment from its file to its result: search (optional), checkpoint, combination, training, both domains' scores, promotion."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from curricle.config.load import Loaded, to_tree
from curricle.errors import CheckpointError, JobError
from curricle.families.ner.config import NerConfig
from curricle.families.ner.experiment import (
    Composed,
    Experiment,
    Search,
    compose_backbone,
    config_dir_of,
    load_experiment,
    load_search,
    overlay,
)
from curricle.families.ner.forgetting import Verdict
from curricle.families.ner.runs import BEST_CACHE, final_folder, read_cache, select_run, write_best, write_final
from curricle.launch.job import Launcher
from curricle.plan import ChainPlan, Source, StageInput, plan_chain, stage_digest
from curricle.steps.chain import holdings, run_chain
from curricle.steps.continued import Scores, compare, decide, import_checkpoint, resolve_ner
from curricle.steps.prepare import data_place
from curricle.store import open_store, split_uri
from curricle.store.manifest import fetch
from curricle.train.events import Epoch, Event, Listener


@dataclass(frozen=True)
class Planned:
    """One backbone's training, decided before anything runs."""

    composed: Composed
    plan: ChainPlan
    run_id: str
    """Without the backbone: what ``{run_id}`` of a source path stands for."""
    start: Source | None
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


def plan_experiment(
    path: Path, backbone: str, overrides: list[str], *, run_id: str = "", resume: bool = True
) -> Planned:
    """Compose an experiment for one backbone and plan its training. Writes nothing but the copy of a foreign checkpoint in the store.

    Raises:
        ConfigError, CheckpointError, DataError: a file, the checkpoint or a dataset is missing or wrong.
    """
    experiment = load_experiment(path)
    found = _found_by_search(experiment, backbone)
    above = overlay(found["hyperparameters"], str(BEST_CACHE)) if found else None
    composed = compose_backbone(experiment, path, backbone, overrides, above)
    config: NerConfig = composed.loaded.config
    notes = list(composed.notes)
    if found:
        notes.append(f"hyperparameters of {found['trial_name']} ({BEST_CACHE}): {found['hyperparameters']}")
    start, why = _start(experiment, path, backbone, config)
    notes += why
    data_uri, digest = data_place(config)
    store_uri = config.paths.store_uri
    held = holdings(open_store(store_uri), store_uri, {experiment.experiment_name})
    kind = "_continued" if experiment.continued_training else ""
    wanted = stage_digest(config, digest, start.digest if start else "")
    if not run_id and resume:
        places = [place for (_, d), place in held.complete.items() if d == wanted] + [
            place for place, d in held.occupied.items() if d == wanted
        ]
        before = next((split_uri(split_uri(p)[0])[1] for p in sorted(places)), "")
        run_id = before.removeprefix(f"{backbone}{kind}_") if before.startswith(f"{backbone}{kind}_") else ""
    run_id = run_id or f"{datetime.now():%Y%m%d_%H%M%S}"
    name = f"{backbone}{kind}_{run_id}"
    stage = StageInput(
        experiment.experiment_name, composed.loaded, data_uri, digest, tracking_names(experiment, backbone, name)
    )
    plan = plan_chain(
        [stage],
        chain_name=f"{experiment.experiment_name} ({backbone})",
        store_uri=store_uri,
        start=start,
        holdings=held,
        resume=resume,
        run_id=name,
    )
    return Planned(composed, plan, run_id, start, tuple(notes))


def run_experiment(path: Path, planned: Planned, launcher: Launcher, listen: Listener) -> Finished:
    """Train, measure before and after in both domains, decide, and on promotion put the model where the next training looks for it."""
    experiment = load_experiment(path)
    config: NerConfig = planned.composed.loaded.config
    outcome = run_chain(planned.plan, launcher, listen)[-1]
    uri = outcome.lineage["checkpoint_uri"]
    continued = experiment.continued_training
    parent = outcome.manifest.lineage.get("parent_uri") or ""
    scores = compare(parent if continued else "", uri, planned.plan.stages[0].data_uri, Path(config.paths.cache_dir))
    gate = continued.gate if continued else None
    verdict = decide(scores, gate.min_gain, gate.max_drop) if gate else Verdict("promote", "a first training")
    folder = None
    if verdict.decision == "promote":
        checkpoint, _ = fetch(uri, Path(config.paths.cache_dir) / "checkpoints")
        backbone = planned.composed.backbone
        record = {
            "experiment": experiment.experiment_name,
            "backbone": backbone,
            "run_id": planned.run_id,
            "checkpoint_uri": uri,
            "parent_uri": parent,
            "config": _words(config),
            "metrics": outcome.metrics | scores.metrics,
        }
        folder = write_final(checkpoint, final_folder(config.paths.outputs_dir, backbone, planned.run_id), record)
    return Finished(uri, scores, verdict, folder)


def _start(experiment: Experiment, path: Path, backbone: str, config: NerConfig) -> tuple[Source | None, list[str]]:
    continued = experiment.continued_training
    if continued is None:
        ignored = os.environ.get("CHECKPOINT_PATH")
        return None, [f"CHECKPOINT_PATH={ignored} is not used: {path} has no continued_training"] if ignored else []
    folder = config_dir_of(path)
    notes = []
    run_id = None
    if "{run_id}" in config.checkpoint.source_path and not os.environ.get("CHECKPOINT_PATH"):
        roots = (Path(), folder.resolve().parent)
        run_id, why = select_run(
            config.checkpoint.source_path, backbone, continued.checkpoint_selection, continued.base_experiment, roots
        )
        notes.append(f"run id {run_id}: {why}")
    cache: Path | None = Path(continued.previous_training_cache) if continued.previous_training_cache else None
    if cache and not cache.is_file() and (folder.parent / cache).is_file():
        cache = folder.parent / cache
    tree = {"checkpoint": to_tree(config.checkpoint), "paths": to_tree(config.paths), "_config_dir": str(folder)}
    found = resolve_ner(tree, cache, backbone, run_id)
    notes += found.reasons
    if found.path is None:
        return None, [
            *notes,
            "no old model: every record is read, and replay_draw each_epoch and the levers of forgetting have nothing to keep",
        ]
    return import_checkpoint(found.path, config.paths.store_uri, f"{found.source}: {found.path}"), notes


def tracking_names(experiment: Experiment, backbone: str, run_name: str) -> dict[str, Any]:
    """The guide's names: experiment ``<name>-continued-<backbone>``, run ``<backbone>_continued_<run id>``, tag training_type."""
    continued = experiment.continued_training is not None
    parts = [
        experiment.experiment_name,
        "continued" if continued else "",
        backbone if experiment.naming.include_backbone_in_experiment else "",
    ]
    tags = {"training_type": "continued" if continued else "baseline", "backbone": backbone}
    if experiment.stages.training.aml_experiment:
        tags["aml_experiment"] = experiment.stages.training.aml_experiment
    return {"experiment": "-".join(filter(None, parts)), "run_name": run_name, "tags": tags}


def _words(config: NerConfig) -> dict[str, Any]:
    """The hyperparameters by the guide's words, as its cache files hold them."""
    return {
        "backbone": config.model.encoder,
        "learning_rate": config.training.learning_rate,
        "weight_decay": config.training.weight_decay,
        "batch_size": config.data_loader.batch_size,
        "epochs": config.training.trainer.max_epochs,
        "dropout": config.model.dropout,
        "random_seed": config.seed,
        "strategy": config.data.strategy,
    }


def _found_by_search(experiment: Experiment, backbone: str) -> dict[str, Any]:
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


def search_experiment(
    path: Path, backbone: str, overrides: list[str], *, stage: str, launcher: Launcher, listen: Listener
) -> dict[str, Any]:
    """Search the hyperparameters of an experiment: Optuna trials, each an ordinary stage of the run ``hpo-<study>``; goes on where it was stopped.

    Returns:
        The best trial, as written to `notebooks/best_configuration_cache.json`.

    Raises:
        ConfigError: the search file is wrong, or names a metric that is not measured.
        JobError: no trial came to an end.
    """
    try:
        import optuna
    except ModuleNotFoundError:
        raise CheckpointError("a search needs Optuna, which is not installed; install curricle[hpo]") from None

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    experiment = load_experiment(path)
    search = load_search(experiment, config_dir_of(path), getattr(experiment.stages, stage))
    base = compose_backbone(experiment, path, backbone, overrides)
    config: NerConfig = base.loaded.config
    start, _ = _start(experiment, path, backbone, config)
    data_uri, data_digest = data_place(config)
    mark = stage_digest(config, data_digest, start.digest if start else "")[:8]
    name = f"{experiment.experiment_name}-{backbone}-{stage}-{mark}"
    storage = Path(config.paths.outputs_dir) / "hpo" / f"{name}.db"
    storage.parent.mkdir(parents=True, exist_ok=True)
    seed = config.seed + (
        len(optuna.load_study(study_name=name, storage=f"sqlite:///{storage}").trials) if storage.is_file() else 0
    )
    sampler = (
        optuna.samplers.RandomSampler(seed=seed)
        if search.sampling.algorithm == "random"
        else optuna.samplers.TPESampler(seed=seed)
    )
    ending = search.early_termination
    pruner = (
        optuna.pruners.MedianPruner(
            n_startup_trials=2, n_warmup_steps=ending.delay_evaluation, interval_steps=ending.evaluation_interval
        )
        if ending
        else optuna.pruners.NopPruner()
    )
    study = optuna.create_study(
        study_name=name,
        storage=f"sqlite:///{storage}",
        load_if_exists=True,
        sampler=sampler,
        pruner=pruner,
        direction=search.objective.goal,
    )
    for trial in study.get_trials(
        states=(optuna.trial.TrialState.RUNNING,)
    ):  # interrupted: drawn again with the same values
        study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
        study.enqueue_trial(trial.params)

    def objective(trial: Any) -> float:
        values = _drawn(trial, search)
        composed = compose_backbone(experiment, path, backbone, overrides, overlay(values, f"trial {trial.number}"))
        loaded: Loaded[NerConfig] = composed.loaded
        digest = stage_digest(loaded.config, data_digest, start.digest if start else "")
        stage_input = StageInput(
            f"trial-{digest[:8]}",
            loaded,
            data_uri,
            data_digest,
            tracking_names(experiment, backbone, f"{name}-{trial.number}"),
        )
        held = holdings(open_store(config.paths.store_uri), config.paths.store_uri, {stage_input.name})
        plan = plan_chain(
            [stage_input],
            chain_name=name,
            store_uri=config.paths.store_uri,
            start=start,
            holdings=held,
            resume=True,
            run_id=f"hpo-{name}",
        )

        def heard(event: Event) -> None:
            listen(event)
            if isinstance(event, Epoch) and search.objective.metric in event.metrics:
                trial.report(event.metrics[search.objective.metric], event.epoch)
                if trial.should_prune():
                    raise optuna.TrialPruned

        metrics = run_chain(plan, launcher, heard)[-1].metrics
        if search.objective.metric not in metrics:
            raise CheckpointError(
                f"objective.metric {search.objective.metric!r} was not measured; measured: {', '.join(sorted(metrics))}"
            )
        return metrics[search.objective.metric]

    done = len(study.get_trials(states=(optuna.trial.TrialState.COMPLETE, optuna.trial.TrialState.PRUNED)))
    if done < search.sampling.max_trials:
        study.optimize(
            objective,
            n_trials=search.sampling.max_trials - done,
            timeout=search.sampling.timeout_minutes * 60,
            catch=(JobError,),
        )
    ended = study.get_trials(states=(optuna.trial.TrialState.COMPLETE,))
    if not ended:
        raise JobError(
            f"none of the {len(study.trials)} trials of {name} came to an end; `curricle show hpo-{name}` says why",
            reason="search",
        )
    best = study.best_trial
    found = {
        "experiment": experiment.experiment_name,
        "backbone": backbone,
        "trial_name": f"trial_{best.number}",
        "trial_id": best.number,
        "study_name": name,
        "hyperparameters": best.params,
        "metrics": {"objective_value": best.value},
        "dataset_version": data_digest[:16],
        "selection_criteria": {
            "metric": search.objective.metric,
            "goal": search.objective.goal,
            "best_value": best.value,
            "backbone": backbone,
        },
    }
    write_best(found)
    return found | {"trials": len(study.trials), "complete": len(ended)}


def _drawn(trial: Any, search: Search) -> dict[str, Any]:
    values = {}
    for name, dimension in search.search_space.items():
        if dimension.type == "choice":
            values[name] = trial.suggest_categorical(name, list(dimension.values))
        else:
            values[name] = trial.suggest_float(name, dimension.min, dimension.max, log=dimension.type == "loguniform")
    return values


def measure_latency(path: Path, backbone: str, overrides: list[str]) -> tuple[Path, dict[str, Any]]:
    """Latency of the newest final training of an experiment on its own test records, by batch size; written beside the checkpoint.

    Raises:
        CheckpointError: nothing was trained yet.
    """
    import time

    from curricle.families.ner.experiment import load_benchmark
    from curricle.families.ner.formats import load_records, split_file
    from curricle.families.ner.predict import load_tagger, predict

    experiment = load_experiment(path)
    asked = load_benchmark(experiment, config_dir_of(path))
    config: NerConfig = compose_backbone(experiment, path, backbone, overrides).loaded.config
    pattern = str(final_folder(config.paths.outputs_dir, "{backbone}", "{run_id}") / "checkpoint")
    run_id, _ = select_run(pattern, backbone, "latest", experiment.experiment_name, (Path(),))
    folder = final_folder(config.paths.outputs_dir, backbone, run_id)
    tagger = load_tagger(folder / "checkpoint")
    tagger.max_tokens = asked.benchmarking.max_length or tagger.max_tokens
    data = Path(config.data.new_dataset_path)
    source = split_file(data, "test") or split_file(data, "validation") or split_file(data, "train")
    texts = [record["text"] for record in load_records(source)]
    rows = {}
    for size in asked.benchmarking.batch_sizes:
        times = []
        for i in range(asked.benchmarking.warmup_iterations + asked.benchmarking.iterations):
            batch = [texts[(i * size + k) % len(texts)] for k in range(size)]
            began = time.perf_counter()
            predict(tagger, batch)
            times.append(time.perf_counter() - began)
        times = sorted(times[asked.benchmarking.warmup_iterations :])
        rows[str(size)] = {
            "mean_ms": 1000 * sum(times) / len(times),
            "p95_ms": 1000 * times[int(0.95 * (len(times) - 1))],
            "texts_per_second": size * len(times) / sum(times),
        }
    target = folder / asked.output.filename
    result = {
        "model": str(folder),
        "data": str(source),
        "iterations": asked.benchmarking.iterations,
        "batch_sizes": rows,
    }
    target.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return target, result


def summary(planned: Planned, finished: Finished) -> dict[str, Any]:
    """Everything about a finished experiment, for ``--json``."""
    return {
        "run_id": planned.run_id,
        "checkpoint_uri": finished.uri,
        "before": finished.scores.before,
        "after": finished.scores.after,
        "metrics": finished.scores.metrics,
        "decision": finished.verdict.decision,
        "reason": finished.verdict.reason,
        "folder": str(finished.folder) if finished.folder else None,
        "notes": list(planned.notes),
    }
