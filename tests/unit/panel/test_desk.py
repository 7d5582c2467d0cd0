"""Commands and what comes back, with the desk's own thread running."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from p2pnb.errors import PeerGoneError, WrongCodeError
from p2pnb.panel.desk import Desk
from tests.unit.panel.fake_room import (
    FakeItem,
    FakeMessage,
    FakeOffer,
    FakeOpener,
    FakePeer,
    FakeRoom,
    FakeShare,
    FakeTransfer,
)

PATIENCE_S = 10.0


class Page:
    """A front end: sends commands, collects messages, keeps the state as a real one does."""

    def __init__(self, room: FakeRoom | None = None, opener: FakeOpener | None = None) -> None:
        self.inbox: queue.Queue[dict[str, Any]] = queue.Queue()
        self.seen: list[dict[str, Any]] = []
        self.state: Any = {}
        self.seq = -1
        self.desk = Desk(self.inbox.put, room, opener=opener)  # type: ignore[arg-type]
        self._next = 0

    def send(self, cmd: str, *, buffers: list[bytes] | None = None, command_id: int | None = None, **args: Any) -> int:
        self._next += 1
        wanted = self._next if command_id is None else command_id
        self.desk.submit({"id": wanted, "cmd": cmd, **args}, buffers or [])
        return wanted

    def ask(self, cmd: str, *, buffers: list[bytes] | None = None, **args: Any) -> dict[str, Any]:
        """Send a command and return its ack; patches before it are applied."""
        wanted = self.send(cmd, buffers=buffers, **args)
        return self.until(lambda message: message["kind"] == "ack" and message["id"] == wanted)

    def until(self, found: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        while True:
            message = self.take()
            if found(message):
                return message

    def take(self) -> dict[str, Any]:
        message = self.inbox.get(timeout=PATIENCE_S)
        self.seen.append(message)
        if message["kind"] == "snapshot":
            self.state, self.seq = dict(message["state"]), message["seq"]
        elif message["kind"] == "patch" and self.seq >= 0:
            assert message["seq"] == self.seq + 1, "a gap in the numbers"
            self.seq += 1
            self.state.update(message["changes"])
            for name, added in message["appends"].items():
                self.state[name] = self.state[name] + added
        return message


@pytest.fixture
def room(tmp_path: Path) -> FakeRoom:
    return FakeRoom(tmp_path)


@pytest.fixture
def opener() -> FakeOpener:
    return FakeOpener()


@pytest.fixture
def page(room: FakeRoom, opener: FakeOpener) -> Iterator[Page]:
    there = Page(room, opener)
    yield there
    there.desk.close()


@pytest.fixture
def lobby(opener: FakeOpener) -> Iterator[Page]:
    there = Page(None, opener)
    yield there
    there.desk.close()


def test_no_thread_runs_before_a_front_end_speaks(room: FakeRoom) -> None:
    before = threading.active_count()
    page = Page(room)
    room.emit("message")
    assert threading.active_count() == before
    page.desk.close()
    assert page.inbox.empty()


def test_a_snapshot_has_every_slice(page: Page) -> None:
    assert page.ask("snapshot")["ok"]
    assert set(page.state) == {
        "room",
        "invite",
        "peers",
        "messages",
        "transfers",
        "offers",
        "shares",
        "items",
        "notices",
    }
    assert page.state["room"]["name"] == "Ada"
    assert page.state["peers"][0]["words"] == ["amber", "lantern", "orbit", "willow"]


def test_events_from_another_thread_become_patches(page: Page, room: FakeRoom) -> None:
    page.ask("snapshot")
    room.messages.append(FakeMessage("1", "hello"))
    threading.Thread(target=room.emit, args=("message", room.messages[0])).start()
    page.until(lambda message: message["kind"] == "patch" and "messages" in message["appends"] | message["changes"])
    assert [message["text"] for message in page.state["messages"]] == ["hello"]


def test_what_changes_without_an_event_is_seen_too(page: Page, room: FakeRoom) -> None:
    page.ask("snapshot")
    room.peers["Ben"].rtt = 0.5
    page.until(lambda message: message["kind"] == "patch" and "peers" in message["changes"])
    assert page.state["peers"][0]["rtt"] == 0.5


def test_the_effect_of_a_command_is_on_the_screen_before_its_answer(page: Page, room: FakeRoom) -> None:
    page.ask("snapshot")
    assert page.ask("chat", text="hi")["ok"]
    assert [message["text"] for message in page.state["messages"]] == ["hi"]
    assert page.ask("verify", peer="aa", value=True)["ok"]
    assert page.state["peers"][0]["verified"]
    room.locked = True
    assert page.ask("unlock")["ok"]
    assert not page.state["room"]["locked"]


def test_a_private_message_goes_to_the_peer_with_that_id_and_nobody_else(page: Page, room: FakeRoom) -> None:
    room.peers["Ben (2)"] = FakePeer(id="bb", name="Ben (2)")
    page.ask("chat", text="psst", to=["bb"])
    assert room.said == [("psst", ["Ben (2)"])]
    refused = page.ask("chat", text="psst", to=["cc"])
    assert refused["error"]["code"] == "PeerGoneError"
    assert len(room.said) == 1


def test_offers_and_transfers_are_answered_and_cancelled_by_id(page: Page, room: FakeRoom) -> None:
    room.offers = [FakeOffer("one"), FakeOffer("two")]
    room.transfers = [FakeTransfer("t")]
    page.ask("accept", offer="one")
    page.ask("decline", offer="two")
    page.ask("cancel", transfer="t")
    assert [offer.answer for offer in room.offers] == ["accepted", "declined"]
    assert room.transfers[0].state == "cancelled"
    assert page.ask("accept", offer="gone")["error"]["message"] == "This offer is not there any more."


def test_a_transfer_is_paused_and_resumed_by_its_id(page: Page, room: FakeRoom) -> None:
    room.transfers = [FakeTransfer("one"), FakeTransfer("two")]
    assert page.ask("snapshot")["ok"]
    assert page.ask("pause", transfer="two")["ok"]
    assert [transfer["state"] for transfer in page.state["transfers"]] == ["moving", "paused"]
    assert page.state["transfers"][1]["paused_here"]
    room.transfers[1].pause(there=True)
    assert page.ask("resume", transfer="two")["ok"]
    assert page.state["transfers"][1]["state"] == "paused"  # the other side has to say so too
    assert not page.state["transfers"][1]["paused_here"]
    assert page.ask("pause", transfer="gone")["error"]["message"] == "This transfer is not there any more."
    assert page.ask("resume", transfer=["two"])["error"]["code"] == "UsageError"


def test_what_failed_is_tried_again_once(page: Page, room: FakeRoom) -> None:
    room.transfers = [FakeTransfer("t")]
    page.ask("snapshot")
    assert page.ask("retry", transfer="t")["error"]["code"] == "UsageError"  # it did not fail
    assert not page.state["transfers"][0]["retry"]
    room.transfers[0].fail(PeerGoneError("Ben is gone."))
    room.emit("transfer", room.transfers[0])
    page.until(lambda message: message["kind"] == "patch" and "transfers" in message["changes"])
    assert page.state["transfers"][0]["retry"]
    assert page.ask("retry", transfer="t")["value"] == {"transfer": "t-again"}
    assert not page.state["transfers"][0]["retry"]
    assert "already" in page.ask("retry", transfer="t")["error"]["message"]
    assert len(room.transfers[0].again) == 1


def test_an_upload_that_failed_can_be_tried_again_without_the_browser(page: Page, room: FakeRoom) -> None:
    page.ask("upload_begin", upload=5, files=[["a.bin", 3]])
    page.ask("upload_piece", upload=5, file=0, offset=0, buffers=[b"abc"])
    page.ask("upload_end", upload=5)
    failed = room.transfers[0]
    failed.fail(PeerGoneError("Ben is gone."))
    room.emit("transfer", failed)
    assert page.ask("retry", transfer=failed.id)["ok"]
    again = failed.again[0]
    room.transfers.append(again)
    room.emit("transfer", failed)
    assert again.sent.read_bytes() == b"abc"
    room.end(again)
    deadline = time.monotonic() + PATIENCE_S
    while again.sent.exists():
        assert time.monotonic() < deadline, "the folder was left"
        time.sleep(0.01)


def test_shares_come_and_go_as_they_are_published(page: Page, room: FakeRoom) -> None:
    room.publish("prices (Ben)", FakeShare())
    room.publish("prices", FakeShare(owner="Ada", mine=True))
    page.ask("snapshot")
    assert [(share["key"], share["mine"]) for share in page.state["shares"]] == [
        ("prices", True),
        ("prices (Ben)", False),
    ]
    assert page.ask("unshare", share="prices (Ben)")["error"]["message"] == "This is not shared any more."
    assert page.ask("unshare", share="prices")["ok"]
    assert [share["key"] for share in page.state["shares"]] == ["prices (Ben)"]
    room.shares["prices (Ben)"].holders = ("Ben", "Chiara")  # nothing says so
    page.until(lambda message: message["kind"] == "patch" and "shares" in message["changes"])
    assert page.state["shares"][0]["holders"] == ["Ben", "Chiara"]


def test_a_share_is_fetched_whole_or_in_part(page: Page, room: FakeRoom) -> None:
    share = room.publish("prices (Ben)", FakeShare())
    fetch = partial(page.ask, "fetch_share", share="prices (Ben)", owner="Ben")
    assert fetch()["value"] == {"transfer": "pull1"}
    assert page.ask("snapshot")["ok"]
    assert page.state["transfers"][0]["id"] == "pull1"
    assert fetch(columns=["a"], rows=[5, 10])["ok"]
    assert fetch(columns=None, rows=[5, None])["ok"]
    assert share.pulled == [(None, None), (["a"], slice(5, 10)), (None, slice(5, None))]


@pytest.mark.parametrize(
    "wrong",
    [
        {"share": "weights"},
        {"share": "mine", "owner": "Ada"},
        {"owner": "Chiara"},  # who had the name when the page was drawn
        {"share": 7},
        {"share": "x" * 1000},
        {"columns": []},
        {"columns": "a"},
        {"columns": [1]},
        {"columns": ["a"] * 51},
        {"rows": [1]},
        {"rows": [-1, 5]},
        {"rows": [1.5, 5]},
        {"rows": [0, 2**53]},
        {"rows": ["0", "5"]},
        {"rows": [None, 5]},
    ],
)
def test_a_share_is_not_fetched_by_what_makes_no_sense(page: Page, room: FakeRoom, wrong: dict[str, Any]) -> None:
    share = room.publish("prices", FakeShare())
    room.publish("mine", FakeShare(name="mine", owner="Ada", mine=True))
    refused = page.ask("fetch_share", **{"share": "prices", "owner": "Ben", **wrong})
    assert refused["error"]["code"] == "UsageError"
    assert share.pulled == []


def test_a_command_that_comes_twice_runs_once_and_is_answered_twice(page: Page, room: FakeRoom) -> None:
    first = page.ask("chat", text="once")
    page.send("chat", command_id=first["id"], text="once")
    assert page.until(lambda message: message["kind"] == "ack") == first
    assert len(room.said) == 1


def test_sync_brings_back_lost_acks_and_lost_patches_and_names_lost_commands(page: Page, room: FakeRoom) -> None:
    page.ask("snapshot")
    known = page.ask("chat", text="hi")
    answer = page.send("sync", seq=page.seq - 1, ids=[known["id"], 999])
    assert page.take() == known
    assert page.take()["kind"] == "snapshot"
    assert page.take() == {"kind": "ack", "id": answer, "ok": True, "value": {"unknown": [999]}}
    assert page.ask("sync", seq=page.seq, ids=[])["value"] == {"unknown": []}
    assert [message["kind"] for message in page.seen].count("snapshot") == 2


def test_nonsense_is_refused_and_the_panel_lives_on(page: Page) -> None:
    for content in (None, 7, "x", {}, {"cmd": "chat"}, {"id": 1}, {"id": "one", "cmd": "snapshot"}, [1]):
        page.desk.submit(content)
    refused = page.ask("chat", text=["not", "a", "text"])
    assert refused["error"]["code"] == "UsageError"
    assert page.ask("no_such_command")["error"]["code"] == "UsageError"
    assert page.ask("snapshot")["ok"]


def test_a_slice_that_cannot_be_shown_does_not_take_the_others_with_it(page: Page, room: FakeRoom) -> None:
    room.inbox.items = [FakeItem(size_bytes="nonsense")]  # type: ignore[arg-type]
    page.ask("snapshot")
    assert page.state["items"] == []
    assert page.state["peers"]
    assert "items" in page.state["notices"][0]["text"]


def test_what_the_room_has_to_say_is_shown_once(page: Page, room: FakeRoom) -> None:
    page.ask("snapshot")
    for _ in range(3):
        room.emit("notice", WrongCodeError("Somebody tried a wrong code."))
    page.until(lambda message: message["kind"] == "patch" and "notices" in message["changes"])
    page.ask("sync", seq=page.seq, ids=[])
    assert [notice["text"] for notice in page.state["notices"]] == ["Somebody tried a wrong code."]


def test_a_room_is_created_from_the_lobby_and_left_again(lobby: Page, opener: FakeOpener) -> None:
    lobby.ask("snapshot")
    assert not lobby.state["room"]
    assert lobby.ask("chat", text="hi")["error"]["code"] == "RoomClosedError"
    assert lobby.ask("create", name="Ada")["ok"]
    assert lobby.state["room"]["name"] == "Ada"
    assert lobby.desk.room is opener.opened[0]
    assert lobby.ask("create", name="Ada")["error"]["code"] == "UsageError"  # one at a time
    assert lobby.ask("leave")["ok"]
    assert lobby.state["room"]["state"] == "closed"
    assert lobby.state["invite"] is None
    assert lobby.ask("create", name="Again")["ok"]
    assert lobby.state["room"]["name"] == "Again"
    assert opener.opened[0].subscriptions == 0


def test_a_wrong_code_is_told_in_the_words_of_its_error(lobby: Page) -> None:
    refused = lobby.ask("join", invite="7kq2m-wrong", name="Ben")
    assert refused["error"] == {
        "code": "WrongCodeError",
        "message": "The secret words of this invite are not the room's.",
    }
    assert lobby.ask("join", invite="7kq2m-broken", name="Ben")["error"]["message"]  # an error without a text has one
    assert lobby.ask("join", invite="7kq2m-right", name="")["ok"]


def test_the_panel_answers_while_a_room_is_being_created(lobby: Page, opener: FakeOpener) -> None:
    opener.gate.clear()
    creating = lobby.send("create", name="Ada")
    assert lobby.take() == {"kind": "started", "id": creating}
    assert lobby.ask("snapshot")["ok"]
    assert not lobby.ask("join", invite="7kq2m-right")["ok"]
    assert lobby.ask("sync", seq=lobby.seq, ids=[creating])["value"] == {"unknown": []}
    opener.gate.set()
    assert lobby.until(lambda message: message.get("id") == creating)["ok"]


def test_a_room_whose_panel_was_closed_meanwhile_is_left(opener: FakeOpener) -> None:
    opener.gate.clear()
    page = Page(None, opener)
    page.send("create", name="Ada")
    page.take()
    page.desk.close()
    opener.gate.set()
    assert opener.came.wait(PATIENCE_S)
    assert opener.opened[0].left.wait(PATIENCE_S)


def test_the_invite_uses_the_address_that_the_browser_sees(tmp_path: Path) -> None:
    page = Page(FakeRoom(tmp_path))
    page.ask("snapshot")
    assert page.state["invite"]["local_only"]
    assert page.ask("location", origin="https://hub.example", base_url="/user/ada/")["ok"]
    assert page.state["invite"]["link"].startswith("https://hub.example/user/ada/p2pnb/join/")
    assert not page.state["invite"]["local_only"]
    page.desk.close()


@pytest.mark.parametrize(
    ("origin", "base_url"),
    [
        ("javascript:alert(1)", "/"),
        ("https://a b", "/"),
        ("https://ok", "no-slash"),
        ("https://x/#", "/"),
        ("null", "/"),
    ],
)
def test_an_address_that_is_none_is_refused(tmp_path: Path, origin: str, base_url: str) -> None:
    page = Page(FakeRoom(tmp_path))
    assert not page.ask("location", origin=origin, base_url=base_url)["ok"]
    page.desk.close()


def test_an_upload_becomes_a_transfer(page: Page, room: FakeRoom) -> None:
    assert page.ask("upload_begin", upload=5, files=[["a.bin", 6]], to=["aa"])["ok"]
    assert page.ask("upload_piece", upload=5, file=0, offset=0, buffers=[b"abc"])["ok"]
    assert page.ask("upload_piece", upload=5, file=0, offset=3, buffers=[b"def"])["ok"]
    assert page.ask("upload_end", upload=5)["value"] == {"transfer": "t0"}
    assert room.transfers[0].sent.read_bytes() == b"abcdef"
    assert room.transfers[0].to == [room.peers["Ben"]]
    assert not page.ask("upload_piece", upload=5, file=0, offset=6, buffers=[b"x"])["ok"]
    assert page.ask("upload_abort", upload=5)["ok"]
    room.end(room.transfers[0])


def test_a_closed_desk_has_no_thread_and_no_subscription_and_the_room_lives_on(room: FakeRoom) -> None:
    page = Page(room)
    page.ask("snapshot")
    thread = page.desk._thread
    assert thread is not None
    page.desk.close()
    page.desk.close()
    thread.join(PATIENCE_S)
    assert not thread.is_alive()
    assert room.subscriptions == 0
    assert room.state == "open"
    page.desk.submit({"id": 1, "cmd": "snapshot"})  # says nothing, breaks nothing


def test_a_room_that_is_closed_already_can_be_shown(room: FakeRoom) -> None:
    room.leave()
    page = Page(room)
    page.ask("snapshot")
    assert page.state["room"]["state"] == "closed"
    assert page.ask("chat", text="hi")["error"]["code"] == "RoomClosedError"
    page.desk.close()
