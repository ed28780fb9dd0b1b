"""Progress, time left and metrics in the status of the Kubernetes object, for whoever looks at it there (``kubectl get trainjob -o yaml``).

Kubeflow Trainer gives a TrainJob's pods the address of a server that takes them, where its feature gate ``TrainJobStatus`` is on (alpha in 2.3). What is
sent there is a picture of now, so only the newest is kept, and a server that does not take one never stops a training.
"""

from __future__ import annotations

import http.client
import json
import math
import ssl
import threading
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from curricle import environment
from curricle.training.events import Done, Epoch, Event, Listener, Step, Warned
from curricle.training.pace import Pace

EVERY = 10.0
"""Seconds between two reports."""
TIMEOUT = 5.0
"""Seconds that one may take."""
METRICS = 256
LETTERS = 64
"""What the object takes: so many metrics, and so many characters of a name and of a value."""


@dataclass(frozen=True)
class StatusServer:
    """Where progress is wanted, and by which token and authority; both files are read each time, since tokens are renewed."""

    url: str
    token_file: Path
    ca_file: Path

    def send(self, status: dict[str, Any]) -> None:
        """Raises `OSError` where the server does not take it."""
        place = urlsplit(self.url)
        context = ssl.create_default_context(cafile=str(self.ca_file))
        headers = {
            "Authorization": f"Bearer {self.token_file.read_text().strip()}",
            "Content-Type": "application/json",
        }
        connection = http.client.HTTPSConnection(str(place.hostname), place.port, timeout=TIMEOUT, context=context)
        try:
            connection.request("POST", place.path, json.dumps({"trainerStatus": status}), headers)
            answer = connection.getresponse()
            said = answer.read(2000).decode("utf-8", "replace")
        except http.client.HTTPException as error:
            raise OSError(f"{type(error).__name__}: {error}") from error
        finally:
            connection.close()
        if answer.status >= 300:
            raise OSError(f"{answer.status} {said.strip()[:200]}")


def server_of_pod() -> StatusServer | None:
    """The server that this pod was given; None where it was given none."""
    given = environment.status_server()
    return StatusServer(given[0], Path(given[1]), Path(given[2])) if given else None


class JobStatus:
    """Sends what a stage's events say of its progress, from a thread of its own, and hands each event on.

    The first report that is not taken is said once, as a warning; the later ones are tried all the same.
    """

    def __init__(self, server: StatusServer | None, epochs: int, report: Listener, *, every: float = EVERY):
        self._server, self._epochs, self._report, self._every = server, epochs, report, every
        self._pace, self._metrics, self._done = Pace(), dict[str, float](), False
        self._new, self._warned = False, False
        self._lock, self._ended = threading.Lock(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="job status", daemon=True)
        if server:
            self._thread.start()

    def close(self) -> None:
        """Send what is newest."""
        self._ended.set()
        if self._server:
            self._thread.join(2 * TIMEOUT)

    def __call__(self, event: Event) -> None:
        """Take an event, and hand it on."""
        self._report(event)
        with self._lock:
            if isinstance(event, Step):
                self._pace.step(event, self._epochs)
                self._metrics["loss"] = event.loss
            elif isinstance(event, Epoch):
                self._metrics.update(event.metrics)
            elif isinstance(event, Done):
                self._metrics.update(event.metrics)
                self._done = True
            else:
                return
            self._new = True

    def _run(self) -> None:
        while not self._ended.wait(self._every):
            self._send()
        self._send()

    def _send(self) -> None:
        with self._lock:
            if not self._new:
                return
            self._new, status = False, self._status()
        try:
            self._server.send(status)  # type: ignore[union-attr]  # the thread runs where there is one
        except OSError as error:
            if not self._warned:
                self._warned = True
                self._report(Warned(f"Kubeflow Trainer takes no progress of this job: {error}"))

    def _status(self) -> dict[str, Any]:
        facts = {"percent": 100, "seconds_left": 0} if self._done else self._pace.facts()
        status: dict[str, Any] = {"lastUpdatedTime": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")}
        for field, fact in (("progressPercentage", "percent"), ("estimatedRemainingSeconds", "seconds_left")):
            if fact in facts:
                status[field] = facts[fact]
        finite = [
            (name, value) for name, value in self._metrics.items() if math.isfinite(value) and len(name) <= LETTERS
        ]
        status["metrics"] = [{"name": name, "value": f"{value:.6g}"} for name, value in finite[:METRICS]]
        return status
