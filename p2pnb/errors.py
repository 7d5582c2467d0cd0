"""Every exception a user of p2pnb can meet.

Each class is one situation a person can be in; its text says what happened and what to do next. The
branches say whose fault it was: the caller's (`UsageError`), the peer's (`PeerError`), the secret's
(`AuthenticationError`), the network's (`HubError`, `PathError`) or the value's (`CodecError`).

Texts may name peers and files only after `p2pnb.files.printable` made them safe to show.
"""

from __future__ import annotations

__all__ = [
    "AuthenticationError",
    "CodecError",
    "CorruptDataError",
    "DeclinedError",
    "DiskFullError",
    "EngineStoppedError",
    "HubError",
    "HubUnavailableError",
    "InviteError",
    "NoHubError",
    "NotSupportedError",
    "P2PError",
    "PathError",
    "PeerError",
    "PeerGoneError",
    "ProtocolError",
    "RoomClosedError",
    "RoomLockedError",
    "RoomNotFoundError",
    "SourceChangedError",
    "TooLargeError",
    "TransferCancelledError",
    "TransferError",
    "UnsafeNameError",
    "UsageError",
    "WaitTimeoutError",
    "WrongCodeError",
]


class P2PError(Exception):
    """Base of every error p2pnb raises."""


# ── the caller's ────────────────────────────────────────────────────────────────────────────────────
class UsageError(P2PError):
    """The call can't work as it was made; nothing was sent."""


class InviteError(UsageError):
    """The invite is not a p2pnb link, code or `Invite`."""


class NoHubError(UsageError):
    """No Jupyter server that hosts rooms was found for this process."""


class RoomClosedError(UsageError):
    """The room was left (or its kernel process was forked); create or join one again."""


class EngineStoppedError(RoomClosedError):
    """p2pnb's background thread is not running in this process."""


class WaitTimeoutError(UsageError, TimeoutError):
    """What was waited for did not happen in the time given; the work itself goes on."""


# ── the secret's ────────────────────────────────────────────────────────────────────────────────────
class AuthenticationError(P2PError):
    """A peer could not prove what it has to prove."""


class WrongCodeError(AuthenticationError):
    """The secret words of this invite are not the room's."""


class RoomLockedError(AuthenticationError):
    """Too many wrong codes were tried: the room takes no newcomers until its owner unlocks it."""


# ── the network's ───────────────────────────────────────────────────────────────────────────────────
class HubError(P2PError):
    """The hub refused or broke off; the text says which and what to do."""


class HubUnavailableError(HubError):
    """The hub can't be reached."""


class RoomNotFoundError(HubError):
    """The hub hosts no room of this id (any more)."""


class PathError(P2PError):
    """A connection between two peers failed; the session goes on over another path."""


# ── the peer's ──────────────────────────────────────────────────────────────────────────────────────
class PeerError(P2PError):
    """The other peer did something it may not do, or is gone."""


class PeerGoneError(PeerError):
    """The peer left the room before the work was done."""


class ProtocolError(PeerError):
    """The peer (or the wire) sent bytes that are not the protocol's; the path or session was ended."""


class TransferError(PeerError):
    """A transfer ended without arriving."""


class DeclinedError(TransferError):
    """The receiver declined the offer."""


class TransferCancelledError(TransferError):
    """One of the two sides cancelled the transfer."""


class SourceChangedError(TransferError):
    """The file changed or vanished while it was being sent; send it again."""


class DiskFullError(TransferError):
    """The receiver has no room left on its disk or in its memory for this item."""


# ── the value's ─────────────────────────────────────────────────────────────────────────────────────
class CodecError(P2PError):
    """A value can't be turned into bytes, or bytes into a value."""


class NotSupportedError(CodecError):
    """No codec takes this type; the text names what to send instead."""


class TooLargeError(CodecError):
    """The value is larger than the limit the text names."""


class CorruptDataError(CodecError):
    """Received bytes are not what their description says; nothing of them was used."""


class UnsafeNameError(CodecError):
    """A file name from a peer can't be used on this machine."""
