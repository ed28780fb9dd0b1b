"""The kill harness: starts a command, kills one of its processes at a chosen moment, runs the same command again, and looks at what is left.

A trial is a few kills in one folder, then the command to its end; its result must be what an uninterrupted run makes, with no process and
no file left over. After each kill every artifact that has a manifest must be whole, and a complete one is never made again.

A moment is an operation (`moment.py`): the process that comes to it stands there until the kill, so a kill hits its moment, and one that
does not is counted as missed. Processes are found by their environment: all that a trial starts has the trial's folder as TMPDIR. Linux only.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from safetensors.torch import load

from curricle.errors import CurricleError
from curricle.store import Store, layout, open_store
from curricle.store.local import is_part
from curricle.store.manifest import read_manifest, verify
from curricle.store.process import process_start
from tests.faults.moment import GO, MOMENT, REACHED

ROOT = Path(__file__).parents[2]
POLL = 0.003
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
ORPHAN_SECONDS = 15
"""Longest grace of ranks that save (7 s), and what a busy machine adds."""
START, RANDOM = "its start", "at random"
"""Moments that no file tells of: right after the start of the process to be killed, and anywhere in the command's life."""
LONGEST = 180
"""Seconds that a command may take; one that takes longer hangs."""


class Moment(NamedTuple):
    """An operation at which a process is held."""

    event: str
    """Of Python's audit table, or ``curricle.moment``, which the families of these tests raise."""
    pattern: str
    """Found in the event's first two arguments."""
    times: int = 1
    """It is held the first, or by chance a later time, at most this one."""


@dataclass(frozen=True)
class Work:
    """A command under test, in a folder that `prepare` fills with its inputs."""

    name: str
    ranks: int
    prepare: Callable[[Path], None]
    program: Callable[[Path], list[str]]
    """Arguments after ``python``."""
    moments: dict[str, Moment | None]
    """None for `START` and `RANDOM`."""
    targets: tuple[str, ...]
    results: tuple[str, ...] = ("store",)
    """What is compared: files and folders below the trial's."""
    store: str = ""
    """The store that the command writes: a folder below the trial's, or a URI in which ``{}`` stands for the trial's name."""
    replaced: tuple[str, ...] = ()
    """Places that the command may make again though they are complete."""
    once: bool = False
    """Whether the command refuses to replace its own result."""
    environment: dict[str, str] = field(default_factory=dict)

    def stores(self, folder: Path) -> list[str]:
        """The URI of the store in a trial, if there is one by now."""
        uri = self.store.format(folder.name) if "://" in self.store else str(folder / self.store)
        return [uri] if self.store and ("://" in uri or Path(uri).is_dir()) else []


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
    half: list[str] = field(default_factory=list)
    """Artifacts that have a manifest and are not what it says, or were complete and made again."""
    equal: str = ""
    """Empty, or the first difference to an uninterrupted run."""
    leftovers: list[str] = field(default_factory=list)

    @property
    def well(self) -> bool:
        """Whether nothing is wrong."""
        return not (self.orphans or self.half or self.equal or self.leftovers or self.outcome == "hangs")


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
        (folder / "sitecustomize.py").write_text("import tests.faults.moment\n")
        work.prepare(folder)
        self._complete: dict[str, str] = {}
        """Place of a complete stage or dataset → when it was made."""

    def start(self, moment: str = "") -> subprocess.Popen[bytes]:
        """Start the command; what it prints is added to ``log`` in the folder."""
        environment = {
            **os.environ,
            **self.work.environment,
            "TMPDIR": f"{self.folder}/tmp",
            "PYTHONPATH": os.pathsep.join([str(self.folder), str(ROOT / "src"), str(ROOT)]),
            "OMP_NUM_THREADS": "1",
            MOMENT: moment,
        }
        for mark in (REACHED, GO):
            (self.folder / mark).unlink(missing_ok=True)
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
        before = len(self.log()) if (self.folder / "log").exists() else 0
        code = end_of(self.start())
        done_before = self.work.once and code == "2" and "is there already" in self.log()[before:]
        return "" if code == "0" or done_before else f"the command ends with {code}: {self.log()[-1500:]}"

    def log(self) -> str:
        """All that the commands printed."""
        return (self.folder / "log").read_text(errors="replace")

    def kill(self, target: str, number: signal.Signals, moment: str, delay: float, time_of_it: int = 1) -> Kill:
        """Start the command, hold it at the moment, kill a process of it, and wait for the end of all its processes.

        Args:
            delay: seconds; at a moment that is an operation the process goes on meanwhile, unless it is 0.
            time_of_it: the first, second ... time that a process comes to the moment.
        """
        made = Kill(self.work.name, self.work.ranks, target, number.name, moment)
        operation = self.work.moments[moment]
        command = self.start(f"{operation.event}\t{operation.pattern}\t{time_of_it}" if operation else "")
        reached = self.folder / REACHED
        while operation and command.poll() is None and not reached.exists():
            time.sleep(POLL)
        victim = None
        while command.poll() is None and (victim := target_of(target, command.pid, self.folder)) is None:
            time.sleep(POLL)
            if operation:
                break
        if delay:
            (self.folder / GO).touch()
            time.sleep(delay)
        made.outcome = "missed"
        if victim is not None and command.poll() is None:
            with suppress(ProcessLookupError):
                os.kill(victim, number)
                made.outcome = ""
        (self.folder / GO).touch()
        ended = end_of(command)
        made.outcome = ended if ended == "hangs" else made.outcome or ended
        made.orphans = self.orphans()
        made.half = self.half()
        return made

    def orphans(self) -> list[str]:
        """Processes of the trial that are still there after the grace; they are killed."""
        end = time.monotonic() + ORPHAN_SECONDS
        while (alive := processes(self.folder)) and time.monotonic() < end:
            time.sleep(0.05)
        for process in alive:
            if process_start(process.pid) is not None:
                os.kill(process.pid, signal.SIGKILL)
        return [process.command for process in alive]

    def half(self) -> list[str]:
        """Artifacts that are not what their manifest says, and complete ones that were made again."""
        problems = []
        for store, place in self._artifacts():
            try:
                manifest = read_manifest(store, place)
                assert manifest is not None
                verify(store, place, manifest)
            except CurricleError as error:
                problems.append(str(error))
                continue
            if manifest.kind in ("stage", "dataset") and place not in self.work.replaced:
                before = self._complete.setdefault(place, manifest.created)
                problems += [f"{place} was complete and was made again"] if before != manifest.created else []
        return problems

    def _artifacts(self) -> list[tuple[Store, str]]:
        found = []
        for uri in self.work.stores(self.folder):
            store = open_store(uri)
            for entry in store.list(""):
                place, _, name = entry.key.rpartition("/")
                if name == layout.MANIFEST and not place.startswith("."):  # hidden: a folder of work under way
                    found.append((store, place))
        return found

    def leftovers(self) -> list[str]:
        """Files and folders that only a process at work needs, below the folder and in its bucket."""
        names = {layout.CLAIM, layout.HEARTBEAT, layout.SPARE, layout.FAILURE}
        paths = [path.relative_to(self.folder) for path in self.folder.rglob("*")]
        paths += [Path(entry.key) for uri in self.work.stores(self.folder) for entry in open_store(uri).list("")]
        return sorted(
            path.as_posix()
            for path in paths
            if is_part(path.name)
            or names & set(path.parts)
            or (path.parent == Path("tmp") and not path.name.startswith("torchinductor_"))
            or path.name.startswith(("save-", ".fetching-"))
            or ".writing-" in path.name
            or ".new-" in path.name
            or ".assigning-" in path.name
        )

    def result(self) -> dict[str, object]:
        """What the command made: every file's name, and what counts of its content."""
        made: dict[str, object] = {}
        for name in self.work.results:
            top = self.folder / name
            for path in [top] if top.is_file() else sorted(top.rglob("*")):
                if path.is_file():
                    made[path.relative_to(self.folder).as_posix()] = self._content(path.name, path.read_bytes())
        for uri in self.work.stores(self.folder) if "://" in self.work.store else ():
            store = open_store(uri)
            made |= {entry.key: self._content(entry.key, store.read(entry.key) or b"") for entry in store.list("")}
        return made

    def _content(self, name: str, data: bytes) -> object:
        if Path(name).name == layout.MANIFEST:
            manifest = json.loads(data)
            return {key: manifest[key] for key in ("kind", "digest", "metrics", "lineage")} | {
                "files": sorted(manifest["files"])
            }
        match Path(name).suffix:
            case ".safetensors":
                return {name: (tuple(t.shape), t.numpy().tobytes()) for name, t in load(data).items()}
            case ".csv" | ".jsonl" | ".txt" | ".npz":
                return data.replace(str(self.folder).encode(), b"")
        return ""


def end_of(command: subprocess.Popen[bytes]) -> str:
    """The command's exit code, or `hangs`."""
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
        operation = work.moments[moment]
        delay = draw.uniform(0, 0.7 * seconds) if moment == RANDOM else draw.choice((0.0, 0.0, 0.003, 0.05))
        time_of_it = draw.randint(1, operation.times) if operation else 1
        made.append(trial.kill(draw.choice(work.targets), draw.choice(SIGNALS), moment, delay, time_of_it))
        if made[-1].outcome in ("0", "missed"):  # done: nothing more would happen in it
            break
    problem = trial.finish() or difference(straight, trial.result())
    half = trial.half()
    for kill in made:
        kill.equal, kill.leftovers, kill.half = problem, trial.leftovers(), kill.half + half
    return made


def difference(one: dict[str, object], other: dict[str, object]) -> str:
    """Empty where two results are the same; else what differs."""
    if missing := sorted(set(one) ^ set(other)):
        return f"other names: {missing[:3]}"
    different = [name for name in sorted(one) if one[name] != other[name]]
    return f"differs: {different[:3]}" if different else ""


def table(kills: list[Kill]) -> str:
    """One row a kind of kill, as Markdown: how often, and how often it went well."""
    lines = [
        "| command | ranks | moment | killed | signal | kills | missed | equal | half or again | orphans | leftovers | hangs |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]

    def row(key: tuple[str, ...], some: list[Kill]) -> str:
        hit = [k for k in some if k.outcome != "missed"]
        counts = (
            len(hit),
            len(some) - len(hit),
            sum(not k.equal for k in hit),
            sum(bool(k.half) for k in some),
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
