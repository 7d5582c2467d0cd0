"""Records: one sealed frame each, AES-256-GCM under a key of one path and direction.

The nonce is the record's number from 0 and never travels: a path delivers in order and whole, so anything
lost, doubled, swapped or changed by somebody on the way shows as a bad tag. That ends the path, never the
session. The key is ratcheted every REKEY_RECORDS records, by both sides at the same number.

The first record each way is a PROOF frame: it shows that the other end of this connection belongs to the
session and tells what it received so far.
"""

from __future__ import annotations

import hmac
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from p2pnb.errors import ProtocolError
from p2pnb.protocol.keys import PathSecrets, next_key
from p2pnb.protocol.wire import FrameType

__all__ = ["TAG_BYTES", "PathCipher"]

TAG_BYTES: Final = 16
# 2^16 records of at most 1 MiB are 2^32 AES blocks under one key: 2^-65 advantage by the birthday bound,
# and far below the 2^32 invocations that NIST SP 800-38D §8.3 allows.
REKEY_RECORDS: Final = 1 << 16
_PROOF_BYTES: Final = 32
_ACK_BYTES: Final = 8


class _Direction:
    """One key and its counter."""

    __slots__ = ("_aead", "_count", "_key", "_rekey_records")

    def __init__(self, key: bytes, rekey_records: int) -> None:
        self._key = key
        self._rekey_records = rekey_records
        self._aead = AESGCM(key)
        self._count = 0

    def next(self) -> tuple[AESGCM, bytes]:
        """Return the cipher and nonce of the next record."""
        if self._count == self._rekey_records:
            self._key = next_key(self._key)
            self._aead = AESGCM(self._key)
            self._count = 0
        nonce = self._count.to_bytes(12, "big")
        self._count += 1
        return self._aead, nonce


class PathCipher:
    """Seals and opens the records of one path instance, and holds whether the other end is proven.

    `forget()` drops the keys (a forked child must not use a nonce that its parent uses too).
    """

    def __init__(self, secrets: PathSecrets, *, rekey_records: int = REKEY_RECORDS) -> None:
        self._send: _Direction | None = _Direction(secrets.send, rekey_records)
        self._receive: _Direction | None = _Direction(secrets.receive, rekey_records)
        self._send_proof = secrets.send_proof
        self._receive_proof = secrets.receive_proof
        self.proven = False

    def proof_record(self, received: int) -> bytes:
        """Return the first record of this path; `received` is the session's cumulative acknowledgement."""
        return self.seal(bytes([FrameType.PROOF]) + self._send_proof + received.to_bytes(_ACK_BYTES, "big"))

    def seal(self, frame: bytes | bytearray | memoryview) -> bytes:
        """Return the record of `frame`; records must be sent in the order they were sealed."""
        if self._send is None:
            raise ProtocolError("this path was closed")
        aead, nonce = self._send.next()
        return aead.encrypt(nonce, frame, None)

    def open(self, record: bytes | bytearray | memoryview) -> bytes:
        """Return the frame of the next record; ProtocolError ends the path."""
        if self._receive is None:
            raise ProtocolError("this path was closed")
        aead, nonce = self._receive.next()
        try:
            return aead.decrypt(nonce, record, None)
        except (InvalidTag, ValueError) as error:
            self.forget()
            raise ProtocolError("a record was changed, lost or repeated on its way") from error

    def seal_into(self, data: bytes | bytearray | memoryview, record: memoryview) -> None:
        """Write the record of `data` to `record`, which is TAG_BYTES longer; they must not overlap."""
        if self._send is None:
            raise ProtocolError("this path was closed")
        aead, nonce = self._send.next()
        aead.encrypt_into(nonce, data, None, record)

    def open_into(self, record: bytes | bytearray | memoryview, place: memoryview) -> None:
        """Write what the next record holds to `place`, which is TAG_BYTES shorter; ProtocolError ends the path.

        After an error `place` may hold anything: it must not count as received.
        """
        if self._receive is None:
            raise ProtocolError("this path was closed")
        aead, nonce = self._receive.next()
        try:
            aead.decrypt_into(nonce, record, None, place)
        except (InvalidTag, ValueError) as error:
            self.forget()
            raise ProtocolError("a record was changed, lost or repeated on its way") from error

    def open_proof(self, record: bytes | bytearray | memoryview) -> int:
        """Check the other end's first record; return the cumulative acknowledgement it carries."""
        frame = self.open(record)
        proof, received = frame[1 : 1 + _PROOF_BYTES], frame[1 + _PROOF_BYTES :]
        is_proof = len(received) == _ACK_BYTES and frame[0] == FrameType.PROOF
        if not is_proof or not hmac.compare_digest(proof, self._receive_proof):
            self.forget()
            raise ProtocolError("the other end of this path did not prove that it belongs to the session")
        self.proven = True
        return int.from_bytes(received, "big")

    def forget(self) -> None:
        """Drop all keys; every later call raises ProtocolError."""
        self._send = self._receive = None
