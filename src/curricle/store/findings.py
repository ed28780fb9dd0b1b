"""What was measured of a complete stage's model, as it lies at the stage's place (`findings.json`). Trusted only where it is of this very work."""

from __future__ import annotations

from typing import Any

from curricle.store import Store, layout
from curricle.store.manifest import Manifest

FORMAT = 1


def read_findings(store: Store, prefix: str, manifest: Manifest) -> dict[str, Any]:
    """What is known of the complete stage at a place; empty where nothing is, or it is of other work.

    Returns:
        What the family gave, with ``measured``: whether that holds its test metrics.
    """
    record = layout.read_record(store.read(f"{prefix}/{layout.FINDINGS}" if prefix else layout.FINDINGS))
    fits = (FORMAT, manifest.digest, manifest.info.get("best"))
    if (record.get("format"), record.get("digest"), record.get("checkpoint")) != fits:
        return {}
    content = record.get("content")
    return {**content, "measured": record.get("measured") is True} if isinstance(content, dict) else {}
