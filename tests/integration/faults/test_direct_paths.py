"""Direct paths: both sides at once, late comers, every size of message, paths that break again and again.

F3, F5 (a known break), F6, F22, F23, F26. What a network does to them is in `test_lab`.
"""

from __future__ import annotations

import asyncio
import inspect
import socket
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from typing import Any, Final

import pytest

import p2pnb
from p2pnb.room import Room
from tests.integration.faults.conftest import LinedMeeting
from tests.integration.faults.ledger import Ledger
from tests.integration.meeting import link_of, on_engine, still_lives, until

HAS_TCP: Final = "direct_tcp" in inspect.signature(p2pnb.create).parameters
DIRECT: Final = ("webrtc", "tcp") if HAS_TCP else ("webrtc",)
RACES: Final = 12
SIZES: Final = [
    1, 2, 1023, 16_383, 16_384, 16_385, 65_535, 65_536, 65_537, 262_143, 262_144, 262_145, 1_048_575, 1_048_577,
    8_388_609, 64 << 20,
]  # fmt: skip

Open = Callable[..., Ledger]


def _people(lined: LinedMeeting, direct: str, **settings: Any) -> tuple[Room, Room]:
    if HAS_TCP:
        settings.setdefault("direct_tcp", direct == "tcp")
    ada, ben = lined.people("Ada", "Ben", **{"relay": "fallback", "accept": True, **settings})
    _direct(ada, ben, direct)
    return ada, ben


def _direct(ada: Room, ben: Room, direct: str, timeout: float = 30) -> None:
    until(lambda: ada.peers["Ben"].path == ben.peers["Ada"].path == direct, f"both use {direct}", timeout)


def _standing(room: Room, name: str) -> Counter[str]:
    return on_engine(lambda: Counter(path.transport for path in link_of(room, name)._paths.values() if path.up))


def _break(room: Room, name: str) -> None:
    """Every direct path of this side breaks, as the kernel would tell it."""
    link = link_of(room, name)

    def act() -> None:
        for path in list(link._paths.values()):
            if path.transport != "relay":
                link.path_failed(path, "the test says so")

    on_engine(act)


@pytest.mark.slow
@pytest.mark.parametrize("direct", DIRECT)
def test_both_sides_at_once_end_with_the_same_paths_and_nothing_left(
    lined: LinedMeeting, ledger: Open, monkeypatch: pytest.MonkeyPatch, direct: str
) -> None:
    """F22: after every break both dial and offer; what stands is the same on both sides, and one of a kind."""
    monkeypatch.setattr("p2pnb.engine.upgrade.RETRY_S", (0.1, 0.2, 0.5))
    if HAS_TCP:
        monkeypatch.setattr("p2pnb.engine.direct.RETRY_S", (0.1, 0.2, 0.5))
    ada, ben = _people(lined, direct)
    book = ledger(ada, ben)
    for _ in range(RACES):
        _break(ada, "Ben")
        _break(ben, "Ada")
        book.say(ada)
        book.say(ben)
        _direct(ada, ben, direct)
        until(
            lambda: _standing(ada, "Ben") == _standing(ben, "Ada") and max(_standing(ada, "Ben").values()) == 1,
            f"one of a kind, the same on both sides: {_standing(ada, 'Ben')} and {_standing(ben, 'Ada')}",
            10,
        )
    book.send(ada, 2_000_000)
    book.settle()
    still_lives(ada, ben)


@pytest.mark.slow
@pytest.mark.parametrize("direct", DIRECT)
def test_every_size_passes_a_direct_path(lined: LinedMeeting, ledger: Open, direct: str) -> None:
    """F26: around every limit of messages and chunks."""
    ada, ben = _people(lined, direct, relay="never")
    book = ledger(ada, ben)
    for number, size in enumerate(SIZES):
        book.send(ada if number % 2 else ben, size, "file" if number % 3 == 0 else "object")
    book.settle(100)
    for transfer in book.transfers:
        assert set().union(*(part.paths for part in transfer.per_peer.values())) <= {direct, "relay"}


@pytest.mark.slow
@pytest.mark.parametrize("direct", DIRECT)
def test_direct_path_that_breaks_every_second_loses_nothing(lined: LinedMeeting, ledger: Open, direct: str) -> None:
    """F5 and F6: a known break hands over at once; bulk goes on over what stands."""
    ada, ben = _people(lined, direct)
    book = ledger(ada, ben)
    for number in range(8):
        book.send(ada, 6_000_000, "file" if number % 2 else "object")
        book.send(ben, 3_000_000)
        _break(*((ada, "Ben") if number % 2 else (ben, "Ada")))
        for room in (ada, ben):
            book.say(room)
        until(lambda: ada.peers["Ben"].path is not None, "a path carries", 1)
    book.settle(100)
    _direct(ada, ben, direct)


@pytest.mark.slow
@pytest.mark.parametrize("direct", DIRECT)
def test_hub_that_comes_and_goes_is_not_noticed_on_a_direct_path(
    lined: LinedMeeting, ledger: Open, direct: str
) -> None:
    """F3 and F4: reset, silent, then empty and new; bulk and chat go on beside it."""
    ada, ben = _people(lined, direct)
    book = ledger(ada, ben)
    for number in range(4):
        book.send(ada, 8_000_000)
        for line in lined.lines.values():
            if number == 0:
                line.cut()
            elif number == 1:
                line.hold()
            else:
                line.let_go()
        if number == 2:
            lined.hub.restart_empty()
        for _ in range(20):
            book.say(ada)
            book.say(ben)
        assert ada.peers["Ben"].path == direct
    book.settle()
    until(lambda: ada.state == ben.state == "open", "the hub is back", 40)


@pytest.mark.slow
@pytest.mark.skipif(not HAS_TCP, reason="there is no direct TCP")
def test_connection_of_an_old_generation_is_refused(
    lined: LinedMeeting, ledger: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """F23: tokens of a session that ended open nothing, not even a byte; the paths that stand don't notice."""
    module: Any = import_module("p2pnb.engine.direct")

    seen: list[tuple[str, int, bytes]] = []
    dial = module.dial

    async def noted(address: str, port: int, token: bytes) -> Any:
        seen.append((address, port, token))
        return await dial(address, port, token)

    monkeypatch.setattr(module, "dial", noted)
    ada, ben = _people(lined, "tcp")
    until(lambda: seen)
    ben.leave()
    until(lambda: not ada.peers, "Ben left")
    old = list(seen)
    carl = lined.join("Ben", relay="fallback", accept=True, direct_tcp=True)
    until(lambda: ada.peers and ada.peers["Ben"].path == "tcp", "a new session, a new path", 20)
    for address, port, token in old:
        with suppress(ConnectionRefusedError), socket.create_connection((address, port), 5) as late:
            late.settimeout(8)
            late.sendall(token + bytes(64))
            with suppress(ConnectionResetError):
                assert late.recv(1) == b"", "closed without a word"
    book = ledger(ada, carl)
    book.say(ada)
    book.send(carl, 1_000_000)
    book.settle()
    assert _standing(ada, "Ben")["tcp"] == 1


@pytest.mark.slow
@pytest.mark.skipif(not HAS_TCP, reason="there is no direct TCP")
def test_dial_that_is_late_changes_nothing_and_leaves_nothing(
    lined: LinedMeeting, ledger: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """F23: every dial is held up until its paths are of yesterday."""
    module: Any = import_module("p2pnb.engine.direct")

    dial, held = module.dial, list[bytes]()

    async def slowly(address: str, port: int, token: bytes) -> Any:
        connection = await dial(address, port, token)
        if len(held) < 6:
            held.append(token)
            await asyncio.sleep(0.4 * len(held))
        return connection

    monkeypatch.setattr(module, "dial", slowly)
    monkeypatch.setattr(module, "RETRY_S", (0.1, 0.2, 0.5))
    ada, ben = lined.people("Ada", "Ben", relay="fallback", accept=True, direct_tcp=True)
    book = ledger(ada, ben)
    for _ in range(4):
        _break(ada, "Ben")
        _break(ben, "Ada")
        book.say(ada)
        book.say(ben)
        book.send(ada, 100_000)
    _direct(ada, ben, "tcp")
    book.settle()
    until(lambda: _standing(ada, "Ben") == _standing(ben, "Ada") and _standing(ada, "Ben")["tcp"] == 1, "one is left")
