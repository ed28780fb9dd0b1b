"""What `import curricle` offers: short, lazy, documented, and of use in three lines."""

import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import curricle

ROOT = Path(__file__).parents[1]


def test_every_public_name_is_there_and_documented():
    for name in curricle.__all__:
        value = getattr(curricle, name)
        assert inspect.getdoc(value), name
        assert name in dir(curricle)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = curricle.nothing


def test_importing_it_loads_nothing_heavy():
    code = "import curricle, sys; curricle.plan, curricle.open_model; print(sorted({'torch', 'kfp', 'kubernetes', 'mlflow', 'numpy'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"


def test_a_plan_takes_overrides_as_mapping_or_as_on_the_command_line(tmp_path):
    store = f"paths.store_uri={tmp_path}/store"
    one = curricle.plan(
        ROOT / "config/config.yaml", chain="chain_smoke", overrides=[store, "training.learning_rate=0.5"]
    )
    two = curricle.plan(
        ROOT / "config/config.yaml",
        stages=["01_stage", "02_stage"],
        overrides={
            "paths.store_uri": f"{tmp_path}/store",
            "training.learning_rate": 0.5,
            "training.trainer.max_epochs": 4,
        },
    )
    assert one.stages[0].digest == two.stages[0].digest and not (tmp_path / "store").exists()


@pytest.mark.parametrize("asked", [{}, {"chain": "chain_smoke", "stages": ["01_stage"]}])
def test_what_to_train_is_named_exactly_once(asked):
    with pytest.raises(ValueError, match="either chain"):
        curricle.plan(ROOT / "config/config.yaml", **asked)


def test_errors_are_what_the_guide_catches():
    assert issubclass(curricle.ConfigError, ValueError)
    assert issubclass(curricle.MissingDataError, FileNotFoundError) and issubclass(
        curricle.MissingDataError, curricle.DataError
    )
    with pytest.raises(FileNotFoundError, match="not found"):
        curricle.combine_datasets(None, "absent", "new_only")
    with pytest.raises(ValueError, match="Invalid strategy"):
        curricle.combine_datasets("a", "b", "mixed")
