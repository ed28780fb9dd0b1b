"""Holds a process at a chosen moment. The `sitecustomize` of a trial imports it, so every Python process of the trial has it.

The moment is an operation that Python's audit hooks tell of: `FAULTS_MOMENT` is ``event<tab>pattern<tab>which time``. The first process
that comes there makes the file `reached` and stands still, before the operation is done, until the file `go` is there.
"""

import os
import re
import sys
import time
import types
from typing import Any

MOMENT, LIGHT = "FAULTS_MOMENT", "FAULTS_LIGHT"
REACHED, GO = "reached", "go"
LONGEST = 60
"""Seconds; whoever started the trial may have ended."""


def hold_at(event: str, pattern: str, which: int, folder: str) -> None:
    """Hold this process the given time that the event comes with arguments in which the pattern is found."""
    found, seen = re.compile(pattern).search, 0

    def hook(name: str, arguments: tuple) -> None:
        nonlocal seen
        if name != event or not found(" ".join(str(argument) for argument in arguments[:2])):
            return
        seen += 1
        if seen != which:
            return
        try:
            os.close(os.open(f"{folder}/{REACHED}", os.O_CREAT | os.O_EXCL))
        except FileExistsError:  # another process stands there
            return
        end = time.monotonic() + LONGEST
        while not os.path.exists(f"{folder}/{GO}") and time.monotonic() < end:
            time.sleep(0.001)

    sys.addaudithook(hook)


def leave_out_what_is_slow() -> None:
    """Let torch find empty modules where it would import its compiler and exporter: most of a process's start, and nothing here uses them."""
    for name in ("torch._dynamo", "torch.export"):
        sys.modules[name] = types.ModuleType(name)
    empty: Any = sys.modules["torch._dynamo"]  # optimisers and `init_process_group` ask for it
    empty.disable = lambda function=None, *_, **__: function or (lambda decorated: decorated)
    empty.graph_break = lambda *_, **__: None
    empty.trace_rules = types.SimpleNamespace(clear_lru_cache=lambda: None)


if os.environ.get(LIGHT):
    leave_out_what_is_slow()
if os.environ.get(MOMENT):
    _event, _pattern, _which = os.environ[MOMENT].split("\t")
    hold_at(_event, _pattern, int(_which), os.path.dirname(os.environ["TMPDIR"]))
