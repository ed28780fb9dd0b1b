"""From windows to spans with a model: batches, logits, tags, and their scores over ranks. Shared by training, evaluation and prediction."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from curricle.families.encoders import budget_batches
from curricle.families.ner.annotated import (
    cross_entropy,
    domain_of,
    left_open,
    read_annotated,
    source_of,
    unknown_rows,
)
from curricle.families.ner.calibration import Calibration, Scale, Sureness, fit_scale
from curricle.families.ner.formats import Span, load_records, spans_of
from curricle.families.ner.labels import Scheme
from curricle.families.ner.metrics import KINDS, SpanCounts
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


class Scored(NamedTuple):
    """What a model finds in one record."""

    spans: list[Span]
    scores: list[float]
    """The probability that each span is exactly right (`calibration`)."""
    certainty: float
    """The least probability of a span of the record, or of one of its other words that it is in no span; 1 without words."""


def spread(rows: torch.Tensor, scored: torch.Tensor) -> torch.Tensor:
    """What holds of windows, [windows, tags], for each of their scored words, [words, tags]."""
    return rows.to(scored.device)[scored.nonzero()[:, 0]]


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
        calibration: Calibration | None = None,
    ):
        self.model, self.scheme, self.device = model, Scheme(tags), device
        self._row = np.array([self.scheme.outside if m.part == "O" else row for row, m in enumerate(self.scheme.means)])
        """Row → row; that of O for one of what is no word."""
        self.tokenizer = with_words(tokenizer) if tokenizer.is_fast else tokenizer  # `encode` refuses a slow one
        self.pad = tokenizer.pad_token_id or 0
        self.max_tokens, self.stride, self.token_budget = max_tokens, stride, token_budget
        self.calibration = calibration

    def encode(self, texts: Sequence[str], spans: Sequence[Sequence[Span]] | None = None) -> Encoded:
        """Texts as windows."""
        return encode(texts, spans, self.tokenizer, self.scheme, max_tokens=self.max_tokens, stride=self.stride)

    @torch.no_grad()
    def tag(
        self,
        data: Encoded,
        records: Sequence[int],
        banned: Sequence[int] = (),
        seen: Sureness | None = None,
        unknown: torch.Tensor | None = None,
    ) -> tuple[dict[int, list[Span]], float, int]:
        """Spans of the given records, the summed cross-entropy of their gold tags, and the number of scored words.

        `banned` tag ids are never predicted; `seen` takes down how sure the model is; `unknown` (bool [records, tags]) are the tags that a record's
        source does not annotate. Batches hold windows of like length, at most `token_budget` padded tokens.
        """
        wanted = set(records)
        windows = [w for w in data.windows if w.record in wanted]
        predicted = {r: np.full(len(data.bounds[r]), self.scheme.outside) for r in wanted}
        loss, words = 0.0, 0
        for batch, labels, logits in self._passes(windows):
            scored = labels != IGNORE
            of_record = [w.record for w in batch]
            found = logits[scored]
            open_to = None if unknown is None else left_open(found, spread(unknown[of_record], scored))
            loss += float(cross_entropy(found, labels[scored], self.scheme.outside, open_to))
            words += int(scored.sum())
            if len(banned):
                logits[..., list(banned)] = -torch.inf
            best = self._row[logits.argmax(-1).cpu().numpy()]
            if seen is not None:
                seen(batch, logits, best)
            for row, window in enumerate(batch):
                predicted[window.record][window.words] = best[row, window.positions]
        spans = {r: decode([self.scheme.means[i] for i in predicted[r]], data.bounds[r]) for r in wanted}
        if seen is not None:
            seen.spans.update(spans)
        return spans, loss, words

    def tag_scored(self, data: Encoded) -> list[Scored]:
        """What is found in each record, with its probabilities: calibrated ones where `calibration` is set, else the model's own."""
        seen = Sureness(self.scheme.outside)
        spans, _, _ = self.tag(data, range(len(data.bounds)), seen=seen)
        out = []
        for record, bounds in enumerate(data.bounds):
            of_spans, _, of_words = seen.confidences(record, bounds)
            scores, others = self.scales.spans(of_spans), self.scales.outside(of_words)
            out.append(Scored(spans[record], scores.tolist(), float(min(scores.min(initial=1), others.min(initial=1)))))
        return out

    @property
    def scales(self) -> Calibration:
        """From the model's confidences to probabilities; where nothing is known they are the same."""
        return self.calibration or Calibration(Scale(), Scale())

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
    """Records with gold spans, by domain (`annotated.domain_of` their origin), ready to be scored again and again.

    Args:
        annotated: source → the labels that it annotates, beside those of its gold spans here; None reads what the file's folder tells.
    """

    def __init__(self, path: Path, tagger: Tagger, annotated: Mapping[str, set[str]] | None = None):
        records = load_records(path)
        self.origins = [domain_of(r.get("origin", "new")) for r in records]
        annotated = read_annotated(path.parent) if annotated is None else annotated
        sources = [source_of(r) for r in records]
        own = {source: set(annotated.get(source, ())) for source in sources}
        for source, record in zip(sources, records, strict=True):
            own[source].update(s[2] for s in record["annotations"])
        own = {source: labels or set(tagger.scheme.labels) for source, labels in own.items()}
        self.own = [own[source] for source in sources]
        """Per record: the labels that its source annotates; all, where nobody annotated anything."""
        rows = {source: unknown_rows(tagger.scheme, labels) for source, labels in own.items()}
        some = any(row.any() for row in rows.values())
        self.unknown_rows = torch.from_numpy(np.stack([rows[source] for source in sources])) if some else None
        known = set(tagger.scheme.labels)
        spans = [[s for s in spans_of(r) if s[2] in known] for r in records]
        self.unknown = sum(len(r["annotations"]) for r in records) - sum(map(len, spans))
        """Gold spans whose label the head lacks: they count as missed."""
        self.texts = [r["text"] for r in records]
        self.data = tagger.encode(self.texts, spans)
        self.unreachable: Counter[str] = Counter()
        """Gold spans by domain that no prediction can equal: they count as missed."""
        for origin, count in zip(self.origins, self.data.unreachable, strict=True):
            self.unreachable[origin] += count
        for gold, record in zip(self.data.gold, records, strict=True):
            gold += [s for s in spans_of(record) if s[2] not in known]
        self.labels = sorted({s[2] for gold in self.data.gold for s in gold} | known)

    def score(
        self, tagger: Tagger, ranks: Any = None, banned: Sequence[int] = (), seen: Sureness | None = None
    ) -> tuple[dict[str, dict[str, float]], float]:
        """Scores by domain (and ``all``), each record by its own labels, and the mean cross-entropy of a word. Ranks share the records; each
        counts once.

        `seen` takes down how sure the model is of this rank's records.
        """
        rank, world = (ranks.rank, ranks.world_size) if ranks is not None else (0, 1)
        mine = range(rank, len(self.origins), world)
        spans, loss, words = tagger.tag(self.data, mine, banned, seen, self.unknown_rows)
        domains = sorted(set(self.origins))
        counts = {domain: SpanCounts() for domain in domains}
        for record in mine:
            counts[self.origins[record]].add(self.data.gold[record], spans[record], self.own[record])
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
            for kind in KINDS:
                getattr(total, kind).update(getattr(counted, kind))
        return scores | {"all": total.scores()}, flat["loss"] / max(1.0, flat["words"])

    def calibration(self, seen: Sureness, ranks: Any = None) -> Calibration | None:
        """What fits to what was seen of these records; the same on all ranks, None where no span was found."""
        inside = {record: np.zeros(len(bounds), bool) for record, bounds in enumerate(self.data.bounds)}
        for window in self.data.windows:
            inside[window.record][window.words] = window.tags != seen.outside
        parts = []
        for record, found in seen.spans.items():
            gold = set(self.data.gold[record])
            spans, words, others = seen.confidences(record, self.data.bounds[record])
            own = np.array([span[2] in self.own[record] for span in found], bool)
            right = np.array([span in gold for span in found], bool)
            parts.append((spans[own], right[own], others, ~inside[record][words]))
        joined = tuple(np.concatenate(kind) for kind in zip(*parts, strict=True)) if parts else (np.empty(0),) * 4
        if ranks is not None:
            joined = tuple(np.concatenate(kind) for kind in zip(*ranks.gather_objects(joined), strict=True))
        spans, right, others, also_outside = joined
        return Calibration(fit_scale(spans, right), fit_scale(others, also_outside)) if len(spans) else None
