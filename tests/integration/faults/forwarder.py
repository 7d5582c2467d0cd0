"""A TCP forwarder between peers and their hub that does to a line what lines suffer.

It runs on a thread of its own; what a test sets takes effect with the next bytes. Everything happens to the
stream as the network would do it: a cut is a reset (no FIN, no goodbye) at an exact byte; a held direction
keeps its sockets open and lets nothing pass, so that only time tells; what was held goes on when it is let go,
as TCP's own repetitions would bring it. Bytes are never doubled or reordered: TCP does not do that either.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Coroutine, Iterator
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

LOOPBACK: Final = "127.0.0.1"
PIECE_BYTES: Final = 64 * 1024
QUEUE_PIECES: Final = 64  # of one direction that is delayed or slow; then the sender is pushed back
CALL_TIMEOUT_S: Final = 10.0
_RESET: Final = struct.pack("ii", 1, 0)  # SO_LINGER with no time: close() sends RST
_TICK_S: Final = 0.005

T = TypeVar("T")


@dataclass(eq=False)
class Direction:
    """What happens to the bytes that go one way, on every line."""

    held: bool = False  # nothing passes and nothing is said: a black hole
    delay_s: float = 0.0
    bytes_per_s: float | None = None
    passed: int = 0
    flipped: int = 0
    _flip_due: int | None = None

    def flip_after(self, count: int) -> None:
        """Change one bit of the byte that is `count` bytes away."""
        self._flip_due = count

    def _through(self, piece: bytearray) -> None:
        if self._flip_due is not None:
            if self._flip_due < len(piece):
                piece[self._flip_due] ^= 1 << (self.passed % 8)
                self._flip_due = None
                self.flipped += 1
            else:
                self._flip_due -= len(piece)
        self.passed += len(piece)


@dataclass(eq=False)
class _Line:
    near: socket.socket  # towards the peer
    far: socket.socket  # towards the hub
    heard_at: float = field(default_factory=time.monotonic)
    ended: bool = False
    readers: list[asyncio.Task[None]] = field(default_factory=list)


class Forwarder:
    """Listens on a port and leads to another. A context manager; everything of it ends with the block."""

    def __init__(self, target_port: int, *, listen: str = LOOPBACK, port: int = 0) -> None:
        self.port = port
        self.up = Direction()  # from the peer to the hub
        self.down = Direction()  # from the hub to the peer
        self.refusing = False  # True: newcomers are reset at once
        self.idle_limit_s: float | None = None  # a proxy that ends lines on which nothing moved for so long
        self.cuts: Iterator[int] = iter(())  # bytes, both ways together, until the next cut of every line
        self.cut_times: list[float] = []
        self.opened = 0  # lines that reached the hub
        self.tried = 0  # connections that somebody tried to open
        self.idle_cuts = 0
        self._cut_due: int | None = None
        self._listen, self._target = listen, target_port
        self._lines: set[_Line] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="forwarder", daemon=True)
        self._server: socket.socket | None = None

    def __enter__(self) -> Forwarder:
        self._server = socket.create_server((self._listen, self.port), backlog=64)
        self._server.setblocking(False)
        self.port = self._server.getsockname()[1]
        self._thread.start()
        self._call(self._begin())
        return self

    def __exit__(self, *_: object) -> None:
        self.refusing = True
        self._call(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(CALL_TIMEOUT_S)
        assert not self._thread.is_alive()
        self._loop.close()

    # ── what a test does with it ────────────────────────────────────────────────────────────────────
    @property
    def lines(self) -> int:
        """Connections that stand."""
        return len(self._lines)

    def address(self, url: str) -> str:
        """Return `url` with this forwarder in the place of its host and port."""
        parts = urlsplit(url)
        host = LOOPBACK if self._listen in ("", "0.0.0.0") else self._listen
        return parts._replace(netloc=f"{host}:{self.port}").geturl()

    def cut(self) -> None:
        """Reset every line."""
        self._call(self._cut())

    def hold(self, *, up: bool = True, down: bool = True) -> None:
        """Let nothing pass any more in these directions; sockets stay open."""
        self.up.held, self.down.held = up, down

    def let_go(self) -> None:
        """Let everything pass again."""
        self.up.held = self.down.held = False

    def cut_at(self, counts: Iterator[int]) -> None:
        """Cut every line after these numbers of bytes, counted from the cut before."""
        self.cuts = counts
        self._cut_due = next(counts, None)

    # ── inside ──────────────────────────────────────────────────────────────────────────────────────
    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()

    def _call(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(CALL_TIMEOUT_S)

    async def _begin(self) -> None:
        self._spawn(self._accept())
        self._spawn(self._watch_idle())

    async def _end(self) -> None:
        await self._cut()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        assert self._server is not None
        self._server.close()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _accept(self) -> None:
        assert self._server is not None
        while True:
            near, _ = await self._loop.sock_accept(self._server)
            self.tried += 1
            if self.refusing:
                _reset(near)
                continue
            near.setblocking(False)
            near.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._spawn(self._serve(near))

    async def _serve(self, near: socket.socket) -> None:
        far = socket.socket()
        far.setblocking(False)
        try:
            await self._loop.sock_connect(far, (LOOPBACK, self._target))
        except OSError:
            _reset(near)
            far.close()
            return
        far.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        line = _Line(near, far)
        self._lines.add(line)
        self.opened += 1
        line.readers.append(self._spawn(self._carry(line, near, far, self.up)))
        line.readers.append(self._spawn(self._carry(line, far, near, self.down)))

    async def _carry(self, line: _Line, source: socket.socket, target: socket.socket, way: Direction) -> None:
        queue: deque[tuple[float, bytearray]] = deque()
        news = asyncio.Event()
        writer = self._loop.create_task(self._write(line, queue, news, target, way))
        try:
            while not line.ended:
                await self._let_go(line, way)
                while len(queue) >= QUEUE_PIECES and not line.ended:
                    await asyncio.sleep(_TICK_S)
                data = bytearray(await self._loop.sock_recv(source, PIECE_BYTES))
                await self._let_go(line, way)  # the hold may have come while it waited for this
                line.heard_at = time.monotonic()
                queue.append((line.heard_at + way.delay_s, data))
                news.set()
                if not data:
                    await writer  # what is queued goes out first, then the end
                    return
        except OSError:
            self._drop(line)
        finally:
            writer.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await writer

    async def _let_go(self, line: _Line, way: Direction) -> None:
        while way.held and not line.ended:
            await asyncio.sleep(_TICK_S)

    async def _write(
        self,
        line: _Line,
        queue: deque[tuple[float, bytearray]],
        news: asyncio.Event,
        target: socket.socket,
        way: Direction,
    ) -> None:
        try:
            while True:
                if not queue:
                    news.clear()
                    await news.wait()
                    continue
                due, data = queue.popleft()
                if (wait := due - time.monotonic()) > 0:
                    await asyncio.sleep(wait)
                while way.held:
                    await asyncio.sleep(_TICK_S)
                if not data:
                    self._drop(line, gently=True)
                    return
                cut = self._counted(data)
                way._through(data)
                if data:
                    await self._loop.sock_sendall(target, data)
                if cut:
                    await self._cut()
                    return
                if way.bytes_per_s is not None:
                    await asyncio.sleep(len(data) / way.bytes_per_s)
        except OSError:
            self._drop(line)

    def _counted(self, data: bytearray) -> bool:
        """Count towards the next cut; shorten what passes to the byte it falls on."""
        if self._cut_due is None:
            return False
        if self._cut_due > len(data):
            self._cut_due -= len(data)
            return False
        del data[self._cut_due :]
        self._cut_due = next(self.cuts, None)
        return True

    async def _cut(self) -> None:
        self.cut_times.append(time.monotonic())
        for line in list(self._lines):
            self._drop(line)

    def _drop(self, line: _Line, *, gently: bool = False) -> None:
        if line.ended:
            return
        line.ended = True
        self._lines.discard(line)
        for one in (line.near, line.far):
            for watch in (self._loop.remove_reader, self._loop.remove_writer):
                watch(one.fileno())
            if gently:
                one.close()
            else:
                _reset(one)
        for task in line.readers:
            if task is not asyncio.current_task():
                task.cancel()

    async def _watch_idle(self) -> None:
        while True:
            await asyncio.sleep(0.05)
            limit = self.idle_limit_s
            for line in list(self._lines):
                if limit is not None and time.monotonic() - line.heard_at > limit:
                    self.idle_cuts += 1
                    self._drop(line, gently=True)


def _reset(one: socket.socket) -> None:
    with contextlib.suppress(OSError):
        one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    one.close()
