"""Sets of byte ranges [start, end), kept sorted and merged.

Streams grow at their end and are taken from their front, thousands of times a second: both have a short way.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator

__all__ = ["RangeSet"]


class RangeSet:
    """A set of non-negative integers held as disjoint, non-adjacent ranges in ascending order."""

    __slots__ = ("_ends", "_starts", "total")

    def __init__(self, ranges: Iterable[tuple[int, int]] = ()) -> None:
        self._starts: list[int] = []
        self._ends: list[int] = []
        self.total = 0  # how many integers are in the set
        for start, end in ranges:
            self.add(start, end)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return zip(self._starts, self._ends, strict=True)

    def __len__(self) -> int:
        return len(self._starts)

    def __repr__(self) -> str:
        return f"RangeSet({list(self)})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RangeSet) and self._starts == other._starts and self._ends == other._ends

    __hash__ = None  # type: ignore[assignment]

    def add(self, start: int, end: int) -> None:
        """Add [start, end)."""
        if start >= end:
            return
        if not self._ends or start >= self._ends[-1]:
            if self._ends and start == self._ends[-1]:
                self._ends[-1] = end
            else:
                self._starts.append(start)
                self._ends.append(end)
            self.total += end - start
            return
        first = bisect_left(self._ends, start)  # first range that touches or lies behind
        last = bisect_right(self._starts, end)  # one past the last that touches
        if first < last:
            start = min(start, self._starts[first])
            end = max(end, self._ends[last - 1])
            self.total -= sum(self._ends[i] - self._starts[i] for i in range(first, last))
        self._starts[first:last] = [start]
        self._ends[first:last] = [end]
        self.total += end - start

    def remove(self, start: int, end: int) -> None:
        """Remove [start, end), or what of it is there."""
        if self._starts and start <= self._starts[0] < end < self._ends[0]:
            self.total -= end - self._starts[0]
            self._starts[0] = end
            return
        first = bisect_right(self._ends, start)
        last = bisect_left(self._starts, end)
        if start >= end or first >= last:
            return
        left, right = self._starts[first], self._ends[last - 1]
        self.total -= sum(self._ends[i] - self._starts[i] for i in range(first, last))
        keep = [(a, b) for a, b in ((left, start), (end, right)) if a < b]
        self._starts[first:last] = [a for a, _ in keep]
        self._ends[first:last] = [b for _, b in keep]
        self.total += sum(b - a for a, b in keep)

    def missing(self, start: int, end: int) -> list[tuple[int, int]]:
        """Return the parts of [start, end) that are not in the set."""
        if not self._ends or start >= self._ends[-1]:
            return [(start, end)] if start < end else []
        gaps = []
        for i in range(bisect_right(self._ends, start), len(self._starts)):
            a, b = self._starts[i], self._ends[i]
            if a >= end:
                break
            if a > start:
                gaps.append((start, a))
            start = max(start, b)
        if start < end:
            gaps.append((start, end))
        return gaps

    def first(self) -> tuple[int, int] | None:
        """Return the lowest range."""
        return (self._starts[0], self._ends[0]) if self._starts else None

    def take(self, length: int) -> tuple[int, int] | None:
        """Remove and return up to `length` integers from the front."""
        if not self._starts:
            return None
        start, end = self._starts[0], self._ends[0]
        end = min(end, start + length)
        self.remove(start, end)
        return start, end
