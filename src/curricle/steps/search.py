"""Search of an experiment's hyperparameters: Optuna trials, each an ordinary stage of the run ``hpo-<study>``.

Every value that could be drawn is checked before the first trial. A trial that fails by its own values, or by bad luck, costs one trial; what
would end every other one too ends the search.
"""

from __future__ import annotations

import functools
import hashlib
import json
from pathlib import Path
from typing import Any

from curricle.config.experiment import compose_backbone, config_dir_of, overlay, overridden, searched_key, words_of
from curricle.config.load import DEFAULT, Loaded, to_tree
from curricle.config.search import Search, draws_to_check, load_search
from curricle.errors import ConfigError, Interrupted, JobError
from curricle.launch.job import Launcher, Reason
from curricle.planning import StageInput, plan_chain, stage_digest
from curricle.registry import family
from curricle.steps.chain import holdings, run_chain
from curricle.steps.experiment import read_experiment, start_of, tracking_names
from curricle.steps.final import write_best
from curricle.steps.prepare import data_place
from curricle.steps.source import best_checkpoint
from curricle.steps.start import Start
from curricle.steps.train import read_kind
from curricle.store import layout, open_store
from curricle.store.manifest import fetch
from curricle.training.events import Epoch, Event, Listener, Warned

COSTS_ONE: frozenset[Reason] = frozenset(
    {"error", "oom_killed", "diverged", "lost", "deadline", "evicted", "preempted"}
)
"""Reasons of a failed job that the next trial, of other values, need not meet."""
FAILED, REDRAWN = "failed", "redrawn"
"""User attributes of a trial in the study: why it failed, and the number of the interrupted trial whose values it has again."""


def search_experiment(
    path: Path, backbone: str, overrides: list[str], *, stage: str, launcher: Launcher, listen: Listener
) -> dict[str, Any]:
    """Search the hyperparameters of an experiment; goes on where it was stopped.

    Args:
        stage: ``hpo`` or ``smoke``: which of the experiment's blocks names the search file.

    Returns:
        The best trial, as written to `notebooks/best_configuration_cache.json`.

    Raises:
        ConfigError: the search file is wrong: a key, a value that could be drawn, or a metric that is not measured.
        Interrupted: stopped on request; the same command goes on with the same values.
        JobError: all trials failed, or one failed by what would end every other one too.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)  # a failed trial is told by us, without a traceback
    experiment = read_experiment(path, overrides)
    words = words_of(family(experiment.family))
    loaded_search = load_search(experiment, config_dir_of(path), getattr(experiment.stages, stage))
    search = loaded_search.config
    compose = functools.partial(compose_backbone, experiment, path, backbone, overrides)
    config = compose().loaded.config
    start, _ = start_of(experiment, path, backbone, config)
    _check_names(loaded_search, overrides, experiment.family)
    start.ensure()
    _check_draws(loaded_search, compose, experiment.family, start, launcher)
    parent_digest = start.source.digest if start.source else ""
    data_uri, data_digest = data_place(config)
    mark = _mark(stage_digest(config, data_digest, parent_digest), search)
    name = f"{experiment.experiment_name}-{backbone}-{stage}-{mark}"
    file = Path(config.paths.outputs_dir) / "hpo" / f"{name}.db"
    others = sorted(other.stem for other in file.parent.glob(f"{name.removesuffix(mark)}????????.db") if other != file)
    if others and not file.exists():
        listen(
            Warned(
                f"{name} is a new study: space, objective, training, data or start differ from those of {', '.join(others)}, "
                "whose trials do not count here"
            )
        )
    study = _study(name, file, search, config.seed)
    metric = search.objective.metric

    def objective(trial: Any) -> float:
        loaded = compose(overlay(_drawn(trial, search), words, f"trial {trial.number}")).loaded
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
            if isinstance(event, Epoch):
                trial.report(_measured(metric, event.metrics), event.epoch)
                if trial.should_prune():
                    raise optuna.TrialPruned

        try:
            return _measured(metric, run_chain(plan, launcher, listen_and_prune)[-1].metrics)
        except JobError as error:
            if isinstance(error, Interrupted) or error.reason not in COSTS_ONE:
                raise
            why = str(error)
            trial.set_user_attr(FAILED, why)
            listen(Warned(f"trial {trial.number} ({_said(trial, search)}) failed, and the search goes on: {why}"))
            raise _Failed(why) from error

    states = optuna.trial.TrialState
    left = search.sampling.max_trials - len(_counted(study))
    if left > 0:
        study.optimize(objective, n_trials=left, timeout=search.sampling.timeout_minutes * 60, catch=(_Failed,))
    complete = study.get_trials(states=(states.COMPLETE,))
    failed = [trial for trial in study.trials if FAILED in trial.user_attrs]
    if not complete:
        last = f"; the last: {failed[-1].user_attrs[FAILED]}" if failed else ""
        raise JobError(
            f"none of the {len(_counted(study))} trials of {name} came to an end ({len(failed)} failed){last}\n"
            f"`curricle show {layout.SEARCH}{name}` says why. Raise sampling.max_trials to try further values",
            reason="search",
        )
    best = study.best_trial
    result = {
        "experiment": experiment.experiment_name,
        "backbone": backbone,
        "trial_name": f"trial_{best.number}",
        "trial_id": best.number,
        "study_name": name,
        "hyperparameters": _values(best, search),
        "metrics": {"objective_value": best.value},
        "dataset_version": data_digest[:16],
        "selection_criteria": {
            "metric": metric,
            "goal": search.objective.goal,
            "best_value": best.value,
            "backbone": backbone,
        },
    }
    write_best(result)
    return result | {"trials": len(_counted(study)), "complete": len(complete), "failed": len(failed)}


class _Failed(Exception):
    """A trial failed, and the search goes on."""


def _check_names(loaded: Loaded[Search], overrides: list[str], of_family: str) -> None:
    """Refuse a searched value that another one, or the command line, would set too.

    Raises:
        ConfigError: names both.
    """
    words, given = words_of(family(of_family)), overridden(overrides, words_of(family(of_family)))
    problems, seen = [], dict[str, str]()
    for name in loaded.config.search_space:
        key, place = searched_key(name, words), _place(loaded, name)
        if key in given:
            problems.append(f"{place}: {name} is searched, and {key} is set on the command line as well; leave one out")
        if key in seen:
            problems.append(f"{place}: {name} and {seen[key]} are the same setting, {key}; keep one")
        seen[key] = name
    if problems:
        raise ConfigError(problems)


def _check_draws(
    loaded: Loaded[Search], compose: functools.partial[Any], of_family: str, start: Start, launcher: Launcher
) -> None:
    """Refuse a search that could draw what no stage may have. What an encoder allows is asked where jobs run on this very machine.

    Raises:
        ConfigError: names every such value.
    """
    entry, words = family(of_family), words_of(family(of_family))
    places = {name: _place(loaded, name) for name in loaded.config.search_space}
    check = entry.load("check") if entry.check and launcher.name == "local" else None
    parent = None
    if check and start.source:
        uri = start.source.uri
        uri = best_checkpoint(uri) if read_kind(uri) == "stage" else uri
        parent = fetch(uri, Path(compose().loaded.config.paths.cache_dir) / "checkpoints")[0]
    problems: dict[str, None] = {}
    for values in draws_to_check(loaded.config):
        try:
            config = compose(overlay(values, words, places)).loaded.config
            if check:
                check(config, parent)
        except ConfigError as error:
            whole = "; of whole numbers a search draws from a choice: {type: choice, values: [...]}"
            problems |= {p + (whole if "must be a whole number, not" in p else ""): None for p in error.problems}
    if problems:
        raise ConfigError([f"{problem} (the search could draw it; nothing was trained)" for problem in problems])


def _place(loaded: Loaded[Search], name: str) -> str:
    """Where a searched value stands: file and line."""
    begin = f"search_space.{name}."
    return next(place for key, place in loaded.origins.items() if key.startswith(begin) and place != DEFAULT)


def _measured(metric: str, metrics: Any) -> float:
    """The objective.

    Raises:
        ConfigError: it is not measured.
    """
    if metric not in metrics:
        raise ConfigError(f"objective.metric {metric!r} is not measured; measured are: {', '.join(sorted(metrics))}")
    return metrics[metric]


def _counted(study: Any) -> list[Any]:
    """The trials that count: those that came to an end, early or not, and those that failed; not those that were interrupted."""
    return [t for t in study.trials if t.state.name in ("COMPLETE", "PRUNED") or FAILED in t.user_attrs]


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
    again = {trial.user_attrs.get(REDRAWN) for trial in study.trials}
    for trial in study.trials:
        if trial.state == optuna.trial.TrialState.RUNNING:
            study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
        elif trial.state != optuna.trial.TrialState.FAIL or FAILED in trial.user_attrs:
            continue
        if trial.params and trial.number not in again:
            study.enqueue_trial(trial.params, user_attrs={REDRAWN: trial.number})
    return study


def _drawn(trial: Any, search: Search) -> dict[str, Any]:
    """A trial's values, drawn."""
    for name, dimension in search.search_space.items():
        if dimension.type == "choice":
            trial.suggest_categorical(name, [_plain(value) for value in dimension.values])
        else:
            trial.suggest_float(name, dimension.min, dimension.max, log=dimension.type == "loguniform")
    return _values(trial, search)


def _values(trial: Any, search: Search) -> dict[str, Any]:
    """A trial's values, as the search file has them."""
    out = dict(trial.params)
    for name, dimension in search.search_space.items():
        if dimension.type == "choice":
            out[name] = next(value for value in dimension.values if _plain(value) == out[name])
    return out


def _plain(value: Any) -> Any:
    """What a study can hold of one of a choice's values: a list or a section as text."""
    return value if value is None or isinstance(value, bool | int | float | str) else json.dumps(value)


def _said(trial: Any, search: Search) -> str:
    return ", ".join(
        f"{name} {value:g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in _values(trial, search).items()
    )
