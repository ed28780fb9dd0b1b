"""The optimiser of a stage: AdamW, and beside it Riemannian Adam for points of a manifold, behind the face of one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from curricle.errors import ConfigError

MANIFOLD = "manifold"
"""Key of a parameter group: true where its parameters are `geoopt.ManifoldParameter`s."""


def make_optimizer(groups: list[dict[str, Any]], learning_rate: float, weight_decay: float) -> torch.optim.Optimizer:
    """The optimiser of a task's parameter groups (`TrainingTask.parameter_groups`); each of its groups has `name` and `scale`.

    Groups marked `MANIFOLD` are trained by `geoopt.optim.RiemannianAdam`, without weight decay: Adam over Riemannian gradients, with one second moment a
    point, so that a step is at most about the learning rate long (Bécigneul & Ganea, 2019).

    Raises:
        ConfigError: a parameter stands in two groups, or is frozen.
    """
    seen: set[int] = set()
    for parameter in (p for g in groups for p in g["params"]):
        if id(parameter) in seen or not parameter.requires_grad:
            raise ConfigError(
                "a parameter stands in two parameter groups of the stage, or is frozen; each must be trained once"
            )
        seen.add(id(parameter))
    flat, curved = [
        [
            {
                "params": g["params"],
                "name": g["name"],
                "scale": g.get("lr_scale", 1.0),
                "weight_decay": 0.0 if which else g.get("weight_decay", weight_decay),
            }
            for g in groups
            if bool(g.get(MANIFOLD)) == which
        ]
        for which in (False, True)
    ]
    parts: list[torch.optim.Optimizer] = []
    if flat:
        parts.append(torch.optim.AdamW(flat, lr=learning_rate, fused=True))
    if curved:
        from geoopt.optim import RiemannianAdam

        parts.append(RiemannianAdam(curved, lr=learning_rate))
    return parts[0] if len(parts) == 1 and flat else Together(parts)


class Together(torch.optim.Optimizer):
    """Several optimisers as one: what a gradient scaler leaves out, it leaves out of all."""

    def __init__(self, parts: list[torch.optim.Optimizer]):
        self.parts = parts

    @property
    def param_groups(self) -> list[dict[str, Any]]:  # type: ignore[override]  # the parts change their lists when they load
        """Of all parts."""
        return [group for part in self.parts for group in part.param_groups]

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Of all parts."""
        for part in self.parts:
            part.zero_grad(set_to_none)

    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Of all parts."""
        for part in self.parts:
            part.step()

    def state_dict(self) -> dict[str, Any]:
        """Of each part, in order."""
        return {"parts": [part.state_dict() for part in self.parts]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take `state_dict` back: bit for bit."""
        for part, state in zip(self.parts, state_dict["parts"], strict=True):
            part.load_state_dict(state)
            if not isinstance(part, torch.optim.AdamW):  # torch has made float32 tensors of geoopt's counts of steps
                for entry in part.state.values():
                    entry["step"] = int(entry["step"])
