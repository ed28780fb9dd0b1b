"""One training step of each objective, on a tiny encoder: two ranks against one, compiled against plain."""

import os
import shutil
import socket

import numpy as np
import pytest
import torch
import torch.multiprocessing as spawn

from curricle.config.schema import NOT_IN_DIGEST
from curricle.errors import ConfigError
from curricle.families.codes.config import Curriculum
from curricle.families.codes.geometry import polar
from curricle.training.compiled import compiled
from curricle.training.distributed import Ranks, init_ranks, reduce_gradients
from tests.families.codes.tiny import BATCH, PARTS, config, task_of

CURRICULA = {
    "texts": Curriculum(
        name="texts", objective="retrieval", trainable=PARTS, texts=("entry", "cross_reference", "title", "description")
    ),
    "points of a manifold": Curriculum(name="points", objective="retrieval", trainable=PARTS, texts=("entry", "title")),
    "codes": Curriculum(name="codes", objective="retrieval", trainable=PARTS, texts=("code",)),
    "texts and codes": Curriculum(
        name="both", objective="retrieval", trainable=PARTS, texts=("entry", "title", "code")
    ),
    "pairs": Curriculum(name="pairs", trainable=PARTS, positive_relation=(1, 2), n_positives=3, n_negatives=5),
}


def hardest(task) -> int:
    """The number of a batch that does not fall into equal halves: an odd count of codes beside texts, the fewest there are."""
    batches = task.batches(0)
    codes = [len(task.target_codes(b.items)) if getattr(b, "size", 0) == BATCH else 0 for b in batches]
    odd = [i for i, n in enumerate(codes) if n % 2]
    return min(odd, key=lambda i: codes[i]) if odd else 0


def step(task, ranks, number):
    """The losses, and the gradients by group, of a batch."""
    losses = task.losses(task.batches(0)[number])
    losses["loss"].backward()
    groups = {g["name"]: g["params"] for g in task.parameter_groups()}
    means, _ = reduce_gradients(
        [p for parameters in groups.values() for p in parameters], [losses[name] for name in sorted(losses)], ranks
    )
    return dict(zip(sorted(losses), means, strict=True)), {
        name: [p.grad for p in parameters] for name, parameters in groups.items()
    }


def run_rank(rank, world, port, work, place):
    os.environ.update(
        RANK=str(rank), WORLD_SIZE=str(world), LOCAL_RANK=str(rank), MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port)
    )
    torch.set_num_threads(1)
    ranks = init_ranks("cpu")
    torch.save([step(task_of(config, place, ranks), ranks, number) for config, number in work], place / f"{rank}.pt")
    ranks.close()


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


CASES = [("texts", "gate", 0), ("points of a manifold", "gate", 20), ("codes", "gate", 0), ("codes", "moe", 0), ("texts and codes", "gate", 20), ("texts and codes", "moe", 0), ("pairs", "gate", 0),
         ("pairs", "moe", 20)]  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder in which prepared data and features are kept from test to test."""
    return tmp_path_factory.mktemp("task")


@pytest.fixture(scope="module")
def steps(small_census, tiny_encoder, place):
    """Of every case: what one rank finds, and what each of two ranks finds."""
    work, alone = [], []
    for kind, fusion, hidden in CASES:
        table = "riemannian_adam" if kind == "points of a manifold" else "adamw"
        settings = config(small_census, tiny_encoder, CURRICULA[kind], fusion=fusion, hidden=hidden, table=table)
        task = task_of(settings, place)
        work.append((settings, hardest(task)))
        alone.append(step(task, Ranks(), work[-1][1]))
    spawn.spawn(run_rank, (2, free_port(), work, place), nprocs=2)
    found = [torch.load(place / f"{rank}.pt", weights_only=True) for rank in range(2)]
    return dict(zip(CASES, zip(alone, *found, strict=True), strict=True))


@pytest.mark.parametrize("case", CASES, ids=[f"{k}, {f}, {h} hidden" for k, f, h in CASES])
def test_two_ranks_have_the_gradient_of_one_rank_with_the_whole_batch(steps, case):
    (losses, wanted), *ranks = steps[case]
    for mean, found in ranks:
        assert mean == pytest.approx(losses, rel=1e-5, abs=1e-7)
        assert found.keys() == wanted.keys()
        for name, gradients in wanted.items():
            # one float32 rounding of the weights moves a small gradient of a group by some 1e-6 of the group's largest
            rounding = 1e-5 * max((float(g.abs().max()) for g in gradients if g is not None), default=0.0)
            for got, want in zip(found[name], gradients, strict=True):
                assert (got is None) == (want is None)
                if want is not None:
                    torch.testing.assert_close(
                        got,
                        want,
                        rtol=1e-4,
                        atol=1e-6 + 1e-4 * float(want.abs().max()) + rounding,
                        msg=lambda text, name=name: f"{name}: {text}",
                    )


def test_the_ranks_of_a_batch_hold_its_items_once_and_equally_many(small_census, tiny_encoder, place):
    settings = config(small_census, tiny_encoder, CURRICULA["texts"])
    parts = [task_of(settings, place, Ranks(rank=r, world_size=w)).batches(1) for r, w in ((0, 1), (0, 2), (1, 2))]
    for whole, first, second in zip(*parts, strict=True):
        assert len(first.items) == len(second.items) and len(first.rows) == len(second.rows)
        both = np.sort(np.concatenate([first.items, second.items]))
        assert len(whole.items) - len(both) in (0, 1) and set(both) <= set(whole.items)


def test_codes_kept_apart_are_never_trained_on_and_measure_how_texts_place_a_code(small_census, tiny_encoder, place):
    task = task_of(config(small_census, tiny_encoder, CURRICULA["codes"], hidden=20), place)
    apart, trained = (
        set(task.validation_codes),
        set(np.concatenate([task.target_codes(b.items) for b in task.batches(0)])),
    )
    assert apart and trained and not apart & trained and not task.table.cold[sorted(apart)].any()
    with torch.no_grad():
        found = task.validate()
        codes = np.array(sorted(apart))
        placed = task.head.by_text(*task._channel_features(codes), task.head.depth[codes])
        task.true[codes] = (
            task.head.to_codes(*polar(placed)[1:], task.head.depth[codes], torch.arange(len(task.head.depth)))
            / task.head.scale
        )
        right = task.validate()
    assert found["val/code_stress"] > 0.01 > 1e-6 > right["val/code_stress"]
    assert right["val_loss"] == pytest.approx(found["val_loss"] - found["val/code_stress"], abs=1e-5)


@pytest.mark.slow
@pytest.mark.filterwarnings(
    "ignore:`torch.jit:DeprecationWarning"
)  # torch.compile imports what torch itself has deprecated
def test_a_compiled_encoder_gives_the_same_loss_and_gradient(small_census, tiny_encoder, place):
    if not any(map(shutil.which, ("g++", "c++", "clang++"))):
        pytest.skip("no C++ compiler: torch.compile cannot run")
    found = []
    for compile in (False, True):
        task = task_of(config(small_census, tiny_encoder, CURRICULA["texts"], compile=compile), place)
        task.model.train()  # with the encoder's dropout, which must draw the same
        torch.manual_seed(7)
        found.append(step(task, Ranks(), 1))  # all in one call of more than one text: one text is a program of its own
    plain, fast = found
    assert fast[0] == pytest.approx(plain[0], rel=1e-5)
    for name, gradients in plain[1].items():
        for got, want in zip(fast[1][name], gradients, strict=True):
            assert (got is None) == (want is None)
            if want is not None:
                torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-6 + 1e-4 * float(want.abs().max()))


@pytest.mark.filterwarnings(
    "ignore:`torch.jit:DeprecationWarning"
)  # torch.compile imports what torch itself has deprecated
def test_a_compiled_encoder_runs_compiled_and_keeps_its_names(small_census, tiny_encoder, place, tmp_path):
    tasks = [task_of(config(small_census, tiny_encoder, CURRICULA["texts"], compile=c), place) for c in (False, True)]
    assert [hasattr(t.encoder.states, "_torchdynamo_orig_callable") for t in tasks] == [False, True]
    assert tasks[0].weights().keys() == tasks[1].weights().keys()
    tasks[1].save_extras(tmp_path)
    assert (tmp_path / "adapter" / "adapter_model.safetensors").is_file()


def test_compiling_without_a_compiler_is_an_error_that_says_what_to_do(monkeypatch):
    from torch._inductor import config as inductor

    monkeypatch.setattr(inductor.cpp, "cxx", ("/no/such/compiler",))
    with pytest.raises(ConfigError, match="no C\\+\\+ compiler.*leave training.trainer.compile false"):
        compiled(torch.nn.Linear(2, 2))


def test_compiling_does_not_make_another_stage():
    assert "training.trainer.compile" in NOT_IN_DIGEST
