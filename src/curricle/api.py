"""Training from Python: the same plan, steps and store as the command line. The names of `curricle` that train stand here."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from curricle.config.defaults import config_file
from curricle.errors import ConfigError
from curricle.launch import open_launcher
from curricle.planning import ChainPlan
from curricle.steps.chain import ChainRequest, judge_chain, make_plan, run_chain
from curricle.steps.train import StageOutcome
from curricle.steps.use import Model, open_model
from curricle.training.events import Event, Listener

CONFIG = Path("config/config.yaml")


def _silent(event: Event) -> None:
    """The listener of nobody."""


def plan(
    config: Path | str = CONFIG,
    *,
    chain: str = "",
    stages: Sequence[str] = (),
    overrides: Mapping[str, Any] | Sequence[str] = (),
    from_checkpoint: str = "",
    resume: bool = True,
    run_id: str = "",
    gate: str | None = None,
) -> ChainPlan:
    """What would be trained and why: start mode, place and digest of each stage. Trains and writes nothing.

    Args:
        config: base configuration file; config/config.yaml unless given.
        chain: a chain file's name or path; or give `stages`.
        stages: stages in training order.
        overrides: dotted settings, as a mapping (``{"training.learning_rate": 1e-4}``) or as on the command line.
        from_checkpoint: what the first stage starts from: a stage's name, a run, or the path or URI of a checkpoint.
        resume: False trains again what is complete.
        run_id: name of the run; empty takes ``sequential_<stages>``.
        gate: rule by which the result is promoted; None takes the chain's own.

    Raises:
        ConfigError, CheckpointError, DataError, StoreError: something asked for is wrong or missing.
    """
    if bool(chain) == bool(stages):
        raise ConfigError("give either chain='...' or stages=[...]: which stages are meant?")
    texts = overrides
    if isinstance(overrides, Mapping):
        texts = [f"{key}={json.dumps(value)}" for key, value in overrides.items()]
    return make_plan(
        ChainRequest(
            config=config_file(Path(config)),
            chain=chain,
            curricula=tuple(stages),
            overrides=tuple(texts),
            from_checkpoint=from_checkpoint,
            resume=resume,
            run_id=run_id,
            gate=gate,
        )
    )


def train_chain(
    config: Path | str = CONFIG, *, launcher: str = "local", listen: Listener = _silent, **asked: Any
) -> list[StageOutcome]:
    """Train a chain of stages, each from the best checkpoint of the one before; what is complete is not trained again.

    Args:
        launcher: where jobs run, ``local``, ``pytorchjob``, ``trainjob`` or ``auto``.
        listen: gets the progress events of the run.
        asked: as of `plan`.

    Returns:
        What became of each stage.

    Raises:
        JobError: a stage failed, `Interrupted` when it was stopped and can be resumed; stages before it stay complete.
    """
    planned = plan(config, **asked)
    outcomes = run_chain(planned, open_launcher(launcher), listen)
    judge_chain(planned, outcomes[-1].uri)
    return outcomes


def train(config: Path | str = CONFIG, *, stage: str = "", **asked: Any) -> Model:
    """Train one stage or a chain, and open its result.

    Args:
        stage: one stage; or `chain` or `stages` as of `plan`.
        asked: as of `train_chain`.
    """
    if stage and (asked.get("stages") or asked.get("chain")):
        raise ConfigError("give one of stage='...', stages=[...] and chain='...': which stages are meant?")
    if stage:
        asked["stages"] = [stage]
    return open_model(train_chain(config, **asked)[-1].uri)
