"""magic-wormhole between two processes of this machine, with a mailbox and a transit relay of its own.

Its commands are timed as a user runs them, less what the same commands need for a file of one byte: starting, meeting
and the key exchange don't count against it.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import socket
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from tests.bench.machine import MEBIBYTE, PeakMemory
from tests.bench.registry import Unavailable

__all__ = ["Mailbox", "Sent", "mailbox"]

START_TIMEOUT_S: Final = 20.0
SEND_TIMEOUT_S: Final = 180.0


@dataclass(frozen=True, slots=True)
class Sent:
    """What one file took."""

    seconds: float
    peak_mib: float  # resident memory of the larger of its two processes, all in all


class Mailbox:
    """A running mailbox and relay."""

    def __init__(self, mailbox_port: int, transit_port: int, folder: Path) -> None:
        self._folder = folder
        self._options = [
            sys.executable, "-m", "wormhole",
            "--relay-url", f"ws://127.0.0.1:{mailbox_port}/v1",
            "--transit-helper", f"tcp:127.0.0.1:{transit_port}",
        ]  # fmt: skip
        self._overhead = 0.0

    async def send(self, file: Path) -> Sent:
        """Send a file and receive it beside itself; the copy is removed."""
        if not self._overhead:
            small = self._folder / "small"
            small.write_bytes(b"x")
            self._overhead = min([(await self._once(small))[0] for _ in range(3)])
        took, memory = await self._once(file)
        return Sent(max(1e-3, took - self._overhead), memory)

    async def _once(self, file: Path) -> tuple[float, float]:
        code = f"{secrets.randbelow(9000) + 100}-{secrets.token_hex(3)}-{secrets.token_hex(3)}"
        copy = self._folder / f"copy-{secrets.token_hex(4)}"
        began = time.perf_counter()
        sides = [
            await self._start("send", "--hide-progress", "--no-qr", "--code", code, str(file)),
            await self._start("receive", "--hide-progress", "--accept-file", "-o", str(copy), code),
        ]
        try:
            with PeakMemory(send=sides[0].pid, receive=sides[1].pid) as memory:
                async with asyncio.timeout(SEND_TIMEOUT_S):
                    codes = await asyncio.gather(*(side.wait() for side in sides))
            took = time.perf_counter() - began
            if any(codes) or not _same_size(copy, file):
                raise RuntimeError(f"magic-wormhole failed: {(self._folder / 'log').read_text()[-800:]}")
            return took, max(memory.peak_bytes.values()) / MEBIBYTE
        finally:
            copy.unlink(missing_ok=True)
            for side in sides:
                if side.returncode is None:
                    side.kill()
                    await side.wait()

    async def _start(self, *arguments: str) -> asyncio.subprocess.Process:
        with (self._folder / "log").open("ab") as log:
            return await asyncio.create_subprocess_exec(
                *self._options, *arguments, stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log, cwd=self._folder
            )


@contextlib.asynccontextmanager
async def mailbox(folder: Path) -> AsyncIterator[Mailbox]:
    """Start both servers; they end with the block. `folder` is where the copies land, too."""
    for module in ("wormhole", "wormhole_mailbox_server", "wormhole_transit_relay"):
        if find_spec(module) is None:
            raise Unavailable(f"{module} is not installed: pip install 'p2pnb[bench]'")
    ports = [_free_port(), _free_port()]
    listen = [f"--port=tcp:{port}:interface=127.0.0.1" for port in ports]
    twist = [sys.executable, "-m", "twisted", "--log-level=warn"]
    commands = [
        [*twist, "wormhole-mailbox", listen[0], f"--channel-db={folder / 'mailbox.sqlite'}"],
        [*twist, "transitrelay", listen[1]],
    ]
    servers = []
    try:
        for command in commands:
            with (folder / "servers.log").open("ab") as log:
                servers.append(await asyncio.create_subprocess_exec(*command, stdout=log, stderr=log, cwd=folder))
        until = time.monotonic() + START_TIMEOUT_S
        while not all(map(_listens, ports)):
            if time.monotonic() > until or any(server.returncode is not None for server in servers):
                raise RuntimeError(f"its servers did not start: {(folder / 'servers.log').read_text()[-800:]}")
            await asyncio.sleep(0.1)
        yield Mailbox(ports[0], ports[1], folder)
    finally:
        for server in servers:
            if server.returncode is None:
                server.kill()
                await server.wait()


def _same_size(one: Path, other: Path) -> bool:
    return one.stat().st_size == other.stat().st_size


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
