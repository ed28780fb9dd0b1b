"""What all tests share: the folder of real data, where there is one."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder `shared` beside the repository, with real data; skips where there is none."""
    folder = Path(os.environ.get("CURRICLE_SHARED", Path(__file__).parents[2] / "shared"))
    if not (folder / "data").is_dir():
        pytest.skip(f"no real data: {folder}/data is not there (set CURRICLE_SHARED)")
    return folder
