"""Experiment files (`experiment/*.yaml`): which data, model, training and search files belong together, and the stage they compose.

The files may keep words of their own (the continued training guide's ``training.epochs``, ``backbone``, ``preprocessing.max_length``): a
family's `ExperimentWords` says what they are called in its configuration. A key that such files may hold and that has no meaning here
is named in `notes`; any other unknown key is an error.
"""

from __future__ import annotations

import dataclasses
import difflib
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from curricle.config.load import Layer, Loaded, anchored, build, compose, leaves, nest, read_overrides, read_yaml
from curricle.config.schema import Range, StageConfig, Text, require
from curricle.errors import ConfigError
from curricle.registry import EXPERIMENT_FAMILY, FamilyEntry, family


@dataclass(frozen=True, kw_only=True)
class ExperimentWords:
    """What the keys of an experiment's files are called in a family's configuration: tables only."""

    new_data: str
    """Dotted key of the dataset that is trained on: what ``local_path`` of a data file means."""
    old_data: str = ""
    """Dotted key of the old dataset of a continued training; empty where the family knows none."""
    old_only_measured: tuple[str, str] | None = None
    """(dotted key, value) by which the old dataset is measured and not read: it may then be missing."""
    training: dict[str, str] = field(default_factory=dict)
    """Of the training file and of overrides; its other keys are the configuration's own."""
    model: dict[str, str] = field(default_factory=dict)
    """Of the model file; its other keys are those of the section `model`."""
    unused: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Keys without a meaning here, by kind of file (``training file``, ``model file`` ...)."""
    only_describing: tuple[str, ...] = ()
    """Those of them that only describe: nothing is lost by them, so nothing is said."""
    hyperparameters: dict[str, str] = field(default_factory=dict)
    """What a cache file of a final training calls its settings → their dotted keys."""


@dataclass(frozen=True, kw_only=True)
class Gate:
    """When a continued model is promoted, by the family's headline metric in [0, 1]."""

    min_gain: Annotated[float, Range("[-10, 10]")] = 0.0
    """The new domain rises by at least this."""
    max_drop: Annotated[float, Range("[0, 10]")] = 0.01
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

    base_experiment: Text
    """The experiment whose result is continued."""
    checkpoint_selection: str = "latest"
    """`latest` or `best` (by the headline metric on validation) of its final trainings, or a run id: fills ``{run_id}`` of `checkpoint.source_path`."""
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
    backbones: tuple[Text, ...] = ()
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

    experiment_name: Text
    """Name of the stage and of everything it writes."""
    data_config: Text
    """The (old) dataset."""
    model_config: Text
    """The encoder."""
    train_config: Text
    """The training."""
    family: str = EXPERIMENT_FAMILY
    """What is trained: a name of the registry."""
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


@dataclass(frozen=True)
class Composed:
    """One backbone's training as an experiment composes it."""

    backbone: str
    loaded: Loaded[StageConfig]
    notes: tuple[str, ...]
    """What was given and has no effect, or was overruled: for people."""


OWN = "continued_training."
"""Overrides of the experiment itself, not of its stage, begin with this."""


def config_dir_of(path: Path) -> Path:
    """The configuration's folder that an experiment file's paths are relative to."""
    return path.parent.parent if path.parent.name == "experiment" else path.parent


def load_experiment(path: Path, overrides: list[str] | None = None) -> Experiment:
    """Read an experiment file.

    Args:
        overrides: dotted overrides; those of ``continued_training.`` are the experiment's own, the others of its stage are left alone.

    Raises:
        ConfigError: it is missing or wrong; all problems at once.
    """
    own = [item for item in overrides or [] if item.startswith(OWN)]
    experiment = build(Experiment, compose([read_yaml(path, what="experiment file"), read_overrides(own)])).config
    if not experiment.stages.training.backbones:
        raise ConfigError(f"{path}: stages.training.backbones names no backbone (for example [distilbert])")
    family(experiment.family)
    if experiment.env_config:
        read_yaml(config_dir_of(path) / experiment.env_config, what="env_config")
    return experiment


def backbones_of(experiment: Experiment, path: Path, wanted: str = "") -> tuple[str, ...]:
    """The backbones to train: those of an experiment, or the one that somebody wants instead, which may be any that has a model file.

    Raises:
        ConfigError: there is neither such a backbone nor a file ``model/<wanted>.yaml``.
    """
    backbones = experiment.stages.training.backbones
    if not wanted:
        return backbones
    file = config_dir_of(path) / "model" / f"{wanted}.yaml"
    if wanted not in backbones and not (Path(wanted).name == wanted and file.is_file()):
        raise ConfigError(f"{path}: backbone {wanted!r} is not one of {', '.join(backbones)}, and {file} is not there")
    return (wanted,)


def words_of(entry: FamilyEntry) -> ExperimentWords:
    """A family's words; where it has none of its own, the keys are the configuration's.

    Raises:
        ConfigError: it has neither words nor a data setting that a data file could name.
    """
    if entry.words:
        return entry.load("words")
    if entry.data_parameter is None:
        raise ConfigError(
            f"no experiment can train {entry.title}: the family names no data setting that `local_path` could stand for"
        )
    return ExperimentWords(new_data=entry.data_parameter.key)


def compose_backbone(
    experiment: Experiment, path: Path, backbone: str, overrides: list[str], above: Layer | None = None
) -> Composed:
    """The stage that an experiment trains for a backbone.

    Args:
        path: the experiment's file, for relative paths and origins.
        overrides: dotted overrides of the configuration, in its own words or the training file's.
        above: a search's values, between the files and the overrides.

    Raises:
        ConfigError: a file is missing or wrong; all problems at once.
    """
    folder, entry = config_dir_of(path), family(experiment.family)
    words, schema = words_of(entry), entry.load("config")
    model = folder / experiment.model_config
    if experiment.stages.training.backbones != (backbone,) and model.stem != backbone:
        model = folder / "model" / f"{backbone}.yaml"
    of_model = words.model | {name: f"model.{name}" for name in fields_of(schema, "model")}
    train, of_train = _translated(
        folder / experiment.train_config, "training file", words, words.training, (*fields_of(schema),)
    )
    encoder, of_encoder = _translated(model, "model file", words, of_model)
    described, of_data = _translated(folder / experiment.data_config, "data file", words, {"local_path": "local_path"})
    data, noted = _data(experiment, path, words, train, described)
    named: dict[str, Any] = {"family": experiment.family, "experiment_name": experiment.experiment_name}
    if entry.section:
        named[entry.section] = {"name": experiment.experiment_name}
    stage = [item for item in overrides if not item.startswith(OWN)]
    given = read_overrides(stage, words.training)
    base = Layer(named, {"experiment_name": str(path)})
    layer = compose([base, encoder, train, data, above or Layer({}), given])
    notes = (*of_train, *of_encoder, *of_data, *noted)
    return Composed(backbone, build(schema, anchored(layer, folder, entry.paths)), notes)


def fields_of(schema: type, section: str = "") -> list[str]:
    """Names of the fields of a configuration, or of one of its sections."""
    if section:
        schema = typing.get_type_hints(schema)[section]
    return [item.name for item in dataclasses.fields(schema)]


def searched_key(name: str, words: ExperimentWords) -> str:
    """The dotted key that a searched value's name means: a word of the training file, a setting of its section, or the key itself."""
    return words.training.get(f"training.{name}") or (name if "." in name else f"training.{name}")


def overlay(values: Mapping[str, Any], words: ExperimentWords, places: Mapping[str, str] | str) -> Layer:
    """A search's values, by the training file's words or dotted keys, as a layer.

    Args:
        places: where each value, by its name, or all of them come from.
    """
    made = []
    for name, value in values.items():
        key = searched_key(name, words)
        made.append(Layer(nest(key, value), {key: places if isinstance(places, str) else places[name]}))
    return compose(made)


def overridden(overrides: Iterable[str], words: ExperimentWords) -> set[str]:
    """The dotted keys of the stage that overrides set."""
    return set(read_overrides([item for item in overrides if not item.startswith(OWN)], words.training).origins)


def _data(
    experiment: Experiment, path: Path, words: ExperimentWords, train: Layer, described: Layer
) -> tuple[Layer, list[str]]:
    """The data settings: the training file's, with the experiment's own data where it names some."""
    folder, given = config_dir_of(path), leaves(train.tree)
    place, origin = described.tree.get("local_path"), described.origins.get("local_path", "")
    if not place:
        raise ConfigError(f"{folder / experiment.data_config} names no local_path: the folder of the dataset")
    continued = experiment.continued_training
    if continued is None:
        return _layer({} if given.get(words.new_data) else {words.new_data: (place, origin)}), []
    new, at = continued.new_data.local_path, str(path)
    if continued.new_data.config_path:
        file = folder / continued.new_data.config_path
        new_data, _ = _translated(file, "data file", words, {"local_path": "local_path"})
        new, at = new_data.tree.get("local_path", ""), str(file)
    notes = []
    wanted = {}
    if new:
        wanted[words.new_data] = (new, at)
        if given.get(words.new_data, new) != new:
            notes.append(
                f"{words.new_data} is {new} ({at}); {train.origins[words.new_data]} says {given[words.new_data]}"
            )
    if words.old_data and not given.get(words.old_data):
        switch, alone = words.old_only_measured or ("", "")
        if not (folder / place).is_dir() and switch and given.get(switch, alone) == alone:
            notes.append(f"the old domain is not measured: {folder / place} ({origin}) is not there")
        else:
            wanted[words.old_data] = (place, origin)
    return _layer(wanted), notes


def _layer(wanted: dict[str, tuple[str, str]]) -> Layer:
    return compose([Layer(nest(key, value), {key: place}) for key, (value, place) in wanted.items()])


def _translated(
    path: Path, what: str, words: ExperimentWords, table: dict[str, str], own: tuple[str, ...] = ()
) -> tuple[Layer, list[str]]:
    """A file in the configuration's keys, and what to say of it.

    Args:
        table: the file's words → dotted keys.
        own: sections and fields of the configuration that the file may hold as they are.
    """
    layer, notes = without_unused(read_yaml(path, what=what), what, words)
    made, problems = [], []
    for key, value in leaves(layer.tree).items():
        place = layer.origins.get(key, str(path))
        word = next((word for word in table if key == word or key.startswith(f"{word}.")), None)
        if word:
            target = table[word] + key[len(word) :]
        elif key.partition(".")[0] in own:
            target = key
        else:
            near = difflib.get_close_matches(key, table, 1, 0.5)
            known = f"did you mean {near[0]!r}?" if near else f"known here: {', '.join((*table, *own))}"
            problems.append(f"{place}: {key}: unknown key of a {what}; {known}")
            continue
        made.append(Layer(nest(target, value), {target: place}))
    if problems:
        raise ConfigError(problems)
    return compose(made), notes


def without_unused(layer: Layer, what: str, words: ExperimentWords) -> tuple[Layer, list[str]]:
    """The layer without the keys that have no meaning here, and what to say of them."""
    tree, notes = layer.tree, []
    for key in words.unused.get(what, ()):
        *path, last = key.split(".")
        section: Any = tree
        for part in path:
            section = section.get(part) if isinstance(section, dict) else None
        if isinstance(section, dict) and last in section:
            del section[last]
            if last not in words.only_describing:
                notes.append(f"{layer.origins.get(key, what)}: {key} has no effect in Curricle")
    return Layer(tree, layer.origins), notes
