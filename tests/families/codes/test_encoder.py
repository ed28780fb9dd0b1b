"""The encoder: what makes training and inference cheap changes no number."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from curricle.families.codes.config import CodesModel
from curricle.families.codes.encoder import Encoder, cached_features

TEXTS = ["Soybean farming", "Growing corn and other grain for many markets", "Dental offices", "Breweries"]


@pytest.fixture
def adapted(tiny_encoder) -> Encoder:
    """An encoder whose adapters do something."""
    encoder = Encoder(CodesModel(encoder=str(tiny_encoder), max_tokens=24), torch.device("cpu"))
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
def test_no_text_has_no_features(adapted, tmp_path):
    assert cached_features(adapted, [], 24, 4096, tmp_path).shape == (0, adapted.width)


@torch.no_grad()
def test_filling_the_cache_leaves_the_adapters_where_they_are(adapted, tmp_path):
    weights = {name: tensor.clone() for name, tensor in adapted.adapter_weights().items()}
    before = features(adapted)
    found = cached_features(adapted, TEXTS, 24, 4096, tmp_path)
    torch.testing.assert_close(torch.from_numpy(found), before, rtol=1e-5, atol=1e-6)
    assert torch.equal(features(adapted), before)
    assert all(torch.equal(adapted.adapter_weights()[name], tensor) for name, tensor in weights.items())


@torch.no_grad()
def test_an_encoder_for_inference_is_a_quick_copy_with_the_same_features(adapted):
    before = features(adapted)
    exact = adapted.for_inference()
    torch.testing.assert_close(features(exact), before, rtol=1e-5, atol=1e-6)
    with torch.autocast("cpu", torch.bfloat16):
        short = adapted.for_inference()
        found = features(short)
    assert found.dtype == torch.float32 and short.model.dtype == torch.bfloat16
    assert (found * before).sum(1).min() > 0.999
    assert short.digest() == exact.digest() == adapted.digest() and adapted.adapted
    assert torch.equal(features(adapted), before)


@torch.no_grad()
def test_texts_of_any_length_leave_the_attention_as_it_was(adapted):
    way = adapted.model.config._attn_implementation
    assert way == "sdpa"
    long = [[5] * 100, [5] * 7]
    alone = [adapted([ids]) for ids in long]
    assert adapted.model.config._attn_implementation == way
    torch.testing.assert_close(adapted.encode(long, 4096), torch.cat(alone), rtol=1e-5, atol=1e-6)


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


def made_of(kind: str, folder, vocabulary: int):
    """A transformer of that architecture, one or two thin layers, drawn at random."""
    import transformers
    from transformers import AutoConfig, AutoModel

    shape = {"vocab_size": vocabulary, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64, "max_position_embeddings": 128, "pad_token_id": 0}  # fmt: skip
    named = {"distilbert": {"dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 64}, "albert": {"embedding_size": 16}, "electra": {"embedding_size": 16}, "modernbert": {"local_attention": 16, "bos_token_id": 1, "eos_token_id": 2, "cls_token_id": 1, "sep_token_id": 2}}  # fmt: skip
    config = AutoConfig.for_model(kind, **shape | named.get(kind, {}))
    torch.manual_seed(0)
    transformers.utils.logging.disable_progress_bar()
    AutoModel.from_config(config).save_pretrained(folder)


@pytest.mark.parametrize(
    ("kind", "layers", "own"),
    [
        ("bert", 13, "query, key, value, dense"), ("distilbert", 12, "q_lin, k_lin, v_lin, out_lin, lin1, lin2"), ("modernbert", 8, "Wqkv, Wo, Wi"),
        ("mpnet", 13, "q, k, v, o, dense"), ("roberta", 13, "query, key, value, dense"), ("xlm-roberta", 13, "query, key, value, dense"),
        ("deberta-v2", 12, "query_proj, key_proj, value_proj, dense"), ("electra", 13, "embeddings_project, query, key, value, dense"),
        ("albert", 8, "embedding_hidden_mapping_in"),
    ],
)  # fmt: skip
def test_every_linear_layer_of_every_encoder_is_adapted_counted_and_said(
    tiny_encoder, tmp_path, caplog, kind, layers, own
):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_encoder)
    tokenizer.save_pretrained(tmp_path)
    made_of(kind, tmp_path, len(tokenizer))
    encoder = Encoder(CodesModel(encoder=str(tmp_path), max_tokens=24), torch.device("cpu"))
    plain = features(encoder.eval())
    encoder.add_adapters()
    assert (
        f"in {layers} of {layers} linear layers ({own}" in caplog.text and len(encoder.adapter_weights()) == 2 * layers
    )
    torch.testing.assert_close(features(encoder.eval()), plain, rtol=1e-5, atol=1e-6)
    encoder.prepare_training(torch.float32, 0.0)
    features(encoder.train()).square()[:, 0].sum().backward()
    moved = [
        name
        for name, p in encoder.adapter_weights().items()
        if "lora_B" in name and p.grad is not None and p.grad.any()
    ]
    assert len(moved) >= layers - 1, "the pooler alone takes no part"
