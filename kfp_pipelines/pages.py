"""What a run leaves for people to read in the run view: Markdown for preflight, plan, combination, verdict and end. Its HTML is that of `curricle report` (`reports`).

The verdict comes first. Takes what the steps give; measures nothing.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from curricle.errors import Finding
from curricle.markdown import escaped, markdown_table
from curricle.planning import ChainPlan, StagePlan
from curricle.registry import FamilyEntry
from curricle.steps.gate import Verdict

FEW = 8
"""Metrics that the run view shows at most; the page and the gate have all."""
_COUNTS = re.compile(r"(^|[/_])(texts|records|spans|support|unreachable|count|total|epochs?|steps?|labels)($|/)")
"""Names of figures that count something."""


def preflight(findings: Sequence[Finding]) -> str:
    """Whether all is ready, then what has failed, what could not be seen, and the rest."""
    failed = [finding for finding in findings if not finding.ok]
    unseen = [finding for finding in findings if finding.ok and finding.advice]
    good = [finding for finding in findings if finding.ok and not finding.advice]
    head = f"**Ready**: {len(findings)} of {len(findings)} checks passed"
    if failed:
        head = f"**Not ready**: {len(failed)} of {len(findings)} checks failed"
    if unseen:
        head += f"; {len(unseen)} could not be seen from here"
    rows = [(mark, one) for mark, group in (("FAILED", failed), ("not seen", unseen), ("ok", good)) for one in group]
    if not failed and not unseen:
        return f"{head}\n\n{markdown_table(['', 'check', 'found'], [[mark, f.name, f.detail] for mark, f in rows])}\n"
    table = markdown_table(
        ["", "check", "found", "what to do"], [[mark, f.name, f.detail, f.advice] for mark, f in rows]
    )
    return f"{head}\n\n{table}\n"


def preflight_lines(findings: Sequence[Finding]) -> str:
    """The same for a log, one line a check."""
    return "\n".join(
        f"{'ok' if f.ok else 'FAILED':<7} {f.name}: {f.detail}{f'. {f.advice}' if f.advice else ''}"
        for f in sorted(findings, key=lambda finding: finding.ok)
    )


def plan(made: ChainPlan) -> str:
    """Which stages train, how long and how fast, from what; and from which run the others are taken."""
    trained = [stage for stage in made.stages if stage.trains]
    reused = [stage for stage in made.stages if stage.start == "reuse"]
    head = f"**{escaped(made.chain_name)}** trains {len(trained)} of {_many(len(made.stages), 'stage')}"
    if reused:
        head += f", reuses {len(reused)}"
    rows = [
        [
            stage.name,
            happens(stage),
            str(stage.config["training"]["trainer"]["max_epochs"]) if stage.trains else "",
            _rate(stage) if stage.trains else "",
            stage.reason.replace("--from-checkpoint", "from_checkpoint"),
            stage.digest[:12],
        ]
        for stage in made.stages
    ]
    lines = [head, "", markdown_table(["stage", "what happens", "epochs", "learning rate", "why", "digest"], rows)]
    if made.gate.strip():
        lines += ["", f"The result is promoted if {escaped(made.gate)}."]
    return "\n".join(lines) + "\n"


def happens(stage: StagePlan) -> str:
    """What becomes of a stage, in words."""
    run = stage.uri.rstrip("/").rpartition("/")[0].rpartition("/")[2]
    return {
        "scratch": "trains from scratch",
        "continued": "trains further",
        "reuse": f"reused, from run {run}",
        "skip": "not selected",
    }[stage.start]


def _rate(stage: StagePlan) -> str:
    rate = stage.config["training"].get("learning_rate")
    return f"{rate:g}" if isinstance(rate, int | float) else "by encoder and batch"


def combination(facts: Mapping[str, Any]) -> str:
    """What a combination of old and new data holds, in sentences."""
    left = {name: value for name, value in facts.items() if name != "family"}
    said = []
    counts = {name: left.pop(name) for name in ("train", "validation") if isinstance(left.get(name), int)}
    if counts:
        said.append(
            f"**{' and '.join(_many(n, {'train': 'training'}.get(name, name) + ' record') for name, n in counts.items())}**."
        )
    scored = left.pop("scored", None)
    if isinstance(scored, Mapping):
        for split, domains in scored.items():
            said.append(f"The model is measured on {split} records of {_list(f'the {name} data' for name in domains)}.")
    labels, of_source = left.pop("labels", None), left.pop("labels_of_source", None)
    if isinstance(labels, Sequence):
        said.append(f"{_many(len(labels), 'label')}: {escaped(', '.join(map(str, labels)))}.")
    if isinstance(of_source, Mapping):
        for source, own in of_source.items():
            said.append(f"The {escaped(str(source))} data is annotated with {escaped(', '.join(map(str, own)))}.")
    dropped = left.pop("dropped", None)
    if isinstance(dropped, Mapping):
        gone = {why: count for why, count in dropped.items() if count}
        told = _list(f"{_many(count, 'record')} ({escaped(str(why))})" for why, count in gone.items())
        said.append(f"Left out: {told}." if gone else "Nothing was left out.")
    notes = left.pop("notes", None)
    if isinstance(notes, Sequence) and not isinstance(notes, str):
        said += [escaped(str(note)).rstrip(".") + "." for note in notes]
    files = left.pop("files", None)
    for name, value in left.items():
        words = _list(map(str, value)) if isinstance(value, list | tuple) else str(value)
        said.append(f"{escaped(name.replace('_', ' ').capitalize())}: {escaped(words)}.")
    lines = [said[0] if said else "", "", *(f"- {sentence}" for sentence in said[1:])]
    if isinstance(files, Mapping) and files:
        lines += ["", markdown_table(["file", "read as"], [[str(name), str(what)] for name, what in files.items()])]
    return "\n".join(lines).strip() + "\n"


@dataclass(frozen=True)
class StageEnd:
    """What became of one stage."""

    name: str
    mode: str
    state: str
    headline: str


@dataclass(frozen=True)
class Summary:
    """How a run ended. Texts that nobody knows are empty."""

    run_id: str
    status: str
    """Kubeflow's word: COMPLETE, FAILED, RUNNING after Terminate; kfp.local's SUCCEEDED."""
    stages: Sequence[StageEnd]
    decision: str
    reason: str
    result: str
    """The checkpoint of the last complete stage."""
    failures: Sequence[str]


_ENDS = {"COMPLETE": "Succeeded", "SUCCEEDED": "Succeeded", "FAILED": "Failed", "RUNNING": "Terminated"}


def summary(ended: Summary) -> str:
    """State, why it failed, verdict, checkpoint, stages: what one click on the run should tell."""
    lines = [f"**{_ENDS.get(ended.status, ended.status.capitalize())}**: run {escaped(ended.run_id)}", ""]
    lines += [f"- {escaped(failure)}" for failure in ended.failures]
    if ended.decision:
        decided = "Promoted" if ended.decision == "promote" else "Held back"
        lines.append(f"- {decided}: {escaped(ended.reason)}")
    if ended.result:
        lines.append(f"- Checkpoint: {escaped(ended.result)}")
    if ended.stages:
        rows = [[stage.name, stage.mode, stage.state, stage.headline] for stage in ended.stages]
        lines += ["", markdown_table(["stage", "how", "state", "headline"], rows)]
    return "\n".join(lines) + "\n"


def verdict(found: Verdict) -> str:
    """The decision, then each reason."""
    return "\n".join([f"**{_decision(found)}**", "", *(f"- {escaped(reason)}" for reason in _reasons(found))]) + "\n"


def _decision(found: Verdict) -> str:
    return "Promoted" if found.promotes else "Held back"


def _reasons(found: Verdict) -> list[str]:
    return [reason.strip() for reason in found.reason.split(";") if reason.strip()]


def few(metrics: Mapping[str, float], entry: FamilyEntry) -> dict[str, float]:
    """The metrics that say most, in the order in which every page and table has them: headlines, then what the terminal shows of an epoch, each on test
    where there was one."""
    wanted = [*entry.headlines, *entry.columns]
    names = [name for one in wanted for name in (re.sub(r"^val/", "test/", one), one) if name in metrics]
    chosen = dict.fromkeys(names)
    doubled = {name for name in chosen if name.startswith("val/") and f"test/{name.removeprefix('val/')}" in chosen}
    return {name: metrics[name] for name in [name for name in chosen if name not in doubled][:FEW]}


def figure(name: str, value: float) -> str:
    """A figure for people: a count as an integer, anything else with four decimals, and no negative zero."""
    if not math.isfinite(value):
        return str(value)
    if float(value).is_integer() and (abs(value) > 1 or _COUNTS.search(name)):
        return f"{int(value):,}"
    return f"{round(value, 4) + 0.0:.4f}"


def _many(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def _list(parts: Iterable[str]) -> str:
    said = list(parts)
    return ", ".join(said[:-1]) + f" and {said[-1]}" if len(said) > 1 else "".join(said)
