"""A trained model as people use it: the entities of texts, and how long that takes. torch is imported with the first question."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from curricle.families.ner.config import NerConfig
from curricle.families.ner.formats import load_records, split_file

_log = logging.getLogger(__name__)


class EntityTagger:
    """The verb predict of one checkpoint.

    Args:
        folder: the checkpoint.
        data_dir: not called; tagging needs no data.
    """

    def __init__(self, folder: Path, data_dir: Callable[[], Path]):
        self._folder = folder

    def predict(self, texts: Sequence[str], threshold: float = 0.0) -> list[list[dict[str, Any]]]:
        """Per text its spans: ``{"start", "end", "label", "text", "score"}``, characters, end exclusive, in text order.

        Args:
            threshold: spans whose score, the probability that they are exactly right, is lower are left out.
        """
        from curricle.families.ner.predict import predict

        return predict(self._tagger, list(texts), threshold)

    @functools.cached_property
    def _tagger(self) -> Any:
        from curricle.families.ner.predict import load_tagger

        tagger = load_tagger(self._folder)
        if tagger.calibration is None:
            _log.warning("%s holds no calibration.json: scores are the model's own, not calibrated", self._folder)
        return tagger


@dataclass(frozen=True)
class LatencyProbe:
    """What latency is measured with; satisfies `steps.latency.Probe`."""

    run: Callable[[list[str]], Any]
    """Tags one batch of texts."""
    texts: list[str]
    source: str
    """Where the texts come from."""


def latency(checkpoint_dir: Path, config: NerConfig, max_length: int | None) -> LatencyProbe:
    """A tagger and the test texts of the experiment's own dataset (validation, else training texts where there are none).

    Args:
        max_length: window length; None keeps the model's.
    """
    from curricle.families.ner.predict import load_tagger, predict

    tagger = load_tagger(checkpoint_dir)
    tagger.max_tokens = max_length or tagger.max_tokens
    data = Path(config.data.new_dataset_path)
    source = next(path for split in ("test", "validation", "train") if (path := split_file(data, split)))
    return LatencyProbe(
        lambda batch: predict(tagger, batch), [record["text"] for record in load_records(source)], str(source)
    )
