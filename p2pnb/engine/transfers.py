"""Sources and sinks: where the bytes of a transfer come from and where they end up.

A source is read by content offset, a sink written by content offset, in any order; the head of the stream
(see `protocol.wire`) goes before both. Sources and sinks that touch disks say `blocking`, and are driven on
worker threads; the others copy memory on the event loop.
"""

from __future__ import annotations

import mmap
import os
import time
from bisect import bisect_right
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

from p2pnb.errors import DiskFullError
from p2pnb.files import IncomingFiles, OutgoingFiles
from p2pnb.protocol.wire import Offer, Preview

if TYPE_CHECKING:
    from p2pnb.objects import Encoded

__all__ = ["FileSink", "FileSource", "Meter", "ObjectSink", "ObjectSource", "Sink", "Source", "open_sink"]

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

    def check_unchanged(self) -> None:
        """Raise SourceChangedError if what was read may be of two versions."""

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
        self._chunks = [chunk for chunk in encoded.chunks() if len(chunk)]
        self._starts: list[int] = []
        total = 0
        for chunk in self._chunks:
            self._starts.append(total)
            total += len(chunk)
        self.content_bytes = total

    def read(self, offset: int, length: int) -> bytes | memoryview:
        index = bisect_right(self._starts, offset) - 1
        begin = offset - self._starts[index]
        piece = self._chunks[index][begin : begin + length]
        if len(piece) == length:
            return piece
        parts = [piece]
        have = len(piece)
        while have < length:
            index += 1
            piece = self._chunks[index][: length - have]
            parts.append(piece)
            have += len(piece)
        return b"".join(parts)

    def check_unchanged(self) -> None:
        pass

    def close(self) -> None:
        self._chunks = []


class FileSource:
    """Files or folders on disk."""

    codec = ""
    blocking = True

    def __init__(self, files: OutgoingFiles) -> None:
        self._files = files
        self.kind, self.name, self.count = files.kind, files.name, files.count
        self.head, self.preview = files.head, files.preview
        self.content_bytes = files.size_bytes - len(files.head)

    def read(self, offset: int, length: int) -> bytes:
        return self._files.read(offset, length)

    def check_unchanged(self) -> None:
        self._files.check_unchanged()

    def close(self) -> None:
        self._files.close()


class Sink(Protocol):
    """Where content goes."""

    blocking: bool

    def write(self, offset: int, data: memoryview) -> None:
        """Put bytes in their place; ranges don't overlap, but come in any order and from several threads."""

    def finish(self) -> object:
        """Everything is here: check it, and return the value or the final path. Blocking."""

    def abort(self) -> None:
        """Throw away what came."""


class ObjectSink:
    """Memory for the buffers of one object.

    It is mapped, not filled: a page is taken from the machine only when bytes for it arrive, so an announced
    size by itself costs nothing.
    """

    blocking = False

    def __init__(self, codec: str, head: bytes, content_bytes: int) -> None:
        from p2pnb.objects import layout

        layout(codec, head, content_bytes)
        free = _available_memory()
        if free is not None and content_bytes > free - _MEMORY_RESERVE:
            raise DiskFullError(
                f"This object needs {content_bytes:,} bytes of memory and {free:,} are free. "
                "Free some, or ask for a part of it."
            )
        self._codec, self._head = codec, head
        try:
            place = mmap.mmap(-1, content_bytes) if content_bytes else bytearray()
            self._content: memoryview | None = memoryview(place)
        except (OSError, ValueError, OverflowError) as error:
            raise DiskFullError(f"No memory for an object of {content_bytes:,} bytes.") from error

    def write(self, offset: int, data: memoryview) -> None:
        if self._content is not None:
            self._content[offset : offset + len(data)] = data

    def finish(self) -> object:
        from p2pnb.objects import decode

        content, self._content = self._content, None
        assert content is not None
        return decode(self._codec, self._head, content)

    def abort(self) -> None:
        self._content = None


class FileSink:
    """Files on their way to the room's folder, under temporary names."""

    blocking = True

    def __init__(self, files: IncomingFiles) -> None:
        self._files = files

    def write(self, offset: int, data: memoryview) -> None:
        self._files.write(offset, data)

    def finish(self) -> Path:
        return self._files.finish()

    def abort(self) -> None:
        self._files.abort()


def open_sink(offer: Offer, head: bytes, folder: Path) -> Sink:
    """Check the head of an offer and return where its content goes. Blocking; raises CodecError or DiskFullError."""
    content_bytes = offer.size_bytes - offer.head_bytes
    if offer.kind == "object":
        return ObjectSink(offer.codec, head, content_bytes)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DiskFullError(f"The folder for received files, {folder}, can't be made: {error.strerror}") from error
    files = IncomingFiles(head, offer.name, offer.kind, content_bytes, folder)
    return FileSink(files)


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
