"""A room that is nothing but what the panel may use of one (`p2pnb.panel.rooms`), driven by the test."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from p2pnb.errors import UsageError, WrongCodeError
from p2pnb.protocol.wire import Column, Preview

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
    lanes: dict[str, int] = field(default_factory=lambda: {"webrtc": 4, "relay": 1})
    engine: str = "aiortc"
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
    resumed_bytes: int = 0
    paused_here: bool = False
    paused_there: bool = False


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
    again: list[FakeTransfer] = field(default_factory=list)

    def cancel(self) -> None:
        self.state = "cancelled"

    def pause(self, *, there: bool = False) -> None:
        self.state = "paused"
        for part in self.per_peer.values():
            part.state = "paused"
            part.paused_here, part.paused_there = part.paused_here or not there, part.paused_there or there

    def resume(self) -> None:
        paused = False
        for part in self.per_peer.values():
            part.paused_here = False
            part.state = "paused" if part.paused_there else "moving"
            paused |= part.paused_there
        self.state = "paused" if paused else "moving"

    def fail(self, error: Exception) -> None:
        self.state, self.error = "failed", error
        for part in self.per_peer.values():
            part.state, part.error = "failed", error

    def retry(self) -> FakeTransfer:
        if self.state != "failed":
            raise UsageError("Only what you sent and what failed can be tried again.")
        self.again.append(FakeTransfer(id=f"{self.id}-again", name=self.name, sent=self.sent, to=self.to))
        return self.again[-1]


@dataclass
class FakeShare:
    name: str = "prices"
    owner: str = "Ben"
    mine: bool = False
    version: int = 1
    newer: bool = False
    type: str = "pandas.DataFrame"
    size_bytes: int = 64
    time: float = 1_700_000_000.0
    sliceable: bool = True
    holders: tuple[str, ...] = ("Ben",)
    preview: Preview = field(
        default_factory=lambda: Preview(
            "pandas.DataFrame", "2 rows × 2 columns", [Column("a", "int64"), Column("b", "")]
        )
    )
    pulled: list[tuple[Any, Any]] = field(default_factory=list)
    room: FakeRoom | None = None

    def pull(self, columns: Any = None, rows: Any = None) -> FakeTransfer:
        assert not self.mine
        self.pulled.append((columns, rows))
        transfer = FakeTransfer(id=f"pull{len(self.pulled)}", name=self.name, kind="object", direction="in")
        if self.room is not None:
            self.room.transfers.append(transfer)
        return transfer


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
        self.shares: dict[str, FakeShare] = {}
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

    def publish(self, key: str, share: FakeShare) -> FakeShare:
        share.room = self
        self.shares = {**self.shares, key: share}
        self.emit("share", share)
        return share

    def unshare(self, name: str) -> None:
        if name not in self.shares or not self.shares[name].mine:
            raise UsageError(f"You don't share {name!r}.")
        gone = self.shares[name]
        self.shares = {key: share for key, share in self.shares.items() if share is not gone}
        self.emit("share", gone)

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
