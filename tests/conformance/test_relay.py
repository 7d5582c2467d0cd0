"""The relay connection, over a real hub client and sockets, held to what every connection does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from p2pnb.engine.hub_client import HubAddress, HubClient
from p2pnb.errors import P2PError
from p2pnb.paths.relay import RelayConnection
from p2pnb.protocol.hub import MAX_PAYLOAD_BYTES, Welcome
from tests.conformance.check_connection import CHECKS, End, Listener, Pair, check_connection
from tests.integration.hostile_hub import HostileHub


class _Ears:
    """HubListener of one peer that talks to one other."""

    def __init__(self) -> None:
        self.listener = Listener()
        self.welcome: asyncio.Future[Welcome] = asyncio.get_running_loop().create_future()

    def welcomed(self, welcome: Welcome) -> None:
        self.welcome.set_result(welcome)

    def hub_lost(self, reason: str) -> None: ...
    def hub_failed(self, error: P2PError) -> None:
        self.welcome.set_exception(error)

    def peer_joined(self, peer_id: bytes, owner: bool) -> None: ...
    def peer_left(self, peer_id: bytes) -> None: ...
    def peer_unreachable(self, peer_id: bytes) -> None: ...
    def payload_received(self, peer_id: bytes, payload: memoryview) -> None:
        self.listener.message_received(payload[1:])

    def hub_buffer_low(self) -> None:
        self.listener.buffer_low()


@asynccontextmanager
async def relay_pair() -> AsyncIterator[Pair]:
    """Two hub clients in one room. What ends a relay path is the session's word, so `closes` is False."""
    with HostileHub() as hub:
        hub._rooms["7kq2mw4x"] = {}
        ears = [_Ears(), _Ears()]
        clients = [HubClient(HubAddress(hub.url), "7kq2mw4x", listener) for listener in ears]
        tasks = [asyncio.create_task(client.run()) for client in clients]
        try:
            ids = [bytes.fromhex((await one.welcome).id) for one in ears]
            ends = [
                End(RelayConnection(client, other), one.listener)
                for client, other, one in zip(clients, reversed(ids), ears, strict=True)
            ]
            # one byte says that a payload is a record; the rest is the record's
            yield Pair(ends[0], ends[1], MAX_PAYLOAD_BYTES - 1, closes=False)
        finally:
            for client in clients:
                await client.leave()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


@pytest.mark.asyncio
@pytest.mark.parametrize("check", CHECKS)
async def test_relay(check: str) -> None:
    await check_connection(relay_pair, check)
