"""TensorBoard and MLflow, behind one queue and one thread: a step never waits for them, and they never stop a training.

The first thing that goes wrong in a backend is said once; that backend is then left alone.
"""

from __future__ import annotations

import queue
import re
import threading
import time
import uuid
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Protocol

_PAUSE = 0.05
"""Seconds between two looks at the queue: points that come in together are written together."""
_KEY = "curricle.attempts"
"""The tag by which a resumed stage finds its MLflow run; known at once, before MLflow has answered."""
_Point = tuple[int, float, dict[str, float]]
"""Step, seconds since 1970, values by name."""


class _Backend(Protocol):
    def write(self, points: list[_Point]) -> None: ...

    def close(self, status: str) -> None: ...


class NoTracker:
    """Writes nothing: ranks other than 0."""

    key = ""

    def log(self, values: dict[str, float], step: int) -> None:
        pass

    def close(self, status: str = "FINISHED") -> None:
        pass


class Tracker:
    """Curves of one stage.

    Args:
        folder: where TensorBoard's files go, or None for none.
        mlflow_uri: MLflow's tracking URI, or None for none.
        experiment: MLflow's experiment.
        run_name: the run's name in it.
        key: what a former attempt of this stage was tracked under (a resumed stage goes on in its MLflow run), or "" for a new one.
        params: the configuration, flat.
        tags: digests, parent, kind of training.
        purge_step: points of a former attempt from this step on are dropped (TensorBoard).
        warn: gets the one sentence about a backend that fails.
    """

    def __init__(
        self,
        *,
        folder: Path | None,
        mlflow_uri: str | None,
        experiment: str,
        run_name: str,
        key: str = "",
        params: dict[str, Any],
        tags: dict[str, str],
        purge_step: int | None,
        warn: Callable[[str], None],
    ):
        self.key, resumed = key or uuid.uuid4().hex, bool(key)
        self._queue: queue.SimpleQueue[_Point | str] = queue.SimpleQueue()
        self._warn = warn
        self._backends: dict[str, Callable[[], _Backend]] = {}
        self._begun: dict[str, _Backend] = {}
        if folder is not None:
            self._backends["TensorBoard"] = lambda: _TensorBoard(folder, purge_step)
        if mlflow_uri is not None:
            self._backends["MLflow"] = lambda: _MLflow(
                mlflow_uri, experiment, run_name, self.key, resumed, params, tags
            )
        self._thread = threading.Thread(target=self._work, name="tracking", daemon=True)
        self._thread.start()

    def log(self, values: dict[str, float], step: int) -> None:
        """Queue points of curves."""
        self._queue.put((step, time.time(), dict(values)))

    def close(self, status: str = "FINISHED", patience: float = 30.0) -> None:
        """Write what is queued and end the run; gives up after `patience` seconds (said once)."""
        self._queue.put(status)
        self._thread.join(patience)
        if self._thread.is_alive():
            self._warn(f"tracking did not end within {patience:.0f} s; its last points may be missing")

    def _work(self) -> None:
        for name in self._backends:
            self._guard(name, partial(self._begin, name))
        end: str | None = None
        while end is None:
            points = [self._queue.get()]
            if not isinstance(points[0], str):
                time.sleep(_PAUSE)
            while not self._queue.empty():
                points.append(self._queue.get())
            end = next((p for p in points if isinstance(p, str)), None)
            batch = [p for p in points if not isinstance(p, str)]
            for name, backend in list(self._begun.items()):
                if batch:
                    self._guard(name, partial(backend.write, batch))
        for name, backend in list(self._begun.items()):
            self._guard(name, partial(backend.close, end))

    def _begin(self, name: str) -> None:
        self._begun[name] = self._backends[name]()

    def _guard(self, name: str, act: Callable[[], None]) -> None:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                act()
        except Exception as error:  # a tracker may fail in any way; training must not
            self._begun.pop(name, None)
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            self._warn(f"{name} is left out from here on: {reason}")


class _TensorBoard:
    def __init__(self, folder: Path, purge_step: int | None):
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(folder), purge_step=purge_step)

    def write(self, points: list[_Point]) -> None:
        for step, when, values in points:
            for name, value in values.items():
                self._writer.add_scalar(name, value, step, walltime=when)
        self._writer.flush()

    def close(self, status: str) -> None:
        self._writer.close()


class _MLflow:
    def __init__(
        self,
        uri: str,
        experiment: str,
        run_name: str,
        key: str,
        resumed: bool,
        params: dict[str, Any],
        tags: dict[str, str],
    ):
        import logging

        from mlflow.entities import Param
        from mlflow.tracking import MlflowClient

        logging.getLogger("mlflow").setLevel(logging.WARNING)
        self._client = MlflowClient(uri)
        there = self._client.get_experiment_by_name(experiment)
        experiment_id = there.experiment_id if there else self._client.create_experiment(experiment)
        runs = self._client.search_runs([experiment_id], f"tags.`{_KEY}` = '{key}'") if resumed else []
        if runs:
            self._run_id = runs[0].info.run_id
            self._client.update_run(self._run_id, status="RUNNING")
            return
        self._run_id = self._client.create_run(experiment_id, run_name=run_name, tags={**tags, _KEY: key}).info.run_id
        rows = [Param(name, str(value)[:6000]) for name, value in params.items()]
        for first in range(0, len(rows), 100):
            self._client.log_batch(self._run_id, params=rows[first : first + 100])

    def write(self, points: list[_Point]) -> None:
        from mlflow.entities import Metric

        rows = [
            Metric(_taken(name), value, int(when * 1000), step)
            for step, when, values in points
            for name, value in values.items()
        ]
        for first in range(0, len(rows), 1000):
            self._client.log_batch(self._run_id, metrics=rows[first : first + 1000])

    def close(self, status: str) -> None:
        self._client.set_terminated(self._run_id, status)


def _taken(name: str) -> str:
    """A metric's name as MLflow takes it: ``val/hit@10`` → ``val/hit_at_10``; it knows letters, digits and ``_-./: `` alone."""
    return re.sub(r"[^\w\-./: ]", "_", name.replace("@", "_at_"))
