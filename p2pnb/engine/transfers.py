"""Sources and sinks: where the bytes of a transfer come from and where they end up.

A source is read by content offset, a sink written by content offset, in any order; the head of the stream
(see `protocol.wire`) goes before both. Sources and sinks that touch disks say `blocking`, and are driven on
worker threads; the others copy memory on the event loop.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

import msgspec

from p2pnb.engine.arena import Arena
from p2pnb.errors import DiskFullError, UsageError
from p2pnb.files import IncomingFiles, OutgoingFiles, clean_leftovers
from p2pnb.protocol.ranges import RangeSet
from p2pnb.protocol.wire import HASH_BYTES, MAX_HASHES, Offer, Preview

if TYPE_CHECKING:
    from p2pnb.objects import Encoded

__all__ = [
    "FileSink",
    "FileSource",
    "Meter",
    "ObjectSink",
    "ObjectSource",
    "ResumePlan",
    "Sink",
    "Source",
    "open_sink",
    "receive_inline",
]

_LEAST_BLOCK: Final = 1024 * 1024  # of what is verified when a transfer goes on after a restart
_HASHED_AT_ONCE: Final = 16  # blocks
_cleaned: set[str] = set()  # folders whose leftovers of dead processes were looked at
QUICK_CODECS: Final = frozenset({"plain"})  # decoded in microseconds; others may import a library first
_MEMORY_RESERVE: Final = 256 * 1024 * 1024  # left to the kernel when an object is let in


class Source(Protocol):
    """What is sent."""

    kind: str
    name: str
    codec: str
    count: int
    head: bytes
    content_bytes: int
    preview: Preview
    blocking: bool

    def read(self, offset: int, length: int) -> bytes | memoryview:
        """Return exactly `length` content bytes from `offset`; SourceChangedError if that can't be had."""

    def read_at_once(self, offset: int, buffer: memoryview) -> bool:
        """Fill `buffer` with content bytes from `offset` if that needs no waiting; of blocking sources."""

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fill `buffer` with content bytes from `offset`; of blocking sources."""

    def hash_blocks(self, block_bytes: int, first: int, end: int) -> bytes:
        """Return HASH_BYTES for each of the content's blocks [first, end). Blocking."""

    def check_unchanged(self) -> None:
        """Raise SourceChangedError if what was read may be of two versions."""

    def again(self) -> Source:
        """Return a source of the same thing for another try; blocking. Raises P2PError if that can't be had."""

    def close(self) -> None: ...


class ObjectSource:
    """A Python value as its codec's buffers. The value is read while it travels; no copy is kept."""

    kind = "object"
    count = 1
    blocking = False

    def __init__(self, name: str, encoded: Encoded) -> None:
        self.name = name
        self.codec = encoded.codec
        self.head = encoded.head
        self.preview = encoded.preview
        self.content_bytes = encoded.content_bytes
        self._encoded: Encoded | None = encoded

    def read(self, offset: int, length: int) -> bytes | memoryview:
        if self._encoded is None:
            raise ValueError("this transfer has ended")
        return self._encoded.read(offset, length)

    def read_at_once(self, offset: int, buffer: memoryview) -> bool:
        self.read_into(offset, buffer)
        return True

    def read_into(self, offset: int, buffer: memoryview) -> None:
        buffer[:] = self.read(offset, len(buffer))

    def hash_blocks(self, block_bytes: int, first: int, end: int) -> bytes:
        digests = []
        for start in range(first * block_bytes, min(end * block_bytes, self.content_bytes), block_bytes):
            data = self.read(start, min(block_bytes, self.content_bytes - start))
            digests.append(hashlib.sha256(data).digest()[:HASH_BYTES])
        return b"".join(digests)

    def check_unchanged(self) -> None:
        pass

    def again(self) -> Source:
        raise UsageError(f"{self.name!r} is not kept here once its transfer ended. Send it again with room.send().")

    def close(self) -> None:
        self._encoded = None


class FileSource:
    """Files or folders on disk."""

    codec = ""
    blocking = True

    def __init__(self, files: OutgoingFiles, paths: Sequence[Path]) -> None:
        self._files = files
        self._paths = tuple(paths)
        self.kind, self.name, self.count = files.kind, files.name, files.count
        self.head, self.preview = files.head, files.preview
        self.content_bytes = files.size_bytes - len(files.head)

    def read(self, offset: int, length: int) -> bytes:
        return self._files.read(offset, length)

    def read_at_once(self, offset: int, buffer: memoryview) -> bool:
        return self._files.read_at_once(offset, buffer)

    def read_into(self, offset: int, buffer: memoryview) -> None:
        self._files.read_into(offset, buffer)

    def hash_blocks(self, block_bytes: int, first: int, end: int) -> bytes:
        return self._files.hash_blocks(block_bytes, first, end)

    def check_unchanged(self) -> None:
        self._files.check_unchanged()

    def again(self) -> Source:
        return FileSource(OutgoingFiles.scan(self._paths), self._paths)

    def close(self) -> None:
        self._files.close()


class Sink(Protocol):
    """Where content goes."""

    blocking: bool

    def write(self, offset: int, data: memoryview) -> None:
        """Put bytes in their place; ranges don't overlap, but come in any order and from several threads."""

    def place(self, offset: int, length: int) -> memoryview | None:
        """Return where these bytes may be put without `write`; only of sinks that don't block."""

    def finish(self) -> object:
        """Everything is here: check it, and return the value or the final path. Blocking."""

    def abort(self) -> None:
        """Throw away what came."""

    def keep(self) -> None:
        """End, but leave what can be gone on from."""


class ObjectSink:
    """Memory for the buffers of one object.

    It is mapped, not filled: a page is taken from the machine only when bytes for it arrive, so an announced
    size by itself costs nothing.
    """

    blocking = False

    def __init__(self, codec: str, head: bytes, content_bytes: int, arena: Arena) -> None:
        from p2pnb.objects import layout

        layout(codec, head, content_bytes)
        free = _available_memory()
        if free is not None and content_bytes > free - _MEMORY_RESERVE + arena.idle_bytes:
            raise DiskFullError(
                f"This object needs {content_bytes:,} bytes of memory and {free:,} are free. "
                "Free some, or ask for a part of it."
            )
        self._codec, self._head = codec, head
        try:
            self._content: memoryview | None = arena.take(content_bytes)
        except (OSError, ValueError, OverflowError, MemoryError) as error:
            raise DiskFullError(f"No memory for an object of {content_bytes:,} bytes.") from error

    def write(self, offset: int, data: memoryview) -> None:
        if self._content is not None:
            self._content[offset : offset + len(data)] = data

    def place(self, offset: int, length: int) -> memoryview | None:
        return self._content[offset : offset + length] if self._content is not None else None

    def finish(self) -> object:
        from p2pnb.objects import decode

        content, self._content = self._content, None
        assert content is not None
        return decode(self._codec, self._head, content)

    def abort(self) -> None:
        self._content = None

    def keep(self) -> None:
        self._content = None


class ResumePlan(msgspec.Struct, frozen=True):
    """The blocks of a part to be held against the sender's."""

    block_bytes: int
    blocks: list[tuple[int, int]]  # [first, end)


class FileSink:
    """Files on their way to the room's folder, under temporary names."""

    blocking = True

    def __init__(self, files: IncomingFiles) -> None:
        self._files = files

    def write(self, offset: int, data: memoryview) -> None:
        self._files.write(offset, data)

    def place(self, offset: int, length: int) -> memoryview | None:
        return None

    def resumable(self) -> ResumePlan | None:
        """Return the whole blocks that an earlier try left here; what is no whole block is forgotten. Blocking."""
        size = self._files.content_bytes
        block = _LEAST_BLOCK
        while block * MAX_HASHES < size:
            block *= 2
        blocks: list[tuple[int, int]] = []
        for start, end in list(self._files.ranges):
            first, last = -(-start // block), end // block if end < size else -(-size // block)
            if first < last:
                blocks.append((first, last))
                self._forget(start, first * block)
                self._forget(min(last * block, size), end)
            else:
                self._forget(start, end)
        return ResumePlan(block, blocks) if blocks else None

    def verify(self, plan: ResumePlan, digests: bytes, hash_bytes: int) -> list[tuple[int, int]]:
        """Keep the blocks whose hashes are the sender's; return their ranges of the content. Blocking."""
        size, block = self._files.content_bytes, plan.block_bytes
        kept = RangeSet()
        place = 0
        for first, end in plan.blocks:
            for begin in range(first, end, _HASHED_AT_ONCE):
                stop = min(end, begin + _HASHED_AT_ONCE)
                mine = self._files.hash_blocks(block, begin, stop)
                for number in range(begin, stop):
                    start, until = number * block, min((number + 1) * block, size)
                    at = (number - begin) * hash_bytes
                    if mine[at : at + hash_bytes] == digests[place : place + hash_bytes]:
                        kept.add(start, until)
                    else:
                        self._forget(start, until)
                    place += hash_bytes
        return list(kept)

    def _forget(self, start: int, end: int) -> None:
        if start < end:
            self._files.forget(start, end)

    def journal(self) -> None:
        self._files.journal()

    def finish(self) -> Path:
        return self._files.finish()

    def abort(self) -> None:
        self._files.abort()

    @property
    def keeps(self) -> bool:
        """True if `keep` would leave something: below one block, hashes cost more than bytes."""
        return self._files.content_bytes >= _LEAST_BLOCK and self._files.received_bytes > 0

    def keep(self) -> None:
        if self.keeps:
            self._files.keep()
        else:
            self._files.abort()


def open_sink(offer: Offer, head: bytes, folder: Path, arena: Arena) -> Sink:
    """Check the head of an offer and return where its content goes. Blocking; raises CodecError or DiskFullError."""
    content_bytes = offer.size_bytes - offer.head_bytes
    if offer.kind == "object":
        return ObjectSink(offer.codec, head, content_bytes, arena)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DiskFullError(f"The folder for received files, {folder}, can't be made: {error.strerror}") from error
    if str(folder) not in _cleaned:
        _cleaned.add(str(folder))
        clean_leftovers(folder)
    files, key = None, b""
    if content_bytes >= _LEAST_BLOCK:  # below, hashes cost more than bytes
        key = hashlib.sha256(b"\0".join((offer.kind.encode(), offer.name.encode("utf-8", "replace"), head))).digest()
        files = IncomingFiles.adopt(head, offer.name, offer.kind, content_bytes, folder, key=key)
    if files is None:
        files = IncomingFiles(head, offer.name, offer.kind, content_bytes, folder, key=key)
    return FileSink(files)


def receive_inline(offer: Offer) -> tuple[object] | None:
    """Return the value of an offer that holds all of it, if that takes no time worth a worker; else None.

    Raises CodecError as `open_sink` and `Sink.finish` do.
    """
    if offer.codec not in QUICK_CODECS:
        return None
    from p2pnb.objects import decode, layout

    layout(offer.codec, offer.head, len(offer.content))
    return (decode(offer.codec, offer.head, memoryview(bytearray(offer.content))),)


class Meter:
    """Progress and rate of one stream."""

    def __init__(self, size_bytes: int) -> None:
        self.size_bytes = size_bytes
        self.done_bytes = 0
        self.started_at: float | None = None
        self.ended_at: float | None = None
        self._rate = 0.0
        self._mark = (0.0, 0)

    def advance(self, done_bytes: int, now: float) -> None:
        """Note that `done_bytes` of the stream are there."""
        if self.started_at is None:
            self.started_at, self._mark = now, (now, done_bytes)
        self.done_bytes = done_bytes
        since, at = self._mark
        if now - since >= 0.5:  # half a second smooths the acknowledgements' bursts
            sample = (done_bytes - at) / (now - since)
            self._rate = sample if not self._rate else 0.6 * self._rate + 0.4 * sample
            self._mark = (now, done_bytes)

    def end(self, now: float) -> None:
        self.ended_at = now

    @property
    def rate(self) -> float:
        """Bytes per second: lately while it moves, on the whole once it ended."""
        if self.started_at is None:
            return 0.0
        if self.ended_at is not None:
            return self.done_bytes / max(self.ended_at - self.started_at, 1e-6)
        return self._rate or self.done_bytes / max(time.monotonic() - self.started_at, 1e-3)

    @property
    def eta(self) -> float | None:
        """Seconds to go, None while nobody can tell."""
        if self.ended_at is not None:
            return 0.0
        rate = self.rate
        return (self.size_bytes - self.done_bytes) / rate if rate > 0 else None


def _available_memory() -> int | None:
    """Return what the machine can still give, bytes; None where it doesn't say."""
    try:
        with open("/proc/meminfo", encoding="ascii") as lines:
            for line in lines:
                if line.startswith("MemAvailable:"):
                    return int(line.split()[1]) * 1024
    except (OSError, ValueError):
        pass
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return None
