"""Fusion, mixture, head and losses: the properties that training rests on."""

import math

import pytest
import torch

from curricle.families.codes import losses
from curricle.families.codes.config import CodesModel
from curricle.families.codes.model import CodesHead, Fusion, Mixture

DEPTH = torch.tensor([1, 2, 3, 4, 5, 5])


@pytest.mark.parametrize("kind", ["mean", "gate", "mlp", "moe"])
def test_an_absent_channel_changes_nothing(kind):
    torch.manual_seed(0)
    fusion = Fusion(8, CodesModel(fusion=kind)).eval()
    x = torch.randn(3, 4, 8)
    present = torch.tensor([[True, True, False, False]] * 3)
    other = x.clone()
    other[:, 2:] = 100.0
    assert torch.equal(fusion(x, present)[0], fusion(other, present)[0])


def test_the_mixture_sends_each_row_to_exactly_k_experts_whatever_its_neighbours():
    torch.manual_seed(0)
    mixture = Mixture(16, CodesModel(experts=4, top_k=2), 8)
    torch.nn.init.normal_(mixture.second)
    x = torch.randn(6, 16)
    out, routing = mixture(x)
    order = torch.tensor([3, 1, 5, 0, 2, 4])
    assert torch.allclose(mixture(x[order])[0], out[order], atol=1e-6)
    assert torch.equal(routing[:, :4].sum(1), torch.full((6,), 2.0))


def test_a_balanced_mixture_costs_k():
    mixture = Mixture(4, CodesModel(experts=4, top_k=2), 8)
    with torch.no_grad():
        mixture.gate.weight.copy_(torch.eye(4) * 1e-4)
        mixture.gate.bias.zero_()
    x = torch.tensor([[2.0, 1, 0, 0], [0, 2.0, 1, 0], [0, 0, 2.0, 1], [1, 0, 0, 2.0]])
    assert math.isclose(losses.balance(mixture(x)[1]).item(), 2.0, abs_tol=1e-3)


def test_geometry_from_text_puts_a_parent_between_its_children():
    head = CodesHead(CodesModel(dim=4), 8, DEPTH)
    subtree = torch.zeros(6, 6, dtype=torch.bool)
    for row, below in enumerate([[0, 1, 2, 3, 4, 5], [1, 2, 3, 4, 5], [2, 3, 4, 5], [3, 4, 5], [4], [5]]):
        subtree[row, below] = True
    torch.manual_seed(0)
    head.start(torch.nn.functional.normalize(torch.randn(6, 8), dim=-1), subtree, torch.ones(6, dtype=torch.bool))
    radius, direction = head.codes()
    assert (radius[1:] >= radius[:-1] - 1e-5).all()
    assert torch.allclose(direction.norm(dim=-1), torch.ones(6), atol=1e-5)


def test_level_cross_entropy_counts_every_level_of_the_target():
    logits = torch.zeros(1, 6)
    ancestors = torch.tensor([[0, 1, 2, 3, 4]])
    ranked = DEPTH[None, :] == torch.arange(1, 6)[:, None]
    loss = losses.level_cross_entropy(logits, ancestors, torch.tensor([5]), ranked, own_weight=1.0, coarser_weight=0.1)
    assert math.isclose(float(loss), math.log(2), rel_tol=1e-5)


def test_stress_of_the_exact_tree_is_zero_and_of_nothing_is_no_nan():
    tree = torch.tensor([[0.0, 2.0], [2.0, 0.0]])
    assert float(losses.stress(tree * 0.5, tree, 0.5)) == 0
    assert float(losses.stress(torch.ones(2, 2), torch.zeros(2, 2), 0.5)) == 0


def test_an_anchor_whose_negatives_are_all_masked_leaves_the_mean():
    positive, negatives = torch.tensor([-0.5, -0.5]), torch.tensor([[-1.0, -2.0], [-1.0, -2.0]])
    allowed = torch.tensor([[True, True], [False, False]])
    alone = losses.contrastive(positive[:1], negatives[:1], allowed[:1])
    assert math.isclose(float(losses.contrastive(positive, negatives, allowed)), float(alone), rel_tol=1e-6)
    masked = torch.tensor([0.0], requires_grad=True)
    losses.contrastive(masked, torch.zeros(1, 2), torch.zeros(1, 2, dtype=torch.bool)).backward()
    assert float(masked.grad) == 0
