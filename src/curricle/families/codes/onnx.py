"""A trained model as one ONNX graph: tokens → unit direction, in float32 or 8 bits; measured beside the model itself."""

from __future__ import annotations

import copy
import functools
import json
import os
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from curricle.cards.card import Way
from curricle.errors import CheckpointError, DataError, OutputError
from curricle.families.codes.card import NEAREST
from curricle.families.codes.encoder import Encoder
from curricle.families.codes.model import CodesHead
from curricle.families.codes.prepare import CodeTable
from curricle.families.codes.task import CodeSpace
from curricle.families.encoders import budget_batches
from curricle.families.graph import Graph, best_times, quantise, require_onnx, size, write_graph
from curricle.store import layout
from curricle.store.local import open_plain
from curricle.store.manifest import sha256_of
from curricle.store.ours import new_folder
from curricle.training.pulse import working

OUTPUT, STATES = "direction", "states"
"""What a graph gives: float32 [texts, dim] of a whole model, of length 1; [texts, tokens, width] of its encoder."""
LARGEST_DIFFERENCE = 1e-4
"""Of directions, between the model and its graph in float32: what rounding in another order leaves is a hundredth of that."""
LIBRARY = "onnxruntime"
WAYS = (
    Way(
        title="With onnxruntime, and transformers for the tokenizer",
        code="""import numpy as np
import onnxruntime
from transformers import AutoTokenizer

tokenizer, codes = AutoTokenizer.from_pretrained(FOLDER), np.load(FOLDER + "/codes.npz")
session = onnxruntime.InferenceSession(FOLDER + "/model.onnx", providers=["CPUExecutionProvider"])
batch = tokenizer(["we brew craft beer"], padding=True, truncation=True, return_tensors="np")
inputs = {name: batch[name].astype("int64") for name in ("input_ids", "attention_mask")}
(directions,) = session.run(["direction"], inputs)""",
    ),
    Way(
        title="Then the nearest codes of each text, by the distance in the space that the model was trained with",
        code=NEAREST,
    ),
)
SAMPLE = 1000
"""Validation texts that both are timed and compared on, at most."""
BUDGET = 512
"""Padded tokens of a batch: with 4,096 the model takes 1.4 times as long, and its graph in 8 bits twice as long."""
SECONDS = 5.0
"""Each of both is timed for about so long."""


@dataclass(frozen=True)
class Checked:
    """How a graph compares with the model that it was made from, on the same texts, batches and threads, in float32."""

    format: str
    """``onnx`` (float32) or ``onnx-int8``."""
    texts: int
    top1: tuple[float, float]
    """Of model and graph: share of the texts whose nearest code is the right one."""
    same_code: float
    """Share of the texts whose nearest code is the same."""
    max_difference: float
    """Largest one of a number of a direction."""
    texts_per_second: tuple[float, float]
    threads: int
    bytes: tuple[int, int]
    """Size of encoder and head in float32, and of the graph."""

    def lines(self) -> list[str]:
        """For people."""
        (mine, its), (model, graph) = self.top1, self.texts_per_second
        return [
            f"top-1 on {self.texts:,} validation texts, by the distance to the codes: {mine:.4f} → {its:.4f} ({100 * (its - mine):+.2f} points); "
            f"the same code first for {self.same_code:.2%}",
            f"largest difference of a direction's numbers: {self.max_difference:.2g}",
            f"speed on {self.threads} thread{'s' if self.threads > 1 else ''} of this machine: torch {model:.0f} texts/s, ONNX Runtime {graph:.0f} texts/s "
            f"({graph / model:.2f} times)",
            f"size: {self.bytes[0] / 1e6:.1f} MB → {self.bytes[1] / 1e6:.1f} MB",
        ]


class _States(nn.Module):
    """An encoder's token states as a function of two tensors."""

    def __init__(self, encoder: Any):
        super().__init__()
        self.encoder = encoder

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        return self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state


class _Direction(nn.Module):
    """Encoder and head as a function of two tensors. The head's products are over vectors, with a bias: they stay in float32 (`graph.quantise`)."""

    def __init__(self, encoder: Any, head: CodesHead):
        super().__init__()
        first, last = head.residual[0], head.residual[2]
        assert isinstance(first, nn.Linear) and isinstance(last, nn.Linear)
        self.encoder, self.first, self.last = (
            encoder,
            first,
            nn.Linear(first.in_features + last.in_features, last.out_features),
        )
        with torch.no_grad():
            self.last.weight.copy_(torch.cat([head.linear.weight, last.weight], 1))
            self.last.bias.copy_(last.bias)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        hidden = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        weights = attention_mask.unsqueeze(-1).to(hidden.dtype)
        feature = nn.functional.normalize((hidden * weights).sum(1) / weights.sum(1), dim=-1)
        hidden = nn.functional.gelu(self.first(feature))
        return nn.functional.normalize(self.last(torch.cat([feature, hidden], -1)), dim=-1)


def write_onnx(
    output: Path, model: CodeSpace, table: CodeTable, max_tokens: int, *, int8: bool, source: Path
) -> Checked:
    """Write the graph of a model, its adapters folded in, into a folder, with ``export.json``; how it compares with the model.

    Args:
        int8: weights of the encoder's matrices and tables in 8 bits, one scale a row; the head stays in float32.
        source: where the model comes from, for messages.

    Raises:
        CheckpointError: the architecture cannot be traced, or the graph in float32 is not the same model.
        DataError: there are no validation texts.
    """
    encoder, path = model.encoder, output / layout.GRAPH
    module, pad = _Direction(encoder.model, model.head), encoder.tokenizer.pad_token_id or 0
    write_graph(module, path, output=OUTPUT, pad=pad, source=source, kind=type(encoder.model).__name__)
    check = functools.partial(_compare, output, module, model, table, max_tokens)
    checked = check("onnx", timed=not int8)
    if checked.max_difference > LARGEST_DIFFERENCE:
        raise CheckpointError(
            f"the ONNX graph of {source} is not the same model: its directions differ by {checked.max_difference:.2g}; nothing was written"
        )
    if int8:
        quantise(path)
        checked = check("onnx-int8", timed=True)
    (output / "export.json").write_text(json.dumps(asdict(checked), indent=1) + "\n", encoding="utf-8")
    return checked


@torch.inference_mode()
def _compare(
    folder: Path, module: _Direction, model: CodeSpace, table: CodeTable, max_tokens: int, form: str, *, timed: bool
) -> Checked:
    texts = table.split("validation")
    if not texts:
        raise DataError("the model's data hold no validation texts: there is nothing to compare a graph on")
    texts = texts[:: max(1, len(texts) // SAMPLE)][:SAMPLE]
    tokens = model.encoder.tokenize([text.text for text in texts], max_tokens)
    rows = list(budget_batches([len(ids) for ids in tokens], BUDGET))
    batches = [_padded([tokens[row] for row in batch], model.encoder.tokenizer.pad_token_id or 0) for batch in rows]
    graph = Graph(folder / layout.GRAPH, OUTPUT, "curricle export")

    def ask(which: nn.Module) -> Tensor:
        return torch.cat([which(*batch) for batch in batches])

    mine, its = ask(module), ask(graph)
    index, column = table.tree.index, {code: i for i, code in enumerate(table.leaves)}
    target = np.array([column[index[texts[row].code]] for batch in rows for row in batch])
    nearest = [_nearest(model.head, found, table) for found in (mine, its)]
    times = best_times([functools.partial(ask, each) for each in (module, graph)], SECONDS) if timed else [1.0, 1.0]
    return Checked(
        form,
        len(texts),
        (float((nearest[0] == target).mean()), float((nearest[1] == target).mean())),
        float((nearest[0] == nearest[1]).mean()),
        float((mine - its).abs().max()),
        (len(texts) / times[0], len(texts) / times[1]),
        torch.get_num_threads(),
        (sum(p.numel() for p in module.parameters()) * 4, size(folder)),
    )


def in_8_bits(encoder: Encoder, cache: Path) -> Encoder:
    """An encoder whose token states come of its graph in 8 bits, which is made once and kept. A feature depends a little on the texts of its batch, which share a scale.

    Args:
        encoder: without adapters, or with folded ones.
        cache: where the graph is kept, under the digest of what it was made from.

    Raises:
        CheckpointError: the architecture cannot be traced.
        ModuleNotFoundError: a library of the extra `onnx` is missing.
    """
    require_onnx()
    place = cache / f"encoder-int8-{STATES}-{encoder.digest()[:32]}"
    if os.path.lexists(place) and not place.is_dir():
        raise CheckpointError(f"{place} is no folder, and the encoder in 8 bits is kept there; move it away")
    if not _is_whole(place):
        if place.is_dir():  # what power loss and full disks leave
            shutil.rmtree(place)
        _keep(encoder, place)
    quick = copy.copy(encoder)
    quick.states = Graph(place / layout.GRAPH, STATES, "curricle assign --fast").forward
    return quick


def _keep(encoder: Encoder, place: Path) -> None:
    model, pad = encoder.model, encoder.tokenizer.pad_token_id or 0
    try:
        with working("writing the encoder in 8 bits"), new_folder(place) as fresh:
            graph = fresh / layout.GRAPH
            write_graph(_States(model), graph, output=STATES, pad=pad, source=encoder.config.encoder, kind=type(model).__name__)  # fmt: skip
            quantise(graph)
            (fresh / _SUM).write_text(sha256_of(graph), encoding="ascii")
    except (OutputError, OSError):
        if not _is_whole(place):  # else another process was quicker
            raise


_SUM = "sha256"


def _is_whole(place: Path) -> bool:
    """Whether a folder holds a graph, and the one that was written."""
    try:
        with open_plain(place / _SUM) as file:
            return file.read(100) == sha256_of(place / layout.GRAPH).encode()
    except OSError:
        return False


def _padded(ids: list[list[int]], pad: int) -> tuple[Tensor, Tensor]:
    longest = max(map(len, ids))
    batch = torch.tensor([row + [pad] * (longest - len(row)) for row in ids])
    return batch, torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in ids])


def _nearest(head: CodesHead, directions: Tensor, table: CodeTable) -> np.ndarray:
    """The column of the nearest leaf of each text."""
    leaves = torch.from_numpy(table.leaves)
    return head.to_codes(directions, head.text_depth(len(directions)), leaves).argmin(1).numpy()
