"""How a component fails: one readable message and Curricle's exit code instead of a traceback, and a record of it in the store. Imports no kfp."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from curricle import environment
from curricle.errors import CurricleError, StoreError
from curricle.launch.kubernetes.settings import plain_environment
from curricle.store import join_uri, open_store
from curricle.store.failure import Failure

MARK = "curricle: error: "
"""What the first line of a component's failure starts with; the local runner finds the reason by it."""


@contextmanager
def readable(task: str = "", store_uri: str = "", run_id: str = "") -> Iterator[None]:
    """Give the component the workers' plain environment (the store's endpoint), and turn a `CurricleError` of the body into its message on
    standard error and its exit code. Anything else is a bug and keeps its traceback.

    With a `task` the message is kept at the run's place in the store too, where `curricle submit` finds it: Kubeflow keeps none. A
    training component needs no such record, as the stage has its own.
    """
    try:
        for name, value in plain_environment(environment.everything()).items():
            environment.set_default(name, value)
        yield
    except CurricleError as error:
        sys.stdout.flush()
        print(f"{MARK}{error}", file=sys.stderr, flush=True)
        if task:
            failure = Failure(str(error), error.exit_code, run_id=run_id, task=task)
            with suppress(StoreError):  # the store may be what has failed
                failure.write(open_store(join_uri(store_uri, run_id)))
        sys.exit(error.exit_code)
