"""What Kubeflow Trainer's status server gets to hear of a training."""

import json
import ssl
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from curricle import environment
from curricle.training import job_status
from curricle.training.events import Done, Epoch, Saved, Step, Warned
from curricle.training.job_status import JobStatus, StatusServer, server_of_pod


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tls")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
         "-keyout", folder / "key", "-out", folder / "ca.crt", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"],
        check=True, capture_output=True,
    )  # fmt: skip
    return folder


@pytest.fixture
def trainer(certificate, tmp_path):
    """A status server as Trainer's own: it wants the token, and keeps what it is sent."""
    kept = []

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *args):
            pass

        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            good = self.headers["Authorization"] == "Bearer second"
            if good:
                kept.append((self.path, body))
            self.send_response(200 if good else 403)
            self.end_headers()
            self.wfile.write(b"{}" if good else b'{"message": "Forbidden"}')

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate / "ca.crt", certificate / "key")
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    token = tmp_path / "token"
    token.write_text("second\n")
    url = f"https://localhost:{server.server_port}/apis/trainer.kubeflow.org/v1alpha1/namespaces/n/trainjobs/j/status"
    yield StatusServer(url, token, certificate / "ca.crt"), kept, token
    server.shutdown()
    server.server_close()


def test_progress_time_left_and_metrics_arrive_and_the_end_is_the_end(trainer):
    server, kept, _ = trainer
    heard = []
    status = JobStatus(server, 4, heard.append, every=60)
    events = [
        Step(1, 1, 2, 0.9),
        Step(1, 2, 2, 0.5),
        Epoch(1, metrics={"val_loss": 0.4, "wild": float("nan"), "n" * 65: 1.0}),
    ]
    for event in events:
        status(event)
    status.close()
    assert heard == events
    ((path, body),) = kept
    sent = body["trainerStatus"]
    assert path.endswith("/trainjobs/j/status") and sent["progressPercentage"] == 25
    assert isinstance(sent["estimatedRemainingSeconds"], int) and sent["lastUpdatedTime"].endswith("Z")
    assert sent["metrics"] == [{"name": "loss", "value": "0.5"}, {"name": "val_loss", "value": "0.4"}]
    again = JobStatus(server, 4, heard.append, every=60)
    again(Saved("x"))
    again(Done(best="x", metrics={"val_loss": 0.25}))
    again.close()
    sent = kept[1][1]["trainerStatus"]
    assert (sent["progressPercentage"], sent["estimatedRemainingSeconds"]) == (100, 0)


def test_a_server_that_refuses_is_said_once_and_a_new_token_is_taken(trainer):
    server, kept, token = trainer
    token.write_text("first")
    heard = []
    status = JobStatus(server, 4, heard.append, every=0.02)
    said = threading.Event()
    for step in range(1, 200):
        status(Step(1, step, 200, 0.5))
        if [event for event in heard if isinstance(event, Warned)] and not said.is_set():
            said.set()
            token.write_text("second")
        if kept:
            break
        threading.Event().wait(0.02)
    status.close()
    (warning,) = [event for event in heard if isinstance(event, Warned)]
    assert "takes no progress of this job: 403" in warning.message and kept


@pytest.mark.parametrize("damage", ["token", "ca", "server"])
def test_nothing_that_is_missing_stops_a_training(damage, trainer, tmp_path):
    server, kept, token = trainer
    if damage == "token":
        token.unlink()
    elif damage == "ca":
        server = StatusServer(server.url, token, tmp_path / "none")
    else:
        server = StatusServer("https://localhost:9/x", token, server.ca_file)
    heard = []
    status = JobStatus(server, 1, heard.append, every=60)
    status(Step(1, 1, 1, 0.5))
    status.close()
    assert isinstance(heard[-1], Warned) and kept == []


def test_without_a_server_nothing_is_started(monkeypatch):
    monkeypatch.delenv(environment.KUBEFLOW_TRAINER_SERVER_URL, raising=False)
    assert server_of_pod() is None
    before = threading.active_count()
    status = JobStatus(None, 1, lambda event: None)
    status(Step(1, 1, 1, 0.5))
    assert threading.active_count() == before
    status.close()
    for name in ("URL", "TOKEN", "CA_CERT"):
        monkeypatch.setenv(f"KUBEFLOW_TRAINER_SERVER_{name}", f"https://x/{name}")
    found = server_of_pod()
    assert (
        found and found.url == "https://x/URL" and found.token_file.name == "TOKEN" and found.ca_file.name == "CA_CERT"
    )
    assert job_status.EVERY >= 5
