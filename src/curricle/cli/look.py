"""How things look in a terminal: the plan's table, progress bars, the table of runs."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars
from rich.table import Table

from curricle.config.load import COMMAND_LINE, DEFAULT, leaves
from curricle.planning import ChainPlan
from curricle.registry import family
from curricle.steps.show import EARLIER
from curricle.training.events import (
    Epoch,
    Event,
    Log,
    Resumed,
    StageDone,
    StageStarted,
    Step,
    Warned,
    figures,
    sentence,
)

console = Console(width=None if sys.stdout.isatty() else 140, emoji=False)
HYPERPARAMETERS = ("training.", "data_loader.", "model.")
STYLE = {"scratch": "cyan", "continued": "green", "reuse": "yellow", "skip": "dim"}


def plan_table(plan: ChainPlan, values: bool) -> None:
    """Print a plan: its stages, and on request every value with its origin."""
    table = Table(
        title=escape(f"{plan.chain_name} → {plan.run_id} in {plan.store_uri}"),
        title_justify="left",
        box=None,
        padding=(0, 2, 0, 0),
    )
    for name in ("stage", "start", "why", "epochs", "lr", "digest"):
        table.add_column(name, style="bold" if name == "stage" else None, overflow="fold")
    for stage in plan.stages:
        training = stage.config["training"]
        table.add_row(
            escape(stage.name),
            f"[{STYLE[stage.start]}]{stage.start}[/]",
            escape(stage.reason),
            str(training["trainer"]["max_epochs"]),
            "by encoder" if training["learning_rate"] is None else f"{training['learning_rate']:g}",
            stage.digest[:12],
        )
    console.print(table)
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
        for key, value in sorted(values_now.items()):
            origin = stage.origins.get(key, DEFAULT)
            style = {DEFAULT: "dim", COMMAND_LINE: "bold green"}.get(origin, "green")
            change = ""
            if key in before and key.startswith(HYPERPARAMETERS):
                change = (
                    "  [dim]inherited[/]"
                    if before[key] == value
                    else f"  [yellow]overrides {escape(_short(before[key]))}[/]"
                )
            console.print(
                f"  {escape(f'{key:<44} {_short(value):<36}')} [{style}]{escape(origin)}[/]{change}",
                highlight=False,
                soft_wrap=True,
            )
        before = values_now


def show_notes(notes: Iterable[str]) -> None:
    """Print what was decided before a plan, one sentence a line."""
    for note in notes:
        console.print(f"  {note}", style="dim", highlight=False, markup=False)


def _short(value: Any) -> str:
    if value is None:
        return "null"
    return f"{value:g}" if isinstance(value, float) else str(value)


STATE = {"complete": "green", "failed": "red", "interrupted": "yellow"}
"""Colours of a stage's states; others have none."""


def runs_table(rows: list[dict[str, Any]]) -> None:
    """Print runs, one a row."""
    table = Table(box=None, padding=(0, 2, 0, 0))
    for name in ("run", "stages"):
        table.add_column(name, style="bold" if name == "run" else None, overflow="fold")
    for row in rows:
        table.add_row(escape(row["run"]), escape(row["stages"]))
    console.print(table if rows else "no runs", highlight=False)


def run_table(rows: list[dict[str, Any]]) -> None:
    """Print the stages of one run, one a row; what is the same for all stands in the title."""
    families = sorted({row["family"] for row in rows if row["family"]})
    table = Table(
        title=escape(f"{rows[0]['run']}  {', '.join(families)}".rstrip()),
        title_justify="left",
        box=None,
        padding=(0, 2, 0, 0),
    )
    table.add_column("stage", style="bold", overflow="fold")
    for name in ("state", "start"):
        table.add_column(name, no_wrap=True)
    table.add_column("created (UTC)", no_wrap=True)
    table.add_column("best, or why", overflow="fold", ratio=1)
    for row in rows:
        style = STATE.get(row["state"], "default")
        said = "; ".join(filter(None, (EARLIER if row["earlier"] else "", row["detail"])))
        table.add_row(
            escape(row["stage"]),
            f"[{style}]{escape(row['state'])}[/]",
            escape(row["start"]),
            escape(row["created"][:16].replace("T", " ")),
            escape(said),
            style="dim" if row["earlier"] else None,
        )
    console.print(table, highlight=False)


class Progress:
    """Shows a chain's events: a bar a stage in a terminal, lines elsewhere."""

    def __init__(self) -> None:
        self.bars = Bars(
            TextColumn("[bold]{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[note]}"),
            TimeElapsedColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self.bar: TaskID | None = None
        self.columns: tuple[str, ...] = ()
        """Metrics of an epoch that are shown: the family's."""
        self.started = 0.0

    def __enter__(self) -> Progress:
        self.bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bars.stop()

    def __call__(self, event: Event) -> None:
        match event:
            case StageStarted():
                self._begin(event)
            case Resumed():
                self.say(f"  {sentence(event)}")
            case Warned(message):
                self.say(f"  [yellow]warning:[/] {escape(message)}")
            case Step():
                self._advance(event)
            case Epoch():
                self._show_epoch(event)
            case StageDone():
                self._end(event)
            case Log(line) if line.strip():
                console.print(f"  {line}", markup=False, highlight=False, style="dim")

    def _begin(self, event: StageStarted) -> None:
        self.started = time.monotonic()
        self.columns = family(event.family).columns
        self.bar = None
        self.say(f"[{STYLE[event.start]}]{event.start:<9}[/] [bold]{escape(event.name)}[/]  {escape(event.reason)}")
        if event.start not in ("reuse", "skip"):
            self.bar = self.bars.add_task(event.name, total=None, note="starting")

    def _advance(self, event: Step) -> None:
        if self.bar is not None:
            self.bars.update(
                self.bar,
                completed=event.step,
                total=event.steps,
                note=f"epoch {event.epoch}  loss {event.loss:.4f}",
            )

    def _show_epoch(self, event: Epoch) -> None:
        names = [name for name in self.columns if name in event.metrics] or list(event.metrics)[:5]
        shown = figures({name: event.metrics[name] for name in names})
        self.say(f"  epoch {event.epoch:>2}  {escape(shown)}{' *' if event.best else ''}")

    def _end(self, event: StageDone) -> None:
        if self.bar is not None:
            self.bars.remove_task(self.bar)
            self.bar = None
            self.say(f"  complete in {time.monotonic() - self.started:.0f} s → {escape(event.uri)}")

    def say(self, text: str) -> None:
        """One lasting line above the bars."""
        console.print(text, highlight=False)
