"""What breaks and what must happen: order, no loss, nothing twice, every call returns (F1-F9, F14, F25, F35)."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from p2pnb.engine.link import Link, LinkState
from p2pnb.engine.thread import engine
from p2pnb.errors import PeerGoneError, RoomClosedError
from p2pnb.protocol.hub import Left
from p2pnb.room import Room
from tests.integration.hostile_hub import Delivery, HostileHub
from tests.integration.meeting import (
    Meeting,
    link_of,
    on_engine,
    peer_id,
    see_each_other,
    still_lives,
    texts,
    until,
)

pytestmark = pytest.mark.usefixtures("quick_recovery")


@pytest.fixture
def quick_recovery(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no test wait for the protocol's patience with slow kernels."""
    monkeypatch.setattr("p2pnb.engine.link.RELAY_RETRY_S", 0.2)
    monkeypatch.setattr("p2pnb.engine.link.PROOF_TIMEOUT_S", 0.5)
    monkeypatch.setattr("p2pnb.engine.greeting.HANDSHAKE_TIMEOUT_S", 0.5)
    monkeypatch.setattr("p2pnb.engine.hub_client.RETRY_FIRST_S", 0.02)
    monkeypatch.setattr("p2pnb.protocol.session.PING_ACTIVE_S", 0.3)
    monkeypatch.setattr("p2pnb.protocol.session.PATH_DOUBT_S", 0.6)


class CutsAfter:
    """Breaks the line of the sender or the receiver after a random number of bytes, `times` times."""

    def __init__(self, hub: HostileHub, seed: int, times: int, most_bytes: int = 600_000) -> None:
        self.hub, self.random, self.left, self.most = hub, random.Random(seed), times, most_bytes
        self.due = self.random.randrange(most_bytes)

    def __call__(self, delivery: Delivery) -> Iterator[Delivery]:
        self.due -= len(delivery.payload)
        if self.due < 0 and self.left:
            self.left -= 1
            self.due = self.random.randrange(self.most)
            victim = self.random.choice((delivery.source, delivery.destination, None))
            if self.random.random() < 0.5:
                yield delivery  # the last one before the cut
            self.hub._loop.create_task(self.hub._cut(victim))
            return
        yield delivery


@pytest.mark.parametrize("seed", range(6))
def test_transfer_survives_cuts_at_random_bytes(hub: HostileHub, meeting: Meeting, seed: int, tmp_path: Path) -> None:
    ada, ben = meeting.people("Ada", "Ben", accept=True)
    value = random.Random(seed).randbytes(2_000_000)
    source = tmp_path / "noise.bin"
    source.write_bytes(value[::-1])
    cuts = hub.on_payload = CutsAfter(hub, seed, times=6)
    sent = [ada.send(value, "value"), ben.send_file(source)]
    said = [f"{seed}.{number}" for number in range(20)]
    for text in said:
        ada.chat(text)
        until(lambda: ada.peers["Ben"].state == "here")
    for transfer in sent:
        transfer.result(20)
    assert ben.receive("value", 5) == value
    assert ada.receive("noise.bin", 5).read_bytes() == value[::-1]
    until(lambda: len(texts(ben)) == len(said))
    assert texts(ben) == said
    assert len(ben.inbox.all()) == len(ada.inbox.all()) == 1
    assert cuts.left < 6
    hub.on_payload = lambda delivery: [delivery]
    still_lives(ada, ben)


@pytest.mark.parametrize("after", range(1, 9))
def test_line_cut_in_the_middle_of_the_handshake(hub: HostileHub, meeting: Meeting, after: int) -> None:
    ada = meeting.create("Ada")
    count = 0

    def cut_once(delivery: Delivery) -> list[Delivery]:
        nonlocal count
        count += 1
        if count == after:
            hub._loop.create_task(hub._cut(delivery.source if after % 2 else delivery.destination))
            return []
        return [delivery]

    hub.on_payload = cut_once
    ben = meeting.join("Ben")
    see_each_other([ada, ben], 5)
    still_lives(ada, ben)


def test_hub_restarted_empty_is_populated_again(hub: HostileHub, meeting: Meeting) -> None:
    ada, ben = meeting.people("Ada", "Ben")
    ids = ada.peers["Ben"].id, ben.peers["Ada"].id
    words = ada.peers["Ben"].verification
    ada.chat("before")
    hub.restart_empty()
    until(lambda: len(hub.peers(ada.id)) == 2, "both are back")
    see_each_other([ada, ben])
    still_lives(ada, ben)
    assert (ada.peers["Ben"].id, ben.peers["Ada"].id) == ids
    assert ada.peers["Ben"].verification == words, "the same session went on"
    assert texts(ben)[0] == "before"
    see_each_other([ada, ben, meeting.join("Carl")])


def test_transfer_goes_on_after_a_hub_restarted_empty(hub: HostileHub, meeting: Meeting) -> None:
    ada, ben = meeting.people("Ada", "Ben", accept=True)
    value = random.Random(1).randbytes(4_000_000)
    restarted: list[bool] = []

    def restart_once(delivery: Delivery) -> list[Delivery]:
        if len(delivery.payload) > 100_000 and not restarted:
            restarted.append(True)
            hub._loop.create_task(hub._restart_empty())
        return [delivery]

    hub.on_payload = restart_once
    ada.send(value, "value").result(20)
    assert restarted
    assert ben.receive("value", 5) == value


def test_chat_said_while_the_hub_is_away_arrives_when_it_returns(hub: HostileHub, meeting: Meeting) -> None:
    """F4: the relay waits; nothing said meanwhile is lost."""
    ada, ben = meeting.people("Ada", "Ben")
    hub.restarting = True
    hub.cut()
    until(lambda: ada.state == ben.state == "reconnecting", "the state is told")
    assert "hub" in str(ada.error)
    said = [f"while away {number}" for number in range(10)]
    for text in said:
        ada.chat(text)
    transfer = ada.send(b"item" * 10_000, "item")
    hub.restarting = False
    until(lambda: texts(ben) == said, "all arrives, in order")
    transfer.result(10)
    until(lambda: ada.state == ben.state == "open")
    assert ada.error is None


def test_peer_on_its_way_back_to_a_restarted_hub_is_still_spoken_to(hub: HostileHub, meeting: Meeting) -> None:
    ada, ben = meeting.people("Ada", "Ben")
    hub.held.add(peer_id(ben))
    hub.restart_empty()
    until(lambda: hub.peers(ada.id) == [peer_id(ada)] and ada.state == "open", "Ada is back, Ben is not")
    until(lambda: ben.state == "reconnecting" and ada.peers["Ben"].state == "away")
    try:
        ada.chat("are you there?")
        transfer = ada.send([1, 2, 3], "item")
    finally:
        hub.held.clear()
    until(lambda: texts(ben) == ["are you there?"], "it arrives when Ben is back")
    transfer.result(5)


def _direct(meeting: Meeting, over: str, **settings: Any) -> list[Room]:
    """Ada and Ben, joined by a direct path of this transport."""
    rooms = meeting.people("Ada", "Ben", relay="fallback", direct_tcp=over == "tcp", **settings)
    _stand(over, *rooms)
    return rooms


def _stand(over: str, *rooms: Room) -> None:
    for room in rooms:
        until(lambda room=room: all(p.path == over for p in room.peers.values()), f"direct paths: {over}", 20)  # type: ignore[misc]


DIRECT = pytest.mark.parametrize("over", ["tcp", "webrtc"])


@DIRECT
def test_direct_path_goes_on_without_the_hub(hub: HostileHub, meeting: Meeting, over: str) -> None:
    """F3: the hub dies and comes back empty; nobody on a direct path notices."""
    ada, ben = _direct(meeting, over, accept=True)
    hub.restarting = True
    hub.restart_empty()
    until(lambda: ada.state == ben.state == "reconnecting")
    still_lives(ada, ben)
    ada.send(b"x" * 1_000_000, "without hub").result(20)
    assert ben.receive("without hub", 1) == b"x" * 1_000_000
    hub.restarting = False
    until(lambda: ada.state == ben.state == "open", "both are back")
    until(lambda: "relay" in ada.peers["Ben"].paths, "the relay stands again")
    assert ada.peers["Ben"].path == over
    still_lives(ada, ben)


@DIRECT
def test_hub_can_not_silence_a_direct_path(hub: HostileHub, meeting: Meeting, over: str) -> None:
    ada, ben = _direct(meeting, over)
    hub.announce(ada.id, Left(peer_id(ben).hex()), to=peer_id(ada))
    link = link_of(ada, "Ben")
    until(lambda: not link.present, "Ada heard it")
    assert ada.peers["Ben"].state == "here"
    still_lives(ada, ben)


@DIRECT
def test_direct_path_that_dies_gives_way_to_the_relay_at_once(hub: HostileHub, meeting: Meeting, over: str) -> None:
    """F5, and the way back up."""
    ada, ben = _direct(meeting, over)
    link = link_of(ada, "Ben")
    path = next(path for path in link._paths.values() if path.transport == over)
    began = time.monotonic()
    on_engine(link.path_failed, path, "the test says so")
    assert ada.peers["Ben"].path == "relay"
    still_lives(ada, ben)
    assert time.monotonic() - began < 1
    _stand(over, ada, ben)
    still_lives(ada, ben)


@pytest.mark.parametrize("way", ["to Ben", "to Ada"])
def test_one_way_failure_is_noticed_by_both(
    hub: HostileHub, meeting: Meeting, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    """F9: one direction of the relay dies; after it is mended everything arrives, both ways."""
    ada, ben = meeting.people("Ada", "Ben")
    deaf = peer_id(ben if way == "to Ben" else ada)
    hub.on_payload = lambda delivery: [] if delivery.destination == deaf else [delivery]
    ada.chat("from Ada")
    ben.chat("from Ben")
    until(lambda: ada.peers["Ben"].state == "away" or link_of(ada, "Ben").carrier is None, "Ada noticed", 5)
    until(lambda: ben.peers["Ada"].state == "away" or link_of(ben, "Ada").carrier is None, "Ben noticed", 5)
    hub.on_payload = lambda delivery: [delivery]
    until(lambda: texts(ben) == ["from Ada"] and texts(ada) == ["from Ben"], "both arrive", 5)


_STRANGER = """
import sys, p2pnb, threading
room = p2pnb.join(sys.stdin.readline().strip(), "Ben", relay="only", accept=False, folder=sys.argv[1])
print("here", flush=True)
threading.Event().wait()
"""


@pytest.fixture
def process(meeting: Meeting, tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Ben in a process of his own, which a test may kill."""
    meeting.create("Ada")
    child = subprocess.Popen(
        [sys.executable, "-c", _STRANGER, str(tmp_path / "ben")],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert child.stdin is not None and child.stdout is not None and meeting.invite is not None
    child.stdin.write(f"{meeting.invite.link}\n")
    child.stdin.flush()
    assert child.stdout.readline() == "here\n"
    yield child
    child.kill()
    child.wait()


def test_killed_peer_is_seen_leaving_and_its_transfers_fail(
    hub: HostileHub, meeting: Meeting, process: subprocess.Popen[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """F14: no goodbye, no FIN that anybody waits for: bounded, and said."""
    monkeypatch.setattr("p2pnb.engine.member.GONE_AFTER_S", 0.3)
    hub.peer_grace_s = 0.1
    ada = meeting.rooms[0]
    transfer = ada.send(b"y" * 1_000_000, "waits for Ben")
    until(lambda: transfer.state == "offered")
    peer = ada.peers["Ben"]
    process.kill()
    with pytest.raises(PeerGoneError, match="left"):
        transfer.result(5)
    until(lambda: not ada.peers, "Ben is gone")
    assert peer.state == "gone"
    with pytest.raises(PeerGoneError):
        ada.chat("too late", to=peer)
    see_each_other([ada, meeting.join("Ben")])
    assert set(ada.peers) == {"Ben"}, "the name is free again"


def test_leave_is_seen_at_once_and_ends_what_is_under_way(meeting: Meeting) -> None:
    ada, ben = meeting.people("Ada", "Ben", accept=False)
    out, into = ada.send(b"z" * 1_000_000, "out"), ben.send([1], "into")
    until(lambda: ada.offers and ben.offers, "both offers are here")
    began = time.monotonic()
    ben.leave()
    assert time.monotonic() - began < 2
    until(lambda: not ada.peers, "Ben left", 1)
    for transfer in (out, into):
        with pytest.raises(PeerGoneError, match="left"):
            transfer.result(1)
    until(lambda: not ada.offers, "what can't be accepted any more is not offered")
    assert (ben.state, ben.peers) == ("closed", {}) or not ben.peers
    for call in (lambda: ben.chat("x"), lambda: ben.send(1), lambda: ben.receive(timeout=1), ben.unlock):
        with pytest.raises(RoomClosedError):
            call()
    ben.leave()
    assert ada.state == "open"


def test_leave_wakes_who_waits(meeting: Meeting) -> None:
    ada, _ben = meeting.people("Ada", "Ben")
    waiting = engine().workers.submit(ada.receive, "never comes", 20)
    until(waiting.running)
    ada.leave()
    with pytest.raises(RoomClosedError, match="left"):
        waiting.result(2)


def test_many_reconnections_leave_nothing_behind(
    hub: HostileHub, meeting: Meeting, monkeypatch: pytest.MonkeyPatch
) -> None:
    """F35, small: paths, timers, tasks and queued frames don't grow."""
    monkeypatch.setattr("p2pnb.engine.hub_client.RETRY_FIRST_S", 0.002)
    ada, ben = meeting.people("Ada", "Ben")

    def size() -> tuple[int, int, int, int, int]:
        import asyncio

        link: Link = link_of(ada, "Ben")
        loop: Any = engine().loop
        tasks = len(asyncio.all_tasks(loop))
        timers = sum(not handle.cancelled() for handle in loop._scheduled)
        assert link.session is not None
        return tasks, timers // 20, len(link._paths), link.session.unacknowledged, len(ada._member._tasks)  # type: ignore[union-attr]

    still_lives(ada, ben)
    until(lambda: on_engine(size)[3] == 0)
    before = on_engine(size)
    for number in range(40):
        hub.cut(peer_id(ada if number % 2 else ben))
        until(lambda number=number: hub.joins >= 3 + number, "back again")  # type: ignore[misc]
        see_each_other([ada, ben])
    still_lives(ada, ben)
    until(lambda: on_engine(size) <= before, f"back to {before}", 5)
    assert link_of(ada, "Ben").state is LinkState.HERE
