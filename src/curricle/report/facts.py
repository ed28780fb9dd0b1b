"""What a store holds of a run, gathered for its pages: plans, manifests, curves, findings, verdicts. Reads alone; what is gone is left out, what is damaged said."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from curricle.config.load import DEFAULT, leaves
from curricle.errors import ConfigError, CurricleError
from curricle.planning import StagePlan
from curricle.registry import FamilyEntry, canonical
from curricle.steps.estimate import trained_seconds
from curricle.steps.findings import entry_named, read_matrix
from curricle.steps.show import describe_run
from curricle.steps.source import read_plan
from curricle.store import Store, join_uri, layout, open_store, references
from curricle.store.findings import read_findings
from curricle.store.manifest import Manifest, read_manifest
from curricle.store.runs import stages


@dataclass(frozen=True)
class Link:
    """Another stage's page."""

    place: str
    """``RUN/STAGE``, or where a checkpoint of elsewhere lies."""
    has_page: bool


@dataclass(frozen=True)
class Setting:
    """One effective value."""

    key: str
    value: Any
    origin: str
    """The file that said it, the command line, or `DEFAULT`; empty where no plan tells."""


@dataclass(frozen=True)
class StageFacts:
    """One stage."""

    name: str
    place: str
    """Its key in the store, ``RUN/STAGE``; empty where it was not begun."""
    state: str
    """As `curricle show` says it."""
    detail: str
    start: str
    family: str
    promoted: bool
    earlier: bool
    """Whether the run's newest plan does not name it."""
    digest: str = ""
    created: str = ""
    reason: str = ""
    """Why it starts as it does, by the plan."""
    metrics: Mapping[str, float] = field(default_factory=dict)
    info: Mapping[str, Any] = field(default_factory=dict)
    settings: Sequence[Setting] = ()
    parent: Link | None = None
    children: Sequence[Link] = ()
    data_uri: str = ""
    data_digest: str = ""
    data: Mapping[str, Any] = field(default_factory=dict)
    history: Mapping[str, Any] = field(default_factory=dict)
    findings: Mapping[str, Any] = field(default_factory=dict)
    has_page: bool = False
    """Whether its page lies at its place, or is written with this run's."""
    damaged: Sequence[str] = ()
    """What is wrong with its files, a sentence each."""

    @cached_property
    def entry(self) -> FamilyEntry | None:
        """Its family; None for one that is not installed."""
        return entry_named({"family": self.family})

    @property
    def tested(self) -> Mapping[str, float]:
        """Test metrics, where they were measured."""
        found = self.findings.get("metrics")
        return {k: v for k, v in found.items() if isinstance(v, int | float)} if isinstance(found, dict) else {}

    @property
    def headline(self) -> tuple[str, float] | None:
        """The metric that says most, of the test records where there are any."""
        both = {**self.metrics, **self.tested}
        name = next(iter(self.entry.said_most(both) if self.entry else [n for n in ("val_loss",) if n in both]), None)
        return (name, both[name]) if name else None

    @property
    def seconds(self) -> float:
        """About how long it trained."""
        return trained_seconds(self.info)


@dataclass(frozen=True)
class RunFacts:
    """One run."""

    run: str
    store_uri: str
    stages: Sequence[StageFacts]
    gate: str
    """The rule of its plan; empty for none."""
    verdict: Mapping[str, Any]
    """What `verdict.json` says; empty where nothing was judged."""
    matrix: Mapping[str, Any] = field(default_factory=dict)
    """What `steps.findings.find_matrix` kept."""
    problem: str = ""
    """Why its plan cannot be read."""

    @property
    def planned(self) -> list[StageFacts]:
        """The stages of the newest plan."""
        return [stage for stage in self.stages if not stage.earlier]

    @property
    def result(self) -> StageFacts | None:
        """The stage whose model is the run's result: the last one of the plan, complete or not."""
        return next(iter(reversed(self.planned or list(self.stages))), None)


def read_run(store_uri: str, run: str) -> RunFacts:
    """Everything about a run.

    Raises:
        StoreError: there is no such run; lists those there are.
    """
    store, run = open_store(store_uri), layout.run_folder(run)
    rows = describe_run(store_uri, run)
    plan, problem = None, ""
    try:
        plan = read_plan(store_uri, run)
    except ConfigError as error:
        problem = str(error)
    planned = {"/".join(stage.uri.split("/")[-2:]): stage for stage in plan.selected} if plan else {}
    others = _others(store, store_uri)
    made = [
        _stage(store, store_uri, row, planned.get(row["place"] or f"{row['run']}/{row['stage']}"), others)
        for row in rows
        if row["state"] != "unreadable plan"
    ]
    verdict = layout.read_record(store.read(f"{run}/{layout.VERDICT}"))
    result = made[-1].digest if made else ""
    last = [stage.digest for stage in made if not stage.earlier][-1:] or [result]
    fits = verdict.get("digest") in (None, *last)
    return RunFacts(
        run,
        store_uri,
        made,
        plan.gate if plan else "",
        verdict if fits else {},
        read_matrix(store, plan) if plan else {},
        problem,
    )


@dataclass(frozen=True)
class _Other:
    """A stage of the store, for links."""

    place: str
    parent: str
    """The place of the stage or checkpoint that it starts from, absolute."""
    has_page: bool


def _others(store: Store, store_uri: str) -> list[_Other]:
    found = []
    for place in stages(store):
        spec = layout.read_record(store.read(f"{place.prefix}/{layout.STAGE}"))
        parent = _resolved(spec.get("parent_uri"), join_uri(store_uri, place.prefix))
        found.append(_Other(place.prefix, parent, layout.REPORT in place.files))
    return found


def _resolved(reference: Any, place: str) -> str:
    try:
        return references.resolve(reference, place) if isinstance(reference, str) else ""
    except CurricleError:
        return ""


def _stage(
    store: Store, store_uri: str, row: Mapping[str, Any], plan: StagePlan | None, others: Sequence[_Other]
) -> StageFacts:
    place = row["place"]
    kept = ("state", "detail", "start", "family", "promoted", "earlier", "damaged")
    facts: dict[str, Any] = {name: row[name] for name in kept}
    facts |= {"name": row["stage"], "place": place, "created": row["created"], "reason": _reason(row, plan)}
    spec = _record(store, place, layout.STAGE) if place else {}
    manifest = _manifest(store, place) if place else None
    facts["digest"] = str((manifest.digest if manifest else spec.get("digest")) or (plan.digest if plan else ""))
    config = spec.get("config") if isinstance(spec.get("config"), dict) else plan.config if plan else {}
    origins = plan.origins if plan else {}
    facts["settings"] = [
        Setting(key, value, origins.get(key, DEFAULT) if plan else "") for key, value in sorted(leaves(config).items())
    ]
    here = join_uri(store_uri, place) if place else ""
    data_uri = _resolved(spec.get("data_uri"), here) if spec else plan.data_uri if plan else ""
    facts |= {"data_uri": data_uri, "data_digest": str(spec.get("data_digest") or (plan.data_digest if plan else ""))}
    facts["data"] = _facts_of(data_uri)
    parent = _resolved(spec.get("parent_uri"), here) if spec else plan.parent_uri if plan else ""
    facts["parent"] = _link(parent, store_uri, others) if parent else None
    if place:
        inside = (references.absolute(here), f"{references.absolute(here)}/")
        facts["children"] = [
            Link(other.place, other.has_page)
            for other in others
            if other.parent
            and (at := references.absolute(other.parent))
            and (at == inside[0] or at.startswith(inside[1]))
        ]
        known = next((other.has_page for other in others if other.place == place), False)
        facts["has_page"] = known or place.startswith(f"{row['run']}/")
        facts["history"] = _record(store, place, layout.HISTORY)
    if manifest:
        facts |= {"metrics": manifest.metrics, "info": manifest.info, "findings": read_findings(store, place, manifest)}
        facts["family"] = canonical(manifest.info.get("family", "")) or facts["family"]
    return StageFacts(**facts)


def _reason(row: Mapping[str, Any], plan: StagePlan | None) -> str:
    """Why a stage started as it did, by the plan; of a complete one that the newest plan takes as it is, its own record tells, and no plan."""
    if row["reused"]:
        return REUSED if row["state"] == "complete" else ""
    return plan.reason if plan else ""


REUSED = "complete before the newest plan, which takes it as it is"


def _record(store: Store, place: str, name: str) -> dict[str, Any]:
    """What of a stage's file can be read; its row says what is wrong with it."""
    return layout.inspect_record(store.read(f"{place}/{name}"), f"{place}/{name}")[0]


def _link(uri: str, store_uri: str, others: Sequence[_Other]) -> Link:
    root, at = references.absolute(store_uri), references.absolute(uri)
    if at.startswith(f"{root}/"):
        place = "/".join(at.removeprefix(f"{root}/").split("/")[:2])
        known = next((other for other in others if other.place == place), None)
        return Link(place, bool(known and known.has_page))
    return Link(uri, False)


def _manifest(store: Store, place: str) -> Manifest | None:
    try:
        return read_manifest(store, place)
    except CurricleError:
        return None


def _facts_of(data_uri: str) -> Mapping[str, Any]:
    try:
        manifest = read_manifest(open_store(data_uri), "") if data_uri else None
    except CurricleError:
        return {}
    return manifest.info if manifest else {}
