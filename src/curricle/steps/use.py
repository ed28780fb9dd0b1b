"""Use a trained model of any family: which one is meant, its files on this machine, and what it can do."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from curricle.errors import CheckpointError
from curricle.masking import masked
from curricle.registry import FamilyEntry, canonical
from curricle.steps.assign import Assigned, Opened, assign_table
from curricle.steps.assigned import Order
from curricle.steps.evaluate import CACHE, data_of, entry_of, evaluate_model, foreign_family
from curricle.steps.promote import default_model, named_model
from curricle.store import layout, open_store
from curricle.store.manifest import FileEntry, Manifest, fetch, read_manifest, sha256_of
from curricle.training.pulse import working


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
        return canonical(self.manifest.info.get("family"))

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

    def explain(self, texts: Sequence[str], hits: Any) -> Any:
        """What the hits that `search` gave for these texts rest on, one entry a hit.

        Raises:
            CheckpointError: models of this family do not say.
        """
        self._verb("search")
        explain = getattr(self._opened, "explain", None)
        if explain is None:
            raise CheckpointError(f"{self.uri} is a model of {self.family}, which explains nothing")
        return explain(list(texts), hits)

    def place(self, texts: Sequence[str], drawn: Mapping[str, Any]) -> list[Any]:
        """Where texts stand in what the family's report draws of its model, [x, y] each; None where its models have no place for texts."""
        place = getattr(self._opened, "place", None)
        return place(list(texts), drawn) if place else [None] * len(texts)

    def predict(self, texts: str | Sequence[str], **options: Any) -> Any:
        """What the model finds in a text; for several texts a list of that.

        Args:
            options: those of the family's own verb (NER: `threshold`).
        """
        predict = self._verb("predict")
        return predict([texts], **options)[0] if isinstance(texts, str) else predict(list(texts), **options)

    def assign(self, source: Path | str, column: str, output: Path | str, **options: Any) -> Assigned:
        """Code every row of a table (`steps.assign.assign_table`).

        Args:
            options: those of `steps.assigned.Order`: `top`, `max_error`, `review_below`, `explain`, `prefix`.
        """
        return assign_table(Path(source), Path(output), Order(column=column, **options), self.coder)

    def coder(self) -> Opened:
        """What codes texts, for `assign_table`."""
        self._verb("assign")
        return Opened(self._opened, self.manifest.digest[:12], identity_of(self.manifest))

    def export(self, output: Path | str, kind: str) -> list[str]:
        """Write what the model learned in a form that other programs read; what was measured of it, in lines for people."""
        return self._verb("export")(Path(output), kind)

    def points(self, texts: Sequence[str] | None = None) -> Any:
        """Where the model puts its codes, or texts, in hyperbolic space (`curricle.hyperbolic.Points`).

        Raises:
            CheckpointError: models of this family have no such space.
        """
        return self._verb("points")(texts)

    def evaluate(self, data: str = "") -> dict[str, float]:
        """Test metrics on the data that the model was trained with, or on other data (a URI or a folder)."""
        return evaluate_model(self.uri, data, self.cache_dir).metrics

    def _verb(self, name: str) -> Any:
        if name not in self.entry.verbs:
            raise CheckpointError(
                f"{self.uri} is a model of {self.family}, which has no {name}; it can {', '.join(self.verbs)}"
            )
        return getattr(self._opened, name)

    def data_dir(self) -> Path:
        """The folder of the data that it was trained with."""
        return fetch(data_of(self.manifest, self.uri), self.cache_dir)[0]

    @functools.cached_property
    def _opened(self) -> Any:
        return self.entry.load("use")(self.folder, self.data_dir)


def hit_as_json(hit: Any, reasons: Any = None) -> dict[str, Any]:
    """One entry of what `Model.search` gives, and what `Model.explain` says of it, as JSON can say them."""
    path = [{"code": code, "title": title} for code, title in hit.path]
    row = {"code": hit.code or None, "title": hit.title, "confidence": round(hit.confidence, 6), "score": round(hit.score, 6), "path": path}  # fmt: skip
    return row if reasons is None else row | {"reasons": dataclasses.asdict(reasons)}


def identity_of(manifest: Manifest) -> str:
    """Digest of a checkpoint's configuration, data, parents and files."""
    files = "".join(f"{name} {entry.sha256}\n" for name, entry in sorted(manifest.files.items()))
    return hashlib.sha256(f"{manifest.digest}\n{files}".encode()).hexdigest()


def is_foreign(model: str) -> bool:
    """Whether a model is named by the path of a folder of this machine (``./NAME`` for one that lies here) that holds neither a manifest nor a run."""
    if "://" in model or "/" not in model or not Path(model).is_dir():
        return False
    store = open_store(model)
    return read_manifest(store, "") is None and store.read(layout.PLAN) is None


def _foreign(folder: Path, cache_dir: Path) -> Model:
    name, _ = foreign_family(folder)
    files = {path.name: FileEntry(path.stat().st_size, sha256_of(path)) for path in sorted(folder.iterdir()) if path.is_file()}  # fmt: skip
    digest = hashlib.sha256("".join(f"{name} {entry.sha256}\n" for name, entry in files.items()).encode()).hexdigest()
    manifest = Manifest("checkpoint", digest, files, info={"family": name})
    return Model(str(folder), f"a model of {name} that another program wrote", folder, manifest, cache_dir)


def open_model(model: str = "", store_uri: str = "checkpoints", cache_dir: Path = CACHE, *, verb: str = "") -> Model:
    """Open a trained model.

    Args:
        model: ``promoted``, a stage's name, a run's id, ``RUN/STAGE``, or the path or URI of a checkpoint or a stage; empty takes the promoted one, else the
            last stage of the newest finished chain.
        store_uri: where stages are looked for.
        verb: what it is wanted for, where it is not named.

    A folder that another program wrote is opened too, where a family knows what it is; its digest is then that of its files.

    Raises:
        CheckpointError, StoreError: there is none, or it is not whole.
    """
    if is_foreign(model):
        return _foreign(Path(model), cache_dir)
    source = named_model(model, store_uri, asked="--model") if model else default_model(store_uri, verb)
    with working(f"fetching {masked(source.uri)}"):
        folder, manifest = fetch(source.uri, cache_dir)
    return Model(source.uri, source.reason, folder, manifest, cache_dir)
