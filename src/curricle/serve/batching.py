"""Dynamic batching: one thread that owns the model, and the questions that wait for it.

A batch is what waits when the model is free, up to a size: nothing waits for others to come, so that one client alone is answered at once, and
many are answered together. Patient work (tables) goes when no question waits, and now and then in between. Knows nothing of models.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from curricle.serve.limits import Limits

T = TypeVar("T")


class Busy(Exception):
    """As much waits already as may."""


class Closed(Exception):
    """The model takes no more questions: the server is being stopped."""


class Question(Protocol):
    """What a batch is made of."""

    @property
    def texts(self) -> Sequence[str]:
        """Their number is the question's weight."""


@dataclass
class _Waiting:
    question: Question
    answer: asyncio.Future[Any]
    loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.get_running_loop)


class Batcher:
    """The model's thread.

    Args:
        answer: the answers to some questions, in their order. Called in the thread alone.
        seen: called after each batch with its texts and seconds.
    """

    def __init__(
        self,
        answer: Callable[[list[Any]], Sequence[Any]],
        limits: Limits,
        seen: Callable[[int, float], None] = lambda texts, seconds: None,
    ):
        self._answer, self._limits, self._seen = answer, limits, seen
        self._changed = threading.Condition()
        self._questions: deque[_Waiting] = deque()
        self._patient: deque[tuple[Callable[[], Any], Future[Any]]] = deque()
        self._closed = False
        self._since = 0.0
        self.waiting = 0
        """Texts that wait."""
        self._thread = threading.Thread(target=self._work, name="model", daemon=True)
        self._thread.start()

    async def ask(self, question: Question) -> Any:
        """The answer to a question.

        Raises:
            Busy: too many texts wait. Nothing was taken.
            Closed: the server is being stopped.
        """
        entry = _Waiting(question, asyncio.get_running_loop().create_future())
        with self._changed:
            if self._closed:
                raise Closed
            if self.waiting and self.waiting + len(question.texts) > self._limits.waiting:
                raise Busy
            self._questions.append(entry)
            self.waiting += len(question.texts)
            self._changed.notify()
        return await entry.answer

    def run(self, work: Callable[[], T]) -> T:
        """Have the thread do something between the questions, from another thread; waits for it.

        Raises:
            Closed: the server is being stopped.
        """
        done: Future[T] = Future()
        with self._changed:
            if self._closed:
                raise Closed
            self._patient.append((work, done))
            self._changed.notify()
        return done.result()

    @property
    def healthy(self) -> bool:
        """Whether the thread lives, and is not at one batch for longer than any takes."""
        since = self._since
        return self._thread.is_alive() and not (since and time.monotonic() - since > self._limits.stuck)

    @property
    def ready(self) -> bool:
        """Whether a question would be taken."""
        return not self._closed and self.waiting < self._limits.waiting

    def close(self) -> None:
        """Answer the questions that wait, refuse patient work, and end."""
        with self._changed:
            self._closed = True
            for _, done in self._patient:
                done.set_exception(Closed())
            self._patient.clear()
            self._changed.notify()
        self._thread.join(self._limits.seconds)

    def _work(self) -> None:
        passed = 0
        while True:
            with self._changed:
                while not (self._questions or self._patient or self._closed):
                    self._changed.wait()
                if not self._questions and not self._patient:
                    return
                turn = self._patient and (not self._questions or passed >= self._limits.patience)
                patient = self._patient.popleft() if turn else None
                batch = [] if patient else self._take()
            self._since = time.monotonic()
            if patient:
                passed = 0
                _fulfil(*patient)
            elif batch:
                passed += 1
                self._answer_all(batch)
            self._since = 0.0

    def _take(self) -> list[_Waiting]:
        """The oldest questions, as many as a batch has texts; those that nobody waits for any more are left out."""
        batch: list[_Waiting] = []
        texts = 0
        while self._questions:
            size = len(self._questions[0].question.texts)
            if batch and texts + size > self._limits.batch:
                break
            entry = self._questions.popleft()
            self.waiting -= size
            if not entry.answer.cancelled():
                batch.append(entry)
                texts += size
        return batch

    def _answer_all(self, batch: list[_Waiting]) -> None:
        began = time.monotonic()
        try:
            answers: Sequence[Any] = self._answer([entry.question for entry in batch])
        except Exception as error:
            if len(batch) > 1:  # whose question it was, only asking each alone can tell
                for entry in batch:
                    self._answer_all([entry])
                return
            answers = [error]
        self._seen(sum(len(entry.question.texts) for entry in batch), time.monotonic() - began)
        with suppress(RuntimeError):  # the loop has ended: nobody waits any more
            batch[0].loop.call_soon_threadsafe(_deliver, batch, answers)


def _fulfil(work: Callable[[], Any], done: Future[Any]) -> None:
    try:
        done.set_result(work())
    except BaseException as error:
        done.set_exception(error)


def _deliver(batch: list[_Waiting], answers: Sequence[Any]) -> None:
    for entry, answer in zip(batch, answers, strict=True):
        if entry.answer.done():  # who asked has gone
            continue
        if isinstance(answer, Exception):
            entry.answer.set_exception(answer)
        else:
            entry.answer.set_result(answer)
