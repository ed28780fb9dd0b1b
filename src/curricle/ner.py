"""The NER family from Python, with the names and parameters of the continued training guide. torch is imported on first use of a model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from curricle.families.ner.combine import CombinedDataset, combine_datasets
from curricle.steps.start import explain_checkpoint, resolve_checkpoint_path

if TYPE_CHECKING:
    from curricle.families.ner.model import create_model_and_tokenizer

__all__ = [
    "CombinedDataset",
    "combine_datasets",
    "create_model_and_tokenizer",
    "explain_checkpoint",
    "resolve_checkpoint_path",
]


def __getattr__(name: str) -> Any:
    if name == "create_model_and_tokenizer":
        from curricle.families.ner.model import create_model_and_tokenizer

        return create_model_and_tokenizer
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
