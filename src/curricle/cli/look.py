"""How things look in a terminal: the plan's table, progress bars, the table of runs."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any

import click
from rich.console import Console, ConsoleOptions, Group, RenderableType
from rich.filesize import decimal
from rich.markup import escape
from rich.progress import BarColumn, TaskID, TextColumn
from rich.progress import Progress as Bars
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from curricle.config.load import COMMAND_LINE, DEFAULT, leaves
from curricle.masking import masked, visible
from curricle.planning import ChainPlan
from curricle.registry import canonical, family
from curricle.steps.estimate import Estimate
from curricle.steps.gate import Scores, Verdict
from curricle.steps.show import EARLIER, said_most
from curricle.steps.train import StageOutcome
from curricle.training.events import (
    Epoch,
    Event,
    Log,
    Resumed,
    StageDone,
    StageStarted,
    Step,
    Warned,
    Working,
    duration,
    figures,
    sentence,
)
from curricle.training.pulse import Phase, Pulse, silent, working


class Screen(Console):
    """Shows texts as they are: a name in a store, or a line of a job's log, steers no terminal."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterator[Segment]:
        for part in super().render(renderable, options):
            yield part if part.control else Segment(visible(part.text), part.style)


console = Screen(width=None if sys.stdout.isatty() else 140, emoji=False)
HYPERPARAMETERS = ("training.", "data_loader.", "model.")
STYLE = {"scratch": "cyan", "continued": "green", "reuse": "yellow", "skip": "dim"}


def leave_standard_output() -> None:
    """Print for people on standard error until the command ends: standard output holds data alone."""
    console.stderr = True
    click.get_current_context().call_on_close(lambda: setattr(console, "stderr", False))


def plain_table(title: str = "") -> Table:
    """A table without lines, its title at the left; columns and rows are the caller's."""
    return Table(box=None, padding=(0, 2, 0, 0), title=escape(title) or None, title_justify="left")


def plan_table(plan: ChainPlan, values: bool, expected: Mapping[str, Estimate] | None = None) -> None:
    """Print a plan: its stages with what they are expected to take, and on request every value with its origin."""
    expected = expected or {}
    timed = {name: made for name, made in expected.items() if made.seconds}
    counted = any(made.steps is not None for made in expected.values())
    narrow = console.width < NARROW
    columns = ["stage", "start", "why", "epochs", *(["records", "steps"] if counted else [])]
    columns += [] if narrow else ["lr", *(["about"] if timed else []), "digest"]
    table = plain_table(f"{plan.chain_name} → {plan.run_id} in {plan.store_uri}")
    for name in columns:
        table.add_column(name, style="bold" if name == "stage" else None, overflow="fold", justify="right" if name in ("epochs", "records", "steps") else "left")  # fmt: skip
    for stage in plan.stages:
        training, made = stage.config["training"], expected.get(stage.name)
        cells = {
            "stage": escape(stage.name),
            "start": f"[{STYLE[stage.start]}]{stage.start}[/]",
            "why": escape(stage.reason),
            "epochs": "-" if made and made.records == 0 else str(training["trainer"]["max_epochs"]),
            "records": _count(made.records if made else None),
            "steps": _count(made.steps if made else None),
            "lr": "by encoder" if training["learning_rate"] is None else f"{training['learning_rate']:g}",
            "about": _about(made),
            "digest": stage.digest[:12],
        }
        table.add_row(*(cells[name] for name in columns))
    console.print(table)
    for line in _told_of(expected, timed):
        console.print(line, style="dim", highlight=False, markup=False)
    if not values:
        return
    before: dict[str, Any] = {}
    for stage in plan.stages:
        console.print(
            f"\n[bold]{escape(stage.name)}[/]  data {escape(stage.data_uri)}  place {escape(stage.uri)}",
            highlight=False,
        )
        if stage.parent_uri:
            console.print(f"  parent {stage.parent_uri}", highlight=False, markup=False)
        if stage.argv:
            console.print(f"  argv   python {' '.join(stage.argv)}", highlight=False, markup=False, soft_wrap=True)
        values_now = leaves(stage.config)
        widths = (max(map(len, values_now)) + 1, 12) if narrow else (44, 36)
        for key, value in sorted(values_now.items()):
            origin = stage.origins.get(key, DEFAULT)
            style = {DEFAULT: "dim", COMMAND_LINE: "bold green"}.get(origin, "green")
            origin = origin.rpartition("/")[2] if narrow else origin
            change = ""
            if key in before and key.startswith(HYPERPARAMETERS):
                change = (
                    "  [dim]inherited[/]"
                    if before[key] == value
                    else f"  [yellow]overrides {escape(_short(before[key]))}[/]"
                )
            console.print(
                f"  {escape(f'{key:<{widths[0]}} {_short(value):<{widths[1]}}')} [{style}]{escape(origin)}[/]{change}",
                highlight=False,
                soft_wrap=True,
            )
        before = values_now


NARROW = 110
"""Columns from which on a plan is shown whole; below them learning rate, time and digest of each stage, and folders of files, are left out."""


def _told_of(expected: Mapping[str, Estimate], timed: Mapping[str, Estimate]) -> Iterator[str]:
    """What the figures of a plan rest on, and when those that are not there will be known."""
    if timed:
        told = duration(sum(made.seconds for made in timed.values()))
        places = ", ".join(dict.fromkeys(made.place for made in timed.values()))
        yield f"about {told} {'in all' if len(timed) == len(expected) else f'for {len(timed)} of {len(expected)} stages'}, as {places} took"
    elif expected:
        yield "time and memory: told once a stage trains; the store holds no like one to go by"
    if any(made.records is None for made in expected.values()):
        yield "no records and steps: the data is not prepared yet, or does not tell"


def _count(number: int | None) -> str:
    return "" if number is None else f"{number:,}"


def _about(made: Estimate | None) -> str:
    if made is None or not made.seconds:
        return ""
    memory = f", {made.memory_mb / 1024:.1f} GB" if made.memory_mb else ""
    return f"{duration(made.seconds)}{memory}"


def _ago(when: str) -> str:
    """How long ago a time in UTC was, ``2 h ago``."""
    try:
        past = (datetime.now(UTC) - datetime.fromisoformat(when)).total_seconds()
    except ValueError:
        return ""
    return f"{duration(max(0.0, past))} ago"


def show_notes(notes: Iterable[str]) -> None:
    """Print what was decided before a plan, one sentence a line."""
    for note in notes:
        console.print(f"  {note}", style="dim", highlight=False, markup=False)


def _short(value: Any) -> str:
    if value is None:
        return "null"
    return f"{value:g}" if isinstance(value, float) else str(value)


STATE = {
    "complete": "green", "running": "cyan", "failed": "red", "unreadable plan": "red", "damaged": "red", "missing": "red", "stopped": "yellow",
}  # fmt: skip
"""Colours of states; others have none."""


def show_held(model: str, setting: str, stage: str, store_uri: str) -> None:
    """Say where a model stays that the gate held back, and the two ways to promote it all the same.

    Args:
        model: its place.
        setting: what the same command takes in addition.
        stage: what `curricle promote` is told.
    """
    for line in (
        f"not promoted; the trained model stays at {model}",
        f"to promote it all the same: this command again with {setting} (trains nothing again),",
        f"or curricle promote {shlex.quote(stage)} --store {shlex.quote(store_uri)}",
    ):
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def runs_table(rows: list[dict[str, Any]], store_uri: str = "checkpoints") -> RenderableType:
    """Runs of a store, one a row, the newest last."""
    if not rows:
        gone = "://" not in store_uri and not Path(store_uri).expanduser().exists()
        return Text(f"no runs in {masked(store_uri)}{': there is no such folder' if gone else ''}")
    table = plain_table()
    table.add_column("run", style="bold", overflow="fold")
    for name in ("state", "stages", "best", "changed", "size"):
        table.add_column(name, overflow="fold", no_wrap=name in ("stages", "size"))
    for row in rows:
        table.add_row(
            escape(row["run"]),
            _state(row["state"]),
            f"{row['complete']} of {row['planned']}",
            f"{escape(row['best'])}{' [green]promoted[/]' if row['promoted'] else ''}".strip(),
            _ago(row["changed"]),
            decimal(row["bytes"]),
        )
    return Group(table, *(Text(said, STATE["failed"]) for row in rows for said in row["damaged"]))


def run_table(rows: list[dict[str, Any]]) -> RenderableType:
    """The stages of one run, one a row, and below it what has to be told at length; what is the same for all stands in the title."""
    families = sorted({row["family"] for row in rows if row["family"]})
    table = plain_table(f"{rows[0]['run']}  {', '.join(families)}".rstrip())
    table.add_column("stage", style="bold", overflow="fold")
    for name in ("state", "start", "epochs"):
        table.add_column(name, no_wrap=True)
    table.add_column("when", no_wrap=True)
    table.add_column("best", overflow="fold", ratio=1)
    told: list[RenderableType] = []
    for row in rows:
        complete, marks = row["state"] == "complete", [EARLIER] * row["earlier"] + ["promoted"] * row["promoted"]
        said = [*(f"[green]{mark}[/]" if mark == "promoted" else mark for mark in marks)]
        table.add_row(
            escape(row["stage"]),
            _state(row["state"]),
            escape(row["start"]),
            "" if row["epochs"] is None else str(row["epochs"]),
            _ago(row["created"]),
            "; ".join([*said, *([escape(row["detail"])] if complete and row["detail"] else [])]),
            style="dim" if row["earlier"] else None,
        )
        if row["detail"] and not complete:
            told.append(Text.assemble((f"{row['stage'] or row['run']} ", "bold"), f"{row['state']}: {row['detail']}"))
        told += [Text(said, STATE["failed"]) for said in row["damaged"]]
    return Group(table, *told)


def _state(state: str) -> str:
    return f"[{STATE.get(state, 'default')}]{escape(state)}[/]"


def finished_table(outcomes: Sequence[tuple[str, str, StageOutcome]], took: Mapping[str, float]) -> None:
    """Print what a chain has made.

    Args:
        outcomes: each stage's name, how it started, and what came of it.
        took: seconds of those that were trained now.
    """
    table = plain_table()
    table.add_column("stage", style="bold", overflow="fold")
    for name in ("start", "epochs", "best", "time", "where"):
        table.add_column(name, overflow="fold")
    for name, start, outcome in outcomes:
        shown = said_most(outcome.metrics, canonical(outcome.manifest.info.get("family")))
        table.add_row(
            escape(name),
            f"[{STYLE.get(start, 'default')}]{escape(start)}[/]",
            str(outcome.manifest.info.get("epochs", "")),
            escape(shown[0]) if shown else "",
            duration(took[name]) if name in took else "",
            escape("/".join(outcome.uri.split("/")[-2:])),
        )
    console.print(table, highlight=False)


def show_verdict(scores: Scores, verdict: Verdict) -> None:
    """Print the scores before and after by domain, as far as they were measured, and what was decided."""
    before, full = scores.before, scores.full
    if scores.after:
        table = plain_table("scores by domain")
        apart = any(abs(full.get(domain, value) - value) >= 5e-5 for domain, value in scores.after.items())
        for name in ("domain", "before", "after", "change", *(["all labels before", "after"] if apart else [])):
            table.add_column(name, justify="left" if name == "domain" else "right")
        for domain, value in sorted(scores.after.items()):
            change = f"{value - before[domain]:+.4f}" if domain in before else "-"
            beside = [_figure(scores.full_before, domain), _figure(full, domain)] if apart else []
            table.add_row(domain, _figure(before, domain), f"{value:.4f}", change, *beside)
        console.print()
        console.print(table)
    style = "green" if verdict.promotes else "yellow"
    console.print(f"[bold {style}]{verdict.decision}[/]: {escape(verdict.reason)}", highlight=False)


def _figure(scores: Mapping[str, float], domain: str) -> str:
    return f"{scores[domain]:.4f}" if domain in scores else "-"


class Count:
    """Shows how far a count is, and how long the rest will take: a bar on standard error in a terminal, elsewhere the lines of the command's pulse. To be
    called with (done, all)."""

    def __init__(self, what: str) -> None:
        self.what, self.phase = what, Phase(what)
        self.bar: TaskID | None = None
        shown = Console(stderr=True, emoji=False)
        self.bars = Bars(TextColumn("[bold]{task.description}"), BarColumn(bar_width=20), TextColumn("{task.fields[note]}"), console=shown, transient=True, disable=not shown.is_terminal)  # fmt: skip
        self.open = ExitStack()

    def __enter__(self) -> Count:
        if not self.bars.disable:
            self.open.enter_context(self.bars)
            self.open.enter_context(silent())
        return self

    def __exit__(self, *error: object) -> None:
        self.open.close()

    def __call__(self, done: int, total: int) -> None:
        if self.bar is None:
            self.phase = self.open.enter_context(working(self.what))
            self.bar = self.bars.add_task(self.what, total=total, note="")
        self.phase.count(done, total)
        note = self.phase.text().removeprefix(f"{self.what}: ")
        self.bars.update(self.bar, completed=done, total=total, note=note)


class Progress:
    """Shows a chain's events: a bar a stage in a terminal, elsewhere a line every `pulse.EVERY` seconds, whatever goes on; all but the single steps also
    go to a file.

    Args:
        log: that file; it is appended to, from the first stage on: what ends before leaves nothing. One that cannot be written is said, and done
            without.
    """

    def __init__(self, log: Path | None = None) -> None:
        self.bars = Bars(
            TextColumn("[bold]{task.description}"),
            BarColumn(bar_width=20),
            TextColumn("{task.fields[note]}"),
            console=console,
            disable=not console.is_terminal,
        )
        self.bar: TaskID | None = None
        self.columns: tuple[str, ...] = ()
        """Metrics of an epoch that are shown: the family's."""
        self.took: dict[str, float] = {}
        """Seconds of each stage that was trained."""
        self.log, self.begun = log, False
        self.epochs, self.started = 0, 0.0
        self.pulse, self.under_way = Pulse(self._still), ExitStack()
        self.phase = Phase("")
        """What the stage's job is at, as far as its events say."""
        self.headline = ""
        self.first: tuple[float, int] | None = None
        """When the first step of this attempt was heard of, and its number in the stage."""

    def __enter__(self) -> Progress:
        self.bars.start()
        self.pulse.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.under_way.close()
        self.pulse.stop()
        self.bars.stop()
        if error is not None:
            self._write(f"ended: {error or type(error).__name__}")

    def __call__(self, event: Event) -> None:
        match event:
            case StageStarted():
                self._begin(event)
            case Resumed():
                self.first = None
                self.say(f"  {sentence(event)}")
            case Warned(message):
                self.say(f"  [yellow]warning:[/] {escape(message)}")
            case Working(_, done, total):
                self.phase.hear(event)
                self._note(self.phase.text(), done, total)
            case Step():
                self._advance(event)
            case Epoch():
                self._show_epoch(event)
            case StageDone():
                self._end(event)
            case Log(line) if line.strip():
                console.print(f"  {line}", markup=False, highlight=False, style="dim")
                self._write(line)

    def _begin(self, event: StageStarted) -> None:
        self.begun = True
        self.epochs, self.headline, self.first = event.epochs, "", None
        self.started = time.monotonic()
        self.pulse.restart()
        self.columns = family(event.family).columns
        self.bar = None
        self.say(f"[{STYLE[event.start]}]{event.start:<9}[/] [bold]{escape(event.name)}[/]  {escape(event.reason)}")
        if event.start not in ("reuse", "skip"):
            self.bar = self.bars.add_task(event.name, total=None, note="starting")
            self.under_way.close()
            self.phase = self.under_way.enter_context(working("starting the job"))

    def _advance(self, event: Step) -> None:
        done, total, now = (event.epoch - 1) * event.steps + event.step, self.epochs * event.steps, time.monotonic()
        self.first = self.first or (now, done)
        seconds, steps = now - self.first[0], done - self.first[1]
        facts = [f"epoch {event.epoch}/{self.epochs}", f"step {event.step}/{event.steps}", f"loss {event.loss:.4f}"]
        facts += [self.headline] if self.headline else []
        if steps and seconds > 1:
            facts += [f"{event.examples * steps / seconds:.0f} records/s"] if event.examples else []
            facts += [f"{duration((total - done) * seconds / steps)} left"] if total >= done else []
        self.phase.at("  ".join(facts), lasting="no further step for {}")
        self._note(self.phase.what, done, total)

    def _note(self, text: str, done: int, total: int) -> None:
        """What goes on at present: beside the bar, else now and then as a line."""
        if self.bar is not None:
            self.bars.update(self.bar, completed=done, total=total or None, note=escape(text))
        self.pulse.beat()

    def _still(self, text: str) -> None:
        """What goes on, where nothing else was told of it for a while."""
        if not console.is_terminal:
            console.print(f"  {text}", highlight=False, markup=False)
        self._write(text)

    def _show_epoch(self, event: Epoch) -> None:
        names = [name for name in self.columns if name in event.metrics] or list(event.metrics)[:5]
        self.headline = next((f"{n} {event.metrics[n]:.4f}" for n in names if n.startswith("val/")), "")
        shown = figures({name: event.metrics[name] for name in names})
        self.say(f"  epoch {event.epoch:>2}  {escape(shown)}{' *' if event.best else ''}")

    def _end(self, event: StageDone) -> None:
        self.under_way.close()
        if event.start not in ("reuse", "skip"):
            elsewhere = event.seconds is not None
            self.took[event.name] = event.seconds if event.seconds is not None else time.monotonic() - self.started
            if self.bar is not None:
                self.bars.remove_task(self.bar)
                self.bar = None
            by = " by another process" if elsewhere else ""
            self.say(f"  complete in {duration(self.took[event.name])}{by} → {escape(event.uri)}")

    def say(self, text: str) -> None:
        """One lasting line above the bars, in rich's markup."""
        console.print(text, highlight=False)
        self._write(Text.from_markup(text).plain)

    def _write(self, line: str) -> None:
        if self.log is None or not self.begun:
            return
        try:
            self.log.parent.mkdir(parents=True, exist_ok=True)
            with self.log.open("a", encoding="utf-8", errors="replace") as file:
                file.write(f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} {masked(line.strip())}\n")
        except OSError as error:
            console.print(
                f"  warning: no log file is kept: {self.log} cannot be written ({error.strerror})",
                highlight=False,
                markup=False,
            )
            self.log = None
