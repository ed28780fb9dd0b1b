"""Where a training job runs. It knows an argv and resources, never what is trained."""

from __future__ import annotations

from typing import TYPE_CHECKING

from curricle.errors import ConfigError

if TYPE_CHECKING:
    from curricle.launch.job import Launcher


def open_launcher(name: str) -> Launcher:
    """The launcher of that name: `local` or `pytorchjob`.

    Raises:
        ConfigError: there is none of that name.
    """
    if name == "local":
        from curricle.launch.local import LocalLauncher

        return LocalLauncher()
    if name == "pytorchjob":
        from curricle.launch.pytorchjob import open_from_cluster

        return open_from_cluster()
    raise ConfigError(f"launcher {name!r} is not one of local, pytorchjob")
