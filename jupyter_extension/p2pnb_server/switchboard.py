"""Drive a Router over real sockets, whatever server they belong to.

This is the part that tornado's and any other server's WebSockets share: who holds which socket, how many bytes
wait for whom, when to stop reading, and the clock. Everything runs on one event loop.

Back-pressure: what a destination does not take is queued up to a bound; then its senders are not read until
there is room again, first come, first served. So a slow destination slows its senders down (TCP does the
rest) and the hub's memory stays within `queue_total_bytes` plus one message for each connection.
Rejected: dropping, because a relay path is a reliable stream to the peers; a queue per pair of peers, because
peers grant each other credit, which keeps one slow destination from holding up a sender's other work for long.

A destination that takes less than one message in STALL_S while somebody waits for it is closed as too slow.

Liveness: a ping goes out every PING_INTERVAL_S; a socket is dead when nothing was heard from it and nothing was
taken by it for SILENCE_LIMIT_S. Rejected: tornado's own ping timeout, which counts from the ping and knows
pongs only: it ends a kernel that holds the GIL for 15 s, and a slow line whose pings wait behind bulk data.
"""

from __future__ import annotations

import asyncio
import logging
import time
from asyncio import Future
from collections import deque
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final, Protocol

from p2pnb.protocol.hub import PEER_ID_BYTES, PING_INTERVAL_S, RoomCreated
from p2pnb_server.router import Close, Forward, Router, Send

__all__ = ["QUEUE_BYTES", "QUEUE_TOTAL_BYTES", "SILENCE_LIMIT_S", "STALL_S", "Link", "Socket", "Switchboard"]

QUEUE_BYTES: Final = 8 * 1024 * 1024  # for one destination: 0.1 s at 80 MB/s, so that a relay never runs dry
QUEUE_TOTAL_BYTES: Final = 256 * 1024 * 1024  # for all: with many connections each one's share becomes smaller
STALL_S: Final = 15.0
SILENCE_LIMIT_S: Final = 35.0  # above 30: a kernel may hold the GIL that long
_TEXT_BYTES: Final = 256 * 1024  # presence may exceed a full queue by this; then the destination is too slow
_TICK_S: Final = 1.0

_log = logging.getLogger("p2pnb.hub")


class Socket(Protocol):
    """What the switchboard needs from a WebSocket.

    Writes return None if the operating system has all the bytes already, else a future that is done when it
    has. They don't raise: a socket that is broken says so by the `lost` of its link.
    """

    def send_text(self, text: str) -> Future[None] | None: ...

    def send_binary(self, head: bytes, body: memoryview) -> Future[None] | None:
        """Send one binary message made of `head` and `body`."""

    def ping(self) -> None: ...

    def close(self, code: int, reason: str) -> None:
        """Say goodbye, and be gone within seconds also if the other side doesn't answer."""


class Link:
    """One socket on the switchboard; the server's handler calls its methods, all of them on the event loop."""

    __slots__ = (
        "_board",
        "_taken",
        "_taken_mark",
        "heard_at",
        "id",
        "paused",
        "pinged_at",
        "progress_at",
        "queued",
        "socket",
        "waiters",
        "waiting",
    )

    def __init__(self, board: Switchboard, socket: Socket, id: int, now: float) -> None:
        self.id = id
        self.socket = socket
        self.queued = 0  # bytes written to the socket that the operating system has not taken
        self.waiting = 0  # senders that want to write and may not yet
        self.waiters: deque[Future[None]] = deque()  # those of them that sleep until something is drained, in order
        self.paused = False  # its own next message is not read: it waits for a destination or for its rate
        self.heard_at = self.pinged_at = self.progress_at = now
        self._board = board
        self._taken = self._taken_mark = 0

    def receive_text(self, text: str) -> None:
        """Take a text message."""
        self.heard()
        self._board._receive_text(self, text)

    def receive_binary(self, message: bytes) -> Awaitable[None] | None:
        """Take a binary message. If this returns something, await it before reading the next message."""
        self.heard()
        return self._board._receive_binary(self, message)

    def heard(self) -> None:
        """Note a sign of life, such as a pong."""
        self.heard_at = self._board._clock()

    def lost(self) -> None:
        """Note that the socket is closed. May be called more than once."""
        self._board._lost(self)

    def _sent(self, size: int, future: Future[None] | None, now: float) -> None:
        if future is None or future.done():
            return
        if not self.queued:
            self.progress_at = now
        self.queued += size
        future.add_done_callback(partial(self._drained, size))

    def _drained(self, size: int, future: Future[None]) -> None:
        if not future.cancelled():
            future.exception()  # seen; `lost` follows
        self.queued -= size
        self._taken += size
        if self._taken - self._taken_mark >= self._board.message_bytes or not self.queued:
            self._taken_mark = self._taken
            self.progress_at = self._board._clock()
        self._wake()

    def _wake(self) -> None:
        while self.waiters:
            waiter = self.waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return

    def _wake_all(self) -> None:
        while self.waiters:
            self._wake()


class Switchboard:
    """The sockets of one hub and its router.

    `on_use` is called at most once a second while rooms are used (joins and messages, not pings).
    `clock` is for tests; `start` and `close` are called on the event loop.
    """

    def __init__(
        self,
        router: Router,
        *,
        queue_bytes: int = QUEUE_BYTES,
        queue_total_bytes: int = QUEUE_TOTAL_BYTES,
        on_use: Callable[[], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self.router = router
        self.message_bytes = PEER_ID_BYTES + router.limits.payload_bytes
        self._queue_bytes = max(queue_bytes, self.message_bytes)
        self._queue_total_bytes = queue_total_bytes
        self._on_use = on_use
        self._used_at: float | None = None
        self._clock = clock
        self._wall_clock = wall_clock
        self._links: dict[int, Link] = {}
        self._timer: asyncio.Task[None] | None = None
        self.closed = False

    def start(self) -> None:
        """Begin to keep time."""
        if self._timer is None and not self.closed:
            self._timer = asyncio.get_running_loop().create_task(self._tick_for_ever(), name="p2pnb-hub")

    async def close(self, timeout: float = 1.0) -> None:
        """Tell all peers to come back in a moment, close their sockets and wait up to `timeout` seconds for them."""
        self.closed = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self.router.restart()
        links = list(self._links.values())
        self.apply()
        deadline = self._clock() + timeout
        while any(link.queued for link in links) and self._clock() < deadline:
            await asyncio.sleep(0.01)

    def create_room(self) -> RoomCreated:
        """Make a room; raises RefusedError."""
        return self.router.create_room(self._clock(), self._wall_clock())

    def close_room(self, room: str) -> bool:
        """Close a room; False if there is none of this id."""
        found = self.router.close_room(room)
        self.apply()
        return found

    def attach(self, socket: Socket, address: str) -> Link:
        """Take a new socket that comes from `address`."""
        now = self._clock()
        link = Link(self, socket, self.router.connect(address, now), now)
        self._links[link.id] = link
        self.apply()
        return link

    def apply(self) -> None:
        """Carry out what the router wants; needed after every call of the router from outside."""
        while effects := self.router.take_effects():
            now = self._clock()
            for effect in effects:
                match effect:
                    case Send(connections, text):
                        for connection in connections:
                            self._send_text(connection, text, now)
                    case Close(connection, code, reason):
                        self._close(connection, code, reason)

    def tick(self) -> None:
        """Do what time has made necessary; `start` calls it once a second."""
        now = self._clock()
        self.router.handle_timer(now)
        for link in list(self._links.values()):
            if link.waiting and now - link.progress_at >= STALL_S:
                _log.info("A peer took less than one message in %.0f s; it is disconnected.", STALL_S)
                self.router.expel_slow(link.id, now)
            elif now - max(link.heard_at, link.progress_at) >= SILENCE_LIMIT_S and not link.paused:
                self.router.disconnect(link.id, now)
                self._close(link.id, 1001, "silent")
            elif now - link.pinged_at >= PING_INTERVAL_S:
                link.pinged_at = now
                link.socket.ping()
        self.apply()
        if self._on_use is not None and self.router.last_used != self._used_at:
            self._used_at = self.router.last_used
            self._on_use()

    @property
    def queued_bytes(self) -> int:
        """All bytes that wait for destinations."""
        return sum(link.queued for link in self._links.values())

    @property
    def queue_share(self) -> int:
        """What one destination may have queued at this number of connections."""
        share = self._queue_total_bytes // max(1, len(self._links))
        return max(self.message_bytes, min(self._queue_bytes, share))

    # ── sockets → router → sockets ──────────────────────────────────────────────────────────────────
    def _receive_text(self, link: Link, text: str) -> None:
        self.router.receive_text(link.id, text, self._clock(), self._wall_clock())
        self.apply()

    def _receive_binary(self, link: Link, message: bytes) -> Awaitable[None] | None:
        forward = self.router.forward(link.id, message, self._clock())
        if forward is None:
            self.apply()
            return None
        to = self._links[forward.connection]
        if forward.delay or to.waiting or to.queued + len(message) > self.queue_share:
            return self._write_later(link, forward, message)
        self._write(to, forward, message)
        return None

    async def _write_later(self, link: Link, forward: Forward, message: bytes) -> None:
        link.paused = True
        to: Link | None = None
        try:
            if forward.delay:
                await asyncio.sleep(forward.delay)
            # Looked up again each time: meanwhile either end may be gone, or back on another socket.
            while (found := self.router.destination(link.id, message, self._clock())) is not None:
                woken = to is self._links[found.connection]
                if not woken:
                    self._end_waiting(to)
                    to = self._begin_waiting(self._links[found.connection])
                assert to is not None
                if to.queued + len(message) <= self.queue_share and (woken or to.waiting == 1):
                    self._write(to, found, message)
                    break
                waiter: Future[None] = asyncio.get_running_loop().create_future()
                # Whoever was woken and found no room goes first again.
                (to.waiters.appendleft if woken else to.waiters.append)(waiter)
                await waiter
            self.apply()
        finally:
            self._end_waiting(to)
            link.paused = False
            link.heard()

    def _begin_waiting(self, to: Link) -> Link:
        if not to.waiting:
            to.progress_at = self._clock()  # the time in which it has to show progress begins
        to.waiting += 1
        return to

    def _end_waiting(self, to: Link | None) -> None:
        if to is not None:
            to.waiting -= 1
            to._wake()  # the next in line sees for itself whether there is room

    def _write(self, to: Link, forward: Forward, message: bytes) -> None:
        body = memoryview(message)[PEER_ID_BYTES:]
        to._sent(len(message), to.socket.send_binary(forward.source, body), self._clock())

    def _send_text(self, connection: int, text: str, now: float) -> None:
        link = self._links.get(connection)
        if link is None:
            return
        if link.queued > self._queue_bytes + _TEXT_BYTES:
            self.router.expel_slow(link.id, now)
            return
        link._sent(len(text), link.socket.send_text(text), now)

    def _close(self, connection: int, code: int, reason: str) -> None:
        link = self._links.pop(connection, None)
        if link is not None:
            link.socket.close(code, reason)
            link._wake_all()

    def _lost(self, link: Link) -> None:
        if self._links.pop(link.id, None) is not None:
            self.router.disconnect(link.id, self._clock())
            link._wake_all()
            self.apply()

    async def _tick_for_ever(self) -> None:
        while True:
            await asyncio.sleep(_TICK_S)
            try:
                self.tick()
            except Exception:  # noqa: BLE001 - the root of this task: a hub that stopped keeping time would leak
                _log.exception("The hub's timer failed; it goes on.")
