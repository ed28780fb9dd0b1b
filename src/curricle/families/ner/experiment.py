"""Experiment files (`config/experiment/*.yaml`): which data, model, training and search files belong together, and the stage they compose.

The files keep the words of the continued training guide (``training.epochs``, ``backbone``, ``preprocessing.max_length``); here, and only
here, they are carried over to `NerConfig`. A key that the guide's files may hold and that has no meaning here is named in `notes`; any other
unknown key is an error.
"""

from __future__ import annotations

import difflib
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from curricle.config.load import Layer, Loaded, build, compose, leaves, nest, read_overrides, read_yaml
from curricle.config.schema import require
from curricle.errors import ConfigError
from curricle.families.ner.config import NerConfig, NerModel


@dataclass(frozen=True, kw_only=True)
class Gate:
    """When a continued model is promoted; F1 in [0, 1]."""

    min_gain: float = 0.0
    """The new domain rises by at least this."""
    max_drop: float = 0.01
    """The old domain falls by at most this."""


@dataclass(frozen=True, kw_only=True)
class NewData:
    """Where the new dataset is."""

    local_path: str = ""
    """Its folder, relative to the configuration's folder."""
    config_path: str = ""
    """Or a data file that names it."""

    def __post_init__(self) -> None:
        require(
            not (self.local_path and self.config_path), "local_path and config_path both name the new data; keep one"
        )


@dataclass(frozen=True, kw_only=True)
class ContinuedTraining:
    """What is continued, and from where."""

    base_experiment: str
    """The experiment whose result is continued."""
    checkpoint_selection: str = "latest"
    """`latest` or `best` (validation F1) of its final trainings, or a run id: fills ``{run_id}`` of `checkpoint.source_path`."""
    previous_training_cache: str = ""
    """Cache file of a former training, looked at where no source_path is set."""
    new_data: NewData = field(default_factory=NewData)
    """The new dataset."""
    gate: Gate = field(default_factory=Gate)
    """Promotion."""


@dataclass(frozen=True, kw_only=True)
class StageBlock:
    """One stage of an experiment."""

    aml_experiment: str = ""
    """The guide's name for the Azure ML experiment; becomes a tag."""
    hpo_config: str = ""
    """Search file, instead of the experiment's own."""
    backbones: tuple[str, ...] = ()
    """Short names: of folders, MLflow names, and of files `model/<name>.yaml` where there are several."""


@dataclass(frozen=True, kw_only=True)
class Stages:
    """The stages; `training` is the one that delivers a model."""

    smoke: StageBlock | None = None
    """A search of a few trials, run with ``--stage smoke``."""
    hpo: StageBlock | None = None
    """The search before the training."""
    training: StageBlock = field(default_factory=StageBlock)
    """The final training."""


@dataclass(frozen=True, kw_only=True)
class Naming:
    """How MLflow experiments are called."""

    include_backbone_in_experiment: bool = True
    """End them in ``-<backbone>``."""


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """One experiment file."""

    experiment_name: str
    """Name of the stage and of everything it writes."""
    data_config: str
    """The (old) dataset."""
    model_config: str
    """The encoder."""
    train_config: str
    """The training."""
    hpo_config: str = ""
    """The search space."""
    env_config: str = ""
    """The guide's Azure environment: read and checked to be YAML, without effect here."""
    benchmark_config: str = ""
    """Latency measurement, run with ``--stage benchmark``."""
    continued_training: ContinuedTraining | None = None
    """Present in a continued training."""
    stages: Stages = field(default_factory=Stages)
    """Stages and backbones."""
    naming: Naming = field(default_factory=Naming)
    """Names."""


@dataclass(frozen=True, kw_only=True)
class Dimension:
    """One searched value."""

    type: Literal["choice", "uniform", "loguniform"]
    """How it is drawn."""
    values: tuple[Any, ...] = ()
    """Of `choice`."""
    min: float | None = None
    """Of `uniform` and `loguniform`."""
    max: float | None = None
    """Of `uniform` and `loguniform`."""

    def __post_init__(self) -> None:
        if self.type == "choice":
            require(bool(self.values), "values must name at least one value of a choice")
        else:
            require(
                self.min is not None and self.max is not None and self.min < self.max,
                f"min and max must be given, min below max, for {self.type}",
            )
            require(self.type == "uniform" or (self.min or 0) > 0, "min must be above 0 for loguniform")


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How trials are drawn and how many."""

    algorithm: Literal["random", "tpe"] = "random"
    """Optuna's sampler."""
    max_trials: int = 10
    """Trials of the search, finished ones of an earlier call counted."""
    timeout_minutes: float = 240.0
    """No trial is begun after this."""

    def __post_init__(self) -> None:
        require(self.max_trials >= 1, f"max_trials must be 1 or more, not {self.max_trials}")


@dataclass(frozen=True, kw_only=True)
class EarlyTermination:
    """Ends trials that fall behind the median of those before (the guide's `bandit` too: its code always took the median)."""

    policy: Literal["median", "bandit"] = "median"
    """Rule."""
    evaluation_interval: int = 1
    """Epochs between two looks."""
    delay_evaluation: int = 0
    """Epochs before the first."""
    slack_factor: float | None = None
    """Of the guide's bandit; without effect."""


@dataclass(frozen=True, kw_only=True)
class Objective:
    """What is searched for."""

    metric: str = "val/f1"
    """A metric of the trained stage."""
    goal: Literal["maximize", "minimize"] = "maximize"
    """Direction."""


@dataclass(frozen=True, kw_only=True)
class Search:
    """One search file."""

    search_space: dict[str, Dimension]
    """By the training file's words (learning_rate, batch_size, weight_decay, dropout, epochs) or a dotted key of the configuration."""
    sampling: Sampling = field(default_factory=Sampling)
    """Trials."""
    early_termination: EarlyTermination | None = None
    """Pruning."""
    objective: Objective = field(default_factory=Objective)
    """Goal."""

    def __post_init__(self) -> None:
        require(bool(self.search_space), "search_space must name at least one value to search")


@dataclass(frozen=True, kw_only=True)
class Latency:
    """How latency is measured."""

    batch_sizes: tuple[int, ...] = (1, 8, 16)
    """Texts at once."""
    iterations: int = 100
    """Measured calls a batch size."""
    warmup_iterations: int = 10
    """Calls before that."""
    max_length: int | None = None
    """Window length; null keeps the model's."""


@dataclass(frozen=True, kw_only=True)
class LatencyOutput:
    """Where it is written."""

    filename: str = "benchmark.json"
    """Name of the file."""


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """One benchmark file."""

    benchmarking: Latency = field(default_factory=Latency)
    """Measurement."""
    output: LatencyOutput = field(default_factory=LatencyOutput)
    """Result."""


@dataclass(frozen=True)
class Composed:
    """One backbone's training as an experiment composes it."""

    backbone: str
    loaded: Loaded[NerConfig]
    notes: tuple[str, ...]
    """What was given and has no effect, or was overruled: for people."""


TRAINING = {
    "training.epochs": "training.trainer.max_epochs",
    "training.batch_size": "data_loader.batch_size",
    "training.dropout": "model.dropout",
    "training.max_grad_norm": "training.trainer.gradient_clip_val",
    "training.random_seed": "seed",
    "training.gradient_accumulation_steps": "training.trainer.accumulate_grad_batches",
}
"""The guide's words for settings of `NerConfig`; every other key of a training file is a key of `NerConfig` itself."""
SECTIONS = ("checkpoint.", "data.", "training.", "forgetting.", "model.", "data_loader.", "seed")
MODEL = {
    "backbone": "model.encoder",
    "preprocessing.max_length": "model.max_tokens",
    "preprocessing.sequence_length": "model.max_tokens",
    "preprocessing.stride": "model.stride",
} | {name: f"model.{name}" for name in NerModel.__dataclass_fields__}
DATA = {"local_path": "data.local_path"}
UNUSED = {
    "data file": ("name", "version", "description", "seed", "splitting", "schema"),
    "model file": (
        "tokenizer",
        "preprocessing.tokenization",
        "preprocessing.replace_rare_with_unk",
        "preprocessing.unk_frequency_threshold",
        "preprocessing.keep_stopwords",
        "decoding",
        "loss",
    ),
    "training file": (
        "training.val_split_divisor",
        "training.deberta_max_batch_size",
        "training.warmup_steps_divisor",
        "training.metric",
        "training.metric_mode",
        "training.use_all_data",
        "logging",
        "distributed",
        "output",
        "mlflow",
    ),
    "search file": ("selection", "k_fold", "checkpoint", "mlflow", "refit", "objective.direction"),
    "benchmark file": ("benchmarking.device", "benchmarking.test_data", "output.save_summary"),
}
"""Keys of the guide's files without a meaning here."""
SAID_BY_NAME = ("name", "version", "description", "seed", "schema")
"""Those that only describe: nothing is lost by them, so nothing is said."""


def config_dir_of(path: Path) -> Path:
    """The configuration's folder that an experiment file's paths are relative to."""
    return path.parent.parent if path.parent.name == "experiment" else path.parent


def load_experiment(path: Path) -> Experiment:
    """Read an experiment file.

    Raises:
        ConfigError: it is missing or wrong; all problems at once.
    """
    experiment = build(Experiment, read_yaml(path, what="experiment file")).config
    if not experiment.stages.training.backbones:
        raise ConfigError(f"{path}: stages.training.backbones names no backbone (for example [distilbert])")
    if experiment.env_config:
        read_yaml(config_dir_of(path) / experiment.env_config, what="env_config")
    return experiment


def load_search(experiment: Experiment, config_dir: Path, block: StageBlock | None) -> Search:
    """The search that a stage makes.

    Raises:
        ConfigError: no search file is named, or it is wrong.
    """
    name = (block.hpo_config if block else "") or experiment.hpo_config
    if not name:
        raise ConfigError(f"experiment {experiment.experiment_name} names no hpo_config; a search needs one")
    layer, _ = _used(read_yaml(config_dir / name, what="hpo_config"), "search file")
    return build(Search, layer).config


def load_benchmark(experiment: Experiment, config_dir: Path) -> Benchmark:
    """The latency measurement.

    Raises:
        ConfigError: no benchmark file is named, or it is wrong.
    """
    if not experiment.benchmark_config:
        raise ConfigError(f"experiment {experiment.experiment_name} names no benchmark_config")
    layer, _ = _used(read_yaml(config_dir / experiment.benchmark_config, what="benchmark_config"), "benchmark file")
    return build(Benchmark, layer).config


def compose_backbone(
    experiment: Experiment, path: Path, backbone: str, overrides: list[str], above: Layer | None = None
) -> Composed:
    """The stage that an experiment trains for a backbone.

    Args:
        path: the experiment's file, for relative paths and origins.
        overrides: dotted overrides of `NerConfig`.
        above: a search's values, between the files and the overrides.

    Raises:
        ConfigError: a file is missing or wrong; all problems at once.
    """
    folder = config_dir_of(path)
    notes: list[str] = []
    model = folder / experiment.model_config
    if len(experiment.stages.training.backbones) > 1 and model.stem != backbone:
        model = folder / "model" / f"{backbone}.yaml"
    train, notes_train = _translated(folder / experiment.train_config, "training file", TRAINING, SECTIONS)
    encoder, notes_model = _translated(model, "model file", MODEL)
    data, notes_data = _translated(folder / experiment.data_config, "data file", DATA)
    notes += [*notes_train, *notes_model, *notes_data]
    data, noted = _data(experiment, path, train, data)
    notes += noted
    named = Layer({"family": "ner", "experiment_name": experiment.experiment_name}, {"experiment_name": str(path)})
    layer = compose([encoder, train, data, named, above or Layer({}), read_overrides(overrides)])
    return Composed(backbone, build(NerConfig, _absolute(layer, folder)), tuple(notes))


def overlay(values: dict[str, Any], place: str) -> Layer:
    """A search's values, by the training file's words or dotted keys, as a layer.

    Raises:
        ConfigError: a name is neither.
    """
    made = []
    for name, value in values.items():
        key = TRAINING.get(f"training.{name}") or (name if "." in name else f"training.{name}")
        made.append(Layer(nest(key, value), {key: place}))
    return compose(made)


def _data(experiment: Experiment, path: Path, train: Layer, data: Layer) -> tuple[Layer, list[str]]:
    """The `data` section: the training file's, with the experiment's own data where it names some."""
    given = train.tree.get("data") or {}
    place = data.tree.get("data", {}).get("local_path")
    origin = data.origins.get("data.local_path", "")
    if not place:
        raise ConfigError(
            f"{config_dir_of(path) / experiment.data_config} names no local_path: the folder of the dataset"
        )
    continued = experiment.continued_training
    if continued is None:
        wanted = {} if given.get("new_dataset_path") else {"new_dataset_path": (place, origin)}
        return _layer(wanted), []
    new, at = continued.new_data.local_path, str(path)
    if continued.new_data.config_path:
        file = config_dir_of(path) / continued.new_data.config_path
        described, _ = _translated(file, "data file", DATA)
        new, at = described.tree.get("data", {}).get("local_path", ""), str(file)
    notes = []
    wanted = {}
    if new:
        wanted["new_dataset_path"] = (new, at)
        if given.get("new_dataset_path", new) != new:
            notes.append(
                f"data.new_dataset_path is {new} ({at}); {train.origins['data.new_dataset_path']} says {given['new_dataset_path']}"
            )
    if not given.get("old_dataset_path"):
        if (config_dir_of(path) / place).is_dir():
            wanted["old_dataset_path"] = (place, origin)
        elif given.get("strategy", "new_only") == "new_only":
            notes.append(f"the old domain is not measured: {config_dir_of(path) / place} ({origin}) is not there")
        else:
            wanted["old_dataset_path"] = (place, origin)
    return _layer(wanted), notes


def _layer(wanted: dict[str, tuple[str, str]]) -> Layer:
    return compose(
        [Layer(nest(f"data.{name}", value), {f"data.{name}": place}) for name, (value, place) in wanted.items()]
    )


def _absolute(layer: Layer, folder: Path) -> Layer:
    """Dataset folders of files are relative to the configuration's folder; the command line's are relative to the working folder."""
    tree = dict(layer.tree)
    data = tree["data"] = dict(tree.get("data") or {})
    for name in ("old_dataset_path", "new_dataset_path"):
        value = data.get(name)
        if (
            isinstance(value, str)
            and value
            and "://" not in value
            and layer.origins.get(f"data.{name}") != "command line"
        ):
            data[name] = os.path.normpath(folder / value)
    return Layer(tree, layer.origins)


def _translated(
    path: Path, what: str, words: dict[str, str], sections: tuple[str, ...] = ()
) -> tuple[Layer, list[str]]:
    layer, notes = _used(read_yaml(path, what=what), what)
    made, problems = [], []
    for key, value in leaves(layer.tree).items():
        head = next((word for word in words if key == word or key.startswith(f"{word}.")), None)
        target = words[head] + key[len(head) :] if head else key if key.startswith(sections) and sections else ""
        place = layer.origins.get(key, str(path))
        if not target:
            near = difflib.get_close_matches(key, words, 1, 0.5)
            known = f"did you mean {near[0]!r}?" if near else f"known here: {', '.join(words)}"
            problems.append(f"{place}: {key}: unknown key of a {what}; {known}")
            continue
        made.append(Layer(nest(target, value), {target: place}))
    if problems:
        raise ConfigError(problems)
    return compose(made), notes


def _used(layer: Layer, what: str) -> tuple[Layer, list[str]]:
    """The layer without the keys that have no meaning here, and what to say of them."""
    tree, notes = layer.tree, []
    for key in UNUSED[what]:
        *path, last = key.split(".")
        section: Any = tree
        for part in path:
            section = section.get(part) if isinstance(section, dict) else None
        if isinstance(section, dict) and last in section:
            del section[last]
            if last not in SAID_BY_NAME:
                notes.append(f"{layer.origins.get(key, what)}: {key} has no effect in Curricle")
    return Layer(tree, layer.origins), notes
