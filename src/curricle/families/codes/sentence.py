"""A trained model as a sentence-transformers folder: stock modules alone, no code of ours, and the same unit directions.

The head is ``normalise(L f + last(GELU(first f)))`` of the normalised feature f. A stock `Dense` is one matrix with one activation, and
``GELU(x) - GELU(-x) = x`` holds exactly, so two of them are the head: ``Dense([first; L; -L], GELU)``, then ``Dense([last | I | -I])``.

Files and module names are those of sentence-transformers 2, which all later versions read.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from curricle.cards.card import Way
from curricle.families.codes.card import NEAREST
from curricle.families.codes.model import CodesHead

MODULES = ("Transformer", "Pooling", "Normalize", "Dense", "Dense", "Normalize")
LIBRARY = "sentence-transformers"
WAYS = (
    Way(
        title="With sentence-transformers",
        code="""import numpy as np
from sentence_transformers import SentenceTransformer

model, codes = SentenceTransformer(FOLDER), np.load(FOLDER + "/codes.npz")
directions = model.encode(["we brew craft beer"])""",
    ),
    Way(
        title="Then the nearest codes of each text, by the distance in the space that the model was trained with",
        code=NEAREST,
    ),
)


def write_sentence_transformer(output: Path, encoder: Any, head: CodesHead, max_tokens: int) -> None:
    """What a folder with the encoder's weights, configuration and tokenizer needs beside them.

    Args:
        encoder: the transformers model, adapters merged in.
        max_tokens: longest text in tokens; longer ones are cut.
    """
    width = int(encoder.config.hidden_size)
    first, last = head.residual[0], head.residual[2]
    assert isinstance(first, nn.Linear) and isinstance(last, nn.Linear)
    linear = head.linear.weight.detach()
    dim = len(linear)
    zeros, one = torch.zeros(2 * dim), torch.eye(dim)
    _write(output / "sentence_bert_config.json", {"max_seq_length": max_tokens, "do_lower_case": False})
    _write(output / "config_sentence_transformers.json", {"similarity_fn_name": "cosine", "prompts": {}})
    pooling = {"word_embedding_dimension": width, "pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True}
    pooling |= {"pooling_mode_max_tokens": False, "pooling_mode_mean_sqrt_len_tokens": False}
    listed = [
        {"idx": i, "name": str(i), "path": f"{i}_{name}" if i else "", "type": f"sentence_transformers.models.{name}"}
        for i, name in enumerate(MODULES)
    ]
    for module in listed[1:]:
        (output / str(module["path"])).mkdir()
    _write(output / "1_Pooling" / "config.json", pooling)
    _dense(
        output / "3_Dense",
        torch.cat([first.weight, linear, -linear]),
        torch.cat([first.bias, zeros]),
        "torch.nn.modules.activation.GELU",
    )
    _dense(output / "4_Dense", torch.cat([last.weight, one, -one], 1), last.bias, "torch.nn.modules.linear.Identity")
    _write(output / "modules.json", listed)


def _dense(folder: Path, weight: Tensor, bias: Tensor, activation: str) -> None:
    from safetensors.torch import save_file

    out, width = weight.shape
    about = {"in_features": width, "out_features": out, "bias": True, "activation_function": activation}
    _write(folder / "config.json", about)
    tensors = {"linear.weight": weight, "linear.bias": bias}
    save_file({name: t.detach().contiguous() for name, t in tensors.items()}, folder / "model.safetensors")


def _write(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")
