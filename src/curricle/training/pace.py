"""How far a stage is, from the steps that it reports."""

from __future__ import annotations

import time

from curricle.training.events import Step


class Pace:
    """How far a stage is, and how long it takes yet, by the clock of who trains it: a resumed one is measured from where it resumed."""

    def __init__(self) -> None:
        self._first: tuple[float, float] | None = None
        self._last = (0.0, 0.0)

    def at(self, done: float, now: float | None = None) -> None:
        """A share in [0, 1] of all epochs is done."""
        self._last = (done, time.monotonic() if now is None else now)
        self._first = self._first or self._last

    def step(self, event: Step, epochs: int) -> None:
        """A step was made, of a stage that trains so many epochs at most; 0 where nobody knows, and then nothing is told."""
        if epochs and event.steps:
            self.at((event.epoch - 1 + event.step / event.steps) / epochs)

    def facts(self) -> dict[str, int]:
        """``percent``, and ``seconds_left`` where that can be told; early stopping may end a stage sooner."""
        if self._first is None:
            return {}
        (began, then), (done, now) = self._first, self._last
        facts = {"percent": int(100 * min(1.0, done))}
        if done > began and now > then:
            facts["seconds_left"] = round((now - then) * max(0.0, 1 - done) / (done - began))
        return facts
