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
from pathlib import Path
from typing import Any

from curricle.masking import masked

_PAUSE = 0.05
"""Seconds between two looks at the queue: points that come in together are written together."""
_KEY = "curricle.attempts"
"""The tag by which a resumed stage finds its MLflow run; known at once, before MLflow has answered."""


class NoTracker:
    """Writes nothing: ranks other than 0."""

    key = ""

    def log(self, values: dict[str, float], step: int) -> None:
        pass

    def describe(self, facts: dict[str, Any]) -> None:
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
        params: the configuration, flat. TensorBoard shows it as a text, and its settings beside the scores of all stages (HPARAMS).
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
        self._queue: queue.SimpleQueue[tuple[int, float, dict[str, float]] | dict[str, Any] | str] = queue.SimpleQueue()
        self._warn = warn
        self._backends: dict[str, Callable[[], Any]] = {}
        if folder is not None:
            self._backends["TensorBoard"] = lambda: _TensorBoard(folder, purge_step, params)
        if mlflow_uri is not None:
            self._backends["MLflow"] = lambda: _MLflow(
                mlflow_uri, experiment, run_name, self.key, resumed, params, tags
            )
        self._thread = threading.Thread(target=self._work, name="tracking", daemon=True)
        self._thread.start()

    def log(self, values: dict[str, float], step: int) -> None:
        """Queue points of curves."""
        self._queue.put((step, time.time(), dict(values)))

    def describe(self, facts: dict[str, Any]) -> None:
        """What training found out beside the configuration, once: the learning rate that holds where none was written down, and such."""
        self._queue.put(facts)

    def close(self, status: str = "FINISHED", patience: float = 30.0) -> None:
        """Write what is queued and end the run; gives up after `patience` seconds (said once)."""
        self._queue.put(status)
        self._thread.join(patience)
        if self._thread.is_alive():
            self._warn(f"tracking did not end within {patience:.0f} s; its last points may be missing")

    def _work(self) -> None:
        open_backends: dict[str, Any] = {}
        for name, make in self._backends.items():
            if (backend := self._guard(open_backends, name, make)) is not None:
                open_backends[name] = backend
        end = None
        while end is None:
            items = [self._queue.get()]
            if not isinstance(items[0], str):
                time.sleep(_PAUSE)
            while not self._queue.empty():
                items.append(self._queue.get())
            end = next((item for item in items if isinstance(item, str)), None)
            facts = [item for item in items if isinstance(item, dict)]
            points = [item for item in items if isinstance(item, tuple)]
            for act, batch in (("describe", facts), ("write", points)):
                for name, backend in list(open_backends.items()):
                    if batch:
                        self._guard(open_backends, name, getattr(backend, act), batch)
        for name, backend in list(open_backends.items()):
            self._guard(open_backends, name, backend.close, end)

    def _guard(self, open_backends: dict[str, Any], name: str, act: Callable[..., Any], *arguments: Any) -> Any:
        """What `act` returns; a backend whose call fails is left out from then on, and that is said once."""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return act(*arguments)
        except Exception as error:  # a tracker may fail in any way; training must not
            open_backends.pop(name, None)
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            self._warn(masked(f"{name} is left out from here on: {reason}"))
            return None


class _TensorBoard:
    def __init__(self, folder: Path, purge_step: int | None, params: dict[str, Any]):
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(folder), purge_step=purge_step)
        self._settings, self._compared = dict(params), False

    def describe(self, facts: list[dict[str, Any]]) -> None:
        self._settings |= {f"effective.{name}": value for found in facts for name, value in found.items()}
        rows = [f"|{k}|`{str(v).replace('`', ' ').replace('|', ' ')}`|" for k, v in self._settings.items()]
        self._writer.add_text("settings", "\n".join(["|setting|value|", "|---|---|", *rows]))
        self._writer.flush()

    def write(self, points: list[tuple[int, float, dict[str, float]]]) -> None:
        for step, when, values in points:
            for name, value in values.items():
                self._writer.add_scalar(_grouped(name), value, step, walltime=when)
            if not self._compared and "val_loss" in values:
                self._compare([name for name in values if name.startswith("val")])
        self._writer.flush()

    def _compare(self, scores: list[str]) -> None:
        """Put the settings beside these curves' last values, for the page HPARAMS. (`add_hparams` would make a run of its own.)"""
        from torch.utils.tensorboard.summary import hparams

        plain = {k: v if isinstance(v, bool | int | float) else str(v) for k, v in self._settings.items()}
        for summary in hparams(plain, dict.fromkeys(scores, 0.0))[:2]:
            self._writer._get_file_writer().add_summary(summary)
        self._compared = True

    def close(self, status: str) -> None:
        self._writer.close()


def _grouped(name: str) -> str:
    """A curve's name in TensorBoard, which sorts its groups: what is of neither training nor validation by its name (``structure/pearson``) is measured in validation, and stands
    there, so that the losses come first."""
    return name if name.startswith(("train", "val")) else f"val/{name}"


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

    def describe(self, facts: list[dict[str, Any]]) -> None:
        from mlflow.entities import Param

        rows = [Param(f"effective.{name}", str(value)[:6000]) for found in facts for name, value in found.items()]
        self._client.log_batch(self._run_id, params=rows)

    def write(self, points: list[tuple[int, float, dict[str, float]]]) -> None:
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
