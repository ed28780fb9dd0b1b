"""Every environment variable that Curricle reads or sets, in one place: its name, what it means, and who sets it.

Values are read when they are asked for, never at import, so that a test or a caller that sets one sees it. An empty variable counts
as not set. The options of the command line that have a variable of their own name it where they stand (`cli/`). Libraries read
variables of their own (proxies, certificates, MLflow's credentials); those are theirs. `docs/environment.md` is the table for users.
"""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

CHECKPOINT_PATH = "CHECKPOINT_PATH"
"""Checkpoint that a continued training starts from; goes before the configuration. A user sets it."""
MLFLOW_TRACKING_URI = "MLFLOW_TRACKING_URI"
"""MLflow's server; goes before `tracking.mlflow_uri`. A user or the cluster's settings set it."""
REGISTRY_TOKEN = "CURRICLE_REGISTRY_TOKEN"
"""Bearer token for Kubeflow's Model Registry. A user sets it, or a secret in a pod."""
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
"""The bucket's region; without it the server tells."""
AWS_DEFAULT_REGION = "AWS_DEFAULT_REGION"
"""The same, where `AWS_REGION` is not set."""
AWS_ROLE_ARN = "AWS_ROLE_ARN"
"""The role that a pod's token is changed for. A cluster sets this and the next where an account has a role (IRSA)."""
AWS_WEB_IDENTITY_TOKEN_FILE = "AWS_WEB_IDENTITY_TOKEN_FILE"
"""The file with that token."""
AWS_ROLE_SESSION_NAME = "AWS_ROLE_SESSION_NAME"
"""What the server's log calls the session."""
AWS_ENDPOINT_URL_STS = "AWS_ENDPOINT_URL_STS"
"""Where the token is changed; unset, Amazon's service of the region, or a bucket's own server where that is not Amazon's."""
AWS_PROFILE = "AWS_PROFILE"
"""Section of Amazon's files of credentials; ``default`` where it is not set."""
AWS_SHARED_CREDENTIALS_FILE = "AWS_SHARED_CREDENTIALS_FILE"
"""The file of credentials; ``~/.aws/credentials`` where it is not set."""
AWS_CONFIG_FILE = "AWS_CONFIG_FILE"
"""The file of settings; ``~/.aws/config`` where it is not set."""
AWS_CONTAINER_CREDENTIALS_FULL_URI = "AWS_CONTAINER_CREDENTIALS_FULL_URI"
"""Where a container asks for credentials (EKS Pod Identity). A cluster sets it, or the next (ECS)."""
AWS_CONTAINER_CREDENTIALS_RELATIVE_URI = "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"
"""The same below ECS' own address."""
AWS_EC2_METADATA_DISABLED = "AWS_EC2_METADATA_DISABLED"
"""``true``: this machine's instance profile is not asked for."""
AWS_EC2_METADATA_SERVICE_ENDPOINT = "AWS_EC2_METADATA_SERVICE_ENDPOINT"
"""Where an instance profile is asked for; unset, http://169.254.169.254."""
SSL_CERT_FILE = "SSL_CERT_FILE"
"""The authorities to trust, for a server with a certificate of its own."""
AWS_CA_BUNDLE = "AWS_CA_BUNDLE"
"""The same by Amazon's name, for a bucket, where `SSL_CERT_FILE` is not set."""
CA_CERTIFICATES = "CURRICLE_CA_CERTIFICATES"
"""Certificates (PEM) of authorities that are trusted beside the usual ones. Pods get it from the config map `curricle-ca`."""
HF_ENDPOINT = "HF_ENDPOINT"
"""Where ``hf://`` leads to; unset, https://huggingface.co."""
HF_TOKEN = "HF_TOKEN"
"""Token for it."""
HTTPS_PROXY = "HTTPS_PROXY"
"""The proxy that leads out, for ``https://`` servers. Small letters count too."""
HTTP_PROXY = "HTTP_PROXY"
"""The same for ``http://`` servers."""
NO_PROXY = "NO_PROXY"
"""Hosts that are asked without it: names, domains, addresses, networks (10.0.0.0/8), separated by commas."""
STORE_PATIENCE = "CURRICLE_STORE_PATIENCE"
"""Seconds to wait for a bucket's server that is away. A user or the cluster's settings set it."""
XDG_CACHE_HOME = "XDG_CACHE_HOME"
"""The folder of caches; ``~/.cache`` where it is not set. Jobs on a cluster set it."""

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
"""Threads of one process's mathematics. Workers take 1 where nobody sets it, `curricle serve` all CPUs but one; a pod gets its share of the CPUs."""
ONEDNN_PRIMITIVE_CACHE_CAPACITY = "ONEDNN_PRIMITIVE_CACHE_CAPACITY"
"""Compiled kernels that torch keeps on a CPU. Workers set a default."""
MLFLOW_DISABLE_TELEMETRY = "MLFLOW_DISABLE_TELEMETRY"
"""Keeps MLflow from calling home. Workers set a default."""
KUBEFLOW_TRAINER_SERVER_URL = "KUBEFLOW_TRAINER_SERVER_URL"
"""Where a TrainJob's progress is taken for the object's status. Kubeflow Trainer sets this and the next two, where it takes it."""
KUBEFLOW_TRAINER_SERVER_CA_CERT = "KUBEFLOW_TRAINER_SERVER_CA_CERT"
"""Path of that server's authority."""
KUBEFLOW_TRAINER_SERVER_TOKEN = "KUBEFLOW_TRAINER_SERVER_TOKEN"
"""Path of the token for it."""
TORCH_DISABLE_SHARE_RDZV_TCP_STORE = "TORCH_DISABLE_SHARE_RDZV_TCP_STORE"
"""Gives the ranks a rendezvous store of their own. The agent always sets it."""
PYTHONSAFEPATH = "PYTHONSAFEPATH"
"""Keeps the working folder out of Python's path, whose files are the user's: a `logging.py` or a clone `curricle/` there would be imported for
ours. The command sets it for every process that it starts, and the local launcher for its jobs."""
PYTHONPATH = "PYTHONPATH"
"""Where Python looks for modules. A local run of a pipeline puts our own folder first, for the tasks that it starts."""


_SECRET = re.compile(
    r"(SECRET|PASSWORD|PASSWD|TOKEN|CREDENTIALS?|COOKIES?|API_?KEY|PRIVATE_?KEY|ACCESS_?KEY|_PAT)(_ID)?$", re.IGNORECASE
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


def drop(name: str) -> None:
    """Take a variable from this process, whoever set it."""
    os.environ.pop(name, None)


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


def is_set(name: str) -> bool:
    """Whether a variable holds something."""
    return bool(_read(name))


def value_of(name: str) -> str:
    """What a variable holds; empty where it is not set."""
    return _read(name)


def proxy_for(url: str) -> str:
    """The proxy that the environment names for a server, ``http://host:port``; empty for none. `NO_PROXY` may hold networks as well."""
    import urllib.request

    parts = urlsplit(url)
    proxies = urllib.request.getproxies_environment()
    proxy, host = proxies.get(parts.scheme) or proxies.get("all") or "", parts.hostname or ""
    if not proxy or urllib.request.proxy_bypass(parts.netloc.rpartition("@")[2], proxies):
        return ""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return proxy if "://" in proxy else f"http://{proxy}"
    for entry in proxies.get("no", "").split(","):
        with suppress(ValueError):
            if address in ipaddress.ip_network(entry.strip(), strict=False):
                return ""
    return proxy if "://" in proxy else f"http://{proxy}"


def proxy_variable(url: str) -> str:
    """The variable that names the proxy for a server, as somebody wrote it; small letters go first. Empty for none."""
    own = f"{urlsplit(url).scheme}_proxy"
    return next((name for name in (own, own.upper(), "all_proxy", "ALL_PROXY") if is_set(name)), "")


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


def status_server() -> tuple[str, str, str] | None:
    """Address, path of the token and path of the authority of the server that takes a TrainJob's progress; None where there is none."""
    names = (KUBEFLOW_TRAINER_SERVER_URL, KUBEFLOW_TRAINER_SERVER_TOKEN, KUBEFLOW_TRAINER_SERVER_CA_CERT)
    url, token, authority = map(_read, names)
    return (url, token, authority) if url and token and authority else None


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
