"""Frames of a session, each by itself: lengths that are wrong, and the header before large records."""

from __future__ import annotations

import pytest

from p2pnb.errors import ProtocolError
from p2pnb.protocol.session import DataFollows, Session, chunk_header, data_header
from p2pnb.protocol.wire import Chat, FrameType


def standing() -> Session:
    session = Session()
    session.path_up(7, 2, 0, 0.0)
    session.frames_to_send()
    for _ in iter(session.next_event, None):
        pass
    return session


@pytest.mark.parametrize(
    ("transfer", "offset"), [(0, 0), (1, 5), (2**32 - 1, 2**64 - 1), (12345, 1 << 50)]
)
def test_data_header_says_where_the_next_record_belongs(transfer: int, offset: int) -> None:
    session = standing()
    session.receive_frame(7, data_header(transfer, offset), 1.0)
    assert session.next_event() == DataFollows(7, transfer, offset)
    assert session.next_event() is None


@pytest.mark.parametrize("length", [*range(12), 13, 14, 100])
def test_data_header_of_another_length_ends_the_path(length: int) -> None:
    session = standing()
    with pytest.raises(ProtocolError, match="wrong length"):
        session.receive_frame(7, bytes([FrameType.DATA]) + bytes(length), 1.0)
    assert session.next_event() is None


@pytest.mark.parametrize(
    "frame",
    [
        bytes([FrameType.PING]), bytes([FrameType.PING]) + bytes(9), bytes([FrameType.PONG]) + bytes(7),
        bytes([FrameType.ACK]) + bytes(3), bytes([FrameType.CONTROL]) + bytes(16), bytes([FrameType.CHUNK]) + bytes(11),
        bytes([FrameType.PROOF]) + bytes(40), b"",
    ],
    ids=["empty ping", "long ping", "short pong", "short ack", "short control", "short chunk", "second proof", "none"],
)  # fmt: skip
def test_frames_of_a_wrong_length_end_the_path(frame: bytes) -> None:
    with pytest.raises(ProtocolError):
        standing().receive_frame(7, frame, 1.0)


def test_frames_of_a_path_that_is_gone_are_dropped() -> None:
    session = standing()
    session.path_down(7, 1.0)
    session.next_event()
    session.receive_frame(7, data_header(1, 2), 1.0)
    session.receive_frame(7, chunk_header(1, 2) + b"x", 1.0)
    assert session.next_event() is None


def test_bytes_after_data_count_as_heard_and_answer_nothing() -> None:
    """Only a pong shows that both directions work."""
    session = Session()
    session.path_up(7, 2, 0, 0.0)
    ((_, ping),) = session.frames_to_send()
    session.send(Chat("1", "x", 0.0), 0.5)
    session.handle_timer(2.0)
    assert session.suspect(7)
    for tick in range(20):
        session.heard(7, 2.0 + tick / 10)
    assert session.suspect(7)
    session.heard(99, 3.0)
    assert ping[0] == FrameType.PING
    session.receive_frame(7, bytes([FrameType.PONG]) + ping[1:], 4.0)
    assert not session.suspect(7)
