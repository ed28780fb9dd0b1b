"""A small folder of a transformers model, as other programs leave it."""

import json
import struct
from pathlib import Path

HEADER = json.dumps({"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
WEIGHTS = struct.pack("<Q", len(HEADER)) + HEADER + b"\0\0\0\0"


def checkpoint(path: Path, **files: str | bytes | None) -> Path:
    path.mkdir(parents=True)
    content = {
        "config.json": json.dumps(
            {"architectures": ["BertForTokenClassification"], "id2label": {"0": "O", "1": "B-X"}}
        ),
        "model.safetensors": WEIGHTS,
        "tokenizer.json": "{}",
    } | {k.replace("__", "."): v for k, v in files.items()}
    for name, data in content.items():
        if data is not None:
            (path / name).write_bytes(data if isinstance(data, bytes) else data.encode())
    return path
