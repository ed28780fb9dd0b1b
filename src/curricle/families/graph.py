"""A model as an ONNX graph: written by torch's exporter, in 8 bits by ONNX Runtime's quantiser, run on the CPU, and timed beside the model it was made from.

Knows no family: a graph takes input_ids and attention_mask, int64 [texts, tokens], and gives one output by name.
"""

from __future__ import annotations

import importlib
import itertools
import logging
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from curricle.errors import CheckpointError
from curricle.store import layout

INPUTS = ("input_ids", "attention_mask")


def require_onnx() -> None:
    """Import what writing and running a graph needs: a missing library is a sentence, before anything is done."""
    for needed in ("onnx", "onnxscript", "onnxruntime"):
        importlib.import_module(needed)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what torch's exporter and ONNX Runtime's quantiser tell of themselves."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def write_graph(model: torch.nn.Module, path: Path, *, output: str, pad: int, source: object, kind: str) -> None:
    """The graph of a function of (input_ids, attention_mask), for any number of texts and tokens.

    Args:
        output: name of what it returns.
        pad: a token that it knows.
        source: where the model comes from, for the message.
        kind: its architecture, for the message.

    Raises:
        CheckpointError: torch cannot trace this architecture.
    """
    ids = torch.full((2, 9), pad, dtype=torch.int64)
    mask = torch.ones_like(ids)
    mask[1, 6:] = 0
    free = {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}
    try:
        with _quiet(), torch.no_grad():
            program = torch.onnx.export(
                model.eval(),
                (ids, mask),
                dynamo=True,
                input_names=list(INPUTS),
                output_names=[output],
                dynamic_shapes=(free, free),
                verbose=False,
            )
            assert program is not None  # with dynamo=True
            program.save(str(path))
            _part_norms(path)
    except Exception as error:  # an architecture can make the exporter fail in any way
        raise CheckpointError(
            f"{source} ({kind}) cannot be written as ONNX by torch {torch.__version__}: {_first_line(error)}; nothing was written"
        ) from None


def _part_norms(path: Path) -> None:
    """Write the sums before the layer norms as `Sum`, not `Add`: ONNX Runtime makes one `SkipLayerNormalization` of an `Add` and its norm, which takes
    four times as long as both on a CPU (1.32)."""
    import onnx

    graph = onnx.load(path, load_external_data=False)
    made = {output: node for node in graph.graph.node for output in node.output}
    for node in graph.graph.node:
        before = made.get(node.input[0]) if node.op_type == "LayerNormalization" else None
        if before is not None and before.op_type == "Add":
            before.op_type = "Sum"
    onnx.save(graph, path)


def quantise(path: Path) -> None:
    """The graph with weights of matrices and tables in 8 bits, in its place; activations are quantised as they come (dynamic quantisation).

    A matrix has a scale a row of its weights. Products of two-dimensional inputs (`Gemm`: a head over one vector a text) stay in float32: they cost nothing.
    """
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    exact = path.with_suffix(".float32")
    path.rename(exact)
    nodes = onnx.load(exact, load_external_data=False).graph.node
    heads = [f"{node.name}{end}" for node in nodes if node.op_type == "Gemm" for end in ("", "_MatMul")]
    with _quiet():  # which renames a Gemm to what it makes of it
        quantize_dynamic(exact, path, per_channel=True, weight_type=QuantType.QInt8, nodes_to_exclude=heads)
    for part in path.parent.glob(f"{exact.name}*"):
        part.unlink()


class Graph(torch.nn.Module):
    """The graph of a file in the place of a model; uses as many threads as torch does.

    Raises:
        CheckpointError: it is no graph that ONNX Runtime reads, or takes and gives something else.
    """

    def __init__(self, path: Path, output: str, written_by: str):
        super().__init__()
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = torch.get_num_threads(), 1
        options.log_severity_level = 3
        try:
            self.session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
            names = {put.name for put in self.session.get_inputs()}, {put.name for put in self.session.get_outputs()}
        except Exception as error:  # what stands in a file can make the library fail in any way
            raise CheckpointError(f"{path} cannot be read by ONNX Runtime: {_first_line(error)}") from None
        self.output = output
        if names != (set(INPUTS), {output}):
            raise CheckpointError(
                f"{path} takes {', '.join(sorted(names[0]))} and gives {', '.join(sorted(names[1]))}; `{written_by}` writes graphs that take "
                f"input_ids and attention_mask and give {output}"
            )

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """What the graph gives for int64 [texts, tokens]."""
        inputs = dict(zip(INPUTS, (input_ids.numpy(), attention_mask.numpy()), strict=True))
        return torch.from_numpy(self.session.run([self.output], inputs)[0])


def best_times(runs: Sequence[Callable[[], Any]], seconds: float) -> list[float]:
    """Seconds of the best turn of each run, taken in turns for about `seconds` each: other work on the machine only slows."""
    best = [float("inf")] * len(runs)
    began = time.perf_counter()
    for turn in itertools.count():
        for which, run in enumerate(runs):
            start = time.perf_counter()
            run()
            best[which] = min(best[which], time.perf_counter() - start)
        if turn and time.perf_counter() - began > len(runs) * seconds:
            break
    return best


def size(folder: Path) -> int:
    """Bytes of a folder's graph, with what stands beside its file."""
    return sum(part.stat().st_size for part in folder.glob(f"{layout.GRAPH}*"))


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
