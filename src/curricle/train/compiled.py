"""`torch.compile` for encoders: any batch shape in one program; without a compiler an error, never a silent second choice."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from curricle.errors import ConfigError

_OPTIONS: dict[str, Any] = {"fallback_random": True}
"""Dropout draws what it would draw uncompiled: the same seed gives the same training."""


def compiled(function: Callable) -> Callable:
    """The function, compiled at its first call.

    Raises:
        ConfigError: this machine has no C++ compiler.
    """
    _require_compiler()
    return torch.compile(function, dynamic=True, options=_OPTIONS)


def compile_forward(module: nn.Module) -> None:
    """Let the module's calls run compiled from now on; its names, weights and files stay what they were.

    A parameter that only an unused output depends on then gets a gradient of zeros in place of none.

    Raises:
        ConfigError: this machine has no C++ compiler.
    """
    _require_compiler()
    module.compile(dynamic=True, options=_OPTIONS)


def _require_compiler() -> None:
    from torch._inductor.cpp_builder import get_cpp_compiler
    from torch._inductor.exc import InvalidCxxCompiler

    try:
        get_cpp_compiler()
    except InvalidCxxCompiler as error:
        raise ConfigError(
            f"training.trainer.compile is true, but torch.compile finds no C++ compiler ({str(error).splitlines()[0]}); "
            "install g++ or set CXX, or leave training.trainer.compile false: it changes speed only"
        ) from None
