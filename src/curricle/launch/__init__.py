"""Where a training job runs. It knows an argv and resources, never what is trained."""

from __future__ import annotations

import difflib
import importlib
from importlib.metadata import entry_points
from typing import TYPE_CHECKING

from curricle.errors import ConfigError

if TYPE_CHECKING:
    from curricle.launch.job import Launcher


LAUNCHERS = {
    "local": "curricle.launch.local:open_launcher",
    "pytorchjob": "curricle.launch.kubernetes.pytorchjob:open_launcher",
    "trainjob": "curricle.launch.kubernetes.trainjob:open_launcher",
    "auto": "curricle.launch.kubernetes.auto:open_launcher",
}
"""Launchers that ship, by name: the function that opens one, as `module:function`. It takes the task configuration of `open_launcher`, or None."""
GROUP = "curricle.launchers"
"""Entry-point group under which other distributions offer launchers, in the same form."""


def launchers() -> dict[str, str]:
    """All launchers there are: those of other distributions, then those that ship, whose names nobody takes."""
    return {point.name: point.value for point in entry_points(group=GROUP)} | LAUNCHERS


def check_launcher(name: str) -> None:
    """Raise `ConfigError`, with the nearest name there is, unless there is a launcher of that name."""
    known = launchers()
    if name in known:
        return
    nearest = difflib.get_close_matches(name, known, 1, 0.5)
    advice = f"did you mean {nearest[0]!r}?" if nearest else f"there are {', '.join(known)}"
    raise ConfigError(f"there is no launcher {name!r}; {advice}")


def open_launcher(name: str, task_config: str | None = "") -> Launcher:
    """The launcher of that name. Nothing is connected to before a verb needs it.

    Args:
        name: one of `launchers`.
        task_config: JSON of what was set on the KFP task (resources, tolerations, ...); this machine has no use for it. None: no job will be
            started, only followed or deleted, which needs no worker image.

    Raises:
        ConfigError: there is none of that name, or its settings are missing or wrong.
    """
    check_launcher(name)
    module, _, function = launchers()[name].partition(":")
    return getattr(importlib.import_module(module), function)(task_config)
