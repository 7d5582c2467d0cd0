"""CPace: a balanced password-authenticated key exchange (draft-irtf-cfrg-cpace-21, CPACE-X25519-SHA512).

Both sides turn the shared password into a secret group generator and run Diffie-Hellman on it; who doesn't
know the password learns nothing but whether one guess was right. Only the initiator-responder form is here.

The field arithmetic of Elligator2 runs on Python integers and is not constant-time; its input is a hash over
the password and both fresh nonces, so every handshake shows an observer another, unrelated number. The scalar
multiplications are OpenSSL's. Held to the draft's test vectors, the invalid points included.
"""

from __future__ import annotations

import hashlib
from typing import Final

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from p2pnb.errors import ProtocolError

__all__ = [
    "POINT_BYTES",
    "generator",
    "intermediate_session_key",
    "lv_cat",
    "public_share",
    "shared_point",
    "transcript_ir",
]

POINT_BYTES: Final = 32
_DSI: Final = b"CPace255"
_DSI_ISK: Final = b"CPace255_ISK"
_HASH_BLOCK_BYTES: Final = 128  # SHA-512: the password fills the first block, so its length doesn't show in time
_P: Final = 2**255 - 19
_A: Final = 486662  # Montgomery coefficient of Curve25519
_Z: Final = 2  # non-square of Elligator2 for this field


def lv_cat(*fields: bytes) -> bytes:
    """Concatenate fields, each behind its length in LEB128 (draft appendix A.1.2)."""
    return b"".join(_prepend_length(field) for field in fields)


def generator(password: bytes, channel: bytes, session_id: bytes) -> bytes:
    """Return the secret generator for password (PRS), channel identifier (CI) and session id (sid); 32 bytes."""
    padding = max(0, _HASH_BLOCK_BYTES - 1 - len(_prepend_length(password)) - len(_prepend_length(_DSI)))
    string = lv_cat(_DSI, password, bytes(padding), channel, session_id)
    return _elligator2(hashlib.sha512(string).digest()[:POINT_BYTES])


def public_share(base: bytes, scalar: bytes) -> bytes:
    """Return Y = scalar · base. `scalar` is 32 fresh random bytes, used for one handshake only."""
    return shared_point(scalar, base)


def shared_point(scalar: bytes, share: bytes) -> bytes:
    """Return K = scalar · share (scalar_mult_vfy of the draft).

    Raises ProtocolError for a share that isn't 32 bytes long or lies in the small subgroup: the result would
    not depend on the scalar.
    """
    if len(share) != POINT_BYTES:
        raise ProtocolError(f"key share of {len(share)} bytes; it must be {POINT_BYTES}")
    try:
        return X25519PrivateKey.from_private_bytes(scalar).exchange(X25519PublicKey.from_public_bytes(share))
    except ValueError as error:  # OpenSSL refuses the all-zero result
        raise ProtocolError("key share is a low-order point") from error


def transcript_ir(share_a: bytes, data_a: bytes, share_b: bytes, data_b: bytes) -> bytes:
    """Return the transcript of initiator a and responder b: shares and associated data."""
    return lv_cat(share_a, data_a) + lv_cat(share_b, data_b)


def intermediate_session_key(session_id: bytes, point: bytes, transcript: bytes) -> bytes:
    """Return ISK, 64 bytes. Input of a key schedule, never a key itself."""
    return hashlib.sha512(lv_cat(_DSI_ISK, session_id, point) + transcript).digest()


def _prepend_length(data: bytes) -> bytes:
    length, out = len(data), bytearray()
    while True:
        if length < 128:
            out.append(length)
            return bytes(out) + data
        out.append(0x80 | length & 0x7F)
        length >>= 7


def _elligator2(data: bytes) -> bytes:
    """Map 32 uniform bytes to a u-coordinate (RFC 9380 §6.7.1, for curve25519)."""
    r = int.from_bytes(data, "little") & (2**255 - 1)
    v = -_A * pow(1 + _Z * r * r, -1, _P) % _P
    right_side = (v * v * v + _A * v * v + v) % _P
    is_square = pow(right_side, (_P - 1) // 2, _P) != _P - 1
    u = v if is_square else (-v - _A) % _P
    return u.to_bytes(32, "little")
