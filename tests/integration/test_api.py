"""The API as people use it, also wrongly: events, names, invites, addresses, callbacks, texts of errors."""

from __future__ import annotations

import asyncio
import logging
import re
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import p2pnb
from p2pnb.errors import (
    HubError,
    HubUnavailableError,
    InviteError,
    NoHubError,
    P2PError,
    RoomClosedError,
    RoomNotFoundError,
    UsageError,
)
from p2pnb.invite import Invite
from p2pnb.room import EVENTS
from tests.integration.hostile_hub import HostileHub
from tests.integration.meeting import WORDS, Errors, Meeting, peer_id, see_each_other, still_lives, texts, until

NASTY = "<img src=x onerror=alert(1)>\x1b[31m\u202e\u2066\u200b\ufeff\x00**bold**"
_HIDDEN = re.compile("[\x00-\x1f\x7f\u200b\u202a-\u202e\u2066-\u2069\ufeff]")


# ── getting in ──────────────────────────────────────────────────────────────────────────────────────
def test_link_code_and_invite_all_work(hub: HostileHub, meeting: Meeting) -> None:
    ada = meeting.create("Ada")
    rooms = [
        meeting.join("Ben", ada.invite.link),
        meeting.join("Carl", ada.invite),
        meeting.join("Dora", ada.invite.code, hub=hub.hub),
        meeting.join("Eve", f"Join me: {ada.invite.link} !"),
        meeting.join("Fred", f"{ada.id} {' '.join(WORDS).upper()}", hub=hub.hub),
    ]
    see_each_other([ada, *rooms])


@pytest.fixture
def no_server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A process that no Jupyter server started."""
    for variable in ("P2PNB_HUB", "P2PNB_SERVER_FILE", "JPY_PARENT_PID"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path / "runtime"))


@pytest.mark.usefixtures("no_server")
def test_without_a_server_the_error_says_what_to_do(meeting: Meeting) -> None:
    with pytest.raises(NoHubError, match=r"install p2pnb.*hub="):
        p2pnb.create("Ada")
    with pytest.raises(NoHubError, match=r"link instead, or pass hub="):
        p2pnb.join("7kq2mw4x-olive-harbor-tundra-quill")
    ada = meeting.create("Ada")
    see_each_other([ada, meeting.join("Ben", ada.invite.link)])


@pytest.mark.parametrize("invite", ["", "hello", "http://example.org/", "7kq2m", "olive-harbor", 5, None])
def test_what_is_no_invite_is_said_so(invite: Any) -> None:
    with pytest.raises((InviteError, NoHubError), match=r"\w+ \w+"):
        p2pnb.join(invite)


def test_unknown_room_is_said_so(hub: HostileHub, meeting: Meeting) -> None:
    meeting.create("Ada")
    with pytest.raises(RoomNotFoundError, match=r"closed|typo.*invite"):
        meeting.join("Ben", Invite("zzzzzzzz", WORDS, hub.url))


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_dead_hub_is_said_so() -> None:
    url = f"http://127.0.0.1:{_free_port()}/"
    for call in (lambda: p2pnb.create(hub=url), lambda: p2pnb.join(Invite("7kq2mw4x", WORDS, url))):
        began = time.monotonic()
        with pytest.raises(HubUnavailableError, match=r"can't be reached.*Check"):
            call()
        assert time.monotonic() - began < 2


def test_wrong_token_is_said_so(hub: HostileHub) -> None:
    with pytest.raises(HubError, match=r"does not take this process.*token"):
        p2pnb.create(hub=f"{hub.url}?token=wrong")


@pytest.mark.parametrize("address", ["localhost:8888", "ftp://x/", "http://", "nonsense", "/tmp/x?token=secret"])
def test_what_is_no_address_is_said_so_without_its_token(address: str) -> None:
    with pytest.raises(UsageError, match=r"http://") as told:
        p2pnb.create(hub=address)
    assert "secret" not in str(told.value)


def test_server_that_is_no_hub_is_said_so() -> None:
    class Plain(threading.Thread):
        """Answers every request with 404, as a Jupyter server without p2pnb."""

        def __init__(self) -> None:
            super().__init__(daemon=True)
            self.socket = socket.create_server(("127.0.0.1", 0))

        def run(self) -> None:
            for _ in range(2):
                connection, _address = self.socket.accept()
                connection.recv(4096)
                connection.sendall(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
                connection.close()

    server = Plain()
    server.start()
    url = f"http://127.0.0.1:{server.socket.getsockname()[1]}/"
    with pytest.raises(HubError, match=r"no p2pnb.*Install"):
        p2pnb.create(hub=url)
    with pytest.raises(HubUnavailableError, match=r"no p2pnb.*Install"):
        p2pnb.join(Invite("7kq2mw4x", WORDS, url))
    server.socket.close()


@pytest.mark.parametrize(
    "settings",
    [{"relay": "sometimes"}, {"accept": "much"}, {"accept": -1}, {"accept": 1.5}, {"accept": None}, {"name": ""},
     {"name": "  "}, {"words": "one"}, {"words": "1 2"}, {"words": ""}],
)  # fmt: skip
def test_bad_settings_are_refused_before_anything_happens(hub: HostileHub, settings: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=r"\w+ \w+"):
        p2pnb.create(hub=hub.hub, **settings)
    assert hub.joins == 0


# ── names ───────────────────────────────────────────────────────────────────────────────────────────
def test_people_of_one_name_are_told_apart(meeting: Meeting) -> None:
    ada = meeting.create("Ada")
    bens = [meeting.join("Ben") for _ in range(3)]
    see_each_other([ada, *bens])
    assert set(ada.peers) == {"Ben", "Ben (2)", "Ben (3)"}
    assert {peer.id for peer in ada.peers.values()} == {peer_id(ben).hex() for ben in bens}
    for ben in bens:
        assert "Ben" not in ben.peers, "one's own name is taken, too"
        assert {"Ada", "Ben (2)", "Ben (3)"} == set(ben.peers)
    name = next(name for name, peer in ada.peers.items() if peer.id == peer_id(bens[1]).hex())
    ada.chat("you alone", to=name)
    until(lambda: texts(bens[1]) == ["you alone"])
    bens[1].chat("it is me")
    until(lambda: texts(ada) == ["it is me"])
    assert ada.messages[-1].sender == name
    still_lives(ada, *bens)
    assert [texts(ben)[0] == "you alone" for ben in bens] == [False, True, False]


def test_impostor_does_not_take_a_name_that_is_in_use(meeting: Meeting) -> None:
    ada, ben = meeting.people("Ada", "Ben")
    impostor = meeting.join("Ben")
    see_each_other([ada, ben, impostor])
    assert ada.peers["Ben"].id == peer_id(ben).hex()
    see_each_other([ada, ben, impostor, meeting.join("Ben (2)")])
    assert set(ada.peers) == {"Ben", "Ben (2)", "Ben (2) (2)"}


def test_hostile_name_and_text_are_shown_escaped(meeting: Meeting) -> None:
    ada, eve = meeting.create("Ada"), meeting.join(NASTY[:40])
    see_each_other([ada, eve])
    eve.chat(f"{NASTY}\nsecond line")
    until(lambda: ada.messages)
    eve.send([NASTY], NASTY[:60]).result(5)
    (peer,) = ada.peers.values()
    shown = f"{ada!r} {ada.peers!r} {peer!r} {ada.inbox!r} {ada.messages!r} {ada.transfers!r} {peer.name}"
    assert not _HIDDEN.search(shown.replace("\n", ""))
    assert ada.messages[0].text.split("\n")[1] == "second line"
    assert not _HIDDEN.search(ada.messages[0].text.replace("\n", ""))
    assert ada.receive(timeout=1) == [NASTY], "values are not touched"
    for thing in (ada.peers, peer, ada.inbox, ada.invite):
        assert set(thing._repr_mimebundle_()) == {"text/plain"}  # type: ignore[union-attr]


# ── chat ────────────────────────────────────────────────────────────────────────────────────────────
def test_private_messages_reach_only_their_receivers(meeting: Meeting) -> None:
    ada, ben, carl, dora = meeting.people("Ada", "Ben", "Carl", "Dora")
    message = ada.chat("psst", to=["Ben", ada.peers["Carl"]])
    assert (message.private, message.to, message.mine) == (True, ("Ben", "Carl"), True)
    still_lives(ada, ben, carl, dora)
    assert [("psst" in texts(room)) for room in (ben, carl, dora)] == [True, True, False]
    assert ben.messages[0].private
    assert [m.private for m in dora.messages] == [False] * len(dora.messages)


@pytest.mark.parametrize("text", ["", "   ", "\n"])
def test_empty_chat_is_refused(meeting: Meeting, text: str) -> None:
    ada, _ = meeting.people("Ada", "Ben")
    with pytest.raises(UsageError, match="text"):
        ada.chat(text)
    assert ada.messages == []


def test_oversize_chat_is_refused_and_the_largest_passes(meeting: Meeting) -> None:
    ada, ben = meeting.people("Ada", "Ben")
    with pytest.raises(UsageError, match=r"32 KiB.*room.send"):
        ada.chat("x" * (32 * 1024 + 1))
    with pytest.raises(UsageError, match=r"32 KiB"):
        ada.chat("ü" * (16 * 1024 + 1))
    ada.chat("ü" * (16 * 1024))
    until(lambda: texts(ben) == ["ü" * (16 * 1024)])


@pytest.mark.parametrize("text", ["Grüße 👩‍👩‍👧 مرحبا שלום नमस्ते", "a\tb\nc", "lone \ud800 surrogate"])
def test_writing_of_all_kinds_comes_as_it_was(meeting: Meeting, text: str) -> None:
    ada, ben = meeting.people("Ada", "Ben")
    ada.chat(text)
    (got,) = until(lambda: texts(ben))
    assert got == text.replace("\t", "\\t").replace("\ud800", "?")


# ── events ──────────────────────────────────────────────────────────────────────────────────────────
def test_every_event_is_told_with_the_thing_concerned(meeting: Meeting, tmp_path: Path) -> None:
    seen: dict[str, list[Any]] = {event: [] for event in EVENTS}
    ada = meeting.create("Ada", accept=100)
    threads = set()
    for event, things in seen.items():
        ada.on(event, things.append)
        ada.on(event, lambda _: threads.add(threading.current_thread().name))
    ben = meeting.join("Ben")
    see_each_other([ada, ben])
    ben.chat("hello")
    (tmp_path / "a.txt").write_text("x")
    for transfer in (ben.send(1, "one"), ben.send_file(tmp_path / "a.txt")):
        transfer.result(5)
    ben.send(b"x" * 1000, "large")
    ben.share("rates", [1, 2, 3])
    with pytest.raises(P2PError):
        meeting.join("Eve", meeting.wrong_invite())
    until(lambda: seen["offer"] and seen["notice"] and seen["share"])
    ben.leave()
    until(lambda: not ada.peers)
    ada.leave()
    kinds = {event: {type(thing).__name__ for thing in things} for event, things in seen.items()}
    assert kinds == {
        "message": {"Message"}, "object": {"InboxItem"}, "file": {"InboxItem"}, "peer": {"Peer"}, "state": {"Room"},
        "offer": {"Offer"}, "transfer": {"Transfer"}, "notice": {"WrongCodeError"},
        "share": {"Share"},
    }  # fmt: skip
    assert threads == {"p2pnb-engine"}
    assert seen["peer"][-1].state == "gone"
    assert [item.name for item in seen["object"] + seen["file"]] == ["one", "a.txt"]


def test_unsubscribed_callback_is_not_called(meeting: Meeting) -> None:
    ada, ben = meeting.people("Ada", "Ben")
    seen: list[str] = []
    unsubscribe = ben.on("message", lambda message: seen.append(message.text))
    ada.chat("one")
    until(lambda: seen)
    unsubscribe()
    unsubscribe()
    still_lives(ada, ben)
    assert seen == ["one"]


def test_failing_callback_is_logged_and_disturbs_nobody(meeting: Meeting, log: Errors) -> None:
    ada, ben = meeting.people("Ada", "Ben")
    seen: list[str] = []
    ben.on("message", lambda message: 1 / 0)
    ben.on("message", lambda message: seen.append(message.text))
    ada.chat("one")
    until(lambda: seen == ["one"])
    still_lives(ada, ben)
    assert {record.exc_info[0] for record in log.records if record.exc_info} == {ZeroDivisionError}
    log.records.clear()


def test_unknown_event_is_refused(meeting: Meeting) -> None:
    with pytest.raises(UsageError, match=r"'mesage'.*message"):
        meeting.create("Ada").on("mesage", print)


def test_calls_that_wait_are_refused_in_a_callback_and_others_work(meeting: Meeting) -> None:
    ada, ben = meeting.people("Ada", "Ben")
    outcomes: dict[str, Any] = {}
    done = threading.Event()

    def answer(message: p2pnb.Message) -> None:
        if message.mine or done.is_set():
            return
        transfer = ben.send([1], "from a callback")
        calls: dict[str, Callable[[], object]] = {
            "receive": lambda: ben.receive(timeout=1),
            "result": lambda: transfer.result(1),
            "join": lambda: p2pnb.join(ada.invite, "Carl"),
            "create": lambda: p2pnb.create(hub=meeting.hub.hub),
            "chat": lambda: ben.chat("answer from a callback"),
            "unlock": ben.unlock,
        }
        for name, call in calls.items():
            try:
                call()
                outcomes[name] = None
            except P2PError as error:
                outcomes[name] = error
        done.set()

    ben.on("message", answer)
    began = time.monotonic()
    ada.chat("question")
    assert done.wait(5)
    assert time.monotonic() - began < 2
    refused = {name for name, error in outcomes.items() if isinstance(error, UsageError)}
    assert refused == {"receive", "result", "join", "create"}
    assert all("callback" in str(error) for error in outcomes.values() if error is not None)
    until(lambda: texts(ada) == ["answer from a callback"])
    assert ada.receive("from a callback", 5) == [1]


def test_leaving_from_a_callback_works(meeting: Meeting) -> None:
    ada, ben = meeting.people("Ada", "Ben")
    ben.on("message", lambda message: ben.leave())
    ada.chat("go")
    until(lambda: ben.state == "closed" and not ada.peers)


def test_error_of_a_chat_in_a_callback_reaches_the_callback(meeting: Meeting) -> None:
    ada = meeting.create("Ada")
    outcomes: list[BaseException] = []

    def call(_: object) -> None:
        for work in (lambda: ada.chat("to nobody"), lambda: ada.send(1)):
            try:
                work()
            except P2PError as error:
                outcomes.append(error)

    ada.on("state", call)
    ada.leave()
    until(lambda: len(outcomes) == 2)
    assert all(isinstance(error, RoomClosedError) for error in outcomes)


def test_async_receive_waits_without_blocking_the_loop(meeting: Meeting) -> None:
    ada, ben = meeting.people("Ada", "Ben")

    async def wait() -> object:
        ticks = 0

        async def tick() -> None:
            nonlocal ticks
            while True:
                await asyncio.sleep(0.001)
                ticks += 1
                if ticks == 20:
                    ada.send("late", "item")

        task = asyncio.create_task(tick())
        value = await ben.areceive("item", 5)
        task.cancel()
        assert ticks >= 20
        return value

    assert asyncio.run(wait()) == "late"


# ── what it is ──────────────────────────────────────────────────────────────────────────────────────
def test_context_manager_leaves(meeting: Meeting) -> None:
    ada = meeting.create("Ada")
    with meeting.join("Ben") as ben:
        see_each_other([ada, ben])
    assert ben.state == "closed"
    until(lambda: not ada.peers)
    with pytest.raises(RuntimeError), meeting.join("Carl") as carl:
        raise RuntimeError
    assert carl.state == "closed"


def test_properties_of_room_and_peers(meeting: Meeting) -> None:
    ada, ben = meeting.people("Ada", "Ben")
    still_lives(ada, ben)
    there, here = ada.peers["Ben"], ben.peers["Ada"]
    assert (ada.name, ada.state, ada.error, ada.locked, ada.id) == ("Ada", "open", None, False, ben.id)
    assert (there.name, there.kind, there.path, there.paths) == ("Ben", "script", "relay", ("relay",))
    assert 0 < until(lambda: there.rtt) < 1  # type: ignore[operator]
    assert there.verification == here.verification
    assert len(there.verification) == 4
    before = there.verified
    there.verify()
    assert (before, there.verified) == (False, True)
    assert repr(ada) == f"<Room {ada.id} as 'Ada', open, with Ben>"
    assert "peers" not in repr(there)
    with pytest.raises(KeyError, match=r"no 'Carl'.*Ben"):
        ada.peers["Carl"]
    with pytest.raises(KeyError, match="nothing"):
        ada.inbox["x"]
    assert ada.invite.local_only


def test_verification_words_differ_between_pairs(meeting: Meeting) -> None:
    rooms = meeting.people("Ada", "Ben", "Carl")
    pairs = {
        frozenset((peer.id, peer_id(room).hex())): peer.verification for room in rooms for peer in room.peers.values()
    }
    assert len(pairs) == 3
    assert len(set(pairs.values())) == 3


def test_thirty_peers_see_each_other_and_hear_each_other(meeting: Meeting) -> None:
    ada = meeting.create("Peer 0")
    began = time.monotonic()
    rooms = [ada, *(meeting.join(f"Peer {number}") for number in range(1, 30))]
    see_each_other(rooms, 15)
    joined = time.monotonic() - began
    logging.getLogger(__name__).info("thirty peers in one process: %.1f s", joined)
    for number, room in enumerate(rooms):
        room.chat(f"said by {number}")
    everything = {f"said by {number}" for number in range(30)}
    for room in rooms:
        until(lambda room=room: set(texts(room, mine=True)) == everything, room.name)  # type: ignore[misc]
    assert all(len(room.messages) == 30 for room in rooms)
    assert joined < 5, "435 handshakes, both ends of each in this process"
