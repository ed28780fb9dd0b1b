"""The official client is opened when it is needed, and not before."""

import pytest

from curricle.errors import JobError
from curricle.launch.kubernetes.api import KubernetesApi
from curricle.launch.kubernetes.pytorchjob import PYTORCHJOB


def test_without_a_cluster_the_first_request_says_so(tmp_path):
    api = KubernetesApi(PYTORCHJOB, "kubeflow", kubeconfig=str(tmp_path / "none"))
    for ask in (lambda: api.get_job("x"), lambda: api.list_pods("x"), lambda: api.serves("g", "v1", "r")):
        with pytest.raises(JobError, match="no cluster") as caught:
            ask()
        assert (caught.value.reason, caught.value.exit_code) == ("configuration", 2)
