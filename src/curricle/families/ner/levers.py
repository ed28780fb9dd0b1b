"""What keeps the old domain while the new one is learnt: a fitted head to begin with, soft targets from the old model, averages of weights.

All line up by label: a tag that the old model lacks has its row fitted first, is part of its O in the soft targets, and keeps its trained row
in an average.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Sequence

import numpy as np
import torch

from curricle.families.encoders import length_bucketed
from curricle.families.ner.annotated import cross_entropy, left_open
from curricle.families.ner.labels import Reconciliation
from curricle.families.ner.model import head_of
from curricle.families.ner.tagger import Tagger, collate, spread
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


def fit_added_rows(
    tagger: Tagger, windows: Sequence[Window], added: Sequence[int], seed: int, unknown: torch.Tensor | None = None
) -> None:
    """Fit the head's rows of added tags to the encoder as it stands; all other weights stay.

    Random rows would pull the encoder away from what it knows in the first steps (Kumar et al. 2022, "Fine-Tuning can Distort Pretrained
    Features", arXiv 2202.10054: first a linear probe, then everything). Here the probe is a logistic regression by L-BFGS over all tags, in
    which the rows of known tags are fixed.

    Args:
        unknown: bool [windows, tags]: the tags that the source of a window does not annotate. An O is left open to them where the model is sure of one.
    """
    if not windows:
        return
    head, features, labels = head_of(tagger.model), [], []
    drawn = np.random.default_rng(seed).permutation(len(windows))[:FITTED]
    seen: list[torch.Tensor] = []
    open_to: list[torch.Tensor] = []
    hook = head.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    for chosen, tags, _ in _passed(tagger, [windows[i] for i in drawn]):
        if unknown is not None:
            open_to.append(spread(unknown[drawn[chosen]], tags != IGNORE))
        features.append(seen.pop()[tags != IGNORE].float())
        labels.append(tags[tags != IGNORE])
    hook.remove()
    x, y = torch.cat(features), torch.cat(labels)
    index, bias = torch.tensor(added, device=x.device), head.bias is not None
    rows = torch.zeros(len(added), x.shape[1] + bias, device=x.device, requires_grad=True)
    optimiser = torch.optim.LBFGS([rows], max_iter=60, line_search_fn="strong_wolfe")
    with torch.autocast(x.device.type, enabled=False):
        known = head(x).detach()
        fresh = torch.zeros(known.shape[1], dtype=torch.bool, device=x.device).index_fill(0, index, True)
        may = left_open(known.masked_fill(fresh, -torch.inf), torch.cat(open_to)) if open_to else None
        x = torch.cat([x, x.new_ones(len(x), bias)], 1)

        def closure() -> torch.Tensor:
            optimiser.zero_grad()
            summed = cross_entropy(known.index_copy(1, index, x @ rows.T), y, tagger.scheme.outside, may)
            loss = summed / len(y) + PENALTY * rows.square().sum()
            loss.backward()
            return loss

        optimiser.step(closure)
    with torch.no_grad():
        head.weight[index] = rows[:, : head.in_features]
        if bias:
            head.bias[index] = rows[:, -1]


def said_before(tagger: Tagger, windows: Sequence[Window], unknown: torch.Tensor) -> list[torch.Tensor]:
    """Of each window's scored words, bool [words]: whether the model, before the first step, finds one of the unknown tags likelier than O.

    Args:
        unknown: bool [windows, tags]: tags that the model knows and the window's source does not annotate.
    """
    said = [torch.zeros(len(w.words), dtype=torch.bool) for w in windows]
    asked = unknown.any(-1).nonzero()[:, 0].tolist()
    for chosen, _, logits in _passed(tagger, [windows[i] for i in asked]):
        for row, place in enumerate(chosen):
            window = asked[place]
            words = logits[row, windows[window].positions].float()
            best = words.masked_fill(~unknown[window].to(words.device), -torch.inf).amax(-1)
            said[window] = (best > words[:, tagger.scheme.outside]).cpu()
    return said


def by_labels(labels: Sequence[Collection[str]], order: Sequence[int]) -> list[int]:
    """Reorder windows so that every stretch holds each label about equally often: always one with the label that was seen least so far, and one
    without any label after three of those, as long as there are both.

    Args:
        labels: of each window.
        order: the windows, in the order in which those of one label are taken.
    """
    of_label: dict[str, list[int]] = {}
    for window in reversed(order):
        for label in set(labels[window]):
            of_label.setdefault(label, []).append(window)
    rest = [window for window in reversed(order) if not labels[window]]
    seen = dict.fromkeys(sorted(of_label), 0)
    out: list[int] = []
    used: set[int] = set()
    while seen or rest:
        if rest and (not seen or len(out) % 4 == 3):
            out.append(rest.pop())
            continue
        label = min(seen, key=seen.__getitem__)
        while of_label[label] and of_label[label][-1] in used:
            of_label[label].pop()
        if not of_label[label]:
            del seen[label]
            continue
        window = of_label[label].pop()
        used.add(window)
        out.append(window)
        for also in set(labels[window]) & seen.keys():
            seen[also] += 1
    return out


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
