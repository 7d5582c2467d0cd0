"""A bare relay: a tornado WebSocket server that hands each message of one client to the other, and two aiohttp clients.

Each in a process of its own. Messages of 256 KiB, as large as the hub takes; the relay waits for one to be written
before it reads the next.
"""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any, ClassVar, Final

import aiohttp
from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.web import Application
from tornado.websocket import WebSocketHandler

__all__ = ["connect", "receive", "send", "serve"]

MESSAGE_BYTES: Final = 256 * 1024
_open: dict[str, Any] = {}


class _Forward(WebSocketHandler):
    here: ClassVar[list[_Forward]] = []

    def open(self) -> None:
        self.here.append(self)

    async def on_message(self, message: str | bytes) -> None:
        for other in self.here:
            if other is not self:
                await other.write_message(message, binary=True)

    def on_close(self) -> None:
        self.here.remove(self)


def _loop() -> asyncio.AbstractEventLoop:
    if "loop" not in _open:
        _open["loop"] = asyncio.new_event_loop()
        threading.Thread(target=_open["loop"].run_forever, daemon=True).start()
    loop: asyncio.AbstractEventLoop = _open["loop"]
    return loop


def _run(coroutine: Any, timeout: float = 120.0) -> Any:
    return asyncio.run_coroutine_threadsafe(coroutine, _loop()).result(timeout)


def serve() -> int:
    """Be the relay; returns the port."""

    async def begin() -> int:
        sockets = bind_sockets(0, "127.0.0.1")
        server = HTTPServer(Application([("/", _Forward)], websocket_max_message_size=2 * MESSAGE_BYTES))
        server.add_sockets(sockets)
        return int(sockets[0].getsockname()[1])

    return int(_run(begin()))


def connect(port: int) -> None:
    """Be a client."""

    async def begin() -> None:
        _open["http"] = aiohttp.ClientSession()
        _open["socket"] = await _open["http"].ws_connect(f"http://127.0.0.1:{port}/", max_msg_size=0, compress=0)

    _run(begin())


def send(size_bytes: int) -> float:
    """Send so much; returns the moment of beginning."""

    async def pour() -> float:
        message = bytes(MESSAGE_BYTES)
        began = time.perf_counter()
        for _ in range(size_bytes // MESSAGE_BYTES):
            await _open["socket"].send_bytes(message)
        return began

    return float(_run(pour()))


def receive(size_bytes: int) -> float:
    """Receive so much; returns the moment of the end."""

    async def drain() -> float:
        for _ in range(size_bytes // MESSAGE_BYTES):
            await _open["socket"].receive_bytes()
        return time.perf_counter()

    return float(_run(drain()))
