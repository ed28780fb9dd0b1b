"""Two and four gloo processes against one: gradients, resume, agreement on stopping."""

import json
import os
import socket
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as spawn
from safetensors.torch import load_file

from curricle.errors import ConfigError, JobError
from curricle.training.distributed import Ranks, gather, init_ranks, reduce_gradients
from tests.training.toy import make_stage

ROWS, WIDTH = 8, 5


def contrastive_loss(model, temperature, ranks, collect):
    """Symmetric InfoNCE of this rank's rows against all rows."""
    draw = torch.Generator().manual_seed(3)
    left, right = torch.randn(2, ROWS, WIDTH, generator=draw, dtype=torch.float64)
    n = ROWS // ranks.world_size
    mine = slice(ranks.rank * n, (ranks.rank + 1) * n)
    a, b = (torch.nn.functional.normalize(model(x[mine]), dim=1) for x in (left, right))
    labels = torch.arange(n) + ranks.rank * n
    cross = torch.nn.functional.cross_entropy
    return (
        cross(a @ collect(b, ranks).T * temperature.exp(), labels)
        + cross(b @ collect(a, ranks).T * temperature.exp(), labels)
    ) / 2


def plain_gather(tensor, ranks):
    """The mutant: other ranks' rows come without gradient, the own rows are put back."""
    if ranks.world_size == 1:
        return tensor
    parts = [torch.empty_like(tensor) for _ in range(ranks.world_size)]
    dist.all_gather(parts, tensor.detach())
    parts[ranks.rank] = tensor
    return torch.cat(parts)


def gradients(ranks, collect=gather):
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(WIDTH, 7), torch.nn.Tanh(), torch.nn.Linear(7, 4)).double()
    unused, some = (torch.nn.Parameter(torch.ones(2, dtype=torch.float64)) for _ in range(2))
    temperature = torch.nn.Parameter(torch.tensor(1.0, dtype=torch.float64))
    parameters = [*model.parameters(), temperature, unused, some]
    loss = contrastive_loss(model, temperature, ranks, collect)
    (loss + (some.sum() if ranks.rank == ranks.world_size - 1 else 0.0)).backward()
    (mean, stop), norm = reduce_gradients(parameters, [loss, float(ranks.rank == ranks.world_size - 1)], ranks)
    whole = torch.cat([p.grad.flatten() for p in parameters if p.grad is not None])
    assert norm == pytest.approx(float(whole.norm()))
    return [p.grad for p in parameters], mean, stop


def meet(rank, world, port):
    os.environ.update(
        RANK=str(rank), WORLD_SIZE=str(world), LOCAL_RANK=str(rank), MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port)
    )
    torch.set_num_threads(1)
    return init_ranks("cpu")


def check_rank(rank, world, port, folder):
    ranks = meet(rank, world, port)
    torch.save(
        {
            "true": gradients(ranks),
            "plain": gradients(ranks, plain_gather),
            "ids": gather(torch.tensor([rank]), ranks),
            "mean": ranks.mean({"b": rank, "a": 1.0}),
            "object": ranks.broadcast_object({"from": rank}),
        },
        f"{folder}/{rank}.pt",
    )
    if rank == 1:
        ranks.request_stop(15)
    assert ranks.stopping() == 15
    ranks.close()


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.mark.parametrize("world", [2, 4])
def test_many_ranks_have_the_gradient_of_one_rank_with_the_whole_batch(tmp_path, world):
    spawn.spawn(check_rank, (world, free_port(), tmp_path), nprocs=world)
    wanted, loss, _ = gradients(Ranks())
    for rank in range(world):
        found = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        grads, mean, stop = found["true"]
        assert mean == pytest.approx(loss, rel=1e-12) and stop == pytest.approx(1 / world)
        assert grads[-2] is None and torch.equal(grads[-1], torch.full((2,), 1 / world, dtype=torch.float64))
        for got, want in zip(grads[:-2], wanted[:-2], strict=True):
            torch.testing.assert_close(got, want, rtol=1e-10, atol=1e-14)
        wrong = [
            torch.allclose(got, want, rtol=1e-3) for got, want in zip(found["plain"][0][:-2], wanted[:-2], strict=True)
        ]
        assert not all(wrong), "a gather without gradient must be noticed"
        assert found["ids"].tolist() == list(range(world))
        assert found["mean"] == {"a": 1.0, "b": (world - 1) / 2} and found["object"] == {"from": 0}


def test_a_gpu_that_is_not_there_is_an_error(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(ConfigError, match="sees 0 GPUs"):
        init_ranks("gpu")


def test_ranks_that_never_come_are_an_error_that_names_the_place(monkeypatch):
    port = str(free_port())
    for name, value in {
        "RANK": "0",
        "WORLD_SIZE": "2",
        "LOCAL_RANK": "0",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": port,
    }.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(JobError, match=f"127.0.0.1:{port}"):
        init_ranks("cpu", timeout=timedelta(seconds=1))


def run_two(uri, behaviour=""):
    """Two toy workers, started the way torchrun starts them; their exit codes."""
    port = str(free_port())
    base = {**os.environ, "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "TOY": behaviour}
    command = [sys.executable, "-m", "tests.training.toy_worker", "--stage-uri", uri]
    processes = [subprocess.Popen(command, env={**base, "RANK": str(r), "LOCAL_RANK": str(r)}) for r in range(2)]
    return [p.wait(60) for p in processes]


def test_two_ranks_interrupted_and_resumed_equal_two_ranks_uninterrupted(tmp_path):
    straight, uri = (make_stage(tmp_path / name) for name in "ab")
    assert run_two(straight) == [0, 0]
    assert run_two(uri, "term@8") == [143, 143], "only rank 1 got the signal; both stop after the same step"
    assert Path(uri, "last.ckpt").is_dir() or Path(uri, "last.spare.ckpt").is_dir()
    assert run_two(uri) == [0, 0]
    a, b = (load_file(Path(place, "last.ckpt", "model.safetensors")) for place in (straight, uri))
    assert all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize(("behaviour", "what"), [("nan@4", "loss"), ("nan-gradient@4", "gradient")])
def test_one_rank_whose_numbers_are_not_finite_ends_all_at_the_same_step(tmp_path, behaviour, what):
    uri = make_stage(tmp_path)
    assert run_two(uri, behaviour) == [2, 2], "only rank 1 has them; nobody waits for the other"
    failure, saved = (json.loads(Path(uri, name).read_text()) for name in ("failure.json", "bad_batch.json"))
    assert f"the {what} is not finite at step 4 (epoch 1)" in failure["message"]
    assert saved["step"] == 4 and [len(rank[0]["records"]) for rank in saved["ranks"]] == [4, 4]
    rows = [rank[0]["records"][0]["row"] for rank in saved["ranks"]]
    assert f"first row {rows[1 if what == 'loss' else 0]};" in failure["message"], (
        "the rank whose loss it was goes first"
    )
    assert not Path(uri, "last.ckpt").exists()
