"""A `Job` as a Kubeflow PyTorchJob.

`render` and `reasons` are pure; `settings` says where options come from; `client` holds the launcher, `api` the cluster behind it, `logs`
the streams; `scheduler` is the same as a TorchX scheduler. Only `api` imports kubernetes, only `scheduler` torchx, both when used.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from curricle.launch.pytorchjob.client import PyTorchJobLauncher


def open_from_cluster(task_config: Any = None, *, environment: Mapping[str, str] | None = None) -> PyTorchJobLauncher:
    """The launcher of a pod (or of a person with a kubeconfig), with the settings that the environment names.

    Args:
        task_config: what a person set on the KFP task (`dsl.TaskConfig`, mapping or JSON); goes before the settings.
        environment: None means this process's own.

    Raises:
        ConfigError: the settings are missing or wrong.
        JobError: there is no cluster to talk to.
    """
    from curricle.launch.pytorchjob.client import launcher
    from curricle.launch.pytorchjob.settings import from_environment

    return launcher(from_environment(os.environ if environment is None else environment, task_config))
