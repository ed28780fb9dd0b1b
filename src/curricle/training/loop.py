"""The one training loop: steps, schedule, precision, validation, best and last, early stopping, interruption.

It knows a `TrainingTask` and no family. Everything random is a function of (seed, step, rank), and the learning rate is a
function of the step, so a stage that was interrupted and resumed is bitwise equal to one that was not.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import platform
import resource
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, Protocol

import torch

from curricle.config import advice
from curricle.config.load import to_tree
from curricle.config.schema import StageConfig
from curricle.errors import Interrupted, JobError
from curricle.store import layout
from curricle.training.checkpoint import Checkpoints, State, load_state, load_weights
from curricle.training.distributed import Ranks, reduce_gradients
from curricle.training.events import Done, Epoch, Listener, Resumed, Saved, Step, Warned
from curricle.training.memory import give_back
from curricle.training.optimizers import make_optimizer
from curricle.training.precision import Precision, resolve_precision
from curricle.training.pulse import working
from curricle.training.task import SCORE, TrainingTask

CURVE = 300
"""Steps whose loss is kept in the stage's history, about."""
GIVE_BACK = 25
"""Steps between two calls of `give_back`."""


class Curves(Protocol):
    """Where curves go. Never blocks, never raises."""

    key: str
    """What a resumed stage is tracked under."""

    def log(self, values: dict[str, float], step: int) -> None: ...

    def describe(self, facts: dict[str, Any]) -> None: ...


@dataclass(frozen=True)
class TrainedStage:
    """What the loop made of a stage."""

    metrics: dict[str, float]
    """Validation metrics of the best checkpoint."""
    best: str
    """Its name."""
    epochs: int
    steps: int


def seed_of(*parts: object) -> int:
    """63 bits that depend on nothing but the parts, the same on every machine."""
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:8], "big") >> 1


def rate(step: int, total: int, warmup: int) -> float:
    """Factor of the learning rate at a step (from 0): linear warm-up over at most a tenth of `total`, then cosine to zero."""
    warmup = min(warmup, total // 10)
    if step < warmup:
        return (step + 1) / (warmup + 1)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - warmup) / max(1, total - warmup))))


def run_stage(
    task: TrainingTask,
    config: StageConfig,
    checkpoints: Checkpoints,
    ranks: Ranks,
    *,
    tracker: Curves,
    report: Listener,
    resume_dir: Path | None = None,
) -> TrainedStage:
    """Train one stage to its end and publish it.

    Args:
        tracker: gets the curves.
        report: gets the events.
        resume_dir: a local copy of the stage's newest state; given, the stage goes on from there, weights included.

    Raises:
        Interrupted: some rank was asked to stop; the state is saved and uploaded.
        JobError: a loss or a gradient is not finite (named with step, terms and records; of that step nothing is saved but the records, in
            `bad_batch.json`).
    """
    return _Stage(task, config, checkpoints, ranks, tracker, report).run(resume_dir)


class _Stage:
    def __init__(
        self,
        task: TrainingTask,
        config: StageConfig,
        checkpoints: Checkpoints,
        ranks: Ranks,
        tracker: Curves,
        report: Listener,
    ):
        self.task = task
        self.config = config
        self.checkpoints = checkpoints
        self.ranks = ranks
        self.tracker = tracker
        self.report = report
        self.trainer = config.training.trainer
        self.precision: Precision = resolve_precision(self.trainer.precision, ranks.device)
        self.scaler = self.precision.scaler()
        self.state = State()
        self.metrics: dict[str, float] = {}
        self.gradient_norm: float | torch.Tensor = 0.0
        groups = [g for g in task.parameter_groups() if g["params"]] if self.trainer.max_epochs else []
        self.parameters = [p for g in groups for p in g["params"]]
        given = config.training.learning_rate
        self.learning_rate = task.learning_rate if given is None else given
        self.steps_here, self.began = 0, time.monotonic()
        """Steps of this process, and when it began them: what its speed is measured by."""
        self.optimizer = make_optimizer(groups, self.learning_rate, config.training.weight_decay) if groups else None

    def run(self, resume_dir: Path | None) -> TrainedStage:
        if resume_dir is not None:
            self._resume(resume_dir)
        else:
            self.ranks.broadcast_tensors(self.parameters)
            self.tracker.describe(
                {
                    "learning_rate": self.learning_rate,
                    "precision": self.precision.name,
                    "world_size": self.ranks.world_size,
                }
            )
        if self.optimizer is None:
            if not self.state.best_name:
                self._end_epoch()
        else:
            while self.state.epoch < self.trainer.max_epochs and not self._stops_early():
                self._epoch(self.optimizer)
        state = self.state
        result = TrainedStage(state.best_metrics, state.best_name, state.epoch, state.step)
        if self.ranks.rank == 0:
            facts = {
                "best": state.best_name,
                "epochs": state.epoch,
                "steps": state.step,
                "world_size": self.ranks.world_size,
                "precision": self.precision.name,
                "versions": {"python": platform.python_version(), "torch": str(torch.__version__)},
                **self._cost(),
            }
            self.checkpoints.finish(self.task, state, state.best_metrics, facts)
        self.ranks.barrier()
        self.report(Done(best=result.best, epochs=result.epochs, steps=result.steps, metrics=result.metrics))
        return result

    def _cost(self) -> dict[str, float]:
        """What the stage took, by what of it this process did: seconds a step, validation and saving included, and its peak memory."""
        if not self.steps_here:
            return {}
        return {
            "seconds_per_step": round((time.monotonic() - self.began) / self.steps_here, 4),
            "peak_memory_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        }

    def _stops_early(self) -> bool:
        stopping = self.config.training.early_stopping
        return stopping.enabled and self.state.stale >= max(1, stopping.patience)

    def _resume(self, folder: Path) -> None:
        self.state = load_state(folder)
        self.task.load_weights(load_weights(folder))
        if self.optimizer is not None:
            self.optimizer.load_state_dict(self.state.optimizer)
        if self.scaler.is_enabled() and self.state.scaler:
            self.scaler.load_state_dict(self.state.scaler)
        self.report(Resumed(epoch=self.state.epoch, step=self.state.step))

    def _epoch(self, optimizer: torch.optim.Optimizer) -> None:
        state, accumulate = self.state, self.trainer.accumulate_grad_batches
        with working(f"choosing the batches of epoch {state.epoch + 1}"):
            batches = self.task.batches(state.epoch)
        length = self.ranks.largest(len(batches))
        if -self.ranks.largest(-len(batches)) != length or not length:
            raise JobError(
                f"epoch {state.epoch + 1}: rank {self.ranks.rank} has {len(batches)} batches, another rank {length}; "
                "every rank needs equally many, and at least one",
                exit_code=2,
            )
        steps = math.ceil(length / accumulate)
        state.total_steps = state.total_steps or steps * self.trainer.max_epochs
        self.task.model.train()
        while state.step_in_epoch < steps:
            first = state.step_in_epoch * accumulate
            micro_batches = [batches[i] for i in range(first, min(first + accumulate, length))]
            terms, stop = self._step(optimizer, micro_batches)
            for name, value in terms.items():
                state.sums[name] = state.sums.get(name, 0.0) + value
            state.step_in_epoch += 1
            state.step += 1
            self.steps_here += 1
            self._log_step(optimizer, terms, steps)
            if stop:
                self._interrupt()
            if state.step % self.trainer.save_every_n_steps == 0 and state.step_in_epoch < steps:
                self._save()
            if state.step % GIVE_BACK == 0:
                give_back()
        means = {f"train/{name}_epoch": total / steps for name, total in state.sums.items()}
        state.epoch, state.step_in_epoch, state.sums = state.epoch + 1, 0, {}
        self._end_epoch(means)

    def _step(self, optimizer: torch.optim.Optimizer, micro_batches: list[Any]) -> tuple[dict[str, float], bool]:
        """One optimiser step; the losses (mean over micro-batches and ranks), and whether any rank was asked to stop."""
        state, training = self.state, self.config.training
        torch.manual_seed(seed_of(self.config.seed, state.step, self.ranks.rank))
        factor = rate(state.step, state.total_steps, training.warmup_steps)
        for group in optimizer.param_groups:
            group["lr"] = self.learning_rate * group["scale"] * factor
        optimizer.zero_grad(set_to_none=True)
        sums: dict[str, torch.Tensor] = {}
        seen: list[torch.Tensor] = []
        for batch in micro_batches:
            with self.precision.autocast():
                losses = self.task.losses(batch)
            self.scaler.scale(losses["loss"] / len(micro_batches)).backward()
            seen.append(losses["loss"].detach())
            for name, value in losses.items():
                sums[name] = sums.get(name, 0.0) + value.detach() / len(micro_batches)
        names = sorted(sums)
        (*values, stop), norm = reduce_gradients(
            self.parameters, [*(sums[n] for n in names), float(self.ranks.stop_signal > 0)], self.ranks
        )
        terms = dict(zip(names, values, strict=True))
        if not math.isfinite(terms["loss"]) or not (math.isfinite(norm) or self._overflows()):
            self._end_diverged(micro_batches, seen, terms, norm)
        clip = self.trainer.gradient_clip_val or math.inf
        if self.scaler.is_enabled():
            self.scaler.unscale_(optimizer)
            self.gradient_norm = torch.nn.utils.clip_grad_norm_(self.parameters, clip)
        else:
            self.gradient_norm = norm
            torch.nn.utils.clip_grads_with_norm_(self.parameters, clip, torch.tensor(norm, device=self.ranks.device))
        self.scaler.step(optimizer)
        self.scaler.update()
        return terms, stop > 0

    def _overflows(self) -> bool:
        """Whether a gradient that is not finite is only scaled too far, as 16-mixed finds its scale: the step is left out, and that is said."""
        if not self.scaler.is_enabled() or (scale := self.scaler.get_scale()) <= 1:
            return False
        step = f"step {self.state.step + 1} is left out"
        self.report(
            Warned(f"{step}: its gradient, scaled by {scale:g}, is too large for 16-mixed; the scale is halved")
        )
        return True

    def _end_diverged(
        self, micro_batches: list[Any], losses: list[torch.Tensor], terms: dict[str, float], norm: float
    ) -> NoReturn:
        """All ranks are here, after the same step, whose loss or gradient is not finite on at least one: save its records, and say so."""
        state, stage = self.state, self.checkpoints.stage
        mine = [
            {"loss": float(loss), "records": self.task.records(batch)}
            for loss, batch in zip(losses, micro_batches, strict=True)
        ]
        ranks: list[list[dict[str, Any]]] = self.ranks.gather_objects(mine)
        trained = {id(p): name for name, p in self.task.model.named_parameters()}
        spoilt = [p for p in self.parameters if p.grad is not None and not p.grad.isfinite().all()]
        where = ""
        if self.ranks.rank == 0:
            where = self.checkpoints.keep_bad_batch(
                {
                    "stage": stage,
                    "epoch": state.epoch + 1,
                    "step": state.step + 1,
                    "losses": terms,
                    "gradient_norm": norm,
                    "not_finite": [trained[id(p)] for p in spoilt],
                    "ranks": ranks,
                }
            )
        where = self.ranks.broadcast_object(where)
        batches = sorted((batch for rank in ranks for batch in rank), key=lambda batch: math.isfinite(batch["loss"]))
        records = [record for batch in batches for record in batch["records"]]
        shown = "; ".join(", ".join(f"{k} {v}" for k, v in r.items())[:80] for r in records[:3])
        numbers = ", ".join(f"{n}={v:.6g}" for n, v in terms.items())
        raise JobError(
            f"stage {stage}: the {'loss' if not math.isfinite(terms['loss']) else 'gradient'} is not finite at step {state.step + 1} "
            f"(epoch {state.epoch + 1}): {numbers}, gradient norm {norm:.6g}; nothing of this step is saved. "
            f"Its {len(records)} records (first {shown}{', ...' if len(records) > 3 else ''}) {where}. "
            + advice.for_divergence(to_tree(self.config), self.learning_rate, self.precision.name),
            reason="diverged",
            exit_code=2,
        )

    def _log_step(self, optimizer: torch.optim.Optimizer, terms: dict[str, float], steps: int) -> None:
        state = self.state
        if state.step == 1 or state.step % max(1, state.total_steps // CURVE) == 0:
            state.losses.append([state.step, terms["loss"]])
        examples = self.config.data_loader.batch_size * self.trainer.accumulate_grad_batches
        self.report(
            Step(epoch=state.epoch + 1, step=state.step_in_epoch, steps=steps, loss=terms["loss"], examples=examples)
        )
        if state.step == 1 or state.step % self.config.tracking.log_every_n_steps == 0:
            rates = {f"train/lr/{g['name']}": g["lr"] for g in optimizer.param_groups}
            self.tracker.log(
                {
                    **{f"train/{n}": v for n, v in terms.items()},
                    **rates,
                    "train/gradient_norm": float(self.gradient_norm),
                    **self.task.scalars(),
                },
                state.step,
            )

    def _end_epoch(self, means: dict[str, float] | None = None) -> None:
        """Validate, note whether this is the best, save."""
        state, stopping = self.state, self.config.training.early_stopping
        torch.manual_seed(seed_of(self.config.seed, "validate", state.epoch))
        with working("validating"), _evaluating(self.task.model), torch.no_grad(), self.precision.autocast():
            metrics = self.ranks.broadcast_object({name: float(value) for name, value in self.task.validate().items()})
        loss = metrics["val_loss"]
        if not math.isfinite(loss):
            raise JobError(
                f"stage {self.checkpoints.stage}: the validation loss after epoch {state.epoch} (step {state.step}) is {loss}; this epoch is "
                "not saved. " + advice.for_divergence(to_tree(self.config), self.learning_rate, self.precision.name),
                reason="diverged",
                exit_code=2,
            )
        if loss < state.stop_loss - stopping.min_delta:
            state.stop_loss, state.stale = loss, 0
        else:
            state.stale += 1
        best = metrics.get(SCORE, -loss) > state.best_metrics.get(SCORE, -state.best_loss)
        if best:
            state.best_name = layout.checkpoint_name(self.checkpoints.stage, state.epoch, loss)
            state.best_loss, state.best_metrics = loss, metrics
        self.metrics = metrics
        state.epochs.append({"epoch": state.epoch, "step": state.step, **(means or {}), **metrics})
        self.tracker.log({**(means or {}), **metrics, "train/epoch": float(state.epoch)}, state.step)
        self.report(Epoch(epoch=state.epoch, step=state.step, best=best, metrics={**(means or {}), **metrics}))
        self._save(best=best)

    def _save(self, best: bool = False) -> None:
        state = self.state
        if self.ranks.rank == 0:
            state.optimizer = self.optimizer.state_dict() if self.optimizer is not None else {}
            state.scaler, state.tracking = self.scaler.state_dict(), self.tracker.key
            with working("saving"):
                self.checkpoints.save(self.task, state, self.metrics, best=best)
        name = state.best_name if best else layout.LAST
        self.report(Saved(name=name, epoch=state.epoch, step=state.step))

    def _interrupt(self) -> None:
        """All ranks are here, after the same step: save, wait for the upload, go."""
        signal = self.ranks.stopping()
        self._save()
        if self.ranks.rank == 0:
            self.checkpoints.join()
        self.ranks.barrier()
        raise Interrupted(
            f"stopped on request (signal {signal}) after step {self.state.step}; the state is saved, "
            "the same command goes on from there",
            signal=signal,
        )


@contextlib.contextmanager
def _evaluating(model: torch.nn.Module) -> Iterator[None]:
    model.eval()
    try:
        yield
    finally:
        model.train()
