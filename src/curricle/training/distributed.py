"""The ranks of a job: how they meet, agree, exchange tensors with gradient, and average gradients.

It knows torch.distributed and nothing of models or stages. Without torchrun's environment there is one rank, and every
function here is then a no-op of the same meaning.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

from curricle import environment
from curricle.errors import ConfigError, JobError
from curricle.store.patience import patience_seconds

TIMEOUT = timedelta(minutes=5)
"""How long ranks wait for each other, beside what rank 0 may wait for a store that is away."""


@dataclass(eq=False)
class Ranks:
    """This process among its equals. Every method but `request_stop` is collective: all ranks call it, in the same order."""

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    device: torch.device = torch.device("cpu")
    stop_signal: int = 0
    """The signal that asked this rank to stop, or 0. Not yet agreed upon: see `stopping` and `reduce_gradients`."""

    def request_stop(self, signal: int) -> None:
        """Remember that a signal came. Safe inside a signal handler; nothing else happens until the ranks agree."""
        self.stop_signal = signal

    def barrier(self) -> None:
        """Wait until every rank is here."""
        if self.world_size > 1:
            dist.barrier(device_ids=[self.local_rank] if self.device.type == "cuda" else None)

    def broadcast_object(self, value: Any) -> Any:
        """Rank 0's value, on all ranks (pickled between processes of one job, never stored)."""
        if self.world_size == 1:
            return value
        box = [value if self.rank == 0 else None]
        dist.broadcast_object_list(box, src=0, device=self.device)
        return box[0]

    def gather_objects(self, value: Any) -> list[Any]:
        """Every rank's value, in order, on all ranks (pickled as in `broadcast_object`)."""
        if self.world_size == 1:
            return [value]
        values: list[Any] = [None] * self.world_size
        dist.all_gather_object(values, value)
        return values

    def mean(self, values: Mapping[str, float]) -> dict[str, float]:
        """The mean over ranks of each value; every rank gives the same names. Computed in float64."""
        if self.world_size == 1:
            return dict(values)
        names = sorted(values)
        flat = torch.tensor([float(values[n]) for n in names], dtype=torch.float64, device=self.device)
        dist.all_reduce(flat)
        return dict(zip(names, (flat / self.world_size).tolist(), strict=True))

    def largest(self, value: int) -> int:
        """The largest value of any rank."""
        if self.world_size == 1:
            return value
        box = torch.tensor(value, device=self.device)
        dist.all_reduce(box, op=dist.ReduceOp.MAX)
        return int(box)

    def stopping(self) -> int:
        """The signal that any rank was asked to stop by, or 0; the same answer on all ranks."""
        return self.largest(self.stop_signal)

    def broadcast_tensors(self, tensors: Iterable[torch.Tensor]) -> None:
        """Give every rank rank 0's values, in place."""
        if self.world_size > 1:
            for tensor in tensors:
                dist.broadcast(tensor.detach(), src=0)

    def close(self) -> None:
        """Leave the group."""
        if self.world_size > 1 and dist.is_initialized():
            dist.destroy_process_group()


def init_ranks(accelerator: str = "auto", timeout: timedelta | None = None) -> Ranks:
    """Join the job that torchrun's environment describes (RANK, WORLD_SIZE, LOCAL_RANK, MASTER_*), or be the only rank.

    The first collective runs here, so that ranks that cannot reach each other fail now and not hours later.

    Raises:
        ConfigError: `accelerator` is ``gpu`` and this rank has none.
        JobError: the ranks could not meet within `timeout`.
    """
    rank, world, local = environment.rank_numbers()
    gpus = torch.cuda.device_count() if accelerator != "cpu" else 0
    if accelerator == "gpu" and gpus <= local:
        raise ConfigError(
            f"training.trainer.accelerator is gpu, but rank {rank} (local rank {local}) sees {gpus} GPUs; "
            "lower training.trainer.devices, or use accelerator auto or cpu"
        )
    if accelerator == "auto" and 0 < gpus <= local:
        raise ConfigError(
            f"rank {rank} has local rank {local}, but this node has {gpus} GPUs; "
            f"set training.trainer.devices to at most {gpus}, or accelerator to cpu"
        )
    device = torch.device("cuda", local) if gpus else torch.device("cpu")
    if device.type == "cuda":
        torch.cuda.set_device(device)
    ranks = Ranks(rank, world, local, device)
    if timeout is None:
        timeout = TIMEOUT + timedelta(seconds=patience_seconds())
    if world > 1:
        try:
            dist.init_process_group("nccl" if gpus else "gloo", rank=rank, world_size=world, timeout=timeout)
            met = ranks.mean({"one": 1.0})
        except (RuntimeError, ValueError) as error:
            raise JobError(
                f"rank {rank} could not meet the other {world - 1} ranks at {environment.meeting_place()} within {timeout}: {error}",
                reason="lost",
            ) from error
        assert met["one"] == 1.0
    return ranks


class _Gather(torch.autograd.Function):
    """Rows of all ranks forward; backward each rank gets back the sum over ranks of what their losses want from its rows."""

    @staticmethod
    def forward(ctx: Any, tensor: torch.Tensor, ranks: Ranks) -> torch.Tensor:
        ctx.ranks = ranks
        everything = tensor.new_empty((ranks.world_size * tensor.shape[0], *tensor.shape[1:]))
        dist.all_gather_into_tensor(everything, tensor.contiguous())
        return everything

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, None]:
        own = grad.new_empty((grad.shape[0] // ctx.ranks.world_size, *grad.shape[1:]))
        dist.reduce_scatter_tensor(own, grad.contiguous())
        return own, None


def gather(tensor: torch.Tensor, ranks: Ranks) -> torch.Tensor:
    """[n, ...] on each rank → [world_size · n, ...] on all, rank 0's rows first, with gradient to every rank's rows.

    With a loss over the local rows (mean) and gradients averaged over ranks, the result is exactly the gradient of the mean
    loss of the whole batch: no factor of world_size anywhere. Equal `n` on all ranks is required.
    Give float32 or more; integer tensors (ids, labels) are gathered without gradient.
    """
    return tensor if ranks.world_size == 1 else _Gather.apply(tensor, ranks)


def reduce_gradients(
    parameters: list[torch.nn.Parameter], extras: list[torch.Tensor | float], ranks: Ranks
) -> tuple[list[float], float]:
    """Average gradients over ranks in place, with one flat all-reduce; returns the mean over ranks of each of `extras`, and the norm of
    the averaged gradient: the same numbers on all ranks, which come to the host together.

    A parameter that has no gradient on any rank keeps None; one that has it on some ranks counts as zero on the others.
    `extras` ride along (losses, the wish to stop): at W ranks one rank's 1.0 comes back as 1/W.
    """
    device, dtype = ranks.device, torch.float64 if any(p.dtype == torch.float64 for p in parameters) else torch.float32
    tail = [float(e) if not isinstance(e, torch.Tensor) else e for e in extras]
    rest = torch.stack([torch.as_tensor(e, dtype=dtype, device=device).detach() for e in tail])
    if ranks.world_size == 1:
        return _to_host(rest, parameters)
    has = torch.tensor([p.grad is not None for p in parameters], dtype=dtype, device=device)
    pieces = [(torch.zeros_like(p) if p.grad is None else p.grad).flatten().to(dtype) for p in parameters]
    flat = torch.cat([*pieces, has, rest])
    dist.all_reduce(flat)
    flat /= ranks.world_size
    *grads, has, rest = flat.split([*(p.numel() for p in parameters), len(parameters), len(tail)])
    for parameter, grad, any_has in zip(parameters, grads, has.tolist(), strict=True):
        parameter.grad = grad.view_as(parameter).to(parameter.dtype, copy=True) if any_has else None
    return _to_host(rest, parameters)


def _to_host(values: torch.Tensor, parameters: list[torch.nn.Parameter]) -> tuple[list[float], float]:
    """Values and the norm of the parameters' gradient, in one transfer: a GPU is waited for once."""
    norm = torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
    *numbers, size = torch.cat([values, norm.to(values)[None]]).tolist()
    return numbers, size
