"""Transfers between two peers: offers, credit, chunks and acknowledged ranges.

Theory of operation. A transfer is a byte stream with a number that its sender chose. Per side and transfer
there is one small machine:

    sender     OFFERED ──Accept──> MOVING ──all acknowledged──> SENT ──Finish──> FINISHED ──Complete──> over
    receiver   OFFERED ──accept()─> MOVING ──all landed and Finish──> ARRIVED ──completed()──> over

and either side may end it at any time (Decline, Cancel). The receiver grants *credit*, the number of bytes
of the stream that may have been sent in all; first just the head, until the caller understood it, then a
window beyond what has landed on its disk or in its memory. Chunks take any path and any order; each path's
unacknowledged ranges are known and go back to be sent again when it is lost. Bytes that come twice are
dropped before the caller sees them.

A receiver that holds a part of such a thing may ask for block hashes (AskHashes) once it knows the head, and then
acknowledge the ranges it has. A transfer accepted *on request* sends only what Want names, has no Finish, and
ends when the receiver says Complete: so several peers serve one receiver. Either side may pause a transfer.

What a peer can't do in its role raises ProtocolError; what merely crossed an ending on its way is ignored.
"""

from __future__ import annotations

from collections import deque
from enum import Enum, auto
from itertools import pairwise
from typing import Final

import msgspec

from p2pnb.errors import ProtocolError
from p2pnb.protocol.ranges import RangeSet
from p2pnb.protocol.session import PathId
from p2pnb.protocol.wire import (
    HASH_BYTES,
    MAX_ACK_RANGES,
    MAX_GAPS,
    MAX_HASHES,
    MAX_HEAD_BYTES,
    MAX_ITEM_NAME_CHARS,
    MAX_OPEN_TRANSFERS,
    MAX_PREVIEW_COLUMNS,
    MAX_PREVIEW_ROWS,
    MAX_SIZE_BYTES,
    WINDOW_BYTES,
    Accept,
    AskHashes,
    Cancel,
    Complete,
    ControlFrame,
    Decline,
    Finish,
    Got,
    Hashes,
    Offer,
    Pause,
    Want,
)

__all__ = [
    "Accepted",
    "AllAcknowledged",
    "AllArrived",
    "CancelledByPeer",
    "Chunk",
    "Completed",
    "Declined",
    "Exchange",
    "ExchangeEvent",
    "HashesArrived",
    "HashesAsked",
    "OfferArrived",
    "PauseChanged",
    "PieceArrived",
]

_MAX_TRANSFER: Final = (1 << 32) - 1
_ACK_FRACTION: Final = 8  # acknowledge after 1/8 of the window has landed
_LEAST_WINDOW: Final = 512 * 1024  # one full chunk, however many transfers share the window
_KINDS: Final = frozenset({"object", "file", "folder"})


# ── events ──────────────────────────────────────────────────────────────────────────────────────────
class OfferArrived(msgspec.Struct, frozen=True):
    """The peer offers something; answer with `accept` or `decline`."""

    offer: Offer


class PieceArrived(msgspec.Struct, frozen=True):
    """New bytes of a transfer; call `landed` with the same range once they are written."""

    transfer: int
    offset: int
    data: memoryview


class AllArrived(msgspec.Struct, frozen=True):
    """Every byte has landed and the sender says its source was whole: finish, then call `completed`."""

    transfer: int


class Accepted(msgspec.Struct, frozen=True):
    """The peer takes the offer; `next_chunk` has work."""

    transfer: int


class Declined(msgspec.Struct, frozen=True):
    """The peer doesn't want it."""

    transfer: int
    reason: str


class AllAcknowledged(msgspec.Struct, frozen=True):
    """Every byte has landed at the peer: check the source, then call `finish` (or `cancel`)."""

    transfer: int


class Completed(msgspec.Struct, frozen=True):
    """The peer has the whole item in its final place."""

    transfer: int


class CancelledByPeer(msgspec.Struct, frozen=True):
    """The peer ended the transfer; `outgoing` tells whether we were its sender."""

    transfer: int
    outgoing: bool
    code: str
    reason: str


class PauseChanged(msgspec.Struct, frozen=True):
    """The peer paused a transfer, or lets it go on; `outgoing` tells whether we are its sender."""

    transfer: int
    outgoing: bool
    paused: bool


class HashesAsked(msgspec.Struct, frozen=True):
    """The receiver of our offer holds a part of something like it: answer with `answer_hashes`."""

    transfer: int
    block_bytes: int
    blocks: tuple[tuple[int, int], ...]


class HashesArrived(msgspec.Struct, frozen=True):
    """The answer to `ask_hashes`."""

    transfer: int
    block_bytes: int
    digests: bytes


ExchangeEvent = (
    OfferArrived
    | PieceArrived
    | AllArrived
    | Accepted
    | Declined
    | AllAcknowledged
    | Completed
    | CancelledByPeer
    | PauseChanged
    | HashesAsked
    | HashesArrived
)


class Chunk(msgspec.Struct, frozen=True, gc=False):
    """What to read and send next."""

    transfer: int
    offset: int
    length: int


class _Phase(Enum):
    OFFERED = auto()
    MOVING = auto()
    SENT = auto()  # sender: all acknowledged
    FINISHED = auto()  # sender: Finish sent
    ARRIVED = auto()  # receiver: all landed and finished


class _Outgoing(msgspec.Struct):
    size: int
    head: int
    phase: _Phase = _Phase.OFFERED
    whole_in_offer: bool = False
    credit: int = 0
    on_request: bool = False
    paused: bool = False  # by us
    paused_by_peer: bool = False
    hashes_asked: tuple[int, int] | None = None  # block size and number of the blocks we were asked about
    sent: int = 0  # bytes given out by next_chunk
    to_send: RangeSet = msgspec.field(default_factory=RangeSet)
    acked: RangeSet = msgspec.field(default_factory=RangeSet)
    in_flight: dict[PathId, RangeSet] = msgspec.field(default_factory=dict)

    @property
    def allowance(self) -> int:
        """Bytes that may still be sent under the credit."""
        if self.paused or self.paused_by_peer:
            return 0
        return self.credit - self.acked.total - self.in_flight_bytes

    @property
    def in_flight_bytes(self) -> int:
        """Bytes sent and not acknowledged."""
        total = 0
        for ranges in self.in_flight.values():
            total += ranges.total
        return total


class _Incoming(msgspec.Struct):
    offer: Offer
    phase: _Phase = _Phase.OFFERED
    credit: int = 0
    window_open: bool = False
    on_request: bool = False
    paused: bool = False  # by us
    paused_by_peer: bool = False
    hashes_asked: tuple[int, int] | None = None  # block size and number of the blocks we asked about
    wanted: RangeSet = msgspec.field(default_factory=RangeSet)  # on request: asked for and not arrived
    finished: bool = False  # Finish came
    arrived: RangeSet = msgspec.field(default_factory=RangeSet)
    landed: RangeSet = msgspec.field(default_factory=RangeSet)
    unreported: RangeSet = msgspec.field(default_factory=RangeSet)  # landed, not yet told


class Exchange:
    """All transfers of one session, both directions."""

    def __init__(self, *, window_bytes: int = WINDOW_BYTES) -> None:
        self.window_bytes = window_bytes  # of all transfers together that come in; may be changed at any time
        self._next_transfer = 1
        self._outgoing: dict[int, _Outgoing] = {}
        self._incoming: dict[int, _Incoming] = {}
        self._last_offered = 0  # highest number of the peer's transfers
        self._turns: deque[int] = deque()  # outgoing transfers with something to send, in turn
        self._frames: deque[ControlFrame] = deque()
        self._waiting_offers: deque[Offer] = deque()  # the peer would decline more than MAX_OPEN_TRANSFERS
        self._announced: set[int] = set()  # outgoing transfers whose offer was sent
        self._events: deque[ExchangeEvent] = deque()
        self.acknowledged_in_all = 0  # bytes sent and acknowledged, of all transfers, ended ones included

    # ── sending side ────────────────────────────────────────────────────────────────────────────────
    def next_transfer(self) -> int:
        """Return the number for a new transfer; also `Offer.transfer` of the offer that follows."""
        number = self._next_transfer
        self._next_transfer += 1
        return number

    def offer(self, offer: Offer) -> None:
        """Offer something under a number from `next_transfer`; it waits while MAX_OPEN_TRANSFERS are open."""
        whole = len(offer.head) + len(offer.content) == offer.size_bytes
        self._outgoing[offer.transfer] = _Outgoing(size=offer.size_bytes, head=offer.head_bytes, whole_in_offer=whole)
        self._waiting_offers.append(offer)

    def next_chunk(self, path: PathId, max_bytes: int) -> Chunk | None:
        """Choose what to send next on `path`, transfers in turn; it counts as sent there. None: nothing may go."""
        for _ in range(len(self._turns)):
            number = self._turns[0]
            self._turns.rotate(-1)
            out = self._outgoing[number]
            allowance = out.allowance
            if allowance < max_bytes and out.to_send.total > allowance and out.in_flight_bytes:
                continue  # more credit is on its way: don't cut a small piece now
            piece = out.to_send.take(min(max_bytes, allowance)) if allowance > 0 else None
            if piece is not None:
                start, end = piece
                if (flying := out.in_flight.get(path)) is None:
                    flying = out.in_flight[path] = RangeSet()
                flying.add(start, end)
                out.sent += end - start
                if not out.to_send:
                    self._turns.remove(number)
                return Chunk(number, start, end - start)
        return None

    def path_lost(self, path: PathId) -> None:
        """What was sent on `path` and not acknowledged has to go again."""
        for number, out in self._outgoing.items():
            lost = out.in_flight.pop(path, None)
            if lost is not None:
                for start, end in lost:
                    self._requeue(number, out, start, end)

    def unsent(self, path: PathId, chunk: Chunk) -> None:
        """Take back a chunk from `next_chunk` that did not go out on `path` after all."""
        out = self._outgoing.get(chunk.transfer)
        if out is not None and (flying := out.in_flight.get(path)) is not None:
            start, end = chunk.offset, chunk.offset + chunk.length
            flying.remove(start, end)
            out.sent -= chunk.length
            self._requeue(chunk.transfer, out, start, end)

    def in_flight_bytes(self, path: PathId) -> int:
        """Bytes sent on `path` that the peer has not acknowledged."""
        return sum(out.in_flight[path].total for out in self._outgoing.values() if path in out.in_flight)

    def sent_bytes(self, transfer: int) -> int:
        """Bytes of an outgoing stream that were sent in chunks, repeated ones included."""
        out = self._outgoing.get(transfer)
        return out.sent if out is not None else 0

    def answer_hashes(self, transfer: int, digests: bytes) -> None:
        """Answer HashesAsked: HASH_BYTES per block, in the order asked."""
        out = self._outgoing.get(transfer)
        if out is not None and out.hashes_asked is not None:
            block_bytes, _ = out.hashes_asked
            self._frames.append(Hashes(transfer, block_bytes, digests))

    def finish(self, transfer: int) -> None:
        """The source was whole and unchanged to the end."""
        out = self._outgoing.get(transfer)
        if out is not None and out.phase is _Phase.SENT:
            out.phase = _Phase.FINISHED
            self._frames.append(Finish(transfer))

    def cancel_outgoing(self, transfer: int, code: str, reason: str) -> None:
        """End a transfer we send."""
        announced = transfer in self._announced
        if self._drop_outgoing(transfer) and announced:
            self._frames.append(Cancel(transfer, True, code, reason))

    # ── receiving side ──────────────────────────────────────────────────────────────────────────────
    def ask_hashes(self, transfer: int, block_bytes: int, blocks: list[tuple[int, int]]) -> None:
        """Ask for the hashes of blocks [first, end) of the content: MAX_HASHES, once, before the window opens."""
        inc = self._incoming.get(transfer)
        if inc is not None and not inc.window_open:
            inc.hashes_asked = (block_bytes, sum(end - first for first, end in blocks))
            self._frames.append(AskHashes(transfer, block_bytes, blocks))

    def accept(self, transfer: int, have: RangeSet | None = None, *, on_request: bool = False) -> None:
        """Take an offer; only the head is let through until `open_window`, or what `want` asks for (`on_request`).

        `have` are ranges of the stream that needn't be sent.
        """
        inc = self._incoming.get(transfer)
        if inc is None or inc.phase is not _Phase.OFFERED:
            return
        inc.phase = _Phase.MOVING
        offer = inc.offer
        if on_request and offer.size_bytes > len(offer.head) + len(offer.content):
            inc.on_request, inc.credit = True, offer.size_bytes
            self._frames.append(Accept(transfer, inc.credit, on_request=True))
            if offer.head_bytes and not offer.head:
                self.want(transfer, [(0, offer.head_bytes)])
            return
        if len(offer.head) + len(offer.content) == offer.size_bytes:
            inc.finished = True  # it all came with the offer
            inc.landed.add(0, offer.size_bytes)
            self._check_arrived(transfer, inc)
            return
        for start, end in [*(have or ()), (0, len(offer.head))]:
            inc.arrived.add(start, end)
            inc.landed.add(start, end)
        inc.credit = inc.landed.total + sum(end - start for start, end in inc.landed.missing(0, offer.head_bytes))
        self._frames.append(Accept(transfer, inc.credit, list(inc.landed)))
        self._check_arrived(transfer, inc)

    def open_window(self, transfer: int) -> None:
        """The head is understood: let the content come."""
        inc = self._incoming.get(transfer)
        if inc is not None and inc.phase is _Phase.MOVING and not inc.finished:
            inc.window_open = True
            self._report(transfer, inc)

    def have(self, transfer: int, ranges: list[tuple[int, int]]) -> None:
        """These ranges of the stream are in their place from an earlier try; the sender hears of it with the window."""
        inc = self._incoming.get(transfer)
        if inc is not None and inc.phase is _Phase.MOVING and not inc.window_open:
            for start, end in ranges:
                inc.arrived.add(start, end)
                inc.landed.add(start, end)
                inc.unreported.add(start, end)

    def want(self, transfer: int, ranges: list[tuple[int, int]]) -> None:
        """Ask for these ranges of a transfer taken `on_request`; ones that arrived before may be asked for again."""
        inc = self._incoming.get(transfer)
        if inc is None or not inc.on_request or not ranges:
            return
        for start, end in ranges:
            inc.wanted.add(start, end)
            inc.arrived.remove(start, end)
            inc.landed.remove(start, end)
            inc.unreported.remove(start, end)  # told after the wish, it would take the wish back
        for i in range(0, len(ranges), MAX_ACK_RANGES):
            self._frames.append(Want(transfer, ranges[i : i + MAX_ACK_RANGES]))

    def landed(self, transfer: int, start: int, end: int) -> None:
        """The bytes [start, end) of a PieceArrived are in their place."""
        inc = self._incoming.get(transfer)
        if inc is None or inc.phase is not _Phase.MOVING:
            return
        inc.landed.add(start, end)
        inc.unreported.add(start, end)
        enough = inc.unreported.total >= self.window_bytes // _ACK_FRACTION or len(inc.unreported) >= MAX_ACK_RANGES
        if enough or inc.landed.total == inc.offer.size_bytes:
            self._report(transfer, inc)
        self._check_arrived(transfer, inc)

    def report_landed(self) -> None:
        """Acknowledge what has landed so far (called by a timer, so that small rests don't wait)."""
        for transfer, inc in self._incoming.items():
            if inc.unreported:
                self._report(transfer, inc)

    @property
    def report_due(self) -> bool:
        """True while something landed that the peer wasn't told."""
        return any(inc.unreported for inc in self._incoming.values())

    def completed(self, transfer: int) -> None:
        """The item is in its final place."""
        inc = self._incoming.pop(transfer, None)
        if inc is not None:
            self._frames.append(Complete(transfer))

    def decline(self, transfer: int, reason: str = "") -> None:
        """Refuse an offer."""
        if self._incoming.pop(transfer, None) is not None:
            self._frames.append(Decline(transfer, reason))

    def cancel_incoming(self, transfer: int, code: str, reason: str) -> None:
        """End a transfer we receive."""
        if self._incoming.pop(transfer, None) is not None:
            self._frames.append(Cancel(transfer, False, code, reason))

    def landed_bytes(self, transfer: int) -> int:
        """Bytes of an incoming stream that are in their place."""
        inc = self._incoming.get(transfer)
        return inc.landed.total if inc is not None else 0

    def acknowledged_bytes(self, transfer: int) -> int:
        """Bytes of an outgoing stream that have landed at the peer."""
        out = self._outgoing.get(transfer)
        return out.acked.total if out is not None else 0

    # ── both ────────────────────────────────────────────────────────────────────────────────────────
    @property
    def moving(self) -> bool:
        """True while bytes are under way or wanted in either direction."""
        return any(o.phase is not _Phase.OFFERED for o in self._outgoing.values()) or any(
            i.phase is _Phase.MOVING for i in self._incoming.values()
        )

    def pause(self, transfer: int, *, outgoing: bool, paused: bool) -> None:
        """Stop a transfer's bytes for a while, or let them go on, from this side; the peer hears of it."""
        side: _Outgoing | _Incoming | None
        side = self._outgoing.get(transfer) if outgoing else self._incoming.get(transfer)
        if side is not None and side.paused != paused:
            side.paused = paused
            if not outgoing or transfer in self._announced:
                self._frames.append(Pause(transfer, outgoing, paused))

    @property
    def has_frames(self) -> bool:
        """True while `next_frame` has something other than offers."""
        return bool(self._frames)

    @property
    def has_chunks(self) -> bool:
        """True while `next_chunk` may have something."""
        return any(self._outgoing[number].allowance > 0 for number in self._turns)

    def receive_frame(self, frame: ControlFrame) -> bool:
        """Take a control frame; False if it isn't one of the exchange's."""
        match frame:
            case Offer():
                self._on_offer(frame)
            case Accept():
                self._on_accept(frame)
            case Decline():
                if self._answered(frame.transfer) and self._drop_outgoing(frame.transfer):
                    self._events.append(Declined(frame.transfer, frame.reason))
            case Got():
                self._on_got(frame)
            case Want():
                self._on_want(frame)
            case Pause():
                self._on_pause(frame)
            case AskHashes():
                self._on_ask_hashes(frame)
            case Hashes():
                self._on_hashes(frame)
            case Finish():
                self._on_finish(frame)
            case Complete():
                self._on_complete(frame)
            case Cancel():
                self._on_cancel(frame)
            case _:
                return False
        return True

    def receive_chunk(self, transfer: int, offset: int, data: memoryview) -> None:
        """Take a chunk; only bytes that are new become events."""
        for start, stop in self.arrived(transfer, offset, offset + len(data)):
            self._events.append(PieceArrived(transfer, start, data[start - offset : stop - offset]))

    def takes(self, transfer: int, start: int, end: int) -> bool:
        """Tell whether all of [start, end) is awaited and new: bytes that may be put straight into their place."""
        inc = self._incoming.get(transfer)
        return (
            inc is not None
            and inc.phase is _Phase.MOVING
            and end <= inc.offer.size_bytes
            and inc.arrived.missing(start, end) == [(start, end)]
            and (not inc.on_request or not inc.wanted.missing(start, end))
        )

    def arrived(self, transfer: int, start: int, end: int) -> list[tuple[int, int]]:
        """Note that [start, end) of a transfer came in; return what of it is new."""
        inc = self._incoming.get(transfer)
        if inc is None:
            return []  # cancelled while this was on its way
        if inc.phase is _Phase.OFFERED:
            raise ProtocolError("chunk of a transfer that was not accepted")
        if end > inc.offer.size_bytes:
            raise ProtocolError(f"chunk beyond the announced size of {inc.offer.size_bytes} bytes")
        new = inc.arrived.missing(start, end)
        if inc.on_request and any(inc.wanted.missing(*piece) for piece in new):
            raise ProtocolError("bytes came that nobody asked for")
        for piece in new:
            inc.arrived.add(*piece)
            inc.wanted.remove(*piece)
        if inc.arrived.total > inc.credit:
            raise ProtocolError("more sent than the credit allows")
        if len(inc.arrived) > MAX_GAPS:
            raise ProtocolError("transfer sent in too many scattered pieces")
        return new

    def frames_to_send(self) -> list[ControlFrame]:
        """Return and forget the control frames that are due, in order."""
        return list(iter(self.next_frame, None))

    def next_frame(self, *, offers: bool = True) -> ControlFrame | None:
        """Return the next control frame that is due; without `offers`, new offers wait (for room in the session)."""
        if self._frames:
            return self._frames.popleft()
        while offers and self._waiting_offers and len(self._announced) < MAX_OPEN_TRANSFERS:
            offer = self._waiting_offers.popleft()
            if offer.transfer in self._outgoing:  # not cancelled meanwhile
                self._announced.add(offer.transfer)
                if self._outgoing[offer.transfer].paused:
                    self._frames.append(Pause(offer.transfer, True, True))
                return offer
        return None

    def next_event(self) -> ExchangeEvent | None:
        """Return the oldest event not taken yet."""
        return self._events.popleft() if self._events else None

    # ── inside ──────────────────────────────────────────────────────────────────────────────────────
    def _on_offer(self, offer: Offer) -> None:
        problem = _offer_problem(offer)
        if problem:
            raise ProtocolError(problem)
        if not self._last_offered < offer.transfer <= _MAX_TRANSFER:
            raise ProtocolError(f"transfer number {offer.transfer} does not follow {self._last_offered}")
        self._last_offered = offer.transfer
        if len(self._incoming) >= MAX_OPEN_TRANSFERS:
            self._frames.append(Decline(offer.transfer, f"more than {MAX_OPEN_TRANSFERS} transfers are open"))
            return
        self._incoming[offer.transfer] = _Incoming(offer)
        self._events.append(OfferArrived(offer))

    def _on_accept(self, frame: Accept) -> None:
        out = self._answered(frame.transfer)
        if out is None:
            return
        if out.phase is not _Phase.OFFERED or out.whole_in_offer:
            raise ProtocolError("transfer accepted twice")
        out.phase = _Phase.MOVING
        if frame.on_request:
            out.on_request, out.credit = True, _checked_credit(frame.credit, out)
            self._events.append(Accepted(frame.transfer))
            return
        _check_ranges(frame.have, out.size)
        for start, end in frame.have:
            out.acked.add(start, end)
        for start, end in out.acked.missing(0, out.size):
            out.to_send.add(start, end)
        if out.to_send:
            self._turns.append(frame.transfer)
        out.credit = _checked_credit(frame.credit, out)
        self._events.append(Accepted(frame.transfer))
        self._check_sent(frame.transfer, out)

    def _on_got(self, frame: Got) -> None:
        out = self._answered(frame.transfer)
        if out is None:
            return
        if out.phase is _Phase.OFFERED:
            raise ProtocolError("bytes acknowledged that were never sent")
        _check_ranges(frame.ranges, out.size)
        under_way = out.in_flight_bytes
        for start, end in frame.ranges:
            out.acked.add(start, end)
            out.to_send.remove(start, end)
            for flying in out.in_flight.values():
                flying.remove(start, end)
        self.acknowledged_in_all += under_way - out.in_flight_bytes  # what the peer had from before is no goodput
        if len(out.acked) > MAX_GAPS:
            raise ProtocolError("transfer acknowledged in too many scattered pieces")
        out.credit = _checked_credit(frame.credit, out)
        if not out.to_send and frame.transfer in self._turns:
            self._turns.remove(frame.transfer)
        self._check_sent(frame.transfer, out)

    def _on_want(self, frame: Want) -> None:
        out = self._answered(frame.transfer)
        if out is None:
            return
        if out.phase is not _Phase.MOVING or not out.on_request:
            raise ProtocolError("bytes wanted of a transfer that is not on request")
        _check_ranges(frame.ranges, out.size)
        for start, end in frame.ranges:
            out.acked.remove(start, end)
            out.to_send.add(start, end)
            for flying in out.in_flight.values():
                flying.remove(start, end)
        if len(out.to_send) > MAX_GAPS:
            raise ProtocolError("transfer wanted in too many scattered pieces")
        if out.to_send and frame.transfer not in self._turns:
            self._turns.append(frame.transfer)

    def _on_pause(self, frame: Pause) -> None:
        outgoing = not frame.by_sender
        side: _Outgoing | _Incoming | None
        side = self._answered(frame.transfer) if outgoing else self._incoming.get(frame.transfer)
        if side is not None and side.paused_by_peer != frame.paused:
            side.paused_by_peer = frame.paused
            self._events.append(PauseChanged(frame.transfer, outgoing, frame.paused))

    def _on_ask_hashes(self, frame: AskHashes) -> None:
        out = self._answered(frame.transfer)
        if out is None:
            return
        count = sum(end - first for first, end in frame.blocks)
        content = out.size - out.head
        last = max((end for _, end in frame.blocks), default=0)
        fits = all(0 <= first < end for first, end in frame.blocks) and (last - 1) * frame.block_bytes < content
        # in order and each once: else one question would make us read the content again and again
        fits = fits and all(one[1] <= other[0] for one, other in pairwise(frame.blocks))
        if out.phase not in (_Phase.OFFERED, _Phase.MOVING) or out.hashes_asked is not None:
            raise ProtocolError("hashes asked for out of turn")  # once: they cost the sender a reading
        if not fits or not 0 < count <= MAX_HASHES or frame.block_bytes < 1 or len(frame.blocks) > MAX_HASHES:
            raise ProtocolError("hashes of impossible blocks asked for")
        out.hashes_asked = (frame.block_bytes, count)
        self._events.append(HashesAsked(frame.transfer, frame.block_bytes, tuple(frame.blocks)))

    def _on_hashes(self, frame: Hashes) -> None:
        inc = self._incoming.get(frame.transfer)
        if inc is None:
            return
        if inc.hashes_asked is None:
            raise ProtocolError("hashes that nobody asked for")
        block_bytes, count = inc.hashes_asked
        inc.hashes_asked = None
        if frame.block_bytes != block_bytes or len(frame.digests) != count * HASH_BYTES:
            raise ProtocolError("hashes of other blocks than those asked for")
        self._events.append(HashesArrived(frame.transfer, block_bytes, frame.digests))

    def _on_finish(self, frame: Finish) -> None:
        inc = self._incoming.get(frame.transfer)
        if inc is None:
            return
        if inc.phase is not _Phase.MOVING or inc.finished or inc.landed.total != inc.offer.size_bytes:
            raise ProtocolError("transfer finished out of turn")
        inc.finished = True
        self._check_arrived(frame.transfer, inc)

    def _on_complete(self, frame: Complete) -> None:
        out = self._answered(frame.transfer)
        if out is None:
            return
        whole = out.whole_in_offer or (out.on_request and out.phase is _Phase.MOVING)
        if out.phase is not _Phase.FINISHED and not whole:
            raise ProtocolError("transfer completed before it was finished")
        self._drop_outgoing(frame.transfer)
        self._events.append(Completed(frame.transfer))

    def _on_cancel(self, frame: Cancel) -> None:
        if frame.by_sender:
            known = self._incoming.pop(frame.transfer, None) is not None
        else:
            known = self._answered(frame.transfer) is not None and self._drop_outgoing(frame.transfer)
        if known:
            self._events.append(CancelledByPeer(frame.transfer, not frame.by_sender, frame.code, frame.reason))

    def _check_sent(self, transfer: int, out: _Outgoing) -> None:
        if out.phase is _Phase.MOVING and not out.on_request and out.acked.total == out.size:
            out.phase = _Phase.SENT
            out.in_flight.clear()
            self._events.append(AllAcknowledged(transfer))

    def _check_arrived(self, transfer: int, inc: _Incoming) -> None:
        if inc.finished and inc.phase is _Phase.MOVING and inc.landed.total == inc.offer.size_bytes:
            inc.phase = _Phase.ARRIVED
            self._events.append(AllArrived(transfer))

    def _report(self, transfer: int, inc: _Incoming) -> None:
        if inc.window_open:
            # never less than granted before: what is under way under the old credit is no offence
            inc.credit = max(inc.credit, min(inc.offer.size_bytes, inc.landed.total + self._fair_window()))
        ranges = list(inc.unreported)
        inc.unreported = RangeSet()
        for i in range(0, max(1, len(ranges)), MAX_ACK_RANGES):
            self._frames.append(Got(transfer, ranges[i : i + MAX_ACK_RANGES], inc.credit))

    def _fair_window(self) -> int:
        """The window of one of the transfers that move: together they keep about one window under way."""
        moving = sum(inc.window_open and not (inc.paused or inc.paused_by_peer) for inc in self._incoming.values())
        return max(min(self.window_bytes, _LEAST_WINDOW), self.window_bytes // max(1, moving))

    def _requeue(self, number: int, out: _Outgoing, start: int, end: int) -> None:
        if out.phase is not _Phase.MOVING:
            return
        for a, b in out.acked.missing(start, end):
            out.to_send.add(a, b)
        if out.to_send and number not in self._turns:
            self._turns.append(number)

    def _answered(self, transfer: int) -> _Outgoing | None:
        """Return the outgoing transfer that a frame is about; None if it is over."""
        out = self._outgoing.get(transfer)
        if out is not None and transfer not in self._announced:
            raise ProtocolError("an answer to an offer that was never made")
        return out

    def _drop_outgoing(self, transfer: int) -> bool:
        if self._outgoing.pop(transfer, None) is None:
            return False
        self._announced.discard(transfer)
        if transfer in self._turns:
            self._turns.remove(transfer)
        return True


def _offer_problem(offer: Offer) -> str:
    """Return what is wrong with an offer's form, or nothing."""
    content_bytes = offer.size_bytes - offer.head_bytes
    checks = (
        (offer.kind in _KINDS, "offer of an unknown kind"),
        (0 <= offer.size_bytes <= MAX_SIZE_BYTES, "offer with an impossible size"),
        (0 <= offer.head_bytes <= min(offer.size_bytes, MAX_HEAD_BYTES), "offer with an impossible head"),
        (len(offer.head) in (0, offer.head_bytes), "offer whose head is not of the announced size"),
        (len(offer.content) in (0, content_bytes), "offer whose content is not of the announced size"),
        (not offer.content or len(offer.head) == offer.head_bytes, "offer with content but no head"),
        (1 <= offer.count <= MAX_SIZE_BYTES or offer.kind == "folder", "offer of no files"),
        (offer.answers >= 0, "offer that answers nothing"),
        (len(offer.name) <= MAX_ITEM_NAME_CHARS, "offer with too long a name"),
        (len(offer.preview.rows) <= MAX_PREVIEW_ROWS, "preview with too many rows"),
        (len(offer.preview.columns) <= MAX_PREVIEW_COLUMNS, "preview with too many columns"),
    )
    return next((text for fine, text in checks if not fine), "")


def _check_ranges(ranges: list[tuple[int, int]], size: int) -> None:
    if len(ranges) > MAX_ACK_RANGES or any(not 0 <= start < end <= size for start, end in ranges):
        raise ProtocolError("acknowledged ranges outside the transfer")


def _checked_credit(credit: int, out: _Outgoing) -> int:
    if not 0 <= credit <= out.size:
        raise ProtocolError("credit outside the transfer")
    return max(credit, out.credit)
