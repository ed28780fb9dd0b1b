"""Where `ClusterOptions` come from: a settings file of the cluster, then what a person set on the KFP task.

The cluster's settings are a mapping with the fields of `ClusterSettings` (`elastic` nested, `env_from_secrets` as variable → [secret, key]);
manifests/ mount one as a file.
"""

from __future__ import annotations

import re
import typing
from collections.abc import Mapping
from dataclasses import asdict, is_dataclass, replace
from pathlib import Path
from typing import Any

from curricle.config.load import Layer, build, compose, parse_yaml, read_yaml
from curricle.environment import (
    AWS_ACCESS_KEY_ID,
    AWS_SECRET_ACCESS_KEY,
    CLUSTER,
    CLUSTER_YAML,
    KFP_POD_NAME,
    KFP_POD_UID,
    TRAINER_IMAGE,
)
from curricle.errors import ConfigError
from curricle.launch.kubernetes.devices import accelerators, kind_of
from curricle.launch.kubernetes.names import plain_secrets, problems_of
from curricle.launch.kubernetes.options import ClusterOptions, ClusterSettings, Owner
from curricle.store.strict import read_json

_SECRET = "is a secret in plain text, which every job would show; name a secret of the cluster: env_from_secrets: {{{}: [secret, key]}}"
STORE_KEYS = (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY)
POD_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")


def from_environment(
    environment: Mapping[str, str],
    task_config: Any = None,
    *,
    starts: bool = True,
    namespace_file: Path = POD_NAMESPACE,
) -> ClusterOptions:
    """The options of a launcher that runs in a pod: settings file, image, namespace and owner, then the task's.

    Args:
        starts: False where no job will be started, which needs no image.

    Raises:
        ConfigError: no image is named, or the settings are missing or wrong; names every problem with its line.
    """
    layers = [*([] if starts else [Layer({"image": "none"})]), _given(environment)]
    if namespace_file.is_file():
        layers.insert(0, Layer({"namespace": namespace_file.read_text().strip()}, {"namespace": str(namespace_file)}))
    if image := environment.get(TRAINER_IMAGE):
        layers.append(Layer({"image": image}, {"image": TRAINER_IMAGE}))
    layer = compose(layers)
    if "image" not in layer.tree:
        path = environment.get(CLUSTER) or "not set"
        raise ConfigError(
            f"no worker image: set {TRAINER_IMAGE}, or `image` in the settings file that {CLUSTER} names ({path})"
        )
    options = _options(layer)
    name, uid = environment.get(KFP_POD_NAME), environment.get(KFP_POD_UID)
    if name and uid:
        options = replace(options, owner=Owner(name=name, uid=uid))
    return options if task_config is None else apply_task_config(options, task_config)


def plain_environment(environment: Mapping[str, str]) -> dict[str, str | None]:
    """The plain variables (`env`) that the settings give workers, for a process beside them that needs the same store; None for one that it is to do without.

    Raises:
        ConfigError: the settings are missing or wrong.
    """
    options = _options(compose([Layer({"image": "none"}), _given(environment)]))
    without = dict.fromkeys(STORE_KEYS) if options.store_by_role else {}
    return {**options.env, **without}


def from_tree(tree: dict[str, Any]) -> ClusterOptions:
    """Options from plain data.

    Raises:
        ConfigError: unknown fields (with the nearest known one), or values of another type: all of them.
    """
    return _options(Layer(tree))


def _given(environment: Mapping[str, str]) -> Layer:
    """The cluster's settings as somebody wrote them; nothing where the environment names none."""
    if text := environment.get(CLUSTER_YAML):
        return parse_yaml(text, CLUSTER_YAML)
    path = environment.get(CLUSTER)
    if not path:
        return Layer({})
    return read_yaml(Path(path), what=f"file of cluster settings ({CLUSTER})")


def _options(layer: Layer) -> ClusterOptions:
    settings = build(ClusterSettings, Layer(_numbers_as_text(layer.tree), layer.origins)).config
    problems = [(f"env.{name}", _SECRET.format(name)) for name in plain_secrets(settings.env)]
    for entry in settings.env_entries:
        if "value" in entry and plain_secrets([str(entry.get("name"))]):
            problems.append((f"env_entries.{entry['name']}", _SECRET.format(entry["name"])))
    problems += problems_of(settings)
    if problems:
        raise ConfigError([_with_place(layer, name, text) for name, text in problems])
    return ClusterOptions(**vars(settings))


def _with_place(layer: Layer, name: str, text: str) -> str:
    """A problem with the line of the setting, or of the section that it stands in."""
    section = re.split(r"[.\[]", name)[0]
    place = layer.origins.get(name) or layer.origins.get(section) or ""
    return ": ".join(part for part in (place, name, text) if part)


def _numbers_as_text(tree: dict[str, Any]) -> dict[str, Any]:
    """The tree with numbers written as text where text is meant: Kubernetes' quantities and variables are, but YAML reads `cpu: 4` as a number."""
    hints = typing.get_type_hints(ClusterSettings)
    changed = dict(tree)
    for key, value in tree.items():
        if hints.get(key) is str:
            changed[key] = _number_as_text(value)
        elif hints.get(key) == dict[str, str] and isinstance(value, dict):
            changed[key] = {name: _number_as_text(entry) for name, entry in value.items()}
    return changed


def _number_as_text(value: Any) -> Any:
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


def from_task_config(raw: str | Mapping[str, Any] | object) -> dict[str, Any]:
    """What a person set on the KFP task, as fields of `ClusterOptions`: the content of `dsl.TaskConfig`, as object, mapping or JSON.

    Raises:
        ConfigError: it is no TaskConfig, or an entry has no place in a job.
    """
    if isinstance(raw, str):
        try:
            raw = read_json(raw or "{}")
        except (ValueError, RecursionError) as error:
            raise ConfigError(f"the task configuration is no JSON: {error}") from error
    try:
        return _fields_of(raw)
    except (TypeError, AttributeError, KeyError) as error:
        raise ConfigError(f"the task configuration is none that Kubeflow writes: {error}") from error


def _fields_of(raw: Any) -> dict[str, Any]:
    if is_dataclass(raw) and not isinstance(raw, type):
        raw = asdict(raw)
    elif not isinstance(raw, Mapping):
        raw = getattr(raw, "__dict__", None)
        if raw is None:
            raise ConfigError("the task configuration must be an object")
    maps, lists = ("affinity", "node_selector", "resources"), ("tolerations", "env", "volumes", "volume_mounts")
    known = {*maps, *lists}
    for names, kind, said in ((maps, Mapping, "an object"), (lists, list | tuple, "a list of objects")):
        for name in names:
            value = raw.get(name)
            if value and not (isinstance(value, kind) and (name in maps or all(isinstance(e, Mapping) for e in value))):
                raise ConfigError(f"the task configuration's {name} must be {said}, not {value!r}")
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
    if shown := plain_secrets(plain):
        raise ConfigError(
            f"the task configuration gives {', '.join(shown)} in plain text, which every job would show; take it from a secret of the cluster "
            "(kubernetes.use_secret_as_env), or name one in the settings (env_from_secrets)"
        )
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
    found = accelerators(devices)
    gpus = [name for name in found if devices[name] != "0"] or found[:1]
    if len(gpus) > 1:
        raise ConfigError(f"the task asks for several kinds of GPU ({', '.join(gpus)}); a job has one")
    for none in set(found) - set(gpus):
        del devices[none]
    if gpus:
        count = devices.pop(gpus[0])
        if not count.isdigit():
            raise ConfigError(f"the task asks for {gpus[0]}: {count!r}; a job takes whole GPUs")
        out |= {"gpu_resource": gpus[0], "gpus": int(count)}
    return out | ({"extra_resources": devices} if devices else {})


def apply_task_config(options: ClusterOptions, raw: str | Mapping[str, Any] | object) -> ClusterOptions:
    """`options` with what the KFP task says: maps are merged (the task wins), lists are appended, single values replaced."""
    changes = from_task_config(raw)
    given = {CLUSTER_YAML, *options.env, *options.env_from_secrets}
    given |= set(STORE_KEYS) if options.store_by_role else set()
    if "env_entries" in changes:  # the pipeline's own optional entries, which the settings give already
        changes["env_entries"] = tuple(entry for entry in changes["env_entries"] if entry["name"] not in given)
    if changes.get("gpu_resource", options.gpu_resource) != options.gpu_resource:  # the companions go with their GPU
        kept = {name: count for name, count in options.extra_resources.items() if kind_of(name) == "other"}
        options = replace(options, extra_resources=kept)
    elif own := changes.get(
        "extra_resources"
    ):  # a share of another maker's GPU is asked for by its memory or cores alone
        maker = options.gpu_resource.rpartition("/")[0]
        if any(kind_of(name) == "companion" and name.rpartition("/")[0] != maker for name in own):
            changes.setdefault("gpus", 0)
    for key in ("env", "env_from_secrets", "node_selector", "extra_resources"):
        if key in changes:
            changes[key] = {**getattr(options, key), **changes[key]}
    for key in ("tolerations", "volumes", "volume_mounts", "env_entries"):
        if key in changes:
            changes[key] = (*getattr(options, key), *changes[key])
    return replace(options, **changes)
