"""A session: what two peers have with each other while paths come and go under it.

Theory of operation. Control frames are numbered per direction, kept until acknowledged and delivered once,
in order. They go out on the *preferred* path: the best one by rank that isn't in doubt. When a path ends,
every unacknowledged frame goes out again on the next; when there is none, frames wait (bounded) for the
first path that comes up, whose proof record says what the other side has. A path that owes an answer for
about a second is *suspect*: it keeps its place, but frames go out on the next best one too, and repeated ones
are dropped by number. After PATH_DOUBT_S it is *in doubt*: others come before it. After PATH_DEAD_S it is lost.
Both sides do this alike; nobody leads. Only an answer ends suspicion and doubt: what else comes in shows that one
direction works, not both. Several paths of one rank are *lanes*: one of them carries the frames.

Chunks of transfers aren't numbered here: `exchange` knows which bytes arrived. The session only carries them.

    verbs    path_up, path_down, close_path, send, receive_frame, handle_timer
    out      frames_to_send() -> [(path, frame)], next_event(), next_timer()
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from math import inf
from struct import Struct
from typing import Final

import msgspec

from p2pnb.errors import ProtocolError, UsageError
from p2pnb.protocol.wire import (
    MAX_UNACKED_BYTES,
    MAX_UNACKED_FRAMES,
    PATH_DEAD_S,
    PATH_DOUBT_S,
    PATH_SUSPECT_S,
    PING_ACTIVE_S,
    PING_IDLE_S,
    ControlFrame,
    FrameType,
    decode_control,
    encode_control,
)

__all__ = [
    "ChunkReceived",
    "DataFollows",
    "FrameReceived",
    "PathDoubted",
    "PathId",
    "PathLost",
    "PathSuspected",
    "PreferenceChanged",
    "RoundTripMeasured",
    "Session",
    "SessionEvent",
    "chunk_header",
    "data_header",
]

PathId = int  # chosen by the caller, unique within the session

ACK_DELAY_S: Final = 0.025  # most acknowledgements ride on a frame that goes back anyway
ACK_EVERY: Final = 16  # frames
_BULK_PLACE: Final = Struct(">IQ")  # transfer, offset
_BULK_HEADER: Final = Struct(">BIQ")  # frame type, transfer, offset
CHUNK_HEADER_BYTES: Final = _BULK_HEADER.size
SUSPECT_ROUND_TRIPS: Final = 4  # of the path's own round trip, measured under load


class FrameReceived(msgspec.Struct, frozen=True):
    """Event: the next control frame of the peer."""

    frame: ControlFrame


class ChunkReceived(msgspec.Struct, frozen=True):
    """Event: bytes of a transfer's stream; may repeat, may come in any order."""

    transfer: int
    offset: int
    data: memoryview


class DataFollows(msgspec.Struct, frozen=True, gc=False):
    """Event: the next record of this path is the bytes of a transfer's stream from this offset on."""

    path: PathId
    transfer: int
    offset: int


class PathLost(msgspec.Struct, frozen=True):
    """Event: this path is silent beyond doubt, or the peer closed it. The caller closes its connection."""

    path: PathId
    reason: str


class PathDoubted(msgspec.Struct, frozen=True):
    """Event: this path owes an answer for PATH_DOUBT_S; a relay path is worth opening anew."""

    path: PathId


class PathSuspected(msgspec.Struct, frozen=True):
    """Event: this path owes an answer for longer than an answer takes; others may help out (see `suspect`)."""

    path: PathId


class RoundTripMeasured(msgspec.Struct, frozen=True):
    """Event: `round_trip_s` of this path has news."""

    path: PathId


class PreferenceChanged(msgspec.Struct, frozen=True):
    """Event: frames and bulk go over another path now (None: none is left)."""

    path: PathId | None


SessionEvent = (
    FrameReceived
    | ChunkReceived
    | DataFollows
    | PathLost
    | PathDoubted
    | PathSuspected
    | RoundTripMeasured
    | PreferenceChanged
)


class _Path(msgspec.Struct):
    rank: int
    up_at: float
    heard_at: float  # when anything last came in
    ping_sent_at: float | None = None  # the oldest unanswered ping
    ping_token: int = 0
    round_trip_s: float | None = None
    least_round_trip_s: float = inf
    pinged_at: float = 0.0
    suspect: bool = False
    in_doubt: bool = False


class Session:
    """The state machine of one pair, seen from one side."""

    def __init__(self) -> None:
        self._paths: dict[PathId, _Path] = {}
        self._preferred: PathId | None = None
        self._events: deque[SessionEvent] = deque()
        self._out: list[tuple[PathId, bytes]] = []
        # sending
        self._next_number = 1
        self._unacked: deque[tuple[int, bytes]] = deque()  # (number, encoded control frame)
        self._unacked_bytes = 0
        self._waiting_since = 0.0  # when the oldest of them was sent, or another was acknowledged
        # receiving
        self._received = 0  # highest number without a gap
        self._early: dict[int, bytes] = {}
        self._early_bytes = 0
        self._ack_owed = 0
        self._ack_due: float | None = None
        self._tokens = 0
        self.busy = False  # set by the caller while chunks are under way: pings come faster
        self.unknown_frames = 0

    # ── what the caller may know ────────────────────────────────────────────────────────────────────
    @property
    def preferred(self) -> PathId | None:
        """The path that carries frames now."""
        return self._preferred

    @property
    def received(self) -> int:
        """Highest control frame number received without a gap; goes into proof records."""
        return self._received

    @property
    def unacknowledged(self) -> int:
        """Control frames the peer hasn't acknowledged."""
        return len(self._unacked)

    def round_trip_s(self, path: PathId) -> float | None:
        """Smoothed round trip of a path in seconds, None before the first answer."""
        state = self._paths.get(path)
        return state.round_trip_s if state else None

    def least_round_trip_s(self, path: PathId) -> float:
        """Shortest round trip seen on a path in seconds, infinite before the first answer."""
        state = self._paths.get(path)
        return state.least_round_trip_s if state else inf

    def in_doubt(self, path: PathId) -> bool:
        """True while the path owes an answer for longer than PATH_DOUBT_S."""
        state = self._paths.get(path)
        return state is None or state.in_doubt

    def suspect(self, path: PathId) -> bool:
        """True while the path owes an answer for longer than an answer takes, or is in doubt."""
        state = self._paths.get(path)
        return state is None or state.suspect or state.in_doubt

    # ── paths ───────────────────────────────────────────────────────────────────────────────────────
    def path_up(self, path: PathId, rank: int, peer_received: int, now: float) -> None:
        """Take a proven path into use. `peer_received` is the number in the peer's proof record."""
        self._acknowledged(peer_received, now)
        carried = self._preferred is not None and not self.suspect(self._preferred)
        self._paths[path] = _Path(rank=rank, up_at=now, heard_at=now)
        self._choose(now)
        if not carried:
            self._resend(path)
        self._ping(path, now)

    def path_down(self, path: PathId, now: float) -> None:
        """Forget a path that closed; what may have been lost on it goes out again on the next."""
        if self._paths.pop(path, None) is None:
            return
        self._out = [(p, frame) for p, frame in self._out if p != path]
        self._choose(now)
        if self._preferred is not None:
            self._resend(self._preferred)

    def close_path(self, path: PathId, now: float) -> None:
        """Tell the peer that this path ends, and forget it."""
        if path in self._paths:
            self._emit(path, bytes([FrameType.CLOSE]))
            last = self._out.pop()
            self.path_down(path, now)
            self._out.append(last)

    # ── sending ─────────────────────────────────────────────────────────────────────────────────────
    def send(self, frame: ControlFrame, now: float) -> None:
        """Number a frame and send it; raises UsageError while too much waits for the peer's acknowledgement."""
        data = encode_control(frame)
        if len(self._unacked) >= MAX_UNACKED_FRAMES or self._unacked_bytes + len(data) > MAX_UNACKED_BYTES:
            raise UsageError(
                f"{len(self._unacked)} messages wait for this peer already; it does not answer. Try again later."
            )
        number = self._next_number
        self._next_number += 1
        if not self._unacked:
            self._waiting_since = now
        self._unacked.append((number, data))
        self._unacked_bytes += len(data)
        for path in self._carriers():
            self._emit_control(path, number, data)
            self._expect_answer(path, now)

    def can_send(self) -> bool:
        """Tell whether `send` has room for an ordinary frame."""
        return len(self._unacked) < MAX_UNACKED_FRAMES // 2 and self._unacked_bytes < MAX_UNACKED_BYTES // 2

    # ── receiving ───────────────────────────────────────────────────────────────────────────────────
    def receive_frame(self, path: PathId, frame: bytes, now: float) -> None:
        """Take one opened record of a path. Raises ProtocolError for what a peer may never send."""
        state = self._paths.get(path)
        if state is None:
            return  # the path was given up while this was on its way
        state.heard_at = now
        if not frame:
            raise ProtocolError("empty frame")
        handler = self._handlers.get(frame[0])
        if handler is None:
            self.unknown_frames += 1
            return
        handler(self, path, state, memoryview(frame)[1:], now)

    def heard(self, path: PathId, now: float) -> None:
        """Note that something came in on a path that was no frame: the bytes after DATA."""
        if (state := self._paths.get(path)) is not None:
            state.heard_at = now

    def next_event(self) -> SessionEvent | None:
        """Return the oldest event not taken yet."""
        return self._events.popleft() if self._events else None

    def frames_to_send(self) -> list[tuple[PathId, bytes]]:
        """Return and forget the frames to be sealed and sent now, in order per path."""
        out, self._out = self._out, []
        return out

    # ── time ────────────────────────────────────────────────────────────────────────────────────────
    def next_timer(self) -> float | None:
        """When `handle_timer` has to be called at the latest; None: no need."""
        due = [self._ping_due(path, state) for path, state in self._paths.items()]
        if self._ack_due is not None:
            due.append(self._ack_due)
        return min(due, default=None)

    def handle_timer(self, now: float) -> None:
        """Send due acknowledgements and pings; doubt and give up silent paths."""
        if self._ack_due is not None and now >= self._ack_due:
            self._acknowledge()
        for path, state in list(self._paths.items()):
            waited = now - state.ping_sent_at if state.ping_sent_at is not None else 0.0
            if not state.suspect and now >= self._suspect_at(path, state):
                self._suspect(path, state, now)
            if waited >= PATH_DEAD_S:
                self._events.append(PathLost(path, f"no answer for {PATH_DEAD_S:.0f} s"))
                self.path_down(path, now)
                continue
            if waited >= PATH_DOUBT_S and not state.in_doubt:
                state.in_doubt = True
                self._events.append(PathDoubted(path))
                self._choose(now)
                for other in self._carriers():
                    if other != path:
                        self._resend(other)
            if now >= self._ping_due(path, state):
                self._ping(path, now)

    # ── inside ──────────────────────────────────────────────────────────────────────────────────────
    def _carriers(self) -> list[PathId]:
        """The preferred path; while it is suspect, the next best too, of another kind if there is one."""
        if self._preferred is None:
            return []
        state = self._paths[self._preferred]
        if not (state.suspect or state.in_doubt):
            return [self._preferred]
        others = [path for path in self._paths if path != self._preferred]

        def merit(path: PathId) -> tuple[bool, bool, int]:
            other = self._paths[path]
            return (not (other.suspect or other.in_doubt), other.rank != state.rank, other.rank)

        return [self._preferred, *sorted(others, key=merit, reverse=True)[:1]]

    def _suspect_at(self, path: PathId, state: _Path) -> float:
        """When a path that owes an answer becomes suspect."""
        patience = max(PATH_SUSPECT_S, SUSPECT_ROUND_TRIPS * (state.round_trip_s or 0.0))
        since = inf if state.ping_sent_at is None else state.ping_sent_at
        if self._unacked and path == self._preferred:
            since = min(since, max(self._waiting_since, state.up_at))
        return since + patience

    def _suspect(self, path: PathId, state: _Path, now: float) -> None:
        state.suspect = True
        self._events.append(PathSuspected(path))
        if state.ping_sent_at is None:
            self._ping(path, now)
        if path == self._preferred:
            for other in self._carriers()[1:]:
                self._resend(other)

    def _choose(self, now: float) -> None:
        def merit(path: PathId) -> tuple[bool, int, bool, bool, int]:
            state = self._paths[path]
            return (not state.in_doubt, state.rank, not state.suspect, path == self._preferred, path)

        best = max(self._paths, key=merit, default=None)
        if best != self._preferred:
            self._preferred = best
            self._waiting_since = now  # the new one has all its time to bring answers
            self._events.append(PreferenceChanged(best))

    def _emit(self, path: PathId, frame: bytes) -> None:
        self._out.append((path, frame))

    def _emit_control(self, path: PathId, number: int, data: bytes) -> None:
        header = bytes([FrameType.CONTROL]) + number.to_bytes(8, "big") + self._received.to_bytes(8, "big")
        self._emit(path, header + data)
        self._ack_owed, self._ack_due = 0, None

    def _resend(self, path: PathId) -> None:
        for number, data in self._unacked:
            self._emit_control(path, number, data)

    def _expect_answer(self, path: PathId, now: float) -> None:
        """A frame is out: have an answer within the ping interval of an active path."""
        state = self._paths[path]
        if state.ping_sent_at is None and now - state.heard_at >= PING_ACTIVE_S and now - state.pinged_at >= 1.0:
            self._ping(path, now)

    def _ping(self, path: PathId, now: float) -> None:
        state = self._paths[path]
        self._tokens += 1
        if state.ping_sent_at is None:
            state.ping_sent_at = now
        state.ping_token, state.pinged_at = self._tokens, now
        self._emit(path, bytes([FrameType.PING]) + self._tokens.to_bytes(8, "big"))

    def _ping_due(self, path: PathId, state: _Path) -> float:
        active = self.busy or bool(self._unacked) or state.ping_sent_at is not None
        due = state.pinged_at + (PING_ACTIVE_S if active else PING_IDLE_S)
        if self.busy and state.ping_sent_at is None:  # bulk is under way, and acknowledgements should come all the time
            due = min(due, max(state.heard_at, state.pinged_at) + PATH_SUSPECT_S)
        if state.ping_sent_at is not None and not state.in_doubt:
            due = min(due, state.ping_sent_at + PATH_DOUBT_S)
        if not state.suspect:
            due = min(due, self._suspect_at(path, state))
        return due

    def _acknowledged(self, number: int, now: float) -> None:
        if number >= self._next_number:
            raise ProtocolError(f"frame {number} acknowledged; the last one sent is {self._next_number - 1}")
        while self._unacked and self._unacked[0][0] <= number:
            self._unacked_bytes -= len(self._unacked.popleft()[1])
            self._waiting_since = now

    def _acknowledge(self) -> None:
        self._ack_owed, self._ack_due = 0, None
        if self._preferred is not None:
            self._emit(self._preferred, bytes([FrameType.ACK]) + self._received.to_bytes(8, "big"))

    def _on_control(self, path: PathId, state: _Path, body: memoryview, now: float) -> None:
        if len(body) < 17:
            raise ProtocolError("control frame cut short")
        number = int.from_bytes(body[:8], "big")
        self._acknowledged(int.from_bytes(body[8:16], "big"), now)
        if number <= self._received or number in self._early:
            self._ack_owed += ACK_EVERY  # a repetition: the other side doesn't know that we have it
        elif number > self._received + MAX_UNACKED_FRAMES:
            raise ProtocolError(f"frame {number} is far ahead of {self._received}")
        else:
            data = bytes(body[16:])
            if self._early_bytes + len(data) > MAX_UNACKED_BYTES + MAX_UNACKED_BYTES // 4:
                raise ProtocolError("too many frames out of order")
            self._early[number] = data
            self._early_bytes += len(data)
            self._deliver()
            self._ack_owed += 1
        if self._ack_owed >= ACK_EVERY:
            self._acknowledge()
        elif self._ack_due is None:
            self._ack_due = now + ACK_DELAY_S

    def _deliver(self) -> None:
        while (data := self._early.pop(self._received + 1, None)) is not None:
            self._early_bytes -= len(data)
            self._received += 1
            try:
                frame = decode_control(data)
            except ValueError as error:
                raise ProtocolError(str(error)) from error
            if frame is None:
                self.unknown_frames += 1
            else:
                self._events.append(FrameReceived(frame))

    def _on_ack(self, path: PathId, state: _Path, body: memoryview, now: float) -> None:
        if len(body) != 8:
            raise ProtocolError("acknowledgement of the wrong length")
        self._acknowledged(int.from_bytes(body, "big"), now)

    def _on_ping(self, path: PathId, state: _Path, body: memoryview, now: float) -> None:
        if len(body) != 8:
            raise ProtocolError("ping of the wrong length")
        self._emit(path, bytes([FrameType.PONG]) + body)

    def _on_pong(self, path: PathId, state: _Path, body: memoryview, now: float) -> None:
        if len(body) != 8:
            raise ProtocolError("pong of the wrong length")
        if int.from_bytes(body, "big") == state.ping_token and state.ping_sent_at is not None:
            sample = now - state.pinged_at
            old = state.round_trip_s
            state.least_round_trip_s = min(state.least_round_trip_s, sample)
            state.round_trip_s = sample if old is None else old + (sample - old) / 4
            self._events.append(RoundTripMeasured(path))
        state.ping_sent_at = None  # any answer shows that the path lives both ways
        if state.in_doubt or state.suspect:
            state.in_doubt = state.suspect = False
            if path == self._preferred:
                self._waiting_since = now
            self._choose(now)

    def _on_chunk(self, path: PathId, state: _Path, body: memoryview, now: float) -> None:
        if len(body) < CHUNK_HEADER_BYTES - 1:
            raise ProtocolError("chunk cut short")
        transfer, offset = _BULK_PLACE.unpack_from(body)
        self._events.append(ChunkReceived(transfer, offset, body[_BULK_PLACE.size :]))

    def _on_data(self, path: PathId, state: _Path, body: memoryview, now: float) -> None:
        if len(body) != CHUNK_HEADER_BYTES - 1:
            raise ProtocolError("data header of the wrong length")
        transfer, offset = _BULK_PLACE.unpack(body)
        self._events.append(DataFollows(path, transfer, offset))

    def _on_close(self, path: PathId, state: _Path, body: memoryview, now: float) -> None:
        self._events.append(PathLost(path, "closed by the peer"))
        self.path_down(path, now)

    def _on_proof(self, path: PathId, state: _Path, body: memoryview, now: float) -> None:
        raise ProtocolError("second proof on one path")

    _handlers: Final[dict[int, Callable[[Session, PathId, _Path, memoryview, float], None]]] = {
        FrameType.PROOF: _on_proof,
        FrameType.CONTROL: _on_control,
        FrameType.ACK: _on_ack,
        FrameType.PING: _on_ping,
        FrameType.PONG: _on_pong,
        FrameType.CHUNK: _on_chunk,
        FrameType.CLOSE: _on_close,
        FrameType.DATA: _on_data,
    }


def chunk_header(transfer: int, offset: int) -> bytes:
    """Return what precedes the bytes of a chunk in its frame."""
    return _BULK_HEADER.pack(FrameType.CHUNK, transfer, offset)


def data_header(transfer: int, offset: int) -> bytes:
    """Return the frame that goes before a record of nothing but a transfer's bytes."""
    return _BULK_HEADER.pack(FrameType.DATA, transfer, offset)
