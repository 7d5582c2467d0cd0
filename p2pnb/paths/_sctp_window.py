"""How much one SCTP association may have under way: a model of the line instead of a reaction to every loss.

SCTP halves its window for each lost packet, so a line that loses one packet in a hundred at random carries
a few percent of what it could. This window follows what the line was measured to do, in the spirit of BBR
(draft-ietf-ccwg-bbr): packets are paced at the highest delivery rate of the last rounds, a little faster and a
little slower in turns so that a higher rate is found and a queue drains, and no more than twice what the line
holds (that rate times the lowest round trip) is under way.

What keeps it fair and safe:

* rate and window are bounded by delivery that was measured, and a rate is forgotten after ten rounds;
* losses with a growing round trip, or above a fifth whatever the round trip, brake both for some rounds;
* every ten seconds it sends half for a moment, to see what the round trip is without its own queue;
* silence collapses it to four packets and a new slow start.

Event loops answer late, and later on a busy computer; `LATE_S` is under way besides, or else a round trip made
longer by the two ends themselves would look like a full line, be answered by sending less, and so on down.

No I/O and no clock in here: times are handed in, in seconds.
"""

from __future__ import annotations

from collections import deque
from typing import Final

__all__ = ["Window"]

INITIAL_PACKETS: Final = 16
MIN_PACKETS: Final = 4
STARTUP_GAIN: Final = 2.5
STARTUP_GROWTH: Final = 1.25  # a round that finds less than this is one of three that end the start
STARTUP_ROUNDS: Final = 3
CRUISE_GAIN: Final = 2.0  # of what the line holds may be under way: acknowledgements come late and in heaps
CYCLE: Final = (1.25, 0.8, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0)  # of the rate, a round trip each
RATE_ROUNDS: Final = 10
RATE_S: Final = 1.0  # rounds can be shorter than a hiccup of the event loop
LATE_S: Final = 0.01
MIN_RTT_S: Final = 10.0
PROBE_RTT_S: Final = 0.2
LOSS_SAMPLE: Final = 100  # packets; in fewer, one lost at random is several percent
LOSS_WITH_DELAY: Final = 0.03
LOSS_ALONE: Final = 0.2
BRAKE: Final = 0.85
RELEASE: Final = 1.1  # per round, so that a brake is off before the rate from before it is forgotten
MIN_BRAKE: Final = 0.5
BURST_S: Final = 0.01  # event loops wake up late; a line holds this much in its queue
BURST_PACKETS: Final = 8


class Window:
    """The congestion window and the pace of one association, in bytes of user data."""

    def __init__(self, packet_bytes: int) -> None:
        self._packet_bytes = packet_bytes
        self.cwnd = INITIAL_PACKETS * packet_bytes
        self.rate = 0.0  # bytes/s: the highest of the last rounds
        self.min_rtt = 0.0  # 0: nothing measured
        self.srtt = 0.0
        self._rttvar = 0.0
        self._min_rtt_at = 0.0
        self._probing_until = 0.0
        self._probe_min = 0.0
        self._rates: deque[tuple[int, float, float]] = deque()  # round, time, rate; rates fall from left to right
        self._round = 0
        self._round_end = 0  # the round ends with the acknowledgement of something sent after this much delivery
        self._lost = 0  # bytes, of the present loss sample; likewise the two below
        self._acked = 0
        self._least_rtt = 0.0
        self._brake = 1.0
        self._starting = True
        self._draining = False
        self._start_rate = 0.0
        self._stale_rounds = 0
        self._phase = 0
        self._budget = 0.0
        self._budget_at = 0.0

    @property
    def capacity(self) -> int:
        """Bytes that keep the line busy in a quiet moment."""
        least = MIN_PACKETS * self._packet_bytes
        if self.rate <= 0 or self.min_rtt <= 0:
            return max(least, self.cwnd)
        return max(least, min(self.cwnd, int(1.5 * self._held)))

    @property
    def pace(self) -> float:
        """Bytes per second at which packets leave; 0: not known yet, at once."""
        if self.srtt <= 0:
            return 0.0
        if self.rate <= 0 or self._starting:
            return STARTUP_GAIN * max(self.rate, self.cwnd / STARTUP_GAIN / self.srtt)
        least = MIN_PACKETS * self._packet_bytes / self.srtt  # or else a rate that fell could never be seen to rise
        if self._draining:
            return max(least, self.rate / STARTUP_GAIN)
        return max(least, CYCLE[self._phase] * self._brake * self.rate)

    @property
    def probe_timeout(self) -> float:
        """Seconds after which silence asks for a probe; the peer may acknowledge up to 200 ms late (RFC 9260)."""
        return 1.0 if self.srtt <= 0 else 1.5 * self.srtt + 4 * self._rttvar + 0.05

    def acknowledged(
        self, now: float, acked: int, lost: int, rtt: float, rate: float, sent_delivered: int, delivered: int,
        app_limited: bool, in_flight: int,
    ) -> None:  # fmt: skip
        """Take what one SACK said.

        `acked` and `lost` are bytes newly known so; `rtt` and `rate` (bytes/s) are 0 where it gave no measure;
        `sent_delivered` is what had been delivered when the newest of the acknowledged left, `delivered` is
        that figure now; `app_limited`: the sender had nothing more to send then, so the line may be faster;
        `in_flight`: bytes still under way.
        """
        if rtt > 0:
            self._measured(now, rtt)
        self._acked += acked
        self._lost += lost
        if rate > 0 and (not app_limited or rate > self.rate):
            rates = self._rates
            while rates and rates[-1][2] <= rate:
                rates.pop()
            rates.append((self._round, now, rate))
            self.rate = rates[0][2]
        if sent_delivered >= self._round_end and acked:
            self._round_end = delivered
            self._next_round(now, app_limited)
        if self._draining and in_flight <= self._held:
            self._draining = False
        self._resize(acked)

    def collapse(self) -> None:
        """Nothing comes back: begin again with little."""
        self.cwnd = MIN_PACKETS * self._packet_bytes
        self.rate = 0.0
        self._rates.clear()
        self._starting, self._draining, self._start_rate, self._stale_rounds = True, False, 0.0, 0
        self._lost = self._acked = 0
        self._brake = 1.0

    def allowance(self, now: float) -> float:
        """Return how many bytes may leave at this moment so that they don't leave in one burst."""
        pace = self.pace
        if pace <= 0:
            return float(self.cwnd)
        most = max(BURST_PACKETS * self._packet_bytes, pace * BURST_S)
        self._budget = min(most, self._budget + (now - self._budget_at) * pace)
        self._budget_at = now
        return self._budget

    def spent(self, size: int) -> None:
        """Note that `size` bytes left."""
        self._budget -= size

    # ── inside ──────────────────────────────────────────────────────────────────────────────────────
    @property
    def _held(self) -> float:
        return self.rate * (self.min_rtt + LATE_S)

    def _measured(self, now: float, rtt: float) -> None:
        if self.srtt <= 0:
            self.srtt, self._rttvar = rtt, rtt / 2
        else:
            self._rttvar += (abs(self.srtt - rtt) - self._rttvar) / 4
            self.srtt += (rtt - self.srtt) / 8
        if self.min_rtt <= 0 or rtt <= self.min_rtt:
            self.min_rtt, self._min_rtt_at = rtt, now
        if self._probing_until:
            self._probe_min = min(self._probe_min or rtt, rtt)
        self._least_rtt = min(self._least_rtt or rtt, rtt)

    def _next_round(self, now: float, app_limited: bool) -> None:
        self._round += 1
        self._phase = (self._phase + 1) % len(CYCLE)
        self._brake = min(1.0, self._brake * RELEASE)
        if not app_limited:
            rates = self._rates
            while len(rates) > 1 and rates[0][0] < self._round - RATE_ROUNDS and rates[0][1] < now - RATE_S:
                rates.popleft()
            if rates:
                self.rate = rates[0][2]
            if self._starting:
                self._see_whether_it_grows()
        if self._acked + self._lost >= LOSS_SAMPLE * self._packet_bytes:
            self._heed_losses()
        self._probe_rtt(now)

    def _see_whether_it_grows(self) -> None:
        if self.rate >= self._start_rate * STARTUP_GROWTH:
            self._start_rate, self._stale_rounds = self.rate, 0
        else:
            self._stale_rounds += 1
            if self._stale_rounds >= STARTUP_ROUNDS:
                self._starting, self._draining = False, True

    def _heed_losses(self) -> None:
        loss = self._lost / (self._acked + self._lost)
        delayed = self._least_rtt > 1.25 * self.min_rtt + LATE_S / 2
        if loss > LOSS_ALONE or (loss > LOSS_WITH_DELAY and delayed):
            self._brake = max(MIN_BRAKE, self._brake * BRAKE)
            if loss > LOSS_ALONE and delayed:  # the line is not what it was
                while len(self._rates) > 1:
                    self._rates.popleft()
                self.rate = self._rates[0][2] if self._rates else self.rate
            self._draining = self._draining or self._starting
            self._starting = False
        self._acked = self._lost = 0
        self._least_rtt = 0.0

    def _probe_rtt(self, now: float) -> None:
        if self._probing_until:
            if now >= self._probing_until:
                self.min_rtt, self._min_rtt_at = self._probe_min or self.srtt, now
                self._probing_until = 0.0
        elif now - self._min_rtt_at > MIN_RTT_S and not self._starting:
            self._probing_until = now + max(PROBE_RTT_S, self.srtt)
            self._probe_min = 0.0

    def _resize(self, acked: int) -> None:
        if self.rate <= 0 or self.min_rtt <= 0:
            self.cwnd += acked
            return
        held = self._held
        if self._starting:
            self.cwnd = max(self.cwnd, min(self.cwnd + acked, int(STARTUP_GAIN * held)))
            return
        gain = 0.5 if self._probing_until else CRUISE_GAIN * self._brake
        target = max(MIN_PACKETS * self._packet_bytes, int(gain * held))
        self.cwnd = target if self.cwnd >= target else min(target, self.cwnd + acked)
