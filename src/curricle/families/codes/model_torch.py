"""A trained encoder and head in torch, to ask many texts; and its arrays for `model_numpy`."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import sparse

from curricle.families.codes.config import CodesConfig
from curricle.families.codes.encoder import Encoder, cached_features
from curricle.families.codes.model_numpy import LARGEST
from curricle.families.codes.ngrams import product
from curricle.families.codes.prepare import CodeTable
from curricle.families.codes.task import CHANNELS, CodeSpace, distinct_texts
from curricle.training.precision import fast_in_bf16, resolve_precision


class TorchModel:
    """See `families.codes.opinions.Asked`.

    Args:
        cache: where an encoder in 8 bits is kept.
    """

    def __init__(self, config: CodesConfig, table: CodeTable, space: CodeSpace, cache: Path):
        self.config, self.table, self.space, self._cache = config, table, space, cache
        space.encoder.fold()
        self.fast = False
        """Whether texts are encoded in 16 bits where the processor is fast in them, else in 8."""
        self.leaves = torch.from_numpy(table.leaves)
        self._forms: dict[int, tuple[Any, torch.Tensor]] = {}

    @cached_property
    def _precision(self) -> Any:
        return resolve_precision(self.config.training.trainer.precision, torch.device("cpu"))

    @cached_property
    def _in_bf16(self) -> Encoder:
        with torch.autocast("cpu", torch.bfloat16):
            return self.space.encoder.for_inference()

    @cached_property
    def _in_int8(self) -> Encoder:
        from curricle.families.codes.onnx import in_8_bits

        return in_8_bits(self.space.encoder, self._cache)

    def features(self, texts: list[str]) -> np.ndarray:
        """Of texts [n, width]. In float32, so that a text has the same ones alone and among others, but for `fast`."""
        encoder = self.space.encoder
        if self.fast:
            encoder = self._in_bf16 if fast_in_bf16() else self._in_int8
        tokens = encoder.tokenize(texts, self.config.model.max_tokens)
        with torch.inference_mode():
            return encoder.encode(tokens, self.config.data_loader.token_budget).numpy()

    @torch.inference_mode()
    def directions(self, features: np.ndarray) -> np.ndarray:
        """Unit directions [n, dim]."""
        return self.space.head.direction(torch.from_numpy(features)).numpy()

    def distances(self, directions: np.ndarray) -> np.ndarray:
        """Log-probabilities [n, leaves] by the distance to the codes."""
        return self._distances(directions, None)

    def distances_by_text(self, directions: np.ndarray, by_text: np.ndarray) -> np.ndarray:
        """The same to the points of another table [N, dim]."""
        return self._distances(directions, torch.from_numpy(by_text))

    @torch.inference_mode()
    def _distances(self, directions: np.ndarray, table: torch.Tensor | None) -> np.ndarray:
        head = self.space.head
        depth = head.text_depth(len(directions))
        logits = head.logits(head.to_codes(torch.from_numpy(directions), depth, self.leaves, table))
        return logits.log_softmax(-1).numpy()

    @torch.inference_mode()
    def cosines(self, vectors: np.ndarray, others: np.ndarray) -> np.ndarray:
        """[n, width], [m, width] → [n, m]; in bfloat16 where `fast` has it."""
        if not (self.fast and fast_in_bf16()):
            return vectors @ others.T
        half = self._kept(others, lambda: torch.from_numpy(others).bfloat16())
        return (torch.from_numpy(vectors).bfloat16() @ half.T).float().numpy()

    @torch.inference_mode()
    def product(self, rows: sparse.csr_matrix, table: sparse.csr_matrix) -> np.ndarray:
        """[n, F], [F, m] → dense [n, m]: by MKL in half of the time that scipy's sparse product and its dense form take, with the same sums."""
        if not torch.backends.mkl.is_available():
            return product(rows, table)
        right = self._kept(table, lambda: _sparse(table))
        return torch.addmm(torch.zeros(rows.shape[0], table.shape[1]), _sparse(rows), right).numpy()

    def _kept(self, of: Any, make: Callable[[], torch.Tensor]) -> torch.Tensor:
        """What is made once of an array that stays; the array is kept beside it, so that its number is no other one's."""
        if id(of) not in self._forms:
            self._forms[id(of)] = of, make()
        return self._forms[id(of)][1]

    def known(self, texts: list[str], cache: Path) -> tuple[np.ndarray, np.ndarray]:
        """(features of training texts [n, width], where their texts alone put the codes [N, dim]); the features are kept in `cache`."""
        distinct = distinct_texts(self.table)
        number = {text: i for i, text in enumerate(distinct)}
        with self._precision.autocast():
            features = cached_features(
                self.space.encoder,
                distinct,
                self.config.model.max_tokens,
                self.config.data_loader.token_budget,
                cache / self._precision.name,
            )
        leaves, channels = self.table.leaves, self.table.channels
        rows = np.array([[number.get(channels[name][i] or "", -1) for name in CHANNELS] for i in leaves])
        head = self.space.head
        with torch.inference_mode():
            given = torch.from_numpy(np.where((rows >= 0)[..., None], features[rows], 0))
            table = head.table.clone()
            table[self.leaves] = head.by_text(given, torch.from_numpy(rows >= 0), head.depth[self.leaves])
        return features[[number[text] for text in texts]], table.numpy()

    @torch.inference_mode()
    def arrays(self) -> dict[str, np.ndarray]:
        """For `NumpyModel`; empty where the encoder is of another architecture than BERT's, or too large."""
        model, head = self.space.encoder.model, self.space.head
        settings, tokenizer = model.config, getattr(self.space.encoder.tokenizer, "backend_tokenizer", None)
        plain = settings.model_type == "bert" and settings.hidden_act == "gelu"
        if (
            tokenizer is None
            or not plain
            or getattr(settings, "position_embedding_type", None) not in (None, "absolute")
        ):
            return {}
        if sum(tensor.numel() for tensor in model.state_dict().values()) > LARGEST:
            return {}
        state = {name: tensor.float().numpy() for name, tensor in model.state_dict().items()}
        made = {"tokenizer": np.frombuffer(tokenizer.to_str().encode(), dtype=np.uint8)}
        shape = (settings.num_hidden_layers, settings.num_attention_heads, self.config.model.max_tokens)
        made |= {"shape": np.array(shape), "epsilon": np.array([settings.layer_norm_eps])}
        for short, name in (("word", "word"), ("position", "position"), ("type", "token_type")):
            made[short] = state[f"embeddings.{name}_embeddings.weight"]
        for kind in ("weight", "bias"):
            made[f"embedding.{kind}"] = state[f"embeddings.LayerNorm.{kind}"]
            for i in range(settings.num_hidden_layers):
                at = f"encoder.layer.{i}."
                parts = [state[f"{at}attention.self.{part}.{kind}"] for part in ("query", "key", "value")]
                made[f"layer{i}.qkv.{kind}"] = np.concatenate(parts)
                made[f"layer{i}.seen.{kind}"] = state[f"{at}attention.output.dense.{kind}"]
                made[f"layer{i}.first.{kind}"] = state[f"{at}attention.output.LayerNorm.{kind}"]
                made[f"layer{i}.up.{kind}"] = state[f"{at}intermediate.dense.{kind}"]
                made[f"layer{i}.down.{kind}"] = state[f"{at}output.dense.{kind}"]
                made[f"layer{i}.second.{kind}"] = state[f"{at}output.LayerNorm.{kind}"]
        radius, direction = head.codes()
        made |= {"axes": head.linear.weight.numpy()}
        residual = head.residual.state_dict()
        for name, place in (("hidden", 0), ("out", 2)):
            made |= {f"{name}.{kind}": residual[f"{place}.{kind}"].numpy() for kind in ("weight", "bias")}
        made |= {
            "radius": head.radii()[head.text_depth(1) - 1].numpy(),
            "unit": (head.log_tau.exp() * head.scale).reshape(1).numpy(),
        }
        return made | {"code_radius": radius[self.leaves].numpy(), "code_direction": direction[self.leaves].numpy()}


def _sparse(table: sparse.csr_matrix) -> torch.Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that the layout is in beta
        indptr, indices = (torch.from_numpy(part.astype(np.int32)) for part in (table.indptr, table.indices))
        return torch.sparse_csr_tensor(indptr, indices, torch.from_numpy(table.data), table.shape)
