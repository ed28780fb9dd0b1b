"""The encoder: what makes training and inference cheap changes no number."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from curricle.families.naics.config import NaicsModel
from curricle.families.naics.encoder import Encoder, cached_features

TEXTS = ["Soybean farming", "Growing corn and other grain for many markets", "Dental offices", "Breweries"]


@pytest.fixture
def adapted(tiny_encoder) -> Encoder:
    """An encoder whose adapters do something."""
    encoder = Encoder(NaicsModel(encoder=str(tiny_encoder), max_tokens=24), torch.device("cpu"))
    encoder.add_adapters()
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for tensor in encoder.adapter_weights().values():
            tensor.add_(0.1 * torch.randn(tensor.shape, generator=draw))
    return encoder.eval()


def features(encoder: Encoder) -> torch.Tensor:
    return encoder.encode(encoder.tokenize(TEXTS, 24), 4096)


@torch.no_grad()
def test_folded_adapters_give_the_same_features_under_the_same_digest(adapted):
    before, digest = features(adapted), adapted.digest()
    adapted.fold()
    torch.testing.assert_close(features(adapted), before, rtol=1e-5, atol=1e-6)
    assert not adapted.adapter_weights() and adapted.digest() == digest


@torch.no_grad()
def test_filling_the_cache_leaves_the_adapters_where_they_are(adapted, tmp_path):
    weights = {name: tensor.clone() for name, tensor in adapted.adapter_weights().items()}
    before = features(adapted)
    found = cached_features(adapted, TEXTS, 24, 4096, tmp_path)
    torch.testing.assert_close(torch.from_numpy(found), before, rtol=1e-5, atol=1e-6)
    assert torch.equal(features(adapted), before)
    assert all(torch.equal(adapted.adapter_weights()[name], tensor) for name, tensor in weights.items())


@torch.no_grad()
@pytest.mark.parametrize(("dropout", "alike"), [(0.0, True), (None, False)])
def test_a_stage_can_switch_the_encoders_dropout_off(adapted, dropout, alike):
    before = features(adapted)
    adapted.prepare_training(torch.float32, dropout)
    torch.testing.assert_close(features(adapted), before, rtol=1e-5, atol=1e-6)
    adapted.train()
    assert torch.equal(features(adapted), features(adapted)) is alike


def whole(path, content):
    path.write_bytes(content)


def as_pickle(path, content):
    np.save(path, np.array([Mark(path.parent / "ran")], dtype=object), allow_pickle=True)


def as_archive(path, content):
    with path.open("wb") as out:
        np.savez(out, features=np.zeros((4, 32), np.float32))


class Mark:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return open, (self.path, "w")


DAMAGE = {
    "empty": lambda path, content: whole(path, b""),
    "half a header": lambda path, content: whole(path, content[:40]),
    "cut off": lambda path, content: whole(path, content[:-8]),
    "zeros at its end": lambda path, content: whole(path, content[:-64] + bytes(64)),
    "not finite": lambda path, content: np.save(path, np.full((4, 32), np.nan, np.float32)),
    "too long": lambda path, content: whole(path, content + content[-128:]),
    "another shape": lambda path, content: np.save(path, np.zeros((3, 32), np.float32)),
    "an archive": as_archive,
    "a pickle": as_pickle,
    "a header that asks for everything": lambda path, content: whole(
        path, content.replace(b"(4, 32), }         ", b"(4000000000, 32), }")
    ),
}


@torch.no_grad()
@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE.keys())
def test_a_damaged_file_of_the_cache_is_made_again(adapted, tmp_path, damage):
    wanted = cached_features(adapted, TEXTS, 24, 4096, tmp_path)
    (path,) = tmp_path.iterdir()
    content = path.read_bytes()
    damage(path, content)
    assert np.array_equal(cached_features(adapted, TEXTS, 24, 4096, tmp_path), wanted)
    assert path.read_bytes() == content and [p.name for p in tmp_path.iterdir()] == [path.name]


@torch.no_grad()
def test_a_whole_file_of_the_cache_is_read_and_not_made_again(adapted, tmp_path):
    wanted = cached_features(adapted, TEXTS, 24, 4096, tmp_path)
    (path,) = tmp_path.iterdir()
    kept = np.roll(wanted, 1, axis=0)
    np.save(path, kept)
    assert np.array_equal(cached_features(adapted, TEXTS, 24, 4096, tmp_path), kept)


@torch.no_grad()
def test_two_that_fill_the_same_cache_do_not_meet(adapted, tmp_path):
    wanted = cached_features(adapted, TEXTS, 24, 4096, tmp_path / "alone")
    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(lambda _: cached_features(adapted, TEXTS, 24, 4096, tmp_path / "cache"), range(12)))
    assert all(np.array_equal(features, wanted) for features in made)
    assert len(list((tmp_path / "cache").iterdir())) == 1
