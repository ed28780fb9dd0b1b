"""The official client is opened when it is needed, and not before."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from curricle.errors import JobError
from curricle.launch.kubernetes.api import KubernetesApi, Unreachable
from curricle.launch.kubernetes.pytorchjob import PYTORCHJOB


def test_without_a_cluster_the_first_request_says_so(tmp_path):
    api = KubernetesApi(PYTORCHJOB, "kubeflow", kubeconfig=str(tmp_path / "none"))
    for ask in (lambda: api.get_job("x"), lambda: api.list_pods("x"), lambda: api.serves("g", "v1", "r")):
        with pytest.raises(JobError, match="no cluster") as caught:
            ask()
        assert (caught.value.reason, caught.value.exit_code) == ("configuration", 2)


SAID = (
    'Internal error occurred: failed calling webhook "validator.pytorchjob.training-operator.kubeflow.org": failed to call webhook: '
    'Post "https://training-operator.kubeflow.svc:443/validate?timeout=10s": dial tcp 10.0.0.1:443: connect: connection refused'
)


def test_a_webhook_that_does_not_answer_is_named(tmp_path):
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *args):
            pass

        def do_POST(self):
            self.rfile.read(int(self.headers["Content-Length"]))
            data = json.dumps({"kind": "Status", "status": "Failure", "message": SAID, "code": 500}).encode()
            self.send_response(500)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    config = tmp_path / "kubeconfig"
    cluster = {"name": "c", "cluster": {"server": f"http://127.0.0.1:{server.server_port}"}}
    context = {"name": "x", "context": {"cluster": "c", "user": "u"}}
    tree = {"apiVersion": "v1", "kind": "Config", "clusters": [cluster], "contexts": [context], "current-context": "x",
            "users": [{"name": "u", "user": {}}]}  # fmt: skip
    config.write_text(json.dumps(tree))
    with pytest.raises(Unreachable) as caught:
        KubernetesApi(PYTORCHJOB, "kubeflow", kubeconfig=str(config)).create_job({"metadata": {"name": "j"}})
    server.shutdown()
    server.server_close()
    text = str(caught.value)
    assert "webhook validator.pytorchjob.training-operator.kubeflow.org does not answer (dial tcp 10.0.0.1:443" in text
