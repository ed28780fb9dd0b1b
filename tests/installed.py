"""What another distribution offers by an entry point, as if it were installed: in this process and in those that it starts."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[1]


@contextmanager
def installed(place: Path, group: str, name: str, value: str) -> Iterator[None]:
    """A distribution in the folder `place` whose one entry point is ``name = value`` in `group`."""
    info = place / f"{name}_example-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}-example\nVersion: 1\n")
    (info / "entry_points.txt").write_text(f"[{group}]\n{name} = {value}\n")
    before = os.environ.get("PYTHONPATH", "")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(place), str(ROOT), before]))
    sys.path.insert(0, str(place))
    try:
        yield
    finally:
        sys.path.remove(str(place))
        os.environ["PYTHONPATH"] = before
