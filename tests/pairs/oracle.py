"""An AES-GCM that remembers: no key may ever seal two different records under one nonce."""

from __future__ import annotations

from typing import Any

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

__all__ = ["NonceOracle"]


class NonceOracle:
    """Stands where `AESGCM` is looked up; `sealed` holds every (key, nonce) that was ever used."""

    def __init__(self) -> None:
        self.sealed: set[tuple[bytes, bytes]] = set()

    def __call__(self, key: bytes) -> Any:
        return _Remembering(key, self)


class _Remembering:
    def __init__(self, key: bytes, oracle: NonceOracle) -> None:
        self._key, self._oracle, self._aead = key, oracle, AESGCM(key)

    def encrypt(self, nonce: bytes, data: bytes, associated: bytes | None) -> bytes:
        self._note(nonce)
        return self._aead.encrypt(nonce, data, associated)

    def encrypt_into(self, nonce: bytes, data: bytes, associated: bytes | None, place: memoryview) -> int:
        self._note(nonce)
        return self._aead.encrypt_into(nonce, data, associated, place)

    def decrypt(self, nonce: bytes, data: bytes, associated: bytes | None) -> bytes:
        return self._aead.decrypt(nonce, data, associated)

    def decrypt_into(self, nonce: bytes, data: bytes, associated: bytes | None, place: memoryview) -> int:
        return self._aead.decrypt_into(nonce, data, associated, place)

    def _note(self, nonce: bytes) -> None:
        use = (self._key, nonce)
        assert use not in self._oracle.sealed, "a nonce was used twice under one key"
        self._oracle.sealed.add(use)
