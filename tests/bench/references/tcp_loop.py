"""The least that an encrypted transfer between two Python processes can cost: TCP and AES-256-GCM, nothing else.

Records of 512 KiB with a counter as nonce; `encrypt_into` and `decrypt_into` with reused buffers. The receiver
decrypts into one reused buffer ("reused"), or, as who receives an object must, into memory that it just got
("fresh"), which the kernel has to clear first; "huge" asks for huge pages for that.
"""

from __future__ import annotations

import mmap
import socket
import time
from typing import Any, Final

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

__all__ = ["connect", "receive", "send", "serve", "take"]

RECORD_BYTES: Final = 512 * 1024
TAG_BYTES: Final = 16
KEY: Final = bytes(range(32))  # it protects nothing here
_open: dict[str, Any] = {}


def serve() -> int:
    """Listen; returns the port."""
    _open["listener"] = listener = socket.create_server(("127.0.0.1", 0))
    return int(listener.getsockname()[1])


def take() -> None:
    """Accept the sender's connection."""
    _open["socket"], _ = _open["listener"].accept()


def connect(port: int, size_bytes: int) -> None:
    """Connect, and make what will be sent."""
    _open["socket"] = connection = socket.create_connection(("127.0.0.1", port))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    _open["content"] = memoryview(bytes(RECORD_BYTES) * (size_bytes // RECORD_BYTES))


def send() -> float:
    """Send it; returns the moment of beginning."""
    content, connection, aead = _open["content"], _open["socket"], AESGCM(KEY)
    buffer = memoryview(bytearray(RECORD_BYTES + TAG_BYTES))
    began = time.perf_counter()
    for number, offset in enumerate(range(0, len(content), RECORD_BYTES)):
        aead.encrypt_into(number.to_bytes(12), content[offset : offset + RECORD_BYTES], None, buffer)
        connection.sendall(buffer)
    return began


def receive(size_bytes: int, memory: str) -> float:
    """Receive so much into "reused", "fresh" or "huge" memory; returns the moment of the end."""
    records = size_bytes // RECORD_BYTES
    connection, aead = _open["socket"], AESGCM(KEY)
    sealed = memoryview(bytearray(RECORD_BYTES + TAG_BYTES))
    one = memoryview(bytearray(RECORD_BYTES))
    fresh = mmap.mmap(-1, records * RECORD_BYTES, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if memory == "huge":
        fresh.madvise(mmap.MADV_HUGEPAGE)
    whole = memoryview(fresh)
    for number in range(records):
        got = 0
        while got < len(sealed):
            size = connection.recv_into(sealed[got:], 0, socket.MSG_WAITALL)
            if not size:
                raise ConnectionError("the sender has gone")
            got += size
        offset = number * RECORD_BYTES
        place = one if memory == "reused" else whole[offset : offset + RECORD_BYTES]
        aead.decrypt_into(number.to_bytes(12), sealed, None, place)
        if place is not one:
            place.release()
    ended = time.perf_counter()
    whole.release()
    fresh.close()
    return ended
