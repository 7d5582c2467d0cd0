"""Transfers between two exchanges that a test plays: pausing, credit, bytes on request, hashes for going on."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from p2pnb.errors import ProtocolError
from p2pnb.protocol import exchange as ex
from p2pnb.protocol import wire
from p2pnb.protocol.exchange import Chunk, Exchange
from p2pnb.protocol.ranges import RangeSet
from p2pnb.protocol.wire import (
    HASH_BYTES,
    MAX_HASHES,
    Accept,
    AskHashes,
    Complete,
    ControlFrame,
    Finish,
    Got,
    Hashes,
    Offer,
    Pause,
    Preview,
    Want,
)

SIZE = 10_000
HEAD = 100
CHUNK = 1000


def events_of(exchange: Exchange) -> Iterator[ex.ExchangeEvent]:
    while (event := exchange.next_event()) is not None:
        yield event


class Two:
    """A sender and a receiver; frames go over when the test says so, and what arrives lands at once."""

    def __init__(self, window_bytes: int = 4000) -> None:
        self.sender, self.receiver = Exchange(window_bytes=window_bytes), Exchange(window_bytes=window_bytes)
        self.said: list[ControlFrame] = []
        self.events: list[ex.ExchangeEvent] = []  # of both, in order
        self.got: dict[int, RangeSet] = {}

    def offer(self, size: int = SIZE, head: int = HEAD, **fields: object) -> int:
        number = self.sender.next_transfer()
        self.sender.offer(Offer(number, "object", "x", size, head, Preview("x"), **fields))  # type: ignore[arg-type]
        self.got[number] = RangeSet()
        self.talk()
        return number

    def accept(self, number: int) -> None:
        """As a receiver that has understood the head as soon as it is there."""
        self.receiver.accept(number)
        self.talk()
        while self.receiver.landed_bytes(number) < HEAD:
            assert self.move(1)
        self.receiver.open_window(number)
        self.talk()

    def moving(self, size: int = SIZE) -> int:
        number = self.offer(size)
        self.accept(number)
        return number

    def talk(self) -> list[ControlFrame]:
        """Deliver all frames until both are quiet; return what was said."""
        said = []
        for _ in range(100):
            there, back = self.sender.frames_to_send(), self.receiver.frames_to_send()
            for frame in there:
                assert self.receiver.receive_frame(frame)
            for frame in back:
                assert self.sender.receive_frame(frame)
            said += [*there, *back]
            self.events += [*events_of(self.sender), *events_of(self.receiver)]
            if not there and not back:
                return said
        raise AssertionError("they never stop talking")

    def move(self, count: int = 1, max_bytes: int = CHUNK, path: int = 1) -> list[Chunk]:
        """Send some chunks, and let them land."""
        sent = []
        for _ in range(count):
            chunk = self.sender.next_chunk(path, max_bytes)
            if chunk is None:
                break
            sent.append(chunk)
            self.bring(chunk)
        self.receiver.report_landed()
        self.talk()
        return sent

    def bring(self, chunk: Chunk) -> None:
        self.receiver.receive_chunk(chunk.transfer, chunk.offset, memoryview(bytes(chunk.length)))
        for event in events_of(self.receiver):
            self.events.append(event)
            if isinstance(event, ex.PieceArrived):
                end = event.offset + len(event.data)
                assert not set(range(event.offset, end)) - set(range(chunk.offset, chunk.offset + chunk.length))
                self.got[event.transfer].add(event.offset, end)
                self.receiver.landed(event.transfer, event.offset, end)

    def finish(self, *numbers: int) -> None:
        """Move everything there is, and end it as the engine does."""
        while self.move(5):
            pass
        for number in numbers:
            self.sender.finish(number)
            self.talk()
            assert ex.AllArrived(number) in self.events
            self.receiver.completed(number)
            self.talk()
            assert ex.Completed(number) in self.events
            assert list(self.got[number]) == [(0, SIZE)]


# ── pausing ─────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize("who", ["sender", "receiver"])
def test_nothing_is_sent_while_it_is_paused(who: str) -> None:
    two = Two()
    number = two.moving()
    assert two.move(1)
    side = two.sender if who == "sender" else two.receiver
    side.pause(number, outgoing=who == "sender", paused=True)
    two.talk()
    assert two.events[-1] == ex.PauseChanged(number, outgoing=who == "receiver", paused=True)
    assert two.move(5) == []
    assert not two.sender.has_chunks
    side.pause(number, outgoing=who == "sender", paused=False)
    two.talk()
    assert two.events[-1] == ex.PauseChanged(number, outgoing=who == "receiver", paused=False)
    two.finish(number)


def test_both_sides_have_to_let_it_go_on() -> None:
    two = Two()
    number = two.moving()
    two.sender.pause(number, outgoing=True, paused=True)
    two.receiver.pause(number, outgoing=False, paused=True)
    two.talk()
    two.sender.pause(number, outgoing=True, paused=False)
    two.talk()
    assert two.move(1) == []
    two.receiver.pause(number, outgoing=False, paused=False)
    two.talk()
    two.finish(number)


def test_what_is_under_way_lands_while_paused_and_is_acknowledged() -> None:
    two = Two()
    number = two.moving()
    chunk = two.sender.next_chunk(1, CHUNK)
    assert chunk is not None
    two.receiver.pause(number, outgoing=False, paused=True)
    two.talk()
    two.bring(chunk)
    two.receiver.report_landed()
    two.talk()
    assert two.sender.acknowledged_bytes(number) == HEAD + CHUNK
    assert two.sender.in_flight_bytes(1) == 0


def test_pausing_twice_says_it_once() -> None:
    two = Two()
    number = two.moving()
    for paused in (True, True, False, False):
        two.receiver.pause(number, outgoing=False, paused=paused)
    assert [frame for frame in two.talk() if isinstance(frame, Pause)] == [
        Pause(number, False, True), Pause(number, False, False),
    ]  # fmt: skip
    for _ in range(3):
        two.sender.receive_frame(Pause(number, False, True))
    assert len(list(iter(two.sender.next_event, None))) == 1


def test_offer_paused_before_it_was_taken_waits_and_the_other_side_knows() -> None:
    two = Two()
    number = two.offer()
    two.sender.pause(number, outgoing=True, paused=True)
    two.talk()
    assert ex.PauseChanged(number, outgoing=False, paused=True) in two.events
    two.receiver.accept(number)
    two.talk()
    assert two.move(1) == []
    two.sender.pause(number, outgoing=True, paused=False)
    two.talk()
    two.move(1)
    two.receiver.open_window(number)
    two.talk()
    two.finish(number)


def test_offer_paused_before_it_was_even_sent_is_told_with_it() -> None:
    two = Two()
    number = two.sender.next_transfer()
    two.sender.offer(Offer(number, "object", "x", SIZE, HEAD, Preview("x")))
    two.sender.pause(number, outgoing=True, paused=True)
    two.talk()
    assert ex.PauseChanged(number, outgoing=False, paused=True) in two.events


def test_pause_of_what_is_over_or_never_was_is_ignored() -> None:
    two = Two()
    number = two.moving()
    two.finish(number)
    for side in (two.sender, two.receiver):
        for transfer in (number, 77):
            side.receive_frame(Pause(transfer, True, True))
            side.receive_frame(Pause(transfer, False, True))
            side.pause(transfer, outgoing=True, paused=True)
            side.pause(transfer, outgoing=False, paused=True)
    assert two.talk() == []


def test_paused_transfer_can_be_cancelled_by_either_side() -> None:
    for outgoing in (True, False):
        two = Two()
        number = two.moving()
        two.sender.pause(number, outgoing=True, paused=True)
        two.talk()
        if outgoing:
            two.sender.cancel_outgoing(number, "x", "")
        else:
            two.receiver.cancel_incoming(number, "x", "")
        two.talk()
        assert isinstance(two.events[-1], ex.CancelledByPeer)
        assert not two.sender._outgoing and not two.receiver._incoming
        assert two.sender.next_chunk(1, CHUNK) is None


def test_others_go_on_while_one_is_paused() -> None:
    two = Two()
    paused, other = two.moving(), two.moving()
    two.receiver.pause(paused, outgoing=False, paused=True)
    two.talk()
    assert {chunk.transfer for chunk in two.move(3)} == {other}
    two.finish(other)
    two.receiver.pause(paused, outgoing=False, paused=False)
    two.talk()
    two.finish(paused)


# ── fair shares ─────────────────────────────────────────────────────────────────────────────────────
def test_transfers_take_turns() -> None:
    two = Two(window_bytes=1 << 20)
    numbers = [two.moving(100_000) for _ in range(4)]
    turns = [chunk.transfer for chunk in two.move(40)]
    assert {number: turns.count(number) for number in numbers} == dict.fromkeys(numbers, 10)


def test_transfers_that_move_share_one_window() -> None:
    window = 8 << 20
    two = Two(window_bytes=window)
    numbers = [two.moving(1 << 30) for _ in range(8)]
    beyond = [two.receiver._incoming[n].credit - two.receiver.landed_bytes(n) for n in numbers]
    assert beyond[0] >= window - len(numbers) * CHUNK, "the first was alone"
    assert beyond[-1] == window // 8
    for number in numbers[:-1]:
        two.receiver.pause(number, outgoing=False, paused=True)
    two.talk()
    two.move(2, 1 << 19)
    assert two.receiver._incoming[numbers[-1]].credit - two.receiver.landed_bytes(numbers[-1]) == window, (
        "those that are paused take no share"
    )


def test_share_of_the_window_is_never_less_than_a_chunk() -> None:
    two = Two(window_bytes=4 << 20)
    numbers = [two.moving(1 << 30) for _ in range(50)]
    assert min(two.receiver._incoming[number].credit for number in numbers) >= 512 * 1024


def test_credit_once_granted_is_never_taken_back() -> None:
    two = Two(window_bytes=8 << 20)
    first = two.moving(1 << 30)
    before = two.receiver._incoming[first].credit
    others = [two.moving(1 << 30) for _ in range(10)]
    seen = [frame.credit for frame in two.said if isinstance(frame, Got) and frame.transfer == first]
    two.move(4, 1 << 19)
    assert two.receiver._incoming[first].credit >= before
    assert seen == sorted(seen)
    assert others


# ── large records, whose place is known before they are opened ──────────────────────────────────────
def receiving(credit: int = 2000) -> tuple[Exchange, int]:
    two = Two(window_bytes=credit)
    number = two.moving()
    return two.receiver, number


def test_bytes_that_are_awaited_and_new_are_taken_once() -> None:
    exchange, number = receiving()
    assert exchange.takes(number, 100, 600)
    assert exchange.arrived(number, 100, 600) == [(100, 600)]
    assert not exchange.takes(number, 100, 600), "all of it is here"
    assert not exchange.takes(number, 500, 700), "some of it is here"
    assert exchange.arrived(number, 500, 700) == [(600, 700)]
    assert exchange.arrived(number, 100, 700) == []


def test_bytes_beyond_the_end_or_the_credit_are_not_taken() -> None:
    exchange, number = receiving(2000)
    assert not exchange.takes(number, SIZE - 10, SIZE + 1)
    assert not exchange.takes(number, 2**63, 2**63 + 10)
    with pytest.raises(ProtocolError, match="beyond"):
        exchange.arrived(number, SIZE - 10, SIZE + 1)
    with pytest.raises(ProtocolError, match="credit"):
        exchange.arrived(number, 1000, 1000 + 2001)


def test_bytes_of_what_is_not_moving_are_not_taken() -> None:
    two = Two()
    number = two.offer()
    assert not two.receiver.takes(number, 0, 10)
    with pytest.raises(ProtocolError, match="not accepted"):
        two.receiver.arrived(number, 0, 10)
    assert not two.receiver.takes(99, 0, 10)
    assert two.receiver.arrived(99, 0, 10) == [], "cancelled while it was on its way"


def test_empty_piece_is_nothing() -> None:
    exchange, number = receiving()
    assert not exchange.takes(number, 500, 500)
    assert exchange.arrived(number, 500, 500) == []


# ── on request ──────────────────────────────────────────────────────────────────────────────────────
def on_request(head: int = HEAD, window_bytes: int = 4000) -> tuple[Two, int]:
    two = Two(window_bytes)
    number = two.offer(head=head)
    two.receiver.accept(number, on_request=True)
    two.talk()
    two.move(1)
    two.receiver.open_window(number)
    two.talk()
    assert list(two.got[number]) == ([(0, head)] if head else [])
    return two, number


def test_only_what_was_asked_for_is_sent_in_any_order() -> None:
    two, number = on_request()
    assert two.move(5) == []
    for start in (5000, 200, 8000):
        two.receiver.want(number, [(start, start + 500)])
        two.talk()
        assert [(c.offset, c.length) for c in two.move(5)] == [(start, 500)]
    assert list(two.got[number]) == [(0, HEAD), (200, 700), (5000, 5500), (8000, 8500)]


def test_transfer_without_a_head_can_be_on_request() -> None:
    two, number = on_request(head=0)
    two.receiver.want(number, [(0, SIZE)])
    two.talk()
    two.move(20)
    assert list(two.got[number]) == [(0, SIZE)]


def test_bytes_that_nobody_asked_for_end_the_path() -> None:
    two, number = on_request()
    two.receiver.want(number, [(200, 300)])
    for start, end in ((300, 301), (100, 250), (250, 301), (9000, 9001)):
        assert not two.receiver.takes(number, start, end)
        with pytest.raises(ProtocolError, match="nobody asked"):
            two.receiver.receive_chunk(number, start, memoryview(bytes(end - start)))
    assert two.receiver.takes(number, 200, 300)


def test_what_was_here_before_is_sent_again_when_asked_for_again() -> None:
    """The block was damaged: its hash told."""
    two, number = on_request()
    for _ in range(3):
        two.receiver.want(number, [(1000, 2000)])
        two.talk()
        assert [(c.offset, c.length) for c in two.move(5)] == [(1000, 1000)]
        assert two.receiver.landed_bytes(number) == HEAD + 1000


def test_asking_again_overtakes_the_word_that_it_landed() -> None:
    """Landed, not told yet, asked for again: the late acknowledgement must not make the sender forget the wish."""
    two, number = on_request(window_bytes=1 << 20)
    two.receiver.want(number, [(1000, 2000)])
    two.talk()
    chunk = two.sender.next_chunk(1, CHUNK)
    assert chunk is not None
    two.bring(chunk)  # landed, and the acknowledgement waits for its timer
    two.receiver.want(number, [(1000, 2000)])
    two.receiver.report_landed()
    two.talk()
    assert [(c.offset, c.length) for c in two.move(5)] == [(1000, 1000)]


def test_bytes_lost_with_a_path_are_sent_again_on_request_too() -> None:
    two, number = on_request()
    two.receiver.want(number, [(1000, 3000)])
    two.talk()
    assert two.sender.next_chunk(1, CHUNK) is not None
    two.sender.path_lost(1)
    assert sum(chunk.length for chunk in two.move(5, path=2)) == 2000


def test_receiver_ends_it_whenever_it_has_enough() -> None:
    two, number = on_request()
    two.receiver.want(number, [(1000, 2000)])
    two.talk()
    chunk = two.sender.next_chunk(1, CHUNK)
    two.receiver.completed(number)
    two.talk()
    assert two.events[-1] == ex.Completed(number)
    assert not two.sender._outgoing and not two.receiver._incoming
    assert chunk is not None
    two.bring(chunk)
    assert two.sender.next_chunk(1, CHUNK) is None


def test_whole_transfer_in_its_offer_needs_no_requests() -> None:
    two = Two()
    number = two.sender.next_transfer()
    two.sender.offer(Offer(number, "object", "x", 5, 2, Preview("x"), head=b"ab", content=b"cde"))
    two.talk()
    two.receiver.accept(number, on_request=True)
    two.talk()
    assert ex.AllArrived(number) in [*two.events, *iter(two.receiver.next_event, None)]
    two.receiver.completed(number)
    two.talk()
    assert two.events[-1] == ex.Completed(number)


@pytest.mark.parametrize(
    "ranges", [[(0, SIZE + 1)], [(5, 5)], [(-1, 5)], [(9, 3)], [(i, i + 1) for i in range(wire.MAX_ACK_RANGES + 1)]]
)
def test_impossible_wishes_are_refused(ranges: list[tuple[int, int]]) -> None:
    two, number = on_request()
    with pytest.raises(ProtocolError):
        two.sender.receive_frame(Want(number, ranges))


def test_wishes_of_a_transfer_that_is_not_on_request_are_refused() -> None:
    two = Two()
    number = two.moving()
    with pytest.raises(ProtocolError, match="not on request"):
        two.sender.receive_frame(Want(number, [(0, 10)]))
    offered = two.offer()
    with pytest.raises(ProtocolError, match="not on request"):
        two.sender.receive_frame(Want(offered, [(0, 10)]))


def test_complete_is_for_the_end_or_for_transfers_on_request() -> None:
    two = Two()
    number = two.moving()
    with pytest.raises(ProtocolError, match="before it was finished"):
        two.sender.receive_frame(Complete(number))
    with pytest.raises(ProtocolError, match="out of turn"):
        two.receiver.receive_frame(Finish(number))


def test_scattered_wishes_are_bounded() -> None:
    two = Two()
    number = two.offer(size=1 << 30)
    two.receiver.accept(number, on_request=True)
    two.talk()

    def scatter() -> None:
        for base in range(HEAD, 1 << 20, 4096):
            two.sender.receive_frame(Want(number, [(base + i, base + i + 1) for i in range(0, 2048, 2)]))

    with pytest.raises(ProtocolError, match="scattered"):
        scatter()
    assert len(two.sender._outgoing[number].to_send) <= wire.MAX_GAPS + wire.MAX_ACK_RANGES


# ── hashes, and what is here already ────────────────────────────────────────────────────────────────
def test_part_that_is_here_is_not_sent_again() -> None:
    two = Two()
    number = two.offer()
    two.receiver.accept(number)
    two.talk()
    two.move(1)
    two.receiver.ask_hashes(number, 1000, [(0, 3), (5, 6)])
    two.talk()
    assert ex.HashesAsked(number, 1000, ((0, 3), (5, 6))) in two.events
    digests = os.urandom(4 * HASH_BYTES)
    two.sender.answer_hashes(number, digests)
    two.talk()
    assert ex.HashesArrived(number, 1000, digests) in two.events
    two.receiver.have(number, [(HEAD, HEAD + 3000), (HEAD + 5000, HEAD + 6000)])
    two.receiver.open_window(number)
    two.talk()
    sent = [chunk for _ in range(10) for chunk in two.move(5)]
    assert sum(chunk.length for chunk in sent) == SIZE - HEAD - 4000
    assert two.sender.acknowledged_bytes(number) == SIZE
    two.sender.finish(number)
    two.talk()
    assert ex.AllArrived(number) in two.events


def test_all_of_it_can_be_here() -> None:
    two = Two()
    number = two.offer()
    two.receiver.accept(number)
    two.talk()
    two.move(1)
    two.receiver.have(number, [(HEAD, SIZE)])
    two.receiver.open_window(number)
    two.talk()
    assert two.move(1) == []
    assert ex.AllAcknowledged(number) in two.events
    two.sender.finish(number)
    two.talk()
    assert ex.AllArrived(number) in two.events


@pytest.mark.parametrize(
    ("block_bytes", "blocks"),
    [
        (1000, []),
        (1000, [(0, 0)]),
        (1000, [(3, 2)]),
        (1000, [(-1, 2)]),
        (0, [(0, 1)]),
        (-5, [(0, 1)]),
        (1000, [(0, 11)]),
        (1, [(0, MAX_HASHES + 1)]),
        (1, [(i, i + 1) for i in range(MAX_HASHES + 1)]),
        (10**15, [(0, 1)] * MAX_HASHES),
        (1000, [(0, 2), (1, 3)]),
        (1000, [(5, 6), (0, 1)]),
        (2**62, [(2**62, 2**62 + 1)]),
    ],
    ids=["none", "empty", "backwards", "negative", "no size", "negative size", "beyond the end", "too many",
         "too many in pieces", "the same again and again", "overlapping", "not in order", "absurd"],
)  # fmt: skip
def test_hashes_of_impossible_blocks_are_refused(block_bytes: int, blocks: list[tuple[int, int]]) -> None:
    two = Two()
    number = two.offer()
    two.receiver.accept(number)
    two.talk()
    with pytest.raises(ProtocolError, match="impossible"):
        two.sender.receive_frame(AskHashes(number, block_bytes, blocks))
    assert two.sender.next_event() is None


def test_hashes_are_asked_for_once() -> None:
    """Each answer costs the sender a reading of its disk."""
    two = Two()
    number = two.offer()
    two.receiver.accept(number)
    two.talk()
    two.sender.receive_frame(AskHashes(number, 1000, [(0, 5)]))
    with pytest.raises(ProtocolError, match="out of turn"):
        two.sender.receive_frame(AskHashes(number, 1000, [(5, 6)]))


def test_last_short_block_may_be_asked_for() -> None:
    two = Two()
    number = two.offer()
    two.receiver.accept(number)
    two.talk()
    two.sender.receive_frame(AskHashes(number, 1000, [(9, 10)]))  # 9,900 bytes of content
    assert isinstance(two.sender.next_event(), ex.HashesAsked)


@pytest.mark.parametrize(
    "answer", [Hashes(1, 1000, b""), Hashes(1, 1000, bytes(HASH_BYTES - 1)), Hashes(1, 1000, bytes(2 * HASH_BYTES)),
               Hashes(1, 999, bytes(HASH_BYTES))]
)  # fmt: skip
def test_answer_of_another_length_or_block_is_refused(answer: Hashes) -> None:
    two = Two()
    number = two.offer()
    two.receiver.accept(number)
    two.talk()
    two.move(1)
    two.receiver.ask_hashes(number, 1000, [(0, 1)])
    with pytest.raises(ProtocolError, match="other blocks"):
        two.receiver.receive_frame(answer)


def test_hashes_that_nobody_asked_for_are_refused() -> None:
    two = Two()
    number = two.moving()
    with pytest.raises(ProtocolError, match="nobody asked"):
        two.receiver.receive_frame(Hashes(number, 1000, bytes(HASH_BYTES)))


def test_questions_about_what_is_over_are_ignored() -> None:
    two = Two()
    for frame in (AskHashes(9, 1000, [(0, 1)]), Want(9, [(0, 1)])):
        two.sender.receive_frame(frame)
    two.receiver.receive_frame(Hashes(9, 1000, bytes(HASH_BYTES)))
    two.sender.answer_hashes(9, b"")
    two.receiver.ask_hashes(9, 1000, [(0, 1)])
    two.receiver.have(9, [(0, 10)])
    two.receiver.want(9, [(0, 10)])
    assert two.talk() == []
    assert two.events == []


def test_acceptance_with_ranges_that_are_here_sends_the_rest() -> None:
    two = Two()
    number = two.offer()
    two.sender.receive_frame(Accept(number, SIZE, [(0, 4000), (6000, SIZE)]))
    assert [(c.offset, c.length) for c in iter(lambda: two.sender.next_chunk(1, CHUNK), None)] == [
        (4000, 1000), (5000, 1000),
    ]  # fmt: skip


def test_unsent_chunk_goes_again_and_counts_as_never_sent() -> None:
    two = Two()
    number = two.moving()
    sent = two.sender.sent_bytes(number)
    chunk = two.sender.next_chunk(1, CHUNK)
    assert chunk is not None
    two.sender.unsent(1, chunk)
    assert two.sender.sent_bytes(number) == sent
    assert two.sender.in_flight_bytes(1) == 0
    two.finish(number)
