"""The dead-man's switch between a launcher and its job: an object in the store that the launcher keeps rewriting while it waits for the
job, and that the job's node agents watch. A launcher that is started again goes on where the former one fell silent.

No two clocks are compared: a watcher measures with its own how long the object has not changed. A store that does not answer says
nothing about the launcher, so it counts as a sign of life; training that needs the store will complain by itself.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable
from contextlib import suppress

from curricle.errors import StoreError
from curricle.store import Store, open_store, split_uri
from curricle.store.patience import at_most

EVERY = 10.0
"""Seconds between two beats."""


class Heartbeat:
    """Rewrites the object at `uri` from a thread of its own, until `stop`; `on_trouble` hears why that is not possible."""

    def __init__(self, uri: str, on_trouble: Callable[[str], None], *, every: float = EVERY):
        self.uri = uri
        self._on_trouble, self._every, self._ended = on_trouble, every, threading.Event()
        self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Beat no more, and remove the object."""
        self._ended.set()
        self._thread.join(2)

    def _beat(self) -> None:
        base, key = split_uri(self.uri)
        store: Store | None = None
        while True:
            try:
                store = store or open_store(base)
                with at_most(self._every / 2):
                    store.write(key, uuid.uuid4().hex.encode())
            except StoreError as error:
                self._on_trouble(str(error))
            if self._ended.wait(self._every):
                break
        if store:
            with suppress(StoreError), at_most(self._every / 2):
                store.delete(key)


def wait_for_silence(uri: str, seconds: float) -> None:
    """Return once the object at `uri` has stood unchanged for so many seconds."""
    base, key = split_uri(uri)
    store: Store | None = None
    last_beat, since = None, time.monotonic()
    while time.monotonic() - since < seconds:
        time.sleep(min(EVERY, seconds / 4))
        try:
            store = store or open_store(base)
            with at_most(EVERY / 2):
                beat = store.read(key)
        except StoreError:
            since = time.monotonic()
            continue
        if beat != last_beat:
            last_beat, since = beat, time.monotonic()
