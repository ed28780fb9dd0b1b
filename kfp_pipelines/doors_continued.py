"""The steps of continued training as pipeline components call them: one experiment file, one backbone, everything else by overrides.

The same experiment file that `curricle train --experiment` takes; in a pipeline there is no folder of final trainings, so the
newest published model of the store takes its place.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from itertools import chain
from pathlib import Path

from curricle import environment
from curricle.config.experiment import Composed, Experiment, backbones_of, compose_backbone, load_experiment, words_of
from curricle.config.load import leaves
from curricle.errors import CheckpointError, ConfigError, CurricleError, Finding, StoreError
from curricle.planning import Source, StageInput, plan_chain
from curricle.registry import family
from curricle.steps.chain import holdings
from curricle.steps.evaluate import measure_change
from curricle.steps.experiment import tracking_names
from curricle.steps.findings import find, write_verdict
from curricle.steps.gate import Scores, Verdict, judge_scores
from curricle.steps.prepare import data_digest, prepare_data
from curricle.steps.publish import newest_published, publish_checkpoint
from curricle.steps.source import resolve_source
from curricle.steps.start import Place, start_at
from curricle.store import open_store
from curricle.store.manifest import read_manifest
from kfp_pipelines import doors, pages, reports
from kfp_pipelines.parameters import over, split_overrides

OF_EXPERIMENT = "experiment"
"""Value of the parameter `strategy` that takes the experiment's; an empty one does the same."""


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
    """combined, new_only or append; `OF_EXPERIMENT` or empty takes the experiment's."""
    overrides: str
    store_uri: str

    def composed(self, path: Path | None = None) -> tuple[Experiment, Composed]:
        """The experiment and its effective configuration for the backbone; `path` None takes the image's file."""
        path = path or doors.config_file(f"experiment/{self.experiment}.yaml")
        experiment = load_experiment(path)
        backbone = backbones_of(experiment, path, self.backbone)[0]
        words = words_of(family(experiment.family))
        data = {
            words.new_data: self.new_dataset_path,
            words.old_data: self.old_dataset_path,
            (words.old_only_measured or ("", ""))[0]: "" if self.strategy == OF_EXPERIMENT else self.strategy,
        }
        without = [value for key, value in data.items() if value and not key]
        if without:
            raise ConfigError(f"{path}: a training of {experiment.family} has no setting for {', '.join(without)}")
        given = [f"{key}={json.dumps(value)}" for key, value in data.items() if value]
        overrides = over(given, split_overrides(self.overrides), [f"paths.store_uri={self.store_uri}"])
        return experiment, compose_backbone(experiment, path, backbone, overrides)

    def composed_with_data(self) -> tuple[Experiment, Composed]:
        """As `composed`, for who reads the data. The old data that an experiment's file names is an example on a person's machine: where it is not
        here and the parameter is empty, a strategy that only measures it measures nothing of it.

        Raises:
            ConfigError: the strategy reads old data, and there is none.
        """
        experiment, composed = self.composed()
        words, config = words_of(family(experiment.family)), leaves(composed.loaded.config)
        old = str(config.get(words.old_data) or "")
        asked = self.old_dataset_path or any(
            o.startswith(f"{words.old_data}=") for o in split_overrides(self.overrides)
        )
        if asked or not old or "://" in old or Path(old).is_dir():
            return experiment, composed
        key, only_measured = words.old_only_measured or ("", "")
        if config.get(key) != only_measured:
            raise ConfigError(
                f"the parameter old_dataset_path is empty, and strategy {config.get(key)} reads old data; the experiment's own, {old}, is not "
                f"here. Name a folder or a store URI (old_dataset_path=minio://bucket/prefix), or take strategy={only_measured}"
            )
        return replace(self, overrides=f"{self.overrides} {words.old_data}=''").composed()

    def data(self) -> dict[str, str]:
        """Where the new and the old data are read, by the name of the pipeline's parameter; an empty text for none."""
        experiment, composed = self.composed_with_data()
        words, config = words_of(family(experiment.family)), leaves(composed.loaded.config)
        named = {"new_dataset_path": words.new_data, "old_dataset_path": words.old_data}
        return {name: str(config.get(key) or "") for name, key in named.items() if key}


@dataclass(frozen=True)
class Combined:
    """What the combination emits."""

    uri: str
    text: str
    """What was read, kept and dropped, as Markdown."""


@dataclass(frozen=True)
class MeasuredChange(doors.EvaluationResult):
    """What measuring both domains emits."""

    scores: str
    """`Scores` as JSON, which the gate reads."""


def preflight(
    setting: Setting, checkpoint: str, allow_scratch: bool, launcher: str, show: Callable[[str], None]
) -> None:
    """Try everything that training will ask for: what the parameters name, then as `doors.preflight`.

    Raises:
        ConfigError: something is missing; names all of it.
    """
    doors.tell_findings(
        chain(check_request(setting, checkpoint, allow_scratch), doors.try_all(setting.store_uri, launcher)), show
    )


def check_request(setting: Setting, checkpoint: str, allow_scratch: bool) -> list[Finding]:
    """Whether experiment, data and start checkpoint are there, each by the name of its parameter."""
    try:
        experiment, composed = setting.composed()
    except CurricleError as error:
        advice = "Correct the parameter that is named: experiment, backbone, strategy or overrides."
        return [Finding("experiment", False, str(error), advice)]
    findings = [Finding("experiment", True, f"{experiment.experiment_name}, backbone {composed.backbone}")]
    try:
        findings += [_there(name, place) for name, place in setting.data().items()]
    except ConfigError as error:
        findings.append(Finding("old_dataset_path", False, str(error), "Name the old data, or take another strategy."))
    try:
        findings.append(Finding("checkpoint", True, _told(resolve_checkpoint(setting, checkpoint, allow_scratch))))
    except CurricleError as error:
        findings.append(Finding("checkpoint", False, str(error), "Name one, or say allow_scratch=true."))
    return findings


def _told(source: Source) -> str:
    return f"{source.reason} ({source.uri})" if source.uri else source.reason


def _there(name: str, place: str) -> Finding:
    """Whether there is anything at a place of data; what is read over the network from elsewhere is seen when it is read."""
    advice = f"Correct the parameter {name}: a folder of the image or a store URI with train.json."
    if not place:
        return Finding(name, True, "none: what is forgotten of old data is not measured")
    if "://" not in place:
        there = Path(place).is_dir()
        return Finding(name, there, place if there else f"{place} is no folder here", "" if there else advice)
    if not place.startswith(("minio://", "s3://", "file://")):
        return Finding(name, True, f"{place}, tried when it is read")
    try:
        there = next(iter(open_store(place).list("")), None) is not None
    except StoreError as error:
        return Finding(name, False, str(error), advice)
    return Finding(name, there, place if there else f"{place} holds nothing", "" if there else advice)


def combine_data(setting: Setting) -> Combined:
    """Combine old and new data into a dataset of the store, unless it is there."""
    uri = prepare_data(setting.composed_with_data()[1].loaded.config)
    manifest = read_manifest(open_store(uri), "")
    assert manifest is not None
    return Combined(uri, pages.combination(manifest.info))


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
    doors.require_launcher(launcher)
    experiment, composed = setting.composed_with_data()
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


def measure_models(
    start_uri: str, uri: str, data_uri: str, min_gain: float, max_drop: float, store_uri: str, run_id: str
) -> MeasuredChange:
    """Both domains before and after, with what the gate will say of them; the run's report is then of that."""
    scores = measure_change(start_uri, uri, data_uri)
    model = doors.describe_model(uri)
    measure = model.entry.headlines[0].rpartition("/")[2]
    verdict = judge_scores(scores, min_gain, max_drop)
    told = {"decision": verdict.decision, "reason": verdict.reason, "before": scores.before, "after": scores.after}
    html = reports.of_run(store_uri, run_id, model.lineage["checkpoint_uri"], find(uri), told)
    few = {}
    for domain in (name for name in ("old", "new") if name in scores.after):
        few[f"{domain}/{measure}"] = scores.after[domain]
        if domain in scores.before:
            few[f"{domain}/{measure}_before"] = scores.before[domain]
            few[f"{domain}/{measure}_change"] = scores.after[domain] - scores.before[domain]
    return MeasuredChange(scores.metrics, few, html, model.manifest, model.lineage, scores_json(scores))


def gate_model(scores: str, min_gain: float, max_drop: float, store_uri: str, run_id: str) -> Verdict:
    """As `judge`; the verdict is kept at the run's place."""
    verdict = judge(scores, min_gain, max_drop)
    told = json.loads(scores)
    write_verdict(store_uri, run_id, verdict, {"before": told["before"], "after": told["after"]})
    return verdict


def scores_json(scores: Scores) -> str:
    """The scores as one JSON text, which the gate reads."""
    return json.dumps(asdict(scores), sort_keys=True)


def judge(scores: str, min_gain: float, max_drop: float) -> Verdict:
    """Promote or hold, and why; of a held model, what would promote it all the same."""
    verdict = judge_scores(Scores(**json.loads(scores)), min_gain, max_drop)
    if verdict.promotes:
        return verdict
    bounds = " ".join(f"{name}={value:g}" for name, value in verdict.bounds.items())
    all_the_same = f"the same run with {bounds} promotes it (trains nothing again), or `curricle promote`"
    return replace(verdict, reason=f"{verdict.reason}; {all_the_same}")


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
