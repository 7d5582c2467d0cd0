"""Connections that carry a session's records: one shape for every transport.

A `Connection` moves whole messages in order or ends; it knows nothing of keys, frames or sessions. What it
may be trusted with is therefore little: everything on it is sealed by the engine, and the first record each
way has to prove that the other end belongs to the session.

    relay    through the hub; always there                    rank 0
    webrtc   data channel, direct or through TURN             rank 1
    tcp      kernel to kernel                                 rank 2

`tests/conformance` holds every connection to the same behaviour.
"""

from __future__ import annotations

from typing import Final, Protocol

__all__ = ["RANKS", "Connection", "ConnectionListener"]

RANKS: Final = {"relay": 0, "webrtc": 1, "tcp": 2}


class ConnectionListener(Protocol):
    """Who owns a connection. All calls come from the engine's event loop."""

    def message_received(self, message: bytes | memoryview) -> None:
        """Take one message; it must not raise."""

    def connection_lost(self, reason: str) -> None:
        """Hear, once, that nothing more comes or goes; not called after `close()`."""

    def buffer_low(self) -> None:
        """Hear that `buffered` fell below `high_water` again."""


class Connection(Protocol):
    """One open connection to one peer. Methods are called on the engine's event loop only."""

    transport: str
    chunk_bytes: int  # how much of a transfer one message carries best
    high_water: int  # bytes; above this, bulk waits for `buffer_low`

    @property
    def engine(self) -> str:
        """What is behind it, where there is a choice: "aiortc", "libwebrtc", or ""."""

    @property
    def buffered(self) -> int:
        """Bytes given to `send` that have not left this process."""

    def send(self, message: bytes) -> None:
        """Queue one message. After the end it is dropped silently: the session sends again elsewhere."""

    def close(self) -> None:
        """End the connection. Safe to call twice."""
