"""The plan of a chain: pure data, made before anything runs.

A stage's digest follows from its configuration, its data's digest and its parent's digest, so places and start modes of the
whole chain are known at once. Nothing here looks at what a store holds: that comes in as `Holdings`.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from curricle.config.load import Loaded, from_tree, leaves, to_tree
from curricle.config.schema import NOT_IN_DIGEST, StageConfig
from curricle.errors import ConfigError
from curricle.registry import canonical, first_name
from curricle.store import join_uri, layout, references
from curricle.store.strict import kind_of, read_object

FORMAT = 2
"""Of a stored plan."""
DIGEST_FORMAT = 1
"""Part of every stage's digest: raising it makes all trained stages strangers."""
Start = Literal["scratch", "continued", "reuse", "skip"]
StartMode = Literal["auto", "scratch", "continued"]
"""How a user insists on a chain's start; ``auto`` leaves it to whether there is a checkpoint."""


@dataclass(frozen=True)
class Source:
    """A checkpoint that a chain starts from, as `steps.source` resolved it."""

    uri: str
    digest: str
    reason: str
    """How it was chosen, for people."""


@dataclass(frozen=True)
class Holdings:
    """What a store already holds of the stages in question."""

    complete: dict[tuple[str, str], str] = field(default_factory=dict)
    """(stage, digest) → place of a complete stage."""
    occupied: dict[str, str] = field(default_factory=dict)
    """Place → digest of what is there, complete or not."""
    broken: dict[tuple[str, str], str] = field(default_factory=dict)
    """Of `complete`, those whose best checkpoint is gone: (stage, digest) → where it is missing."""
    training: frozenset[str] = frozenset()
    """Of `occupied`, those where a living process trains."""


@dataclass(frozen=True)
class StageInput:
    """One stage as asked for."""

    name: str
    loaded: Loaded[StageConfig]
    data_uri: str
    data_digest: str
    tracking: dict[str, Any] = field(default_factory=dict)
    """Names and tags for MLflow, where they are not the common ones: see `train.spec.StageSpec`."""


@dataclass(frozen=True)
class StagePlan:
    """One stage as it will run."""

    name: str
    start: Start
    reason: str
    digest: str
    uri: str
    """The stage's place: where its result is or will be."""
    parent_uri: str
    """A checkpoint, or the place of a stage whose best checkpoint is meant; empty for scratch."""
    parent_digest: str
    data_uri: str
    data_digest: str
    job_name: str
    config: dict[str, Any]
    origins: dict[str, str]
    tracking: dict[str, Any] = field(default_factory=dict)

    @property
    def family(self) -> str:
        """The stage's family."""
        return canonical(self.config["family"])

    @property
    def trains(self) -> bool:
        """Whether a job is started for the stage."""
        return self.start in ("scratch", "continued")

    @property
    def argv(self) -> tuple[str, ...]:
        """What each rank of the stage's job runs, after ``python``: it follows from place and digest and is never stored."""
        if not self.trains:
            return ()
        return ("-m", "curricle.training.worker", "--stage-uri", self.uri, "--digest", self.digest)


@dataclass(frozen=True)
class ChainPlan:
    """A whole chain as it will run."""

    chain_name: str
    run_id: str
    store_uri: str
    resume: bool
    stages: tuple[StagePlan, ...]
    gate: str = ""
    """Rule that decides whether the result is promoted; empty promotes nothing."""

    @property
    def selected(self) -> tuple[StagePlan, ...]:
        """The stages that are not skipped, in order; the last one is the chain's result."""
        return tuple(stage for stage in self.stages if stage.start != "skip")

    def to_json(self) -> str:
        """The plan for a program that reads it, with each stage's argv."""
        tree = {"format": FORMAT} | asdict(self)
        tree["stages"] = [asdict(stage) | {"argv": stage.argv} for stage in self.stages]
        return json.dumps(tree, indent=1, sort_keys=True)

    def to_stored(self) -> str:
        """The plan as it is kept in its run's place: references are relative, what follows from the place is left out."""
        place = join_uri(self.store_uri, self.run_id)
        stages = []
        for stage in self.stages:
            tree = asdict(stage)
            for name in REFERENCES:
                tree[name] = references.refer(tree[name], place, self.store_uri)
            stages.append(tree)
        kept = {
            "format": FORMAT,
            "chain_name": self.chain_name,
            "run_id": self.run_id,
            "resume": self.resume,
            "gate": self.gate,
        }
        return json.dumps(kept | {"stages": stages}, indent=1, sort_keys=True)

    @classmethod
    def from_stored(cls, text: str | bytes, run_uri: str) -> ChainPlan:
        """The plan that `to_stored` wrote, found at a run's place.

        Raises:
            ConfigError: it is damaged, or of another format.
        """
        where = join_uri(run_uri, layout.PLAN)
        again = (
            "make the plan again with this version of curricle: curricle train-curriculum of the same stages writes it"
        )
        try:
            tree = read_object(text)
            made_by = tree.pop("format", None)
            if type(made_by) is not int or made_by not in (1, FORMAT):
                raise ValueError(f"its format is {made_by}, this version reads {FORMAT}")
            store_uri = run_uri.rstrip("/").rpartition("/")[0]
            stages = []
            if not tree.get("stages"):
                raise ValueError("it has no stages")
            given = tree.pop("stages")
            if not isinstance(given, list) or not all(isinstance(stage, dict) for stage in given):
                raise ValueError("its stages are no list of objects")
            for stage in given:
                stage.pop("argv", None)
                for name in REFERENCES:
                    if not isinstance(stage.get(name), str):
                        raise ValueError(f"{name} of a stage is {kind_of(stage.get(name))}, and should be a text")
                    stage[name] = references.resolve(stage[name], run_uri)
                if not stage["uri"] and stage.get("start") != "skip":
                    raise ValueError("a stage has no place")
                _check_settings(stage.get("config"))
                stages.append(stage)
            return from_tree(cls, tree | {"store_uri": store_uri, "stages": stages})
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise ConfigError(f"{where} is damaged ({error}); {again}") from None


def _check_settings(config: Any) -> None:
    """Check that a stored stage's configuration has what is read from it without its family's schema.

    Raises:
        ValueError: a setting is missing or of another kind.
    """
    for key, kind in SETTINGS.items():
        value = config
        for part in key.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        if type(value) is not kind:
            raise ValueError(f"{key} of a stage is {kind_of(value)}, and should be {'a text' if kind is str else 'a whole number'}")  # fmt: skip


SETTINGS = {
    "family": str,
    "paths.cache_dir": str,
    "training.trainer.devices": int,
    "training.trainer.max_epochs": int,
    "training.trainer.num_nodes": int,
}
"""What is read from a stored stage's configuration without its family's schema, and its kind."""
REFERENCES = ("uri", "parent_uri", "data_uri")
"""Fields of a stage's plan that name another place."""


def stage_digest(config: StageConfig, data_digest: str, parent_digest: str) -> str:
    """Digest of everything that decides what a stage learns: 64 hex digits of SHA-256.

    Where it is stored, tracked and run is left out (`NOT_IN_DIGEST`), the parent's digest is in, so a changed
    stage changes all stages after it.
    """
    kept = {
        key: first_name(value) if key == "family" else value
        for key, value in leaves(config).items()
        if not any(key == prefix or key.startswith(f"{prefix}.") for prefix in NOT_IN_DIGEST)
        and not key.startswith("data.")
        and not (key in config.ADDED and value == config.ADDED[key])
    }
    text = json.dumps(
        {"format": DIGEST_FORMAT, "config": kept, "data": data_digest, "parent": parent_digest}, sort_keys=True
    )
    return hashlib.sha256(text.encode()).hexdigest()


def plan_chain(
    stages: list[StageInput],
    *,
    chain_name: str,
    store_uri: str,
    start: Source | None,
    holdings: Holdings,
    resume: bool,
    run_id: str = "",
    selected: set[str] | None = None,
    start_mode: StartMode = "auto",
    gate: str = "",
) -> ChainPlan:
    """Plan a chain.

    Args:
        stages: in training order.
        start: the checkpoint the first stage continues, or None for scratch.
        holdings: what the store holds.
        resume: False trains every stage again, whatever the store holds.
        run_id: empty takes ``sequential_01-02-03`` from the selected stages.
        selected: stages to run; None means all. Others are skipped: the next one starts from the last that ran.
        start_mode: ``scratch`` and ``continued`` insist; ``auto`` takes what `start` says.
        gate: rule over the last stage's test metrics.

    Raises:
        ConfigError: a selected stage is not in the chain, `start_mode` contradicts `start`, or a run id or stage name is none, or is both.
    """
    names = [s.name for s in stages]
    wanted = names if selected is None else [n for n in names if n in selected]
    unknown = sorted((selected or set()) - set(names))
    if unknown:
        raise ConfigError(f"stages {', '.join(unknown)} are not in chain {chain_name}; it has {', '.join(names)}")
    if start_mode == "continued" and start is None:
        raise ConfigError("start mode is 'continued', but no checkpoint was given; name one with --from-checkpoint")
    if start_mode == "scratch" and start is not None:
        raise ConfigError(f"start mode is 'scratch', but --from-checkpoint gave {start.uri}; drop one of the two")
    for stage in stages:
        layout.check_stage_name(stage.name)
    run_id = layout.check_run_id(run_id or layout.run_id(wanted))
    if run_id in names:
        raise ConfigError(
            f"run id {run_id!r} is the name of a stage of this chain, and would stand for both; take another one"
        )
    parent = start
    planned = []
    for stage in stages:
        if stage.name not in wanted:
            planned.append(_skipped(stage, parent))
            continue
        plan = _plan_stage(stage, run_id, store_uri, parent, holdings, resume)
        planned.append(plan)
        parent = Source(plan.uri, plan.digest, f"best checkpoint of {stage.name}")
    return ChainPlan(chain_name, run_id, store_uri, resume, tuple(planned), gate)


def _plan_stage(
    stage: StageInput, run_id: str, store_uri: str, parent: Source | None, holdings: Holdings, resume: bool
) -> StagePlan:
    digest = stage_digest(stage.loaded.config, stage.data_digest, parent.digest if parent else "")
    place = join_uri(store_uri, run_id, stage.name)
    there = holdings.occupied.get(place)
    if there not in (None, digest):
        place = join_uri(store_uri, run_id, layout.place_apart(stage.name, digest))
    done = holdings.complete.get((stage.name, digest))
    start: Start = "continued" if parent else "scratch"
    reason = parent.reason if parent else "first stage, no --from-checkpoint"
    if done and resume and (missing := holdings.broken.get((stage.name, digest))):
        raise ConfigError(
            f"stage {stage.name} is complete at {done}, but its best checkpoint {missing} is not there (deleted?); "
            "train the stage again with --resume false"
        )
    if done and resume:
        start, place, reason = "reuse", done, "already complete with this digest"
    elif done:
        reason += "; trained again (--resume false)"
    elif holdings.occupied.get(place) == digest and resume:
        reason += f"; {'is being trained now' if place in holdings.training else 'resumes where it was interrupted'}"
    elif there not in (None, digest):
        reason += f"; {stage.name} in {run_id} holds another configuration ({there[:8]})"
    return StagePlan(
        name=stage.name,
        start=start,
        reason=reason,
        digest=digest,
        uri=place,
        parent_uri=parent.uri if parent else "",
        parent_digest=parent.digest if parent else "",
        data_uri=stage.data_uri,
        data_digest=stage.data_digest,
        job_name=job_name(run_id, stage.name, digest),
        config=to_tree(stage.loaded.config),
        origins=stage.loaded.origins,
        tracking=stage.tracking,
    )


def _skipped(stage: StageInput, parent: Source | None) -> StagePlan:
    return StagePlan(
        name=stage.name,
        start="skip",
        reason="not selected",
        digest="",
        uri=parent.uri if parent else "",
        parent_uri=parent.uri if parent else "",
        parent_digest=parent.digest if parent else "",
        data_uri=stage.data_uri,
        data_digest=stage.data_digest,
        job_name="",
        config=to_tree(stage.loaded.config),
        origins=stage.loaded.origins,
    )


def job_name(run_id: str, stage: str, digest: str) -> str:
    """A DNS label of at most 46 characters that the same work always gets: ``stage-01-stage-1a2b3c4d``."""
    slug = re.sub(r"[^a-z0-9]+", "-", stage.lower()).strip("-")[:30].strip("-")
    mark = hashlib.sha256(f"{run_id}/{stage}/{digest}".encode()).hexdigest()[:8]
    return f"stage-{slug}-{mark}"
