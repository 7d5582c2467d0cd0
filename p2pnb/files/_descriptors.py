"""A bounded set of open files (or folders), and reading and writing at an offset.

A folder of 100,000 files goes through a few descriptors; consecutive chunks of one file share one.
"""

from __future__ import annotations

import errno
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Final, Generic, TypeVar

__all__ = ["ClosedError", "Descriptors", "fill_at", "fill_at_once", "read_at", "write_at"]

_NO_WAITING: Final[int] = getattr(os, "RWF_NOWAIT", 0)

T = TypeVar("T")


class Descriptors(Generic[T]):
    """Opens by number and keeps the `limit` most recently used open. Thread-safe.

    What is in use stays open: beyond `limit` until it is released, and through `close`.
    """

    def __init__(self, open_: Callable[[int], T], close: Callable[[T], None], limit: int) -> None:
        self._open = open_
        self._close = close
        self._limit = limit
        self._lock = threading.RLock()  # opening a folder opens its parent through the same set
        self._entries: OrderedDict[int, _Entry[T]] = OrderedDict()
        self.closed = False

    def __len__(self) -> int:
        return len(self._entries)

    def has(self, number: int) -> bool:
        """Tell whether a thing is open, so that `use` waits for nothing."""
        return number in self._entries

    @contextmanager
    def use(self, number: int) -> Iterator[T]:
        """Lend the opened thing; raises what opening raises, or ClosedError after `close`."""
        with self._lock:
            if self.closed:
                raise ClosedError
            entry = self._entries.get(number)
            if entry is None:
                entry = self._entries[number] = _Entry(self._open(number))
            entry.users += 1
            self._entries.move_to_end(number)
        try:
            yield entry.value
        finally:
            with self._lock:
                entry.users -= 1
                self._shrink()

    def close(self) -> None:
        """Close everything; what is in use right now is closed by its user."""
        with self._lock:
            self.closed = True
            self._shrink()

    def _shrink(self) -> None:
        limit = 0 if self.closed else self._limit
        if len(self._entries) <= limit:
            return
        idle = (number for number, entry in self._entries.items() if not entry.users)
        for number in list(islice(idle, len(self._entries) - limit)):
            self._close(self._entries.pop(number).value)


class ClosedError(Exception):
    """The set was closed while (or before) somebody wanted to use it."""


class _Entry(Generic[T]):
    __slots__ = ("users", "value")

    def __init__(self, value: T) -> None:
        self.value = value
        self.users = 0


def read_at(descriptor: int, length: int, offset: int) -> bytes:
    """Return up to `length` bytes at `offset`; fewer only at the end of the file."""
    data = _read_some(descriptor, length, offset)
    if len(data) == length or not data:
        return data
    parts = [data]
    have = len(data)
    while have < length and (data := _read_some(descriptor, length - have, offset + have)):
        parts.append(data)
        have += len(data)
    return b"".join(parts)


def fill_at(descriptor: int, buffer: memoryview, offset: int) -> int:
    """Fill `buffer` from `offset` on; return how many bytes there were, fewer only at the end of the file."""
    have = _fill_some(descriptor, buffer, offset)
    while 0 < have < len(buffer) and (more := _fill_some(descriptor, buffer[have:], offset + have)):
        have += more
    return have


def fill_at_once(descriptor: int, buffer: memoryview, offset: int) -> bool:
    """Fill `buffer` from `offset` on if the system has all of it in memory; False if not, or if the file ends before.

    OSError (EOPNOTSUPP, EINVAL, ENOSYS) where that can't be told: network file systems, tmpfs, other systems.
    """
    if not _NO_WAITING:
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
    try:
        return os.preadv(descriptor, (buffer,), offset, _NO_WAITING) == len(buffer)
    except BlockingIOError:
        return False


def write_at(descriptor: int, data: memoryview, offset: int) -> None:
    """Write all of `data` at `offset`."""
    while data:
        written = _write_some(descriptor, data, offset)
        data = data[written:]
        offset += written


if hasattr(os, "pread") and hasattr(os, "pwrite"):
    _read_some = os.pread
    _write_some: Callable[[int, memoryview, int], int] = os.pwrite
else:  # Windows: the position belongs to the descriptor, so seek and transfer must not be torn apart
    _position_lock: Final = threading.Lock()

    def _read_some(descriptor: int, length: int, offset: int, /) -> bytes:
        with _position_lock:
            os.lseek(descriptor, offset, os.SEEK_SET)
            return os.read(descriptor, length)

    def _write_some(descriptor: int, data: memoryview, offset: int, /) -> int:
        with _position_lock:
            os.lseek(descriptor, offset, os.SEEK_SET)
            return os.write(descriptor, data)


if hasattr(os, "preadv"):

    def _fill_some(descriptor: int, buffer: memoryview, offset: int, /) -> int:
        return os.preadv(descriptor, (buffer,), offset)
else:

    def _fill_some(descriptor: int, buffer: memoryview, offset: int, /) -> int:
        data = _read_some(descriptor, len(buffer), offset)
        buffer[: len(data)] = data
        return len(data)
