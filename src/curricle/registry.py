"""The families, by name: strings only, imported on choice. Whatever anybody above `families/` asks of a family stands in its entry here.

A family that ships is one folder under `families/` and one entry in `FAMILIES`. One that lives in another distribution names its entry
as an entry point of the group `curricle.families` and touches no file here.
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from typing import Any

from curricle.errors import ConfigError

GROUP = "curricle.families"
"""Entry-point group under which other distributions offer families."""
FORMER = {"naics": "codes"}
"""Names that families had before, each with today's: read wherever a family is named, never written."""
CHAIN_FAMILY = "codes"
"""Family of a configuration that names none: the guide's base file does not."""
PARENT = "parent"
"""What a setting that `FamilyEntry.continues` names says where the data of the checkpoint before are meant."""
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
    evaluate_on: str = ""
    """``evaluate_on(checkpoint_dir, data_dir, own_dir) -> dict[str, float]``: the same on other data than the model's own, of a model that rests on its own
    data too. Empty: `evaluate` needs none."""
    use: str
    """``use(checkpoint_dir, data_dir) -> object``: a trained model whose methods are the verbs of `verbs`. `data_dir` is called for the
    folder of the data that the model was trained with, where a verb needs it."""
    verbs: tuple[str, ...]
    """What a trained model can do, among `search`, `assign`, `predict`, `export`, `points`: names of methods of what `use` returns."""
    headlines: tuple[str, ...]
    """Metrics that say most, the first one judges: of a test where there is one, else of validation."""
    columns: tuple[str, ...]
    """Metrics of an epoch that the terminal shows, in this order."""
    meanings: Mapping[str, str] = field(default_factory=dict)
    """What headline metrics say, a sentence each, for who sees them the first time."""
    section: str = ""
    """Section of the configuration that holds a stage file's own top-level keys; empty where a stage file has none but the sections."""
    words: str = ""
    """An `ExperimentWords`: what the keys of an experiment's files are called here; empty where they are the configuration's own."""
    checkpoint: str = ""
    """``checkpoint(folder) -> CheckpointFacts``: what a folder that Curricle did not write is; empty where there are none."""
    latency: str = ""
    """``latency(checkpoint_dir, config, max_length) -> LatencyProbe``: what the latency of a trained model is measured with; empty for none."""
    card: str = ""
    """``card(seen: curricle.sections.Seen) -> curricle.cards.card.Card``: the model card. Imports no torch. Empty: models of the family have none."""
    findings: str = ""
    """``findings(checkpoint_dir, data_dir, parent_dir, measure) -> dict``: what a report shows of a model, as JSON can say it. Its ``metrics`` are those of
    `evaluate`; ``before`` has ``metrics`` of the model in `parent_dir` (None for scratch), where that can be measured. Without `measure` only what takes
    seconds, and neither. May import torch. Empty: a report shows metrics alone."""
    sections: str = ""
    """``sections(seen: curricle.sections.Seen) -> curricle.sections.Part``: the family's part of a report. Imports no torch. Empty for none."""
    projector: str = ""
    """``projector(checkpoint_dir, data_dir, output) -> None``: write what the model learned into TensorBoard's folder of its stage, for the projector. Imports no torch. Empty
    for nothing."""
    check: str = ""
    """``check(config, parent_dir) -> None``: raises `ConfigError` for what a configuration asks of its encoder, or of the checkpoint that it starts
    from (None for none), and cannot get. Trains nothing; may import torch. Empty: nothing is known before a stage begins."""
    planned: str = ""
    """``planned(config, from_scratch) -> None``: raises `ConfigError` or `DataError` for what files on this machine tell a plan in a second or two. Imports no torch; empty for
    nothing."""
    measured: str = ""
    """``measured(facts) -> Collection[str]``: names of the metrics that `evaluate` gives on prepared data, by the facts of `prepare`; none
    where they do not tell. A gate's rule is checked against it before anything trains; empty checks it afterwards."""
    counted: str = ""
    """``counted(facts, config) -> int | None``: records of one epoch of a stage, by the facts of `prepare` and its configuration as a tree; None where they do not tell. Imports no
    torch; empty where nothing tells."""
    crosswalk: str = ""
    """``crosswalk(checkpoint_dir, data_dir, concordance, prepared, tables, classification=, old_column=, new_column=, encoding=) -> dict``: write the data of a model into the folder `prepared` as those of another
    classification, and tables for people into `tables`; returns facts for the manifest, with ``crosswalk``: what became of codes and texts. Imports torch. Empty: it has none."""
    crosswalk_chain: str = ""
    """Chain by which a model is trained further after a crosswalk."""
    continues: str = ""
    """Dotted key of the prepared data whose texts a continued stage keeps. Where a stage says `parent` there, the plan puts in what the checkpoint that it
    starts from was trained with. Empty: the family's configuration names its old data itself."""
    kept: tuple[str, ...] = ()
    """Dotted keys that a stage must share with the checkpoint that it starts from, for its weights to fit."""
    paths: tuple[str, ...] = ()
    """Dotted keys of folders: in a file they are relative to the configuration's folder, on the command line to the working folder."""
    folders: tuple[str, ...] = ()
    """Dotted keys of folders that may be a name of something elsewhere instead: a file, a pipe or a device there is refused before anything runs."""
    data_parameter: DataParameter | None = field(default=None)
    """The data setting that pipelines offer; None for none."""
    example: str = ""
    """``example(folder) -> list[Path]``: write example data where the shipped configuration looks for them, seen from a folder, and return
    the folders written. Raises OutputError where something is there already. Empty for none."""

    def said_most(self, metrics: Collection[str]) -> list[str]:
        """Of the metrics that were measured those that people are shown, the one that says most first: headlines, val_loss, then what the terminal shows of an epoch."""
        return [name for name in dict.fromkeys((*self.headlines, "val_loss", *self.columns)) if name in metrics]

    def headline(self, metrics: Collection[str]) -> str:
        """The first headline that was measured; empty where none was. The one place where it is chosen."""
        return next((name for name in self.headlines if name in metrics), "")

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
    "codes": FamilyEntry(
        title="codes of a classification for texts",
        config="curricle.families.codes.config:CodesConfig",
        fingerprint="curricle.families.codes.sources:fingerprint",
        prepare="curricle.families.codes.prepare:prepare",
        build="curricle.families.codes.task:build",
        evaluate="curricle.families.codes.evaluate:evaluate",
        evaluate_on="curricle.families.codes.evaluate:evaluate_on",
        use="curricle.families.codes.coder:Coder",
        verbs=("search", "assign", "export", "points"),
        headlines=("test/top1", "val/top1"),
        columns=("train/loss_epoch", "val_loss", "val/top1", "val/mrr", "structure/pearson"),
        meanings={
            "val/top1": "share of validation texts whose nearest code is the right one, by the code table alone",
            "test/top1": "share of test texts whose first code is the right one, by all that the model knows, weighed",
        },
        section="curriculum",
        findings="curricle.families.codes.findings:findings",
        sections="curricle.families.codes.report:sections",
        card="curricle.families.codes.card:card",
        projector="curricle.families.codes.projector:write",
        planned="curricle.families.codes.planned:check_planned",
        measured="curricle.families.codes.metrics:measured",
        counted="curricle.families.codes.config:counted",
        crosswalk="curricle.families.codes.crosswalk:crosswalk",
        crosswalk_chain="chain_continued_codes",
        continues="data.old",
        kept=("model.encoder", "model.dim", "model.fusion", "model.experts"),
        paths=("data.classification", "data.labelled"),
        folders=("model.encoder",),
        data_parameter=DataParameter(
            key="data.source",
            default="demo",
            description="Raw data: demo (the official titles of NAICS, in the image), or a folder or store URI with the four Census workbooks. "
            "For a classification of your own leave it, and put data.classification=URI data.labelled=URI into the overrides.",
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
        columns=("train/loss_epoch", "val_loss", "val/f1", "val/old/f1", "val/new/f1", "val/old/f1_full"),
        meanings={
            "val/f1": "F1 of whole spans with the right label on validation records, by the labels that are annotated there"
        },
        words="curricle.families.ner.words:WORDS",
        checkpoint="curricle.families.ner.checkpoint:check_checkpoint",
        latency="curricle.families.ner.use:latency",
        card="curricle.families.ner.card:card",
        findings="curricle.families.ner.findings:findings",
        sections="curricle.families.ner.report:sections",
        check="curricle.families.ner.model:check",
        planned="curricle.families.ner.planned:check_planned",
        measured="curricle.families.ner.metrics:measured",
        counted="curricle.families.ner.config:counted",
        kept=("model.encoder",),
        paths=("data.old_dataset_path", "data.new_dataset_path", "forgetting.teacher"),
        folders=("model.encoder", "checkpoint.source_path", "forgetting.teacher"),
        data_parameter=DataParameter(
            key="data.new_dataset_path",
            default="",
            description="Folder or store URI of the dataset that every stage trains on. Empty takes what each stage's file names.",
        ),
        example="curricle.families.ner.example:write_example",
    ),
}


def canonical(name: object) -> str:
    """Today's name of a family that may be called by a former one."""
    return FORMER.get(str(name), str(name))


def first_name(name: str) -> str:
    """The name that a family had first: what stands in digests, which no new name changes."""
    return next((former for former, now in FORMER.items() if now == canonical(name)), name)


def names() -> list[str]:
    """The names of all families: those that ship, then those of other distributions."""
    return [*FAMILIES, *(point.name for point in entry_points(group=GROUP) if point.name not in FAMILIES)]


def family(name: str) -> FamilyEntry:
    """The family of that name.

    Raises:
        ConfigError: there is none; names the nearest.
    """
    name = canonical(name)
    if name in FAMILIES:
        return FAMILIES[name]
    for point in entry_points(group=GROUP):
        if point.name == name:
            return point.load()
    known = names()
    near = difflib.get_close_matches(name, known, 1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise ConfigError(f"family {name!r} is not one of {', '.join(known)}{hint}")
