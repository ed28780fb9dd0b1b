"""A trained model as people use it: codes for texts, and what it learned as files. torch is imported with the first question."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any


class IndustryCoder:
    """The verbs search, assign and export of one checkpoint.

    Args:
        folder: the checkpoint.
        data_dir: called for the prepared data that it was trained with.
    """

    columns = ("naics_code", "naics_title", "naics_confidence")
    """What `assign` gives for each text."""

    def __init__(self, folder: Path, data_dir: Callable[[], Path]):
        self._folder, self._data_dir = folder, data_dir

    def search(self, texts: Sequence[str], top: int) -> list[list[Any]]:
        """The `top` best codes of each text (`families.naics.use.Hit`), best first."""
        return self._scorer.search(list(texts), top)

    def assign(self, texts: Sequence[str]) -> list[tuple[str, ...]]:
        """Code, title and calibrated confidence of each text, as `columns` names them."""
        return [(hit.code, hit.title, f"{hit.confidence:.4f}") for (hit, *_) in self.search(texts, 1)]

    def export(self, output: Path, kind: str) -> None:
        """Write the codes' coordinates (``npz``, ``parquet``), or a ``huggingface`` folder."""
        from curricle.families.naics.use import export

        export(self._folder, self._data_dir(), output, kind)

    @functools.cached_property
    def _scorer(self) -> Any:
        from curricle.families.naics.use import Scorer

        return Scorer.load(self._folder, self._data_dir())
