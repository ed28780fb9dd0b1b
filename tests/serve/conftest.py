"""What the tests of the server share: a model of each family, trained once for all processes of a test run, and a server of each."""

import fcntl
import os

import pytest

from tests.families.conftest import tiny_encoder
from tests.serve import world

__all__ = ["tiny_encoder"]


@pytest.fixture(scope="session")
def once(tmp_path_factory):
    """Fill a folder of a name, where no other process of this test run has."""
    root = tmp_path_factory.getbasetemp()
    root = root.parent if os.environ.get("PYTEST_XDIST_WORKER") else root

    def made(name, make):
        folder = root / f"serve-{name}"
        with open(root / f"serve-{name}.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not folder.exists():
                folder.mkdir()
                make(folder)
        return folder / "store"

    return made


@pytest.fixture(scope="session")
def codes_store(once, tiny_encoder):
    return once("codes", lambda folder: world.train_codes(folder, tiny_encoder))


@pytest.fixture(scope="session")
def ner_store(once, tiny_encoder):
    return once("ner", lambda folder: world.train_ner(folder, tiny_encoder))


@pytest.fixture(scope="session")
def codes(codes_store):
    """A server of codes."""
    server = world.start(codes_store.parent)
    yield server
    server.stop()


@pytest.fixture(scope="session")
def ner(ner_store):
    """A server of entities."""
    server = world.start(ner_store.parent)
    yield server
    server.stop()
