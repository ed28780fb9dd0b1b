"""A trained model as people use it: codes for texts, and what it learned as files. torch is imported with the first question."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from curricle.hyperbolic import Points


class Coder:
    """The verbs search, assign, export and points of one checkpoint.

    Args:
        folder: the checkpoint.
        data_dir: called for the prepared data that it was trained with.
    """

    def __init__(self, folder: Path, data_dir: Callable[[], Path]):
        self._folder, self._data_dir = folder, data_dir

    def search(self, texts: Sequence[str], top: int) -> list[list[Any]]:
        """The `top` best codes of each text (`families.codes.scorer.Hit`), best first."""
        return self._scorer.search(list(texts), top)

    def explain(self, texts: Sequence[str], hits: list[list[Any]]) -> list[list[Any]]:
        """What each of the hits that `search` gave for these texts rests on (`families.codes.explain.Reasons`)."""
        return self._scorer.explain(list(texts), hits)

    def assign(self, texts: Sequence[str], top: int) -> list[list[Any]]:
        """The same as `search`, for many texts at once."""
        return self._scorer.search(list(texts), top)

    def assign_fast(self, texts: Sequence[str], top: int) -> list[list[Any]]:
        """The same with texts encoded in 16 bits where the processor is fast in them, else in 8 (extra `onnx`)."""
        return self._scorer.search_fast(list(texts), top)

    def sureness(self, max_error: float) -> tuple[float, float, int]:
        """(the confidence from which on at most `max_error` of the first codes are wrong, above 1 where there is none; the share of
        validation texts that reach it; how many those were)."""
        least, confidence = self._scorer.threshold(max_error), self._scorer.tuning.confidence
        return least, float((confidence >= least).mean()) if len(confidence) else 0.0, len(confidence)

    def kept_files(self) -> list[Path]:
        """The scorer's files in the cache, below the working folder; they are made now, if they are not there."""
        return self._scorer.files

    def export(self, output: Path, kind: str) -> list[str]:
        """Write the codes' coordinates or a folder for other programs (`families.codes.use.export`), or one for TensorBoard's ``projector``; what was
        measured of it, in lines."""
        if kind == "projector":
            from curricle.families.codes.projector import write
            from curricle.store.ours import new_folder, require_free

            require_free(output)
            with new_folder(output) as fresh:
                write(self._folder, self._data_dir(), fresh)
            return []
        from curricle.families.codes.use import export

        return export(self._folder, self._data_dir(), output, kind)

    def place(self, texts: Sequence[str], drawn: Mapping[str, Any]) -> list[list[float]]:
        """Where texts stand on the disc of the codes.

        Args:
            drawn: the disc, as `families.codes.findings` gives it.
        """
        import numpy as np

        from curricle.families.codes.disc import place

        scorer, drawn_at = self._scorer, {code: i for i, code in enumerate(drawn["codes"])}
        asked, tree = scorer.memory.ask(len(texts)), scorer.table.tree
        at = []
        for leaf in scorer.leaves:
            while tree.codes[leaf] not in drawn_at:  # of large trees the deepest levels are left out
                leaf = tree.parent[leaf]
            at.append(drawn_at[tree.codes[leaf]])
        points, depths = np.array(drawn["points"]).reshape(-1, 2) / 1e4, np.array(drawn["depths"])
        shares = np.exp(asked.distances(asked.directions(asked.features(list(texts)))))
        return place(shares, np.array(at), points, depths == depths.max()).round(4).tolist()

    def points(self, texts: Sequence[str] | None = None) -> Points:
        """Where the codes are in hyperbolic space, or where texts are."""
        from curricle.families.codes.use import points

        return points(self._folder, self._data_dir(), texts)

    @functools.cached_property
    def _scorer(self) -> Any:
        from curricle.families.codes.scorer import Scorer

        return Scorer.load(self._folder, self._data_dir())
