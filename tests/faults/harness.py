"""The kill harness: starts a command, kills one of its processes at a chosen moment, runs the same command again, and looks at what is left.

A trial is a few kills in one folder, then the command to its end; its result must be what an uninterrupted run makes, with no process and
no file left over. Processes are found by their environment: all that a trial starts has the trial's folder as TMPDIR. Linux only.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from safetensors.torch import load_file

from curricle.store import layout
from curricle.store.local import is_part
from curricle.store.process import process_start

ROOT = Path(__file__).parents[2]
POLL = 0.003
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
ORPHAN_SECONDS = 15
"""Longest grace of ranks that save (7 s), and what a busy machine adds."""
START, RANDOM = "its start", "at random"
"""Moments that no file tells of: right after the start of the process to be killed, and anywhere in the command's life."""
LONGEST = 90
"""Seconds that a command may take; one that takes longer hangs."""


@dataclass(frozen=True)
class Work:
    """A command under test, in a folder that `prepare` fills with its inputs."""

    name: str
    ranks: int
    prepare: Callable[[Path], None]
    program: Callable[[Path], list[str]]
    """Arguments after ``python``."""
    moments: dict[str, tuple[str, ...]]
    """Moment → patterns of paths below the folder, of which one appears or changes then; none for `START` and `RANDOM`."""
    targets: tuple[str, ...]
    results: tuple[str, ...] = ("store",)
    """What is compared: files and folders below the trial's."""


@dataclass
class Kill:
    """One kill, and what came of it."""

    work: str
    ranks: int
    target: str
    signal: str
    moment: str
    outcome: str = ""
    """How the command ended then; `missed` where the moment, or the process, never came."""
    orphans: list[str] = field(default_factory=list)
    equal: str = ""
    """Empty, or the first difference to an uninterrupted run."""
    leftovers: list[str] = field(default_factory=list)

    @property
    def well(self) -> bool:
        """Whether nothing is wrong."""
        return not (self.orphans or self.equal or self.leftovers or self.outcome == "hangs")


@dataclass(frozen=True)
class Process:
    """A process of a trial."""

    pid: int
    parent: int
    command: str


def processes(folder: Path) -> list[Process]:
    """All live processes of a trial."""
    mark = f"TMPDIR={folder}/tmp".encode()
    alive = []
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            try:
                if mark in Path(entry.path, "environ").read_bytes().split(b"\0"):
                    command = Path(entry.path, "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                    state, parent = Path(entry.path, "stat").read_text().rpartition(")")[2].split()[:2]
                    if state not in "ZX":
                        alive.append(Process(int(entry.name), int(parent), command))
            except OSError:  # ended meanwhile
                continue
    return alive


def target_of(target: str, command: int, folder: Path) -> int | None:
    """The number of the process to kill: ``command``, ``agent``, ``rank``, ``last rank`` or ``data worker``; None where there is none now."""
    if target == "command":
        return command
    alive = sorted(processes(folder), key=lambda process: process.pid)
    agents = [p.pid for p in alive if "curricle.launch.agent" in p.command]
    if target == "agent":
        return next(iter(agents), None)
    parents = [command] if target == "data worker" else agents
    children = [p.pid for p in alive if p.parent in parents and p.pid not in agents]
    return next(iter(reversed(children) if target == "last rank" else children), None)


class Trial:
    """One folder in which a command is started again and again."""

    def __init__(self, work: Work, folder: Path):
        self.work, self.folder = work, folder
        (folder / "tmp").mkdir(parents=True)
        work.prepare(folder)

    def start(self) -> subprocess.Popen[bytes]:
        """Start the command; what it prints is added to ``log`` in the folder."""
        environment = {
            **os.environ,
            "TMPDIR": f"{self.folder}/tmp",
            "PYTHONPATH": os.pathsep.join([str(self.folder), str(ROOT / "src"), str(ROOT)]),
            "OMP_NUM_THREADS": "1",
        }
        with open(self.folder / "log", "ab") as log:
            return subprocess.Popen(
                [sys.executable, *self.work.program(self.folder)],
                cwd=self.folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a job in the background ignores it
            )

    def finish(self) -> str:
        """Run the command to its end; how it ended where that is not well."""
        for _ in range(2):  # a kill may have been told to the next command only
            code = _end(self.start())
            if code == "0":
                return ""
        return f"the command ends with {code}: {(self.folder / 'log').read_text(errors='replace')[-1500:]}"

    def kill(self, target: str, number: signal.Signals, moment: str, delay: float) -> Kill:
        """Start the command, kill a process of it so many seconds after the moment, and wait for the end of all its processes."""
        made = Kill(self.work.name, self.work.ranks, target, number.name, moment)
        command = self.start()
        patterns = self.work.moments[moment]
        before = set(self._matches(patterns))
        while command.poll() is None and patterns and not set(self._matches(patterns)) - before:
            time.sleep(POLL)
        victim = None
        while command.poll() is None and (victim := target_of(target, command.pid, self.folder)) is None:
            time.sleep(POLL)
        time.sleep(delay)
        if victim is None or command.poll() is not None:
            made.outcome = "missed"
        else:
            try:
                os.kill(victim, number)
            except ProcessLookupError:
                made.outcome = "missed"
        ended = _end(command)
        made.outcome = ended if ended == "hangs" else made.outcome or ended
        made.orphans = self._orphans()
        return made

    def _matches(self, patterns: tuple[str, ...]) -> Iterator[tuple[str, int]]:
        for pattern in patterns:
            for path in self.folder.glob(pattern):
                try:
                    yield str(path), path.stat().st_mtime_ns
                except FileNotFoundError:
                    continue

    def _orphans(self) -> list[str]:
        end = time.monotonic() + ORPHAN_SECONDS
        while (alive := processes(self.folder)) and time.monotonic() < end:
            time.sleep(0.05)
        for process in alive:
            if process_start(process.pid) is not None:
                os.kill(process.pid, signal.SIGKILL)
        return [process.command for process in alive]

    def leftovers(self) -> list[str]:
        """Files and folders that only a process at work needs, below the folder."""
        names = {layout.CLAIM, layout.HEARTBEAT, layout.SPARE, layout.FAILURE}
        return sorted(
            path.relative_to(self.folder).as_posix()
            for path in self.folder.rglob("*")
            if is_part(path.name)
            or path.name in names
            or (path.parent == self.folder / "tmp" and not path.name.startswith("torchinductor_"))
            or path.name.startswith(("save-", ".fetching-"))
            or ".writing-" in path.name
            or ".new-" in path.name
        )

    def result(self) -> dict[str, object]:
        """What the command made: every file's name, and what counts of its content."""
        made: dict[str, object] = {}
        for name in self.work.results:
            top = self.folder / name
            for path in [top] if top.is_file() else sorted(top.rglob("*")):
                if path.is_file():
                    made[path.relative_to(self.folder).as_posix()] = _content(path, self.folder)
        return made


def _content(path: Path, folder: Path) -> object:
    if path.name == layout.MANIFEST:
        manifest = json.loads(path.read_text())
        return {key: manifest[key] for key in ("kind", "digest", "metrics", "lineage")} | {
            "files": sorted(manifest["files"])
        }
    if path.suffix == ".safetensors":
        return {name: (tuple(t.shape), t.numpy().tobytes()) for name, t in load_file(path).items()}
    if path.suffix in (".csv", ".jsonl", ".txt", ".npz"):
        return path.read_bytes().replace(str(folder).encode(), b"")
    return ""


def _end(command: subprocess.Popen[bytes]) -> str:
    try:
        return str(command.wait(LONGEST))
    except subprocess.TimeoutExpired:
        command.kill()
        command.wait()
        return "hangs"


def uninterrupted(work: Work, folder: Path) -> tuple[dict[str, object], float]:
    """What the command makes when nobody kills it, and the seconds that it takes."""
    trial, began = Trial(work, folder), time.monotonic()
    problem = trial.finish()
    assert not problem, problem
    assert not trial.leftovers(), trial.leftovers()
    return trial.result(), time.monotonic() - began


def run_trial(
    work: Work, folder: Path, straight: dict[str, object], seconds: float, kills: int, draw: random.Random
) -> list[Kill]:
    """Kill so many times in one folder, then run to the end and compare.

    Args:
        straight, seconds: of the uninterrupted run.
        draw: decides moments, processes, signals and delays.
    """
    trial, made = Trial(work, folder), []
    for _ in range(kills):
        moment = draw.choice(sorted(work.moments))
        delay = draw.uniform(0, 0.7 * seconds) if moment == RANDOM else draw.choice((0.0, 0.02, 0.1, 0.4))
        made.append(trial.kill(draw.choice(work.targets), draw.choice(SIGNALS), moment, delay))
        if made[-1].outcome in ("0", "missed"):  # done: nothing more would happen in it
            break
    problem = trial.finish()
    if not problem:
        result = trial.result()
        different = [n for n in sorted({*straight, *result}) if straight.get(n, n) != result.get(n, n)]
        missing = sorted(set(straight) ^ set(result))
        problem = f"other names: {missing[:3]}" if missing else f"differs: {different[:3]}" if different else ""
    for kill in made:
        kill.equal, kill.leftovers = problem, trial.leftovers()
    return made


def table(kills: list[Kill]) -> str:
    """One row a kind of kill, as Markdown: how often, and how often it went well."""
    lines = [
        "| command | ranks | moment | killed | signal | kills | missed | equal | orphans | leftovers | hangs |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]

    def row(key: tuple[str, ...], some: list[Kill]) -> str:
        hit = [k for k in some if k.outcome != "missed"]
        counts = (
            len(hit),
            len(some) - len(hit),
            sum(not k.equal for k in hit),
            sum(bool(k.orphans) for k in some),
            sum(bool(k.leftovers) for k in some),
            sum(k.outcome == "hangs" for k in some),
        )
        return "| " + " | ".join([*key, *map(str, counts)]) + " |"

    groups: dict[tuple[str, ...], list[Kill]] = {}
    for kill in kills:
        groups.setdefault((kill.work, str(kill.ranks), kill.moment, kill.target, kill.signal), []).append(kill)
    lines += [row(key, some) for key, some in sorted(groups.items())]
    return "\n".join([*lines, row(("all", "", "", "", ""), kills)])
