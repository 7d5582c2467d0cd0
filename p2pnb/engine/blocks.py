"""Blocks of blocking sources: read on the spot or ahead on worker threads, kept a while, shared by all receivers.

One cache serves a room, so its memory is bounded however many transfers run. A block that several receivers want is
read once, as long as they are within the cache of each other; who falls behind by more reads again. Buffers are used
again and again: a view is good only until the next call, or until the event loop goes on.

What the system has in memory already is copied on the event loop: that takes a twentieth of a millisecond, and
a worker would have to wait for the interpreter's lock and hand over through colder caches. Only what has to come from
a disk or a network is left to the workers.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Any, Final, Protocol

__all__ = ["BLOCK_BYTES", "TOGETHER_BYTES", "BlockCache", "BlockSource"]

BLOCK_BYTES: Final = 512 * 1024  # one record of the TCP path
CACHE_BLOCKS: Final = 64  # 32 MiB in all
TOGETHER_BYTES: Final = (CACHE_BLOCKS - 36) * BLOCK_BYTES  # receivers this near each other share every reading
MOST_AHEAD: Final = 32  # blocks of one source; a worker may wait 5 ms for the interpreter's lock
BEHIND: Final = 8  # blocks kept behind a single receiver: several lanes of it read side by side
BATCH: Final = 8  # blocks read by one call into a worker: a hop there costs a fifth of reading one block


class BlockSource(Protocol):
    """What is read from."""

    content_bytes: int

    def read_at_once(self, offset: int, buffer: memoryview) -> bool:
        """Fill `buffer` with content bytes from `offset` if that needs no waiting; raises P2PError."""

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fill `buffer` with content bytes from `offset`; blocking, raises P2PError."""


Key = tuple[BlockSource, int]


class BlockCache:
    """Event loop only, except for the reads themselves."""

    def __init__(self, in_worker: Callable[..., Awaitable[Any]], loop: asyncio.AbstractEventLoop) -> None:
        self._in_worker = in_worker
        self._loop = loop
        self._blocks: OrderedDict[Key, memoryview] = OrderedDict()  # oldest first
        self._loading: dict[Key, asyncio.Future[None]] = {}
        self._free: list[memoryview] = []
        self._sources: dict[BlockSource, bool] = {}  # that were read from and not dropped: was it at once?
        self._tasks: set[asyncio.Task[None]] = set()

    def now(self, source: BlockSource, offset: int, length: int, *, shared: bool = True) -> memoryview | bytes | None:
        """Return content bytes if they can be had without waiting; else None, and workers read them and what follows.

        shared  others may want the same bytes soon
        """
        first, last = offset // BLOCK_BYTES, (offset + length - 1) // BLOCK_BYTES
        if not shared:
            self._free_before(source, first - BEHIND)
        parts = []
        for index in range(first, last + 1):
            block = self._blocks.get((source, index))
            if block is None and (block := self._read_at_once(source, index)) is None:
                self._start(source, self._missing(source, first, last + self._ahead))
                return None
            start = index * BLOCK_BYTES
            part = block[max(0, offset - start) : offset + length - start]
            parts.append(part if first == last else bytes(part))  # the next block may take this one's buffer
        if not self._sources[source]:
            ahead = self._missing(source, last + 1, last + self._ahead)
            if 2 * len(ahead) >= self._ahead:  # several at once
                self._start(source, ahead)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    async def get(self, source: BlockSource, offset: int, length: int, *, shared: bool = True) -> memoryview | bytes:
        """Return content bytes, once they are here. Raises what the source raises."""
        while (found := self.now(source, offset, length, shared=shared)) is None:
            first, last = offset // BLOCK_BYTES, (offset + length - 1) // BLOCK_BYTES
            for index in range(first, last + 1):
                if (future := self._loading.get((source, index))) is not None:
                    await asyncio.shield(future)
        return found

    def drop(self, source: BlockSource) -> None:
        """Forget a source that nobody reads any more."""
        self._sources.pop(source, None)
        for key in [key for key in self._blocks if key[0] is source]:
            self._free.append(self._blocks.pop(key))
        del self._free[CACHE_BLOCKS:]
        if not self._sources:
            self._free.clear()

    def _read_at_once(self, source: BlockSource, index: int) -> memoryview | None:
        self._sources.setdefault(source, False)
        if (source, index) in self._loading:
            return None
        whole = self._buffer()
        block = whole[: min(BLOCK_BYTES, source.content_bytes - index * BLOCK_BYTES)]
        try:
            here = self._sources[source] = source.read_at_once(index * BLOCK_BYTES, block)
        except BaseException:
            self._free.append(whole)
            raise
        if not here:
            self._free.append(whole)
            return None
        self._keep(source, index, block)
        return block

    def _keep(self, source: BlockSource, index: int, block: memoryview) -> None:
        self._blocks[source, index] = block
        while len(self._blocks) > CACHE_BLOCKS:
            _, old = self._blocks.popitem(last=False)
            self._free.append(old)

    def _free_before(self, source: BlockSource, index: int) -> None:
        """Let go of blocks that a single receiver has passed, the last used one first: caches still have it."""
        for key in [key for key in self._blocks if key[0] is source and key[1] < index]:
            self._free.append(self._blocks.pop(key))

    @property
    def _ahead(self) -> int:
        return max(1, min(MOST_AHEAD, CACHE_BLOCKS // (2 * max(1, len(self._sources)))))

    def _missing(self, source: BlockSource, first: int, last: int) -> list[int]:
        end = -(-source.content_bytes // BLOCK_BYTES)
        return [
            index
            for index in range(first, min(last + 1, end))
            if (source, index) not in self._blocks and (source, index) not in self._loading
        ]

    def _start(self, source: BlockSource, indices: list[int]) -> None:
        for i in range(0, len(indices), BATCH):
            batch = indices[i : i + BATCH]
            for index in batch:
                self._loading[source, index] = self._loop.create_future()
            task = self._loop.create_task(self._read(source, batch), name="p2pnb read")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _read(self, source: BlockSource, indices: list[int]) -> None:
        places = []
        for index in indices:
            length = min(BLOCK_BYTES, source.content_bytes - index * BLOCK_BYTES)
            places.append(self._buffer()[:length])
        futures = [self._loading[source, index] for index in indices]
        try:
            await self._in_worker(_read_all, source, indices, places)
        except asyncio.CancelledError:
            for future in futures:
                future.cancel()
            raise
        except Exception as error:  # noqa: BLE001 - whoever waits for these blocks gets it
            for future in futures:
                future.set_exception(error)
                future.exception()  # seen, also when nobody waits
        else:
            for index, place, future in zip(indices, places, futures, strict=True):
                if source in self._sources:
                    self._keep(source, index, place)
                future.set_result(None)
        finally:
            for index in indices:
                self._loading.pop((source, index), None)

    def _buffer(self) -> memoryview:
        # .obj is the whole buffer, also of a source's short last block
        return memoryview(self._free.pop().obj if self._free else bytearray(BLOCK_BYTES))


def _read_all(source: BlockSource, indices: list[int], places: list[memoryview]) -> None:
    for index, place in zip(indices, places, strict=True):
        source.read_into(index * BLOCK_BYTES, place)
