"""What all tests share: the folder of real data, where there is one, and which tests come first."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

os.environ.setdefault(
    "CURRICLE_STORE_PATIENCE", "20"
)  # a test that meets a dead server by mistake should not take minutes

os.environ["PYTHONPATH"] = os.pathsep.join(
    filter(None, [os.environ.get("PYTHONPATH"), str(Path(__file__).parents[1])])
)  # the processes that tests start import `tests`, and nothing from the working folder


def pytest_addoption(parser: pytest.Parser) -> None:
    """How long the kill harness goes on (`make test-faults`)."""
    parser.addoption("--kills", type=int, default=200, help="kills of the long form of tests/faults")
    parser.addoption("--pairs", type=int, default=5, help="how often each pair of commands of tests/faults runs")
    parser.addoption("--kills-seed", type=int, default=1, help="what draws processes, moments and signals")


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder `shared` beside the repository, with real data; skips where there is none."""
    folder = Path(os.environ.get("CURRICLE_SHARED", Path(__file__).parents[2] / "shared"))
    if not (folder / "data").is_dir():
        pytest.skip(f"no real data: {folder}/data is not there (set CURRICLE_SHARED)")
    return folder


@pytest.fixture
def dead() -> Callable[[Path], Path]:
    """Renames a scratch folder as if a process that has ended had made it; its new path."""

    def rename(folder: Path) -> Path:
        process = subprocess.Popen([sys.executable, "-c", ""])
        process.wait()
        return folder.rename(folder.with_name(folder.name.replace(f"{os.getpid()}-", f"{process.pid}-")))

    return rename


LONGEST = (
    "tests/docs/test_tutorials.py",
    "tests/chains/test_naics_chain.py",
    "tests/kfp_pipelines/test_continued.py",
    "tests/test_readme.py",
    "tests/laws/test_families.py",
    "tests/cli/test_experiment.py",
    "tests/chains/test_ner_chain.py",
    "tests/families/codes/test_task.py",
    "tests/training/test_outage.py",
    "tests/training/test_distributed.py",
    "tests/training/test_job.py",
    "tests/kfp_pipelines/test_submit.py",
    "tests/families/ner/test_levers.py",
    "tests/families/ner/test_export.py",
    "tests/launch/test_agent.py",
    "tests/families/ner/test_words.py",
    "tests/launch/test_local.py",
    "tests/serve/test_server.py",
    "tests/families/codes/test_prepare.py",
    "tests/chains/test_codes_further.py",
    "tests/families/ner/test_job.py",
)
"""Files that take half a minute of a processor or more, slow tests included, the longest first."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first: a process takes one file at a time (`--dist loadfile`), so that what its tests share is made once."""
    rank = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: rank.get(item.nodeid.partition("::")[0], len(rank)))
