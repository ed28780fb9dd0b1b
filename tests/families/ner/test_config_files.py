"""The shipped NER configuration: check 35 of the specification."""

from pathlib import Path

import pytest

from curricle.config.load import read_yaml
from curricle.errors import CheckpointError
from curricle.ner import resolve_checkpoint_path

CONFIG = Path(__file__).parents[3] / "config"


def test_a_learning_rate_in_scientific_notation_is_a_number(tmp_path):
    shipped = (CONFIG / "train_continued.yaml").read_text()
    (tmp_path / "guide.yaml").write_text(shipped.replace("  # learning_rate: 1e-5 ", "  learning_rate: 1e-5 "))
    tree = read_yaml(tmp_path / "guide.yaml").tree
    assert tree["training"]["learning_rate"] == 1e-5 and tree["data"]["strategy"] == "combined"


def test_an_experiment_names_files_that_are_there():
    for path in sorted((CONFIG / "experiment").glob("*.yaml")):
        tree = read_yaml(path).tree
        for key in ("data_config", "model_config", "train_config", "hpo_config", "env_config", "benchmark_config"):
            assert (CONFIG / tree[key]).is_file(), (path.name, key)


def test_the_shipped_source_path_needs_both_names():
    tree = read_yaml(CONFIG / "train_continued.yaml").tree
    with pytest.raises(CheckpointError, match="neither .* exists"):
        resolve_checkpoint_path(tree, None, "distilbert", "20251227_220407", environ={})
