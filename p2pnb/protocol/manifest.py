"""What a shared content is made of: blocks with hashes, and the manifest that lists them.

Sets of blocks are integers used as bit sets: with the eight thousand blocks of a content an operation on them takes
a microsecond.
"""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import sha256
from typing import Final

import msgspec

from p2pnb.errors import CorruptDataError
from p2pnb.protocol.wire import HASH_BYTES, MAX_HEAD_BYTES, MAX_SIZE_BYTES

__all__ = [
    "Descriptor",
    "Manifest",
    "block_bytes_for",
    "block_count",
    "block_hash",
    "blocks_of_ranges",
    "blocks_to_ranges",
    "ranges_of_blocks",
]

MIN_BLOCK_BYTES: Final = 256 * 1024  # a chunk or a few; a smaller one costs more control frames than it saves
MAX_BLOCKS: Final = 8 * 1024  # their hashes are 128 KiB, and every second one is within the exchange's MAX_GAPS
MAX_MANIFEST_BYTES: Final = MAX_HEAD_BYTES + MAX_BLOCKS * HASH_BYTES + 1024


class Manifest(msgspec.Struct, frozen=True, array_like=True):
    """What a puller knows of a content before the content; its SHA-256 is the *root* that names it.

    It makes the first bytes of the stream that answers a Pull, so that it may be of any size and an answer to a
    small one still fits into its offer.
    """

    codec: str
    head: bytes  # the codec's
    content_bytes: int
    block_bytes: int  # 0: not in blocks (an answer for one puller)
    hashes: bytes

    def pack(self) -> bytes:
        """Return the bytes that travel."""
        return msgspec.msgpack.encode(self)

    @classmethod
    def parse(cls, data: bytes, root: bytes) -> Manifest:
        """Parse a manifest that was announced with this root; raises CorruptDataError."""
        if sha256(data).digest() != root:
            raise CorruptDataError("the description of a shared object is not the one that was announced")
        try:
            manifest = msgspec.msgpack.decode(data, type=cls)
        except (msgspec.MsgspecError, RecursionError) as error:
            raise CorruptDataError(f"the description of a shared object is malformed: {error}") from error
        blocks = block_count(manifest.content_bytes, manifest.block_bytes) if manifest.block_bytes > 0 else 0
        if (
            not 0 <= manifest.content_bytes <= MAX_SIZE_BYTES
            or not 0 <= manifest.block_bytes <= MAX_SIZE_BYTES
            or blocks > MAX_BLOCKS
            or len(manifest.hashes) != blocks * HASH_BYTES
        ):
            raise CorruptDataError("the description of a shared object contradicts itself")
        return manifest


class Descriptor(msgspec.Struct, frozen=True, array_like=True):
    """The head of an offer that answers a Pull: how long the manifest is, and its SHA-256."""

    manifest_bytes: int
    root: bytes

    def pack(self) -> bytes:
        """Return the bytes that travel."""
        return msgspec.msgpack.encode(self)

    @classmethod
    def parse(cls, data: bytes, content_bytes: int) -> Descriptor:
        """Parse the head of an offer with so much content; raises CorruptDataError."""
        try:
            descriptor = msgspec.msgpack.decode(data, type=cls)
        except (msgspec.MsgspecError, RecursionError) as error:
            raise CorruptDataError(f"the answer to a pull is malformed: {error}") from error
        fits = 0 < descriptor.manifest_bytes <= min(content_bytes, MAX_MANIFEST_BYTES)
        if not fits or len(descriptor.root) != sha256().digest_size:
            raise CorruptDataError("the answer to a pull is malformed")
        return descriptor


def block_count(content_bytes: int, block_bytes: int) -> int:
    """Return how many blocks a content has."""
    return -(-content_bytes // block_bytes)


def block_bytes_for(content_bytes: int) -> int:
    """Return the size of a content's blocks: the smallest power of two that leaves at most MAX_BLOCKS of them."""
    size = MIN_BLOCK_BYTES
    while size * MAX_BLOCKS < content_bytes:
        size *= 2
    return size


def block_hash(data: bytes | bytearray | memoryview) -> bytes:
    """Return the hash that names a block's bytes."""
    return sha256(data).digest()[:HASH_BYTES]


def blocks_to_ranges(blocks: Iterable[int]) -> list[tuple[int, int]]:
    """Return ascending blocks as ranges [first, end)."""
    ranges: list[tuple[int, int]] = []
    for block in sorted(blocks):
        if ranges and ranges[-1][1] == block:
            ranges[-1] = (ranges[-1][0], block + 1)
        else:
            ranges.append((block, block + 1))
    return ranges


def ranges_of_blocks(blocks: int) -> list[tuple[int, int]]:
    """Return a bit set's ranges [first, end)."""
    ranges: list[tuple[int, int]] = []
    at = 0
    while blocks:
        skip = (blocks & -blocks).bit_length() - 1
        blocks >>= skip
        run = (~blocks & (blocks + 1)).bit_length() - 1
        ranges.append((at + skip, at + skip + run))
        blocks >>= run
        at += skip + run
    return ranges


def blocks_of_ranges(ranges: Iterable[tuple[int, int]]) -> int:
    """Return the bit set of ranges [first, end)."""
    blocks = 0
    for first, end in ranges:
        blocks |= (1 << end) - (1 << first)
    return blocks
