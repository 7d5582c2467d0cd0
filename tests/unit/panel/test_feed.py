"""What a feed promises its front ends."""

from __future__ import annotations

from typing import Any

from p2pnb.panel.feed import PATCH_INTERVAL_S, PROGRESS_INTERVAL_S, SHARES_INTERVAL_S, Feed


class State:
    """Slices a test can change; counts how often each was looked at."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {"room": {"id": "x"}, "messages": [], "transfers": [], "shares": []}
        self.looks = dict.fromkeys(self.values, 0)
        self.feed = Feed({name: lambda name=name: self.look(name) for name in self.values})  # type: ignore[misc]

    def look(self, name: str) -> Any:
        self.looks[name] += 1
        value = self.values[name]
        return list(value) if isinstance(value, list) else value


def say(*keys: str) -> list[dict[str, str]]:
    return [{"key": key} for key in keys]


def test_nothing_is_sent_while_nothing_changed() -> None:
    state = State()
    state.feed.snapshot()
    assert state.feed.next_time() is None
    assert state.feed.patch(0.0) is None
    state.feed.mark("room")  # an event without a difference
    assert state.feed.patch(1.0) is None
    assert state.feed.seq == state.feed.snapshot()["seq"]


def test_patches_are_numbered_without_a_gap_and_a_snapshot_tells_where_they_are() -> None:
    state = State()
    first = state.feed.snapshot()["seq"]
    for step in range(1, 4):
        state.values["room"] = {"id": str(step)}
        state.feed.mark("room")
        patch = state.feed.patch(float(step))
        assert patch is not None
        assert patch["seq"] == first + step
        assert patch["changes"] == {"room": {"id": str(step)}}
    assert state.feed.snapshot()["seq"] == first + 3


def test_a_snapshot_with_unsent_changes_has_a_number_of_its_own() -> None:
    state = State()
    first = state.feed.snapshot()["seq"]
    state.values["room"] = None
    state.feed.mark("room")
    assert state.feed.snapshot()["seq"] == first + 1
    assert state.feed.patch(1.0) is None  # it was in the snapshot


def test_a_flood_of_events_becomes_twenty_patches_a_second() -> None:
    state = State()
    state.feed.snapshot()
    patches = []
    for step in range(1000):  # one second, an event every millisecond
        state.values["room"] = {"id": str(step)}
        state.feed.mark("room")
        patches.append(state.feed.patch(step / 1000))
    sent = [patch for patch in patches if patch is not None]
    assert 15 <= len(sent) <= 1 / PATCH_INTERVAL_S + 1
    assert state.looks["room"] <= len(sent) + 1


def test_progress_goes_four_times_a_second_and_holds_nothing_else_up() -> None:
    state = State()
    state.feed.snapshot()
    progress = shares = others = 0
    for step in range(1000):
        state.values["transfers"] = [{"id": "t", "progress": step / 1000}]
        state.values["room"] = {"id": str(step)}
        state.values["shares"] = [{"key": "s", "version": step}]
        state.feed.mark("transfers", "shares", "room")
        patch = state.feed.patch(step / 1000)
        progress += patch is not None and "transfers" in patch["changes"]
        shares += patch is not None and "shares" in patch["changes"]
        others += patch is not None and "room" in patch["changes"]
    assert 3 <= progress <= 1 / PROGRESS_INTERVAL_S + 1
    assert 1 <= shares <= 1 / SHARES_INTERVAL_S + 1
    assert others >= 15


def test_marking_says_when_to_look_again() -> None:
    state = State()
    state.feed.snapshot()
    assert state.feed.mark("room")
    assert not state.feed.mark("room")
    state.feed.patch(10.0)
    state.feed.mark("room")
    assert state.feed.next_time() == 10.0 + PATCH_INTERVAL_S


def test_only_what_was_added_to_a_growing_list_is_sent() -> None:
    state = State()
    state.values["messages"] = say("a", "b")
    state.feed.snapshot()
    state.values["messages"] = say("a", "b", "c", "d")
    state.feed.mark("messages")
    patch = state.feed.patch(1.0)
    assert patch is not None
    assert patch["appends"] == {"messages": say("c", "d")}
    assert patch["changes"] == {}


def test_a_list_that_dropped_its_oldest_entries_still_only_sends_what_was_added() -> None:
    state = State()
    state.values["messages"] = say("a", "b", "c")
    state.feed.snapshot()
    state.values["messages"] = say("b", "c", "d")
    state.feed.mark("messages")
    patch = state.feed.patch(1.0)
    assert patch is not None
    assert patch["appends"] == {"messages": say("d")}


def test_a_list_that_changed_within_is_sent_whole() -> None:
    state = State()
    state.values["messages"] = say("a", "b")
    state.feed.snapshot()
    for step, changed in enumerate((say("x", "b", "c"), [], say("q")), 1):
        state.values["messages"] = changed
        state.feed.mark("messages")
        patch = state.feed.patch(float(step))
        assert patch is not None
        assert patch["changes"] == {"messages": changed}
