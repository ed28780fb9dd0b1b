"""A cluster, for the tutorial that needs one."""

import os

import pytest


@pytest.fixture
def kubeconfig() -> str:
    path = os.environ.get("KUBECONFIG", "")
    if not path:
        pytest.skip("no cluster: KUBECONFIG is not set")
    return path
