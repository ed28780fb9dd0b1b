"""How a component fails: one readable message and Curricle's exit code instead of a traceback. Imports no kfp."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from curricle.errors import CurricleError
from curricle.launch.pytorchjob.settings import plain_environment

MARK = "curricle: error: "
"""What the first line of a component's failure starts with; the local runner finds the reason by it."""


@contextmanager
def readable() -> Iterator[None]:
    """Give the component the workers' plain environment (the store's endpoint), and turn a `CurricleError` of the body into its message on standard error and its exit code. Anything else is a bug and keeps its traceback."""
    try:
        for name, value in plain_environment(os.environ).items():
            os.environ.setdefault(name, value)
        yield
    except CurricleError as error:
        sys.stdout.flush()
        print(f"{MARK}{error}", file=sys.stderr, flush=True)
        sys.exit(error.exit_code)
