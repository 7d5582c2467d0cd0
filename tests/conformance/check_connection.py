"""What every `Connection` has to do alike, whatever carries it.

`check_connection` runs all checks against one way of making a connected pair. A transport is `PairMaker`: an
async context manager that yields two ends, each with the listener that hears it.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Final

from p2pnb.paths import RANKS, Connection

TIMEOUT_S: Final = 15.0
FLOOD_BYTES: Final = 4_000_000


@dataclass
class Listener:
    """Hears one end."""

    messages: list[bytes] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    lows: int = 0
    wake: asyncio.Event = field(default_factory=asyncio.Event)

    def message_received(self, message: bytes | memoryview) -> None:
        self.messages.append(bytes(message))
        self.wake.set()

    def connection_lost(self, reason: str) -> None:
        self.lost.append(reason)
        self.wake.set()

    def buffer_low(self) -> None:
        self.lows += 1
        self.wake.set()

    async def until(self, condition: Callable[[], object], what: str, timeout: float = TIMEOUT_S) -> None:
        """Wait until `condition` holds; looked at after everything heard."""
        end = time.monotonic() + timeout
        while not condition():
            self.wake.clear()
            remaining = end - time.monotonic()
            assert remaining > 0, f"not within {timeout} s: {what}"
            try:
                await asyncio.wait_for(self.wake.wait(), min(remaining, 0.05))
            except TimeoutError:
                continue

    async def heard(self, count: int) -> list[bytes]:
        """Wait for `count` messages and return them."""
        await self.until(lambda: len(self.messages) >= count, f"{count} messages, {len(self.messages)} are here")
        return self.messages


@dataclass
class End:
    connection: Connection
    listener: Listener


@dataclass
class Pair:
    """Two connected ends.

    `closes`: the end of one shows at the other by itself; not so for a relay path. `close_timeout_s`: how long that
    may take where the one packet that says it can get lost.
    """

    near: End
    far: End
    max_record_bytes: int
    closes: bool = True
    close_timeout_s: float = TIMEOUT_S


PairMaker = Callable[[], AbstractAsyncContextManager[Pair]]
Check = Callable[[Pair], Awaitable[None]]


async def check_description(pair: Pair) -> None:
    """Transport, chunk size and high water are stated and make sense."""
    for end in (pair.near, pair.far):
        connection = end.connection
        assert connection.transport in RANKS
        assert 1024 <= connection.chunk_bytes <= pair.max_record_bytes
        # a stream hands the kernel one record at a time; the others queue some themselves
        assert connection.high_water >= (1 if connection.transport == "tcp" else connection.chunk_bytes)
        assert connection.buffered == 0


async def check_boundaries_and_order(pair: Pair) -> None:
    """Messages of every size up to the largest record arrive whole, equal and in order, both ways."""
    sizes = {1, 2, 255, 256, 1023, 1024, 1199, 1200, 1201, 16_383, 16_384, 16_385, 48 * 1024, 65_535, 65_536, 65_537,
             pair.near.connection.chunk_bytes, pair.max_record_bytes - 1, pair.max_record_bytes}  # fmt: skip
    messages = [os.urandom(size) for size in sorted(sizes) if size <= pair.max_record_bytes]
    messages += [bytes([number]) for number in range(50)] + messages[::-1]
    for source, destination in ((pair.near, pair.far), (pair.far, pair.near)):
        for message in messages:
            source.connection.send(message)
        assert await destination.listener.heard(len(messages)) == messages


async def check_both_ways_at_once(pair: Pair) -> None:
    """Many messages in both directions at the same time keep their order."""
    there = [number.to_bytes(4, "big") * (1 + number % 900) for number in range(1500)]
    back = [message[::-1] + b"!" for message in there]
    for one, other in zip(there, back, strict=True):
        pair.near.connection.send(one)
        pair.far.connection.send(other)
    assert await pair.far.listener.heard(len(there)) == there
    assert await pair.near.listener.heard(len(back)) == back


async def check_backpressure(pair: Pair) -> None:
    """A sender that heeds `buffered`, `high_water` and `buffer_low` moves everything and holds little."""
    end, record = pair.near, os.urandom(pair.near.connection.chunk_bytes)
    count = FLOOD_BYTES // len(record)
    over = sent = 0  # `high_water` may follow the line, so what counts is how far above it `buffered` ever was
    while sent < count:
        while sent < count and end.connection.buffered < end.connection.high_water:
            end.connection.send(record)
            sent += 1
            over = max(over, end.connection.buffered - end.connection.high_water)
        if sent < count:
            before = end.listener.lows
            await end.listener.until(
                lambda before=before: end.listener.lows > before  # type: ignore[misc]
                or end.connection.buffered < end.connection.high_water, "buffer_low"
            )  # fmt: skip
    assert len(await pair.far.listener.heard(count)) == count
    assert over <= 2 * len(record)
    assert end.listener.lows >= 1, "a sender that waits is told when to go on"
    await end.listener.until(lambda: end.connection.buffered == 0, "everything left")


async def check_close(pair: Pair) -> None:
    """Closing is told once, at the other end only; afterwards sending is silent."""
    pair.near.connection.send(b"last words")
    await pair.far.listener.heard(1)
    pair.near.connection.close()
    pair.near.connection.close()
    pair.near.connection.send(b"after the end")
    if pair.closes:
        await pair.far.listener.until(lambda: pair.far.listener.lost, "the other end hears it", pair.close_timeout_s)
        pair.far.connection.send(b"into the void")
    pair.far.connection.close()
    pair.far.connection.send(b"after the end")
    await asyncio.sleep(0.1)  # for what must not come
    assert pair.near.listener.lost == []
    assert len(pair.far.listener.lost) == (1 if pair.closes else 0)
    assert pair.far.listener.messages == [b"last words"]
    assert pair.near.listener.messages == []
    assert pair.near.connection.buffered == 0


async def check_close_with_a_full_buffer(pair: Pair) -> None:
    """Closing does not wait for what is queued, and what arrived before is a beginning of what was sent."""
    messages = [os.urandom(20_000) for _ in range(100)]
    for message in messages:
        pair.near.connection.send(message)
    pair.near.connection.close()
    if pair.closes:
        await pair.far.listener.until(lambda: pair.far.listener.lost, "the other end hears it", pair.close_timeout_s)
    else:
        await asyncio.sleep(0.1)
    got = pair.far.listener.messages
    assert got == messages[: len(got)]


CHECKS: Final[dict[str, Check]] = {
    check.__name__.removeprefix("check_"): check
    for check in (
        check_description, check_boundaries_and_order, check_both_ways_at_once, check_backpressure, check_close,
        check_close_with_a_full_buffer,
    )
}  # fmt: skip


async def check_connection(make: PairMaker, name: str) -> None:
    """Run one check against a fresh pair."""
    async with make() as pair:
        await CHECKS[name](pair)
