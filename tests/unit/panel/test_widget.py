"""The anywidget classes: what notebooks save of them, and how they end."""

from __future__ import annotations

import gc
import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ipykernel.comm.comm import BaseComm

from p2pnb.errors import UsageError
from p2pnb.panel import ChatPanel, DataPanel, FilesPanel, Panel, RoomPanel, widget
from p2pnb.panel.namespace import expression_for
from p2pnb.panel.widget import answer_on_own_subshell
from tests.unit.panel.fake_room import SECRET_WORDS, FakeItem, FakeMessage, FakePeer, FakeRoom, FakeShare

pytestmark = pytest.mark.skipif(not widget._BUILT, reason="the front end is not built: run `make build`")

NEEDLES = (*SECRET_WORDS, "Ada", "Zebedee", "needle-message", "needle-table", "needle-share", "needle-folder")


@pytest.fixture
def room() -> FakeRoom:
    room = FakeRoom(Path("/tmp/needle-folder"))
    room.peers = {"Zebedee": FakePeer(name="Zebedee")}
    room.messages = [FakeMessage("1", "needle-message", sender="Zebedee")]
    room.inbox.items = [FakeItem(name="needle-table")]
    room.shares = {"needle-share": FakeShare(name="needle-share")}
    return room


@pytest.fixture
def panel(room: FakeRoom) -> Iterator[Panel]:
    there = Panel(room)
    yield there
    there.close()


def saved(panel: Panel) -> dict[str, Any]:
    """Return what a notebook saves of a widget, without the front end itself."""
    state: dict[str, Any] = panel.get_state()
    return {name: value for name, value in state.items() if name not in {"_esm", "_css"}}


def test_a_saved_notebook_holds_nothing_of_the_room(panel: Panel) -> None:
    panel._take(None, {"id": 1, "cmd": "snapshot"}, [])
    bundle = panel._repr_mimebundle_()
    kept = json.dumps([saved(panel), bundle, repr(panel)], default=str)
    assert [needle for needle in NEEDLES if needle in kept] == []
    assert "7kq2mw4x" in repr(panel)


def test_the_only_synced_trait_of_ours_is_the_view(panel: Panel) -> None:
    from anywidget import AnyWidget

    known = set(AnyWidget().get_state())
    assert set(panel.get_state()) - known == {"view", "_css"}


def test_the_bundle_is_a_widget_with_a_text_beside_it(panel: Panel) -> None:
    data, _ = panel._repr_mimebundle_()
    assert set(data) == {"text/plain", "application/vnd.jupyter.widget-view+json"}
    assert data["text/plain"] == "<Panel: room 7kq2mw4x, open>"
    panel.close()


def test_the_parts_share_one_front_end_and_differ_in_their_view(room: FakeRoom) -> None:
    parts = [kind(room) for kind in (Panel, RoomPanel, ChatPanel, FilesPanel, DataPanel)]
    assert [part.view for part in parts] == ["all", "room", "chat", "files", "data"]
    assert len({part.get_state("_esm")["_esm"] for part in parts}) == 1
    for part in parts:
        part.close()
    assert room.subscriptions == 0


def test_a_panel_without_a_room_is_a_lobby() -> None:
    panel = Panel()
    assert panel.room is None
    assert repr(panel) == "<Panel: lobby>"
    panel.close()


def test_two_panels_of_one_room_end_independently(room: FakeRoom, panel: Panel) -> None:
    other = Panel(room)
    both = room.subscriptions
    other.close()
    assert room.subscriptions == both // 2
    assert panel.room is room
    assert room.state == "open"


def test_sending_after_the_end_says_nothing(panel: Panel) -> None:
    panel.close()
    panel._send_now({"kind": "started", "id": 1})
    panel._take(None, {"id": 1, "cmd": "snapshot"}, [])


def test_a_checkout_without_a_built_front_end_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(widget, "_BUILT", False)
    with pytest.raises(UsageError, match="make build"):
        Panel()
    gc.collect()  # the half-made widget must end without an error too


# ── answers while a cell runs ───────────────────────────────────────────────────────────────────────
def test_messages_stay_on_the_subshell_they_were_sent_to() -> None:
    comm = BaseComm(target_name="jupyter.widget", primary=False)
    # If this fails, ipykernel changed how it routes comm messages: look at `answer_on_own_subshell` again.
    assert comm._reply_subshell_for({"content": {"id": 1}}, "theirs") == "theirs"
    comm._reply_subshell_id = None  # what a send from our thread during a cell leaves behind
    assert comm._reply_subshell_for({"content": {"id": 1}}, "theirs") is None
    assert answer_on_own_subshell(comm)
    assert comm._reply_subshell_for({"content": {"id": 1}}, "theirs") == "theirs"


def test_kernels_that_route_as_they_should_are_left_alone() -> None:
    comm = SimpleNamespace()
    assert not answer_on_own_subshell(comm)
    assert vars(comm) == {}
    assert not answer_on_own_subshell(None)


# ── what to type ────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ({}, "room"),
        ({"meeting": "room", "_": "room", "_3": "room"}, "meeting"),
        ({"_": "room", "_3": "room"}, "_3"),
        ({"p": "panel"}, "p.room"),
        ({"p": "panel", "r": "room"}, "r"),
        ({"not a name": "room"}, "room"),
    ],
)
def test_the_expression_is_what_the_user_called_it(
    monkeypatch: pytest.MonkeyPatch, names: dict[str, str], expected: str
) -> None:
    things = {"room": object(), "panel": object()}
    shell = SimpleNamespace(user_ns={name: things[thing] for name, thing in names.items()})
    monkeypatch.setitem(__import__("sys").modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))
    assert expression_for(things["room"], things["panel"]) == expected
