"""The WebRTC connection: an aiortc data channel, negotiated inside the session. aiortc's names stay in here.

Offer, answer and candidates come from the peer, through the session: authenticated, but not trusted.
`screened` keeps only what a data channel needs and drops candidates that no honest peer names: a member must
not be able to point our STUN checks at loopback, cloud metadata or multicast addresses, or at system ports.

The ICE server list is always explicit: with none given, aiortc would ask a public STUN server for our
address. Host names in candidates (mDNS) are dropped, since resolving them would send queries for a stranger.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from p2pnb.errors import PathError, ProtocolError
from p2pnb.paths import ConnectionListener
from p2pnb.protocol.hub import IceServer
from p2pnb.protocol.wire import CHUNK_BYTES_WEBRTC

if TYPE_CHECKING:
    from aiortc import RTCDataChannel, RTCPeerConnection

__all__ = ["WebRtcConnection", "WebRtcNegotiation", "available", "screened"]

MAX_CANDIDATES: Final = 32  # an honest host has a handful of addresses
MIN_CANDIDATE_PORT: Final = 1024
CONNECT_TIMEOUT_S: Final = 20.0  # ICE checks of a hopeless pair last about this long
_LABEL: Final = "p2pnb"
_THIS_NETWORK: Final = ipaddress.IPv4Network("0.0.0.0/8")
_IPV4_IN_IPV6: Final = (ipaddress.IPv6Network("::/96"), ipaddress.IPv6Network("64:ff9b::/96"))  # compatible, NAT64

_log = logging.getLogger("p2pnb.webrtc")


def available() -> bool:
    """Import aiortc (0.3 s, blocking: call it in a thread); False where it is missing or broken."""
    try:
        import aiortc  # noqa: F401
    except ImportError as error:
        _log.warning("aiortc can't be imported, so there are no WebRTC paths: %s", error)
        return False
    return True


class WebRtcConnection:
    """An open data channel."""

    transport = "webrtc"
    chunk_bytes = CHUNK_BYTES_WEBRTC
    high_water = 16 * CHUNK_BYTES_WEBRTC

    def __init__(self, peer_connection: RTCPeerConnection, channel: RTCDataChannel) -> None:
        self._pc = peer_connection
        self._channel = channel
        self._listener: ConnectionListener | None = None
        self._early: list[bytes] = []
        self._closing: asyncio.Task[None] | None = None
        channel.bufferedAmountLowThreshold = self.high_water // 2
        channel.on("message", self._on_message)
        channel.on("close", lambda: self._lost("the data channel closed"))
        channel.on("bufferedamountlow", self._on_low)
        peer_connection.on("connectionstatechange", self._on_state)

    def attach(self, listener: ConnectionListener) -> None:
        """Say who owns this; what came before is delivered now."""
        self._listener = listener
        early, self._early = self._early, []
        for message in early:
            listener.message_received(message)

    @property
    def buffered(self) -> int:
        return self._channel.bufferedAmount

    def send(self, message: bytes) -> None:
        if self._closing is None and self._channel.readyState == "open":
            self._channel.send(message)

    def close(self) -> None:
        self._listener = None
        if self._closing is None:
            self._closing = asyncio.get_running_loop().create_task(_close(self._pc))

    def _on_message(self, message: bytes | str) -> None:
        if isinstance(message, str):
            self._lost("the peer sent text on a binary channel")
        elif self._listener is not None:
            self._listener.message_received(message)
        elif self._closing is None and len(self._early) < 64:
            self._early.append(message)

    def _on_low(self) -> None:
        if self._listener is not None:
            self._listener.buffer_low()

    def _on_state(self) -> None:
        if self._pc.connectionState in ("failed", "closed"):
            self._lost(f"the connection {self._pc.connectionState}")

    def _lost(self, reason: str) -> None:
        listener, self._listener = self._listener, None
        if listener is not None:
            listener.connection_lost(reason)
        self.close()


class WebRtcNegotiation:
    """One try to reach one peer. Either `offer` then `accept_answer`, or `answer`; then `connected`."""

    def __init__(self, ice_servers: Sequence[IceServer]) -> None:
        from aiortc import RTCConfiguration, RTCIceServer, RTCPeerConnection

        servers = [
            RTCIceServer(urls=s.urls, username=s.username or None, credential=s.credential or None) for s in ice_servers
        ]
        self._pc = RTCPeerConnection(RTCConfiguration(iceServers=servers))  # a list, even if empty: see above
        self._open: asyncio.Future[WebRtcConnection] = asyncio.get_running_loop().create_future()
        self._pc.on("connectionstatechange", self._on_state)
        self._pc.on("datachannel", self._on_channel)

    async def offer(self) -> str:
        """Gather candidates and return the SDP offer."""
        channel = self._pc.createDataChannel(_LABEL, ordered=True)
        channel.on("open", lambda: self._opened(channel))
        await self._pc.setLocalDescription(await self._pc.createOffer())
        return self._pc.localDescription.sdp

    async def answer(self, sdp: str) -> str:
        """Take the peer's offer and return the SDP answer."""
        await self._set_remote(sdp, "offer")
        await self._pc.setLocalDescription(await self._pc.createAnswer())
        return self._pc.localDescription.sdp

    async def accept_answer(self, sdp: str) -> None:
        """Take the peer's answer."""
        await self._set_remote(sdp, "answer")

    async def connected(self) -> WebRtcConnection:
        """Wait for the data channel; PathError if it can't be had."""
        try:
            return await asyncio.wait_for(asyncio.shield(self._open), CONNECT_TIMEOUT_S)
        except TimeoutError as error:
            raise PathError("no address of the peer answers") from error

    async def close(self) -> None:
        """Give up; a connection that `connected` returned is not touched."""
        if not self._open.done():
            self._open.cancel()
        if self._open.cancelled() or self._open.exception() is not None:
            await _close(self._pc)

    async def _set_remote(self, sdp: str, kind: str) -> None:
        from aiortc import RTCSessionDescription

        clean = screened(sdp)
        try:
            await self._pc.setRemoteDescription(RTCSessionDescription(clean, kind))
        except asyncio.CancelledError:
            raise
        except Exception as error:  # whatever a parser of foreign text raises
            raise ProtocolError("the peer sent a session description that can't be used") from error

    def _on_channel(self, channel: Any) -> None:
        if channel.label == _LABEL:
            self._opened(channel)

    def _opened(self, channel: RTCDataChannel) -> None:
        if not self._open.done():
            self._open.set_result(WebRtcConnection(self._pc, channel))

    def _on_state(self) -> None:
        if self._pc.connectionState in ("failed", "closed") and not self._open.done():
            self._open.set_exception(PathError(f"the WebRTC connection {self._pc.connectionState}"))
            self._open.exception()  # marked as seen: nobody may be waiting


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
        if line.startswith("a=candidate:"):
            if candidates >= MAX_CANDIDATES or not _usable(line):
                continue
            candidates += 1
        lines.append(line)
    if media != 1:
        raise ProtocolError("the peer's session description has no single data channel")
    return "\r\n".join([*lines, ""])


def _usable(line: str) -> bool:
    """Tell whether an honest peer could name this candidate (RFC 8839 §5.1)."""
    fields = line.removeprefix("a=candidate:").split()
    if len(fields) < 8 or fields[2].lower() != "udp":
        return False
    try:
        address, port = ipaddress.ip_address(fields[4]), int(fields[5])
    except ValueError:
        return False
    inner = _embedded(address) if isinstance(address, ipaddress.IPv6Address) else None
    if _forbidden(address) or (inner is not None and _forbidden(inner)):
        return False
    return MIN_CANDIDATE_PORT <= port <= 65535


def _embedded(address: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    """Return the IPv4 address that packets to this IPv6 address may end up at (RFC 4291, 3056, 6052)."""
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address.sixtofour is not None:
        return address.sixtofour
    if any(address in network for network in _IPV4_IN_IPV6):
        return ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)
    return None


def _forbidden(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    if isinstance(address, ipaddress.IPv4Address):
        special = address in _THIS_NETWORK or address.is_reserved  # 240/4, with the broadcast address
    else:
        special = address.is_site_local
    return (
        special or address.is_loopback or address.is_link_local or address.is_multicast or address.is_unspecified
    )


async def _close(peer_connection: RTCPeerConnection) -> None:
    try:
        await asyncio.wait_for(peer_connection.close(), 5)
    except (TimeoutError, OSError, ConnectionError) as error:
        _log.debug("closing a WebRTC connection: %s", error)
