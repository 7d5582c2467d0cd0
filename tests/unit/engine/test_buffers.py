"""Buffers on their way to the disk: bounded, because the connections that fill them are made to wait."""

from __future__ import annotations

from p2pnb.engine.buffers import MOST, WriteBuffers
from p2pnb.protocol.wire import CHUNK_BYTES_TCP


class Connection:
    def __init__(self) -> None:
        self.reads = True
        self.pauses = 0

    def pause_reading(self) -> None:
        self.reads, self.pauses = False, self.pauses + 1

    def resume_reading(self) -> None:
        self.reads = True


def test_connection_waits_while_too_much_waits_for_the_disk_and_goes_on_at_half() -> None:
    buffers, connection = WriteBuffers(), Connection()
    taken = []
    for _ in range(MOST):
        assert connection.reads
        taken.append(buffers.take())
        buffers.hold(connection)
    assert (connection.pauses, buffers.out) == (1, MOST)
    while connection.pauses and not connection.reads:
        buffers.give([taken.pop()])
    assert 0 < buffers.out == MOST // 2 - 1, "not with every buffer: that would be a stop and go"


def test_each_connection_brings_at_most_one_more() -> None:
    buffers = WriteBuffers()
    connections = [Connection() for _ in range(20)]
    taken = 0
    for _ in range(100):
        for connection in connections:
            if connection.reads:
                buffers.take()
                taken += 1
                buffers.hold(connection)
    assert taken <= MOST + len(connections)
    assert not any(connection.reads for connection in connections)


def test_all_that_wait_go_on_and_none_twice() -> None:
    buffers, connections = WriteBuffers(), [Connection() for _ in range(5)]
    taken = [buffers.take() for _ in range(MOST)]
    for connection in connections:
        buffers.hold(connection)
        buffers.hold(connection)
    buffers.give(taken)
    assert all(connection.reads for connection in connections)
    assert not buffers._paused


def test_buffers_are_used_again_and_a_room_that_stays_idle_keeps_none() -> None:
    buffers = WriteBuffers()
    one, other = buffers.take(), buffers.take()
    assert len(one) == len(other) == CHUNK_BYTES_TCP
    buffers.give([one])
    assert buffers.take() is one
    buffers.trim()
    buffers.give([one, other])
    buffers.trim()
    assert (buffers.out, len(buffers._free)) == (0, 2), "the next file comes soon"
    buffers.trim()
    assert buffers._free == []


def test_buffers_in_use_are_not_trimmed() -> None:
    buffers = WriteBuffers()
    taken = [buffers.take() for _ in range(4)]
    buffers.give(taken[:2])
    for _ in range(3):
        buffers.trim()
    assert (buffers.out, len(buffers._free)) == (2, 2)


def test_kept_buffers_are_bounded() -> None:
    buffers = WriteBuffers()
    taken = [buffers.take() for _ in range(3 * MOST)]
    buffers.give(taken[1:])
    assert len(buffers._free) <= MOST


def test_connection_is_not_held_while_there_is_room() -> None:
    buffers, connection = WriteBuffers(), Connection()
    for _ in range(MOST - 1):
        buffers.take()
        buffers.hold(connection)
    assert connection.pauses == 0
