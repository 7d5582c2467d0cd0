"""The WebRTC connection: a data channel, negotiated inside the session. The engines' names stay in here.

Two engines do the work, with one interface between them: aiortc, always there, whose SCTP gets a faster data
plane (`_sctp`), and libwebrtc, several times faster, where the optional package is installed (`libwebrtc`). The
ends need not have the same one.

Offer, answer and candidates come from the peer, through the session: authenticated, but not trusted.
`screened` keeps only what a data channel needs and drops candidates that no honest peer names: a member must
not be able to point our STUN checks at loopback, cloud metadata or multicast addresses, or at system ports.

The ICE server list is always explicit: with none given, either engine's aiortc interface would ask a public
STUN server for our address. Host names in candidates (mDNS) are dropped, since resolving them would send
queries for a stranger.

Several connections to one peer may be open at once ("lanes"). Each holds what its own line needs and little
more, so that a transfer over all of them never waits for a slow one that took megabytes.
"""

from __future__ import annotations

import asyncio
import importlib
import logging
import re
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, Literal

from p2pnb.errors import PathError, ProtocolError
from p2pnb.paths import ConnectionListener, _sctp, libwebrtc
from p2pnb.paths.addresses import dialable
from p2pnb.protocol.hub import IceServer
from p2pnb.protocol.wire import CHUNK_BYTES_WEBRTC

if TYPE_CHECKING:
    from aiortc import RTCDataChannel, RTCPeerConnection

__all__ = ["ENGINES", "Engine", "WebRtcConnection", "WebRtcNegotiation", "available", "engines", "screened"]

Engine = Literal["aiortc", "libwebrtc"]
ENGINES: Final[tuple[Engine, ...]] = ("libwebrtc", "aiortc")  # the better one first
MAX_CANDIDATES: Final = 32  # an honest host has a handful of addresses
MAX_RECORD_BYTES: Final = 64 * 1024  # what a peer has to take in one message (RFC 8841 §6: the least there is)
CONNECT_TIMEOUT_S: Final = 20.0  # ICE checks of a hopeless pair last about this long
CLOSE_TIMEOUT_S: Final = 5.0
MIN_HIGH_WATER: Final = 2 * CHUNK_BYTES_WEBRTC  # one chunk leaves while the next one waits
MAX_HIGH_WATER: Final = 4 * 1024 * 1024
HELD_S: Final = 0.02  # of what leaves: an engine without a window to look at is refilled this often at least
SOCKET_BYTES: Final = 1024 * 1024  # the usual 208 KiB hold 90 packets: 9 ms of 100 Mbit/s, a busy event loop's pause
_LABEL: Final = "p2pnb"

_log = logging.getLogger("p2pnb.webrtc")


def available() -> bool:
    """Tell whether any engine can be imported (0.3 s, blocking: call it in a thread)."""
    return bool(engines())


def engines() -> tuple[Engine, ...]:
    """Import the engines (0.3 s each, blocking: call it in a thread); return those that are there, the better first."""
    found: list[Engine] = []
    for engine in ENGINES:
        try:
            _module(engine)
        except ImportError as error:
            # nothing is wrong without the optional one
            level = logging.WARNING if engine == "aiortc" else logging.DEBUG
            _log.log(level, "%s can't be imported, so there are no WebRTC paths with it: %s", engine, error)
        else:
            found.append(engine)
    return tuple(found)


def _module(engine: Engine) -> Any:
    """Return the module with aiortc's interface."""
    return importlib.import_module("aiortc") if engine == "aiortc" else libwebrtc.load()


class WebRtcConnection:
    """An open data channel.

    `buffered` counts every byte given to `send` that is not known to have left: with aiortc all that the peer
    has not acknowledged, so that of several connections the one whose `buffered` is furthest below `high_water`
    is the one that can take more; with libwebrtc, which does not tell, what it has not put into packets yet.
    `high_water` follows the line: what the line holds (with libwebrtc: what it takes in 20 ms) and two chunks.
    """

    transport = "webrtc"
    chunk_bytes = CHUNK_BYTES_WEBRTC

    def __init__(
        self, peer_connection: RTCPeerConnection, channel: RTCDataChannel, engine: Engine, tuned: _sctp.Tuned | None
    ) -> None:
        self.engine: Engine = engine
        self.high_water = 4 * CHUNK_BYTES_WEBRTC
        self._pc = peer_connection
        self._channel = channel
        self._tuned = tuned
        self._loop = asyncio.get_running_loop()
        self._listener: ConnectionListener | None = None
        self._early: list[bytes] = []
        self._full = False
        self._given = 0  # bytes, since `_rate_from`
        self._rate_from = (self._loop.time(), 0)
        self._closing: asyncio.Task[None] | None = None
        channel.on("message", self._on_message)
        channel.on("close", lambda: self._lost("the data channel closed"))
        peer_connection.on("connectionstatechange", self._on_state)
        if tuned is not None:
            tuned.on_progress(self._on_progress)
            _widen(peer_connection)
        else:
            channel.bufferedAmountLowThreshold = self.high_water // 2
            channel.on("bufferedamountlow", self._on_progress)

    def attach(self, listener: ConnectionListener) -> None:
        """Say who owns this; what came before is delivered now."""
        self._listener = listener
        early, self._early = self._early, []
        for message in early:
            listener.message_received(message)

    @property
    def buffered(self) -> int:
        if self._closing is not None:
            return 0
        waiting: int = self._channel.bufferedAmount
        return waiting if self._tuned is None else waiting + self._tuned.unacknowledged

    def send(self, message: bytes) -> None:
        if self._closing is not None or self._channel.readyState != "open":
            return
        if self._tuned is None and not self._full:
            self._follow_rate()
        try:
            self._channel.send(message)
        except Exception as error:  # noqa: BLE001  # each engine has errors of its own; either way the channel is over
            _log.info("a data channel took no message of %d bytes: %r", len(message), error)
            self._loop.call_soon(self._lost, "the data channel takes nothing more")
            return
        self._given += len(message)
        self._full = self._full or self.buffered >= self.high_water

    def close(self) -> None:
        self._listener = None
        if self._closing is None:
            if self._tuned is not None:
                self._tuned.on_progress(None)
            self._closing = _close_soon(self._pc)

    # ── inside ──────────────────────────────────────────────────────────────────────────────────────
    def _on_progress(self) -> None:
        """See whether the sender has to be told to go on: the peer acknowledged, or the engine sent."""
        if self._tuned is not None:
            self.high_water = min(MAX_HIGH_WATER, self._tuned.capacity + MIN_HIGH_WATER)
        if self._full:
            self._full = self.buffered >= self.high_water
            if not self._full and self._listener is not None:
                self._listener.buffer_low()
        elif self._tuned is not None:
            self._full = self.buffered >= self.high_water  # the line holds less than it seemed

    def _follow_rate(self) -> None:
        """Set `high_water` by what leaves; not while full, or the event that ends it might never come."""
        now, since = self._loop.time(), self._rate_from[0]
        if now - since < HELD_S:
            return
        left = self._given - self._channel.bufferedAmount
        rate = (left - self._rate_from[1]) / (now - since)
        self._rate_from = (now, left)
        held = 2 * HELD_S * rate + MIN_HIGH_WATER
        self.high_water = int(min(MAX_HIGH_WATER, max(MIN_HIGH_WATER, held, 0.9 * self.high_water)))
        self._channel.bufferedAmountLowThreshold = self.high_water // 2

    def _on_message(self, message: bytes | str) -> None:
        if isinstance(message, str):
            self._lost("the peer sent text on a binary channel")
        elif self._listener is not None:
            self._listener.message_received(message)
        elif self._closing is None and len(self._early) < 64:
            self._early.append(message)

    def _on_state(self) -> None:
        if self._pc.connectionState in ("failed", "closed"):
            self._lost(f"the connection {self._pc.connectionState}")

    def _lost(self, reason: str) -> None:
        listener, self._listener = self._listener, None
        if listener is not None:
            listener.connection_lost(reason)
        self.close()


class WebRtcNegotiation:
    """One try to reach one peer. Either `offer` then `accept_answer`, or `answer`; then `connected`.

    Many may run at once. `engine` must be one of `engines()`.
    """

    def __init__(self, ice_servers: Sequence[IceServer], engine: Engine = "aiortc") -> None:
        rtc = self._rtc = _module(engine)
        self.engine: Engine = engine
        servers = [
            rtc.RTCIceServer(urls=s.urls, username=s.username or None, credential=s.credential or None)
            for s in ice_servers
        ]
        self._pc = rtc.RTCPeerConnection(rtc.RTCConfiguration(iceServers=servers))  # a list, even if empty: see above
        self._tuned: _sctp.Tuned | None = None
        self._open: asyncio.Future[WebRtcConnection] = asyncio.get_running_loop().create_future()
        self._pc.on("connectionstatechange", self._on_state)
        self._pc.on("datachannel", self._on_channel)

    async def offer(self) -> str:
        """Gather candidates and return the SDP offer."""
        channel = self._pc.createDataChannel(_LABEL, ordered=True)
        channel.on("open", lambda: self._opened(channel))
        self._tune()
        await self._pc.setLocalDescription(await self._pc.createOffer())
        return str(self._pc.localDescription.sdp)

    async def answer(self, sdp: str) -> str:
        """Take the peer's offer and return the SDP answer; ProtocolError if it can't be used."""
        await self._set_remote(sdp, "offer")
        self._tune()
        with _peers_fault():
            await self._pc.setLocalDescription(await self._pc.createAnswer())
        return str(self._pc.localDescription.sdp)

    async def accept_answer(self, sdp: str) -> None:
        """Take the peer's answer; ProtocolError if it can't be used."""
        await self._set_remote(sdp, "answer")

    async def connected(self) -> WebRtcConnection:
        """Wait for the data channel; PathError if it can't be had."""
        try:
            return await asyncio.wait_for(asyncio.shield(self._open), CONNECT_TIMEOUT_S)
        except TimeoutError as error:
            raise PathError("no address of the peer answers") from error

    async def close(self) -> None:
        """Give up; a connection that `connected` returned is not touched.

        Goes on to its end if the caller is cancelled.
        """
        if not self._open.done():
            self._open.cancel()
        if self._open.cancelled() or self._open.exception() is not None:
            await asyncio.shield(_close_soon(self._pc))

    def _tune(self) -> None:
        if self.engine == "aiortc":
            self._tuned = _sctp.tune(self._pc.sctp)

    async def _set_remote(self, sdp: str, kind: str) -> None:
        clean = screened(sdp)
        with _peers_fault():
            await self._pc.setRemoteDescription(self._rtc.RTCSessionDescription(clean, kind))

    def _on_channel(self, channel: Any) -> None:
        if channel.label == _LABEL:
            self._opened(channel)

    def _opened(self, channel: RTCDataChannel) -> None:
        if not self._open.done():
            self._open.set_result(WebRtcConnection(self._pc, channel, self.engine, self._tuned))

    def _on_state(self) -> None:
        if self._pc.connectionState in ("failed", "closed") and not self._open.done():
            self._open.set_exception(PathError(f"the WebRTC connection {self._pc.connectionState}"))
            self._open.exception()  # marked as seen: nobody may be waiting


@contextmanager
def _peers_fault() -> Iterator[None]:
    try:
        yield
    except asyncio.CancelledError:
        raise
    except Exception as error:  # whatever an engine raises over foreign text
        raise ProtocolError("the peer sent a session description that can't be used") from error


def screened(sdp: str) -> str:
    """Return the peer's SDP with only usable candidates; ProtocolError if it asks for more than a data channel."""
    if not all(" " <= character <= "~" or character in "\r\n" for character in sdp):
        raise ProtocolError("the peer's session description has characters that none needs")
    lines, candidates, media = [], 0, 0
    for line in sdp.splitlines():  # as the parser behind this screen does: it must see the same lines
        if line.startswith("m="):
            media += 1
            if not line.startswith("m=application "):
                raise ProtocolError("the peer's session description asks for more than a data channel")
        if line.startswith("a=max-message-size:") and not _large_enough(line):
            raise ProtocolError("the peer's session description takes no messages of the size that records have")
        if line.startswith("a=candidate:"):
            if candidates >= MAX_CANDIDATES or not _usable(line):
                continue
            candidates += 1
        lines.append(line)
    if media != 1:
        raise ProtocolError("the peer's session description has no single data channel")
    return "\r\n".join([*lines, ""])


def _large_enough(line: str) -> bool:
    """Tell whether records fit the messages that the peer takes; 0 stands for any size (RFC 8841 §6)."""
    value = line.removeprefix("a=max-message-size:").strip()
    return re.fullmatch("[0-9]{1,19}", value) is not None and (int(value) == 0 or int(value) >= MAX_RECORD_BYTES)


def _usable(line: str) -> bool:
    """Tell whether an honest peer could name this candidate (RFC 8839 §5.1)."""
    fields = line.removeprefix("a=candidate:").split()
    if len(fields) < 8 or fields[2].lower() != "udp":
        return False
    return fields[5].isdecimal() and dialable(fields[4], int(fields[5]), same_host=False)


def _widen(peer_connection: Any) -> None:
    """Let the sockets below hold more than a moment's packets; what a kernel or another aioice refuses is no loss."""
    try:
        for protocol in peer_connection.sctp.transport.transport._connection._protocols:
            protocol.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SOCKET_BYTES)
    except (AttributeError, OSError) as error:
        _log.debug("the sockets of a WebRTC connection keep their size: %s", error)


_closing: set[asyncio.Task[None]] = set()  # asyncio itself holds on to no task


def _close_soon(peer_connection: Any) -> asyncio.Task[None]:
    """Close an engine's connection in a task of its own: one that is cancelled half-way keeps sockets and timers."""
    task = asyncio.get_running_loop().create_task(_close(peer_connection), name="p2pnb webrtc close")
    _closing.add(task)
    task.add_done_callback(_closing.discard)
    return task


def _no_late_consent(peer_connection: Any) -> None:
    """Keep aioice from beginning its checks of consent once it is closed.

    Its `connect()` may have found a pair and not have gone on yet: then it starts, after the end, a task that checks
    the consent of nobody for ever.
    """

    async def nothing() -> None:
        pass

    try:
        peer_connection.sctp.transport.transport._connection.query_consent = nothing
    except AttributeError as error:  # the other engine, or another aioice
        _log.debug("a WebRTC connection is closed as it is: %s", error)


async def _close(peer_connection: Any) -> None:
    _no_late_consent(peer_connection)
    try:
        await asyncio.wait_for(peer_connection.close(), CLOSE_TIMEOUT_S)
    except (TimeoutError, OSError, ConnectionError) as error:
        _log.debug("closing a WebRTC connection: %s", error)
