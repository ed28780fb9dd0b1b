"""A connection of the server: one too many is told so and let go, and one whose request does not begin in time too. What uvicorn alone does not bound."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, ClassVar

from uvicorn.protocols.http.h11_impl import H11Protocol

from curricle.serve.limits import Limits


class Connection(H11Protocol):
    """uvicorn's, with `limits`; `bounded` makes it."""

    limits: ClassVar[Limits]
    refused: ClassVar[Callable[[str], None]]
    problem: ClassVar[Callable[[str], bytes]]
    stopping: ClassVar[bool] = False
    """Whether the server is being stopped: who connected just before is not known to uvicorn when it lets connections go, and would be waited for."""
    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Somebody connects."""
        super().connection_made(transport)
        if self.stopping:
            self._go("stopping", 503, "the server is being stopped", "retry-after: 5\r\n")
        elif len(self.connections) > self.limits.connections:
            self._go("connections", 503, "too many connections at once; try again", "retry-after: 1\r\n")
        else:
            self._wait()

    def data_received(self, data: bytes) -> None:
        """A part of a request."""
        super().data_received(data)
        if self.cycle is not None and not self.cycle.response_complete:
            self._wait_no_more()
        elif self._deadline is None:
            self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """Either side has gone."""
        self._wait_no_more()
        super().connection_lost(exc)

    def _wait(self) -> None:
        late = "the request did not come whole in time"
        self._deadline = self.loop.call_later(self.limits.seconds, self._go, "slow", 408, late)

    def _wait_no_more(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _go(self, reason: str, status: int, sentence: str, more: str = "") -> None:
        if self.transport.is_closing():
            return
        type(self).refused(reason)
        body = type(self).problem(sentence)
        head = f"HTTP/1.1 {status} {reason}\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n{more}connection: close\r\n\r\n"
        self.transport.write(head.encode() + body)
        self.transport.close()


def bounded(limits: Limits, refused: Callable[[str], None], problem: Callable[[str], bytes]) -> type[Connection]:
    """The connections of one server.

    Args:
        refused: counts one that was let go, by its reason.
        problem: the body that says why.
    """
    names: dict[str, Any] = {"limits": limits, "refused": staticmethod(refused), "problem": staticmethod(problem)}
    return type("Bounded", (Connection,), names)
