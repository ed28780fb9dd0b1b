"""The end of memory is told from other errors, and says what to change."""

import errno
from pathlib import Path

import pytest
import torch

from curricle.config import advice
from curricle.config.load import to_tree
from curricle.config.schema import StageConfig
from curricle.store import open_store
from curricle.store.failure import Failure
from curricle.training import worker
from curricle.training.memory import ran_out
from tests.training.toy import Toy, make_config, make_stage


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to"
        ),
        RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 8 bytes."),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"),
        MemoryError(),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
    ],
)
def test_the_end_of_memory_is_known_in_all_its_forms(error):
    assert ran_out(error)


@pytest.mark.parametrize("error", [RuntimeError("lightning"), OSError(errno.ENOSPC, "no space"), ValueError("memory")])
def test_other_errors_are_none(error):
    assert not ran_out(error)


@pytest.mark.parametrize("where", ["build", "step"])
def test_a_rank_that_runs_out_of_memory_ends_with_2_and_names_what_to_change(tmp_path, monkeypatch, capsys, where):
    uri = make_stage(tmp_path, make_config(tmp_path, save_every_n_steps=2, accumulate_grad_batches=2))
    monkeypatch.setenv("TOY", "memory@9")

    def build(context):
        if where == "build":
            torch.empty(10**15)
        return Toy(context)

    assert worker.main(["--stage-uri", uri], build=build, schema=StageConfig) == 2
    said = capsys.readouterr().err.strip()
    assert len(said.splitlines()) == 1 and "stage 01_stage: rank 0 ran out of memory" in said
    for setting in (
        "data_loader.batch_size (it is 8)",
        "accumulate_grad_batches (it is 2)",
        "precision bf16-mixed (it is 32-true)",
    ):
        assert setting in said
    assert Failure.read(open_store(uri)).message in said
    assert Path(uri, "last.ckpt").exists() == (where == "step"), "what was saved stays"


def test_advice_names_only_settings_that_there_are(tmp_path):
    tree = to_tree(make_config(tmp_path, devices=2, precision="bf16-mixed"))
    said = advice.for_memory(tree)
    assert "max_tokens" not in said and "precision" not in said and "devices (it is 2)" in said
    assert "model.max_tokens (it is 128)" in advice.for_memory(tree | {"model": {"max_tokens": 128}})
    assert advice.for_memory({}) == "Try a machine with more memory"
