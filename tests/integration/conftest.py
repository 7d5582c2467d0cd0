"""A hostile hub, people who meet at it, and three oracles that watch every test in here.

    nonces   no (key, nonce) ever seals two different records, whatever goes wrong            T11
    log      nothing dies unseen: p2pnb logs no error that the test did not ask for
    parts    no unfinished file is left in a receiver's folder
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import ClassVar

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from p2pnb.protocol import records
from tests.integration.hostile_hub import HostileHub
from tests.integration.meeting import Errors, Meeting, leftovers, until


class _NonceOracle:
    """AESGCM that remembers what it sealed under which nonce."""

    seen: ClassVar[dict[bytes, bytes]] = {}
    reused: ClassVar[list[bytes]] = []

    def __init__(self, key: bytes) -> None:
        self._aead = AESGCM(key)
        self._name = sha256(key).digest()

    def encrypt(self, nonce: bytes, data: bytes, associated: bytes | None) -> bytes:
        sealed = self._aead.encrypt(nonce, data, associated)
        self._note(nonce, sealed[-16:])
        return sealed

    def encrypt_into(self, nonce: bytes, data: bytes, associated: bytes | None, place: memoryview) -> int:
        count = self._aead.encrypt_into(nonce, data, associated, place)
        self._note(nonce, bytes(place[-16:]))
        return count

    def decrypt(self, nonce: bytes, data: bytes, associated: bytes | None) -> bytes:
        return self._aead.decrypt(nonce, data, associated)

    def decrypt_into(self, nonce: bytes, data: bytes, associated: bytes | None, place: memoryview) -> int:
        return self._aead.decrypt_into(nonce, data, associated, place)

    def _note(self, nonce: bytes, tag: bytes) -> None:
        if self.seen.setdefault(self._name + nonce, tag) != tag:
            self.reused.append(nonce)


@pytest.fixture(autouse=True)
def nonces(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    _NonceOracle.seen.clear()
    _NonceOracle.reused.clear()
    monkeypatch.setattr(records, "AESGCM", _NonceOracle)
    yield
    assert not _NonceOracle.reused, "a nonce sealed two different records"


@pytest.fixture(autouse=True)
def log(request: pytest.FixtureRequest) -> Iterator[Errors]:
    """Errors that p2pnb logged; a test that expects some clears the list."""
    errors = Errors()
    logger = logging.getLogger("p2pnb")
    logger.addHandler(errors)
    yield errors
    logger.removeHandler(errors)
    if request.node.get_closest_marker("xfail") is None:
        assert not errors.texts(), "p2pnb logged errors"


@pytest.fixture
def hub() -> Iterator[HostileHub]:
    with HostileHub() as hub:
        yield hub


@pytest.fixture
def meeting(hub: HostileHub, tmp_path: Path, nonces: None, log: Errors) -> Iterator[Meeting]:
    meeting = Meeting(hub, tmp_path / "received")
    yield meeting
    meeting.end()
    until(lambda: not leftovers(meeting.folder), "no unfinished files are left", 5)
