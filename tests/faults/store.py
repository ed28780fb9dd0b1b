"""Faults of a store's server, put between it and its callers by a proxy: works in front of the bucket in memory and of a real MinIO alike."""

from __future__ import annotations

import re
import socket
import struct
import time
from contextlib import suppress

from tests.store.outage import Door

FAULTS = ("away", "reset", "stall", "503", "truncated", "slow")
"""Nobody listens; the connection is broken in the middle of a body; no byte passes any more from there on; every request is answered with 503;
the answer ends in the middle of its body as if that were its end; everything comes, a little at a time."""
_HEAD = re.compile(rb"content-length: *(\d+)", re.I)
_BUSY = b"<Error><Code>SlowDown</Code><Message>said by the proxy</Message></Error>"
_ANSWER = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s" % (len(_BUSY), _BUSY)


class FaultyDoor(Door):
    """A door that has one of `FAULTS` while it is told to.

    `after` is how many bytes pass in each direction of a connection before it is broken, silent or cut.
    """

    fault = ""
    after = 0

    def begin(self, fault: str, after: int = 0) -> None:
        """The fault begins now, also for connections that stand."""
        self.fault, self.after = fault, after
        if fault == "away":
            self.shut("refuse")
        elif fault != "slow":
            self._drop()  # connections that stand would have passed their bytes already

    def end(self) -> None:
        """The fault ends; what stalled stays silent."""
        was, self.fault = self.fault, ""
        if was == "away":
            self.open()

    def _pump(self, here: socket.socket, there: socket.socket, up: bool) -> None:
        if not self.fault:
            return self._pass(here, there, up, None)
        if self.fault == "503":
            return self._refuse(here) if up else None
        return self._pass(here, there, up, self.after)

    def _pass(self, here: socket.socket, there: socket.socket, up: bool, left: int | None) -> None:
        with suppress(OSError):
            while data := here.recv(4096 if self.fault == "slow" else 65536):
                fault = self.fault
                if fault == "slow":
                    time.sleep(0.002)
                elif left is not None and fault in ("reset", "stall", "truncated"):
                    if len(data) > left and (fault != "truncated" or not up):
                        there.sendall(data[:left])
                        if fault == "stall":
                            return
                        if fault == "reset":
                            for end in (here, there):
                                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                                end.close()
                            return
                        break
                    left = max(0, left - len(data))
                there.sendall(data)
                self.bytes_up += len(data) * up
        for end in (here, there):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def _refuse(self, client: socket.socket) -> None:
        """Take each request whole, and answer it with 503."""
        with suppress(OSError):
            client.settimeout(10)
            data = b""
            while b"\r\n\r\n" not in data and (more := client.recv(65536)):
                data += more
            head, _, body = data.partition(b"\r\n\r\n")
            length = _HEAD.search(head)
            missing = int(length[1]) - len(body) if length else 0
            while missing > 0 and (more := client.recv(65536)):
                missing -= len(more)
            client.sendall(_ANSWER)
            client.shutdown(socket.SHUT_RDWR)
