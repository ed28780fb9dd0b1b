"""Curricle trains text encoders in chains of stages on Kubeflow, and runs the same pipeline on one machine.

    import curricle

    model = curricle.train("config/config.yaml", chain="chain_smoke")      # trains, or finds what is trained already
    model.search("we brew craft beer")                                     # codes, best first
    curricle.open_model("checkpoints/sequential_01-02/02_stage").evaluate()

Everything below is imported when it is first asked for: `import curricle` itself needs no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.2.0"

if TYPE_CHECKING:
    from curricle.api import plan, train, train_chain
    from curricle.errors import (
        CheckpointError,
        ConfigError,
        CurricleError,
        DataError,
        Interrupted,
        JobError,
        MissingCheckpointError,
        MissingDataError,
        PipelineError,
        StoreError,
    )
    from curricle.families.ner.combine import combine_datasets
    from curricle.families.ner.model import create_model_and_tokenizer
    from curricle.steps.start import resolve_checkpoint_path
    from curricle.steps.use import Model, open_model

__all__ = [
    "CheckpointError",
    "ConfigError",
    "CurricleError",
    "DataError",
    "Interrupted",
    "JobError",
    "MissingCheckpointError",
    "MissingDataError",
    "Model",
    "PipelineError",
    "StoreError",
    "combine_datasets",
    "create_model_and_tokenizer",
    "open_model",
    "plan",
    "resolve_checkpoint_path",
    "train",
    "train_chain",
]

_HOMES = {
    "Model": "curricle.steps.use",
    "combine_datasets": "curricle.families.ner.combine",
    "create_model_and_tokenizer": "curricle.families.ner.model",
    "open_model": "curricle.steps.use",
    "plan": "curricle.api",
    "resolve_checkpoint_path": "curricle.steps.start",
    "train": "curricle.api",
    "train_chain": "curricle.api",
}
"""Where a name of `__all__` is defined, if not in `curricle.errors`."""


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'curricle' has no attribute {name!r}")
    module = importlib.import_module(_HOMES.get(name, "curricle.errors"))
    value = globals()[name] = getattr(module, name)
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
