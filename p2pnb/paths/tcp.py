"""The TCP connection: kernel to kernel, for peers that can reach each other's addresses.

Messages are preceded by their length (4 bytes, big-endian). The socket is driven directly, not through an asyncio
transport: large records are encrypted into one buffer that is used again and again, and received into another, so
that a byte of a transfer is copied by the kernel and by the cipher and by nobody else (measured on two cores: 3.8 GB/s
this way, records of 512 KiB; a transport's own buffers cost a third of it).

A listener shows strangers nothing: whoever does not begin with a token that was given out inside a session is
disconnected without a byte in return.

Rejected: a thread per connection. The cipher takes 0.05 ms per record, so one event loop keeps up with the kernel,
and chat on the same loop waits for no lock.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import socket
import struct
import sys
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Final

from p2pnb.paths import ConnectionListener
from p2pnb.protocol.wire import CHUNK_BYTES_TCP, MAX_BEFORE_PROOF_BYTES, MAX_CONTROL_BYTES, PROOF_TIMEOUT_S

__all__ = ["TOKEN_BYTES", "TcpConnection", "TcpListener", "dial", "limit_unsent"]

TOKEN_BYTES: Final = 16
MAX_STRANGERS: Final = 8  # accepted connections that have not shown a token yet
DIAL_TIMEOUT_S: Final = 5.0
ACCEPT_REST_S: Final = 0.5  # when the process is out of descriptors
MAX_MESSAGE_BYTES: Final = max(CHUNK_BYTES_TCP, MAX_CONTROL_BYTES) + 64  # a record's header and tag, rounded up
REST_READS: Final = 64  # turns of reading after a write failed: more than a socket's buffer holds
READ_AHEAD_BYTES: Final = 64  # beyond a message, so that lengths and DATA frames need no reads of their own
TURN_S: Final = 0.003  # of reading; then the loop's other work has its turn
UNSENT_BYTES: Final = 512 * 1024  # in the kernel, behind which chat waits; more brought no speed on any line measured
LONG_ROUND_TRIP_S: Final = 0.003  # from here on BBR beats Cubic; below, its pacing only costs
_LENGTH: Final = 4
_TCP_NOTSENT_LOWAT: Final = getattr(socket, "TCP_NOTSENT_LOWAT", 25 if sys.platform == "linux" else 0)
_TCP_INFO: Final = getattr(socket, "TCP_INFO", 0)
_TCP_CONGESTION: Final = getattr(socket, "TCP_CONGESTION", 0)

_log = logging.getLogger("p2pnb.tcp")


class TcpConnection:
    """One connected socket. `message_received` gets views that are good only during the call."""

    transport = "tcp"
    engine = ""
    chunk_bytes = CHUNK_BYTES_TCP
    high_water = 1  # one record at a time is under way in this process; the kernel holds the rest

    def __init__(self, sock: socket.socket, *, first: bytes = b"") -> None:
        """Take over a connected, non-blocking socket; `first` is sent before all messages, without a length."""
        self._sock = sock
        self._loop = asyncio.get_running_loop()
        self._listener: ConnectionListener | None = None
        self._closed = False
        self._broken = False  # for writing
        self._out: deque[bytes | memoryview] = deque()
        self._buffered = 0
        self._writing = False
        self._reading = False
        self._record = bytearray()  # one outgoing record; made when bulk begins
        self._record_view = memoryview(self._record)
        self._most = MAX_BEFORE_PROOF_BYTES  # bytes of one message
        self._allowed: int | None = MAX_BEFORE_PROOF_BYTES + 4 * _LENGTH  # in all; None once proven
        self._in = bytearray(_LENGTH + MAX_BEFORE_PROOF_BYTES + READ_AHEAD_BYTES)
        self._in_view = memoryview(self._in)
        self._have = 0
        self._need = _LENGTH
        _tune(sock)
        if first:
            self._push(first)

    # ── sending ─────────────────────────────────────────────────────────────────────────────────────
    @property
    def buffered(self) -> int:
        """Bytes given to `send` or `place` that the kernel has not taken."""
        return self._buffered

    def send(self, message: bytes) -> None:
        """Queue one message. After the end it is dropped silently."""
        self._push(len(message).to_bytes(_LENGTH, "big") + message)

    def place(self, first: bytes, length: int) -> memoryview:
        """Queue the message `first`; return where the next one, of `length` bytes, is to be written before `commit`.

        Only while `buffered` is 0.
        """
        ahead = len(first) + 2 * _LENGTH
        if len(self._record) < ahead + length:
            self._record = bytearray(ahead + max(length, CHUNK_BYTES_TCP + 64))
            self._record_view = memoryview(self._record)
        view = self._record_view
        view[:_LENGTH] = len(first).to_bytes(_LENGTH, "big")
        view[_LENGTH : ahead - _LENGTH] = first
        view[ahead - _LENGTH : ahead] = length.to_bytes(_LENGTH, "big")
        self._placed = ahead + length
        return view[ahead : ahead + length]

    def commit(self) -> None:
        """Send what `place` was asked for."""
        self._push(self._record_view[: self._placed])

    def _push(self, data: bytes | memoryview) -> None:
        if self._closed or self._broken:
            return
        self._out.append(data)
        self._buffered += len(data)
        if not self._writing and self._write() and self._out:
            self._writing = True
            self._loop.add_writer(self._sock, self._on_writable)

    def _write(self) -> bool:
        """Give the kernel what it takes; False after the end."""
        try:
            while self._out:
                head = self._out[0]
                sent = self._sock.send(head)
                self._buffered -= sent
                if sent == len(head):
                    self._out.popleft()
                else:
                    self._out[0] = memoryview(head)[sent:]
        except (BlockingIOError, InterruptedError):
            pass
        except OSError as error:
            self._broke(_reason(error))
            return False
        return True

    def _broke(self, reason: str) -> None:
        """Nothing goes out any more; what the peer said before it closed is taken first."""
        if not self._broken:
            self._broken = True
            self._stop_writing()
            self._out.clear()
            self._buffered = 0
            self._loop.call_soon(self._take_rest, reason)

    def _take_rest(self, reason: str) -> None:
        for _ in range(REST_READS):
            if self._closed or not self._reading:
                break
            self._on_readable()
        self._lost(reason)

    def _on_writable(self) -> None:
        if not self._write() or self._out:
            return
        self._stop_writing()  # what is sent now goes to the kernel at once, as long as it takes it
        if self._listener is not None:
            self._listener.buffer_low()

    def _stop_writing(self) -> None:
        if self._writing:
            self._writing = False
            self._loop.remove_writer(self._sock)

    # ── receiving ───────────────────────────────────────────────────────────────────────────────────
    def attach(self, listener: ConnectionListener) -> None:
        """Say who owns this, and begin to read."""
        self._listener = listener
        self.resume_reading()

    def trust(self) -> None:
        """The other end is proven: take messages of full size from now on."""
        self._allowed = None
        self._most = MAX_MESSAGE_BYTES

    def pause_reading(self) -> None:
        """Read nothing until `resume_reading`; the kernel then makes the sender wait."""
        if self._reading:
            self._reading = False
            self._loop.remove_reader(self._sock)

    def resume_reading(self) -> None:
        """Read again. Safe to call twice."""
        if not self._reading and not self._closed and self._listener is not None:
            self._reading = True
            self._loop.add_reader(self._sock, self._on_readable)

    def _on_readable(self) -> None:
        end = self._loop.time() + TURN_S
        while self._reading and self._loop.time() < end:
            try:
                count = self._sock.recv_into(self._in_view[self._have : self._need + READ_AHEAD_BYTES])
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                self._lost(_reason(error))
                return
            if count == 0:
                self._lost("the peer closed the connection")
                return
            if self._allowed is not None:
                self._allowed -= count
                if self._allowed < 0:
                    self._lost("too much came before the proof")
                    return
            self._have += count
            if self._have >= self._need:
                self._take_messages()

    def _take_messages(self) -> None:
        """Hand over what is whole, and move the beginning of what follows to the front."""
        view, have, start = self._in_view, self._have, 0
        self._need = _LENGTH
        while have - start >= _LENGTH:
            length = int.from_bytes(view[start : start + _LENGTH], "big")
            if not 0 < length <= self._most:
                self._lost(f"a message of {length} bytes was announced; at most {self._most} are taken")
                return
            end = start + _LENGTH + length
            if end > have:
                self._need = _LENGTH + length
                break
            message = view[start + _LENGTH : end]
            if self._listener is not None:
                self._listener.message_received(message)
            message.release()
            if self._closed:
                return
            start = end
        if self._need + READ_AHEAD_BYTES > len(self._in):
            self._in = bytearray(_LENGTH + MAX_MESSAGE_BYTES + READ_AHEAD_BYTES)  # only ever for a proven peer
            self._in_view = memoryview(self._in)
        self._have = have - start
        self._in_view[: self._have] = view[start:have]

    # ── the end ─────────────────────────────────────────────────────────────────────────────────────
    def close(self) -> None:
        """End the connection; what was queued goes out if the kernel takes it at once."""
        if self._closed:
            return
        self._listener = None
        self._write()
        self._end()

    def abandon(self) -> None:
        """In a forked child: let go without a word to the peer; the parent goes on using the connection."""
        self._closed = True
        self._listener = None
        self._out.clear()

    def _lost(self, reason: str) -> None:
        listener, self._listener = self._listener, None
        self._end()
        if listener is not None:
            listener.connection_lost(reason)

    def _end(self) -> None:
        if self._closed:
            return
        self._closed = True
        if self._reading:
            self._reading = False
            self._loop.remove_reader(self._sock)
        self._stop_writing()
        self._out.clear()
        self._buffered = 0
        self._sock.close()


class TcpListener:
    """A port on every address of this machine. Connections that begin with a known token go to its owner."""

    def __init__(self) -> None:
        self.port = 0
        self._owners: dict[bytes, Callable[[TcpConnection], None]] = {}
        self._sockets: list[socket.socket] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._strangers: deque[asyncio.Task[None]] = deque()
        self._rests: dict[socket.socket, asyncio.TimerHandle] = {}  # not listened on for a moment

    def open(self) -> None:
        """Listen on a free port, the same for IPv4 and IPv6 where both exist. Raises OSError."""
        first = _listening(socket.AF_INET, "0.0.0.0", 0)  # noqa: S104 - peers come from anywhere; strangers get nothing
        self.port = first.getsockname()[1]
        self._sockets = [first]
        with contextlib.suppress(OSError):
            self._sockets.append(_listening(socket.AF_INET6, "::", self.port))
        loop = asyncio.get_running_loop()
        for sock in self._sockets:
            loop.add_reader(sock, self._on_incoming, sock)

    def expect(self, token: bytes, owner: Callable[[TcpConnection], None]) -> None:
        """Give connections that begin with `token` to `owner`."""
        self._owners[token] = owner

    def forget(self, token: bytes) -> None:
        """Take no more connections with `token`."""
        self._owners.pop(token, None)

    def close(self) -> None:
        """Stop listening, and end the strangers."""
        loop = asyncio.get_running_loop()
        for rest in self._rests.values():
            rest.cancel()
        self._rests.clear()
        for sock in self._sockets:
            loop.remove_reader(sock)
            sock.close()
        self._sockets = []
        self._owners.clear()
        for task in self._tasks:
            task.cancel()

    def _on_incoming(self, listening: socket.socket) -> None:
        for _ in range(MAX_STRANGERS):
            try:
                sock, _ = listening.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):  # none left
                return
            except OSError as error:  # out of descriptors: whoever waits makes the socket readable without end
                _log.warning("a connection can't be taken now: %s", error)
                loop = asyncio.get_running_loop()
                loop.remove_reader(listening)
                self._rests[listening] = loop.call_later(ACCEPT_REST_S, self._listen_again, listening)
                return
            sock.setblocking(False)
            task = asyncio.get_running_loop().create_task(self._greet(sock), name="p2pnb tcp stranger")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            task.add_done_callback(partial(_close_if_cancelled, sock))
            self._strangers.append(task)
            while self._strangers and self._strangers[0].done():
                self._strangers.popleft()
            if len(self._strangers) > MAX_STRANGERS:
                # an honest peer shows its token with its first packet: who waited longest is none
                self._strangers.popleft().cancel()

    def _listen_again(self, listening: socket.socket) -> None:
        del self._rests[listening]
        asyncio.get_running_loop().add_reader(listening, self._on_incoming, listening)

    async def _greet(self, sock: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        token = b""
        try:
            async with asyncio.timeout(PROOF_TIMEOUT_S):
                while len(token) < TOKEN_BYTES:
                    piece = await loop.sock_recv(sock, TOKEN_BYTES - len(token))
                    if not piece:
                        break
                    token += piece
        except (TimeoutError, OSError):
            token = b""
        owner = self._owners.get(token)  # a token has 128 secret bits: looking it up tells nobody anything
        if owner is None:
            sock.close()
        else:
            owner(TcpConnection(sock))


async def dial(address: str, port: int, token: bytes) -> TcpConnection:
    """Connect to a peer's listener, and show its token. Raises OSError, TimeoutError after DIAL_TIMEOUT_S."""
    sock = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        async with asyncio.timeout(DIAL_TIMEOUT_S):
            await asyncio.get_running_loop().sock_connect(sock, (address, port))
    except BaseException:
        sock.close()
        raise
    return TcpConnection(sock, first=token)


def _close_if_cancelled(sock: socket.socket, greeting: asyncio.Task[None]) -> None:
    """Here, since a task cancelled before its first step runs no code of its own."""
    if greeting.cancelled():
        sock.close()


def _listening(family: int, host: str, port: int) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind((host, port))
        sock.listen(2 * MAX_STRANGERS)
    except OSError:
        sock.close()
        raise
    return sock


def _tune(sock: socket.socket) -> None:
    """Small messages at once, little unsent in the kernel, and a congestion control that bears loss."""
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    limit_unsent(sock, UNSENT_BYTES)
    if _TCP_CONGESTION and _round_trip_s(sock) > LONG_ROUND_TRIP_S:
        with contextlib.suppress(OSError):  # not loaded, or not allowed to this user
            sock.setsockopt(socket.IPPROTO_TCP, _TCP_CONGESTION, b"bbr")


def limit_unsent(sock: socket.socket, size_bytes: int) -> None:
    """Have the kernel hold no more than this unsent, so that what is said next waits behind little."""
    if _TCP_NOTSENT_LOWAT:
        with contextlib.suppress(OSError):  # a unix socket, or a system without it
            sock.setsockopt(socket.IPPROTO_TCP, _TCP_NOTSENT_LOWAT, size_bytes)


def _round_trip_s(sock: socket.socket) -> float:
    """Return what the kernel measured during the handshake, 0 where it doesn't tell."""
    if sys.platform != "linux" or not _TCP_INFO:
        return 0.0
    try:
        info = sock.getsockopt(socket.IPPROTO_TCP, _TCP_INFO, 72)
    except OSError:
        return 0.0
    return float(struct.unpack_from("I", info, 68)[0]) / 1e6 if len(info) >= 72 else 0.0  # tcpi_rtt, microseconds


def _reason(error: OSError) -> str:
    if error.errno in (errno.ECONNRESET, errno.EPIPE):
        return "the connection was reset"
    return f"the connection broke ({error.strerror or error})"
