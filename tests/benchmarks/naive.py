"""The naive scheme that our training step is measured against: the reference system's step, re-created from shared/notes/naics.md.

Four copies of the backbone, one a channel, each with its own LoRA; every channel of every code padded to a fixed length (title 24,
the others 512), an absent channel as the text `[EMPTY]`; anchors, positives and negatives encoded apart, a code as often as it
occurs; every forward recomputed in the backward (gradient checkpointing); mixture of experts over the four vectors, norm capped at
2, exponential map, decoupled contrastive loss over the pair's own negatives. Its LambdaRank and hierarchy terms and its data
loader are left out: with them it would be slower.
"""

from __future__ import annotations

import warnings

import numpy as np
import torch
from torch import Tensor, nn

from curricle.families.codes.config import CodesModel
from curricle.families.codes.geometry import distance, exp0
from curricle.families.codes.losses import balance
from curricle.families.codes.model import Mixture
from curricle.families.codes.prepare import CHANNELS, CodeTable
from curricle.families.encoders import encoder_folder

LENGTHS = {"title": 24, "description": 512, "examples": 512, "exclusions": 512}
EMPTY = "[EMPTY]"
TEMPERATURE = 0.07
NORM_CAP = 2.0


class NaiveModel(nn.Module):
    """Codes → points of the Lorentz model, the wasteful way."""

    def __init__(self, encoder: str):
        super().__init__()
        from peft import LoraConfig, get_peft_model
        from transformers import AutoModel, AutoTokenizer
        from transformers.utils import logging

        logging.disable_progress_bar()
        source = encoder_folder(encoder)
        self.tokenizer = AutoTokenizer.from_pretrained(source)
        self.backbones = nn.ModuleDict()
        for name in CHANNELS:
            backbone = AutoModel.from_pretrained(source, dtype=torch.float32)
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", ".*gradient_checkpointing.* is deprecated", FutureWarning)
                backbone.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
                self.backbones[name] = get_peft_model(
                    backbone, LoraConfig(r=8, lora_alpha=16, lora_dropout=0.1, target_modules="all-linear")
                )
        width = backbone.config.hidden_size
        self.mixture = Mixture(4 * width, CodesModel(experts=4, top_k=2), 768)
        self.project = nn.Linear(width, width)
        self.tokens: dict[str, tuple[Tensor, Tensor]] = {}

    def read(self, table: CodeTable) -> None:
        """Tokenise every channel of every code to its fixed length, as the reference caches them."""
        for name in CHANNELS:
            texts = [text or EMPTY for text in table.channels[name]]
            found = self.tokenizer(
                texts, padding="max_length", truncation=True, max_length=LENGTHS[name], return_tensors="pt"
            )
            self.tokens[name] = found["input_ids"], found["attention_mask"]

    def forward(self, codes: np.ndarray) -> tuple[Tensor, Tensor]:
        """Space coordinates [n, width] of codes [n], one row each however often a code occurs, and the load balance."""
        rows, device = torch.from_numpy(codes), self.project.weight.device
        parts = []
        for name, backbone in self.backbones.items():
            ids, mask = (t[rows].to(device) for t in self.tokens[name])
            hidden = backbone(input_ids=ids, attention_mask=mask).last_hidden_state.float()
            weights = mask.unsqueeze(-1).float()
            parts.append((hidden * weights).sum(1) / weights.sum(1))
        with torch.autocast(device.type, enabled=False):
            mixed, routing = self.mixture(torch.cat(parts, 1))
            tangent = self.project(mixed + torch.stack(parts).mean(0))
            length = tangent.norm(dim=-1, keepdim=True).clamp_min(1e-6)
            return exp0(tangent * (NORM_CAP / length).clamp_max(1.0), 1.0), balance(routing)

    def loss(self, anchors: np.ndarray, positives: np.ndarray, negatives: np.ndarray) -> Tensor:
        """Decoupled contrastive loss of pairs [P] with K negatives each [P, K]; three calls of the encoder, as in the reference."""
        a, b1 = self(anchors)
        p, b2 = self(positives)
        n, b3 = self(negatives.ravel())
        with torch.autocast(a.device.type, enabled=False):
            near = distance(a, p, 1.0)
            far = distance(a.unsqueeze(1), n.view(*negatives.shape, -1), 1.0)
            return (near / TEMPERATURE + torch.logsumexp(-far / TEMPERATURE, 1)).mean() + 0.01 * (b1 + b2 + b3) / 3
