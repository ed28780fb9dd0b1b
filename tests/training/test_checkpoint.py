"""What survives a crash, and what is there at each moment."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from curricle.config.schema import StageConfig
from curricle.errors import CheckpointError
from curricle.store import layout, open_store
from curricle.store.folder import FolderStore
from curricle.store.manifest import read_manifest
from curricle.store.scratch import make_scratch
from curricle.training import worker
from curricle.training.checkpoint import Checkpoints, load_state, load_weights, newest
from tests.faults.full import file_size_limit
from tests.training.toy import Toy, make_config, make_stage


class PowerCutError(RuntimeError):
    pass


def train(uri):
    return worker.run(uri, build=Toy, schema=StageConfig)


@pytest.fixture
def cut(monkeypatch):
    """Lets so many writes of any folder store pass, and fails all that follow; counts them."""
    state = {"left": 10**9, "count": 0}

    def guarded(method):
        def act(self, key, *args):
            state["count"] += 1
            state["left"] -= 1
            if state["left"] < 0:
                raise PowerCutError(key)
            return method(self, key, *args)

        return act

    for name in ("write", "put", "delete"):
        monkeypatch.setattr(FolderStore, name, guarded(getattr(FolderStore, name)))
    return state


@pytest.mark.parametrize("size", [0, 100, 700, 1500])
def test_a_full_cache_is_one_error_that_names_it_and_leaves_nothing(tmp_path, size, monkeypatch):
    """At the state, the weights and the configuration; the store has room."""
    uri, save = make_stage(tmp_path), Checkpoints.save

    def limited(self, *args, **options):
        with file_size_limit(size):
            save(self, *args, **options)

    with monkeypatch.context() as patched:
        patched.setattr(Checkpoints, "save", limited)
        with pytest.raises(
            CheckpointError, match=r"cannot write a checkpoint to .*cache/work.*MiB are free.*paths\.cache_dir"
        ) as error:
            train(uri)
    assert error.value.exit_code == 2 and not list((tmp_path / "cache" / "work").glob("save-*"))
    assert train(uri) is not None


def test_a_power_cut_at_any_write_leaves_a_stage_that_resumes_to_the_same_weights(tmp_path, cut):
    straight = make_stage(tmp_path / "straight")
    cut["count"] = 0
    result = train(straight)
    total, wanted = cut["count"], load_file(Path(straight, "last.ckpt", "model.safetensors"))
    assert total > 30
    for moment in range(0, total, 4):
        uri = make_stage(tmp_path / str(moment))
        cut["left"] = moment
        with pytest.raises(PowerCutError):
            train(uri)
        cut["left"] = 10**9
        assert not Path(uri, "manifest.json").exists()
        resumed = train(uri)
        assert resumed == result, f"cut at write {moment} of {total}"
        found = load_file(Path(uri, "last.ckpt", "model.safetensors"))
        assert all(torch.equal(wanted[name], found[name]) for name in wanted)
        places = {path.name for path in Path(uri).iterdir() if path.is_dir()}
        assert places == {result.best, layout.LAST}, "exactly the best and the last are kept"
        assert read_manifest(open_store(uri), result.best).metrics == result.metrics


def test_once_a_state_is_complete_there_is_always_one(tmp_path, monkeypatch):
    uri, seen = make_stage(tmp_path, make_config(tmp_path, save_every_n_steps=1)), []
    store = open_store(f"{tmp_path}/store/sequential_01")

    def looking(method):
        def act(self, key, *args):
            answer = method(self, key, *args)
            seen.append(newest(store, "01_stage") is not None)
            return answer

        return act

    for name in ("write", "put", "delete"):
        monkeypatch.setattr(FolderStore, name, looking(getattr(FolderStore, name)))
    train(uri)
    first = seen.index(True)
    assert len(seen) > first + 100 and all(seen[first:])
    assert not Path(uri, layout.SPARE).exists()


def test_the_state_loads_without_running_pickled_code_and_says_where_it_stands(tmp_path):
    uri = make_stage(tmp_path)
    result = train(uri)
    state = load_state(Path(uri, "last.ckpt"))
    assert (state.epoch, state.step, state.step_in_epoch, state.best_name) == (3, 18, 0, result.best)
    assert [group["name"] for group in state.optimizer["param_groups"]] == ["first", "last"]


def test_a_damaged_state_is_an_error_with_the_path(tmp_path):
    (tmp_path / "state.pt").write_bytes(b"junk")
    with pytest.raises(CheckpointError, match="state.pt"):
        load_state(tmp_path)
    with pytest.raises(CheckpointError, match="model.safetensors"):
        load_weights(tmp_path)


def test_what_killed_processes_left_of_a_save_goes_with_the_next_save(tmp_path, dead):
    uri = make_stage(tmp_path)
    work = Path(make_config(tmp_path).paths.cache_dir) / "work"
    work.mkdir(parents=True)
    left = dead(make_scratch("save-", work))
    (left / "model.safetensors").write_bytes(b"x")
    train(uri)
    assert list(work.iterdir()) == []


def test_what_killed_processes_left_of_a_save_goes_also_where_nothing_is_left_to_save(tmp_path, dead):
    left = dead(make_scratch("save-", tmp_path))
    kept = make_scratch("save-", tmp_path)
    Checkpoints(
        f"{tmp_path}/s/r/one", stage="one", digest="d", config_text="", lineage={}, info={}, scratch_dir=tmp_path
    ).close()
    assert not left.exists() and kept.is_dir()


def test_weights_that_are_cut_off_or_not_finite_are_no_state_to_go_on_from(tmp_path):
    path = tmp_path / layout.WEIGHTS
    save_file({"a": torch.ones(3), "b": torch.tensor([1.0, float("inf")])}, path)
    with pytest.raises(CheckpointError, match="tensor b holds NaN or infinity"):
        load_weights(tmp_path)
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(CheckpointError, match="cannot be read as weights"):
        load_weights(tmp_path)
