"""What the front end is told about a room."""

from __future__ import annotations

import ast
import json
import math
from pathlib import Path

import pytest

from p2pnb.errors import PeerGoneError
from p2pnb.panel import protocol, state
from p2pnb.protocol import wire
from p2pnb.protocol.wire import Column, Preview
from tests.unit.panel.fake_room import (
    FakeItem,
    FakeMessage,
    FakeOffer,
    FakePart,
    FakePeer,
    FakeRoom,
    FakeShare,
    FakeTransfer,
)

SLICES = ("peers", "messages", "transfers", "offers", "shares", "items")


@pytest.fixture
def room() -> FakeRoom:
    return FakeRoom()


def whole(room: FakeRoom) -> dict[str, object]:
    slices = {name: getattr(state, name)(room) for name in ("invite", *SLICES)}
    return {"room": state.room(room, "room"), **slices}


def test_a_lobby_has_nothing() -> None:
    assert state.room(None, "") is None
    assert state.invite(None) is None
    assert [getattr(state, name)(None) for name in SLICES] == [[]] * len(SLICES)


def test_a_closed_room_shows_no_invite_and_no_shares(room: FakeRoom) -> None:
    room.publish("prices", FakeShare())
    assert state.invite(room) is not None
    assert state.shares(room)
    room.state = "closed"
    assert state.invite(room) is None
    assert state.shares(room) == []


def test_the_qr_code_is_rows_of_zeros_and_ones(room: FakeRoom) -> None:
    invite = state.invite(room)
    assert invite is not None
    assert invite["qr"] == ["10", "01"]


def test_everything_can_be_sent_as_strict_json(room: FakeRoom) -> None:
    lone = "\ud800bad"
    room.peers["Ben"] = FakePeer(rtt=math.inf, name=lone)
    room.messages = [FakeMessage("1", lone, time=math.nan)]
    room.transfers = [FakeTransfer(rate=math.inf, eta=math.nan, error=PeerGoneError(lone))]
    room.transfers[0].per_peer = {lone: FakePart(progress=math.nan, error=PeerGoneError())}
    room.offers = [FakeOffer(name=lone)]
    room.shares = {lone: FakeShare(name=lone, owner=lone, time=math.nan, holders=(lone,))}
    room.inbox.items = [FakeItem(name=lone), FakeItem(kind="file", stored=Path(lone))]
    json.dumps(whole(room), allow_nan=False).encode()
    json.dumps(whole(room), allow_nan=False, ensure_ascii=False).encode("utf-8")


def test_a_room_full_of_the_longest_things_makes_a_bounded_message(room: FakeRoom) -> None:
    cell = "x" * 1000
    preview = Preview("t", columns=[Column(cell, cell)] * 500, rows=[[cell] * 500] * 100, text=cell * 100)
    room.inbox.items = [FakeItem(name=cell, preview=preview) for _ in range(5000)]
    room.offers = [FakeOffer(id=str(number), name=cell, preview=preview) for number in range(5000)]
    room.shares = {str(number): FakeShare(cell, cell, holders=(cell,) * 5, preview=preview) for number in range(5000)}
    room.transfers = [FakeTransfer(id=str(number), name=cell) for number in range(5000)]
    room.messages = [FakeMessage(str(number), "hello") for number in range(5000)]
    told = whole(room)
    assert len(told["items"]) == protocol.MAX_ITEMS  # type: ignore[arg-type]
    assert len(told["messages"]) == protocol.MAX_MESSAGES  # type: ignore[arg-type]
    assert len(told["shares"]) == protocol.MAX_SHARES  # type: ignore[arg-type]
    assert len(json.dumps(told)) < 2_000_000


def test_the_newest_items_keep_their_previews_when_there_is_no_room_for_all(room: FakeRoom) -> None:
    preview = Preview("t", text="x" * state.MAX_PREVIEW_CHARS)
    room.inbox.items = [FakeItem(name=str(number), preview=preview) for number in range(protocol.MAX_ITEMS)]
    told = state.items(room)
    assert told[-1]["preview"]["text"]
    assert not told[0]["preview"]["text"]


def test_columns_that_are_not_shown_are_counted(room: FakeRoom) -> None:
    columns = [Column(f"c{number}", "int64") for number in range(50)]
    room.inbox.items = [FakeItem(preview=Preview("t", columns=columns, rows=[["1"] * 50]))]
    preview = state.items(room)[0]["preview"]
    assert len(preview["columns"]) + preview["more_columns"] == 50
    assert len(preview["rows"][0]) == len(preview["columns"])


def test_messages_with_the_same_id_have_different_keys_and_keep_them(room: FakeRoom) -> None:
    room.messages = [FakeMessage("same", "one"), FakeMessage("same", "two")]
    first = [message["key"] for message in state.messages(room)]
    assert len(set(first)) == 2
    room.messages.append(FakeMessage("same", "three"))
    assert [message["key"] for message in state.messages(room)][:2] == first


@pytest.mark.parametrize("name", ["prices", 'a"b', "it's", "back\\slash", "line\nbreak", "日本", '"]; import os #'])
def test_the_line_of_code_is_a_lookup_of_exactly_that_name(room: FakeRoom, name: str) -> None:
    room.inbox.items = [FakeItem(name=name)]
    tree = ast.parse("room" + state.items(room)[0]["code"], mode="eval").body
    assert isinstance(tree, ast.Subscript)
    assert isinstance(tree.slice, ast.Constant)
    assert tree.slice.value == name


def test_files_show_where_they_are(room: FakeRoom) -> None:
    room.inbox.items = [
        FakeItem(kind="file", stored=Path("/data/room/a.txt")),
        FakeItem(kind="folder", stored=[Path("/data/room/x/a"), Path("/data/room/x/b")]),
    ]
    assert [item["path"] for item in state.items(room)] == ["/data/room/a.txt", "/data/room/x"]


def test_who_paused_is_told_for_every_receiver(room: FakeRoom) -> None:
    transfer = FakeTransfer(per_peer={"Ben": FakePart(), "Chiara": FakePart()})
    room.transfers = [transfer]
    assert not state.transfers(room)[0]["paused_here"]
    transfer.per_peer["Chiara"] = FakePart("paused", paused_there=True)
    told = state.transfers(room)[0]
    assert [(part["paused_here"], part["paused_there"]) for part in told["parts"]] == [(False, False), (False, True)]
    assert not told["paused_here"]
    transfer.pause()
    assert state.transfers(room)[0]["paused_here"]


@pytest.mark.parametrize(
    ("changes", "retry"),
    [
        ({}, True),
        ({"direction": "in"}, False),  # its sender has to
        ({"kind": "object"}, False),
        ({"kind": "folder"}, True),
        ({"id": "again"}, False),
        ({"state": "moving"}, False),  # others are still getting it
        ({"state": "cancelled", "per_peer": {"Ben": FakePart("cancelled")}}, False),
    ],
)
def test_only_files_that_failed_on_their_way_out_can_be_tried_again(
    room: FakeRoom, changes: dict[str, object], retry: bool
) -> None:
    fields = {"state": "failed", "per_peer": {"Ben": FakePart("failed"), "Chiara": FakePart("done")}, **changes}
    room.transfers = [FakeTransfer(**fields)]  # type: ignore[arg-type]
    assert state.transfers(room, {"again"})[0]["retry"] is retry


def test_what_was_there_before_is_told(room: FakeRoom) -> None:
    room.transfers = [FakeTransfer(per_peer={"Ben": FakePart(resumed_bytes=700)})]
    assert state.transfers(room)[0]["parts"][0]["resumed_bytes"] == 700


def test_lanes_and_engine_are_told_with_the_path(room: FakeRoom) -> None:
    (peer,) = state.peers(room)
    assert (peer["path"], peer["lanes"], peer["engine"]) == ("webrtc", {"webrtc": 4, "relay": 1}, "aiortc")


def test_own_shares_are_never_pushed_out_by_those_of_others(room: FakeRoom) -> None:
    room.shares = {str(number): FakeShare(name=str(number)) for number in range(protocol.MAX_SHARES)}
    room.shares["mine"] = FakeShare(name="mine", owner="Ada", mine=True)
    told = state.shares(room)
    assert told[0]["key"] == "mine"
    assert len(told) == protocol.MAX_SHARES


def test_columns_can_be_chosen_beyond_those_that_are_shown_but_only_of_what_has_parts(room: FakeRoom) -> None:
    preview = Preview("t", columns=[Column(f"c{number}", "int64") for number in range(wire.MAX_PREVIEW_COLUMNS)])
    room.shares = {"a": FakeShare(preview=preview), "b": FakeShare(preview=preview, sliceable=False)}
    table, other = state.shares(room)
    assert len(table["preview"]["columns"]) == state.MAX_PREVIEW_COLUMNS
    assert table["columns"] == [f"c{number}" for number in range(wire.MAX_PREVIEW_COLUMNS)]
    assert other["columns"] == []


def test_the_longest_key_of_a_share_comes_back_as_it_is(room: FakeRoom) -> None:
    key = f"{'n' * wire.MAX_ITEM_NAME_CHARS} ({'o' * wire.MAX_NAME_CHARS} (999)) (1024)"
    room.shares = {key: FakeShare(name="n" * wire.MAX_ITEM_NAME_CHARS)}
    assert state.shares(room)[0]["key"] == key


def test_a_share_says_where_its_value_will_be_found(room: FakeRoom) -> None:
    room.shares = {'a"b (Ben)': FakeShare(name='a"b')}
    tree = ast.parse("room" + state.shares(room)[0]["code"], mode="eval").body
    assert isinstance(tree, ast.Subscript)
    assert isinstance(tree.slice, ast.Constant)
    assert tree.slice.value == 'a"b'
