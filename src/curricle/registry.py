"""The families, by name: strings only, imported on choice. Whatever anybody above `families/` asks of a family stands in its entry here.

A family that ships is one folder under `families/` and one entry in `FAMILIES`. One that lives in another distribution names its entry
as an entry point of the group `curricle.families` and touches no file here.
"""

from __future__ import annotations

import difflib
import importlib
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from typing import Any

from curricle.errors import ConfigError

GROUP = "curricle.families"
"""Entry-point group under which other distributions offer families."""
CHAIN_FAMILY = "naics"
"""Family of a configuration that names none: the guide's base file does not."""
EXPERIMENT_FAMILY = "ner"
"""Family of an experiment file that names none: the guide's files do not."""


@dataclass(frozen=True, kw_only=True)
class DataParameter:
    """The one data setting that a compiled pipeline of the family offers as a parameter of its own."""

    key: str
    """Its dotted key in the configuration, for example ``data.source``."""
    default: str
    """What the parameter holds when nobody fills it in; empty leaves the configuration's own value."""
    description: str
    """For the form of the Kubeflow UI."""


@dataclass(frozen=True, kw_only=True)
class FamilyEntry:
    """Where a family's parts stand, as ``module:name``, and what is said of it to people."""

    title: str
    """What the family does, in a few words."""
    config: str
    """Its configuration: a subclass of `StageConfig`. Pure; imports no torch."""
    fingerprint: str
    """``fingerprint(config) -> str``: digest of the data's sources without preparing them."""
    prepare: str
    """``prepare(config, out_dir) -> dict``: write the prepared data into a folder; returns facts for the manifest."""
    build: str
    """``build(context) -> TrainingTask``. Imports torch."""
    evaluate: str
    """``evaluate(checkpoint_dir, data_dir) -> dict[str, float]``: test metrics. Imports torch."""
    use: str
    """``use(checkpoint_dir, data_dir) -> object``: a trained model whose methods are the verbs of `verbs`. `data_dir` is called for the
    folder of the data that the model was trained with, where a verb needs it."""
    verbs: tuple[str, ...]
    """What a trained model can do, among `search`, `assign`, `predict`, `export`: names of methods of what `use` returns."""
    headlines: tuple[str, ...]
    """Metrics that say most, the first one judges: of a test where there is one, else of validation."""
    columns: tuple[str, ...]
    """Metrics of an epoch that the terminal shows, in this order."""
    section: str = ""
    """Section of the configuration that holds a stage file's own top-level keys; empty where a stage file has none but the sections."""
    words: str = ""
    """An `ExperimentWords`: what the keys of an experiment's files are called here; empty where they are the configuration's own."""
    checkpoint: str = ""
    """``checkpoint(folder) -> CheckpointFacts``: what a folder that Curricle did not write is; empty where there are none."""
    latency: str = ""
    """``latency(checkpoint_dir, config, max_length) -> LatencyProbe``: what the latency of a trained model is measured with; empty for none."""
    measured: str = ""
    """``measured(facts) -> Collection[str]``: names of the metrics that `evaluate` gives on prepared data, by the facts of `prepare`; none
    where they do not tell. A gate's rule is checked against it before anything trains; empty checks it afterwards."""
    kept: tuple[str, ...] = ()
    """Dotted keys that a stage must share with the checkpoint that it starts from, for its weights to fit."""
    paths: tuple[str, ...] = ()
    """Dotted keys of data folders: in a file they are relative to the configuration's folder, on the command line to the working folder."""
    data_parameter: DataParameter | None = field(default=None)
    """The data setting that pipelines offer; None for none."""

    def load(self, part: str) -> Any:
        """Import one part.

        Raises:
            ConfigError: the family has no such part.
        """
        place = getattr(self, part)
        if not place:
            raise ConfigError(f"the family {self.title!r} has no {part}")
        module, _, name = place.partition(":")
        return getattr(importlib.import_module(module), name)


FAMILIES: dict[str, FamilyEntry] = {
    "naics": FamilyEntry(
        title="industry codes for texts",
        config="curricle.families.naics.config:NaicsConfig",
        fingerprint="curricle.families.naics.sources:fingerprint",
        prepare="curricle.families.naics.prepare:prepare",
        build="curricle.families.naics.task:build",
        evaluate="curricle.families.naics.evaluate:evaluate",
        use="curricle.families.naics.coder:IndustryCoder",
        verbs=("search", "assign", "export"),
        headlines=("test/top1", "val/top1"),
        columns=("train/loss_epoch", "val_loss", "val/top1", "val/mrr", "structure/pearson"),
        section="curriculum",
        measured="curricle.families.naics.metrics:measured",
        kept=("model.encoder", "model.dim", "model.fusion", "model.experts"),
        data_parameter=DataParameter(
            key="data.source",
            default="demo",
            description="Raw data: demo (the official titles, in the image), or a folder or store URI with the four Census workbooks.",
        ),
    ),
    "ner": FamilyEntry(
        title="named entities in texts",
        config="curricle.families.ner.config:NerConfig",
        fingerprint="curricle.families.ner.prepare:fingerprint",
        prepare="curricle.families.ner.prepare:prepare",
        build="curricle.families.ner.task:build",
        evaluate="curricle.families.ner.evaluate:evaluate",
        use="curricle.families.ner.use:EntityTagger",
        verbs=("predict",),
        headlines=("test/f1", "val/f1"),
        columns=("train/loss_epoch", "val_loss", "val/f1", "val/old/f1", "val/new/f1"),
        words="curricle.families.ner.words:WORDS",
        checkpoint="curricle.families.ner.checkpoint:check_checkpoint",
        latency="curricle.families.ner.use:latency",
        measured="curricle.families.ner.metrics:measured",
        kept=("model.encoder",),
        paths=("data.old_dataset_path", "data.new_dataset_path"),
        data_parameter=DataParameter(
            key="data.new_dataset_path",
            default="",
            description="Folder or store URI of the dataset that every stage trains on. Empty takes what each stage's file names.",
        ),
    ),
}


def names() -> list[str]:
    """The names of all families: those that ship, then those of other distributions."""
    return [*FAMILIES, *(point.name for point in entry_points(group=GROUP) if point.name not in FAMILIES)]


def family(name: str) -> FamilyEntry:
    """The family of that name.

    Raises:
        ConfigError: there is none; names the nearest.
    """
    if name in FAMILIES:
        return FAMILIES[name]
    for point in entry_points(group=GROUP):
        if point.name == name:
            return point.load()
    known = names()
    near = difflib.get_close_matches(name, known, 1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise ConfigError(f"family {name!r} is not one of {', '.join(known)}{hint}")
