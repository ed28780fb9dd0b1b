"""Where a training job runs. It knows an argv and resources, never what is trained."""

from __future__ import annotations

from typing import TYPE_CHECKING

from curricle.errors import ConfigError

if TYPE_CHECKING:
    from curricle.launch.job import Launcher


LAUNCHERS = ("local", "pytorchjob")


def check_launcher(name: str) -> None:
    """Raise `ConfigError` unless there is a launcher of that name."""
    if name not in LAUNCHERS:
        raise ConfigError(f"launcher {name!r} is not one of {', '.join(LAUNCHERS)}")


def open_launcher(name: str, task_config: str = "") -> Launcher:
    """The launcher of that name.

    Args:
        name: `local` or `pytorchjob`.
        task_config: JSON of what was set on the KFP task (resources, tolerations, ...); this machine has no use for it.

    Raises:
        ConfigError: there is none of that name.
    """
    check_launcher(name)
    if name == "local":
        from curricle.launch.local import LocalLauncher

        return LocalLauncher()
    from curricle.launch.pytorchjob import open_from_cluster

    return open_from_cluster(task_config)
