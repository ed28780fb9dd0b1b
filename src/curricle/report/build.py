"""The pages of a run and of its stages: which facts stand on them, what a reader should worry about, and where the pages are written."""

from __future__ import annotations

import logging
import posixpath
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import quote

from curricle import __version__
from curricle.cards.card import OURS as CARD_OF_OURS
from curricle.cards.card import Card
from curricle.errors import CurricleError, OutputError
from curricle.masking import masked
from curricle.report import facts as gathered
from curricle.report.charts import Chart, Line, chart
from curricle.report.facts import RunFacts, StageFacts
from curricle.report.page import OURS, render, rendered, span
from curricle.sections import Part, Seen
from curricle.steps.card import card_of, card_text
from curricle.store import join_uri, layout, open_store

_log = logging.getLogger(__name__)
SHARES = ("top1", "mrr", "f1", "precision", "recall", "hit@", "ndcg", "parent@", "pearson", "spearman", "edge_map")
"""What names of metrics hold that lie between 0 and 1 and are better when higher."""


@dataclass(frozen=True)
class Verdict:
    """What stands first."""

    tone: str
    """``good``, ``warn``, ``bad`` or ``plain``."""
    word: str
    sentence: str


def write_reports(store_uri: str, run: str) -> str:
    """Write page and model card of each of a run's stages, and then the run's page, into the store; the run's page by URI.

    Raises:
        StoreError: there is no such run, or the store refuses.
        OutputError: a page or a card of somebody else's is there.
    """
    run = layout.run_folder(run)
    known = gathered.read_run(store_uri, run)
    own = [stage for stage in known.stages if stage.place.startswith(f"{run}/")]
    pages = {f"{stage.place}/{layout.REPORT}": stage_page(known, stage) for stage in own}
    pages[f"{run}/{layout.REPORT}"] = run_page(known)
    whole = [stage.place for stage in own if stage.state == "complete"]
    cards = {f"{place}/{layout.CARD}": card_text(join_uri(store_uri, place)) for place in whole}
    pages = {key: text for key, text in cards.items() if text} | pages
    store = open_store(store_uri)
    for key in pages:
        before = store.read(key)
        if before is not None and not any(mark.encode() in before for mark in (OURS, CARD_OF_OURS)):
            raise OutputError(f"{join_uri(store_uri, key)} was not written by curricle report; move it away first")
    for key, text in pages.items():
        store.write(key, text.encode())
    return join_uri(store_uri, f"{run}/{layout.REPORT}")


def run_page(known: RunFacts, links: bool = True) -> str:
    """A run's page: that of its result, with the stages that led there.

    Args:
        links: whether pages beside it can be reached from where it will lie.
    """
    result = known.result
    part = _part(result, known.store_uri)
    here = f"{known.run}/{layout.REPORT}"
    rows = [{"stage": s, "href": _href(here, s.place, s.has_page) if links else ""} for s in known.stages]
    return _page(
        title=known.run,
        kind="Run",
        up=None,
        known=known,
        stage=result,
        verdict=_verdict_of_run(known),
        part=part,
        rows=rows if len(known.stages) > 1 else [],
        charts=_run_charts(known) if len(known.planned) > 1 else _stage_charts(result),
        worries=[*_run_worries(known), *_worries(result, part)],
        here=here,
        links=links,
    )


def evaluation_page(known: RunFacts, stage: StageFacts, found: Mapping[str, Any], data: str) -> str:
    """The page of a stage's model, measured on other data.

    Args:
        found: `steps.findings.find_on`.
    """
    measured = replace(stage, findings=found, history={}, metrics={}, data={}, data_uri=data, data_digest="")
    return stage_page(known, measured, links=False, kind="Evaluation", title=f"{stage.place} on {data}")


def stage_page(known: RunFacts, stage: StageFacts, links: bool = True, kind: str = "Stage", title: str = "") -> str:
    """A stage's page."""
    here, part = f"{stage.place or stage.name}/{layout.REPORT}", _part(stage, known.store_uri)
    return _page(
        title=title or stage.name,
        kind=kind,
        up={"name": known.run, "href": "../report.html"} if links else {"name": known.run, "href": ""},
        known=known,
        stage=stage,
        verdict=_verdict_of_stage(stage),
        part=part,
        rows=[],
        charts=_stage_charts(stage),
        worries=_worries(stage, part),
        here=here,
        links=links,
    )


def _page(
    *,
    title: str,
    kind: str,
    up: Mapping[str, str] | None,
    known: RunFacts,
    stage: StageFacts | None,
    verdict: Verdict,
    part: Part,
    rows: Sequence[Mapping[str, Any]],
    charts: Sequence[Chart],
    worries: Sequence[str],
    here: str,
    links: bool,
) -> str:
    sections = [
        {"key": section.key, "title": section.title, "body": rendered(section.template, **section.data)}
        for section in part.sections
    ]
    changed = [s for s in stage.settings if s.origin not in ("", gathered.DEFAULT)] if stage else []
    rest = [s for s in stage.settings if s not in changed] if stage else []
    family = stage.entry if stage else None
    linked = {
        "parent": _linked(here, known.run, stage.parent, links) if stage and stage.parent else None,
        "children": [_linked(here, known.run, child, links) for child in stage.children] if stage else [],
    }
    return render(
        "page.html",
        ours=OURS,
        title=title,
        kind=kind,
        up=up,
        run=known,
        stage=stage,
        family=family,
        verdict=verdict,
        cards=_cards(stage, [one for one in known.planned if one.seconds] if rows else []),
        rows=rows,
        charts=charts,
        sections=sections,
        worries=worries,
        metrics=_metrics(stage),
        matrix=_matrix(known) if kind == "Run" else None,
        change=_change(known) if kind == "Run" else [],
        changed=changed,
        rest=rest,
        linked=linked,
        card=_card(known, stage) if kind != "Evaluation" else None,
        card_href=_beside(here, stage, layout.CARD) if stage and links else "",
        version=__version__,
        now=layout.now(),
    )


def _linked(here: str, run: str, link: gathered.Link, links: bool) -> dict[str, str]:
    has_page = link.has_page or link.place.startswith(f"{run}/")  # those of the run itself are written with this one
    return {"name": link.place, "href": _href(here, link.place, has_page) if links else ""}


def _href(here: str, place: str, has_page: bool) -> str:
    """From one page of a store to another, as a relative address; empty where there is none."""
    if not place or not has_page:
        return ""
    return quote(posixpath.relpath(f"{place}/{layout.REPORT}", posixpath.dirname(here)))


def _beside(here: str, stage: StageFacts, name: str) -> str:
    """From a page to another file at a stage's place."""
    return quote(posixpath.relpath(f"{stage.place}/{name}", posixpath.dirname(here))) if stage.place else ""


def _card(known: RunFacts, stage: StageFacts | None) -> Card | None:
    """The model card of a complete stage; None where its family has none, or the model is not whole any more."""
    if stage is None or stage.state != "complete" or not stage.place:
        return None
    try:
        return card_of(join_uri(known.store_uri, stage.place))
    except CurricleError as error:
        _log.warning("no model card of %s: %s", stage.place, masked(str(error)))
        return None


def _part(stage: StageFacts | None, store_uri: str) -> Part:
    """The family's own sections; without them where something that they are made of is damaged, and that is said."""
    entry = stage.entry if stage else None
    if stage is None or entry is None or not entry.sections:
        return Part()
    config = {setting.key: setting.value for setting in stage.settings}
    seen = Seen(stage.place or stage.name, stage.metrics, stage.data, config, stage.findings, store_uri=store_uri)
    try:
        part = entry.load("sections")(seen)
        assert isinstance(part, Part)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        _log.warning("%s: its findings cannot be shown (%s: %s)", stage.place, type(error).__name__, error)
        return Part(worries=[f"its findings are damaged and are not shown ({type(error).__name__}: {error})"])
    return part


def _verdict_of_run(known: RunFacts) -> Verdict:
    result, said = known.result, known.verdict
    if result is None or result.state != "complete":
        return _verdict_of_stage(result) if result else Verdict("bad", "Empty", "The run holds no stage.")
    reason = str(said.get("reason", ""))
    if said.get("decision") == "promote":
        return Verdict("good", "Promoted", reason)
    if said.get("decision") == "hold":
        return Verdict("warn", "Held back", reason)
    return _verdict_of_stage(result, gate=known.gate)


def _verdict_of_stage(stage: StageFacts, gate: str = "") -> Verdict:
    tones = {
        "complete": "plain",
        "running": "plain",
        "not selected": "plain",
        "failed": "bad",
        "damaged": "bad",
        "missing": "bad",
    }
    if stage.state != "complete":
        return Verdict(tones.get(stage.state, "warn"), stage.state.capitalize(), stage.detail)
    head = stage.headline
    on = "on test records" if head and head[0] in stage.tested else "on validation records"
    said = f"{head[0]} is {head[1]:.4f} {on}. " if head else ""
    if stage.promoted:
        return Verdict("good", "Promoted", f"{said}It is the model that is taken where none is named.")
    rule = f"The gate's rule ({gate}) has not been applied to it." if gate else "No gate judged it."
    return Verdict("plain", "Complete", f"{said}{rule}")


def _cards(stage: StageFacts | None, among: Sequence[StageFacts] = ()) -> list[dict[str, str]]:
    """The figures that say most.

    Args:
        among: on the page of a run of several stages those that were trained, whose time counts together.
    """
    if stage is None:
        return []
    cards = []
    entry, both = stage.entry, {**stage.metrics, **stage.tested}
    for name in entry.said_most(both) if entry else [name for name in ("val_loss",) if name in both]:
        if entry is None or name in (*entry.headlines, "val_loss"):
            meaning = entry.meanings.get(name, "") if entry else ""
            shown = f"{100 * both[name]:.1f} %" if _is_share(name) else f"{both[name]:.4f}"
            cards.append({"name": name, "value": shown, "meaning": meaning})
    info = stage.info
    if stage.seconds:
        steps = f"{info.get('steps', 0):,} steps of about {info.get('seconds_per_step', 0):.2g} s"
        alone = len(among) < 2
        cards.append(
            {
                "name": "training time",
                "value": span(stage.seconds if alone else sum(one.seconds for one in among)),
                "meaning": steps if alone else f"of {len(among)} stages; {stage.name}: {span(stage.seconds)}, {steps}",
            }
        )
    if isinstance(info.get("peak_memory_mb"), int | float):
        cards.append(
            {
                "name": "peak memory",
                "value": f"{info['peak_memory_mb'] / 1024:.1f} GB",
                "meaning": f"of one process, {info.get('world_size', 1)} in all",
            }
        )
    return cards


def _is_share(name: str) -> bool:
    return any(part in name for part in SHARES)


def _metrics(stage: StageFacts | None) -> list[dict[str, Any]]:
    if stage is None:
        return []
    before = stage.findings.get("before")
    old = before.get("metrics", {}) if isinstance(before, dict) else {}
    both = {**stage.metrics, **stage.tested}
    return [{"name": name, "value": both[name], "before": old.get(name)} for name in sorted(both)]


def _matrix(known: RunFacts) -> dict[str, Any] | None:
    """What the chain won and forgot, as `page.html` draws it; None where nobody measured it, or it is damaged."""
    names, rows = known.matrix.get("stages"), known.matrix.get("rows")
    if not isinstance(names, list) or not isinstance(rows, list) or len(rows) != len(names):
        return None
    if not all(isinstance(row, list) and len(row) == len(names) for row in rows):
        return None
    return {"stages": names, "rows": rows, "measure": known.matrix.get("measure", "")}


def _change(known: RunFacts) -> list[dict[str, Any]]:
    """Domain by domain the headline's score before and after, as the verdict was given by; none where it was given by something else."""
    before, after = known.verdict.get("before"), known.verdict.get("after")
    if not isinstance(after, dict) or not isinstance(before, dict) or not before:
        return []
    return [{"domain": name, "before": before.get(name), "after": value} for name, value in sorted(after.items())]


def _epochs(stage: StageFacts) -> list[dict[str, float]]:
    rows = stage.history.get("epochs")
    return [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []


def _points(rows: Sequence[Mapping[str, Any]], key: str, shift: float = 0.0) -> list[tuple[float, float]]:
    return [
        (float(row["step"]) + shift, float(row[key]))
        for row in rows
        if isinstance(row.get(key), int | float) and isinstance(row.get("step"), int | float)
    ]


def _stage_charts(stage: StageFacts | None) -> list[Chart]:
    if stage is None:
        return []
    rows = _epochs(stage)
    steps = stage.history.get("losses")
    steps = [(float(p[0]), float(p[1])) for p in steps] if isinstance(steps, list) else []
    best = next((row["step"] for row in rows if _same(row.get("val_loss"), stage.metrics.get("val_loss"))), None)
    marks = [(float(best), "best")] if isinstance(best, int | float) and len(rows) > 1 else []
    made = [
        chart(
            "Loss",
            [Line("train, by step", steps), Line("validation", _points(rows, "val_loss"), marks=True)],
            x_label="step",
            marks=marks,
        )
    ]
    names = [name for name in (stage.entry.columns if stage.entry else ()) if _is_share(name)]
    lines = [Line(name, _points(rows, name), marks=True) for name in names]
    made.append(chart("Validation", lines, x_label="step", marks=marks, percent=True))
    return [one for one in made if one is not None] if len(rows) > 1 or steps else []


def _same(a: Any, b: Any) -> bool:
    return isinstance(a, int | float) and isinstance(b, int | float) and abs(a - b) < 1e-12


def _run_charts(known: RunFacts) -> list[Chart]:
    """The curves of all stages, one after the other."""
    shift, marks = 0.0, []
    lines: dict[str, list[tuple[float, float]]] = {}
    loss: list[tuple[float, float]] = []
    for stage in known.planned:
        rows = _epochs(stage)
        if not rows:
            continue
        marks.append((shift, stage.name))
        loss += _points(rows, "val_loss", shift)
        for name in stage.entry.columns if stage.entry else ():
            if _is_share(name):
                lines.setdefault(name, []).extend(_points(rows, name, shift))
        shift += max((float(row.get("step", 0)) for row in rows), default=0.0)
    if len(loss) < 2:
        return []
    made = [
        chart(
            "Validation over the chain",
            [Line(n, p, marks=True) for n, p in lines.items()],
            x_label="step of the chain",
            marks=marks,
            percent=True,
        ),
        chart(
            "Validation loss (stages may count different losses)",
            [Line("val_loss", loss, marks=True)],
            x_label="step of the chain",
            marks=marks,
        ),
    ]
    return [one for one in made if one is not None]


def _run_worries(known: RunFacts) -> list[str]:
    said = [f"the file {known.problem}"] if known.problem else []
    for stage in known.planned[:-1]:
        if stage.state != "complete":
            said.append(f"stage {stage.name} is {stage.state}: {stage.detail}".rstrip(": "))
        said += [f"the file {damage}" for damage in stage.damaged]
    if known.verdict.get("decision") == "hold":
        said.append(f"the gate holds the model back: {known.verdict.get('reason', '')}")
    return said


def _worries(stage: StageFacts | None, part: Part) -> list[str]:
    """What a reader should know before believing the figures, a sentence each."""
    if stage is None:
        return []
    said = [f"the file {damage}" for damage in stage.damaged]
    if stage.state == "complete" and not stage.tested:
        said.append(
            "nothing was measured on test records yet: the figures are of validation records, by which the checkpoint was chosen, "
            f"so they flatter a little (curricle report {stage.place.split('/')[0]} measures)"
        )
    said += part.worries
    dropped = stage.data.get("dropped")
    if isinstance(dropped, dict) and any(dropped.values()):
        said.append(
            "records were left out of the data: " + ", ".join(f"{n:,} × {why}" for why, n in dropped.items() if n)
        )
    notes = stage.data.get("notes")
    said += [str(note) for note in notes] if isinstance(notes, list) else []
    rows = _epochs(stage)
    if len(rows) > 2 and _same(rows[-1].get("val_loss"), stage.metrics.get("val_loss")):
        said.append("the last epoch was the best one: more epochs may still gain")
    if stage.data.get("synthetic") is True or stage.data.get("source") == "demo":
        said.append("the data are synthetic: scores say that the machinery works, and nothing about your texts")
    return said
