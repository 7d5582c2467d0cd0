"""A `RangeSet` is a set of integers, whatever is done to it; the model is a Python set."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from p2pnb.protocol.ranges import RangeSet
from tests.pairs.fuzzing import tries

BORDER = st.integers(0, 60)
STEP = st.tuples(st.sampled_from(["add", "remove", "take"]), BORDER, BORDER)


@tries(300)
@given(st.lists(STEP, max_size=30), BORDER, BORDER)
def test_it_behaves_as_a_set_of_integers(steps: list[tuple[str, int, int]], low: int, high: int) -> None:
    ranges, model = RangeSet(), set[int]()
    for verb, start, end in steps:
        match verb:
            case "add":
                ranges.add(start, end)
                model |= set(range(start, end))
            case "remove":
                ranges.remove(start, end)
                model -= set(range(start, end))
            case _:
                taken = ranges.take(start + 1)
                if taken is None:
                    assert not model
                else:
                    first, stop = taken
                    assert first == min(model) and 0 < stop - first <= start + 1
                    assert set(range(first, stop)) <= model
                    assert stop - first == start + 1 or stop not in model
                    model -= set(range(first, stop))
        held = list(ranges)
        assert {i for a, b in held for i in range(a, b)} == model
        assert ranges.total == len(model)
        assert len(ranges) == len(held)
        assert all(a < b for a, b in held)
        assert all(before[1] < after[0] for before, after in pairwise(held)), "merged and in order"
        assert ranges.first() == (held[0] if held else None)
    gaps = ranges.missing(low, high)
    assert {i for a, b in gaps for i in range(a, b)} == set(range(low, high)) - model
    assert ranges == RangeSet(sorted(ranges, reverse=True))


def test_numbers_far_beyond_memory_cost_nothing() -> None:
    ranges = RangeSet([(0, 1 << 50), (1 << 51, 1 << 52)])
    assert ranges.total == (1 << 50) + (1 << 51)
    assert ranges.missing(0, 1 << 52) == [(1 << 50, 1 << 51)]
