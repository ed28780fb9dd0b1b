"""A command that trains the toy stage by the launcher: ``python -m tests.faults.toy_command STAGE_URI RANKS``."""

import signal
import sys

from curricle.launch.job import Job
from curricle.launch.local import LocalLauncher


def _terminated(number: int, frame: object) -> None:
    raise SystemExit(128 + number)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _terminated)
    job = Job("toy", ("-m", "tests.training.toy_worker", "--stage-uri", sys.argv[1]), 1, int(sys.argv[2]))
    launcher = LocalLauncher()
    sys.exit(launcher.wait(launcher.submit(job), print).exit_code)
