"""The common part of a stage's configuration: every default of it, once. A family adds its own sections by inheritance.

Frozen dataclasses with a docstring under each field. What one value may be stands in its type (`Annotated` with a `Range` or `FILLED`) and is
checked by the loader; what several values may be together stands in `__post_init__`, which raises `ValueError`. The loader reports both
with file and line.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal

Precision = Literal["auto", "32-true", "16-mixed", "bf16-mixed"]
Accelerator = Literal["auto", "cpu", "gpu"]


def require(condition: bool, message: str) -> None:
    """Raise `ValueError(message)` unless the condition holds: the one form of a schema check."""
    if not condition:
        raise ValueError(message)


class Range:
    """The numbers that a setting may be, as an interval is written: ``[0, 1)`` holds 0 and not 1. Ends are whole numbers or decimals."""

    def __init__(self, interval: str):
        self.interval = interval
        self._low, self._high = (
            int(end) if end.strip().lstrip("-").isdigit() else float(end) for end in interval[1:-1].split(",")
        )

    def problem(self, value: Any) -> str:
        """What a message says of a number outside; empty for one inside."""
        above = value > self._low or (value == self._low and self.interval[0] == "[")
        below = value < self._high or (value == self._high and self.interval[-1] == "]")
        return "" if above and below else f"must lie in {self.interval}"


class Filled:
    """A text that may not be empty."""

    def problem(self, value: Any) -> str:
        """What a message says of an empty text."""
        return "" if value.strip() else "must not be empty"


FILLED = Filled()
Count = Annotated[int, Range("[1, 1000000000]")]
"""Of steps."""
Seed = Annotated[int, Range("[0, 4294967295]")]
"""As numpy takes it: 32 bits."""
Share = Annotated[float, Range("[0, 1)")]
Weight = Annotated[float, Range("[0, 1000000]")]
LearningRate = Annotated[float, Range("(0, 1)")]
Epochs = Annotated[int, Range("[0, 100000]")]
Tokens = Annotated[int, Range("[8, 65536]")]
Text = Annotated[str, FILLED]


@dataclass(frozen=True, kw_only=True)
class TrainerConfig:
    """How long, how wide and in which precision a stage trains."""

    max_epochs: Epochs = 4
    """Passes over the training data."""
    devices: Annotated[int, Range("[1, 1024]")] = 1
    """Processes per node: one a GPU, or so many CPU ranks."""
    num_nodes: Annotated[int, Range("[1, 1024]")] = 1
    """Nodes of the job. More than one needs a launcher of a cluster."""
    accelerator: Accelerator = "auto"
    """`gpu` is an error where there is none; `auto` takes a GPU where there is one."""
    precision: Precision = "auto"
    """Autocast of the encoder. `auto` is bf16-mixed on GPUs and processors with AMX, else 32-true. Geometry is always float32 or more."""
    compile: bool = False
    """`torch.compile` of the encoder's forward: the same results up to rounding. Needs a C++ compiler; compiling takes a
    minute, so it pays on long stages only."""
    accumulate_grad_batches: Annotated[int, Range("[1, 100000]")] = 1
    """Micro-batches a step."""
    gradient_clip_val: Weight = 1.0
    """Largest norm of the gradient; 0 switches clipping off."""
    save_every_n_steps: Count = 200
    """Steps between two saves of `last.ckpt` inside an epoch (one is also written after each epoch)."""


@dataclass(frozen=True, kw_only=True)
class EarlyStoppingConfig:
    """Stop a stage whose validation loss no longer falls."""

    enabled: bool = False
    """Whether to stop early at all."""
    patience: Epochs = 3
    """Epochs without improvement that are allowed before training stops."""
    min_delta: Weight = 1e-4
    """The least that counts as an improvement."""


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """Optimisation of one stage."""

    learning_rate: LearningRate = 1e-3
    """Peak learning rate of AdamW; a family may scale it per parameter group."""
    weight_decay: Share = 0.01
    """Decoupled weight decay."""
    warmup_steps: Annotated[int, Range("[0, 1000000000]")] = 30
    """Steps of linear warm-up, at most a tenth of the stage's steps; cosine decay to zero follows."""
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    """Length, width, precision."""
    early_stopping: EarlyStoppingConfig = field(default_factory=EarlyStoppingConfig)
    """When to stop before `max_epochs`."""


@dataclass(frozen=True, kw_only=True)
class DataLoaderConfig:
    """How records become batches."""

    batch_size: Annotated[int, Range("[1, 1000000]")] = 256
    """Records (texts, anchors) of a global batch, over all ranks."""
    token_budget: Annotated[int, Range("[16, 100000000]")] = 4096
    """Most padded tokens that go through the encoder at once; only memory and speed depend on it."""


@dataclass(frozen=True, kw_only=True)
class PathsConfig:
    """Where things are kept. Relative folders are relative to the working folder."""

    store_uri: Text = "checkpoints"
    """Runs and checkpoints: a folder, `file://`, `minio://bucket/prefix` or `s3://bucket/prefix`."""
    outputs_dir: Text = "outputs"
    """TensorBoard files, one folder a run and stage."""
    cache_dir: Text = ".curricle"
    """Local copies of prepared data and fetched checkpoints, feature caches. Safe to delete."""


def in_store(store_uri: str) -> str:
    """What a printed command says of its store: nothing of the one that is meant anyway."""
    return "" if store_uri in ("", PathsConfig().store_uri) else f" --store {shlex.quote(store_uri)}"


@dataclass(frozen=True, kw_only=True)
class LoraConfig:
    """Low-rank adapters of the encoder."""

    r: Annotated[int, Range("[1, 4096]")] = 16
    """Rank."""
    alpha: Annotated[int, Range("[1, 65536]")] = 32
    """Scale (alpha / r)."""
    dropout: Share = 0.0
    """Dropout before the adapters."""


@dataclass(frozen=True, kw_only=True)
class TrackingConfig:
    """What is written while a stage trains."""

    tensorboard: bool = True
    """Write TensorBoard scalars under `paths.outputs_dir`."""
    mlflow: bool = True
    """Write parameters, metrics and tags to MLflow."""
    mlflow_uri: Text = "sqlite:///mlflow.db"
    """MLflow tracking URI; the environment variable MLFLOW_TRACKING_URI goes before it."""
    log_every_n_steps: Count = 10
    """Steps between two points of a per-step curve."""


@dataclass(frozen=True, kw_only=True)
class StageConfig:
    """One stage's effective configuration. Families inherit from it and add `data`, `model` and their own sections."""

    ADDED: ClassVar[Mapping[str, Any]] = {}
    """Settings that a family got after its first stages were trained, with their defaults: there they are left out of a stage's digest, so
    that such stages are found."""
    family: Text
    """`codes` (also by its former name `naics`) or `ner`."""
    experiment_name: Text = "curricle"
    """Name of the MLflow experiment."""
    seed: Seed = 0
    """Seeds everything that is drawn: data order, dropout, sampling, initialisation."""
    paths: PathsConfig = field(default_factory=PathsConfig)
    """Places."""
    training: TrainingConfig = field(default_factory=TrainingConfig)
    """Optimisation."""
    data_loader: DataLoaderConfig = field(default_factory=DataLoaderConfig)
    """Batches."""
    tracking: TrackingConfig = field(default_factory=TrackingConfig)
    """TensorBoard and MLflow."""


NOT_IN_DIGEST = (
    "paths",
    "tracking",
    "experiment_name",
    "training.trainer.devices",
    "training.trainer.num_nodes",
    "training.trainer.accelerator",
    "training.trainer.save_every_n_steps",
    "training.trainer.compile",
    "data_loader.token_budget",
)
"""Settings that do not change what is trained, by dotted prefix: left out of a stage's digest."""
