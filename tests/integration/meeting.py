"""People who meet at a hub: rooms of one process, and waiting for what must come."""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

import p2pnb
from p2pnb.engine.link import Link
from p2pnb.engine.thread import engine
from p2pnb.invite import Invite
from p2pnb.room import Room
from tests.integration.hostile_hub import HostileHub

WORDS: Final = ("lighthouse", "marigolds", "thunderbolt", "quarantine")  # long: no random bytes look like them

T = TypeVar("T")
_tick = threading.Event()  # never set: its wait is a sleep that a signal can end


def until(condition: Callable[[], T], what: str = "", timeout: float = 10.0) -> T:
    """Wait until `condition` holds and return what it returned; AssertionError after `timeout` seconds."""
    end = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"not within {timeout} s: {what or condition}")
        _tick.wait(0.002)


class Meeting:
    """Rooms of this process at one hub; `end` leaves them all."""

    def __init__(self, hub: HostileHub, folder: Path) -> None:
        self.hub = hub
        self.folder = folder
        self.rooms: list[Room] = []
        self.invite: Invite | None = None

    def create(self, name: str = "Ada", **settings: Any) -> Room:
        """Open the room."""
        room = p2pnb.create(name, hub=self.hub.hub, **self._defaults(name, settings, words=WORDS))
        self.invite = room.invite
        self.rooms.append(room)
        return room

    def join(self, name: str, invite: Invite | str | None = None, **settings: Any) -> Room:
        """Join it."""
        room = p2pnb.join(invite or self._invite, name, **self._defaults(name, settings))
        self.rooms.append(room)
        return room

    def people(self, *names: str, **settings: Any) -> list[Room]:
        """Create a room as the first, join it as the others, and wait until everybody sees everybody."""
        first, *others = names
        rooms = [self.create(first, **settings), *(self.join(name, **settings) for name in others)]
        see_each_other(rooms)
        return rooms

    def wrong_invite(self) -> Invite:
        """Return the invite with one word wrong."""
        return Invite(self._invite.room, (*self._invite.words[:-1], "wrong"), self._invite.hub)

    def end(self) -> None:
        for room in self.rooms:
            room.leave()

    @property
    def _invite(self) -> Invite:
        assert self.invite is not None
        return self.invite

    def _defaults(self, name: str, settings: dict[str, Any], **more: Any) -> dict[str, Any]:
        folder = self.folder / f"{name}-{secrets.token_hex(2)}".replace("/", "_")
        return {"relay": "only", "folder": folder, **more, **settings}


def see_each_other(rooms: Sequence[Room], timeout: float = 10.0) -> None:
    """Wait until everybody has everybody else in `peers`, over a path that stands."""
    for room in rooms:
        until(
            lambda room=room: len(room.peers) == len(rooms) - 1  # type: ignore[misc]
            and all(peer.state == "here" for peer in room.peers.values()),
            f"{room.name} sees {len(rooms) - 1} others",
            timeout,
        )


def link_of(room: Room, name: str) -> Link:
    """Return what room's member has towards the peer of this name."""
    return room.peers[name]._link


def peer_id(room: Room) -> bytes:
    """Return the hub's id of this room's own peer."""
    assert room._member is not None
    return room._member.my_id


def on_engine(function: Callable[..., T], *args: Any) -> T:
    """Run a plain function on the engine's thread."""

    async def call() -> T:
        return function(*args)

    return engine().call(call(), 10)


def texts(room: Room, *, mine: bool = False) -> list[str]:
    """Return the chat that came from others (`mine`: all of it)."""
    return [message.text for message in room.messages if mine or not message.mine]


def still_lives(*rooms: Room) -> None:
    """Everybody can still say something to everybody."""
    for room in rooms:
        until(lambda room=room: len(room.peers) >= len(rooms) - 1, f"{room.name} sees the others")  # type: ignore[misc]
        said = f"still here {secrets.token_hex(8)}"
        room.chat(said)
        for other in rooms:
            if other is not room:
                until(lambda other=other, said=said: said in texts(other), f"{other.name} reads {room.name}")  # type: ignore[misc]


def leftovers(folder: Path) -> list[Path]:
    """Return what p2pnb left of unfinished files."""
    try:
        return sorted(folder.rglob("*.part")) if folder.exists() else []
    except FileNotFoundError:  # removed between being listed and being entered: look again
        return [folder]


class Errors(logging.Handler):
    """Collects what p2pnb logged at ERROR: tasks that died."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)

    def texts(self) -> list[str]:
        return [f"{record.getMessage()} {record.exc_info and record.exc_info[1]!r}" for record in self.records]
