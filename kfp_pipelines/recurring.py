"""Recurring runs from files: what should be, what is, and the calls between them.

A definition (`config/recurring-runs/*.yaml`)::

    name: nightly-curriculum
    pipeline: chain_default.yaml        # compiled; beside this file, in the working folder, or among the shipped ones
    schedule: {cron: "0 0 2 * * *"}     # six fields, seconds first; or {interval_seconds: 3600}
    parameters: {stages: all}
    experiment: curricle
    max_concurrency: 1
    catch_up: false
    enabled: true

Kubeflow Pipelines has no update: a changed definition is a new recurring run, made disabled, switched over to, and the old one deleted
without ending what it started. Only recurring runs whose description carries our mark are ever touched.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from curricle.config.load import build, read_yaml, to_tree
from curricle.config.schema import Range, Text, require
from curricle.errors import ConfigError, CurricleError, PipelineError
from kfp_pipelines.compile import with_images
from kfp_pipelines.parameters import COMPILED, KINDS, read_parameters
from kfp_pipelines.server import answers, content_digest, ensure_experiment, ensure_version, recurring_runs

_MARK = re.compile(r"curricle-recurring (?P<name>\S+) (?P<digest>[0-9a-f]{16})\b")
_PYTHON: dict[str, type | tuple[type, ...]] = {
    "STRING": str,
    "BOOLEAN": bool,
    "NUMBER_INTEGER": int,
    "NUMBER_DOUBLE": (int, float),
    "LIST": list,
    "STRUCT": dict,
}


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """When it runs."""

    cron: str = ""
    """Five or six fields; six begin with the seconds."""
    interval_seconds: Annotated[int, Range("[0, 1000000000]")] = 0
    """Or every so many seconds."""

    def __post_init__(self) -> None:
        require(bool(self.cron) != bool(self.interval_seconds), "schedule needs either cron or interval_seconds")
        require(
            not self.cron or len(self.cron.split()) in (5, 6), f"cron must have five or six fields, not {self.cron!r}"
        )


@dataclass(frozen=True, kw_only=True)
class Definition:
    """One recurring run as it should be."""

    name: str
    """Unique over all files; no spaces."""
    pipeline: Text
    """The compiled pipeline."""
    schedule: Schedule
    """When."""
    parameters: dict[str, Any] = field(default_factory=dict)
    """Typed as the pipeline declares them."""
    experiment: str = "curricle"
    """Experiment of its runs."""
    max_concurrency: Annotated[int, Range("[1, 10]")] = 1
    """Runs at once."""
    catch_up: bool = False
    """Whether runs that were missed are made up for."""
    enabled: bool = True
    """Whether it fires."""
    service_account: str = ""
    """Of the pods; empty takes the server's."""

    def __post_init__(self) -> None:
        require(
            bool(re.fullmatch(r"[A-Za-z0-9][\w.-]*", self.name)),
            f"name must be letters, digits, - . _ , not {self.name!r}",
        )


@dataclass(frozen=True)
class Wanted:
    """A definition with what it leads to."""

    file: Path
    definition: Definition
    package: Path
    digest: str
    """Of the definition (without `enabled`) and the pipeline's bytes: 16 hex digits."""


@dataclass(frozen=True)
class Change:
    """One thing to be done, for people."""

    verb: str
    name: str
    why: str


def load_definitions(
    folder: Path, images: tuple[str, str] | None = None, scratch: Path | None = None
) -> tuple[list[Wanted], list[str]]:
    """Every good definition of a folder, and one message for every bad file.

    Args:
        images: of the components and of the training jobs; pipelines with the default ones are copied into `scratch` with these.

    Raises:
        ConfigError: the folder is not there.
    """
    if not folder.is_dir():
        raise ConfigError(
            f"{folder} is no folder; recurring runs are defined by the YAML files of one (config/recurring-runs)"
        )
    good: dict[str, Wanted] = {}
    bad: list[str] = []
    for file in sorted(p for p in folder.iterdir() if p.suffix in (".yaml", ".yml") and p.is_file()):
        try:
            wanted = _load(file, images, scratch)
            if wanted.definition.name in good:
                raise ConfigError(
                    f"{file}: name {wanted.definition.name!r} stands in {good[wanted.definition.name].file} too"
                )
            good[wanted.definition.name] = wanted
        except CurricleError as error:
            bad.append(f"{file.name}: {error}")
    return list(good.values()), bad


def _load(file: Path, images: tuple[str, str] | None, scratch: Path | None) -> Wanted:
    definition = build(Definition, read_yaml(file)).config
    places = [file.parent / definition.pipeline, Path(definition.pipeline), COMPILED / definition.pipeline]
    package = next((p for p in places if p.is_file()), None)
    if package is None:
        raise ConfigError(f"pipeline {definition.pipeline} is at none of {', '.join(map(str, places))}")
    if images and scratch:
        copy = scratch / package.name
        copy.write_text(with_images(package.read_text(encoding="utf-8"), *images), encoding="utf-8")
        package = copy
    known = read_parameters(package)
    problems = [
        f"no parameter {name!r}; there are {', '.join(known)}" for name in definition.parameters if name not in known
    ]
    for name, value in definition.parameters.items():
        if name in known and (
            not isinstance(value, _PYTHON[known[name].kind])
            or (isinstance(value, bool) and known[name].kind != "BOOLEAN")
        ):
            problems.append(f"parameters.{name} must be {KINDS[known[name].kind]}, not {value!r}")
    problems += [
        f"parameters.{p.name} has no default and is not given"
        for p in known.values()
        if p.required and p.name not in definition.parameters
    ]
    if problems:
        raise ConfigError(problems)
    tree = {k: v for k, v in to_tree(definition).items() if k not in ("enabled", "pipeline")}
    text = json.dumps(tree | {"package": content_digest(package)}, sort_keys=True)
    return Wanted(file, definition, package, hashlib.sha256(text.encode()).hexdigest()[:16])


def reconcile(
    client: Any, wanted: list[Wanted], *, prune: bool, act: bool, say: Callable[[Change], None]
) -> tuple[list[Change], list[str]]:
    """Make the server's recurring runs what the definitions say: the changes that were (or, without `act`, would be) made, and one message
    for every definition that the server refuses. Calling again goes on from wherever it stopped.

    Args:
        prune: delete ours that no definition names any more.
        act: False changes nothing.

    Raises:
        PipelineError: the server does not even list them.
    """
    ours: dict[str, list[tuple[str, Any]]] = {}
    for run in recurring_runs(client):
        if mark := _MARK.search(run.description or ""):
            ours.setdefault(mark["name"], []).append((mark["digest"], run))
    changes: list[Change] = []
    refused: list[str] = []

    def change(verb: str, name: str, why: str) -> bool:
        changes.append(Change(verb, name, why))
        say(changes[-1])
        return act

    for item in wanted:
        try:
            _settle(client, item, ours.pop(item.definition.name, []), change)
        except PipelineError as error:
            refused.append(f"{item.file.name}: {error}")
    for name, there in sorted(ours.items()):
        for _, run in there:
            if prune and change("delete", name, "no definition names it; its runs go on"):
                _delete(client, run)
    return changes, refused


def _settle(client: Any, item: Wanted, there: list[tuple[str, Any]], change: Callable[[str, str, str], bool]) -> None:
    """Make one definition's recurring runs what it says. `there` are those on the server, by digest; `change` says whether to act."""
    definition = item.definition
    current = [run for digest, run in there if digest == item.digest]
    stale = [run for digest, run in there if digest != item.digest] + current[1:]
    run = current[0] if current else None
    if run is None and change("create", definition.name, "changed" if stale else "new"):
        run = _create(client, item)
    for old in stale:
        if change("delete", definition.name, f"{old.recurring_run_id} is of a former definition; its runs go on"):
            _delete(client, old)
    if run is None:
        return
    enabled = str(run.status or run.mode).upper().startswith("ENABLE")
    if definition.enabled and not enabled and (not current or change("enable", definition.name, "was disabled")):
        with answers(f"enable {definition.name}"):
            client.enable_recurring_run(run.recurring_run_id)
    if not definition.enabled and enabled and change("disable", definition.name, "enabled: false"):
        with answers(f"disable {definition.name}"):
            client.disable_recurring_run(run.recurring_run_id)


def _create(client: Any, item: Wanted) -> Any:
    definition = item.definition
    version = ensure_version(client, item.package)
    experiment_id = ensure_experiment(client, definition.experiment)
    schedule = (
        {"cron_expression": definition.schedule.cron}
        if definition.schedule.cron
        else {"interval_second": definition.schedule.interval_seconds}
    )
    with answers(f"create recurring run {definition.name}"):
        return client.create_recurring_run(
            experiment_id,
            definition.name,
            description=f"curricle-recurring {definition.name} {item.digest}",
            no_catchup=not definition.catch_up,
            params=definition.parameters,
            pipeline_id=version.pipeline_id,
            version_id=version.version_id,
            enabled=False,
            max_concurrency=definition.max_concurrency,
            **schedule,
            **({"service_account": definition.service_account} if definition.service_account else {}),
        )


def _delete(client: Any, run: Any) -> None:
    """Disabled first, then deleted without its children: what it started goes on."""
    with answers(f"delete recurring run {run.display_name}"):
        client.disable_recurring_run(run.recurring_run_id)
        client._recurring_run_api.recurring_run_service_delete_recurring_run(
            run.recurring_run_id, propagation_policy="ORPHAN"
        )


def check(bad: list[str]) -> None:
    """Raise for bad files, once the good ones are done."""
    if bad:
        count = "1 bad file" if len(bad) == 1 else f"{len(bad)} bad files"
        raise PipelineError(f"{count}:\n" + "\n".join(f"  - {text}" for text in bad))
