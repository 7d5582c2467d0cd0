"""One bare data channel, nothing on top: of aiortc, or of `wrtc` (libwebrtc) through its aiortc-compatible API.

Messages of 16 KiB (`wrtc` is faster with larger ones: 64 KiB) as long as less than 1 MiB (4 MiB) waits in the channel,
for a given time; the receiver counts.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import threading
import time
from typing import Any, Final

__all__ = ["accept", "answer", "close", "landed", "offer", "send_for", "use"]

OPEN_TIMEOUT_S: Final = 30.0
_LIBRARIES: Final = {"aiortc": ("aiortc", 16 * 1024, 1 << 20), "wrtc": ("webrtc.aiortc", 64 * 1024, 4 << 20)}


class _Here:
    """What this process has; used on the loop's thread only, but for `counts`, which is appended to there."""

    loop: asyncio.AbstractEventLoop
    library: Any
    message_bytes: int
    waiting_bytes: int
    connection: Any
    channel: Any
    opened: asyncio.Event
    counts: list[tuple[float, int]]
    total: int


_here = _Here()


def use(name: str) -> None:
    """Load a library and start a loop for it; ImportError if it is not installed."""
    module, _here.message_bytes, _here.waiting_bytes = _LIBRARIES[name]
    _here.library = importlib.import_module(module)
    _here.loop = asyncio.new_event_loop()
    _here.counts, _here.total = [(0.0, 0)], 0
    threading.Thread(target=_here.loop.run_forever, daemon=True).start()


def _run(coroutine: Any, timeout: float = OPEN_TIMEOUT_S) -> Any:
    return asyncio.run_coroutine_threadsafe(coroutine, _here.loop).result(timeout)


def _connection() -> Any:
    library = _here.library
    return library.RTCPeerConnection(library.RTCConfiguration(iceServers=[]))  # no public STUN server


def offer() -> str:
    """Begin as the sender; returns the SDP."""

    async def begin() -> str:
        _here.connection, _here.opened = _connection(), asyncio.Event()
        _here.channel = _here.connection.createDataChannel("bench")
        _here.channel.on("open", _here.opened.set)
        await _here.connection.setLocalDescription(await _here.connection.createOffer())
        return str(_here.connection.localDescription.sdp)

    return str(_run(begin()))


def answer(sdp: str) -> str:
    """Begin as the receiver; returns the SDP."""

    async def begin() -> str:
        _here.connection = _connection()
        _here.connection.on("datachannel", _listen)
        await _here.connection.setRemoteDescription(_here.library.RTCSessionDescription(sdp, "offer"))
        await _here.connection.setLocalDescription(await _here.connection.createAnswer())
        return str(_here.connection.localDescription.sdp)

    return str(_run(begin()))


def _listen(channel: Any) -> None:
    _here.channel = channel  # nobody else keeps it

    def count(message: bytes) -> None:
        _here.total += len(message)
        now = time.perf_counter()
        if now - _here.counts[-1][0] >= 0.05:
            _here.counts.append((now, _here.total))

    channel.on("message", count)


def accept(sdp: str) -> None:
    """Finish as the sender: the channel is open after it."""

    async def finish() -> None:
        await _here.connection.setRemoteDescription(_here.library.RTCSessionDescription(sdp, "answer"))
        if _here.channel.readyState != "open":
            async with asyncio.timeout(OPEN_TIMEOUT_S - 1):
                await _here.opened.wait()

    _run(finish())


def send_for(seconds: float) -> float:
    """Send for so long; returns the moment of beginning."""

    async def pour() -> float:
        channel, message = _here.channel, bytes(_here.message_bytes)
        more = asyncio.Event()
        channel.bufferedAmountLowThreshold = _here.waiting_bytes // 2
        channel.on("bufferedamountlow", more.set)
        began = time.perf_counter()
        while time.perf_counter() < began + seconds:
            while channel.bufferedAmount < _here.waiting_bytes:
                channel.send(message)
            more.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.1):
                    await more.wait()
        return began

    return float(_run(pour(), seconds + 10))


def landed(began: float, seconds: float) -> float:
    """Return the bytes per second that came in the given time after `began`."""
    counts = [count for count in _here.counts if count[0] <= began + seconds]
    return counts[-1][1] / seconds


def close() -> None:
    """Close the connection, as far as it can still be closed."""
    with contextlib.suppress(Exception):
        _run(_here.connection.close(), 3)
