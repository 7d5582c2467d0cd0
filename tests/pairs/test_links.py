"""Two links joined by a hub that the test plays: nothing a peer or the hub sends may raise out of a link."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from p2pnb.engine.link import Link, LinkState, RelayPolicy
from p2pnb.protocol.handshake import GuessBudget, HandshakeFailed
from p2pnb.protocol.hub import IceServer
from p2pnb.protocol.wire import (
    Accept,
    Chat,
    ControlFrame,
    FrameType,
    HandshakeType,
    Offer,
    Preview,
    Profile,
    RejectCode,
    encode_control,
)

ADA, BEN = bytes(range(16)), bytes(range(16, 32))


class Host:
    """A member with nothing but its hub: what a link tells it is noted."""

    def __init__(self, my_id: bytes, line: list[tuple[bytes, bytes]]) -> None:
        self.room_id, self.words, self.my_id, self.my_name, self.my_kind = "room", "words", my_id, "name", "kernel"
        self.budget, self.relay_policy = GuessBudget(), RelayPolicy.ONLY
        self.ice_servers: list[IceServer] = []
        self.loop, self.hub, self.hub_connected = asyncio.get_running_loop(), self, True
        self.payload_limit, self.buffered = 1 << 18, 0
        self.failures: list[HandshakeFailed] = []
        self.chats: list[str] = []
        self.offers = 0
        self._line = line

    def send_payload(self, peer_id: bytes, payload: bytes) -> None:
        self._line.append((peer_id, payload))

    def spawn(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        return self.loop.create_task(work, name=name)

    def wants_guess(self, link: Link) -> None:
        if self.budget.take(self.loop.time()):
            link.greeting.guess_granted()
        else:
            link.greeting.guess_refused()

    def handshake_failed(self, link: Link, failure: HandshakeFailed) -> None:
        self.failures.append(failure)

    def chat_received(self, link: Link, chat: Chat) -> None:
        self.chats.append(chat.text)

    def offer_received(self, incoming: Any) -> None:
        self.offers += 1

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *_: None


class Pair:
    """Ada's and Ben's links; `line` holds what they sent and the hub has not delivered."""

    def __init__(self) -> None:
        self.line: list[tuple[bytes, bytes]] = []
        self.hosts = {peer: Host(peer, self.line) for peer in (ADA, BEN)}
        self.a = Link(self.hosts[ADA], BEN, owner=False)  # type: ignore[arg-type]
        self.b = Link(self.hosts[BEN], ADA, owner=False)  # type: ignore[arg-type]

    def deliver(self, most: int = 300) -> int:
        """Deliver what is under way and what it causes; return how many messages that were."""
        for count in range(most):
            if not self.line:
                return count
            to, payload = self.line.pop(0)
            (self.a if to == ADA else self.b).payload_received(memoryview(payload))
        raise AssertionError("they talk without end")

    def meet(self) -> None:
        self.a.greet()
        self.b.greet()
        self.deliver()
        assert self.a.state is self.b.state is LinkState.HERE

    def sealed_by_ben(self, number: int, frame: ControlFrame) -> memoryview:
        """A control frame under this number, as a hostile Ben would seal it next."""
        session = self.b.session
        assert session is not None and session.preferred is not None
        cipher = self.b._paths[session.preferred].cipher
        assert cipher is not None
        header = bytes([FrameType.CONTROL]) + number.to_bytes(8, "big") + bytes(8)
        return memoryview(bytes([HandshakeType.RECORD]) + cipher.seal(header + encode_control(frame)))


pytestmark = pytest.mark.asyncio


async def test_an_open_that_the_hub_reflects_is_ignored() -> None:
    pair = Pair()
    pair.meet()
    pair.a.open_relay()
    _, opening = pair.line.pop()
    pair.a.payload_received(memoryview(opening))
    pair.a.open_relay()
    pair.deliver()
    assert pair.a.state is pair.b.state is LinkState.HERE


async def test_several_violations_in_one_burst_end_the_path_and_lose_nothing_between_them() -> None:
    pair = Pair()
    pair.meet()
    offer = Offer(1, "object", "x", 1, 0, Preview("x"))
    frames: list[ControlFrame] = [
        Profile("again", "kernel", b""),
        Profile("and again", "kernel", b""),
        offer,
        offer,
        Chat("1", "hello", 0.0),
    ]
    records = [pair.sealed_by_ben(number, frame) for number, frame in enumerate(frames, 3)]
    records.append(pair.sealed_by_ben(2, Accept(7, 0)))  # all others wait for it
    for record in records:
        pair.a.payload_received(record)
    assert pair.hosts[ADA].chats == ["hello"]
    assert pair.a.session is not None and pair.a.session.next_event() is None
    await asyncio.sleep(0.1)  # the relay is opened anew by its own timer
    pair.deliver()
    assert pair.a.state is LinkState.HERE


@pytest.mark.parametrize("code", list(RejectCode))
async def test_a_guess_is_lost_whatever_excuse_follows_it(code: RejectCode) -> None:
    pair = Pair()
    pair.a.greet()
    pair.b.greet()
    while not pair.a.greeting.handshake or not pair.a.greeting.handshake.guess_given:
        to, payload = pair.line.pop(0)
        if to == BEN or payload[0] < HandshakeType.CONFIRM:
            (pair.a if to == ADA else pair.b).payload_received(memoryview(payload))
    pair.a.payload_received(memoryview(bytes([HandshakeType.REJECT]) + pair.a.greeting.handshake._id + bytes([code])))
    assert pair.hosts[ADA].budget._lost == 1


async def test_a_reject_before_any_guess_costs_nothing() -> None:
    pair = Pair()
    pair.a.greet()
    pair.b.greet()
    while pair.a.greeting.handshake is None or not pair.a.greeting._has_guess:
        to, payload = pair.line.pop(0)
        (pair.a if to == ADA else pair.b).payload_received(memoryview(payload))
    refusal = bytes([HandshakeType.REJECT]) + pair.a.greeting.handshake._id + bytes([RejectCode.WRONG_CODE])
    pair.a.payload_received(memoryview(refusal))
    assert pair.hosts[ADA].budget._lost == 0


async def test_a_peer_that_slept_through_several_greetings_is_met_without_a_wrong_code() -> None:
    pair = Pair()
    for _ in range(4):
        pair.a.greet()
    assert pair.deliver() < 60
    assert pair.a.state is pair.b.state is LinkState.HERE
    for host in pair.hosts.values():
        assert host.failures == [] and host.budget._lost == 0


@pytest.mark.parametrize(
    "payload", [b"\x00", b"\x7fxyz", b"\x01", b"\x05", b"\x05" + bytes(32), b"\x10", b"\x10" * 300]
)
async def test_rubbish_from_a_stranger_does_not_raise(payload: bytes) -> None:
    pair = Pair()
    pair.a.payload_received(memoryview(payload))
    pair.a.greet()
    pair.a.payload_received(memoryview(payload))


async def test_many_offers_at_once_wait_their_turn() -> None:
    """More than a session may have unacknowledged; the peer has seen none of them yet."""
    pair = Pair()
    pair.meet()
    body = bytes(16_384)  # a thousand of these are more than MAX_UNACKED_BYTES
    for _ in range(1500):
        number = pair.a.exchange.next_transfer()
        pair.a.exchange.offer(Offer(number, "object", "x", len(body), 0, Preview("x"), content=body))
        pair.a.flush()
    assert pair.a.state is LinkState.HERE
    for _ in range(40):
        pair.deliver(20_000)
        await asyncio.sleep(0.01)  # acknowledgements are delayed by 25 ms
    assert pair.a.state is LinkState.HERE
    assert pair.hosts[BEN].offers == 1024
