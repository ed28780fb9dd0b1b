"""Where `ClusterOptions` come from: a settings file of the cluster, then what a person set on the KFP task.

The cluster's settings are a mapping with the fields of `ClusterOptions` (`elastic` nested, `env_from_secrets` as variable → [secret, key]);
manifests/ mount one as a file.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from dataclasses import asdict, fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from curricle.errors import ConfigError
from curricle.launch.pytorchjob.render import ClusterOptions, Elastic, Owner

SETTINGS = "CURRICLE_CLUSTER"
"""Environment variable: path of the settings file."""
INLINE = "CURRICLE_CLUSTER_YAML"
"""Environment variable: the settings themselves, as a component pod gets them from the config map; goes before the file."""
IMAGE = "CURRICLE_TRAINER_IMAGE"
"""Environment variable: the worker image; goes before the file's."""
POD_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")


def from_environment(
    environment: Mapping[str, str], task_config: Any = None, *, namespace_file: Path = POD_NAMESPACE
) -> ClusterOptions:
    """The options of a launcher that runs in a pod: settings file, image, namespace and owner, then the task's.

    Raises:
        ConfigError: no image is named, or the file is missing or wrong.
    """
    raw = _raw(environment)
    path = environment.get(SETTINGS)
    if image := environment.get(IMAGE):
        raw["image"] = image
    if "image" not in raw:
        raise ConfigError(
            f"no worker image: set {IMAGE}, or `image` in the settings file that {SETTINGS} names ({path or 'not set'})"
        )
    if "namespace" not in raw and namespace_file.is_file():
        raw["namespace"] = namespace_file.read_text().strip()
    options = from_mapping(raw)
    if environment.get("KFP_POD_NAME") and environment.get("KFP_POD_UID"):
        options = replace(options, owner=Owner(name=environment["KFP_POD_NAME"], uid=environment["KFP_POD_UID"]))
    return options if task_config is None else apply_task_config(options, task_config)


def _raw(environment: Mapping[str, str]) -> dict[str, Any]:
    if text := environment.get(INLINE):
        where = INLINE
    elif where := environment.get(SETTINGS, ""):
        try:
            text = Path(where).read_text()
        except OSError as error:
            raise ConfigError(f"{SETTINGS} names {where}, which cannot be read: {error.strerror}") from error
    else:
        return {}
    try:
        raw = yaml.safe_load(text) or {}
    except yaml.YAMLError as error:
        raise ConfigError(f"{where}: no YAML: {error}") from error
    if not isinstance(raw, dict):
        raise ConfigError(f"{where}: the cluster's settings must be a mapping, not {type(raw).__name__}")
    return raw


def plain_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """The plain variables (`env`) that the settings give workers, for a process beside them that needs the same store."""
    return {str(k): str(v) for k, v in (_raw(environment).get("env") or {}).items()}


def from_mapping(raw: Mapping[str, Any]) -> ClusterOptions:
    """Options from plain data (YAML, JSON).

    Raises:
        ConfigError: unknown fields (with the nearest known one), or values of another type.
    """
    if not isinstance(raw, Mapping):
        raise ConfigError(f"the cluster's settings must be a mapping, not {type(raw).__name__}")
    known = {f.name: f for f in fields(ClusterOptions) if f.name != "owner"}
    problems = []
    for key in raw:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, 1)
            problems.append(
                f"cluster settings: unknown field {key!r}" + (f", did you mean {near[0]!r}?" if near else "")
            )
    values: dict[str, Any] = {}
    for key, value in raw.items():
        kind = str(known[key].type) if key in known else ""
        if key == "elastic" and isinstance(value, Mapping):
            value = Elastic(**value)
        elif key == "env_from_secrets" and isinstance(value, Mapping):
            value = {k: tuple(v) for k, v in value.items()}
        elif kind == "str" and isinstance(value, int | float) and not isinstance(value, bool):
            value = str(value)
        elif kind.startswith("Mapping[str, str]") and isinstance(value, Mapping):
            value = {k: str(v) for k, v in value.items()}
        expected = {"str": str, "int": int, "bool": bool}.get(kind)
        mapping, sequence = kind.startswith("Mapping"), kind.startswith("Sequence")
        if (
            (expected and not isinstance(value, expected))
            or (mapping and not isinstance(value, Mapping))
            or (sequence and not isinstance(value, list | tuple))
        ):
            problems.append(f"cluster settings: {key} must be {kind}, not {value!r}")
        values[key] = tuple(value) if sequence and isinstance(value, list) else value
    if problems:
        raise ConfigError(problems)
    return ClusterOptions(**values)


def from_task_config(raw: str | Mapping[str, Any] | object) -> dict[str, Any]:
    """What a person set on the KFP task, as `ClusterOptions` fields: the content of `dsl.TaskConfig`, as object, mapping or JSON.

    Raises:
        ConfigError: it is no TaskConfig, or an entry has no place in a PyTorchJob.
    """
    if isinstance(raw, str):
        try:
            raw = json.loads(raw or "{}")
        except json.JSONDecodeError as error:
            raise ConfigError(f"the task configuration is no JSON: {error}") from error
    if is_dataclass(raw) and not isinstance(raw, type):
        raw = asdict(raw)
    elif not isinstance(raw, Mapping):
        raw = vars(raw)
    known = {"affinity", "tolerations", "node_selector", "env", "volumes", "volume_mounts", "resources"}
    if unknown := sorted(set(raw) - known):
        raise ConfigError(f"the task configuration holds {unknown}, known are {sorted(known)}")
    out: dict[str, Any] = {k: raw[k] for k in ("affinity", "node_selector") if raw.get(k)}
    out |= {k: tuple(raw[k]) for k in ("tolerations", "volumes", "volume_mounts") if raw.get(k)}
    plain, secrets, entries = {}, {}, []
    for entry in raw.get("env") or ():
        reference = (entry.get("valueFrom") or {}).get("secretKeyRef")
        if reference and not reference.get("optional"):
            secrets[entry["name"]] = (reference["name"], reference["key"])
        elif entry.get("valueFrom"):
            entries.append(entry)
        else:
            plain[entry["name"]] = entry.get("value", "")
    out |= {k: v for k, v in (("env", plain), ("env_from_secrets", secrets), ("env_entries", tuple(entries))) if v}
    return out | _from_resources(raw.get("resources") or {})


def _from_resources(resources: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    requests = {k: str(v) for k, v in (resources.get("requests") or {}).items()}
    limits = {k: str(v) for k, v in (resources.get("limits") or {}).items()}
    out: dict[str, Any] = {}
    for what in ("cpu", "memory"):
        request, limit = requests.pop(what, ""), limits.pop(what, "")
        if request or limit:
            out[what] = request or limit
            out[f"{what}_limit"] = limit if limit != (request or limit) else ""
    devices = requests | limits
    gpus = sorted(name for name in devices if "gpu" in name.lower())
    if len(gpus) > 1:
        raise ConfigError(f"the task asks for several kinds of GPU ({', '.join(gpus)}); a job has one")
    if gpus:
        count = devices.pop(gpus[0])
        if not count.isdigit():
            raise ConfigError(f"the task asks for {gpus[0]}: {count!r}; a job takes whole GPUs")
        out |= {"gpu_resource": gpus[0], "gpus": int(count)}
    return out | ({"extra_resources": devices} if devices else {})


def apply_task_config(options: ClusterOptions, raw: str | Mapping[str, Any] | object) -> ClusterOptions:
    """`options` with what the KFP task says: maps are merged (the task wins), lists are appended, single values replaced."""
    changes = from_task_config(raw)
    held = {INLINE, *options.env, *options.env_from_secrets}
    if "env_entries" in changes:  # the pipeline's own optional entries, which the settings give already
        changes["env_entries"] = tuple(e for e in changes["env_entries"] if e["name"] not in held)
    for key in ("env", "env_from_secrets", "node_selector", "extra_resources"):
        if key in changes:
            changes[key] = {**getattr(options, key), **changes[key]}
    for key in ("tolerations", "volumes", "volume_mounts", "env_entries"):
        if key in changes:
            changes[key] = (*getattr(options, key), *changes[key])
    return replace(options, **changes)
