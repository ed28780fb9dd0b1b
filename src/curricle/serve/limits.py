"""What a server takes at most: of one request, of all that wait, of tables. Everything that a client can make grow stands here."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Of one server."""

    text: int = 10_000
    """Characters of a text."""
    texts: int = 64
    """Texts of a request."""
    top: int = 50
    """Codes of a text."""
    body: int = 1 << 20
    """Bytes of a request that is no table."""
    requests: int = 128
    """Requests under way at once."""
    connections: int = 512
    """Open connections, idle ones too."""
    batch: int = 32
    """Texts that the model is asked at once; a request with more is asked as a whole."""
    waiting: int = 256
    """Texts that wait for the model."""
    seconds: float = 30.0
    """Until a request has come whole, and again until it is answered."""
    stuck: float = 120.0
    """Seconds of one batch after which the server calls itself unhealthy."""
    table: int = 32 << 20
    """Bytes of a table."""
    unpacked: int = 128 << 20
    """Bytes of a workbook once it is unpacked."""
    tables: int = 8
    """Tables that are kept at once, with their results."""
    kept: float = 3600.0
    """Seconds that a table is kept after it was last asked for."""
    chunk: int = 16
    """Texts of a table that the model is asked at once: what somebody else's question may have to wait for."""
    patience: int = 8
    """Batches of questions that may go before a chunk of a table that waits."""
    grace: int = 30
    """Seconds that requests under way get when the server is stopped."""
