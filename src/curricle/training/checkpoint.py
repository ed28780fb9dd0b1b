"""The checkpoints of one stage: what is in them, in which order they appear and vanish, and which one to resume from.

A stage keeps exactly one best checkpoint and one newest state. Both change by *publish the new one, then retire the old one*,
and only a complete artifact (manifest last) counts, so that a crash at any moment leaves a state to resume from. The newest
state alternates between two slots, `last.ckpt` and `last.spare.ckpt`; when the stage ends it stands in `last.ckpt` alone.

Files are written by the caller's thread (milliseconds for adapters), uploaded by one background thread, one at a time. While the store is
away that thread tries on and the training goes on; only who waits for the upload, at the next save or the end, runs out of patience.
"""

from __future__ import annotations

import math
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from curricle.errors import CheckpointError, StoreError, StoreUnavailable
from curricle.store import Store, join_uri, layout, open_store, references, split_uri
from curricle.store.manifest import Manifest, publish, read_manifest
from curricle.store.ours import retire
from curricle.store.runs import checkpoint_names
from curricle.store.scratch import make_scratch, remove_leftovers
from curricle.training.task import TrainingTask

SAVE = "save-"
"""Begins the name of a folder that a checkpoint is written into before it goes to the store."""
PAUSE = 10.0
"""Seconds between two tries at a store that has been away for longer than anybody waits."""


@dataclass
class State:
    """Where a stage stands, beside the weights: plain values and tensors only, so that it loads with ``weights_only=True``."""

    epoch: int = 0
    """Complete epochs."""
    step_in_epoch: int = 0
    """Optimiser steps of the epoch under way."""
    step: int = 0
    """Optimiser steps of the stage."""
    total_steps: int = 0
    """Optimiser steps that the schedule was laid out for."""
    best_name: str = ""
    best_loss: float = float("inf")
    best_metrics: dict[str, float] = field(default_factory=dict)
    stop_loss: float = float("inf")
    """The loss that the next epochs must undercut by `min_delta`, for early stopping."""
    stale: int = 0
    """Epochs since `stop_loss` was undercut."""
    sums: dict[str, float] = field(default_factory=dict)
    """Sums of the training losses of the epoch under way."""
    optimizer: dict[str, Any] = field(default_factory=dict)
    scaler: dict[str, Any] = field(default_factory=dict)
    tracking: str = ""
    """What the stage is tracked under, so that its curves go on."""
    epochs: list[dict[str, float]] = field(default_factory=list)
    """Of each complete epoch: ``epoch``, ``step``, mean training losses, validation metrics."""
    losses: list[list[float]] = field(default_factory=list)
    """[step, loss] of some hundred steps, evenly over the stage."""

    def history(self) -> dict[str, Any]:
        """The stage's curves so far: what `history.json` holds."""
        return {"epochs": self.epochs, "losses": self.losses}


def newest(store: Store, prefix: str) -> tuple[str, Manifest] | None:
    """The newest complete state under a stage's place, as (its slot, its manifest); None when there is none."""
    states = []
    for slot in (layout.LAST, layout.SPARE):
        if (manifest := read_manifest(store, f"{prefix}/{slot}")) is not None:
            states.append((int(manifest.info["step"]), int(manifest.info["epoch"]), slot, manifest))
    if not states:
        return None
    _, _, slot, manifest = max(states, key=lambda state: state[:2])
    return slot, manifest


def load_state(folder: Path) -> State:
    """Read `state.pt` (no pickled code is run)."""
    try:
        return State(**torch.load(folder / layout.STATE, weights_only=True, map_location="cpu"))
    except Exception as error:  # a damaged file can make the unpickler fail in any way
        raise CheckpointError(f"{folder / layout.STATE} is not a training state of this version: {error}") from error


def load_weights(folder: Path) -> dict[str, torch.Tensor]:
    """Read the weights that training goes on from, on the CPU: `trained.safetensors` where the task wrote one, else `model.safetensors`.

    Raises:
        CheckpointError: they are missing or damaged, or not finite.
    """
    path = folder / layout.TRAINED
    if not path.is_file():
        path = folder / layout.WEIGHTS
    if not path.is_file():
        raise CheckpointError(f"the checkpoint {folder} holds no {layout.WEIGHTS}")
    return read_weights(path)


def read_weights(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a safetensors file, on the CPU.

    Raises:
        CheckpointError: the file is missing or damaged, or a tensor is not finite.
    """
    try:
        weights = load_file(path)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path} cannot be read as weights: {error}") from None
    check_finite(path, weights)
    return weights


def check_finite(source: str | Path, tensors: Mapping[str, torch.Tensor]) -> None:
    """Refuse tensors that hold NaN or infinity.

    Raises:
        CheckpointError: names the first.
    """
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise CheckpointError(
                f"{source}: the tensor {name} holds NaN or infinity; its training diverged, or it is damaged"
            )


def wrong_dtypes(own: Mapping[str, torch.Tensor], given: Mapping[str, torch.Tensor]) -> list[str]:
    """Of the given tensors those that are no floating-point numbers where a model's own are: a phrase each. Copied, they would be other weights."""
    return [
        f"the tensor {name} is {str(given[name].dtype).removeprefix('torch.')}, expected floating point"
        for name, tensor in own.items()
        if name in given and tensor.is_floating_point() and not given[name].is_floating_point()
    ]


def _finite(value: Any) -> Any:
    """Plain data with its numbers that are not finite as text: ``nan``, ``inf``, ``-inf``."""
    if isinstance(value, dict):
        return {key: _finite(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [_finite(entry) for entry in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


class Checkpoints:
    """Writes one stage's checkpoints, on rank 0 only."""

    def __init__(
        self,
        stage_uri: str,
        *,
        stage: str,
        digest: str,
        config_text: str,
        lineage: dict[str, Any],
        info: dict[str, Any],
        scratch_dir: Path,
    ):
        base, self.prefix = split_uri(stage_uri)
        self.store = open_store(base)
        self.stage_uri = stage_uri
        self.stage = stage
        self._digest = digest
        self._config = config_text
        self._lineage = lineage
        self._info = info
        self._scratch = scratch_dir
        remove_leftovers(SAVE, scratch_dir)  # now, for what is left to do may need no save
        self._uploads = ThreadPoolExecutor(1, thread_name_prefix="upload")
        self._running: Future | None = None
        self._is_awaited = threading.Event()
        self._slot = ""

    def resume_uri(self) -> str | None:
        """The URI of the newest complete state of this very work, or None.

        Raises:
            CheckpointError: there is a state, but of other work (its digest differs).
        """
        state = newest(self.store, self.prefix)
        if state is None:
            return None
        slot, manifest = state
        if manifest.digest != self._digest:
            raise CheckpointError(
                f"{self.stage_uri} holds the state of other work: its digest is {manifest.digest}, this stage's is {self._digest} "
                "(another configuration, data or parent). Use --resume false to begin again, or another run"
            )
        self._slot = slot
        return join_uri(self.stage_uri, self._slot)

    def save(self, task: TrainingTask, state: State, metrics: dict[str, float], *, best: bool = False) -> None:
        """Write the newest state; with `best` also the checkpoint `state.best_name`, and retire the former best after that.

        Returns when the files are written locally and the former upload has ended; errors of that upload are raised here, `StoreUnavailable` too.

        Raises:
            CheckpointError: the files cannot be written; nothing of them stays.
        """
        weights = {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in task.weights().items()}
        with self._writing() as folder:
            with self._named(RuntimeError):  # torch's own writer does not say what the system said
                torch.save(vars(state), folder / layout.STATE)
            with self._named():
                save_file(weights, folder / layout.WEIGHTS)
                (folder / layout.CONFIG).write_text(self._config, encoding="utf-8")
                task.save_extras(folder)
            self.join()
        info = {**self._info, "stage": self.stage, "epoch": state.epoch, "step": state.step}
        history = layout.write_record(_finite(state.history()))
        self._running = self._uploads.submit(self._upload, folder, dict(metrics), info, state.best_name, best, history)

    @contextmanager
    def _writing(self) -> Iterator[Path]:
        """A folder for a checkpoint's files, which goes where the block does not end well."""
        with self._named():
            self._scratch.mkdir(parents=True, exist_ok=True)
            folder = make_scratch(SAVE, self._scratch)
        try:
            yield folder
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise

    @contextmanager
    def _named(self, *others: type[Exception]) -> Iterator[None]:
        """Make an error of writing to the cache, a full disk mostly, one that names the place."""
        kinds: tuple[type[Exception], ...] = (OSError, SafetensorError, *others)
        try:
            yield
        except kinds as error:
            free = shutil.disk_usage(self._scratch if self._scratch.is_dir() else Path()).free >> 20
            raise CheckpointError(
                f"cannot write a checkpoint to {self._scratch}: {getattr(error, 'strerror', None) or error} ({free} MiB are free there). Make room, "
                "or set paths.cache_dir to another place; the same command goes on from the last saved state"
            ) from error

    def _upload(
        self, folder: Path, metrics: dict[str, float], info: dict[str, Any], best_name: str, best: bool, history: bytes
    ) -> None:
        try:
            if best:
                self._insist(lambda: self._publish(best_name, folder, metrics, info))
            former = self._slot
            self._slot = layout.SPARE if former == layout.LAST else layout.LAST
            self._insist(lambda: self._publish(self._slot, folder, metrics, info))
            self._insist(lambda: self.store.write(f"{self.prefix}/{layout.HISTORY}", history))
            if former:
                self._insist(lambda: retire(self.store, f"{self.prefix}/{former}"))
            if best:
                self._insist(lambda: self._retire_but(best_name))
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _insist(self, work: Callable[[], object]) -> None:
        """Do what may be done twice, again and again while the store is away and nobody waits for it."""
        while True:
            try:
                work()
                return
            except StoreUnavailable:
                if self._is_awaited.is_set():
                    raise
                self._is_awaited.wait(PAUSE)

    def _publish(self, name: str, folder: Path, metrics: dict[str, float], info: dict[str, Any]) -> None:
        key = f"{self.prefix}/{name}"
        retire(self.store, key)
        publish(
            self.store,
            key,
            folder,
            kind="checkpoint",
            digest=self._digest,
            metrics=metrics,
            lineage=self._references(join_uri(self.stage_uri, name)),
            info=info,
        )

    def _retire_but(self, best_name: str) -> None:
        for name in checkpoint_names(self.store, self.prefix) - {best_name}:
            retire(self.store, f"{self.prefix}/{name}")

    def keep_bad_batch(self, facts: dict[str, Any]) -> str:
        """Write what a step that failed was made of to the stage's place, beside its artifact; where it is, as the end of a sentence.

        Numbers that are not finite are texts in it, as JSON knows none.
        """
        where = f"{self.stage_uri}/{layout.BAD_BATCH}"
        try:
            self.store.write(f"{self.prefix}/{layout.BAD_BATCH}", layout.write_record(_finite(facts)))
        except StoreError as error:  # what failed before is what is to be told
            return f"could not be saved to {where} ({error})"
        return f"are in {where}"

    def join(self) -> None:
        """Wait for the upload under way; raises what it raised."""
        if self._running:
            running, self._running = self._running, None
            self._is_awaited.set()
            try:
                running.result()
            finally:
                self._is_awaited.clear()

    def finish(self, task: TrainingTask, state: State, metrics: dict[str, float], info: dict[str, Any]) -> None:
        """Leave the newest state in `last.ckpt`, then publish the stage's own manifest: from here on the stage is complete."""
        self.join()
        if self._slot != layout.LAST:
            self.save(task, state, metrics)
            self.join()
        retire(self.store, f"{self.prefix}/{layout.SPARE}")  # what an attempt that crashed may have left
        self._retire_but(state.best_name)
        history = layout.write_record(
            _finite(state.history())
        )  # an attempt may have ended between its last save and this
        self.store.write(f"{self.prefix}/{layout.HISTORY}", history)
        self.store.delete(f"{self.prefix}/{layout.FAILURE}")
        publish(
            self.store,
            self.prefix,
            None,
            kind="stage",
            digest=self._digest,
            metrics=metrics,
            lineage=self._references(self.stage_uri),
            info={**self._info, **info},
        )

    def _references(self, place: str) -> dict[str, str | None]:
        """The lineage as an artifact at `place` names it: relative within the store."""
        store_uri = layout.store_of(self.stage_uri)
        return {
            name: references.refer(value, place, store_uri) if value and name.endswith("_uri") else value
            for name, value in self._lineage.items()
        }

    def close(self) -> None:
        """End the upload thread after the upload under way."""
        self._is_awaited.set()
        self._uploads.shutdown(wait=True)
