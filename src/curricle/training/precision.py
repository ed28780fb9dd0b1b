"""Which arithmetic a stage uses: one setting → an autocast and a gradient scaler."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

import torch

from curricle.config.schema import Precision as Setting


@dataclass(frozen=True)
class Precision:
    """The resolved precision of a stage on one device."""

    name: str
    """``32-true``, ``16-mixed`` or ``bf16-mixed``; never ``auto``."""
    device_type: str

    def autocast(self) -> contextlib.AbstractContextManager:
        """The context in which losses and metrics are computed; geometry switches it off for itself."""
        if self.name == "32-true":
            return contextlib.nullcontext()
        return torch.autocast(self.device_type, dtype=self.dtype)

    @property
    def dtype(self) -> torch.dtype:
        """What matrix products are computed in."""
        return {"32-true": torch.float32, "16-mixed": torch.float16, "bf16-mixed": torch.bfloat16}[self.name]

    def scaler(self) -> torch.amp.GradScaler:
        """Scales the loss of 16-mixed, whose gradients underflow otherwise; passes everything through elsewhere."""
        return torch.amp.GradScaler(self.device_type, enabled=self.name == "16-mixed")


def fast_in_bf16() -> bool:
    """Whether this processor multiplies matrices faster in bfloat16 than in float32: with AMX."""
    return bool(torch.cpu.get_capabilities().get("amx_bf16"))


def resolve_precision(setting: Setting, device: torch.device) -> Precision:
    """`auto` is ``bf16-mixed`` where matrix products are faster in it (a GPU with bfloat16, a processor with AMX), else ``32-true``.

    AVX512-BF16 alone does not count: it multiplies no more numbers a cycle than float32 does, and every step converts its weights. Other
    settings stand.
    """
    if setting == "auto":
        on_gpu = device.type == "cuda"
        native = torch.cuda.is_bf16_supported(including_emulation=False) if on_gpu else fast_in_bf16()
        setting = "bf16-mixed" if native else "32-true"
    return Precision(setting, device.type)
