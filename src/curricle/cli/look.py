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
from curricle.plan import ChainPlan
from curricle.registry import family

console = Console(width=None if sys.stdout.isatty() else 140)
HYPERPARAMETERS = ("training.", "data_loader.", "model.")
STYLE = {"scratch": "cyan", "continued": "green", "reuse": "yellow", "skip": "dim"}


def plan_table(plan: ChainPlan, values: bool) -> None:
    """Print a plan: its stages, and on request every value with its origin."""
    table = Table(
        title=f"{plan.chain_name} → {plan.run_id} in {plan.store_uri}",
        title_justify="left",
        box=None,
        padding=(0, 2, 0, 0),
    )
    for name in ("stage", "start", "why", "epochs", "lr", "digest"):
        table.add_column(name, style="bold" if name == "stage" else None, overflow="fold")
    for stage in plan.stages:
        training = stage.config["training"]
        table.add_row(
            stage.name,
            f"[{STYLE[stage.start]}]{stage.start}[/]",
            stage.reason,
            str(training["trainer"]["max_epochs"]),
            "by encoder" if training["learning_rate"] is None else f"{training['learning_rate']:g}",
            stage.digest[:12],
        )
    console.print(table)
    if not values:
        return
    before: dict[str, Any] = {}
    for stage in plan.stages:
        console.print(f"\n[bold]{stage.name}[/]  data {stage.data_uri}  place {stage.uri}", highlight=False)
        if stage.parent_uri:
            console.print(f"  parent {stage.parent_uri}", highlight=False)
        if stage.argv:
            console.print(f"  argv   python {' '.join(stage.argv)}", highlight=False)
        values_now = leaves(stage.config)
        for key, value in sorted(values_now.items()):
            origin = stage.origins.get(key, DEFAULT)
            style = "dim" if origin == DEFAULT else "bold green" if origin == COMMAND_LINE else "green"
            change = ""
            if key in before and key.startswith(HYPERPARAMETERS):
                change = (
                    "  [dim]inherited[/]" if before[key] == value else f"  [yellow]overrides {_short(before[key])}[/]"
                )
            console.print(
                f"  {key:<44} {_short(value):<36} [{style}]{origin}[/]{change}", highlight=False, soft_wrap=True
            )
        before = values_now


def show_notes(notes: Iterable[str]) -> None:
    """Print what was decided before a plan, one sentence a line."""
    for note in notes:
        console.print(f"  {note}", style="dim", highlight=False, markup=False)


def _short(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else "null" if value is None else str(value)


def runs_table(rows: list[dict[str, Any]]) -> None:
    """Print runs or stages, one a row; the columns are the rows' keys."""
    table = Table(box=None, padding=(0, 2, 0, 0))
    keys = list(dict.fromkeys(key for row in rows for key in row))
    for key in keys:
        table.add_column(key, overflow="fold")
    for row in rows:
        table.add_row(*(_short(row.get(key, "")) for key in keys))
    console.print(table if rows else "no runs")


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
        self.stage = ""
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

    def __call__(self, event: dict[str, Any]) -> None:
        handler = getattr(self, f"on_{event['event']}", None)
        if handler:
            handler(event)

    def on_stage(self, event: dict[str, Any]) -> None:
        self.stage, self.started = event["name"], time.monotonic()
        self.columns = family(event["family"]).columns
        self.bar = None
        self.say(f"[{STYLE[event['start']]}]{event['start']:<9}[/] [bold]{event['name']}[/]  {event['reason']}")
        if event["start"] not in ("reuse", "skip"):
            self.bar = self.bars.add_task(event["name"], total=None, note="starting")

    def on_resumed(self, event: dict[str, Any]) -> None:
        self.say(f"  resumed at epoch {event.get('epoch')}, step {event.get('step')}")

    def on_warning(self, event: dict[str, Any]) -> None:
        self.say(f"  [yellow]warning:[/] {escape(event['message'])}")

    def on_step(self, event: dict[str, Any]) -> None:
        if self.bar is not None:
            self.bars.update(
                self.bar,
                completed=event["step"],
                total=event["steps"],
                note=f"epoch {event['epoch']}  loss {event['loss']:.4f}",
            )

    def on_epoch(self, event: dict[str, Any]) -> None:
        known = [key for key in self.columns if key in event] or [
            key for key, value in event.items() if isinstance(value, float)
        ][:5]
        mark = " *" if event.get("best") else ""
        self.say(f"  epoch {event['epoch']:>2}  " + "  ".join(f"{key} {event[key]:.4f}" for key in known) + mark)

    def on_stage_done(self, event: dict[str, Any]) -> None:
        if self.bar is not None:
            self.bars.remove_task(self.bar)
            self.bar = None
            self.say(f"  complete in {time.monotonic() - self.started:.0f} s → {event['uri']}")

    def on_log(self, event: dict[str, Any]) -> None:
        if event["line"].strip():
            console.print(f"  {event['line']}", markup=False, highlight=False, style="dim")

    def say(self, text: str) -> None:
        """One lasting line above the bars."""
        console.print(text, highlight=False)
