"""The same proof against a real bucket."""

import pytest

from curricle.steps.preflight import check_store
from curricle.store import open_store


def test_a_bucket_that_can_be_used_passes_and_is_left_empty(minio_uri: str):
    findings = list(check_store(minio_uri))
    assert [finding.name for finding in findings] == ["open", "write", "read", "list", "delete"] and all(
        finding.ok for finding in findings
    )
    assert list(open_store(minio_uri).list("")) == []


def test_wrong_credentials_are_found_at_the_first_write(minio_uri: str, monkeypatch: pytest.MonkeyPatch):
    with monkeypatch.context() as patched:
        patched.setenv("AWS_SECRET_ACCESS_KEY", "wrong-for-the-test")
        findings = list(check_store(minio_uri))
    assert [(finding.name, finding.ok) for finding in findings] == [("open", True), ("write", False)]
    assert "wrong credentials" in findings[1].detail
