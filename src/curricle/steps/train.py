"""Train, or reuse, one stage of a plan. Idempotent: a complete stage with the planned digest is returned at once."""

from __future__ import annotations

import dataclasses
from contextlib import suppress
from dataclasses import dataclass
from typing import get_args

from curricle.config import advice
from curricle.errors import CheckpointError, ConfigError, Interrupted, JobError, StoreError
from curricle.launch.job import REASONS, RUN, Job, Launcher, Outcome, Reason
from curricle.launch.retry import run_with_retries
from curricle.masking import masked
from curricle.planning import ChainPlan, StagePlan
from curricle.steps.claim import Claim, Held, remove_dead_claim
from curricle.steps.source import best_checkpoint
from curricle.store import Store, join_uri, layout, open_store, references, split_uri
from curricle.store.failure import Failure
from curricle.store.manifest import Manifest, read_manifest
from curricle.store.ours import retire_stage
from curricle.training.events import Listener, Log, read_line
from curricle.training.spec import StageSpec


@dataclass(frozen=True)
class StageOutcome:
    """A complete stage: what the next stage, the run view and the user need."""

    uri: str
    """The stage's place."""
    manifest: Manifest
    metrics: dict[str, float]
    lineage: dict[str, str]
    waited: bool = False
    """Whether another process trained it while this one waited."""


def train_stage(plan: ChainPlan, index: int, parent_uri: str, launcher: Launcher, listen: Listener) -> StageOutcome:
    """Train one stage as a job of the launcher. Where another process trains the same, wait and take what it made.

    Args:
        plan: the chain's plan.
        index: the stage's position in it.
        parent_uri: place of the stage before, as it really came out; empty for the first.
        launcher: where the job runs.
        listen: gets the job's progress events and log lines.

    Raises:
        CheckpointError: the parent is not complete or not what was planned.
        JobError: the job failed, or the place holds other work than was planned; `Held` when another process does other work there;
            `Interrupted` when it was stopped and can be resumed.
        StoreUnavailable: the store is away. A job that this ended is tried again as the launcher says.
    """
    stage = plan.stages[index]
    store = open_store(stage.uri)
    if plan.resume and (done := _complete(store, stage)):
        _tidy(store)
        return _outcome(stage, done)
    with Claim(store, stage.digest, lambda line: listen(Log(line))) as claim:
        done = _complete(store, stage)
        if done and (plan.resume or claim.waited):
            return dataclasses.replace(_outcome(stage, done), waited=claim.waited)
        _require_own_place(store, stage)
        if not plan.resume:
            parent, key = split_uri(stage.uri)
            if stays := retire_stage(open_store(parent), key):
                listen(Log(f"{stage.uri} keeps {', '.join(stays)}, which Curricle did not write"))
        store.delete(layout.FAILURE)
        store.write(layout.STAGE, _spec(plan, stage, parent_uri).to_json(stage.uri).encode())
        _run_job(plan, stage, store, launcher, listen, claim)
        done = _complete(store, stage)
    if done is None:
        raise JobError(
            f"stage {stage.name}: the job succeeded but left no {layout.MANIFEST} at {stage.uri}", reason="lost"
        )
    best = str(done.info.get("best") or "")
    if best and read_manifest(store, best) is None:
        raise JobError(
            f"stage {stage.name}: the job succeeded, and its best checkpoint {best} is not there: another process wrote or deleted at {stage.uri} "
            "meanwhile. Train it anew: the same command with --resume false",
            reason="lost",
        )
    return _outcome(stage, done)


def _tidy(store: Store) -> None:
    """Remove from a complete stage's place what processes that were killed right at its end may have left there."""
    remove_dead_claim(store)
    if store.read(layout.FAILURE) is not None:
        with suppress(StoreError):  # a store that may only be read keeps it
            store.delete(layout.FAILURE)


def _run_job(
    plan: ChainPlan, stage: StagePlan, store: Store, launcher: Launcher, listen: Listener, claim: Claim
) -> None:
    """Run the stage's job to its end, and record why where it fails."""
    states = [_saved(store)]

    def advanced() -> bool:
        states.append(_saved(store))
        return states[-1] != states[-2]

    def hear(line: str) -> None:
        claim.confirm()
        listen(read_line(masked(line)))

    def record(cause: str, message: str, exit_code: int, where: str) -> None:
        with suppress(StoreError):  # the store may be what has failed: the failure itself is told
            write_record(cause, message, exit_code, where)

    def write_record(cause: str, message: str, exit_code: int, where: str) -> None:
        if layout.read_stage_digest(store.read(layout.STAGE)) == stage.digest and read_manifest(store, "") is None:
            Failure(message, exit_code, cause, run_id=plan.run_id, stage=stage.name, where=where).write(store)

    try:
        outcome = run_with_retries(
            launcher,
            job_of(plan, stage),
            max_attempts=launcher.max_attempts,
            retryable=launcher.retryable,
            advanced=advanced,
            on_log=hear,
        )
    except (Interrupted, Held):
        raise
    except JobError as error:
        record(error.reason, str(error), error.exit_code, "launcher")
        raise
    if outcome.state == "cancelled" or outcome.exit_code in (130, 143):
        raise Interrupted(f"stage {stage.name} was stopped; its state is saved, the same command goes on from there")
    if outcome.state == "failed":
        if outcome.reason == "oom_killed":  # who was killed has given no advice
            outcome = dataclasses.replace(outcome, message=f"{outcome.message}. {advice.for_memory(stage.config)}")
        outcome = dataclasses.replace(outcome, reason=_own_reason(store, outcome))
        record(outcome.reason, outcome.message, outcome.exit_code, outcome.where)
        raise JobError(
            f"stage {stage.name} failed ({outcome.reason}, exit code {outcome.exit_code}): {outcome.message}",
            reason=outcome.reason,
            exit_code=outcome.exit_code if outcome.exit_code in REASONS else 1,
        )


def _own_reason(store: Store, outcome: Outcome) -> Reason:
    """Why a job failed, by the record of the rank whose words these are where it left one: an exit code alone does not tell a wrong
    configuration from the end of memory.
    """
    with suppress(StoreError):
        said = Failure.read(store)
        if said and said.exit_code == outcome.exit_code and said.message[:200] in outcome.message:
            return next((reason for reason in get_args(Reason) if reason == said.cause), outcome.reason)
    return outcome.reason


def _complete(store: Store, stage: StagePlan) -> Manifest | None:
    """The manifest of the finished stage, None where it is not finished.

    Raises:
        JobError: a model of other work is there.
    """
    manifest = read_manifest(store, "")
    if manifest is not None and manifest.digest != stage.digest:
        raise _other_work(stage, "the complete model", manifest.digest)
    return manifest


def _require_own_place(store: Store, stage: StagePlan) -> None:
    """Raise `JobError` where other work was begun at the stage's place since the plan was made."""
    begun = store.read(layout.STAGE)
    digest = layout.read_stage_digest(begun) if begun else ""
    if digest not in ("", stage.digest):
        raise _other_work(stage, "the beginning", digest)


def _other_work(stage: StagePlan, what: str, digest: str) -> JobError:
    return JobError(
        f"stage {stage.name}: {stage.uri} holds {what} of other work: its digest is {digest}, {stage.digest} was planned "
        "(another configuration, data or parent). Plan again: the same command finds another place",
        reason="refused",
        exit_code=2,
    )


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


def check_nodes(plan: ChainPlan, launcher: Launcher) -> None:
    """Refuse stages of several nodes where there is one machine.

    Raises:
        ConfigError: names the stage.
    """
    for stage in plan.stages:
        nodes = stage.config["training"]["trainer"]["num_nodes"]
        if stage.trains and nodes > 1 and launcher.name == "local":
            raise ConfigError(
                f"training.trainer.num_nodes of stage {stage.name} is {nodes}, and the launcher local has this machine alone; take "
                "--launcher pytorchjob or trainjob, or training.trainer.devices for several processes here"
            )


def _saved(store: Store) -> str:
    """What tells one saved state from the next: a retry that saves no further one makes no way."""
    manifest = read_manifest(store, layout.LAST)
    return f"{manifest.digest} {manifest.created}" if manifest else ""


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
    store = open_store(uri)
    manifest = read_manifest(store, "")
    if manifest is None:
        raise CheckpointError(
            f"stage {stage.name} was to be taken from {uri}, but that is not complete (any more); plan again"
        )
    if stage.start == "reuse":
        _tidy(store)
    return _outcome(dataclasses.replace(stage, uri=uri), manifest)


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
