"""Buffers between the network and the disk, shared by all transfers of a room.

They bound the memory of received files. Credit keeps senders back before the buffers are used up, so that a slow disk
never delays chat on the same connection; where it did not (many transfers began at once), the connections that bring
more are not read until some are written.
"""

from __future__ import annotations

from typing import Final, Protocol

from p2pnb.protocol.wire import CHUNK_BYTES_TCP

__all__ = ["Pausable", "WriteBuffers"]

MOST: Final = 72  # 36 MiB: one window of credit and a bit; only a disk slower than the line uses them


class Pausable(Protocol):
    """A connection that can stop reading."""

    def pause_reading(self) -> None: ...
    def resume_reading(self) -> None: ...


class WriteBuffers:
    """Event loop only."""

    def __init__(self) -> None:
        self._free: list[bytearray] = []
        self._out = 0
        self._idle = False
        self._paused: set[Pausable] = set()

    def trim(self) -> None:
        """Free the buffers if none was used since the last call; to be called now and then."""
        if self._idle and not self._out:
            self._free.clear()
        self._idle = not self._out

    @property
    def out(self) -> int:
        """Buffers in use."""
        return self._out

    def take(self) -> bytearray:
        """Return a buffer of one full chunk; `give` it back. There is always one: pause who brings the bytes."""
        self._out += 1
        self._idle = False
        return self._free.pop() if self._free else bytearray(CHUNK_BYTES_TCP)

    def hold(self, connection: Pausable) -> None:
        """Make a connection wait if too many buffers are in use."""
        if self._out >= MOST:
            connection.pause_reading()
            self._paused.add(connection)

    def give(self, buffers: list[bytearray]) -> None:
        """Take buffers back, and let connections go on."""
        self._out -= len(buffers)
        self._free.extend(buffers)
        del self._free[MOST:]
        if self._out < MOST // 2:
            waiting, self._paused = self._paused, set()
            for connection in waiting:
                connection.resume_reading()
