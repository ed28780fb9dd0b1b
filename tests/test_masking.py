"""Secrets are masked wherever they stand, and ordinary text is left as it is."""

import pickle

import pytest

from curricle import errors
from curricle.masking import holds_secret, masked


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("at https://anna:hunter2@host:5000/x?a=b, later", "at https://***@host:5000/x?a=b, later"),
        ("https://hunter2@host", "https://***@host"),
        ("'minio://key:hunter2@bucket/p'", "'minio://***@bucket/p'"),
        ("postgresql://u:hunt/er2@db/x", "postgresql://***@db/x"),
        ("postgresql://u:hunt@er2@db/x", "postgresql://***@db/x"),
        ("http://h/x?token=hunter2&b=1", "http://h/x?token=***&b=1"),
        ("http://h/x?X-Amz-Signature=hunter2", "http://h/x?X-Amz-Signature=***"),
        ("http://h/x?b=1&access_key=hunter2", "http://h/x?b=1&access_key=***"),
        ("Authorization: Bearer aGVsbG8gd29ybGQ", "Authorization: Bearer ***"),
        ("{'Authorization': 'Basic aGVsbG8gd29ybGQ='}", "{'Authorization': 'Basic ***'}"),
        ("AWS_SECRET_ACCESS_KEY=hunter2hunter2 x", "AWS_SECRET_ACCESS_KEY=*** x"),
        ("HF_TOKEN='hunter2hunter2'", "HF_TOKEN=***"),
    ],
)
def test_a_secret_is_masked(text, shown):
    assert masked(text) == shown and masked(shown) == shown


@pytest.mark.parametrize(
    "text",
    [
        *(
            "data_loader.token_budget=4096",
            "model.max_tokens=128",
            "--from-checkpoint a@b",
            "http://host:9000/a@b",
            "a@b.org",
        ),
        *(
            "s3://bucket/run@2/x",
            "set AWS_SECRET_ACCESS_KEY",
            "training.trainer.precision=auto",
            "Basic training is done",
        ),
        *("AWS_SECRET_ACCESS_KEY: [secret, key]", "http://h/x?tokens_per_step=7", "http://h/x?page=2"),
    ],
)
def test_ordinary_text_is_left_alone(text):
    assert masked(text) == text and not holds_secret(text)


@pytest.mark.parametrize(
    "text", ["https://anna:pw@host", "https://token@host", "sqlite+x://a:b@c", "http://h/?sig=abc"]
)
def test_a_setting_with_a_secret_is_seen(text):
    assert holds_secret(text)


def test_a_user_without_a_password_is_no_secret_of_a_setting():
    assert not holds_secret("postgresql://anna@db/mlflow")


def test_what_the_environment_keeps_secret_is_masked_wherever_it_stands(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_abc/def+ghi")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "hf_abc/def+ghi-longer")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://anna:correct-horse@host")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAIOSFODNN7EXAMPLE")
    monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", "/var/run/tokens/aws")
    monkeypatch.setenv("SHORT_TOKEN", "minio")
    said = "hf_abc/def+ghi hf_abc/def+ghi-longer hf_abc%2Fdef%2Bghi correct-horse AKIAIOSFODNN7EXAMPLE /var/run/tokens/aws minio"
    assert masked(said) == "*** *** *** *** ***MPLE /var/run/tokens/aws minio"


KINDS = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.CurricleError)]


@pytest.mark.parametrize("kind", KINDS)
def test_no_error_of_ours_shows_a_secret(kind):
    error = kind("cannot open https://anna:hunter2@host")
    assert "hunter2" not in f"{error} {error!r} {getattr(error, 'problems', '')}" and "https://***@host" in str(error)
    assert "hunter2" not in str(pickle.loads(pickle.dumps(error)))
