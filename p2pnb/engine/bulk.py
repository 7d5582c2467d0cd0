"""Bulk between two peers: which paths carry it, how many lanes they have, and chunks in and out.

Chunks go to whichever eligible path has room: every lane of the best transport, and while that is suspect the next
best too. The relay takes bulk when nothing better stands, or when WebRTC turned out to be slower than what the relay
adds. How many lanes there are is decided by `protocol.lanes` from the goodput that acknowledgements show.

Large records (DATA) are decrypted straight into the receiver's memory, or into a buffer that a worker writes to disk.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from enum import StrEnum
from functools import partial
from typing import TYPE_CHECKING, Final, Protocol

from p2pnb.errors import ProtocolError
from p2pnb.paths import RANKS, Connection
from p2pnb.paths.tcp import TcpConnection
from p2pnb.protocol import session as se
from p2pnb.protocol.lanes import LaneControl
from p2pnb.protocol.records import TAG_BYTES, PathCipher
from p2pnb.protocol.wire import CHUNK_BYTES_TCP, MAX_LANES, Lanes

if TYPE_CHECKING:
    from p2pnb.engine.link import Link
    from p2pnb.protocol.exchange import Chunk

__all__ = ["Bulk", "BulkPath", "RelayPolicy", "Turn"]

WAITS_FOR_DIRECT_S: Final = 2.0  # then bulk starts on the relay, and moves up when something better stands
BEST_TRANSPORT: Final = max(RANKS, key=lambda transport: RANKS[transport])
TURN_S: Final = 0.012  # then everything else the loop has to do, chat first of all, has its turn
ASK_AGAIN_S: Final = 5.0  # for lanes that are missing
HELD_S: Final = 0.005  # a receiver that ran ahead of others looks again after this
MOST_HELD: Final = 8  # of its chunks in one turn: among them may be some of other transfers
TICK_S: Final = 0.25  # how often the lanes are looked at
MOST_TCP_LANES: Final = 8  # BBR fills most lines with one; eight of anything else share a lossy one fairly enough
SHORT_LINE_S: Final = 0.003  # round trip of one machine or one switch
SLOW_DIRECT: Final = 2_000_000  # bytes per second; below it the relay is worth a try beside WebRTC
RELAY_TRY_S: Final = 3.0
RELAY_GAIN: Final = 1.3
RELAY_RETRY_S: Final = 60.0


class RelayPolicy(StrEnum):
    """What may go through the hub (sealed): bulk when nothing better stands, never bulk, or everything."""

    FALLBACK = "fallback"
    NEVER = "never"
    ONLY = "only"


class BulkPath(Protocol):
    """A path of the link, as bulk needs it."""

    number: se.PathId
    transport: str
    connection: Connection
    cipher: PathCipher | None
    up: bool
    draining: bool
    filling: bool
    expecting: tuple[int, int] | None


class Turn:
    """How long the bulk of a room may go on within one run of the event loop, over all its paths together.

    One path takes all of it, if it can, and the next path the next one: a receiver that gets much at once wakes up
    once for it, and finds its code and buffers in the caches. With eight receivers on two cores that is a third more
    than taking turns record by record (measured).
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._end = 0.0
        self._running = False
        self._waiting: deque[Callable[[], None]] = deque()  # who waits longest comes first

    def is_over(self) -> bool:
        """Tell whether bulk has to give way; the first call of a run of the loop begins a turn."""
        now = self._loop.time()
        if not self._running:
            self._running = True
            self._end = now + TURN_S
            self._loop.call_soon(self._next)
        return now >= self._end

    def wait(self, go_on: Callable[[], None]) -> None:
        """Have `go_on` called in a turn to come, behind those who wait already. Only after `is_over` said so."""
        self._waiting.append(go_on)

    def _next(self) -> None:
        self._running = False
        while self._waiting and not self.is_over():
            self._waiting.popleft()()


class Bulk:
    """What moves in chunks over one link."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._controls: dict[str, LaneControl] = {}
        self._asked_lanes: dict[str, int] = {}
        self._peer_lanes: dict[str, int] = {}
        self._asked_at = 0.0
        self._tick_timer: asyncio.TimerHandle | None = None
        self._wait_timer: asyncio.TimerHandle | None = None
        self._scratch = bytearray()
        self._stopped = False
        self._began = link.host.loop.time()
        self._relay_helps_until = 0.0
        self._relay_try: tuple[float, int, float] | None = None  # since, acknowledged, goodput to beat
        self._relay_rest_until = 0.0

    def session_began(self) -> None:
        """Everything before belongs to another session."""
        self._controls.clear()
        self._asked_lanes.clear()
        self._peer_lanes.clear()
        self._began = self._link.host.loop.time()

    def stop(self) -> None:
        """Send no more chunks: this side leaves, and its goodbye must not wait behind them."""
        self._stopped = True

    def end(self) -> None:
        """Stop all timers."""
        for timer in (self._tick_timer, self._wait_timer):
            if timer is not None:
                timer.cancel()
        self._tick_timer = self._wait_timer = None

    # ── sending ─────────────────────────────────────────────────────────────────────────────────────
    def may_move(self) -> None:
        """Something that bulk waited for may be there: chunks, credit, a path, room on one."""
        self._wait_timer = None
        link = self._link
        if link.session is None or not link.exchange.has_chunks:
            return
        for path in self._by_merit():
            self.fill(path)
        if self._tick_timer is None:
            self._tick_timer = link.host.loop.call_later(TICK_S, self._tick)

    def fill(self, path: BulkPath) -> None:
        """Send chunks over one path while it may take more."""
        if path.filling or self._stopped:
            return  # it waits for a worker's bytes, or for its next turn
        link = self._link
        connection = path.connection
        if connection.buffered >= connection.high_water or not self._eligible(path):
            return
        turn, held = link.host.turn, 0
        while path.up and connection.buffered < connection.high_water:  # sending may show that the path is dead
            if held == MOST_HELD or turn.is_over():
                path.filling = True
                if held:
                    link.host.loop.call_later(HELD_S, self._fill_on, path)
                else:
                    turn.wait(partial(self._fill_on, path))
                return
            chunk = link.exchange.next_chunk(path.number, connection.chunk_bytes)
            if chunk is None:
                return
            part = link.outgoing.get(chunk.transfer)
            if part is None:
                continue
            if part.transfer.runs_ahead(part, chunk.offset):
                link.exchange.unsent(path.number, chunk)
                held += 1
                continue
            data = part.read_now(chunk.offset, chunk.length)
            if data is None:
                if not part.state.ended:  # a worker reads; a source that failed ended its transfer
                    path.filling = True
                    link.host.spawn(self._read_and_send(path, chunk), "p2pnb bulk read")
                    return
                continue
            self._send(path, chunk, data)
            part.moved(path.transport, chunk.offset + chunk.length)

    def _fill_on(self, path: BulkPath) -> None:
        path.filling = False
        if path.up:
            self.fill(path)

    async def _read_and_send(self, path: BulkPath, chunk: Chunk) -> None:
        link = self._link
        try:
            part = link.outgoing.get(chunk.transfer)
            data = await part.read(chunk.offset, chunk.length) if part is not None else None
            if data is not None and part is not None and path.up and path.cipher is not None:
                self._send(path, chunk, data)
                part.moved(path.transport, chunk.offset + chunk.length)
            else:
                link.exchange.unsent(path.number, chunk)
        except BaseException:
            link.exchange.unsent(path.number, chunk)
            raise
        finally:
            path.filling = False
        if path.up:
            self.fill(path)
        self.may_move()

    def _send(self, path: BulkPath, chunk: Chunk, data: bytes | memoryview) -> None:
        cipher, connection = path.cipher, path.connection
        assert cipher is not None
        if isinstance(connection, TcpConnection):
            header = cipher.seal(se.data_header(chunk.transfer, chunk.offset))
            cipher.seal_into(data, connection.place(header, len(data) + TAG_BYTES))
            connection.commit()
        else:
            connection.send(cipher.seal(b"".join((se.chunk_header(chunk.transfer, chunk.offset), data))))

    # ── who may carry ───────────────────────────────────────────────────────────────────────────────
    def _by_merit(self) -> list[BulkPath]:
        return sorted(self._link.paths(), key=lambda path: -RANKS[path.transport])

    def _eligible(self, path: BulkPath) -> bool:
        session = self._link.session
        if session is None or not path.up or path.draining or path.cipher is None:
            return False
        if path.transport == "relay" and not self._relay_allowed():
            return False
        if session.in_doubt(path.number):
            return all(session.in_doubt(other.number) for other in self._link.paths())
        if path.transport == BEST_TRANSPORT:
            return True
        better = [
            other
            for other in self._link.paths()
            if other.up and not other.draining and RANKS[other.transport] > RANKS[path.transport]
        ]
        if all(session.suspect(other.number) for other in better):
            return True
        return path.transport == "relay" and self._relay_helps(better)

    def _relay_allowed(self) -> bool:
        link = self._link
        policy = link.host.relay_policy
        if policy is not RelayPolicy.FALLBACK:
            return policy is RelayPolicy.ONLY
        if link.direct_settled or any(path.up and path.transport != "relay" for path in link.paths()):
            return True
        now = link.host.loop.time()
        wait = self._began + WAITS_FOR_DIRECT_S - now
        if wait > 0 and self._wait_timer is None:
            self._wait_timer = link.host.loop.call_later(wait, self.may_move)
        return wait <= 0

    # ── lanes ───────────────────────────────────────────────────────────────────────────────────────
    def lanes_wanted(self, frame: Lanes) -> None:
        """The peer sends bulk and wants that many connections of a transport; perhaps it is us who open them."""
        if frame.transport not in ("tcp", "webrtc") or not 1 <= frame.count <= MAX_LANES:
            raise ProtocolError("an impossible number of lanes wanted")
        self._peer_lanes[frame.transport] = frame.count
        self._link.open_lanes(frame.transport, self._goal(frame.transport))

    def _goal(self, transport: str) -> int:
        """How many connections of a transport the two sides want: each sends over the same ones."""
        return max(self._asked_lanes.get(transport, 1), self._peer_lanes.get(transport, 1))

    def _tick(self) -> None:
        self._tick_timer = None
        link = self._link
        session = link.session
        if session is None:
            return
        carrier = link.carrier
        carriers = [path for path in link.paths() if path.up and path.transport == carrier and not path.draining]
        wanting = link.exchange.has_chunks and all(
            path.connection.buffered >= path.connection.high_water or path.filling for path in carriers
        )
        if carrier in ("tcp", "webrtc") and not self._processors_bind(carriers):
            most = MOST_TCP_LANES if carrier == "tcp" else MAX_LANES
            control = self._controls.setdefault(carrier, LaneControl(most))
            now = link.host.loop.time()
            count = control.observe(
                now,
                link.exchange.acknowledged_in_all,
                wanting=wanting,
                lanes=len(carriers),
                round_trip_s=link.round_trip_s or 0.05,
            )
            self._adjust(carrier, count, carriers)
            self._consider_relay(now, control, wanting)
        self._close_drained()
        busy = link.exchange.has_chunks or len(carriers) > 1 or any(path.draining for path in link.paths())
        if busy:
            self._tick_timer = link.host.loop.call_later(TICK_S, self._tick)

    def _processors_bind(self, carriers: Sequence[BulkPath]) -> bool:
        """Tell whether the line is so short that no congestion control holds bulk back, but the processors do."""
        session = self._link.session
        if session is None or not carriers or carriers[0].connection.engine == "libwebrtc":
            return False  # libwebrtc has threads of its own
        return min(session.least_round_trip_s(path.number) for path in carriers) < SHORT_LINE_S

    def _adjust(self, transport: str, count: int, carriers: Sequence[BulkPath]) -> None:
        asked = self._asked_lanes.get(transport, 1)
        now = self._link.host.loop.time()
        if count == asked:
            if len(carriers) < count and now - self._asked_at > ASK_AGAIN_S:  # one broke, or never came up
                self._asked_at = now
                self._link.want_lanes(transport, count, self._goal(transport))
            return
        self._asked_at = now
        self._asked_lanes[transport] = count
        self._link.want_lanes(transport, count, self._goal(transport))
        if count < asked:
            extra = sorted(carriers, key=lambda path: path.number)[self._goal(transport) :]
            preferred = self._link.session.preferred if self._link.session else None
            for path in extra:
                if path.number != preferred:
                    path.draining = True

    def _close_drained(self) -> None:
        for path in list(self._link.paths()):
            if path.draining and path.up and not self._link.exchange.in_flight_bytes(path.number):
                self._link.close_path(path.number)

    def _consider_relay(self, now: float, control: LaneControl, wanting: bool) -> None:
        """Let the relay help a direct path that is slow at its best, if that brings something."""
        if self._link.host.relay_policy is not RelayPolicy.FALLBACK or self._link.carrier != "webrtc":
            return
        total = self._link.exchange.acknowledged_in_all
        if self._relay_try is not None:
            since, mark, beat = self._relay_try
            if now - since >= RELAY_TRY_S:
                gained = (total - mark) / (now - since) > RELAY_GAIN * beat
                self._relay_try = None
                self._relay_helps_until = now + RELAY_RETRY_S if gained else 0.0
                self._relay_rest_until = now + RELAY_RETRY_S
        elif (
            wanting
            and control.holding
            and 0 < control.goodput < SLOW_DIRECT
            and now >= max(self._relay_rest_until, self._relay_helps_until)
        ):
            self._relay_try = (now, total, control.goodput)
            self.may_move()

    def _relay_helps(self, better: Sequence[BulkPath]) -> bool:
        if any(path.transport == "tcp" for path in better):
            return False
        return self._relay_try is not None or self._link.host.loop.time() < self._relay_helps_until

    # ── receiving ───────────────────────────────────────────────────────────────────────────────────
    def data_received(self, path: BulkPath, record: memoryview) -> None:
        """Take the record after a DATA frame. Raises ProtocolError for what ends the path."""
        link, cipher = self._link, path.cipher
        assert path.expecting is not None and cipher is not None and link.session is not None
        (transfer, start), path.expecting = path.expecting, None
        length = len(record) - TAG_BYTES
        end = start + length
        if not 0 < length <= CHUNK_BYTES_TCP:
            raise ProtocolError("a transfer's bytes of an impossible length")
        incoming = link.incoming.get(transfer)
        place = None
        if incoming is not None and link.exchange.takes(transfer, start, end):
            place = incoming.place(start, length)
        if place is None:
            if len(self._scratch) < length:
                self._scratch = bytearray(CHUNK_BYTES_TCP)
            view = memoryview(self._scratch)[:length]
            cipher.open_into(record, view)
            link.session.heard(path.number, link.host.loop.time())
            link.exchange.receive_chunk(transfer, start, memoryview(bytes(view)))
            return
        assert incoming is not None
        try:
            cipher.open_into(record, place)
        except ProtocolError:
            incoming.not_placed(start, end)
            raise
        link.session.heard(path.number, link.host.loop.time())
        link.exchange.arrived(transfer, start, end)
        incoming.placed(start, end, path)
