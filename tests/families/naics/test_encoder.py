"""The encoder: what makes training and inference cheap changes no number."""

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
