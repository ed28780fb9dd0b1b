"""The steps of continued training as pipeline components call them: one experiment file, one backbone, everything else by overrides.

The same experiment file that `curricle train --experiment` takes; in a pipeline there is no folder of final trainings, so the
newest published model of the store takes its place.
"""

from __future__ import annotations

import json
import shlex
from dataclasses import asdict, dataclass

from curricle import environment
from curricle.config.experiment import Composed, Experiment, compose_backbone, load_experiment, words_of
from curricle.errors import CheckpointError, ConfigError
from curricle.launch import check_launcher
from curricle.planning import Source, StageInput, plan_chain
from curricle.registry import family
from curricle.steps.chain import holdings
from curricle.steps.evaluate import measure_change, page
from curricle.steps.experiment import tracking_names
from curricle.steps.gate import Scores, Verdict, judge_scores
from curricle.steps.prepare import data_digest, prepare_data
from curricle.steps.publish import newest_published, publish_checkpoint
from curricle.steps.source import resolve_source
from curricle.steps.start import Place, start_at
from curricle.store import open_store
from curricle.store.manifest import read_manifest
from kfp_pipelines import doors
from kfp_pipelines.tables import markdown_table


@dataclass(frozen=True)
class Setting:
    """Which training is meant: what every step of the pipeline is told."""

    experiment: str
    """Stem of a file under ``config/experiment``."""
    backbone: str
    """One of the experiment's; empty takes the first."""
    new_dataset_path: str
    """Folder or store URI; empty takes the experiment's."""
    old_dataset_path: str
    """Folder or store URI; empty takes the experiment's."""
    strategy: str
    """combined, new_only or append; empty takes the experiment's."""
    overrides: str
    store_uri: str

    def composed(self) -> tuple[Experiment, Composed]:
        """The experiment and its effective configuration for the backbone."""
        path = doors.config_file(f"experiment/{self.experiment}.yaml")
        experiment = load_experiment(path)
        backbones = experiment.stages.training.backbones
        backbone = self.backbone or backbones[0]
        if backbone not in backbones:
            raise ConfigError(f"{path}: backbone {backbone!r} is not one of {', '.join(backbones)}")
        words = words_of(family(experiment.family))
        data = {
            words.new_data: self.new_dataset_path,
            words.old_data: self.old_dataset_path,
            (words.old_only_measured or ("", ""))[0]: self.strategy,
        }
        without = [value for key, value in data.items() if value and not key]
        if without:
            raise ConfigError(f"{path}: a training of {experiment.family} has no setting for {', '.join(without)}")
        given = [f"{key}={json.dumps(value)}" for key, value in data.items() if value]
        overrides = [*given, *shlex.split(self.overrides), f"paths.store_uri={self.store_uri}"]
        return experiment, compose_backbone(experiment, path, backbone, overrides)


@dataclass(frozen=True)
class Combined:
    """What the combination emits."""

    uri: str
    table: str
    """What was read, kept and dropped, as Markdown."""


def combine_data(setting: Setting) -> Combined:
    """Combine old and new data into a dataset of the store, unless it is there."""
    uri = prepare_data(setting.composed()[1].loaded.config)
    manifest = read_manifest(open_store(uri), "")
    assert manifest is not None
    facts = {name: value for name, value in manifest.info.items() if name != "family"}
    rows = [
        [name, str(value) if isinstance(value, int) else json.dumps(value, ensure_ascii=False)]
        for name, value in facts.items()
    ]
    return Combined(uri, markdown_table(["combination", ""], rows))


def resolve_checkpoint(setting: Setting, checkpoint: str, allow_scratch: bool) -> Source:
    """The checkpoint to continue from, in the store; an empty URI for scratch.

    `CHECKPOINT_PATH` of the environment goes first, then `checkpoint`; without either the newest published model of the experiment,
    then of the one it continues, then the best checkpoint of that one's stage.

    Raises:
        CheckpointError: a source was named and is no whole NER checkpoint, or there is none at all and scratch is not allowed.
    """
    experiment, composed = setting.composed()
    base = (
        experiment.continued_training.base_experiment if experiment.continued_training else experiment.experiment_name
    )
    name, store_uri = experiment.experiment_name, setting.store_uri
    wanted, why = environment.checkpoint_path(), f"{environment.CHECKPOINT_PATH} of the environment"
    if not wanted:
        wanted, why = checkpoint, "the parameter checkpoint"
    if not wanted:
        wanted, why = newest_published(store_uri, (name, base), composed.backbone), "the newest published model"
    if not wanted:
        try:
            wanted, why = resolve_source(base, store_uri).uri, f"the best checkpoint of {base}"
        except CheckpointError as error:
            if allow_scratch:
                said = "no checkpoint was named and nothing was published; allow_scratch starts from the encoder"
                return Source("", "", said)
            raise CheckpointError(
                f"nothing to continue from: the parameter checkpoint is empty, {store_uri} holds no published model of "
                f"{name} or {base}, and no stage {base} ({error}). Name a checkpoint, or allow_scratch=true"
            ) from None
    start = start_at(wanted, experiment.family, store_uri, Place(wanted, "config", why, ()))
    start.ensure()
    assert start.source is not None
    return start.source


def plan_training(
    setting: Setting, *, data_uri: str, start_uri: str, resume: bool, run_id: str, launcher: str
) -> doors.PlannedRun:
    """Plan the one stage and store the plan."""
    check_launcher(launcher)
    experiment, composed = setting.composed()
    name, store_uri = experiment.experiment_name, setting.store_uri
    tracking = tracking_names(experiment, composed.backbone, f"{composed.backbone}_continued_{run_id}")
    stage = StageInput(name, composed.loaded, data_uri, data_digest(data_uri), tracking)
    start = resolve_source(start_uri, store_uri) if start_uri else None
    plan = plan_chain(
        [stage],
        chain_name=f"{name} ({composed.backbone})",
        store_uri=store_uri,
        start=start,
        holdings=holdings(open_store(store_uri), store_uri, {name}),
        resume=resume,
        run_id=run_id,
    )
    return doors.keep_plan(plan)


def measure_models(start_uri: str, uri: str, data_uri: str) -> tuple[Scores, str]:
    """Both domains before and after, and their page."""
    scores = measure_change(start_uri, uri, data_uri)
    shown = {
        f"{domain} {when}": value
        for when, part in (("before", scores.before), ("after", scores.after))
        for domain, value in part.items()
    }
    changes = {
        f"{domain} change": scores.after[domain] - scores.before[domain]
        for domain in scores.before.keys() & scores.after.keys()
    }
    facts = {"before": start_uri or "scratch", "after": uri, "data": data_uri}
    return scores, page("Scores before and after", facts, shown | changes)


def scores_json(scores: Scores) -> str:
    """The scores as one JSON text, which the gate reads."""
    return json.dumps(asdict(scores), sort_keys=True)


def judge(scores: str, min_gain: float, max_drop: float) -> Verdict:
    """Promote or hold, and why."""
    return judge_scores(Scores(**json.loads(scores)), min_gain, max_drop)


def publish_model(setting: Setting, uri: str, run_id: str, scores: str) -> str:
    """Put the promoted model where the next training looks for it; its URI."""
    experiment, composed = setting.composed()
    measured = json.loads(scores)
    info = {
        "backbone": composed.backbone,
        "experiment": experiment.experiment_name,
        "before": measured["before"],
        "after": measured["after"],
    }
    reason = f"continued training {experiment.experiment_name}, run {run_id}"
    name = experiment.experiment_name
    return publish_checkpoint(uri, setting.store_uri, name, f"{composed.backbone}_{run_id}", info, reason)
