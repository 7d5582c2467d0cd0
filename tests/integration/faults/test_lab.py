"""What a network does to direct paths and to the hub's line, with real drops between network namespaces.

F2, F5, F9, F10, F11, F29, F30, and what `relay=` promises, to the packet.
"""

from __future__ import annotations

import inspect
import time
from collections.abc import Iterator
from contextlib import ExitStack
from functools import cache
from typing import Any, Final

import pytest

import p2pnb
from tests.integration.faults.lab import Lab, why_not
from tests.integration.faults.remote import Remote
from tests.integration.meeting import until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

HAS_TCP: Final = "direct_tcp" in inspect.signature(p2pnb.create).parameters
DIRECT: Final = ("webrtc", "tcp") if HAS_TCP else ("webrtc",)
BUSY_S: Final = 0.5  # what three processes on a busy machine may add to a bound
_HUB: Final = """
from tests.integration.hostile_hub import HostileHub
from tests.integration.faults.forwarder import Forwarder
hub = HostileHub().__enter__()
line = Forwarder(hub.port, listen="0.0.0.0").__enter__()
"""


@cache
def _reason() -> str:
    return why_not()


class Place:
    """Ada and Ben in networks of their own, the hub in the middle."""

    def __init__(self, stack: ExitStack) -> None:
        self.lab = stack.enter_context(Lab("ada", "ben"))
        self.hub, self.ada, self.ben = (
            stack.enter_context(Remote(name, self.lab.command(place)))
            for name, place in (("hub", ""), ("Ada", "ada"), ("Ben", "ben"))
        )

    def meet(self, direct: str = "", **settings: Any) -> None:
        """Let them meet, and wait for a path of this kind on both sides."""
        if HAS_TCP:
            settings.setdefault("direct_tcp", direct == "tcp")
        options = ", ".join(f"{key}={value!r}" for key, value in {"accept": True, **settings}.items())
        self.hub.run(_HUB)
        token, port = self.hub.value("[hub.token, line.port]")
        near = f"http://{self.lab.gateway('ada')}:{port}/?token={token}"
        self.ada.run(f'room = watch(p2pnb.create("Ada", hub={near!r}, folder={self.folder("ada")!r}, {options}))')
        room, words = self.ada.value("[room.invite.room, room.invite.words]")
        invite = f"p2pnb.Invite({room!r}, {tuple(words)!r}, 'http://{self.lab.gateway('ben')}:{port}/')"
        self.ben.run(f'room = watch(p2pnb.join({invite}, "Ben", folder={self.folder("ben")!r}, {options}))')
        self.ada.run('peer = until(lambda: room.peers.get("Ben"))')
        self.ben.run('peer = until(lambda: room.peers.get("Ada"))')
        if direct:
            for one in (self.ada, self.ben):
                one.until(f"peer.path == {direct!r}")

    def folder(self, name: str) -> str:
        return f"{self.home}/{name}"

    home = ""

    def say(self, speaker: Remote, hearer: Remote, text: str, timeout: float = 30) -> float:
        """Say something; return how long it took to be heard, seconds."""
        began = time.monotonic()
        speaker.run(f"room.chat({text!r})")
        times = f"[at for _, said, at in heard if said == {text!r}]"
        at = hearer.value(f"until(lambda: {times}, {timeout})[0]", timeout + 10)
        return float(at) - began

    def both_heard_all(self, ada_said: list[str], ben_said: list[str]) -> None:
        assert self.ben.value("[text for _, text, _ in heard]") == ada_said
        assert self.ada.value("[text for _, text, _ in heard]") == ben_said


@pytest.fixture
def place(tmp_path: Any) -> Iterator[Place]:
    if _reason():
        pytest.skip(f"NOT TESTED: real drops between namespaces ({_reason()})")
    with ExitStack() as stack:
        place = Place(stack)
        place.home = str(tmp_path)
        yield place


@pytest.mark.parametrize("direct", DIRECT)
def test_silent_death_of_a_direct_path_costs_a_second_and_it_comes_back(place: Place, direct: str) -> None:
    """F5, with a transfer under way; and the way up again."""
    place.meet(direct)
    place.ada.run('content = os.urandom(150_000_000); transfer = room.send(content, "big")')
    place.ada.until("transfer.progress > 0")
    place.lab.cut_direct("ada", "ben")
    took = [place.say(place.ada, place.ben, "one"), place.say(place.ben, place.ada, "two")]
    assert max(took) < 1 + BUSY_S, took
    for one in (place.ada, place.ben):
        one.until("peer.path == 'relay'", 15)
    place.ada.run("transfer.result(60)", 70)
    assert place.ada.value("hashlib.sha256(content).hexdigest()") == place.ben.value("until(lambda: got)[0][2]")
    place.lab.heal()
    for one in (place.ada, place.ben):
        one.until(f"peer.path == {direct!r}", 90)
    place.say(place.ada, place.ben, "three")
    place.both_heard_all(["one", "three"], ["two"])


@pytest.mark.parametrize("direct", DIRECT)
@pytest.mark.parametrize("source", ["ada", "ben"])
def test_one_way_failure_of_a_direct_path_is_left_by_both(place: Place, direct: str, source: str) -> None:
    """F9: each direction, and so each role: one side dialled or offered, the other answered."""
    place.meet(direct)
    place.say(place.ada, place.ben, "before")
    place.lab.drop_direct(source, "ben" if source == "ada" else "ada")
    took = [place.say(place.ada, place.ben, "one"), place.say(place.ben, place.ada, "two")]
    assert max(took) < 1 + BUSY_S, took
    for one in (place.ada, place.ben):
        one.until("peer.path == 'relay'", 15)
    place.say(place.ada, place.ben, "three")
    place.both_heard_all(["before", "one", "three"], ["two"])


@pytest.mark.parametrize("active", [True, False], ids=["active", "idle"])
def test_black_hole_to_the_hub_is_noticed(place: Place, active: bool) -> None:
    """F2: no FIN, no RST: at most 10 s while something moves, 45 s while nothing does."""
    place.meet(relay="only")
    if active:
        place.ada.run("transfer = room.send(os.urandom(80_000_000), 'big')")
        place.ada.until("transfer.progress > 0")
    place.lab.drop_hub("ben")
    began = time.monotonic()
    place.ben.until("room.state == 'reconnecting'", 60)
    took = time.monotonic() - began
    place.ada.until("peer.state == 'away' or peer.path is None", 60)
    place.lab.heal()
    place.say(place.ada, place.ben, "again")
    place.say(place.ben, place.ada, "and back")
    if active:
        place.ada.run("transfer.result(60)", 70)
    assert took < (10 if active else 45) + BUSY_S


@pytest.mark.parametrize("percent", [1, 5, 20])
def test_random_loss_ends_in_delivery(place: Place, percent: int) -> None:
    """F10: over the direct path, or over the relay where that is better; the relay's line is clean here."""
    place.meet("webrtc")
    place.lab.lose(percent)
    place.ada.run('content = os.urandom(4_000_000); transfer = room.send(content, "big")')
    took = [place.say(place.ada, place.ben, f"{number}", 20) for number in range(10)]
    place.ada.run("transfer.result(60)", 70)
    assert place.ada.value("hashlib.sha256(content).hexdigest()") == place.ben.value("until(lambda: got)[0][2]")
    place.both_heard_all([str(number) for number in range(10)], [])
    assert sorted(took)[5] < 3, took


@pytest.mark.parametrize("direct", ["", *DIRECT])
def test_peer_that_changes_its_address_goes_on_with_the_same_session(place: Place, direct: str) -> None:
    """F11: a laptop moves to another network; its sockets get no answer any more."""
    place.meet(direct, **({} if direct else {"relay": "only"}))
    place.say(place.ada, place.ben, "before")
    words = place.ada.value("peer.verification")
    place.ada.run('content = os.urandom(100_000_000); transfer = room.send(content, "big")')
    place.ada.until("transfer.progress > 0")
    place.lab.move("ben")
    place.say(place.ada, place.ben, "after", 45)
    place.say(place.ben, place.ada, "back", 45)
    place.ada.run("transfer.result(60)", 70)
    assert place.ada.value("hashlib.sha256(content).hexdigest()") == place.ben.value("until(lambda: got)[0][2]")
    assert place.ada.value("peer.verification") == words
    place.both_heard_all(["before", "after"], ["back"])


def test_blocked_udp_stalls_nobody(place: Place) -> None:
    """F29: from the first packet on."""
    place.lab.block_udp()
    place.meet()
    began = time.monotonic()
    place.ada.run('room.send(b"x" * 3_000_000, "item").result(20)')
    assert time.monotonic() - began < 3 + BUSY_S
    assert place.say(place.ada, place.ben, "hello") < 1


@pytest.mark.parametrize("direct", DIRECT)
@pytest.mark.parametrize("family", ["ip", "ip6"])
def test_black_hole_for_one_kind_of_address_delays_no_direct_path(place: Place, direct: str, family: str) -> None:
    """F30: the other kind is tried before the first has timed out."""
    place.lab.block(family)
    began = time.monotonic()
    place.meet(direct)
    assert time.monotonic() - began < 4 + BUSY_S, "joining and a direct path, both"


def test_relay_only_sends_no_packet_to_the_peer(place: Place) -> None:
    place.meet(relay="only")
    place.ada.run('room.send(b"x" * 1_000_000, "item").result(20)')
    place.say(place.ada, place.ben, "hello")
    assert place.lab.direct_bytes() == 0


@pytest.mark.parametrize("direct", DIRECT)
def test_relay_never_sends_no_bulk_through_the_hub(place: Place, direct: str) -> None:
    """Neither while the direct path stands nor after it is gone: then the transfer waits."""
    place.meet(direct, relay="never")
    before = place.lab.hub_bytes()
    place.ada.run('transfer = room.send(b"x" * 60_000_000, "item")')
    place.ada.until("transfer.progress > 0")
    place.lab.cut_direct("ada", "ben")
    place.say(place.ada, place.ben, "small things may")
    until(lambda: place.ada.value("peer.path") == "relay", "the direct path is given up", 20)
    time.sleep(2)
    assert place.ada.value("transfer.state") == "moving"
    assert place.lab.hub_bytes() - before < 1_000_000
    place.lab.heal()
    place.ada.run("transfer.result(90)", 100)
    assert place.lab.hub_bytes() - before < 1_000_000
