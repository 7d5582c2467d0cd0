"""What a hub signs, so that it can forget: resume secrets, owner keys and room tickets.

All three are HMAC-SHA256 under the hub's one key, told apart by a label. Nothing is stored: a hub that was
restarted empty verifies what it issued before, as long as its key survived.

Tickets expire, because everybody who was ever admitted holds one and a room should not stay available as a
relay to all of them for good; expiry is wall-clock time (Unix seconds) since it has to outlive the process.
Resume secrets and owner keys hold as long as the key: they are useless without a room.
"""

from __future__ import annotations

import hmac
from typing import Final

__all__ = ["HUB_KEY_BYTES", "TICKET_LIFETIME_S", "Seals"]

HUB_KEY_BYTES: Final = 32
TICKET_LIFETIME_S: Final = 7 * 24 * 3600.0  # a notebook that is left open over a week's holiday finds its room again

_RESUME: Final = "p2pnb hub 1 resume"
_OWNER: Final = "p2pnb hub 1 owner"
_TICKET: Final = "p2pnb hub 1 ticket"


class Seals:
    """Issue and verify the hub's secrets; `key` has exactly HUB_KEY_BYTES."""

    __slots__ = ("_key",)

    def __init__(self, key: bytes) -> None:
        if len(key) != HUB_KEY_BYTES:
            raise ValueError(f"a hub key of {len(key)} bytes; it has {HUB_KEY_BYTES}")
        self._key = key

    def resume_secret(self, room: str, peer: bytes) -> str:
        """Return the secret with which peer `peer` takes its place in `room` again."""
        return self._mac(_RESUME, room, peer.hex())

    def owner_key(self, room: str) -> str:
        """Return the key that marks the owner of `room`."""
        return self._mac(_OWNER, room)

    def ticket(self, room: str, wall: float) -> str:
        """Return a ticket for `room`, good for TICKET_LIFETIME_S from Unix time `wall`."""
        expiry = f"{int(wall + TICKET_LIFETIME_S):x}"
        return f"{expiry}.{self._mac(_TICKET, room, expiry)}"

    def is_resume_secret(self, secret: str, room: str, peer: bytes) -> bool:
        """Tell whether `secret` is `resume_secret(room, peer)`, in constant time."""
        return _equal(secret, self.resume_secret(room, peer))

    def is_owner_key(self, key: str, room: str) -> bool:
        """Tell whether `key` is `owner_key(room)`, in constant time."""
        return _equal(key, self.owner_key(room))

    def is_ticket(self, ticket: str, room: str, wall: float) -> bool:
        """Tell whether `ticket` is for `room` and not expired at Unix time `wall`."""
        expiry, _, mac = ticket.partition(".")
        if not _equal(mac, self._mac(_TICKET, room, expiry)):
            return False
        return int(expiry, 16) > wall  # ours, so it parses

    def _mac(self, *parts: str) -> str:
        # surrogatepass: parts come from peers, and no text of theirs may raise here
        message = "\0".join(parts).encode("utf-8", "surrogatepass")
        return hmac.digest(self._key, message, "sha256").hex()


def _equal(given: str, expected: str) -> bool:
    # as bytes: compare_digest refuses str outside ASCII with an exception
    return hmac.compare_digest(given.encode("utf-8", "surrogatepass"), expected.encode())
