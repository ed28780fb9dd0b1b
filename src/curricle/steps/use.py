"""Use a trained model of any family: which one is meant, its files on this machine, and what it can do."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from curricle.errors import CheckpointError
from curricle.registry import FamilyEntry
from curricle.steps.assign import Coder, assign_csv
from curricle.steps.evaluate import CACHE, data_of, entry_of, evaluate_model
from curricle.steps.promote import default_model
from curricle.steps.source import resolve_source
from curricle.store.manifest import Manifest, fetch


@dataclass(frozen=True)
class Model:
    """A trained model: its files are on this machine and verified. What it can do depends on its family; `verbs` says it."""

    uri: str
    reason: str
    """Why it is this one."""
    folder: Path
    manifest: Manifest
    cache_dir: Path

    @property
    def family(self) -> str:
        """Its family's name."""
        return str(self.manifest.info.get("family"))

    @property
    def entry(self) -> FamilyEntry:
        """Its family."""
        return entry_of(self.manifest, self.uri)

    @property
    def verbs(self) -> tuple[str, ...]:
        """What it can do: `evaluate`, and what its family adds."""
        return (*self.entry.verbs, "evaluate")

    def search(self, texts: str | Sequence[str], top: int = 5) -> Any:
        """The best codes for a text, best first; for several texts a list of such lists."""
        search = self._verb("search")
        return search([texts], top)[0] if isinstance(texts, str) else search(list(texts), top)

    def predict(self, texts: str | Sequence[str]) -> Any:
        """What the model finds in a text; for several texts a list of that."""
        predict = self._verb("predict")
        return predict([texts])[0] if isinstance(texts, str) else predict(list(texts))

    def assign(self, source: Path | str, column: str, output: Path | str) -> int:
        """Code every row of a CSV file; the number of rows. See `steps.assign.assign_csv`."""
        return assign_csv(Path(source), column, Path(output), self.coder)

    def coder(self) -> Coder:
        """What codes texts, for `assign_csv`."""
        self._verb("assign")
        return self._opened

    def export(self, output: Path | str, kind: str) -> None:
        """Write what the model learned in a form that other programs read."""
        self._verb("export")(Path(output), kind)

    def evaluate(self, data: str = "") -> dict[str, float]:
        """Test metrics on the data that the model was trained with, or on other data (a URI or a folder)."""
        return evaluate_model(self.uri, data, self.cache_dir).metrics

    def _verb(self, name: str) -> Any:
        if name not in self.entry.verbs:
            raise CheckpointError(
                f"{self.uri} is a model of {self.family}, which has no {name}; it can {', '.join(self.verbs)}"
            )
        return getattr(self._opened, name)

    @functools.cached_property
    def _opened(self) -> Any:
        return self.entry.load("use")(self.folder, lambda: fetch(data_of(self.manifest, self.uri), self.cache_dir)[0])


def open_model(model: str = "", store_uri: str = "checkpoints", cache_dir: Path = CACHE, *, verb: str = "") -> Model:
    """Open a trained model.

    Args:
        model: a stage's name, a run's id, ``RUN/STAGE``, or the path or URI of a checkpoint or a stage; empty takes the promoted one, else the
            last stage of the newest finished chain.
        store_uri: where stages are looked for.
        verb: what it is wanted for, where it is not named.

    Raises:
        CheckpointError, StoreError: there is none, or it is not whole.
    """
    source = resolve_source(model, store_uri, asked="--model") if model else default_model(store_uri, verb)
    folder, manifest = fetch(source.uri, cache_dir)
    return Model(source.uri, source.reason, folder, manifest, cache_dir)
