"""What one SCTP association has received: order, gaps, messages, and a bound on what a peer can make us hold.

Messages are put together strictly in order of their TSNs. With one ordered channel that is the order anyway;
it costs the same per packet whatever is missing, where aiortc goes over everything that waits. A message that
grows beyond the largest one we announce, or fragments that don't fit together, end the association.

No I/O in here. Sequence numbers are counted from 0 without wrapping; TSNs exist only at the border.
"""

from __future__ import annotations

from typing import Final

__all__ = ["Inbound", "InboundError"]

RECEIVE_WINDOW: Final = 4 * 1024 * 1024  # user data held beyond a gap: two round trips of 10 MB/s at 200 ms
MAX_MESSAGE_BYTES: Final = 256 * 1024  # what aiortc announces; ours are below 64 KiB
MAX_WAITING: Final = 16 * 1024  # chunks held beyond a gap, however small
MAX_FRAGMENTS: Final = 4096  # of one message, however small
MAX_GAP_BLOCKS: Final = 200  # in one SACK, which has to fit one packet

LAST: Final = 1
FIRST: Final = 2


class InboundError(Exception):
    """The peer broke the rules of SCTP."""


class Inbound:
    """Puts DATA chunks into order and together."""

    def __init__(self) -> None:
        self.cumulative = -1  # everything up to here arrived
        self.duplicates: list[int] = []
        self._waiting: dict[int, tuple[int, int, int, bytes]] = {}
        self._waiting_bytes = 0
        self._blocks: list[list[int]] = []  # [first, last] of what waits, ascending
        self._parts: list[bytes] = []
        self._parts_bytes = 0

    @property
    def window(self) -> int:
        """Bytes that the peer may have under way (a_rwnd)."""
        return max(0, RECEIVE_WINDOW - self._waiting_bytes - self._parts_bytes)

    @property
    def gaps(self) -> list[list[int]]:
        """[first, last] of what arrived beyond a gap, ascending, not more than fits a SACK."""
        return self._blocks[:MAX_GAP_BLOCKS]

    def take(self, seq: int, flags: int, stream: int, kind: int, data: bytes) -> list[tuple[int, int, bytes]] | None:
        """Take one chunk; return the messages (stream, kind, bytes) that it completes; None if it is not kept.

        Raises InboundError when what the peer sends can't be a message of an honest one.
        """
        if seq <= self.cumulative or seq in self._waiting:
            if len(self.duplicates) < 16:
                self.duplicates.append(seq)
            return None
        if seq != self.cumulative + 1:
            if self._waiting_bytes + len(data) > RECEIVE_WINDOW or len(self._waiting) >= MAX_WAITING:
                return None
            self._waiting[seq] = (flags, stream, kind, data)
            self._waiting_bytes += len(data)
            self._note(seq)
            return []
        messages: list[tuple[int, int, bytes]] = []
        self._join(flags, stream, kind, data, messages)
        self.cumulative = seq
        blocks = self._blocks
        if blocks and blocks[0][0] == seq + 1:
            first, last = blocks.pop(0)
            for following in range(first, last + 1):
                chunk = self._waiting.pop(following)
                self._waiting_bytes -= len(chunk[3])
                self._join(*chunk, messages)
            self.cumulative = last
        return messages

    def _join(self, flags: int, stream: int, kind: int, data: bytes, messages: list[tuple[int, int, bytes]]) -> None:
        parts = self._parts
        if bool(flags & FIRST) == bool(parts):
            raise InboundError("a fragment without its message")
        if flags & LAST:
            if parts:
                parts.append(data)
                data = b"".join(parts)
                parts.clear()
                self._parts_bytes = 0
            messages.append((stream, kind, data))
            return
        parts.append(data)
        self._parts_bytes += len(data)
        if self._parts_bytes > MAX_MESSAGE_BYTES or len(parts) > MAX_FRAGMENTS:
            raise InboundError("a message that never ends")

    def _note(self, seq: int) -> None:
        blocks = self._blocks
        for index in range(len(blocks) - 1, -1, -1):  # nearly always the last one grows
            last = blocks[index][1]
            if seq > last:
                following = blocks[index + 1] if index + 1 < len(blocks) else None
                if seq == last + 1:
                    if following is not None and following[0] == seq + 1:
                        blocks[index][1] = following[1]
                        del blocks[index + 1]
                    else:
                        blocks[index][1] = seq
                elif following is not None and following[0] == seq + 1:
                    following[0] = seq
                else:
                    blocks.insert(index + 1, [seq, seq])
                return
        if blocks and blocks[0][0] == seq + 1:
            blocks[0][0] = seq
        else:
            blocks.insert(0, [seq, seq])
