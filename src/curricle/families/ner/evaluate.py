"""Test scores of a trained folder, by domain."""

from __future__ import annotations

from pathlib import Path

from curricle.errors import DataError
from curricle.families.ner.formats import split_file
from curricle.families.ner.predict import load_tagger
from curricle.families.ner.tagger import ScoredSet


def evaluate(checkpoint_dir: Path, data_dir: Path) -> dict[str, float]:
    """``test/f1`` and its kin over all test records (validation where there are none: ``val/...``), and by domain where there are two.

    ``unreachable`` counts the gold spans that no prediction can equal (`windows`).

    Args:
        checkpoint_dir: a trained folder.
        data_dir: prepared data, or any dataset folder.

    Raises:
        CheckpointError: the folder is no whole model.
        DataError: there is nothing to test on.
    """
    data_dir = Path(data_dir)
    prefix, path = "test", split_file(data_dir, "test")
    if path is None:
        prefix, path = "val", split_file(data_dir, "validation")
    if path is None:
        raise DataError(
            f"{data_dir} holds neither test nor validation records (test.json, validation.json, or .jsonl, .conll)"
        )
    tagger = load_tagger(checkpoint_dir)
    records = ScoredSet(path, tagger)
    if not records.data.windows:
        raise DataError(f"{path} holds no record with text: there is nothing to test on")
    scores, loss = records.score(tagger)
    for domain, values in scores.items():
        counts = records.unreachable
        values["unreachable"] = float(counts.total() if domain == "all" else counts[domain])
    out = {f"{prefix}/loss": loss} | {f"{prefix}/{name}": value for name, value in scores.pop("all").items()}
    for domain, values in scores.items():
        out |= {f"{prefix}/{domain}/{name}": value for name, value in values.items()}
    return out
