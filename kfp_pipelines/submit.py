"""Start a compiled pipeline on a server, watch it to its end, and say truly how it ended and why."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from curricle.errors import PipelineError, StoreError
from curricle.steps.relay import RunReader
from kfp_pipelines.parameters import compiled, parse, read_parameters
from kfp_pipelines.server import answers, connect, ensure_experiment, ensure_version

ENDED = {"SUCCEEDED": 0, "SKIPPED": 0, "FAILED": 1, "CANCELED": 3}
"""Final states of a run, and the exit code they mean."""
_INNER = re.compile(r"root|executor(\(\d+\))?|.*-driver|condition(-branches)?-\d+|exit-handler-\d+(\.onExit)?")
"""Nodes of Kubeflow's own that stand for no task of the pipeline."""
Answer = Literal["terminate", "detach"]


@dataclass
class Submitted:
    """A run and how it ended."""

    run_id: str
    name: str
    url: str
    version: str
    parameters: dict[str, Any]
    state: str = "PENDING"
    cancelled: bool = False
    reasons: list[str] = field(default_factory=list)
    """Why it failed: the stages' failure records, else the names of the failed tasks."""

    @property
    def exit_code(self) -> int:
        """0 succeeded, 1 failed, 3 cancelled; 4 when it still goes on."""
        return 3 if self.cancelled and self.state in ENDED and self.state != "SUCCEEDED" else ENDED.get(self.state, 4)

    def to_json(self) -> str:
        """For ``--json``."""
        return json.dumps(asdict(self) | {"exit_code": self.exit_code}, indent=1, sort_keys=True)


def submit(
    package: Path,
    texts: list[str],
    *,
    endpoint: str = "",
    token: str = "",
    namespace: str = "",
    experiment: str = "curricle",
    run_name: str = "",
    service_account: str = "",
    wait: bool = True,
    timeout: float = 0.0,
    poll: float = 5.0,
    say: Callable[[str], None],
    interrupted: Callable[[], Answer] = lambda: "detach",
    started: Callable[[Submitted], None] = lambda run: None,
) -> Submitted:
    """Submit and watch.

    Args:
        package: compiled pipeline; its parameters are checked before anything is sent.
        texts: ``name=value`` parameters.
        wait: False returns once the run is accepted.
        timeout: seconds to watch; 0 for ever. The run goes on after it.
        say: gets one line for each change.
        interrupted: asked at Ctrl-C what becomes of the run.
        started: gets the run once it is accepted.

    Raises:
        PipelineError: wrong parameters, or the server refuses.
    """
    package = compiled(package)
    known = read_parameters(package)
    values = parse(texts, known)
    client = connect(endpoint, token, namespace)
    version = ensure_version(client, package)
    say(f"{'uploaded' if version.uploaded else 'found'} {version.name}")
    name = run_name or f"{package.stem} {datetime.now(UTC):%Y-%m-%d %H:%M:%S}"
    experiment_id = ensure_experiment(client, experiment)
    with answers(f"run {package.name}"):
        made = client.run_pipeline(
            experiment_id,
            name,
            pipeline_id=version.pipeline_id,
            version_id=version.version_id,
            params=values,
            **({"service_account": service_account} if service_account else {}),
        )
    run = Submitted(
        made.run_id,
        name,
        f"{client._get_url_prefix()}/#/runs/details/{made.run_id}",
        version.name,
        values,
        str(made.state or "PENDING"),
    )
    started(run)
    say(f"run {run.run_id}: {run.url}")
    if not wait:
        return run
    given = {name: known[name].default for name in ("store_uri", "run_id") if name in known} | values
    logs = _Logs(given.get("store_uri", ""), given.get("run_id") or run.run_id, poll, say)
    try:
        _watch(client, run, timeout, poll, say)
    except KeyboardInterrupt:
        if interrupted() == "detach":
            say(f"detached; the run goes on: {run.url}")
            return run
        with answers("terminate the run"):
            client.terminate_run(run.run_id)
        run.cancelled = True
        say("terminated; its exit handler cleans up")
        _watch(client, run, timeout, poll, say)
    finally:
        reasons = logs.end()
    if run.exit_code == 1:
        run.reasons = reasons or run.reasons
        for reason in run.reasons:
            say(reason)
    return run


class _Logs:
    """Says a run's log lines as they come, and why its stages failed: from its place in the store, since the server has neither.

    In a thread of its own: a store that cannot be reached from here must not hold up the watch.
    """

    def __init__(self, store_uri: str, place: str, poll: float, say: Callable[[str], None]):
        self._store_uri, self._place, self._poll, self._say = store_uri, place, poll, say
        self._reasons: list[str] = []
        self._ready, self._ended = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._follow, name="logs", daemon=True)
        if store_uri:
            self._thread.start()
            self._ready.wait(10)  # what it finds there is an earlier run's: a task of this one takes longer to begin

    def end(self) -> list[str]:
        """The run has ended: say what is left; why stages failed."""
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join(15)
        return self._reasons

    def _follow(self) -> None:
        try:
            reader, last = RunReader(self._store_uri, self._place), False
            self._ready.set()
            while not last:
                last = self._ended.wait(self._poll)
                for line in reader.lines():
                    self._say(line)
            self._reasons = [failure.sentence() for failure in reader.failures()]
        except StoreError as error:
            self._say(
                f"the run's log lines, and why a stage fails, cannot be read from here ({self._store_uri}): {error}"
            )
            self._ready.set()


def _watch(client: Any, run: Submitted, timeout: float, poll: float, say: Callable[[str], None]) -> None:
    """Follow a run until it ends; a server that does not answer is asked again for five minutes."""
    seen: dict[str, str] = {}
    began = answered = time.monotonic()
    while True:
        try:
            with answers(f"look at run {run.run_id}"):
                answer = client.get_run(run.run_id)
            answered = time.monotonic()
        except PipelineError as error:
            if "answered 4" in str(error) or time.monotonic() - answered > 300:
                raise
            time.sleep(poll)
            continue
        tasks = (answer.run_details.task_details if answer.run_details else None) or []
        for task in tasks:
            title = str(task.display_name)
            if _INNER.fullmatch(title) or title == run.name or task.state is None:
                continue
            if seen.get(task.task_id) != task.state:
                seen[task.task_id] = task.state
                say(f"{title}: {str(task.state).lower()}")
        if answer.state != run.state:
            run.state = str(answer.state)
            say(f"run: {run.state.lower()}")
        run.cancelled |= run.state in ("CANCELING", "CANCELED")
        if run.state in ENDED:
            run.reasons = sorted(
                {
                    f"task {t.display_name} failed" + (f": {t.error.message}" if t.error and t.error.message else "")
                    for t in tasks
                    if t.state == "FAILED" and t.display_name and not _INNER.fullmatch(str(t.display_name))
                }
            )
            return
        if timeout and time.monotonic() - began > timeout:
            say(f"still {run.state.lower()} after {timeout:.0f} s; the run goes on")
            return
        time.sleep(poll)
