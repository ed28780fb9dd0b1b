"""The codes as TensorBoard's projector opens them: vectors, their names, and the file that tells it of both. Needs no torch."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

from curricle.families.codes.disc import TABLE, polar
from curricle.families.codes.prepare import CodeTable, load
from curricle.store import layout
from curricle.store.local import write_whole

CONFIG = "projector_config.pbtxt"
"""What the projector looks for in a run's folder."""
METADATA = "metadata.tsv"
BALL, TANGENT = "codes_poincare.tsv", "codes_tangent.tsv"


def write(checkpoint_dir: Path, data_dir: Path, output: Path) -> None:
    """Write the codes of a checkpoint into a folder (`FamilyEntry.projector`): once as points of the Poincaré ball, where they lie in circles by level, and once as tangent
    vectors at the origin, whose lengths are the distances from it.

    Args:
        output: TensorBoard's folder of the stage, or any other; files of these names are replaced.
    """
    table = load(data_dir)
    radius, direction = polar(load_file(checkpoint_dir / layout.WEIGHTS)[TABLE].astype(np.float64))
    tangent, ball = radius[:, None] * direction, np.tanh(radius / 2)[:, None] * direction
    output.mkdir(parents=True, exist_ok=True)
    write_whole(output / METADATA, lambda out: out.write(_names(table).encode()))
    for name, points in ((BALL, ball), (TANGENT, tangent)):
        write_whole(output / name, lambda out, points=points: np.savetxt(out, points, fmt="%.5f", delimiter="\t"))  # type: ignore[misc]
    embeddings = (("codes: Poincaré ball", BALL, ball.shape), ("codes: tangent space", TANGENT, tangent.shape))
    text = "".join(map(_embedding, *zip(*embeddings, strict=True)))
    write_whole(output / CONFIG, lambda out: out.write(text.encode()))


def _names(table: CodeTable) -> str:
    """One line a code, after the names of the columns."""
    tree = table.tree
    lines = ["code\ttitle\tlevel\ttop"]
    for i, code in enumerate(tree.codes):
        top = i
        while tree.parent[top] >= 0:
            top = int(tree.parent[top])
        cells = (code, table.channels["title"][i] or "", str(tree.levels[tree.depth[i] - 1]), _both(table, top))
        lines.append("\t".join(" ".join(cell.split()) for cell in cells))
    return "\n".join(lines) + "\n"


def _both(table: CodeTable, code: int) -> str:
    return f"{table.tree.codes[code]} {(table.channels['title'][code] or '')[:40]}"


def _embedding(name: str, file: str, shape: Sequence[int]) -> str:
    """One entry of the configuration, in the text form of protocol buffers."""
    return (
        f"embeddings {{\n  tensor_name: {json.dumps(name, ensure_ascii=False)}\n  tensor_path: {json.dumps(file)}\n  metadata_path: {json.dumps(METADATA)}\n"
        f"  tensor_shape: {shape[0]}\n  tensor_shape: {shape[1]}\n}}\n"
    )
