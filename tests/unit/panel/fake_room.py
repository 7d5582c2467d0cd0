"""A room that is nothing but what the panel may use of one (`p2pnb.panel.rooms`), driven by the test."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from p2pnb.errors import UsageError, WrongCodeError
from p2pnb.protocol.wire import Preview

SECRET_WORDS = ("olive", "harbor", "tundra", "quill")


@dataclass
class FakeInvite:
    room: str = "7kq2mw4x"
    words: tuple[str, ...] = SECRET_WORDS
    hub: str = "http://127.0.0.1:8888/"
    local_only: bool = True

    @property
    def code(self) -> str:
        return "-".join((self.room, *self.words))

    @property
    def link(self) -> str:
        return f"{self.hub}p2pnb/join/{self.room}#{'-'.join(self.words)}"

    def qr_matrix(self) -> list[list[bool]]:
        return [[True, False], [False, True]]


@dataclass
class FakePeer:
    id: str = "aa"
    name: str = "Ben"
    kind: str = "kernel"
    state: str = "here"
    path: str | None = "webrtc"
    paths: tuple[str, ...] = ("webrtc", "relay")
    rtt: float | None = 0.0123456
    verification: tuple[str, ...] = ("amber", "lantern", "orbit", "willow")
    verified: bool = False
    owner: bool = False

    def verify(self, value: bool = True) -> None:
        self.verified = value


@dataclass
class FakeMessage:
    id: str
    text: str
    sender: str = "Ben"
    time: float = 1_700_000_000.0
    mine: bool = False
    private: bool = False
    to: tuple[str, ...] = ()


@dataclass
class FakeOffer:
    id: str = "o1"
    sender: str = "Ben"
    name: str = "raw"
    kind: str = "folder"
    type: str = "folder"
    size_bytes: int = 1000
    count: int = 3
    preview: Preview = field(default_factory=lambda: Preview("folder", summary="3 files"))
    answer: str = ""

    def accept(self) -> None:
        self.answer = "accepted"

    def decline(self, reason: str = "") -> None:
        self.answer = "declined"


@dataclass
class FakePart:
    state: str = "moving"
    progress: float = 0.5
    error: Exception | None = None


@dataclass
class FakeTransfer:
    id: str = "t1"
    name: str = "data.csv"
    kind: str = "file"
    direction: str = "out"
    size_bytes: int = 1000
    state: str = "moving"
    progress: float = 0.5
    rate: float = 100.0
    eta: float | None = 5.0
    per_peer: dict[str, FakePart] = field(default_factory=lambda: {"Ben": FakePart()})
    error: Exception | None = None
    sent: Any = None
    to: Any = None

    def cancel(self) -> None:
        self.state = "cancelled"


@dataclass
class FakeItem:
    name: str = "prices"
    sender: str = "Ben"
    time: float = 1_700_000_000.0
    size_bytes: int = 64
    kind: str = "object"
    type: str = "pandas.DataFrame"
    preview: Preview = field(default_factory=lambda: Preview("pandas.DataFrame", summary="2 rows × 1 column"))
    stored: Any = None

    @property
    def value(self) -> Any:
        if self.kind == "object":
            raise AssertionError("the panel may not touch the value of an object")
        return self.stored


class FakeInbox:
    def __init__(self) -> None:
        self.items: list[FakeItem] = []

    def all(self) -> list[FakeItem]:
        return list(self.items)


class FakeRoom:
    def __init__(self, folder: Path = Path("/tmp/room"), name: str = "Ada") -> None:
        self.id = "7kq2mw4x"
        self.name = name
        self.state = "open"
        self.locked = False
        self.invite = FakeInvite()
        self.peers: dict[str, FakePeer] = {"Ben": FakePeer()}
        self.messages: list[FakeMessage] = []
        self.inbox = FakeInbox()
        self.offers: list[FakeOffer] = []
        self.transfers: list[FakeTransfer] = []
        self.folder = folder
        self.said: list[tuple[str, list[str] | None]] = []
        self.left = threading.Event()
        self._callbacks: list[tuple[str, Callable[[Any], object]]] = []

    @property
    def subscriptions(self) -> int:
        return len(self._callbacks)

    def on(self, event: str, callback: Callable[[Any], object]) -> Callable[[], object]:
        entry = (event, callback)
        self._callbacks.append(entry)

        def unsubscribe() -> None:
            if entry in self._callbacks:
                self._callbacks.remove(entry)

        return unsubscribe

    def emit(self, event: str, subject: Any = None) -> None:
        for name, callback in list(self._callbacks):
            if name == event:
                callback(subject)

    def chat(self, text: str, to: Any = None) -> None:
        self.said.append((text, None if to is None else [peer.name for peer in to]))
        message = FakeMessage(id=f"m{len(self.messages)}", text=text, sender=self.name, mine=True)
        self.messages.append(message)
        self.emit("message", message)

    def send_file(self, path_or_paths: Any, to: Any = None) -> FakeTransfer:
        transfer = FakeTransfer(id=f"t{len(self.transfers)}", sent=path_or_paths, to=to)
        self.transfers.append(transfer)
        self.emit("transfer", transfer)
        return transfer

    def end(self, transfer: FakeTransfer, state: str = "done") -> None:
        transfer.state = state
        self.emit("transfer", transfer)

    def unlock(self) -> None:
        self.locked = False
        self.emit("state", self)

    def use_address(self, url: str) -> None:
        self.invite.hub = url
        self.invite.local_only = False
        self.emit("state", self)

    def leave(self, timeout: float = 2.0) -> None:
        self.state = "closed"
        self.left.set()
        self.emit("state", self)


class FakeOpener:
    """Stands for `p2pnb.create` and `p2pnb.join`."""

    def __init__(self) -> None:
        self.opened: list[FakeRoom] = []
        self.came = threading.Event()
        self.gate = threading.Event()
        self.gate.set()

    def create(self, name: str | None) -> FakeRoom:
        assert self.gate.wait(10)
        self.opened.append(FakeRoom(name=name or "somebody"))
        self.came.set()
        return self.opened[-1]

    def join(self, invite: str, name: str | None) -> FakeRoom:
        if "wrong" in invite:
            raise WrongCodeError("The secret words of this invite are not the room's.")
        if "broken" in invite:
            raise UsageError
        return self.create(name)
