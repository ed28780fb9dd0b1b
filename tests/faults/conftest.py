"""What the faults share with other tests."""

from tests.families.conftest import tiny_encoder
from tests.store.conftest import minio_environment, minio_uri

__all__ = ["minio_environment", "minio_uri", "tiny_encoder"]
