"""Many at once, many times over, and hubs that have no time (F21, F28, F32)."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from p2pnb.protocol import records
from tests.integration.faults.conftest import LinedMeeting
from tests.integration.faults.ledger import Ledger
from tests.integration.hostile_hub import HostileHub
from tests.integration.meeting import Meeting, link_of, on_engine, see_each_other, still_lives, until

Open = Callable[..., Ledger]


@pytest.mark.slow
def test_ten_who_join_at_once_and_lose_their_hub_are_all_back_without_a_storm(
    hub: HostileHub, meeting: Meeting
) -> None:
    """F28."""
    meeting.create("Ada")
    with ThreadPoolExecutor(10) as pool:
        rooms = [meeting.rooms[0], *pool.map(meeting.join, [f"P{number}" for number in range(10)])]
    see_each_other(rooms, 15)
    joins = hub.joins
    hub.restarting = True
    hub.restart_empty()
    until(lambda: all(room.state == "reconnecting" for room in rooms), "all noticed")
    hub.restarting = False
    began = time.monotonic()
    see_each_other(rooms, 30)
    until(lambda: all(room.state == "open" for room in rooms), "all are back", 30)
    assert time.monotonic() - began < 30
    assert hub.joins - joins <= 2 * len(rooms), "each came back once, or twice where a try crossed the restart"
    still_lives(*rooms)


@pytest.mark.slow
def test_hub_that_turns_everybody_away_is_asked_ever_more_seldom(lined: LinedMeeting) -> None:
    """F32, with the protocol's own timers: 0.25 s, doubled, with jitter."""
    ada, ben = lined.people("Ada", "Ben")
    line = lined.lines["Ben"]
    line.refusing = True
    line.cut()
    tried = line.tried
    time.sleep(10)
    assert 3 <= line.tried - tried <= 10
    line.refusing = False
    see_each_other([ada, ben], 15)


def test_rekeys_and_wrapping_numbers_under_cuts_are_invisible(
    lined: LinedMeeting, ledger: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """F21: a new key every eight records, and transfer numbers beyond 16 bits."""
    monkeypatch.setattr(records.PathCipher.__init__, "__kwdefaults__", {"rekey_records": 8})
    ada, ben = lined.people("Ada", "Ben", accept=True)
    for room, name in ((ada, "Ben"), (ben, "Ada")):
        on_engine(setattr, link_of(room, name).exchange, "_next_transfer", (1 << 16) - 3)
    book = ledger(ada, ben)
    for number in range(8):
        book.send(ada if number % 2 else ben, 200_000)
        book.say(ada)
        book.say(ben)
        if number % 3 == 0:
            lined.lines["Ada" if number % 2 else "Ben"].cut()
    book.settle(30)
    still_lives(ada, ben)
