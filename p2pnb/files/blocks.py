"""Hashes of a content stream's blocks, by which two sides find out which bytes they have in common.

Block `n` is the content [n * block_bytes, (n + 1) * block_bytes), the last one shorter, across the borders of
files. Reading and hashing release the GIL, so an event loop goes on beside them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Final

from p2pnb.protocol.wire import HASH_BYTES

__all__ = ["hash_blocks"]

_BUFFER_BYTES: Final = 256 * 1024  # stays in a core's cache between reading and hashing


def hash_blocks(
    fill: Callable[[int, memoryview], None], content_bytes: int, block_bytes: int, first: int, end: int
) -> bytes:
    """Return SHA-256, cut to HASH_BYTES, of each of the blocks [first, end); blocking.

    `fill(offset, buffer)` reads content. Takes 256 KiB of memory, whatever the size of a block.
    """
    if block_bytes <= 0 or not 0 <= first <= end or (first < end and (end - 1) * block_bytes >= content_bytes):
        raise ValueError(f"blocks [{first}, {end}) of {block_bytes} bytes in {content_bytes}")
    buffer = memoryview(bytearray(min(block_bytes, _BUFFER_BYTES)))
    digests = bytearray()
    for block in range(first, end):
        place, stop = block * block_bytes, min((block + 1) * block_bytes, content_bytes)
        digest = hashlib.sha256()
        while place < stop:
            piece = buffer[: stop - place]
            fill(place, piece)
            digest.update(piece)
            place += len(piece)
        digests += digest.digest()[:HASH_BYTES]
    return bytes(digests)
