"""The key schedule: from CPace's shared key to one key per purpose and direction.

    ISK ── HKDF-Extract ──> root ─┬─ "confirm initiator|responder"      key confirmation tags
                                  ├─ "verification"                     verification words
                                  └─ "session" ─┬─ "path …" ─┬─ "i>r"   one record key per direction, …
                                                │            ├─ "r>i"   … ratcheted by "next"
                                                │            └─ "proof initiator|responder"
                                                └─ (later purposes)

HKDF is RFC 5869 with SHA-256; labels begin with the protocol's name, so no other use meets these keys.
Every path instance mixes in a fresh nonce of each side: its keys, and so its record nonces, never repeat.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from typing import Final

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from p2pnb.protocol.cpace import lv_cat
from p2pnb.protocol.wire import PROTOCOL

__all__ = ["NONCE_BYTES", "PathSecrets", "RootKeys", "SessionSecret", "next_key", "verification_commitment"]

KEY_BYTES: Final = 32
NONCE_BYTES: Final = 16


@dataclass(frozen=True, slots=True, repr=False)
class PathSecrets:
    """Keys of one path instance, seen from one side."""

    send: bytes
    receive: bytes
    send_proof: bytes
    receive_proof: bytes


@dataclass(frozen=True, slots=True, repr=False)
class SessionSecret:
    """What outlives every path of a session."""

    secret: bytes
    initiator: bool

    def path(self, transport: str, initiator_nonce: bytes, responder_nonce: bytes) -> PathSecrets:
        """Derive the keys of one path instance. Both nonces must be fresh (NONCE_BYTES, or longer)."""
        base = _expand(self.secret, "path", lv_cat(transport.encode(), initiator_nonce, responder_nonce))
        forth, back = _expand(base, "i>r"), _expand(base, "r>i")
        proof_i, proof_r = _expand(base, "proof initiator"), _expand(base, "proof responder")
        if self.initiator:
            return PathSecrets(forth, back, proof_i, proof_r)
        return PathSecrets(back, forth, proof_r, proof_i)


@dataclass(frozen=True, slots=True, repr=False)
class RootKeys:
    """Everything derived from one handshake."""

    root: bytes

    @classmethod
    def from_isk(cls, isk: bytes) -> RootKeys:
        return cls(hmac.new(PROTOCOL.encode(), isk, hashlib.sha256).digest())

    def confirmation_tag(self, *, initiator: bool, share: bytes, data: bytes) -> bytes:
        """Return the tag by which one side proves it derived the same keys (draft-irtf-cfrg-cpace-21 §9.4)."""
        key = _expand(self.root, "confirm initiator" if initiator else "confirm responder")
        return hmac.new(key, lv_cat(share, data), hashlib.sha256).digest()

    def session(self, *, initiator: bool) -> SessionSecret:
        return SessionSecret(_expand(self.root, "session"), initiator)

    def verification(self, initiator_nonce: bytes, responder_nonce: bytes) -> bytes:
        """Return 32 bytes that both sides show as words.

        Each side committed to its nonce before it saw the other's, so somebody in the middle who knows the
        code gets one try of the words' size and can't search for a match (Vaudenay, CRYPTO 2005).
        """
        return _expand(self.root, "verification", lv_cat(initiator_nonce, responder_nonce))


def verification_commitment(nonce: bytes) -> bytes:
    """Return the commitment to a verification nonce (32 random bytes)."""
    return hashlib.sha256(f"{PROTOCOL} verification".encode() + nonce).digest()


def next_key(key: bytes) -> bytes:
    """Ratchet a record key one step; the old one can't be computed from the new one."""
    return _expand(key, "next")


def _expand(key: bytes, label: str, context: bytes = b"") -> bytes:
    return HKDFExpand(SHA256(), KEY_BYTES, lv_cat(f"{PROTOCOL} {label}".encode(), context)).derive(key)
