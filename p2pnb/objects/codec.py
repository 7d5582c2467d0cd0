"""What a codec is, and what it makes of a value: a note, and buffers that are not copied.

A codec turns a value into a *note* (its own small MessagePack description) and *buffers* (the bulk, as memoryviews
over the value's own memory wherever its type allows). The *head* that travels before the content holds the lengths of
the buffers and the note. In the content every buffer starts at a multiple of 64 bytes, so that received arrays and
columns can be used where they lie.

The lengths are checked against the announced size before anything is allocated (`Head.ranges`); each codec then checks
its own description against the lengths (`Codec.check`) before it looks at a byte.

Rejected: pickle protocol 5 with out-of-band buffers, because unpickling runs what the peer wrote.
"""

from __future__ import annotations

import bisect
import itertools
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Final, TypeVar

import msgspec

from p2pnb.errors import CorruptDataError, TooLargeError
from p2pnb.protocol.wire import MAX_HEAD_BYTES, MAX_SIZE_BYTES, Preview

__all__ = ["ALIGNMENT_BYTES", "Blob", "Codec", "Encoded", "Head", "Packed", "blob_bytes", "read_note", "write_note"]

ALIGNMENT_BYTES: Final = 64  # what Arrow recommends and what every numpy type is content with
MAX_BUFFERS: Final = 250_000  # in one value; a list of that many arrays is better sent as one array
HEAD_VERSION: Final = 1
JOINED_PIECE_BYTES: Final = 64 * 1024  # neighbours up to this size are joined, so that a reader meets few seams
MAX_JOINED_BYTES: Final = 64 * 1024 * 1024  # what joining may copy in all
_PADDING: Final = memoryview(bytes(ALIGNMENT_BYTES))

T = TypeVar("T")

Blob = tuple[memoryview, ...]
"""One logical buffer as pieces that lie apart in the sender's memory; each piece is C-contiguous unsigned bytes."""


@dataclass(frozen=True, slots=True)
class Packed:
    """What a codec makes of a value: its note, and the buffers the note speaks of."""

    note: bytes
    buffers: Sequence[Blob] = ()


class Codec(ABC):
    """One way to send the values of some types; give an instance to `p2pnb.register_codec`.

    `encode` runs in the sender's threads, `check` and `decode` in the receiver's, each possibly several at once.
    A codec must not execute, import or look up anything by a name that the note or the buffers chose.
    """

    name: ClassVar[str]
    """Travels with every value; lower-case letters, digits, dots and dashes, at most 64. Both sides need the codec."""

    @abstractmethod
    def takes(self, value: object) -> bool:
        """Say whether `encode` is for values of this type; quick, and never imports a library."""

    @abstractmethod
    def encode(self, value: object) -> Packed:
        """Pack `value`; raises `NotSupportedError` or `TooLargeError` naming what to send instead."""

    @abstractmethod
    def decode(self, note: bytes, buffers: Sequence[memoryview]) -> object:
        """Rebuild the value from untrusted bytes; any exception other than a `P2PError` counts as corrupt data.

        The buffers are the receiver's own memory, writable, and may be kept by the value.
        """

    def check(self, note: bytes, lengths: Sequence[int]) -> None:
        """Refuse (`CorruptDataError`) a note that can't belong to buffers of these lengths, before they arrive."""
        return None

    def preview(self, value: object) -> Preview | None:
        """Describe `value` to a person who decides whether to accept it; None for a plain default."""
        return None

    def type_name(self, value: object) -> str:
        """Name the type for people, e.g. ``pandas.DataFrame``."""
        kind = type(value)
        module = kind.__module__.split(".", 1)[0]
        return kind.__qualname__ if module in ("builtins", "__main__") else f"{module}.{kind.__qualname__}"


@dataclass(frozen=True, slots=True)
class Encoded:
    """A value ready to travel. Its buffers are views: don't change the value in place before it has been sent.

    The content lies in pieces. What is one array, or one column, in the sender's memory is one piece, whatever its
    length; neighbours of at most `JOINED_PIECE_BYTES` are copied into one piece when the value is encoded, up to
    `MAX_JOINED_BYTES` in all. So there are at most about twice as many seams as buffers larger than that, and a reader
    of 512 KiB at a time gets a view of the value's own memory, except where it crosses a seam.
    """

    codec: str
    head: bytes
    parts: tuple[Blob, ...] = field(repr=False)
    type: str
    preview: Preview = field(repr=False)
    _pieces: list[memoryview] = field(init=False, repr=False)
    _ends: list[int] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        pieces = _joined(_with_padding(self.parts))
        object.__setattr__(self, "_pieces", pieces)
        object.__setattr__(self, "_ends", list(itertools.accumulate(len(piece) for piece in pieces)))

    @property
    def buffers(self) -> list[memoryview]:
        """The bulk without padding, in order."""
        return [piece for part in self.parts for piece in part]

    @property
    def content_bytes(self) -> int:
        """Length of the content: all buffers and the padding between them."""
        return self._ends[-1] if self._ends else 0

    @property
    def size_bytes(self) -> int:
        """Length of the whole transfer: head and content."""
        return len(self.head) + self.content_bytes

    def chunks(self) -> Iterator[memoryview]:
        """Yield the content in order, padding included, in pieces that are never empty, without copying."""
        yield from self._pieces

    def read(self, offset: int, length: int) -> bytes | memoryview:
        """Return content bytes [offset, offset + length), shorter only at the end of the content.

        Within a piece that is a view, without a copy; across a seam, new bytes.
        """
        found = list(self._views(offset, length))
        return found[0] if len(found) == 1 else b"".join(found)

    def read_into(self, offset: int, buffer: memoryview) -> int:
        """Copy the content from `offset` on into a writable `buffer` of bytes, once; return how many it was.

        That is the length of the buffer, or less at the end of the content.
        """
        position = 0
        for view in self._views(offset, len(buffer)):
            buffer[position : position + len(view)] = view
            position += len(view)
        return position

    def _views(self, offset: int, length: int) -> Iterator[memoryview]:
        if offset < 0 or length < 0:
            raise ValueError("offset and length can't be negative")
        end = min(offset + length, self.content_bytes)
        number = bisect.bisect_right(self._ends, offset)
        while offset < end:
            piece = self._pieces[number]
            start = self._ends[number] - len(piece)
            yield piece[offset - start : end - start]
            offset = self._ends[number]
            number += 1


def _with_padding(parts: Sequence[Blob]) -> Iterator[memoryview]:
    position = 0
    for part in parts:
        gap = -position % ALIGNMENT_BYTES
        if gap:
            yield _PADDING[:gap]
            position += gap
        for piece in part:
            if len(piece):
                yield piece
                position += len(piece)


def _joined(pieces: Iterable[memoryview]) -> list[memoryview]:
    found: list[memoryview] = []
    run: list[memoryview] = []
    run_bytes, left = 0, MAX_JOINED_BYTES
    for piece in pieces:
        if len(piece) <= JOINED_PIECE_BYTES and run_bytes + len(piece) <= left:
            run.append(piece)
            run_bytes += len(piece)
            continue
        if run:
            left -= run_bytes if len(run) > 1 else 0
            found.append(run[0] if len(run) == 1 else memoryview(b"".join(run)))
            run, run_bytes = [], 0
        found.append(piece)
    if run:
        found.append(run[0] if len(run) == 1 else memoryview(b"".join(run)))
    return found


def blob_bytes(part: Blob) -> int:
    """Return the length of a logical buffer."""
    return sum(len(piece) for piece in part)


class Head(msgspec.Struct, frozen=True, array_like=True):
    """What travels before the content of every object."""

    version: int
    lengths: list[int]  # of the logical buffers, in bytes, without padding
    note: bytes  # the codec's own

    @classmethod
    def pack(cls, packed: Packed) -> bytes:
        """Return the head's bytes; raises `TooLargeError` when it or the content would pass the protocol's limits."""
        lengths = [blob_bytes(part) for part in packed.buffers]
        head = _encoder.encode(cls(HEAD_VERSION, lengths, packed.note))
        if len(head) > MAX_HEAD_BYTES or len(lengths) > MAX_BUFFERS:
            raise TooLargeError(
                f"this value is made of {len(lengths):,} pieces, more than one object can hold; "
                "put its parts into one array or table, or send them one by one"
            )
        if sum(lengths) + len(lengths) * ALIGNMENT_BYTES > MAX_SIZE_BYTES:
            raise TooLargeError("this value is larger than a petabyte; send parts of it")
        return head

    @classmethod
    def parse(cls, data: bytes) -> Head:
        """Parse untrusted bytes; raises `CorruptDataError`."""
        if len(data) > MAX_HEAD_BYTES:
            raise CorruptDataError(f"the object's description is {len(data):,} bytes long; at most {MAX_HEAD_BYTES:,}")
        head = read_note(data, cls)
        if head.version != HEAD_VERSION:
            raise CorruptDataError(f"the object has format {head.version}, this p2pnb reads {HEAD_VERSION}; update it")
        if len(head.lengths) > MAX_BUFFERS:
            raise CorruptDataError(f"the object claims {len(head.lengths):,} buffers; at most {MAX_BUFFERS:,}")
        return head

    def ranges(self, content_bytes: int) -> list[tuple[int, int]]:
        """Return [start, end) of each buffer in the content, which they must fill; raises `CorruptDataError`."""
        if not 0 <= content_bytes <= MAX_SIZE_BYTES:
            raise CorruptDataError(f"an object of {content_bytes} bytes is not possible")
        found: list[tuple[int, int]] = []
        end = 0
        for length in self.lengths:
            start = end + -end % ALIGNMENT_BYTES
            if not 0 <= length <= content_bytes - start:
                raise CorruptDataError("the object's buffers are longer than its announced size")
            end = start + length
            found.append((start, end))
        if end != content_bytes:
            raise CorruptDataError(f"the object's buffers take {end:,} bytes, but {content_bytes:,} were announced")
        return found


_encoder = msgspec.msgpack.Encoder()


def write_note(note: msgspec.Struct) -> bytes:
    """Return a note's bytes."""
    return _encoder.encode(note)


def read_note(data: bytes | memoryview, kind: type[T]) -> T:
    """Parse an untrusted note strictly; raises `CorruptDataError`."""
    try:
        return msgspec.msgpack.decode(data, type=kind)
    except (msgspec.MsgspecError, RecursionError, ValueError) as error:
        raise CorruptDataError(f"the object's description is malformed: {error}") from error
