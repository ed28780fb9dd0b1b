"""From windows to spans with a model: batches, logits, tags, and their scores over ranks. Shared by training, evaluation and prediction."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from curricle.families.encoders import budget_batches
from curricle.families.ner.formats import Span, load_records, spans_of
from curricle.families.ner.labels import Scheme
from curricle.families.ner.metrics import SpanCounts
from curricle.families.ner.splitting import with_words
from curricle.families.ner.windows import IGNORE, Encoded, Window, decode, encode


def collate(windows: Sequence[Window], pad: int, device: torch.device) -> dict[str, torch.Tensor]:
    """Windows as padded tensors [windows, longest]: input_ids, attention_mask, labels (-100 where nothing is scored)."""
    longest = max(len(w.ids) for w in windows)
    ids = np.full((len(windows), longest), pad, np.int64)
    mask = np.zeros_like(ids)
    labels = np.full_like(ids, IGNORE)
    for row, window in enumerate(windows):
        ids[row, : len(window.ids)] = window.ids
        mask[row, : len(window.ids)] = 1
        if len(window.tags):
            labels[row, window.positions] = window.tags
    named = {"input_ids": ids, "attention_mask": mask, "labels": labels}
    return {name: torch.from_numpy(array).to(device) for name, array in named.items()}


class Tagger:
    """A transformers model for token classification (compiled or with adapters, as may be) with its tokenizer and the meaning of its head's rows."""

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        tags: Sequence[str],
        device: torch.device,
        *,
        max_tokens: int,
        stride: int,
        token_budget: int = 4096,
    ):
        self.model, self.scheme, self.device = model, Scheme(tags), device
        self.tokenizer = with_words(tokenizer) if tokenizer.is_fast else tokenizer  # `encode` refuses a slow one
        self.pad = tokenizer.pad_token_id or 0
        self.max_tokens, self.stride, self.token_budget = max_tokens, stride, token_budget

    def encode(self, texts: Sequence[str], spans: Sequence[Sequence[Span]] | None = None) -> Encoded:
        """Texts as windows."""
        return encode(texts, spans, self.tokenizer, self.scheme, max_tokens=self.max_tokens, stride=self.stride)

    @torch.no_grad()
    def tag(
        self, data: Encoded, records: Sequence[int], banned: Sequence[int] = ()
    ) -> tuple[dict[int, list[Span]], float, int]:
        """Spans of the given records, the summed cross-entropy of their gold tags, and the number of scored words.

        `banned` tag ids are never predicted. Batches hold windows of like length, at most `token_budget` padded tokens.
        """
        wanted = set(records)
        windows = [w for w in data.windows if w.record in wanted]
        predicted = {r: np.full(len(data.bounds[r]), self.scheme.outside) for r in wanted}
        loss, words = 0.0, 0
        for batch, labels, logits in self._passes(windows):
            loss += float(
                torch.nn.functional.cross_entropy(
                    logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORE, reduction="sum"
                )
            )
            words += int((labels != IGNORE).sum())
            if len(banned):
                logits[..., list(banned)] = -torch.inf
            best = logits.argmax(-1).cpu().numpy()
            for row, window in enumerate(batch):
                predicted[window.record][window.words] = best[row, window.positions]
        spans = {r: decode([self.scheme.means[i] for i in predicted[r]], data.bounds[r]) for r in wanted}
        return spans, loss, words

    @torch.no_grad()
    def tag_scored(self, data: Encoded) -> list[tuple[list[Span], list[float], float]]:
        """Per record its spans, a score for each, and one for the whole record.

        A word's score is the probability (softmax) of its tag; a span's, and a record's, is that of its least sure word (1 without words).
        These are the model's own, not calibrated: good for an order, not for a rate of errors.
        """
        tags = [np.full(len(bounds), self.scheme.outside) for bounds in data.bounds]
        sure = [np.ones(len(bounds)) for bounds in data.bounds]
        for batch, _, logits in self._passes(data.windows):
            best = [part.cpu().numpy() for part in logits.softmax(-1).max(-1)]
            for row, window in enumerate(batch):
                sure[window.record][window.words] = best[0][row, window.positions]
                tags[window.record][window.words] = best[1][row, window.positions]
        out = []
        for found, scores, bounds in zip(tags, sure, data.bounds, strict=True):
            spans = decode([self.scheme.means[i] for i in found], bounds)
            first = np.searchsorted(bounds[:, 0], [start for start, _, _ in spans])
            last = np.searchsorted(bounds[:, 1], [end for _, end, _ in spans])
            each = [float(scores[low : high + 1].min()) for low, high in zip(first, last, strict=True)]
            out.append((spans, each, float(scores.min(initial=1.0))))
        return out

    def _passes(self, windows: Sequence[Window]) -> Iterator[tuple[list[Window], torch.Tensor, torch.Tensor]]:
        """Windows in batches of like length, at most `token_budget` padded tokens, with labels and the model's logits; without dropout."""
        was_training = self.model.training
        self.model.eval()
        for rows in budget_batches([len(w.ids) for w in windows], self.token_budget):
            batch = [windows[row] for row in rows]
            tensors = collate(batch, self.pad, self.device)
            labels = tensors.pop("labels")
            yield batch, labels, self.model(**tensors).logits.float()
        self.model.train(was_training)


class ScoredSet:
    """Records with gold spans, by domain (their `origin`), ready to be scored again and again."""

    def __init__(self, path: Path, tagger: Tagger):
        records = load_records(path)
        self.origins = [r.get("origin", "new") for r in records]
        known = set(tagger.scheme.labels)
        spans = [[s for s in spans_of(r) if s[2] in known] for r in records]
        self.unknown = sum(len(r["annotations"]) for r in records) - sum(map(len, spans))
        """Gold spans whose label the head lacks: they count as missed."""
        self.data = tagger.encode([r["text"] for r in records], spans)
        self.unreachable: Counter[str] = Counter()
        """Gold spans by domain that no prediction can equal: they count as missed."""
        for origin, count in zip(self.origins, self.data.unreachable, strict=True):
            self.unreachable[origin] += count
        for gold, record in zip(self.data.gold, records, strict=True):
            gold += [s for s in spans_of(record) if s[2] not in known]
        self.labels = sorted({s[2] for gold in self.data.gold for s in gold} | known)

    def score(
        self, tagger: Tagger, ranks: Any = None, banned: Sequence[int] = ()
    ) -> tuple[dict[str, dict[str, float]], float]:
        """Scores by domain (and ``all``), and the mean cross-entropy of a word. Ranks share the records; each counts once."""
        rank, world = (ranks.rank, ranks.world_size) if ranks is not None else (0, 1)
        mine = range(rank, len(self.origins), world)
        spans, loss, words = tagger.tag(self.data, mine, banned)
        domains = sorted(set(self.origins))
        counts = {domain: SpanCounts() for domain in domains}
        for record in mine:
            counts[self.origins[record]].add(self.data.gold[record], spans[record])
        flat = {f"{domain}/{k}": v for domain in domains for k, v in counts[domain].flat(self.labels).items()} | {
            "loss": loss,
            "words": float(words),
        }
        if ranks is not None and world > 1:
            flat = {name: value * world for name, value in ranks.mean(flat).items()}
        total = SpanCounts()
        scores = {}
        for domain in domains:
            counted = SpanCounts.from_flat(
                {k.removeprefix(f"{domain}/"): v for k, v in flat.items() if k.startswith(f"{domain}/")}
            )
            scores[domain] = counted.scores()
            for kind in ("right", "predicted", "true"):
                getattr(total, kind).update(getattr(counted, kind))
        return scores | {"all": total.scores()}, flat["loss"] / max(1.0, flat["words"])
