"""Bulk over direct TCP between rooms: every size, pausing, fair shares, one reading for all, resuming, no leaks."""

from __future__ import annotations

import asyncio
import gc
import os
import shutil
import socket
import statistics
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
import psutil  # type: ignore[import-untyped]
import pytest

from p2pnb import Transfer
from p2pnb.engine.blocks import BLOCK_BYTES
from p2pnb.engine.thread import engine
from p2pnb.engine.transfers import FileSource
from p2pnb.errors import PeerGoneError, TransferCancelledError, UsageError
from p2pnb.paths.tcp import TcpConnection
from p2pnb.protocol.wire import CHUNK_BYTES_RELAY, CHUNK_BYTES_TCP, MAX_INLINE_BYTES
from p2pnb.room import Room
from tests.integration.hostile_hub import HostileHub
from tests.integration.meeting import (
    Meeting,
    leftovers,
    link_of,
    on_engine,
    see_each_other,
    still_lives,
    texts,
    until,
)

MIB: Final = 1024 * 1024
BIG: Final = 192 * MIB  # takes long enough to be met in the middle


def direct(meeting: Meeting, *names: str, **settings: Any) -> list[Room]:
    """Rooms that are joined by direct TCP."""
    rooms = meeting.people(*(names or ("Ada", "Ben")), **{"relay": "fallback", "accept": True, **settings})
    over_tcp(*rooms)
    return rooms


def over_tcp(*rooms: Room) -> None:
    for room in rooms:
        until(lambda room=room: all(peer.path == "tcp" for peer in room.peers.values()), "direct TCP", 20)  # type: ignore[misc]


def a_file(folder: Path, size: int, name: str = "big.bin") -> Path:
    """A file whose every page is another."""
    path = folder / name
    block = np.random.default_rng(size).integers(0, 2**63, MIB // 8, dtype=np.int64)
    with path.open("wb") as file:
        for number in range(-(-size // MIB)):
            file.write((block + number).tobytes()[: size - number * MIB])
    return path


def same(one: Path, other: Path) -> bool:
    with one.open("rb") as a, other.open("rb") as b:
        while (piece := a.read(MIB)) == b.read(MIB):
            if not piece:
                return True
    return False


def incoming(room: Room, name: str = "big.bin") -> Transfer:
    found = until(lambda: [t for t in room.transfers if t.direction == "in" and t.name == name], f"an offer of {name}")
    return found[0]


@pytest.fixture
def slow_disk(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Reading takes its time, so that transfers can be met in the middle."""
    pace = [0.0]
    original = FileSource.read_into

    def read_into(source: FileSource, offset: int, buffer: memoryview) -> None:
        if pace[0]:
            threading.Event().wait(pace[0])
        original(source, offset, buffer)

    at_once = FileSource.read_at_once
    monkeypatch.setattr(FileSource, "read_into", read_into)
    monkeypatch.setattr(FileSource, "read_at_once", lambda source, *rest: not pace[0] and at_once(source, *rest))

    def set_pace(seconds_per_block: float) -> None:
        pace[0] = seconds_per_block

    return set_pace


# ── which path ──────────────────────────────────────────────────────────────────────────────────────
def test_kernels_that_reach_each_other_use_direct_tcp(meeting: Meeting) -> None:
    ada, ben = direct(meeting)
    for room, other in ((ada, "Ben"), (ben, "Ada")):
        assert room.peers[other].paths[0] == "tcp"
        assert room.peers[other].lanes["tcp"] == 1
        assert room.peers[other].engine == ""
    transfer = ada.send(os.urandom(MIB), "item").result(10)
    assert transfer.per_peer["Ben"].paths == ("tcp",)
    assert incoming(ben, "item").per_peer["Ada"].paths == ("tcp",)


def listening_ports() -> set[int]:
    """Ports on which this process listens to all the world."""
    return {
        c.laddr.port
        for c in psutil.Process().net_connections("tcp")
        if c.status == psutil.CONN_LISTEN and c.laddr.ip in ("0.0.0.0", "::")
    }


@pytest.mark.parametrize("without", ["both", "Ada", "Ben"])
def test_room_without_direct_tcp_neither_listens_nor_dials(
    meeting: Meeting, monkeypatch: pytest.MonkeyPatch, without: str
) -> None:
    dialled: list[tuple[str, int]] = []

    async def noting(address: str, port: int, token: bytes) -> Any:
        dialled.append((address, port))
        raise OSError

    monkeypatch.setattr("p2pnb.engine.direct.dial", noting)
    monkeypatch.setattr("p2pnb.engine.upgrade.FIRST_AFTER_S", 3600.0)
    before = listening_ports()
    ada = meeting.create("Ada", relay="fallback", direct_tcp=without == "Ben", accept=True)
    ben = meeting.join("Ben", relay="fallback", direct_tcp=without == "Ada", accept=True)
    see_each_other([ada, ben])
    ada.send(b"x" * 500_000, "item").result(20)
    assert dialled == []
    assert listening_ports() == before
    for room in (ada, ben):
        assert room._member is not None and room._member._tcp is None
        assert all(peer.path == "relay" for peer in room.peers.values())


def test_relay_only_room_neither_listens_nor_dials(meeting: Meeting) -> None:
    before = listening_ports()
    ada, ben = meeting.create("Ada", relay="only", accept=True), meeting.join("Ben", relay="fallback", accept=True)
    see_each_other([ada, ben])
    transfer = ben.send(b"x" * 500_000, "item").result(10)
    assert transfer.per_peer["Ada"].paths == ("relay",)
    assert listening_ports() == before


def test_relay_never_room_sends_no_bulk_through_the_hub(hub: HostileHub, meeting: Meeting, tmp_path: Path) -> None:
    ada, ben = direct(meeting, relay="never")
    before = len(hub.recording)
    ada.send(os.urandom(4 * MIB), "object").result(20)
    ben.send_file(a_file(tmp_path, 4 * MIB)).result(20)
    assert len(hub.recording) - before < 100_000, "chat and acknowledgements may pass; bulk may not"


def test_port_is_given_up_with_the_room(meeting: Meeting) -> None:
    before = listening_ports()
    ada, ben = direct(meeting)
    assert len(listening_ports() - before) == 2, "one port for each room, whatever the number of peers"
    ada.leave()
    ben.leave()
    until(lambda: listening_ports() == before, "the ports are free again")


# ── every size ──────────────────────────────────────────────────────────────────────────────────────
BORDERS = sorted({
    *(1, 2, 1000, MIB - 1, MIB, MIB + 1, 8 * MIB),
    *(border + delta for border in (MAX_INLINE_BYTES, CHUNK_BYTES_RELAY, CHUNK_BYTES_TCP, 2 * BLOCK_BYTES)
      for delta in (-1, 0, 1)),
})  # fmt: skip


def test_every_size_comes_equal_over_tcp(meeting: Meeting, tmp_path: Path) -> None:
    """F26. All at once, so that they also get into each other's way."""
    ada, ben = direct(meeting)
    sent = []
    for size in BORDERS:
        sent.append(ada.send(np.random.default_rng(size).bytes(size), f"object {size}"))
        sent.append(ben.send_file(a_file(tmp_path, size, f"file {size}")))
    for transfer in sent:
        transfer.result(60)
    for size in BORDERS:
        assert ben.receive(f"object {size}", 5) == np.random.default_rng(size).bytes(size), size
        assert same(ada.receive(f"file {size}", 5), tmp_path / f"file {size}"), size
    assert leftovers(meeting.folder) == []


@pytest.mark.parametrize("dtype", ["uint8", "float64", "int16"])
def test_arrays_come_equal_and_belong_to_the_receiver(meeting: Meeting, dtype: str) -> None:
    """They lie where the bytes were decrypted to; another transfer must not write over them."""
    ada, ben = direct(meeting)
    count = 3 * MIB // np.dtype(dtype).itemsize
    arrays = [np.random.default_rng(n).integers(0, 200, count + n).astype(dtype) for n in range(6)]
    got = []
    for number, array in enumerate(arrays):
        ada.send(array, f"{number}").result(20)
        got.append(ben.receive(f"{number}", 5))
        got[-1][0] += 1
    for array, mine in zip(arrays, got, strict=True):
        array[0] += 1
        np.testing.assert_array_equal(array, mine)


def test_both_ways_at_once_with_chat_in_between(meeting: Meeting, tmp_path: Path) -> None:
    ada, ben = direct(meeting)
    files = [a_file(tmp_path, 9 * MIB + number, f"{number}.bin") for number in range(6)]
    sent = [(ada, ben)[number % 2].send_file(path) for number, path in enumerate(files)]
    sent += [(ada, ben)[number % 2].send(bytes([number]) * 5 * MIB, f"object {number}") for number in range(4)]
    for number in range(50):
        ada.chat(f"a{number}")
        ben.chat(f"b{number}")
    for transfer in sent:
        transfer.result(60)
    for number, path in enumerate(files):
        assert same((ben, ada)[number % 2].receive(path.name, 5), path)
    until(lambda: len(texts(ada)) == len(texts(ben)) == 50)
    assert texts(ada) == [f"b{number}" for number in range(50)]


# ── pausing ─────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.slow
@pytest.mark.parametrize("who", ["sender", "receiver"])
@pytest.mark.parametrize("kind", ["object", "file"])
def test_paused_transfer_stands_still_on_both_sides_and_completes_after(
    meeting: Meeting, tmp_path: Path, who: str, kind: str
) -> None:
    ada, ben = direct(meeting)
    source = a_file(tmp_path, BIG)
    value = np.fromfile(source, dtype=np.uint8) if kind == "object" else None
    out = ada.send(value, "big.bin") if kind == "object" else ada.send_file(source)
    into = incoming(ben)
    until(lambda: into.progress > 0.02, "it moves")
    pauser = out if who == "sender" else into
    pauser.pause()
    until(lambda: out.state == into.state == "paused", "both see it")
    assert out.paused and into.paused
    assert out.per_peer["Ben"].state == into.per_peer["Ada"].state == "paused"
    quiet = 0.0
    last = -1.0
    while quiet < 0.6:  # what was under way arrives; then nothing does
        time.sleep(0.1)
        quiet = quiet + 0.1 if into.progress == last else 0.0
        last = into.progress
    assert into.progress < 1, "it was through already, so this shows nothing"
    still_lives(ada, ben)
    assert into.progress == last
    pauser.resume()
    out.result(60)
    assert (out.state, into.state) == ("done", "done")
    got = ben.receive("big.bin", 5)
    if kind == "object":
        np.testing.assert_array_equal(got, value)
    else:
        assert same(got, source)


def test_pause_of_both_sides_needs_both_to_let_go(meeting: Meeting, tmp_path: Path) -> None:
    ada, ben = direct(meeting)
    out = ada.send_file(a_file(tmp_path, BIG))
    into = incoming(ben)
    out.pause()
    into.pause()
    until(lambda: out.state == into.state == "paused")
    out.resume()
    still_lives(ada, ben)
    assert out.state == into.state == "paused"
    into.resume()
    out.result(60)
    assert out.state == "done"


@pytest.mark.parametrize("who", ["sender", "receiver"])
def test_paused_transfer_can_be_cancelled(meeting: Meeting, tmp_path: Path, who: str) -> None:
    ada, ben = direct(meeting)
    out = ada.send_file(a_file(tmp_path, BIG))
    into = incoming(ben)
    until(lambda: into.progress > 0)
    into.pause()
    until(lambda: out.state == "paused")
    (out if who == "sender" else into).cancel()
    for transfer in (out, into):
        with pytest.raises(TransferCancelledError):
            transfer.result(10)
        assert transfer.state == "cancelled"
    until(lambda: not leftovers(ben.folder), "nothing is left of it")
    ada.send(b"x" * MIB, "next").result(10)


def test_pause_after_the_end_changes_nothing(meeting: Meeting) -> None:
    ada, ben = direct(meeting)
    out = ada.send(b"x" * MIB, "item").result(10)
    out.pause()
    incoming(ben, "item").pause()
    still_lives(ada, ben)
    assert out.state == incoming(ben, "item").state == "done"


# ── fair shares, and chat beside bulk ───────────────────────────────────────────────────────────────
def test_small_files_beside_a_big_one_are_through_long_before_it(
    meeting: Meeting, tmp_path: Path, slow_disk: Callable[[float], None]
) -> None:
    ada, ben = direct(meeting)
    big_file = a_file(tmp_path, BIG)
    small_files = [a_file(tmp_path, 700_000, f"small {number}") for number in range(30)]
    slow_disk(0.004)
    big = ada.send_file(big_file)
    until(lambda: incoming(ben).progress > 0)
    small = [ada.send_file(path) for path in small_files]
    for transfer in small:
        transfer.result(60)
    assert big.progress < 0.7, "each has its share of the line"
    slow_disk(0)
    big.result(60)
    assert same(ben.receive("big.bin", 5), big_file)


def test_chat_stays_quick_while_bulk_fills_the_line(meeting: Meeting, tmp_path: Path) -> None:
    ada, ben = direct(meeting)
    there, back = ada.send_file(a_file(tmp_path, BIG)), ben.send(np.zeros(BIG, np.uint8), "zeros")
    took = []
    for number in range(200):
        if there.state == "done" and back.state == "done":
            break
        began = time.perf_counter()
        ada.chat(f"{number}")
        until(lambda n=number: f"{n}" in texts(ben)[-3:])  # type: ignore[misc]
        took.append(time.perf_counter() - began)
    there.result(60)
    back.result(60)
    assert len(took) >= 3, "bulk was through at once, so this shows nothing"
    assert statistics.median(took) < 0.5, took


# ── several receivers ───────────────────────────────────────────────────────────────────────────────
@pytest.mark.slow
def test_broadcast_of_a_file_reads_it_about_once(
    meeting: Meeting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads: Counter[int] = Counter()
    lock = threading.Lock()
    original = FileSource.read_into

    def counting(source: FileSource, offset: int, buffer: memoryview) -> None:
        with lock:
            reads[offset] += 1
        original(source, offset, buffer)

    at_once = FileSource.read_at_once

    def counting_at_once(source: FileSource, offset: int, buffer: memoryview) -> bool:
        here = at_once(source, offset, buffer)
        with lock:
            reads[offset] += here
        return here

    monkeypatch.setattr(FileSource, "read_into", counting)
    monkeypatch.setattr(FileSource, "read_at_once", counting_at_once)
    ada, *others = direct(meeting, "Ada", "Ben", "Carl", "Dora", "Emil")
    source = a_file(tmp_path, 96 * MIB)
    ada.send_file(source).result(100)
    blocks = -(-os.path.getsize(source) // BLOCK_BYTES)
    assert len(reads) >= blocks - 1
    assert reads.total() <= 1.5 * blocks, f"{reads.total() / blocks:.1f} readings for 4 receivers"
    for other in others:
        assert same(other.receive("big.bin", 10), source)


def test_receiver_that_pauses_holds_nobody_else_up(meeting: Meeting, tmp_path: Path) -> None:
    ada, ben, carl = direct(meeting, "Ada", "Ben", "Carl")
    source = a_file(tmp_path, 64 * MIB)
    out = ada.send_file(source)
    into = incoming(ben)
    into.pause()
    until(lambda: out.per_peer["Carl"].state == "done", "Carl has it", 60)
    assert out.per_peer["Ben"].state == "paused"
    assert out.state == "paused", "what is left of it is"
    into.resume()
    out.result(60)
    assert same(ben.receive("big.bin", 5), source) and same(carl.receive("big.bin", 5), source)


# ── what breaks ─────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.slow
def test_direct_path_that_breaks_in_the_middle_loses_nothing(meeting: Meeting, tmp_path: Path) -> None:
    ada, ben = direct(meeting)
    source = a_file(tmp_path, BIG)
    out = ada.send_file(source)
    value = ben.send(np.fromfile(source, np.uint8), "array")
    for number in range(3):
        room, name = ((ada, "Ben"), (ben, "Ada"))[number % 2]
        link = link_of(room, name)
        for path in on_engine(lambda link=link: [p for p in link.paths() if p.transport == "tcp"]):
            on_engine(link.path_failed, path, "the test says so")
        still_lives(ada, ben)
    out.result(100)
    value.result(100)
    assert same(ben.receive("big.bin", 5), source)
    np.testing.assert_array_equal(ada.receive("array", 5), np.fromfile(source, np.uint8))


@pytest.mark.slow
def test_connection_that_turns_out_dead_while_it_is_written_to_takes_no_chunk_with_it(
    meeting: Meeting, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The system says so in the middle of a turn: what was to go there next must go elsewhere."""
    monkeypatch.setattr("p2pnb.engine.direct.RETRY_S", (0.1,))
    ada, ben = direct(meeting)
    value = np.arange(BIG // 8)
    out = ada.send(value, "big")
    link = link_of(ada, "Ben")

    struck: list[int] = []

    def doom(connection: TcpConnection) -> None:
        """Have it found dead by the next record that is written to it."""
        commit = connection.commit

        def dying() -> None:
            connection._sock.shutdown(socket.SHUT_WR)
            struck.append(1)
            commit()

        connection.commit = dying  # type: ignore[method-assign]

    def pull_the_plug() -> bool:
        standing = [path.connection for path in link.paths() if path.up and isinstance(path.connection, TcpConnection)]
        for connection in standing:
            doom(connection)
        return bool(standing)

    for count in (1, 2, 3):
        until(lambda: on_engine(pull_the_plug), "direct TCP", 20)
        until(lambda count=count: len(struck) == count or out.state == "done", "it is written to", 20)  # type: ignore[misc]
    out.result(60)
    assert struck, "it was through before the plug was pulled, so this shows nothing"
    np.testing.assert_array_equal(ben.receive("big", 5), value)


def test_file_that_broke_is_tried_again_from_where_it_broke(
    meeting: Meeting, tmp_path: Path, slow_disk: Callable[[float], None]
) -> None:
    ada, ben = direct(meeting)
    source = a_file(tmp_path, 64 * MIB)
    slow_disk(0.01)
    out = ada.send_file(source)
    with pytest.raises(UsageError):
        out.retry()
    until(lambda: incoming(ben).progress > 0.2, "a good part is here", 30)
    ben.leave()
    slow_disk(0)
    with pytest.raises(PeerGoneError):
        out.result(10)
    with pytest.raises(UsageError, match="Ben"):
        out.retry()
    ben = meeting.join("Ben", relay="fallback", accept=True, folder=ben.folder)
    see_each_other([ada, ben])
    again = out.retry().result(60)
    part = again.per_peer["Ben"]
    got = incoming(ben)
    assert got.per_peer["Ada"].resumed_bytes >= 0.15 * again.size_bytes
    assert part.sent_bytes <= again.size_bytes - got.per_peer["Ada"].resumed_bytes
    assert same(ben.receive("big.bin", 5), source)
    with pytest.raises(UsageError):
        again.retry()


def test_object_that_failed_says_how_to_send_it_again(meeting: Meeting) -> None:
    ada, ben = direct(meeting)
    out = ada.send(np.zeros(BIG, np.uint8), "zeros")
    until(lambda: out.state == "moving")
    incoming(ben, "zeros").pause()
    ben.leave()
    with pytest.raises(PeerGoneError):
        out.result(10)
    with pytest.raises(UsageError, match=r"room\.send"):
        out.retry()


@pytest.mark.parametrize("over", ["tcp", "webrtc"])
def test_goodbye_is_heard_though_bulk_fills_the_line(meeting: Meeting, over: str) -> None:
    ada, ben = meeting.people("Ada", "Ben", relay="fallback", accept=True, direct_tcp=over == "tcp")
    until(lambda: ada.peers["Ben"].path == ben.peers["Ada"].path == over, "a direct path", 20)
    ada.send(np.zeros(BIG, np.uint8), "zeros")
    into = incoming(ben, "zeros")
    until(lambda: into.progress > 0.01, "it moves")
    ada.leave()
    until(lambda: not ben.peers, "seen leaving at once, not when the hub's patience ends", 3)
    assert into.state == "failed"
    assert isinstance(into.error, PeerGoneError)


def tasks() -> Counter[str]:
    async def names() -> Counter[str]:
        return Counter(task.get_name() for task in asyncio.all_tasks() if task is not asyncio.current_task())

    return engine().call(names(), 10)


@pytest.mark.slow
@pytest.mark.parametrize("who", ["sender", "receiver", "both"])
def test_leaving_during_bulk_leaves_no_task_and_no_descriptor(
    hub: HostileHub, meeting: Meeting, tmp_path: Path, who: str
) -> None:
    keeper = meeting.create("Keeper", relay="only")
    source = a_file(tmp_path, BIG)

    def once() -> None:
        ada = meeting.join("Ada", relay="fallback", accept=True)
        ben = meeting.join("Ben", relay="fallback", accept=True)
        until(lambda: "Ben" in ada.peers and "Ada" in ben.peers, "they meet")
        until(lambda: ada.peers["Ben"].path == ben.peers["Ada"].path == "tcp", "direct TCP", 20)
        outs = [ada.send_file(source, to="Ben"), ada.send(np.zeros(BIG, np.uint8), "zeros", to="Ben")]
        until(lambda: incoming(ben).progress > 0)
        if who != "receiver":
            ada.leave()
        if who != "sender":
            ben.leave()
        for out in outs:
            until(lambda out=out: out.state in ("failed", "done", "cancelled"), "it ended", 20)  # type: ignore[misc]
        ada.leave()
        ben.leave()
        until(lambda: not keeper.peers, "both are gone", 10)
        until(lambda: not any(name == "p2pnb abort" for name in tasks()), "what is kept is written down")
        shutil.rmtree(ben.folder, ignore_errors=True)

    once()
    gc.collect()
    fds, names = psutil.Process().num_fds(), tasks()
    for _ in range(2):
        once()
    gc.collect()
    until(lambda: tasks() == names, f"tasks as before: {names}", 10)
    until(lambda: psutil.Process().num_fds() <= fds, f"descriptors as before: {fds}", 10)
