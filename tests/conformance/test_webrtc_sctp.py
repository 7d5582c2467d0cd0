"""The faster data plane under aiortc's SCTP: its parts alone, on bad lines, against hostile peers and other aiortcs."""

from __future__ import annotations

import asyncio
import inspect
import logging
import os
import random
from collections.abc import Iterator
from typing import Any

import pytest
from aiortc import RTCSctpTransport
from aiortc.rtcdtlstransport import RTCDtlsTransport

from p2pnb.paths import _sctp
from p2pnb.paths._sctp_flight import Flight, Piece
from p2pnb.paths._sctp_inbound import (
    FIRST,
    LAST,
    MAX_MESSAGE_BYTES,
    MAX_WAITING,
    RECEIVE_WINDOW,
    Inbound,
    InboundError,
)
from p2pnb.paths._sctp_window import MIN_PACKETS, Window
from p2pnb.paths.webrtc import WebRtcConnection
from tests.conformance.check_connection import Listener
from tests.conformance.webrtc_pairs import closed, connect

WHOLE = FIRST | LAST
PACKET = 1000


# ── what arrives ────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize("seed", range(20))
def test_chunks_in_any_order_and_twice_give_the_messages_in_order_once(seed: int) -> None:
    chance = random.Random(seed)
    chunks: list[tuple[int, int, int, int, bytes]] = []
    messages = []
    for _ in range(60):
        parts = [os.urandom(chance.randrange(1, 9)) for _ in range(chance.randrange(1, 6))]
        messages.append(b"".join(parts))
        for index, part in enumerate(parts):
            flags = (FIRST if index == 0 else 0) | (LAST if index == len(parts) - 1 else 0)
            chunks.append((len(chunks), flags, 0, 53, part))
    arriving = chunks + chance.sample(chunks, 30)
    chance.shuffle(arriving)
    inbound, got, seen = Inbound(), [], set()
    for chunk in arriving:
        got += [message for _, _, message in inbound.take(*chunk) or []]
        seen.add(chunk[0])
        missing = min(set(range(len(chunks) + 1)) - seen)
        assert inbound.cumulative == missing - 1
        beyond = [seq for first, last in inbound.gaps for seq in range(first, last + 1)]
        assert beyond == sorted(seq for seq in seen if seq > missing)
        assert all(later[0] > earlier[1] + 1 for earlier, later in zip(inbound.gaps, inbound.gaps[1:], strict=False))
    assert got == messages
    assert inbound.window == RECEIVE_WINDOW


def _take_all(inbound: Inbound, flags: list[int], data: bytes) -> None:
    for seq, flag in enumerate(flags):
        inbound.take(seq, flag, 0, 53, data)


@pytest.mark.parametrize("size", [1, 100, 1160])
def test_message_that_never_ends_is_an_error_with_little_held(size: int) -> None:
    """T41."""
    inbound = Inbound()
    with pytest.raises(InboundError, match="never ends"):
        _take_all(inbound, [FIRST] + [0] * MAX_MESSAGE_BYTES, bytes(size))
    assert inbound.window >= RECEIVE_WINDOW - MAX_MESSAGE_BYTES - size


@pytest.mark.parametrize("size", [1, 1160])
def test_what_waits_behind_a_gap_is_bounded(size: int) -> None:
    inbound = Inbound()
    kept = sum(inbound.take(seq, WHOLE, 0, 53, bytes(size)) is not None for seq in range(1, 3 * MAX_WAITING))
    assert kept <= MAX_WAITING
    assert kept * size <= RECEIVE_WINDOW
    assert len(inbound.take(0, WHOLE, 0, 53, b"x") or []) == kept + 1, "the gap closes, and all of it comes out"


@pytest.mark.parametrize("flags", [[0], [LAST], [FIRST, FIRST], [FIRST, WHOLE], [WHOLE, LAST]])
def test_fragments_that_do_not_fit_together_are_an_error(flags: list[int]) -> None:
    with pytest.raises(InboundError):
        _take_all(Inbound(), flags, b"x")


# ── what is sent ────────────────────────────────────────────────────────────────────────────────────
def _flight(count: int, *, every: float = 0.001) -> Flight:
    flight = Flight()
    for seq in range(count):
        flight.sent(Piece(seq, b"", PACKET, PACKET), seq * every)
    return flight


def _lost(flight: Flight) -> list[int]:
    found = []
    while (piece := flight.lost()) is not None:
        found.append(piece.seq)
        flight.sent(piece, 1.0)
    return found


def test_everything_acknowledged_leaves_nothing() -> None:
    flight = _flight(10)
    news = flight.acknowledged(9, [], 0, 0.1, 0.0)
    assert news is not None and news.acked == 10 * PACKET and news.lost == 0
    assert (flight.in_flight, flight.outstanding, len(flight)) == (0, 0, 0)
    assert news.rtt == pytest.approx(0.1 - 0.009)


@pytest.mark.parametrize(
    ("cumulative", "gaps"),
    [(10, []), (1 << 40, []), (-2, []), (0, [(1 << 40, 1 << 41)]), (0, [(5, 3)]), (0, [(4, 5), (2, 3)]), (0, [(0, 0)])],
)
def test_acknowledgement_of_what_was_not_sent_or_out_of_order_counts_for_nothing(
    cumulative: int, gaps: list[tuple[int, int]]
) -> None:
    flight = _flight(10)
    before = flight.in_flight
    news = flight.acknowledged(cumulative, gaps, 0, 0.1, 0.05)
    assert news is None or news.acked <= (cumulative + 1) * PACKET + 2 * PACKET
    assert flight.in_flight <= before and flight.in_flight >= 0 and flight.next == 10


def test_loss_is_found_by_what_was_sent_later() -> None:
    flight = _flight(10)
    assert flight.acknowledged(2, [(4, 5)], 0, 0.1, 0.1) is not None
    assert _lost(flight) == [], "two later ones may have overtaken it"
    assert flight.acknowledged(2, [(4, 6)], 0, 0.1, 0.1) is not None
    assert _lost(flight) == [3]


def test_lost_retransmission_is_found_without_a_timer() -> None:
    flight = _flight(10)
    flight.acknowledged(2, [(4, 9)], 0, 0.1, 0.1)
    assert _lost(flight) == [3]
    for seq in range(10, 16):
        flight.sent(Piece(seq, b"", PACKET, PACKET), 1.0 + seq / 1000)
    flight.acknowledged(2, [(4, 15)], 0, 1.2, 0.1)
    assert _lost(flight) == [3]


def test_probe_is_not_lost_by_what_was_sent_before_it() -> None:
    flight = _flight(10)
    oldest = flight.oldest()
    assert oldest is not None and oldest.seq == 0
    flight.sent(oldest, 0.5)
    assert flight.acknowledged(-1, [(1, 9)], 0, 0.51, 0.1) is not None
    assert _lost(flight) == []


def test_answered_probe_shows_all_that_was_lost_before_it() -> None:
    """Else the end of a message would be repaired one packet per timer, however long the smoothed round trip is."""
    flight = _flight(10)
    oldest = flight.oldest()
    assert oldest is not None
    flight.sent(oldest, 0.5)
    assert flight.acknowledged(0, [], 0, 0.502, 0.1, 0.001) is not None
    assert _lost(flight) == list(range(1, 10))


def test_acknowledgements_that_come_late_and_all_at_once_show_no_high_rate() -> None:
    """SACKs get lost too: what arrived long ago may be told with the answer to a probe."""
    flight = _flight(100)
    flight.acknowledged(0, [], 0, 0.1, 0.1, 0.1)
    flight.give_up()
    piece = flight.lost()
    assert piece is not None
    flight.sent(piece, 5.0)
    news = flight.acknowledged(99, [], 0, 5.1, 0.1, 0.1)
    assert news is not None and news.acked == 99 * PACKET and news.rate <= 100 * PACKET / 5


def test_acknowledgement_too_soon_for_the_probe_shows_nothing() -> None:
    flight = _flight(10)
    oldest = flight.oldest()
    assert oldest is not None
    flight.sent(oldest, 0.05)
    assert flight.acknowledged(0, [], 0, 0.055, 0.1, 0.1) is not None
    assert _lost(flight) == []


def test_packets_seen_to_overtake_one_another_widen_what_counts_as_order() -> None:
    flight = _flight(20)
    flight.acknowledged(2, [(4, 6)], 5, 0.02, 0.1)
    assert _lost(flight) == []
    flight.acknowledged(2, [(4, 12)], 0, 0.02, 0.1)
    assert _lost(flight) == [3]


def test_giving_up_sends_all_again_even_what_was_reported_beyond_a_gap() -> None:
    """A receiver may drop what it reported beyond a gap (RFC 9260 §6.2.1)."""
    flight = _flight(6)
    flight.acknowledged(0, [(2, 3)], 0, 0.1, 0.1)
    flight.give_up()
    assert flight.outstanding == 5 * PACKET and flight.in_flight == 0
    assert _lost(flight) == [1, 2, 3, 4, 5]
    news = flight.acknowledged(5, [], 0, 2.0, 0.1)
    assert news is not None and flight.outstanding == flight.in_flight == 0


@pytest.mark.parametrize("seed", range(20))
def test_accounts_balance_whatever_is_lost(seed: int) -> None:
    chance = random.Random(seed)
    flight, arrived, seq, now, last = Flight(), set(), 0, 0.0, -1
    for _ in range(400):
        now += 0.01
        piece = flight.lost() if chance.random() < 0.7 else None
        if piece is None:
            piece, seq = Piece(seq, b"", PACKET, PACKET), seq + 1
        flight.sent(piece, now)
        if chance.random() < 0.8:
            arrived.add(piece.seq)
        if chance.random() < 0.5:
            while last + 1 in arrived:
                last += 1
            beyond = sorted(number for number in arrived if number > last)
            flight.acknowledged(last, [(number, number) for number in beyond], 0, now, 0.05)
            assert flight.outstanding == (seq - len([n for n in arrived if n < seq])) * PACKET
            assert 0 <= flight.in_flight <= flight.outstanding
        if chance.random() < 0.01:
            flight.give_up()
            arrived = {number for number in arrived if number <= last}


# ── how much may be under way ───────────────────────────────────────────────────────────────────────
class Line:
    """A line of `rate` bytes/s and `rtt` seconds with a queue, driven by a window packet by packet."""

    def __init__(self, rate: float, rtt: float, *, loss: float = 0.0, queue_s: float = 0.02, seed: int = 1) -> None:
        self.rate, self.rtt, self.loss, self.queue_s = rate, rtt, loss, queue_s
        self.window, self.flight = Window(PACKET), Flight()
        self.now = self.free = 0.0
        self.delivered = self.dropped = self.seq = 0
        self.acks: list[tuple[float, int]] = []
        self._arrived: set[int] = set()
        self._cumulative = -1
        self._chance = random.Random(seed)

    def run(self, seconds: float) -> float:
        """Send for so long without a pause; return the goodput in bytes/s."""
        end, before = self.now + seconds, self._cumulative
        while self.now < end:
            self._acknowledge()
            allowance = self.window.allowance(self.now)
            while allowance > 0 and self.flight.in_flight < self.window.cwnd:
                piece = self.flight.lost()
                if piece is None:
                    piece, self.seq = Piece(self.seq, b"", PACKET, PACKET), self.seq + 1
                self.flight.sent(piece, self.now)
                self.window.spent(PACKET)
                allowance -= PACKET
                start = max(self.now, self.free)
                if self._chance.random() < self.loss or start - self.now > self.queue_s:
                    self.dropped += 1
                    continue
                self.free = start + PACKET / self.rate
                self.acks.append((self.free + self.rtt, piece.seq))
            self.now += 0.001
        return (self._cumulative - before) * PACKET / seconds

    def _acknowledge(self) -> None:
        while self.acks and self.acks[0][0] <= self.now:
            self._arrived.add(self.acks.pop(0)[1])
            while self._cumulative + 1 in self._arrived:
                self._cumulative += 1
                self._arrived.remove(self._cumulative)
        beyond = [(number, number) for number in sorted(self._arrived) if number > self._cumulative]
        flight, window = self.flight, self.window
        news = flight.acknowledged(self._cumulative, beyond, 0, self.now, window.srtt, window.min_rtt)
        if news is not None and (news.acked or news.lost):
            window.acknowledged(
                self.now, news.acked, news.lost, news.rtt, news.rate, news.sent_delivered, flight.delivered,
                news.app_limited, flight.in_flight,
            )  # fmt: skip


@pytest.mark.parametrize(
    ("rate", "rtt", "loss"),
    [(1e6, 0.05, 0.0), (1e6, 0.05, 0.01), (1e6, 0.05, 0.05), (1e6, 0.2, 0.01), (100e3, 0.1, 0.01), (5e6, 0.01, 0.01)],
)
def test_window_fills_the_line_whatever_is_lost_at_random(rate: float, rtt: float, loss: float) -> None:
    line = Line(rate, rtt, loss=loss)
    line.run(4)
    assert line.run(4) >= 0.8 * rate * (1 - loss)


@pytest.mark.parametrize("queue_s", [0.01, 0.05, 0.2])
def test_window_leaves_the_queue_short(queue_s: float) -> None:
    line = Line(1e6, 0.05, queue_s=queue_s)
    line.run(4)
    line.dropped = 0
    sent = line.seq
    line.run(4)
    assert line.dropped <= 0.05 * (line.seq - sent)
    assert line.free - line.now <= 0.06


def test_window_follows_a_line_that_becomes_slow() -> None:
    line = Line(2e6, 0.05)
    line.run(4)
    line.rate = 200e3
    sent = line.flight._order
    line.run(2)
    assert (line.flight._order - sent) * PACKET <= 1.5e6, "it sees so within a second"
    line.dropped, sent = 0, line.seq
    assert line.run(4) >= 0.7 * 200e3
    assert line.dropped <= 0.15 * (line.seq - sent), "it sends no more than the line takes"
    assert line.window.cwnd <= 3 * 200e3 * 0.07


def test_window_finds_a_line_that_becomes_fast() -> None:
    line = Line(200e3, 0.05)
    line.run(3)
    line.rate = 2e6
    line.run(6)
    assert line.run(3) >= 0.7 * 2e6


def test_line_that_loses_half_is_not_flooded() -> None:
    line = Line(1e6, 0.05, loss=0.5)
    line.run(3)
    sent = line.flight._order
    line.run(3)
    assert (line.flight._order - sent) * PACKET / 3 <= 1e6


@pytest.mark.parametrize(
    ("loss", "rtt", "brakes"), [(0.01, 0.1, False), (0.1, 0.05, False), (0.1, 0.1, True), (0.3, 0.05, True)]
)
def test_losses_with_a_longer_round_trip_brake_and_losses_at_random_do_not(
    loss: float, rtt: float, brakes: bool
) -> None:
    line = Line(1e6, 0.05)
    line.run(3)
    window, before = line.window, line.window.cwnd
    delivered = line.flight.delivered
    for number in range(12):  # rounds
        window.acknowledged(
            line.now + number * rtt, int((1 - loss) * 50_000), int(loss * 50_000), rtt, 1e6, delivered,
            delivered + 50_000, False, 40_000,
        )  # fmt: skip
        delivered += 50_000
        if window.cwnd < 0.9 * before:
            assert brakes
            return
    assert not brakes


def test_collapse_leaves_four_packets() -> None:
    line = Line(1e6, 0.05)
    line.run(2)
    line.window.collapse()
    assert line.window.cwnd == MIN_PACKETS * PACKET


# ── on bad lines ────────────────────────────────────────────────────────────────────────────────────
@pytest.fixture
def bad_line(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, float]]:
    """Drops, doubles and delays what associations put on the line, as far as it is the faster plane that does."""
    line = {"loss": 0.0, "twice": 0.0, "late": 0.0}
    chance = random.Random(11)
    write = _sctp._write

    def writing(dtls: Any, packet: bytes) -> None:
        if chance.random() < line["loss"]:
            return
        for _ in range(2 if chance.random() < line["twice"] else 1):
            if chance.random() < line["late"]:
                asyncio.get_running_loop().call_later(0.01 * chance.random(), write, dtls, packet)
            else:
                write(dtls, packet)

    monkeypatch.setattr(_sctp, "_write", writing)
    yield line
    line.update(loss=0.0, twice=0.0, late=0.0)


async def _both_ways(near: WebRtcConnection, far: WebRtcConnection, count: int = 60) -> None:
    near_heard, far_heard = Listener(), Listener()
    near.attach(near_heard)
    far.attach(far_heard)
    there = [os.urandom(1 + 997 * number) for number in range(count)]
    back = [os.urandom(1 + 331 * number) for number in range(count)]
    for one, other in zip(there, back, strict=True):
        near.send(one)
        far.send(other)
    assert await far_heard.heard(count) == there
    assert await near_heard.heard(count) == back
    await near_heard.until(lambda: near.buffered == 0 and far.buffered == 0, "all of it is acknowledged")


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "line",
    [
        {"twice": 0.3},
        {"late": 0.3},
        {"loss": 0.05, "twice": 0.1, "late": 0.2},
        pytest.param({"loss": 0.1}, marks=pytest.mark.slow),
        pytest.param({"loss": 0.3}, marks=pytest.mark.slow),
    ],
)
async def test_everything_arrives_in_order_and_once(line: dict[str, float], bad_line: dict[str, float]) -> None:
    near, far = await connect()
    bad_line.update(line)
    await _both_ways(near, far)
    bad_line.update(loss=0.0)
    await closed(near, far)


@pytest.mark.asyncio
@pytest.mark.parametrize("tuned_end", [0, 1])
async def test_one_end_with_the_faster_plane_and_one_without(
    tuned_end: int, bad_line: dict[str, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    tune, calls = _sctp.tune, iter(range(2))
    monkeypatch.setattr(_sctp, "tune", lambda association: tune(association) if next(calls) == tuned_end else None)
    near, far = await connect()
    assert [end._tuned is not None for end in (near, far)] == [tuned_end == 0, tuned_end == 1]
    bad_line["loss"] = 0.005  # more would take aiortc's own timers of seconds
    await _both_ways(near, far, 40)
    bad_line["loss"] = 0.0
    await closed(near, far)


@pytest.mark.slow
@pytest.mark.asyncio
async def test_line_that_is_dead_for_a_while_is_used_again(bad_line: dict[str, float]) -> None:
    near, far = await connect()
    heard = Listener()
    far.attach(heard)
    for number in range(20):
        near.send(bytes([number]) * 5000)
    bad_line["loss"] = 1.0
    for number in range(20, 40):
        near.send(bytes([number]) * 5000)
    await asyncio.sleep(1.5)  # the line's, not ours: several unanswered probes
    tuned = near._tuned
    assert tuned is not None and tuned._tuned_window.cwnd <= 20 * 1160
    bad_line["loss"] = 0.0
    assert await heard.heard(40) == [bytes([number]) * 5000 for number in range(40)]
    await closed(near, far)


@pytest.mark.asyncio
async def test_sequence_numbers_wrap(monkeypatch: pytest.MonkeyPatch) -> None:
    """F21: TSNs have 32 bits and begin anywhere; stream numbers have 16."""
    monkeypatch.setattr("aiortc.rtcsctptransport.random32", lambda: 0xFFFF_FFF0)
    near, far = await connect()
    await _both_ways(near, far)
    heard = Listener()
    far.attach(heard)
    assert near._tuned is not None and near._channel.id is not None
    near._tuned._outbound_stream_seq[near._channel.id] = 0xFFFE
    for number in range(5):
        near.send(bytes([number]))
    assert await heard.heard(5) == [bytes([number]) for number in range(5)]
    await closed(near, far)


# ── hostile peers ───────────────────────────────────────────────────────────────────────────────────
@pytest.mark.asyncio
async def test_peer_that_never_ends_a_message_loses_the_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    """T41."""
    near, far = await connect()
    heard = Listener()
    far.attach(heard)
    near.attach(Listener())
    monkeypatch.setattr(_sctp, "LAST", 0)  # of what is sent: the far end's reading has its own
    inbound = None
    for _ in range(40):
        near.send(bytes(60_000))
        await asyncio.sleep(0)
        inbound = far._tuned._tuned_inbound if far._tuned is not None else None
        assert inbound is None or inbound._parts_bytes <= MAX_MESSAGE_BYTES + 1160
    await heard.until(lambda: heard.lost, "the connection is over")
    assert heard.messages == []
    await closed(near, far)


@pytest.mark.asyncio
@pytest.mark.parametrize("seed", range(5))
async def test_garbage_from_the_peer_ends_nothing_but_at_most_the_connection(
    seed: int, caplog: pytest.LogCaptureFixture
) -> None:
    """Packets with a right checksum and tag, and anything behind them."""
    near, far = await connect()
    heard = Listener()
    far.attach(heard)
    near.attach(Listener())
    chance = random.Random(seed)
    attacker: Any = near._tuned
    for _ in range(400):
        body = chance.randbytes(chance.choice([0, 3, 4, 8, 12, 13, 40, 1000]))
        kind = chance.choice([0, 0, 3, 3, 3, 4, 9, 192, 193, 255])
        length = chance.choice([4 + len(body), 4, 0, 3, 0xFFFF, 4 + len(body) // 2])
        chunk = bytes([kind, chance.choice([0, 1, 2, 3, 255])]) + length.to_bytes(2, "big") + body
        attacker._tuned_write(attacker._tuned_packet(chunk + bytes(-len(chunk) & 3)))
    near.send(b"the end")
    await heard.until(lambda: heard.lost or b"the end" in heard.messages, "still there, or told")
    assert "Traceback" not in caplog.text, "it was seen to be garbage, rather than stumbled over"
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]
    await closed(near, far)


# ── other aiortcs ───────────────────────────────────────────────────────────────────────────────────
async def _renamed(self: Any, packet: bytes) -> None: ...


def _plain(self: Any, data: bytes) -> None: ...


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("where", "name", "value"),
    [(RTCSctpTransport, "_handle_data", _renamed), (RTCSctpTransport, "_handle_data", _plain),
     (RTCSctpTransport, "_transmit", None), (RTCDtlsTransport, "_send_data", None),
     (inspect.getmodule(RTCSctpTransport), "CHUNK_TYPES", []),
     (inspect.getmodule(RTCSctpTransport), "crc32c", lambda data: 0)],
)  # fmt: skip
async def test_stranger_is_left_alone_and_that_is_said_once(
    where: Any, name: str, value: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from aiortc import RTCConfiguration, RTCPeerConnection

    monkeypatch.setattr(_sctp, "_told", [])
    monkeypatch.setattr(where, name, value)
    connections = [RTCPeerConnection(RTCConfiguration(iceServers=[])) for _ in range(2)]
    for connection in connections:
        connection.createDataChannel("x")
        assert _sctp.tune(connection.sctp) is None
        assert type(connection.sctp) is RTCSctpTransport
    assert len([record for record in caplog.records if "aiortc's own SCTP" in record.message]) == 1
    monkeypatch.undo()
    for connection in connections:
        await connection.close()


@pytest.mark.asyncio
@pytest.mark.parametrize("field", sorted(_sctp._FIELDS))
async def test_association_without_a_field_is_left_alone(field: str) -> None:
    from aiortc import RTCConfiguration, RTCPeerConnection

    connection = RTCPeerConnection(RTCConfiguration(iceServers=[]))
    connection.createDataChannel("x")
    association: Any = connection.sctp
    kept = association.__dict__.pop(field)
    try:
        assert _sctp.tune(association) is None
        assert type(association) is RTCSctpTransport
    finally:
        association.__dict__[field] = kept
    await connection.close()


@pytest.mark.asyncio
async def test_this_aiortc_is_known_and_only_the_one_association_changes() -> None:
    near, far = await connect()
    assert near._tuned is not None and far._tuned is not None
    assert near.buffered == 0
    await closed(near, far)
    assert "tuned" not in " ".join(vars(RTCSctpTransport))
