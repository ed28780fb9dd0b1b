"""The worker process: one rank of one stage. It reads `stage.json` at the stage's URI and does what it says.

    python -m curricle.training.worker --stage-uri URI --digest HEX [--progress plain|json]

All that it needs stands in the stage's place, and the digest says which work is meant: a place that holds other work is an error. The environment gives only ranks (torchrun), credentials, thread counts and
MLflow's address. Exit codes: 0 complete, 2 an error that a retry cannot cure, 75 the store is away, 128 + signal stopped on request (state saved).
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from curricle import environment
from curricle.config import advice
from curricle.config.load import leaves
from curricle.config.schema import StageConfig
from curricle.errors import CheckpointError, CurricleError, Interrupted, JobError
from curricle.masking import masked
from curricle.registry import family
from curricle.store import layout, open_store, split_uri
from curricle.store.failure import Failure
from curricle.store.manifest import Manifest, fetch, read_manifest
from curricle.store.process import die_with, take_all_characters
from curricle.training.events import Done, Event, Listener, Step, Warned, Working, nobody, sentence, to_line
from curricle.training.job_status import JobStatus, server_of_pod
from curricle.training.pulse import heard_by, working
from curricle.training.spec import StageSpec

if TYPE_CHECKING:
    from curricle.training.checkpoint import State
    from curricle.training.loop import TrainedStage
    from curricle.training.tracking import NoTracker, Tracker


class OtherWork(CheckpointError):
    """The stage's place holds other work than this job is to do."""


class ProgressPrinter:
    """Lines on stdout: JSON for a program, sentences for a person; steps at most five a second."""

    def __init__(self, style: str):
        self._line, self._next_step = to_line if style == "json" else sentence, 0.0

    def __call__(self, event: Event) -> None:
        if isinstance(event, Step | Working):
            now, ends = (
                time.monotonic(),
                event.step == event.steps if isinstance(event, Step) else event.done == event.total,
            )
            if now < self._next_step and not ends:
                return
            self._next_step = now + 0.2
        # in one write: who follows the output would take what comes before the newline for a line
        print(f"{self._line(event)}\n", end="", flush=True)


def run(
    stage_uri: str,
    *,
    digest: str = "",
    build: Callable | None = None,
    schema: type[StageConfig] | None = None,
    report: Listener | None = None,
    mlflow_uri: str = "",
) -> TrainedStage | None:
    """Train the stage at `stage_uri` as this process's rank; None if it was complete already.

    Args:
        digest: of the work that is meant; empty takes what `stage.json` says.
        build, schema: the family's parts; by default those that `stage.json` names.
        report: gets progress events, on rank 0 only.
        mlflow_uri: goes before `tracking.mlflow_uri` of the configuration; empty takes that.

    Raises:
        OtherWork: the place holds other work than is meant.
        CheckpointError: `stage.json` is missing or damaged, or a checkpoint is.
        Interrupted: stopped on request; the state is saved.
        StoreUnavailable: the store is away for longer than this process waits.
        JobError: see `run_stage`; or memory was not enough.
    """
    with working("loading the libraries"):
        import torch

    from curricle.training.checkpoint import Checkpoints, load_state
    from curricle.training.distributed import init_ranks
    from curricle.training.loop import run_stage
    from curricle.training.memory import ran_out
    from curricle.training.task import StageContext
    from curricle.training.tracking import NoTracker

    spec = StageSpec.read(stage_uri)
    if digest and spec.digest != digest:
        raise OtherWork(
            f"{stage_uri}/{layout.STAGE} describes other work: its digest is {spec.digest}, this job's is {digest}. Another training has "
            "taken the place; plan again, or take another run id"
        )
    config = spec.configuration(stage_uri, schema)
    ranks = init_ranks(config.training.trainer.accelerator)
    if report is None or ranks.rank > 0:
        report = nobody
    report = job_status = JobStatus(
        server_of_pod() if ranks.rank == 0 else None, config.training.trainer.max_epochs, report
    )
    previous = {
        s: signal.signal(s, lambda number, frame: ranks.request_stop(number)) for s in (signal.SIGTERM, signal.SIGINT)
    }
    tracker: Tracker | NoTracker = NoTracker()
    status = "FAILED"
    try:
        base, prefix = split_uri(stage_uri)
        done: Manifest | None = ranks.broadcast_object(read_manifest(open_store(base), prefix))
        if done is not None and done.digest != spec.digest:
            raise OtherWork(
                f"{stage_uri} holds the complete model of other work: its digest is {done.digest}, this stage's is {spec.digest} "
                "(another configuration, data or parent). Plan again, or take another run id"
            )
        if done is not None:
            report(Done(best=done.info["best"], metrics=done.metrics))
            return None
        cache = Path(config.paths.cache_dir)
        with working("fetching data and weights"):
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
            for name in (layout.FAILURE, layout.BAD_BATCH):  # of the attempt before
                checkpoints.store.delete(f"{prefix}/{name}")
        ranks.barrier()
        if ranks.rank == 0:
            state = load_state(resume_dir) if resume_dir else None
            tracker = _tracker(spec, prefix, config, report, mlflow_uri, state)
        torch.manual_seed(config.seed)
        build = build or family(spec.family).load("build")
        with working("making ready: model and data"):
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
    except (RuntimeError, MemoryError, OSError) as error:
        if not ran_out(error):
            raise
        said = (str(error).strip().splitlines() or ["no more is known"])[0]
        raise JobError(
            f"stage {spec.stage}: rank {ranks.rank} ran out of memory ({said}). {advice.for_memory(spec.config)}",
            reason="oom_killed",
            exit_code=2,
        ) from None
    finally:
        tracker.close(status)
        job_status.close()
        for number, handler in previous.items():
            signal.signal(number, handler)
        ranks.close()


@contextmanager
def _store_heard(report: Listener) -> Iterator[None]:
    """Make an event of what the store logs while it is waited for."""

    class Events(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            report(Warned(record.getMessage()))

    log, handler = logging.getLogger("curricle.store"), Events(logging.WARNING)
    log.addHandler(handler)
    propagated, log.propagate = log.propagate, False
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.propagate = propagated


def _yaml(tree: dict[str, Any]) -> str:
    import yaml

    return yaml.safe_dump(tree, sort_keys=False, allow_unicode=True)


def _tracker(
    spec: StageSpec, place: str, config: StageConfig, report: Listener, mlflow_uri: str, state: State | None
) -> Tracker:
    from curricle.training.tracking import Tracker

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
    return Tracker(
        folder=Path(config.paths.outputs_dir) / spec.run_id / place if tracking.tensorboard else None,
        mlflow_uri=(mlflow_uri or tracking.mlflow_uri) if tracking.mlflow else None,
        experiment=names.get("experiment", config.experiment_name),
        run_name=names.get("run_name", f"{spec.run_id}/{place}"),
        key=state.tracking if state else "",
        purge_step=state.step + 1 if state else None,
        params=leaves(config),
        tags=tags,
        warn=lambda message: report(Warned(message)),
    )


def _leave_error_file(message: str, exit_code: int) -> None:
    """Tell the node agent what this rank died of, in torchelastic's own format."""
    path = environment.error_file()
    if path:
        body = {
            "message": {
                "message": message,
                "errorCode": exit_code,
                "extraInfo": {"timestamp": str(int(time.time())), "time": time.time(), "py_callstack": ""},
            }
        }
        path.write_text(json.dumps(body), encoding="utf-8")


def main(
    argv: list[str] | None = None, *, build: Callable | None = None, schema: type[StageConfig] | None = None
) -> int:
    """The process's whole life; returns its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m curricle.training.worker", description="One rank of one stage's training."
    )
    parser.add_argument("--stage-uri", required=True, help="the stage's place in the store; stage.json lies there")
    parser.add_argument("--digest", default="", help="the work that is meant; a place that holds other work is refused")
    parser.add_argument("--progress", choices=("plain", "json"), default="plain", help="what rank 0 prints")
    options = parser.parse_args(argv)
    if environment.attempt():
        die_with(environment.agent() or os.getppid())  # torchrun itself gives no number
    environment.set_default(environment.OMP_NUM_THREADS, "1")
    # One entry a shape: texts of changing lengths would fill 250 MB more.
    environment.set_default(environment.ONEDNN_PRIMITIVE_CACHE_CAPACITY, "128")
    environment.set_default(environment.MLFLOW_DISABLE_TELEMETRY, "true")
    take_all_characters()
    place_is_own = True
    report = ProgressPrinter(options.progress)
    try:
        told = report if environment.rank_numbers().rank == 0 else nobody
        with _store_heard(told), heard_by(told):
            run(
                options.stage_uri,
                digest=options.digest,
                build=build,
                schema=schema,
                report=report,
                mlflow_uri=environment.mlflow_uri(),
            )
        return 0
    except CurricleError as error:
        message, code, cause = str(error), error.exit_code, getattr(error, "reason", "configuration")
        place_is_own = not isinstance(error, OtherWork)
        print(f"{'stopped' if isinstance(error, Interrupted) else 'error'}: {message}", file=sys.stderr, flush=True)
    except Exception as error:
        message, code, cause = masked(f"{type(error).__name__}: {error}"), 1, "error"
        print(masked(traceback.format_exc()), file=sys.stderr, flush=True)
    _leave_error_file(message, code)
    if place_is_own:
        _record(options.stage_uri, message, code, cause)
    return code


def _record(stage_uri: str, message: str, exit_code: int, cause: str) -> None:
    """Leave the reason at the stage's place, unless the stage is complete. An attempt begins by removing it, so the first failing rank has the
    word."""
    base, stage = split_uri(stage_uri)
    failure = Failure(
        message,
        exit_code,
        cause,
        stage=stage,
        where=f"rank {environment.rank_numbers().rank}",
        attempt=environment.attempt() or str(os.getpid()),
    )
    with suppress(CurricleError):  # the store may be what has failed
        store = open_store(base)
        if read_manifest(store, stage) is None:  # another rank may have been killed after the end
            failure.write(store, stage, keep_first=True)


if __name__ == "__main__":
    sys.exit(main())
