"""Configuration and data of the line family. Pure; imports no torch."""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from curricle.config.schema import StageConfig
from curricle.errors import MissingDataError


@dataclass(frozen=True, kw_only=True)
class LineData:
    """The points."""

    points: str
    """CSV of ``x,y``, without a header."""


@dataclass(frozen=True, kw_only=True)
class LineModel:
    """The line."""

    intercept: bool = True
    """Whether it may leave the origin."""


@dataclass(frozen=True, kw_only=True)
class LineConfig(StageConfig):
    """One stage's effective configuration."""

    data: LineData
    """Data."""
    model: LineModel = LineModel()
    """Model."""


def fingerprint(config: LineConfig) -> str:
    """SHA-256 of the file."""
    path = Path(config.data.points)
    if not path.is_file():
        raise MissingDataError(f"data.points: {path} is not there")
    return hashlib.sha256(path.read_bytes()).hexdigest()


def prepare(config: LineConfig, out_dir: Path) -> dict[str, Any]:
    """Copy the file."""
    shutil.copyfile(config.data.points, out_dir / "points.csv")
    return {"points": len((out_dir / "points.csv").read_text().split())}


def measured(facts: dict[str, Any]) -> set[str]:
    """What is measured of any points."""
    return {"test/loss", "test/fit"}
