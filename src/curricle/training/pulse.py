"""What this process is at, for who waits: phases by name, and a pulse that tells of the one under way now and then.

Who does what takes a while names it with `working`; who shows it holds a `Pulse`. Neither knows the other, so that no phase is silent. No torch here.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType

from curricle.training.events import Listener, Working, duration, sentence

EVERY = 30.0
"""Seconds between two lines about what goes on, where there is no terminal."""
MENTIONED = 5.0
"""Seconds that a phase has to last before it is told for how long."""


class Phase:
    """One thing under way: what it is, since when, and how far it is where that can be counted."""

    def __init__(self, what: str):
        self.at(what)

    def at(self, what: str, lasting: str = "{} so far") -> None:
        """Another thing is under way from now on. `lasting` is how its time is told."""
        self.what, self.lasting, self.began = what, lasting, time.monotonic()
        self.done = self.total = 0
        self._first: tuple[float, int] | None = None

    def count(self, done: int, total: int) -> None:
        """So many are done, of so many."""
        self.done, self.total = done, total
        for listen in _listeners:
            listen(Working(self.what, done, total))
        self._first = self._first or (time.monotonic(), done)

    def hear(self, event: Working) -> None:
        """Take what another process says of its phase."""
        if event.what != self.what:
            self.at(event.what)
        if event.total:
            self.count(event.done, event.total)

    def text(self) -> str:
        """``encoding texts: 1,200 of 6,000, 40 s so far, 3 min left``."""
        now, facts = time.monotonic(), [sentence(Working(self.what, self.done, self.total))]
        if now - self.began >= MENTIONED:
            facts.append(self.lasting.format(duration(now - self.began)))
        if self._first and now - self._first[0] > 1 and self.done > self._first[1]:
            pace = (now - self._first[0]) / (self.done - self._first[1])
            facts.append(f"{duration((self.total - self.done) * pace)} left")
        return ", ".join(facts)


_under_way: list[Phase] = []
_listeners: list[Listener] = []
_voices: list[Pulse] = []


@contextmanager
def working(what: str) -> Iterator[Phase]:
    """Something that may take a while is under way: ``with working("encoding texts") as phase: phase.count(1, 6)``.

    Args:
        what: for people, as in "curricle is ...": ``preparing data``.
    """
    phase = Phase(what)
    _under_way.append(phase)
    for listen in _listeners:
        listen(Working(what, 0, 0))
    try:
        yield phase
    finally:
        _under_way.remove(phase)


@contextmanager
def heard_by(listen: Listener) -> Iterator[None]:
    """Make an event of each phase that begins."""
    _listeners.append(listen)
    try:
        yield
    finally:
        _listeners.remove(listen)


class Pulse:
    """Says every `EVERY` seconds what is under way, from a thread of its own; the innermost alone speaks.

    Args:
        say: gets the line. One that does nothing silences the pulses around it, as progress bars must.
    """

    def __init__(self, say: Callable[[str], None]):
        self._say, self._ended = say, threading.Event()
        self._told = time.monotonic()
        self._thread = threading.Thread(target=self._run, name="pulse", daemon=True)

    def __enter__(self) -> Pulse:
        _voices.append(self)
        self.restart()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Be silent from here on."""
        self._ended.set()
        if self in _voices:
            _voices.remove(self)
        for outer in _voices[-1:]:
            outer.restart()

    def restart(self) -> None:
        """Something was said just now."""
        self._told = time.monotonic()

    def beat(self) -> None:
        """Say what is under way, where nothing was said for so long."""
        if self._ended.is_set() or _voices[-1:] not in ([], [self]) or time.monotonic() - self._told < EVERY:
            return
        for phase in _under_way[-1:]:
            self.restart()
            self._say(phase.text())

    def _run(self) -> None:
        while not self._ended.wait(1.0):
            self.beat()


def silent() -> Pulse:
    """A pulse that silences those around it."""
    return Pulse(lambda line: None)
