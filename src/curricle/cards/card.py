"""A model's card as plain data, the Markdown that it becomes, and what a store or a folder knows of a model.

Every text of a `Card` is plain: what users wrote is escaped where it is written out, as Markdown here and as HTML in a report. The head is that of the
Hugging Face hub (`huggingface_hub.ModelCard` reads it), with the scores as its model index. Measures nothing and loads no model.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined

from curricle.config.load import leaves, parse_yaml
from curricle.errors import ConfigError, CurricleError
from curricle.markdown import escaped, markdown_table
from curricle.sections import Seen
from curricle.store import Store, layout, open_store, references, split_uri
from curricle.store.findings import read_findings
from curricle.store.manifest import Manifest, read_manifest

UNKNOWN = "not stated"
FILE = "README.md"
"""What a card is called beside the weights that it describes; at a stage's place it is `layout.CARD`."""
OURS = "<!-- made by curricle -->"
"""Stands in every card: what has it may be replaced by a newer one."""
FOLDER = "FOLDER"
"""In the code of a card: where the model lies."""


@dataclass(frozen=True, kw_only=True)
class Table:
    """Figures."""

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True, kw_only=True)
class Score:
    """One entry of the model index."""

    type: str
    """A metric as the hub calls it: ``accuracy``, ``f1``, ``precision``, ``recall``."""
    name: str
    """As Curricle calls it."""
    value: float
    split: str
    """``test`` or ``validation``."""


@dataclass(frozen=True, kw_only=True)
class Way:
    """One way to load the model."""

    title: str
    code: str
    """`FOLDER` stands for the model's place."""
    language: str = "python"


@dataclass(frozen=True, kw_only=True)
class Card:
    """What a family says of one of its models."""

    title: str
    summary: str
    task: str
    """As the hub calls it: ``token-classification``, ``feature-extraction``."""
    library: str = "transformers"
    """What loads it, as the hub calls it."""
    tags: Sequence[str]
    languages: Sequence[str] = ()
    """ISO 639-1."""
    licence: str = ""
    """Identifier, as somebody stated it for this very model."""
    base: str = ""
    """Name of the encoder in the configuration."""
    base_licence: str = ""
    data_licence: str = ""
    data_name: str
    """Of the dataset that the scores are of."""
    data_digest: str = ""
    """Of that dataset; empty where nobody knows one."""
    facts: Mapping[str, str]
    """More lines of the first table."""
    data: Sequence[str]
    """Sentences."""
    data_tables: Sequence[Table] = ()
    training: Sequence[str]
    settings: Mapping[str, str]
    measured: Sequence[str]
    """Sentences: on what, and how."""
    tables: Sequence[Table]
    scores: Sequence[Score]
    ways: Sequence[Way]
    notes: Sequence[str] = ()
    """Sentences under the ways."""
    intended: Sequence[str]
    limits: Sequence[str]

    @property
    def first(self) -> dict[str, str]:
        """The lines of the first table."""
        return {
            "base model": _shown_base(self.base),
            "licence of this model": self.licence or UNKNOWN,
            "licence of the base model": self.base_licence or UNKNOWN,
            "licence of the data": self.data_licence or UNKNOWN,
            **self.facts,
        }


def _shown_base(base: str) -> str:
    """The encoder's name; of a folder its last part alone, for a path tells of a machine."""
    if base and Path(base).is_absolute():
        return f"a folder called {Path(base).name}"
    return base or UNKNOWN


def text_of(card: Card) -> str:
    """The card as Markdown, head first."""
    return _templates().get_template("card.md").render(head=_head(card), ours=OURS, card=card)


def said_in(card: Card, most: int) -> str:
    """The part of a card that fits into so many characters, without the head, cut between two sections."""
    text = text_of(card).partition(f"{OURS}\n")[2].strip()
    if len(text) <= most:
        return text
    cut = text.rfind("\n## ", 0, most)
    return text[: cut if cut > 0 else most].strip()


@cache
def _templates() -> Environment:
    made = Environment(  # Markdown: the filters escape, not the environment
        loader=PackageLoader("curricle.cards", "."),
        autoescape=False,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    made.filters |= {"plain": escaped, "table": lambda table: markdown_table(table.head, table.rows)}
    made.globals["rows"] = lambda head, values: markdown_table(head, values.items())
    return made


def _head(card: Card) -> str:
    """The YAML between the lines of ``---``."""
    head: dict[str, Any] = {
        "library_name": card.library,
        "pipeline_tag": card.task,
        "tags": [*card.tags, "curricle"],
    }
    if card.languages:
        head["language"] = list(card.languages)
    if card.licence:
        head["license"] = card.licence
    if re.fullmatch(r"[\w.-]+/[\w.-]+", card.base):  # a name of the hub
        head["base_model"] = card.base
    if card.scores:
        head["model-index"] = [{"name": card.title, "results": list(_results(card))}]
    return yaml.safe_dump(head, sort_keys=False, allow_unicode=True, width=1000)


def _results(card: Card) -> Sequence[dict[str, Any]]:
    """One a split, as `huggingface_hub.model_index_to_eval_results` reads them."""
    results = []
    for split in dict.fromkeys(score.split for score in card.scores):
        dataset = {"type": re.sub(r"[^\w.-]+", "-", card.data_name), "name": card.data_name, "split": split}
        metrics = [
            {"type": score.type, "value": round(score.value, 6), "name": score.name}
            for score in card.scores
            if score.split == split
        ]
        results.append(
            {
                "task": {"type": card.task},
                "dataset": dataset | ({"revision": card.data_digest} if card.data_digest else {}),
                "metrics": metrics,
            }
        )
    return results


def licence(text: str) -> str:
    """What the head of a card states; empty where it states nothing."""
    head, mark, _ = text.removeprefix("---\n").partition("\n---")
    if not text.startswith("---\n") or not mark:
        return ""
    try:
        said = parse_yaml(head, "the head of a card").tree.get("license")
    except ConfigError:
        return ""
    return said if isinstance(said, str) and said.isprintable() else ""


def gather(uri: str, data_uri: str = "") -> Seen:
    """What the artifact at a place says of a model, and what lies beside it.

    Args:
        uri: a checkpoint of a store, or any folder with a model.
        data_uri: the prepared data that it was trained with, where they lie elsewhere than its manifest says.
    """
    store = open_store(uri)
    manifest = _manifest(store)
    text = store.read(layout.CONFIG)
    config: dict[str, Any] = {}
    if text is not None:
        try:
            config = leaves(parse_yaml(text.decode("utf-8", "replace"), layout.CONFIG).tree)
        except ConfigError:
            config = {}
    lineage = manifest.lineage if manifest else {}
    data_uri = data_uri or _resolved(lineage.get("data_uri"), uri)
    data = open_store(data_uri) if data_uri else None
    prepared = _manifest(data) if data else None
    place, name = split_uri(uri)
    of_stage = _manifest(open_store(place)) if manifest else None
    whole = of_stage is not None and of_stage.kind == "stage" and of_stage.info.get("best") == name
    info = manifest.info if manifest else {}
    same = prepared is None or prepared.digest == lineage.get("data_digest")
    return Seen(
        name="/".join(str(info[key]) for key in ("run_id", "stage") if info.get(key)),
        metrics=manifest.metrics if manifest else {},
        data=prepared.info if prepared and same else {},
        config=config,
        findings=read_findings(open_store(place), "", of_stage) if whole and of_stage else {},
        digest=manifest.digest if manifest else "",
        parent_digest=lineage.get("parent_digest") or "",
        data_digest=lineage.get("data_digest") or "",
        info={**(of_stage.info if whole and of_stage else {}), **info},
        files=store.read,
        data_files=data.read if data and same else _nothing,
    )


def _nothing(name: str) -> None:
    return None


def _resolved(reference: str | None, place: str) -> str:
    try:
        return references.resolve(reference, place)
    except CurricleError:
        return ""


def _manifest(store: Store) -> Manifest | None:
    try:
        return read_manifest(store, "")
    except CurricleError:
        return None


def settings_of(config: Mapping[str, Any], names: Sequence[str], by_rule: Mapping[str, str] = {}) -> dict[str, str]:
    """Settings that a card names, of those that a configuration has.

    Args:
        by_rule: of which null is a rule, and which; null of another is left out.
    """
    said = {}
    for name in names:
        value = config.get(name)
        if value is not None:
            said[name] = ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
        elif name in config and name in by_rule:
            said[name] = by_rule[name]
    return {name: value for name, value in said.items() if value}
