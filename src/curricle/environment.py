"""Every environment variable that Curricle reads, in one place: its name, what it means, and who may set it.

Values are read when they are asked for, never at import, so that a test or a caller that sets one sees it. Libraries read variables of
their own (proxies, certificates, MLflow's credentials); those are theirs.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

CHECKPOINT_PATH = "CHECKPOINT_PATH"
"""Checkpoint that a continued training starts from; goes before the configuration."""
MLFLOW_TRACKING_URI = "MLFLOW_TRACKING_URI"
"""MLflow's server; goes before `tracking.mlflow_uri`."""
CONFIG = "CURRICLE_CONFIG"
"""The base configuration file of a component; the control image says where its own is."""


def read(name: str, default: str = "") -> str:
    """A variable's value; `default` where it is not set."""
    return os.environ.get(name, default)


def everything() -> Mapping[str, str]:
    """The whole environment, for whoever hands it on."""
    return os.environ


def checkpoint_path() -> str:
    """The checkpoint that the environment asks for; empty for none."""
    return read(CHECKPOINT_PATH).strip()


def mlflow_uri() -> str:
    """MLflow's server as the environment names it; empty for none."""
    return read(MLFLOW_TRACKING_URI)


def config_file() -> str:
    """The base configuration file of a component."""
    return read(CONFIG, "config/config.yaml")
