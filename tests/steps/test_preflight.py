"""A place is proved usable, or the verb that fails is named with what to do."""

from pathlib import Path

import pytest

from curricle.errors import StoreError
from curricle.steps.preflight import check_store
from curricle.store.folder import FolderStore


def test_a_folder_that_can_be_used_passes_and_is_left_as_it_was(tmp_path: Path):
    (tmp_path / "mine").write_bytes(b"x")
    assert [(finding.name, finding.ok) for finding in check_store(str(tmp_path))] == [
        (verb, True) for verb in ["open", "write", "read", "list", "delete"]
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_a_place_that_cannot_be_opened_is_one_finding(tmp_path: Path):
    (finding,) = check_store("ftp://somewhere/else")
    assert (
        (finding.name, finding.ok) == ("open", False) and "ftp" in finding.detail and "docs/stores.md" in finding.advice
    )


def test_missing_variables_are_named_before_anything_is_sent(monkeypatch: pytest.MonkeyPatch):
    for name in [
        "S3_ENDPOINT",
        "AWS_ENDPOINT_URL",
        "AWS_ENDPOINT_URL_S3",
        "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY",
    ]:
        monkeypatch.delenv(name, raising=False)
    (finding,) = check_store("minio://bucket/x")
    assert not finding.ok and "S3_ENDPOINT" in finding.detail and "AWS_SECRET_ACCESS_KEY" in finding.detail


def test_a_place_that_cannot_be_written_stops_there_and_says_why():
    opened, written = check_store("/proc/no-place-to-write")
    assert opened.ok and (written.name, written.ok) == ("write", False)
    assert "/proc/no-place-to-write" in written.detail and "s3:PutObject" in written.advice


@pytest.mark.parametrize(
    ("verb", "advice"), [("read", "s3:GetObject"), ("list", "s3:ListBucket"), ("delete", "s3:DeleteObject")]
)
def test_each_verb_that_is_refused_is_named_and_the_rest_is_still_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verb: str, advice: str
):
    def refused(self, key):
        raise StoreError(f"{self.uri}: not allowed")

    monkeypatch.setattr(FolderStore, verb, refused)
    findings = {finding.name: finding for finding in check_store(str(tmp_path))}
    assert list(findings) == ["open", "write", "read", "list", "delete"]
    assert not findings[verb].ok and advice in findings[verb].advice and "not allowed" in findings[verb].detail


def test_a_store_that_gives_back_other_bytes_does_not_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(FolderStore, "read", lambda self, key: b"other")
    findings = {finding.name: finding for finding in check_store(str(tmp_path))}
    assert not findings["read"].ok and "read back 5 bytes" in findings["read"].detail
