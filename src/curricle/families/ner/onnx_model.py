"""An exported graph in the place of a transformers model: what `Tagger` asks of one, run by ONNX Runtime on the CPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from curricle.errors import CheckpointError
from curricle.families.encoders import load_tokenizer
from curricle.families.graph import Graph
from curricle.store import layout

OUTPUT = "logits"
"""What the graph gives: float32 [texts, tokens, tags]."""


class Answer:
    """What a token classifier returns, as far as it is read."""

    def __init__(self, logits: torch.Tensor):
        self.logits = logits


class OnnxModel(torch.nn.Module):
    """The graph of a folder.

    Raises:
        CheckpointError: see `Graph`.
    """

    def __init__(self, path: Path):
        super().__init__()
        self.graph = Graph(path, OUTPUT, "curricle ner export")

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> Answer:
        """Logits [texts, tokens, tags] for int64 [texts, tokens]."""
        return Answer(self.graph(input_ids, attention_mask))


def open_onnx(folder: Path) -> tuple[OnnxModel, Any, None]:
    """Model and tokenizer of an exported folder, in the form of `model.build_model`."""
    return OnnxModel(folder / layout.GRAPH), load_tokenizer(folder, CheckpointError), None
