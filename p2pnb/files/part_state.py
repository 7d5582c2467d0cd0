"""What a part says of itself, in a form that survives being torn in the middle of a write.

    state   two slots of SLOT_BYTES, written in turn
    slot    [SHA-256 of the rest, cut, 16][length 4][MessagePack of PartState]

The valid slot with the higher sequence counts. Rejected: a new file renamed over the old one, because the lock of a
part belongs to the file, and because it needs room that a full disk hasn't.

A state may have been put there by anybody, so it is parsed like a message from a stranger.
"""

from __future__ import annotations

import hashlib
from heapq import nlargest
from typing import Annotated, Final, Literal

import msgspec

from p2pnb.protocol.wire import MAX_ITEM_NAME_CHARS, MAX_SIZE_BYTES

__all__ = ["MAX_STATE_BYTES", "PartState", "encode_slot", "longest", "parse_state"]

MAX_JOURNAL_RANGES: Final = 2048  # the longest; what lies in more and shorter pieces is received again
MAX_KEY_BYTES: Final = 64
SLOT_BYTES: Final = 64 * 1024  # 2048 ranges of 18 bytes, a name and some digests
MAX_STATE_BYTES: Final = 2 * SLOT_BYTES

_CHECK_BYTES: Final = 16
_HEADER_BYTES: Final = _CHECK_BYTES + 4

_Offset = Annotated[int, msgspec.Meta(ge=0, le=MAX_SIZE_BYTES)]


class PartState(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What a part says of itself."""

    version: Literal[1]
    sequence: Annotated[int, msgspec.Meta(ge=1, lt=1 << 62)]
    key: Annotated[bytes, msgspec.Meta(min_length=1, max_length=MAX_KEY_BYTES)]  # chosen by who receives
    kind: Literal["file", "folder"]
    name: Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_ITEM_NAME_CHARS)]
    content_bytes: _Offset
    plan: Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]  # digest of head and plan
    ranges: Annotated[list[tuple[_Offset, _Offset]], msgspec.Meta(max_length=MAX_JOURNAL_RANGES)] = []

    @property
    def landed_bytes(self) -> int:
        return sum(end - start for start, end in self.ranges)

    def fits(self, other: PartState) -> bool:
        """Tell whether both speak of the same item, assembled in the same way."""
        return (self.key, self.kind, self.name, self.content_bytes, self.plan) == (
            other.key,
            other.kind,
            other.name,
            other.content_bytes,
            other.plan,
        )


_decoder = msgspec.msgpack.Decoder(PartState)


def encode_slot(state: PartState) -> tuple[int, bytes]:
    """Return where in the file the state's slot begins, and what to write there."""
    body = msgspec.msgpack.encode(state)
    rest = len(body).to_bytes(4, "big") + body
    slot = hashlib.sha256(rest).digest()[:_CHECK_BYTES] + rest
    assert len(slot) <= SLOT_BYTES
    return state.sequence % 2 * SLOT_BYTES, slot


def parse_state(data: bytes) -> PartState | None:
    """Return the newest state in a file's bytes; None if there is no valid one."""
    states = [state for place in (0, SLOT_BYTES) if (state := _parse_slot(data[place : place + SLOT_BYTES]))]
    return max(states, key=lambda state: state.sequence, default=None)


def longest(ranges: list[tuple[int, int]], count: int) -> list[tuple[int, int]]:
    """Return the `count` longest of disjoint ranges, in order."""
    if len(ranges) <= count:
        return ranges
    return sorted(nlargest(count, ranges, key=lambda piece: piece[1] - piece[0]))


def _parse_slot(slot: bytes) -> PartState | None:
    length = int.from_bytes(slot[_CHECK_BYTES:_HEADER_BYTES], "big")
    rest = slot[_CHECK_BYTES : _HEADER_BYTES + length]
    if len(rest) != 4 + length or hashlib.sha256(rest).digest()[:_CHECK_BYTES] != slot[:_CHECK_BYTES]:
        return None
    try:
        state = _decoder.decode(rest[4:])
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None
    last = -1
    for start, end in state.ranges:
        if not last < start < end <= state.content_bytes:
            return None
        last = end
    return state
