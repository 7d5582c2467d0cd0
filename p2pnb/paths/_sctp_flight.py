"""What one SCTP association has sent and not heard of: acknowledgements, losses, measurements.

Work per SACK is proportional to what is newly acknowledged, not to what is under way: aiortc walks through
everything under way several times per SACK, which at a few hundred packets takes longer than the packets.

A packet counts as lost when something sent clearly later was acknowledged, in order of sending rather than of
sequence numbers (RFC 8985, RFC 9002 §6.1). So a lost retransmission is noticed within a round trip, where
SCTP's count of missing reports waits for its timer of a second or more.

No I/O and no clock in here. Sequence numbers are counted from 0 without wrapping; TSNs exist only at the border.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

__all__ = ["Acknowledged", "Flight", "Piece"]

REORDERING: Final = 3  # packets that may overtake one another before that counts as loss
MAX_REORDERING: Final = 64
TIME_THRESHOLD: Final = 1.125  # of a round trip (RFC 9002 §6.1.2)

_UNDER_WAY: Final = 1
_LOST: Final = 2
_ARRIVED: Final = 3


class Piece:
    """One DATA chunk in its packet, as sent and as sent again. `counted`: its bytes show in `outstanding`."""

    __slots__ = (
        "app_limited",
        "counted",
        "delivered",
        "delivered_at",
        "first_sent_at",
        "order",
        "packet",
        "sent_at",
        "seq",
        "size",
        "state",
        "times",
    )

    def __init__(self, seq: int, packet: bytes, size: int, counted: int) -> None:
        self.seq = seq
        self.packet = packet
        self.size = size
        self.counted = counted
        self.state = 0
        self.times = 0
        self.order = 0
        self.sent_at = 0.0
        self.delivered = 0  # what had been delivered when this left, and when that was; likewise below
        self.delivered_at = 0.0
        self.first_sent_at = 0.0
        self.app_limited = False


@dataclass(slots=True)
class Acknowledged:
    """What one SACK brought. `rtt` and `rate` are 0 where it gave no measure."""

    acked: int = 0
    lost: int = 0
    rtt: float = 0.0
    rate: float = 0.0
    sent_delivered: int = -1
    app_limited: bool = False


class Flight:
    """Everything sent that is not acknowledged cumulatively."""

    def __init__(self) -> None:
        self.in_flight = 0  # bytes believed to be on the line
        self.outstanding = 0  # bytes of messages sent and not acknowledged: on the line or lost
        self.delivered = 0  # bytes acknowledged in all
        self.reordering = REORDERING
        self._pieces: dict[int, Piece] = {}
        self._sent: deque[tuple[int, Piece]] = deque()  # in order of sending, entries of earlier sendings included
        self._lost: deque[Piece] = deque()
        self._order = 0
        self._highest = 0  # the latest in order of sending that arrived
        self._cumulative = -1
        self._next = 0
        self._gaps: list[tuple[int, int]] = []
        self._delivered_at = 0.0
        self._first_sent_at = 0.0
        self._limited_until = 0

    def __len__(self) -> int:
        return len(self._pieces)

    @property
    def cumulative(self) -> int:
        """The highest sequence number up to which everything arrived; -1 at first."""
        return self._cumulative

    @property
    def next(self) -> int:
        """The sequence number of the next new piece."""
        return self._next

    def sent(self, piece: Piece, now: float) -> None:
        """Note that `piece` leaves now, for the first time or again."""
        if not self._pieces:  # nothing was to come; what was only thought lost may still be reported all at once
            self._first_sent_at = self._delivered_at = now
        if piece.times == 0:
            self._pieces[piece.seq] = piece
            self._next = piece.seq + 1
            self.outstanding += piece.counted
        if piece.state != _UNDER_WAY:
            self.in_flight += piece.size
            piece.state = _UNDER_WAY
        self._order += 1
        piece.order = self._order
        piece.times += 1
        piece.sent_at = now
        piece.delivered = self.delivered
        piece.delivered_at = self._delivered_at
        piece.first_sent_at = self._first_sent_at
        piece.app_limited = self.delivered < self._limited_until
        self._sent.append((self._order, piece))

    def ran_dry(self) -> None:
        """Note that there was nothing to send although the window allowed it."""
        self._limited_until = self.delivered + self.in_flight + 1

    def lost(self) -> Piece | None:
        """Return the next piece that has to be sent again; None if there is none."""
        queue = self._lost
        while queue:
            if queue[0].state == _LOST:
                return queue[0]
            queue.popleft()
        return None

    def oldest(self) -> Piece | None:
        """Return the first piece that did not arrive, for a probe."""
        for piece in self._pieces.values():
            if piece.state != _ARRIVED:
                return piece
        return None

    def acknowledged(
        self,
        cumulative: int,
        gaps: Sequence[tuple[int, int]],
        duplicates: int,
        now: float,
        rtt: float,
        least_rtt: float = 0.0,
    ) -> Acknowledged | None:
        """Take a SACK: everything up to `cumulative` arrived, and the ranges of `gaps` (first, last) beyond it.

        `rtt` is the smoothed round trip and `least_rtt` the lowest, 0 if unknown. Returns None if the SACK is older
        than one before, or speaks of what was never sent.
        """
        if cumulative < self._cumulative or cumulative >= self._next:
            return None
        result = Acknowledged()
        newest: Piece | None = None
        if duplicates:  # something was sent again that had arrived: packets overtake one another on this line
            self.reordering = min(MAX_REORDERING, self.reordering + duplicates)
        pop = self._pieces.pop
        for seq in range(self._cumulative + 1, cumulative + 1):
            piece = pop(seq)
            if piece.state != _ARRIVED:
                newest = self._arrived(piece, newest, now, least_rtt)
                result.acked += piece.size
        self._cumulative = cumulative
        if gaps:
            get = self._pieces.get
            for first, last in self._news(gaps):
                for seq in range(first, last + 1):
                    found = get(seq)
                    if found is not None and found.state != _ARRIVED:
                        newest = self._arrived(found, newest, now, least_rtt)
                        result.acked += found.size
        else:
            self._gaps = []
        if newest is not None:
            self._measure(newest, now, least_rtt, result)
        result.lost = self._find_lost(now, rtt)
        return result

    def give_up(self) -> None:
        """Nothing comes back: whatever is not acknowledged cumulatively has to be sent again.

        What the peer reported beyond a gap counts no more, since it may have dropped it (RFC 9260 §6.2.1).
        """
        self._lost.clear()
        self._sent.clear()
        self._gaps = []
        self.in_flight = 0
        self.outstanding = 0
        for piece in self._pieces.values():
            piece.state = _LOST
            self.outstanding += piece.counted
            self._lost.append(piece)

    def clear(self) -> None:
        """Forget everything: the association ended."""
        self._pieces.clear()
        self._sent.clear()
        self._lost.clear()
        self.in_flight = self.outstanding = 0

    # ── inside ──────────────────────────────────────────────────────────────────────────────────────
    def _news(self, gaps: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
        """Return the parts of `gaps` that the SACK before did not have. Both are in ascending order."""
        known, self._gaps = self._gaps, []
        news: list[tuple[int, int]] = []
        at, low = 0, self._cumulative + 1
        for start, end in gaps:
            first, last = start, min(end, self._next - 1)
            if first < low or last < first:  # not ascending, or never sent: the rest can't be trusted
                break
            low = last + 1
            self._gaps.append((first, last))
            while at < len(known) and known[at][1] < first:
                at += 1
            index = at
            while first <= last:
                if index == len(known) or known[index][0] > last:
                    news.append((first, last))
                    break
                if known[index][0] > first:
                    news.append((first, known[index][0] - 1))
                first = max(first, known[index][1] + 1)
                index += 1
        return news

    def _arrived(self, piece: Piece, newest: Piece | None, now: float, least_rtt: float) -> Piece | None:
        if piece.state == _UNDER_WAY:
            self.in_flight -= piece.size
        piece.state = _ARRIVED
        self.outstanding -= piece.counted
        self.delivered += piece.size
        if piece.times > 1 and now - piece.sent_at < 0.8 * least_rtt:
            return newest  # too soon for what was sent again: the first sending did arrive, but late
        self._highest = max(self._highest, piece.order)
        return piece if newest is None or piece.order > newest.order else newest

    def _measure(self, newest: Piece, now: float, least_rtt: float, result: Acknowledged) -> None:
        self._delivered_at = now
        self._first_sent_at = newest.sent_at
        if newest.times == 1:
            result.rtt = now - newest.sent_at
        # over the slower of sending and arriving: acknowledgements may come in heaps
        span = max(now - newest.delivered_at, newest.sent_at - newest.first_sent_at)
        if span > 0 and span >= least_rtt:
            result.rate = (self.delivered - newest.delivered) / span
        result.sent_delivered = newest.delivered
        result.app_limited = newest.app_limited

    def _find_lost(self, now: float, rtt: float) -> int:
        lost = 0
        sent, highest = self._sent, self._highest
        late = now - TIME_THRESHOLD * rtt if rtt > 0 else 0.0
        while sent:
            order, piece = sent[0]
            if piece.state == _UNDER_WAY and piece.order == order:
                if order >= highest:
                    break
                if order + self.reordering > highest and piece.sent_at > late:
                    break
                piece.state = _LOST
                self.in_flight -= piece.size
                self._lost.append(piece)
                lost += piece.size
            sent.popleft()
        return lost
