"""Who trains a stage: a claim on the stage's place, so that no two trainings write into one place.

The claim is an object in the store that its owner rewrites every few seconds and removes at its end. Whoever comes second sees it: with
the same work it waits, with other work it ends. No two clocks are compared: a watcher measures with its own how long the claim has not
changed. On the owner's own machine the process itself is looked at, so a dead owner is known at once, and one that is only stopped
(Ctrl-Z) keeps its place.

Not every store can write only where nothing is, so a free place is taken by writing, waiting a moment and reading back: the one whose
token stands owns it. Should a store be so slow that two believe it, the earlier finds the other's token at its next beat, and stops.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, fields, replace
from datetime import UTC, datetime
from types import TracebackType

from curricle.errors import JobError, StoreError
from curricle.store import Store, layout
from curricle.store.patience import at_most
from curricle.store.process import machine, process_start, running_with

EVERY = 10.0
"""Seconds between two beats."""
SILENT_BEATS = 3
"""A claim that has not changed for so many beats is a dead owner's."""
PATIENCE = 5.0
"""Seconds that a beat, and the removal of the claim, wait for a store that is away."""
WRITERS = 120.0
"""Seconds that ranks and agents of a dead owner are waited for: they end by themselves, some after they have saved."""
RECENT = 120.0
"""Seconds since its last beat within which a claim of another machine is taken for a living owner's where one look must do."""
SETTLE = 0.2
"""Seconds between writing a claim and reading it back, at least; a store that answers slowly is given longer."""


class Held(JobError):
    """The place is another's (exit 2): this process may not write there."""

    def __init__(self, message: str):
        super().__init__(message, reason="refused", exit_code=2)


def remove_dead_claim(store: Store) -> None:
    """Delete the claim on a complete stage's place where its owner is surely dead: a process of this machine that was killed right after the end.

    Nobody needs the place any more, so nobody would take it over.

    Raises:
        StoreError: the store refuses.
    """
    owner = _read(store)
    if owner is not None and owner.machine == _machine() and owner.pid != os.getpid() and _is_dead(owner):
        store.delete(layout.CLAIM)


def who_trains(store: Store, place: str) -> Claimant | None:
    """Who trains at a place (a key) of the store at present, as far as one look can tell; None where nobody does.

    Of this machine the process itself is looked at. Elsewhere its last beat must be recent by both clocks.

    Raises:
        StoreError: the store refuses.
    """
    owner = _parse(store.read(f"{place}/{layout.CLAIM}"))
    if owner is None or (owner.machine == _machine() and _is_dead(owner)):
        return None
    if owner.machine == _machine():
        return owner
    try:
        silent = datetime.now(UTC) - datetime.fromisoformat(owner.at)
    except ValueError:
        return None
    return owner if abs(silent.total_seconds()) < RECENT else None


@dataclass(frozen=True)
class Claimant:
    """What a claim says."""

    token: str
    """Random: tells one owner from another."""
    digest: str
    """The work that is done at the place."""
    host: str = ""
    machine: str = ""
    """Processes for which this is the same see each other's numbers."""
    pid: int = 0
    process_start: str = ""
    """When the process began, in its system's own count: tells it from a later one of the same number. Empty where the system does not say."""
    since: str = ""
    """When the claim was made, for people."""
    beat: int = 0
    """Changes with every beat."""
    at: str = ""
    """When it last beat, by its owner's clock: for people, and where a claim is looked at only once."""

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host} (since {self.since})"


class Claim:
    """Holds a stage's place while it is entered.

    Args:
        store: the stage's place, opened.
        digest: the work to be done there.
        say: gets a sentence when the place has to be waited for or is taken over.
        every: seconds between two beats, the same for all who may want the place.

    Raises (on entering):
        Held: other work is being done at the place.
        StoreError: the store refuses.
    """

    def __init__(self, store: Store, digest: str, say: Callable[[str], None], *, every: float = EVERY):
        self._store, self._say, self._every = store, say, every
        self._own = Claimant(
            token=uuid.uuid4().hex,
            digest=digest,
            host=socket.gethostname(),
            machine=_machine(),
            pid=os.getpid(),
            process_start=process_start(os.getpid()) or "",
            since=datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S UTC"),
        )
        self.waited = False
        """Whether another process did the same work, and ended, while this one waited."""
        self._successor: Claimant | None = None
        self._claimant = threading.get_ident()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="claim", daemon=True)

    def __enter__(self) -> Claim:
        try:
            taken = False
            while not taken:
                owner = self._read()
                if owner is not None:
                    owner = self._outlast(owner)
                taken = self._take(owner)
        except BaseException:
            self._release()
            raise
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join(5)
        self._release()

    def confirm(self) -> None:
        """Raise `Held` where another process has taken the place over, since this one was silent for too long (suspended, cut off).

        Does nothing in other threads than the one that made the claim: an error would not end the training there.
        """
        if self._successor is not None and threading.get_ident() == self._claimant:
            raise Held(
                f"{self._store.uri} was taken over by {self._successor} while this process gave no sign of life; it stops here"
            )

    def renew(self) -> None:
        """Write the claim now, as after everything at the place was deleted.

        Raises:
            StoreError: the store refuses.
        """
        self._own = replace(self._own, beat=self._own.beat + 1, at=layout.now())
        self._store.write(layout.CLAIM, json.dumps(asdict(self._own), indent=1, sort_keys=True).encode())

    def _outlast(self, owner: Claimant) -> Claimant | None:
        """Wait until the claim is gone (None), or its owner dead (the claim as it stands).

        Raises:
            Held: the owner is alive, and does other work.
        """
        told, beats, changed = "", 0, time.monotonic()
        while True:
            alive = self._is_alive(owner)
            silent = time.monotonic() - changed > SILENT_BEATS * self._every
            if alive is False or (alive is None and silent):
                self._outlast_writers(owner)
                self._say(f"{self._store.uri} was held by {owner}, which is dead; it is taken over")
                return owner
            if owner.digest == self._own.digest:
                if told != owner.token:
                    self._say(f"{self._store.uri} is being trained by {owner}; waiting for its end")
                    told = owner.token
            elif alive or beats:
                raise Held(
                    f"{self._store.uri} is being trained by {owner} with another configuration (digest {owner.digest[:12]}; "
                    f"this one is {self._own.digest[:12]}). Wait for its end, or take another run id (--run-id)"
                )
            time.sleep(self._every / 4)
            asked = time.monotonic()
            now = self._read()
            if time.monotonic() - asked > self._every:  # the store was away: the owner could not beat either
                changed = time.monotonic()
            if now is None:
                self.waited = owner.digest == self._own.digest
                return None
            if now != owner:
                beats = beats + 1 if now.token == owner.token else 0
                owner, changed = now, time.monotonic()

    def _outlast_writers(self, owner: Claimant) -> None:
        """Wait until no process that a dead owner of this machine started writes into the place any more.

        Raises:
            Held: one still does after `WRITERS` seconds.
        """
        began, told = time.monotonic(), False
        while owner.machine == self._own.machine and (left := running_with("--stage-uri", self._store.uri)):
            numbers = ", ".join(map(str, left))
            if time.monotonic() - began > WRITERS:
                raise Held(
                    f"{self._store.uri} was held by {owner}, which is dead, and processes that it started still work there: {numbers}. "
                    "End them (`kill`), then give the command again"
                )
            if not told:
                self._say(f"{self._store.uri}: {owner} is dead; waiting for what it started ({numbers}) to end")
                told = True
            time.sleep(0.1)

    def _is_alive(self, owner: Claimant) -> bool | None:
        """Whether the owner's process lives; None where only its beats can tell (another machine, or this very process)."""
        if owner.machine != self._own.machine or owner.pid == self._own.pid:
            return None
        return not _is_dead(owner)

    def _take(self, former: Claimant | None) -> bool:
        """Write the own claim in place of the former one, and see whether it stands."""
        began = time.monotonic()
        if self._read() != former:
            return False
        self.renew()
        time.sleep(SETTLE + min(4 * (time.monotonic() - began), self._every))  # at most: the store may have been away
        owner = self._read()
        return owner is not None and owner.token == self._own.token

    def _beat(self) -> None:
        while self._successor is None and not self._ended.wait(self._every):
            with (
                suppress(StoreError),
                at_most(PATIENCE),
            ):  # the next beat tries again; training says itself what is wrong with the store
                owner = self._read()
                if owner is None or owner.token == self._own.token:
                    self.renew()
                else:
                    self._successor = owner

    def _read(self) -> Claimant | None:
        return _read(self._store)

    def _release(self) -> None:
        with suppress(StoreError), at_most(PATIENCE):  # what stays is a dead owner's as soon as this process has ended
            owner = self._read()
            if owner is not None and owner.token == self._own.token:
                self._store.delete(layout.CLAIM)


def _read(store: Store) -> Claimant | None:
    """The claim that stands; a damaged one is none, for nobody keeps it up."""
    return _parse(store.read(layout.CLAIM))


def _parse(text: bytes | None) -> Claimant | None:
    try:
        record = json.loads(text or b"null")
        return Claimant(**{f.name: record[f.name] for f in fields(Claimant) if f.name in record}) if record else None
    except (ValueError, TypeError, RecursionError):
        return None


def _machine() -> str:
    return " ".join(machine()).strip()


def _is_dead(owner: Claimant) -> bool:
    """Whether the process of a claim that was made on this machine has ended, as far as can be seen."""
    start = process_start(owner.pid)
    return start is None or ("" not in (start, owner.process_start) and start != owner.process_start)
