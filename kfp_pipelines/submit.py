"""Start a compiled pipeline on a server, watch it to its end, and say truly how it ended and why."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from curricle.errors import PipelineError, StoreError
from curricle.steps.relay import RunReader
from kfp_pipelines.early import check_names, check_values
from kfp_pipelines.gateway import Access, Refused
from kfp_pipelines.nodes import failed, is_task, root_of
from kfp_pipelines.parameters import Parameter, compiled, parse, read_documents, read_parameters
from kfp_pipelines.server import Server
from kfp_pipelines.shape import titles

ENDED = {"SUCCEEDED": 0, "SKIPPED": 0, "FAILED": 1, "CANCELED": 3}
"""Final states of a run, and the exit code they mean."""
GOING = {"RUNTIME_STATE_UNSPECIFIED", "PENDING", "RUNNING", "CANCELING", "PAUSED"}
"""States of a run that goes on."""
LONGEST_NAME = 120
"""Characters of a run's name."""
AWAY = 300.0
"""Seconds that a server may be away while it is watched."""
REFUSALS = 3
"""Looks in a row that may be refused for their token before the watch ends: a token file is renewed by somebody else."""
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
    """Why it failed: the stages' failure records, else where in the pipeline; or why it could not be watched any more."""

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
    access: Access,
    *,
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
        texts: ``name=value`` parameters; the others are sent with their defaults, so that the run's page shows all.
        access: the server.
        wait: False returns once the run is accepted.
        timeout: seconds to watch; 0 for ever. The run goes on after it.
        say: gets one line for each change.
        interrupted: asked at Ctrl-C what becomes of the run.
        started: gets the run once it is accepted.

    Raises:
        PipelineError: wrong parameters, or the server refuses. Once the run is accepted nothing is raised: what cannot be watched any more
            has state `exit_code` 4.
    """
    package = compiled(package)
    known = read_parameters(package)
    given, spec = parse(texts, known), read_documents(package)[0]
    values, names = with_defaults(given, known), titles(spec)
    check_names(experiment=experiment, run_name=run_name, service_account=service_account)
    check_values(spec, values)
    server = Server(access, say)
    version = server.ensure_version(package)
    say(f"{'uploaded' if version.uploaded else 'found'} {version.name}")
    name = run_name or name_of(package.stem, given)
    made = server.start(server.ensure_experiment(experiment), name, version, values, service_account)
    state = str(made.state or "PENDING")
    run = Submitted(made.run_id, name, server.run_url(made.run_id), version.name, values, state)
    started(run)
    say(f"run {run.run_id}: {run.url}")
    if not wait:
        return run
    logs = _Logs(str(values.get("store_uri", "")), str(values.get("run_id") or run.run_id), poll, say)
    try:
        _watch(server, run, timeout, poll, say, names)
    except KeyboardInterrupt:
        if interrupted() == "detach":
            say(f"detached; the run goes on: {run.url}")
            return run
        server.terminate(run.run_id)
        run.cancelled = True
        say("terminated; its exit handler cleans up")
        _watch(server, run, timeout, poll, say, names)
    finally:
        reasons = logs.end()
    if run.exit_code == 1:
        run.reasons = reasons or run.reasons
        for reason in run.reasons:
            say(reason)
        say(f"the run: {run.url}")
    return run


def with_defaults(given: dict[str, Any], known: dict[str, Parameter]) -> dict[str, Any]:
    """Every parameter of the pipeline: as given, else its default."""
    return {name: parameter.default for name, parameter in known.items() if not parameter.required} | given


def name_of(pipeline: str, given: dict[str, Any]) -> str:
    """What a run is called where nobody says: the pipeline, and what was not left at its default. The time stands beside it anyway."""
    told = " ".join(
        f"{name}={json.dumps(value) if not isinstance(value, str) else value}" for name, value in given.items()
    )
    name = " ".join(f"{pipeline} {told}".split())
    return name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 4]} ..."


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


def _watch(
    server: Server, run: Submitted, timeout: float, poll: float, say: Callable[[str], None], names: Mapping[str, str]
) -> None:
    """Follow a run until it ends, or until it cannot be watched any more: then its state stays that of the last look. `names` are what the
    pages call the tasks."""
    seen: dict[str, str] = {}
    began, refusals = time.monotonic(), 0
    known = began
    while True:
        left = timeout - (time.monotonic() - began) if timeout else AWAY
        try:
            answer = server.get_run(run.run_id, patience=max(0.0, min(AWAY, left)))
            refusals = 0
        except Refused as error:  # the next look reads a token file again
            refusals += 1
            if refusals < REFUSALS:
                time.sleep(poll)
                continue
            return _lost(run, error, say)
        except PipelineError as error:
            return _lost(run, error, say)
        tasks = (answer.run_details.task_details if answer.run_details else None) or []
        root = root_of(tasks)
        for task in tasks:
            if is_task(task, root) and task.state is not None and seen.get(task.task_id) != task.state:
                seen[task.task_id] = task.state
                say(f"{names.get(task.display_name, task.display_name)}: {str(task.state).lower()}")
        state = str(answer.state or "no state")
        if state != run.state:
            run.state = state
            say(f"run: {run.state.lower()}")
        known = time.monotonic() if state in GOING or state in ENDED else known
        if time.monotonic() - known > AWAY:
            return _lost(run, server.strange(f"look at run {run.run_id}", f"a run's state is never {state!r}"), say)
        run.cancelled |= run.state in ("CANCELING", "CANCELED")
        if run.state in ENDED:
            namespace = server.namespace or "kubeflow"
            run.reasons = [one.sentence(namespace) for one in failed(tasks, names)] if run.state == "FAILED" else []
            return
        if timeout and time.monotonic() - began > timeout:
            say(f"still {run.state.lower()} after {timeout:.0f} s; the run goes on: {run.url}")
            return
        time.sleep(poll)


def _lost(run: Submitted, error: PipelineError, say: Callable[[str], None]) -> None:
    """Nothing is known of how the run ends: that is neither success nor failure."""
    run.reasons = [f"not watched to its end: {error}"]
    say(f"{run.reasons[0]}; the run itself may go on: {run.url}")
