"""How many guesses at the words one member gives away, by a virtual clock."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from p2pnb.protocol.handshake import GuessBudget
from p2pnb.protocol.wire import WRONG_CODE_REFILL_S, WRONG_CODES_IN_ALL, WRONG_CODES_PER_MEMBER
from tests.pairs.fuzzing import tries


def wrong_join(budget: GuessBudget, now: float) -> bool:
    """One join with wrong words; tells whether it was handled at all."""
    if not budget.take(now):
        return False
    budget.lose(now)
    return True


def test_of_ten_thousand_wrong_joins_at_once_only_the_budget_is_handled() -> None:
    budget = GuessBudget()
    handled = sum(wrong_join(budget, now=i * 0.01) for i in range(10_000))
    assert handled == WRONG_CODES_PER_MEMBER
    assert budget.exhausted and not budget.locked


def test_ten_thousand_wrong_joins_over_weeks_lock_the_room_until_its_owner_unlocks() -> None:
    budget, now, handled = GuessBudget(), 0.0, 0
    for _ in range(10_000):
        now += 100.0
        handled += wrong_join(budget, now)
    assert handled == WRONG_CODES_IN_ALL
    assert budget.locked and not budget.take(now + 1e9), "time alone does not unlock"
    budget.unlock()
    assert sum(wrong_join(budget, now) for _ in range(100)) == WRONG_CODES_PER_MEMBER


def test_lost_guesses_come_back_one_by_one() -> None:
    budget = GuessBudget()
    while wrong_join(budget, 0.0):
        pass
    assert not budget.take(WRONG_CODE_REFILL_S - 1)
    assert budget.take(WRONG_CODE_REFILL_S)
    assert not budget.take(WRONG_CODE_REFILL_S)
    budget.give_back()
    later = WRONG_CODE_REFILL_S * 50
    assert sum(wrong_join(budget, later) for _ in range(100)) == WRONG_CODES_PER_MEMBER


def test_thirty_who_join_at_once_with_the_right_words_all_come_in() -> None:
    """Ten at a time are under way; each success makes room for the next."""
    budget, waiting, under_way, inside = GuessBudget(), 30, 0, 0
    while inside < 30:
        while waiting and budget.take(0.0):
            waiting -= 1
            under_way += 1
        assert not budget.exhausted
        assert under_way > 0, "nobody waits while nobody is served"
        under_way -= 1
        inside += 1
        budget.give_back()
    assert not wrong_join(budget, 0.0) or not budget.locked


@tries(200)
@given(st.lists(st.tuples(st.sampled_from(["take", "give back", "lose", "unlock"]), st.floats(0, 400)), max_size=120))
def test_never_more_than_the_budget_is_out_or_lost_since_the_last_unlock(steps: list[tuple[str, float]]) -> None:
    budget, now, out, lost_at = GuessBudget(), 0.0, 0, list[float]()
    for verb, pause in steps:
        now += pause
        match verb:
            case "take":
                out += budget.take(now)
            case "give back" if out:
                budget.give_back()
                out -= 1
            case "lose" if out:
                budget.lose(now)
                out -= 1
                lost_at.append(now)
            case "unlock":
                budget.unlock()
                lost_at.clear()
        assert 0 <= out <= WRONG_CODES_PER_MEMBER
        recent = [at for at in lost_at if now - at < WRONG_CODE_REFILL_S]
        assert len(recent) <= 2 * WRONG_CODES_PER_MEMBER
        assert len(lost_at) <= WRONG_CODES_IN_ALL + WRONG_CODES_PER_MEMBER
