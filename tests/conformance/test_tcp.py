"""The TCP connection and its listener, over real sockets: as every connection, and against strangers (T14, F24)."""

from __future__ import annotations

import asyncio
import gc
import os
import resource
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Final

import psutil  # type: ignore[import-untyped]
import pytest

from p2pnb.paths import tcp
from p2pnb.paths.tcp import (
    MAX_MESSAGE_BYTES,
    MAX_STRANGERS,
    READ_AHEAD_BYTES,
    TOKEN_BYTES,
    TcpConnection,
    TcpListener,
    dial,
)
from p2pnb.protocol.wire import CHUNK_BYTES_TCP, MAX_BEFORE_PROOF_BYTES, PROOF_TIMEOUT_S
from tests.conformance.check_connection import CHECKS, End, Listener, Pair, check_connection

pytestmark = pytest.mark.asyncio

LOOPBACK: Final = "127.0.0.1"
TOKEN: Final = bytes(range(TOKEN_BYTES))


@asynccontextmanager
async def open_listener() -> AsyncIterator[tuple[TcpListener, asyncio.Queue[TcpConnection]]]:
    """A listener that expects TOKEN, and what came with it."""
    listener = TcpListener()
    listener.open()
    taken: asyncio.Queue[TcpConnection] = asyncio.Queue()
    listener.expect(TOKEN, taken.put_nowait)
    try:
        yield listener, taken
    finally:
        listener.close()
        while not taken.empty():
            taken.get_nowait().close()
        await asyncio.sleep(0)


@asynccontextmanager
async def tcp_pair(*, trusted: bool = True) -> AsyncIterator[Pair]:
    async with open_listener() as (listener, taken):
        near = await dial(LOOPBACK, listener.port, TOKEN)
        far = await asyncio.wait_for(taken.get(), 5)
        ends = [End(near, Listener()), End(far, Listener())]
        for end, connection in zip(ends, (near, far), strict=True):
            connection.attach(end.listener)
            if trusted:
                connection.trust()
        try:
            yield Pair(ends[0], ends[1], MAX_MESSAGE_BYTES)
        finally:
            near.close()
            far.close()


@asynccontextmanager
async def raw_pair(*, trusted: bool) -> AsyncIterator[tuple[socket.socket, TcpConnection, Listener]]:
    """A plain socket, and the connection that hears it."""
    theirs, ours = socket.socketpair()
    theirs.setblocking(False)
    ours.setblocking(False)
    connection, listener = TcpConnection(ours), Listener()
    connection.attach(listener)
    if trusted:
        connection.trust()
    try:
        yield theirs, connection, listener
    finally:
        connection.close()
        theirs.close()


def framed(message: bytes) -> bytes:
    return len(message).to_bytes(4, "big") + message


async def poll(condition: Callable[[], object], what: str, timeout: float = 5) -> None:
    end = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < end, f"not within {timeout} s: {what}"
        await asyncio.sleep(0.005)


# ── as every connection ─────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize("check", CHECKS)
async def test_tcp(check: str) -> None:
    await check_connection(tcp_pair, check)


async def test_views_are_good_only_during_the_call() -> None:
    kept: list[memoryview] = []
    async with tcp_pair() as pair:
        original = pair.far.listener.message_received

        def keep(message: bytes | memoryview) -> None:
            assert isinstance(message, memoryview)
            kept.append(message)
            original(message)

        pair.far.listener.message_received = keep  # type: ignore[method-assign]
        for number in range(3):
            pair.near.connection.send(bytes([number]) * 1000)
        assert [message[0] for message in await pair.far.listener.heard(3)] == [0, 1, 2]
    for view in kept:
        with pytest.raises(ValueError, match="released"):
            view.tobytes()


async def test_slice_that_somebody_keeps_does_not_break_the_connection() -> None:
    """Also not when the buffer grows: the first message of full size comes after smaller ones."""
    kept: list[memoryview] = []
    async with tcp_pair() as pair:
        original = pair.far.listener.message_received

        def keep(message: bytes | memoryview) -> None:
            kept.append(memoryview(message)[:1])
            original(message)

        pair.far.listener.message_received = keep  # type: ignore[method-assign]
        messages = [b"small", os.urandom(MAX_MESSAGE_BYTES), b"small again"]
        for message in messages:
            pair.near.connection.send(message)
        assert await pair.far.listener.heard(3) == messages
        kept.clear()


async def test_record_is_written_in_place_behind_its_header() -> None:
    async with tcp_pair() as pair:
        near = pair.near.connection
        assert isinstance(near, TcpConnection)
        expected = []
        for size in (1, 100, CHUNK_BYTES_TCP + 16, 5):
            header, record = os.urandom(29), os.urandom(size)
            near.place(header, size)[:] = record
            near.commit()
            expected += [header, record]
            await pair.near.listener.until(lambda: near.buffered == 0, "it is out")
        assert await pair.far.listener.heard(len(expected)) == expected


async def test_chat_overtakes_nothing_and_waits_for_one_record_at_most() -> None:
    async with tcp_pair() as pair:
        near, far = pair.near.connection, pair.far.connection
        assert isinstance(near, TcpConnection) and isinstance(far, TcpConnection)
        far.pause_reading()
        sent = 0
        while near.buffered == 0:
            near.place(b"h", CHUNK_BYTES_TCP)[:] = bytes(CHUNK_BYTES_TCP)
            near.commit()
            sent += 1
            assert sent < 100, "the kernel takes everything, so this shows nothing"
        near.send(b"chat")
        assert near.buffered <= CHUNK_BYTES_TCP + 100
        far.resume_reading()
        assert (await pair.far.listener.heard(2 * sent + 1))[-1] == b"chat"


async def test_reading_can_be_paused_and_the_sender_then_waits() -> None:
    async with tcp_pair() as pair:
        near, far = pair.near.connection, pair.far.connection
        assert isinstance(far, TcpConnection)
        far.pause_reading()
        far.pause_reading()
        message = os.urandom(CHUNK_BYTES_TCP)
        for _ in range(40):
            near.send(message)
        await asyncio.sleep(0.2)  # for what must not come
        assert pair.far.listener.messages == []
        assert near.buffered > 0, "the kernel makes the sender wait"
        far.resume_reading()
        far.resume_reading()
        assert await pair.far.listener.heard(40) == [message] * 40


# ── what comes in pieces, or not to its end ─────────────────────────────────────────────────────────
async def test_bytes_that_dribble_in_one_by_one_become_whole_messages() -> None:
    async with raw_pair(trusted=True) as (theirs, _, listener):
        messages = [b"a", b"bc" * 20, b"d" * 300]
        for byte in b"".join(map(framed, messages)):
            theirs.send(bytes([byte]))
            await asyncio.sleep(0)
        assert await listener.heard(3) == messages


async def test_messages_of_any_size_in_one_piece_come_whole_and_in_order() -> None:
    """Some end within what is read ahead, some begin there, some fill it."""
    async with raw_pair(trusted=True) as (theirs, _, listener):
        sizes = [*range(1, 2 * READ_AHEAD_BYTES, 3), 70_000, 1, 60, 61, 64, MAX_MESSAGE_BYTES, *range(70, 50, -1), 5]
        messages = [os.urandom(size) for size in sizes]
        loop = asyncio.get_running_loop()
        sending = loop.create_task(loop.sock_sendall(theirs, b"".join(map(framed, messages))))
        assert await listener.heard(len(messages)) == messages
        await sending


async def test_what_was_read_ahead_is_not_forgotten_in_a_pause() -> None:
    async with raw_pair(trusted=True) as (theirs, connection, listener):
        take = listener.message_received

        def pausing(message: bytes | memoryview) -> None:
            connection.pause_reading()
            take(message)

        listener.message_received = pausing  # type: ignore[method-assign]
        theirs.sendall(b"".join(framed(bytes([number])) for number in range(8)))
        assert await listener.heard(8) == [bytes([number]) for number in range(8)]
        theirs.sendall(framed(b"later"))
        await asyncio.sleep(0.05)
        assert len(listener.messages) == 8
        connection.resume_reading()
        assert (await listener.heard(9))[-1] == b"later"


@pytest.mark.parametrize("end", ["close", "reset"])
async def test_cut_inside_a_record_gives_nothing_of_it_away(end: str) -> None:
    """F24: at every offset of a small frame."""
    whole, last = framed(b"whole"), framed(os.urandom(40))
    for cut in range(len(last)):
        async with open_listener() as (listener, taken):
            theirs = socket.create_connection((LOOPBACK, listener.port))
            theirs.sendall(TOKEN)
            connection, heard = await asyncio.wait_for(taken.get(), 5), Listener()
            connection.attach(heard)
            theirs.sendall(whole + last[:cut])
            await heard.heard(1)
            if end == "reset":
                theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            theirs.close()
            await heard.until(lambda heard=heard: heard.lost, f"the end after {cut} bytes")  # type: ignore[misc]
            assert heard.messages == [b"whole"]
            assert len(heard.lost) == 1


@pytest.mark.parametrize("length", [0, MAX_BEFORE_PROOF_BYTES + 1, 1 << 16, 1 << 31, (1 << 32) - 1])
async def test_impossible_length_before_the_proof_ends_the_connection(length: int) -> None:
    async with raw_pair(trusted=False) as (theirs, connection, listener):
        theirs.send(length.to_bytes(4, "big"))
        await listener.until(lambda: listener.lost, "it ends")
        assert "announced" in listener.lost[0]
        assert listener.messages == []
        most = MAX_BEFORE_PROOF_BYTES + 4 + READ_AHEAD_BYTES
        assert len(connection._in) <= most, "a length by itself takes no memory"


@pytest.mark.parametrize("length", [0, MAX_MESSAGE_BYTES + 1, 1 << 31, (1 << 32) - 1])
async def test_impossible_length_of_a_proven_peer_ends_the_connection(length: int) -> None:
    async with raw_pair(trusted=True) as (theirs, connection, listener):
        theirs.send(length.to_bytes(4, "big"))
        await listener.until(lambda: listener.lost, "it ends")
        assert len(connection._in) <= MAX_MESSAGE_BYTES + 4


async def test_unproven_end_is_read_a_few_hundred_bytes_at_most() -> None:
    async with raw_pair(trusted=False) as (theirs, connection, listener):
        sent = 0
        while not listener.lost:
            with suppress(OSError):
                sent += theirs.send(framed(b"x" * 16))
            await asyncio.sleep(0)
            assert sent < 1_000_000
        assert "before the proof" in listener.lost[0]
        assert sum(map(len, listener.messages)) <= MAX_BEFORE_PROOF_BYTES
        assert len(connection._in) <= MAX_BEFORE_PROOF_BYTES + 4 + READ_AHEAD_BYTES


async def test_close_while_bulk_is_half_written_leaves_nothing_queued() -> None:
    async with tcp_pair() as pair:
        near, far = pair.near.connection, pair.far.connection
        assert isinstance(near, TcpConnection) and isinstance(far, TcpConnection)
        far.pause_reading()
        record, sent = os.urandom(CHUNK_BYTES_TCP), 0
        while near.buffered == 0:
            near.place(b"h", CHUNK_BYTES_TCP)[:] = record
            near.commit()
            sent += 1
        near.close()
        assert near.buffered == 0
        near.place(b"h", 10)[:] = bytes(10)
        near.commit()
        near.send(b"after the end")
        far.resume_reading()
        await pair.far.listener.until(lambda: pair.far.listener.lost, "the far end hears it")
        got = pair.far.listener.messages
        assert len(got) < 2 * sent
        assert got == ([b"h", record] * sent)[: len(got)], "a beginning of what was sent"


async def test_end_inside_a_callback_is_the_end() -> None:
    """What came with the same reading is not handed on any more."""
    async with tcp_pair() as pair:
        far, heard = pair.far.connection, pair.far.listener

        def close_at_once(message: bytes | memoryview) -> None:
            heard.messages.append(bytes(message))
            far.close()

        heard.message_received = close_at_once  # type: ignore[method-assign]
        for number in range(20):
            pair.near.connection.send(bytes([number]))
        await pair.near.listener.until(lambda: pair.near.listener.lost, "the other end hears it")
        assert heard.messages == [b"\0"]
        assert heard.lost == []


async def test_forked_child_ends_without_a_word_to_the_peer() -> None:
    async with tcp_pair() as pair:
        near = pair.near.connection
        assert isinstance(near, TcpConnection)
        child = os.fork()
        if child == 0:
            near.abandon()
            near.send(b"from the child")
            near.close()
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0  # noqa: ASYNC222 - it ends at once
        near.send(b"from the parent")
        assert await pair.far.listener.heard(1) == [b"from the parent"]
        pair.far.connection.send(b"and back")
        assert await pair.near.listener.heard(1) == [b"and back"]
        assert pair.far.listener.lost == []


async def test_hundred_pairs_leave_no_descriptor_and_no_task() -> None:
    async with tcp_pair() as pair:
        pair.near.connection.send(b"what is opened once is open from here on")
        await pair.far.listener.heard(1)
    await asyncio.sleep(0.05)
    gc.collect()
    before = (psutil.Process().num_fds(), len(asyncio.all_tasks()))
    for number in range(100):
        async with tcp_pair() as pair:
            pair.near.connection.send(b"x" * 100_000)
            if number % 2:
                await pair.far.listener.heard(1)
    await asyncio.sleep(0.05)
    assert (psutil.Process().num_fds(), len(asyncio.all_tasks())) == before


# ── strangers at the door (T14) ─────────────────────────────────────────────────────────────────────
async def answer(stranger: socket.socket, timeout: float = 3) -> bytes | None:
    """Everything that is ever sent to it; None if it stays connected."""
    loop, got = asyncio.get_running_loop(), b""
    stranger.setblocking(False)
    try:
        async with asyncio.timeout(timeout):
            while piece := await loop.sock_recv(stranger, 1000):
                got += piece
    except ConnectionError:
        pass
    except TimeoutError:
        return None
    return got


@pytest.mark.parametrize(
    "said",
    [b"\xff" * 16, os.urandom(10_000), b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"\x16\x03\x01" + bytes(300), TOKEN[::-1]],
    ids=["short", "much", "http", "tls", "wrong token"],
)
async def test_stranger_is_shown_the_door_without_a_byte(said: bytes) -> None:
    async with open_listener() as (listener, taken):
        with socket.create_connection((LOOPBACK, listener.port)) as stranger:
            stranger.sendall(said)
            assert await answer(stranger) == b""
        assert taken.empty()


async def test_stranger_that_hangs_up_early_is_forgotten() -> None:
    async with open_listener() as (listener, taken):
        for length in range(TOKEN_BYTES):
            with socket.create_connection((LOOPBACK, listener.port)) as stranger:
                stranger.sendall(TOKEN[:length])
        await poll(lambda: not listener._tasks, "nobody waits any more")
        assert taken.empty()


async def test_token_may_come_in_pieces() -> None:
    async with open_listener() as (listener, taken):
        with socket.create_connection((LOOPBACK, listener.port)) as slow:
            for byte in TOKEN:
                slow.sendall(bytes([byte]))
                await asyncio.sleep(0.001)
            (await asyncio.wait_for(taken.get(), 5)).close()


async def test_silent_and_slow_strangers_are_left_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    assert PROOF_TIMEOUT_S == 5
    monkeypatch.setattr(tcp, "PROOF_TIMEOUT_S", 0.3)
    async with open_listener() as (listener, _):
        with (
            socket.create_connection((LOOPBACK, listener.port)) as silent,
            socket.create_connection((LOOPBACK, listener.port)) as slow,
        ):
            began = time.monotonic()

            async def dribble() -> None:
                for _ in range(12):
                    slow.send(b"x")
                    await asyncio.sleep(0.1)

            dribbling = asyncio.create_task(dribble())
            assert await answer(silent) == b""
            assert 0.25 < time.monotonic() - began < 2
            assert await answer(slow) == b"", "a byte now and then buys no time"
            dribbling.cancel()
        await poll(lambda: not listener._tasks, "nobody waits any more")


async def test_no_more_than_eight_strangers_wait() -> None:
    async with open_listener() as (listener, _):
        strangers = []
        for _ in range(40):
            strangers.append(await visit(listener))
            await asyncio.sleep(0.002)
            assert len(listener._tasks) <= MAX_STRANGERS + 1  # one is just being turned away
        await poll(lambda: len(listener._tasks) <= MAX_STRANGERS, "the others were turned away")
        gone = await asyncio.gather(*[answer(stranger, 0.5) for stranger in strangers])
        assert gone[: -MAX_STRANGERS] == [b""] * (40 - MAX_STRANGERS), "those that waited longest"
        assert gone[-MAX_STRANGERS:] == [None] * MAX_STRANGERS
        for stranger in strangers:
            stranger.close()


async def visit(listener: TcpListener) -> socket.socket:
    """Connect without blocking the loop that has to accept it."""
    stranger = socket.socket()
    stranger.setblocking(False)
    await asyncio.get_running_loop().sock_connect(stranger, (LOOPBACK, listener.port))
    return stranger


async def legitimate(listener: TcpListener, taken: asyncio.Queue[TcpConnection]) -> float:
    """A peer that knows the token comes; return how long that took."""
    began = time.monotonic()
    connection = await dial(LOOPBACK, listener.port, TOKEN)
    (await asyncio.wait_for(taken.get(), 5)).close()
    connection.close()
    return time.monotonic() - began


async def test_peer_gets_in_within_a_second_past_strangers_that_sit_and_strangers_that_stream() -> None:
    async with open_listener() as (listener, taken):
        sitting = [await visit(listener) for _ in range(30)]
        stop = False

        async def stream() -> None:
            while not stop:
                with await visit(listener) as stranger:
                    stranger.send(os.urandom(8))
                    await asyncio.sleep(0.002)

        streaming = [asyncio.create_task(stream()) for _ in range(3)]
        took = [await legitimate(listener, taken) for _ in range(10)]
        stop = True
        await asyncio.gather(*streaming)
        for stranger in sitting:
            stranger.close()
        assert max(took) < 1


async def test_strangers_cost_no_memory_and_no_descriptors() -> None:
    async def crowd(listener: TcpListener, count: int) -> None:
        for number in range(count):
            with await visit(listener) as stranger:
                if number % 3:
                    stranger.send(os.urandom(number % 300))
        await poll(lambda: not listener._tasks, "all are gone")

    async with open_listener() as (listener, _):
        await crowd(listener, 200)
        gc.collect()
        fds, rss = psutil.Process().num_fds(), psutil.Process().memory_info().rss
        await crowd(listener, 1000)
        gc.collect()
        assert psutil.Process().num_fds() == fds
        assert psutil.Process().memory_info().rss - rss < 3_000_000


async def test_listener_without_descriptors_rests_and_recovers(monkeypatch: pytest.MonkeyPatch) -> None:
    """It neither dies nor spins on a socket that stays readable, and takes peers again afterwards."""
    tries = 0
    original = TcpListener._on_incoming

    def counting(listener: TcpListener, listening: socket.socket) -> None:
        nonlocal tries
        tries += 1
        original(listener, listening)

    monkeypatch.setattr(TcpListener, "_on_incoming", counting)
    monkeypatch.setattr(tcp, "ACCEPT_REST_S", 0.05)
    async with open_listener() as (listener, taken):
        waiting = socket.socket()
        waiting.setblocking(False)
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (waiting.fileno() + 1, hard))
        try:
            waiting.connect_ex((LOOPBACK, listener.port))
            await poll(lambda: tries, "somebody came")
            await asyncio.sleep(0.2)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert tries <= 6
        assert taken.empty()
        waiting.send(TOKEN)
        (await asyncio.wait_for(taken.get(), 5)).close()
        waiting.close()


async def test_forgotten_token_is_a_strangers() -> None:
    """F23: what completes after its session ended finds nobody."""
    async with open_listener() as (listener, taken):
        with socket.create_connection((LOOPBACK, listener.port)) as late:
            late.sendall(TOKEN[:10])
            await poll(lambda: listener._tasks, "it is being listened to")
            listener.forget(TOKEN)
            late.sendall(TOKEN[10:])
            assert await answer(late) == b""
        assert taken.empty()


async def test_closed_listener_ends_strangers_and_takes_nobody() -> None:
    async with open_listener() as (listener, _):
        sitting = socket.create_connection((LOOPBACK, listener.port))
        await poll(lambda: listener._tasks, "it sits")
        listener.close()
        assert await answer(sitting) == b""
        with pytest.raises(OSError):  # noqa: PT011 - refused, in the words of this system
            await dial(LOOPBACK, listener.port, TOKEN)
        sitting.close()


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
async def test_both_families_listen_on_one_port(address: str) -> None:
    async with open_listener() as (listener, taken):
        if ":" in address and len(listener._sockets) == 1:
            pytest.skip("NOT TESTED: IPv6 (this machine has none)")
        connection = await dial(address, listener.port, TOKEN)
        (await asyncio.wait_for(taken.get(), 5)).close()
        connection.close()


# ── dialling ────────────────────────────────────────────────────────────────────────────────────────
async def test_dial_gives_up_and_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A host that drops everything: a listen queue that is full does the same."""
    monkeypatch.setattr(tcp, "DIAL_TIMEOUT_S", 0.2)
    with socket.socket() as full:
        full.bind((LOOPBACK, 0))
        full.listen(0)
        crowd = []
        for _ in range(4):
            one = socket.socket()
            one.setblocking(False)
            one.connect_ex(full.getsockname())
            crowd.append(one)
        fds = psutil.Process().num_fds()
        with pytest.raises(TimeoutError):
            await dial(LOOPBACK, full.getsockname()[1], TOKEN)
        assert psutil.Process().num_fds() == fds
        task = asyncio.create_task(dial(LOOPBACK, full.getsockname()[1], TOKEN))
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert psutil.Process().num_fds() == fds
        for one in crowd:
            one.close()


