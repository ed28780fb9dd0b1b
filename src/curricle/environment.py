"""Every environment variable that Curricle reads or sets, in one place: its name, what it means, and who sets it.

Values are read when they are asked for, never at import, so that a test or a caller that sets one sees it. An empty variable counts
as not set. The options of the command line that have a variable of their own name it where they stand (`cli/`). Libraries read
variables of their own (proxies, certificates, MLflow's credentials); those are theirs. `docs/environment.md` is the table for users.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

CHECKPOINT_PATH = "CHECKPOINT_PATH"
"""Checkpoint that a continued training starts from; goes before the configuration. A user sets it."""
MLFLOW_TRACKING_URI = "MLFLOW_TRACKING_URI"
"""MLflow's server; goes before `tracking.mlflow_uri`. A user or the cluster's settings set it."""
CONFIG = "CURRICLE_CONFIG"
"""The base configuration file of a component; the control image says where its own is."""

CLUSTER = "CURRICLE_CLUSTER"
"""Path of the file with the cluster's settings. A person with a kubeconfig sets it."""
CLUSTER_YAML = "CURRICLE_CLUSTER_YAML"
"""The cluster's settings themselves, as a component pod gets them from the config map; goes before the file."""
TRAINER_IMAGE = "CURRICLE_TRAINER_IMAGE"
"""The worker image; goes before the one in the cluster's settings. The compiled pipelines set it."""
KFP_POD_NAME = "KFP_POD_NAME"
"""Name of the component's own pod, which then owns the jobs it makes. Kubeflow sets it."""
KFP_POD_UID = "KFP_POD_UID"
"""Kubernetes' id of that pod. Kubeflow sets it."""

S3_ENDPOINT = "S3_ENDPOINT"
"""``http://host:port`` or ``https://host`` of a bucket's server; without a scheme, http. A user or the cluster's settings set it."""
AWS_ENDPOINT_URL_S3 = "AWS_ENDPOINT_URL_S3"
"""The same by Amazon's name, where `S3_ENDPOINT` is not set."""
AWS_ENDPOINT_URL = "AWS_ENDPOINT_URL"
"""The same by Amazon's general name, where neither is set."""
AWS_ACCESS_KEY_ID = "AWS_ACCESS_KEY_ID"
"""A bucket's credentials. A user sets them, or a secret in a pod."""
AWS_SECRET_ACCESS_KEY = "AWS_SECRET_ACCESS_KEY"
"""Their secret half."""
AWS_SESSION_TOKEN = "AWS_SESSION_TOKEN"
"""Belongs to temporary credentials."""
AWS_REGION = "AWS_REGION"
"""The bucket's region; without it the server is asked."""
SSL_CERT_FILE = "SSL_CERT_FILE"
"""The authorities to trust, for a server with a certificate of its own."""
STORE_PATIENCE = "CURRICLE_STORE_PATIENCE"
"""Seconds to wait for a bucket's server that is away. A user or the cluster's settings set it."""

RANK = "RANK"
"""This process's number among all ranks of the job. torchrun or the node agent sets this and the next five."""
LOCAL_RANK = "LOCAL_RANK"
"""Its number on its node, which is that of its GPU."""
WORLD_SIZE = "WORLD_SIZE"
"""How many ranks the job has."""
LOCAL_WORLD_SIZE = "LOCAL_WORLD_SIZE"
"""How many of them run on this node. Set for libraries; not read."""
MASTER_ADDR = "MASTER_ADDR"
"""Host where the ranks meet."""
MASTER_PORT = "MASTER_PORT"
"""Its port."""
TORCHELASTIC_RUN_ID = "TORCHELASTIC_RUN_ID"
"""Name of the attempt that a rank belongs to; only a rank under a node agent has one. The agent sets it."""
AGENT = "CURRICLE_AGENT"
"""Process number of the node agent: a rank ends with its agent. The agent sets it."""
TORCHELASTIC_ERROR_FILE = "TORCHELASTIC_ERROR_FILE"
"""File in which a process says what it died of: a rank to its agent, an agent to TorchX. The one that reads it sets it."""
TORCH_ELASTIC_SHUTDOWN_TIMEOUT = "TORCH_ELASTIC_SHUTDOWN_TIMEOUT"
"""Seconds that the ranks get to save when they are stopped. The launcher sets it."""

OMP_NUM_THREADS = "OMP_NUM_THREADS"
"""Threads of one process's mathematics. Workers take 1 where nobody sets it; a pod gets its share of the CPUs."""
ONEDNN_PRIMITIVE_CACHE_CAPACITY = "ONEDNN_PRIMITIVE_CACHE_CAPACITY"
"""Compiled kernels that torch keeps on a CPU. Workers set a default."""
MLFLOW_DISABLE_TELEMETRY = "MLFLOW_DISABLE_TELEMETRY"
"""Keeps MLflow from calling home. Workers set a default."""
TORCH_DISABLE_SHARE_RDZV_TCP_STORE = "TORCH_DISABLE_SHARE_RDZV_TCP_STORE"
"""Gives the ranks a rendezvous store of their own. The agent always sets it."""
PYTHONSAFEPATH = "PYTHONSAFEPATH"
"""Keeps the working folder out of Python's path. The local launcher sets it where a folder there would hide this package."""
PYTHONPATH = "PYTHONPATH"
"""Where Python looks for modules. A local run of a pipeline puts our own folder first, for the tasks that it starts."""


_SECRET = re.compile(
    r"(SECRET|PASSWORD|PASSWD|TOKEN|CREDENTIALS?|API_?KEY|PRIVATE_?KEY|ACCESS_?KEY)(_ID)?$", re.IGNORECASE
)


class RankNumbers(NamedTuple):
    """A process's place in its job."""

    rank: int
    world_size: int
    local_rank: int


def everything() -> Mapping[str, str]:
    """The whole environment, for whoever hands it on or looks up several variables in it."""
    return os.environ


def is_secret(name: str) -> bool:
    """Whether a variable of this name holds a secret: its name says so, and it is no path to one. The id of an access key counts."""
    return bool(_SECRET.search(name)) and not name.endswith(("_FILE", "_PATH", "_DIR"))


def set_default(name: str, value: str) -> None:
    """Set a variable for libraries and child processes, unless it is set."""
    os.environ.setdefault(name, value)


def checkpoint_path() -> str:
    """The checkpoint that the environment asks for; empty for none."""
    return _read(CHECKPOINT_PATH).strip()


def mlflow_uri() -> str:
    """MLflow's server as the environment names it; empty for none."""
    return _read(MLFLOW_TRACKING_URI)


def config_file() -> str:
    """The base configuration file of a component."""
    return _read(CONFIG) or "config/config.yaml"


def store_patience() -> str:
    """Seconds to wait for a store's server that is away, as somebody wrote them; `store.patience` judges them. Empty where nobody did."""
    return _read(STORE_PATIENCE).strip()


def rank_numbers() -> RankNumbers:
    """This process's place in its job; that of an only rank where nobody started it as one of several."""
    return RankNumbers(int(_read(RANK) or 0), int(_read(WORLD_SIZE) or 1), int(_read(LOCAL_RANK) or 0))


def meeting_place() -> str:
    """``host:port`` where the ranks meet, for messages."""
    return f"{_read(MASTER_ADDR) or '?'}:{_read(MASTER_PORT) or '?'}"


def attempt() -> str:
    """Name of the attempt that this rank belongs to; empty where no node agent started it."""
    return _read(TORCHELASTIC_RUN_ID)


def agent() -> int | None:
    """The process number of the node agent that started this rank; None where none did."""
    return int(_read(AGENT) or 0) or None


def name_agent() -> None:
    """Tell the ranks which process their node agent is: this one."""
    os.environ[AGENT] = str(os.getpid())


def error_file() -> Path | None:
    """The file to say in what this process died of; None where nobody would read it."""
    path = _read(TORCHELASTIC_ERROR_FILE)
    return Path(path) if path else None


def shutdown_seconds(default: int) -> int:
    """Seconds that ranks get to save when they are stopped."""
    return int(_read(TORCH_ELASTIC_SHUTDOWN_TIMEOUT) or default)


def of_only_rank(attempt: str, error_file: Path) -> dict[str, str]:
    """The whole environment of a job's only rank, which its node agent starts without torchrun."""
    ranks = {RANK: "0", LOCAL_RANK: "0", WORLD_SIZE: "1", LOCAL_WORLD_SIZE: "1"}
    return {**os.environ, **ranks, TORCHELASTIC_RUN_ID: attempt, TORCHELASTIC_ERROR_FILE: str(error_file)}


def give_ranks_their_own_store() -> None:
    """Make torchrun's agent keep its rendezvous store to itself; to be called before torch is imported."""
    os.environ[TORCH_DISABLE_SHARE_RDZV_TCP_STORE] = "1"


def put_first_on_python_path(folder: Path) -> None:
    """Let Python processes that this one starts look for modules in `folder` first."""
    others = [other for other in _read(PYTHONPATH).split(os.pathsep) if other]
    os.environ[PYTHONPATH] = os.pathsep.join(dict.fromkeys([str(folder), *others]))


def _read(name: str) -> str:
    return os.environ.get(name, "")
