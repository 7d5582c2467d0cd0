"""Blocks of a source, shared by all who read it: read once, bounded, and no failure lost."""

from __future__ import annotations

import asyncio
import random
import threading
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from p2pnb.engine.blocks import BEHIND, BLOCK_BYTES, CACHE_BLOCKS, MOST_AHEAD, BlockCache
from p2pnb.errors import SourceChangedError

pytestmark = pytest.mark.asyncio

MIB = 1024 * 1024


class Disk:
    """A source whose bytes are known, and which counts how often each block is read."""

    def __init__(self, content_bytes: int, seed: int = 1) -> None:
        self.content_bytes = content_bytes
        self.reads: Counter[int] = Counter()
        self.failing: Exception | None = None
        self.go = threading.Event()
        self.go.set()
        self.in_memory = False  # what is asked for can be had at once
        self._pattern = random.Random(seed).randbytes(4096 + 251)

    def read_at_once(self, offset: int, buffer: memoryview) -> bool:
        if self.in_memory:
            self.read_into(offset, buffer)
        else:
            buffer[:] = bytes(len(buffer))  # half done, and of no use
        return self.in_memory

    def read_into(self, offset: int, buffer: memoryview) -> None:
        assert self.go.wait(10)
        if self.failing is not None:
            raise self.failing
        assert offset % BLOCK_BYTES == 0
        assert len(buffer) == min(BLOCK_BYTES, self.content_bytes - offset), "the last block is short"
        self.reads[offset // BLOCK_BYTES] += 1
        buffer[:] = self.expected(offset, len(buffer))

    def expected(self, offset: int, length: int) -> bytes:
        start = offset % len(self._pattern)
        return (self._pattern * (2 + length // len(self._pattern)))[start : start + length]


def cache() -> BlockCache:
    loop = asyncio.get_running_loop()

    async def in_worker(function: Callable[..., Any], *args: Any) -> Any:
        return await loop.run_in_executor(None, function, *args)

    return BlockCache(in_worker, loop)


def held_bytes(blocks: BlockCache) -> int:
    return BLOCK_BYTES * (len(blocks._blocks) + len(blocks._free) + len(blocks._loading))


async def read_all(
    blocks: BlockCache,
    disk: Disk,
    chunk: int = BLOCK_BYTES,
    step: Callable[[], Any] | None = None,
    *,
    shared: bool = True,
) -> None:
    for offset in range(0, disk.content_bytes, chunk):
        length = min(chunk, disk.content_bytes - offset)
        got = await blocks.get(disk, offset, length, shared=shared)
        assert got == disk.expected(offset, length)
        if step is not None:
            await step()


@pytest.mark.parametrize("chunk", [BLOCK_BYTES, 128 * 1024, 48 * 1024, 700_001, 2 * BLOCK_BYTES + 1, 1000])
async def test_any_chunk_across_any_border_comes_equal(chunk: int) -> None:
    disk = Disk(5 * BLOCK_BYTES + 12_345 if chunk > 1000 else BLOCK_BYTES + 5000)
    await read_all(cache(), disk, chunk)


@pytest.mark.parametrize("size", [1, 2, BLOCK_BYTES - 1, BLOCK_BYTES, BLOCK_BYTES + 1, 3 * BLOCK_BYTES])
async def test_small_last_block_is_read_as_long_as_it_is(size: int) -> None:
    disk = Disk(size)
    await read_all(cache(), disk)
    assert set(disk.reads) == set(range(-(-size // BLOCK_BYTES)))


@pytest.mark.parametrize("readers", [1, 4, 16])
async def test_receivers_in_step_share_one_reading(readers: int) -> None:
    disk, blocks = Disk(40 * BLOCK_BYTES + 77), cache()
    barrier = asyncio.Barrier(readers)
    await asyncio.gather(*[read_all(blocks, disk, 128 * 1024, barrier.wait) for _ in range(readers)])
    assert set(disk.reads.values()) == {1}


async def test_receiver_that_is_a_little_behind_reads_nothing_again() -> None:
    disk, blocks = Disk(60 * BLOCK_BYTES), cache()
    places = {"first": 0, "second": 0}
    lag = CACHE_BLOCKS // 2

    async def read(name: str, waits: Callable[[], bool]) -> None:
        async def step() -> None:
            places[name] += 1
            while waits():
                await asyncio.sleep(0.0005)

        await read_all(blocks, disk, BLOCK_BYTES, step)
        places[name] = 1000

    await asyncio.gather(
        read("first", lambda: places["first"] > places["second"] + lag and places["first"] < 60),
        read("second", lambda: places["second"] > places["first"] - lag),
    )
    assert set(disk.reads.values()) == {1}


async def test_receiver_that_is_far_behind_reads_again_and_gets_the_same() -> None:
    disk, blocks = Disk(3 * CACHE_BLOCKS * BLOCK_BYTES), cache()
    await read_all(blocks, disk)
    await read_all(blocks, disk)
    assert max(disk.reads.values()) == 2


async def test_memory_is_bounded_however_many_sources_and_readers() -> None:
    blocks = cache()
    disks = [Disk(30 * BLOCK_BYTES, seed) for seed in range(12)]
    most = 0

    async def step() -> None:
        nonlocal most
        most = max(most, held_bytes(blocks))
        await asyncio.sleep(0)

    await asyncio.gather(*[read_all(blocks, disk, 200_000, step) for disk in disks for _ in range(2)])
    in_hands = len(disks) * 2 * BLOCK_BYTES
    assert most <= 2 * CACHE_BLOCKS * BLOCK_BYTES + in_hands
    for disk in disks:
        blocks.drop(disk)
    assert held_bytes(blocks) == 0, "an idle room keeps none"


async def test_slow_source_does_not_fill_the_memory() -> None:
    disk, blocks = Disk(100 * BLOCK_BYTES), cache()
    disk.go.clear()
    for _ in range(50):
        assert blocks.now(disk, 0, BLOCK_BYTES) is None
        await asyncio.sleep(0)
    assert len(blocks._loading) <= MOST_AHEAD + 1
    disk.go.set()
    assert await blocks.get(disk, 0, BLOCK_BYTES) == disk.expected(0, BLOCK_BYTES)


async def test_failure_reaches_everybody_who_waits() -> None:
    disk, blocks = Disk(10 * BLOCK_BYTES), cache()
    disk.failing = SourceChangedError("it changed")
    disk.go.clear()
    waiting = [asyncio.create_task(blocks.get(disk, offset, 1000)) for offset in (0, 5000, BLOCK_BYTES, 0)]
    await asyncio.sleep(0.01)
    disk.go.set()
    outcomes = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [SourceChangedError] * 4
    while blocks._loading:  # the last batch, which nobody waited for
        await asyncio.sleep(0.005)


async def test_failure_is_not_kept() -> None:
    """Another transfer of the same source tries for itself."""
    disk, blocks = Disk(BLOCK_BYTES), cache()
    disk.failing = OSError("gone")
    with pytest.raises(OSError, match="gone"):
        await blocks.get(disk, 0, 10)
    disk.failing = None
    assert await blocks.get(disk, 0, 10) == disk.expected(0, 10)


async def test_failure_of_what_is_read_ahead_waits_for_who_wants_it(caplog: pytest.LogCaptureFixture) -> None:
    disk, blocks = Disk(2 * CACHE_BLOCKS * BLOCK_BYTES), cache()
    assert await blocks.get(disk, 0, BLOCK_BYTES) == disk.expected(0, BLOCK_BYTES)
    while blocks._loading:
        await asyncio.sleep(0.005)
    disk.failing = SourceChangedError("it changed")
    last = (2 * CACHE_BLOCKS - 1) * BLOCK_BYTES
    assert blocks.now(disk, last, 10) is None
    while blocks._loading:
        await asyncio.sleep(0.005)
    with pytest.raises(SourceChangedError):
        await blocks.get(disk, last, 10)
    assert "never retrieved" not in caplog.text


async def test_waiter_that_gives_up_takes_the_block_from_nobody() -> None:
    disk, blocks = Disk(4 * BLOCK_BYTES), cache()
    disk.go.clear()
    one, other = (asyncio.create_task(blocks.get(disk, 0, 100)) for _ in range(2))
    await asyncio.sleep(0.01)
    one.cancel()
    await asyncio.sleep(0.01)
    disk.go.set()
    assert await other == disk.expected(0, 100)
    assert one.cancelled()


async def test_source_dropped_while_it_is_read_leaves_nothing() -> None:
    disk, other, blocks = Disk(8 * BLOCK_BYTES), Disk(8 * BLOCK_BYTES, 2), cache()
    assert await blocks.get(other, 0, 10) == other.expected(0, 10)
    disk.go.clear()
    assert blocks.now(disk, 0, 10) is None
    blocks.drop(disk)
    disk.go.set()
    while blocks._tasks:
        await asyncio.sleep(0.005)
    assert {source for source, _ in blocks._blocks} == {other}
    assert not blocks._loading
    blocks.drop(disk)
    blocks.drop(other)
    assert held_bytes(blocks) == 0


async def test_sources_of_equal_size_are_never_mixed_up() -> None:
    blocks = cache()
    disks = [Disk(20 * BLOCK_BYTES, seed) for seed in range(4)]
    for _ in range(3):
        await asyncio.gather(*[read_all(blocks, disk, 300_000) for disk in disks])
        for disk in disks:
            blocks.drop(disk)


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("chunk", [BLOCK_BYTES, 48 * 1024, 700_001])
async def test_what_can_be_had_at_once_needs_no_worker(chunk: int, shared: bool) -> None:
    async def in_worker(function: Callable[..., Any], *args: Any) -> Any:
        raise AssertionError("a worker was asked")

    disk, blocks = Disk(20 * BLOCK_BYTES + 77), BlockCache(in_worker, asyncio.get_running_loop())
    disk.in_memory = True
    await asyncio.gather(*[read_all(blocks, disk, chunk, shared=shared) for _ in range(3 if shared else 1)])
    assert set(disk.reads.values()) == {1}


@pytest.mark.parametrize("in_memory", [True, False])
async def test_a_single_receiver_holds_little_behind_it(in_memory: bool) -> None:
    disk, blocks = Disk(2 * CACHE_BLOCKS * BLOCK_BYTES), cache()
    disk.in_memory = in_memory
    await read_all(blocks, disk, shared=False)
    assert set(disk.reads.values()) == {1}
    assert held_bytes(blocks) <= (BEHIND + 2 + (0 if in_memory else 2 * MOST_AHEAD)) * BLOCK_BYTES


async def test_source_that_is_in_memory_in_parts_comes_whole() -> None:
    disk, blocks = Disk(3 * CACHE_BLOCKS * BLOCK_BYTES), cache()

    async def step() -> None:
        disk.in_memory = not disk.in_memory
        await asyncio.sleep(0)

    await read_all(blocks, disk, 700_001, step, shared=False)


async def test_failure_at_once_is_raised_at_once_and_not_kept() -> None:
    disk, blocks = Disk(BLOCK_BYTES), cache()
    disk.in_memory, disk.failing = True, SourceChangedError("it changed")
    with pytest.raises(SourceChangedError):
        blocks.now(disk, 0, 10)
    disk.failing = None
    assert blocks.now(disk, 0, 10) == disk.expected(0, 10)


async def test_view_is_good_until_the_loop_goes_on() -> None:
    """What `now` returns is used at once; this holds the promise against reading ahead on other threads."""
    disk, blocks = Disk(3 * CACHE_BLOCKS * BLOCK_BYTES), cache()
    for offset in range(0, disk.content_bytes, BLOCK_BYTES):
        while (view := blocks.now(disk, offset, BLOCK_BYTES)) is None:
            await asyncio.sleep(0.001)
        threading.Event().wait(0.001)  # the loop stands, workers go on
        assert view == disk.expected(offset, BLOCK_BYTES)


async def test_jumping_about_reads_right() -> None:
    disk, blocks, random_ = Disk(70 * BLOCK_BYTES + 5), cache(), random.Random(3)
    for _ in range(300):
        length = random_.randrange(1, 3 * BLOCK_BYTES)
        offset = random_.randrange(0, disk.content_bytes - length)
        assert await blocks.get(disk, offset, length) == disk.expected(offset, length)
