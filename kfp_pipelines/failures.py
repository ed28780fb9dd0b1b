"""How a component fails: one readable line and Curricle's exit code, never a traceback, and a record of it in the store. Imports no kfp."""

from __future__ import annotations

import re
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from curricle import environment
from curricle.config.load import COMMAND_LINE
from curricle.errors import CurricleError, StoreError
from curricle.launch.kubernetes.settings import plain_environment
from curricle.masking import masked
from curricle.store import join_uri, layout, open_store, split_uri
from curricle.store.failure import Failure
from curricle.training.pulse import Pulse, working

MARK = "curricle: error: "
"""What the first line of a component's failure starts with; the local runner finds the reason by it."""


@contextmanager
def readable(task: str = "", store_uri: str = "", run_id: str = "", *, plan_uri: str = "") -> Iterator[None]:
    """Give the component the workers' plain environment (the store's endpoint), and turn an error of the body into one line on standard error and an
    exit code: a `CurricleError` into its own, anything else, which is a mistake of ours, into 1 and the place where it happened. Meanwhile the log has a line
    every 30 seconds about what the task is at.

    With a `task` the message is kept at the run's place in the store too, where `curricle submit` finds it: Kubeflow keeps none. Its place is
    that of `run_id` in `store_uri`, or of the plan that the component was given.
    """
    try:
        for name, value in plain_environment(environment.everything()).items():
            if value is None:
                environment.drop(name)
            else:
                environment.set_default(name, value)
        with working(f"the task {task}" if task else "the task"), Pulse(lambda line: print(masked(line), flush=True)):
            yield
    except Exception as error:
        message, code = _line(error), error.exit_code if isinstance(error, CurricleError) else 1
        sys.stdout.flush()
        print(f"{MARK}{message}", file=sys.stderr, flush=True)
        if task:
            place = split_uri(plan_uri)[0] if plan_uri else join_uri(store_uri, layout.run_folder(run_id))
            failure = Failure(message, code, run_id=run_id, task=task)
            with suppress(StoreError, OSError):  # the store may be what has failed
                failure.write(open_store(place))
        sys.exit(code)


def _line(error: Exception) -> str:
    """What an error says, in one line. What a person types on a command line is a parameter here."""
    if isinstance(error, CurricleError):
        text = str(error).replace(f"{COMMAND_LINE}: ", "parameter overrides: ")
    else:
        ours = [
            frame
            for frame in traceback.extract_tb(error.__traceback__)
            if "curricle" in frame.filename or "kfp_pipelines" in frame.filename
        ]
        where = f" at {ours[-1].filename.rpartition('/')[2]}:{ours[-1].lineno}" if ours else ""
        said = masked(str(error)) or "without a word"
        text = f"{said} ({type(error).__name__}{where}; this is a mistake in Curricle, or in what it stands on)"
    return re.sub(r"\s*\n\s*(?:- )?", "; ", text.strip()).replace(":; ", ": ")
