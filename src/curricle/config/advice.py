"""Which settings to change where a stage cannot go on as it is, each with its present value. Pure; takes a configuration as a tree."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_LESS = ("data_loader.batch_size", "data_loader.token_budget", "model.max_tokens")
_ACCUMULATE = "training.trainer.accumulate_grad_batches"
_DEVICES = "training.trainer.devices"
_PRECISION = "training.trainer.precision"
_CLIP = "training.trainer.gradient_clip_val"


def for_memory(tree: Mapping[str, Any]) -> str:
    """What to change where memory was not enough. Settings that the configuration does not have are left out."""
    ways = [f"a smaller {key} ({_is(tree, key)})" for key in _LESS if _value(tree, key) is not None]
    if _value(tree, _ACCUMULATE) is not None:
        ways.append(f"more {_ACCUMULATE} ({_is(tree, _ACCUMULATE)}) with it, which keeps the records of a step")
    if _value(tree, _PRECISION) not in (None, "bf16-mixed"):
        ways.append(f"{_PRECISION} bf16-mixed ({_is(tree, _PRECISION)})")
    if (_value(tree, _DEVICES) or 1) > 1:
        ways.append(f"fewer {_DEVICES} ({_is(tree, _DEVICES)}), which share a machine's memory")
    return f"Try {', '.join(ways)}{' or ' if ways else ''}a machine with more memory"


def for_divergence(tree: Mapping[str, Any], learning_rate: float, precision: str) -> str:
    """What to change where numbers ceased to be finite; `learning_rate` and `precision` are those that were used."""
    ways = [f"a lower training.learning_rate (it is {learning_rate:g})"]
    ways.append(f"more training.warmup_steps ({_is(tree, 'training.warmup_steps')})")
    ways.append(f"a {'smaller ' if _value(tree, _CLIP) else ''}{_CLIP} ({_is(tree, _CLIP)})")
    if precision != "32-true":
        ways.append(f"{_PRECISION} 32-true (it is {precision})")
    return f"Try {', '.join(ways[:-1])} or {ways[-1]}"


def _value(tree: Mapping[str, Any], key: str) -> Any:
    value: Any = tree
    for part in key.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def _is(tree: Mapping[str, Any], key: str) -> str:
    return f"it is {_value(tree, key)}"
