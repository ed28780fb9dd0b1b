"""What a family must give the loop: the `TrainingTask`, and what it is built from: the `StageContext`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch

from curricle.config.schema import StageConfig
from curricle.training.distributed import Ranks

SCORE = "val/score"
"""Name of the metric that picks the best checkpoint where a task gives it; higher is better."""


@dataclass(frozen=True)
class StageContext:
    """Everything that a task may depend on. Nothing else: no environment, no global state."""

    config: StageConfig
    """The effective configuration of this stage: the common part, with the family's own sections in it."""
    data_dir: Path
    """The prepared data, as the family's `prepare` wrote it (local, verified)."""
    parent_dir: Path | None
    """The checkpoint to start from (local, verified: a folder with `model.safetensors`), or None for scratch."""
    work_dir: Path
    """A local scratch folder that may be reused by later stages (feature caches)."""
    device: torch.device
    ranks: Ranks


class TrainingTask(Protocol):
    """A model, its batches, its losses and its metrics. The loop does the rest.

    Randomness: the loop seeds torch from (seed, step, rank) before each step, so a task draws from torch's default
    generator inside `losses`, and from `numpy.random.default_rng([seed, epoch])` inside `batches`, and keeps no generator.
    """

    model: torch.nn.Module
    """Parameters with `requires_grad` are trained; `state_dict()` is what a checkpoint holds (see `weights`)."""

    learning_rate: float
    """The peak learning rate where the configuration says null; a family whose configuration never does needs none."""

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Groups of the optimiser: `params`, `name`, optionally `lr_scale` (times the stage's learning rate) and `weight_decay`; AdamW trains them. Of
        `geoopt.ManifoldParameter`s with ``manifold: True``: Riemannian Adam does.

        An empty list means that the stage trains nothing: the loop then validates and saves once.
        """

    def batches(self, epoch: int) -> Sequence[Any]:
        """This rank's batches of one epoch, a pure function of (seed, epoch, world size, rank); every rank gets equally many.

        One item is one micro-batch. Items may be lazy (indices); `losses` gets them one by one.
        """

    def losses(self, batch: Any) -> dict[str, torch.Tensor]:
        """Scalar losses by name; ``loss`` is the one that is back-propagated, others are only reported.

        With several ranks the mean of ``loss`` over ranks must be the loss of the whole batch.
        """

    def records(self, batch: Any) -> list[dict[str, Any]]:
        """What a person needs to find a batch's records in the data (a text, a row, a code), as JSON can say it; asked for where a step fails."""

    def scalars(self) -> dict[str, float]:
        """Further numbers of the last step for TensorBoard, by full name (``train/global_batch/...``). May be empty."""

    def validate(self) -> dict[str, float]:
        """Metrics on the validation data, without gradient, the same on all ranks. ``val_loss`` is required: lower is better,
        and picks the best checkpoint; where there is a ``val/score``, the highest does."""

    def weights(self) -> dict[str, torch.Tensor]:
        """What `model.safetensors` holds: everything a later stage or a user needs, never the frozen base encoder."""

    def load_weights(self, weights: dict[str, torch.Tensor]) -> None:
        """Take `weights` back in place (resume), strictly."""

    def save_extras(self, folder: Path) -> None:
        """Write the further files of a checkpoint (tokenizer, adapter folder, label list, model card).

        A task whose `weights` are not those it trains (averages) writes the latter here, as `trained.safetensors`; resume takes them.
        """
