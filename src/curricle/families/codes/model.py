"""From features to points of hyperbolic space: channel fusion, head, radii, and the table of codes.

A point is (radius, unit direction). A text's direction is its feature through a linear map (started at the principal axes)
plus a small residual network (started at zero); its radius is the learned radius of its level (of the finest one for a text). A code has a vector of its own in the
table (tangent at the origin), and a text-only point made from its fused channels.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn

from curricle.families.codes.config import CodesModel
from curricle.families.codes.geometry import SOFT_CAP, exp0, pairwise, polar, soft_cap, time

FIRST, EDGE = 0.65, 0.5
"""Radius of a root to start from, and how much further out each level below lies, for scale 0.5: one tree edge is about `scale` long."""


def _from_zero(width: int, out: int) -> nn.Sequential:
    """A network of one hidden layer whose output is zero until it is trained."""
    first, last = nn.Linear(width, 512), nn.Linear(512, out)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    return nn.Sequential(first, nn.GELU(), last)


class Mixture(nn.Module):
    """Mixture of experts with top-k routing (Shazeer et al., 2017): a residual update of the mean channel."""

    def __init__(self, width: int, config: CodesModel, hidden: int):
        super().__init__()
        self.top_k, self.experts = config.top_k, config.experts
        self.gate = nn.Linear(width, config.experts)
        self.first = nn.Parameter(torch.randn(config.experts, width, hidden) / math.sqrt(width))
        self.second = nn.Parameter(torch.zeros(config.experts, hidden, width // 4))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """x [n, width] → (update [n, width/4], routing [n, 2 E]: 1 for each expert chosen, then the gate's probabilities)."""
        scores = self.gate(x)
        best, chosen = scores.topk(self.top_k, -1)
        weights = torch.zeros_like(scores).scatter(-1, chosen, best.softmax(-1))
        out = torch.zeros(len(x), self.second.shape[-1], dtype=x.dtype, device=x.device)
        for e in range(self.experts):
            rows = weights[:, e].nonzero().squeeze(-1)
            if len(rows):
                hidden = nn.functional.gelu(x[rows] @ self.first[e])
                out = out.index_add(0, rows, weights[rows, e : e + 1] * (hidden @ self.second[e]))
        return out, torch.cat([(weights > 0).to(scores.dtype), scores.softmax(-1)], 1)


class Fusion(nn.Module):
    """The four channels of a code → one feature. Absent channels are masked; they never become a text of their own."""

    def __init__(self, width: int, config: CodesModel):
        super().__init__()
        self.kind = config.fusion
        self.scores = nn.Linear(width, 1)
        self.mlp = _from_zero(4 * width, width)
        nn.init.zeros_(self.scores.weight)
        nn.init.zeros_(self.scores.bias)
        self.mixture = Mixture(4 * width, config, 256)
        if self.kind != "mlp":
            del self.mlp
        if self.kind != "moe":
            del self.mixture
        if self.kind == "mean":
            del self.scores

    def forward(self, channels: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
        """channels [n, 4, width], present bool [n, 4] (one at least a row) → (feature [n, width], routing of `Mixture`, [n, 0] without one)."""
        routing = channels.new_zeros((len(channels), 0))
        if self.kind == "mean":
            weights = present.float()
        else:
            weights = self.scores(channels).squeeze(-1).masked_fill(~present, -torch.inf).softmax(-1)
        channels = channels * present.unsqueeze(-1)
        fused = (channels * weights.unsqueeze(-1)).sum(1) / weights.sum(1, keepdim=True)
        if self.kind == "mlp":
            fused = fused + self.mlp(channels.flatten(1))
        elif self.kind == "moe":
            update, routing = self.mixture(channels.flatten(1))
            fused = fused + update
        return nn.functional.normalize(fused, dim=-1), routing

    def no_routing(self) -> Tensor:
        """The routing of no code at all."""
        experts = self.mixture.experts if self.kind == "moe" else 0
        return torch.zeros((0, 2 * experts))


class CodesHead(nn.Module):
    """Everything that is trained beside the encoder, float32. Curvature is -1; `scale` is the length of a tree edge."""

    depth: Tensor
    """Depth of each code, 1 for a root: int64 [N]."""
    points: nn.Parameter | None
    """The table as points of the Lorentz model, time coordinate first: float64 [N, 1 + dim]; None but where `put_on_manifold` made them."""

    def __init__(self, config: CodesModel, width: int, depth: Tensor):
        """depth: int64 [N], 1 for a root, of the codes in canonical order."""
        super().__init__()
        self.scale = config.scale
        stretch = config.scale / 0.5
        self.linear = nn.Linear(width, config.dim, bias=False)
        self.residual = _from_zero(width, config.dim)
        self.fusion = Fusion(width, config)
        self.radius = nn.Parameter(torch.tensor([FIRST + EDGE * k for k in range(int(depth.max()))]) * stretch)
        self.table = nn.Parameter(torch.randn(len(depth), config.dim) * 0.01)
        self.register_parameter("points", None)
        self.log_tau = nn.Parameter(torch.tensor(math.log(0.3)))
        self.register_buffer("depth", depth, persistent=False)

    def radii(self) -> Tensor:
        """Radius [L] of each depth, softly capped."""
        return soft_cap(self.radius, SOFT_CAP)

    def direction(self, features: Tensor) -> Tensor:
        """Features [n, width] → unit directions [n, dim]."""
        return nn.functional.normalize(self.linear(features) + self.residual(features), dim=-1)

    def codes(self, table: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The points of the table, or of another one: radii [N], directions [N, dim]."""
        if table is None and self.points is not None:
            length, direction = polar(self.points[:, 1:])
            return torch.asinh(length).float(), direction.float()
        radius, direction = polar(self.table if table is None else table)
        return soft_cap(radius, SOFT_CAP), direction

    def put_on_manifold(self) -> nn.Parameter:
        """From here on the codes are points of a manifold (`geoopt.ManifoldParameter`), and `table` only follows them; returns the points."""
        import geoopt

        self.table.requires_grad_(False)
        manifold = geoopt.Lorentz(k=1.0).to(self.table.device, torch.float64)  # in float32 Riemannian Adam ends in NaN
        self.points = geoopt.ManifoldParameter(self._from_table(), manifold=manifold)
        return self.points

    def _from_table(self) -> Tensor:
        radius, direction = polar(self.table.detach().double())
        space = exp0(soft_cap(radius, SOFT_CAP).unsqueeze(-1) * direction, 1.0)
        return torch.cat([time(space, 1.0).unsqueeze(-1), space], 1)

    @torch.no_grad()
    def read_table(self, rows: np.ndarray | None = None) -> None:
        """Put the points (those of `rows`, or all) where the table says. Nothing, where the codes are no points of a manifold."""
        if self.points is not None:
            which = slice(None) if rows is None else torch.from_numpy(rows).to(self.table.device)
            self.points[which] = self._from_table()[which]

    @torch.no_grad()
    def write_table(self) -> None:
        """Put the table's vectors where the points are (the other way round than `read_table`)."""
        if self.points is not None:
            length, direction = polar(self.points[:, 1:])
            share = (torch.asinh(length) / SOFT_CAP).clamp(
                max=1 - 1e-6
            )  # a point that far out has no vector: the cap is never reached
            self.table.copy_((SOFT_CAP * torch.atanh(share)).unsqueeze(-1) * direction)

    def logits(self, distances: Tensor) -> Tensor:
        """Distances → logits ``-d / (τ·scale)``."""
        return -distances / (self.log_tau.exp() * self.scale)

    def by_text(self, channels: Tensor, present: Tensor, depth: Tensor) -> Tensor:
        """Where their texts alone put codes: channels [n, 4, width], present bool [n, 4], depth [n] → points [n, dim] as in `table`."""
        return self.direction(self.fusion(channels, present)[0]) * self.radii()[depth - 1].unsqueeze(-1)

    def to_codes(self, direction: Tensor, depth: Tensor, columns: Tensor, table: Tensor | None = None) -> Tensor:
        """Distances [n, m] from texts (direction [n, dim], depth [n], see `text_depth`) to the codes at `columns` [m], of another table [N, dim] if given."""
        radius, codes = self.codes(table)
        return pairwise(self.radii()[depth - 1], direction, radius[columns], codes[columns])

    def text_depth(self, count: int) -> Tensor:
        """The depth [count] on which a text of an unknown code stands: that of the finest level."""
        return torch.full((count,), len(self.radius), device=self.radius.device)

    @torch.no_grad()
    def between(self) -> np.ndarray:
        """Distances [N, N] of all codes, float64; made a block of rows at a time, since a dozen such matrices would be the peak of a training."""
        radius, points = (tensor.double() for tensor in self.codes())
        return np.concatenate(
            [
                pairwise(r, u, radius, points).cpu().numpy()
                for r, u in zip(radius.split(256), points.split(256), strict=True)
            ]
        )

    @torch.no_grad()
    def start(self, features: Tensor, subtree: Tensor, shown: Tensor) -> None:
        """Geometry from text, without training: principal axes of the codes' features, directions as means over subtrees.

        Args:
            features: [N, width] of the codes.
            subtree: bool [N, N], whether the column lies in the row's subtree.
            shown: bool [N], False for codes that must not tell anything of themselves: each then stands for itself alone.
        """
        centred = features[shown] - features[shown].mean(0)
        subtree = (subtree & shown) | torch.eye(len(shown), dtype=torch.bool, device=shown.device)
        _, _, axes = torch.linalg.svd(centred, full_matrices=False)
        rows = min(self.linear.weight.shape[0], axes.shape[0])
        self.linear.weight.zero_()
        self.linear.weight[:rows] = axes[:rows]
        projected = nn.functional.normalize(self.linear(features), dim=-1)
        mean = nn.functional.normalize(subtree.float() @ projected, dim=-1)
        self.table.copy_(mean * self.radii()[self.depth - 1].unsqueeze(-1))
