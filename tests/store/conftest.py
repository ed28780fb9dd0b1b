"""The stores that the laws are run over: a folder, a bucket of a real MinIO, and one of another distribution."""

import os
import socket
import uuid
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from curricle.store import GROUP, Store, open_store
from tests.installed import installed

LOCAL_MINIO = {
    "S3_ENDPOINT": "http://127.0.0.1:9000",
    "AWS_ACCESS_KEY_ID": "minio",
    "AWS_SECRET_ACCESS_KEY": "minio123",
}


@pytest.fixture
def minio_environment(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The variables of a MinIO that answers; skips, or with CURRICLE_REQUIRE_MINIO=1 fails, where none does."""
    environment = {name: os.environ.get(name, value) for name, value in LOCAL_MINIO.items()}
    address = urlsplit(environment["S3_ENDPOINT"])
    try:
        socket.create_connection((address.hostname, address.port or 80), timeout=2).close()
    except OSError as error:
        line = f"no MinIO at {environment['S3_ENDPOINT']} ({error}); set S3_ENDPOINT or start one: ../shared/cluster/cluster minio"
        if os.environ.get("CURRICLE_REQUIRE_MINIO") == "1":
            pytest.fail(line, pytrace=False)
        pytest.skip(line)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    return environment


@pytest.fixture
def minio_uri(minio_environment: dict[str, str]) -> Iterator[str]:
    """A prefix of its own in a real bucket, emptied afterwards."""
    base = f"minio://{os.environ.get('CURRICLE_TEST_BUCKET', 'mlpipeline')}/curricle-tests"
    name = uuid.uuid4().hex
    yield f"{base}/{name}"
    open_store(base).delete(name)


@pytest.fixture(scope="session")
def sqlite_scheme(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The store of `sqlite_store.py`, as another distribution offers one."""
    with installed(tmp_path_factory.mktemp("site"), GROUP, "sqlite", "tests.store.sqlite_store:SqliteStore"):
        yield


@pytest.fixture(params=["folder", "minio", "sqlite"])
def uri(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty place of each kind of store."""
    if request.param == "folder":
        return str(tmp_path / "store")
    if request.param == "sqlite":
        request.getfixturevalue("sqlite_scheme")
        return f"sqlite://{tmp_path}/store.db/runs"
    return request.getfixturevalue("minio_uri")


@pytest.fixture
def store(uri: str) -> Store:
    """An empty store of each kind."""
    return open_store(uri)
