"""Rows, figures and goals.

A *row* is one line of the table of figures to reach. Its function measures *figures* (ours, and the references' in
the same run) into a `Run`; its *goals* judge them. A figure is never lost because another one fails: each is
attempted by itself, and a failed one says why.
"""

from __future__ import annotations

import contextlib
import statistics
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

__all__ = ["ROWS", "Contestant", "Figure", "Goal", "Row", "Run", "Unavailable", "Verdict", "pick", "row"]

BEST, MEDIAN, WORST = "best", "median", "worst"
_MORE_IS_BETTER: Final = frozenset({"MB/s"})


class Unavailable(Exception):
    """This machine or installation can't measure it; the text says what is missing. Not a failure."""


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured quantity: `value` is the one of `samples` (or their median) that counts."""

    name: str
    unit: str
    value: float | None
    samples: tuple[float, ...] = ()
    how: str = ""  # "best", "median", …
    note: str = ""
    problem: str = ""  # why there is no value


@dataclass(frozen=True, slots=True)
class Verdict:
    """A goal, and what became of it. `met` is None if it could not be judged."""

    goal: str
    reached: float | None
    met: bool | None


@dataclass(frozen=True, slots=True)
class Goal:
    """A bound on a figure, or, with `against`, on its ratio to another figure of the row."""

    figure: str
    least: float | None = None
    most: float | None = None
    against: str = ""
    unit: str = ""

    def __str__(self) -> str:
        bound = f"≥ {self.least:g}" if self.least is not None else f"≤ {self.most:g}"
        return f"{self.figure} {bound} {f'× {self.against}' if self.against else self.unit}"

    def judge(self, figures: Mapping[str, Figure]) -> Verdict:
        """Compare with what was measured."""
        reached = self._reached(figures)
        if reached is None:
            return Verdict(str(self), None, None)
        good = (self.least is None or reached >= self.least) and (self.most is None or reached <= self.most)
        return Verdict(str(self), reached, good)

    def _reached(self, figures: Mapping[str, Figure]) -> float | None:
        ours = figures.get(self.figure)
        if ours is None or ours.value is None:
            return None
        if not self.against:
            return ours.value
        other = figures.get(self.against)
        return ours.value / other.value if other is not None and other.value else None


Measure = Callable[["Run"], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table."""

    key: str
    work: str
    goals: tuple[Goal, ...]
    limit_s: float
    measure: Measure


@dataclass(frozen=True, slots=True)
class Contestant:
    """Somebody who is sampled by turns with others: `once` returns MB/s."""

    name: str
    once: Callable[[], Awaitable[float]]
    most: int = 1000  # samples
    hopeless: float = 0.0  # with less than that in all, no further sample is taken


ROWS: Final[dict[str, Row]] = {}


def row(key: str, work: str, *goals: Goal, limit_s: float) -> Callable[[Measure], Measure]:
    """Register a function as the measurement of a row; it is given up after `limit_s`."""

    def register(measure: Measure) -> Measure:
        assert key not in ROWS, key
        ROWS[key] = Row(key, work, goals, limit_s, measure)
        return measure

    return register


@dataclass(slots=True)
class Run:
    """One row being measured. `quick`: small sizes, to see that it works; such figures prove nothing."""

    row: Row
    quick: bool = False
    figures: dict[str, Figure] = field(default_factory=dict)
    failed: bool = False
    began: float = field(default_factory=time.monotonic)

    def say(self, text: str) -> None:
        """Show progress."""
        print(f"  [{time.monotonic() - self.began:6.1f} s] {self.row.key}: {text}", file=sys.stderr, flush=True)

    def add(self, name: str, unit: str, samples: Sequence[float], *, how: str = BEST, note: str = "") -> float:
        """Add a figure; `how` says which of the samples counts."""
        value = pick(samples, unit, how)
        self.figures[name] = Figure(name, unit, value, tuple(samples), how, note)
        shown = ", ".join(f"{sample:.4g}" for sample in samples[:8])
        more = "…" if len(samples) > 8 else ""
        self.say(f"{name}: {value:.4g} {unit}" + (f" ({how} of {shown}{more})" if len(samples) > 1 else ""))
        return value

    @contextlib.contextmanager
    def attempt(self, name: str, unit: str) -> Iterator[None]:
        """Measure a figure within; if that fails the figure says why, and the row goes on."""
        try:
            yield
        except Unavailable as error:
            self.lack(name, unit, f"**** CAN'T BE HAD HERE: {error} ****")
        except Exception as error:  # noqa: BLE001 - whatever it is, the other figures are wanted
            self.failed = True
            self.lack(name, unit, f"{type(error).__name__}: {error}")

    def lack(self, name: str, unit: str, problem: str) -> None:
        """Note that there is no such figure, and why."""
        if name not in self.figures:
            self.figures[name] = Figure(name, unit, None, problem=problem)
        self.say(f"{name}: NOT MEASURED: {problem}")

    async def by_turns(self, rounds: int, contestants: Sequence[Contestant]) -> dict[str, list[float]]:
        """Sample each contestant in turn, so that what disturbs the machine meets all of them; samples by name.

        One that fails has a figure that says why, and is left out of the rounds that follow.
        """
        samples: dict[str, list[float]] = {one.name: [] for one in contestants}
        running = list(contestants)
        for number in range(rounds):
            for one in list(running):
                if number >= one.most:
                    continue
                with self.attempt(one.name, "MB/s"):
                    samples[one.name].append(await one.once())
                    self.say(f"{one.name}: {samples[one.name][-1]:.0f} MB/s")
                if one.name in self.figures or sum(samples[one.name]) < one.hopeless:
                    running.remove(one)
        return samples

    def verdicts(self) -> list[Verdict]:
        """Judge the row's goals by what was measured so far."""
        return [goal.judge(self.figures) for goal in self.row.goals]


def pick(samples: Sequence[float], unit: str, how: str) -> float:
    """Return the sample that counts: the best for this unit, the worst, the median, the first, or e.g. "p99"."""
    if not samples:
        raise ValueError("nothing was measured")
    if how.startswith("p") and how[1:].isdigit():
        ordered = sorted(samples)
        return ordered[min(len(ordered) - 1, int(len(ordered) * int(how[1:]) / 100))]
    if how == MEDIAN:
        return statistics.median(samples)
    if how == "first":
        return samples[0]
    return max(samples) if (how == BEST) == (unit in _MORE_IS_BETTER) else min(samples)
