"""How a component fails: one readable message and Curricle's exit code instead of a traceback. Imports no kfp."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from curricle.errors import CurricleError

MARK = "curricle: error: "
"""What the first line of a component's failure starts with; the local runner finds the reason by it."""


@contextmanager
def readable() -> Iterator[None]:
    """Turn a `CurricleError` of the body into its message on standard error and its exit code. Anything else is a bug and keeps its traceback."""
    try:
        yield
    except CurricleError as error:
        sys.stdout.flush()
        print(f"{MARK}{error}", file=sys.stderr, flush=True)
        sys.exit(error.exit_code)
