"""Test metrics of a checkpoint, after a check that nothing that is measured was trained on."""

from __future__ import annotations

from pathlib import Path

from curricle.families.naics import metrics
from curricle.families.naics.texts import check_no_leak
from curricle.families.naics.use import Scorer, measure


def evaluate(checkpoint_dir: Path, data_dir: Path) -> dict[str, float]:
    """Retrieval on test texts (and on those of hidden codes, where there are any), and structure of all codes.

    Raises:
        DataError: an evaluation text is among the training texts.
    """
    scorer = Scorer.load(checkpoint_dir, data_dir)
    check_no_leak(scorer.table.texts)
    scores = measure(scorer, "test", "test") | measure(scorer, "cold", "cold")
    form = metrics.structure(scorer.model.head.between(), scorer.table.tree)
    return scores | {f"structure/{name}": value for name, value in form.items()}
