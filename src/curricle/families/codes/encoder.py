"""The text encoder: LoRA, tokenise once, each distinct text encoded once, features kept in a cache.

Knows nothing of codes. Features are mean-pooled, length-normalised encoder outputs, float32.
"""

from __future__ import annotations

import copy
import hashlib
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from curricle.families.codes.config import CodesModel
from curricle.families.encoders import (
    adapter_targets,
    add_adapters,
    budget_batches,
    encoder_folder,
    linear_layers,
    load_model,
    load_tokenizer,
)
from curricle.store.local import open_plain, write_whole
from curricle.training.pulse import working

_log = logging.getLogger(__name__)
SHORT = 64
"""Tokens up to which plain attention is the faster one on a CPU."""
BATCH_BYTES = 2048
"""A batch for a CPU has at most so many padded tokens a thread, times the bytes of a number: what a layer makes of more does not stay in the processor's caches. Batches of 512
tokens in float32 took two thirds of the time that batches of 4,096 took."""


class Encoder(nn.Module):
    """A transformer with mean pooling; its own weights are frozen, adapters (if any) are what may be trained."""

    def __init__(self, config: CodesModel, device: torch.device):
        super().__init__()
        from transformers import AutoModel

        source = encoder_folder(config.encoder)
        self.tokenizer = load_tokenizer(source)
        self.model = load_model(AutoModel, source)[0].to(device)
        self.model.requires_grad_(False)
        self.config = config
        self.width: int = self.model.config.hidden_size
        self.adapted = False
        self._digest = ""
        """Of the encoder before its adapters were folded in."""
        self.states: Callable[[Tensor, Tensor], Tensor] = self._states
        """(ids, mask) [n, tokens] of a padded batch → token states [n, tokens, width], float32. What is compiled where compiling is on."""

    @property
    def _device(self) -> torch.device:
        return next(self.model.parameters()).device

    def add_adapters(self) -> None:
        """Put LoRA adapters into every linear layer (once); their second matrix starts at zero, so the features stay what they were."""
        if self.adapted:
            return
        targets, layers = adapter_targets(self.model), len(linear_layers(self.model))
        self.model = add_adapters(self.model, self.config.lora, target_modules=targets)
        for module in self.model.modules():
            if hasattr(module, "cast_input_dtype_enabled"):
                module.cast_input_dtype_enabled = (
                    False  # autocast sees to the dtype; by way of float32 it is the same number, later
                )
        self.adapted = True
        weights = self.adapter_weights()
        lora, kinds = self.config.lora, ", ".join(dict.fromkeys(name.rpartition(".")[2] for name in targets))
        _log.warning(
            "adapters of rank %d in %d of %d linear layers (%s): %s numbers to train of the encoder",
            *(lora.r, len(weights) // 2, layers, kinds, f"{sum(p.numel() for p in weights.values()):,}"),
        )

    def prepare_training(self, dtype: torch.dtype, dropout: float | None) -> None:
        """Make a step of training cheap. Not for a model that is to be saved whole: its frozen matrices change their dtype.

        The frozen matrices are held in the dtype that autocast computes in: the same numbers without the casts. On a CPU, attention over short texts is two plain products: the fused kernel took
        a third longer for texts of 13 tokens, and is the faster one from about 100.

        Args:
            dropout: in place of the encoder's own rates, everywhere; None keeps them.
        """
        if self._device.type == "cpu" and self.config.max_tokens <= SHORT:
            self.model.set_attn_implementation("eager")
        for module in self.model.modules():
            if isinstance(module, nn.Linear) and not module.weight.requires_grad:
                module.to(dtype)
            if isinstance(module, nn.Dropout) and dropout is not None:
                module.p = dropout

    def for_inference(self) -> Encoder:
        """An encoder of the same features that is quick on many texts; it can be neither trained nor saved.

        Adapters are folded in. On a CPU under autocast to bfloat16, all of it is held in that: autocast alone converts the matrices for every batch, and computes norms and attention in float32.
        """
        under_autocast = torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu") == torch.bfloat16
        short = self._device.type == "cpu" and under_autocast
        quick = self
        if self.adapted or short:
            quick = copy.deepcopy(self)
            quick._digest, quick.states = self.digest(), quick._states
            quick.fold()
        if short:
            quick.model.to(torch.bfloat16)
        return quick.eval()

    def fold(self) -> None:
        """Merge the adapters into the matrices: a quarter less work for each text. For inference alone; nothing can be saved afterwards."""
        if self.adapted:
            self._digest = self.digest()
            self.model = self.model.merge_and_unload()
            self.adapted = False

    def adapter_weights(self) -> dict[str, nn.Parameter]:
        """The adapters' tensors by name; empty without adapters."""
        return {name: p for name, p in self.model.named_parameters() if "lora_" in name} if self.adapted else {}

    def tokenize(self, texts: list[str], max_tokens: int) -> list[list[int]]:
        """Token ids of each text, cut at `max_tokens`, special tokens included."""
        return (
            self.tokenizer(texts, truncation=True, max_length=max_tokens, add_special_tokens=True)["input_ids"]
            if texts
            else []
        )

    def _states(self, ids: Tensor, mask: Tensor) -> Tensor:
        return self.model(input_ids=ids, attention_mask=mask).last_hidden_state.float()

    def forward(self, ids: list[list[int]]) -> Tensor:
        """Features [n, width] of tokenised texts, float32; one padded batch."""
        device = self._device
        longest = max(map(len, ids))
        batch = torch.full((len(ids), longest), self.tokenizer.pad_token_id or 0, dtype=torch.long)
        mask = torch.zeros((len(ids), longest), dtype=torch.long)
        for row, tokens in enumerate(ids):
            batch[row, : len(tokens)] = torch.tensor(tokens)
            mask[row, : len(tokens)] = 1
        mask = mask.to(device)
        with self._quick(device.type, longest):
            hidden = self.states(batch.to(device), mask)
        weights = mask.unsqueeze(-1).float()
        return nn.functional.normalize((hidden * weights).sum(1) / weights.sum(1), dim=-1)

    @contextmanager
    def _quick(self, device: str, longest: int) -> Iterator[None]:
        """Without gradients on a CPU: plain attention for short texts, and no autocast where the encoder is in 16 bits itself."""
        model = self.model
        before = model.config._attn_implementation
        own = getattr(self.states, "__self__", None) is self  # else it is compiled, for one kind of attention
        plain = own and device == "cpu" and not torch.is_grad_enabled() and longest <= SHORT and before == "sdpa"
        if plain:
            model.set_attn_implementation("eager")
        try:
            with torch.autocast(device, enabled=False) if model.dtype != torch.float32 else nullcontext():
                yield
        finally:
            if plain:
                model.set_attn_implementation(before)

    def encode(
        self, ids: list[list[int]], token_budget: int, told: Callable[[int], None] = lambda done: None
    ) -> Tensor:
        """Features [n, width] in the given order, by batches of like length within the budget; gradients flow when they are on.

        Args:
            told: called after each batch with how many texts are through.
        """
        if not ids:
            return torch.zeros((0, self.width))
        training = torch.is_grad_enabled()
        if self._device.type == "cpu" and not training:
            token_budget = min(token_budget, BATCH_BYTES * torch.get_num_threads() // self.model.dtype.itemsize)
        batches = list(budget_batches([len(i) for i in ids], token_budget))
        if not training:  # the long ones first would make the time that is left look ten times as long
            batches = [batches[i] for i in np.random.default_rng(0).permutation(len(batches))]
        parts, order = [], []
        for rows in batches:
            parts.append(self([ids[r] for r in rows]))
            order.extend(rows)
            told(len(order))
        back = torch.empty(len(order), dtype=torch.long)
        back[torch.tensor(order)] = torch.arange(len(order))
        return torch.cat(parts)[back.to(parts[0].device)]

    def digest(self) -> str:
        """SHA-256 of what decides the features: the encoder's name and width, and every adapter tensor."""
        if self._digest:
            return self._digest
        digest = hashlib.sha256(f"{self.config.encoder} {self.width}".encode())
        first = next(p for name, p in self.model.named_parameters() if "lora_" not in name and p.ndim == 2)
        digest.update(first.detach().cpu().contiguous().numpy().tobytes())
        for name, tensor in sorted(self.adapter_weights().items()):
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()


def cached_features(
    encoder: Encoder,
    texts: list[str],
    max_tokens: int,
    token_budget: int,
    folder: Path,
) -> np.ndarray:
    """Features [n, width] of distinct texts, float32, from the cache or computed once and kept there.

    The cache's key is the digest of encoder, texts and cut; a file that is damaged is computed anew.
    """
    key = hashlib.sha256(f"{encoder.digest()} {max_tokens}\n".encode() + "\n".join(texts).encode()).hexdigest()[:32]
    path = folder / f"features-{key}.npy"
    kept = _kept_features(path, (len(texts), encoder.width))
    if kept is not None:
        return kept
    encoder = encoder.for_inference()
    with torch.inference_mode(), working("encoding texts") as phase:
        ids = encoder.tokenize(texts, max_tokens)
        features = encoder.encode(ids, token_budget, lambda done: phase.count(done, len(texts))).cpu().numpy()
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(path, lambda out: np.save(out, features))
    return features


def _kept_features(path: Path, shape: tuple[int, int]) -> np.ndarray | None:
    """The features in a file of the cache; None where there is none, or it is not whole: what power loss and full disks leave."""
    try:
        with open_plain(path) as file:
            if np.lib.format.read_magic(file) != (1, 0):
                return None
            kind = np.lib.format.read_array_header_1_0(file)
            if kind != (shape, False, np.dtype(np.float32)):
                return None
            features = np.fromfile(file, np.float32)
    except (OSError, ValueError):
        return None
    if features.size != shape[0] * shape[1]:
        return None
    features = features.reshape(shape)
    whole = np.abs(np.linalg.norm(features, axis=1) - 1) < 0.01  # they are normalised; a block of zeros or noise is not
    return features if whole.all() else None
