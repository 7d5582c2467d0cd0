"""The relay connection: records as payloads through the hub.

Always there, also where UDP and inbound TCP are blocked. It is opened and opened anew by OPEN messages,
which the link handles, since they too travel as payloads.
"""

from __future__ import annotations

from typing import Final, Protocol

from p2pnb.protocol.wire import CHUNK_BYTES_RELAY, HandshakeType

__all__ = ["PayloadSender", "RelayConnection"]

_RECORD: Final = bytes([HandshakeType.RECORD])
_OVERHEAD_BYTES: Final = 64  # message type, chunk header, tag; rounded up


class PayloadSender(Protocol):
    """The hub client, as a relay connection needs it."""

    @property
    def payload_limit(self) -> int:
        """Bytes that the hub forwards in one payload."""

    @property
    def buffered(self) -> int:
        """Bytes queued for the hub, for all peers."""

    def send_payload(self, peer_id: bytes, payload: bytes) -> None:
        """Queue a payload for a peer."""


class RelayConnection:
    """One opening of the relay path to one peer."""

    transport = "relay"
    engine = ""
    high_water = 4 * CHUNK_BYTES_RELAY  # chat waits behind at most this much of our own bulk

    def __init__(self, hub: PayloadSender, peer_id: bytes) -> None:
        self._hub: PayloadSender | None = hub
        self._peer_id = peer_id
        self.chunk_bytes = min(CHUNK_BYTES_RELAY, hub.payload_limit - _OVERHEAD_BYTES)

    @property
    def buffered(self) -> int:
        return self._hub.buffered if self._hub is not None else 0

    def send(self, message: bytes) -> None:
        if self._hub is not None:
            self._hub.send_payload(self._peer_id, _RECORD + message)

    def close(self) -> None:
        self._hub = None
