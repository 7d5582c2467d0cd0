"""A proven peer that turned hostile: whatever it puts into its frames, this side raises ProtocolError or goes on."""

from __future__ import annotations

import contextlib
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pnb.errors import ProtocolError, UsageError
from p2pnb.protocol import exchange as ex
from p2pnb.protocol import session as se
from p2pnb.protocol import wire
from p2pnb.protocol.hub import decode_hub_message, decode_peer_message
from p2pnb.protocol.wire import Accept, Bye, Chat, ControlFrame, FrameType, Got, Offer, Preview, decode_control
from tests.pairs.fuzzing import tries

TAGS = sorted(wire._KNOWN_TAGS)
NUMBERS = st.sampled_from(
    [0, 1, 2, 3, 16, 255, 2**16, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**63, 2**64 - 1, -1, -(2**63)]
)
SCALARS = st.none() | st.booleans() | NUMBERS | st.floats() | st.text(max_size=8) | st.binary(max_size=8)
FIELDS = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=4), max_leaves=12)
SHAPED = st.tuples(st.sampled_from(TAGS), st.lists(FIELDS, max_size=12)).map(
    lambda parts: msgspec.msgpack.encode([parts[0], *parts[1]])
)
NUMBER = st.integers(0, 12) | NUMBERS
RANGES = st.lists(st.tuples(NUMBER | st.integers(0, 5000), NUMBER | st.integers(0, 5000)), max_size=4)
WELL_FORMED = st.one_of(
    st.builds(Accept, NUMBER, NUMBER, RANGES),
    st.builds(Got, NUMBER, RANGES, NUMBER | st.integers(0, 5000)),
    st.builds(wire.Finish, NUMBER),
    st.builds(wire.Complete, NUMBER),
    st.builds(wire.Decline, NUMBER),
    st.builds(wire.Cancel, NUMBER, st.booleans(), st.text(max_size=5)),
    st.builds(wire.Pause, NUMBER, st.booleans(), st.booleans()),
    st.builds(wire.Want, NUMBER, RANGES),
    st.builds(wire.AskHashes, NUMBER, NUMBER, RANGES),
    st.builds(wire.Hashes, NUMBER, NUMBER, st.binary(max_size=64)),
    st.builds(
        Offer, NUMBER, st.sampled_from(["object", "file"]), st.text(max_size=3), NUMBER, NUMBER, st.just(Preview("x"))
    ),
).map(msgspec.msgpack.encode)
NESTED = b"\x91" * 30_000 + b"\xc0"


def numbered(number: int, body: bytes, ack: int = 0) -> bytes:
    return bytes([FrameType.CONTROL]) + number.to_bytes(8, "big") + ack.to_bytes(8, "big") + body


def a_session() -> se.Session:
    session = se.Session()
    session.path_up(1, 0, 0, 0.0)
    session.send(Chat("1", "hello", 0.0), 0.0)
    session.frames_to_send()
    return session


def an_exchange() -> ex.Exchange:
    """With a transfer each way in every state."""
    exchange = ex.Exchange(window_bytes=1000)
    for _ in range(4):
        exchange.offer(Offer(exchange.next_transfer(), "object", "x", 5000, 10, Preview("x")))
    for number in (1, 2, 3, 4):
        exchange.receive_frame(Offer(number, "object", "x", 5000, 10, Preview("x")))
    exchange.frames_to_send()
    exchange.receive_frame(Accept(2, 1000))
    exchange.receive_frame(Accept(3, 10, [(0, 5000)]))
    exchange.receive_frame(Accept(4, 5000, on_request=True))
    exchange.accept(2)
    exchange.accept(3)
    exchange.open_window(3)
    exchange.accept(4, on_request=True)
    exchange.want(4, [(100, 600)])
    exchange.ask_hashes(4, 100, [(0, 2)])
    exchange.next_chunk(1, 100)
    return exchange


# ── parsing ─────────────────────────────────────────────────────────────────────────────────────────
@tries(400)
@given(st.binary(max_size=300) | SHAPED)
def test_bytes_become_a_frame_or_nothing_or_a_value_error(data: bytes) -> None:
    with contextlib.suppress(ValueError):
        decode_control(data)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xc1",
        NESTED,
        b"\x92\xa3bye" + NESTED,
        b"\x93\xa3bye\xa0" + NESTED,
        b"\x92\xa4nope" + NESTED[:1000],
        b"\xdd\xff\xff\xff\xff\xa3bye",
        b"\x92\xa3bye\xdb\xff\xff\xff\xff",
        b"\x92\xa3bye\xc6\x7f\xff\xff\xff",
        b"\x92\xa3bye\xa2\xff\xfe",
        b"\x91\xa0",
        b"\x80",
        bytes(wire.MAX_CONTROL_BYTES + 1),
    ],
)
def test_absurd_lengths_and_depths_are_refused_or_unknown(data: bytes) -> None:
    with contextlib.suppress(ValueError):
        assert decode_control(data) is None


@pytest.mark.parametrize("time", [float("nan"), float("inf"), float("-inf")])
def test_a_time_is_a_number(time: float) -> None:
    with pytest.raises(ValueError, match="time"):
        decode_control(msgspec.msgpack.encode(Chat("1", "text", time)))


def test_unknown_tags_are_counted_and_fields_to_come_are_ignored() -> None:
    session = a_session()
    session.receive_frame(1, numbered(1, msgspec.msgpack.encode(["from-the-future", 1, {"a": 2}])), 0.0)
    session.receive_frame(1, numbered(2, msgspec.msgpack.encode(["bye", "reason", 42, {"more": [1]}])), 0.0)
    session.receive_frame(1, b"\x7funknown kind of frame", 0.0)
    assert session.unknown_frames == 2
    assert session.received == 2
    events = list(iter(session.next_event, None))
    assert events[-1] == se.FrameReceived(Bye("reason"))


def test_hub_messages_nested_without_end_are_a_value_error() -> None:
    for decode in (decode_hub_message, decode_peer_message):
        with pytest.raises(ValueError, match="not a message"):
            decode('{"type":"left","id":' + "[" * 8000)


# ── session ─────────────────────────────────────────────────────────────────────────────────────────
SEQUENCE = st.integers(0, 6) | st.sampled_from([4097, 4098, 2**63, 2**64 - 1])
FRAMES = st.one_of(
    st.binary(max_size=60),
    st.tuples(st.sampled_from(list(FrameType)), st.binary(max_size=40)).map(lambda f: bytes([f[0]]) + f[1]),
    st.tuples(SEQUENCE, WELL_FORMED | SHAPED, st.sampled_from([0, 1, 2, 2**64 - 1])).map(lambda f: numbered(*f)),
    st.tuples(NUMBERS.map(abs), NUMBERS.map(abs), st.binary(max_size=20)).map(
        lambda f: (
            bytes([FrameType.CHUNK]) + (f[0] % 2**32).to_bytes(4, "big") + (f[1] % 2**64).to_bytes(8, "big") + f[2]
        )
    ),
)


@tries(200)
@given(st.lists(FRAMES, max_size=20))
def test_any_frames_reach_session_and_exchange_as_events_or_protocol_errors(frames: list[bytes]) -> None:
    session, exchange, now = a_session(), an_exchange(), 0.0
    for frame in frames:
        now += 0.1
        with contextlib.suppress(ProtocolError):
            session.receive_frame(1, frame, now)
        for event in iter(session.next_event, None):
            with contextlib.suppress(ProtocolError):
                match event:
                    case se.FrameReceived(frame=control):
                        exchange.receive_frame(control)
                    case se.ChunkReceived(transfer=transfer, offset=offset, data=data):
                        exchange.receive_chunk(transfer, offset, data)
                    case se.DataFollows(transfer=transfer, offset=offset):
                        new = [(offset, offset + 300)] if exchange.takes(transfer, offset, offset + 300) else None
                        assert exchange.arrived(transfer, offset, offset + 300) == new or new is None
        for answer in exchange.frames_to_send():
            session.send(answer, now)
        session.handle_timer(now)
        session.frames_to_send()
        check_bounded(session, exchange)


@tries(300)
@given(st.lists(WELL_FORMED | SHAPED | st.tuples(NUMBER, NUMBER, st.binary(max_size=1200)), max_size=25))
def test_any_control_frames_leave_the_exchange_within_its_bounds(steps: list[Any]) -> None:
    exchange = an_exchange()
    for step in steps:
        with contextlib.suppress(ProtocolError, ValueError):
            if isinstance(step, tuple):
                exchange.receive_chunk(abs(step[0]) % 5, abs(step[1]) % 2**64, memoryview(step[2]))
            elif (frame := decode_control(step)) is not None:
                exchange.receive_frame(frame)
        for path in (1, 2):
            chunk = exchange.next_chunk(path, 100)
            assert chunk is None or 0 <= chunk.offset < chunk.offset + chunk.length <= 5000
        check_bounded(a_session(), exchange)


def check_bounded(session: se.Session, exchange: ex.Exchange) -> None:
    assert len(session._early) <= wire.MAX_UNACKED_FRAMES
    assert session._early_bytes <= 2 * wire.MAX_UNACKED_BYTES
    assert len(exchange._incoming) <= wire.MAX_OPEN_TRANSFERS
    for out in exchange._outgoing.values():
        assert out.acked.total <= out.size and out.credit <= out.size
    for inc in exchange._incoming.values():
        assert inc.landed.total <= max(inc.arrived.total, inc.offer.size_bytes)
        assert inc.arrived.total <= inc.credit + 1200


# ── bounds, each by the attack on it ────────────────────────────────────────────────────────────────
def test_frames_far_ahead_or_too_many_out_of_order_end_the_path() -> None:
    session = a_session()
    with pytest.raises(ProtocolError, match="far ahead"):
        session.receive_frame(1, numbered(wire.MAX_UNACKED_FRAMES + 1, b"x"), 0.0)

    def fill() -> None:
        for number in range(2, wire.MAX_UNACKED_FRAMES):
            session.receive_frame(1, numbered(number, bytes(wire.MAX_CONTROL_BYTES)), 0.0)

    with pytest.raises(ProtocolError, match="out of order"):
        fill()
    assert session._early_bytes <= 2 * wire.MAX_UNACKED_BYTES


def test_a_peer_that_never_acknowledges_is_not_queued_for_without_end() -> None:
    session = a_session()
    while session.unacknowledged < wire.MAX_UNACKED_FRAMES:
        session.send(Bye(), 0.0)
    with pytest.raises(UsageError, match="wait for this peer"):
        session.send(Bye(), 0.0)
    assert session.unacknowledged == wire.MAX_UNACKED_FRAMES
    assert not session.can_send()


def test_an_acknowledgement_of_what_was_never_sent_ends_the_path() -> None:
    for frame in (bytes([FrameType.ACK]) + (2).to_bytes(8, "big"), numbered(1, b"", ack=2)):
        with pytest.raises(ProtocolError):
            a_session().receive_frame(1, frame, 0.0)
    with pytest.raises(ProtocolError):
        se.Session().path_up(1, 0, 1, 0.0)


def test_a_flood_of_offers_is_declined_beyond_the_limit() -> None:
    exchange = ex.Exchange()
    for number in range(1, wire.MAX_OPEN_TRANSFERS + 101):
        exchange.receive_frame(Offer(number, "file", "x", 1, 0, Preview("file")))
    assert len(exchange._incoming) == wire.MAX_OPEN_TRANSFERS
    assert len(exchange.frames_to_send()) == 100


def test_our_own_many_offers_wait_instead_of_being_declined() -> None:
    ours, theirs = ex.Exchange(), ex.Exchange()
    total = wire.MAX_OPEN_TRANSFERS + 500
    for _ in range(total):
        ours.offer(Offer(ours.next_transfer(), "object", "x", 0, 0, Preview("x")))
    ours.cancel_outgoing(total, "TransferCancelledError", "")
    done = declined = 0
    while frames := ours.frames_to_send():
        for frame in frames:
            theirs.receive_frame(frame)
        for event in iter(theirs.next_event, None):
            match event:
                case ex.OfferArrived(offer=offer):
                    theirs.accept(offer.transfer)
                case ex.AllArrived(transfer=number):
                    theirs.completed(number)
        for frame in theirs.frames_to_send():
            ours.receive_frame(frame)
        for event in iter(ours.next_event, None):
            done += isinstance(event, ex.Completed)
            declined += isinstance(event, ex.Declined)
    assert (done, declined) == (total - 1, 0), "the cancelled one was never offered"
    assert not ours._outgoing and not ours._announced and not theirs._incoming


def test_an_answer_to_an_offer_that_still_waits_is_refused() -> None:
    exchange = ex.Exchange()
    exchange.offer(Offer(exchange.next_transfer(), "object", "x", 5, 0, Preview("x")))
    frames: list[ControlFrame] = [
        Accept(1, 5),
        wire.Decline(1),
        Got(1, [(0, 1)], 5),
        wire.Complete(1),
        wire.Cancel(1, False, "x"),
    ]
    for frame in frames:
        with pytest.raises(ProtocolError):
            exchange.receive_frame(frame)


def test_scattered_single_bytes_do_not_fill_the_memory() -> None:
    """Each lone byte costs a hundred in range lists; honest chunks leave few gaps."""
    exchange = ex.Exchange()
    exchange.receive_frame(Offer(1, "file", "x", 1 << 40, 0, Preview("file")))
    exchange.accept(1)
    exchange.open_window(1)

    def scatter_chunks() -> None:
        for offset in range(0, 1 << 20, 2):
            exchange.receive_chunk(1, offset, memoryview(b"x"))
            exchange.landed(1, offset, offset + 1)

    with pytest.raises(ProtocolError, match="scattered"):
        scatter_chunks()
    assert len(exchange._incoming[1].arrived) <= wire.MAX_GAPS + 1

    sender = ex.Exchange()
    sender.offer(Offer(sender.next_transfer(), "file", "x", 1 << 40, 0, Preview("file")))
    sender.frames_to_send()
    sender.receive_frame(Accept(1, 0))

    def scatter_acknowledgements() -> None:
        for base in range(0, 1 << 30, 4096):
            sender.receive_frame(Got(1, [(base + i, base + i + 1) for i in range(0, 2048, 2)], 0))

    with pytest.raises(ProtocolError, match="scattered"):
        scatter_acknowledgements()


@pytest.mark.parametrize(
    ("frame", "why"),
    [
        (Accept(2, 5000), "accepted twice"),
        (Got(1, [(0, 10)], 10), "acknowledged before it was accepted"),
        (Got(2, [(0, 5001)], 10), "ranges beyond the end"),
        (Got(2, [(10, 10)], 10), "an empty range"),
        (Got(2, [(-1, 10)], 10), "a negative range"),
        (Got(2, [], 5001), "credit beyond the end"),
        (Got(2, [], -1), "negative credit"),
        (wire.Finish(2), "finished before everything came"),
        (wire.Finish(1), "finished before it was accepted"),
        (wire.Complete(2), "complete before it was finished"),
        (Offer(3, "object", "x", 1, 0, Preview("x")), "a number used twice"),
        (Offer(2**32, "object", "x", 1, 0, Preview("x")), "a number too large"),
        (Offer(9, "script", "x", 1, 0, Preview("x")), "an unknown kind"),
        (Offer(9, "object", "x", -1, 0, Preview("x")), "a negative size"),
        (Offer(9, "object", "x", 2**63, 0, Preview("x")), "more than a petabyte"),
        (Offer(9, "object", "x", 10, 11, Preview("x")), "a head larger than the whole"),
        (Offer(9, "object", "x", 2**40, 2**30, Preview("x")), "a head of a gigabyte"),
        (Offer(9, "object", "x", 10, 5, Preview("x"), head=b"1234"), "another head than announced"),
        (Offer(9, "object", "x", 10, 5, Preview("x"), content=b"12345"), "content without its head"),
        (Offer(9, "object", "x" * 256, 10, 5, Preview("x")), "too long a name"),
        (Offer(9, "object", "x", 10, 5, Preview("x", rows=[[]] * 11)), "too many rows"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_no_honest_peer_says_is_refused(frame: ControlFrame, why: str) -> None:
    with pytest.raises(ProtocolError):
        an_exchange().receive_frame(frame)


@pytest.mark.parametrize(
    ("transfer", "offset", "size"), [(1, 0, 1), (2, 0, 11), (2, 4999, 2), (2, 2**64 - 1, 1), (3, 0, 1011)]
)
def test_chunks_beyond_acceptance_credit_or_end_are_refused(transfer: int, offset: int, size: int) -> None:
    exchange = an_exchange()
    with pytest.raises(ProtocolError):
        exchange.receive_chunk(transfer, offset, memoryview(bytes(size)))


def test_chunks_of_transfers_that_are_over_are_ignored() -> None:
    exchange = an_exchange()
    exchange.cancel_incoming(2, "TransferCancelledError", "")
    exchange.receive_chunk(2, 0, memoryview(b"late"))
    exchange.receive_chunk(77, 0, memoryview(b"never offered"))
    assert not any(isinstance(event, ex.PieceArrived) for event in iter(exchange.next_event, None))
