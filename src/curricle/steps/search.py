"""Search of an experiment's hyperparameters: Optuna trials, each an ordinary stage of the run ``hpo-<study>``."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from curricle.config.experiment import compose_backbone, config_dir_of, overlay, words_of
from curricle.config.load import to_tree
from curricle.config.search import Search, load_search
from curricle.errors import CheckpointError, JobError
from curricle.launch.job import Launcher
from curricle.planning import StageInput, plan_chain, stage_digest
from curricle.registry import family
from curricle.steps.chain import holdings, run_chain
from curricle.steps.experiment import read_experiment, start_of, tracking_names
from curricle.steps.final import write_best
from curricle.steps.prepare import data_place
from curricle.store import layout, open_store
from curricle.training.events import Epoch, Event, Listener


def search_experiment(
    path: Path, backbone: str, overrides: list[str], *, stage: str, launcher: Launcher, listen: Listener
) -> dict[str, Any]:
    """Search the hyperparameters of an experiment; goes on where it was stopped.

    Args:
        stage: ``hpo`` or ``smoke``: which of the experiment's blocks names the search file.

    Returns:
        The best trial, as written to `notebooks/best_configuration_cache.json`.

    Raises:
        ConfigError: the search file is wrong.
        CheckpointError: it names a metric that is not measured.
        JobError: no trial came to an end.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    experiment = read_experiment(path, overrides)
    words = words_of(family(experiment.family))
    search = load_search(experiment, config_dir_of(path), getattr(experiment.stages, stage))
    config = compose_backbone(experiment, path, backbone, overrides).loaded.config
    start, _ = start_of(experiment, path, backbone, config)
    start.ensure()
    parent_digest = start.source.digest if start.source else ""
    data_uri, data_digest = data_place(config)
    mark = _mark(stage_digest(config, data_digest, parent_digest), search)
    name = f"{experiment.experiment_name}-{backbone}-{stage}-{mark}"
    study = _study(name, Path(config.paths.outputs_dir) / "hpo" / f"{name}.db", search, config.seed)

    def objective(trial: Any) -> float:
        values = overlay(_drawn(trial, search), words, f"trial {trial.number}")
        loaded = compose_backbone(experiment, path, backbone, overrides, values).loaded
        stage_name = f"trial-{stage_digest(loaded.config, data_digest, parent_digest)[:8]}"
        tracking = tracking_names(experiment, backbone, f"{name}-{trial.number}")
        store_uri = config.paths.store_uri
        plan = plan_chain(
            [StageInput(stage_name, loaded, data_uri, data_digest, tracking)],
            chain_name=name,
            store_uri=store_uri,
            start=start.source,
            holdings=holdings(open_store(store_uri), store_uri, {stage_name}),
            resume=True,
            run_id=f"{layout.SEARCH}{name}",
        )

        def listen_and_prune(event: Event) -> None:
            listen(event)
            if isinstance(event, Epoch) and search.objective.metric in event.metrics:
                trial.report(event.metrics[search.objective.metric], event.epoch)
                if trial.should_prune():
                    raise optuna.TrialPruned

        metrics = run_chain(plan, launcher, listen_and_prune)[-1].metrics
        if search.objective.metric not in metrics:
            raise CheckpointError(
                f"objective.metric {search.objective.metric!r} was not measured; measured: {', '.join(sorted(metrics))}"
            )
        return metrics[search.objective.metric]

    states = optuna.trial.TrialState
    done = len(study.get_trials(states=(states.COMPLETE, states.PRUNED)))
    if done < search.sampling.max_trials:
        left, seconds = search.sampling.max_trials - done, search.sampling.timeout_minutes * 60
        study.optimize(objective, n_trials=left, timeout=seconds, catch=(JobError,))
    complete = study.get_trials(states=(states.COMPLETE,))
    if not complete:
        raise JobError(
            f"none of the {len(study.trials)} trials of {name} came to an end; "
            f"`curricle show {layout.SEARCH}{name}` says why",
            reason="search",
        )
    best = study.best_trial
    result = {
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
    write_best(result)
    return result | {"trials": len(study.trials), "complete": len(complete)}


def _mark(digest: str, search: Search) -> str:
    """What tells one study from another, 8 hex digits: what is trained, the space that is searched, the metric and its direction.

    Limits may be raised: the study goes on.
    """
    what = {"stage": digest, "space": to_tree(search.search_space), "objective": to_tree(search.objective)}
    return hashlib.sha256(json.dumps(what, sort_keys=True, default=str).encode()).hexdigest()[:8]


def _study(name: str, file: Path, search: Search, seed: int) -> Any:
    """The study in its file, made or opened; trials that were interrupted are drawn again with the same values."""
    import optuna

    file.parent.mkdir(parents=True, exist_ok=True)
    storage = f"sqlite:///{file}"
    drawn = len(optuna.load_study(study_name=name, storage=storage).trials) if file.is_file() else 0
    samplers = {"random": optuna.samplers.RandomSampler, "tpe": optuna.samplers.TPESampler}
    ending = search.early_termination
    pruner: Any = optuna.pruners.NopPruner()
    if ending:
        pruner = optuna.pruners.MedianPruner(
            n_startup_trials=2, n_warmup_steps=ending.delay_evaluation, interval_steps=ending.evaluation_interval
        )
    study = optuna.create_study(
        study_name=name,
        storage=storage,
        load_if_exists=True,
        sampler=samplers[search.sampling.algorithm](seed=seed + drawn),
        pruner=pruner,
        direction=search.objective.goal,
    )
    for trial in study.get_trials(states=(optuna.trial.TrialState.RUNNING,)):
        study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
        study.enqueue_trial(trial.params)
    return study


def _drawn(trial: Any, search: Search) -> dict[str, Any]:
    values = {}
    for name, dimension in search.search_space.items():
        if dimension.type == "choice":
            values[name] = trial.suggest_categorical(name, list(dimension.values))
        else:
            values[name] = trial.suggest_float(name, dimension.min, dimension.max, log=dimension.type == "loguniform")
    return values
