"""Somebody with the wrong words: told at once, seen by the others, and never more than a few tries (T2, T3)."""

from __future__ import annotations

import time

import pytest

from p2pnb.errors import RoomLockedError, WrongCodeError
from p2pnb.protocol.wire import WRONG_CODES_PER_MEMBER, HandshakeType
from p2pnb.room import Room
from tests.integration.hostile_hub import Delivery, HostileHub
from tests.integration.meeting import Meeting, peer_id, see_each_other, still_lives, until

_BEFORE_CONFIRMATION = {HandshakeType.HELLO, HandshakeType.KEYSHARE, HandshakeType.CONFIRM, HandshakeType.REJECT}


def _try_wrong(meeting: Meeting, count: int) -> list[type[Exception]]:
    outcomes: list[type[Exception]] = []
    for _ in range(count):
        with pytest.raises((WrongCodeError, RoomLockedError)) as told:
            meeting.join("Eve", meeting.wrong_invite())
        outcomes.append(told.type)
    return outcomes


def test_wrong_code_is_told_on_both_sides_within_two_seconds(meeting: Meeting) -> None:
    ada = meeting.create("Ada")
    seen: list[Exception] = []
    ada.on("notice", seen.append)
    began = time.monotonic()
    with pytest.raises(WrongCodeError, match="not this room's"):
        meeting.join("Eve", meeting.wrong_invite())
    until(lambda: seen, "Ada is told", 2)
    assert time.monotonic() - began < 2
    assert [type(error) for error in seen] == [WrongCodeError]
    assert ada.notices == seen
    assert "Nothing was exchanged" in str(seen[0])


def test_nothing_but_the_handshake_is_exchanged_with_a_wrong_code(hub: HostileHub, meeting: Meeting) -> None:
    ada = meeting.create("Ada")
    peers: list[object] = []
    ada.on("peer", peers.append)
    with pytest.raises(WrongCodeError):
        meeting.join("Eve", meeting.wrong_invite())
    until(lambda: ada.notices, "Ada is told", 2)
    assert {delivery.kind for delivery in hub.deliveries} <= _BEFORE_CONFIRMATION
    assert hub.deliveries
    assert (peers, dict(ada.peers)) == ([], {})
    still_lives(ada, meeting.join("Ben"))


def test_a_wrong_guesser_in_the_middle_of_others_disturbs_nobody(meeting: Meeting) -> None:
    ada, ben = meeting.people("Ada", "Ben")
    assert _try_wrong(meeting, 3) == [WrongCodeError] * 3
    assert (set(ada.peers), set(ben.peers)) == ({"Ben"}, {"Ada"})
    still_lives(ada, ben)


def _used_up(meeting: Meeting, *rooms: Room) -> None:
    """Guess until every member's budget is gone."""
    outcomes = _try_wrong(meeting, WRONG_CODES_PER_MEMBER + 2)
    assert outcomes[:WRONG_CODES_PER_MEMBER] == [WrongCodeError] * WRONG_CODES_PER_MEMBER
    assert outcomes[WRONG_CODES_PER_MEMBER:] == [RoomLockedError] * 2
    for room in rooms:
        until(lambda room=room: room.locked, f"{room.name} is locked")  # type: ignore[misc]


def test_budget_locks_the_room_for_newcomers_and_not_for_members(hub: HostileHub, meeting: Meeting) -> None:
    ada, ben = meeting.people("Ada", "Ben")
    _used_up(meeting, ada, ben)
    with pytest.raises(RoomLockedError, match="unlock"):
        meeting.join("Carl")
    assert any(isinstance(notice, RoomLockedError) for notice in ada.notices)
    still_lives(ada, ben)
    hub.cut(peer_id(ben))
    until(lambda: ben.state != "open" or ada.peers["Ben"].state == "here")
    still_lives(ada, ben)


def test_owner_unlocks_for_every_member(meeting: Meeting) -> None:
    ada, ben = meeting.people("Ada", "Ben")
    _used_up(meeting, ada, ben)
    ada.unlock()
    until(lambda: not ben.locked, "Ben heard it")
    assert not ada.locked
    see_each_other([ada, ben, meeting.join("Carl")])
    assert _try_wrong(meeting, 1) == [WrongCodeError]


def test_unlock_of_somebody_else_counts_only_for_himself(meeting: Meeting) -> None:
    ada, ben = meeting.people("Ada", "Ben")
    _used_up(meeting, ada, ben)
    ben.unlock()
    still_lives(ben, ada)  # in order: Ada has heard the unlock as well
    assert ada.locked
    assert not ben.locked


def test_guesses_of_many_at_once_stay_within_the_budget(hub: HostileHub, meeting: Meeting) -> None:
    """The tags given away are counted at the hub: each is one guess."""
    ada = meeting.create("Ada")
    me = peer_id(ada)
    tags: list[Delivery] = []

    def count(delivery: Delivery) -> list[Delivery]:
        if delivery.source == me and delivery.kind == HandshakeType.CONFIRM:
            tags.append(delivery)
        return [delivery]

    hub.on_payload = count
    _try_wrong(meeting, 2 * WRONG_CODES_PER_MEMBER)
    assert len(tags) == WRONG_CODES_PER_MEMBER


def test_right_codes_cost_no_budget(meeting: Meeting) -> None:
    ada = meeting.create("Ada")
    for _ in range(2 * WRONG_CODES_PER_MEMBER):
        with meeting.join("Ben"):
            pass
    assert not ada.locked
    assert ada.notices == []
