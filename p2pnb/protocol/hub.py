"""What a peer and a hub say to each other, on one screen.

One WebSocket per peer and room at ``<base_url>p2pnb/ws``; the room id travels in the first message,
never in the URL, so that access logs don't hold it.

    peer → hub   text    Join              first message, within JOIN_TIMEOUT_S of connecting
    hub  → peer  text    Welcome | Error   the answer to Join
    hub  → peer  text    Joined, Left      presence of the other peers
    hub  → peer  text    Restarting        come back in a moment, the same way
    hub  → peer  text    Error             `fatal` ones close the socket with a CloseCode
    peer → hub   text    Leave             goodbye: no grace period for me
    both         binary  [16 bytes peer id][payload]   id is the destination on the way in and the
                                           source on the way out; the payload is opaque to the hub

Text messages are JSON objects with a ``type`` field; unknown fields are ignored, unknown types too.

Rooms are soft state. `Join` with ``resume`` takes up the same peer id after a lost connection; the
``secret`` is an HMAC under the hub's key over room and id, so it also holds against a hub that was
restarted empty. ``ticket`` brings a room itself back that such a hub no longer knows. ``owner`` is the
key that creating the room returned; it marks this peer as the room's owner towards the others.

The hub learns: room ids, opaque peer ids, sizes and times. Never words, names, SDP or addresses.
"""

from __future__ import annotations

from typing import Final

import msgspec

__all__ = [
    "CloseCode",
    "Error",
    "ErrorCode",
    "HubMessage",
    "IceServer",
    "Join",
    "Joined",
    "Leave",
    "Left",
    "Limits",
    "PeerEntry",
    "PeerMessage",
    "Restarting",
    "Resume",
    "RoomCreated",
    "Welcome",
    "decode_hub_message",
    "decode_peer_message",
    "encode_message",
    "valid_room_id",
]

PROTOCOL_VERSION: Final = 1
PEER_ID_BYTES: Final = 16
JOIN_TIMEOUT_S: Final = 5.0  # a socket that says nothing costs a file descriptor
MAX_TEXT_BYTES: Final = 16 * 1024  # Join, and Welcome in a room of 100 peers with TURN entries, fit
MAX_PAYLOAD_BYTES: Final = 256 * 1024  # one relay record; small enough that chat never waits long behind it
MIN_PAYLOAD_BYTES: Final = 64 * 1024  # a hub that takes less can't carry a sealed control frame (48 KiB)
PING_INTERVAL_S: Final = 20.0  # proxies close idle WebSockets after 60 s
ROOM_GRACE_S: Final = 30 * 60.0  # an empty room is kept this long: a laptop sleeps, a kernel restarts
PEER_GRACE_S: Final = 10.0  # a lost peer keeps its place this long before others hear `Left`; it may resume later too

# Room ids: 5 to 32 characters of an alphabet without the look-alikes 0/o, 1/l/i.
ROOM_ALPHABET: Final = "23456789abcdefghjkmnpqrstuvwxyz"
ROOM_ID_MIN: Final = 5
ROOM_ID_MAX: Final = 32
ROOM_ID_DEFAULT: Final = 8  # 39 bits: random ids are not met by chance or by a bounded search

KERNEL_SECRET_HEADER: Final = "X-P2pnb-Kernel"  # noqa: S105 - a header's name: authority of this server's own kernels, p2pnb routes only


class ErrorCode:
    """`Error.code`: what went wrong, for programs."""

    BAD_MESSAGE: Final = "bad-message"  # not a message of this protocol
    BAD_SECRET: Final = "bad-secret"  # noqa: S105 - a resume secret or owner key that is not this room's; join anew without it
    VERSION: Final = "version"  # no common protocol version
    ROOM_NOT_FOUND: Final = "room-not-found"
    ROOM_FULL: Final = "room-full"
    TOO_MANY_JOINS: Final = "too-many-joins"  # this address joined too often; retry_after says when
    HUB_FULL: Final = "hub-full"
    NO_PEER: Final = "no-peer"  # the destination is not connected; not fatal
    TOO_SLOW: Final = "too-slow"  # this peer does not read what is sent to it
    REPLACED: Final = "replaced"  # the same peer connected again on another socket
    OPEN_SERVER: Final = "open-server"  # a server without authentication does not host strangers


class CloseCode:
    """WebSocket close codes (RFC 6455 §7.4.2 private range) beside the fatal `Error`."""

    BAD_MESSAGE: Final = 4400
    REFUSED: Final = 4403
    ROOM_NOT_FOUND: Final = 4404
    JOIN_TIMEOUT: Final = 4408
    REPLACED: Final = 4409
    TOO_MANY_JOINS: Final = 4429
    RESTARTING: Final = 4503
    TOO_SLOW: Final = 4508


class IceServer(msgspec.Struct, frozen=True, omit_defaults=True):
    """One entry of RTCConfiguration.iceServers (W3C WebRTC §4.2.4)."""

    urls: list[str]
    username: str = ""
    credential: str = ""


class Resume(msgspec.Struct, frozen=True):
    id: str  # 32 hex digits
    secret: str


class PeerEntry(msgspec.Struct, frozen=True, omit_defaults=True):
    id: str  # 32 hex digits
    owner: bool = False


class Limits(msgspec.Struct, frozen=True):
    payload_bytes: int = MAX_PAYLOAD_BYTES
    bytes_per_second: int = 0  # 0: the hub sets no rate
    queue_bytes: int = 0  # what the hub holds for a slow destination before it stops reading the sender


class Join(msgspec.Struct, frozen=True, tag="join", omit_defaults=True):
    room: str
    protocol: int = PROTOCOL_VERSION
    resume: Resume | None = None
    ticket: str = ""
    owner: str = ""


class Leave(msgspec.Struct, frozen=True, tag="leave"):
    pass


class Welcome(msgspec.Struct, frozen=True, tag="welcome", omit_defaults=True):
    id: str
    secret: str
    ticket: str
    peers: list[PeerEntry]  # without oneself
    protocol: int = PROTOCOL_VERSION
    ice_servers: list[IceServer] = []
    ice_expires_in: float = 0.0  # seconds; 0: they don't expire
    limits: Limits = Limits()
    public_url: str = ""  # configured address for invites, ends in "/"; empty: the browser knows better


class Joined(msgspec.Struct, frozen=True, tag="joined", omit_defaults=True):
    """A peer came, or came back after a lost connection (then its id is known already)."""

    id: str
    owner: bool = False


class Left(msgspec.Struct, frozen=True, tag="left"):
    """A peer said goodbye, or did not come back within PEER_GRACE_S."""

    id: str


class Restarting(msgspec.Struct, frozen=True, tag="restarting"):
    retry_after: float = 1.0  # seconds; add jitter


class Error(msgspec.Struct, frozen=True, tag="error", omit_defaults=True):
    code: str
    message: str  # one sentence for a person
    fatal: bool = True
    peer: str = ""  # with NO_PEER: whom
    retry_after: float = 0.0  # seconds


class RoomCreated(msgspec.Struct, frozen=True):
    """Answer to ``POST <base_url>p2pnb/api/rooms`` (JSON, 201), which needs the Jupyter user's authority."""

    room: str
    owner: str  # secret of the owner, for `Join.owner`
    ticket: str
    public_url: str = ""


PeerMessage = Join | Leave
HubMessage = Welcome | Joined | Left | Restarting | Error

_peer_decoder = msgspec.json.Decoder(PeerMessage)
_hub_decoder = msgspec.json.Decoder(HubMessage)
_encoder = msgspec.json.Encoder()


def encode_message(message: PeerMessage | HubMessage | RoomCreated) -> str:
    """Return the text of a hub message."""
    return _encoder.encode(message).decode()


def decode_peer_message(text: str | bytes) -> PeerMessage:
    """Parse what a peer sent to the hub; raises ValueError on anything else."""
    try:
        message: PeerMessage = _peer_decoder.decode(_bounded(text))
    except (msgspec.MsgspecError, RecursionError) as error:
        raise ValueError(f"not a message to a hub: {error}") from error
    return message


def decode_hub_message(text: str | bytes) -> HubMessage:
    """Parse what the hub sent to a peer; raises ValueError on anything else."""
    try:
        message: HubMessage = _hub_decoder.decode(_bounded(text))
    except (msgspec.MsgspecError, RecursionError) as error:
        raise ValueError(f"not a message of a hub: {error}") from error
    return message


def valid_room_id(room: str) -> bool:
    """Tell whether `room` has the form of a room id."""
    return ROOM_ID_MIN <= len(room) <= ROOM_ID_MAX and all(c in ROOM_ALPHABET for c in room)


def _bounded(text: str | bytes) -> str | bytes:
    if len(text) > MAX_TEXT_BYTES:
        raise ValueError(f"hub message of {len(text)} characters; at most {MAX_TEXT_BYTES} are allowed")
    return text
