"""Open a trained model, say where it puts codes and texts, and export codes and encoder. What scores texts stands in `scorer`."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from curricle.cards.card import FILE, gather, text_of
from curricle.errors import OutputError
from curricle.families.codes import onnx, sentence
from curricle.families.codes.card import exported, placing
from curricle.families.codes.config import CodesConfig
from curricle.families.codes.geometry import exp0, polar, time
from curricle.families.codes.prepare import CodeTable, load
from curricle.families.codes.scorer import config_of
from curricle.families.codes.task import ADAPTER, CodeSpace, load_model, read_checkpoint
from curricle.families.graph import require_onnx
from curricle.hyperbolic import Points, at
from curricle.store import layout
from curricle.store.local import write_whole
from curricle.store.ours import new_folder, require_free


def open_checkpoint(folder: Path, data_dir: Path) -> tuple[CodesConfig, CodeTable, CodeSpace]:
    """The model of a checkpoint folder, on the CPU.

    Raises:
        CheckpointError: the folder holds no NAICS checkpoint, or its weights do not fit.
    """
    config = config_of(folder)
    table = load(data_dir)
    model = load_model(config, table, torch.device("cpu"))
    model.load_weights(read_checkpoint(folder, config.model.encoder))
    model.eval()
    return config, table, model


def points(folder: Path, data_dir: Path, texts: Sequence[str] | None) -> Points:
    """Where the checkpoint in a folder puts its codes, or texts (each by its tokens alone, at the radius of the finest level)."""
    config, table, model = open_checkpoint(folder, data_dir)
    edge = config.model.scale
    if texts is None:
        columns = _columns(table, model)
        return Points(table.codes, columns["coordinates"], tuple(columns["title"].tolist()), edge=edge)
    tokens = model.encoder.tokenize(list(texts), config.model.max_tokens)
    if not tokens:
        return Points((), np.empty((0, config.model.dim)), edge=edge)
    with torch.inference_mode():
        directions = model.head.direction(model.encoder.encode(tokens, config.data_loader.token_budget))
        radii = model.head.radii()[model.head.text_depth(len(tokens)) - 1]
    return Points(tuple(texts), at(radii.numpy(), directions.numpy()), edge=edge)


FOLDERS = ("huggingface", "sentence-transformers", "onnx", "onnx-int8")
"""Formats that are a folder; the others are a file."""


def export(folder: Path, data_dir: Path, output: Path, kind: str) -> list[str]:
    """Write the codes (``npz``, ``parquet``: code, level, title, space coordinates, time, radius), or a folder for other programs.

    Every folder has the tokenizer, the codes (``codes.npz``) and a model card; beside them

    - ``huggingface``: the encoder with its adapters merged in (`AutoModel` loads it), the adapters as they are in `adapter/`
      (`PeftModel` loads them onto the base encoder), and the head;
    - ``sentence-transformers``: encoder and head (`SentenceTransformer` loads it, and gives unit directions);
    - ``onnx``, ``onnx-int8``: both as one graph, compared with the model on validation texts.

    It appears whole or not at all.

    Returns:
        What was measured of a graph, in lines for people.

    Raises:
        OutputError: `output` is there already, or there is no room for it.
        CheckpointError: the graph cannot be made, or differs from the model.
    """
    require_free(output, for_file=kind not in FOLDERS)
    if kind.startswith("onnx"):
        require_onnx()
    config, table, model = open_checkpoint(folder, data_dir)
    columns = _columns(table, model)
    said: list[str] = []
    if kind == "npz":
        write_whole(output, lambda out: np.savez(out, **columns))
    elif kind == "parquet":
        import pyarrow
        import pyarrow.parquet

        columns.pop("text_radius")
        points = columns.pop("coordinates")
        columns |= {f"x{i}": points[:, i] for i in range(points.shape[1])}
        table_of_codes = pyarrow.table(columns)
        write_whole(output, lambda out: pyarrow.parquet.write_table(table_of_codes, out))
    else:
        with new_folder(output) as fresh:
            try:
                said = _export_folder(folder, fresh, config, table, model, kind)
                np.savez(fresh / "codes.npz", **columns)
            except SafetensorError as error:
                raise OutputError(f"cannot write the export {output}: {error}; nothing was written") from error
    return said


@torch.inference_mode()
def _columns(table: CodeTable, model: CodeSpace) -> dict[str, Any]:
    """What is exported of the codes, by name: an array each, and the radius of texts (a number)."""
    head = model.head
    radius, direction = head.codes()
    points = exp0(radius.double().unsqueeze(-1) * direction.double(), 1.0)
    leaf = np.zeros(len(table.codes), dtype=bool)
    leaf[table.leaves] = True
    return {
        "code": np.array(table.codes),
        "level": table.level,
        "title": np.array([t or "" for t in table.channels["title"]]),
        "leaf": leaf,
        "radius": polar(radius.double().unsqueeze(-1) * direction.double())[0].numpy(),
        "time": time(points, 1.0).numpy(),
        "coordinates": points.numpy(),
        "text_radius": head.radii()[head.text_depth(1) - 1].double().numpy()[0],
    }


def _export_folder(
    folder: Path, output: Path, config: CodesConfig, table: CodeTable, model: CodeSpace, kind: str
) -> list[str]:
    encoder, tokens = model.encoder, config.model.max_tokens
    adapted, seen, said = encoder.adapted, gather(str(folder)), list[str]()
    if kind == "huggingface" and adapted:
        encoder.model.peft_config[
            "default"
        ].base_model_name_or_path = config.model.encoder  # not where the base lies on this machine
        encoder.model.save_pretrained(output / ADAPTER)
        (output / ADAPTER / FILE).unlink(missing_ok=True)  # peft's is a form to be filled in
    encoder.fold()
    encoder.tokenizer.model_max_length = tokens
    encoder.tokenizer.save_pretrained(output)
    if kind.startswith("onnx"):
        said = onnx.write_onnx(output, model, table, tokens, int8=kind == "onnx-int8", source=folder).lines()
        card = placing(seen, adapted, onnx.LIBRARY, onnx.WAYS, said)
    else:
        encoder.model.save_pretrained(output)
    if kind == "sentence-transformers":
        sentence.write_sentence_transformer(output, encoder.model, model.head, tokens)
        card = placing(seen, adapted, sentence.LIBRARY, sentence.WAYS, [])
    if kind == "huggingface":
        head = {f"head.{name}": tensor.contiguous() for name, tensor in model.head.state_dict().items()}
        save_file(head, output / "head.safetensors")
        (output / "codes.json").write_text(json.dumps(list(table.codes)) + "\n", encoding="utf-8")
        card = exported(seen, len(table.codes), adapted)
    shutil.copyfile(folder / layout.CONFIG, output / "curricle.yaml")
    (output / FILE).write_text(text_of(card), encoding="utf-8")
    return said
