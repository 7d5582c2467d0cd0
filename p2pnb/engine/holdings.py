"""What this peer can serve of shares: its own versions, and contents it pulled or is pulling.

A content that was pulled lies in the memory of the value it became. It is served from there as long as that value
lives (no copy is kept for others), and every block is hashed again before it goes out: the user may have changed
the value in place. While the pull is still going on nobody can have, so the blocks go out as they lie.
"""

from __future__ import annotations

import weakref
from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, Protocol

import msgspec

from p2pnb.errors import SourceChangedError
from p2pnb.protocol.manifest import Descriptor, Manifest, block_hash
from p2pnb.protocol.serving import Serving
from p2pnb.protocol.wire import HASH_BYTES, Preview

if TYPE_CHECKING:
    from p2pnb.engine.sending import Outgoing

__all__ = ["Content", "Holding", "PulledContent", "ShareKey", "ShareSource", "hash_blocks"]

CHECKED_BLOCKS: Final = 8  # kept as checked copies, for all pullers of a content; 2 MiB for most

ShareKey = tuple[bytes, int, int]
"""Owner's peer id, share, version."""


class Content(Protocol):
    """The bytes behind a manifest."""

    @property
    def content_bytes(self) -> int: ...

    def read(self, offset: int, length: int) -> bytes | memoryview:
        """Return exactly these bytes; SourceChangedError if they can't be had."""


class Holding(msgspec.Struct, eq=False):
    """One content that this peer serves, and to whom."""

    name: str
    manifest: bytes
    root: bytes
    content: Content
    serving: Serving
    outgoing: dict[tuple[bytes, int], Outgoing] = msgspec.field(default_factory=dict)  # by peer and its request

    @property
    def alive(self) -> bool:
        """False once a pulled content's value is gone."""
        return not isinstance(self.content, PulledContent) or self.content.alive


class ShareSource:
    """`Source` of an answer to a Pull: the manifest, then the content."""

    kind = "object"
    codec = ""
    count = 1
    blocking = False

    def __init__(self, name: str, manifest: bytes, root: bytes, content: Content, closed: Callable[[], None]) -> None:
        self.name = name
        self.head = Descriptor(len(manifest), root).pack()
        self.preview = Preview("")
        self.content_bytes = len(manifest) + content.content_bytes
        self._manifest = manifest
        self._content = content
        self._closed = closed

    def read(self, offset: int, length: int) -> bytes | memoryview:
        ahead = len(self._manifest) - offset
        if ahead >= length:
            return self._manifest[offset : offset + length]
        if ahead > 0:
            return b"".join((self._manifest[offset:], self._content.read(0, length - ahead)))
        return self._content.read(-ahead, length)

    def read_at_once(self, offset: int, buffer: memoryview) -> bool:
        self.read_into(offset, buffer)
        return True

    def read_into(self, offset: int, buffer: memoryview) -> None:
        buffer[:] = self.read(offset, len(buffer))

    def hash_blocks(self, block_bytes: int, first: int, end: int) -> bytes:
        raise SourceChangedError("The answer to a pull can't be gone on with: pull again.")

    def check_unchanged(self) -> None:
        pass  # the puller checks every block

    def again(self) -> ShareSource:
        raise SourceChangedError("The answer to a pull can't be sent again: pull again.")

    def close(self) -> None:
        self._closed()


class PulledContent:
    """A content in this peer's memory, growing while it is pulled and living as long as its value does."""

    def __init__(self, view: memoryview, manifest: Manifest, has: Callable[[int], bool]) -> None:
        self.content_bytes = manifest.content_bytes
        self._block_bytes = manifest.block_bytes
        self._hashes = manifest.hashes
        self._has = has
        self._view: memoryview | None = view
        self._owner: weakref.ref[Any] | None = None
        self._checked: OrderedDict[int, bytes] = OrderedDict()

    @property
    def alive(self) -> bool:
        return self._memory() is not None

    def in_use(self) -> None:
        """The value is about to be in the user's hands: check whatever goes out from now on."""
        assert self._view is not None
        self._owner = weakref.ref(self._view.obj)

    def let_go(self) -> None:
        """Keep the memory no longer than its value."""
        self._view = None

    def read(self, offset: int, length: int) -> bytes | memoryview:
        first, last = offset // self._block_bytes, (offset + length - 1) // self._block_bytes
        view = self._memory()
        if view is None or not all(self._has(block) for block in range(first, last + 1)):
            raise SourceChangedError("This peer does not hold that part of the shared object (any more).")
        if self._owner is None:
            return view[offset : offset + length]
        parts = []
        for block in range(first, last + 1):
            start = block * self._block_bytes
            parts.append(self._check(view, block)[max(0, offset - start) : offset + length - start])
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _memory(self) -> memoryview | None:
        if self._view is not None:
            return self._view
        found = self._owner() if self._owner is not None else None
        return memoryview(found).cast("B")[: self.content_bytes] if found is not None else None

    def _check(self, view: memoryview, block: int) -> bytes:
        """Return a block as a copy that nobody changes, once its hash was right."""
        copy = self._checked.get(block)
        if copy is None:
            copy = bytes(view[block * self._block_bytes : (block + 1) * self._block_bytes])
            if block_hash(copy) != self._hashes[block * HASH_BYTES : (block + 1) * HASH_BYTES]:
                raise SourceChangedError("The object was changed at this peer since it was fetched.")
            self._checked[block] = copy
            if len(self._checked) > CHECKED_BLOCKS:
                self._checked.popitem(last=False)
        self._checked.move_to_end(block)
        return copy


def hash_blocks(content: Content, block_bytes: int, first: int, end: int) -> bytes:
    """Return the hashes of a content's blocks [first, end). Blocking."""
    size = content.content_bytes
    starts = range(first * block_bytes, min(end * block_bytes, size), block_bytes)
    return b"".join(block_hash(content.read(start, min(block_bytes, size - start))) for start in starts)
