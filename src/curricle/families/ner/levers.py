"""What keeps the old domain while the new one is learnt: soft targets from the old model, and averages of old and trained weights.

Both line up by label: a tag that the old model lacks is part of its O in the one, and keeps its trained row in the other.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import torch

from curricle.families.ner.labels import Reconciliation
from curricle.families.ner.tagger import Tagger, collate
from curricle.families.ner.windows import IGNORE, Window

HEAD = re.compile(r"\b(classifier|score)\b")
"""In the names of the head's parameters."""


class SoftTargets:
    """The start model's distribution over the tags it knew, for every scored word of the training windows.

    Computed once, before the first step, from the weights that the stage starts from: a resumed stage finds the same. Kept as float16
    logarithms: two bytes a word and tag.
    """

    def __init__(self, tagger: Tagger, windows: Sequence[Window], made: Reconciliation):
        rows = [r for r in made.rows if r.new is not None]
        self.known = sorted(r.new for r in rows if r.old is not None)
        self.other = tagger.tag_ids["O"]
        self.added = [r.new for r in rows if r.old is None]
        self._logs: list[torch.Tensor] = [torch.empty(0)] * len(windows)
        by_length = np.argsort([len(w.ids) for w in windows], kind="stable")
        training = tagger.model.training
        tagger.model.eval()
        with torch.no_grad():
            for begin in range(0, len(by_length), 32):
                chosen = by_length[begin : begin + 32]
                tensors = collate([windows[i] for i in chosen], tagger.pad, tagger.device)
                tensors.pop("labels")
                logs = tagger.model(**tensors).logits.float()[..., self.known].log_softmax(-1).half().cpu()
                for row, i in enumerate(chosen):
                    self._logs[i] = logs[row, windows[i].positions].clone()
        tagger.model.train(training)

    def divergence(self, logits: torch.Tensor, labels: torch.Tensor, rows: Sequence[int]) -> torch.Tensor:
        """Summed Kullback-Leibler divergence from the old model's distribution to the model's, over the scored words of windows `rows`.

        The model's O stands for O and all added tags together, for to the old model a new entity is O.

        Args:
            logits: [windows, longest, tags].
            labels: [windows, longest], -100 where nothing is scored.
        """
        target = torch.cat([self._logs[i].float() for i in rows]).to(logits.device)  # float first: autocast cannot join halves
        logs = logits[labels != IGNORE].log_softmax(-1)
        other = logs[:, [self.other, *self.added]].logsumexp(-1, keepdim=True)
        logs = torch.where(torch.tensor(self.known, device=logits.device) == self.other, other, logs[:, self.known])
        return (target.exp() * (target - logs)).sum()


def mixed(start: dict[str, torch.Tensor], trained: dict[str, torch.Tensor], share: float, made: Reconciliation) -> dict[str, torch.Tensor]:
    """``(1 - share) · start + share · trained``; the head's rows of added tags are the trained ones, for there is no old one to keep.

    Of a low-rank pair only B is averaged: it starts at zero, so the average of the products is the product with the average.
    """
    added = [r.new for r in made.rows if r.new is not None and r.old is None]
    out = {name: tensor.clone() if "lora_A" in name else torch.lerp(start[name], tensor, share) for name, tensor in trained.items()}
    for name in out:
        if HEAD.search(name):
            out[name][added] = trained[name][added]
    return out
