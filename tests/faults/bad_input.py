"""Bad input: what a case is, and how one is tried in a copy of the world. The cases stand in `bad_cases`.

A case spoils the world in one way and runs the command in this process, through its own entry point. It is right when the exit code is the
documented one, standard error holds one message that names file, key or record and no traceback, and no file has changed.

    python -m tests.faults.bad_input [WORD]     # of the cases with WORD in their names: what is wrong, and the table of kinds (cases, right, CPU seconds)
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import importlib
import io
import json
import os
import re
import shutil
import signal
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tests.faults.world import make_world

SECONDS = 60
"""A command that takes longer hangs, also on a busy machine: none should need more than two of a processor."""
Content = str | bytes | None | Callable[[Path], object]
"""What a file becomes: this text, these bytes, nothing (it is deleted), or whatever the function makes of its path."""


@dataclass(frozen=True)
class Case:
    """One bad input."""

    kind: str
    name: str
    argv: tuple[str, ...]
    says: tuple[str, ...]
    """Each must stand in the message (in the output where the code is 0)."""
    files: dict[str, Content] = field(default_factory=dict)
    code: int = 2
    env: dict[str, str] = field(default_factory=dict)
    encoding: str = "utf-8"
    """Of the terminal."""
    stdin: bytes = b""
    writes: bool = False
    """Whether files may change: what is said is all that is asked then."""


@dataclass(frozen=True)
class Tried:
    """What a case came to."""

    case: Case
    code: int | str
    """Exit code, ``traceback`` or ``hangs``."""
    said: str
    changed: tuple[str, ...]

    @property
    def wrong(self) -> str:
        """What is wrong, in a phrase; empty where nothing is."""
        case = self.case
        if self.code != case.code:
            return f"ended with {self.code}, not {case.code}: {self.said[-600:]}"
        missing = [words for words in case.says if words not in self.said.replace("\n", " ")]
        if missing:
            return f"does not say {missing}: {self.said[-600:]}"
        fails = case.code not in (0, 3)  # 3: the work is done, and some rows are none
        if "Traceback" in self.said or (fails and len(re.findall(r"^error: ", self.said, re.I | re.M)) != 1):
            return f"is not one message: {self.said[-600:]}"
        if self.changed and not case.writes:
            return f"changed {self.changed[:5]}"
        return ""


def agree(path: Path) -> None:
    """Make the manifest beside a file agree with it, where there is one."""
    manifest = path.parent / "manifest.json"
    if manifest.is_file():
        tree, data = json.loads(manifest.read_text()), path.read_bytes()
        tree["files"][path.name] = {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        manifest.unlink()
        manifest.write_text(json.dumps(tree))


def spoil(folder: Path, case: Case) -> None:
    """Change the copy of the world as the case says."""
    for name, content in case.files.items():
        found = {"best": "one-*.ckpt" if "/one/" in name else "flat-*.ckpt", "data": "*"}
        for mark, pattern in found.items():
            if f"{{{mark}}}" in name:
                above = folder / name.partition(f"/{{{mark}}}")[0]
                name = name.replace(f"{{{mark}}}", next(p.name for p in above.glob(pattern)))
        path, was = folder / name, folder / (name + ".was")
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():
            path.rename(was)
        if callable(content):
            content(path)
        elif content is not None:
            path.write_bytes(content.encode("utf-8", "surrogatepass") if isinstance(content, str) else content)
        if was.is_dir():
            shutil.rmtree(was)
        was.unlink(missing_ok=True)


def snapshot(folder: Path) -> dict[str, object]:
    """What lies in a folder, and a cheap mark of what is in it."""
    return {
        p.relative_to(folder).as_posix(): (p.lstat().st_size, p.lstat().st_mtime_ns, p.lstat().st_ino) if not p.is_dir() or p.is_symlink() else 0
        for p in folder.rglob("*")
    }  # fmt: skip


class Hangs(BaseException):
    """The command took longer than `SECONDS`."""


def _alarm(number: int, frame: object) -> None:
    raise Hangs


class _Stdin:
    def __init__(self, data: bytes):
        self.buffer = io.BytesIO(data)

    def isatty(self) -> bool:
        return False


def attempt(case: Case, world: Path, place: Path) -> Tried:
    """Try a case in a copy of the world at `place`, which is deleted again."""
    from curricle import cli
    from curricle.cli import look

    shutil.copytree(world, place, copy_function=os.link, symlinks=True)
    spoil(place, case)
    out = (
        open("/dev/full", "w")  # noqa: SIM115  # closed below, where that fails
        if case.encoding == "/dev/full"
        else io.TextIOWrapper(io.BytesIO(), case.encoding, errors="strict")
    )
    err = io.TextIOWrapper(io.BytesIO(), case.encoding.replace("/dev/full", "utf-8"), errors="backslashreplace")
    was = (sys.argv, sys.stdout, sys.stderr, sys.stdin, os.getcwd(), dict(os.environ), signal.getsignal(signal.SIGTERM))
    code: int | str = 0
    alarm = signal.signal(signal.SIGALRM, _alarm)
    try:
        os.chdir(place)
        before = snapshot(place)
        os.environ.update(case.env)
        sys.argv, sys.stdout, sys.stderr, sys.stdin = ["curricle", *case.argv], out, err, _Stdin(case.stdin)  # type: ignore[assignment]
        signal.alarm(SECONDS)
        try:
            if case.argv[0] == "worker":
                _worker(case.argv[1])
            else:
                cli.main()
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 0
        except Hangs:
            code = "hangs"
        except BaseException as error:
            code = "traceback"
            print(f"{type(error).__name__}: {error}"[:1000], file=sys.stderr)
        finally:
            signal.alarm(0)
    finally:
        sys.argv, sys.stdout, sys.stderr, sys.stdin = was[:4]
        os.chdir(was[4])
        os.environ.clear()
        os.environ.update(was[5])
        signal.signal(signal.SIGTERM, was[6])
        signal.signal(signal.SIGALRM, alarm)
        with look.console.capture():
            pass  # what could not be written is forgotten: rich would print it with the next line, in another test
    after = snapshot(place)
    changed = tuple(
        sorted({name for name, mark in before.items() if after.get(name) != mark} | set(after) - set(before))
    )
    shutil.rmtree(place)
    err.flush()
    said = err.buffer.getvalue().decode("utf-8", "replace")  # type: ignore[attr-defined]
    if case.code == 0 and case.encoding != "/dev/full":
        out.flush()
        said += out.buffer.getvalue().decode("utf-8", "replace")  # type: ignore[union-attr]
    elif case.encoding == "/dev/full":
        with contextlib.suppress(OSError):
            out.close()
    return Tried(case, code, said, changed)


def _worker(place: str) -> None:
    """What a rank reads first, as the worker reports it."""
    from curricle.config.load import from_tree
    from curricle.errors import CurricleError
    from curricle.registry import family
    from curricle.training.spec import StageSpec

    try:
        spec = StageSpec.read(place)
        if hasattr(spec, "configuration"):
            spec.configuration(place)
        else:  # before this was mended
            from_tree(family(spec.family).load("config"), spec.config)
    except CurricleError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)


def main() -> None:
    from tests.faults.bad_cases import cases

    warnings.simplefilter("ignore")
    parser = argparse.ArgumentParser(
        prog="python -m tests.faults.bad_input", description="Try bad input on every command."
    )
    parser.add_argument("word", nargs="?", default="", metavar="WORD", help="only cases whose kind or name holds it")
    word = parser.parse_args().word
    for slow in (
        "torch",
        "transformers",
        "peft",
        "kfp",
    ):  # an alarm in the middle of an import would leave a half of it
        importlib.import_module(slow)
    with tempfile.TemporaryDirectory() as temp:
        world = Path(temp) / "world"
        world.mkdir()
        was = os.getcwd()
        os.chdir(world)
        make_world(world)
        os.chdir(was)
        count: dict[str, list[int]] = {}
        for case in cases():
            if word not in f"{case.kind}: {case.name}":
                continue
            began = time.process_time()
            tried = attempt(case, world, Path(temp) / "try")
            took = time.process_time() - began
            row = count.setdefault(case.kind, [0, 0, 0.0])
            row[0] += 1
            row[1] += not tried.wrong
            row[2] += took
            if took > 2:
                print(f"SLOW {took:.1f} {case.kind}: {case.name}", flush=True)
            if tried.wrong:
                print(f"WRONG {case.kind}: {case.name}: {tried.wrong}", flush=True)
    for kind, (tries, right, took) in count.items():
        print(f"| {kind} | {tries} | {right} | {took:.1f} s")
    print("| all |", sum(row[0] for row in count.values()), "|", sum(row[1] for row in count.values()), "|")


if __name__ == "__main__":
    main()
