"""Direct TCP between two links in one process, over real sockets: who dials whom, what wrong hosts get to see.

The hub between the links is played by the test. F22, F23, T15.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Final

import psutil  # type: ignore[import-untyped]
import pytest

from p2pnb.engine import direct as direct_module
from p2pnb.engine.arena import Arena
from p2pnb.engine.blocks import BlockCache
from p2pnb.engine.buffers import WriteBuffers
from p2pnb.engine.bulk import Turn
from p2pnb.engine.direct import DIALS_PER_MINUTE, DirectTcp
from p2pnb.engine.link import Link, RelayPolicy
from p2pnb.errors import ProtocolError
from p2pnb.paths.tcp import TOKEN_BYTES, TcpListener, dial
from p2pnb.protocol.keys import NONCE_BYTES
from p2pnb.protocol.wire import MAX_TCP_TARGETS, Chat, TcpOffer
from tests.pairs.test_links import ADA, BEN, Host, Pair

pytestmark = pytest.mark.asyncio

LOOPBACK: Final = "127.0.0.1"
SAID_BEFORE_PROOF: Final = TOKEN_BYTES + 4 + NONCE_BYTES


class DirectHost(Host):
    """A member that listens on TCP and has no WebRTC to fall back to."""

    def __init__(self, my_id: bytes, line: list[tuple[bytes, bytes]]) -> None:
        super().__init__(my_id, line)
        self.relay_policy, self.direct_tcp, self.engine = RelayPolicy.FALLBACK, True, "aiortc"
        self.arena, self.write_buffers = Arena(), WriteBuffers()
        self.turn = Turn(asyncio.get_running_loop())
        self.blocks = BlockCache(self.in_worker, self.loop)
        self.listener = TcpListener()
        self.listener.open()
        self.tasks: set[asyncio.Task[None]] = set()

    def spawn(self, work: Any, name: str) -> asyncio.Task[None]:
        task = super().spawn(work, name)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        return task

    async def in_worker(self, function: Callable[..., Any], *args: Any) -> Any:
        return await self.loop.run_in_executor(None, function, *args)

    def tcp_listener(self) -> TcpListener:
        return self.listener


class DirectPair(Pair):
    """Ada's and Ben's links, and a hub that delivers at once."""

    def __init__(self) -> None:
        super().__init__()
        self.hosts = {peer: DirectHost(peer, self.line) for peer in (ADA, BEN)}
        self.a = Link(self.hosts[ADA], BEN, owner=False)  # type: ignore[arg-type]
        self.b = Link(self.hosts[BEN], ADA, owner=False)  # type: ignore[arg-type]
        self._hub = asyncio.get_running_loop().create_task(self._deliver_all())

    async def _deliver_all(self) -> None:
        while True:
            self.deliver()
            await asyncio.sleep(0.005)

    def greet(self) -> None:
        self.a.greet()
        self.b.greet()

    async def until(self, condition: Callable[[], object], what: str, timeout: float = 10) -> None:
        end = time.monotonic() + timeout
        while not condition():
            assert time.monotonic() < end, f"not within {timeout} s: {what}"
            await asyncio.sleep(0.005)

    async def stands(self) -> None:
        await self.until(lambda: self.a.carrier == self.b.carrier == "tcp", "direct TCP on both sides")

    async def end(self) -> None:
        self._hub.cancel()
        for link in (self.a, self.b):
            link.end("the test is over")
        for host in self.hosts.values():
            assert isinstance(host, DirectHost)
            host.listener.close()
            for task in list(host.tasks):
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.wait_for(asyncio.shield(task), 5)


@pytest.fixture(autouse=True)
def no_webrtc(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("p2pnb.engine.upgrade.TCP_FIRST_S", 3600.0)


@asynccontextmanager
async def meeting(*, greet: bool = True) -> AsyncIterator[DirectPair]:
    pair = DirectPair()
    if greet:
        pair.greet()
    try:
        yield pair
    finally:
        await pair.end()


def up(link: Link) -> int:
    return link.count_of("tcp")


def open_tcp(link: Link) -> int:
    """Proven or not."""
    return sum(path.transport == "tcp" for path in link.paths())


def host_of(pair: DirectPair, peer: bytes) -> DirectHost:
    host = pair.hosts[peer]
    assert isinstance(host, DirectHost)
    return host


async def test_two_peers_are_joined_within_a_second_or_two() -> None:
    async with meeting() as pair:
        await pair.stands()
        pair.a.send(Chat("1", "direct", 0.0))
        await pair.until(lambda: pair.hosts[BEN].chats == ["direct"], "it is heard")
        assert pair.a.direct is not None and pair.a.direct.settled


async def test_crossed_dials_leave_exactly_one_connection_on_both_sides(monkeypatch: pytest.MonkeyPatch) -> None:
    """F22: nobody waits for the other; thirty pairs at once, so that every order of events comes up."""
    monkeypatch.setattr(direct_module, "SECOND_DIALS_AFTER_S", 0.0)
    pairs = [DirectPair() for _ in range(30)]
    try:
        for pair in pairs:
            pair.greet()
        for pair in pairs:
            await pair.stands()
        await asyncio.sleep(1.5)  # for what must not come: a second connection, or none
        crossed = 0
        for pair in pairs:
            assert up(pair.a) == up(pair.b) == 1
            assert open_tcp(pair.a) == open_tcp(pair.b) == 1, "and nothing half open beside it"
            crossed += max(pair.a._next_path, pair.b._next_path) > 3
            pair.a.send(Chat("1", "one way", 0.0))
            pair.b.send(Chat("2", "and back", 0.0))
            await pair.until(lambda p=pair: p.hosts[BEN].chats and p.hosts[ADA].chats, "both hear")  # type: ignore[misc]
        assert crossed, "no two dials crossed, so this shows nothing"
    finally:
        for pair in pairs:
            await pair.end()


async def test_joining_and_parting_leaves_no_descriptor_and_no_task() -> None:
    async with meeting() as pair:
        await pair.stands()
    await asyncio.sleep(0.1)
    before = psutil.Process().num_fds(), len(asyncio.all_tasks())
    for _ in range(8):
        async with meeting() as pair:
            await pair.stands()
    deadline = time.monotonic() + 3
    while (now := (psutil.Process().num_fds(), len(asyncio.all_tasks()))) > before:
        assert time.monotonic() < deadline, f"{now} after {before}"
        await asyncio.sleep(0.02)


async def test_direct_path_that_breaks_stands_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(direct_module, "RETRY_S", (0.05, 0.1))
    async with meeting() as pair:
        await pair.stands()
        for link in (pair.a, pair.b, pair.a):
            path = next(path for path in link.paths() if path.transport == "tcp")
            link.path_failed(path, "the test says so")
            assert link.carrier == "relay"
            await pair.stands()
            await pair.until(lambda: up(pair.a) == up(pair.b) == 1, "one of them")


@pytest.mark.parametrize("asks", ["a", "b"])
async def test_lanes_are_opened_by_whoever_reached_the_other(asks: str) -> None:
    async with meeting() as pair:
        await pair.stands()
        link = pair.a if asks == "a" else pair.b
        link.want_lanes("tcp", 4, 4)
        await pair.until(lambda: up(pair.a) == up(pair.b) == 4, "four lanes")
        await asyncio.sleep(0.3)  # for a fifth, which must not come
        assert up(pair.a) == up(pair.b) == 4


@pytest.mark.parametrize("then", ["the peer is gone", "a new session stands"])
async def test_connection_of_an_ended_session_is_refused(then: str) -> None:
    """F23: its SYN was held up; when it completes, nobody knows its token any more."""
    async with meeting() as pair:
        await pair.stands()
        assert pair.a.direct is not None
        token, port = pair.a.direct._token, host_of(pair, ADA).listener.port
        late = socket.create_connection((LOOPBACK, port))
        late.setblocking(False)
        if then == "the peer is gone":
            pair.a.end("over")
        else:
            pair.a._stop_upgrades()  # as a new handshake with the same peer does first
        late.send(token + (16).to_bytes(4, "big") + bytes(16))
        got = b"?"
        with contextlib.suppress(ConnectionError):
            got = await asyncio.wait_for(asyncio.get_running_loop().sock_recv(late, 100), 3)
        assert got in (b"", b"?"), "not a byte"
        late.close()


async def test_token_alone_gets_a_nonce_and_nothing_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """A replayed token (of this session, seen by whoever was dialled wrongly) proves nothing."""
    monkeypatch.setattr("p2pnb.engine.link.PROOF_TIMEOUT_S", 0.4)
    async with meeting() as pair:
        await pair.stands()
        assert pair.a.direct is not None
        port = host_of(pair, ADA).listener.port
        for answer in (b"", (16).to_bytes(4, "big") + os.urandom(16) + (57).to_bytes(4, "big") + os.urandom(57)):
            connection = await dial(LOOPBACK, port, pair.a.direct._token)
            connection._sock.send(answer)
            heard, end = b"", time.monotonic() + 3
            while time.monotonic() < end:
                await asyncio.sleep(0.01)
                with contextlib.suppress(BlockingIOError):
                    try:
                        piece = connection._sock.recv(1000)
                    except ConnectionError:
                        break
                    if not piece:
                        break
                    heard += piece
            else:
                raise AssertionError("it was not disconnected")
            assert len(heard) <= 4 + NONCE_BYTES + 4 + 57, "a nonce, and a proof that only the peer can read"
            connection.close()
        assert up(pair.a) == 1, "the real path is not touched by it"
        assert pair.a._broken_at == [], "and nobody is told of broken records"


# ── what a hostile peer makes us dial (T15) ─────────────────────────────────────────────────────────
@asynccontextmanager
async def recorder() -> AsyncIterator[tuple[int, list[bytes]]]:
    """A host that has nothing to do with the room: it listens, and writes down what it is told."""
    seen: list[bytes] = []

    async def note(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        index = len(seen)
        seen.append(b"")
        with contextlib.suppress(ConnectionError):
            while piece := await reader.read(1000):
                seen[index] += piece
        writer.close()

    server = await asyncio.start_server(note, LOOPBACK, 0)
    try:
        yield server.sockets[0].getsockname()[1], seen
    finally:
        server.close()


async def met_without_tcp(pair: DirectPair) -> DirectTcp:
    """Both are in the room; neither has heard where the other listens. Returns Ada's side."""
    for link in (pair.a, pair.b):
        original = link.send
        link.send = lambda frame, original=original: None if isinstance(frame, TcpOffer) else original(frame)  # type: ignore[method-assign,misc]
    pair.greet()
    await pair.until(lambda: pair.a.direct is not None and pair.b.direct is not None, "they met")
    assert pair.a.direct is not None
    return pair.a.direct


async def test_wrong_host_sees_the_token_and_a_nonce_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("p2pnb.engine.link.PROOF_TIMEOUT_S", 0.3)
    async with recorder() as (port, seen), meeting(greet=False) as pair:
        mine = await met_without_tcp(pair)
        token = os.urandom(TOKEN_BYTES)
        mine.offer_received(TcpOffer(token, [(LOOPBACK, port)], pair.a.same_host_tag()))
        await pair.until(lambda: seen and len(seen[0]) >= SAID_BEFORE_PROOF, "it was dialled")
        pair.a.send(Chat("1", "secret", 0.0))
        await asyncio.sleep(0.5)
        for said in seen:
            assert said[:TOKEN_BYTES] == token
            assert len(said) == SAID_BEFORE_PROOF, "no proof before the other end sent its nonce"


async def test_wrong_host_that_talks_back_gets_a_proof_it_can_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("p2pnb.engine.link.PROOF_TIMEOUT_S", 0.3)
    heard = bytearray()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write((NONCE_BYTES).to_bytes(4, "big") + os.urandom(NONCE_BYTES))
        with contextlib.suppress(ConnectionError):
            while piece := await reader.read(1000):
                heard.extend(piece)
        writer.close()

    server = await asyncio.start_server(talk, LOOPBACK, 0)
    async with meeting(greet=False) as pair:
        mine = await met_without_tcp(pair)
        target = (LOOPBACK, server.sockets[0].getsockname()[1])
        mine.offer_received(TcpOffer(os.urandom(TOKEN_BYTES), [target], pair.a.same_host_tag()))
        await pair.until(lambda: len(heard) > SAID_BEFORE_PROOF, "it was dialled")
        pair.a.send(Chat("1", "secret", 0.0))
        await pair.until(lambda: not open_tcp(pair.a), "given up after a while")
        proof = bytes(heard[SAID_BEFORE_PROOF:])
        assert len(proof) == 4 + 1 + 32 + 8 + 16, "one sealed proof"
        assert pair.a.carrier == "relay"
    server.close()


@pytest.mark.parametrize(
    "target",
    ["127.0.0.1", "::1", "127.0.0.2", "0.0.0.0", "169.254.169.254", "::ffff:127.0.0.1", "2130706433", "0x7f.1",
     "localhost", "::", "64:ff9b::7f00:1"],
)  # fmt: skip
@pytest.mark.parametrize("tag", [b"", b"x" * 32], ids=["no tag", "another's tag"])
async def test_peer_from_elsewhere_can_not_point_us_at_this_machine(target: str, tag: bytes) -> None:
    async with recorder() as (port, seen), meeting(greet=False) as pair:
        mine = await met_without_tcp(pair)
        mine.offer_received(TcpOffer(os.urandom(TOKEN_BYTES), [(target, port)], tag))
        assert mine._targets == []
        await asyncio.sleep(0.02)
        assert seen == []


async def test_system_ports_are_left_out_and_the_others_dialled() -> None:
    async with meeting(greet=False) as pair:
        mine = await met_without_tcp(pair)
        targets = [("10.0.0.1", 22), ("10.0.0.1", 0), ("10.0.0.1", 70_000), ("10.255.255.1", 4000)]
        mine.offer_received(TcpOffer(bytes(TOKEN_BYTES), targets, b""))
        assert mine._targets == [("10.255.255.1", 4000)]


@pytest.mark.parametrize(
    "offer",
    [
        TcpOffer(b"", []),
        TcpOffer(bytes(TOKEN_BYTES + 1), []),
        TcpOffer(bytes(TOKEN_BYTES), [("10.0.0.1", 4000)] * (MAX_TCP_TARGETS + 1)),
    ],
    ids=["no token", "long token", "too many targets"],
)
async def test_impossible_offer_ends_the_path_that_brought_it(offer: TcpOffer) -> None:
    async with meeting(greet=False) as pair:
        mine = await met_without_tcp(pair)
        with pytest.raises(ProtocolError):
            mine.offer_received(offer)


async def test_dials_are_bounded_however_often_a_peer_offers(monkeypatch: pytest.MonkeyPatch) -> None:
    """A peer that renews its offer all the time, towards a port where nobody listens."""
    monkeypatch.setattr(direct_module, "RETRY_S", (0.0,))
    monkeypatch.setattr(direct_module, "STAGGER_S", 0.001)
    dialled = 0

    async def counting(address: str, port: int, token: bytes) -> Any:
        nonlocal dialled
        dialled += 1
        return await dial(address, port, token)

    monkeypatch.setattr(direct_module, "dial", counting)
    with socket.socket() as closed:
        closed.bind((LOOPBACK, 0))
        port = closed.getsockname()[1]
        async with meeting(greet=False) as pair:
            mine = await met_without_tcp(pair)
            tag = pair.a.same_host_tag()
            for _ in range(300):
                mine.offer_received(TcpOffer(os.urandom(TOKEN_BYTES), [(LOOPBACK, port)] * MAX_TCP_TARGETS, tag))
                await asyncio.sleep(0.005)
            assert 0 < dialled <= DIALS_PER_MINUTE
            assert pair.a.carrier == "relay", "and nothing else suffers"


async def test_no_offer_and_no_dial_without_both_sides_consent() -> None:
    pair = DirectPair()
    host_of(pair, BEN).direct_tcp = False
    try:
        pair.greet()
        await pair.until(lambda: pair.a.confirmed and pair.b.confirmed, "they met")
        await asyncio.sleep(0.2)
        assert pair.a.direct is None and pair.b.direct is None
        assert "tcp" not in (*pair.a.transports, *pair.b.transports)
    finally:
        await pair.end()


# ── what is changed on its way (F25) ────────────────────────────────────────────────────────────────
async def test_flipped_bits_end_the_path_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(direct_module, "RETRY_S", (0.05,))
    async with meeting() as pair:
        for number in range(5):
            await pair.stands()
            path = next(path for path in pair.a.paths() if path.transport == "tcp")
            send = path.connection.send

            def flipping(message: bytes, send: Callable[[bytes], None] = send) -> None:
                send(message[:-1] + bytes([message[-1] ^ 1]))

            path.connection.send = flipping  # type: ignore[method-assign]
            pair.a.send(Chat(str(number), f"text {number}", 0.0))
            await pair.until(lambda n=number: len(pair.hosts[BEN].chats) == n + 1, "it comes all the same")  # type: ignore[misc]
        assert pair.hosts[BEN].chats == [f"text {number}" for number in range(5)]
        assert len(pair.b._broken_at) >= 3
