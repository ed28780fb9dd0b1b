"""The common part of a stage's configuration: every default of it, once. A family adds its own sections by inheritance.

Frozen dataclasses with a docstring under each field; checks of one object stand in its `__post_init__` and raise
`ValueError`, which the loader reports with file and line.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

Precision = Literal["auto", "32-true", "16-mixed", "bf16-mixed"]
Accelerator = Literal["auto", "cpu", "gpu"]


def require(condition: bool, message: str) -> None:
    """Raise `ValueError(message)` unless the condition holds: the one form of a schema check."""
    if not condition:
        raise ValueError(message)


@dataclass(frozen=True, kw_only=True)
class TrainerConfig:
    """How long, how wide and in which precision a stage trains."""

    max_epochs: int = 4
    """Passes over the training data."""
    devices: int = 1
    """Processes per node: one a GPU, or so many CPU ranks."""
    num_nodes: int = 1
    """Nodes of the job. More than one needs the `pytorchjob` launcher."""
    accelerator: Accelerator = "auto"
    """`gpu` is an error where there is none; `auto` takes a GPU where there is one."""
    precision: Precision = "auto"
    """Autocast of the encoder. `auto` is bf16-mixed on GPUs and processors with AMX, else 32-true. Geometry is always float32 or more."""
    compile: bool = False
    """`torch.compile` of the encoder's forward: the same results up to rounding. Needs a C++ compiler; compiling takes a
    minute, so it pays on long stages only."""
    accumulate_grad_batches: int = 1
    """Micro-batches a step."""
    gradient_clip_val: float = 1.0
    """Largest norm of the gradient; 0 switches clipping off."""
    save_every_n_steps: int = 200
    """Steps between two saves of `last.ckpt` inside an epoch (one is also written after each epoch)."""

    def __post_init__(self) -> None:
        require(self.max_epochs >= 0, f"max_epochs must be 0 or more, not {self.max_epochs}")
        for name in ("devices", "num_nodes", "accumulate_grad_batches", "save_every_n_steps"):
            require(getattr(self, name) >= 1, f"{name} must be 1 or more, not {getattr(self, name)}")
        require(self.gradient_clip_val >= 0, f"gradient_clip_val must be 0 or more, not {self.gradient_clip_val}")


@dataclass(frozen=True, kw_only=True)
class EarlyStoppingConfig:
    """Stop a stage whose validation loss no longer falls."""

    enabled: bool = False
    """Whether to stop early at all."""
    patience: int = 3
    """Epochs without improvement that are allowed before training stops."""
    min_delta: float = 1e-4
    """The least that counts as an improvement."""


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """Optimisation of one stage."""

    learning_rate: float = 1e-3
    """Peak learning rate of AdamW; a family may scale it per parameter group."""
    weight_decay: float = 0.01
    """Decoupled weight decay."""
    warmup_steps: int = 30
    """Steps of linear warm-up, at most a tenth of the stage's steps; cosine decay to zero follows."""
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    """Length, width, precision."""
    early_stopping: EarlyStoppingConfig = field(default_factory=EarlyStoppingConfig)
    """When to stop before `max_epochs`."""

    def __post_init__(self) -> None:
        require(
            self.learning_rate is None or 0 < self.learning_rate < 1,
            f"learning_rate must lie between 0 and 1, not {self.learning_rate}",
        )
        require(0 <= self.weight_decay < 1, f"weight_decay must lie in [0, 1), not {self.weight_decay}")
        require(self.warmup_steps >= 0, f"warmup_steps must be 0 or more, not {self.warmup_steps}")


@dataclass(frozen=True, kw_only=True)
class DataLoaderConfig:
    """How records become batches."""

    batch_size: int = 256
    """Records (texts, anchors) of a global batch, over all ranks."""
    token_budget: int = 4096
    """Most padded tokens that go through the encoder at once; only memory and speed depend on it."""

    def __post_init__(self) -> None:
        require(self.batch_size >= 1, f"batch_size must be 1 or more, not {self.batch_size}")
        require(self.token_budget >= 16, f"token_budget must be 16 or more, not {self.token_budget}")


@dataclass(frozen=True, kw_only=True)
class PathsConfig:
    """Where things are kept. Relative folders are relative to the working folder."""

    store_uri: str = "checkpoints"
    """Runs and checkpoints: a folder, `file://`, `minio://bucket/prefix` or `s3://bucket/prefix`."""
    outputs_dir: str = "outputs"
    """TensorBoard files, one folder a run and stage."""
    cache_dir: str = ".curricle"
    """Local copies of prepared data and fetched checkpoints, feature caches. Safe to delete."""


@dataclass(frozen=True, kw_only=True)
class LoraConfig:
    """Low-rank adapters of the encoder."""

    r: int = 16
    """Rank."""
    alpha: int = 32
    """Scale (alpha / r)."""
    dropout: float = 0.0
    """Dropout before the adapters."""


@dataclass(frozen=True, kw_only=True)
class TrackingConfig:
    """What is written while a stage trains."""

    tensorboard: bool = True
    """Write TensorBoard scalars under `paths.outputs_dir`."""
    mlflow: bool = True
    """Write parameters, metrics and tags to MLflow."""
    mlflow_uri: str = "sqlite:///mlflow.db"
    """MLflow tracking URI; the environment variable MLFLOW_TRACKING_URI goes before it."""
    log_every_n_steps: int = 10
    """Steps between two points of a per-step curve."""


@dataclass(frozen=True, kw_only=True)
class StageConfig:
    """One stage's effective configuration. Families inherit from it and add `data`, `model` and their own sections."""

    family: str
    """`naics` or `ner`."""
    experiment_name: str = "curricle"
    """Name of the MLflow experiment."""
    seed: int = 0
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
