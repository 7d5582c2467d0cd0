"""How many lanes: simulated lines on which more of them help, hurt, or change nothing."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from p2pnb.protocol.lanes import GAIN, IDLE_S, RETRY_MOST_S, RETRY_S, LaneControl

TICK_S = 0.25
MBIT = 125_000.0

Line = Callable[[float, int], float]  # time, lanes -> bytes per second


@dataclass
class Sender:
    """Bulk on a line, as the engine reports it: new lanes connect a while after they are wanted."""

    line: Line
    most: int = 16
    round_trip_s: float = 0.05
    connect_s: float = 0.4
    noise: float = 0.0
    seed: int = 1
    now: float = 1000.0
    acknowledged: float = 0.0
    lanes: int = 1
    counts: list[tuple[float, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.control = LaneControl(self.most)
        self._random = random.Random(self.seed)
        self._coming: list[float] = []
        self._began = self.now

    def run(self, seconds: float, *, wanting: bool = True) -> Sender:
        end = self.now + seconds
        while self.now < end:
            self.now += TICK_S
            self._coming = [at for at in self._coming if at > self.now or not self._up()]
            if wanting:
                rate = self.line(self.now - self._began, self.lanes)
                self.acknowledged += rate * TICK_S * (1 + self._random.uniform(-self.noise, self.noise))
            before = self.control.count
            count = self.control.observe(
                self.now, int(self.acknowledged), wanting=wanting, lanes=self.lanes, round_trip_s=self.round_trip_s
            )
            assert 1 <= count <= self.most
            if count != before:
                self.counts.append((self.now - self._began, count))
            if count < self.lanes:
                self.lanes, self._coming = count, []
            missing = count - self.lanes - len(self._coming)
            self._coming += [self.now + self.connect_s] * max(0, missing)
        return self

    def _up(self) -> bool:
        self.lanes += 1
        return True

    @property
    def tries(self) -> list[float]:
        """When more lanes were asked for than stood the test before."""
        times, last = [], 1
        for at, count in self.counts:
            if count > last:
                times.append(at)
            last = count
        return times


def flat(rate: float) -> Line:
    return lambda now, lanes: rate


def capped(per_lane: float, cap: float) -> Line:
    """What loss leaves to one lane, up to what the line carries."""
    return lambda now, lanes: min(cap, per_lane * lanes)


def worse(rate: float) -> Line:
    """Lanes that get into each other's way."""
    return lambda now, lanes: rate / lanes**0.5


@pytest.mark.parametrize("rate", [0.05 * MBIT, MBIT, 100 * MBIT, 10_000 * MBIT])
@pytest.mark.parametrize("round_trip_s", [0.0005, 0.05, 0.4])
def test_one_lane_that_fills_the_line_stays_alone(rate: float, round_trip_s: float) -> None:
    sender = Sender(flat(rate), round_trip_s=round_trip_s).run(120)
    assert sender.control.count == sender.lanes == 1
    assert sender.control.holding


def test_vain_tries_become_rarer() -> None:
    sender = Sender(flat(50 * MBIT)).run(900)
    gaps = [later - earlier for earlier, later in zip(sender.tries, sender.tries[1:], strict=False)]
    assert gaps[0] >= RETRY_S
    assert gaps == sorted(gaps)
    assert max(gaps) <= RETRY_MOST_S + 20
    assert len(sender.tries) <= 10, "a quarter of an hour"
    assert max(count for _, count in sender.counts) == 2, "never more than twice what is known to be good"


def test_lanes_starved_by_losses_fill_the_line_within_seconds() -> None:
    """What one association of libwebrtc has at 50 ms and 1 % loss: 0.3 MB/s of 12.5."""
    sender = Sender(capped(0.3e6, 11.5e6), most=48, noise=0.3).run(8)
    assert sender.lanes >= 32


@pytest.mark.parametrize("seed", range(20))
def test_noise_of_a_starved_lane_hides_no_gain(seed: int) -> None:
    sender = Sender(capped(0.3e6, 11.5e6), most=48, noise=0.9, seed=seed).run(12)
    assert sender.lanes >= 8


def test_slow_line_whose_queue_is_full_is_not_taken_for_a_lossy_one() -> None:
    sender = Sender(flat(2 * MBIT), round_trip_s=0.8).run(200)
    assert max(count for _, count in sender.counts) == 2


@pytest.mark.parametrize("cap", [1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 7.9, 8.0, 12.0, 16.0])
@pytest.mark.parametrize("round_trip_s", [0.01, 0.1, 0.3])
def test_lossy_line_is_filled_to_three_quarters_within_half_a_minute(cap: float, round_trip_s: float) -> None:
    line = capped(2 * MBIT, cap * 2 * MBIT)
    sender = Sender(line, round_trip_s=round_trip_s, connect_s=3 * round_trip_s)
    while not sender.control.holding:
        sender.run(TICK_S)
        assert sender.now - 1000 < 30
    sender.run(1)
    rate = line(0, sender.lanes)
    best = max(line(0, lanes) for lanes in range(1, 17))
    assert rate >= 0.75 * best, f"{sender.lanes} lanes: {rate / best:.0%} of what the line carries"


def test_more_than_the_most_is_never_asked_for() -> None:
    sender = Sender(capped(MBIT, 1000 * MBIT), most=6).run(60)
    assert sender.lanes == 6


def test_lanes_that_hurt_are_given_back() -> None:
    sender = Sender(worse(50 * MBIT)).run(30)
    assert sender.lanes == 1


@pytest.mark.parametrize("seed", range(20))
def test_noise_does_not_look_like_gain(seed: int) -> None:
    """±10 % from tick to tick: a climb or two in five minutes by chance, but no way up from chance to chance."""
    sender = Sender(flat(20 * MBIT), noise=0.1, seed=seed).run(300)
    assert sender.lanes <= 2
    assert max(count for _, count in sender.counts) <= 4


def test_noise_hardly_ever_looks_like_gain() -> None:
    kept = sum(Sender(flat(20 * MBIT), noise=0.1, seed=seed).run(60).lanes > 1 for seed in range(100))
    assert kept <= 10


@pytest.mark.parametrize("seed", range(10))
def test_gain_is_found_in_noise(seed: int) -> None:
    line = capped(2 * MBIT, 16 * MBIT)
    sender = Sender(line, noise=0.1, seed=seed).run(60)
    assert line(0, sender.lanes) >= 0.75 * 16 * MBIT


def test_line_that_became_lossy_is_looked_at_again_at_once() -> None:
    """One lane filled it; then loss takes most of that, and more lanes would bring it back."""

    def line(now: float, lanes: int) -> float:
        return 40 * MBIT if now < 30 else min(40 * MBIT, lanes * 5 * MBIT)

    sender = Sender(line).run(30)
    assert sender.lanes == 1
    sender.run(25)
    assert line(60, sender.lanes) >= 0.75 * 40 * MBIT


def test_line_that_became_slow_is_not_climbed_on() -> None:
    """A collapse that more lanes don't mend costs one try, not one after the other."""

    def line(now: float, lanes: int) -> float:
        return 40 * MBIT if now < 30 else 4 * MBIT

    sender = Sender(line).run(60)
    assert sender.lanes == 1
    assert len([at for at in sender.tries if 30 <= at < 50]) <= 2


def test_idle_gives_lanes_back() -> None:
    sender = Sender(capped(MBIT, 8 * MBIT)).run(40)
    assert sender.lanes == 8
    sender.run(IDLE_S / 2, wanting=False)
    assert sender.lanes == 8, "a pause between two files is no end"
    sender.run(IDLE_S, wanting=False)
    assert sender.lanes == 1
    sender.run(40)
    assert sender.lanes == 8, "and they come again with the work"


def test_work_in_short_bursts_does_not_climb() -> None:
    """Between bursts nothing is known of the line: idle time must not be taken for goodput, or the lack of it."""
    sender = Sender(flat(50 * MBIT))
    for _ in range(200):
        sender.run(0.5).run(0.5, wanting=False)
    assert sender.lanes <= 2
    assert max((count for _, count in sender.counts), default=1) <= 2


def test_lanes_that_never_come_up_are_not_waited_for() -> None:
    sender = Sender(capped(MBIT, 8 * MBIT), connect_s=1e9).run(60)
    assert sender.control.count == 1
    assert sender.control.holding
    assert len(sender.tries) <= 3


def test_lane_that_is_lost_does_not_end_the_measuring() -> None:
    sender = Sender(capped(MBIT, 8 * MBIT)).run(40)
    sender.lanes = 5
    sender.run(20)
    assert sender.lanes == sender.control.count == 8, "it is still wanted"


def test_goodput_is_what_was_acknowledged() -> None:
    sender = Sender(flat(10 * MBIT)).run(5)
    assert sender.control.goodput == pytest.approx(10 * MBIT, rel=0.01)
    assert GAIN > 1
