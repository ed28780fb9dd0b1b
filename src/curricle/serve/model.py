"""A trained model as the server asks it: several questions in one batch, answers as JSON can say them, and what the page shows of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from curricle.errors import CheckpointError
from curricle.sections import Section, Seen
from curricle.steps.assign import Opened
from curricle.steps.use import Model, hit_as_json

SEARCH, PREDICT = "search", "predict"
"""Verbs of `registry.FamilyEntry.verbs` that are served."""


@dataclass(frozen=True)
class Search:
    """Texts that want codes."""

    texts: tuple[str, ...]
    top: int = 5
    explain: bool = False
    place: bool = False


@dataclass(frozen=True)
class Predict:
    """Texts that want entities."""

    texts: tuple[str, ...]


class Served:
    """What a server knows of its model. The model itself is asked by one thread at a time alone.

    Raises:
        CheckpointError: models of its family answer no texts.
    """

    def __init__(self, model: Model):
        self.model, self.version, self.verbs = model, model.manifest.digest[:12], model.verbs
        self.family, self.title = model.family, model.entry.title
        self._drawn: Mapping[str, Any] = {}
        """The disc of the codes, once `sections` has drawn it."""
        if not {SEARCH, PREDICT} & set(self.verbs):
            raise CheckpointError(
                f"{model.uri} is a model of {self.family}, which can {', '.join(self.verbs)}; served is what can {SEARCH} or {PREDICT}"
            )

    def load(self, batch: int) -> None:
        """Ask it for the first time, a whole batch: that takes seconds, or minutes where what it needs is made once."""
        texts = tuple(f"a first text, so that all is loaded before somebody asks: {i}" for i in range(batch))
        for verb, question in ((SEARCH, Search(texts)), (PREDICT, Predict(texts))):
            if verb in self.verbs:
                self.answer([question])

    def answer(self, questions: Sequence[Search | Predict]) -> list[Any]:
        """For each question one entry a text, in their order."""
        out: list[Any] = [None] * len(questions)
        searches = [i for i, question in enumerate(questions) if isinstance(question, Search)]
        predicts = [i for i, question in enumerate(questions) if isinstance(question, Predict)]
        for which, ask in ((searches, self._search), (predicts, self._predict)):
            if which:
                for i, answer in zip(which, ask([questions[i] for i in which]), strict=True):
                    out[i] = answer
        return out

    def _search(self, questions: Sequence[Any]) -> list[list[dict[str, Any]]]:
        texts = [text for question in questions for text in question.texts]
        found = iter(self.model.search(texts, max(question.top for question in questions)))
        hits = [[next(found)[: question.top] for _ in question.texts] for question in questions]
        asked = [(i, k) for i, question in enumerate(questions) if question.explain for k in range(len(hits[i]))]
        why: dict[tuple[int, int], Any] = {}
        if asked:
            explained = self.model.explain([questions[i].texts[k] for i, k in asked], [hits[i][k] for i, k in asked])
            why = dict(zip(asked, explained, strict=True))
        places = {i: self.model.place(question.texts, self._drawn) for i, question in enumerate(questions) if question.place and self._drawn}  # fmt: skip
        return [
            [
                ({"place": places[i][k]} if i in places else {}) | {"text": text, "hits": [hit_as_json(*pair) for pair in zip(row, why.get((i, k), [None] * len(row)), strict=True)]}
                for k, (text, row) in enumerate(zip(question.texts, hits[i], strict=True))
            ]
            for i, question in enumerate(questions)
        ]  # fmt: skip

    def _predict(self, questions: Sequence[Any]) -> list[list[dict[str, Any]]]:
        texts = [text for question in questions for text in question.texts]
        found = iter(self.model.predict(texts))
        return [[{"text": text, "spans": next(found)} for text in question.texts] for question in questions]

    def coder(self) -> Opened:
        """What codes tables."""
        return self.model.coder()

    def sections(self) -> Sequence[Section]:
        """What the family's report shows of a model without measuring it: for codes the disc of all of them."""
        entry = self.model.entry
        if not entry.findings or not entry.sections:
            return ()
        found = (
            entry.load("findings")(self.model.folder, self.model.data_dir(), None, False)
            if SEARCH in self.verbs
            else {}
        )
        self._drawn = found.get("disc", {})
        return entry.load("sections")(Seen(self.model.uri, {}, {}, {}, found)).sections if found else ()  # fmt: skip

    def facts(self) -> dict[str, Any]:
        """For `/v1/model`."""
        return {
            "model_version": self.version,
            "family": self.family,
            "title": self.title,
            "can": [verb for verb in self.verbs if verb in (SEARCH, PREDICT, "assign")],
            "metrics": {name: value for name, value in self.model.manifest.metrics.items() if value == value},
        }
