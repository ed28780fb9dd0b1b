"""The card of a model of the store: what its family makes of all that the store knows of it."""

from __future__ import annotations

import logging

from curricle.cards.card import Card, gather, text_of
from curricle.masking import masked
from curricle.steps.findings import entry_named
from curricle.steps.source import resolve_source

_log = logging.getLogger(__name__)


def card_of(uri: str) -> Card | None:
    """The card of a complete stage's best checkpoint, or of a checkpoint; None where its family has none, or what it is made of is damaged (which is said).

    Raises:
        CheckpointError: nothing complete is there.
    """
    seen = gather(resolve_source(uri, "", asked="model").uri)
    entry = entry_named(seen.info)
    if entry is None or not entry.card:
        return None
    try:
        made = entry.load("card")(seen)
        assert isinstance(made, Card)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        _log.warning("%s has no card: what it is made of is damaged (%s: %s)", masked(uri), type(error).__name__, error)
        return None
    return made


def card_text(uri: str) -> str:
    """The same as Markdown; empty for none.

    Raises:
        CheckpointError: nothing complete is there.
    """
    made = card_of(uri)
    return masked(text_of(made)) if made else ""
