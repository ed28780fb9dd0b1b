"""How long a store's server may be away: when to try again, when to say so, when to give up. It knows no protocol.

What a process learns of a server is shared by its threads and stores: one line is logged when the waiting begins and one when it ends, and
once the patience of `patience_seconds` is used up, further calls try once until the server answers. So a failed training does not wait
again to record its failure.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from curricle.environment import STORE_PATIENCE, store_patience
from curricle.errors import ConfigError

PATIENCE = 300.0
"""Seconds to wait for a store's server where nobody says how long."""
MOST_PATIENCE = 600.0
"""A request is signed once, and a server takes it for 15 minutes."""

_FIRST_PAUSE, _LONGEST_PAUSE = 0.25, 10.0
_NOT_WORTH_A_LINE = 1.0  # seconds; a connection that broke and stands again
_FORGET = 120.0  # seconds without a try, after which a failure begins another outage
_log = logging.getLogger(__name__)
_bound: ContextVar[float | None] = ContextVar("_bound", default=None)


def patience_seconds() -> float:
    """Seconds to wait for a store's server that is away, from 0 to `MOST_PATIENCE`.

    Raises:
        ConfigError: the variable holds anything else.
    """
    text = store_patience()
    try:
        seconds = float(text) if text else PATIENCE
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= MOST_PATIENCE:
        raise ConfigError(
            f"{STORE_PATIENCE}={text!r} is no number of seconds from 0 to {MOST_PATIENCE:.0f}; "
            "a longer outage ends with exit code 75, and the same command goes on after it"
        )
    return seconds


class Away(Exception):
    """The server is away, and has been for as long as anybody waits. The text says what was seen last."""

    def __init__(self, why: str, seconds: float):
        super().__init__(why)
        self.seconds = seconds
        """How long it has been away, as far as this process knows."""


class Server:
    """What this process knows of one server. Safe to use from several threads."""

    def __init__(self, url: str, what: str = "the store"):
        self.url, self.what = url, what
        self.asked_directly = False
        """Whether no proxy is asked for it, whatever the environment names."""
        self.has_answered = False
        """Whether it ever answered this process: then its address is right."""
        self._lock = threading.Lock()
        self._away_since: float | None = None
        self._last_failure = 0.0
        self._is_told = False

    def answered(self) -> None:
        """Note that the server does what it is there for."""
        self.has_answered = True
        if self._away_since is None:
            return
        with self._lock:
            since, told = self._away_since, self._is_told
            self._away_since, self._is_told = None, False
        if told and since is not None:
            _log.warning("%s at %s answers again, after %.0f s", self.what, self.url, time.monotonic() - since)

    def failed(self, now: float) -> float:
        """Note that a try failed; since when the server is away (monotonic seconds)."""
        with self._lock:
            if self._away_since is None or now - self._last_failure > _FORGET:
                self._away_since, self._is_told = now, False
            self._last_failure = now
            return self._away_since

    def tell(self, why: str, seconds: float) -> None:
        """Say, once an outage, that the server is waited for."""
        with self._lock:
            told, self._is_told = self._is_told, True
        if not told:
            _log.warning(
                "%s at %s does not answer (%s); waiting up to %.0f s for it (%s)",
                self.what,
                self.url,
                why,
                seconds,
                STORE_PATIENCE,
            )


_servers: dict[str, Server] = {}
_servers_lock = threading.Lock()


def server_at(url: str, what: str = "the store") -> Server:
    """The one record of the server at `url`; `what` it is, for messages."""
    with _servers_lock:
        return _servers.setdefault(url, Server(url, what))


@contextmanager
def at_most(seconds: float) -> Iterator[None]:
    """Bound the waiting of this thread's calls: for what is tried again anyway, or may be left out. What they see is not logged."""
    token = _bound.set(seconds)
    try:
        yield
    finally:
        _bound.reset(token)


_waiting = threading.Condition()
_given_up = 0


def give_up() -> None:
    """End all waiting in this process's threads now, as when a person pressed Ctrl-C. Later calls wait again."""
    global _given_up
    with _waiting:
        _given_up += 1
        _waiting.notify_all()


class Tries:
    """The tries of one piece of work at a server.

    Raises:
        ConfigError: the environment says no number of seconds.
    """

    def __init__(self, server: Server):
        self._server = server
        self._bound = _bound.get()
        self.patience = patience_seconds() if self._bound is None else self._bound
        """Seconds that this work waits for a server that is away."""
        self._generation = _given_up
        self.go_on()

    def go_on(self) -> None:
        """Note that the work makes way: what fails from here on is a new trouble."""
        self._failures = 0
        self._first: float | None = None
        self._try_began = time.monotonic()

    def failed(self, why: str) -> None:
        """Wait before the next try: longer each time, by chance a little more or less, so that not all come back at once.

        Raises:
            Away: the patience is used up.
        """
        now = time.monotonic()
        self._failures += 1
        if self._first is None:
            self._first = now
        since = self._first if self._bound is not None else min(self._first, self._server.failed(now))
        left = since + self.patience - now
        if left <= 0 or self._generation != _given_up:
            raise Away(why, now - since)
        if self._bound is None and now - min(since, self._try_began) >= _NOT_WORTH_A_LINE:
            self._server.tell(why, left)
        pause = min(_FIRST_PAUSE * 2 ** min(self._failures - 1, 20), _LONGEST_PAUSE) * random.uniform(0.5, 1)
        with _waiting:
            _waiting.wait_for(lambda: self._generation != _given_up, min(pause, left))
        self._try_began = time.monotonic()
