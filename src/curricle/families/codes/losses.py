"""The loss terms, as pure functions of distances and tree facts; every mean is guarded, nothing turns NaN on an empty mask."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

Mean = Callable[[Tensor], Tensor]
"""Mean over ranks, with gradient. A loss divides by the mean of all ranks' counts, so that its own mean over ranks is that of the whole batch."""


def alone(value: Tensor) -> Tensor:
    """The `Mean` of a single rank."""
    return value


_SOME = 1e-6
"""Less than any count but none: keeps an empty mean at 0."""


def level_cross_entropy(
    logits: Tensor,
    cuts: Tensor,
    own: Tensor,
    rank: Tensor,
    own_weight: float,
    coarser_weight: float,
    smoothing: float = 0.0,
) -> Tensor:
    """Cross-entropy over all codes of each level, for every level that a target has an ancestor on.

    Args:
        logits: [B, N] over all codes.
        cuts: [B, L] the target's column of `Tree.cuts`, -1 where it has none.
        own: [B] rank of the target itself (`Tree.rank`): weighted `own_weight`, coarser levels `coarser_weight`.
        rank: bool [L, N] the codes that are ranked on each level.
        smoothing: share of each target spread evenly over the level's codes (Szegedy et al., 2016).

    Returns:
        Scalar, mean over B.
    """
    total = logits.new_zeros(())
    for k in range(cuts.shape[1]):
        rows = (cuts[:, k] >= 0).nonzero().squeeze(-1)
        weights = torch.where(own[rows] == k + 1, own_weight, coarser_weight)
        if not len(rows) or not bool((weights > 0).any()):
            continue
        columns = rank[k].nonzero().squeeze(-1)
        place = torch.full((logits.shape[1],), -1, dtype=torch.long, device=logits.device)
        place[columns] = torch.arange(len(columns), device=logits.device)
        loss = nn.functional.cross_entropy(
            logits[rows][:, columns], place[cuts[rows, k]], reduction="none", label_smoothing=smoothing
        )
        total = total + (weights * loss).sum()
    return total / max(1, len(logits))


def stress(distances: Tensor, tree: Tensor, scale: float, mean: Mean = alone) -> Tensor:
    """Weighted squared error against the tree, ``mean of (d/scale - D)² / D`` over pairs with D > 0 (Sammon's weights).

    Args:
        distances, tree: [n, m]; tree distance D in edges, 0 for a code and itself (left out).
    """
    apart = tree > 0
    safe = torch.where(apart, tree, torch.ones_like(tree))
    error = (distances / scale - tree) ** 2 / safe
    return (error * apart).sum() / mean(apart.sum().float()).clamp_min(_SOME)


def contrastive(positive: Tensor, negatives: Tensor, allowed: Tensor, mean: Mean = alone) -> Tensor:
    """InfoNCE with the positive in the denominator: ``-log( e^p / (e^p + Σ e^n) )``, mean over anchors that have a negative.

    Args:
        positive: [P] logits. negatives: [P, M] logits. allowed: bool [P, M], False masks a false negative.
    """
    logits = torch.cat([positive[:, None], negatives.masked_fill(~allowed, -torch.inf)], 1)
    useful = allowed.any(1)
    loss = torch.logsumexp(logits, 1) - positive
    return torch.where(useful, loss, torch.zeros_like(loss)).sum() / mean(useful.sum().float()).clamp_min(_SOME)


def balance(routing: Tensor, mean: Mean = alone) -> Tensor:
    """Load balance of a mixture, ``E · Σ f_i P_i`` over the codes of all ranks; equal to k when balanced, 0 without experts.

    Args:
        routing: [n, 2 E], `model.Mixture`'s; n may be 0 and differ between ranks.
    """
    experts = routing.shape[1] // 2
    if not experts:
        return routing.new_zeros(())
    if not routing.requires_grad:  # every rank must take part in the mean's backward, one without a code too
        routing = routing.detach().requires_grad_()
    total = mean(torch.cat([routing.sum(0), routing.new_tensor([float(len(routing))])]))
    share = total[:-1] / total[-1].clamp_min(_SOME)
    return experts * (share[:experts] * share[experts:]).sum()
