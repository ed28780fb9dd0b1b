"""What the tables that a stage names are refused for, known when it is planned. Imports no torch."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from curricle.families.codes.config import CodesConfig, CodesData
from curricle.families.codes.prepare import read_tables
from curricle.families.codes.sources import local_tables

_File = tuple[Path, str]
LARGEST = 8 << 20
"""Bytes of tables that a plan reads at most, in a second or two; larger ones are read when they are prepared."""


def check_planned(config: CodesConfig, from_scratch: bool) -> None:
    """Read tables that lie on this machine as `prepare` would. Those of a store, those that continue other data and large ones wait for it.

    Raises:
        DataError, ConfigError: as `prepare`.
    """
    data = config.data
    if not data.classification or data.old or any("://" in place for place in (data.classification, *data.files)):
        return
    with local_tables(data) as (codes, labelled):
        assert codes is not None  # the configuration names one
        states = [path.stat() for path, _ in (codes, *labelled)]
        if sum(about.st_size for about in states) <= LARGEST:
            _read(data, codes, tuple(labelled), tuple((about.st_size, about.st_mtime_ns) for about in states))


@lru_cache(maxsize=1)
def _read(data: CodesData, codes: _File, labelled: tuple[_File, ...], states: object) -> None:
    """Once for the stages of a plan, which share their tables."""
    read_tables(data, codes, labelled)
