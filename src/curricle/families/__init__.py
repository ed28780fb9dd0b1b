"""The families, by name: module paths only, imported on choice. A third family is one folder and one line here."""

from __future__ import annotations

import difflib
import importlib
from dataclasses import dataclass
from typing import Any

from curricle.errors import ConfigError


@dataclass(frozen=True)
class FamilyEntry:
    """Where a family's parts stand, as ``module:name``."""

    config: str
    """Its configuration: a subclass of `StageConfig`. Pure; imports no torch."""
    prepare: str
    """``prepare(config, out_dir) -> dict``: write the prepared data into a folder; returns facts for the manifest."""
    fingerprint: str
    """``fingerprint(config) -> str``: digest of the data's sources without preparing them."""
    build: str
    """``build(context) -> TrainingTask``. Imports torch."""
    evaluate: str
    """``evaluate(checkpoint_dir, data_dir) -> dict[str, float]``: test metrics. Imports torch."""

    def load(self, part: str) -> Any:
        """Import one part."""
        module, _, name = getattr(self, part).partition(":")
        return getattr(importlib.import_module(module), name)


FAMILIES = {
    "naics": FamilyEntry(
        config="curricle.families.naics.config:NaicsConfig",
        prepare="curricle.families.naics.prepare:prepare",
        fingerprint="curricle.families.naics.sources:fingerprint",
        build="curricle.families.naics.task:build",
        evaluate="curricle.families.naics.evaluate:evaluate",
    ),
    "ner": FamilyEntry(
        config="curricle.families.ner.config:NerConfig",
        prepare="curricle.families.ner.prepare:prepare",
        fingerprint="curricle.families.ner.prepare:fingerprint",
        build="curricle.families.ner.task:build",
        evaluate="curricle.families.ner.evaluate:evaluate",
    ),
}


def family(name: str) -> FamilyEntry:
    """The family of that name.

    Raises:
        ConfigError: there is none; names the nearest.
    """
    if name not in FAMILIES:
        near = difflib.get_close_matches(name, FAMILIES, 1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ConfigError(f"family {name!r} is not one of {', '.join(FAMILIES)}{hint}")
    return FAMILIES[name]
