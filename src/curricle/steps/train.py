"""Train, or reuse, one stage of a plan. Idempotent: a complete stage with the planned digest is returned at once."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from curricle.errors import CheckpointError, Interrupted, JobError
from curricle.launch.job import RUN, Job, Launcher
from curricle.launch.retry import run_with_retries
from curricle.plan import ChainPlan, StagePlan
from curricle.steps.source import best_checkpoint
from curricle.store import Store, join_uri, layout, open_store, references, split_uri
from curricle.store.manifest import Manifest, read_manifest, retire
from curricle.train.worker import StageSpec


@dataclass(frozen=True)
class StageOutcome:
    """A complete stage: what the next stage, the run view and the user need."""

    uri: str
    """The stage's place."""
    manifest: Manifest
    metrics: dict[str, float]
    lineage: dict[str, str]


def train_stage(
    plan: ChainPlan, index: int, parent_uri: str, launcher: Launcher, listen: Callable[[dict[str, Any]], None]
) -> StageOutcome:
    """Train one stage as a job of the launcher.

    Args:
        plan: the chain's plan.
        index: the stage's position in it.
        parent_uri: place of the stage before, as it really came out; empty for the first.
        launcher: where the job runs.
        listen: gets the job's progress events and log lines.

    Raises:
        CheckpointError: the parent is not complete or not what was planned.
        JobError: the job failed; `Interrupted` when it was stopped and can be resumed.
    """
    stage = plan.stages[index]
    store = open_store(stage.uri)
    done = read_manifest(store, "")
    if done and done.digest == stage.digest and plan.resume:
        return _outcome(stage, done)
    if not plan.resume:
        parent, key = split_uri(stage.uri)
        retire(open_store(parent), key)
    store.delete(layout.FAILURE)
    store.write(layout.STAGE, _spec(plan, stage, parent_uri).to_json().encode())
    job = job_of(plan, stage)
    saved = [_saved(store)]

    def advanced() -> bool:
        saved.append(_saved(store))
        return saved[-1] != saved[-2]

    try:
        outcome = run_with_retries(
            launcher,
            job,
            max_attempts=launcher.max_attempts,
            advanced=advanced,
            on_log=lambda line: listen(parse_line(line)),
        )
    except Interrupted:
        raise
    except JobError as error:
        _record(store, plan, stage, cause=error.reason, message=str(error), exit_code=error.exit_code, where="launcher")
        raise
    if outcome.state == "cancelled" or outcome.exit_code in (130, 143):
        raise Interrupted(f"stage {stage.name} was stopped; its state is saved, the same command goes on from there")
    if outcome.state == "failed":
        message = f"stage {stage.name} failed ({outcome.reason}, exit code {outcome.exit_code}): {outcome.message}"
        _record(
            store,
            plan,
            stage,
            cause=outcome.reason,
            message=outcome.message,
            exit_code=outcome.exit_code,
            where=outcome.where,
        )
        raise JobError(message, reason=outcome.reason, exit_code=2 if outcome.exit_code == 2 else 1)
    manifest = read_manifest(store, "")
    if manifest is None:
        raise JobError(
            f"stage {stage.name}: the job succeeded but left no {layout.MANIFEST} at {stage.uri}", reason="lost"
        )
    return _outcome(stage, manifest)


def job_of(plan: ChainPlan, stage: StagePlan) -> Job:
    """The job that trains a stage, as any launcher gets it."""
    trainer = stage.config["training"]["trainer"]
    return Job(
        name=stage.job_name,
        argv=(*stage.argv, "--progress", "json"),
        nodes=trainer["num_nodes"],
        processes_per_node=trainer["devices"],
        labels={RUN: plan.run_id, "curricle.dev/stage": stage.name},
        digest=stage.digest,
        heartbeat=join_uri(stage.uri, layout.HEARTBEAT),
    )


def _saved(store: Store) -> str:
    """What tells one saved state from the next: a retry that saves no further one makes no way."""
    manifest = read_manifest(store, layout.LAST)
    return f"{manifest.digest} {manifest.created}" if manifest else ""


def _record(store: Store, plan: ChainPlan, stage: StagePlan, **failure: Any) -> None:
    """Write why a stage failed to its place in the store: Kubeflow keeps no reason."""
    record = {
        "stage": stage.name,
        "run_id": plan.run_id,
        "time": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        **failure,
    }
    store.write(layout.FAILURE, json.dumps(record, indent=1, sort_keys=True).encode())


def reuse_stage(plan: ChainPlan, index: int, parent_uri: str) -> StageOutcome:
    """Return a stage that is already complete, or, for a stage that was not selected, the stage before it.

    Raises:
        CheckpointError: what the plan promised is not there any more.
    """
    stage = plan.stages[index]
    uri = (parent_uri or stage.parent_uri) if stage.start == "skip" else stage.uri
    if not uri:
        return StageOutcome(
            "", Manifest(kind="stage", digest="", files={}, metrics={}, lineage={}, info={}, created=""), {}, {}
        )
    manifest = read_manifest(open_store(uri), "")
    if manifest is None:
        raise CheckpointError(
            f"stage {stage.name} was to be taken from {uri}, but that is not complete (any more); plan again"
        )
    return _outcome(dataclasses.replace(stage, uri=uri), manifest)


def parse_line(line: str) -> dict[str, Any]:
    """A job's log line as an event: a progress record, or ``{"event": "log", "line": ...}``."""
    start = line.find('{"event"')
    if start >= 0:
        try:
            return json.loads(line[start:])
        except ValueError:
            pass
    return {"event": "log", "line": line.rstrip("\n")}


def _spec(plan: ChainPlan, stage: StagePlan, parent_uri: str) -> StageSpec:
    source = None
    if stage.start == "continued":
        source = parent_uri or stage.parent_uri
        if read_kind(source) == "stage":
            source = best_checkpoint(source)
    return StageSpec(
        run_id=plan.run_id,
        stage=stage.name,
        digest=stage.digest,
        family=stage.family,
        config=stage.config,
        start=stage.start,
        parent_uri=source,
        parent_digest=stage.parent_digest or None,
        data_uri=stage.data_uri,
        data_digest=stage.data_digest,
        tracking=stage.tracking,
    )


def read_kind(uri: str) -> str:
    """The kind of artifact at a URI.

    Raises:
        CheckpointError: nothing complete is there.
    """
    manifest = read_manifest(open_store(uri), "")
    if manifest is None:
        raise CheckpointError(f"{uri} is to be continued, but holds nothing complete ({layout.MANIFEST} is missing)")
    return manifest.kind


def _outcome(stage: StagePlan, manifest: Manifest) -> StageOutcome:
    lineage = {
        "stage": stage.name,
        "start": stage.start,
        "digest": manifest.digest,
        "checkpoint_uri": join_uri(stage.uri, manifest.info["best"]) if "best" in manifest.info else stage.uri,
        "parent_checkpoint_uri": references.resolve(manifest.lineage.get("parent_uri"), stage.uri),
        "data_uri": stage.data_uri,
    }
    return StageOutcome(stage.uri, manifest, manifest.metrics, lineage)
