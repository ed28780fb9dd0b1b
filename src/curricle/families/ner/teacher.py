"""Distillation from another model of any architecture, tokenizer and label scheme: what it says of each word, told in the head's own tags.

Words are the same whatever the tokenizer (`splitting`), so the teacher reads the texts with its own one, and words are matched by where they
begin. Tags are matched by meaning, in groups that both sides can tell apart: a plain label of the teacher's stands for B- and I- together, E- and S- of
the teacher's for I- and B-. What only one side knows is O to the other.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch

from curricle.errors import ConfigError
from curricle.families.encoders import budget_batches
from curricle.families.ner.labels import Scheme, reconcile
from curricle.families.ner.predict import load_tagger
from curricle.families.ner.tagger import Tagger, collate
from curricle.families.ner.windows import IGNORE, Encoded

_log = logging.getLogger(__name__)


def groups_of(teacher: Scheme, student: Scheme) -> list[tuple[list[int], list[int]]]:
    """The finest groups of tags that both can tell apart: (rows of the teacher, rows of the student), the one with O first.

    Raises:
        ConfigError: they share no label.
    """
    shared = set(teacher.labels) & set(student.labels)
    if not shared:
        raise ConfigError(
            f"forgetting.teacher knows {', '.join(teacher.labels)}, and the head is for {', '.join(student.labels)}: no label is the same, so there is nothing "
            "to learn from it"
        )
    groups: list[tuple[set[int], set[int]]] = [({teacher.outside}, {student.outside})]
    for row, source in enumerate(reconcile(teacher.tags, student.tags).sources()):
        if row == student.outside:
            continue
        if not source:
            groups[0][1].add(row)
            continue
        mine: tuple[set[int], set[int]] = ({*source}, {row})
        for group in [g for g in groups if g[0] & mine[0]]:  # rows that a former one shares
            groups.remove(group)
            mine = (mine[0] | group[0], mine[1] | group[1])
        groups.append(mine)
    used = set().union(*(rows for rows, _ in groups))
    groups[0][0].update(set(range(len(teacher.tags))) - used)
    return [(sorted(theirs), sorted(ours)) for theirs, ours in groups]


class TeacherTargets:
    """The teacher's distribution over the groups of tags, for every scored word of the training windows; as `levers.SoftTargets` otherwise.

    Args:
        folder: any token-classification model.
        tagger: the student's; only its tags count.
        data: the training windows, and where their words begin.
        texts: of the records that the windows are of.

    Raises:
        CheckpointError: the folder holds no whole token-classification model.
        ConfigError: it shares no label with the head.
    """

    def __init__(self, folder: Path | str, tagger: Tagger, data: Encoded, texts: Sequence[str]):
        teacher = load_tagger(folder, tagger.device)
        self.groups = groups_of(teacher.scheme, tagger.scheme)
        read = teacher.encode(texts)
        told = [np.full((len(bounds), len(self.groups)), np.nan, np.float16) for bounds in read.bounds]
        for rows in budget_batches([len(w.ids) for w in read.windows], tagger.token_budget):
            batch = [read.windows[row] for row in rows]
            tensors = collate(batch, teacher.pad, teacher.device)
            tensors.pop("labels")
            logs = teacher.model(**tensors).logits.float().log_softmax(-1)
            logs = torch.stack([logs[..., theirs].logsumexp(-1) for theirs, _ in self.groups], -1).half().cpu().numpy()
            for row, window in enumerate(batch):
                told[window.record][window.words] = logs[row, window.positions]
        self._logs: list[torch.Tensor] = []
        matched = words = 0
        for window in data.windows:
            begins = data.bounds[window.record][window.words, 0]
            of_teacher = {int(start): word for word, start in enumerate(read.bounds[window.record][:, 0])}
            at = [of_teacher.get(int(start)) for start in begins]
            logs = np.full((len(begins), len(self.groups)), np.nan, np.float16)
            for word, other in enumerate(at):
                if other is not None:
                    logs[word] = told[window.record][other]
            self._logs.append(torch.from_numpy(logs))
            matched, words = matched + sum(other is not None for other in at), words + len(begins)
        known = sorted(set(teacher.scheme.labels) & set(tagger.scheme.labels))
        _log.info(
            "forgetting.teacher %s: %d of %d words are its words too; labels that both know: %s",
            folder, matched, words, ", ".join(known),
        )  # fmt: skip

    def divergence(self, logits: torch.Tensor, labels: torch.Tensor, rows: Iterable[int]) -> torch.Tensor:
        """Summed Kullback-Leibler divergence from the teacher's distribution to the model's, over the scored words of windows `rows` that the teacher has
        as words too.

        Args:
            logits: [windows, longest, tags].
            labels: [windows, longest], -100 where nothing is scored.
        """
        target = torch.cat([self._logs[i].float() for i in rows]).to(logits.device)
        logs = logits[labels != IGNORE].log_softmax(-1)
        logs = torch.stack([logs[:, ours].logsumexp(-1) for _, ours in self.groups], -1)
        said = ~target.isnan().any(-1)
        target, logs = target[said], logs[said]
        return (target.exp() * (target - logs)).sum()
