"""Use a trained NAICS model: which one is meant, its files on this machine, and the streaming assignment of a CSV."""

from __future__ import annotations

import csv
import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from curricle.errors import DataError
from curricle.families import family
from curricle.steps.resolve import resolve_source
from curricle.steps.show import latest_stage
from curricle.store.manifest import fetch

BATCH = 512
ADDED = ("naics_code", "naics_title", "naics_confidence")


@dataclass(frozen=True)
class Model:
    """A checkpoint and its data, both local and verified."""

    uri: str
    folder: Path
    data_dir: Path
    data_uri: str

    def scorer(self) -> Any:
        """What `search` and `assign` rank codes with."""
        from curricle.families.naics.use import Scorer

        return Scorer.load(self.folder, self.data_dir)

    def export(self, output: Path, kind: str) -> None:
        """Write the codes or a model folder."""
        from curricle.families.naics.use import export

        export(self.folder, self.data_dir, output, kind)

    def evaluate(self, data_uri: str = "") -> dict[str, float]:
        """Test metrics on the model's own data, or on other prepared data."""
        data_dir = fetch(data_uri, Path(".curricle"))[0] if data_uri else self.data_dir
        return family("naics").load("evaluate")(self.folder, data_dir)


def open_model(model: str, store_uri: str, cache_dir: Path = Path(".curricle")) -> Model:
    """Open a NAICS model.

    Args:
        model: a stage name, or the path or URI of a checkpoint or a stage; empty takes the newest complete stage.
        store_uri: where stages are looked for.

    Raises:
        CheckpointError, StoreError: there is none, or it is not whole.
    """
    source = resolve_source(model or latest_stage(store_uri, "naics"), store_uri)
    folder, manifest = fetch(source.uri, cache_dir)
    data_uri = manifest.lineage.get("data_uri") or ""
    data_dir, _ = fetch(data_uri, cache_dir)
    return Model(source.uri, folder, data_dir, data_uri)


def assign_csv(source: Path, column: str, output: Path, open_scorer: Callable[[], Any]) -> int:
    """Stream a CSV through the scorer; the output appears only when it is whole.

    Args:
        source: UTF-8 CSV with a header.
        column: the text column.
        output: keeps every column and adds `ADDED`.
        open_scorer: called once the header is known to be good.

    Returns:
        The number of rows written.

    Raises:
        DataError: no such column, a column of ours is there already, or a row has more or fewer cells than the header.
    """
    with source.open(encoding="utf-8-sig", newline="") as lines:
        rows = csv.DictReader(lines)
        header = list(rows.fieldnames or [])
        if column not in header:
            raise DataError(
                f"{source} has no column {column!r}; its columns: {', '.join(header) or 'none (the file is empty)'}"
            )
        clash = [name for name in ADDED if name in header]
        if clash:
            raise DataError(f"{source} already has the column {', '.join(clash)}; rename it first")
        scorer = open_scorer()
        handle, temporary = tempfile.mkstemp(dir=output.parent, prefix=f".{output.name}.")
        try:
            with os.fdopen(handle, "w", encoding="utf-8", newline="") as out:
                writer = csv.DictWriter(out, [*header, *ADDED])
                writer.writeheader()
                count = 0
                for batch in _batches(rows, source):
                    hits = scorer.search([row[column] for row in batch], 1)
                    for row, (hit, *_) in zip(batch, hits, strict=True):
                        writer.writerow(
                            row
                            | {
                                "naics_code": hit.code,
                                "naics_title": hit.title,
                                "naics_confidence": f"{hit.confidence:.4f}",
                            }
                        )
                    count += len(batch)
            os.replace(temporary, output)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
    return count


def _batches(rows: csv.DictReader, source: Path) -> Iterator[list[dict[str, str]]]:
    def checked() -> Iterator[dict[str, str]]:
        for number, row in enumerate(rows, start=1):
            if None in row or None in row.values():
                raise DataError(f"{source}, row {number} (line {rows.line_num}): not as many cells as the header has")
            yield row

    stream = checked()
    while batch := list(islice(stream, BATCH)):
        yield batch
