"""The command in a process of its own, forked from one that has imported torch, transformers and MLflow: seconds less for each.

Its folder, environment, output and exit code are those of a new process, and all of ours is imported anew. How a process starts is no matter of these tests: others ask real ones.
"""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["tests.warm"])


def curricle(place: Path, *arguments: str, expect: int = 0, **env: str) -> subprocess.CompletedProcess[str]:
    """`curricle ARGUMENTS` in a folder; it must end with that exit code and without a traceback."""
    environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}", "OMP_NUM_THREADS": "1", "COLUMNS": "200", **env}  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        out, err = Path(folder, "out"), Path(folder, "err")
        out.touch(), err.touch()
        process = CONTEXT.Process(target=_run, args=(arguments, str(place), environment, str(out), str(err)))
        process.start()
        process.join(600)
        if process.is_alive():
            process.terminate()
            process.join()
        done = subprocess.CompletedProcess(arguments, process.exitcode, out.read_text(), err.read_text())
    assert done.returncode == expect, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done


def _run(arguments: tuple[str, ...], place: str, environment: dict[str, str], out: str, err: str) -> None:
    for number, name in ((1, out), (2, err)):
        os.dup2(os.open(name, os.O_WRONLY), number)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(place)
    sys.argv = ["curricle", *arguments]
    from curricle.cli import main

    main()
