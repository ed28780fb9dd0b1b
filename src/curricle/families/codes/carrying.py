"""A checkpoint of one classification as the start of another: which classification it is of, and how its table of codes becomes that of other codes."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from curricle.errors import CheckpointError, DataError
from curricle.families.codes.continued import CARRIED, OTHER_CODES, classification_digest
from curricle.families.codes.model import EDGE, CodesHead
from curricle.families.codes.tree import Tree
from curricle.store import layout

CLASSIFICATION = "classification.json"
"""File in a checkpoint with the digest of the codes that it was trained for."""
APART = 1e-3
"""How far codes that start from one point are set apart, beside its length: equal points have no direction to part in."""


def classification_of(folder: Path) -> str | None:
    """The digest of the codes that the checkpoint in a folder was trained for; None where it does not say."""
    record = folder / CLASSIFICATION
    digest = layout.read_record(record.read_bytes()).get("digest") if record.is_file() else None
    return digest if isinstance(digest, str) else None


def require_classification(folder: Path, tree: Tree) -> None:
    """Refuse to go on with other codes than those of the checkpoint in a folder; one that does not say its own is let through.

    Raises:
        CheckpointError: they are others; names the way out.
    """
    if classification_of(folder) not in (None, classification_digest(tree)):
        raise CheckpointError(
            f"{folder} was trained for another classification than that of the data, which has {len(tree.codes):,} codes; {OTHER_CODES}"
        )


@dataclass(frozen=True)
class CarriedTable:
    """How a table of old codes becomes that of new ones."""

    of: str
    """Digest of the old classification."""
    codes: int
    """How many it has."""
    points: tuple[tuple[int, ...], ...]
    """For each new code the old ones whose mean point it starts from; none for its parent's."""
    targets: dict[str, tuple[str, ...]]
    """Old leaf → new leaves."""

    def fits(self, folder: Path, rows: int, tree: Tree) -> bool:
        """Whether a checkpoint with a table of so many rows is of the old classification, and not of the new one `tree`."""
        said = classification_of(folder)
        if said is not None:
            return said == self.of and said != classification_digest(tree)
        return rows == self.codes != len(tree.codes)

    def weights(self, weights: dict[str, Tensor], head: CodesHead, tree: Tree, seed: int) -> dict[str, Tensor]:
        """The checkpoint's weights with the table and the radii of the new tree."""
        radius = weights["head.radius"]
        deeper = [radius[-1:] + (k + 1) * EDGE * head.scale / 0.5 for k in range(len(head.radius) - len(radius))]
        radius = torch.cat([radius[: len(head.radius)], *deeper])
        table = self.table(weights["head.table"], tree, radius, seed)
        return weights | {"head.radius": radius, "head.table": table}

    def table(self, old: Tensor, tree: Tree, radius: Tensor, seed: int) -> Tensor:
        """Points of the old codes [N, dim] and radii by depth [L] → points of the new ones [M, dim]."""
        made = torch.zeros((len(tree.codes), old.shape[1]), dtype=old.dtype, device=old.device)
        draw = torch.randn(made.shape, generator=torch.Generator().manual_seed(seed), dtype=made.dtype).to(made.device)
        for i in np.argsort(tree.depth, kind="stable"):
            above = int(tree.parent[i])
            if self.points[i]:
                made[i] = old[list(self.points[i])].mean(0)
            else:  # a new root has nothing to start from
                start = made[above] if above >= 0 else draw[i]
                made[i] = torch.nn.functional.normalize(start, dim=0) * radius[int(tree.depth[i]) - 1]
        _, back, count = torch.unique(made, dim=0, return_inverse=True, return_counts=True)
        shared = (count[back] > 1).unsqueeze(1)
        length = made.norm(dim=1, keepdim=True).clamp_min(0.1)
        return torch.where(shared, made + APART * length * draw / draw.shape[1] ** 0.5, made)


def read_carried(data_dir: Path) -> CarriedTable | None:
    """What a crosswalk wrote beside prepared data; None where none made them.

    Raises:
        DataError: it is damaged.
    """
    path = data_dir / CARRIED
    if not path.is_file():
        return None
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        points = tuple(tuple(int(place) for place in each) for each in record["points"])
        if any(not 0 <= place < record["codes"] for each in points for place in each):
            raise ValueError("a point is of no old code")
        targets = {str(old): tuple(map(str, new)) for old, new in record["targets"].items()}
        return CarriedTable(str(record["from"]), int(record["codes"]), points, targets)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DataError(f"{path} is damaged ({error}); make the crosswalk again") from error
