"""Shares: published by name, seen by everybody, fetched whole or in part, and served by whoever holds them."""

from __future__ import annotations

import asyncio
import concurrent.futures
import gc
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest

from p2pnb.engine.holdings import Holding
from p2pnb.engine.sharing import MAX_INTRODUCED, Sharing
from p2pnb.errors import (
    CorruptDataError,
    NotSupportedError,
    P2PError,
    PeerGoneError,
    RoomClosedError,
    SourceChangedError,
    TransferCancelledError,
    TransferError,
    UsageError,
    WaitTimeoutError,
)
from p2pnb.objects import slices
from p2pnb.protocol import wire
from p2pnb.protocol.serving import MAX_NEWS_RANGES
from p2pnb.protocol.wire import ControlFrame, Preview
from p2pnb.room import Room
from p2pnb.shares import Share
from tests.integration.hostile_hub import Delivery, HostileHub
from tests.integration.meeting import Meeting, link_of, on_engine, peer_id, see_each_other, still_lives, until

BULK_BYTES = 100_000  # payloads above this are bulk
WAIT_S = 20.0


def shown(room: Room, name: str, version: int = 1) -> Share:
    """Wait until `room` knows this version of a share."""
    return until(
        lambda: room.shares.get(name) if name in room.shares and room.shares[name].version >= version else None,
        f"{room.name} sees {name!r} version {version}",
    )


def sharing(room: Room) -> Sharing:
    assert room._member is not None
    return room._member.sharing


def holding(room: Room) -> Holding:
    """Return the one content that this room pulled."""
    (found,) = sharing(room)._holdings.values()
    return found


def some_bytes(count: int = 3_000_000, seed: int = 1) -> bytes:
    return np.random.default_rng(seed).bytes(count)


def table(rows: int = 200_000) -> pd.DataFrame:
    random = np.random.default_rng(5)
    return pd.DataFrame({"open": random.random(rows), "close": random.random(rows), "day": np.arange(rows)})


def idle(*rooms: Room) -> None:
    """Nothing of any pull is left open."""
    for room in rooms:
        mine = sharing(room)
        until(lambda mine=mine: not mine._pulls and not mine._requests, f"{room.name}'s pulls are over")  # type: ignore[misc]
        until(lambda mine=mine: not mine._answers, f"{room.name} answers nobody")  # type: ignore[misc]


class Stall:
    """Holds bulk from one peer back at the hub once `after` pieces of it passed."""

    def __init__(self, hub: HostileHub, source: Room, to: Room | None = None, after: int = 3) -> None:
        self._hub, self._source, self._to = hub, peer_id(source), peer_id(to) if to is not None else None
        self._left = after
        self._kept: list[Delivery] = []
        self.stalled = threading.Event()
        self._open = False
        hub.on_payload = self._pass

    def _pass(self, delivery: Delivery) -> list[Delivery]:
        mine = delivery.source == self._source and self._to in (None, delivery.destination)
        if self._open or not mine or not delivery.is_record:
            return [delivery]
        self._left -= len(delivery.payload) > BULK_BYTES
        if self._left >= 0 or (len(delivery.payload) <= BULK_BYTES and not self._kept):
            return [delivery]
        self._kept.append(delivery)  # records of a path come in order, or not at all
        self.stalled.set()
        return []

    def release(self) -> None:
        self._open = True
        for kept in self._kept:
            self._hub.inject(kept.room, kept.source, kept.destination, kept.payload)


# ── what everybody sees ─────────────────────────────────────────────────────────────────────────────
def test_everybody_sees_the_preview_those_who_come_late_too(meeting: Meeting) -> None:
    ada, ben = meeting.people("Ada", "Ben")
    frame = table(1000)
    mine = ada.share("prices", frame)
    carl = meeting.join("Carl")
    for room in (ben, carl):
        share = shown(room, "prices")
        assert (share.name, share.owner, share.version, share.mine, share.gone) == ("prices", "Ada", 1, False, False)
        assert share.type == "pandas.DataFrame"
        assert share.preview.summary == "1,000 rows × 3 columns"
        assert [column.name for column in share.preview.columns] == ["open", "close", "day"]
        assert share.size_bytes == mine.size_bytes >= frame.memory_usage(index=False).sum()
        assert share.sliceable
        assert share.time == mine.time
        assert share.holders == ("Ada",)
        assert "prices" in repr(share) and "prices" in repr(room.shares)
    assert mine.mine and ada.shares["prices"] is mine
    assert ada.shares["prices"].fetch() is frame


def test_news_of_shares_are_told_to_callbacks(meeting: Meeting) -> None:
    ada, ben = meeting.people("Ada", "Ben")
    heard: list[tuple[str, int, bool]] = []
    ben.on("share", lambda share: heard.append((share.name, share.version, share.gone)))
    ada.share("numbers", [1])
    until(lambda: heard == [("numbers", 1, False)])
    ada.share("numbers", [1, 2])
    until(lambda: heard[-1] == ("numbers", 2, False))
    ada.unshare("numbers")
    until(lambda: heard[-1] == ("numbers", 2, True))


def test_two_owners_of_one_name_are_told_apart_and_own_shares_keep_the_plain_name(meeting: Meeting) -> None:
    ada, ben, carl = meeting.people("Ada", "Ben", "Carl")
    ada.share("prices", [1])
    shown(carl, "prices")
    shown(ben, "prices")
    ben.share("prices", [2])
    second = shown(carl, "prices (Ben)")
    assert (carl.shares["prices"].owner, second.owner, second.name) == ("Ada", "Ben", "prices")
    assert (carl.shares["prices"].fetch(timeout=WAIT_S), second.fetch(timeout=WAIT_S)) == ([1], [2])
    assert (ben.shares["prices"].mine, ben.shares["prices (Ada)"].owner) == (True, "Ada")
    ada.unshare("prices")
    until(lambda: "prices" not in carl.shares)
    assert carl.shares["prices (Ben)"] is second, "a name never comes to mean somebody else's"
    with pytest.raises(KeyError, match=r"did you mean 'prices \(Ben\)'"):
        carl.shares["prices"]


# ── fetching ────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize(
    "value",
    [
        table(),
        np.random.default_rng(3).random((1000, 400)),
        some_bytes(),
        b"",
        {"small": [1, 2.5, None, "ü"]},
        np.zeros(0),
        list(range(50_000)),
    ],
    ids=["frame", "array", "bytes", "nothing", "small", "empty-array", "long-list"],
)
def test_a_fetched_value_is_equal(meeting: Meeting, value: Any) -> None:
    ada, ben = meeting.people("Ada", "Ben")
    ada.share("thing", value)
    share = shown(ben, "thing")
    got = share.fetch(timeout=WAIT_S)
    assert type(got) is type(value)
    if isinstance(value, pd.DataFrame):
        pd.testing.assert_frame_equal(got, value)
    elif isinstance(value, np.ndarray):
        np.testing.assert_array_equal(got, value)
    else:
        assert got == value
    again = share.fetch(timeout=WAIT_S)
    assert again is not got or value == b"", "each call has a value of its own"
    assert ben.transfers[-1].state == "done"
    assert ben.transfers[-1].progress == 1.0
    assert "thing" not in ben.inbox
    idle(ada, ben)


def test_the_newest_version_is_known_and_fetched(meeting: Meeting) -> None:
    ada, ben = meeting.people("Ada", "Ben")
    ada.share("count", [1])
    share = shown(ben, "count")
    assert not share.newer
    assert share.fetch(timeout=WAIT_S) == [1]
    ada.share("count", [2])
    assert shown(ben, "count", 2) is share
    assert share.newer
    assert share.fetch(timeout=WAIT_S) == [2]
    assert not share.newer
    assert len(sharing(ada)._versions) == 1, "old versions are let go"


def test_a_share_can_be_awaited(meeting: Meeting) -> None:
    ada, ben = meeting.people("Ada", "Ben")
    ada.share("count", [1])
    share = shown(ben, "count")
    assert asyncio.run(share.afetch(timeout=WAIT_S)) == [1]


def test_pull_brings_the_value_into_the_inbox(meeting: Meeting) -> None:
    ada, ben = meeting.people("Ada", "Ben")
    data = some_bytes()
    ada.share("data", data)
    transfer = shown(ben, "data").pull()
    assert transfer.result(WAIT_S).state == "done"
    assert (transfer.name, transfer.direction, transfer.peers) == ("data", "in", ("Ada",))
    assert transfer in ben.transfers
    assert ben.receive("data", WAIT_S) == data
    assert ben.inbox.all()[-1].sender == "Ada"
    with pytest.raises(UsageError, match="your own share"):
        ada.shares["data"].pull()


def test_a_small_accept_limit_does_not_matter_to_what_is_fetched(meeting: Meeting) -> None:
    ada, ben = meeting.create("Ada"), meeting.join("Ben", accept=False)
    see_each_other([ada, ben])
    ada.share("data", some_bytes(100_000))
    assert len(shown(ben, "data").fetch(timeout=WAIT_S)) == 100_000


# ── parts ───────────────────────────────────────────────────────────────────────────────────────────
def _polars() -> Any:
    import polars

    return polars.from_pandas(table(1000))


def _arrow() -> Any:
    import pyarrow

    return pyarrow.Table.from_pandas(table(1000), preserve_index=False)


@pytest.mark.parametrize("make", [lambda: table(1000), _polars, _arrow], ids=["pandas", "polars", "arrow"])
def test_columns_and_rows_of_a_table(meeting: Meeting, make: Callable[[], Any]) -> None:
    value = make()
    ada, ben = meeting.people("Ada", "Ben")
    ada.share("prices", value)
    share = shown(ben, "prices")
    part = share.fetch(columns=["day", "open"], rows=(10, 20), timeout=WAIT_S)
    assert type(part) is type(value)
    assert [str(name) for name in getattr(part, "column_names", getattr(part, "columns", None))] == ["day", "open"]
    days = part["day"].to_numpy()
    np.testing.assert_array_equal(days, np.arange(10, 20))
    assert len(share.fetch(rows=5, timeout=WAIT_S)) == 5
    assert len(share.fetch(rows=slice(990, None), timeout=WAIT_S)) == 10
    assert len(share.fetch(rows=slice(5, 7), columns="day", timeout=WAIT_S)) == 2
    assert len(share.fetch(rows=(5000, 6000), timeout=WAIT_S)) == 0
    assert len(ada.shares["prices"].fetch(columns=["day"], rows=3)) == 3
    idle(ada, ben)


def test_rows_of_an_array(meeting: Meeting) -> None:
    ada, ben = meeting.people("Ada", "Ben")
    value = np.arange(2_000_000).reshape(-1, 4)
    ada.share("grid", value)
    np.testing.assert_array_equal(shown(ben, "grid").fetch(rows=(7, 100_000), timeout=WAIT_S), value[7:100_000])


def test_a_part_moves_no_more_than_the_part(meeting: Meeting, hub: HostileHub) -> None:
    ada, ben = meeting.people("Ada", "Ben")
    ada.share("prices", table(500_000))
    share = shown(ben, "prices")
    before = len(hub.recording)
    share.fetch(columns=["day"], rows=1000, timeout=WAIT_S)
    assert len(hub.recording) - before < 50_000


@pytest.mark.parametrize(
    ("part", "says"),
    [
        ({"columns": ["opne"]}, "There is no column 'opne'; did you mean 'open'?"),
        ({"columns": ["open", "open"]}, "Column 'open' was named twice"),
        ({"columns": []}, "columns are names"),
        ({"columns": [1]}, "columns are names"),
        ({"rows": (5, 1)}, "Rows 5 to 1"),
        ({"rows": -3}, "Rows 0 to -3"),
        ({"rows": slice(None, None, 2)}, "a slice with a step"),
        ({"rows": "all"}, "rows are a slice"),
    ],
)
def test_a_part_that_does_not_exist_is_a_usage_error_that_says_so(
    meeting: Meeting, part: dict[str, Any], says: str
) -> None:
    ada, ben = meeting.people("Ada", "Ben")
    ada.share("prices", table(100))
    with pytest.raises(UsageError) as caught:
        shown(ben, "prices").fetch(**part, timeout=WAIT_S)
    assert says in str(caught.value)
    idle(ada, ben)
    still_lives(ada, ben)


def test_parts_of_what_has_none_are_refused_at_once(meeting: Meeting) -> None:
    ada, ben = meeting.people("Ada", "Ben")
    ada.share("text", "hello")
    with pytest.raises(UsageError, match="no columns or rows"):
        shown(ben, "text").fetch(rows=3)


def test_equal_parts_are_cut_once_however_many_ask(meeting: Meeting, monkeypatch: pytest.MonkeyPatch) -> None:
    rooms = meeting.people("Ada", "Ben", "Carl", "Dora")
    cut = 0
    whole = slices.slice_value

    def counted(*args: Any) -> Any:
        nonlocal cut
        cut += 1
        return whole(*args)

    monkeypatch.setattr(slices, "slice_value", counted)
    rooms[0].share("prices", table())
    shares = [shown(room, "prices") for room in rooms[1:]]
    with concurrent.futures.ThreadPoolExecutor() as pool:
        parts = list(pool.map(lambda share: share.fetch(columns=["day"], rows=100_000, timeout=WAIT_S), shares))
    assert [len(part) for part in parts] == [100_000] * 3
    assert cut == 1


# ── taking back, leaving, changing ──────────────────────────────────────────────────────────────────
def test_what_is_taken_back_vanishes_everywhere(meeting: Meeting) -> None:
    ada, ben = meeting.people("Ada", "Ben")
    mine = ada.share("secret", [1])
    share = shown(ben, "secret")
    ada.unshare("secret")
    until(lambda: "secret" not in ben.shares)
    assert share.gone and mine.gone
    assert "secret" not in ada.shares
    with pytest.raises(PeerGoneError, match="not shared any more"):
        share.fetch()
    with pytest.raises(UsageError, match="You don't share 'secret'"):
        ada.unshare("secret")
    ada.share("secret", [2])
    again = shown(ben, "secret")
    assert (again.version, again.fetch(timeout=WAIT_S)) == (1, [2])


def test_taking_back_during_a_fetch_is_told_to_both(meeting: Meeting, hub: HostileHub) -> None:
    ada, ben = meeting.people("Ada", "Ben")
    ada.share("data", some_bytes())
    stall = Stall(hub, ada)
    transfer = shown(ben, "data").pull()
    assert stall.stalled.wait(WAIT_S)
    ada.unshare("data")
    until(lambda: not sharing(ada)._versions and not sharing(ada)._answers)
    stall.release()
    with pytest.raises(TransferError, match=r"stopped sharing 'data'|cancelled"):
        transfer.result(WAIT_S)
    idle(ada, ben)
    still_lives(ada, ben)


def test_an_owner_that_leaves_takes_its_shares_along(meeting: Meeting) -> None:
    ada, ben = meeting.people("Ada", "Ben")
    ada.share("data", [1])
    share = shown(ben, "data")
    ada.leave()
    until(lambda: share.gone)
    assert not ben.shares
    with pytest.raises(PeerGoneError):
        share.fetch()


def test_an_owner_that_leaves_during_a_fetch_ends_it_clearly(meeting: Meeting, hub: HostileHub) -> None:
    ada, ben = meeting.people("Ada", "Ben")
    ada.share("data", some_bytes())
    stall = Stall(hub, ada)
    transfer = shown(ben, "data").pull()
    assert stall.stalled.wait(WAIT_S)
    ada.leave()
    hub.on_payload = lambda delivery: [delivery]
    link = link_of(ben, "Ada")
    on_engine(link.end, "The peer left the room.")
    with pytest.raises(PeerGoneError, match="left"):
        transfer.result(WAIT_S)
    idle(ben)


def test_a_fetch_goes_on_without_its_owner_if_somebody_else_holds_it_all(meeting: Meeting, hub: HostileHub) -> None:
    ada, ben, carl = meeting.people("Ada", "Ben", "Carl")
    data = np.frombuffer(some_bytes(6_000_000), dtype=np.uint8)
    ada.share("data", data)
    kept = shown(ben, "data").fetch(timeout=WAIT_S)
    stall = Stall(hub, ada, to=carl, after=2)
    transfer = shown(carl, "data").pull()
    assert stall.stalled.wait(WAIT_S)
    pulling = transfer._inner.pulling
    until(lambda: pulling is not None and peer_id(ben) in pulling.sources, "Ben is asked, too")
    on_engine(link_of(carl, "Ada").end, "The peer left the room.")
    transfer.result(WAIT_S)
    np.testing.assert_array_equal(carl.inbox["data"], data)
    assert kept is not None


def test_a_newer_version_does_not_spoil_a_fetch_of_the_older_one(meeting: Meeting, hub: HostileHub) -> None:
    ada, ben = meeting.people("Ada", "Ben")
    first, second = some_bytes(seed=1), some_bytes(seed=2)
    ada.share("data", first)
    stall = Stall(hub, ada)
    transfer = shown(ben, "data").pull()
    assert stall.stalled.wait(WAIT_S)
    ada.share("data", second)
    assert len(sharing(ada)._versions) == 2
    stall.release()
    transfer.result(WAIT_S)
    assert ben.inbox["data"] == first
    until(lambda: len(sharing(ada)._versions) == 1)
    assert shown(ben, "data", 2).newer
    assert ben.shares["data"].fetch(timeout=WAIT_S) == second


def test_a_value_changed_in_place_since_it_was_shared_is_never_taken_for_the_shared_one(meeting: Meeting) -> None:
    ada, ben, carl = meeting.people("Ada", "Ben", "Carl")
    data = np.frombuffer(some_bytes(), dtype=np.uint8).copy()
    ada.share("data", data)
    shown(ben, "data").fetch(timeout=WAIT_S)
    data[1_500_000] ^= 1
    share = shown(carl, "data")
    on_engine(sharing(ben)._holdings.clear)
    with pytest.raises(SourceChangedError, match="Ask Ada to share it again"):
        share.fetch(timeout=WAIT_S)
    ada.share("data", data)
    shown(carl, "data", 2)
    np.testing.assert_array_equal(share.fetch(timeout=WAIT_S), data)


# ── many ────────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.slow
def test_eight_who_fetch_at_once_cost_the_owner_at_most_three_times_the_content(
    meeting: Meeting, hub: HostileHub
) -> None:
    """The best of three: all nine share one interpreter, and pullers that get no turn look slow to each other."""
    ada, *others = meeting.people("Ada", *(f"Pupil {number}" for number in range(8)))
    costs = []
    for version in range(1, 4):
        data = np.frombuffer(some_bytes(12_000_000), dtype=np.uint8)
        ada.share("lesson", data)
        shares = [shown(room, "lesson", version) for room in others]
        hub.deliveries.clear()
        hub.recording.clear()
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            values = list(pool.map(lambda share: share.fetch(timeout=60), shares))
        for value in values:
            np.testing.assert_array_equal(value, data)
        uploaded = sum(len(delivery.payload) for delivery in list(hub.deliveries) if delivery.source == peer_id(ada))
        costs.append(uploaded / len(data))
        idle(ada, *others)
        assert set(ada.shares["lesson"].holders) == {"Ada", *(room.name for room in others)}
        if costs[-1] <= 3:
            return
    pytest.fail(f"the owner uploaded {costs} times the content")


def test_several_fetches_of_the_same_from_one_room_go_on_side_by_side(meeting: Meeting) -> None:
    ada, ben = meeting.people("Ada", "Ben")
    data = some_bytes()
    ada.share("data", data)
    ada.share("prices", table())
    whole, part = shown(ben, "data"), shown(ben, "prices")
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        wholes = [pool.submit(whole.fetch, timeout=WAIT_S) for _ in range(4)]
        parts = [pool.submit(part.fetch, rows=100_000, timeout=WAIT_S) for _ in range(4)]
        assert all(future.result() == data for future in wholes)
        assert all(len(future.result()) == 100_000 for future in parts)
    idle(ada, ben)


def test_over_direct_tcp_bytes_land_in_their_place(meeting: Meeting) -> None:
    ada, *others = meeting.people("Ada", "Ben", "Carl", relay="fallback")
    for room in (ada, *others):
        until(lambda room=room: all(peer.path == "tcp" for peer in room.peers.values()), "direct paths")  # type: ignore[misc]
    data = np.frombuffer(some_bytes(20_000_001), dtype=np.uint8)
    ada.share("data", data)
    shares = [shown(room, "data") for room in others]
    with concurrent.futures.ThreadPoolExecutor() as pool:
        for value in pool.map(lambda share: share.fetch(timeout=WAIT_S), shares):
            np.testing.assert_array_equal(value, data)
    part = shares[0].fetch(rows=(5_000_000, 15_000_000), timeout=WAIT_S)
    np.testing.assert_array_equal(part, data[5_000_000:15_000_000])
    assert "tcp" in next(iter(others[0].transfers[0].per_peer.values())).paths
    idle(ada, *others)


def test_who_is_asked_before_it_knows_what_it_gets_answers_as_soon_as_it_does(
    meeting: Meeting, hub: HostileHub
) -> None:
    ada, ben, carl = meeting.people("Ada", "Ben", "Carl")
    data = np.frombuffer(some_bytes(), dtype=np.uint8)
    ada.share("data", data)
    mine, theirs = shown(ben, "data"), shown(carl, "data")
    from_ada, to_ben, kept = peer_id(ada), peer_id(ben), []

    def hold(delivery: Delivery) -> list[Delivery]:
        if (delivery.source, delivery.destination) != (from_ada, to_ben):
            return [delivery]
        kept.append(delivery)
        return []

    hub.on_payload = hold
    transfer = mine.pull()
    until(lambda: kept, "Ada answered")
    theirs.fetch(timeout=WAIT_S)
    until(lambda: sharing(ben)._early, "Carl asked Ben")
    hub.on_payload = lambda delivery: [delivery]
    for delivery in kept:
        hub.inject(delivery.room, delivery.source, delivery.destination, delivery.payload)
    transfer.result(WAIT_S)
    np.testing.assert_array_equal(ben.inbox["data"], data)
    assert not sharing(ben)._early
    idle(ada, ben, carl)


def test_a_holder_serves_those_who_come_later(meeting: Meeting, hub: HostileHub) -> None:
    ada, ben, carl = meeting.people("Ada", "Ben", "Carl")
    data = np.frombuffer(some_bytes(8_000_000), dtype=np.uint8)
    ada.share("data", data)
    kept = shown(ben, "data").fetch(timeout=WAIT_S)
    hub.deliveries.clear()
    np.testing.assert_array_equal(shown(carl, "data").fetch(timeout=WAIT_S), kept)
    by_ben = sum(len(delivery.payload) for delivery in list(hub.deliveries) if delivery.source == peer_id(ben))
    assert by_ben > len(data) // 4
    assert until(lambda: "Ben" in carl.shares["data"].holders)
    assert ben.shares["data"].holders[:2] == ("Ada", "Ben")
    idle(ada, ben, carl)


def test_a_holder_whose_value_is_gone_keeps_no_copy_and_says_so(
    meeting: Meeting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("p2pnb.engine.pull.LINGER_S", 0.0)
    ada, ben, carl = meeting.people("Ada", "Ben", "Carl")
    data = np.frombuffer(some_bytes(), dtype=np.uint8)
    ada.share("data", data)
    kept = shown(ben, "data").fetch(timeout=WAIT_S)
    held = holding(ben)
    assert held.alive
    del kept
    until(lambda: (gc.collect(), not held.alive)[1], "the memory of the value is free")
    np.testing.assert_array_equal(shown(carl, "data").fetch(timeout=WAIT_S), data)
    idle(ada, ben, carl)


def test_a_holder_that_changed_its_value_in_place_serves_nothing_wrong_and_is_not_accused(meeting: Meeting) -> None:
    ada, ben, carl = meeting.people("Ada", "Ben", "Carl")
    data = np.frombuffer(some_bytes(), dtype=np.uint8)
    ada.share("data", data)
    kept = shown(ben, "data").fetch(timeout=WAIT_S)
    kept[:] = 0
    np.testing.assert_array_equal(shown(carl, "data").fetch(timeout=WAIT_S), data)
    assert carl.notices == []
    idle(ada, ben, carl)


class _Lies:
    """A content whose every byte is wrong."""

    def __init__(self, honest: Any) -> None:
        self._honest = honest
        self.content_bytes = honest.content_bytes
        self.asked = 0

    def read(self, offset: int, length: int) -> bytes:
        self.asked += 1
        return bytes(byte ^ 0xFF for byte in bytes(self._honest.read(offset, length)))


def test_a_holder_that_serves_wrong_bytes_is_found_out_and_the_fetch_succeeds(
    meeting: Meeting, hub: HostileHub
) -> None:
    ada, eve, carl = meeting.people("Ada", "Eve", "Carl")
    data = np.frombuffer(some_bytes(4_000_000), dtype=np.uint8)
    ada.share("data", data)
    kept = shown(eve, "data").fetch(timeout=WAIT_S)
    lies = _Lies(holding(eve).content)
    holding(eve).content = lies
    got = shown(carl, "data").fetch(timeout=WAIT_S)
    np.testing.assert_array_equal(got, kept)
    assert lies.asked, "Eve was asked"
    (notice,) = carl.notices
    assert isinstance(notice, CorruptDataError)
    assert "Eve sent wrong bytes for 'data'" in str(notice)
    idle(ada, carl)
    still_lives(ada, eve, carl)


# ── giving up ───────────────────────────────────────────────────────────────────────────────────────
def test_a_fetch_that_takes_too_long_is_given_up_on_both_sides(meeting: Meeting, hub: HostileHub) -> None:
    ada, ben = meeting.people("Ada", "Ben")
    ada.share("data", some_bytes())
    share = shown(ben, "data")
    stall = Stall(hub, ada)
    with pytest.raises(WaitTimeoutError, match=r"not fetched within 0\.5 s"):
        share.fetch(timeout=0.5)
    until(lambda: ben.transfers[-1].state == "cancelled")
    stall.release()
    idle(ada, ben)
    assert len(share.fetch(timeout=WAIT_S)) == 3_000_000


def test_a_pull_can_be_cancelled_and_paused(meeting: Meeting, hub: HostileHub) -> None:
    ada, ben = meeting.people("Ada", "Ben")
    data = some_bytes()
    ada.share("data", data)
    stall = Stall(hub, ada)
    transfer = shown(ben, "data").pull()
    assert stall.stalled.wait(WAIT_S)
    transfer.cancel()
    with pytest.raises(TransferCancelledError, match="You cancelled fetching 'data'"):
        transfer.result(WAIT_S)
    stall.release()
    idle(ada, ben)
    transfer = ben.shares["data"].pull()
    on_engine(transfer._inner.pause, True)
    on_engine(transfer._inner.pause, False)
    transfer.result(WAIT_S)
    assert ben.inbox["data"] == data


def test_leaving_ends_what_is_being_fetched(meeting: Meeting, hub: HostileHub) -> None:
    ada, ben = meeting.people("Ada", "Ben")
    ada.share("data", some_bytes())
    stall = Stall(hub, ada)
    share = shown(ben, "data")
    transfer = share.pull()
    assert stall.stalled.wait(WAIT_S)
    hub.on_payload = lambda delivery: [delivery]
    ben.leave()
    with pytest.raises(RoomClosedError):
        transfer.result(WAIT_S)
    with pytest.raises(RoomClosedError):
        share.fetch()
    with pytest.raises(RoomClosedError):
        ben.share("late", [1])


def test_callbacks_may_not_wait_for_a_fetch(meeting: Meeting) -> None:
    ada, ben = meeting.people("Ada", "Ben")
    raised: list[BaseException] = []

    def fetch(share: Share) -> None:
        try:
            share.fetch()
        except P2PError as error:
            raised.append(error)

    ben.on("share", fetch)
    ada.share("data", [1])
    until(lambda: raised)
    assert isinstance(raised[0], UsageError)


@pytest.mark.parametrize("name", ["", "   ", "x" * 256, "a\nb", "a\u202eb"])
def test_bad_names_are_refused(meeting: Meeting, name: str) -> None:
    ada = meeting.create("Ada")
    with pytest.raises(UsageError, match="name"):
        ada.share(name, [1])


def test_values_that_cannot_travel_are_refused_at_once(meeting: Meeting) -> None:
    ada = meeting.create("Ada")
    with pytest.raises(NotSupportedError):
        ada.share("lambda", lambda: None)
    assert not ada.shares


def test_a_lost_hub_does_not_lose_a_fetch(meeting: Meeting, hub: HostileHub) -> None:
    ada, ben = meeting.people("Ada", "Ben")
    data = some_bytes(8_000_000)
    ada.share("data", data)
    seen = 0

    def cut_once(delivery: Delivery) -> list[Delivery]:
        nonlocal seen
        seen += len(delivery.payload) > BULK_BYTES
        return [delivery]

    hub.on_payload = cut_once
    transfer = shown(ben, "data").pull()
    until(lambda: seen > 5, timeout=WAIT_S)
    hub.cut()
    transfer.result(60)
    assert ben.inbox["data"] == data
    assert ben.shares["data"].version == 1


# ── hostile peers ───────────────────────────────────────────────────────────────────────────────────
ROOT = bytes(32)
NEWS = wire.ShareNews(99, 1, "x", 10, Preview("x"))
HOSTILE: list[ControlFrame] = [
    wire.ShareNews(0, 1, "x", 10, Preview("x")),
    wire.ShareNews(99, 0, "x", 10, Preview("x")),
    wire.ShareNews(99, 1, "x", -1, Preview("x")),
    wire.ShareNews(99, 1, "x", 1 << 60, Preview("x")),
    wire.ShareNews(99, 1, "x" * 256, 10, Preview("x")),
    wire.ShareNews(99, 1, "x", 10, Preview("x", rows=[[]] * 11)),
    wire.Pull(1, b"short", 1, 1),
    wire.Pull(1, bytes(16), 1, 0),
    wire.Pull(0, bytes(16), 1, 1),
    wire.Pull(1, bytes(16), 1, 1, rows=(5, 1)),
    wire.Pull(1, bytes(16), 1, 1, rows=(-5, 1)),
    wire.Pull(1, bytes(16), 1, 1, columns=["x"] * 10_001),
    wire.Pull(1, bytes(16), 1, 1, root=b"no root"),
    wire.ShareSources(1, 1, [bytes(16)] * (MAX_INTRODUCED + 1)),
    wire.ShareSources(1, 1, [b"short"]),
    wire.ShareBlocks(bytes(16), 1, 1, [(0, 1)] * (MAX_NEWS_RANGES + 1)),
]
HARMLESS: list[ControlFrame] = [
    wire.ShareGone(12345),
    wire.PullRefused(12345, "UsageError", "never asked"),
    wire.ShareSources(12345, 1, [bytes(16)]),
    wire.ShareBlocks(bytes(16), 1, 1, [(0, 1)]),
    wire.Pull(1, bytes(16), 1, 1),  # of a share whose owner is not here
    wire.Pull(2, bytes(16), 1, 1, columns=["x"], root=ROOT),
]


@pytest.mark.parametrize("frame", HOSTILE, ids=lambda frame: type(frame).__name__)
def test_hostile_frames_end_the_offenders_path_and_nothing_else(meeting: Meeting, frame: ControlFrame) -> None:
    ada, eve, ben = meeting.people("Ada", "Eve", "Ben")
    ada.share("data", [1])
    shown(ben, "data")
    path = link_of(ada, "Eve")._relay
    on_engine(link_of(eve, "Ada").send, frame)
    until(lambda: link_of(ada, "Eve")._relay is not path, "the path is given up")
    assert ben.shares["data"].fetch(timeout=WAIT_S) == [1]
    still_lives(ada, ben)
    still_lives(ada, eve)


@pytest.mark.parametrize("frame", HARMLESS, ids=lambda frame: type(frame).__name__)
def test_frames_that_crossed_an_ending_or_name_what_is_not_here_end_nothing(
    meeting: Meeting, frame: ControlFrame
) -> None:
    ada, eve = meeting.people("Ada", "Eve")
    path = link_of(ada, "Eve")._relay
    on_engine(link_of(eve, "Ada").send, frame)
    still_lives(ada, eve)
    assert link_of(ada, "Eve")._relay is path
    assert not ada.shares


def test_a_flood_of_shares_ends_at_the_limit(meeting: Meeting) -> None:
    ada, eve = meeting.people("Ada", "Eve")

    def flood() -> None:
        link = link_of(eve, "Ada")
        for number in range(1, wire.MAX_SHARES + 2):
            link.send(wire.ShareNews(number, 1, f"share {number}", 10, Preview("x")))

    path = link_of(ada, "Eve")._relay
    on_engine(flood)
    until(lambda: link_of(ada, "Eve")._relay is not path, "the path is given up")
    assert len(ada.shares) == wire.MAX_SHARES


def test_names_and_previews_of_others_are_made_safe_to_show(meeting: Meeting) -> None:
    ada, eve = meeting.people("Ada", "Eve")
    evil = "\x1b[31m\u202ename\n"
    on_engine(link_of(eve, "Ada").send, wire.ShareNews(1, 1, evil, 10, Preview(evil, evil, [wire.Column(evil, evil)])))
    (share,) = until(lambda: list(ada.shares.values()))
    for text in (share.name, share.type, share.preview.summary, share.preview.columns[0].name, repr(share)):
        assert text.isprintable()


def test_an_answer_that_lies_about_itself_ends_the_fetch_with_a_reason(
    meeting: Meeting, monkeypatch: pytest.MonkeyPatch
) -> None:
    ada, ben = meeting.people("Ada", "Ben")
    ada.share("data", some_bytes())
    share = shown(ben, "data")
    share.fetch(timeout=WAIT_S)  # the answer is prepared
    (version,) = sharing(ada)._versions.values()
    (held,) = version.holdings
    held.manifest = bytes(len(held.manifest))
    with pytest.raises(CorruptDataError, match="not the one that was announced"):
        share.fetch(timeout=WAIT_S)
    idle(ada, ben)
    still_lives(ada, ben)
