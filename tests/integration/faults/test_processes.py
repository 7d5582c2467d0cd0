"""A peer's process is frozen, holds the interpreter, or lives by a wrong clock (F12, F13, F16)."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from p2pnb.errors import PeerGoneError
from tests.integration.faults.remote import Remote
from tests.integration.hostile_hub import HostileHub
from tests.integration.meeting import Meeting, link_of, see_each_other, texts, until

pytestmark = pytest.mark.slow

HOLD = """
import sys, threading
def hold(seconds):
    sys.setswitchinterval(2 * seconds)  # who waits for the interpreter asks for it only after this long
    end = time.monotonic() + seconds
    while time.monotonic() < end: pass
    sys.setswitchinterval(0.005)
"""
SHORT = {"PING_ACTIVE_S": 0.3, "PING_IDLE_S": 1.0, "PATH_SUSPECT_S": 0.3, "PATH_DOUBT_S": 0.6, "PATH_DEAD_S": 1.5}


@pytest.fixture
def ben(meeting: Meeting, tmp_path: Path) -> Iterator[Remote]:
    """Ben in a process of his own; Ada is here."""
    with Remote("Ben") as ben:
        yield ben


def _join(meeting: Meeting, ben: Remote, folder: Path, **settings: Any) -> None:
    assert meeting.invite is not None
    options = ", ".join(f"{key}={value!r}" for key, value in {"relay": "only", "accept": True, **settings}.items())
    ben.run(f"room = watch(p2pnb.join({meeting.invite.link!r}, 'Ben', folder={str(folder)!r}, {options}))")
    ben.until("'Ada' in room.peers")
    until(lambda: "Ben" in meeting.rooms[0].peers)


def _shorten(monkeypatch: pytest.MonkeyPatch, ben: Remote) -> None:
    """Let both wait for less than they would, so that three seconds are a long sleep."""
    for name, seconds in SHORT.items():
        monkeypatch.setattr(f"p2pnb.protocol.session.{name}", seconds)
        ben.run(f"import p2pnb.protocol.session as s; s.{name} = {seconds}")


@pytest.mark.parametrize("relay", ["only", "fallback"])
def test_frozen_peer_goes_on_where_it_was(
    hub: HostileHub, meeting: Meeting, ben: Remote, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, relay: str
) -> None:
    """F12: longer than paths live, shorter than sessions are kept."""
    _shorten(monkeypatch, ben)
    hub.peer_grace_s = 1.0
    monkeypatch.setattr("p2pnb.engine.member.GONE_AFTER_S", 60.0)
    ada = meeting.create("Ada", relay=relay, accept=True)
    _join(meeting, ben, tmp_path / "ben", relay=relay)
    if relay == "fallback":
        until(lambda: ada.peers["Ben"].path not in (None, "relay"), "a direct path", 20)
    words = ada.peers["Ben"].verification
    transfer = ada.send(b"z" * 60_000_000, "item")
    until(lambda: transfer.progress > 0, "it moves")
    ben.stop()
    began = time.monotonic()
    ada.chat("sleep well")
    until(lambda: ada.peers["Ben"].path is None or time.monotonic() - began > 4, "Ben's paths are given up", 10)
    ben.go_on()
    transfer.result(60)
    ben.until("[text for _, text, _ in heard] == ['sleep well']", 20)
    ben.run("room.chat('good morning')")
    until(lambda: texts(ada) == ["good morning"])
    assert ada.peers["Ben"].verification == words, "the same session went on"
    ben.until("len(got) == 1")


def test_peer_that_slept_too_long_is_said_to_be_gone_and_may_come_back(
    hub: HostileHub, meeting: Meeting, ben: Remote, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """F12: what can't be resumed ends with a reason on both sides, and a new session begins by itself."""
    _shorten(monkeypatch, ben)
    hub.peer_grace_s = 0.5
    monkeypatch.setattr("p2pnb.engine.member.GONE_AFTER_S", 1.0)
    monkeypatch.setattr("p2pnb.engine.link.SESSION_KEEP_S", 1.0)
    ada = meeting.create("Ada", accept=True)
    _join(meeting, ben, tmp_path / "ben")
    transfer = ada.send(b"z" * 60_000_000, "item")
    until(lambda: transfer.progress > 0, "it moves")
    ben.stop()
    hub.cut(bytes.fromhex(ada.peers["Ben"].id))  # what a hub does with a socket that answers no ping
    with pytest.raises(PeerGoneError):
        transfer.result(20)
    until(lambda: not ada.peers, "Ben is gone")
    ben.go_on()
    until(lambda: "Ben" in ada.peers and ada.peers["Ben"].state == "here", "Ben is back", 30)
    ben.until("'Ada' in room.peers and room.peers['Ada'].state == 'here'")
    ada.chat("new day")
    ben.until("[text for _, text, _ in heard] == ['new day']")
    ada.send(b"again", "again").result(10)


def test_cell_that_holds_the_interpreter_costs_no_session(
    hub: HostileHub, meeting: Meeting, ben: Remote, tmp_path: Path
) -> None:
    """F16: no other thread of Ben's gets a turn for longer than the protocol's doubt; then a busy loop in Python."""
    ada = meeting.create("Ada", accept=True)
    _join(meeting, ben, tmp_path / "ben")
    words = ada.peers["Ben"].verification
    ben.run(HOLD)
    ben.run("threading.Thread(target=hold, args=(9,)).start()")
    held_since = time.monotonic()
    transfer = ada.send(b"z" * 30_000_000, "item")
    said: list[str] = []
    while time.monotonic() - held_since < 8.5:
        said.append(str(len(said)))
        ada.chat(said[-1])
        assert ada.peers["Ben"].state in ("here", "away"), "not gone"
        time.sleep(0.5)
    ben.until(f"len(heard) == {len(said)} and len(got) == 1", 20)
    assert 8.5 < time.monotonic() - held_since < 9 + 3, "soon after the interpreter is free again"
    transfer.result(5)
    ada.chat("busy?")
    ben.run("end = time.monotonic() + 3\nwhile time.monotonic() < end: sum(range(1000))")
    ben.until("len(heard) > 1 and heard[-1][1] == 'busy?'")
    assert ben.value("[text for _, text, _ in heard]") == [*said, "busy?"]
    assert ben.value("end - heard[-1][2]") > 2, "it came while the cell was busy"
    assert ada.peers["Ben"].verification == words


@pytest.mark.parametrize("days", [-1, 1])
def test_wall_clock_set_to_another_day_changes_nothing(
    meeting: Meeting, monkeypatch: pytest.MonkeyPatch, days: int
) -> None:
    """F13."""
    ada, ben = meeting.people("Ada", "Ben", accept=True)
    transfer = ada.send(b"z" * 20_000_000, "item")
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + days * 86_400)
    ada.chat("what day is it?")
    transfer.result(20)
    until(lambda: texts(ben) == ["what day is it?"])
    assert link_of(ada, "Ben").session is not None
    see_each_other([ada, ben])
