"""The switchboard over sockets whose other side reads when the test says so; a scripted clock."""

from __future__ import annotations

import asyncio
import secrets
from asyncio import Future

import pytest

from p2pnb.protocol.hub import (
    JOIN_TIMEOUT_S,
    PING_INTERVAL_S,
    CloseCode,
    Error,
    ErrorCode,
    Join,
    Leave,
    Restarting,
    Resume,
    Welcome,
    decode_hub_message,
    encode_message,
)
from p2pnb_server.limits import Rate, RouterLimits
from p2pnb_server.router import Router
from p2pnb_server.switchboard import SILENCE_LIMIT_S, STALL_S, Switchboard

PAYLOAD = 65536
MESSAGE = 16 + PAYLOAD


class Peer:
    """A socket, and the one who reads from it; `reading` False fills the queue."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.reading = True
        self.texts: list[str] = []
        self.messages: list[bytes] = []
        self.pending: list[tuple[int, Future[None]]] = []
        self.pings = 0
        self.close_code: int | None = None
        self.most_pending = 0
        self.link = world.board.attach(self, "192.0.2.1")

    def _written(self, size: int) -> Future[None] | None:
        if self.reading:
            return None
        future: Future[None] = asyncio.get_running_loop().create_future()
        self.pending.append((size, future))
        self.most_pending = max(self.most_pending, sum(size for size, _ in self.pending))
        return future

    def send_text(self, text: str) -> Future[None] | None:
        self.texts.append(text)
        return self._written(len(text))

    def send_binary(self, head: bytes, body: memoryview) -> Future[None] | None:
        self.messages.append(head + bytes(body))
        return self._written(len(head) + len(body))

    def ping(self) -> None:
        self.pings += 1

    def close(self, code: int, reason: str) -> None:
        self.close_code = code

    def ended(self) -> int | None:
        return self.close_code

    async def take(self, count: int = 1) -> None:
        """Read `count` of the pending writes."""
        for _ in range(min(count, len(self.pending))):
            self.pending.pop(0)[1].set_result(None)
            await settle()

    def join(self, room: str) -> Welcome:
        self.link.receive_text(encode_message(Join(room)))
        welcome = decode_hub_message(self.texts[-1])
        assert isinstance(welcome, Welcome)
        self.resume = Resume(welcome.id, welcome.secret)
        self.id = bytes.fromhex(welcome.id)
        return welcome

    def send(self, to: Peer, size: int = PAYLOAD) -> asyncio.Task[None] | None:
        """Send one message; a task if the hub wants to read nothing more until it is done."""
        waiting = self.link.receive_binary(to.id + bytes(size))
        return None if waiting is None else asyncio.ensure_future(waiting)

    def fill(self, to: Peer) -> asyncio.Task[None]:
        """Send until the hub reads nothing more, and return what it holds back."""
        while (held := self.send(to)) is None:
            pass
        return held


class World:
    def __init__(self, queue_bytes: int = 4 * MESSAGE, **options) -> None:
        self.now = 1000.0
        limits = RouterLimits(payload_bytes=PAYLOAD, **options.pop("limits", {}))
        self.used = 0
        self.board = Switchboard(
            Router(bytes(32), secrets.token_bytes, limits=limits),
            queue_bytes=queue_bytes,
            clock=lambda: self.now,
            on_use=self.note_use,
            **options,
        )
        self.room = self.board.create_room().room

    def note_use(self) -> None:
        self.used += 1

    def peers(self, count: int) -> list[Peer]:
        peers = [Peer(self) for _ in range(count)]
        for peer in peers:
            peer.join(self.room)
        return peers

    def pass_time(self, seconds: float) -> None:
        for _ in range(int(seconds)):
            self.now += 1
            self.board.tick()
        self.now += seconds - int(seconds)
        self.board.tick()


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_a_message_arrives_with_its_source_in_front():
    ada, ben = World().peers(2)
    assert ada.link.receive_binary(ben.id + b"hello") is None
    assert ben.messages == [ada.id + b"hello"]


async def test_a_sender_is_not_read_while_its_destination_is_full():
    ada, ben = World().peers(2)
    ben.reading = False
    assert [ada.send(ben) for _ in range(4)] == [None] * 4
    held = ada.fill(ben)
    await settle()
    assert not held.done()
    assert len(ben.messages) == 4
    await ben.take()
    assert held.done()
    assert len(ben.messages) == 5
    await ben.take(4)
    assert ada.send(ben) is None, "with room again, nothing is held"


async def test_what_is_queued_stays_within_its_bound_however_many_send():
    world = World()
    *senders, ben = world.peers(12)
    ben.reading = False

    async def send_many(sender: Peer) -> None:
        for _ in range(20):
            held = sender.send(ben)
            if held is not None:
                await held

    sending = [asyncio.ensure_future(send_many(sender)) for sender in senders]
    for _ in range(11 * 20 + 10):
        await settle()
        assert world.board.queued_bytes <= 4 * MESSAGE
        await ben.take()
    assert all(task.done() for task in sending)
    assert len(ben.messages) == 11 * 20
    assert ben.most_pending <= 4 * MESSAGE


async def test_senders_that_wait_get_their_turn_in_order_and_none_is_starved():
    *senders, ben = World().peers(5)
    ben.reading = False
    for _ in range(4):
        senders[0].send(ben)
    held = [sender.send(ben) for sender in senders]
    await settle()
    assert all(task is not None for task in held)
    del ben.messages[:]
    await ben.take(4)
    assert [message[:16] for message in ben.messages] == [sender.id for sender in senders]


async def test_a_small_message_does_not_overtake_one_that_waits_for_room():
    ada, cy, ben = World().peers(3)
    ben.reading = False
    for size in (100, 100, PAYLOAD, PAYLOAD, PAYLOAD):
        assert ada.send(ben, size) is None
    large = ada.fill(ben)
    await settle()
    await ben.take()  # not enough for the large one
    small = cy.send(ben, 10)
    await settle()
    assert not large.done()
    assert small is not None
    await ben.take()
    assert large.done()
    await ben.take()
    assert small.done()


async def test_room_for_many_lets_many_through():
    *senders, ben = World().peers(8)
    ben.reading = False
    for _ in range(4):
        senders[0].send(ben)
    held = [sender.send(ben, 10) for sender in senders]
    await settle()
    await ben.take()
    assert all(task is not None and task.done() for task in held)


async def test_senders_do_not_wait_for_a_destination_that_is_gone():
    ada, ben = World().peers(2)
    ben.reading = False
    held = ada.fill(ben)
    await settle()
    ben.link.lost()
    await settle()
    assert held.done()


async def test_one_full_destination_does_not_hold_up_other_pairs():
    ada, ben, cy, dee = World().peers(4)
    ben.reading = False
    held = ada.fill(ben)
    assert held is not None
    assert [cy.send(dee) for _ in range(100)] == [None] * 100
    held.cancel()
    await settle()


async def test_the_queues_of_all_together_are_bounded():
    world = World(queue_bytes=100 * MESSAGE, queue_total_bytes=40 * MESSAGE)
    peers = world.peers(20)
    assert world.board.queue_share == 2 * MESSAGE
    for peer in peers[10:]:
        peer.reading = False
        for _ in range(50):
            if (held := peers[0].send(peer)) is not None:
                held.cancel()
    await settle()
    assert 10 * MESSAGE <= world.board.queued_bytes <= 40 * MESSAGE


async def test_a_destination_that_stopped_reading_is_closed_as_too_slow_and_its_senders_go_on():
    world = World()
    ada, ben = world.peers(2)
    ben.reading = False
    held = ada.fill(ben)
    await settle()
    world.pass_time(STALL_S - 1)
    assert ben.ended() is None
    world.pass_time(1)
    assert ben.close_code == CloseCode.TOO_SLOW
    await settle()
    assert held.done()
    assert ada.ended() is None
    told = decode_hub_message(ada.texts[-1])
    assert isinstance(told, Error)
    assert told.code == ErrorCode.NO_PEER


async def test_a_destination_that_drips_is_too_slow_even_if_new_senders_keep_coming():
    world = World(queue_bytes=2 * MESSAGE)
    *senders, ben = world.peers(40)
    ben.reading = False
    for _ in range(20):
        senders[0].send(ben, 300)
    held = [senders[0].send(ben)]
    for sender in senders[1:]:
        for peer in (*senders, ben):
            peer.link.heard()
        await settle()
        if ben.ended() is not None:
            break
        await ben.take()  # 316 bytes in 2 s
        held.append(sender.send(ben))
        world.pass_time(2)
    assert ben.close_code == CloseCode.TOO_SLOW
    await settle()
    assert all(task is None or task.done() for task in held)


async def test_a_slow_destination_that_makes_progress_stays():
    world = World()
    ada, ben = world.peers(2)
    ben.reading = False
    for _ in range(4):
        ada.send(ben)
    for _ in range(10):
        held = ada.fill(ben)
        await settle()
        world.pass_time(STALL_S - 2)
        await ben.take()
        assert held.done()
    assert ben.ended() is None


async def test_a_message_that_was_held_back_follows_its_destination_to_a_new_socket():
    world = World()
    ada, ben = world.peers(2)
    ben.reading = False
    held = ada.fill(ben)
    await settle()
    again = Peer(world)
    again.link.receive_text(encode_message(Join(world.room, resume=ben.resume)))
    await settle()
    assert ben.close_code == CloseCode.REPLACED
    assert held.done()
    assert len(again.messages) == 1


async def test_a_replaced_sender_delivers_nothing_that_was_held_back():
    world = World()
    ada, ben = world.peers(2)
    ben.reading = False
    held = ada.fill(ben)
    await settle()
    Peer(world).link.receive_text(encode_message(Join(world.room, resume=ada.resume)))
    await ben.take(4)
    assert held.done()
    assert len(ben.messages) == 4


async def test_presence_does_not_pile_up_at_a_peer_that_reads_nothing():
    world = World(queue_bytes=MESSAGE, limits={"room_newcomers": Rate(1e6, 1e6), "address_joins": Rate(1e6, 1e6)})
    (deaf,) = world.peers(1)
    deaf.reading = False
    for _ in range(200):
        world.pass_time(1)
        deaf.link.heard()
        for peer in world.peers(30):
            peer.link.receive_text(encode_message(Leave()))
        if deaf.ended() is not None:
            break
    assert deaf.close_code == CloseCode.TOO_SLOW
    assert deaf.most_pending < MESSAGE + 270_000


async def test_every_socket_is_pinged_before_proxies_lose_patience():
    world = World()
    ada, ben = world.peers(2)
    for _ in range(60):
        world.pass_time(1)
        ada.link.heard()
        ben.link.receive_binary(ada.id + b"traffic the other way is no ping")
    assert ada.pings == ben.pings == 60 // PING_INTERVAL_S


async def test_a_silent_socket_is_given_up_but_not_before_a_busy_kernel_may_answer():
    world = World()
    ada, ben = world.peers(2)
    for _ in range(30):
        world.pass_time(1)
        ada.link.heard()
    assert ben.ended() is None
    for _ in range(int(SILENCE_LIMIT_S) - 30):
        world.pass_time(1)
        ada.link.heard()
    assert ben.close_code == 1001
    assert ada.ended() is None


async def test_a_sender_that_is_not_read_is_not_taken_for_silent():
    world = World()
    *senders, ben = world.peers(7)
    ben.reading = False
    for _ in range(4):
        senders[0].send(ben)
    held = [sender.send(ben) for sender in senders]
    await settle()
    for _ in senders:
        for sender in senders[:-1]:
            sender.link.heard()
        world.pass_time(10)
        await ben.take()
    assert all(task is not None and task.done() for task in held)
    assert senders[-1].close_code is None
    await ben.take(9)


async def test_a_socket_without_join_is_closed_by_the_clock():
    world = World()
    peer = Peer(world)
    world.pass_time(JOIN_TIMEOUT_S)
    assert peer.close_code == CloseCode.JOIN_TIMEOUT


async def test_closing_tells_everybody_to_come_back():
    world = World()
    world.board.start()
    ada, ben = world.peers(2)
    await world.board.close()
    for peer in (ada, ben):
        assert isinstance(decode_hub_message(peer.texts[-1]), Restarting)
        assert peer.close_code == CloseCode.RESTARTING


async def test_a_rate_keeps_a_sender_unread_for_as_long_as_it_owes(monkeypatch):
    world = World(limits={"bytes_per_second": 100_000, "bytes_burst": 2 * MESSAGE})
    ada, ben = world.peers(2)
    naps: list[float] = []
    sleep = asyncio.sleep

    async def nap(seconds: float) -> None:
        naps.append(seconds)
        await sleep(0)

    assert ada.send(ben) is None
    assert ada.send(ben) is None
    held = ada.fill(ben)
    monkeypatch.setattr(asyncio, "sleep", nap)
    await held
    assert naps == [pytest.approx(MESSAGE / 100_000)]
    assert len(ben.messages) == 3


async def test_use_is_reported_for_messages_and_not_for_idle_time():
    world = World()
    ada, ben = world.peers(2)
    world.pass_time(1)
    used = world.used
    world.pass_time(10)
    assert world.used == used
    ada.send(ben)
    world.pass_time(1)
    assert world.used == used + 1
