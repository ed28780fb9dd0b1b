"""The worker process: one rank of one stage. It reads `stage.json` at the stage's URI and does what it says.

    python -m curricle.train.worker --stage-uri URI [--progress plain|json]

All that it needs stands in the stage's place; the environment gives only ranks (torchrun), credentials, thread counts and
MLflow's address. Exit codes: 0 complete, 2 an error that a retry cannot cure, 128 + signal stopped on request (state saved).
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from curricle.config.load import from_tree, leaves
from curricle.config.schema import StageConfig
from curricle.errors import CheckpointError, CurricleError, Interrupted
from curricle.registry import family
from curricle.store import layout, open_store, split_uri
from curricle.store.manifest import fetch, read_manifest

FORMAT = 1


@dataclass(frozen=True)
class StageSpec:
    """What `stage.json` says: everything about one stage's training."""

    run_id: str
    stage: str
    digest: str
    family: str
    config: dict[str, Any]
    """The effective configuration as a tree (`config.load.to_tree`)."""
    start: str
    """``scratch`` or ``continued``."""
    data_uri: str
    data_digest: str
    parent_uri: str | None = None
    parent_digest: str | None = None
    tracking: dict[str, Any] = field(default_factory=dict)
    """Optional `experiment`, `run_name` and `tags` for MLflow, where the family wants other names than the common ones."""
    format: int = FORMAT

    def to_json(self) -> str:
        """The text of `stage.json`."""
        return json.dumps(asdict(self), indent=1, sort_keys=True) + "\n"

    @classmethod
    def read(cls, stage_uri: str) -> StageSpec:
        """Read `stage.json` at a stage's URI, strictly.

        Raises:
            CheckpointError: it is missing, not JSON, of another format, or has other fields.
        """
        where = f"{stage_uri}/{layout.STAGE}"
        base, prefix = split_uri(stage_uri)
        text = open_store(base).read(f"{prefix}/{layout.STAGE}")
        if text is None:
            raise CheckpointError(f"there is no {where}; the training step writes it before it starts the job")
        try:
            spec = cls(**json.loads(text))
        except (ValueError, TypeError) as error:
            raise CheckpointError(f"{where} is damaged: {error}") from error
        if spec.format != FORMAT:
            raise CheckpointError(f"{where} has format {spec.format}; this version reads format {FORMAT}")
        if (spec.start == "continued") != (spec.parent_uri is not None):
            raise CheckpointError(
                f"{where} says start {spec.start!r} with parent {spec.parent_uri!r}: scratch has none, continued has one"
            )
        return spec


class Progress:
    """Lines on stdout: JSON for a program, sentences for a person; steps at most five a second."""

    def __init__(self, style: str):
        self._json, self._next = style == "json", 0.0

    def __call__(self, event: dict[str, Any]) -> None:
        if event["event"] == "step":
            now = time.monotonic()
            if now < self._next and event["step"] < event["steps"]:
                return
            self._next = now + 0.2
        line = json.dumps(event) if self._json else sentence(event)
        print(
            f"{line}\n", end="", flush=True
        )  # in one write: who follows the output would take what comes before the newline for a line


def sentence(progress: dict[str, Any]) -> str:
    """A progress event for a person."""
    event, facts = progress["event"], {k: v for k, v in progress.items() if k != "event"}
    if event == "step":
        return f"epoch {facts['epoch']}  step {facts['step']}/{facts['steps']}  loss {facts['loss']:.4f}"
    if event == "warning":
        return f"warning: {facts['message']}"
    return f"{event}: " + "  ".join(f"{k} {v:.4f}" if isinstance(v, float) else f"{k} {v}" for k, v in facts.items())


def run(
    stage_uri: str,
    *,
    build: Callable | None = None,
    schema: type[StageConfig] | None = None,
    report: Callable[[dict], None] | None = None,
    mlflow_uri: str | None = None,
) -> Any:
    """Train the stage at `stage_uri` as this process's rank; returns the loop's `StageResult` (None if it was complete already).

    Args:
        build, schema: the family's parts; by default those that `stage.json` names.
        report: gets progress events, on rank 0 only.
        mlflow_uri: goes before `tracking.mlflow_uri` of the configuration.
    """
    import torch

    from curricle.train.checkpoint import Checkpoints, load_state
    from curricle.train.distributed import init_ranks
    from curricle.train.loop import run_stage
    from curricle.train.task import StageContext
    from curricle.train.tracking import NoTracker, Tracker

    spec = StageSpec.read(stage_uri)
    config = from_tree(schema or family(spec.family).load("config"), spec.config)
    ranks = init_ranks(config.training.trainer.accelerator)
    report = report if report and ranks.rank == 0 else (lambda event: None)
    previous = {
        s: signal.signal(s, lambda number, frame: ranks.request_stop(number)) for s in (signal.SIGTERM, signal.SIGINT)
    }
    tracker, status = NoTracker(), "FAILED"
    try:
        base, prefix = split_uri(stage_uri)
        if ranks.broadcast_object(
            (done := read_manifest(open_store(base), prefix)) is not None and done.digest == spec.digest
        ):
            report({"event": "done", "best": done.info["best"], **done.metrics})
            return None
        cache = Path(config.paths.cache_dir)
        data_dir = fetch(spec.data_uri, cache / "data")[0]
        parent_dir = fetch(spec.parent_uri, cache / "checkpoints")[0] if spec.parent_uri else None
        lineage = {name: getattr(spec, name) for name in ("parent_uri", "parent_digest", "data_uri", "data_digest")}
        checkpoints = Checkpoints(
            stage_uri,
            stage=spec.stage,
            digest=spec.digest,
            config_text=_yaml(spec.config),
            lineage=lineage,
            info={"family": spec.family, "run_id": spec.run_id, "start": spec.start},
            scratch_dir=cache / "work",
        )
        resume_uri = ranks.broadcast_object(checkpoints.resume_uri())
        resume_dir = fetch(resume_uri, cache / "checkpoints")[0] if resume_uri else None
        if ranks.rank == 0:
            checkpoints.store.delete(f"{prefix}/{layout.FAILURE}")
        ranks.barrier()
        if ranks.rank == 0:
            state = load_state(resume_dir) if resume_dir else None
            tracker = _tracker(Tracker, spec, config, report, mlflow_uri, state)
        torch.manual_seed(config.seed)
        build = build or family(spec.family).load("build")
        task = build(StageContext(config, data_dir, parent_dir, cache / "work", ranks.device, ranks))
        try:
            result = run_stage(task, config, checkpoints, ranks, tracker=tracker, report=report, resume_dir=resume_dir)
        finally:
            checkpoints.close()
        status = "FINISHED"
        return result
    except Interrupted:
        status = "KILLED"
        raise
    finally:
        tracker.close(status)
        for number, handler in previous.items():
            signal.signal(number, handler)
        ranks.close()


def _yaml(tree: dict[str, Any]) -> str:
    import yaml

    return yaml.safe_dump(tree, sort_keys=False, allow_unicode=True)


def _tracker(
    make: Any, spec: StageSpec, config: StageConfig, report: Callable[[dict], None], mlflow_uri: str | None, state: Any
) -> Any:
    names, tracking = spec.tracking, config.tracking
    tags = {
        "curricle.run": spec.run_id,
        "curricle.stage": spec.stage,
        "curricle.family": spec.family,
        "curricle.digest": spec.digest,
        "curricle.start": spec.start,
        "curricle.data": spec.data_digest,
        "curricle.parent": spec.parent_uri or "",
        "curricle.parent_digest": spec.parent_digest or "",
        **names.get("tags", {}),
    }
    return make(
        folder=Path(config.paths.outputs_dir) / spec.run_id / spec.stage if tracking.tensorboard else None,
        mlflow_uri=(mlflow_uri or tracking.mlflow_uri) if tracking.mlflow else None,
        experiment=names.get("experiment", config.experiment_name),
        run_name=names.get("run_name", f"{spec.run_id}/{spec.stage}"),
        key=state.tracking if state else "",
        purge_step=state.step + 1 if state else None,
        params=leaves(config),
        tags=tags,
        warn=lambda message: report({"event": "warning", "message": message}),
    )


def record_failure(stage_uri: str, *, cause: str, message: str, exit_code: int, where: str, attempt: str) -> None:
    """Write `failure.json` at the stage's place, unless a failure stands there already: an attempt begins by removing it, so the first
    failing rank has the word."""
    base, prefix = split_uri(stage_uri)
    store, key = open_store(base), f"{prefix}/{layout.FAILURE}"
    if store.read(key) is not None:
        return
    store.write(
        key,
        (
            json.dumps(
                {
                    "stage": prefix,
                    "cause": cause,
                    "message": message,
                    "exit_code": exit_code,
                    "attempt": attempt,
                    "where": where,
                    "time": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
                },
                indent=1,
            )
            + "\n"
        ).encode(),
    )


def _leave_error_file(message: str, exit_code: int) -> None:
    """Tell the node agent what this rank died of, in torchelastic's own format."""
    path = os.environ.get("TORCHELASTIC_ERROR_FILE")
    if path:
        body = {
            "message": {
                "message": message,
                "errorCode": exit_code,
                "extraInfo": {"timestamp": str(int(time.time())), "time": time.time(), "py_callstack": ""},
            }
        }
        Path(path).write_text(json.dumps(body), encoding="utf-8")


def main(
    argv: list[str] | None = None, *, build: Callable | None = None, schema: type[StageConfig] | None = None
) -> int:
    """The process's whole life; returns its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m curricle.train.worker", description="One rank of one stage's training."
    )
    parser.add_argument("--stage-uri", required=True, help="the stage's place in the store; stage.json lies there")
    parser.add_argument("--digest", default="", help="digest of the work that is meant")
    parser.add_argument("--progress", choices=("plain", "json"), default="plain", help="what rank 0 prints")
    options = parser.parse_args(argv)
    if sys.platform == "linux" and "TORCHELASTIC_RUN_ID" in os.environ:
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: no rank outlives its node agent
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault(
        "ONEDNN_PRIMITIVE_CACHE_CAPACITY", "128"
    )  # one entry a shape: texts of changing lengths would fill 250 MB more
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    try:
        run(
            options.stage_uri,
            build=build,
            schema=schema,
            report=Progress(options.progress),
            mlflow_uri=os.environ.get("MLFLOW_TRACKING_URI"),
        )
        return 0
    except CurricleError as error:
        message, code, cause = str(error), error.exit_code, getattr(error, "reason", "configuration")
        print(f"{'stopped' if isinstance(error, Interrupted) else 'error'}: {message}", file=sys.stderr, flush=True)
    except Exception as error:
        message, code, cause = f"{type(error).__name__}: {error}", 1, "error"
        traceback.print_exc()
    _leave_error_file(message, code)
    with suppress(CurricleError):
        record_failure(
            options.stage_uri,
            cause=cause,
            message=message,
            exit_code=code,
            where=f"rank {os.environ.get('RANK', '0')}",
            attempt=os.environ.get("TORCHELASTIC_RUN_ID", str(os.getpid())),
        )
    return code


if __name__ == "__main__":
    sys.exit(main())
