"""How many parallel connections bulk should have: found by measuring, not by guessing.

Theory of operation. The sender reports, about twice a second, how many bytes the peer has acknowledged so far and
whether bulk would have taken more lanes' room. From that a small hill climber decides the count:

    MEASURING  the goodput of the present count, for a while           ── more may help ──> SETTLING with twice as many
    SETTLING   the new lanes connect and find their rate               ──────────────────> JUDGING
    JUDGING    their goodput: GAIN better than before? keep them and try more (four times as many, if the gain was
               nearly twofold); else take them back ──> HOLDING
    HOLDING    this count, until the retry time (doubled after each vain try) or a collapse of goodput

One lane is enough on most lines: a try costs a few connections, and is made only while the present ones are the
bottleneck. Lanes are given back when nothing has moved for a while.

A lane that is the bottleneck and has next to nothing under way is held back by losses, not by the line: a full line
has a queue, and the round trip shows it. Then the first try is EAGER times as many: twice as many of so little is
lost in the noise, and climbing by twos takes longer than most transfers.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import Final

__all__ = ["LaneControl"]

LINEAR: Final = 1.6  # a doubling that brought so much is followed by a quadrupling
EAGER: Final = 8
NEXT_TO_NOTHING: Final = 96 * 1024  # bytes under way: a queue of the most modest router and what the line itself holds
ENOUGH_UP: Final = 0.75  # of the new lanes: one whose packets were lost comes later, and is not waited for
GAIN: Final = 1.2  # what a doubling has to bring; less is noise, and every lane costs computing
COLLAPSE: Final = 0.5  # of the goodput that was held: look again
LEAST_WINDOW_S: Final = 0.6  # of one measurement
WINDOW_ROUND_TRIPS: Final = 8
SETTLE_ROUND_TRIPS: Final = 12  # ICE, DTLS and SCTP take about seven, slow start some more
LEAST_SETTLE_S: Final = 0.6
MOST_SETTLE_S: Final = 6.0  # lanes that don't come up by then don't count
RETRY_S: Final = 20.0
RETRY_MOST_S: Final = 160.0
IDLE_S: Final = 8.0  # without work: back to one lane


class _Phase(Enum):
    MEASURING = auto()
    SETTLING = auto()
    JUDGING = auto()
    HOLDING = auto()


class LaneControl:
    """The lanes of one transport between two peers, for what one side sends."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.count = 1  # wanted in all
        self.goodput = 0.0  # bytes per second, of the last full measurement
        self._phase = _Phase.MEASURING
        self._since = 0.0
        self._mark = 0
        self._base = (1, 0.0)  # the count and goodput that the try has to beat
        self._retry_s = RETRY_S
        self._retry_at = 0.0
        self._busy_at = 0.0
        self._begun = False

    @property
    def holding(self) -> bool:
        """True once it is known that more lanes don't help."""
        return self._phase is _Phase.HOLDING

    def observe(self, now: float, acknowledged: int, *, wanting: bool, lanes: int, round_trip_s: float) -> int:
        """Take a report and return the count of lanes wanted.

        acknowledged  bytes the peer has acknowledged so far, in all
        wanting       bulk waits for room on every lane
        lanes         how many stand
        """
        if not wanting:
            if self.count > 1 and now - self._busy_at > IDLE_S:
                self._reset()
            self._begun = False
            return self.count
        self._busy_at = now
        if not self._begun:  # a measurement must not begin before the work did
            self._begun = True
            self._start(now, acknowledged)
            return self.count
        took = now - self._since
        window = max(LEAST_WINDOW_S, WINDOW_ROUND_TRIPS * round_trip_s)
        match self._phase:
            case _Phase.MEASURING:
                if took >= window:
                    self._measured(now, acknowledged)
                    starved = self.count == 1 and 0 < self.goodput * round_trip_s < NEXT_TO_NOTHING
                    self._try_more(now, acknowledged, lanes, EAGER if starved else 2)
            case _Phase.SETTLING:
                settle = max(LEAST_SETTLE_S, SETTLE_ROUND_TRIPS * round_trip_s)
                before = self._base[0]
                enough = lanes - before >= ENOUGH_UP * (self.count - before)
                if (enough and took >= settle) or took >= MOST_SETTLE_S:
                    self._phase = _Phase.JUDGING
                    self._start(now, acknowledged)
            case _Phase.JUDGING:
                if took >= window:
                    self._measured(now, acknowledged)
                    self._judge(now, acknowledged, lanes)
            case _Phase.HOLDING:
                if took >= max(window, 2.0):
                    self._measured(now, acknowledged)
                    collapsed = self.goodput < COLLAPSE * self._base[1]
                    self._start(now, acknowledged)
                    if now >= self._retry_at or collapsed:
                        self._phase = _Phase.MEASURING
        return self.count

    def _try_more(self, now: float, acknowledged: int, lanes: int, factor: int = 2) -> None:
        if self.count >= self.most or lanes < ENOUGH_UP * self.count:
            self._hold(now, acknowledged)
            return
        self._base = (self.count, self.goodput)
        self.count = min(self.most, factor * self.count)
        self._phase = _Phase.SETTLING
        self._start(now, acknowledged)

    def _judge(self, now: float, acknowledged: int, lanes: int) -> None:
        before, goodput = self._base
        if self.goodput >= GAIN * goodput and lanes > before:
            self._retry_s = RETRY_S
            linear = self.goodput >= LINEAR * goodput
            self._try_more(now, acknowledged, lanes, 4 if linear else 2)
            return
        self.count = before
        self._hold(now, acknowledged)
        self._base = (before, max(goodput, self.goodput))

    def _hold(self, now: float, acknowledged: int) -> None:
        self._phase = _Phase.HOLDING
        self._base = (self.count, self.goodput)
        self._retry_at = now + self._retry_s
        self._retry_s = min(RETRY_MOST_S, 2 * self._retry_s)
        self._start(now, acknowledged)

    def _measured(self, now: float, acknowledged: int) -> None:
        self.goodput = (acknowledged - self._mark) / max(now - self._since, 1e-3)

    def _start(self, now: float, acknowledged: int) -> None:
        self._since, self._mark = now, acknowledged

    def _reset(self) -> None:
        self.count = 1
        self._phase = _Phase.MEASURING
        self._retry_s = RETRY_S
