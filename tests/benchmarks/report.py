"""A benchmark's result as files: one JSON and one Markdown table, each with all that is needed to run it again and to judge it."""

from __future__ import annotations

import json
import os
import platform
import shlex
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
OUTPUT = Path("outputs/benchmarks")
PACKAGES = ("torch", "transformers", "peft", "numpy", "scikit-learn")


def write_report(name: str, rows: list[dict], out: Path, *, seeds: list[int], notes: list[str] = []) -> None:  # noqa: B006 (only read)
    """Write `<out>/<name>.json` and `<out>/<name>.md`, and print the latter.

    Args:
        rows: one dictionary a line of the table; columns appear in the order in which they first occur, absent cells are empty.
        seeds: of the trainings or draws that were measured.
        notes: what a reader must know to read the table rightly.
    """
    facts = {
        "command": command(),
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "machine": machine(),
        "versions": versions(),
        "seeds": seeds,
    }
    out.mkdir(parents=True, exist_ok=True)
    record = {"name": name, **facts, "rows": rows, "notes": notes}
    (out / f"{name}.json").write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    host, held = facts["machine"], facts["versions"]
    lines = [
        f"# {name}", "", *table(rows), "", *(f"- {note}" for note in notes), *([""] if notes else []),
        f"- command: `{facts['command']}`",
        f"- machine: {host['cpu']}, {host['cores']} cores{', ' + host['gpu'] if host['gpu'] else ''}; {host['threads']} thread(s) of torch",
        f"- versions: {', '.join(f'{k} {v}' for k, v in held.items())}",
        f"- seeds: {', '.join(map(str, seeds)) or 'none'}",
        f"- measured: {facts['date']}",
    ]  # fmt: skip
    text = "\n".join(lines) + "\n"
    (out / f"{name}.md").write_text(text, encoding="utf-8")
    print(text)


def table(rows: list[dict]) -> list[str]:
    """The rows as lines of a Markdown table."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    body = [[cell(row.get(column)) for column in columns] for row in rows]
    return ["| " + " | ".join(line) + " |" for line in (columns, ["---"] * len(columns), *body)]


def cell(value: Any) -> str:
    """A value as a person reads it: four digits that count, thousands apart."""
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) else str(value).replace("|", "\\|")


def command() -> str:
    """The command line of this process, as one would type it."""
    return shlex.join(["python", *sys.orig_argv[1:]])


def machine() -> dict[str, Any]:
    """Processor, cores that this process may use, GPU if torch sees one."""
    import torch

    info = Path("/proc/cpuinfo")
    names = (
        [line.partition(":")[2].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
        if info.is_file()
        else []
    )
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else ""
    return {
        "cpu": names[0] if names else platform.processor() or platform.machine(),
        "cores": cores,
        "gpu": gpu,
        "threads": torch.get_num_threads(),
    }


def versions() -> dict[str, str]:
    """Python, the packages that decide the figures, and the commit of this repository."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return {**found, "curricle": commit()}


def commit() -> str:
    """The commit this file stands at, with `+changes` where tracked files differ from it."""

    def git(*arguments: str) -> str:
        done = subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, text=True)
        return done.stdout.strip() if done.returncode == 0 else ""

    head = git("rev-parse", "--short=12", "HEAD")
    return (head or "no git checkout") + (
        "+changes" if head and git("status", "--porcelain", "--untracked-files=no") else ""
    )
