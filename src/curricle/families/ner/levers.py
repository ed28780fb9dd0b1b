"""What keeps the old domain while the new one is learnt: a fitted head to begin with, soft targets from the old model, averages of weights.

All line up by label: a tag that the old model lacks has its row fitted first, is part of its O in the soft targets, and keeps its trained row
in an average.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import torch

from curricle.families.encoders import length_bucketed
from curricle.families.ner.labels import Reconciliation
from curricle.families.ner.model import head_of
from curricle.families.ner.tagger import Tagger, collate
from curricle.families.ner.windows import IGNORE, Window

HEAD = re.compile(r"\b(classifier|score)\b")
"""In the names of the head's parameters."""
FITTED = 1500
"""Windows that the rows of added tags are fitted on, at most."""
PENALTY = 0.01
"""Weight of their squared norm: keeps them about as long as the rows beside them."""


def _passed(tagger: Tagger, windows: Sequence[Window]) -> Iterator[tuple[np.ndarray, torch.Tensor, torch.Tensor]]:
    """The model's answers without dropout and gradient, windows of like length together: (indices of the windows, labels, logits)."""
    lengths = np.array([len(w.ids) for w in windows], np.int64)
    training = tagger.model.training
    tagger.model.eval()
    for chosen in length_bucketed(np.arange(len(windows)), lengths, 32, bucket=max(1, len(windows))):
        tensors = collate([windows[i] for i in chosen], tagger.pad, tagger.device)
        labels = tensors.pop("labels")
        with torch.no_grad():
            logits = tagger.model(**tensors).logits
        yield chosen, labels, logits
    tagger.model.train(training)


def fit_added_rows(tagger: Tagger, windows: Sequence[Window], added: Sequence[int], seed: int) -> None:
    """Fit the head's rows of added tags to the encoder as it stands; all other weights stay.

    Random rows would pull the encoder away from what it knows in the first steps (Kumar et al. 2022, "Fine-Tuning can Distort Pretrained
    Features", arXiv 2202.10054: first a linear probe, then everything). Here the probe is a logistic regression by L-BFGS over all tags, in
    which the rows of known tags are fixed.
    """
    if not windows:
        return
    head, features, labels = head_of(tagger.model), [], []
    drawn = np.random.default_rng(seed).permutation(len(windows))[:FITTED]
    seen: list[torch.Tensor] = []
    hook = head.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    for _, tags, _ in _passed(tagger, [windows[i] for i in drawn]):
        features.append(seen.pop()[tags != IGNORE].float())
        labels.append(tags[tags != IGNORE])
    hook.remove()
    x, y = torch.cat(features), torch.cat(labels)
    index, bias = torch.tensor(added, device=x.device), head.bias is not None
    rows = torch.zeros(len(added), x.shape[1] + bias, device=x.device, requires_grad=True)
    optimiser = torch.optim.LBFGS([rows], max_iter=60, line_search_fn="strong_wolfe")
    with torch.autocast(x.device.type, enabled=False):
        known = head(x).detach()
        x = torch.cat([x, x.new_ones(len(x), bias)], 1)

        def closure() -> torch.Tensor:
            optimiser.zero_grad()
            loss = (
                torch.nn.functional.cross_entropy(known.index_copy(1, index, x @ rows.T), y)
                + PENALTY * rows.square().sum()
            )
            loss.backward()
            return loss

        optimiser.step(closure)
    with torch.no_grad():
        head.weight[index] = rows[:, : head.in_features]
        if bias:
            head.bias[index] = rows[:, -1]


class SoftTargets:
    """The start model's distribution over the tags it knew, for every scored word of the training windows.

    Computed once, before the first step, from the weights that the stage starts from: a resumed stage finds the same. Kept as float16
    logarithms: two bytes a word and tag.
    """

    def __init__(self, tagger: Tagger, windows: Sequence[Window], made: Reconciliation):
        self.known = [row for row, source in enumerate(made.sources()) if source is not None]
        self.other = tagger.scheme.outside
        self.added = made.added()
        self._logs: list[torch.Tensor] = [torch.empty(0)] * len(windows)
        for chosen, _, logits in _passed(tagger, windows):
            logs = logits.float()[..., self.known].log_softmax(-1).half().cpu()
            for row, i in enumerate(chosen):
                self._logs[i] = logs[row, windows[i].positions].clone()

    def divergence(self, logits: torch.Tensor, labels: torch.Tensor, rows: Iterable[int]) -> torch.Tensor:
        """Summed Kullback-Leibler divergence from the old model's distribution to the model's, over the scored words of windows `rows`.

        The model's O stands for O and all added tags together, for to the old model a new entity is O.

        Args:
            logits: [windows, longest, tags].
            labels: [windows, longest], -100 where nothing is scored.
        """
        target = torch.cat([self._logs[i].float() for i in rows]).to(
            logits.device
        )  # float first: autocast cannot join halves
        logs = logits[labels != IGNORE].log_softmax(-1)
        other = logs[:, [self.other, *self.added]].logsumexp(-1, keepdim=True)
        logs = torch.where(torch.tensor(self.known, device=logits.device) == self.other, other, logs[:, self.known])
        return (target.exp() * (target - logs)).sum()


def mixed(
    start: dict[str, torch.Tensor], trained: dict[str, torch.Tensor], share: float, made: Reconciliation
) -> dict[str, torch.Tensor]:
    """``(1 - share) · start + share · trained``; the head's rows of added tags are the trained ones, for there is no old one to keep.

    Of a low-rank pair only B is averaged: it starts at zero, so the average of the products is the product with the average.
    """
    added = made.added()
    out = {
        name: tensor.clone() if "lora_A" in name else torch.lerp(start[name], tensor, share)
        for name, tensor in trained.items()
    }
    for name in out:
        if HEAD.search(name):
            out[name][added] = trained[name][added]
    return out
