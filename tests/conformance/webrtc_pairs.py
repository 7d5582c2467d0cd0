"""Connected WebRTC pairs for the tests of the engines, within one process over this machine's own addresses."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
import time
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import psutil  # type: ignore[import-untyped]

from p2pnb.paths.webrtc import Engine, WebRtcConnection, WebRtcNegotiation
from p2pnb.protocol.wire import MAX_LANES
from tests.conformance.check_connection import End, Listener, Pair, PairMaker

MAX_RECORD_BYTES = 64 * 1024 - 1  # every engine and browser takes 64 KiB in one message
CLOSE_TIMEOUT_S = 45.0  # one packet says it; where that is lost, the checks of consent to send find it (RFC 7675)


async def connect(near: Engine = "aiortc", far: Engine = "aiortc") -> tuple[WebRtcConnection, WebRtcConnection]:
    """Return both ends of a new connection; nobody listens yet."""
    offering, answering = WebRtcNegotiation([], near), WebRtcNegotiation([], far)
    try:
        await offering.accept_answer(await answering.answer(await offering.offer()))
        one, other = await asyncio.gather(offering.connected(), answering.connected())
    finally:
        await offering.close()
        await answering.close()
    return one, other


async def closed(*connections: WebRtcConnection) -> None:
    """Close and wait until that is done."""
    for connection in connections:
        connection.close()
    await asyncio.gather(*[c._closing for c in connections if c._closing is not None])


def pair_of(near: Engine = "aiortc", far: Engine = "aiortc") -> PairMaker:
    """Return a maker of pairs with these engines."""

    @asynccontextmanager
    async def make() -> AsyncIterator[Pair]:
        connections = await connect(near, far)
        ends = [End(connection, Listener()) for connection in connections]
        for end, connection in zip(ends, connections, strict=True):
            connection.attach(end.listener)
        try:
            yield Pair(ends[0], ends[1], MAX_RECORD_BYTES, close_timeout_s=CLOSE_TIMEOUT_S)
        finally:
            await closed(*connections)

    def maker() -> AbstractAsyncContextManager[Pair]:
        return make()

    return maker


def _held() -> tuple[int, int, int]:
    gc.collect()
    process = psutil.Process()
    return len(asyncio.all_tasks()), process.num_fds(), len(os.listdir("/proc/self/task")) or threading.active_count()


async def check_lanes(engine: Engine) -> None:
    """As many lanes as there may be open at once, carry both ways, close, and leave no task, descriptor or thread."""
    await _lanes_come_and_go(engine, 4)  # what an engine opens once and keeps, some of it late, is open from here on
    await _lanes_come_and_go(engine, 4)
    before = _held()
    await _lanes_come_and_go(engine, MAX_LANES)
    deadline = time.monotonic() + 10
    while any(now > then for now, then in zip(_held(), before, strict=True)):
        assert time.monotonic() < deadline, f"tasks, descriptors, threads: {_held()}, before: {before}; {_threads()}"
        await asyncio.sleep(0.05)


async def _lanes_come_and_go(engine: Engine, count: int) -> None:
    pairs = await asyncio.gather(*[connect(engine, engine) for _ in range(count)])
    listeners = []
    for pair in pairs:
        for connection in pair:
            listener = Listener()
            connection.attach(listener)
            listeners.append(listener)
    for number, pair in enumerate(pairs):
        for connection in pair:
            connection.send(bytes([number]) * 60_000)
    for number, listener in enumerate(listeners):
        (message,) = await listener.heard(1)
        assert set(message) == {number // 2}
    await closed(*[connection for pair in pairs for connection in pair])
    assert all(not listener.lost for listener in listeners[::2])


def _threads() -> list[str]:
    """Name this process's threads, those that Python doesn't know included."""
    return [path.read_text().strip() for path in Path("/proc/self/task").glob("*/comm")]


async def check_closed_lane(engine: Engine) -> None:
    """A lane closed while full: what arrived is a beginning of what was sent, each once; the other lane lives."""
    (near, far), (other_near, other_far) = await asyncio.gather(connect(engine, engine), connect(engine, engine))
    heard, other_heard = Listener(), Listener()
    for connection, listener in ((near, Listener()), (far, heard), (other_near, Listener()), (other_far, other_heard)):
        connection.attach(listener)
    messages = [number.to_bytes(4, "big") * 12_000 for number in range(60)]
    for message in messages:
        near.send(message)
    await heard.heard(1)
    near.close()
    for message in messages:
        near.send(message)
        other_near.send(message)
    await heard.until(lambda: heard.lost, "the far end hears that the lane is closed", CLOSE_TIMEOUT_S)
    assert await other_heard.heard(len(messages)) == messages
    assert heard.messages == messages[: len(heard.messages)]
    assert near.buffered == 0
    await closed(near, far, other_near, other_far)
