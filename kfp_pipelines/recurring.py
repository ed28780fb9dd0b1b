"""Recurring runs from files: what should be, what is, and the calls between them.

A definition (`config/recurring-runs/*.yaml`)::

    name: nightly-curriculum
    pipeline: chain_default.yaml        # compiled; beside this file, in the working folder, or among the shipped ones
    schedule: {cron: "0 0 2 * * *"}     # six fields, seconds first, the controller's time zone; or {interval_seconds: 3600}
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
from tempfile import TemporaryDirectory
from typing import Annotated, Any

from curricle.config.load import build, read_yaml, to_tree
from curricle.config.schema import Range, Text, require
from curricle.errors import ConfigError, CurricleError, PipelineError
from kfp_pipelines.compile import with_images
from kfp_pipelines.cron import check_cron
from kfp_pipelines.early import check_names, check_values
from kfp_pipelines.parameters import COMPILED, KINDS, read_documents, read_parameters
from kfp_pipelines.server import Server, content_digest
from kfp_pipelines.submit import with_defaults

_MARK = re.compile(
    r"curricle-recurring (?P<name>\S+) (?P<digest>[0-9a-f]{16})\b(?: with (?P<control>\S+) and (?P<trainer>[^\s\]]+))?"
)
ZONE = "by the clock of the cluster's scheduled-workflow controller: UTC unless its CRON_SCHEDULE_TIMEZONE names another zone"
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
    """Six fields: second, minute, hour, day of the month, month, day of the week. By the clock of the cluster's controller."""
    interval_seconds: Annotated[int, Range("[0, 1000000000]")] = 0
    """Or every so many seconds."""

    def __post_init__(self) -> None:
        require(not (self.cron and self.interval_seconds), "schedule has both cron and interval_seconds; leave one out")
        require(
            bool(self.cron or self.interval_seconds),
            'schedule needs cron (such as "0 0 2 * * *", every night at two) or interval_seconds of at least 1',
        )
        if self.cron:
            check_cron(self.cron)


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
            f"name must be letters, digits, - . _ , and begin with one of A-Z a-z 0-9, not {self.name!r}",
        )


@dataclass(frozen=True)
class Wanted:
    """A definition with what it leads to."""

    file: Path
    definition: Definition
    package: Path
    """With the images that it was compiled with."""
    parameters: dict[str, Any]
    """All of the pipeline's, as defined or with their defaults."""
    digest: str
    """Of the definition (without `enabled`) and the pipeline's bytes, before other images are put in: 16 hex digits."""


Images = tuple[str, str]
"""Of the components, and of the training jobs."""


@dataclass(frozen=True)
class Change:
    """One thing to be done, for people."""

    verb: str
    name: str
    why: str


def load_definitions(folder: Path) -> tuple[list[Wanted], list[str]]:
    """Every good definition of a folder, and one message for every bad file.

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
            wanted = _load(file)
            if wanted.definition.name in good:
                raise ConfigError(
                    f"{file}: name {wanted.definition.name!r} stands in {good[wanted.definition.name].file} too"
                )
            good[wanted.definition.name] = wanted
        except CurricleError as error:
            bad.append(f"{file.name}: {error}")
    return list(good.values()), bad


def _load(file: Path) -> Wanted:
    definition = build(Definition, read_yaml(file)).config
    places = [file.parent / definition.pipeline, Path(definition.pipeline), COMPILED / definition.pipeline]
    package = next((p for p in places if p.is_file()), None)
    if package is None:
        raise ConfigError(f"pipeline {definition.pipeline} is at none of {', '.join(dict.fromkeys(map(str, places)))}")
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
        elif name in known:
            problems += [f"parameters.{text}" for text in known[name].refuses(value)]
    problems += [
        f"parameters.{p.name} has no default and is not given"
        for p in known.values()
        if p.required and p.name not in definition.parameters
    ]
    if problems:
        raise ConfigError(problems)
    parameters = with_defaults(definition.parameters, known)
    check_names(experiment=definition.experiment, run_name=definition.name, service_account=definition.service_account)
    check_values(read_documents(package)[0], parameters)
    tree = {k: v for k, v in to_tree(definition).items() if k not in ("enabled", "pipeline")}
    text = json.dumps(tree | {"package": content_digest(package)}, sort_keys=True)
    digest = hashlib.sha256(text.encode()).hexdigest()[:16]
    return Wanted(file, definition, package, parameters, digest)


def reconcile(
    server: Server,
    wanted: list[Wanted],
    *,
    prune: bool,
    act: bool,
    say: Callable[[Change], None],
    images: Images | None = None,
) -> tuple[list[Change], list[str]]:
    """Make the server's recurring runs what the definitions say: the changes that were (or, without `act`, would be) made, and one message
    for every definition that the server refuses. Calling again goes on from wherever it stopped.

    Args:
        prune: delete ours that no definition names any more.
        act: False changes nothing.
        images: that the runs take. None keeps those that a recurring run has, and gives a new one the compiled pipeline's own.

    Raises:
        PipelineError: the server does not even list them.
    """
    ours: dict[str, list[_There]] = {}
    for run in server.recurring_runs():
        if mark := _MARK.search(run.description or ""):
            kept = (mark["control"], mark["trainer"]) if mark["control"] else None
            ours.setdefault(mark["name"], []).append(_There(mark["digest"], kept, run))
    changes: list[Change] = []
    refused: list[str] = []

    def change(verb: str, name: str, why: str) -> bool:
        changes.append(Change(verb, name, why))
        say(changes[-1])
        return act

    for item in wanted:
        try:
            _settle(server, item, ours.pop(item.definition.name, []), images, change)
        except PipelineError as error:
            refused.append(f"{item.file.name}: {error}")
    for name, there in sorted(ours.items()):
        for one in there:
            if prune and change("delete", name, "no definition names it; its runs go on"):
                server.delete_recurring(one.run)
    return changes, refused


@dataclass(frozen=True)
class _There:
    """A recurring run of ours on the server."""

    digest: str
    images: Images | None
    run: Any


def _settle(
    server: Server, item: Wanted, there: list[_There], images: Images | None, change: Callable[[str, str, str], bool]
) -> None:
    """Make one definition's recurring runs what it says. `there` are those on the server; `change` says whether to act."""
    definition = item.definition
    images = images or next((one.images for one in there if one.images), None)
    current = [one for one in there if one.digest == item.digest and one.images == images]
    stale = [one for one in there if one not in current] + current[1:]
    run = current[0].run if current else None
    why = "new"
    if stale:
        why = "other images" if stale[0].digest == item.digest else "changed"
    when = f"cron {definition.schedule.cron}, {ZONE}" if definition.schedule.cron else ""
    if run is None and change("create", definition.name, f"{why}{f' ({when})' if when else ''}"):
        run = _create(server, item, images)
    for old in stale:
        if change("delete", definition.name, f"{old.run.recurring_run_id} is of a former definition; its runs go on"):
            server.delete_recurring(old.run)
    if run is None:
        return
    enabled = str(run.status or run.mode).upper().startswith("ENABLE")
    if definition.enabled and not enabled and (not current or change("enable", definition.name, "was disabled")):
        server.enable(run, True)
    if not definition.enabled and enabled and change("disable", definition.name, "enabled: false"):
        server.enable(run, False)


def _create(server: Server, item: Wanted, images: Images | None) -> Any:
    definition = item.definition
    with TemporaryDirectory(prefix="curricle-pipelines-") as scratch:
        package = item.package
        if images:
            package = Path(scratch, item.package.name)
            package.write_text(with_images(item.package.read_text(encoding="utf-8"), *images), encoding="utf-8")
        version = server.ensure_version(package)
    cron, seconds = definition.schedule.cron, definition.schedule.interval_seconds
    return server.make_recurring(
        server.ensure_experiment(definition.experiment),
        definition.name,
        version,
        description=_description(item, images),
        no_catchup=not definition.catch_up,
        params=item.parameters,
        max_concurrency=definition.max_concurrency,
        **({"cron_expression": cron} if cron else {"interval_second": seconds}),
        **({"service_account": definition.service_account} if definition.service_account else {}),
    )


def _description(item: Wanted, images: Images | None) -> str:
    """A sentence for people, and the mark by which it is ours."""
    definition = item.definition
    cron, seconds = definition.schedule.cron, definition.schedule.interval_seconds
    when = f"at `{cron}` (second, minute, hour, day, month, weekday; {ZONE})" if cron else f"every {seconds} seconds"
    mark = f"curricle-recurring {definition.name} {item.digest}" + (
        f" with {images[0]} and {images[1]}" if images else ""
    )
    return (
        f"Runs {item.package.stem} {when}. Made from {item.file.name} by `curricle recurring apply`: change that file, not this "
        f"recurring run, which is replaced. [{mark}]"
    )


def check(bad: list[str]) -> None:
    """Raise for bad files, once the good ones are done."""
    if bad:
        count = "1 bad file" if len(bad) == 1 else f"{len(bad)} bad files"
        raise PipelineError(f"{count}:\n" + "\n".join(f"  - {text}" for text in bad))
