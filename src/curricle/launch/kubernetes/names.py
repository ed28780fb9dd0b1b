"""What Kubernetes lets a name, a key or a quantity of the cluster's settings be: what its API server must refuse is refused when the settings are read."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from curricle import environment
from curricle.launch.kubernetes.options import ClusterSettings
from curricle.launch.kubernetes.pods import bytes_of

LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
SUBDOMAIN = re.compile(r"(?=.{1,253}$)[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
LABEL_VALUE = re.compile(r"(?=.{0,63}$)([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?")
_PART = r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?"
_QUALIFIED = re.compile(rf"((?P<domain>[a-z0-9]([-a-z0-9.]{{0,251}}[a-z0-9])?)/)?{_PART}")
_VARIABLE = re.compile(r"[!-<>-~]([ -<>-~]*[!-<>-~])?")
"""Names of variables: what Kubernetes takes since it was relaxed (1.34), printable ASCII but ``=``."""
_OWN = {
    *(environment.RANK, environment.LOCAL_RANK, environment.WORLD_SIZE, environment.LOCAL_WORLD_SIZE),
    *(environment.MASTER_ADDR, environment.MASTER_PORT, environment.TORCHELASTIC_RUN_ID),
}
"""Variables that a rank gets from its node agent, or a pod from the operator."""
_NATIVE = re.compile(r"ephemeral-storage|hugepages-[0-9]+(\.[0-9]+)?[KMGTPE]i")
_TOLERATION = {
    "key": None,
    "operator": ("", "Exists", "Equal", "Lt", "Gt"),
    "value": None,
    "effect": ("", "NoSchedule", "PreferNoSchedule", "NoExecute"),
    "tolerationSeconds": None,
}
_DNS = "of a-z, 0-9 and '-', with a letter or digit at both ends"


def problems_of(options: ClusterSettings) -> Iterator[tuple[str, str]]:
    """What the API server would refuse of the settings: (the setting's dotted name, what is wrong with it)."""
    if not LABEL.fullmatch(options.namespace):
        yield "namespace", f"must be 1 to 63 {_DNS}, not {options.namespace!r}"
    if not options.image or any(letter.isspace() for letter in options.image):
        yield "image", f"{options.image!r} is no image"
    for name in ("service_account", "priority_class", "queue", "queue_priority", "runtime"):
        value = getattr(options, name)
        longest = 63 if name.startswith("queue") else 253  # a queue's name is a label's value
        if value and (not SUBDOMAIN.fullmatch(value) or len(value) > longest):
            yield name, f"must be the name of an object, at most {longest} {_DNS}, and '.', not {value!r}"
    for value in options.image_pull_secrets:
        if not SUBDOMAIN.fullmatch(value):
            yield "image_pull_secrets", f"{value!r} cannot be the name of a secret: {_DNS}, and '.'"
    yield from _resources(options)
    for setting, pairs in (("node_selector", options.node_selector), ("labels", options.labels)):
        for key, value in pairs.items():
            if not LABEL_VALUE.fullmatch(value):
                yield f"{setting}.{key}", f"{value!r} is no label value (at most 63 of A-Z a-z 0-9 - _ .)"
    for setting, keys in (
        ("node_selector", options.node_selector), ("labels", options.labels), ("annotations", options.annotations)
    ):  # fmt: skip
        for key in keys:
            if not _QUALIFIED.fullmatch(key.lower() if setting == "annotations" else key):
                yield setting, f"{key!r} is no key (name, or domain/name)"
    for number, toleration in enumerate(options.tolerations):
        yield from ((f"tolerations[{number}]", text) for text in _toleration(toleration))
    yield from _variables(options)


def _resources(options: ClusterSettings) -> Iterator[tuple[str, str]]:
    for name in ("cpu", "memory", "cpu_limit", "memory_limit", "shm_size", "scratch_size"):
        quantity = getattr(options, name)
        if quantity or name in ("cpu", "memory"):
            try:
                bytes_of(quantity)
            except ValueError as error:
                yield name, str(error)
    match = _QUALIFIED.fullmatch(options.gpu_resource)
    if not match or not match["domain"]:
        yield (
            "gpu_resource",
            f"must be the name of a resource of nodes, domain/name (nvidia.com/gpu), not {options.gpu_resource!r}",
        )
    for name, amount in options.extra_resources.items():
        match = _QUALIFIED.fullmatch(name)
        own = bool(match and match["domain"])
        if not own and not _NATIVE.fullmatch(name):
            instead = (
                f"the setting `{name}` says that" if name in ("cpu", "memory") else "expected domain/name (rdma/ib)"
            )
            yield "extra_resources", f"{name!r} is no further resource; {instead}"
            continue
        try:
            if own and not bytes_of(amount).is_integer():
                yield f"extra_resources.{name}", f"must be a whole number, not {amount!r}"
        except ValueError as error:
            yield f"extra_resources.{name}", str(error)


def _toleration(given: Mapping[str, Any]) -> Iterator[str]:
    if unknown := sorted(set(given) - set(_TOLERATION)):
        yield f"unknown {'key' if len(unknown) == 1 else 'keys'} {', '.join(map(repr, unknown))}; known here: {', '.join(_TOLERATION)}"
    for key, allowed in _TOLERATION.items():
        if allowed and (given.get(key) or "") not in allowed:
            yield f"{key} must be one of {', '.join(filter(None, allowed))}, not {given[key]!r}"
    if given.get("key") and not _QUALIFIED.fullmatch(str(given["key"])):
        yield f"key {given['key']!r} is no key (name, or domain/name)"
    if not given.get("key") and given.get("operator") != "Exists":
        yield "needs a key, or operator Exists for all"
    if given.get("operator") == "Exists" and given.get("value"):
        yield "operator Exists takes no value"


def _variables(options: ClusterSettings) -> Iterator[tuple[str, str]]:
    names: list[tuple[str, str]] = [("env", name) for name in options.env]
    names += [("env_from_secrets", name) for name in options.env_from_secrets]
    names += [("env_entries", str(entry.get("name") or "")) for entry in options.env_entries]
    for setting, name in names:
        if not _VARIABLE.fullmatch(name):
            yield (
                setting,
                f"{name!r} is no name of a variable: printable ASCII, without = and without a blank at its ends",
            )
        elif name in _OWN or name.startswith("PET_"):
            yield f"{setting}.{name}", "is set for every rank by its node agent or the operator; leave it out"
    for name, (secret, key) in options.env_from_secrets.items():
        if not SUBDOMAIN.fullmatch(secret):
            yield f"env_from_secrets.{name}", f"{secret!r} cannot be the name of a secret: {_DNS}, and '.'"
        if not re.fullmatch(r"[-._A-Za-z0-9]{1,253}", key):
            yield f"env_from_secrets.{name}", f"{key!r} cannot be a key of a secret: letters, digits, - _ ."


def plain_secrets(env: Iterable[str]) -> list[str]:
    """Of the names of variables that are given in plain text, those that hold a secret, which every job would show."""
    return sorted(filter(environment.is_secret, env))
